"""The frame embedder of a run: the one that was chosen, or with clip=auto one that suits the
backbone.

The embedded embedder knows the needle world alone. Behind any other backbone it would rank frames
by how they resemble cards, so it is never chosen there. Knows conf/clip and the manifest of a bank;
loads nothing but the embedder.
"""

import functools
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from encoders.conse.conse_encoder import conse_fingerprint
from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.extras import install_line
from encoders.models.clip import NoFrameEmbedder, clip_fingerprint, has_weights
from encoders.models.imagenet.lite0_package import LITE0
from encoders.schema import DualEncoder
from pipeline.config.compose import options
from pipeline.config.parts import PartSettings, check, instantiate
from pipeline.config.tasks.pipeline_settings import PipelineSettings
from pipeline.config.tasks.question_settings import FindSettings

AUTO = "auto"
# embedders that know the world, the better one first
REAL = ("b32", "conse")
_NEEDLE_WORLD = "needle_world"

log = logging.getLogger(__name__)


def build_clip(settings: PipelineSettings | FindSettings) -> DualEncoder:
    """The frame embedder; a program that opens several banks builds it once.

    UserError if its settings do not fit, or it cannot be loaded.
    """
    check("clip", settings.clip)
    if settings.clip.get("model") != AUTO:
        embedder: DualEncoder = instantiate("clip", settings.clip)
        return embedder
    node, note = _suiting(settings)
    if note:
        log.warning("reelbank: warning: %s", note)
    if node is None:
        return NoFrameEmbedder()
    own = {key: value for key, value in settings.clip.items() if key in ("device", "dtype")}
    chosen: DualEncoder = instantiate("clip", node | own)
    return chosen


def without_tokens(settings: PipelineSettings) -> PipelineSettings:
    """The settings of a run whose model is behind an address: no visual tokens are made, so nothing
    compresses, prefills or searches them. retriever=fused keeps its search by pictures alone.
    """
    node = settings.retriever
    if is_fused(node):
        node = _without_part(node, "kv")
    return settings.changed(
        compressor={"_target_": "encoders.compressors.NoCompression"},
        prefill={"_target_": "encoders.prefill.NoPrefill", "_partial_": True},
        retriever=node,
    )


def without_keys(settings: PipelineSettings) -> PipelineSettings:
    """The settings of a run whose bank encodes on demand: it has no keys that could be searched.
    retriever=fused keeps its search by pictures alone."""
    if not is_fused(settings.retriever):
        return settings
    return settings.changed(retriever=_without_part(settings.retriever, "kv"))


def is_fused(node: PartSettings) -> bool:
    """Whether the retriever of these settings has parts."""
    return str(node["_target_"]).endswith(".FusedRetriever")


def _without_part(fused: PartSettings, name: str, has_others: bool = False) -> PartSettings:
    """retriever=fused without one of its parts; without any, retriever=uniform. has_others:
    further frame embedders are parts as well."""
    parts = {key: part for key, part in fused.get("parts", {}).items() if key != name}
    if not parts and not has_others:
        return {"_target_": "memory.retrieval.uniform.UniformRetriever", "_partial_": True}
    weights = {key: weight for key, weight in fused["weights"].items() if key in parts}
    return fused | {"parts": parts, "weights": weights}


def retriever_settings(
    settings: PipelineSettings, clip: DualEncoder, has_others: bool = False
) -> PartSettings:
    """The settings of the retriever. retriever=fused goes without frame embeddings where there are
    none, and with clip=auto where they are those of the embedded embedder behind a real backbone.
    has_others: further frame embedders are parts of it as well.

    UserError if another retriever or the segmenter needs them.
    """
    node, is_chosen = settings.retriever, settings.clip.get("model") != AUTO
    has_none = isinstance(clip, NoFrameEmbedder)
    if not has_none and (is_chosen or is_of_needle_world(settings.backbone)):
        return node
    if not has_none and not is_embedded(clip):
        return node
    remedy = (
        "give clip=b32, which is fetched on first use, clip=conse with the extra pictures, or "
        "clip=embedded, which knows cards only"
    )
    if settings.segmenter["_target_"].endswith(".SceneCuts") and has_none:
        raise UserError(f"segmenter=scene needs a frame embedder, and this run has none; {remedy}.")
    if node["_target_"].endswith(".ClipRetriever"):
        raise UserError(f"retriever=clip needs a frame embedder that suits the backbone; {remedy}.")
    if "clip" not in node.get("parts", {}):
        return node
    return _without_part(node, "clip", has_others)


