"""Law 4: what happens to a bank when disk, files or users misbehave, case by case.

The tests run real commands on a real file with real model classes. Full and read-only disks are
tmpfs mounts. Where mounting is not allowed, these tests skip and say so.
"""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.errors import UserError
from encoders.schema import KVBlock, Segment, VisualTokens
from memory.bank import MemoryBank
from memory.bank_check import BankCheck
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from memory.storage import checksums
from memory.storage.segments import segment_file
from memory.store import DiskStore
from pipeline import cli
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support.children import command, start
from tests.support.console import sentence
from tests.support.damage import SECONDS, content, flip, no_catalog, scenes, segments, small_disk
from tests.support.records import files, info, make_segment, make_video, same
from tests.support.toys import toy_parts
from tests.support.videos import write_video

QUESTION = "What is the code on the card?"
WAYS = {
    "window": ("prefill.dtype=bfloat16", "prefill.window_frames=5", "segmenter.seconds=4"),
    "scene": (
        "prefill.dtype=bfloat16",
        "segmenter=scene",
        "segmenter.memory=12",
        "segmenter.warm_up=2",
        "segmenter.max_seconds=6",
    ),
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5, paint=scenes)
    return path


@pytest.fixture(scope="module")
def made(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished bank for each way; tests take copies."""
    banks = {way: tmp_path_factory.mktemp(way) / "bank" for way in WAYS}
    for way, bank in banks.items():
        assert cli.run("ingest", [f"video={film}", f"bank={bank}", *toy_parts(), *WAYS[way]]) == 0
    return banks


@pytest.fixture
def bank(made: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(made["window"], tmp_path / "bank")
    return tmp_path / "bank"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command with the parts of the way "window": exit code, stdout, stderr."""

    def call(task: str, *arguments: str, way: str = "window") -> tuple[int, str, str]:
        capfd.readouterr()
        parts = (
            []
            if task == "bank" and "action=repair" not in arguments
            else [*toy_parts(), *WAYS[way]]
        )
        with pytest.raises(SystemExit) as done:
            cli.main([task, *arguments, *parts])
        return int(str(done.value.code)), *capfd.readouterr()

    return call


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def equal(bank: Path, other: Path) -> bool:
    """All but the revision, which counts repairs."""
    return {**content(bank), "revision": 0} == {**content(other), "revision": 0}


# ---- bytes of a segment file


def test_a_flipped_byte_never_reaches_an_answer(tmp_path):
    """Every byte of the header and a sample of the data is flipped. `verify` names the file, and a
    read of everything fails. A read of a part fails or gives exactly what was written.
    """
    store = DiskStore(tmp_path)
    segment = make_segment(frames=3)
    store.put(segment)
    path = store.path("v", 0)
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    reads: list[Callable[[], object]] = [
        lambda: store.frames("v", 0, 0, 1),
        lambda: store.frames("v", 0, 1, 3, kv=False),
        lambda: store.index("v", 0, {"clip"}),
    ]
    whole = [read() for read in reads]
    chance = np.random.default_rng(0)
    survived = [0, 0, 0]
    for at in [
        *range(head),
        *sorted(chance.choice(np.arange(head, len(data)), 200, replace=False)),
    ]:
        hurt = bytearray(data)
        hurt[at] ^= 1 << int(chance.integers(8))
        path.write_bytes(hurt)
        with pytest.raises(UserError, match="is damaged"):
            store.get("v", 0)
        for which, read in enumerate(reads):
            try:
                found = read()
            except UserError as error:
                assert str(path) in str(error)
            else:
                assert at >= head and same(found, whole[which]), at
                survived[which] += 1
        if at % 7 == 0 or at >= head:
            assert [
                (problem.kind, problem.number)
                for problem in BankCheck(store, lambda: None).verify()
            ] == [("checksum", 0)], at
    assert all(count > 20 for count in survived)  # what was not read is not looked at
    path.write_bytes(data)
    assert BankCheck(store, lambda: None).verify() == [] and same(store.get("v", 0), segment)


def test_a_segment_of_another_video_or_format_is_not_taken(tmp_path, monkeypatch):
    store = DiskStore(tmp_path)
    for each in make_video("v", 3, tokens=[2] * 4):
        store.put(each)
    shutil.copyfile(store.path("v", 1), store.path("v", 2))  # whole, the right size, and wrong
    with pytest.raises(UserError, match="header is not the one"):
        store.frames("v", 2, 0, 1)
    monkeypatch.setattr(segment_file, "FORMAT", 2)
    store.path("v", 1).write_bytes(segment_file.pack(make_segment("v", 1, tokens=[2] * 4)))
    monkeypatch.undo()
    with pytest.raises(segment_file.DamagedError, match="segment format 2, not 3"):
        segment_file.read_head(store.path("v", 1))
    assert {problem.number for problem in BankCheck(store, lambda: None).verify()} == {1, 2}


# ---- repair


@pytest.mark.parametrize("way", WAYS)
def test_repair_gives_the_bytes_that_were_there(run, made, film, tmp_path, way):
    """A deleted, a flipped and a cut file, neighbours and the last segment among them."""
    bank = tmp_path / "bank"
    shutil.copytree(made[way], bank)
    first, second, *_, last = segments(bank)
    assert len(segments(bank)) >= 5
    first.unlink()
    flip(second)
    cut(last)
    code, out, err = run("bank", "action=verify", f"bank={bank}")
    assert (code, err, out.count("\n")) == (1, "", 3) and all(
        str(path) in out for path in (first, second, last)
    )
    code, out, err = run("bank", "action=repair", f"bank={bank}", "format=json", way=way)
    done = json.loads(out)
    assert (code, [each["number"] for each in done]) == (0, [0, 1, int(last.stem)]), err
    assert all(
        each["whole"] and each["outcome"] == "encoded again" and each["start"] < each["end"]
        for each in done
    )
    assert equal(bank, made[way])
    code, out, err = run("bank", "action=repair", f"bank={bank}", way=way)
    assert (code, out, err) == (0, f"{bank}: nothing was damaged\n", "")


def test_repair_with_other_settings_changes_nothing(run, bank):
    flip(segments(bank)[2])
    before = content(bank)
    code, out, err = run("bank", "action=repair", f"bank={bank}", "fps=2")
    assert (code, out) == (2, "")
    sentence(err, "fps=1.0 (this run: 2.0)")
    assert content(bank) == before


def test_repair_without_the_video_leaves_a_gap_that_can_be_filled(run, film, made, bank, tmp_path):
    away = tmp_path / "away.mp4"
    flip(segments(bank)[2])
    film.rename(away)
    try:
        code, out, err = run("bank", "action=repair", f"bank={bank}")
    finally:
        away.rename(film)
    assert (code, err) == (1, "")
    lost, tally = out.splitlines()
    assert (
        "segment 2 (8.0-12.0 s)" in lost
        and f"dropped, and missing from now on, as {film} is not there" in lost
    )
    assert tally == f"{bank}: 0 mended, 1 missing"
    assert "missing 8.0-12.0 s" in run("bank", f"bank={bank}")[1]
    code, out, _ = run("bank", "action=verify", f"bank={bank}")
    assert code == 1 and "segment 2 is missing: nothing is known of 8.0 s to 12.0 s" in out
    config = compose(
        "ask",
        [f"video={film}", f"bank={bank}", f"question={QUESTION}", *toy_parts(), *WAYS["window"]],
    )
    backbone = build_backbone(config)
    source, qa = build_source(config, backbone), build_qa(config, backbone)
    with qa.bank:
        answer = qa.ask(Question(QUESTION, source.info.video_id))
        assert (
            answer.frames_read == SECONDS - 4
            and "has lost 8.0-12.0 s of this video" in answer.warning
        )
        assert all(b <= 8 or a >= 12 for a, b in answer.spans)
        early = qa.ask(Question(QUESTION, source.info.video_id, 7.5))
        assert early.frames_read == 8 and early.warning == ""
    code, out, err = run(
        "ask", f"video={film}", f"bank={bank}", f"question={QUESTION}", "format=json"
    )
    answer = json.loads(out)
    # asking encodes what is missing first
    assert (code, answer["warning"], answer["frames_read"]) == (0, "", SECONDS)
    assert equal(bank, made["window"])


def test_repair_does_not_finish_an_unfinished_video(run, film, made, bank):
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened:
        video_id = opened.catalog.videos()[0].info.video_id
        opened.discard(video_id, [4, 5])  # as if it had been stopped after segment 3
    flip(segments(bank)[0])
    flip(segments(bank)[3])
    code, out, err = run("bank", "action=repair", f"bank={bank}")
    assert (code, out.count("encoded again")) == (0, 2), err
    assert [path.stem for path in segments(bank)] == ["000000", "000001", "000002", "000003"]
    assert run("ingest", f"video={film}", f"bank={bank}")[0] == 0
    assert equal(bank, made["window"])


def test_a_video_that_changed_is_not_put_in_its_place(run, film, bank, tmp_path):
    kept = tmp_path / "kept.mp4"
    flip(segments(bank)[1])
    shutil.copyfile(film, kept)
    try:
        write_video(film, SECONDS, 5)
        code, out, _ = run("bank", "action=repair", f"bank={bank}")
    finally:
        shutil.copyfile(kept, film)
    assert code == 1 and f"{film} is not the video that it was" in out


def test_a_question_meets_damage(run, film, bank):
    for path in segments(bank):
        flip(path, at=-1)  # the last bytes are those of a tensor that every answer reads
    before = files(bank)
    code, out, err = run(
        "ask", f"video={film}", f"bank={bank}", f"question={QUESTION}", "recent_frames=24"
    )
    assert (code, out) == (2, "")
    sentence(err, ".safetensors is damaged", "action=repair")
    assert files(bank) == before


# ---- the catalog


def empty_catalog(bank: Path) -> None:
    no_catalog(bank)
    (bank / "catalog.sqlite").touch()


def nothing_but_segments(bank: Path) -> None:
    no_catalog(bank)
    next(bank.rglob("video.json")).unlink()


@pytest.mark.parametrize("lose", [no_catalog, empty_catalog, nothing_but_segments])
def test_a_lost_catalog_is_rebuilt(run, film, made, bank, lose):
    lose(bank)
    code, out, err = run("bank", f"bank={bank}", "format=json")
    (video,) = json.loads(out)["videos"]
    assert (code, err) == (0, "") and (video["frames"], video["segments"]) == (SECONDS, 6)
    assert (
        video["path"] == ("" if lose is nothing_but_segments else str(film))
        and not video["finished"]
    )
    assert content(bank)["segments"] == content(made["window"])["segments"]
    code, out, err = run("ingest", f"video={film}", f"bank={bank}")
    assert (code, err) == (0, "") and "nothing new" in out
    assert equal(bank, made["window"])


def test_a_lost_catalog_and_a_damaged_segment(run, film, made, bank):
    no_catalog(bank)
    flip(segments(bank)[1], at=20)  # its header: it can say nothing of itself
    assert run("bank", "action=verify", f"bank={bank}")[0] == 1
    assert run("ingest", f"video={film}", f"bank={bank}")[0] == 0
    assert equal(bank, made["window"])


@pytest.mark.parametrize("where", ["its head", "a page", "the time of a frame", "an ordinal"])
def test_a_damaged_catalog_is_told_and_repaired(run, film, made, bank, where):
    path = bank / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    if where == "an ordinal":
        db = sqlite3.connect(path)
        db.execute("UPDATE segments SET first_ordinal = 13 WHERE number = 3")
        db.commit()
        db.close()
    elif where == "the time of a frame":
        at = data.index(np.arange(8, 12, dtype="<f8").tobytes())  # of segment 2
        data[at + 6] ^= 1
        path.write_bytes(data)
    else:
        at = 0 if where == "its head" else 4096
        data[at : at + 1500] = np.random.default_rng(0).bytes(1500)
        path.write_bytes(data)
    code, out, _ = run("bank", "action=verify", f"bank={bank}")
    assert code == 1 and "catalog.sqlite" in out
    code, out, err = run("bank", "action=repair", f"bank={bank}")
    assert (code, err) == (0, "") and "the catalog" in out and "rebuilt from the segments" in out
    assert run("ingest", f"video={film}", f"bank={bank}")[0] == 0
    assert equal(bank, made["window"]) and run("bank", "action=verify", f"bank={bank}")[0] == 0


def test_who_had_the_bank_open_before_does_not_write_to_the_old_catalog(tmp_path):
    with MemoryBank.open(tmp_path, {"model": "m"}, UniformRetriever(), recent_frames=1) as bank:
        bank.record_video(info(), 1.0, finished=False)
        bank.write(make_segment("v", 0))
    with MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1) as early:
        no_catalog(tmp_path)
        with MemoryBank.open(tmp_path, None, UniformRetriever(), recent_frames=1) as late:
            with pytest.raises(
                UserError, match="was rebuilt or deleted meanwhile; open the bank again"
            ):
                early.write(make_segment("v", 1))
            late.write(make_segment("v", 1))
            assert late.check.verify() == [] and late.catalog.next("v") == (2, 8.0)


