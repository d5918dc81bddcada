"""Settings -> objects. The only module that knows which part needs which other part.

Reads top to bottom: backbone, clip, segmenter, compressor, prefill, retriever, reader, answer,
bank, qa.
"""

import functools
import logging
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone, VideoModel
from encoders.models.clip import NoFrameEmbedder
from encoders.models.loading import retrieval_heads
from encoders.schema import DualEncoder, FrameSource, LiveSource
from encoders.segmenters import WholePatches
from encoders.sources.decoding.worker_count import AUTO as AUTO_WORKERS
from encoders.sources.decoding.worker_count import MOST_WORKERS
from encoders.sources.live.address import is_live
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.url_source import UrlSource
from encoders.sources.pictures import display_ratio
from encoders.sources.thumbnail_maker import MOST_BYTES, ThumbnailMaker, thumbnail_maker
from encoders.text.lines import TextExtractor
from memory.bank import MemoryBank
from memory.resolution.schema import Resolution
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Retriever
from memory.storage.manifest import Values
from memory.storage.segments.codebook import Codebook
from memory.union.bank_union import open_banks, refuse_unfit
from pipeline.answer.answerer import Answerer
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.film_encoder import FilmEncoder
from pipeline.answer.line_scan.schema import LineScan
from pipeline.answer.schema import Abstention, EvidenceReader, GroupReader, Reader
from pipeline.answer.strategies.schema import AnswerStrategy
from pipeline.answer.text_evidence import DEFAULT_TOKENS
from pipeline.config.checks import (
    began_at,
    check_parts,
    check_ranges,
    is_no_policy,
    pools_frames,
    scales_positions,
)
from pipeline.config.on_demand import check_on_demand
from pipeline.config.parts import PartSettings, call, check, instantiate
from pipeline.config.tasks.pipeline_settings import AUTO_TEXT, IngestSettings, PipelineSettings
from pipeline.conversation.rewriter import Rewriter
from pipeline.endpoint.endpoint import Endpoint
from pipeline.endpoint.film_pictures import FilmPictures
from pipeline.endpoint.reader import EndpointGroup, EndpointReader
from pipeline.frame_embedder import (
    build_clip,
    is_fused,
    option_name,
    retriever_settings,
    without_keys,
    without_tokens,
)
from pipeline.further_embedders import FurtherEmbedders, build_further, picture_parts
from pipeline.ingest.captions import Captions
from pipeline.ingest.deferred_encoding import with_on_demand
from pipeline.ingest.embeddings import FrameEmbedding
from pipeline.ingest.ingester import Ingester
from pipeline.ingest.text import TextExtraction
from pipeline.kv_policy.schema import KVPolicy
from pipeline.moments.local_text_model import LocalTextModel
from pipeline.picture_source import PictureSource
from pipeline.provenance import of_any_model, of_same_tower, provenance
from pipeline.qa import VideoQA
from pipeline.query.batched import BatchedQueries, BatchedTextEmbedder
from pipeline.runtime.malloc import retain_freed
from pipeline.sentence_encoder import build_sentence_encoder, fitting
from pipeline.text_model import TextModel

# frames that an answer reads by default; more frames without a needle mislead the embedded model
READ_FRAMES = 24
_LONG_S = 60.0  # a stretch of film that several workers decode for a question

log = logging.getLogger(__name__)

OWN_HEADS = "model"  # the retriever's heads are those in the folder of the checkpoint

AnyModel = Backbone | Endpoint  # in this process, or behind an address

GROUPS = (
    "backbone",
    "clip",
    "source",
    "segmenter",
    "compressor",
    "prefill",
    "kv_policy",
    "eviction_score",
    "block_score",
    "query_pool",
    "key_index",
    "retriever",
    "frame_order",
    "resolution",
    "position",
    "sparsity",
    "reader",
    "abstention",
    "answer",
    "line_scan",
)


def build_backbone(settings: PipelineSettings, *, weights: bool = True) -> AnyModel:
    """The video-LLM. It comes first, because a source delivers frames of the size of the model.

    weights: False reads none of a model in this process. `build_qa` takes it to add films to a bank
    that encodes on demand, and for nothing else.
    """
    check_ranges(settings)
    if settings.also_banks:
        refuse_unfit([settings.bank, *settings.also_banks])
    for group in GROUPS:
        check(group, getattr(settings, group))
    check("position", settings.encode_position)
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    node = settings.backbone
    if not weights and not node["_target_"].endswith(".Endpoint"):
        node = {**node, "weights": False}
    backbone: AnyModel = instantiate("backbone", node)
    _settle_allocator(settings.keep_freed_mb, backbone)
    return backbone


