"""Frames of a video file at a steady rate, by time stamp.

Knows files, times and pixels; nothing of segments, models or banks.

What is sampled follows from the file's packets alone (encoders/sources/sampling.py), so a pass from
the middle meets the same frames at the same times as a whole pass. A picture that cannot be decoded
is answered by the next one that can, if that comes before the next point of the grid.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from encoders.detail import needed_detail
from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.schema import Frames, VideoInfo, VideoPart
from encoders.sources.container import fingerprint, inspect
from encoders.sources.decoding.decord_reader import DecordError, DecordReader, why_not_decord
from encoders.sources.decoding.hardware import (
    AUTO,
    COMPARED,
    MOST_SESSIONS,
    NONE,
    check_hwaccel,
    device_decoder,
)
from encoders.sources.decoding.pyav_reader import Decoded, PyAvReader
from encoders.sources.decoding.scaler import Scaler
from encoders.sources.decoding.unit_decoder import UnitDecoder
from encoders.sources.decoding.units import units_of
from encoders.sources.decoding.worker_count import check_workers, worker_count
from encoders.sources.pictures import fit_size
from encoders.sources.sampling import Samples, first_samples, keyframe_samples, shown_samples
from encoders.sources.thumbnail_maker import MOST_BYTES, thumbnail_maker

DECODERS = ("auto", "pyav", "decord")
_GAPS = 8  # stretches of damage that a note lists
_WORKER_BYTES = 16 << 20  # of scaled pictures that wait, for each worker
# rules of sampling, in the record of a video; earlier versions had another
_SHOWN, _KEYFRAMES = "shown", "keyframes"
SAMPLINGS = (_SHOWN, _KEYFRAMES)
_FAR_S = 15.0  # between two keyframes; a note says so


class FileSource:
    """A `FrameSource` over one file. start and end limit the pass: seconds of video time, end
    exclusive. decoder: "pyav", which is exact everywhere; "decord", as far as it can; "auto": the
    faster one of those that are exact. workers: that decode at once, each another stretch; "auto":
    as many as there are cores; the frames are the same for any number. hwaccel: "cuda", a device
    that decodes for the workers; "auto": one that is there; "none": software. sampling: "shown" at
    each point of the grid; "keyframes": what is decoded without any other picture, with its own
    time, at most `fps` a second. keep: "jpeg" adds a thumbnail to each frame, of keep_size pixels
    on the longer side at most, of keep_quality (1 to 95), and of at most keep_bytes; "none": none.
    UserError if the file cannot be used, or has no frame in that range.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = 1.0,
        *,
        width: int,
        height: int,
        batch: int = 16,
        start: float = 0.0,
        end: float | None = None,
        decoder: str = "auto",
        workers: int | str = 1,
        hwaccel: str = NONE,
        sampling: str = _SHOWN,
        keep: str = "none",
        keep_size: int = 480,
        keep_quality: int = 75,
        keep_bytes: int = MOST_BYTES,
    ) -> None:
        self._path = Path(path)
        _check(path, fps, start, end, decoder)
        check_workers(workers)
        check_hwaccel(hwaccel)
        if sampling not in SAMPLINGS:
            raise UserError(
                f"source.sampling={sampling} is unknown; use one of {', '.join(SAMPLINGS)}"
            )
        self._thumbnail = thumbnail_maker(keep, keep_size, keep_quality, keep_bytes)
        if min(width, height, batch) < 1:
            raise ValueError(
                f"width={width}, height={height}, batch={batch}: all must be at least 1"
            )
        self._facts = inspect(self._path)
        self._workers = worker_count(workers, self._facts.pixels)
        self._hwaccel = device_decoder(hwaccel, self._facts.codec)
        self._must_accelerate, self._is_compared = hwaccel not in (NONE, AUTO), False
        self._fps, self._size, self._batch = fps, (width, height), batch
        self._detail: tuple[int, int] | None = None
        self._start, self._end = start, math.inf if end is None else end
        self._id = str(VideoPart(fingerprint(self._path), start, end))
        self._broke_at: float | None = None
        self._decoders: set[str] = set()
        facts = self._facts
        self._damage = [
            _nothing_between(facts.times[last], facts.times[next_one])
            for last, next_one in facts.lost
        ]
        self._sample(sampling)
        # PyAV is as exact everywhere, and faster
        self._use(decord=decoder == "decord")
        times = self._samples.times
        if facts.is_stamped and not ((times >= self._start) & (times < self._end)).any():
            raise self._no_frames_error()

    def _sample(self, rule: str) -> None:
        """Sample by this rule; "" is that of earlier versions."""
        facts, self._rule = self._facts, rule
        if rule == _SHOWN:
            self._samples = shown_samples(
                facts.times, facts.end, facts.step, self._fps, facts.whole_until
            ).without_standing([last for last, _ in facts.lost])
        elif rule == _KEYFRAMES:
            self._samples = keyframe_samples(facts.times, units_of(facts).edges[:-1], self._fps)
        else:
            self._samples = first_samples(facts.times, self._fps)

    def _use(self, *, decord: bool) -> None:
        """Decode by decord as far as it can, or by PyAV."""
        self._asks_decord = decord
        # reason not to use decord; empty if it is used
        self._why = self._why_not_decord() if decord else "not asked for"
        # seconds up to which decord's pictures are used; PyAV's after that
        self._decord_until = -math.inf if self._why else math.inf

    def _why_not_decord(self) -> str:
        # decord scales every picture to one size
        return "thumbnails are kept" if self._thumbnail else why_not_decord(self._facts)

    def add_detail(self, size: tuple[int, int]) -> None:
        """Scale each picture to this (width, height) as well. decord gives one size alone."""
        self._detail = needed_detail(self._size, size)

    def resume(self, before: VideoInfo) -> None:
        """Sample and decode as the pass that made this record did. UserError if that counted time
        otherwise.
        """
        rule, _, decoders = before.decoder.rpartition(":")
        if not decoders:  # the catalog was lost, and with it how the frames were made
            return
        is_moved = self._facts.timeline.restarts or self._facts.times[0] != 0.0
        if rule not in SAMPLINGS and is_moved:
            raise UserError(
                f"{self._path} was begun by an earlier version, which counted its time from "
                "another beginning; encode it into another bank=DIR"
            )
        self._sample(rule)
        self._use(decord="decord" in decoders)

    @property
    def info(self) -> VideoInfo:
        """The facts so far; decoder, broke_at and note are final once iteration has ended."""
        guess = {"pyav"} if self._why else {"decord"}
        asks_decord = self._why and self._asks_decord
        notes = [f"PyAV was used as {self._why}"] if asks_decord else []
        notes += ["the file is cut off at its end"] if self._facts.cut_off else []
        if self._rule == _KEYFRAMES:
            far = np.diff([0.0, *self._samples.times, self._facts.end]).max()
            if far > _FAR_S:
                notes.append(f"keyframes alone were sampled, up to {far:.0f} s apart")
        damage = self._damage[:_GAPS]
        if len(self._damage) > _GAPS:
            damage.append(f"{len(self._damage) - _GAPS} more stretches could not be decoded")
        return VideoInfo(
            video_id=self._id,
            path=str(self._path.absolute()),  # it stays right in other folders
            duration=self._facts.duration,
            decoder=":".join(filter(None, [self._rule, "+".join(sorted(self._decoders or guess))])),
            broke_at=self._broke_at,
            note="; ".join([*notes, *self._facts.timeline.notes, *damage]),
        )

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        """Batches of sampled frames from `start` seconds on, `batch` frames each except
        the last.
        """
        begin = max(start, self._start)
        last = -math.inf
        if begin <= self._decord_until:
            try:
                for run in self._by_decord(begin):
                    last = float(run.times[-1])
                    yield run
            except DecordError as error:
                self._decord_until = last
                self._why = self._why or str(error) + (f" after {last:.2f} s" if last >= 0 else "")
        if self._decord_until < math.inf:
            after = np.nextafter(last, math.inf) if last > -math.inf else last
            for run in self._batches(self._by_pyav(max(begin, after))):
                last = float(run.times[-1])
                yield run
        if last < 0 and begin == self._start:
            raise self._no_frames_error()

    def _by_decord(self, begin: float) -> Iterator[Frames]:
        samples = self._samples
        stop = min(self._end, np.nextafter(self._decord_until, math.inf))
        chosen = np.flatnonzero((samples.times >= begin) & (samples.times < stop))
        if not len(chosen):
            return
        reader = DecordReader(self._facts, *self._size)
        for first in range(0, len(chosen), self._batch):
            part = chosen[first : first + self._batch]
            pixels = reader.pictures(samples.numbers[part].tolist())
            self._decoders.add("decord")
            yield Frames(self._id, pixels, samples.times[part])

    def _batches(self, samples: Iterator[tuple["_Picture", float]]) -> Iterator[Frames]:
        batch: list[tuple[_Picture, float]] = []
        for sample in samples:
            self._decoders.add("pyav")
            batch.append(sample)
            if len(batch) == self._batch:
                yield self._joined(batch)
                batch = []
        if batch:
            yield self._joined(batch)

    def _joined(self, batch: Sequence[tuple["_Picture", float]]) -> Frames:
        jpegs = tuple(picture.jpeg for picture, _ in batch if picture.jpeg is not None)
        details = [picture.detail for picture, _ in batch if picture.detail is not None]
        return Frames(
            self._id,
            np.stack([picture.pixels for picture, _ in batch]),
            np.array([time for _, time in batch]),
            jpegs if self._thumbnail else None,
            np.stack(details) if details else None,
        )

    def _by_pyav(self, begin: float) -> Iterator[tuple["_Picture", float]]:
        """Frames from `begin` on with their times, as far as the file can be decoded."""
        samples = self._samples
        self._compare_device()
        reader = PyAvReader(
            self._facts,
            self._scaled,
            samples.numbers,
            workers=self._workers,
            most=self._most(),
            hwaccel=self._hwaccel,
        )
        # a sample before `begin` that is lost may be answered behind it
        first = max(0, int(np.searchsorted(samples.times, begin)) - 1)
        behind = int(np.searchsorted(samples.times, self._end))
        ahead = int(samples.numbers[behind]) if behind < len(samples.numbers) else None
        answers = _Answers(reader, samples, self._facts.times, first, ahead)
        complete = True
        for picture, time in answers.frames(begin):
            if time >= self._end:
                complete = False
                break
            yield picture, time
        self._record(reader.gaps, complete)

    def _compare_device(self) -> None:
        """Leave the device out unless the first sampled pictures of the film are those of software.
        UserError where it was asked for by name."""
        if self._hwaccel is None or self._is_compared:
            return
        self._is_compared = True
        if self._facts.pictures is not None and self._is_exact(self._hwaccel):
            self._workers = min(max(2, self._workers), MOST_SESSIONS)
        elif self._must_accelerate:
            raise UserError(
                f"source.hwaccel= gives other pictures of {self._path} than software, or none; "
                f"use {AUTO}, which compares them, or leave it out"
            )
        else:
            self._hwaccel = None

    def _is_exact(self, hwaccel: HWAccel) -> bool:
        units, numbers = units_of(self._facts), self._samples.numbers
        unit = units.of(int(numbers[0]))
        stop = int(units.edges[unit + 1])
        wanted = np.zeros(len(self._facts.times), dtype=bool)
        wanted[numbers[numbers < stop][:COMPARED]] = True
        found = []
        for device in (None, hwaccel):
            decoder, scaler = UnitDecoder(self._facts, units, wanted, device), Scaler()
            with closing(decoder):
                found.append(
                    [
                        (number, scaler.picture(frame, self._size).tobytes())
                        for number, frame in decoder.pictures(unit)
                        if wanted[number]
                    ]
                )
        return bool(found[0]) and found[0] == found[1]

    def _most(self) -> int:
        """Pictures that may wait for the caller while workers decode on."""
        pixels = math.prod(self._size) + math.prod(self._detail or (0,))
        return max(2, self._workers * _WORKER_BYTES // (3 * pixels))

    def _scaled(self, frame: av.VideoFrame, scaler: Scaler) -> "_Picture":
        jpeg = None
        if self._thumbnail is not None:
            size = fit_size(self._facts, frame, self._thumbnail.size)
            jpeg = self._thumbnail(scaler.picture(frame, size))
        detail = None if self._detail is None else scaler.picture(frame, self._detail)
        return _Picture(scaler.picture(frame, self._size), jpeg, detail)

    def _record(self, gaps: list[tuple[float, float | None]], complete: bool) -> None:
        """Add what could not be decoded to the notes."""
        for good, again in gaps:
            if again is not None:
                line = _nothing_between(good, again)
            elif complete:
                later = self._facts.times[self._facts.times > good]
                self._broke_at = (
                    float(later[0]) if len(later) else max(good, 0.0) + self._facts.step
                )
                line = f"nothing from {self._broke_at:.2f} s on could be decoded"
            else:
                continue
            if line not in self._damage:
                self._damage.append(line)

    def _no_frames_error(self) -> UserError:
        end = "its end" if self._end == math.inf else f"{self._end:g} s"
        message = f"{self._path} has no frame between {self._start:g} s and {end}"
        if self._broke_at is not None:
            return UserError(
                f"{message} that can be decoded: the file is damaged from {self._broke_at:.2f} s "
                "on, so copy or download "
                "it again, or ask for a range before that"
            )
        return UserError(
            f"{message} at {self._fps:g} frames per second; the video is "
            f"{self._facts.duration:.2f} s long, so ask for a "
            "range inside it, or for more frames per second"
        )


class _Picture(NamedTuple):
    """A sampled picture."""

    pixels: np.ndarray  # [height, width, 3] uint8 RGB, of the model's size
    jpeg: bytes | None  # its thumbnail
    detail: np.ndarray | None  # the same picture in more pixels


class _Answers:
    """What a reader gives for the samples of a pass, in time order."""

    def __init__(
        self,
        reader: PyAvReader[_Picture],
        samples: Samples,
        times: np.ndarray,
        first: int,
        ahead: int | None,
    ) -> None:
        """times: [T] seconds of all pictures; first: number of the sample to begin with; ahead:
        picture up to which workers decode ahead.
        """
        self._reader, self._samples, self._times, self._next = reader, samples, times, first
        self._ahead = ahead

    def frames(self, begin: float) -> Iterator[tuple[_Picture, float]]:
        """Pictures with their times, from `begin` seconds on."""
        samples = self._samples
        if self._next == len(samples.numbers):
            return
        standing: tuple[_Picture, list[float]] | None = None
        passing = self._reader.pictures(int(samples.numbers[self._next]), self._ahead)
        with closing(passing):  # workers end with it
            for decoded in passing:
                if standing is not None and not decoded.after_damage:
                    yield from ((standing[0], time) for time in standing[1])
                standing = None
                own, stands = self._times_of(decoded)
                late = [time for time in own if time >= begin], [t for t in stands if t >= begin]
                if late[0] or late[1]:
                    picture = decoded.content()
                    yield from ((picture, time) for time in late[0])
                    # whether it stood is known once the next picture comes
                    standing = (picture, late[1]) if late[1] else None
        if standing is not None and not self._reader.is_in_damage:
            yield from ((standing[0], time) for time in standing[1])

    def _times_of(self, decoded: Decoded[_Picture]) -> tuple[list[float], list[float]]:
        """Times at which this picture is a sample: its own, and those at which it stands. A picture
        behind lost ones answers for them, unless another sample comes first.
        """
        samples = self._samples
        own: list[float] = []
        stands: list[float] = []
        is_lost, count = False, len(samples.numbers)
        while self._next < count and samples.numbers[self._next] < decoded.number:
            is_lost, self._next = True, self._next + 1
        while self._next < count and samples.numbers[self._next] == decoded.number:
            into = stands if samples.stands[self._next] else own
            into.append(float(samples.times[self._next]))
            self._next += 1
        time = float(self._times[decoded.number])
        next_one = samples.times[self._next] if self._next < count else math.inf
        if is_lost and not own and time < min([*stands, next_one]):
            own.append(time)
        return own, stands


def _nothing_between(good: float, again: float) -> str:
    return f"nothing between {max(good, 0.0):.2f} s and {again:.2f} s could be decoded"


def _check(path: str | Path, fps: float, start: float, end: float | None, decoder: str) -> None:
    """UserError for settings that no file can satisfy."""
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps={fps} for {path}: frames per second must be above 0; 1 is usual")
    if not (math.isfinite(start) and start >= 0):
        raise UserError(f"start={start} for {path}: give the start in seconds, 0 or more")
    if end is not None and not end > start:
        raise UserError(
            f"start={start} is not before end={end} for {path}; give a start below the end, in "
            "seconds"
        )
    if decoder not in DECODERS:
        raise UserError(f"source.decoder={decoder} is unknown; use one of {', '.join(DECODERS)}")
    if decoder == "decord":
        require_extra("decord", "source.decoder=decord")
