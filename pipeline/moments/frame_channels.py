"""The channels of a search that look at frames -> the retriever that ranks for them.

Knows which channel needs which model; no configuration and no output. Models are loaded here,
and only for a channel that was asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.clip import NoFrameEmbedder
from encoders.schema import DualEncoder
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.retrieval.kv import KVRetriever
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Retriever
from memory.storage.manifest import Provenance
from pipeline.query.batched import BatchedQueries, BatchedTextEmbedder
from pipeline.query.plan import FRAMES, KV, PICTURE


@dataclass(frozen=True)
class FrameChannels:
    """What a bank is opened and searched with."""

    channels: tuple[str, ...]  # all channels of the search that work here
    retriever: Retriever
    queries: tuple[BatchedQueries, ...]  # what the retriever needs of a text
    note: str = ""  # what the user must know


def frame_channels(
    bank: str,
    provenance: Provenance,
    channels: tuple[str, ...],
    *,
    clip: Callable[[], DualEncoder],
    backbone: Callable[[], Backbone],
) -> FrameChannels:
    """The channels that work with a bank of this provenance, and their retriever.

    bank: its name in errors. clip, backbone: load the model. Pictures are left out, with a note,
    where another model embedded the bank's frames. UserError if no other channel is left, or if
    the backbone is not the bank's.
    """
    note = ""
    texts: BatchedTextEmbedder | None = None
    queries: BatchedQueries | None = None
    if PICTURE in channels:
        embedder = clip()
        if isinstance(embedder, NoFrameEmbedder):
            if channels == (PICTURE,):
                raise UserError(
                    f"the frames of bank {bank} have no embeddings; use channels without picture"
                )
            note = "pictures are left out: the bank's frames have no embeddings"
            channels = tuple(channel for channel in channels if channel != PICTURE)
        elif provenance.get("clip") in (None, embedder.fingerprint()):
            texts = BatchedTextEmbedder(embedder)
        elif channels == (PICTURE,):
            raise UserError(
                f"bank {bank} was made with another frame embedder ({provenance['clip']}); give "
                "its clip=, or channels without picture"
            )
        else:
            note = "pictures are left out: the bank's were embedded by another clip="
            channels = tuple(channel for channel in channels if channel != PICTURE)
    if KV in channels:
        model = backbone()
        if provenance.get("weights") != model.fingerprint():
            raise UserError(
                f"bank {bank} was made with backbone {provenance.get('model')} "
                f"({provenance.get('weights')}), and only that can search its keys; give its "
                "backbone=, or channels without kv"
            )
        queries = BatchedQueries(model.language_model.queries_of)
    makers = {PICTURE: ClipRetriever, KV: KVRetriever}
    parts = {channel: makers[channel] for channel in FRAMES if channel in channels}
    if not parts:
        return FrameChannels(channels, UniformRetriever(), (), note)
    used = (None if texts is None else texts.queries, queries)
    return FrameChannels(
        channels,
        FusedRetriever(parts, embedder=texts, queries=queries),
        tuple(one for one in used if one is not None),
        note,
    )
