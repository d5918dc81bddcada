"""Text of videos on disk: a block that was put survives a crash, and files restore a lost catalog.

Knows records, files and rows; nothing of search, nor of who may write (the bank lets one process
write). Layout: <bank>/text/<video_id>/<extractor>/<number:06d>.jsonl, one file for each block
(memory/text/block_file.py).

Order of `put`:
    1 the file: temporary name, fsync, rename, fsync of the folder
    2 rows and words in the catalog, committed: from here on the lines exist
A crash in between leaves a file without a row; `verify` lists it and the next writer deletes it.
Files and rows hold the same, so each restores the other: `repair` writes a damaged file from the
rows, `read_blocks` gives lost rows from the files.
Pruning cuts the files after the rows. A crash in between leaves a file whose seal is not the row's,
and `sweep` writes it again.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encoders.text.lines import TextBlock
from encoders.text.records.record import IMPORT_PREFIX
from memory.storage import crash_points
from memory.storage.atomic import (
    TEMPORARY,
    make_folder,
    remove_file,
    sync_folder,
    write_atomically,
)
from memory.storage.catalog import Catalog
from memory.storage.database import Database
from memory.storage.file_access import read_bytes, reason, walk
from memory.text import block_file
from memory.text.rows import BlockRow, RunRow, TextRows, cut_before
from memory.text.vectors import TextVectors

FOLDER = "text"


@dataclass(frozen=True, slots=True)
class TextGap:
    """Missing blocks of a run."""

    first: int  # number
    stop: int | None  # number after the last; None: to the end of the video
    start: float  # seconds


@dataclass(frozen=True, slots=True)
class TextProblem:
    """A damaged or missing file, or a leftover one."""

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
        """The file of a block."""
        return self._root / video_id / extractor / f"{number:06d}.jsonl"

    def put(self, block: TextBlock) -> None:
        """Store a block of a recorded video. On return it is durable and searchable."""
        if self._catalog.video(block.video_id) is None:
            raise ValueError(
                f"video {block.video_id} is not recorded; call record_video before its text"
            )
        data = block_file.pack(block)
        path = self.path(block.video_id, block.extractor, block.number)
        make_folder(path.parent)
        write_atomically(path, data)  # 1
        self.rows.add((block, block_file.seal(data)))  # 2

    def replace_run(self, blocks: Sequence[TextBlock]) -> None:
        """Store all text of an extractor of a recorded video in place of what it had: a crash
        leaves the one or the other. blocks: at least one, in time order; their numbers are set
        here."""
        run = self.rows.run(blocks[0].video_id, blocks[0].extractor)
        rows = [] if run is None else self.rows.blocks(run)
        first = rows[-1].number + 1 if rows else 0  # so that the files of before stay until then
        sealed = []
        for number, block in enumerate(blocks, start=first):
            own = replace(block, number=number)
            data = block_file.pack(own)
            path = self.path(own.video_id, own.extractor, number)
            make_folder(path.parent)
            write_atomically(path, data)
            sealed.append((own, block_file.seal(data)))
        self.rows.add(*sealed, in_place_of=run)
        if run is not None:
            for row in rows:
                remove_file(self.path(run.video_id, run.extractor, row.number))
            self.vectors.drop(run.video_id, run.extractor)

    def missing(self, video_id: str, extractor: str) -> list[TextGap]:
        """What an extractor has not processed yet: gaps first, then the time after its last block.
        Empty: the run is complete."""
        video = self._catalog.video(video_id)
        pruned = 0.0 if video is None or video.pruned is None else video.pruned.start
        run = self.rows.run(video_id, extractor)
        if run is None:
            return [TextGap(0, None, pruned)]
        gaps, rows = [], self.rows.blocks(run)
        number, at = (rows[0].number, rows[0].start) if rows[0].start <= pruned else (0, pruned)
        for row in rows:
            if row.number > number:
                gaps.append(TextGap(number, row.number, at))
            number, at = row.number + 1, row.end
        return gaps if rows[-1].last else [*gaps, TextGap(number, None, at)]

    def drop_run(self, run: RunRow) -> None:
        """Delete the text of one extractor of a video: rows first, then files."""
        self.rows.remove(run)
        shutil.rmtree(self._root / run.video_id / run.extractor, ignore_errors=True)
        self.vectors.drop(run.video_id, run.extractor)

    def nbytes(self, video_id: str) -> int:
        """Bytes of a video's text files and vector files."""
        folders = (self._root / video_id, self.vectors.folder(video_id))
        return sum(
            entry.path.stat().st_size
            for folder in folders
            for entry in walk(folder)
            if entry.is_file
        )

    def drop(self, video_id: str) -> None:
        """Delete the files of a video whose rows are deleted."""
        self.vectors.drop(video_id)
        folder = self._root / video_id
        if folder.exists():
            shutil.rmtree(folder)
            crash_points.reached("text gone")

    def sync_files(self, video_id: str) -> None:
        """Make the files of a video match its rows, after it was pruned."""
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
                    remove_file(path)
            begin = min((row.start for row in rows.values()), default=0.0)
            for row in rows.values():
                if run is not None and row.start == begin:  # only the first block can be cut
                    self._rewrite(run, row)
            sync_folder(part)
        self.vectors.sweep(video_id)  # a cut block has another seal
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
                        remove_file(path)
                if run is None and not any(part.iterdir()):
                    part.rmdir()

    def verify(self) -> Iterator[TextProblem]:
        """Read every file and compare it with the rows."""
        expected: set[Path] = set()
        for run in self.rows.runs():
            for row in self.rows.blocks(run):
                path = self.path(run.video_id, run.extractor, row.number)
                expected.add(path)
                what = self._problem(path, row)
                if what:
                    yield TextProblem(path, what, run.video_id)
            for gap in self.missing(run.video_id, run.extractor):
                is_import = run.extractor.startswith(IMPORT_PREFIX)
                # an extractor never stored what lies after its last block; an import stores all
                if gap.stop is not None or is_import:
                    path = self.path(run.video_id, run.extractor, gap.first)
                    again = f"`reelbank ingest text={run.extractor}` finds them again"
                    if is_import:
                        name = run.extractor.removeprefix(IMPORT_PREFIX)
                        again = f"`reelbank import FILM {name}` reads them again"
                    text = f"the words from {gap.start:.1f} s on are lost; {again}"
                    yield TextProblem(path, text, run.video_id)
        for entry in walk(self._root):
            if entry.problem:
                yield TextProblem(entry.path, entry.problem)
            elif entry.path not in expected:
                is_temporary = entry.path.name.endswith(TEMPORARY)
                text = "a write was cut off" if is_temporary else "never acknowledged"
                yield TextProblem(
                    entry.path,
                    f"{text}; the next writer deletes this file",
                    orphan=not is_temporary,
                    temporary=is_temporary,
                )
        for path, what, video_id in self.vectors.problems():
            leftover = "of lines that are no longer there; the next writer deletes this file"
            yield TextProblem(path, what or leftover, video_id, orphan=not what)

    def repair(self) -> list[TextProblem]:
        """Write damaged and missing files again from the rows, and delete damaged vectors, which
        can be computed again. Returns the problems that this solved."""
        solved = [TextProblem(*each) for each in self.vectors.clear()]
        for run in self.rows.runs():
            for row in self.rows.blocks(run):
                path = self.path(run.video_id, run.extractor, row.number)
                what = self._problem(path, row)
                if what:
                    make_folder(path.parent)
                    write_atomically(path, block_file.pack(self.rows.block(run, row)))
                    solved.append(TextProblem(path, what, run.video_id))
        return solved

    def _rewrite(self, run: RunRow, row: BlockRow) -> None:
        path = self.path(run.video_id, run.extractor, row.number)
        if self._problem(path, row):
            write_atomically(path, block_file.pack(self.rows.block(run, row)))

    @staticmethod
    def _problem(path: Path, row: BlockRow) -> str:
        try:
            is_whole = block_file.seal(read_bytes(path)) == row.seal
            return "" if is_whole else "it is not as it was written"
        except FileNotFoundError:
            return "the file of acknowledged text is gone"
        except OSError as error:
            return reason(error)


def read_blocks(root: Path, video_id: str, pruned: float) -> Iterator[tuple[TextBlock, str]]:
    """The readable blocks of a video, each with its seal, by extractor and in time order. They
    rebuild a catalog.

    pruned: seconds; text before is cut. Blocks of an extractor whose `made_with` differs from its
    first block's are left out. PermissionError: then a block may be whole.
    """
    folder = root / FOLDER / video_id
    for part in sorted(filter(Path.is_dir, folder.iterdir())) if folder.is_dir() else ():
        made_with = None
        for path in sorted(path for path in part.iterdir() if path.suffix == ".jsonl"):
            try:
                block = block_file.unpack(read_bytes(path))
            except PermissionError:
                raise
            except (OSError, block_file.DamagedTextError):
                continue
            if (block.video_id, block.extractor, f"{block.number:06d}") != (
                video_id,
                part.name,
                path.stem,
            ):
                continue
            made_with = made_with or block.made_with
            left = cut_before(block, pruned)
            if left is not None and block.made_with == made_with:
                yield left, block_file.seal(block_file.pack(left))


def has_files(root: Path) -> bool:
    """True if a bank has text files."""
    return any((root / FOLDER).glob("*/*/*.jsonl"))
