"""Rows of further frame embedders in a bank: durable, bit-exact, and gone with their segments."""

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.errors import UserError
from encoders.schema import Segment
from memory.bank import MemoryBank
from memory.embeddings import embedding_file
from memory.embeddings.embedding_file import DamagedError
from memory.retrieval.clip import ClipRetriever
from memory.retrieval.fused import FusedRetriever
from memory.schema import Hits, Question, SegmentIndex, Stretch
from memory.storage import crash_points
from memory.storage.retention import Rule
from tests.support.banks import opened
from tests.support.damage import flip, no_catalog
from tests.support.records import Words, files, info, make_segment, make_video, raw, write_video

KEY, OTHER = "conse-0123456789abcdef", "b32-00000000ffffffff"
WIDTH = 24


class Directions(Words):
    """Texts of another width than those of the primary embedder."""

    def embed_text(self, text: str) -> Tensor:
        return normalize(super().embed_text(text)[:WIDTH], dim=0)


def rows_of(number: int, key: str = KEY, frames: int = 4, needle: int | None = None) -> Tensor:
    """[T, E] float16. needle: the frame that is planted."""
    generator = torch.Generator().manual_seed(1000 * len(key) + number)
    rows = normalize(torch.randn(frames, WIDTH, generator=generator), dim=-1)
    if needle is not None:
        rows[needle] = Directions().embed_text("needle")
    return rows.half()


def with_rows(segment: Segment, *keys: str) -> Segment:
    return replace(segment, further={key: rows_of(segment.number, key) for key in keys})


def retriever(key: str = KEY) -> FusedRetriever:
    """The primary embedder, and a further one that counts ten times as much."""
    return FusedRetriever(
        {"clip": ClipRetriever},
        embedder=Words(),
        further={"conse": ClipRetriever(embedder=Directions(), rows=key)},
        further_weight=10.0,
    )


def best(bank: MemoryBank, text: str = "needle", asked_at: float = math.inf) -> list[int]:
    """Seconds of the frames that the further embedder ranks, best first."""
    found = bank.rank_frames(text, "v", asked_at=asked_at, part="conse")
    return [int(moment.start) for moment in found]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def bank(root: Path) -> Iterator[MemoryBank]:
    """Five segments of four frames without further rows."""
    with opened(root, retriever()) as one:
        write_video(one, make_video(segments=5))
        yield one


def test_rows_that_come_with_a_segment_are_read_back_bit_by_bit(root: Path) -> None:
    video = [with_rows(segment, KEY, OTHER) for segment in make_video(segments=3)]
    with opened(root) as bank:
        write_video(bank, video)
        before = files(root)
        counts = bank.embeddings.counts("v")
    assert [(each.embedder, each.segments, each.frames) for each in counts] == [
        (OTHER, 3, 12),
        (KEY, 3, 12),
    ]
    with opened(root) as bank:
        for segment in video:
            index = bank._store.index("v", segment.number, {"clip", KEY, OTHER, "none-00"})
            assert index.further.keys() == {KEY, OTHER} and index.key_means is None
            assert raw(index.further[KEY]) == raw(rows_of(segment.number))
        assert bank.check.verify() == [] and files(root) == before
        assert bank.embeddings.missing("v", KEY) == []


def test_segment_files_are_those_of_a_bank_without(root: Path, tmp_path: Path) -> None:
    with opened(root) as bank, opened(tmp_path / "plain") as plain:
        write_video(bank, [with_rows(segment, KEY) for segment in make_video(segments=3)])
        write_video(plain, make_video(segments=3))
    assert {name: data for name, data in files(root).items() if "embeddings" not in name} == files(
        tmp_path / "plain"
    )
    assert (root / "bank.json").read_bytes() == (tmp_path / "plain" / "bank.json").read_bytes()
    tables = "SELECT name FROM sqlite_master WHERE name = 'embeddings'"
    assert sqlite3.connect(tmp_path / "plain" / "catalog.sqlite").execute(tables).fetchall() == []


def test_rows_are_added_later_and_touch_nothing_else(bank: MemoryBank, root: Path) -> None:
    before = files(root) | {"bank.json": (root / "bank.json").read_bytes()}
    assert bank.embeddings.missing("v", KEY) == [0, 1, 2, 3, 4] and best(bank) == []
    for number in (3, 1, 0, 4):
        bank.embeddings.write("v", number, KEY, rows_of(number))
    assert bank.embeddings.missing("v", KEY) == [2]
    bank.embeddings.write("v", 2, KEY, rows_of(2, needle=1))
    after = files(root) | {"bank.json": (root / "bank.json").read_bytes()}
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 5
    assert bank.check.verify() == []
    assert best(bank)[0] == 9  # a reader that had the video in memory sees them now


