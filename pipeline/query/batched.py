"""What models say of a question's text, of several texts in one pass. Knows no model and no retriever.

Retrievers ask their partners for one text at a time. Where several questions are at hand their texts are handed in first, and
for as long as they are being asked the partners give out what was computed together.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from encoders.schema import DualEncoder, Frames


class Ahead:
    """A function of a text. What is prepared is seen by the thread that prepared it, and forgotten after."""

    def __init__(self, of_all: Callable[[Sequence[str]], Tensor]) -> None:
        """of_all: texts -> [B, ...], a row for each."""
        self._of_all = of_all
        self._ready = threading.local()

    def __call__(self, text: str) -> Tensor:
        found: Tensor | None = getattr(self._ready, "rows", {}).get(text)
        return self._of_all([text])[0] if found is None else found

    @contextmanager
    def prepared(self, texts: Sequence[str]) -> Iterator[None]:
        """Computed on first need: a retriever that does not use it costs nothing."""
        self._ready.rows = _OnFirstNeed(self._of_all, list(dict.fromkeys(texts)))
        try:
            yield
        finally:
            del self._ready.rows


class TextAhead:
    """A FrameEmbedder whose texts can be prepared."""

    def __init__(self, embedder: DualEncoder) -> None:
        self._embedder = embedder
        self.ahead = Ahead(embedder.embed_texts)

    def embed_frames(self, frames: Frames) -> Tensor:
        """[T, E] float32, unit rows."""
        return self._embedder.embed_frames(frames)

    def embed_text(self, text: str) -> Tensor:
        """[E] float32, unit length."""
        return self.ahead(text)


class _OnFirstNeed:
    def __init__(self, of_all: Callable[[Sequence[str]], Tensor], texts: list[str]) -> None:
        self._of_all, self._texts = of_all, texts
        self._rows: dict[str, Tensor] | None = None

    def get(self, text: str) -> Tensor | None:
        if text not in self._texts:
            return None
        if self._rows is None:
            self._rows = dict(zip(self._texts, self._of_all(self._texts), strict=True))
        return self._rows[text]
