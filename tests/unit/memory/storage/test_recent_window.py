"""The recent window: keys and values as made, beside quantized segments of an unfinished video.

The encoder alone reads it. It goes when the video is finished, and its damage is named."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment
from memory.bank import MemoryBank
from memory.bank_check import BankCheck
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.storage import crash_points as steps
from memory.storage.segments.segment_codec import StorageFormat
from memory.store import DiskStore
from tests.support.records import (
    files,
    make_video,
    same,
    write_video,
)

# ---- the recent window

WINDOW = StorageFormat("int4", "int8", window_frames=6)


def opened(root, storage_format=WINDOW) -> MemoryBank:
    return MemoryBank.open(
        root, {"quantisation": str(storage_format)}, UniformRetriever(), recent_frames=1
    )


def held(root) -> list[str]:
    return sorted(str(path.relative_to(root / "window")) for path in (root / "window").rglob("*.*"))


def test_the_window_is_as_made_and_goes_when_the_video_is_finished(tmp_path):
    video = make_video("v", 4)  # 4 frames each: the window reaches into two
    with opened(tmp_path) as bank:
        write_video(bank, video)
        assert held(tmp_path) == ["v/000002.safetensors", "v/000003.safetensors"]
        assert [
            same(run.kv, segment.kv)
            for run, segment in zip(bank.window.segments("v", 6), video[2:], strict=True)
        ] == [True, True]
        assert not same(
            bank.catalog.read_segment("v", 3).kv, video[3].kv
        )  # at rest it is int4 already
        bank.record_video(bank.catalog.video("v").info, 1.0, finished=True)
        assert held(tmp_path) == []
        assert same(bank.window.segments("v", 6)[-1].kv, bank.catalog.read_segment("v", 3).kv)


def each_frame(block: KVBlock) -> list[KVBlock]:
    return [block.frames(frame, frame + 1) for frame in range(len(block.offsets) - 1)]


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_a_question_reads_the_same_while_a_video_is_written_and_later(tmp_path, kind):
    """Law 3: frames that push others out of the window change nothing that was read of them. The
    last segment is pending first.
    """
    video = make_video("v", 4)
    ask = Question("x", "v")
    with opened(tmp_path, StorageFormat(kind, "int8", window_frames=6)) as bank:
        write_video(bank, video[:3])
        bank.show(video[3])
        shown = bank.recall(ask, read_tokens=1000).runs
        assert bank.recall(ask, read_tokens=1000).came_from["pending"] == 4
        bank.write(video[3])
        running = bank.recall(ask, read_tokens=1000).runs
        stored = [
            frame
            for number in range(4)
            for frame in each_frame(bank.catalog.read_segment("v", number).kv)
        ]
        bank.record_video(bank.catalog.video("v").info, 1.0, finished=True)
        later = bank.recall(ask, read_tokens=1000).runs
    exact = [frame for segment in video for frame in each_frame(segment.kv)]
    for runs in (shown, running, later):
        assert all(same(run.kv, frame) for run, frame in zip(runs, stored, strict=True))
        assert not any(same(run.kv, frame) for run, frame in zip(runs, exact, strict=True))
        assert all(same(x.tokens, y.tokens) for x, y in zip(runs, later, strict=True))


def test_a_window_that_a_crash_left_behind_is_cleared(tmp_path):
    video = make_video("v", 3)
    with opened(tmp_path) as bank:
        write_video(bank, video[:2])
    folder = tmp_path / "window" / "v"
    before = held(tmp_path)
    (folder / "000002.safetensors").write_bytes(b"never acknowledged")
    (folder / "000001.safetensors.9.tmp").write_bytes(b"torn")
    with opened(tmp_path) as bank:
        bank.write(video[2])
        assert same(bank.window.segments("v", 6)[0].kv, video[1].kv) and same(
            bank.window.segments("v", 6)[1].kv, video[2].kv
        )
        assert bank.check.verify() == []
        bank.drop("v")
    assert before == ["v/000000.safetensors", "v/000001.safetensors"] and held(tmp_path) == []


# ---- the window, damaged


def unfinished(root) -> list[Segment]:
    video = make_video("v", 4)
    with opened(root) as bank:
        write_video(bank, video)
    return video


def test_a_flipped_byte_of_the_window_never_comes_back(tmp_path):
    """Every byte of the header and a sample of the data is flipped. `verify` names the block. A
    read is refused or gives exactly the original.
    """
    unfinished(tmp_path)
    path = tmp_path / "window" / "v" / "000003.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    store = DiskStore(tmp_path, WINDOW)
    whole = store.exact_kv("v", 3, 0, 2)
    chance = torch.Generator().manual_seed(0)
    passed = 0
    for at in [*range(start), *torch.randint(start, len(data), (150,), generator=chance).tolist()]:
        hurt = bytearray(data)
        hurt[at] ^= 1 << int(torch.randint(0, 8, (1,), generator=chance))
        path.write_bytes(hurt)
        assert [
            (problem.kind, problem.path)
            for problem in BankCheck(store, lambda: None).verify_window()
        ] == [("window", path)], at
        try:
            found = store.exact_kv("v", 3, 0, 2)
        except UserError as error:
            assert str(path) in str(error) and "action=repair" in str(error)
        else:
            assert same(found, whole), at
            passed += 1
    assert passed > 20  # other frames' bytes and sums
    for torn in (b"", data[:5], data[:-1]):
        path.write_bytes(torn)
        with pytest.raises(UserError, match="is damaged"):
            store.exact_kv("v", 3, 0, 2)
    store.close()


def test_a_block_of_another_segment_is_not_taken(tmp_path):
    unfinished(tmp_path)
    folder = tmp_path / "window" / "v"
    (folder / "000003.safetensors").write_bytes((folder / "000002.safetensors").read_bytes())
    with opened(tmp_path) as bank:
        assert [problem.kind for problem in bank.check.verify()] == ["window"]
        with pytest.raises(UserError, match=r"000003\.safetensors is damaged"):
            bank.window.segments("v", 6)
        assert len(bank.recall(Question("x", "v"), read_tokens=1000).runs) == 16
        (fixed,) = bank.check.clear_window()
        assert fixed.path.name == "000003.safetensors" and "damaged" in fixed.text
        assert not bank.window.is_exact("v", 6) and len(bank.check.refill_window()) == 1
        assert bank.check.verify() == [] and bank.window.is_exact("v", 6)
        assert same(bank.window.segments("v", 6)[1].kv, bank.catalog.read_segment("v", 3).kv)


def test_a_missing_block_is_named_and_the_stored_one_is_read(tmp_path):
    video = unfinished(tmp_path)
    path = tmp_path / "window" / "v" / "000002.safetensors"
    path.unlink()
    with opened(tmp_path) as bank:
        (problem,) = bank.check.verify()
        assert (problem.kind, problem.path) == ("window", path) and problem.text.startswith(
            "missing; what is encoded"
        )
        assert not problem.harmless and not bank.window.is_exact("v", 6)
        runs = bank.window.segments("v", 6)
        assert same(runs[0].kv, bank.catalog.read_segment("v", 2).kv) and same(
            runs[1].kv, video[3].kv
        )
        bank.record_video(bank.catalog.video("v").info, 1.0, finished=True)
        assert bank.check.verify() == []


def test_what_lies_in_a_window_and_does_not_belong_there_is_named_and_swept(tmp_path):
    unfinished(tmp_path)
    for name in (
        "v/000000.safetensors",
        "v/notes.txt",
        "gone/000000.safetensors",
        "v/000003.safetensors.9.tmp",
    ):
        (tmp_path / "window" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "window" / name).write_bytes(b"x")
    with opened(tmp_path) as bank:
        assert sorted(problem.kind for problem in bank.check.verify()) == [
            "orphan",
            "orphan",
            "orphan",
            "temporary",
        ]
        bank.begin_writing()
        assert bank.check.verify() == [] and held(tmp_path) == [
            "v/000002.safetensors",
            "v/000003.safetensors",
        ]


def test_a_rebuilt_catalog_finds_the_window(tmp_path):
    video = unfinished(tmp_path)
    for path in tmp_path.glob("catalog.sqlite*"):
        path.unlink()
    with opened(tmp_path) as bank:
        assert bank.check.verify() == [] and bank.window.is_exact("v", 6)
        assert [
            same(run.kv, segment.kv)
            for run, segment in zip(bank.window.segments("v", 6), video[2:], strict=True)
        ] == [True, True]
        bank.write(make_video("v", 5)[4])
        assert (
            held(tmp_path) == ["v/000003.safetensors", "v/000004.safetensors"]
            and bank.check.verify() == []
        )


def test_a_segment_that_comes_again_leaves_the_window_as_it_was(tmp_path):
    """Those behind it were encoded with the block that is there, and so are those to come."""
    video = unfinished(tmp_path)
    with opened(tmp_path) as bank:
        bank.discard("v", [2])
        assert held(tmp_path) == ["v/000002.safetensors", "v/000003.safetensors"]
    with opened(tmp_path) as bank:
        bank.write(replace(video[2], kv=replace(video[2].kv, keys=-video[2].kv.keys)))
        assert bank.check.verify() == [] and same(bank.window.segments("v", 6)[0].kv, video[2].kv)
        bank.discard("v", [0])
        bank.write(video[0])  # far behind the window: no block
        assert bank.check.verify() == [] and held(tmp_path) == [
            "v/000002.safetensors",
            "v/000003.safetensors",
        ]


class Killed(BaseException):
    """The process ends here: nothing behind it is done, and nobody cleans up."""


def test_a_kill_at_any_step_leaves_a_window_to_go_on_from(tmp_path, monkeypatch):
    """The steps of a put: of the block, of the segment, of the row. memory/storage/crash_points.py
    names them.
    """
    video, whole = make_video("v", 5), tmp_path / "whole"
    with opened(whole) as bank:
        write_video(bank, video)
    for count in range(1, 100):
        root = tmp_path / str(count)
        passed: list[str] = []

        def hook(name: str, passed: list[str] = passed, count: int = count) -> None:
            passed.append(name)
            if len(passed) == count:
                raise Killed

        with opened(root) as bank:
            write_video(bank, video[:3])
            with monkeypatch.context() as patch, suppress(Killed):
                patch.setattr(steps, "hook", hook)
                bank.write(video[3])
        with opened(root) as bank:
            assert all(problem.harmless for problem in bank.check.verify()), passed
            bank.begin_writing()
            due = bank.catalog.next("v")[0]
            assert bank.check.verify() == [] and bank.window.is_exact("v", 6)
            tail = bank.window.segments("v", 6)
            assert all(
                same(run.kv, video[number].kv)
                for run, number in zip(tail, range(due - 2, due), strict=True)
            )
            for segment in video[due:]:
                bank.write(segment)
            assert bank.check.verify() == []
        assert files(root) == files(whole)
        if len(passed) < count:
            break
    assert passed.count("rename") == 2 and passed[-1] == "commit"  # the last time it came through


def test_a_plain_bank_has_no_window(tmp_path):
    with opened(tmp_path, StorageFormat(window_frames=6)) as bank:
        write_video(bank, make_video("v", 3))
    assert not (tmp_path / "window").exists()
    assert files(tmp_path)
