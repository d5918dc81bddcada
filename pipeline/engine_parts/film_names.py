"""Which films of the bank an id, a path or a former path means."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.engine_parts.loaded_parts import LoadedParts

if TYPE_CHECKING:
    from memory.bank import MemoryBank
    from memory.storage.catalog import VideoRow


class FilmNames:
    """Names of the films of one bank. It never loads a model."""

    def __init__(self, parts: LoadedParts) -> None:
        self._parts = parts

    def rows(self) -> "list[VideoRow]":
        """The videos of the bank, by id; none where there is no bank yet."""
        return self._parts.reader.catalog.videos() if self._parts.is_there() else []

    def row(self, video: str) -> "VideoRow":
        """The video of the bank that an id or a path means. UserError if there is none."""
        from pipeline.videos import find_video

        row = find_video(self._parts.reader, video)
        if row is None:
            raise UserError("No video is named; give its path, or its id in the bank")
        return row

    def every_id(self) -> list[str]:
        """The ids of all videos. UserError where there is none."""
        from pipeline.videos import every_id

        return every_id(self.rows(), self._parts.settings.bank)

    def in_bank(self, video: str) -> "VideoRow | None":
        """The video of this id or former path; None where the bank has none."""
        from pipeline.videos import find_video

        if not self._parts.is_there():
            return None
        rows = {row.info.video_id: row for row in self._parts.reader.catalog.videos()}
        if video in rows:
            return rows[video]
        is_known = any(row.info.path == str(Path(video).absolute()) for row in rows.values())
        return find_video(self._parts.reader, video) if is_known else None

    def ids(self, bank: "MemoryBank", named: Sequence[str]) -> list[str]:
        """The videos to search; none: all. UserError if the bank lacks one of them."""
        from pipeline.videos import find_video

        rows = (find_video(bank, each) for each in named)
        return [row.info.video_id for row in rows if row is not None]

    def is_lacking(self, video: str) -> bool:
        """Whether this is a file, or meant as one, of which the bank lacks something."""
        from pipeline.videos import has_all

        path = Path(video)
        if not path.is_file():
            return path.exists() or self.in_bank(video) is None
        text = self._parts.settings.asking.text
        return not (self._parts.is_there() and has_all(self._parts.reader, path, text))
