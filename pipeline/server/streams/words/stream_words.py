"""The words of a stream, found in pieces of what it sends while its frames are encoded.

Lines of a piece are written once the frames of its time are in the bank, so after a crash no line
stands at a time that another session shows. Pieces that cannot be read in time are left out and
counted, and so is what fails: the stream goes on. Knows the bank's text; no source and no HTTP.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.sources.live.piece_recorder import SUFFIX, StreamPiece
from encoders.text.lines import TextBlock, TextExtractor, TextLine, TextSpan
from pipeline.ingest.text import embed_lines
from pipeline.qa import VideoQA
from pipeline.server.streams.words.piece_reader import PieceReader

_WAITING = 4  # pieces of one stream, at most
_TICK_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _PieceLines:
    """Lines of one extractor in one piece."""

    extractor: str
    made_with: str
    lines: list[TextLine]


class StreamWords:
    """Runs in a thread of its own until it is closed."""

    def __init__(
        self,
        qa: VideoQA,
        name: str,
        extractors: Sequence[TextExtractor],
        reader: PieceReader,
        folder: Path,
    ) -> None:
        """name: of the stream and of its video. reader: shared by all streams of the process.
        folder: of the pieces; those of a process that was killed are deleted."""
        self.folder = folder
        for left in folder.glob(f"*{SUFFIX}"):
            left.unlink(missing_ok=True)
        self._qa, self._name = qa, name
        self._extractors, self._reader = tuple(extractors), reader
        self._changed = threading.Condition()
        self._waiting: deque[tuple[StreamPiece, int]] = deque()  # with the session of each
        self._session = 0
        self._is_closed = False
        self.left_out = 0.0  # seconds of pieces that could not be read in time
        self.until = 0.0  # seconds of video time up to which lines are in the bank
        self.error = ""
        self._thread = threading.Thread(target=self._run, name=f"words-{name}", daemon=True)
        self._thread.start()

    def take(self, piece: StreamPiece) -> None:
        """Add a piece. Where too many wait, the oldest one is left out."""
        with self._changed:
            self._waiting.append((piece, self._session))
            gone = self._waiting.popleft() if len(self._waiting) > _WAITING else None
            self._changed.notify_all()
        if gone is not None:
            self._leave_out(gone[0])

    def take_in_turn(self, piece: StreamPiece, closed: threading.Event) -> None:
        """Add a piece once there is room, or leave it where `closed` is set: a file can wait."""
        while not (closed.is_set() or self._is_closed):
            with self._changed:
                if len(self._waiting) < _WAITING:
                    self._waiting.append((piece, self._session))
                    self._changed.notify_all()
                    return
                self._changed.wait(_TICK_S)

    def end_session(self) -> None:
        """No more frames come of what was taken so far: what is in the bank is all."""
        with self._changed:
            self._session += 1
            self._changed.notify_all()

    def state(self) -> dict[str, Any]:
        """How far the words are, as JSON data."""
        return {
            "extractors": [each.name for each in self._extractors],
            "until": round(self.until, 3),
            "left_out": round(self.left_out, 3),
            "error": self.error,
        }

    def close(self) -> None:
        """End with the piece that is being read; what waits is left out."""
        with self._changed:
            self._is_closed = True
            pieces = [piece for piece, _ in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()
        for piece in pieces:
            self._leave_out(piece)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                piece, session = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._read(piece, session)
            except (UserError, OSError) as error:
                self._tell(str(error).rstrip(". "))
            except Exception as accident:
                log.exception("reelbank: the words of stream %s failed", self._name)
                self._tell(f"{type(accident).__name__}: {accident}")
            finally:
                if piece.is_own:
                    piece.path.unlink(missing_ok=True)

    def _read(self, piece: StreamPiece, session: int) -> None:
        every: list[_PieceLines] = []
        for extractor in self._extractors:
            found = self._reader.read(extractor, self._name, piece)
            if found is not None:
                every.append(_PieceLines(extractor.name, *found))
        end = self._stored_until(piece.end, session)
        for one in every:
            self._write(one, min(piece.end, end))
        text = self._qa.ingester.text
        if text.sentence_encoder is not None:
            embed_lines(text.bank, text.sentence_encoder, self._name)
        self.until = max(self.until, min(piece.end, end))

    def _stored_until(self, seconds: float, session: int) -> float:
        """Wait until the frames up to this second are in the bank, or no more come; the second up
        to which they are."""
        while True:
            stored = self._qa.bank.catalog.next(self._name)[1]
            if stored >= seconds or session < self._session or self._is_closed:
                return stored
            with self._changed:
                self._changed.wait(_TICK_S)

    def _write(self, found: _PieceLines, end: float) -> None:
        """Store the lines up to this second, behind those that are stored."""
        text = self._qa.bank.text
        run = next((one for one in text.runs(self._name) if one.extractor == found.extractor), None)
        if run is not None and run.made_with != found.made_with:
            raise UserError(
                f"the bank has lines by {found.extractor} of this stream that were made with other "
                f"settings; leave {found.extractor} out of its text, or give the stream another "
                "name"
            )
        gap = text.missing(self._name, found.extractor)[-1]
        lines = tuple(
            replace(
                line,
                start=max(line.start, gap.start),
                end=min(line.end, end),
                known=max(line.known, gap.start),
            )
            for line in found.lines
            if line.end > gap.start and line.start < end and line.known <= end
        )
        if end > gap.start:
            span = TextSpan(gap.start, end, lines, last=False)
            block = TextBlock(self._name, found.extractor, found.made_with, gap.first, span)
            text.write(block)

    def _leave_out(self, piece: StreamPiece) -> None:
        self.left_out += piece.end - piece.start
        if piece.is_own:
            piece.path.unlink(missing_ok=True)

    def _tell(self, error: str) -> None:
        """One warning for the same reason."""
        if error != self.error and not (self._is_closed or self._reader.is_closed):
            self.error = error
            log.warning("reelbank: warning: words of stream %s: %s", self._name, error)
