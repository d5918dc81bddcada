"""Settings -> objects. The only module that knows which part needs which other part.

Reads top to bottom: backbone, clip, segmenter, compressor, prefill, retriever, bank, reader, qa.
"""

import functools
import logging
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import DualEncoder, FrameSource, LiveSource
from encoders.segmenters import WholePatches
from encoders.sources.live.address import is_live
from encoders.sources.live.file_playback import FilePlayback
from encoders.sources.live.url_source import UrlSource
from encoders.sources.pictures import display_ratio
from encoders.text.lines import SentenceEncoder, TextExtractor
from memory.bank import MemoryBank
from pipeline.answer.answerer import Answerer
from pipeline.answer.batched_reader import BatchedReader
from pipeline.answer.text_evidence import DEFAULT_TOKENS
from pipeline.config.checks import began_at, check_parts, check_ranges
from pipeline.config.parts import PartSettings, call, check, instantiate
from pipeline.config.settings import IngestSettings, PipelineSettings
from pipeline.frame_embedder import build_clip, retriever_settings
from pipeline.ingest.captions import Captions
from pipeline.ingest.ingester import Ingester
from pipeline.ingest.text import TextExtraction
from pipeline.provenance import provenance
from pipeline.qa import VideoQA
from pipeline.query.batched import BatchedQueries, BatchedTextEmbedder
from pipeline.runtime.malloc import retain_freed

# frames that an answer reads by default; more frames without a needle mislead the embedded model
READ_FRAMES = 24

log = logging.getLogger(__name__)

GROUPS = ("backbone", "clip", "source", "segmenter", "compressor", "prefill", "retriever", "reader")


def build_backbone(settings: PipelineSettings) -> Backbone:
    """The video-LLM. It comes first, because a source delivers frames of the size of the model."""
    check_ranges(settings)
    for group in GROUPS:
        check(group, getattr(settings, group))
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    backbone = instantiate("backbone", settings.backbone)
    _settle_allocator(settings.keep_freed_mb, backbone)
    return backbone


def _settle_allocator(requested_mb: int | None, backbone: Backbone) -> None:
    """Set the allocator, before there are threads. UserError if keep_freed_mb= is impossible."""
    wide = backbone.device.type == "cpu" and not backbone.language_model.is_narrow
    megabytes = (1024 if wide else 0) if requested_mb is None else requested_mb
    if megabytes and not retain_freed(megabytes * 10**6) and requested_mb is not None:
        raise UserError("keep_freed_mb= cannot be set with this system's allocator; leave it out.")


def build_qa(
    settings: PipelineSettings, backbone: Backbone, clip: DualEncoder | None = None
) -> VideoQA:
    """Everything else that `ask` and `ingest` need.

    The bank comes last, and is created if it does not exist: a mistake in a part creates nothing.
    clip: of the same settings, if the caller has it.
    """
    clip = clip or build_clip(settings)
    segmenter = instantiate("segmenter", settings.segmenter)
    if isinstance(segmenter, functools.partial):
        segmenter = call("segmenter", segmenter, embedder=clip)
    if backbone.temporal_patch > 1:
        segmenter = WholePatches(segmenter, backbone.temporal_patch)
    compressor = instantiate("compressor", settings.compressor)
    new_prefill = instantiate("prefill", settings.prefill)
    texts, queries = BatchedTextEmbedder(clip), BatchedQueries(backbone.language_model.queries_of)
    retriever = call(
        "retriever",
        instantiate("retriever", retriever_settings(settings, clip)),
        embedder=texts,
        queries=queries,
    )
    reader = call("reader", instantiate("reader", settings.reader), backbone)
    extractors = build_extractors(settings.text)
    sentence_encoder = build_sentence_encoder(settings.dense)
    check_parts(
        settings,
        keeps_kv=call("prefill", new_prefill, backbone).keeps_kv,
        retriever=retriever,
        reader_needs_kv=reader.needs_kv,
        backbone=backbone,
    )
    bank = MemoryBank.open(
        settings.bank,
        provenance(settings, backbone, clip),
        retriever,
        recent_frames=settings.recent_frames,
        ram_bytes=settings.ram_mb * 10**6,
        device_bytes=settings.device_mb * 10**6,
        device=None if backbone.device.type == "cpu" else backbone.device,
        prefetch_frames=settings.prefetch_frames,
    )
    if sentence_encoder is not None:
        try:
            # now, not after an hour of encoding
            bank.text.refuse_other_vectors(sentence_encoder.made_with)
        except UserError:
            bank.close()
            raise
    text = TextExtraction(
        bank,
        tuple(one for one in extractors if not isinstance(one, Captions)),
        tuple(one.with_model(bank, reader) for one in extractors if isinstance(one, Captions)),
        sentence_encoder,
    )
    ingester = Ingester(
        bank=bank,
        backbone=backbone,
        segmenter=segmenter,
        compressor=compressor,
        new_prefill=lambda: call("prefill", new_prefill, backbone),
        clip=clip,
        text=text,
        interval=1.0 / settings.fps,
        began=began_at(settings),
    )
    answerer = Answerer(
        bank=bank,
        reader=reader,
        batched_reader=BatchedReader(reader),
        queries=(texts.queries, queries),
        read_tokens=settings.read_tokens or READ_FRAMES * backbone.tokens_per_frame,
        cite_share=settings.cite_share,
        sentence_encoder=sentence_encoder,
        read_text_tokens=read_text_tokens(settings, backbone),
    )
    return VideoQA(bank, ingester, answerer)


