"""Frames recalled a moment ago, in two tiers above the disk: RAM, and the memory of the device that reads them.

Knows no files and no questions: what is in no tier comes from the `read` that it is handed. Each tier holds frames within a
budget of bytes; the least recently used goes first. Frames that an answer is being read from are pinned: they stay, and
stay counted, until their lease ends. What does not fit because everything else is pinned passes through uncounted, so what
is in use at a moment is bounded by the budget and by what the askers of that moment read.

The unit is the frame: two questions that land near each other share frames, hardly ever whole ranges of them.
On a CPU the device's memory is RAM, and there is one tier. Towards a GPU a question's frames are copied from page-locked
memory on a stream of their own, while the frames before them are copied and the thread goes on.
"""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from encoders.schema import KVBlock, VisualTokens

_OBJECTS = (
    # bytes of Python's and torch's objects around a frame's numbers: 4,128 by the growth of a process, 12,000 frames
    4096
)

Read = Callable[["Key", int], tuple[VisualTokens, KVBlock | None, bool]]
"""(first frame, number of frames from there on) -> tokens, keys and values, and whether they will read the same later."""


@dataclass(frozen=True, slots=True)
class Key:
    """A frame as it is kept."""

    video_id: str
    segment: int  # number of the segment within its video
    # of the segment: 0, 1, ...; unlike ordinals it stays when segments before it are deleted
    frame: int
    kv: bool  # with keys and values


@dataclass(slots=True, eq=False)
class Held:
    """A frame in memory."""

    tokens: VisualTokens
    kv: KVBlock | None
    pins: int = 0
    counted: bool = False  # in its tier's bytes
    forgotten: bool = False  # no longer found; its bytes count until the last pin goes

    @property
    def nbytes(self) -> int:
        seen = self.tokens
        numbers = sum(x.nbytes for x in (seen.tokens, seen.pos, seen.offsets, seen.times)) + (
            self.kv.nbytes if self.kv else 0
        )
        return numbers + _OBJECTS


@dataclass(slots=True, eq=False)
class Lease:
    """What pins frames while they are in use."""

    pins: list[tuple["Tier", Held]] = field(default_factory=list)
    came_from: Counter[str] = field(default_factory=Counter)  # "device", "ram" or "disk" -> frames


class Tier:
    """Frames by key, within a budget. For one thread at a time: `FrameTiers` has the lock."""

    def __init__(self, budget: int) -> None:
        """budget: bytes."""
        self.budget = budget
        self.nbytes = 0  # of all that it holds, and of what was forgotten while pinned
        self._held: OrderedDict[Key, Held] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def find(self, key: Key, lease: Lease) -> Held | None:
        """The frame of this key, pinned, and from now on the one used last."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            self._pin(held, lease)
        return held

    def put(self, key: Key, held: Held, lease: Lease) -> Held:
        """Keep a frame if it fits, and pin it either way. One that is there already is taken instead of it."""
        there = self.find(key, lease)
        if there is not None:
            return there
        self._pin(held, lease)
        if self._make_room(held.nbytes):
            held.counted = True
            self._held[key] = held
            self.nbytes += held.nbytes
        return held

    def unpin(self, held: Held) -> None:
        held.pins -= 1
        if held.forgotten:
            self._uncount(held)
        elif self.nbytes > self.budget:  # it became smaller meanwhile
            self._make_room(0)

    def forget(self, video_id: str) -> None:
        """Find a video's frames no more."""
        for key in [key for key in self._held if key.video_id == video_id]:
            self._remove(key)

    def resize(self, budget: int) -> None:
        """Another budget; it holds at once, but for pinned frames."""
        self.budget = budget
        self._make_room(0)

    def _pin(self, held: Held, lease: Lease) -> None:
        held.pins += 1
        lease.pins.append((self, held))

    def _make_room(self, nbytes: int) -> bool:
        """Whether so many bytes are free, after letting go of what was used least recently."""
        over = self.nbytes + nbytes - self.budget
        going = []
        for key, held in self._held.items():
            if over <= 0:
                break
            if not held.pins:
                going.append(key)
                over -= held.nbytes
        if over > 0 and nbytes:  # it would not fit anyway: nothing has to go
            return False
        for key in going:
            self._remove(key)
        return over <= 0

    def _remove(self, key: Key) -> None:
        held = self._held.pop(key)
        held.forgotten = True
        self._uncount(held)

    def _uncount(self, held: Held) -> None:
        if held.counted and not held.pins:
            held.counted = False
            self.nbytes -= held.nbytes


