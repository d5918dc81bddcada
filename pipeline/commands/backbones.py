"""What each backbone of conf/backbone costs and can do, without its weights and without a network.

Knows the YAML files of that folder, the published sizes (encoders/models/published_configs.py) and, where there is one, a checkpoint's own
config.json, which goes first. Loads no weights and asks no hub.
"""

import json
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import conf
from encoders.errors import UserError
from encoders.models.checkpoint import read_config
from encoders.models.kv_cache import KVShape
from encoders.models.published_configs import PUBLISHED, frame_tokens, published
from encoders.models.video_llm import DTYPES, other_layers
from pipeline.config.compose import options
from pipeline.config.parts import PartSettings, check
from pipeline.config.settings import WEIGHTS, BackbonesSettings

FOLDER = Path(conf.__file__).parent / "backbone"
# Adapters whose logits tests compare with transformers' own forward from pixels (tests/laws/test_1_exact.py and
# test_families.py); tests/contracts/test_backbones.py fails when this list and those tests disagree.
CHECKED = {
    "encoders.models.internvl.InternVL",
    "encoders.models.llava_onevision.LlavaOneVision",
    "encoders.models.qwen_vl.Qwen2VL",
    "encoders.models.qwen_vl.Qwen25VL",
    "encoders.models.qwen_vl.Qwen3VL",
    "encoders.models.smolvlm.SmolVLM",
}


@dataclass(frozen=True)
class Facts:
    """One row of `reelbank backbones`. A "frame" is a temporal patch where the model merges sampled frames."""

    name: str
    family: str  # transformers' model type
    path: str  # hub id or folder
    layers: int
    kv_heads: int
    head_width: int
    kv_bytes_per_token: int  # of keys and values, in the bank's dtype; 0 for a bank that keeps none
    # visual tokens before compression; None for a family whose rule is not known
    tokens_per_frame: int | None
    sampled_frames_per_frame: int  # above 1: a temporal patch
    kv_bytes_per_hour: int | None  # of visual tokens, at the given rate; time tags come on top
    readers: tuple[str, ...]
    checked_equal: bool  # to transformers' own forward, by tests
    source: str  # where the sizes come from: "config.json" or "published"


def all_facts(fps: float, dtype: str | None) -> list[Facts]:
    """Every backbone of conf/backbone: the embedded one, then in the order of the published sizes."""
    known = nodes(fps)
    places = {path: place for place, path in enumerate(PUBLISHED)}
    names = sorted(
        known,
        key=lambda name: (name != "embedded", places.get(known[name]["path"], len(places)), name),
    )
    return [facts(known[name], fps, dtype, name) for name in names]


def facts(node: PartSettings, fps: float, dtype: str | None, name: str | None = None) -> Facts:
    """The row of a backbone's settings; dtype: of the bank, None when it keeps no keys and values. UserError when the
    settings' path is no checkpoint of the family, or nothing is known of it here."""
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"prefill.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
    if not 0 < fps < inf:
        raise UserError(f"fps={fps} is not a rate; use a number above 0, 1 is usual.")
    config, source = _config(node)
    if name is None:
        known = (other for other, said in nodes(fps).items() if said["path"] == node["path"])
        name = next(known, Path(node["path"]).name)
    shape, merged = KVShape.of(config), int(getattr(config.vision_config, "temporal_patch_size", 1))
    tokens = frame_tokens(config, int(node.get("width") or 0), int(node.get("height") or 0))
    per_token = shape.nbytes(DTYPES[dtype]) if dtype else 0
    readers = (
        ("kv", "tokens") if dtype and not other_layers(config.get_text_config()) else ("tokens",)
    )
    return Facts(
        name=name,
        family=config.model_type,
        path=node["path"],
        layers=shape.layers,
        kv_heads=shape.heads,
        head_width=shape.width,
        kv_bytes_per_token=per_token,
        tokens_per_frame=tokens,
        sampled_frames_per_frame=merged,
        kv_bytes_per_hour=None
        if tokens is None
        else round(per_token * tokens * 3600 * fps / merged),
        readers=readers,
        checked_equal=node["_target_"] in CHECKED and _is_there(node["_target_"]),
        source=source,
    )


