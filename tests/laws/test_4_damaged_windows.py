"""Law 4: damage of a quantized bank, whose recent window a repair may need."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.build import build_backbone, build_qa, build_source
from pipeline.config.compose import compose
from tests.support.console import sentence
from tests.support.damage import SECONDS, flip, no_catalog, scenes, segments
from tests.support.records import files
from tests.support.toys import toy_parts
from tests.support.videos import write_video

QUESTION = "What is the code on the card?"
INT8 = ("kv_dtype=int8", "token_dtype=int8", "prefill.window_frames=5", "segmenter.seconds=4")
BEHIND = (
    "encoded again behind what the quantised bank stores of the frames before it, "
    "so its bytes are not those that it had"
)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5, paint=scenes)
    return path


class Stop(Exception):
    """Ends an ingest in the middle."""


def stopped(film: Path, bank: Path, after: int) -> None:
    """An ingest that was interrupted after so many segments."""
    config = compose("ask", [f"video={film}", f"bank={bank}", "question=x", *toy_parts(), *INT8])
    backbone = build_backbone(config)
    source, qa = build_source(config, backbone), build_qa(config, backbone)

    def progress(seconds: float, nbytes: int) -> None:
        if seconds >= 4 * after:
            raise Stop

    with qa.bank, pytest.raises(Stop):
        qa.ingest(source, progress)


@pytest.fixture
def quantised(film: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A finished bank, and one that was interrupted after four of six segments and whose window
    reaches into two.
    """
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    assert cli.run("ingest", [f"video={film}", f"bank={whole}", *toy_parts(), *INT8]) == 0
    stopped(film, cut_off, 4)
    assert sorted(path.stem for path in (cut_off / "window").rglob("*.*")) == ["000002", "000003"]
    return whole, cut_off


@pytest.fixture
def run8(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command with the parts of the quantised bank."""

    def call(task: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        parts = [] if task == "bank" and "action=repair" not in arguments else [*toy_parts(), *INT8]
        with pytest.raises(SystemExit) as done:
            cli.main([task, *arguments, *parts])
        return int(str(done.value.code)), *capfd.readouterr()

    return call


@pytest.mark.slow
def test_repair_of_a_quantised_bank_is_whole_and_says_that_bytes_differ(run8, film, quantised):
    """The window is gone. The first segment comes back with its bytes, and later ones are encoded
    behind what was stored.
    """
    bank, _ = quantised
    before = files(bank)
    first, _, _, fourth, _, last = segments(bank)
    for path in (first, fourth, last):
        flip(path)
    assert run8("bank", "action=verify", f"bank={bank}")[0] == 1
    code, out, err = run8("bank", "action=repair", f"bank={bank}", "format=json")
    assert (code, [(each["number"], each["outcome"]) for each in json.loads(out)]) == (
        0,
        [(0, "encoded again"), (3, BEHIND), (5, BEHIND)],
    ), err
    after = files(bank)
    assert [Path(name).stem for name in before if before[name] != after[name]] == [
        "000003",
        "000005",
    ]
    # int8 too
    assert {name: len(data) for name, data in before.items()} == {
        name: len(data) for name, data in after.items()
    }
    code, out, err = run8("bank", "action=verify", f"bank={bank}")
    assert (code, err) == (0, "") and "all 6 segments are whole" in out
    code, out, err = run8(
        "ask", f"video={film}", f"bank={bank}", f"question={QUESTION}", "format=json"
    )
    assert (code, json.loads(out)["frames_read"], json.loads(out)["warning"]) == (0, SECONDS, "")
    assert run8("bank", "action=repair", f"bank={bank}")[:2] == (
        0,
        f"{bank}: nothing was damaged\n",
    )


def test_repair_inside_the_window_leaves_the_rest_of_the_video_as_it_was(run8, film, quantised):
    """What comes later is encoded behind the block that was made first, which is still there."""
    whole, bank = quantised
    flip(segments(bank)[2])
    code, out, err = run8("bank", "action=repair", f"bank={bank}")
    assert code == 0 and BEHIND in out, err
    assert run8("bank", "action=verify", f"bank={bank}")[0] == 0
    code, out, err = run8("ingest", f"video={film}", f"bank={bank}")
    assert (code, err) == (0, "") and "warning" not in out
    differ = [Path(name).stem for name, data in files(whole).items() if files(bank)[name] != data]
    assert (
        differ == ["000002"]
        and not (bank / "window").joinpath(segments(bank)[0].parent.name).exists()
    )


def test_a_damaged_window_is_refused_and_repaired(run8, film, quantised):
    whole, bank = quantised
    block = sorted((bank / "window").rglob("*.safetensors"))[1]
    flip(block)
    code, out, _ = run8("bank", "action=verify", f"bank={bank}")
    assert code == 1 and f"{block}: damaged (its" in out
    # `ask` encodes the rest of the film first
    for task in (["ingest"], ["ask", f"question={QUESTION}"]):
        code, out, err = run8(*task, f"video={film}", f"bank={bank}")
        assert (code, out) == (2, "")
        sentence(err, f"{block} is damaged", "action=repair")
    code, out, err = run8("bank", "action=repair", f"bank={bank}")
    assert (code, err) == (0, "") and "block 000003.safetensors of its window: damaged" in out
    assert (
        "what is encoded from here on can differ" in out
        and "replaced by what the bank stores of it" in out
    )
    assert run8("bank", "action=verify", f"bank={bank}")[0] == 0
    assert run8("ingest", f"video={film}", f"bank={bank}")[0] == 0
    assert (
        run8("bank", "action=verify", f"bank={bank}")[0] == 0
        and files(bank).keys() == files(whole).keys()
    )


def test_encoding_on_without_the_window_warns(run8, film, quantised):
    whole, bank = quantised
    shutil.rmtree(bank / "window")
    code, out, _ = run8("bank", "action=verify", f"bank={bank}")
    assert (
        code == 1
        and out.count(
            ": missing; what is encoded from here on can differ from an uninterrupted run's"
        )
        == 2
    )
    code, out, err = run8(
        "ask", f"video={film}", f"bank={bank}", f"question={QUESTION}", "format=json"
    )
    assert code == 0 and json.loads(out)["warning"].startswith(
        "2 segments from number 4 on were encoded behind"
    ), err
    assert (
        run8("bank", "action=verify", f"bank={bank}")[0] == 0
        and files(bank).keys() == files(whole).keys()
    )


@pytest.mark.slow
def test_a_quantised_bank_without_its_catalog(run8, film, quantised):
    """A finished bank has nothing to encode and no warning. In an interrupted bank the window is
    still there.
    """
    for bank in quantised:
        no_catalog(bank)
        code, out, err = run8("ingest", f"video={film}", f"bank={bank}")
        assert (code, err) == (0, "") and "warning" not in out
        assert run8("bank", "action=verify", f"bank={bank}")[0] == 0
    assert files(quantised[0]) == files(quantised[1])
