"""Recently recalled frames, in two tiers above the disk: RAM, and the memory of the device that
reads them.

Knows no files and no questions: a frame that no tier has comes from the `read` callback. Each tier
has a budget of bytes and evicts the least recently used frame first. Frames that an answer reads
are pinned: they stay, and stay counted, until their lease ends. If only pinned frames are left, a
new one passes through without being counted. So the memory in use is bounded by the budget plus the
frames of the running questions.

The unit is the frame: two similar questions share frames, but rarely whole ranges of them. On a CPU
the device's memory is RAM, and there is one tier. For a GPU, frames are copied from page-locked
memory on a stream of their own, while the calling thread goes on.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from encoders.schema import KVBlock, VisualTokens

# Python and torch objects around the tensors of a frame: 4,128 bytes by the growth of a process
# with 12,000 frames
_OBJECT_BYTES = 4096

Read = Callable[["FrameKey", int], tuple[VisualTokens, KVBlock | None]]
"""(first frame, number of frames) -> tokens, keys and values; every read returns the same."""


@dataclass(frozen=True, slots=True)
class FrameKey:
    """Identifies a cached frame."""

    video_id: str
    segment: int  # number of the segment within its video
    # 0, 1, ... within the segment; unlike an ordinal, it survives the deletion of earlier segments
    frame: int
    kv: bool  # with keys and values


@dataclass(slots=True, eq=False)
class CachedFrame:
    """A frame in memory."""

    tokens: VisualTokens
    kv: KVBlock | None
    pins: int = 0
    is_counted: bool = False  # in its tier's `nbytes`
    is_forgotten: bool = False  # no longer findable; its bytes count until the last pin is gone

    @property
    def nbytes(self) -> int:
        visual = self.tokens
        tensors = (visual.tokens, visual.pos, visual.offsets, visual.times)
        kv = self.kv.nbytes if self.kv else 0
        return sum(x.nbytes for x in tensors) + kv + _OBJECT_BYTES


@dataclass(slots=True, eq=False)
class Lease:
    """Pins frames while they are in use."""

    pins: list[tuple["Tier", CachedFrame]] = field(default_factory=list)
    came_from: Counter[str] = field(default_factory=Counter)  # "device", "ram" or "disk" -> frames


class Tier:
    """Frames by key, within a budget. Not thread-safe: `FrameTiers` has the lock."""

    def __init__(self, budget: int) -> None:
        """budget: bytes."""
        self.budget = budget
        self.nbytes = 0  # of all frames here, and of forgotten ones that are still pinned
        # least recently used first
        self._frames: OrderedDict[FrameKey, CachedFrame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, key: FrameKey) -> bool:
        return key in self._frames

    def find(self, key: FrameKey, lease: Lease) -> CachedFrame | None:
        """The frame of this key, pinned; it becomes the most recently used one."""
        frame = self._frames.get(key)
        if frame is not None:
            self._frames.move_to_end(key)
            self._pin(frame, lease)
        return frame

    def put(self, key: FrameKey, frame: CachedFrame, lease: Lease) -> CachedFrame:
        """Cache a frame if it fits, and pin it either way. If the key has a frame already, return
        that one."""
        cached = self.find(key, lease)
        if cached is not None:
            return cached
        self._pin(frame, lease)
        if self._make_room(frame.nbytes):
            frame.is_counted = True
            self._frames[key] = frame
            self.nbytes += frame.nbytes
        return frame

    def unpin(self, frame: CachedFrame) -> None:
        frame.pins -= 1
        if frame.is_forgotten:
            self._uncount(frame)
        elif self.nbytes > self.budget:  # the budget became smaller in between
            self._make_room(0)

    def forget(self, video_id: str) -> None:
        """Evict all frames of a video."""
        for key in [key for key in self._frames if key.video_id == video_id]:
            self._remove(key)

    def resize(self, budget: int) -> None:
        """Set the budget in bytes. It applies at once, except to pinned frames."""
        self.budget = budget
        self._make_room(0)

    def _pin(self, frame: CachedFrame, lease: Lease) -> None:
        frame.pins += 1
        lease.pins.append((self, frame))

    def _make_room(self, nbytes: int) -> bool:
        """Evict least recently used frames until `nbytes` are free; False if that is impossible."""
        over = self.nbytes + nbytes - self.budget
        evicted = []
        for key, frame in self._frames.items():
            if over <= 0:
                break
            if not frame.pins:
                evicted.append(key)
                over -= frame.nbytes
        if over > 0 and nbytes:  # it would not fit anyway: evict nothing
            return False
        for key in evicted:
            self._remove(key)
        return over <= 0

    def _remove(self, key: FrameKey) -> None:
        frame = self._frames.pop(key)
        frame.is_forgotten = True
        self._uncount(frame)

    def _uncount(self, frame: CachedFrame) -> None:
        if frame.is_counted and not frame.pins:
            frame.is_counted = False
            self.nbytes -= frame.nbytes


class FrameTiers:
    """All tiers as one: `take` returns frames from the nearest tier that has them. Thread-safe."""

    def __init__(
        self, ram_bytes: int, device_bytes: int = 0, device: torch.device | None = None
    ) -> None:
        """device: where frames are needed; None: in RAM, with no tier above it. Budgets in
        bytes."""
        self.ram = Tier(ram_bytes)
        self.device = Tier(device_bytes)
        self._mover = None if device is None else Mover(device)
        self._lock = threading.RLock()
        # a lease may end inside the garbage collector, in the middle of anything
        self._ended: deque[Lease] = deque()

    def take(self, keys: Sequence[FrameKey], read: Read) -> tuple[list[CachedFrame], Lease]:
        """The frames of these keys, pinned by the lease. Frames that no tier has are read,
        neighboring ones together. An exception of `read` ends the lease and is raised again."""
        lease, frames = Lease(), dict[FrameKey, CachedFrame]()
        try:
            with self._unpinned():
                frames |= _find_all(keys, self.device, lease)
                lower = [key for key in keys if key not in frames]
                frames |= _find_all(lower, self.ram, lease)
            missing = [key for key in lower if key not in frames]
            lease.came_from = Counter(
                device=len(keys) - len(lower), ram=len(lower) - len(missing), disk=len(missing)
            )
            for first, count in _ranges(missing):
                tokens, block = read(first, count)
                for i in range(count):
                    key, frame = replace(first, frame=first.frame + i), _one_frame(tokens, block, i)
                    with self._unpinned():
                        frames[key] = self.ram.put(key, frame, lease)
            if self._mover is not None:
                for key, frame in zip(
                    lower, self._mover([frames[key] for key in lower]), strict=True
                ):
                    with self._unpinned():
                        frames[key] = self.device.put(key, frame, lease)
        except BaseException:
            self.end(lease)
            raise
        return [frames[key] for key in keys], lease

    def fetch(
        self, keys: Sequence[FrameKey], read: Read, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Read frames that no tier has into RAM, at most a quarter of its budget. Ends early once
        `stop()` is true."""
        left = self.ram.budget // 4
        for first, count in _ranges([key for key in keys if not self.has(key)]):
            if left <= 0 or stop():
                return
            tokens, block = read(first, count)
            lease = Lease()
            for i in range(count):
                frame = _one_frame(tokens, block, i)
                left -= frame.nbytes
                if left >= 0:
                    with self._unpinned():
                        self.ram.put(replace(first, frame=first.frame + i), frame, lease)
            self.end(lease)

    def end(self, lease: Lease) -> None:
        """Release the frames. Safe to call from anywhere, even while a tier changes."""
        self._ended.append(lease)

    def has(self, key: FrameKey) -> bool:
        """Whether any tier has the frame."""
        with self._unpinned():
            return key in self.ram or key in self.device

    def forget(self, video_id: str) -> None:
        """Evict all frames of a video."""
        with self._unpinned():
            for tier in (self.ram, self.device):
                tier.forget(video_id)

    def resize_ram(self, budget: int) -> None:
        """Set the budget of the RAM tier, in bytes."""
        with self._unpinned():
            if budget != self.ram.budget:
                self.ram.resize(budget)

    def nbytes(self) -> dict[str, int]:
        """Bytes in each tier: "ram" and "device"."""
        with self._unpinned():
            return {"ram": self.ram.nbytes, "device": self.device.nbytes}

    @contextmanager
    def _unpinned(self) -> Iterator[None]:
        """Hold the lock, after unpinning the frames of ended leases."""
        with self._lock:
            while self._ended:
                for tier, frame in self._ended.popleft().pins:
                    tier.unpin(frame)
            yield


