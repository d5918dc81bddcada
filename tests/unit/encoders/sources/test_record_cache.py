"""Facts of films on disk: the same bits as a scan, and never those of a file that has changed."""

import os
import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders.sources import container, record_cache
from encoders.sources.container import inspect
from encoders.sources.still import still
from tests.support.fixture_film import RECIPES, Recipe
from tests.support.videos import write_video


@pytest.fixture(autouse=True)
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, which takes films of any length here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(container, "_MIN_KEPT", 1)
    monkeypatch.setattr(container, "_MIN_KEPT_BYTES", 1)
    return tmp_path / "cache" / "reelbank" / "films"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    write_video(tmp_path / "a.mp4", 8, 5)
    return tmp_path / "a.mp4"


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The films that were scanned, in order."""
    paths: list[Path] = []
    scan = container._scanned

    def noted(path: Path) -> container.Container:
        paths.append(path)
        return scan(path)

    monkeypatch.setattr(container, "_scanned", noted)
    return paths


def anew(path: Path) -> container.Container:
    """As another process reads the facts."""
    container._inspect.cache_clear()
    return inspect(path)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    elif is_dataclass(one):
        for each in fields(one):
            assert_same(getattr(one, each.name), getattr(other, each.name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    else:
        assert one == other


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.is_quick], ids=str)
def test_facts_from_the_disk_are_those_of_a_scan(
    tmp_path: Path, scans: list[Path], recipe: Recipe
) -> None:
    path, _ = recipe.write(tmp_path)
    scanned, from_disk = anew(path), anew(path)
    assert scans == [path] and from_disk is not scanned
    assert_same(from_disk, scanned)
    assert not from_disk.times.flags.writeable


def test_thumbnails_need_one_scan(film: Path, scans: list[Path]) -> None:
    seconds = [6.9, 0.0, 3.1]
    pictures = []
    for _ in range(3):
        container._inspect.cache_clear()
        pictures.append([still(str(film), second) for second in seconds])
    assert scans == [film]
    assert pictures[0] == pictures[1] == pictures[2] and None not in pictures[0]
    assert len(set(pictures[0])) == 3


@pytest.mark.parametrize("how", ["rewritten", "replaced", "touched"])
def test_a_changed_film_is_scanned_again(
    film: Path, tmp_path: Path, scans: list[Path], how: str
) -> None:
    before, status = anew(film), film.stat()
    other = tmp_path / "b.mp4"
    write_video(other, 6, 5)
    if how == "rewritten":  # the same inode, size, and time of change
        film.write_bytes(other.read_bytes().ljust(status.st_size, b"\0"))
        assert film.stat().st_size == status.st_size
    elif how == "replaced":
        os.replace(other, film)
    os.utime(film, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = anew(film)
    assert scans == [film, film]
    assert (len(after.times) == len(before.times)) == (how == "touched")


def test_a_copy_is_a_film_of_its_own(film: Path, tmp_path: Path, scans: list[Path]) -> None:
    first = anew(film)
    copy = Path(shutil.copy(film, tmp_path / "c.mp4"))
    assert anew(copy).path == copy and anew(film).path == film
    assert scans == [film, copy]
    assert_same(anew(copy).packets, first.packets)


@pytest.mark.parametrize("how", ["emptied", "cut", "flipped", "of other code", "a folder"])
def test_an_entry_that_cannot_be_used_is_made_again(
    film: Path, entries: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    first = anew(film)
    (entry,) = entries.iterdir()
    data = entry.read_bytes()
    if how == "of other code":
        monkeypatch.setattr(container._record_cache(), "_version", "other")
    elif how == "a folder":
        entry.unlink()
        entry.mkdir()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        entry.write_bytes({"emptied": b"", "cut": data[:-30], "flipped": flipped}[how])
    assert_same(anew(film), first)
    assert scans == [film, film]
    if how != "a folder":
        assert_same(anew(film), first)
        assert scans == [film, film]


def test_without_a_place_for_the_cache_everything_works(
    film: Path, tmp_path: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(anew(film), anew(film))
    assert scans == [film, film]


def test_the_oldest_entries_go(
    film: Path, entries: Path, tmp_path: Path, scans: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    anew(film)
    (entry,) = entries.iterdir()
    os.utime(entry, (1, 1))
    monkeypatch.setattr(record_cache, "_MOST_BYTES", int(1.5 * entry.stat().st_size))
    copy = Path(shutil.copy(film, tmp_path / "c.mp4"))
    anew(copy)
    assert len(list(entries.iterdir())) == 1 and not entry.exists()
    anew(copy)
    assert scans == [film, copy]


def test_short_films_and_playlists_leave_no_entry(
    film: Path, entries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A playlist names files that may change while it does not."""
    write_video(tmp_path / "p.ts", 8, 5)
    playlist = tmp_path / "p.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\np.ts\n#EXT-X-ENDLIST\n")
    anew(playlist)
    monkeypatch.setattr(container, "_MIN_KEPT", 1000)
    anew(film)
    assert not entries.exists()
