"""When an alert asks the model: by a cheap gate, at every cut, every n seconds, or by the model's
own probability of the newest frame.

A trigger opens a check and no more: the strategy of the run (`answer=`) checks, and the alert
(pipeline/alerts/alert.py) follows an event to its end, whatever opened it. The gate is after
StreamBridge's activation (arXiv 2505.05467), without its trained model; the probability is that of
its `yes`, of the video-LLM itself.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.errors import UserError
from pipeline.alerts.schema import WatchedFrame


class Boundary:
    """Fires where the picture changes: at cuts."""

    def __init__(self, *, spread: float = 3.0, memory: int = 64, warm_up: int = 8) -> None:
        """spread: deviations above the median that are a change. memory: frames that both are taken
        over. warm_up: with fewer frames than this, every frame fires.
        """
        _check_positive(spread=spread, memory=memory)
        self._spread, self._warm_up = spread, warm_up
        self._previous: Tensor | None = None
        self._changes: deque[float] = deque(maxlen=memory)

    def fires(self, frame: WatchedFrame) -> str:
        """ "change" at a cut."""
        change = 0.0 if self._previous is None else 1.0 - float(frame.row @ self._previous)
        is_change = _stands_out(change, self._changes, self._spread, self._warm_up)
        self._previous = frame.row
        self._changes.append(change)
        return "change" if is_change else ""


class EveryN:
    """Fires every n seconds."""

    def __init__(self, *, seconds: float = 8.0) -> None:
        """seconds: between two checks; 0: at every frame."""
        if seconds < 0:
            raise UserError(f"trigger.seconds={seconds:g} goes back in time; use 0 or more.")
        self._seconds = seconds

    def fires(self, frame: WatchedFrame) -> str:
        """ "time" when it is time."""
        return "time" if frame.since_check >= self._seconds else ""


class Gate:
    """Fires at a change, when a frame resembles the request more than earlier frames did, or when
    the last check is long ago."""

    def __init__(
        self, *, spread: float = 3.0, memory: int = 64, warm_up: int = 8, seconds: float = 8.0
    ) -> None:
        """seconds: the longest time without a check. The others are those of Boundary."""
        self._change = Boundary(spread=spread, memory=memory, warm_up=warm_up)
        self._time = EveryN(seconds=seconds)
        self._spread, self._warm_up = spread, warm_up
        self._likeness: deque[float] = deque(maxlen=memory)

    def fires(self, frame: WatchedFrame) -> str:
        """ "change", "likeness" or "time"."""
        likeness = float(frame.row @ frame.request)
        is_like = _stands_out(likeness, self._likeness, self._spread, self._warm_up)
        self._likeness.append(likeness)
        is_change = self._change.fires(frame)
        return is_change or ("likeness" if is_like else self._time.fires(frame))


class ModelProbability:
    """Fires where the model itself finds it likely in a frame alone. The surest and the dearest."""

    def __init__(self, *, least: float = 0.3, seconds: float = 0.0) -> None:
        """least: probability that fires, lower than what notifies: frames alone are less sure.
        seconds: between two looks; 0: at every frame.
        """
        if not 0 <= least <= 1:
            raise UserError(f"trigger.least={least:g} is no probability; use 0 to 1.")
        if seconds < 0:
            raise UserError(f"trigger.seconds={seconds:g} goes back in time; use 0 or more.")
        self._least, self._seconds = least, seconds
        self._last = -float("inf")

    def fires(self, frame: WatchedFrame) -> str:
        """ "probability" where it is likely."""
        if frame.time - self._last < self._seconds:
            return ""
        self._last = frame.time
        return "probability" if frame.probability() >= self._least else ""


def _stands_out(value: float, earlier: Sequence[float], spread: float, warm_up: int) -> bool:
    """True if a number is far above the earlier ones, by their median and median deviation.

    An appearance a moment ago raises a mean, which would close the gate for the next one.
    """
    if len(earlier) < warm_up:
        return True
    values = torch.tensor(list(earlier), dtype=torch.float64)
    median = values.median()
    # 1.4826: makes it the standard deviation where the numbers are normal
    deviation = 1.4826 * (values - median).abs().median()
    return value > float(median + spread * deviation) + 1e-6


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise UserError(f"trigger.{name}={value:g} is too small; use more than 0.")