def as_row(row: Facts) -> tuple[str, ...]:
    """A row as text, in the order of HEADS."""
    return (
        row.name,
        row.family,
        "shipped" if row.path.startswith(str(WEIGHTS)) else row.path,
        f"{row.layers} x {row.kv_heads} x {row.head_width}",
        f"{row.kv_bytes_per_token:,}",
        "?" if row.tokens_per_frame is None else str(row.tokens_per_frame),
        str(row.sampled_frames_per_frame),
        "?" if row.kv_bytes_per_hour is None else f"{row.kv_bytes_per_hour / 1e9:.2f} GB",
        ", ".join(row.readers),
        "yes" if row.checked_equal else "no",
    )


HEADS = (
    "backbone",
    "family",
    "hub id",
    "layers x KV heads x width",
    "KV bytes per token",
    "tokens per frame",
    "sampled frames in one",
    "KV per hour",
    "readers",
    "checked equal",
)


def legend(fps: float, dtype: str | None, rows: list[Facts]) -> str:
    """What the columns mean, and where the numbers come from."""
    kept = (
        f"KV: keys and values of visual tokens in {dtype}, at fps={fps:g}"
        if dtype
        else "KV: prefill=none keeps none"
    )
    origin = {
        "published": "the configurations that the authors published",
        "config.json": "the checkpoint's config.json",
    }
    sources = " and ".join(
        text for name, text in origin.items() if any(row.source == name for row in rows)
    )
    return (
        f"{kept}, before compression; text around frames (time tags, marks) comes on top. A frame that holds two sampled "
        f"frames is a temporal patch.\nSizes from {sources}. Checked equal: to transformers' own forward from pixels, by tests "
        "on small random models."
    )


def nodes(fps: float) -> dict[str, PartSettings]:
    """The settings of every YAML, by name."""
    return options("backbone", {"fps": fps})


def _config(node: PartSettings) -> tuple[Any, str]:
    """The configuration behind a backbone's settings, and where it was found."""
    path, family = node["path"], _families().get(node["_target_"])
    if Path(path).is_dir() or path.startswith(("/", ".", "~")):
        return read_config(path, family), "config.json"
    try:
        # the hub's cache
        return read_config(path, family, node.get("revision"), local_only=True), "config.json"
    except UserError as error:
        config = published(path)
        if config is None:
            raise UserError(
                f"Nothing is known of {path} here: it is no folder, and neither in the hub's cache nor among the published "
                "sizes; give backbone.path=DIR, a folder with a config.json."
            ) from error
        return config, "published"


def _families() -> dict[str, str]:
    """Adapter -> the model type that it takes, from the YAML files that name a published model."""
    every = nodes(1.0).values()
    return {
        node["_target_"]: PUBLISHED[node["path"]]["model_type"]
        for node in every
        if node["path"] in PUBLISHED
    }


def _is_there(target: str) -> bool:
    module, _, name = target.rpartition(".")
    return find_spec(module) is not None and hasattr(import_module(module), name)


def run(config: BackbonesSettings) -> int:
    """reelbank backbones."""
    if config.backbone is not None:
        check("backbone", config.backbone)
    check("prefill", config.prefill)
    dtype = config.prefill.get("dtype")
    if config.backbone is None:
        rows = all_facts(config.fps, dtype)
    else:
        rows = [facts(config.backbone, config.fps, dtype)]
    if config.format == "json":
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    console = Console()
    if console.is_terminal:
        table = Table()
        for head in HEADS:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*as_row(row))
        console.print(table)
    else:  # as Markdown: to read, to paste and to cut by column
        for cells in (HEADS, ("---",) * len(HEADS), *(as_row(row) for row in rows)):
            print("| " + " | ".join(cells) + " |")
        print()
    print(legend(config.fps, dtype, rows))
    return 0
