"""Wall-clock times and pruning on the command line: began=, ls of a stretch of time, prune.

Bad input is one sentence and changes nothing."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.config import units
from tests.support.console import sentence, tree
from tests.support.damage import content, segments, small_disk
from tests.support.pruning import NOON, OPTIONS, SECONDS, WHEN, opened
from tests.support.records import files
from tests.support.toys import toy_parts
from tests.support.videos import write_video as write_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_film(path, SECONDS, 5)
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def call(task: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        parts = (
            [] if task == "bank" and "action=repair" not in arguments else [*toy_parts(), *OPTIONS]
        )
        with pytest.raises(SystemExit) as done:
            cli.main([task, *arguments, *parts])
        return int(str(done.value.code)), *capfd.readouterr()

    return call


@pytest.mark.slow  # seconds of CPU
def test_began_is_said_once(run, film, tmp_path):
    bank = tmp_path / "bank"
    ingest = ("ingest", f"video={film}", f"bank={bank}")
    assert run(*ingest, f"began={WHEN}")[0] == 0
    before = content(bank)
    assert run(*ingest)[0] == 0 and run(*ingest, f"began={WHEN}")[0] == 0
    assert run(*ingest, "began=2026-11-18T11:26:40Z")[0] == 0  # the same moment
    code, out, err = run(
        "ask", f"video={film}", f"bank={bank}", "question=x", "began=2026-11-18T11:26:41Z"
    )
    assert (code, out) == (2, "")
    sentence(
        err,
        "began=2026-11-18T11:26:41Z",
        str(film),
        str(bank),
        units.format_moment(NOON),
        "leave began= out",
    )
    assert run(*ingest[:2], f"bank={tmp_path / 'other'}")[0] == 0
    code, out, err = run(*ingest[:2], f"bank={tmp_path / 'other'}", f"began={WHEN}")
    assert (code, out) == (2, "")
    sentence(err, "without began=")
    assert content(bank) == before


def test_ls_of_a_stretch_of_time(run, film, tmp_path):
    bank = f"bank={tmp_path / 'bank'}"
    assert run("ingest", f"video={film}", bank, f"began={WHEN}")[0] == 0
    code, out, err = run(
        "bank", "action=ls", bank, f"video={film}", "start=3", "end=5", "format=json"
    )
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert [
        (row["number"], row["start"], row["end"], row["frames"]) for row in told["segments"]
    ] == [
        (1, 2, 4, 2),
        (2, 4, 6, 2),
    ]
    first = told["segments"][0]
    assert first["wall"] == NOON + 2 and units.parse_moment("x", first["wall_clock"]) == NOON + 2
    assert first["path"] == str(film) and first["nbytes"] > 1000
    code, out, err = run("bank", bank, f"video={first['video_id']}", "start=3", "end=5")
    assert (code, err, out.count("\n")) == (0, "", 2)
    line = out.splitlines()[0]
    assert all(
        word in line
        for word in (
            first["video_id"],
            "00:00:02-00:00:04 (2.0-4.0 s)",
            first["wall_clock"],
            "2 frames",
            "MB",
        )
    )
    since, until = (units.format_moment(NOON + seconds) for seconds in (3, 5))
    assert run("bank", bank, f"since={since}", f"until={until}")[1] == out
    assert (
        run("bank", bank, f"until={since}")[1].count("\n") == 2
        and run("bank", bank, f"video={film}")[1].count("\n") == 8
    )
    assert "no segment there" in run("bank", bank, "start=100")[1]
    assert json.loads(run("bank", bank, "start=100", "format=json")[1])["segments"] == []


@pytest.mark.slow
def test_prune_tells_what_would_go_and_what_went(run, film, tmp_path):
    bank = tmp_path / "bank"
    assert run("ingest", f"video={film}", f"bank={bank}")[0] == 0
    video_id = json.loads(run("bank", f"bank={bank}", "format=json")[1])["videos"][0]["video_id"]
    for path in segments(bank)[:5]:
        os.utime(path, (NOON, NOON))
    prune_ = ("bank", "action=prune", f"bank={bank}", "older_than=12h")
    before = tree(bank)
    code, out, err = run(*prune_, "dry_run=true")
    assert (code, err, tree(bank)) == (0, "", before)
    nbytes = sum(path.stat().st_size for path in segments(bank)[:5])
    assert out == f"would delete {video_id}: 5 segments, 10.0 s, {nbytes / 1e6:.3f} MB  {film}\n"
    told = json.loads(run(*prune_, "dry_run=true", "format=json")[1])
    assert tree(bank) == before and told["dry_run"] is True
    assert told["pruned"] == [
        {
            "video_id": video_id,
            "first": 5,
            "segments": 5,
            "seconds": 10.0,
            "nbytes": nbytes,
            "path": str(film),
        }
    ]
    assert told["left_bytes"] == sum(path.stat().st_size for path in segments(bank)[5:])
    assert run(*prune_) == (0, out.replace("would delete", "deleted"), "")
    assert len(segments(bank)) == 3 and run(*prune_) == (0, f"{bank}: nothing to prune\n", "")
    assert run("bank", "action=verify", f"bank={bank}")[:2] == (
        0,
        f"{bank}: all 3 segments are whole\n",
    )
    assert "complete, pruned before 00:00:10" in run("bank", f"bank={bank}")[1]
    assert (
        json.loads(run("bank", f"bank={bank}", "format=json")[1])["videos"][0]["pruned_before"]
        == 10.0
    )
    assert "nothing new" in run("ingest", f"video={film}", f"bank={bank}")[1]
    answer = json.loads(run("ask", f"video={film}", f"bank={bank}", "question=x", "format=json")[1])
    assert (answer["frames_read"], answer["warning"]) == (6, "")
    assert all(10 <= a < b <= 16 for a, b in answer["spans"])
    code, _, err = run("ask", f"video={film}", f"bank={bank}", "question=x", "asked_at=9")
    assert code == 2
    sentence(err, "asked_at=9 comes before the first frame in the bank")
    assert run("bank", "action=repair", f"bank={bank}")[1] == f"{bank}: nothing was damaged\n"

    code, out, err = run(
        "bank", "action=prune", f"bank={bank}", "max_bytes=0.1kB", "video=" + video_id
    )
    assert (code, err) == (0, "") and "(all of it)" in out and "stay" not in out
    assert run("bank", f"bank={bank}")[1].endswith(
        "no video yet; `reelbank ingest video=FILE` adds one\n"
    )


def test_prune_of_one_video(run, film, tmp_path):
    bank = tmp_path / "bank"
    for part in ((), ("end=8",)):
        assert run("ingest", f"video={film}", f"bank={bank}", *part)[0] == 0
    code, out, err = run("bank", "action=prune", f"bank={bank}", f"video={film}")
    assert (code, out) == (2, "")
    sentence(err, f"video={film} is 2 videos", "-to-8")
    ids = sorted(
        row["video_id"]
        for row in json.loads(run("bank", f"bank={bank}", "format=json")[1])["videos"]
    )
    assert (
        run("bank", "action=prune", f"bank={bank}", f"video={ids[0]}", "max_bytes=1kB")[1].count(
            "more than max_bytes=1kB"
        )
        == 1
    )
    # one of them is left
    code, out, err = run("bank", "action=prune", f"bank={bank}", f"video={film}")
    assert (code, err) == (0, "") and f"deleted {ids[1]}: 4 segments, 8.0 s" in out
    assert segments(bank) == [] and run("bank", "action=verify", f"bank={bank}")[0] == 0


BAD = [
    (["action=prune"], "action=prune deletes what it is told to; give video="),
    (["action=prune", "dry_run=true"], "older_than=7d or max_bytes=10GB"),
    (["action=prune", "video=nix"], "video=nix is not in bank"),
    (["action=prune", "older_than=-7d"], "older_than=-7d is no age"),
    (["action=prune", "older_than=7"], "older_than=7 is no age"),
    (["action=prune", "older_than=7w"], "older_than=7w is no age"),
    (["action=prune", "older_than=inf"], "older_than=inf is no age"),
    (["action=prune", "max_bytes=-1GB"], "max_bytes=-1GB is no size"),
    (["action=prune", "max_bytes=ten"], "max_bytes=ten is no size"),
    (["action=prune", "max_bytes=10 GBs"], "max_bytes=10 GBs is no size"),
    (["action=prune", "dry_run=maybe", "older_than=7d"], "dry_run"),
    (["action=prune", "older_than=7d", "start=3"], "start=3.0 has no effect with action=prune"),
    (
        ["action=ls", "older_than=7d"],
        "older_than=7d has no effect with action=ls; it is for action=prune, action=compact",
    ),
    (["action=ls", "dry_run=true"], "dry_run=True has no effect"),
    (
        ["action=verify", "video=nix"],
        "video=nix has no effect with action=verify; it is for action=ls, action=prune, action=",
    ),
    (["action=ls", "video=nix"], "video=nix is not in bank"),
    (["action=compact"], "action=compact rewrites what is old; give older_than=1d"),
    (["action=compact", "older_than=1"], "older_than=1 is no age"),
    (["action=compact", "older_than=1s", "kv_dtype=int2"], "kv_dtype=int2 is not known"),
    (["action=compact", "older_than=1s", "max_bytes=1GB"], "max_bytes=1GB has no effect"),
    (["action=prune", "older_than=1d", "kv_dtype=int8"], "kv_dtype=int8 has no effect"),
    (["action=ls", "since=yesterday"], "since=yesterday is no moment"),
    (["action=ls", "until=2026-13-01"], "until=2026-13-01 is no moment"),
    (
        ["action=ls", "since=2026-11-20T12:00Z", "until=2026-11-20T12:00+01:00"],
        "is not before until=",
    ),
    (["action=ls", "start=5", "end=5"], "start=5.0 is not before end=5.0"),
    (["action=ls", "start=-1"], "start=-1.0 is before a video begins"),
    (["action=ls", "start=nan"], "start=nan"),
    (["action=ls", "start=soon"], "start"),
]


@pytest.mark.parametrize(("overrides", "words"), BAD)
def test_bad_input_is_told_and_changes_nothing(run, made, overrides, words):
    before = tree(made)
    code, out, err = run("bank", f"bank={made}", *overrides)
    assert (code, out) == (2, ""), err
    sentence(err, words)
    assert tree(made) == before


@pytest.fixture(scope="module")
def made(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank that tests look at or copy."""
    bank = tmp_path_factory.mktemp("made") / "bank"
    assert cli.run("ingest", [f"video={film}", f"bank={bank}", *toy_parts(), *OPTIONS]) == 0
    return bank


