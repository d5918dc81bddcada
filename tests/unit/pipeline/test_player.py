"""What opens a film at a second: the player that the user names, one that is installed, or none."""

import stat
import time
from pathlib import Path

import pytest

from pipeline.cli.player import open_at


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "my film {seconds}.mp4"
    path.touch()
    return path


def player(folder: Path, name: str) -> Path:
    """A program that writes down what it was called with."""
    path = folder / name
    log = f"{folder}/new"
    path.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > "{log}"\nmv "{log}" "{path}.args"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def arguments(path: Path) -> list[str]:
    args = Path(f"{path}.args")
    end = time.monotonic() + 20
    while not args.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    return args.read_text().split("|")[:-1]


def test_an_installed_player_begins_at_the_second(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REELBANK_PLAYER", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DISPLAY", ":9")
    vlc = player(tmp_path, "vlc")
    assert open_at(film, 31.5) == "vlc"
    assert arguments(vlc) == ["--start-time=31.50", str(film)]
    mpv = player(tmp_path, "mpv")
    assert open_at(film, 0.0) == "mpv"
    assert arguments(mpv) == ["--start=0.00", str(film)]


def test_the_user_chooses_the_player(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = player(tmp_path, "my player")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("REELBANK_PLAYER", f'"{own}" at={{seconds}} {{path}} {{other}}')
    assert open_at(film, 62.0) == "my player"
    assert arguments(own) == ["at=62.00", str(film), "{other}"]
    monkeypatch.setenv("REELBANK_PLAYER", "/nowhere/player {path}")
    assert open_at(film, 62.0) == ""


def test_without_a_screen_nothing_opens(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "REELBANK_PLAYER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert open_at(film, 62.0) == ""