def _settle_allocator(requested_mb: int | None, backbone: VideoModel) -> None:
    """Set the allocator, before there are threads. UserError if keep_freed_mb= is impossible."""
    wide = backbone.device.type == "cpu" and not backbone.is_narrow
    megabytes = (1024 if wide else 0) if requested_mb is None else requested_mb
    if megabytes and not retain_freed(megabytes * 10**6) and requested_mb is not None:
        raise UserError("keep_freed_mb= cannot be set with this system's allocator; leave it out.")


def build_local(settings: PipelineSettings) -> Backbone:
    """`build_backbone` for a task that computes with the model. UserError for one elsewhere."""
    return require_local(build_backbone(settings), f"reelbank {settings.task}")


def require_local(model: AnyModel, what: str) -> Backbone:
    """The model, which is in this process. what: needs that; the subject of the error.

    UserError if it is elsewhere.
    """
    if isinstance(model, Endpoint):
        raise UserError(
            f"{what} needs a model in this process, which backbone=endpoint is not; choose another "
            "backbone="
        )
    return model


def build_line_scan(node: PartSettings, model: AnyModel) -> LineScan | None:
    """What reads every line for a question; None with line_scan=none. UserError where the model
    cannot."""
    if not node:
        return None
    check("line_scan", node)
    backbone = require_local(model, "line_scan=attention")
    scan: LineScan = call("line_scan", instantiate("line_scan", node), backbone)
    return scan


def text_model_of(model: AnyModel) -> TextModel:
    """The model as one that reads text alone, wherever it is."""
    return model if isinstance(model, Endpoint) else LocalTextModel(model)


def build_rewriter(node: PartSettings, model: AnyModel) -> Rewriter:
    """The rewriter of follow_up=. UserError where the model cannot do what it asks."""
    check("follow_up", node)
    rewriter: Rewriter = call(
        "follow_up",
        instantiate("follow_up", node),
        backbone=model,
        model=lambda: text_model_of(model),
    )
    return rewriter