def test_compact_tells_what_it_would_read_and_what_it_rewrote(run, made, tmp_path):
    bank = tmp_path / "bank"
    shutil.copytree(made, bank)
    arguments = ["action=compact", f"bank={bank}", "older_than=1s"]
    for path in bank.glob("segments/*/*.safetensors"):
        os.utime(path, (0, 0))
    before = tree(bank)
    code, out, err = run("bank", *arguments, "dry_run=true")
    assert (code, err) == (0, "") and "would read" in out and f"{SECONDS}.0 s" in out
    assert tree(bank) == before
    code, out, err = run("bank", *arguments, "format=json")
    (done,) = json.loads(out)["compacted"]
    assert code == 0 and done["nbytes"] < done["before"] and done["segments"] == SECONDS // 2
    assert json.loads(out)["left_bytes"] == done["nbytes"]
    assert run("bank", "action=verify", f"bank={bank}")[0] == 0
    assert run("bank", *arguments)[1] == f"{bank}: nothing to compact\n"


def test_prune_of_no_bank(run, tmp_path):
    code, out, err = run("bank", "action=prune", "older_than=7d", "bank=gone")
    assert (code, out) == (2, "")
    sentence(err, "there is no bank at gone")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "12:00",
        "2026-02-30T12:00",
        "2026-11-20T12:00:00+99:00",
        "20206-01-01",
        "0001-01-01",
    ],
)
def test_a_wrong_began_is_told_and_nothing_is_made(run, film, tmp_path, text):
    code, out, err = run("ingest", f"video={film}", f"began={text}", f"bank={tmp_path / 'bank'}")
    assert (code, out) == (2, "")
    sentence(err, f"began={text} is no moment; write it as began=2026-11-20T12:00:00+01:00")
    assert not (tmp_path / "bank").exists()