class Mover:
    """Copies frames to a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, frames: Sequence[CachedFrame]) -> list[CachedFrame]:
        """Copies of these frames. On a GPU the copies may still run; the caller's stream waits for
        them."""
        if self._stream is None:
            return [self._moved(frame, lambda x: x.to(self._device, copy=True)) for frame in frames]
        with torch.cuda.stream(self._stream):
            copies = [
                self._moved(frame, lambda x: x.pin_memory().to(self._device, non_blocking=True))
                for frame in frames
            ]
        reading = torch.cuda.current_stream(self._device)
        reading.wait_stream(self._stream)
        # otherwise the allocator may reuse their memory while the reading stream still needs it
        for frame in copies:
            for x in (
                frame.tokens.tokens,
                *(() if frame.kv is None else (frame.kv.keys, frame.kv.values)),
            ):
                x.record_stream(reading)
        return copies

    @staticmethod
    def _moved(frame: CachedFrame, copy: Callable[[Tensor], Tensor]) -> CachedFrame:
        """Large tensors go to the device; offsets, times and positions are read on the CPU."""
        kv = (
            None
            if frame.kv is None
            else replace(frame.kv, keys=copy(frame.kv.keys), values=copy(frame.kv.values))
        )
        return CachedFrame(replace(frame.tokens, tokens=copy(frame.tokens.tokens)), kv)


def _find_all(keys: Sequence[FrameKey], tier: Tier, lease: Lease) -> dict[FrameKey, CachedFrame]:
    """The frames of those keys that the tier has."""
    looked = ((key, tier.find(key, lease)) for key in keys)
    return {key: frame for key, frame in looked if frame is not None}


def _ranges(keys: Sequence[FrameKey]) -> list[tuple[FrameKey, int]]:
    """Group neighboring frames of one segment: (first, count). keys: in time order."""
    ranges: list[tuple[FrameKey, int]] = []
    for key in keys:
        if ranges and replace(ranges[-1][0], frame=ranges[-1][0].frame + ranges[-1][1]) == key:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((key, 1))
    return ranges


def _one_frame(tokens: VisualTokens, block: KVBlock | None, frame: int) -> CachedFrame:
    """One frame of a range, with memory of its own: a view would keep the whole range alive without
    counting it."""
    visual = tokens.frames(frame, frame + 1)
    kv = None if block is None else block.frames(frame, frame + 1)
    if len(tokens.times) > 1:
        visual = replace(visual, tokens=visual.tokens.clone(), times=visual.times.clone())
        kv = None if kv is None else replace(kv, keys=_copy(kv.keys), values=_copy(kv.values))
    return CachedFrame(visual, kv)


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)
