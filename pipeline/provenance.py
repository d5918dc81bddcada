"""The settings that a bank records (law 5): it refuses to open with other ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.models.backbone import Backbone, VideoModel
from encoders.models.loading.tower_digest import tower_digest
from encoders.schema import DualEncoder
from memory.storage import manifest
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.config.checks import scales_positions
from pipeline.config.on_demand import provenance_of_encoding
from pipeline.config.parts import PartSettings
from pipeline.config.tasks.pipeline_settings import PipelineSettings
from pipeline.kv_policy.schema import KVPolicy


def provenance(
    settings: PipelineSettings,
    backbone: VideoModel,
    clip: DualEncoder,
    policy: KVPolicy | None = None,
) -> dict[str, str | int | float | None]:
    """The settings on which a bank and its readers and writers must agree (law 5)."""
    return {
        **provenance_of_encoding(settings),
        # the name alone: a checkpoint may move, and its weights are compared next
        "model": Path(backbone.path).name,
        "weights": backbone.fingerprint(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "frame_size": _frame_size(backbone),
        "clip": clip.fingerprint(),
        "fps": float(settings.fps),
        "compressor": short(settings.compressor),
        "segmenter": short(settings.segmenter),
        "prefill": short(_without_none(settings.prefill)),
        "quantisation": str(storage_format(settings, backbone, policy)),
    }


def _without_none(prefill: PartSettings) -> PartSettings:
    """The prefill without a position that changes nothing, which banks of before do not name."""
    position = prefill.get("position")
    if position is not None and scales_positions(position):
        return prefill
    return {name: value for name, value in prefill.items() if name != "position"}


def of_any_model(
    bank: Path, own: dict[str, str | int | float | None]
) -> dict[str, str | int | float | None]:
    """The provenance of a run whose model reads no visual tokens: what a bank says of its tokens is
    right, whatever it is.

    own: of the run. A bank that does not exist yet gets it as it is.
    """
    if not (bank / manifest.NAME).is_file():
        return own
    recorded = manifest.read(bank)
    return {**recorded, **{name: own[name] for name in ("clip", "fps")}}


def of_same_tower(
    bank: Path,
    own: dict[str, str | int | float | None],
    backbone: Backbone,
    before: Backbone,
) -> dict[str, str | int | float | None]:
    """The provenance of a run whose language model is another one than the bank's, and whose visual
    tokens are the same: what concerns keys and values is as the bank has it.

    own: of the run. before: the model of the bank, without weights. UserError if the bank was not
    made with it, or if the two have other vision towers.
    """
    name = f"made_with={before.path}"
    if not (bank / manifest.NAME).is_file():
        raise UserError(f"{name} is for a bank that is there, and there is none at {bank}.")
    recorded = manifest.read(bank)
    weights = before.fingerprint()
    if recorded["weights"] != weights:
        raise UserError(
            f"bank {bank} was made with the weights {recorded['weights']}, and {name} has "
            f"{weights}; name the checkpoint that it was made with."
        )
    if tower_digest(before.path) != tower_digest(backbone.path):
        raise UserError(
            f"{backbone.path} has another vision tower than {name}, so the visual tokens of bank "
            f"{bank} are not its own; use the backbone of the bank, or another bank=DIR."
        )
    stored = ("model", "weights", "prefill", "quantisation")
    return {**own, **{key: recorded[key] for key in stored}}


def _frame_size(backbone: VideoModel) -> str:
    """ "448x252"; with a suffix where films keep their shape at about as many pixels. The suffix
    names the setting backbone.squeeze (memory/storage/manifest.py).
    """
    size = "x".join(str(side) for side in backbone.frame_size)
    return size + ("-no-squeeze" if backbone.keeps_shape else "")


def storage_format(
    settings: PipelineSettings, backbone: VideoModel, policy: KVPolicy | None = None
) -> StorageFormat:
    """How a bank stores keys, values and visual tokens; None for the type that they have anyway.
    UserError for kv_dtype= beside a policy that stores them otherwise."""
    own = str(backbone.dtype).removeprefix("torch.")
    return StorageFormat(
        kv=None if settings.kv_dtype == settings.prefill.get("dtype") else settings.kv_dtype,
        tokens=None if settings.token_dtype == own else settings.token_dtype,
        window_frames=settings.prefill.get("window_frames", 0),
        codebook=None if policy is None else policy.codebook,
        heads=None if policy is None else policy.heads,
        key_loss=None if policy is None else policy.key_loss,
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
