"""Segments on disk (law 4): bytes come back, a crash leaves whole segments or none, damage is
named.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import safetensors.torch
import torch

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.bank_check import BankCheck
from memory.retrieval.uniform import UniformRetriever
from memory.storage import atomic, checksums
from memory.storage.segments import segment_file, tensor_file
from memory.store import DiskStore
from tests.support.children import receive_all, start
from tests.support.records import files, info, make_segment, make_video, raw, same


@pytest.fixture
def store(tmp_path: Path):
    store = DiskStore(tmp_path)
    yield store
    store.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kv", [True, False])
def test_a_segment_comes_back_bit_exact(store, dtype, kv):
    segment = make_segment(dtype=dtype, kv=kv)
    store.put(segment)
    assert same(store.get("v", 0), segment)


@pytest.mark.slow  # seconds of CPU
def test_equal_segments_are_equal_bytes_in_any_process(tmp_path):
    program = (
        "import sys; from memory.storage.segments import segment_file\n"
        "from tests.support.records import make_segment\n"
        "sys.stdout.buffer.write(segment_file.pack(make_segment('v', 3)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True
    ).stdout
    packed = {segment_file.pack(make_segment("v", 3)) for _ in range(8)}
    assert packed == {other}


def test_tensors_that_share_memory_are_kept(store):
    segment = make_segment(tag=0)
    assert segment.kv is not None
    shared = replace(
        segment, kv=replace(segment.kv, offsets=segment.tokens.offsets, values=segment.kv.keys)
    )
    store.put(shared)
    assert same(store.get("v", 0), shared)


@pytest.mark.parametrize(("first", "stop"), [(0, 1), (1, 3), (0, 4), (3, 4)])
def test_a_range_of_frames_is_the_slice_of_the_whole(store, first, stop):
    segment = make_segment()
    store.put(segment)
    tokens, kv = store.frames("v", 0, first, stop)
    assert segment.kv is not None
    assert same(tokens, segment.tokens.frames(first, stop))
    assert same(kv, segment.kv.frames(first, stop))
    # not a view of the file
    assert kv.keys.is_contiguous() and kv.keys.untyped_storage().nbytes() == kv.keys.nbytes
    assert store.frames("v", 0, first, stop, kv=False)[1] is None


def test_files_are_plain_safetensors():
    """Anybody's reader reads them, and finds the same."""
    segment = make_segment()
    found = safetensors.torch.load(segment_file.pack(segment))
    assert segment.kv is not None
    assert same(found["keys"], segment.kv.keys) and same(found["tokens"], segment.tokens.tokens)
    assert {"values", "pos", "offsets", "kv_offsets", "times", "clip", "key_means"} < set(found)


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path):
    """And does not end the process, as a mapped one would."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(segment_file.pack(big_segment(0)))
    with (
        pytest.raises(segment_file.DamagedError, match="ends too early"),
        tensor_file.open_file(path) as file,
    ):
        os.truncate(path, file.header.size // 2)
        file.verify()


def test_a_header_that_lies_is_never_believed(tmp_path):
    """There is no checksum to compare. Each byte is flipped and read right after the sound file,
    whose header is cached.
    """
    path, segment = tmp_path / "x.safetensors", make_segment(frames=2)
    data = segment_file.pack(segment)
    path.write_bytes(data)
    refused = 0
    for at in range(8 + int.from_bytes(data[:8], "little")):
        hurt = bytearray(data)
        hurt[at] ^= 1 << at % 7
        path.write_bytes(hurt)
        try:
            times, _ = segment_file.read_times(path)
        except segment_file.DamagedError:
            refused += 1
        else:
            assert same(times, segment.times), at
    # places, dtypes, shapes; the sums of other tensors and the metadata are not needed here
    assert refused > 200
    head = 8 + int.from_bytes(data[:8], "little")
    # of the shape of the times, [2]
    for lie in (b"[1000000000000]", b"[99999]", b"[-1]", b"[1.5]", b"null"):
        header = data[8:head].replace(
            b'"dtype":"F64","shape":[2]', b'"dtype":"F64","shape":' + lie, 1
        )
        assert header != data[8:head]
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[head:])
        with pytest.raises(segment_file.DamagedError):
            segment_file.read_times(path)


def test_damage_is_told_by_frame(store):
    store.put(make_segment(tokens=[2, 2, 2, 2], dtype=torch.float32))
    path = store.path("v", 0)
    data = bytearray(path.read_bytes())
    with tensor_file.open_file(path) as file:
        slot = file.header.slots["tokens"]
    data[slot.begin + 5 * 8 * 4] ^= 1  # the sixth token of eight numbers: frame 2
    path.write_bytes(data)
    for first, stop in ((0, 4), (2, 3), (1, 3)):
        with pytest.raises(UserError, match="its tokens of frame 2 are not those"):
            store.frames("v", 0, first, stop)
    for first, stop in ((0, 2), (3, 4)):
        store.frames("v", 0, first, stop)  # nothing of frame 2 is read


def test_the_index_rows_are_read_alone(store):
    segment = make_segment(number=0)
    store.put(segment)
    index = store.index("v", 0, {"clip"})
    assert (
        same(index.clip, segment.clip)
        and same(index.times, segment.times)
        and index.key_means is None
    )
    assert same(store.index("v", 0, {"key_means"}).key_means, segment.key_means)
    assert segment_file.read_head(store.path("v", 0)) == segment_file.Head(
        "v", 0, segment.start, segment.end
    )


def test_ordinals_and_times_are_in_the_catalog(tmp_path):
    store, video = (
        DiskStore(tmp_path),
        [make_segment("v", 0, frames=3), make_segment("v", 1, frames=5, start=3.0)],
    )
    for segment in video:
        store.put(segment)
    store.close()
    rows = DiskStore(tmp_path).catalog.segments("v")
    assert [(row.first, row.stop) for row in rows] == [(0, 3), (3, 8)]
    assert [row.times.tolist() for row in rows] == [segment.times.tolist() for segment in video]
    assert [row.tokens.tolist() for row in rows] == [
        segment.tokens.offsets.diff().tolist() for segment in video
    ]


def test_a_segment_out_of_turn_is_refused(store):
    store.put(make_segment("v", 0))
    for number in (0, 2):
        with pytest.raises(ValueError, match="1 is next"):
            store.put(make_segment("v", number))
    with pytest.raises(KeyError):
        store.get("v", 1)
    with pytest.raises(ValueError, match="cannot name a folder"):
        store.put(make_segment("../v", 0))


def test_the_row_comes_after_the_file_is_durable(store, monkeypatch):
    """The order of `put`, seen from outside: data synced, renamed, folder synced, row."""
    done: list[str] = []
    for owner, name in ((os, "fsync"), (os, "replace"), (atomic, "sync_folder")):
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, real=real, name=name: (done.append(name), real(*a))[1]
        )
    add = store.catalog_writer.add_segment
    monkeypatch.setattr(
        store.catalog_writer, "add_segment", lambda *row: (done.append("row"), add(*row))[1]
    )
    (store.path("v", 0).parent).mkdir()
    store.put(make_segment("v", 0))
    # sync_folder calls the second fsync
    assert done == ["fsync", "replace", "sync_folder", "fsync", "row"]


@pytest.mark.parametrize(("step", "kind"), [("os.replace", "temporary"), ("catalog", "orphan")])
def test_a_cut_off_put_does_not_exist_and_can_be_repeated(store, monkeypatch, step, kind):
    store.put(make_segment("v", 0))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            *((os, "replace") if step == "os.replace" else (store.catalog_writer, "add_segment")),
            crash,
        )
        store.put(make_segment("v", 1))
    assert list(store.catalog.numbers("v")) == [0]
    problems = BankCheck(store, lambda: None).verify()
    assert [problem.kind for problem in problems] == [kind] and problems[0].harmless
    other = make_segment("v", 1, frames=2, start=4.0)  # a resumed run may cut differently
    store.put(other)
    assert same(store.get("v", 1), other)
    store.sweep()
    assert BankCheck(store, lambda: None).verify() == []


def test_verify_names_what_is_damaged(store):
    for segment in make_video("v", 4):
        store.put(segment)
    assert BankCheck(store, lambda: None).verify() == []
    flipped, cut, gone = (store.path("v", number) for number in range(3))
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    stray = gone.with_name("000009.safetensors")
    stray.write_bytes(b"x")
    found = {(problem.kind, problem.path) for problem in BankCheck(store, lambda: None).verify()}
    assert found == {("checksum", flipped), ("size", cut), ("missing", gone), ("orphan", stray)}
    for path in (cut, gone):
        with pytest.raises(UserError, match=path.name):
            store.get("v", int(path.stem))


def test_a_damaged_catalog_is_one_sentence(tmp_path):
    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"catalog\.sqlite"):
        DiskStore(tmp_path)


def test_drop_deletes_one_video(store):
    for video_id in ("v", "w"):
        store.put(make_segment(video_id, 0))
    store.drop("v")
    assert list(store.catalog.numbers("v")) == [] and list(store.catalog.numbers("w")) == [0]
    assert BankCheck(store, lambda: None).verify() == [] and not store.path("v", 0).parent.exists()


# ---- kill -9


def big_segment(number: int):
    """Large enough (about 1 MB) that a kill falls into the writing of a file now and then."""
    return make_segment("v", number, frames=8, tokens=[150] * 8, dtype=torch.float32)


def write_until_killed(root: Path, acknowledged: Connection) -> None:
    bank = MemoryBank.open(root, {"model": "m"}, UniformRetriever(), recent_frames=1)
    bank.record_video(info(), 1.0, finished=False)
    while True:
        number, _ = bank.catalog.next("v")
        bank.write(big_segment(number))
        acknowledged.send(number)


def test_acknowledged_segments_survive_kill_9(tmp_path):
    """Each round opens the bank that the last kill left behind. The claims hold at any moment, so
    random moments cannot make this flake.
    """
    chance = random.Random(0)
    for _ in range(5):
        writer, here = start(write_until_killed, tmp_path)
        acknowledged = [here.recv() for _ in range(chance.randint(1, 4))]
        time.sleep(chance.uniform(0, 0.02))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        acknowledged += receive_all(here)
        store = DiskStore(tmp_path)
        numbers = list(store.catalog.numbers("v"))
        assert numbers[: acknowledged[-1] + 1] == list(range(acknowledged[-1] + 1))
        # at most the one whose acknowledgement was under way
        assert len(numbers) <= acknowledged[-1] + 2
        for number in range(acknowledged[0], len(numbers)):
            assert same(store.get("v", number), big_segment(number))
        assert all(problem.harmless for problem in BankCheck(store, lambda: None).verify())
        store.close()
    with MemoryBank.open(tmp_path, {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        bank.write(big_segment(bank.catalog.next("v")[0]))  # the next writer cleans up
        assert bank.check.verify() == []


def test_an_interrupted_bank_has_the_same_bytes(tmp_path):
    """Law 8 for the files: written in one go, or cut off and resumed."""
    video = make_video("v", 4)
    whole, parts = DiskStore(tmp_path / "whole"), DiskStore(tmp_path / "parts")
    for segment in video:
        whole.put(segment)
    for segment in video[:2]:
        parts.put(segment)
    parts.close()
    (tmp_path / "parts/segments/v/000002.safetensors").write_bytes(b"torn")
    parts = DiskStore(tmp_path / "parts")
    for segment in video[2:]:
        parts.put(segment)
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    assert raw(parts.get("v", 3).clip) == raw(video[3].clip)


def test_sums_of_a_tensor_do_not_depend_on_how_it_lies_in_memory():
    long = torch.arange(12, dtype=torch.float64)
    for cut, laid in (
        (long[::2][2:3], torch.tensor([4.0])),
        (long.view(3, 4).T, long.view(3, 4).T.contiguous()),
    ):
        assert checksums.of({"a": cut}) == checksums.of({"a": laid.double()})
