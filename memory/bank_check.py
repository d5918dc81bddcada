"""Finds damage in a bank and repairs what the bank itself can restore: `bank.check`.

Knows the store; no retriever and no encoder. Damaged segments are encoded again by
`pipeline/commands/repair.py`.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from memory import rebuild
from memory.embeddings.store import EmbeddingProblem
from memory.storage import manifest, video_record
from memory.storage.atomic import TEMPORARY, remove_file, set_aside
from memory.storage.catalog import SegmentRow
from memory.storage.file_access import NO_RIGHTS, Entry, lacks_rights, reason, walk
from memory.storage.os_errors import as_user_errors
from memory.storage.segments import replacement, segment_file
from memory.store import DiskStore, window_range
from memory.text import rows as text_rows
from memory.text.store import TextProblem


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a bank."""

    # data is lost: missing, size, checksum, gap, catalog, manifest, video, window, text, embedding,
    # encoded
    # rights: it may be whole, and this user may not read it
    # harmless: orphan, temporary, outdated
    kind: str
    path: Path
    text: str
    video_id: str = ""
    number: int | None = None  # of the damaged segment, if it is one

    @property
    def harmless(self) -> bool:
        """True for what a crash left: the next writer deletes it or writes it again."""
        return self.kind in ("orphan", "temporary", "outdated")

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class BankCheck:
    """Reports problems. Every repair raises UserError if the disk refuses, or if another process
    writes."""

    def __init__(self, store: DiskStore, begin_writing: Callable[[], None]) -> None:
        self._store, self._begin_writing = store, begin_writing

    def verify(self) -> list[Problem]:
        """Read every file and list all problems. A segment that is being put meanwhile may be
        listed as an orphan. UserError if a folder cannot be read at all."""
        store = self._store
        with as_user_errors(store.root):
            folders = (store.root / "segments", store.window.root)
            entries = [entry for folder in folders for entry in walk(folder)]
            problems = self.verify_catalog()
            if problems:
                return problems  # without a catalog, no file can be expected
            problems = [
                Problem("manifest", path, text)
                for path, text in manifest.problems(store.root, store.database)
            ]
            expected = set(self._video_paths())
            problems += self.verify_videos()
            for row in store.catalog.all_segments():
                path = store.path(row.video_id, row.number)
                expected.add(replacement.file_of(path, row.checksum))
                problems += self._segment(row)
            problems += self._gaps()
            expected |= self._window_paths()
            problems += self.verify_window()
            problems += self.verify_text()
            problems += [_of_file(each, "embedding") for each in store.embeddings.verify()]
            problems += [_of_file(each, "encoded") for each in store.encoded.verify()]
            return problems + _leftovers(entries, expected)

    def verify_catalog(self) -> list[Problem]:
        """Problems with the catalog itself: its file, its rows, its index of words, and whether it
        is that of the segments."""
        store = self._store
        texts = rebuild.damage_of(store.database)
        if not texts:
            index = text_rows.index_damage(store.database)
            stranger = None
            # what this user may not read is named with its file
            with suppress(PermissionError):
                stranger = rebuild.strangers(store.root, store.database)
            texts = [text for text in (index, stranger) if text is not None]
        return [Problem("catalog", store.root / rebuild.NAME, text) for text in texts]

    def verify_videos(self) -> list[Problem]:
        """Problems with the files that describe videos; no segment is read."""
        problems = []
        for video in self._store.catalog.videos():
            path = self._store.path(video.info.video_id, 0).with_name(video_record.NAME)
            what = video_record.problem(path.parent, video)
            if what is None:
                continue
            try:
                is_outdated = video_record.read(path.parent) is not None
            except PermissionError as error:
                problems.append(Problem("rights", path, reason(error), video.info.video_id))
                continue
            kind, text = "video", f"{what}; it is needed only when the catalog is lost"
            if is_outdated:
                kind, text = "outdated", "not as in the catalog; the next writer writes it again"
            problems.append(Problem(kind, path, text, video.info.video_id))
        return problems

    def verify_window(self) -> list[Problem]:
        """Missing or damaged blocks of recent windows that a resumed encoder would need."""
        store, problems = self._store, []
        for video_id in self._video_ids():
            for number in store.window_numbers(video_id):
                what = store.window_problem(video_id, number)
                # again: a writer may have gone on meanwhile
                if what is not None and number in store.window_numbers(video_id):
                    text = (
                        f"{what}; what is encoded from here on can differ from an uninterrupted "
                        "run's"
                    )
                    problems.append(
                        Problem("window", store.window.path(video_id, number), text, video_id)
                    )
        return problems

    def verify_text(self) -> list[Problem]:
        """Problems with text files and vector files."""
        return [_of_file(problem, "text") for problem in self._store.text.verify()]

    def repair_text(self) -> list[Problem]:
        """Write damaged text files again from the catalog. Returns the problems that this
        solved."""
        self._begin_writing()
        with as_user_errors(self._store.root):
            return [_of_file(problem, "text") for problem in self._store.text.repair()]

    def clear_embeddings(self) -> list[Problem]:
        """Delete damaged rows of further frame embedders. Returns the problems that this solved:
        encoding the film again with that embedder makes them anew."""
        self._begin_writing()
        with as_user_errors(self._store.root):
            return [_of_file(each, "embedding") for each in self._store.embeddings.clear()]

    def clear_encoded(self) -> list[Problem]:
        """Delete damaged files of segments that questions had encoded. Returns the problems that
        this solved: a question that reads such a segment encodes it again."""
        self._begin_writing()
        with as_user_errors(self._store.root):
            return [_of_file(each, "encoded") for each in self._store.encoded.clear()]

    def clear_window(self) -> list[Problem]:
        """Delete damaged blocks of recent windows. Returns all problems that the windows had."""
        self._begin_writing()
        with as_user_errors(self._store.root):
            problems = self.verify_window()
            for problem in problems:
                if problem.path.is_dir() and not problem.path.is_symlink():
                    set_aside(problem.path)
                remove_file(problem.path)
            return problems

    def refill_window(self) -> list[Problem]:
        """Fill missing blocks of recent windows from the segment files. Returns the problems that
        this solved."""
        self._begin_writing()
        solved, store = [], self._store
        with as_user_errors(store.root):
            for problem in self.verify_window():
                number = int(problem.path.stem)
                row = store.catalog.segment(problem.video_id, number)
                assert row is not None  # verify_window reads the rows
                block = store.frames(problem.video_id, number, 0, row.frames)[1]
                if block is not None:
                    seal = store.window.put(problem.video_id, number, block)
                    store.catalog_writer.seal_window(problem.video_id, number, seal)
                    solved.append(problem)
        return solved

    def _video_ids(self) -> list[str]:
        return [video.info.video_id for video in self._store.catalog.videos()]

    def _video_paths(self) -> list[Path]:
        return [
            self._store.path(video_id, 0).with_name(video_record.NAME)
            for video_id in self._video_ids()
        ]

    def _window_paths(self) -> set[Path]:
        window = self._store.window
        return {
            window.path(video_id, number)
            for video_id in self._video_ids()
            for number in window_range(self._store.window_numbers(video_id))
        }

    def _gaps(self) -> list[Problem]:
        store = self._store
        return [
            Problem("gap", store.path(video_id, gap.first), gap.text, video_id)
            for video_id in self._video_ids()
            for gap in store.catalog.gaps(video_id)
        ]

    def _segment(self, row: SegmentRow) -> list[Problem]:
        path = replacement.file_of(self._store.path(row.video_id, row.number), row.checksum)

        def problem(kind: str, text: str) -> list[Problem]:
            return [Problem(kind, path, text, row.video_id, row.number)]

        try:
            size = path.stat().st_size
            if path.is_file() and size != row.nbytes:
                return problem("size", f"{size} bytes, not {row.nbytes} as when it was written")
            segment_file.check(path, row.checksum)
        except FileNotFoundError:
            return problem("missing", "the file of an acknowledged segment is gone")
        except OSError as error:
            return problem("rights" if lacks_rights(error) else "checksum", reason(error))
        except segment_file.DamagedError as error:
            return problem("checksum", str(error))
        return []


def _leftovers(entries: list[Entry], expected: set[Path]) -> list[Problem]:
    """Files that the next writer deletes, and folders that cannot be listed."""
    problems, folders = [], {path.parent for path in expected}
    for entry in entries:
        if entry.problem:
            kind = "rights" if entry.problem == NO_RIGHTS else "missing"
            problems.append(Problem(kind, entry.path, entry.problem))
        elif entry.path.name.endswith(TEMPORARY):
            text = "a write was cut off; the next writer deletes this file"
            problems.append(Problem("temporary", entry.path, text))
        elif entry.path not in expected:
            text = "never acknowledged; the next writer deletes this file"
            if entry.path.parent not in folders:
                text = "it does not belong to the bank, and nothing reads it"
            problems.append(Problem("orphan", entry.path, text))
    return problems


def _of_file(problem: TextProblem | EmbeddingProblem, kind: str) -> Problem:
    """kind: of lost data."""
    kind = "temporary" if problem.temporary else "orphan" if problem.orphan else kind
    kind = "rights" if problem.text == NO_RIGHTS else kind
    return Problem(kind, problem.path, problem.text, problem.video_id)