def build_qa(
    settings: PipelineSettings,
    backbone: AnyModel,
    clip: DualEncoder | None = None,
    further: FurtherEmbedders | None = None,
) -> VideoQA:
    """Everything else that `ask` and `ingest` need.

    The bank comes last, and is created if it does not exist: a mistake in a part creates nothing.
    clip, further: of the same settings, if the caller has them.
    """
    encodes_later = check_on_demand(settings)
    settings = without_keys(settings) if encodes_later else settings
    clip = clip or build_clip(settings)
    further = further or build_further(settings, clip)
    if further.note:
        log.warning("reelbank: warning: %s", further.note)
    endpoint = backbone if isinstance(backbone, Endpoint) else None
    if endpoint is not None:
        _refuse_abstention(settings)
        if not settings.frame_order["_target_"].endswith(".TimeOrder"):
            raise UserError(
                "frame_order= needs a model in this process; backbone=endpoint gets pictures in "
                "time order; leave frame_order= out."
            )
        if scales_positions(settings.position):
            raise UserError(
                "position= needs a model in this process; leave it out with backbone=endpoint."
            )
        if pools_frames(settings.resolution):
            raise UserError(
                "resolution= needs a model in this process; backbone=endpoint gets pictures and "
                "pools no tokens; leave resolution= out."
            )
        if not is_no_policy(settings.kv_policy):
            raise UserError(
                "kv_policy= needs a model in this process; leave it out with backbone=endpoint."
            )
        settings = without_tokens(settings)
    segmenter = instantiate("segmenter", settings.segmenter)
    if isinstance(segmenter, functools.partial):
        segmenter = call("segmenter", segmenter, embedder=clip)
    if backbone.temporal_patch > 1:
        segmenter = WholePatches(segmenter, backbone.temporal_patch)
    compressor = instantiate("compressor", settings.compressor)
    new_prefill = instantiate("prefill", settings.prefill)
    texts = BatchedTextEmbedder(clip)
    queries = (
        None
        if isinstance(backbone, Endpoint)
        else BatchedQueries(backbone.language_model.queries_of)
    )
    others = {key: BatchedTextEmbedder(one) for key, one in further.searching.items()}
    node = _with_own_heads(
        retriever_settings(settings, clip, has_others=bool(others)), backbone.path
    )
    retriever = call(
        "retriever",
        instantiate("retriever", node),
        embedder=texts,
        queries=queries,
        **(picture_parts(others, option_name(clip)) if others and is_fused(node) else {}),
    )
    policy: KVPolicy = call(
        "kv_policy", instantiate("kv_policy", settings.kv_policy), backbone=backbone
    )
    local: Reader | None = None
    if endpoint is None:
        abstention: Abstention = call(
            "abstention", instantiate("abstention", settings.abstention), backbone=backbone
        )
        local = call(
            "reader",
            instantiate("reader", settings.reader),
            backbone,
            abstention=abstention,
            kv_policy=policy,
        )
    strategy: AnswerStrategy = instantiate("answer", settings.answer)
    resolution: Resolution = instantiate("resolution", settings.resolution)
    extractors, absent = build_extractors(settings.text), absent_extractors(settings.text)
    sentence_encoder = build_sentence_encoder(settings.dense)
    line_scan = build_line_scan(settings.line_scan, backbone)
    check_parts(
        settings,
        keeps_kv=call("prefill", new_prefill, backbone).keeps_kv,
        retriever=retriever,
        reader_needs_kv=local is not None and local.needs_kv,
        has_frame_embedder=not isinstance(clip, NoFrameEmbedder),
        backbone=None if isinstance(backbone, Endpoint) else backbone,
    )
    own = provenance(settings, backbone, clip, policy)
    _refuse_other_codebook(policy.codebook, str(own["weights"]))
    if settings.made_with:
        own = _of_same_tower(settings, backbone, own, retriever, local)
    bank = open_banks(
        [settings.bank, *settings.also_banks],
        own if endpoint is None else of_any_model(Path(settings.bank), own),
        retriever,
        codebook=policy.codebook,
        recent_frames=settings.recent_frames,
        ram_bytes=settings.ram_mb * 10**6,
        device_bytes=settings.device_mb * 10**6,
        device=None if backbone.device.type == "cpu" or policy.uses_host else backbone.device,
        prefetch_frames=settings.prefetch_frames,
        counts_frames=endpoint is not None,
        resolution=resolution,
        words=None if isinstance(backbone, Endpoint) else functools.partial(embed_words, backbone),
    )
    try:
        # now, not after an hour of encoding
        sentence_encoder = fitting(sentence_encoder, bank.text)
    except UserError:
        bank.close()
        raise
    reader: EvidenceReader
    batched_reader: GroupReader
    if local is not None:
        reader, batched_reader = local, BatchedReader(local)
    elif endpoint is not None:
        pictures = FilmPictures(PictureSource(bank.catalog), endpoint.picture_format)
        ranks = not isinstance(retriever, UniformRetriever)
        reader = asking = EndpointReader(endpoint, pictures, search_ranks=ranks)
        batched_reader = EndpointGroup(asking, endpoint.parallel)
    text = TextExtraction(
        bank,
        tuple(one for one in extractors if not isinstance(one, Captions)),
        tuple(one.with_model(bank, reader) for one in extractors if isinstance(one, Captions)),
        sentence_encoder,
        is_unasked=AUTO_TEXT in settings.text,
        absent=absent,
    )
    ingester = Ingester(
        bank=bank,
        backbone=backbone,
        segmenter=segmenter,
        compressor=compressor,
        new_prefill=lambda: call("prefill", new_prefill, backbone),
        clip=clip,
        text=text,
        further=FrameEmbedding(bank, further.encoding, further.is_unasked),
        interval=1.0 / settings.fps,
        began=began_at(settings),
        read_only=_read_only(settings, bank, own["model"]),
    )
    answerer = Answerer(
        bank=bank,
        reader=reader,
        batched_reader=batched_reader,
        queries=(
            texts.queries,
            *(one.queries for one in others.values()),
            *(() if queries is None else (queries,)),
        ),
        read_tokens=settings.read_tokens or _read_frames(backbone) * backbone.tokens_per_frame,
        cite_share=settings.cite_share,
        sentence_encoder=sentence_encoder,
        line_scan=line_scan,
        read_text_tokens=read_text_tokens(settings, backbone),
        only_cards=not backbone.reads_text and backbone.questions == "needle_world",
        raw_scores=_raw_scores(retriever),
        ranked_by=f"{node} {sorted(others)}",
        strategy=strategy,
        film_encoder=None
        if isinstance(backbone, Endpoint) or local is None
        else FilmEncoder(
            backbone,
            functools.partial(_open_film, settings, backbone),
            (lambda: call("prefill", new_prefill, backbone)) if local.needs_kv else None,
        ),
    )
    if encodes_later and not isinstance(backbone, Endpoint):
        open_stored = functools.partial(_open_stored, settings, backbone)
        ingester = with_on_demand(ingester, backbone, open_stored)
    return VideoQA(bank, ingester, answerer)


