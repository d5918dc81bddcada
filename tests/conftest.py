"""Fixtures that many tests share: a film with subtitles, its bank, and the command line.

A test module that needs another film or bank defines a fixture of the same name.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline import cli
from tests.support.talks import SRT
from tests.support.toys import toy_parts
from tests.support.videos import write_video

SECONDS = 20

# how long an example takes says how busy the machine is, and nothing of the code
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, SECONDS, 5)
    path.with_suffix(".srt").write_text(SRT)
    return path


@pytest.fixture(scope="module")
def bank(film: Path) -> Path:
    """With pictures and words."""
    root = film.parent / "bank"
    assert cli.run("ingest", [f"video={film}", f"bank={root}", "text=subtitles", *toy_parts()]) == 0
    return root


@pytest.fixture(scope="session", autouse=True)
def _bank_in_the_current_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A command of a test that names no bank leaves the user's own bank alone, and the hits of the
    user's last search too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REELBANK_BANK", "reelbank-bank")
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


_most_resident = 2e9  # bytes; risen where a collection leaves more


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """A command exempts what it loaded from collection (gc.freeze), for it ends soon. This process
    runs hundreds of commands, and would keep the model of each: 10 GB."""
    global _most_resident
    yield
    if _resident_bytes() > _most_resident:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        _most_resident = max(_most_resident, _resident_bytes() + 1e9)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main(arguments)
        return int(str(done.value.code)), *capfd.readouterr()

    return call
