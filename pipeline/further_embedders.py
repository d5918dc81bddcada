"""The frame embedders of a run beside the primary one: those that clip=[A,B] names, or with
clip=auto what suits films of the world and what the bank has rows of.

Knows conf/clip and the keys of embedders in a bank; loads nothing but embedders.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.models.clip import has_weights
from encoders.schema import DualEncoder, FrameEmbedder, embedder_key, embedder_name
from memory.embeddings.store import embedders_in
from memory.retrieval.clip import OWN_ROWS, ClipRetriever
from pipeline.config.parts import PartSettings, check, instantiate
from pipeline.config.tasks.pipeline_settings import PipelineSettings
from pipeline.config.tasks.question_settings import FindSettings
from pipeline.frame_embedder import (
    AUTO,
    clip_options,
    is_embedded,
    is_of_needle_world,
    option_name,
)
from pipeline.moments.frame_channels import Embedders
from pipeline.query.picture_weights import picture_weights

# what clip=auto adds to films that are encoded, where its extra is installed
WORLD = "conse"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FurtherEmbedders:
    """Frame embedders beside the primary one, by their keys."""

    encoding: Mapping[str, DualEncoder] = field(default_factory=dict)  # of films that are encoded
    searching: Mapping[str, DualEncoder] = field(default_factory=dict)  # of questions
    is_unasked: bool = False  # True: clip=auto chose them
    note: str = ""  # what the user must know


def build_further(settings: PipelineSettings | FindSettings, clip: DualEncoder) -> FurtherEmbedders:
    """The further embedders of a run. clip: the primary one.

    UserError if settings do not fit, or if an embedder that was asked for cannot be loaded.
    """
    check("further_clips", settings.further_clips)
    stored = _stored(settings)
    if settings.further_clips or settings.clip.get("model") != AUTO:
        asked = _by_key(
            (name, instantiate(f"further_clips.{name}", node))
            for name, node in settings.further_clips.items()
        )
        asked = {key: one for key, one in asked.items() if _differs(one, clip)}
        return FurtherEmbedders(asked, asked, note=_left_out(stored - asked.keys(), {}))
    found, reasons = dict[str, DualEncoder](), dict[str, str]()
    chosen = {WORLD} if _suits(settings, clip) else set[str]()
    for name in sorted({embedder_name(key) for key in stored} | chosen):
        built = _available(name, settings.clip.get("device"))
        if isinstance(built, str):
            reasons[name] = built
        elif _differs(built, clip):
            found |= _by_key([(name, built)])
    return FurtherEmbedders(
        {key: one for key, one in found.items() if embedder_name(key) in chosen},
        {key: one for key, one in found.items() if key in stored or embedder_name(key) in chosen},
        is_unasked=True,
        note=_left_out(stored - found.keys(), reasons),
    )


def search_embedders(settings: FindSettings, clip: DualEncoder) -> Embedders:
    """The frame embedders of a search of a bank that exists. clip: its primary one.

    UserError as `build_further`.
    """
    further, stored = build_further(settings, clip), _stored(settings)
    absent = [embedder_name(key) for key in further.searching if key not in stored]
    notes = [further.note]
    if absent:
        names = ",".join([option_name(clip), *absent])
        notes.append(
            f"bank {settings.bank} has no pictures by {', '.join(absent)}; "
            f"`reelbank add FILM clip=[{names}]` adds them"
        )
    return Embedders(
        clip,
        option_name(clip),
        {key: one for key, one in further.searching.items() if key in stored},
        "; ".join(filter(None, notes)),
    )


def picture_parts(others: Mapping[str, FrameEmbedder], primary: str) -> dict[str, Any]:
    """What FusedRetriever takes beside its own parts. others: further embedders by their keys.
    primary: name of the primary one, which is the part clip.
    """
    further = {
        embedder_name(key): ClipRetriever(embedder=embedder, rows=key)
        for key, embedder in others.items()
    }

    def shares_of(text: str) -> dict[str, float]:
        weights = picture_weights(text, (primary, *further))
        return weights | {OWN_ROWS: weights[primary]}

    return {"further": further, "shares_of": shares_of}


def _stored(settings: PipelineSettings | FindSettings) -> set[str]:
    """Keys of the further embedders whose rows the banks have."""
    banks = (settings.bank, *settings.also_banks)
    return {key for bank in banks for key in embedders_in(Path(bank))}


def _suits(settings: PipelineSettings | FindSettings, clip: DualEncoder) -> bool:
    """Whether films that are encoded get rows of WORLD unasked: they show the world, and the
    primary embedder knows nothing of it.
    """
    if isinstance(settings, FindSettings) or not settings.encodes_the_world:
        return False
    return is_of_needle_world(settings.backbone) and is_embedded(clip)


def _available(name: str, device: Any) -> DualEncoder | str:
    """The embedder of an option of conf/clip, or why it cannot work here. Fetches nothing."""
    node: PartSettings | None = clip_options().get(name)
    if node is None:
        return f"there is no clip={name}"
    if node.get("pretrained") and not has_weights(node["model"], node["pretrained"]):
        return f"the weights of clip={name} are not on this machine"
    try:
        embedder: DualEncoder = instantiate("clip", node | {"device": device or "cpu"})
    except UserError as error:
        return str(error).rstrip(".")
    return embedder


def _differs(embedder: DualEncoder, clip: DualEncoder) -> bool:
    return embedder.fingerprint() != clip.fingerprint()


def _by_key(named: Iterable[tuple[str, DualEncoder]]) -> dict[str, DualEncoder]:
    return {embedder_key(name, embedder): embedder for name, embedder in named}


def _left_out(keys: Iterable[str], reasons: Mapping[str, str]) -> str:
    """A note on rows of a bank that are not searched. reasons: by name."""
    names = dict.fromkeys(embedder_name(key) for key in sorted(keys))
    parts = (f"{name} ({reasons.get(name, 'not among those of clip=')})" for name in names)
    return f"pictures by {', '.join(parts)} are left out" if names else ""
