"""What is refused before anything is loaded: settings outside of their range, and parts that do not go together."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from encoders.schema import Prefill
from memory.schema import Retriever
from memory.storage.segment_codec import AtRest
from pipeline.config import units

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


def check_pairs(config: DictConfig, prefill: Prefill, retriever: Retriever, reader: Any) -> None:
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