class FrameTiers:
    """All tiers as one: `take` gives frames where they are needed, from the nearest tier that has them."""

    def __init__(
        self, ram_bytes: int, device_bytes: int = 0, device: torch.device | None = None
    ) -> None:
        """device: where frames are needed; None: in RAM, with no tier above it."""
        self.ram = Tier(ram_bytes)
        self.device = Tier(device_bytes)
        self._mover = None if device is None else Mover(device)
        self._lock = threading.RLock()
        # a lease may end inside the garbage collector, in the middle of anything
        self._ended: deque[Lease] = deque()

    def take(self, keys: Sequence[Key], read: Read) -> tuple[list[Held], Lease]:
        """The frames of these keys, pinned by the lease. What no tier has is read, neighbours at once; what `read` raises
        ends the lease."""
        lease, found = Lease(), dict[Key, Held]()
        try:
            with self._settled():
                found |= _found(keys, self.device, lease)
                lower = [key for key in keys if key not in found]
                found |= _found(lower, self.ram, lease)
            missing = [key for key in lower if key not in found]
            lease.came_from = Counter(
                device=len(keys) - len(lower), ram=len(lower) - len(missing), disk=len(missing)
            )
            passing = set()
            for first, count in _ranges(missing):
                tokens, block, lasting = read(first, count)
                for i in range(count):
                    key, held = replace(first, frame=first.frame + i), _alone(tokens, block, i)
                    if lasting:
                        with self._settled():
                            held = self.ram.put(key, held, lease)
                    else:
                        passing.add(key)
                    found[key] = held
            if self._mover is not None:
                for key, held in zip(
                    lower, self._mover([found[key] for key in lower]), strict=True
                ):
                    with self._settled():
                        found[key] = held if key in passing else self.device.put(key, held, lease)
        except BaseException:
            self.end(lease)
            raise
        return [found[key] for key in keys], lease

    def fetch(
        self, keys: Sequence[Key], read: Read, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Bring frames that no tier has into RAM, at most a quarter of its budget; `stop` is asked before each range."""
        left = self.ram.budget // 4
        for first, count in _ranges([key for key in keys if not self.has(key)]):
            if left <= 0 or stop():
                return
            tokens, block, lasting = read(first, count)
            if not lasting:
                continue
            lease = Lease()
            for i in range(count):
                held = _alone(tokens, block, i)
                left -= held.nbytes
                if left >= 0:
                    with self._settled():
                        self.ram.put(replace(first, frame=first.frame + i), held, lease)
            self.end(lease)

    def end(self, lease: Lease) -> None:
        """The frames are no longer in use. May be called from anywhere, also while a tier is being changed."""
        self._ended.append(lease)

    def has(self, key: Key) -> bool:
        """Whether a frame is in some tier."""
        with self._settled():
            return key in self.ram or key in self.device

    def forget(self, video_id: str) -> None:
        """Find a video's frames no more."""
        with self._settled():
            for tier in (self.ram, self.device):
                tier.forget(video_id)

    def resize_ram(self, budget: int) -> None:
        """Another budget for RAM, in bytes."""
        with self._settled():
            if budget != self.ram.budget:
                self.ram.resize(budget)

    def nbytes(self) -> dict[str, int]:
        """What each tier holds."""
        with self._settled():
            return {"ram": self.ram.nbytes, "device": self.device.nbytes}

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """The lock, after unpinning what leases that have ended pinned."""
        with self._lock:
            while self._ended:
                for tier, held in self._ended.popleft().pins:
                    tier.unpin(held)
            yield


class Mover:
    """Copies frames to a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, frames: Sequence[Held]) -> list[Held]:
        """Copies of these frames. On a GPU they may still be under way: whatever the caller's stream does next waits."""
        if self._stream is None:
            return [self._copied(held, lambda x: x.to(self._device, copy=True)) for held in frames]
        with torch.cuda.stream(self._stream):
            copies = [
                self._copied(held, lambda x: x.pin_memory().to(self._device, non_blocking=True))
                for held in frames
            ]
        reading = torch.cuda.current_stream(self._device)
        reading.wait_stream(self._stream)
        # or the allocator may hand their memory on while the reading stream still needs it
        for held in copies:
            for x in (
                held.tokens.tokens,
                *(() if held.kv is None else (held.kv.keys, held.kv.values)),
            ):
                x.record_stream(reading)
        return copies

    @staticmethod
    def _copied(held: Held, copy: Callable[[Tensor], Tensor]) -> Held:
        """What is large goes to the device; offsets, times and positions are read on the CPU."""
        kv = (
            None
            if held.kv is None
            else replace(held.kv, keys=copy(held.kv.keys), values=copy(held.kv.values))
        )
        return Held(replace(held.tokens, tokens=copy(held.tokens.tokens)), kv)


def _found(keys: Sequence[Key], tier: Tier, lease: Lease) -> dict[Key, Held]:
    """Those of the keys that a tier has."""
    looked = ((key, tier.find(key, lease)) for key in keys)
    return {key: held for key, held in looked if held is not None}


def _ranges(keys: Sequence[Key]) -> list[tuple[Key, int]]:
    """Neighbouring frames of one segment together: (the first, how many). keys: in the order of time."""
    found: list[tuple[Key, int]] = []
    for key in keys:
        if found and replace(found[-1][0], frame=found[-1][0].frame + found[-1][1]) == key:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((key, 1))
    return found


def _alone(tokens: VisualTokens, block: KVBlock | None, frame: int) -> Held:
    """One frame of a range, with memory of its own: a view would keep the whole range alive, uncounted."""
    seen = tokens.frames(frame, frame + 1)
    kv = None if block is None else block.frames(frame, frame + 1)
    if len(tokens.times) > 1:
        seen = replace(seen, tokens=seen.tokens.clone(), times=seen.times.clone())
        kv = None if kv is None else replace(kv, keys=_own(kv.keys), values=_own(kv.values))
    return Held(seen, kv)


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)
