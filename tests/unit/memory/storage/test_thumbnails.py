"""Thumbnails that a bank stores with its frames: their bytes come back, they die with their
segments, and damage is named.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.errors import UserError
from encoders.schema import Segment
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.storage.retention import Rule
from memory.storage.segments import segment_file
from tests.support.records import make_segment, make_video, same, write_video

SECONDS = [0.0, 1.0, 2.0, 3.0]


def with_thumbnails(segment: Segment, *jpegs: bytes) -> Segment:
    """With these, or with one of its own for each frame, of a size of its own."""
    own = [f"{segment.number}.{n}".encode() * (n + 1) for n in range(len(segment))]
    return replace(segment, thumbnails=jpegs or tuple(own))


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[MemoryBank]:
    with open_bank(tmp_path / "bank") as opened:
        yield opened


def open_bank(root: Path, quantisation: str = "none") -> MemoryBank:
    made_with: dict[str, str | int | float | None] = {"quantisation": quantisation}
    return MemoryBank.open(root, made_with, UniformRetriever(), recent_frames=0)


@pytest.mark.parametrize("kv", [True, False])
def test_they_come_back_with_their_segment(tmp_path: Path, kv: bool) -> None:
    segment = with_thumbnails(make_segment(kv=kv))
    path = tmp_path / "a.safetensors"
    path.write_bytes(segment_file.pack(segment))
    assert same(segment_file.read(path), segment)
    assert segment_file.read_thumbnails(path, [2, 0]) == (b"0.20.20.2", b"0.0")
    assert segment_file.pack(segment) == path.read_bytes()


def test_a_segment_without_any_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(segment_file.pack(make_segment()))
    assert segment_file.read_thumbnails(path, [0]) is None
    assert segment_file.read(path).thumbnails is None


def test_a_still_picture_is_stored_once(tmp_path: Path) -> None:
    picture = b"x" * 10_000
    still = with_thumbnails(make_segment(), picture, picture, b"y", picture)
    moving = with_thumbnails(make_segment(), picture, b"z" * 10_000, b"y", picture)
    path = tmp_path / "a.safetensors"
    path.write_bytes(segment_file.pack(still))
    assert len(segment_file.pack(moving)) - path.stat().st_size == pytest.approx(10_000, abs=16)
    assert segment_file.read_thumbnails(path, [0, 1, 2, 3]) == still.thumbnails
    assert segment_file.read_thumbnails(path, [1]) == (picture,)


@pytest.mark.parametrize("quantisation", ["none", "kv=int4, keys=causal, tokens=int8"])
def test_a_bank_gives_what_is_shown_at_a_second(tmp_path: Path, quantisation: str) -> None:
    """A picture holds until the next one; pending frames have theirs as well."""
    one, two, three = map(with_thumbnails, make_video(segments=3))
    with open_bank(tmp_path / "bank", quantisation) as bank:
        write_video(bank, [one, two])
        bank.show(three)
        assert one.thumbnails and two.thumbnails and three.thumbnails
        wanted = [5.5, 0.0, 3.9995, 9.0, 4.0]
        assert bank.catalog.thumbnails("v", wanted) == [
            two.thumbnails[1], one.thumbnails[0], two.thumbnails[0], three.thumbnails[1],
            two.thumbnails[0],
        ]  # fmt: skip
        assert bank.catalog.thumbnails("v", [99.0]) == [None]
        assert bank.catalog.thumbnails("another", [0.0]) == [None]
    with open_bank(tmp_path / "bank", quantisation) as bank:
        assert bank.catalog.thumbnails("v", [5.5, 9.0]) == [two.thumbnails[1], None]


def test_segments_with_and_without_may_stand_side_by_side(bank: MemoryBank) -> None:
    one, two = make_video(segments=2)
    write_video(bank, [with_thumbnails(one), two])
    assert bank.catalog.thumbnails("v", [1.0, 5.0]) == [b"0.10.1", None]


def test_they_are_pruned_and_dropped_with_their_segments(bank: MemoryBank) -> None:
    write_video(bank, [with_thumbnails(each) for each in make_video(segments=3)])
    before = bank.catalog.nbytes()
    bank.prune(Rule(video_id="v", max_bytes=before - 1))
    assert bank.catalog.thumbnails("v", [1.0, 9.0]) == [None, b"2.12.1"]
    assert bank.catalog.nbytes() < before
    bank.drop("v")
    assert bank.catalog.thumbnails("v", [9.0]) == [None]


def test_a_damaged_one_is_named_and_never_given(bank: MemoryBank, tmp_path: Path) -> None:
    write_video(bank, [with_thumbnails(each) for each in make_video(segments=2)])
    (path,) = (tmp_path / "bank" / "segments" / "v").glob("000001.safetensors")
    data = path.read_bytes()
    place = data.rindex(b"1.21.21.2")
    path.write_bytes(data[:place] + b"0" + data[place + 1 :])
    assert bank.catalog.thumbnails("v", [*SECONDS, 5.0]) == [
        b"0.0", b"0.10.1", b"0.20.20.2", b"0.30.30.30.3", b"1.11.1",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"000001.safetensors is damaged .*thumbnails of frame 2"):
        bank.catalog.thumbnails("v", [6.0])
    (problem,) = bank.check.verify()
    assert "thumbnails of frame 2" in problem.text and problem.number == 1
