"""Text embeddings of several questions in one pass. Knows no model and no retriever.

A retriever asks its partner for one text at a time. Inside `prepared(texts)` all texts are
embedded in one forward pass on first use; single lookups are served from that batch.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from encoders.schema import DualEncoder, Frames


class BatchedQueries:
    """A function of a text. Only the thread that prepared texts reads its batch."""

    def __init__(self, embed: Callable[[Sequence[str]], Sequence[Tensor] | Tensor]) -> None:
        """embed: texts -> one tensor for each, or [B, ...]."""
        self._embed = embed
        self._prepared = threading.local()

    def __call__(self, text: str) -> Tensor:
        batch: _LazyBatch | None = getattr(self._prepared, "batch", None)
        row = None if batch is None else batch.get(text)
        return self._embed([text])[0] if row is None else row

    @contextmanager
    def prepared(self, texts: Sequence[str]) -> Iterator[None]:
        """Serve these texts from one batch, which costs nothing if no text is looked up."""
        self._prepared.batch = _LazyBatch(self._embed, list(dict.fromkeys(texts)))
        try:
            yield
        finally:
            del self._prepared.batch


class BatchedTextEmbedder:
    """A FrameEmbedder whose texts can be prepared."""

    def __init__(self, embedder: DualEncoder) -> None:
        self._embedder = embedder
        self.queries = BatchedQueries(embedder.embed_texts)

    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, E] float32, unit rows."""
        return self._embedder.embed_frames(frames)

    def embed_text(self, text: str) -> Tensor:
        """[E] float32, unit length."""
        return self.queries(text)


class _LazyBatch:
    def __init__(
        self, embed: Callable[[Sequence[str]], Sequence[Tensor] | Tensor], texts: list[str]
    ) -> None:
        self._embed, self._texts = embed, texts
        self._rows: dict[str, Tensor] | None = None

    def get(self, text: str) -> Tensor | None:
        if text not in self._texts:
            return None
        if self._rows is None:
            self._rows = dict(zip(self._texts, self._embed(self._texts), strict=True))
        return self._rows[text]
