"""Text of videos on disk: what was once put survives a crash, and a lost catalog comes back from the files.

Knows records, files and rows; nothing of how text is found, and nothing of who may write (the bank sees to it).
Layout: <bank>/text/<video_id>/<extractor>/<number:06d>.jsonl, a file for every stretch (memory/text/block_file.py).

Order of `put`: 1 the file (temporary name, fsync, rename, fsync of the folder), 2 rows and words in the catalog, committed:
from here on the lines exist. A crash in between leaves a file without a row, which `verify` names and the next writer deletes.
File and rows say the same, so that either is made again from the other: a damaged file from the rows (`repair`), lost rows from
the files (`read_blocks`).
What was pruned of a video goes from the files as well; a crash before that leaves a file whose seal is not the row's, and
`sweep` writes it again.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encoders.text.lines import TextBlock
from memory.storage import crash_points
from memory.storage.atomic import TEMPORARY, make_folder, sync_folder, write_atomically
from memory.storage.catalog import Catalog
from memory.storage.database import Database
from memory.text import block_file
from memory.text.rows import BlockRow, RunRow, TextRows, cut_before
from memory.text.vectors import TextVectors

FOLDER = "text"


@dataclass(frozen=True, slots=True)
class TextGap:
    """Stretches of a run that are missing."""

    first: int  # number
    stop: int | None  # number after the last; None = to the video's end
    start: float  # seconds


@dataclass(frozen=True, slots=True)
class TextProblem:
    """A block that is not as it was written, or a file that should not be there."""

    path: Path
    text: str
    video_id: str = ""
    orphan: bool = False
    temporary: bool = False


class TextStore:
    """Text of many videos under one folder, and its rows."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root / FOLDER
        self._catalog = Catalog(database)
        self.rows = TextRows(database)
        self.vectors = TextVectors(root, self.rows)

    def path(self, video_id: str, extractor: str, number: int) -> Path:
        """Where a block is kept."""
        return self._root / video_id / extractor / f"{number:06d}.jsonl"

    def put(self, block: TextBlock) -> None:
        """Keep a block of a recorded video. When this returns, it is durable and its lines are found."""
        if self._catalog.video(block.video_id) is None:
            raise ValueError(
                f"video {block.video_id} is not recorded; call record_video before its text"
            )
        data = block_file.pack(block)
        path = self.path(block.video_id, block.extractor, block.number)
        make_folder(path.parent)
        write_atomically(path, data)  # 1
        self.rows.add(block, block_file.seal(data))  # 2

    def missing(self, video_id: str, extractor: str) -> list[TextGap]:
        """What an extractor has not found yet: gaps first, then what comes after its last stretch. Empty: it is complete."""
        video = self._catalog.video(video_id)
        pruned = 0.0 if video is None or video.pruned is None else video.pruned.start
        run = self.rows.run(video_id, extractor)
        if run is None:
            return [TextGap(0, None, pruned)]
        found, rows = [], self.rows.blocks(run)
        number, at = (rows[0].number, rows[0].start) if rows[0].start <= pruned else (0, pruned)
        for row in rows:
            if row.number > number:
                found.append(TextGap(number, row.number, at))
            number, at = row.number + 1, row.end
        return found if rows[-1].last else [*found, TextGap(number, None, at)]

    def drop_run(self, run: RunRow) -> None:
        """Delete what an extractor has found of a video: rows first, then files."""
        self.rows.remove(run)
        shutil.rmtree(self._root / run.video_id / run.extractor, ignore_errors=True)
        self.vectors.drop(run.video_id, run.extractor)

    def nbytes(self, video_id: str) -> int:
        """Bytes of the files of a video's text, vectors included."""
        folders = (self._root / video_id, self.vectors.folder(video_id))
        return sum(
            path.stat().st_size
            for folder in folders
            for path in folder.rglob("*")
            if path.is_file()
        )

    def drop(self, video_id: str) -> None:
        """Delete the files of a video whose rows are gone."""
        self.vectors.drop(video_id)
        folder = self._root / video_id
        if folder.exists():
            shutil.rmtree(folder)
            crash_points.reached("text gone")

    def sync_files(self, video_id: str) -> None:
        """Make the files of a video what its rows say, after it was pruned."""
        folder = self._root / video_id
        if not folder.is_dir():
            return
        runs = {run.extractor: run for run in self.rows.runs(video_id)}
        for part in filter(Path.is_dir, folder.iterdir()):
            run = runs.get(part.name)
            rows = (
                {}
                if run is None
                else {f"{row.number:06d}.jsonl": row for row in self.rows.blocks(run)}
            )
            for path in part.iterdir():
                if path.name not in rows:
                    path.unlink()
            begin = min((row.start for row in rows.values()), default=0.0)
            for row in rows.values():
                if run is not None and row.start == begin:  # no other one is cut
                    self._rewrite(run, row)
            sync_folder(part)
        self.vectors.sweep(video_id)  # what was cut is another text
        crash_points.reached("text settled")

    def sweep(self) -> None:
        """Delete what a crash left behind. For the one writer, before it writes."""
        self.vectors.sweep()
        if not self._root.is_dir():
            return
        runs = {(run.video_id, run.extractor): run for run in self.rows.runs()}
        for folder in filter(Path.is_dir, self._root.iterdir()):
            video = self._catalog.video(folder.name)
            if video is None:
                shutil.rmtree(folder)
                continue
            if video.pruned is not None:
                self.sync_files(folder.name)
            for part in filter(Path.is_dir, folder.iterdir()):
                run = runs.get((folder.name, part.name))
                keep = (
                    set()
                    if run is None
                    else {f"{row.number:06d}.jsonl" for row in self.rows.blocks(run)}
                )
                for path in part.iterdir():
                    if path.name not in keep:
                        path.unlink()
                if run is None:
                    part.rmdir()

    def verify(self) -> Iterator[TextProblem]:
        """Read every file and compare it with the rows."""
        known: set[Path] = set()
        for run in self.rows.runs():
            for row in self.rows.blocks(run):
                path = self.path(run.video_id, run.extractor, row.number)
                known.add(path)
                what = self._wrong(path, row)
                if what:
                    yield TextProblem(path, what, run.video_id)
            for gap in self.missing(run.video_id, run.extractor):
                if gap.stop is not None:  # what comes after the last stretch was never there
                    path = self.path(run.video_id, run.extractor, gap.first)
                    text = f"the words from {gap.start:.1f} s on are lost; `reelbank ingest text={run.extractor}` finds them again"
                    yield TextProblem(path, text, run.video_id)
        for path in sorted(self._root.rglob("*")) if self._root.is_dir() else ():
            if path.is_file() and path not in known:
                cut = path.name.endswith(TEMPORARY)
                text = "a write was cut off" if cut else "never acknowledged"
                yield TextProblem(
                    path,
                    f"{text}; the next writer deletes this file",
                    orphan=not cut,
                    temporary=cut,
                )

        for path, what, video_id in self.vectors.problems():
            gone = "of lines that are no longer there; the next writer deletes this file"
            yield TextProblem(path, what or gone, video_id, orphan=not what)

    def repair(self) -> list[TextProblem]:
        """Write damaged and missing files again from the rows, and delete damaged vectors, which the lines give again; those
        that this was done for."""
        done = [TextProblem(*each) for each in self.vectors.clear()]
        for run in self.rows.runs():
            for row in self.rows.blocks(run):
                path = self.path(run.video_id, run.extractor, row.number)
                what = self._wrong(path, row)
                if what:
                    make_folder(path.parent)
                    write_atomically(path, block_file.pack(self.rows.block(run, row)))
                    done.append(TextProblem(path, what, run.video_id))
        return done

    def _rewrite(self, run: RunRow, row: BlockRow) -> None:
        path = self.path(run.video_id, run.extractor, row.number)
        if self._wrong(path, row):
            write_atomically(path, block_file.pack(self.rows.block(run, row)))

    @staticmethod
    def _wrong(path: Path, row: BlockRow) -> str:
        try:
            return (
                ""
                if block_file.seal(path.read_bytes()) == row.seal
                else "it is not as it was written"
            )
        except FileNotFoundError:
            return "the file of acknowledged text is gone"
        except OSError as error:
            return str(error)


def read_blocks(root: Path, video_id: str, pruned: float) -> Iterator[tuple[TextBlock, str]]:
    """The blocks of a video that can be read, by extractor and in time order, without what was pruned, each with its seal:
    for a catalog that is rebuilt. Of one extractor only blocks that were made alike."""
    folder = root / FOLDER / video_id
    for part in sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else ():
        made = None
        for path in sorted(part.glob("*.jsonl")):
            try:
                block = block_file.unpack(path.read_bytes())
            except (OSError, block_file.DamagedTextError):
                continue
            if (block.video_id, block.extractor, f"{block.number:06d}") != (
                video_id,
                part.name,
                path.stem,
            ):
                continue
            made = made or block.made_with
            left = cut_before(block, pruned)
            if left is not None and block.made_with == made:
                yield left, block_file.seal(block_file.pack(left))


def has_files(root: Path) -> bool:
    """Whether a bank has text files."""
    return any((root / FOLDER).glob("*/*/*.jsonl"))