def test_rows_that_fit_no_segment_are_refused(bank: MemoryBank) -> None:
    with pytest.raises(ValueError, match="3 rows for 4 frames"):
        bank.embeddings.write("v", 0, KEY, rows_of(0, frames=3))
    with pytest.raises(ValueError, match="float16"):
        bank.embeddings.write("v", 0, KEY, rows_of(0).float())
    with pytest.raises(KeyError):
        bank.embeddings.write("v", 9, KEY, rows_of(9))
    assert bank.embeddings.counts("v") == []


def test_frames_without_rows_are_not_ranked_and_ordinals_stay_right(root: Path) -> None:
    """Segments 1 and 3 alone have rows."""
    with opened(root, retriever()) as bank:
        write_video(bank, make_video(segments=5))
        bank.embeddings.write("v", 1, KEY, rows_of(1))
        bank.embeddings.write("v", 3, KEY, rows_of(3, needle=2))
        bank.embeddings.publish()
        assert best(bank)[0] == 14 and sorted(best(bank)) == [4, 5, 6, 7, 12, 13, 14, 15]
        assert sorted(best(bank, asked_at=13.0)) == [4, 5, 6, 7, 12, 13]  # law 3
        assert sorted(best(bank, asked_at=5.0)) == [4, 5] and best(bank, asked_at=3.0) == []
        fused: Any = bank._searchable.retriever
        found = fused.search(Question("needle", "v"), 20, [Stretch("v", 0, 20)])
        assert sorted(found.frames.tolist()) == list(range(20)) and found.frames[0] == 14
        part = fused.parts["conse"]
        since = part.search(Question("needle", "v"), 20, [Stretch("v", 5, 15)])
        assert sorted(since.frames.tolist()) == [5, 6, 7, 12, 13, 14]
        both = [Stretch("v", 0, 6), Stretch("v", 8, 12), Stretch("v", 14, 16)]
        several = part.search(Question("needle", "v"), 20, both)
        assert next(name.ordinal for name in several.names) == 14
        assert sorted(name.ordinal for name in several.names) == [4, 5, 14, 15]
    with opened(root, retriever()) as bank:  # gaps are not in the saved index
        assert best(bank)[0] == 14
    assert not (root / "index" / "v" / KEY).exists()


def test_what_comes_later_changes_nothing(root: Path) -> None:
    """Law 3 in its strong form, with a segment that lacks rows in between."""
    part, texts = ClipRetriever(embedder=Directions(), rows=KEY), Question("needle", "v")

    def add(number: int, *keys: str) -> None:
        segment = with_rows(make_segment("v", number), *keys)
        part.add(SegmentIndex.of(segment, 4 * number))

    add(0, KEY)
    add(1)
    add(2, KEY)
    before: Hits = part.search(texts, 5, [Stretch("v", 0, 12)])
    assert len(before.frames) == 5
    for number in range(3, 8):
        add(number, KEY)
    after = part.search(texts, 5, [Stretch("v", 0, 12)])
    assert before.frames.tolist() == after.frames.tolist()
    assert before.scores.tolist() == after.scores.tolist()


def test_a_part_of_weight_0_ranks_only_what_the_others_leave(root: Path) -> None:
    shares = {"clip": 0.0}
    fused = FusedRetriever(
        {"clip": ClipRetriever},
        embedder=Words(),
        further={"conse": ClipRetriever(embedder=Directions(), rows=KEY)},
        shares_of=lambda text: shares,
    )
    video = make_video(segments=4, needle=1)
    for number, segment in enumerate(video):
        fused.add(SegmentIndex.of(with_rows(segment, *([KEY] if number > 1 else [])), 4 * number))
    found = fused.search(Question("needle", "v"), 16, [Stretch("v", 0, 16)]).frames.tolist()
    assert set(found[:8]) == set(range(8, 16)) and found[8] == 1 and len(set(found)) == 16
    shares |= {"clip": 1.0, "conse": 0.0}
    assert fused.search(Question("needle", "v"), 3, [Stretch("v", 0, 16)]).frames[0] == 1


