"""What a bank records of the settings that made it (law 5): anything else is refused when it is opened."""

import hashlib
import json
from pathlib import Path
from typing import Any

from encoders.models.backbone import Backbone
from encoders.schema import DualEncoder
from memory.storage.segment_codec import StorageFormat
from pipeline.config.parts import PartSettings
from pipeline.config.settings import PipelineSettings


def provenance(
    settings: PipelineSettings, backbone: Backbone, clip: DualEncoder
) -> dict[str, str | int | float | None]:
    """What a bank must agree on with whoever writes to it or reads it (law 5)."""
    return {
        # a copied bank or checkpoint stays the same; the hash below tells apart
        "model": Path(backbone.path).name,
        "weights": backbone.fingerprint(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "frame_size": "x".join(str(side) for side in backbone.frame_size),
        "clip": clip.fingerprint(),
        "fps": float(settings.fps),
        "compressor": short(settings.compressor),
        "segmenter": short(settings.segmenter),
        "prefill": short(settings.prefill),
        "quantisation": str(storage_format(settings, backbone)),
    }


def storage_format(settings: PipelineSettings, backbone: Backbone) -> StorageFormat:
    """What a bank does with keys, values and visual tokens; the dtype that they have anyway is no quantisation."""
    made = str(backbone.dtype).removeprefix("torch.")
    return StorageFormat(
        kv=None if settings.kv_dtype == settings.prefill.get("dtype") else settings.kv_dtype,
        tokens=None if settings.token_dtype == made else settings.token_dtype,
        window_frames=settings.prefill.get("window_frames", 0),
    )


def short(node: PartSettings) -> str:
    """A part's settings in one line: class name and values."""
    name = str(node["_target_"]).rsplit(".", 1)[-1]
    values = {k: v for k, v in node.items() if not k.startswith("_")}
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