def test_a_log_that_is_cut_off_loses_at_most_the_last_row(tmp_path):
    """The power fails while SQLite writes. Whatever part of its log is there, the catalog has all
    rows, except possibly the one that was not acknowledged. The next writer continues.
    """
    store = DiskStore(tmp_path / "bank")
    for each in make_video("v", 3):
        store.put(each)
    log = tmp_path / "bank" / "catalog.sqlite-wal"
    acknowledged = log.stat().st_size
    store.put(make_segment("v", 3))
    full = log.stat().st_size
    assert full > acknowledged > 0
    counts = set()
    for size in {acknowledged, *range(acknowledged + 1, full, 701), full}:
        copy = tmp_path / f"{size}"
        shutil.copytree(tmp_path / "bank", copy)
        (copy / "catalog.sqlite-shm").unlink()
        os.truncate(copy / "catalog.sqlite-wal", size)
        cut_off = DiskStore(copy)
        counts.add(len(cut_off.catalog.numbers("v")))
        assert all(problem.harmless for problem in BankCheck(cut_off, lambda: None).verify())
        cut_off.sweep()
        if len(cut_off.catalog.numbers("v")) == 3:
            cut_off.put(make_segment("v", 3))
        assert BankCheck(cut_off, lambda: None).verify() == [] and files(copy) == files(
            tmp_path / "bank"
        )
        cut_off.close()
    assert counts == {3, 4}


