"""Uploads whose container makes a reader fail in its own way are told in one sentence, not kept."""

from pathlib import Path

import av
import pytest

from encoders.errors import FileError, UserError
from pipeline.server.files import FileStore
from tests.support.videos import write_video

ERRORS = [
    av.ArgumentError(22, "Invalid argument", "/srv/files/a"),
    av.InvalidDataError(1094995529, "Invalid data found", "/srv/files/a"),
    av.FileNotFoundError(2, "No such file", "/srv/files/a"),
    IndexError("list index out of range"),
    ZeroDivisionError("division by zero"),
    ValueError("an odd value"),
    OverflowError("too large"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 2, 5)
    return path.read_bytes()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_reader_raises_is_told_without_the_servers_paths(data, tmp_path, error):
    def check(path: Path) -> float:
        raise error

    store = FileStore(tmp_path, check, file_bytes=10**7, total_bytes=10**8)
    with pytest.raises(UserError, match=r"^my film\.mp4 cannot be read as a video$"):
        store.put([data], "my film.mp4", "user_data")
    assert list(tmp_path.iterdir()) == [] and store.all() == []


def test_the_sentence_of_a_reader_is_kept(data, tmp_path):
    def check(path: Path) -> float:
        raise FileError(path, "holds only sound")

    store = FileStore(tmp_path, check, file_bytes=10**7, total_bytes=10**8)
    with pytest.raises(UserError, match=r"^a\.mp4 holds only sound$"):
        store.put([data], "a.mp4", "user_data")


def test_a_full_disk_is_no_fault_of_the_film(data, tmp_path):
    def check(path: Path) -> float:
        raise OSError(28, "No space left on device")

    store = FileStore(tmp_path, check, file_bytes=10**7, total_bytes=10**8)
    with pytest.raises(OSError, match="No space left"):
        store.put([data], "a.mp4", "user_data")
