"""The caches in which segments are encoded, shared by all streams of a model.

A cache is empty but for the sink before every segment, so streams that encode in turn need one
together, and not one each: 4 to 6 MB for the embedded model, a gigabyte for one of 7 B. A cache
lives as long as a stream that may use it. Threads: any; as many caches as encode at the same time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from torch import Tensor

from encoders.models.kv_cache import FixedCache, Mark
from encoders.models.language_model import LanguageModel


class PrefillCaches:
    """`caches = prefill_caches(model, sink)`, then `with caches.empty(capacity) as cache: ...`."""

    def __init__(self, model: LanguageModel, sink: Tensor) -> None:
        """model: with full attention in every layer. sink: [P, D] what every cache begins with."""
        self._model, self._sink = model, sink
        self._lock = threading.Lock()
        # with what is left of each when the sink alone is in it
        self._idle: list[tuple[FixedCache, Mark]] = []

    @contextmanager
    def empty(self, capacity: int) -> Iterator[FixedCache]:
        """A cache that holds the sink alone, and has room for `capacity` tokens with it."""
        with self._lock:  # reused, because a large new buffer is faulted in page by page
            idle = self._idle.pop() if self._idle else None
        if idle is None:
            idle = self._new_cache(capacity)
        elif idle[0].capacity < capacity:
            idle = self._new_cache(max(capacity, 2 * idle[0].capacity))
        cache, mark = idle
        cache.rewind(mark)
        try:
            yield cache
        finally:
            with self._lock:
                self._idle.append(idle)

    def _new_cache(self, capacity: int) -> tuple[FixedCache, Mark]:
        cache = self._model.cache(capacity)
        assert isinstance(cache, FixedCache)  # the model has full attention in every layer
        self._model.prefill(self._sink, cache)
        return cache, cache.mark()


_lock = threading.Lock()
_of_models: WeakValueDictionary[int, PrefillCaches] = WeakValueDictionary()


def prefill_caches(model: LanguageModel, sink: Tensor) -> PrefillCaches:
    """The caches of a model, the same for all callers that hold them at a time. sink: [P, D], the
    same for all callers with this model."""
    with _lock:
        caches = _of_models.get(id(model))  # which holds the model, so the number is not reused
        if caches is None:
            caches = _of_models[id(model)] = PrefillCaches(model, sink)
        return caches