def test_saved_rows_are_loaded_again(root: Path) -> None:
    with opened(root, retriever()) as bank:
        write_video(bank, [with_rows(segment, KEY) for segment in make_video(segments=5)])
        first = best(bank)
    assert (root / "index" / "v" / KEY / "head.json").exists()
    reads: list[str] = []
    with opened(root, retriever()) as bank:
        read = bank._store.index
        bank._store.index = lambda *args: (reads.append("read"), read(*args))[1]  # type: ignore
        assert best(bank) == first and reads == []


@pytest.mark.parametrize("step", ["create", "sync", "rename", "sync folder", "row", "commit"])
def test_a_crash_leaves_a_segment_whole_or_absent(root: Path, step: str) -> None:
    """The process ends inside `write`, at each file of the segment in turn."""

    class Crash(BaseException):
        pass

    video = [with_rows(segment, KEY, OTHER) for segment in make_video(segments=3)]
    whole = root.with_name("whole")
    with opened(whole) as bank:
        write_video(bank, video)
    for passes in (1, 2, 3) if step not in ("row", "commit") else (1,):
        bank = opened(root.with_name(f"{step}{passes}"), retriever())
        write_video(bank, video[:1])
        left = passes

        def die(name: str, step: str = step) -> None:
            nonlocal left
            left -= name == step
            if not left and name == step:
                raise Crash

        crash_points.hook = die
        try:
            with pytest.raises(Crash):
                bank.write(video[1])
        finally:
            crash_points.hook = None
            bank._writer.release()  # type: ignore[union-attr]
        with opened(bank.root, retriever()) as again:
            assert [each for each in again.check.verify() if not each.harmless] == []
            number, _ = again.catalog.next("v")
            assert again.embeddings.missing("v", KEY) == again.embeddings.missing("v", OTHER) == []
            for segment in video[number:]:
                again.write(segment)
            assert again.check.verify() == []
        assert files(bank.root) == files(whole)


def test_a_crash_while_rows_are_added_leaves_none_or_all_of_a_segment(root: Path) -> None:
    class Crash(BaseException):
        pass

    def die(at: str, name: str) -> None:
        if name == at:
            raise Crash

    for step in ("create", "write", "rename", "sync folder", "embedding row"):
        bank = opened(root.with_name(step), retriever())
        write_video(bank, make_video(segments=2))
        bank.embeddings.write("v", 0, KEY, rows_of(0))
        crash_points.hook = partial(die, step)
        try:
            with pytest.raises(Crash):
                bank.embeddings.write("v", 1, KEY, rows_of(1))
        finally:
            crash_points.hook = None
            bank._writer.release()  # type: ignore[union-attr]
        with opened(bank.root, retriever()) as again:
            assert [each for each in again.check.verify() if not each.harmless] == []
            there = step == "embedding row"
            assert again.embeddings.missing("v", KEY) == ([] if there else [1])
            again.begin_writing()  # deletes what was never acknowledged
            assert again.check.verify() == []
            again.embeddings.write("v", 1, KEY, rows_of(1))
            assert again.embeddings.missing("v", KEY) == []


def test_damage_is_named_and_cleared_and_never_ranked(bank: MemoryBank, root: Path) -> None:
    for number in range(5):
        bank.embeddings.write("v", number, KEY, rows_of(number, needle=0))
    path = root / "embeddings" / "v" / KEY / "000001.safetensors"
    gone = path.with_name("000003.safetensors")
    flip(path)
    gone.unlink()
    problems = {each.path: each for each in bank.check.verify()}
    assert problems.keys() == {path, gone}
    assert {each.kind for each in problems.values()} == {"embedding"}
    assert "are not those that were written" in problems[path].text
    assert "gone" in problems[gone].text
    with opened(root, retriever()) as reader:
        assert sorted(best(reader)) == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert {each.path for each in bank.check.clear_embeddings()} == {path, gone}
    assert bank.check.verify() == [] and bank.embeddings.missing("v", KEY) == [1, 3]


def test_a_swapped_file_is_damage(bank: MemoryBank, root: Path) -> None:
    """Each file is whole, so only the catalog knows."""
    for number in range(2):
        bank.embeddings.write("v", number, KEY, rows_of(number))
    a, b = sorted((root / "embeddings" / "v" / KEY).iterdir())
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    assert [each.path for each in bank.check.verify()] == [a, b]