def _suiting(settings: PipelineSettings | FindSettings) -> tuple[PartSettings | None, str]:
    """The node of conf/clip for the backbone, or None, and what the user must know."""
    nodes = clip_options()
    is_toy = is_of_needle_world(settings.backbone)
    if is_toy and isinstance(settings, PipelineSettings):
        return nodes["embedded"], ""
    # a model behind an address has no path, and no keys
    name = Path(str(settings.backbone.get("path", "endpoint"))).name
    alone = "by their keys alone" if "path" in settings.backbone else "by the words of a film alone"
    recorded = _recorded(Path(settings.bank))
    if recorded is not None:
        is_known, option = _option_of(recorded, str(settings.clip.get("dtype")))
        if is_known and (is_toy or option != "embedded"):
            return None if option is None else nodes[option], ""
        if is_known:
            return nodes["embedded"], (
                f"bank {settings.bank} has the frame embeddings of the embedded model, which knows "
                f"cards only, so backbone {name} finds frames {alone}"
            )
    if is_toy:
        return nodes["embedded"], ""
    for option in REAL:
        if _has_weights(option):
            return nodes[option], (
                f"backbone {name} finds frames with clip={option}; clip= chooses another embedder"
            )
    return None, (
        f"backbone {name} finds frames {alone}, because the weights of clip=b32 are not on this "
        f"machine, which clip=b32 fetches; nor are those of clip=conse, for which "
        f"`{install_line(LITE0.extra)}` needs no hub"
    )


def _option_of(fingerprint: Any, dtype: str) -> tuple[bool, str | None]:
    """Whether clip=auto may have chosen the embedder of a bank, and its option in conf/clip; None
    where that is no embedder at all.
    """
    if fingerprint == NoFrameEmbedder().fingerprint():
        return True, None
    nodes = clip_options()
    for option in ("embedded", "b32"):
        if fingerprint == _fingerprint(nodes[option], dtype):
            return True, option
    is_conse = (  # last, because it reads the files of the packages
        not missing_packages()
        and fingerprint == conse_fingerprint(nodes["conse"]["classes"], dtype)
    )
    return is_conse, "conse" if is_conse else None


def _has_weights(option: str) -> bool:
    """Whether the weights of an option of REAL are on this machine."""
    if option == "conse":
        return not missing_packages()
    node = clip_options()[option]
    return has_weights(node["model"], node["pretrained"])


@functools.cache  # reading YAML takes 0.1 s, and a benchmark builds dozens of embedders
def clip_options() -> dict[str, PartSettings]:
    """Every option of conf/clip by name."""
    return options("clip", {"backbone": {"device": "cpu"}})


def is_of_needle_world(backbone: PartSettings) -> bool:
    """Whether the backbone knows the questions of the needle world alone."""
    return backbone.get("questions") == _NEEDLE_WORLD


def _fingerprint(node: PartSettings, dtype: str) -> str:
    return clip_fingerprint(node["model"], node.get("pretrained"), dtype)


def is_embedded(clip: DualEncoder) -> bool:
    """Whether this is the embedder that knows cards alone, in whatever dtype."""
    return clip.fingerprint().split("-")[0] == _fingerprint(clip_options()["embedded"], "float32")


def option_name(clip: DualEncoder) -> str:
    """The name of a frame embedder in conf/clip; "primary" where it is none of them."""
    if is_embedded(clip):
        return "embedded"
    weights = clip.fingerprint().split("-")[0]
    for name, node in clip_options().items():
        if node.get("pretrained") and _fingerprint(node, "float32") == weights:
            return name
    is_known, option = _option_of(weights, "float32")
    return option if is_known and option is not None else "primary"


def _recorded(bank: Path) -> Any:
    """The fingerprint of the embedder of a bank that exists; None if it cannot be read, which the
    bank itself reports.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((bank / "bank.json").read_bytes())["provenance"]["clip"]
    return None
