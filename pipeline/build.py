"""Config -> objects. The only place that instantiates parts, and the only one that knows which part needs which other.

Reads top to bottom: backbone, clip, segmenter, compressor, prefill, retriever, bank, reader, qa.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from encoders.schema import LiveSource
from encoders.segmenters import WholePatches
from encoders.sources.live import PlayedFile, UrlSource, is_live
from memory.bank import MemoryBank
from memory.storage.segment_codec import AtRest
from pipeline.answer.batched_reader import Together
from pipeline.answer.text_evidence import TOKENS
from pipeline.config import units
from pipeline.config.parts import call, check, part
from pipeline.config.settings import WEIGHTS
from pipeline.ingest import text as words
from pipeline.ingest.captions import Captions
from pipeline.qa import VideoQA
from pipeline.query.batched import Ahead, TextAhead
from pipeline.runtime.malloc import keep_freed

# what an answer reads by default; more frames without a needle invite the embedded model to see one
READ_FRAMES = 24

_NOT_NEGATIVE = (
    "recent_frames",
    "read_text_tokens",
    "cite_share",
    "threads",
    "ram_mb",
    "device_mb",
    "prefetch_frames",
    "keep_freed_mb",
)
GROUPS = ("backbone", "clip", "source", "segmenter", "compressor", "prefill", "retriever", "reader")


def build_backbone(config: DictConfig) -> Any:
    """The video-LLM; first, because the frame size that a source delivers is the model's."""
    check_dials(config)
    for group in GROUPS:
        check(config, group)
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    backbone = part(config, "backbone")
    _settle_allocator(config.keep_freed_mb, backbone)
    return backbone


def _settle_allocator(wanted_mb: int | None, backbone: Any) -> None:
    """Before there are threads. UserError where somebody asked for what cannot be had."""
    wide = backbone.device.type == "cpu" and not backbone.is_narrow
    megabytes = (1024 if wide else 0) if wanted_mb is None else wanted_mb
    if megabytes and not keep_freed(megabytes * 10**6) and wanted_mb is not None:
        raise UserError("keep_freed_mb= cannot be set with this system's allocator; leave it out.")


def build_clip(config: DictConfig) -> Any:
    """The frame embedder. Whoever opens one bank after another makes it once."""
    return part(config, "clip")


def build_qa(config: DictConfig, backbone: Any, clip: Any = None) -> VideoQA:
    """Everything else that `ask` and `ingest` need. Last the bank, which is created if it is not there: a mistake in a part
    creates nothing. clip: of the same settings, made before; None = made here."""
    clip = clip or build_clip(config)
    segmenter = part(config, "segmenter")
    if isinstance(segmenter, functools.partial):
        segmenter = call("segmenter", segmenter, embedder=clip)
    if backbone.temporal_patch > 1:
        segmenter = WholePatches(segmenter, backbone.temporal_patch)
    compressor = part(config, "compressor")
    new_prefill = part(config, "prefill")
    texts, queries = TextAhead(clip), Ahead(backbone.queries_of)
    retriever = call("retriever", part(config, "retriever"), embedder=texts, queries=queries)
    reader = call("reader", part(config, "reader"), backbone)
    text = words.extractors(config)
    sentences = words.sentence_encoder(config)
    check_pairs(config, call("prefill", new_prefill, backbone), retriever, reader)
    bank = MemoryBank.open(
        config.bank,
        provenance(config, backbone, clip),
        retriever,
        recent_frames=config.recent_frames,
        ram_bytes=config.ram_mb * 10**6,
        device_bytes=config.device_mb * 10**6,
        device=None if backbone.device.type == "cpu" else backbone.device,
        prefetch_frames=config.prefetch_frames,
    )
    if sentences is not None:
        try:
            # before an hour of video is encoded, not after it
            bank.refuse_other_vectors(sentences.made_with)
        except UserError:
            bank.close()
            raise
    return VideoQA(
        bank=bank,
        backbone=backbone,
        clip=clip,
        segmenter=segmenter,
        compressor=compressor,
        new_prefill=lambda: call("prefill", new_prefill, backbone),
        reader=reader,
        together=Together(reader),
        ahead=(texts.ahead, queries),
        interval=1.0 / config.fps,
        read_tokens=config.read_tokens or READ_FRAMES * backbone.tokens_per_frame,
        cite_share=config.cite_share,
        text=tuple(one for one in text if not isinstance(one, Captions)),
        described=tuple(one.bound(bank, reader) for one in text if isinstance(one, Captions)),
        sentences=sentences,
        read_text_tokens=read_text_tokens(config, backbone),
        began=began(config),
    )


def build_source(config: DictConfig, backbone: Any) -> Any:
    """The frames of config.video, sized for the backbone."""
    width, height = backbone.frame_size
    return call(
        "source",
        part(config, "source"),
        config.video,
        fps=config.fps,
        width=width,
        height=height,
        start=config.start,
        end=config.end,
    )


def read_text_tokens(config: DictConfig, backbone: Any) -> int:
    """Tokens of recalled words in a prompt. The embedded model knows its own questions and no other text."""
    if config.read_text_tokens is not None:
        return int(config.read_text_tokens)
    return 0 if Path(backbone.path).absolute() == (WEIGHTS / "video_llm").absolute() else TOKENS


