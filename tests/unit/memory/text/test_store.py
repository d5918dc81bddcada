"""Text in the bank survives, comes back when the catalog is lost, and goes when its video is
pruned.

It is never found before its moment. Files and SQLite are real, and processes end between the steps
of a commit.
"""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.errors import UserError
from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.storage import crash_points
from memory.storage.retention import Rule
from memory.text import block_file
from memory.text.bm25 import LineFilter
from memory.text.tokenizer import query
from tests.support.children import receive_all, start
from tests.support.records import info, make_video, write_video
from tests.support.text_blocks import BLOCKS, block, line, opened


def found(bank: MemoryBank, text: str, **wanted: Any) -> list[str]:
    return [one.line.text for one in bank.text.search(query(text), LineFilter(**wanted))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bank with a video of five segments of four seconds, and its text."""
    with opened(tmp_path / "bank") as bank:
        write_video(bank, make_video("v", 5))
        for each in BLOCKS:
            bank.text.write(each)
    return tmp_path / "bank"


def text_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / "text").rglob("*"))
        if path.is_file()
    }


def test_what_was_written_is_found_and_whole(root: Path) -> None:
    with opened(root) as bank:
        assert found(bank, "harbour") == ["the harbour was rebuilt", "and the harbour again"]
        (run,) = bank.text.runs("v")
        assert (run.lines, run.finished, run.until) == (4, True, 30.0) and bank.text.missing(
            "v", "subtitles"
        ) == []
        assert bank.check.verify() == []


def test_a_block_file_and_its_rows_say_the_same() -> None:
    boxed = TextBlock(
        "v",
        "ocr",
        "x",
        3,
        TextSpan(
            0,
            5,
            (TextLine("v", 1, 2, "ocr", "a\u2028b «ü» 火", 1.5, 0.5, (0, 0.25, 1, 1)),),
            False,
            "a note",
        ),
    )
    assert block_file.unpack(block_file.pack(boxed)) == boxed
    data = bytearray(block_file.pack(boxed))
    for at in range(0, len(data), 7):
        data[at] ^= 1
        with pytest.raises(block_file.DamagedTextError):
            block_file.unpack(bytes(data))
        data[at] ^= 1


@pytest.mark.parametrize("lost", ["deleted", "emptied", "damaged"])
def test_a_lost_catalog_is_rebuilt_with_its_text(root: Path, lost: str) -> None:
    before = text_files(root)
    for path in root.glob("catalog.sqlite*"):
        path.unlink()
    if lost == "emptied":
        (root / "catalog.sqlite").touch()
    if lost == "damaged":
        (root / "catalog.sqlite").write_bytes(b"nonsense" * 4096)
    with opened(root, repair=lost == "damaged") as bank:
        assert found(bank, "harbour rebuilt")[0] == "the harbour was rebuilt"
        assert bank.text.runs("v")[0].finished and bank.check.verify() == []
    assert text_files(root) == before


def test_lost_records_of_an_import_are_said_to_be_imported_again(root: Path) -> None:
    """A catalog that is rebuilt from the files does not know what the lost ones held."""
    for extractor, lost in (("subtitles", 1), ("import.boxes.json", 2)):
        with opened(root) as bank:
            blocks = [replace(each, extractor=extractor) for each in BLOCKS]
            bank.text.write(*blocks, replaces=True)
        files = sorted((root / "text" / "v" / extractor).iterdir())
        files[lost].unlink()
    for path in root.glob("catalog.sqlite*"):
        path.unlink()
    with opened(root) as bank:
        says = [str(problem) for problem in bank.check.verify() if problem.kind == "text"]
    assert len(says) == 2
    assert "`reelbank import FILM boxes.json` reads them again" in says[0]
    assert "`reelbank ingest text=subtitles` finds them again" in says[1]


def die(root: str, name: str, told: Any) -> None:
    """Write the third block and end at a step."""

    def reached(step: str) -> None:
        told.send(step)
        if step == name:
            os.kill(os.getpid(), signal.SIGKILL)

    with opened(Path(root)) as bank:
        bank.begin_writing()
        crash_points.hook = reached
        bank.text.write(BLOCKS[2])
        told.send("acknowledged")


@pytest.mark.parametrize(
    "step", ["create", "sync", "rename", "sync folder", "text rows", "text rows commit"]
)
def test_a_crash_leaves_a_block_whole_or_absent(root: Path, step: str, tmp_path: Path) -> None:
    with opened(root) as bank:
        before = text_files(root)
        bank.text.drop("v", "subtitles")
        for each in BLOCKS[:2]:
            bank.text.write(each)
    process, told = start(die, str(root), step)
    said = receive_all(told)
    process.join()
    assert said[-1] == step
    with opened(root) as bank:
        there = bank.text.runs("v")[0].blocks
        assert there == (3 if step == "text rows commit" else 2)
        assert all(problem.harmless for problem in bank.check.verify())
        bank.begin_writing()  # cleans up
        assert bank.check.verify() == []
        if there == 2:
            (gap,) = bank.text.missing("v", "subtitles")
            assert (gap.first, gap.stop, gap.start) == (2, None, 20.0)
            bank.text.write(BLOCKS[2])
    assert text_files(root) == before


def test_damaged_and_missing_files_are_named_and_written_again(root: Path) -> None:
    before = text_files(root)
    first, second, _ = sorted((root / "text").rglob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b"granite", b"granits"))
    second.unlink()
    with opened(root) as bank:
        problems = bank.check.verify()
        assert {(problem.kind, problem.path) for problem in problems} == {
            ("text", first),
            ("text", second),
        }
        assert not any(problem.harmless for problem in problems) and found(bank, "granite") == [
            "with granite"
        ]
        assert len(bank.check.repair_text()) == 2 and bank.check.verify() == []
    assert text_files(root) == before


def test_what_no_block_file_and_no_row_has_is_missing_and_comes_again(root: Path) -> None:
    sorted((root / "text").rglob("*.jsonl"))[1].unlink()
    for path in root.glob("catalog.sqlite*"):
        path.unlink()
    with opened(root) as bank:
        assert found(bank, "salt") == [] and found(bank, "granite") == ["with granite"]
        (gap,) = bank.text.missing("v", "subtitles")
        assert (gap.first, gap.stop, gap.start) == (1, 2, 10.0)
        (problem,) = bank.check.verify()
        assert problem.kind == "text" and "text=subtitles" in problem.text
        bank.text.write(BLOCKS[1])
        assert (
            found(bank, "salt") == ["bread needs salt"]
            and bank.text.missing("v", "subtitles") == []
        )
        assert bank.check.verify() == []


@pytest.mark.parametrize("catalog_lost", [False, True])
def test_pruned_spans_lose_their_text_also_on_disk(root: Path, catalog_lost: bool) -> None:
    with opened(root) as bank:
        cuts = bank.prune(Rule("v", max_bytes=bank.catalog.nbytes() * 0.5))
        begin = bank.catalog.segments("v")[0].start
        assert cuts and 8 < begin < 13
    if catalog_lost:
        for path in root.glob("catalog.sqlite*"):
            path.unlink()
    with opened(root) as bank:
        assert found(bank, "rebuilt") == [] and found(bank, "harbour") == ["and the harbour again"]
        kept = [one.line for one in bank.text.search(query("granite"), LineFilter())]
        # it went on when the rest begins
        assert [(each.start, each.end) for each in kept] == [(begin, 13.0)]
        assert bank.check.verify() == [] and bank.text.missing("v", "subtitles") == []
    assert b"rebuilt" not in b"".join(text_files(root).values())


def test_a_crash_while_pruning_leaves_no_text_behind(root: Path) -> None:
    class Stop(Exception):
        pass

    def reached(step: str) -> None:
        if step == "sync files":
            raise Stop

    with opened(root) as bank:
        bank.begin_writing()
        crash_points.hook = reached
        try:
            with pytest.raises(Stop):
                bank.prune(Rule("v", max_bytes=bank.catalog.nbytes() * 0.5))
        finally:
            crash_points.hook = None
    assert b"rebuilt" in b"".join(text_files(root).values())
    with opened(root) as bank:
        assert found(bank, "rebuilt") == []
        bank.begin_writing()
        assert bank.check.verify() == []
    assert b"rebuilt" not in b"".join(text_files(root).values())


def test_a_dropped_video_takes_its_text_with_it(root: Path) -> None:
    with opened(root) as bank:
        write_video(bank, make_video("w", 1))
        bank.text.write(
            block(0, line(1, "the harbour of another film", "w"), video_id="w", last=True)
        )
        bank.drop("v")
        assert (
            found(bank, "harbour") == ["the harbour of another film"]
            and bank.text.runs("v") == []
            and bank.check.verify() == []
        )
    assert {Path(name).parts[1] for name in text_files(root)} == {"w"}


def test_a_row_that_changed_is_refused_and_a_repair_rebuilds_it(root: Path) -> None:
    import sqlite3

    db = sqlite3.connect(root / "catalog.sqlite")
    db.execute(
        "UPDATE text_lines SET text = 'the harbour was destroyed' WHERE text = 'the harbour was "
        "rebuilt'"
    )
    db.commit()
    db.close()
    with opened(root) as bank:
        with pytest.raises(UserError, match="not as it was written"):
            found(bank, "harbour")
        assert [problem.kind for problem in bank.check.verify()] == ["catalog"]
    with opened(root, repair=True) as bank:
        assert found(bank, "harbour")[0] == "the harbour was rebuilt" and bank.check.verify() == []


def test_nothing_is_found_before_it_is_known(root: Path, tmp_path: Path) -> None:
    """The same as from a bank that never had more: ranks, scores and ends."""

    def told(bank: MemoryBank, at: float) -> list[Any]:
        found = bank.text.search(
            query("harbour granite bread salt again"), LineFilter("v", asked_at=at)
        )
        return [(one.line, one.score, one.coverage, one.start, one.end) for one in found]

    with opened(root) as whole:
        for at in (0.0, 2.9, 3.0, 12.0, 13.0, 14.0, 22.9, 23.0):
            with opened(tmp_path / f"until-{at}") as part:
                write_video(part, make_video("v", 5))
                for each in BLOCKS:
                    kept = tuple(one for one in each.span.lines if one.known <= at)
                    part.text.write(block(each.number, *kept, last=each.span.last))
                expected = told(part, at)
            assert told(whole, at) == expected and all(one[0].end <= at for one in expected)


def test_kinds_and_videos_can_be_left_out(root: Path) -> None:
    with opened(root) as bank:
        caption = TextLine("v", 0, 4, "caption", "a harbour with boats", 4)
        bank.text.write(block(0, caption, last=True, extractor="captions"))
        assert found(bank, "harbour", kinds=("caption",)) == ["a harbour with boats"]
        assert "a harbour with boats" not in found(
            bank, "harbour", kinds=("subtitle", "ocr", "speech")
        )
        assert found(bank, "harbour", video_id="w") == []
        assert found(bank, "harbour", start=15.0) == ["and the harbour again"]


def test_a_bank_from_before_there_was_text_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "bank") as bank:
        write_video(bank, make_video("v", 2))
        assert found(bank, "harbour") == [] and bank.text.runs() == [] and bank.check.verify() == []
        bank.prune(Rule("v", max_bytes=bank.catalog.nbytes() * 0.6))
        bank.drop("v")
    assert not (tmp_path / "bank" / "text").exists()


def test_a_read_only_bank_can_be_searched(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    shutil.copytree(root, root.with_name("copy"))
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with opened(root) as bank:
        assert found(bank, "salt") == ["bread needs salt"]


def test_text_of_an_unknown_video_is_refused(root: Path) -> None:
    with opened(root) as bank, pytest.raises(ValueError, match="not recorded"):
        bank.text.write(block(0, line(1, "x", "nobody"), video_id="nobody"))
    with opened(root) as bank:
        info("nobody")
        assert bank.check.verify() == []
