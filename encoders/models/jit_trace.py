"""Small models as graphs that torch runs without Python: threads that look, embed and prefill side by side otherwise take
a tenth longer, for every operation takes Python's lock anew.

Knows functions of one tensor; no model, no frames.
"""

import logging
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from encoders.models.onednn_linear import PackedLinear, count_weights

# parameters up to which an operation takes no longer than what stands around it
_SMALL = 50_000_000
_SHAPES = 8  # graphs kept at most; a video has segments of few lengths

log = logging.getLogger(__name__)


class JitTrace:
    """`Traced(function)(x)` is function(x). After so many calls with one shape it is traced, and from then on, where the graph
    gives the same numbers, called as a graph."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], module: nn.Module, after: int = 64
    ) -> None:
        """module: whose parameters the function uses; one that is large or on no CPU is never traced. after: calls, such that
        what tracing takes (some tenths of a second) comes back within two or three times as many more."""
        self._function, self._after = function, after
        self._graphs: dict[torch.Size, Any] = {}
        self._calls: Counter[torch.Size] = Counter()
        self._tracing = threading.Lock()
        devices = {one.device.type for one in module.parameters()}
        self._is_traceable = (
            count_weights(module) <= _SMALL
            and devices == {"cpu"}
            and not any(isinstance(one, PackedLinear) for one in module.modules())
        )

    def __call__(self, x: Tensor) -> Tensor:
        graph = self._graphs.get(x.shape)
        if graph is not None:
            output: Tensor = graph(x)
            return output
        if self._is_traceable:
            self._calls[x.shape] += 1
            if self._calls[x.shape] >= self._after and self._tracing.acquire(blocking=False):
                try:
                    if x.shape not in self._graphs:  # another thread may just have made it
                        self._trace(x)
                finally:
                    self._tracing.release()
        return self._function(x)

    @torch.inference_mode()
    def _trace(self, x: Tensor) -> None:
        """A graph for this shape, if there can be one; else none is ever tried again."""
        if len(self._graphs) == _SHAPES:
            self._is_traceable = False
            return
        _silence_tracer()
        try:
            graph = _trace_graph(self._function, x)
            # it is rewritten on its second run
            same = all(torch.equal(graph(one), self._function(one)) for one in (x, x, -x))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            # the last: a torch that traces no more
            log.debug("not traced: %s", error)
            same = False
        if same:
            self._graphs[x.shape] = graph
        else:
            self._is_traceable = False


def _silence_tracer() -> None:
    """Ignore the tracer's warnings for the process: with filters for a block, one thread's end would undo another's.

    The tracer warns of numbers that it reads off a shape. They belong in the graph, which is used for this shape alone.
    """
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)


def _trace_graph(function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    """torch means to replace tracing by compilation; that needs a C++ compiler on the user's machine and takes a hundred times
    as long."""
    # a module's method by itself is refused
    return torch.jit.trace(lambda one: function(one), x, check_trace=False)
