"""Config -> objects. The only place that instantiates parts, and the only one that knows which part needs which other.

Reads top to bottom: backbone, clip, segmenter, compressor, prefill, retriever, bank, reader, qa.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from memory.bank import MemoryBank
from pipeline.qa import VideoQA


READ_FRAMES = 40  # what an answer reads by default; the embedded model was trained on up to as many


def part(config: DictConfig, group: str) -> Any:
    """Instantiate a group's node. UserError names the group when its values do not fit."""
    try:
        return instantiate(config[group])
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        first = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"{group}= cannot be built from its settings: {first}") from error


def call(config: DictConfig, group: str, partial: Any, *args: Any, **kwargs: Any) -> Any:
    """Finish a partial part with its partners."""
    try:
        return partial(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{group}= cannot be built from its settings: {error}") from error


def build_backbone(config: DictConfig) -> Any:
    """The video-LLM; first, because the frame size that a source delivers is the model's."""
    check_dials(config)
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    return part(config, "backbone")


def build_qa(config: DictConfig, backbone: Any) -> VideoQA:
    """Everything else that `ask` and `ingest` need. The bank is created if it is not there."""
    clip = part(config, "clip")
    segmenter = part(config, "segmenter")
    if isinstance(segmenter, functools.partial):
        segmenter = call(config, "segmenter", segmenter, embedder=clip)
    compressor = part(config, "compressor")
    new_prefill = part(config, "prefill")
    retriever = call(config, "retriever", part(config, "retriever"), embedder=clip, queries=backbone.queries)
    bank = MemoryBank.open(
        config.bank,
        provenance(config, backbone, clip),
        retriever,
        recent_frames=config.recent_frames,
    )
    return VideoQA(
        bank=bank,
        backbone=backbone,
        clip=clip,
        segmenter=segmenter,
        compressor=compressor,
        new_prefill=lambda: call(config, "prefill", new_prefill, backbone),
        reader=call(config, "reader", part(config, "reader"), backbone),
        interval=1.0 / config.fps,
        read_tokens=config.read_tokens or READ_FRAMES * backbone.tokens_per_frame,
        cite_share=config.cite_share,
    )


def build_source(config: DictConfig, backbone: Any) -> Any:
    """The frames of config.video, sized for the backbone."""
    width, height = backbone.frame_size
    return call(
        config,
        "source",
        part(config, "source"),
        config.video,
        fps=config.fps,
        width=width,
        height=height,
        start=config.start,
        end=config.end,
    )


def provenance(config: DictConfig, backbone: Any, clip: Any) -> dict[str, str | int | float | None]:
    """What a bank must agree on with whoever writes to it or reads it (law 5)."""
    return {
        "model": Path(backbone.path).name,  # a copied bank or checkpoint stays the same; the hash below tells apart
        "weights": backbone.fingerprint(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "clip": clip.fingerprint(),
        "fps": float(config.fps),
        "compressor": short(config.compressor),
        "segmenter": short(config.segmenter),
        "prefill": short(config.prefill),
        "quantisation": "none",
    }


def short(node: DictConfig) -> str:
    """A part's settings in one line: class name and values."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    name = str(values.pop("_target_")).rsplit(".", 1)[-1]
    values = {k: v for k, v in values.items() if not k.startswith("_")}
    text = ", ".join(f"{k}={v}" for k, v in sorted(values.items()) if not isinstance(v, dict | list))
    nested = {k: v for k, v in values.items() if isinstance(v, dict | list)}
    if nested:
        text += " " + hashlib.sha256(json.dumps(nested, sort_keys=True).encode()).hexdigest()[:8]
    return f"{name}({text.strip()})"


def check_dials(config: DictConfig) -> None:
    """UserError on a dial outside its range."""
    for name, least in (("fps", 1e-3), ("read_tokens", 1), ("recent_frames", 0), ("cite_share", 0), ("threads", 0)):
        if config[name] is not None and config[name] < least:
            raise UserError(f"{name}={config[name]} is too small; use {least:g} or more.")
    if config.format not in ("text", "json"):
        raise UserError(f"format={config.format} is not known; use text or json.")