def build_live(
    config: DictConfig, backbone: Any, *, speed: float = 1.0, name: str | None = None
) -> LiveSource:
    """What config.video names, as it comes: a URL or a camera, else a file that is played.

    speed: of a file, times real time; infinite = as fast as it goes. name: of a stream in the bank; None: made of its address.
    """
    width, height = backbone.frame_size
    if is_live(config.video):
        return UrlSource(config.video, config.fps, width=width, height=height, name=name)
    return PlayedFile(build_source(config, backbone), speed)


def provenance(config: DictConfig, backbone: Any, clip: Any) -> dict[str, str | int | float | None]:
    """What a bank must agree on with whoever writes to it or reads it (law 5)."""
    return {
        # a copied bank or checkpoint stays the same; the hash below tells apart
        "model": Path(backbone.path).name,
        "weights": backbone.fingerprint(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "frame_size": "x".join(str(side) for side in backbone.frame_size),
        "clip": clip.fingerprint(),
        "fps": float(config.fps),
        "compressor": short(config.compressor),
        "segmenter": short(config.segmenter),
        "prefill": short(config.prefill),
        "quantisation": str(at_rest(config, backbone)),
    }


def at_rest(config: DictConfig, backbone: Any) -> AtRest:
    """What a bank does with keys, values and visual tokens; the dtype that they have anyway is no quantisation."""
    made = str(backbone.dtype).removeprefix("torch.")
    return AtRest(
        kv=None if config.kv_dtype == config.prefill.get("dtype") else config.kv_dtype,
        tokens=None if config.token_dtype == made else config.token_dtype,
        window_frames=config.prefill.get("window_frames", 0),
    )


def short(node: DictConfig) -> str:
    """A part's settings in one line: class name and values."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    name = str(values.pop("_target_")).rsplit(".", 1)[-1]
    values = {k: v for k, v in values.items() if not k.startswith("_")}
    text = ", ".join(
        f"{k}={v}" for k, v in sorted(values.items()) if not isinstance(v, dict | list)
    )
    nested = {k: v for k, v in values.items() if isinstance(v, dict | list)}
    if nested:
        plain = json.dumps(_without_modules(nested), sort_keys=True)
        text += " " + hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{name}({text.strip()})"


def _without_modules(value: Any) -> Any:
    """Nested settings with a fixed prefix in place of the module of each part.

    A part keeps its digest when its module moves. The prefix is the module that nested parts had
    when banks began to record this digest.
    """
    if isinstance(value, list):
        return [_without_modules(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _without_modules(item) for key, item in value.items()}
    if "_target_" in plain:
        plain["_target_"] = "encoders.compress." + str(plain["_target_"]).rpartition(".")[2]
    return plain


def check_dials(config: DictConfig) -> None:
    """UserError on a dial outside its range."""
    least_of = {"fps": 1e-3, "read_tokens": 1} | dict.fromkeys(_NOT_NEGATIVE, 0)
    for name, least in least_of.items():
        if config[name] is not None and not config[name] >= least:  # refuses nan as well
            raise UserError(f"{name}={config[name]} is too small; use {least:g} or more.")
    if config.cite_share > 1:
        raise UserError(f"cite_share={config.cite_share} is too large; use a share from 0 to 1.")
    AtRest(config.kv_dtype, config.token_dtype)  # refuses what it does not know
    began(config)
    check_format(config)


def began(config: DictConfig) -> float | None:
    """Unix seconds of second 0 of the video, where the task has the dial and it was turned. UserError on what is no moment."""
    return units.moment("began", config.began) if "began" in config and config.began else None


def check_format(config: DictConfig) -> None:
    """UserError on an output format that is not there."""
    if config.format not in ("text", "json"):
        raise UserError(f"format={config.format} is not known; use text or json.")


def check_pairs(config: DictConfig, prefill: Any, retriever: Any, reader: Any) -> None:
    """UserError on parts that each work but not together: before an hour of video is encoded, not after it."""
    if not prefill.keeps_kv and "key_means" in retriever.reads:
        raise UserError(
            f"prefill=none keeps no keys and values, which {type(retriever).__name__} searches; "
            "use retriever=clip or uniform, or prefill=window."
        )
    if not prefill.keeps_kv and config.kv_dtype is not None:
        raise UserError(
            f"kv_dtype={config.kv_dtype} has no effect with prefill=none, which keeps no keys and values; leave it out."
        )
    if not {"question", "arms", "jobs", "host"} & config.keys():
        return  # whoever only encodes may choose the reader later
    if not prefill.keeps_kv and reader.needs_kv:
        raise UserError(
            "prefill=none keeps no keys and values, which reader=kv reads; use reader=tokens, or prefill=window."
        )
    if OmegaConf.select(config, "retriever.parts.kv.per_layer"):
        raise UserError(
            "retriever.parts.kv.per_layer=true has no effect in retriever=fused, which makes one ranking for all layers; "
            "use retriever=kv retriever.per_layer=true."
        )
    if config.retriever.get("per_layer") and not reader.needs_kv:
        raise UserError("retriever.per_layer=true needs reader=kv: visual tokens have no layers.")
