"""Small models as graphs that torch runs without Python. Threads that encode, embed and prefill in
parallel otherwise take a tenth longer, because every operation takes Python's lock.

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

from encoders.models.acceleration.onednn_linear import PackedLinear, count_weights

# parameters up to which the overhead of an operation exceeds its work
_SMALL = 50_000_000
_MOST_GRAPHS = 8  # of one function; one graph mostly serves batches of all sizes

# what tracing and graphs raise; AttributeError: a torch without tracing
_UNTRACED = (RuntimeError, ValueError, TypeError, AttributeError)

log = logging.getLogger(__name__)


class JitTrace:
    """`JitTrace(function)(x)` equals function(x). After `after` calls with one shape the function
    is traced. If the graph gives the same numbers, later calls with that shape run the graph.

    Another shape takes a graph that is there, if that gives the same numbers. A graph holds a
    packed copy of the weights, 5 to 10 MB of the embedded towers, so one a shape would be many.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], module: nn.Module, after: int = 64
    ) -> None:
        """module: holds the parameters that the function uses; a large module, or one that is not
        on a CPU, is never traced. after: number of calls before tracing, which takes some tenths of
        a second and pays off within two or three times as many more calls.
        """
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
                    if x.shape not in self._graphs:  # another thread may have traced it meanwhile
                        self._trace(x)
                finally:
                    self._tracing.release()
        return self._function(x)

    def forget(self) -> None:
        """Drop the graphs, which hold the module's weights. Not while another thread calls this."""
        self._graphs.clear()
        self._calls.clear()

    @torch.inference_mode()
    def _trace(self, x: Tensor) -> None:
        """Find a graph for this shape, or trace it; if that fails, give up tracing for good."""
        traced = list({id(graph): graph for graph in self._graphs.values()}.values())
        for graph in traced:
            if self._is_same(graph, x):
                self._graphs[x.shape] = graph
                return
        self._is_traceable = len(traced) < _MOST_GRAPHS
        if not self._is_traceable:
            return
        _silence_tracer()
        try:
            graph = _trace_graph(self._function, x)
        except _UNTRACED as error:
            log.debug("not traced: %s", error)
            self._is_traceable = False
            return
        if self._is_same(graph, x):
            self._graphs[x.shape] = graph
        else:
            self._is_traceable = False

    def _is_same(self, graph: Any, x: Tensor) -> bool:
        """Whether the graph gives the function's numbers for this shape."""
        try:
            # torch rewrites a graph on its second run
            return all(torch.equal(graph(one), self._function(one)) for one in (x, x, -x))
        except _UNTRACED as error:
            log.debug("not the same: %s", error)
            return False


def _silence_tracer() -> None:
    """Ignore the tracer's warnings for the whole process: with filters for a block, one thread's
    end would undo another's.

    The tracer warns of numbers that it reads off a shape. They belong in the graph, which serves
    this shape alone.
    """
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    warnings.filterwarnings("ignore", "`torch.jit.trace", DeprecationWarning)


def _trace_graph(function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    """The traced graph. torch plans to replace tracing by compilation, but that needs a C++
    compiler on the user's machine and takes a hundred times as long.
    """
    # torch refuses to trace a module's method directly
    return torch.jit.trace(lambda one: function(one), x, check_trace=False)
