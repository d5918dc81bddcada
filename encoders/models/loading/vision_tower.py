"""The vision tower of a model, which leaves memory while nobody encodes.

It is found and put back by transformers' own accessors. Its weights stay where the checkpoint is
and are read from there again. Knows no family.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_MODALITY = "video"


class VisionTower:
    """The tower inside a transformers model. Threads: many may encode."""

    def __init__(self, model: Any, load: Callable[[], Any], on_release: Callable[[], None]) -> None:
        """model: where transformers' `get_encoder` finds no tower, none is released. load: reads
        the tower again, as it is in the model now. on_release: forgets what else refers to the
        tower's weights; called while nobody encodes.
        """
        self._model, self._load, self._on_release = model, load, on_release
        self._lock, self._users, self._is_loaded = threading.Lock(), 0, True
        # transformers returns the model itself where it knows no tower in it
        self._is_part = model.get_encoder(modality=_MODALITY) is not model

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The tower is in memory inside. Whatever `load` raises; then it is still released."""
        with self._lock:
            if not self._is_loaded:
                self._model.set_encoder(self._load(), modality=_MODALITY)
                self._is_loaded = True
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1

    def release(self) -> bool:
        """Take the tower out of memory, until someone encodes. False, and nothing happens, while
        someone does, and of a model whose tower transformers does not know.
        """
        with self._lock:
            if self._users or not self._is_part:
                return False
            if self._is_loaded:
                self._model.set_encoder(None, modality=_MODALITY)
                self._on_release()
                self._is_loaded = False
            return True
