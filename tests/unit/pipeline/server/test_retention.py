"""Old segments of a stream: compacted, then deleted, while the stream goes on."""

import logging
from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.schema import Question
from memory.storage.segments.segment_codec import StorageFormat
from pipeline.server.streams.retention import Retention
from pipeline.server.streams.stream_settings import StreamSettings, parse_stream
from tests.support.pruning import opened
from tests.support.records import info, make_video, same

FILM = make_video("door", 6, frames=3, tokens=[24] * 3)
SMALL = StorageFormat("int8", "int8")


def settings(**more: str) -> StreamSettings:
    return parse_stream({"name": "door", "url": "camera:0", **more}, "a test")


def written(bank: MemoryBank, numbers: range) -> None:
    if not numbers.start:
        bank.record_video(info("door"), 1.0, finished=False)
    for number in numbers:
        bank.write(FILM[number])


def small(bank: MemoryBank) -> list[int]:
    """Numbers of the segments that are compacted; each is whole, old or new."""
    numbers = []
    for row in bank.catalog.segments("door"):
        got, own = bank._store.get("door", row.number), FILM[row.number]
        if not same(got.kv, own.kv):
            numbers.append(row.number)
            own = SMALL.as_read(own)
        assert same(got.tokens, own.tokens) and same(got.kv, own.kv)
    return numbers


def test_old_segments_are_compacted_while_new_ones_come(tmp_path: Path) -> None:
    """The window of this bank has six frames: two segments of three, which stay as they are."""
    own = settings(compact_after="0s", compact_dtype="int8")
    with opened(tmp_path / "bank") as bank, opened(tmp_path / "bank") as reader:
        written(bank, range(4))
        question = Question("x", "door")
        before = reader.recall(question, read_tokens=400).names
        retention = Retention(own, bank)
        retention.apply()
        assert small(bank) == small(reader) == [0, 1]
        assert reader.recall(question, read_tokens=400).names == before
        written(bank, range(4, 6))
        retention.apply()
        assert small(bank) == [0, 1, 2, 3] and bank.check.verify() == []


def test_a_stream_without_limits_has_no_thread(tmp_path: Path) -> None:
    with opened(tmp_path / "bank") as bank:
        with Retention(settings(), bank) as idle:
            assert idle._thread.ident is None
        with Retention(settings(compact_after="1d"), bank) as busy:  # of a stream without a frame
            assert busy._thread.is_alive()
        assert not busy._thread.is_alive()


def test_what_cannot_be_compacted_is_told_once_and_pruned_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*rule: object, **more: object) -> None:
        raise UserError("the disk is full")

    nbytes = len(FILM) * 1000
    with opened(tmp_path / "bank") as bank, caplog.at_level(logging.WARNING):
        written(bank, range(6))
        monkeypatch.setattr(bank.compaction, "run", refuse)
        retention = Retention(settings(compact_after="0s", max_bytes=f"{nbytes}B"), bank)
        retention.apply()
        retention.apply()
        assert bank.catalog.segments("door")[0].number > 0
    assert [each.getMessage() for each in caplog.records] == [
        "reelbank: warning: stream door: the disk is full"
    ]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("compact_after", "soon", "is no age"), ("compact_dtype", "int3", "'int4' or 'int8'")],
)
def test_wrong_settings_are_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings(**{key: value})
