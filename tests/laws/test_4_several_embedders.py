"""Laws 3, 4, 5 and 8 with rows of several frame embedders in one bank.

Real films, decoders and model classes; the embedders are two random models.
"""

import os
import signal
from pathlib import Path

import pytest

from encoders.errors import UserError
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever
from memory.schema import Question
from tests.support.children import ingest, receive_all, start
from tests.support.damage import content
from tests.support.qa import opened
from tests.support.records import files
from tests.support.toys import further_clip, toy_parts
from tests.support.videos import write_video

OPTIONS = ("segmenter.seconds=2", "prefill.window_frames=5", "prefill.dtype=bfloat16")
SEVERAL = tuple(further_clip())


def run(film: Path, bank: Path, *options: str, die_at: tuple[str, int] | None = None) -> list[str]:
    """`reelbank ingest` in a process of its own; returns the steps of its commits."""
    overrides = [f"video={film}", f"bank={bank}", *toy_parts(), *OPTIONS, *options]
    process, told = start(ingest, overrides, die_at)
    said = receive_all(told)
    process.join()
    assert process.exitcode == (0 if die_at is None else -signal.SIGKILL)
    return [message[1] for message in said if message[0] == "step"]


def check(bank: Path) -> None:
    """What a kill leaves opens and verifies clean, and every segment has its rows."""
    if (bank / "bank.json").exists():
        with MemoryBank.open(bank, None, UniformRetriever(), recent_frames=0) as opened_bank:
            assert [one for one in opened_bank.check.verify() if not one.harmless] == []


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 8, 5)
    return path


@pytest.fixture(scope="module")
def whole(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """An uninterrupted bank of both embedders."""
    bank = tmp_path_factory.mktemp("whole") / "bank"
    run(film, bank, *SEVERAL)
    return content(bank)


@pytest.fixture(scope="module")
def plain(film: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """An uninterrupted bank of the primary embedder alone."""
    bank = tmp_path_factory.mktemp("plain") / "bank"
    run(film, bank)
    return content(bank)


def embeddings(made: dict) -> dict:
    return {name: data for name, data in made.items() if name.startswith("embeddings/")}


def test_a_further_embedder_changes_nothing_else(whole: dict, plain: dict) -> None:
    assert len(embeddings(whole)) == 4 and not embeddings(plain)
    rest = {name: data for name, data in whole.items() if not name.startswith("embeddings/")}
    assert rest == plain


def test_rows_that_are_added_later_are_those_of_one_pass(
    film: Path, tmp_path: Path, whole: dict, plain: dict
) -> None:
    bank = tmp_path / "bank"
    run(film, bank)
    before = {path: path.stat() for path in bank.glob("segments/*/*")}
    assert content(bank) == plain
    run(film, bank, *SEVERAL)
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: about.st_mtime_ns for path, about in before.items()
    }
    after = content(bank)
    # readers that have the video in memory read it again once all rows are there
    assert after.pop("revision") != (expected := dict(whole)).pop("revision")
    assert after == expected
    run(film, bank, *SEVERAL)
    assert content(bank) == after | {"revision": content(bank)["revision"]}


def test_killed_while_a_film_is_encoded_with_two_embedders(
    film: Path, tmp_path: Path, whole: dict
) -> None:
    """One bank is killed between the files of a segment and its row, and then finished."""
    bank = tmp_path / "bank"
    for step in (("rename", 5), ("row", 2)):
        run(film, bank, *SEVERAL, die_at=step)
        check(bank)
    run(film, bank, *SEVERAL)
    check(bank)
    assert content(bank) == whole


@pytest.mark.slow
def test_killed_while_rows_are_added(film: Path, tmp_path: Path, whole: dict, plain: dict) -> None:
    bank = tmp_path / "bank"
    run(film, bank)
    for name in ("rename", "embedding row"):
        run(film, bank, *SEVERAL, die_at=(name, 2))
        check(bank)
        now = content(bank)
        assert {key: now[key] for key in plain if key != "revision"} == {
            key: data for key, data in plain.items() if key != "revision"
        }
    run(film, bank, *SEVERAL)
    check(bank)
    assert files(bank) == {key: data for key, data in whole.items() if key.endswith("tensors")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_step(film: Path, tmp_path: Path, whole: dict) -> None:
    steps = run(film, tmp_path / "steps", *SEVERAL)
    for count in range(1, len(steps) + 1):
        bank = tmp_path / str(count)
        run(film, bank, *SEVERAL, die_at=("", count))
        check(bank)
        run(film, bank, *SEVERAL)
        assert content(bank) == whole, (count, steps[count - 1])
    print(f"\n{len(steps)} kills, one at every step of an ingest with two embedders")


@pytest.mark.slow
def test_rows_of_repeated_frames_and_of_temporal_patches_are_those_of_one_pass(film, tmp_path):
    """A compressor merges frames: their rows are those of the frame that they repeat."""
    merging = ("compressor=framediff", "compressor.threshold=0.9")
    for name, passes in (("once", [SEVERAL]), ("later", [(), SEVERAL])):
        for options in passes:
            with opened(film, tmp_path / name, *OPTIONS, *merging, *options) as (qa, source):
                qa.ingest(source)
    once, later = files(tmp_path / "once"), files(tmp_path / "later")
    assert once == later and len(once) == 8


@pytest.mark.slow
def test_an_embedder_of_other_weights_gets_rows_of_its_own(film, tmp_path):
    bank = tmp_path / "bank"
    run(film, bank, *SEVERAL)
    other = "further_clips.b32.dtype=bfloat16"
    with opened(film, bank, *OPTIONS, *SEVERAL, other) as (qa, source):
        assert len(qa.ingester.further.missing(source.info.video_id)) == 4
        qa.ingest(source)
        keys = [each.embedder for each in qa.bank.embeddings.counts()]
    assert len(keys) == 2 and keys[1] == f"{keys[0]}-bfloat16"


def test_another_film_at_the_same_place_is_refused(film, tmp_path):
    with opened(film, tmp_path / "bank", *OPTIONS) as (qa, source):
        qa.ingest(source)
    with opened(film, tmp_path / "bank", *OPTIONS, *SEVERAL) as (qa, source):
        samples = source._samples
        source._samples = type(samples)(samples.numbers, samples.times + 0.01, samples.stands)
        source.resume = lambda before: None
        with pytest.raises(UserError, match="gives other frames"):
            qa.ingest(source)
        assert qa.bank.embeddings.counts() == [] and qa.bank.check.verify() == []


def test_no_look_ahead_with_two_embedders(film, tmp_path):
    """The frames for a question at second 5 are those of a bank that ends there."""
    options = ("recent_frames=1", *OPTIONS, *SEVERAL)
    with opened(film, tmp_path / "whole", *options) as (qa, source):
        qa.ingest(source)
        asked = Question("a dog on the beach", source.info.video_id, 5.0)
        seen = qa.bank.recall(asked, read_tokens=12)
    with opened(film, tmp_path / "part", *options, "end=5.001") as (qa, source):
        qa.ingest(source)
        alone = qa.bank.recall(Question(asked.text, source.info.video_id), read_tokens=12)
    assert seen.hits.frames.tolist() == alone.hits.frames.tolist()
    assert [run.first for run in seen.runs] == [run.first for run in alone.runs]
    assert max(run.tokens.times.max() for run in seen.runs) <= 5.0
    assert os.path.isdir(tmp_path / "part" / "embeddings")
