"""Rotary positions of frames and of text, and the cursor that says where the next tokens stand.

Three rules cover the families. `LinearPositions`: one axis, one step per token.
`TimedImagePositions` (Qwen3-VL): every frame is an image on three axes (time, row, column; M-RoPE
of arXiv 2409.12191) after its time in text. `VideoGridPositions` (Qwen2-VL, Qwen2.5-VL): all frames
share one grid of rows and columns, and each frame is one step further in time.

A frame's tokens have positions relative to the frame (`KVBlock.pos`); a rule turns them into
positions at the cursor. Recalled frames stand side by side, so positions stay in the range that a
model was trained on, for a video of any length. Knows no model, no keys and no pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encoders.errors import UserError


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of a context."""

    next: int = 0  # position of the next text token
    highest: int = -1  # highest position so far, on any axis
    origin: int | None = None  # position where the running video's grid began; None outside a video
    frames: int = 0  # number of frames since the origin
    text: int = 0  # positions so far that belong to text; the others belong to frames

    @staticmethod
    def furthest(cursors: Sequence["Cursor"]) -> "Cursor":
        """The end of a context whose layers end at these cursors: text continues after all of
        them.
        """
        first = cursors[0]
        return Cursor(
            max(cursor.next for cursor in cursors),
            max(cursor.highest for cursor in cursors),
            first.origin,
            max(cursor.frames for cursor in cursors),
            first.text,
        )

    def after_text(self, positions: Tensor) -> Tensor:
        """How many positions of text precede each of the text tokens at these positions, which
        begin at this cursor. As positions.
        """
        return positions - positions[..., :1] + self.text


class Positions(Protocol):
    """A family's rule."""

    @property
    def axes(self) -> int:
        """1, or 3 (time, row, column)."""
        ...

    def of_frames(
        self, pos: Tensor | None, offsets: Tensor, cursor: Cursor
    ) -> tuple[Tensor, Cursor]:
        """Positions of frames at the cursor, [M] int64 for one axis and [3, M] for three, and the
        cursor after them.

        pos: [M, 3] positions relative to the frame (None for one axis); offsets: [T + 1] tokens of
        frame t.
        """
        ...

    def of_text(self, count: int, cursor: Cursor) -> tuple[Tensor, Cursor]:
        """Positions of `count` text tokens at the cursor, and the cursor after them; ends a running
        video.
        """
        ...


@dataclass(frozen=True, slots=True)
class LinearPositions:
    """One axis: 0, 1, 2, ..."""

    axes: int = 1

    def of_frames(
        self, pos: Tensor | None, offsets: Tensor, cursor: Cursor
    ) -> tuple[Tensor, Cursor]:
        stop = cursor.next + int(offsets[-1])
        return torch.arange(cursor.next, stop), Cursor(stop, stop - 1, text=cursor.text)

    def of_text(self, count: int, cursor: Cursor) -> tuple[Tensor, Cursor]:
        stop = cursor.next + count
        return torch.arange(cursor.next, stop), Cursor(stop, stop - 1, text=cursor.text + count)


@dataclass(frozen=True, slots=True)
class TimedImagePositions:
    """Every frame is an image: text, a grid at one moment, text. Text after a grid continues after
    its longer side.
    """

    axes: int = 3

    def of_frames(
        self, pos: Tensor | None, offsets: Tensor, cursor: Cursor
    ) -> tuple[Tensor, Cursor]:
        if pos is None:
            raise ValueError("positions on three axes need each token's place in its frame")
        # a frame ends with a text token, which has the frame's highest position
        reach = pos[offsets[1:] - 1, 0].long() + 1
        bases = torch.cat([torch.tensor([cursor.next]), cursor.next + reach.cumsum(0)])
        base = bases[:-1].repeat_interleave(offsets.diff())
        stop = int(bases[-1])
        return (base[:, None] + pos.long()).T, Cursor(stop, stop - 1, text=cursor.text)

    def of_text(self, count: int, cursor: Cursor) -> tuple[Tensor, Cursor]:
        stop = cursor.next + count
        after = Cursor(stop, stop - 1, text=cursor.text + count)
        return torch.arange(cursor.next, stop).expand(3, -1), after


@dataclass(frozen=True, slots=True)
class VideoGridPositions:
    """All frames in one grid; frame k stands int(k * interval) further in time.

    interval: positions between frames (Qwen2.5-VL: seconds between them times tokens_per_second;
    Qwen2-VL: 1).
    after: where text continues after a video. "authors": after the highest position, as in Qwen's
    reference. "transformers" (5.23): after the longer side of the grid, at any length of the video,
    and generated text after the highest position of all. The two differ as soon as a video is
    longer than its grid; checkpoints were trained with the first.
    """

    interval: float
    after: str = "authors"
    axes: int = 3

    def __post_init__(self) -> None:
        if self.after not in ("transformers", "authors"):
            raise UserError(
                f"backbone.text_after_video={self.after} is not known; use authors or transformers."
            )

    def of_frames(
        self, pos: Tensor | None, offsets: Tensor, cursor: Cursor
    ) -> tuple[Tensor, Cursor]:
        if pos is None:
            raise ValueError("positions on three axes need each token's place in its frame")
        count = len(offsets) - 1
        origin = cursor.next if cursor.origin is None else cursor.origin
        steps = (torch.arange(cursor.frames, cursor.frames + count) * self.interval).long()
        places = pos.long().T.clone()  # [3, M]
        places[0] += steps.repeat_interleave(offsets.diff())
        placed = places + origin
        if not count:
            return placed, cursor
        highest = max(cursor.highest, int(placed.max()))
        behind_grid = max(cursor.next, int(placed[1:].max()) + 1)
        return placed, Cursor(behind_grid, highest, origin, cursor.frames + count, cursor.text)

    def of_text(self, count: int, cursor: Cursor) -> tuple[Tensor, Cursor]:
        start = (
            cursor.next
            if cursor.origin is None or self.after == "transformers"
            else cursor.highest + 1
        )
        highest = max(cursor.highest, start + count - 1)
        after = Cursor(highest + 1, highest, text=cursor.text + count)
        return torch.arange(start, start + count).expand(3, -1), after