def test_a_lost_description_of_a_video_is_written_again(run, made, bank):
    next(bank.rglob("video.json")).write_text("{}")
    code, out, _ = run("bank", "action=verify", f"bank={bank}")
    assert code == 1 and "video.json" in out
    code, out, _ = run("bank", "action=repair", f"bank={bank}")
    assert code == 0 and "written again" in out and equal(bank, made["window"])


# ---- the bank as a whole


def test_an_older_format_says_what_to_do(run, film, bank):
    path = bank / "bank.json"
    manifest = json.loads(path.read_text()) | {"format": 2}
    del manifest["sum"]  # older formats had none
    path.write_text(json.dumps(manifest))
    for arguments in (
        ["bank", "action=verify"],
        ["bank", "action=repair"],
        ["ask", f"video={film}", "question=x"],
    ):
        code, out, err = run(*arguments, f"bank={bank}")
        assert (code, out) == (2, "")
        sentence(
            err,
            "has format 2 and this Reelbank reads format 3; encode its videos into another "
            "bank=DIR",
        )


def test_the_second_writer_is_refused_and_questions_go_on(run, film, bank, tmp_path):
    other = tmp_path / "other.mp4"
    write_video(other, 4, 5)
    before = content(bank)
    with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as writer:
        writer.begin_writing()
        for arguments in (["ingest", f"video={other}"], ["bank", "action=repair"]):
            code, out, err = run(*arguments, f"bank={bank}")
            assert (code, out) == (2, "")
            sentence(err, f"is being written by another process (id {os.getpid()})")
        assert run("ask", f"video={film}", f"bank={bank}", f"question={QUESTION}")[0] == 0
        assert run("bank", "action=verify", f"bank={bank}")[0] == 0
    assert content(bank) == before
    assert run("ingest", f"video={other}", f"bank={bank}")[0] == 0