def build_extractors(nodes: dict[str, PartSettings]) -> tuple[TextExtractor, ...]:
    """The extractors of text=, in order. One that cannot work here is logged and left out."""
    check("text", nodes)
    extractors: list[TextExtractor] = []
    for name, node in nodes.items():
        extractor: TextExtractor = instantiate(name, node)
        why = extractor.missing()
        if why:
            log.warning("reelbank: warning: text=%s is left out: %s", name, why)
        else:
            extractors.append(extractor)
    return tuple(extractors)


def build_sentence_encoder(node: PartSettings) -> SentenceEncoder | None:
    """The sentence encoder of dense=; None where lines are searched by their words alone.

    UserError when it cannot work here.
    """
    check("dense", node)
    return instantiate("dense", node) if node else None


def build_source(settings: IngestSettings, backbone: Backbone) -> FrameSource:
    """The frames of the video of the settings, sized for the backbone."""
    return open_video(settings, backbone, settings.video, start=settings.start, end=settings.end)


def open_video(
    settings: PipelineSettings,
    backbone: Backbone,
    path: str,
    *,
    start: float = 0.0,
    end: float | None = None,
) -> FrameSource:
    """The frames of a video file, or of a part of it in seconds, sized for the backbone."""
    ratio = display_ratio(Path(path)) if backbone.keeps_shape else None
    width, height = backbone.frame_size if ratio is None else backbone.frame_size_for(ratio)
    return call(
        "source",
        instantiate("source", settings.source),
        path,
        fps=settings.fps,
        width=width,
        height=height,
        start=start,
        end=end,
    )


def read_text_tokens(settings: PipelineSettings, backbone: Backbone) -> int:
    """Tokens of recalled text in a prompt; 0 by default for a model that reads no text."""
    if settings.read_text_tokens is not None:
        return settings.read_text_tokens
    return DEFAULT_TOKENS if backbone.reads_text else 0


def build_live(
    settings: IngestSettings, backbone: Backbone, *, speed: float = 1.0, name: str | None = None
) -> LiveSource:
    """The video of the settings as a live source: a URL, a camera, or a file that is played.

    speed: of a file, in times real time; infinite: as fast as possible. name: of a stream in the
    bank; None: made from its address.
    """
    width, height = backbone.frame_size
    if is_live(settings.video):
        source = UrlSource(settings.video, settings.fps, width=width, height=height, name=name)
        source.fit = backbone.frame_size_for if backbone.keeps_shape else None
        return source
    return FilePlayback(build_source(settings, backbone), speed)
