"""A stretch of a film -> what a reader reads, made anew for one question: decoded, and encoded with
every visual token of the model. Nothing of it is written to the bank.

Frames come from the same source, in the same size, through the same tower as when the bank was
made. With the bank's rate and without a compressor they have the tokens that the bank stores.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.schema import (
    Frames,
    FrameSource,
    Prefill,
    ResumableSource,
    VideoPart,
    VisualTokens,
    join_frames,
    join_tokens,
)
from encoders.sources.identity import why_not_file
from memory.pending import to_device
from memory.schema import Evidence, Hits, Question, Run
from memory.storage.catalog import SegmentRow, VideoRow
from pipeline.runtime.stage_timer import StageTimer

# (path, frames per second, first second, second behind the last) -> the frames of a film
OpenFilm = Callable[[str, float, float, float], FrameSource]

_BATCH = 16  # sampled frames, or the fewest whole patches above, that the tower gets at once
_EPS_S = 1e-6  # a point of a finer grid may round to just before the segment's first frame


class NoFilmError(UserError):
    """A film cannot be decoded again. Its text is the end of a sentence with "because"."""


@dataclass(frozen=True)
class FilmEncoder:
    """Encodes stretches of the films of a bank again. Threads: many may ask."""

    backbone: Backbone
    open_film: OpenFilm
    # a fresh window for a reader of keys and values; None: the reader works from tokens
    new_prefill: Callable[[], Prefill] | None

    def evidence(
        self,
        video: VideoRow,
        row: SegmentRow,
        question: Question,
        timer: StageTimer,
        *,
        stop: float,
        fps: float,
        most_frames: int,
        read_tokens: int,
    ) -> list[Evidence]:
        """What the question sees of a segment, in time order, in contexts of at most `read_tokens`
        visual tokens. Frames are named by their numbers in the decoded segment.

        stop: second at which the segment ends and the next one begins. fps: frames per second.
        most_frames: sampled frames of the segment; a longer one has fewer a second. Raises
        NoFilmError where the film is gone, is another one, or is a stream, where it cannot be
        decoded, and where one frame has more than `read_tokens`.
        """
        path = video.info.path
        obstacle = why_not_file(row.video_id, path)
        if obstacle:
            raise NoFilmError(obstacle)
        moment = question.moment(row.video_id)
        end = VideoPart.parse(row.video_id).end  # a bank of a part knows nothing of the rest
        stop = min(stop, math.inf if end is None else end)
        is_cut, stop = moment < stop, min(stop, math.nextafter(moment, math.inf))
        rate = min(fps, most_frames / (stop - row.start))
        with timer("decode"):
            frames = self._decoded(video, row.start, stop, rate).part(0, most_frames)
        patch = self.backbone.temporal_patch
        # a patch that the moment cuts is not complete yet, and the bank does not show it either
        rest = len(frames) % patch if is_cut else 0
        frames = frames.part(0, max(len(frames) - rest, rest))
        lasts = frames.times[
            np.minimum(np.arange(0, len(frames), patch) + patch - 1, len(frames) - 1)
        ]
        seen = [question.sees(row.video_id, time, 1 / rate) for time in lasts.tolist()]
        runs: list[Run] = []
        for first, after in _stretches(seen):
            with timer("look"):
                tokens = self._encoded(frames.part(first * patch, after * patch))
            runs += self._runs(row, first, tokens, read_tokens, path)
        with timer("prefill"):
            return [self._context(question, run, 1 / rate) for run in runs]

    def release_tower(self) -> bool:
        """Take the vision tower out of memory until a film is encoded; False while one is."""
        return self.backbone.tower.release()

    def _decoded(self, video: VideoRow, start: float, stop: float, rate: float) -> Frames:
        """The sampled frames from one second to another."""
        path = video.info.path
        try:
            source = self.open_film(path, rate, max(0.0, start - _EPS_S), stop)
            if isinstance(source, ResumableSource):
                source.resume(video.info)
            parts = list(source.frames())
        except (OSError, UserError) as error:
            reason = str(error).rstrip(".")
            raise NoFilmError(f"{path} cannot be read there ({reason})") from error
        if not parts:
            raise NoFilmError(f"{path} has no frame there that can be decoded")
        return join_frames(parts)

    def _encoded(self, frames: Frames) -> VisualTokens:
        """All tokens of the frames. Each frame's depend on itself alone, so batches are free."""
        patch = self.backbone.temporal_patch
        size = math.ceil(_BATCH / patch) * patch
        return join_tokens(
            [
                self.backbone.encode_frames(frames.part(first, min(first + size, len(frames))))
                for first in range(0, len(frames), size)
            ]
        )

    def _runs(
        self, row: SegmentRow, first: int, tokens: VisualTokens, read_tokens: int, path: str
    ) -> Iterator[Run]:
        """The tokens in runs that fit the budget, as full as possible. first: number of the first
        frame."""
        counts = tokens.offsets.diff().tolist()
        if max(counts) > read_tokens:
            raise NoFilmError(
                f"a frame of {path} has {max(counts)} visual tokens, more than "
                f"read_tokens={read_tokens}"
            )
        begin, used = 0, 0
        for number, own in enumerate(counts):
            if used + own > read_tokens:
                yield Run(
                    row.video_id, row.number, first + begin, tokens.frames(begin, number), None
                )
                begin, used = number, 0
            used += own
        yield Run(row.video_id, row.number, first + begin, tokens.frames(begin, len(counts)), None)

    def _context(self, question: Question, run: Run, interval: float) -> Evidence:
        """One run alone. Its keys saw the preamble and the run, nothing before it."""
        if self.new_prefill is not None:
            run = Run(
                run.video_id, run.segment, run.first, run.tokens, self.new_prefill()(run.tokens)
            )
        device = self.backbone.device
        none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        return Evidence(
            question,
            to_device([run], None if device.type == "cpu" else device),
            none,
            recent=0,
            interval=interval,
        )


def _stretches(seen: list[bool]) -> list[tuple[int, int]]:
    """(first, number behind the last) of each stretch of frames that are seen."""
    edges = np.flatnonzero(np.diff(np.array([False, *seen, False]).astype(np.int8)))
    return [(a, b) for a, b in pairwise(edges.tolist())][::2]
