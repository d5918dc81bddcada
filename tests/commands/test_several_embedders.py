"""clip=[A,B] on the command line: rows of both, a channel for each, and notes where one is absent.

The second embedder is a random model, so that no result says what it sees.
"""

import json
import shutil
from pathlib import Path

import pytest

from encoders.conse.required_packages import missing_packages
from tests.support.console import sentence
from tests.support.records import files
from tests.support.toys import further_clip, toy_parts
from tests.support.videos import write_video

BOTH = further_clip()
SMALL = ["segmenter.seconds=2", "prefill.dtype=bfloat16"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 6, 5)
    return path


@pytest.fixture(scope="module")
def made(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of the embedded embedder alone, with a random backbone."""
    from pipeline import cli

    bank = tmp_path_factory.mktemp("made") / "bank"
    assert cli.run("ingest", [f"video={film}", f"bank={bank}", *parts(), *SMALL]) == 0
    return bank


def parts() -> list[str]:
    """A random backbone, with the embedded embedder unless clip= follows."""
    return [*(part for part in toy_parts() if not part.startswith("clip.")), "clip=embedded"]


@pytest.fixture
def bank(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bank"))


def find(run, bank: Path, query: str, *more: str) -> tuple[list, str]:
    """The moments, and what stderr tells."""
    code, out, err = run("find", f"bank={bank}", f"query={query}", "format=json", *more)
    assert code == 0
    return json.loads(out)["moments"], err


def channels(moments: list) -> set[str]:
    return {channel for moment in moments for channel in moment["channels"]}


@pytest.mark.slow
def test_an_embedder_is_added_listed_searched_and_left_out(run, film, bank):
    def add(*more: str) -> str:
        code, out, _ = run("ingest", f"video={film}", f"bank={bank}", *parts(), *SMALL, *more)
        assert code == 0
        return out

    assert "pictures" not in add()  # a film that is encoded gets nothing unasked
    moments, notes = find(run, bank, "a dog on the stairs", *BOTH)
    assert "`reelbank add FILM clip=[embedded,b32]` adds them" in notes
    assert channels(moments) == {"picture"}
    assert "pictures: 6 frames by b32 in " in add(*BOTH)
    code, out, _ = run("bank", f"bank={bank}")
    assert code == 0 and "  pictures by b32: 6 of 6 frames, 0.0" in out
    moments, notes = find(run, bank, "a dog on the stairs", *BOTH)
    assert channels(moments) == {"picture:b32"} and notes == ""
    moments, _ = find(run, bank, "a red star", *BOTH)
    assert channels(moments) == {"picture:b32", "picture:embedded"}
    moments, _ = find(run, bank, "What is the code on the card?", *BOTH)
    assert channels(moments) == {"picture:embedded"}
    moments, _ = find(run, bank, "a dog on the stairs", *BOTH, "channels=[picture:embedded]")
    assert channels(moments) == {"picture:embedded"}
    # without the weights of b32, which this machine does not have
    moments, notes = find(run, bank, "a dog on the stairs", "clip=auto")
    assert channels(moments) == {"picture"}
    assert "pictures by b32 (the weights of clip=b32 are not on this machine) are left out" in notes
    assert run("bank", f"bank={bank}", "action=verify")[0] == 0


def test_damaged_rows_are_repaired_by_the_film(run, film, bank):
    options = [f"bank={bank}", *parts(), *SMALL, *BOTH]
    assert run("ingest", f"video={film}", *options)[0] == 0
    path = sorted((bank / "embeddings").rglob("*.safetensors"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run("bank", f"bank={bank}", "action=verify")[0] == 1
    code, out, _ = run("bank", "action=repair", *options)
    assert code == 0 and "pictures b32-" in out and "makes them again" in out
    assert run("bank", f"bank={bank}", "action=verify")[0] == 0
    assert run("ingest", f"video={film}", *options)[0] == 0
    assert path.read_bytes() == whole


def test_an_answer_reads_a_bank_of_two(run, film, bank):
    options = [f"video={film}", f"bank={bank}", *parts(), *SMALL, *BOTH, "reader.max_new_tokens=4"]
    code, out, _ = run("ask", *options, "question=What does the dog do?", "format=json")
    assert code == 0 and json.loads(out)["frames_read"] == 6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("clip=[]", "names of frame embedders"),
        ("clip=[embedded,embedded]", "each once"),
        ("clip=[embedded,auto]", "auto only as the first"),
        ("clip=[embedded,nothing]", "use one of auto, b32"),
        ("channels=[picture:b32]", "has no pictures by b32"),
        ("channels=[pictures:b32]", "or picture:conse"),
    ],
)
def test_mistakes_are_one_sentence(run, bank, override, words):
    code, out, err = run("find", f"bank={bank}", "query=a dog", override)
    assert (code, out) == (2, "")
    sentence(err, words)


@pytest.mark.slow  # seconds of CPU
def test_auto_adds_conse_to_a_film_that_is_encoded_and_to_no_other(run, film, tmp_path):
    """Real weights, where the packages of conse are installed."""
    if missing_packages():
        pytest.skip(missing_packages())

    def add(bank: str, *more: str) -> dict:
        code, out, _ = run(
            "ingest", f"video={film}", f"bank={tmp_path / bank}", "text=none", "format=json", *more
        )
        assert code == 0
        return json.loads(out)["pictures"]

    assert add("alone", "clip=embedded") == {}
    assert add("alone", "clip=auto") == {}  # it is encoded already
    assert add("both") == {"conse": 6}
    moments, notes = find(run, tmp_path / "both", "a dog on the stairs")
    assert channels(moments) == {"picture:conse"} and notes == ""
    assert add("alone", "clip=[embedded,conse]") == {"conse": 6}
    both, later = (files(tmp_path / name) for name in ("both", "alone"))
    assert both == later and len(both) > 1  # also rows of the larger frames
