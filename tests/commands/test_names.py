"""Files whose names something on the way could read as something else.

FFmpeg takes `letters:` for a protocol, so a film by such a name goes through every command that
opens one: by a relative path, in the folder where it lies.
"""

import json
import os
from pathlib import Path

import httpx
import pytest

from encoders.sources.container import inspect
from encoders.sources.ffmpeg_name import ffmpeg_name
from encoders.sources.file import FileSource
from encoders.sources.still import still
from encoders.text.speech import sound
from pipeline.server.files import container_of
from pipeline.server.page.pictures import FilePictures
from tests.support.serving import serving
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

COLON = "2026-11-20T12:00:00.mp4"
NAMES = (
    COLON,
    "http:x.mp4",
    "https:x.mp4",
    "file:x.mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,9,,:x.mp4",
    "data:x.mp4",
    "pipe:0.mp4",
    "crypto+http:x.mp4",
    "tcp:x.mp4",
    "rtsp:x.mp4",
    "a:b:c.mp4",
    "12:30.mp4",
    "-i.mp4",
    "%03d.mp4",
    "*.mp4",
    "[1].mp4",
    "~.mp4",
    "?.mp4",
    "x.mp4#t=1",
    " .mp4",
    "\n.mp4",
    "\\.mp4",
    "été 中 \U0001f600.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One film under all of the names, and subtitles beside the first."""
    path = tmp_path_factory.mktemp("names")
    write_video(path / "plain.mp4", 8, 5)
    for name in NAMES:
        os.link(path / "plain.mp4", path / name)
    (path / "2026-11-20T12:00:00.srt").write_text(SRT)
    return path


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_film_of_any_name_is_opened(name: str) -> None:
    path = Path(name)
    assert inspect(path).duration == 8.0
    source = FileSource(path, 1.0, width=32, height=32)
    assert sum(len(frames) for frames in source.frames()) == 8
    assert still(name, 3.0) is not None
    assert FilePictures(path).at(3.0) is not None
    assert not sound.has_sound(path)
    assert container_of(path)


def test_the_name_for_ffmpeg_is_the_file() -> None:
    for name in NAMES:
        assert Path(ffmpeg_name(name)).samefile(name) and ffmpeg_name(name).startswith("/")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.mark.parametrize("name", [COLON, "http:x.mp4"])
def test_it_is_asked_about(run, bank, name) -> None:
    code, out, err = run("ask", f"video={name}", f"bank={bank}", "question=x", *toy_parts())
    assert (code, err) == (0, "") and out
    code, again, err = run("ask", f"video=./{name}", f"bank={bank}", "question=x", *toy_parts())
    assert (code, err) == (0, "") and again.splitlines()[0] == out.splitlines()[0]


def test_its_words_and_thumbnails_are_found_and_it_is_listed(run, bank) -> None:
    code, out, err = run("ingest", f"video={COLON}", f"bank={bank}", "text=subtitles", *toy_parts())
    assert (code, err) == (0, "") and "lines by subtitles" in out
    code, out, err = run(
        "find", f"bank={bank}", "query=granite", "channels=[subtitle]", "format=json",
        "thumbnails=true", f"video={COLON}",
    )  # fmt: skip
    (moment,) = json.loads(out)["moments"]
    assert (code, err) == (0, "") and moment["thumbnail"] and moment["path"].endswith(COLON)
    code, out, err = run("bank", f"bank={bank}", f"video={COLON}", "action=ls")
    assert (code, err) == (0, "") and COLON in out
    code, out, err = run("bank", f"bank={bank}", "action=verify")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("video", [COLON, "http:x.mp4", "file:x.mp4", "a:b:c.mp4", "[1].mp4"])
def test_a_batch_reads_it(run, bank, tmp_path, folder, video) -> None:
    jobs = folder / "jobs.jsonl"
    jobs.write_text(json.dumps({"video": video, "question": "x"}) + "\n")
    code, _, err = run("batch", "jobs=jobs.jsonl", f"out={tmp_path / 'out'}", f"bank={bank}",
                       "reader.max_new_tokens=2", *toy_parts())  # fmt: skip
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").open()]
    assert (code, row["error"]) == (0, None), err


def test_a_batch_finds_films_whose_names_are_no_utf8(run, bank, tmp_path, folder) -> None:
    jobs = folder / "jobs.jsonl"
    jobs.write_text(json.dumps({"video": "caf*.mp4", "question": "x", "id": "1"}) + "\n")
    out = tmp_path / "out"
    code, _, _ = run("batch", "jobs=jobs.jsonl", f"out={out}", f"bank={bank}",
                     "reader.max_new_tokens=2", *toy_parts())  # fmt: skip
    (row,) = [json.loads(line) for line in (out / "answers.jsonl").open()]
    assert (code, row["video"]) == (0, os.fsdecode(b"caf\xe9.mp4"))
    assert (out / "answers.parquet").is_file() and b"caf\\udce9" in (
        out / "videos.csv"
    ).read_bytes()


def test_it_is_a_haystack(run, tmp_path) -> None:
    code, _, err = run(
        "needle", "preset=smoke", "action=make", "tasks=[retrieve]", f"out={tmp_path / 'out'}",
        f"haystack=[{COLON},http:x.mp4]", "files=true", "depths=[50]",
    )  # fmt: skip
    assert (code, err) == (0, "")


def test_a_folder_of_such_a_name_holds_the_run(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(
        "needle", "preset=smoke", "action=make", "tasks=[retrieve]", "out=run:1", "files=true",
        "depths=[50]",
    )  # fmt: skip
    assert (code, err) == (0, "")


def test_it_is_uploaded(tmp_path, folder) -> None:
    with serving(tmp_path, *toy_parts()) as (address, _):
        sent = {"file": (COLON, (folder / COLON).read_bytes(), "video/mp4")}
        reply = httpx.post(
            f"{address}/v1/files", files=sent, data={"purpose": "vision"}, timeout=60
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["filename"] == COLON


@pytest.mark.parametrize("video", [os.fsdecode(b"caf\xe9.mp4"), "\n.mp4"])
def test_a_bank_lists_and_searches_films_of_any_name(run, bank, video, tmp_path) -> None:
    code, _, err = run("ingest", f"video={video}", f"bank={bank}", *toy_parts())
    assert (code, err) == (0, "")
    for arguments in (
        ("bank", f"bank={bank}"),
        ("bank", f"bank={bank}", f"video={video}"),
        ("bank", f"bank={bank}", "format=json"),
        ("find", f"bank={bank}", "query=x", toy_parts()[1], "channels=[picture]"),
        ("find", f"bank={bank}", "query=x", toy_parts()[1], "channels=[picture]",
         "format=html", f"out={tmp_path / 'x.html'}"),
        ("bank", f"bank={bank}", "action=verify"),
    ):  # fmt: skip
        code, out, err = run(*arguments)
        assert (code, err) == (0, "") and out, arguments
