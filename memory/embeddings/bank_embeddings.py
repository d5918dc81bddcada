"""Rows of further frame embedders, beside those that segments hold: `bank.embeddings`.

Knows the store of the rows; no retriever, and no embedder.
"""

from collections.abc import Callable

from torch import Tensor

from memory.embeddings.rows import EmbedderCount
from memory.storage.os_errors import as_user_errors
from memory.store import DiskStore


class BankEmbeddings:
    """Adds rows to stored segments. Every writing method raises UserError if the disk refuses, or
    if another process writes."""

    def __init__(self, store: DiskStore, begin_writing: Callable[[], None]) -> None:
        self._segments, self._store = store, store.embeddings
        self._begin_writing = begin_writing

    def counts(self, video_id: str | None = None) -> list[EmbedderCount]:
        """How much each further embedder has embedded of a video, or of the whole bank; by key."""
        return self._store.rows.counts(video_id)

    def missing(self, video_id: str, embedder: str) -> list[int]:
        """Numbers of the segments of a video that an embedder has no rows of, ascending."""
        return self._store.rows.missing(video_id, embedder)

    def representatives(self, video_id: str, number: int, frames: int) -> Tensor:
        """[T] int64: for each frame of a segment, the number of the frame within the segment whose
        rows it gets (encoders.schema.VisualTokens). frames: how many the segment has."""
        tokens, _ = self._segments.frames(video_id, number, 0, frames, kv=False)
        return tokens.representatives

    def write(self, video_id: str, number: int, embedder: str, rows: Tensor) -> None:
        """Store the rows of a stored segment by a further embedder: [T, E] float16 unit rows. On
        return they are durable. Once a video has all of them, searches use them; before, from the
        next opening of the bank on."""
        self._begin_writing()
        with as_user_errors(self._segments.root):
            self._store.put(video_id, number, embedder, rows)

    def publish(self) -> None:
        """Let searches of running readers use rows of a video that has only some."""
        self._begin_writing()
        with as_user_errors(self._segments.root):
            self._store.rows.publish()

    def nbytes(self, video_id: str) -> int:
        """Bytes of a video's rows."""
        return self._store.nbytes(video_id)