def test_a_moment_without_an_offset_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert (
            units.parse_moment("began", "2026-11-18T20:26:40")
            == NOON
            == units.parse_moment("began", "2026-11-18T11:26:40Z")
        )
        assert units.format_moment(NOON) == "2026-11-18T20:26:40+09:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_ages_and_sizes():
    assert [units.parse_age("x", text) for text in ("7d", "12h", "30m", "90s", "1.5h")] == [
        604800,
        43200,
        1800,
        90,
        5400,
    ]
    sizes = {
        "10GB": 10e9,
        "500MB": 500e6,
        "2GiB": 2 << 30,
        "1000": 1000,
        "1 kB": 1000,
        "0": 0,
        "1.5tb": 1.5e12,
    }
    assert {text: units.parse_size("x", text) for text in sizes} == sizes


def test_nobody_prunes_while_another_writes(run, made, tmp_path):
    bank = tmp_path / "bank"
    shutil.copytree(made, bank)
    with opened(bank, provenance=None) as writer:
        writer.begin_writing()
        before = files(bank)
        code, out, err = run("bank", "action=prune", f"bank={bank}", "max_bytes=0")
        assert (code, out) == (2, "")
        sentence(err, f"bank {bank} is being written by another process")
        assert files(bank) == before
        assert (
            "would delete"
            in run("bank", "action=prune", f"bank={bank}", "max_bytes=0", "dry_run=true")[1]
        )


def test_a_read_only_bank_is_not_pruned(run, made, tmp_path):
    with small_disk(tmp_path / "disk", 4096) as remount:
        bank = tmp_path / "disk" / "bank"
        shutil.copytree(made, bank)
        before = tree(bank)
        remount("ro")
        assert (
            "would delete"
            in run("bank", "action=prune", f"bank={bank}", "max_bytes=0", "dry_run=true")[1]
        )
        code, out, err = run("bank", "action=prune", f"bank={bank}", "max_bytes=0")
        assert (code, out) == (2, "")
        sentence(err, f"bank {bank} cannot be written", "read-only")
        assert tree(bank) == before