def _with_own_heads(node: PartSettings, checkpoint: str) -> PartSettings:
    """The settings of a retriever, with the file in the checkpoint's folder for heads=model."""
    own = {name: _with_own_heads(part, checkpoint) for name, part in node.get("parts", {}).items()}
    more: PartSettings = {"parts": own} if own else {}
    if node.get("heads") == OWN_HEADS:
        more["heads"] = str(Path(checkpoint) / retrieval_heads.NAME)
    return {**node, **more}


def _refuse_abstention(settings: PipelineSettings) -> None:
    """UserError: a model behind an address is told so anyway, and its logits stay there."""
    if not settings.abstention["_target_"].endswith(".NoAbstention"):
        raise UserError(
            "abstention= needs a model in this process; backbone=endpoint asks for "
            '"not in the video" already, in backbone.form=; leave abstention= out.'
        )


def _of_same_tower(
    settings: PipelineSettings,
    backbone: AnyModel,
    own: Values,
    retriever: Retriever,
    reader: Reader | None,
) -> Values:
    """The provenance of a bank that another language model made. UserError where the run reads
    more of it than visual tokens."""
    local = require_local(backbone, "made_with=")
    if reader is None or reader.needs_kv or not retriever.reads.isdisjoint({"key_means", "keys"}):
        raise UserError(
            "made_with= reads the visual tokens of a bank, as keys and values of another model fit "
            "no other; use reader=tokens, and retriever=clip or retriever=uniform."
        )
    node = {**settings.backbone, "path": settings.made_with, "weights": False}
    return of_same_tower(Path(settings.bank), own, local, instantiate("made_with", node))


def embed_words(backbone: Backbone, text: str) -> torch.Tensor:
    """[n, D] of the tokens of a text."""
    return backbone.language_model.embed(backbone.prompt.ids(text))


def _refuse_other_codebook(codebook: Codebook | None, weights: str) -> None:
    """UserError where the codebook was made of other weights than those of the run."""
    # a suffix names settings of the prompt, which change no weights
    if codebook is not None and codebook.model not in ("", weights.partition("-")[0]):
        raise UserError(
            f"The codebook of kv_policy= is of a model with the weights {codebook.model}, and this "
            f"one has {weights}; make one with `python -m "
            "pipeline.evaluation.profiles.kv_codebook`."
        )


def _raw_scores(retriever: Retriever) -> str | None:
    """The part of a retriever whose scores can be compared: ranks that are fused cannot."""
    if isinstance(retriever, FusedRetriever):
        return next(iter(retriever.parts), None)
    return None if isinstance(retriever, UniformRetriever) else ""


def _read_frames(backbone: AnyModel) -> int:
    """Frames that an answer reads by default."""
    return max(1, backbone.most_frames) if isinstance(backbone, Endpoint) else READ_FRAMES


def _read_only(settings: PipelineSettings, bank: MemoryBank, model: object) -> str:
    """Why a run cannot encode: into several banks, or with an endpoint into one of visual tokens;
    "" where it can. model: of the run."""
    if settings.made_with:
        return (
            f"bank {bank.root} was made with another language model ({settings.made_with}), so its "
            "visual tokens answer questions and no video is added; encode with that backbone=, or "
            "into another bank=DIR"
        )
    if settings.also_banks:
        return (
            f"nothing is encoded into several banks ({bank.name}); add the film to one of them, as "
            f"in `reelbank add FILM --bank {settings.bank}`"
        )
    if bank.provenance["model"] == model:
        return ""
    return (
        f"bank {bank.root} has visual tokens of backbone {bank.provenance['model']}, so "
        "backbone=endpoint answers from it but adds no video; encode with that backbone=, or into "
        "another bank=DIR"
    )


def build_extractors(nodes: dict[str, PartSettings]) -> tuple[TextExtractor, ...]:
    """The extractors of text=, in order. One that cannot work here is left out, and logged unless
    nobody asked for it (text=auto).
    """
    extractors: list[TextExtractor] = []
    for extractor in _every_extractor(nodes):
        why = extractor.missing()
        if not why:
            extractors.append(extractor)
        elif AUTO_TEXT not in nodes:
            log.warning("reelbank: warning: text=%s is left out: %s", extractor.name, why)
    return tuple(extractors)