def test_a_copied_bank_is_a_bank(run, film, made, bank, tmp_path):
    moved = tmp_path / "elsewhere" / "copy"
    moved.parent.mkdir()
    bank.rename(moved)
    answers = [
        json.loads(
            run("ask", f"video={film}", f"bank={each}", f"question={QUESTION}", "format=json")[1]
        )
        for each in (made["window"], moved)
    ]
    for answer in answers:
        del answer["seconds"]
        for call in answer["trace"]["calls"]:
            del call["seconds"]
    assert answers[1] == answers[0]
    assert run("bank", "action=verify", f"bank={moved}")[0] == 0
    flip(segments(moved)[3])
    assert run("bank", "action=repair", f"bank={moved}")[0] == 0 and equal(moved, made["window"])


# ---- disks


def apart(*arguments: str) -> tuple[int, str]:
    """A command in a process of its own: exit code and stderr."""
    process, told = start(command, [*arguments, *toy_parts(), *WAYS["window"]])
    code, err = told.recv()
    process.join()
    return code, err


@pytest.mark.parametrize(
    "kilobytes",
    [
        pytest.param(16, marks=pytest.mark.slow),
        pytest.param(64, marks=pytest.mark.slow),
        120,
        pytest.param(164, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_told_and_encoding_goes_on_when_there_is_room(
    run, film, made, tmp_path, kilobytes
):
    """Full while the bank is created, while the catalog is, in a segment file."""
    with small_disk(tmp_path / "disk", kilobytes) as remount:
        bank = tmp_path / "disk" / "bank"
        code, err = apart("ingest", f"video={film}", f"bank={bank}")
        assert code == 2, err
        sentence(
            err,
            f"bank {bank} cannot be written",
            "space" if kilobytes > 16 else "room",
            "the same command goes on from there",
        )
        remount("size=8m")
        if (bank / "bank.json").exists():
            assert run("bank", "action=verify", f"bank={bank}")[0] == 0
            done = content(bank)
            assert set(files(bank).items()) <= set(files(made["window"]).items())
            assert len(done["segments"]) == len(files(bank)) < 6
        code, err = apart("ingest", f"video={film}", f"bank={bank}")
        assert (code, err) == (0, "") and equal(bank, made["window"])


def test_a_read_only_bank_can_be_asked_and_not_written(run, film, made, tmp_path):
    other = tmp_path / "other.mp4"
    write_video(other, 4, 5)
    with small_disk(tmp_path / "disk", 4096) as remount:
        bank = tmp_path / "disk" / "bank"
        shutil.copytree(made["window"], bank)
        before = content(bank)
        remount("ro")
        asked = ["ask", f"video={film}", f"question={QUESTION}", "format=json"]
        code, out, err = run(*asked, f"bank={bank}")
        assert (code, err) == (0, "")
        assert (
            json.loads(out)["text"] == json.loads(run(*asked, f"bank={made['window']}")[1])["text"]
        )
        assert (
            run("bank", "action=verify", f"bank={bank}")[0] == 0
            and run("bank", f"bank={bank}")[0] == 0
        )
        code, out, err = run("ingest", f"video={other}", f"bank={bank}")
        assert (code, out) == (2, "")
        sentence(
            err,
            f"bank {bank} cannot be written",
            "read-only",
            "make it writable or use another bank=DIR",
        )
        code, out, err = run("ingest", f"video={film}", f"bank={tmp_path / 'disk' / 'new'}")
        assert (code, out) == (2, "")
        sentence(err, "cannot be written", "read-only")
        remount("rw")
        assert content(bank) == before


def test_a_failing_disk_leaves_nothing_half_done(tmp_path, monkeypatch):
    """EIO from fsync: the segment is not acknowledged, not there, and can be written again."""
    with MemoryBank.open(
        tmp_path / "bank", {"model": "m"}, UniformRetriever(), recent_frames=1
    ) as bank:
        bank.record_video(info(), 1.0, finished=False)
        bank.write(make_segment("v", 0))

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error")

        with (
            monkeypatch.context() as patch,
            pytest.raises(
                UserError,
                match=r"cannot be written \(input/output error\); make sure that the disk works",
            ),
        ):
            patch.setattr(os, "fsync", broken)
            bank.write(make_segment("v", 1))
        assert bank.check.verify() == [] and bank.catalog.next("v") == (1, 4.0)
        bank.write(make_segment("v", 1))
        assert (
            same(bank.catalog.read_segment("v", 1), make_segment("v", 1))
            and bank.check.verify() == []
        )


@pytest.mark.slow
def test_what_the_checks_cost(tmp_path, monkeypatch):
    """The segment is as large as that of a 7 B model: 8 frames of 196 tokens, 28 layers of 4 heads
    of 128, bfloat16.
    """
    store = DiskStore(tmp_path)
    segment = large()
    began = time.perf_counter()
    store.put(segment)
    put = time.perf_counter() - began
    began = time.perf_counter()
    checksums.of(
        {"keys": segment.kv.keys, "values": segment.kv.values, "kv_offsets": segment.kv.offsets}
    )
    summed = time.perf_counter() - began

    def best_read() -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            store.frames("v", 0, 2, 4)
            times.append(time.perf_counter() - began)
        return min(times)

    with_checks = best_read()
    monkeypatch.setattr(checksums, "first_damaged_frame", lambda *_: None)
    monkeypatch.setattr(checksums, "is_intact", lambda *_: True)
    without = best_read()
    size = store.path("v", 0).stat().st_size / 1e6
    print(
        f"\nput of {size:.0f} MB: {put * 1e3:.0f} ms, of it sums {summed * 1e3:.0f} ms; read of 2 "
        "of its 8 frames, cached: "
        f"{with_checks * 1e3:.1f} ms, without checks {without * 1e3:.1f} ms"
    )
    assert summed < put / 2 and with_checks < 5 * without


def large() -> Segment:
    frames, tokens, layers, heads, width = 8, 196, 28, 4, 128
    offsets = torch.arange(frames + 1) * tokens
    keys, values = torch.randn(2, layers, heads, frames * tokens, width).bfloat16()
    pos = torch.zeros(frames * tokens, 3, dtype=torch.int32)
    seen = VisualTokens(
        torch.randn(frames * tokens, 3584).bfloat16(), pos, offsets, torch.arange(frames).double()
    )
    return Segment(
        "v", 0, 0.0, 8.0, seen, torch.randn(frames, 512), KVBlock(keys, values, offsets), None
    )
