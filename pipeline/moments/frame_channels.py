"""The channels of a search that look at frames -> the retriever that ranks for them.

Knows which channel needs which model; no configuration and no output. Models are loaded here,
and only for a channel that was asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.clip import NoFrameEmbedder
from encoders.schema import DualEncoder, embedder_name
from memory.retrieval.clip import OWN_ROWS, ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.kv import KVRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Retriever
from memory.storage.manifest import Provenance
from pipeline.query.batched import BatchedQueries, BatchedTextEmbedder
from pipeline.query.plan import KV, PICTURE, embedder_of, looks_at_frames, picture_of

Part = Callable[..., Retriever]


@dataclass(frozen=True)
class FrameChannels:
    """What a bank is opened and searched with."""

    channels: tuple[str, ...]  # all channels of the search that work here
    retriever: Retriever
    queries: tuple[BatchedQueries, ...]  # what the retriever needs of a text
    note: str = ""  # what the user must know
    picture_names: tuple[str, ...] = ()  # frame embedders, where each has a channel of its own


@dataclass(frozen=True)
class Embedders:
    """The frame embedders of a search."""

    primary: DualEncoder
    name: str  # of the primary one
    further: Mapping[str, DualEncoder]  # by their keys
    note: str = ""  # what the user must know


def frame_channels(
    bank: str,
    provenance: Provenance,
    channels: tuple[str, ...],
    *,
    embedders: Callable[[], Embedders],
    backbone: Callable[[], Backbone],
    picture_weight: float = 0.5,
    instead: str = "use channels without picture",
) -> FrameChannels:
    """The channels that work with a bank of this provenance, and their retriever.

    bank: its name in errors. embedders, backbone: load the models. picture_weight: as of
    ClipRetriever. instead: what works where pictures do not. Pictures are left out, with a note,
    where other models embedded the bank's frames. UserError if no other channel is left, or if the
    backbone is not the bank's.
    """
    parts: dict[str, Part] = {}
    queries: list[BatchedQueries] = []
    notes: list[str] = []
    names: tuple[str, ...] = ()
    words = tuple(channel for channel in channels if not looks_at_frames(channel))
    if any(channel == PICTURE or embedder_of(channel) for channel in channels):
        found = embedders()
        notes.append(found.note)
        usable, why_not = _usable(bank, provenance, found, instead)
        chosen = _chosen(bank, channels, usable)
        if not chosen and not words and KV not in channels:
            raise UserError(why_not)
        if not chosen:
            notes.append(f"pictures are left out: {_reason(provenance, found)}")
        names = tuple(chosen) if len(usable) > 1 else ()
        for name, (rows, embedder) in chosen.items():
            texts = BatchedTextEmbedder(embedder)
            queries.append(texts.queries)
            channel = picture_of(name) if names else PICTURE
            parts[channel] = partial(_pictures, rows, texts, picture_weight)
    if KV in channels:
        model = backbone()
        if provenance.get("weights") != model.fingerprint():
            raise UserError(
                f"bank {bank} was made with backbone {provenance.get('model')} "
                f"({provenance.get('weights')}), and only that can search its keys; give its "
                "backbone=, or channels without kv"
            )
        queries.append(BatchedQueries(model.language_model.queries_of))
        parts[KV] = KVRetriever
    note = "; ".join(filter(None, notes))
    if not parts:
        return FrameChannels(words, UniformRetriever(), (), note)
    keys = queries[-1] if KV in parts else None
    return FrameChannels(
        (*words, *parts), FusedRetriever(parts, queries=keys), tuple(queries), note, names
    )


def _pictures(
    rows: str, texts: BatchedTextEmbedder, picture_weight: float, **_: object
) -> Retriever:
    """A part of a FusedRetriever with an embedder of its own."""
    return ClipRetriever(embedder=texts, rows=rows, picture_weight=picture_weight)


def _usable(
    bank: str, provenance: Provenance, found: Embedders, instead: str
) -> tuple[dict[str, tuple[str, DualEncoder]], str]:
    """Name -> rows and embedder of those that embedded frames of the bank; and the error where
    there are none."""
    usable = {}
    why_not = f"the frames of bank {bank} have no embeddings; {instead}"
    if not isinstance(found.primary, NoFrameEmbedder):
        if provenance.get("clip") in (None, found.primary.fingerprint()):
            usable[found.name] = (OWN_ROWS, found.primary)
        else:
            why_not = (
                f"bank {bank} was made with another frame embedder ({provenance['clip']}); give "
                f"its clip=, or {instead}"
            )
    for key, embedder in found.further.items():
        usable[embedder_name(key)] = (key, embedder)
    return usable, why_not


def _chosen(
    bank: str, channels: tuple[str, ...], usable: dict[str, tuple[str, DualEncoder]]
) -> dict[str, tuple[str, DualEncoder]]:
    """Those of the embedders that the channels name. UserError for one that is not there."""
    asked = [name for channel in channels if (name := embedder_of(channel)) is not None]
    for name in asked:
        if name not in usable:
            known = ", ".join(usable) or "none"
            raise UserError(
                f"bank {bank} has no pictures by {name} that can be searched here ({known} can); "
                "use channels=[picture], or `reelbank add FILM clip=[...]` to embed them"
            )
    if PICTURE in channels:
        return usable
    return {name: usable[name] for name in dict.fromkeys(asked)}


def _reason(provenance: Provenance, found: Embedders) -> str:
    if isinstance(found.primary, NoFrameEmbedder):
        return "the bank's frames have no embeddings"
    return "the bank's were embedded by another clip="