def absent_extractors(nodes: dict[str, PartSettings]) -> tuple[tuple[TextExtractor, str], ...]:
    """The extractors of text=auto that cannot work here, each with the missing packages."""
    every = ((one, one.missing()) for one in _every_extractor(nodes)) if AUTO_TEXT in nodes else ()
    return tuple((extractor, why) for extractor, why in every if why)


def _every_extractor(nodes: dict[str, PartSettings]) -> list[TextExtractor]:
    check("text", nodes)
    return [instantiate(name, node) for name, node in nodes.items() if name != AUTO_TEXT]


def build_source(settings: IngestSettings, backbone: VideoModel) -> FrameSource:
    """The frames of the video of the settings, sized for the backbone."""
    return open_video(settings, backbone, settings.video, start=settings.start, end=settings.end)


def open_video(
    settings: PipelineSettings,
    backbone: VideoModel,
    path: str,
    *,
    start: float = 0.0,
    end: float | None = None,
    size: tuple[int, int] | None = None,
) -> FrameSource:
    """The frames of a video file, or of a part of it in seconds, sized for the backbone. size:
    (width, height) instead."""
    if size is None:
        ratio = display_ratio(Path(path)) if backbone.keeps_shape else None
        size = backbone.frame_size if ratio is None else backbone.frame_size_for(ratio)
    width, height = size
    node = settings.source
    if settings.threads and node.get("workers") == AUTO_WORKERS:
        node = {**node, "workers": min(settings.threads, MOST_WORKERS)}
    return call(
        "source",
        instantiate("source", node),
        path,
        fps=settings.fps,
        width=width,
        height=height,
        start=start,
        end=end,
    )


def _open_stored(
    settings: PipelineSettings,
    backbone: VideoModel,
    path: str,
    start: float,
    end: float | None,
    seconds: float,
) -> FrameSource:
    """The frames of a film as they were sampled when it was added, without thumbnails. seconds: of
    each stretch that a question needs; one worker decodes a few."""
    node = {key: each for key, each in settings.source.items() if not key.startswith("keep")}
    if "workers" in node and seconds < _LONG_S:
        node["workers"] = 1
    own = settings.changed(source=node)
    return open_video(own, backbone, path, start=start, end=end)


def _open_film(
    settings: PipelineSettings,
    backbone: VideoModel,
    path: str,
    fps: float,
    start: float,
    end: float,
) -> FrameSource:
    """The frames of a film at another rate, on the grid and without thumbnails."""
    node = {
        key: each
        for key, each in settings.source.items()
        if not key.startswith(("keep", "sampling"))
    }
    own = settings.changed(fps=fps, source=node)
    return open_video(own, backbone, path, start=start, end=end)


def build_thumbnail_maker(settings: PipelineSettings) -> ThumbnailMaker | None:
    """What source.keep= says, for a live source; None: a bank stores no thumbnails of it."""
    node = settings.source
    return thumbnail_maker(
        node.get("keep", "none"),
        node.get("keep_size", 480),
        node.get("keep_quality", 75),
        node.get("keep_bytes", MOST_BYTES),
    )


def read_text_tokens(settings: PipelineSettings, backbone: VideoModel) -> int:
    """Tokens of recalled text in a prompt; 0 by default for a model that reads no text."""
    if settings.read_text_tokens is not None:
        return settings.read_text_tokens
    return DEFAULT_TOKENS if backbone.reads_text else 0


def build_live(
    settings: IngestSettings, backbone: VideoModel, *, speed: float = 1.0, name: str | None = None
) -> LiveSource:
    """The video of the settings as a live source: a URL, a camera, or a file that is played.

    speed: of a file, in times real time; infinite: as fast as possible. name: of a stream in the
    bank; None: made from its address.
    """
    width, height = backbone.frame_size
    if is_live(settings.video):
        if settings.source.get("sampling") == "keyframes":
            raise UserError(
                f"source.sampling=keyframes is for files, which {settings.video} is not; leave it "
                "out"
            )
        source = UrlSource(settings.video, settings.fps, width=width, height=height, name=name)
        source.fit = backbone.frame_size_for if backbone.keeps_shape else None
        source.thumbnail = build_thumbnail_maker(settings)
        return source
    return FilePlayback(build_source(settings, backbone), speed)
