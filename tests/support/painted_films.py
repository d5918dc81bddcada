"""Films of the needle world that are painted while they stream: no file, a frame each second."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from encoders.schema import Frames, VideoInfo
from memory.bank import MemoryBank
from pipeline.needle_world.cards import draw
from pipeline.needle_world.video import parse, procedural_footage


class PaintedFilm:
    """A source of frames."""

    def __init__(
        self, name: str, number: int, size: tuple[int, int], card: str = "", seconds: int = 32
    ) -> None:
        """number: of the footage. size: of a frame. card: as of `parse`; "": none."""
        self.info = VideoInfo(name, f"{name}.mp4", float(seconds), "painted")
        self._footage = procedural_footage(number, size)
        self._card = parse(card, number) if card else None

    def frames(self, start: float = 0.0) -> Iterator[Frames]:
        for first in range(int(start), int(self.info.duration), 8):
            pictures = []
            for second in range(first, first + 8):
                picture = self._footage(float(second))
                if self._card is not None and self._card.start <= second < self._card.end:
                    draw(picture, self._card.needle, self._card.place)
                pictures.append(np.asarray(picture))
            times = np.arange(first, first + 8, dtype=np.float64)
            yield Frames(self.info.video_id, np.stack(pictures), times)


def copy_film(source: MemoryBank, origin: str, target: MemoryBank, name: str) -> None:
    """Write the segments of a film into a bank, under a name of their own. Lines stay behind."""
    row = source.catalog.video(origin)
    assert row is not None
    info = replace(row.info, video_id=name, path=f"{name}.mp4")
    target.record_video(info, row.interval, finished=False)
    for segment in source.catalog.segments(origin):
        whole = source.catalog.read_segment(origin, segment.number)
        target.write(replace(whole, video_id=name))
    target.record_video(info, row.interval, finished=True)
