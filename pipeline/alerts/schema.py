"""The records of alerts, the role of a trigger, and the role of what brings a notice out.

Seconds are video time where nothing else is said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from pipeline.schema import Trace


@dataclass(frozen=True, slots=True)
class Check:
    """A question about a few frames, and the answers that mean yes and no."""

    question: str
    yes: tuple[str, ...]  # (): every answer that does not mean no
    no: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AlertRule:
    """When a check counts, and when an event is over."""

    window_s: float = 8.0  # of the newest frames that a check reads, at most
    sure: float = 0.85  # probability that notifies at once
    fair: float = 0.6  # probability that notifies when it comes twice in a row
    rest_s: float = 3.0  # a pause of at most this length belongs to the same event


@dataclass(frozen=True, slots=True)
class WatchedFrame:
    """What a trigger sees of the next frame."""

    time: float  # seconds
    row: Tensor  # [E] its embedding
    request: Tensor  # [E] of the request, in the same space
    since_check: float  # seconds since the last check; infinite before the first one
    # the model's probability that this frame alone shows what is asked; costs a pass of the model
    probability: Callable[[], float]


class Trigger(Protocol):
    """Decides when the model is asked. One object per alert; it sees every frame, in time order,
    and knows neither the strategy that answers nor what it answered."""

    def fires(self, frame: WatchedFrame) -> str:
        """Why the model is asked now, in a word; "": it is not."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one frame."""

    time: float  # seconds of the frame
    gate: str  # why the model ran: a word of the trigger, or follow; "": it did not
    score: float | None  # the model's probability that the request is met
    notifies: bool
    why: str  # told, goes on, over, unsure, not there, gate closed, no answer
    error: str = ""  # why the model gave no answer
    trace: Trace | None = None  # of the check: the strategy, and each pass of the model


@dataclass(frozen=True, slots=True)
class Notice:
    """What leaves the process when an alert finds its event."""

    number: int  # 1, 2, 3, ... of its bank
    body: dict[str, Any]  # JSON: id, type, request, stream, video, time, at, score, trigger
    picture: Path | None = None  # a JPEG of the moment
    clip: Path | None = None  # the seconds around it
    bank: str = ""  # folder of the stream's bank, which stays in the process; "": not known

    @property
    def id(self) -> str:
        """The same in every try, so that a receiver can leave out what it has."""
        return str(self.body["id"])


class DeliveryError(Exception):
    """A notice was not delivered. The message is the end of a sentence."""

    def __init__(self, message: str, *, passes: bool = True) -> None:
        """passes: whether a later try may succeed."""
        super().__init__(message)
        self.passes = passes


class Notifier(Protocol):
    """Brings a notice to one place. One thread uses it."""

    @property
    def address(self) -> str:
        """Where to, without anything secret."""
        ...

    def send(self, notice: Notice) -> None:
        """Deliver a notice. Returns within some seconds. DeliveryError."""
        ...
