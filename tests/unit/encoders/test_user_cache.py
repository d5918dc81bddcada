"""The folder in the user's cache: where it is, and users who have none."""

from pathlib import Path

import pytest

from encoders.sources import record_cache
from encoders.user_cache import user_cache
from pipeline.config import compose_cache


def test_an_absolute_folder_counts_and_a_relative_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert user_cache("films") == tmp_path / "own" / "reelbank" / "films"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert user_cache("films") == tmp_path / ".cache" / "reelbank" / "films"


def test_a_user_without_a_home_has_no_cache_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `docker run --user 12345`, whose user stands in no list."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**30)
    film = tmp_path / "film.mp4"
    film.write_bytes(b"x")
    with pytest.raises(OSError, match="no home folder"):
        user_cache("films")
    cache = record_cache.RecordCache((), "1")
    cache.write(film, 1)
    assert cache.read(film) is None and compose_cache.ComposeCache().get(["key"]) is None