def test_a_lost_catalog_is_rebuilt_with_the_rows(bank: MemoryBank, root: Path) -> None:
    for number in (0, 1, 4):
        bank.embeddings.write("v", number, KEY, rows_of(number, needle=0))
    before = bank.embeddings.counts()
    bank.close()
    flip(root / "embeddings" / "v" / KEY / "000001.safetensors", at=40)  # in its header
    no_catalog(root)
    with opened(root, retriever()) as again:
        assert again.embeddings.missing("v", KEY) == [1, 2, 3]
        assert again.embeddings.counts()[0].frames == before[0].frames - 4
        again.begin_writing()
        assert again.check.verify() == []


def test_a_damaged_row_of_the_catalog_is_found_and_rebuilt(bank: MemoryBank, root: Path) -> None:
    bank.embeddings.write("v", 0, KEY, rows_of(0))
    bank.close()
    db = sqlite3.connect(root / "catalog.sqlite")
    with db:
        db.execute("UPDATE embeddings SET number = 1")
    db.close()
    with opened(root) as again:
        (problem,) = again.check.verify()
        assert problem.kind == "catalog" and "not as it was written" in problem.text
    with MemoryBank.open(root, None, retriever(), recent_frames=0, repair=True) as again:
        assert again.check.verify() == [] and again.embeddings.missing("v", KEY) == [1, 2, 3, 4]


def test_rows_go_with_their_segments(bank: MemoryBank, root: Path) -> None:
    write_video(bank, [with_rows(each, OTHER) for each in make_video("w", segments=2)])
    for number in range(5):
        bank.embeddings.write("v", number, KEY, rows_of(number))
    bank.discard("v", [2])
    assert bank.embeddings.counts("v")[0].segments == 4
    bank.write(make_segment("v", 2))
    assert bank.embeddings.missing("v", KEY) == [2] and bank.check.verify() == []
    bank.embeddings.write("v", 2, KEY, rows_of(2, needle=3))
    assert best(bank)[0] == 11
    bank.record_video(info("v"), 1.0, finished=True)
    size = bank.embeddings.nbytes("v")
    cut, *_ = bank.prune(Rule("v", max_bytes=bank.catalog.nbytes() - 1))
    assert cut.first == 1 and cut.nbytes > bank.catalog.segments("v")[0].nbytes
    assert bank.embeddings.nbytes("v") < size and bank.check.verify() == []
    assert best(bank)[0] == 11
    bank.drop("v")
    assert bank.check.verify() == [] and not (root / "embeddings" / "v").exists()
    assert [each.embedder for each in bank.embeddings.counts()] == [OTHER]


def test_rows_of_a_segment_with_other_bytes_do_not_count(bank: MemoryBank, root: Path) -> None:
    """An older Reelbank, which knows no further embedders, encodes a segment again."""
    for number in range(5):
        bank.embeddings.write("v", number, KEY, rows_of(number))
    bank.close()
    db = sqlite3.connect(root / "catalog.sqlite")
    kept = db.execute("SELECT * FROM embeddings").fetchall()
    db.close()
    with opened(root, retriever()) as older:
        older.discard("v", [2])
        older.write(make_segment("v", 2, needle=0))  # other bytes
    db = sqlite3.connect(root / "catalog.sqlite")
    with db:
        db.execute("DELETE FROM embeddings")
        db.executemany(f"INSERT INTO embeddings VALUES ({', '.join('?' * 7)})", kept)
    db.close()
    with opened(root, retriever()) as again:
        assert again.embeddings.missing("v", KEY) == [2]
        again.begin_writing()
        assert again.check.verify() == [] and len(kept) == 5
        assert len(again._store.embeddings.rows.rows("v")) == 4


def test_a_second_writer_adds_nothing(bank: MemoryBank, root: Path) -> None:
    bank.begin_writing()
    with opened(root) as other, pytest.raises(UserError, match="written by another process"):
        other.embeddings.write("v", 0, KEY, rows_of(0))


def test_equal_rows_give_equal_bytes() -> None:
    head = embedding_file.Head("v", 3, KEY, "00")
    assert embedding_file.pack(head, rows_of(3)) == embedding_file.pack(head, rows_of(3).clone())


def test_a_file_of_a_later_format_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(embedding_file, "FORMAT", 2)
    data = embedding_file.pack(embedding_file.Head("v", 3, KEY, "00"), rows_of(3))
    monkeypatch.undo()
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="format 2"):
        embedding_file.read(path, embedding_file.seal(data))
