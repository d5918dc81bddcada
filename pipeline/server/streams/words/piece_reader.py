"""Extractors read pieces of streams in one process beside the server, one after another.

All streams share the process: recognizers stay loaded, and words never take more than a core from
the encoder. Knows extractors by their role; no bank.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from encoders.errors import UserError
from encoders.sources.container import inspect, time_rules
from encoders.sources.live.piece_recorder import StreamPiece
from encoders.text.lines import TextExtractor, TextLine, VideoFile
from encoders.text.worker_pool import worker_pool


class PieceReader:
    """Threads: many may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self.is_closed = False

    def read(
        self, extractor: TextExtractor, video_id: str, piece: StreamPiece
    ) -> tuple[str, list[TextLine]] | None:
        """How the lines of a piece are made, and the lines in seconds of the stream; None where the
        piece has no such words, such as speech without sound.

        UserError where the piece cannot be read.
        """
        with self._lock:
            if self.is_closed:
                raise UserError("the server is being shut down")
            if self._pool is None:
                self._pool = worker_pool(1)
            pool = self._pool
        try:
            found = pool.submit(read_piece, extractor, video_id, piece.path).result()
        except (BrokenExecutor, CancelledError) as error:  # killed, as for memory
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            raise UserError(f"the process that reads words ended ({error})") from None
        if found is None:
            return None
        made_with, lines = found
        return made_with, [_shifted(line, piece.start) for line in lines]

    def close(self) -> None:
        """Read no more: the process ends behind the piece that it reads."""
        with self._lock:
            self.is_closed, pool = True, self._pool
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def read_piece(
    extractor: TextExtractor, video_id: str, path: Path
) -> tuple[str, Sequence[TextLine]] | None:
    """The lines of a file in seconds from its beginning, and how they are made. Runs in a process
    of its own."""
    length = float(inspect(path).duration)
    video = VideoFile(video_id, path, duration=length)
    if not extractor.applies_to(video):
        return None
    # of the whole stream, whatever the clock of one piece
    made_with = extractor.made_with(video).replace(f"{time_rules(path)})", ")")
    lines = [line for span in extractor.spans(video) for line in span.lines]
    return f"Pieces({made_with})", lines


def _shifted(line: TextLine, seconds: float) -> TextLine:
    return replace(
        line,
        start=line.start + seconds,
        end=line.end + seconds,
        known=line.known + seconds,
    )
