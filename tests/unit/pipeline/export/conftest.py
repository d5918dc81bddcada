"""A film that the tests of clips share."""

from pathlib import Path

import pytest

from tests.support.full_film import write_full


@pytest.fixture(scope="package")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with sound, subtitles and colours; no test may change it."""
    path = tmp_path_factory.mktemp("clip") / "film.mkv"
    write_full(path)
    return path
