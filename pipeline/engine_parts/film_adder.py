"""Adds film files to the bank of an engine, or reads what another process has added of them."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import UserError
from pipeline.config import units
from pipeline.engine_parts.loaded_parts import LoadedParts

if TYPE_CHECKING:
    from encoders.schema import FrameSource, VideoInfo
    from memory.bank import MemoryBank
    from pipeline.ingest.ingester import Ingester, Progress
    from pipeline.schema import IngestReport

    ShowProgress = Callable[[VideoInfo], AbstractContextManager[Progress]]


class FilmAdder:
    """Encodes what the bank lacks of a film. One call at a time: its engine holds a lock."""

    def __init__(self, parts: LoadedParts) -> None:
        self._parts = parts
        self._name = parts.settings.bank  # of the bank, in sentences

    def source(
        self, path: str, start: float, end: float | None, began: str, *, asks: bool = False
    ) -> "FrameSource":
        """The frames of a file. A file that is no video creates no bank. asks: a question about it
        comes next, so the model is loaded anyway."""
        from encoders.sources.container import check_file

        check_file(Path(path))  # refuses a wrong path before torch and a model load
        if began:
            units.parse_moment("began", began)
        from pipeline.build import open_video

        model = self._parts.backbone if asks else self._parts.adding_model
        return open_video(self._parts.settings.asking, model, path, start=start, end=end)

    def encode(
        self,
        source: "FrameSource",
        path: str,
        began: str,
        show_progress: "ShowProgress",
        cancelled: threading.Event | None,
    ) -> "IngestReport":
        """What `Engine.add` does, with frames that are opened already."""
        from pipeline.runtime.cancel import raise_if_cancelled
        from pipeline.videos import follow_file

        bank, video_id = self._parts.ingester.bank, source.info.video_id
        moment = units.parse_moment("began", began) if began else None
        ingester = replace(self._parts.ingester, began=moment)
        row = bank.catalog.video(video_id)
        if row is not None and moment is not None:
            self._refuse_other_began(bank, path, began, moment, video_id)
        try:
            if row is not None and row.finished:
                with suppress(UserError):  # a bank that cannot be written now: the next time
                    follow_file(bank, row, Path(source.info.path))
            if row is not None and row.finished and not ingester.lacks_pictures(video_id):
                return self._all_encoded(ingester, ingester.ingest(source))
            with show_progress(source.info) as progress:
                if row is None or not row.finished:
                    progress(bank.catalog.next(video_id)[1], 0)  # where this pass begins

                def report(seconds: float, nbytes: int) -> None:
                    progress(seconds, nbytes)
                    raise_if_cancelled(cancelled)

                done = ingester.ingest(source, report)
                progress(done.video_seconds, done.nbytes)  # all of it is written
                return self._all_encoded(ingester, done)
        finally:
            bank.end_writing()

    def encode_or_read(
        self,
        source: "FrameSource",
        path: str,
        began: str,
        moment: float,
        show_progress: "ShowProgress",
        cancelled: threading.Event | None,
    ) -> tuple[str, float]:
        """Encode what the bank lacks of the video, unless another process writes the bank.

        moment: seconds of video time. -> what the user must know, and the moment of the question:
        the end of what is stored where that comes first. BankBusyError when nothing is stored yet.
        """
        from memory.storage.manifest import BankBusyError

        if len(self._parts.settings.roots) > 1:
            return self._read_only(source.info.video_id, path, moment)
        try:
            return self.encode(source, path, began, show_progress, cancelled).warning, moment
        except BankBusyError:
            catalog, video_id = self._parts.ingester.bank.catalog, source.info.video_id
            row, segments = catalog.video(video_id), catalog.segments(video_id)
            if row is None or not segments:
                raise
            end = segments[-1].end
            if row.finished:
                note = (
                    f"Another process writes bank {self._name}; text=, dense= and further clip= "
                    "were left out."
                )
                return note, moment
            if moment < end:
                return "", moment  # all that the question may see is there
            note = (
                f"Another process is encoding into bank {self._name}; answered from the first "
                f"{end:.1f} s of the video."
            )
            return note, end

    def _all_encoded(self, ingester: "Ingester", done: "IngestReport") -> "IngestReport":
        """The report, once visual_tokens=at_once is done in a bank that encodes on demand."""
        from pipeline.config.tasks.pipeline_settings import AT_ONCE

        if ingester.on_demand is not None and self._parts.settings.asking.visual_tokens == AT_ONCE:
            missing = ingester.bank.encoding.missing(done.video_id)
            ingester.on_demand(done.video_id, missing)
        return done

    def _read_only(self, video_id: str, path: str, moment: float) -> tuple[str, float]:
        """`encode_or_read` where several banks are read as one. UserError for a film that none of
        them has."""
        catalog = self._parts.reader.catalog
        row, segments = catalog.video(video_id), catalog.segments(video_id)
        if row is None or not segments:
            raise UserError(
                f"{path} is in none of the banks {self._name}, and nothing is encoded into "
                f"several; `reelbank add {path} --bank {self._parts.settings.roots[0]}` encodes it"
            )
        end = segments[-1].end
        if row.finished or moment < end:
            return "", moment
        note = (
            f"{path} is not encoded to its end; answered from the first {end:.1f} s of the video."
        )
        return note, end

    def _refuse_other_began(
        self, bank: "MemoryBank", path: str, began: str, moment: float, video_id: str
    ) -> None:
        """UserError when the bank has another wall-clock start of the same file."""
        catalog = bank.catalog
        before = catalog.began(video_id, catalog.next(video_id)[0])
        if before != moment and catalog.segments(video_id):
            stored = (
                "without began=" if before is None else f"with began={units.format_moment(before)}"
            )
            raise UserError(
                f"began={began} does not fit: {path} is in bank {self._name} {stored}; leave "
                "began= out, or encode into another bank=DIR"
            )
