"""`reelbank ask` and `find` beside another process that encodes: what is stored so far is read.

The other process is a real one. It encodes two segments, then holds on with the bank in its hands.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import children
from tests.support.console import sentence
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

SECONDS, SEGMENT = 30, 8.0
STORED = 2 * SEGMENT


@pytest.fixture
def films(tmp_path: Path) -> Path:
    write_video(tmp_path / "a.mp4", SECONDS, 5)
    write_video(tmp_path / "other.mp4", 9, 5)
    (tmp_path / "a.srt").write_text(SRT)
    return tmp_path


@pytest.fixture
def writer(films: Path) -> Iterator[Any]:
    """Another process encodes a.mp4 and has acknowledged two segments."""
    overrides = [f"video={films / 'a.mp4'}", f"bank={films / 'bank'}", *toy_parts()]
    process, connection = children.start(children.ingest_and_hold, overrides, 2)
    assert connection.recv() == "holds"
    yield process
    process.kill()
    process.join()


def ask(run, films: Path, *more: str, film: str = "a.mp4") -> tuple[int, str, str]:
    result: tuple[int, str, str] = run(
        "ask", f"video={films / film}", f"bank={films / 'bank'}", "question=What is the code?",
        "reader.max_new_tokens=3", "format=json", *toy_parts(), *more,
    )  # fmt: skip
    return result


def test_a_question_reads_what_is_stored_and_says_so(run, films, writer) -> None:
    code, out, err = ask(run, films)
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["warning"] == (
        f"Another process is encoding into bank {films / 'bank'}; answered from the first 16.0 s "
        "of the video."
    )
    assert answer["recalled"] == [[0.0, STORED]] and answer["asked_at"] == STORED
    code, out, err = ask(run, films, "format=text")
    assert (code, err) == (0, "") and "answered from the first 16.0 s" in out
    # by its id, as a stream is asked about, which has no file
    code, out, err = ask(run, films, f"video={answer['video_id']}")
    assert (code, err) == (0, "") and json.loads(out)["recalled"] == [[0.0, STORED]]


def test_a_question_about_an_earlier_moment_needs_no_word(run, films, writer) -> None:
    code, out, err = ask(run, films, "asked_at=00:10")
    answer = json.loads(out)
    assert (code, err, answer["warning"]) == (0, "", "")
    assert answer["recalled"] == [[0.0, 11.0]] and answer["asked_at"] == 10.0


def test_a_video_of_which_nothing_is_stored_is_refused(run, films, writer) -> None:
    code, out, err = ask(run, films, film="other.mp4")
    assert (code, out) == (2, "")
    sentence(err, "is being written by another process", "wait for it")


def test_find_reads_what_is_stored(run, films, writer) -> None:
    code, out, err = run(
        "find", f"bank={films / 'bank'}", "query=x", toy_parts()[1], "channels=[picture]",
        "format=json",
    )  # fmt: skip
    moments = json.loads(out)["moments"]
    assert (code, err) == (0, "") and moments
    assert all(moment["end"] <= STORED for moment in moments)


def test_when_the_other_process_has_gone_the_rest_is_encoded(run, films, writer) -> None:
    ask(run, films)
    writer.kill()
    writer.join()
    code, out, err = ask(run, films)
    answer = json.loads(out)
    assert (code, err, answer["warning"]) == (0, "", "") and answer["recalled"][-1][1] == SECONDS


def test_words_of_an_encoded_film_are_not_waited_for(run, films) -> None:
    code, *_ = ask(run, films, "text=none")
    assert code == 0
    overrides = [f"video={films / 'other.mp4'}", f"bank={films / 'bank'}", *toy_parts()]
    process, connection = children.start(children.ingest_and_hold, overrides, 1)
    assert connection.recv() == "holds"
    code, out, err = ask(run, films, "text=subtitles")
    process.kill()
    process.join()
    assert (code, err) == (0, "")
    assert "text=, dense= and further clip= were left out" in json.loads(out)["warning"]
