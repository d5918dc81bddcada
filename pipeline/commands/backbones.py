"""`reelbank backbones`: the cost and abilities of each backbone of conf/backbone.

Reads the YAML files of that folder, the published configurations of the adapters, and the
config.json of a local checkpoint, which takes precedence. Loads no weights and asks no hub.
"""

import json
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig

import conf
from encoders.errors import UserError
from encoders.models.kv_cache import KVShape
from encoders.models.language_model import other_layers
from encoders.models.loading.checkpoint import read_config
from encoders.models.video_llm import DTYPES, VideoLLM
from pipeline.config.compose import options
from pipeline.config.parts import PartSettings, check, get_object
from pipeline.config.task_settings import WEIGHTS
from pipeline.config.tasks.bank_settings import BackbonesSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat

FOLDER = Path(conf.__file__).parent / "backbone"
# rows of the table: families in this order, others after them
_ORDER = (
    "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5",
    "qwen3_5_moe", "internvl", "smolvlm", "glm4v", "video_llama_3",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """One row of the table. A "frame" is a temporal patch if the model merges sampled frames."""

    name: str
    family: str  # transformers' model type
    path: str  # hub id or folder
    layers: int
    kv_heads: int
    head_width: int
    kv_bytes_per_token: int  # of keys and values, in the bank's dtype; 0 for a bank that keeps none
    tokens_per_frame: int  # visual tokens before compression
    sampled_frames_per_frame: int  # above 1: a temporal patch
    kv_bytes_per_hour: int  # of visual tokens, at the given rate; time tags come on top
    readers: tuple[str, ...]
    checked_equal: bool  # to transformers' own forward, by tests
    source: str  # where the sizes come from: "config.json" or "published"


def all_facts(fps: float, dtype: str | None) -> list[Facts]:
    """Every backbone of conf/backbone: the embedded one, then by family and published size."""
    settings = nodes(fps)

    def place(name: str) -> tuple[bool, int, int, str]:
        adapter, path = _adapter(settings[name]), settings[name]["path"]
        family = _ORDER.index(adapter.family) if adapter.family in _ORDER else len(_ORDER)
        sizes = list(adapter.published)
        return name != "embedded", family, sizes.index(path) if path in sizes else len(sizes), name

    return [facts(settings[name], fps, dtype, name) for name in sorted(settings, key=place)]


def facts(node: PartSettings, fps: float, dtype: str | None, name: str | None = None) -> Facts:
    """The row of a backbone. dtype: of the stored keys and values, None if the bank has none.

    UserError when the path is no checkpoint of the family, or its sizes are unknown.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"prefill.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
    if not 0 < fps < inf:
        raise UserError(f"fps={fps} is not a rate; use a number above 0, 1 is usual.")
    adapter = _adapter(node)
    config, source = _config(node, adapter)
    if name is None:
        names = (option for option, own in nodes(fps).items() if own["path"] == node["path"])
        name = next(names, Path(node["path"]).name)
    shape, merged = KVShape.of(config), int(getattr(config.vision_config, "temporal_patch_size", 1))
    tokens = adapter.frame_tokens(config, int(node.get("width") or 0), int(node.get("height") or 0))
    keeps_kv = dtype is not None and not other_layers(config.get_text_config())
    per_token = shape.nbytes(DTYPES[dtype]) if dtype and keeps_kv else 0
    readers = ("kv", "tokens") if keeps_kv else ("tokens",)
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
        kv_bytes_per_hour=round(per_token * tokens * 3600 * fps / merged),
        readers=readers,
        checked_equal=adapter.checked_equal,
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
        str(row.tokens_per_frame),
        str(row.sampled_frames_per_frame),
        f"{row.kv_bytes_per_hour / 1e9:.2f} GB",
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
    stored = (
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
        f"{stored}, before compression; text around frames (time tags, marks) comes on top. "
        f"A frame that holds two sampled frames is a temporal patch.\nSizes from {sources}. "
        "Checked equal: to transformers' own forward from pixels, by tests on small random models."
    )


def nodes(fps: float) -> dict[str, PartSettings]:
    """The settings of every YAML of a model with a checkpoint, by name: not of endpoint.yaml."""
    every = options("backbone", {"fps": fps})
    return {name: node for name, node in every.items() if "path" in node}


def _adapter(node: PartSettings) -> type[VideoLLM]:
    adapter: type[VideoLLM] = get_object(node["_target_"])
    return adapter


def _config(node: PartSettings, adapter: type[VideoLLM]) -> tuple[PreTrainedConfig, str]:
    """The configuration of a checkpoint, and its source: "config.json" or "published"."""
    path = node["path"]
    if Path(path).is_dir() or path.startswith(("/", ".", "~")):
        return read_config(path, adapter.family), "config.json"
    try:
        # the hub's cache
        return read_config(
            path, adapter.family, node.get("revision"), local_only=True
        ), "config.json"
    except UserError as error:
        config = adapter.published_config(path)
        if config is None:
            raise UserError(
                f"Nothing is known of {path} here: it is no folder, and neither in the hub's cache "
                "nor among the published sizes; give backbone.path=DIR, a folder with a "
                "config.json."
            ) from error
        return config, "published"


def run(settings: BackbonesSettings) -> int:
    """reelbank backbones."""
    if settings.backbone is not None:
        check("backbone", settings.backbone)
        if "path" not in settings.backbone:
            raise UserError(
                "backbone=endpoint has no row: what a model behind an address costs, its server "
                "knows."
            )
    check("prefill", settings.prefill)
    dtype = settings.prefill.get("dtype")
    if settings.backbone is None:
        rows = all_facts(settings.fps, dtype)
    else:
        rows = [facts(settings.backbone, settings.fps, dtype)]
    if settings.format == OutputFormat.json:
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
    else:  # as Markdown, to read, paste and cut by column
        for cells in (HEADS, ("---",) * len(HEADS), *(as_row(row) for row in rows)):
            print("| " + " | ".join(cells) + " |")
        print()
    print(legend(settings.fps, dtype, rows))
    return 0
