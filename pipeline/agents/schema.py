"""The records of tools for agents: bounds, a call under way, and a reply."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp import types

from encoders.schema import VideoInfo


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What bounds a reply."""

    items: int  # moments, spans, lines, or films
    letters: int  # characters of all words
    pixels: int  # longer side of a picture
    clip_seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What a tool gives: plain values, and pictures or links beside them."""

    values: dict[str, Any]
    blocks: tuple[types.ImageContent | types.ResourceLink, ...] = ()


@dataclass(frozen=True, slots=True)
class CallProgress:
    """How far a call is."""

    seconds: float  # of video time
    total: float  # seconds
    note: str


@dataclass(slots=True)
class RunningCall:
    """A call of a tool, in the thread that works on it."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: CallProgress | None = None  # the newest

    @contextmanager
    def show_progress(self, info: VideoInfo) -> Iterator[Callable[[float, int], None]]:
        """Take the progress of a film that is encoded."""

        def show(seconds: float, nbytes: int) -> None:
            note = f"{info.path}: {seconds:.0f} of {info.duration:.0f} s are encoded"
            self.progress = CallProgress(seconds, info.duration, note)

        yield show
