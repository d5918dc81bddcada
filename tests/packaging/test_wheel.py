"""The wheel: its files, and that it answers in an environment of its own, in an empty folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import CLIPS, ROOT
from tests.support.videos import write_video
from tests.support.wheels import EPOCH, PACKAGES, Environment, build_wheel, copy_tree

# kept beside the weights for whoever trains them again
LEFT_OUT = {
    f"pipeline/embedded/weights/{name}"
    for name in ("curves.png", "clip.csv", "lm.csv", "tower.csv")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_tree(folder / "tree"), folder)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel alone, over the libraries of the tests' own environment."""
    made = Environment(tmp_path_factory.mktemp("environment") / "venv")
    done = made.pip("--no-deps", "--no-index", str(wheel))
    assert done.returncode == 0, done.stderr
    made.borrow_libraries()
    return made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A real clip where there is one; its name has a blank."""
    path = tmp_path / "my film.mp4"
    if (CLIPS / "dog.mp4").is_file():
        path.symlink_to(CLIPS / "dog.mp4")
    else:
        write_video(path, 6)
    return path


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = {name for name in names_in(wheel) if ".dist-info/" not in name}
    tree = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tree >= LEFT_OUT
    assert names == tree - LEFT_OUT
    for wanted in (
        "conf/ask.yaml",
        "conf/backbone/qwen3_vl_2b.yaml",
        "pipeline/embedded/weights/clip/open_clip_model.safetensors",
        "pipeline/embedded/weights/video_llm/tokenizer.json",
        "pipeline/server/page/assets/index.html",
        "pipeline/server/page/assets/common.js",
        "pipeline/server/page/assets/begin.js",
        "pipeline/py.typed",
        "encoders/py.typed",
        "memory/py.typed",
    ):
        assert wanted in names
    assert 20e6 < wheel.stat().st_size < 60e6


@pytest.mark.slow
def test_the_wheel_of_a_tree_is_always_the_same(wheel: Path, tmp_path: Path) -> None:
    """By way of the sdist, and beside the leftovers of an earlier build."""
    tree = copy_tree(tmp_path / "tree")
    (tree / "encoders" / "__pycache__").mkdir()
    (tree / "encoders" / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"old")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(tree)],
        env={"PATH": "/usr/bin:/bin", **EPOCH},
        check=True,
        capture_output=True,
        timeout=300,
    )
    (again,) = tmp_path.glob("*.whl")
    assert names_in(again) == names_in(wheel)
    assert again.read_bytes() == wheel.read_bytes()
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.stat().st_size < 60e6


# every module of ours that the command imports, where it comes from
WHERE = """
import sys
from pipeline.cli import main
try:
    main(sys.argv[1:])
finally:
    ours = ("conf", "encoders", "memory", "pipeline", "reelbank")
    for name, module in sys.modules.items():
        if name.split(".")[0] in ours and getattr(module, "__file__", None):
            print("FROM", module.__file__)
"""


@pytest.mark.slow
def test_the_wheel_answers_from_an_empty_folder(
    environment: Environment, film: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    helped = environment.run("reelbank", "--help", cwd=empty)
    assert helped.returncode == 0 and "ask" in helped.stdout, helped.stderr
    ask = ["ask", str(film), "What is the code on the card?"]
    asked = environment.run("python", "-c", WHERE, *ask, cwd=empty)
    assert asked.returncode == 0, asked.stderr
    answer, *lines = asked.stdout.splitlines()
    assert answer == "not in the video"
    files = [line.removeprefix("FROM ") for line in lines if line.startswith("FROM ")]
    assert len(files) > 80 and all(file.startswith(str(environment.site)) for file in files)
    found = environment.run("reelbank", "find", str(film), "a dog", cwd=empty)
    assert found.returncode == 0 and "picture" in found.stdout, found.stderr
    assert list(empty.iterdir()) == []
    assert (environment.folder / "data" / "reelbank" / "bank.json").is_file()
    checked = environment.run("reelbank", "doctor", cwd=empty)
    assert checked.returncode == 0, checked.stdout
    api = (
        "import sys, reelbank\n"
        "with reelbank.open(sys.argv[1]) as bank:\n"
        "    print(len(bank.find('a dog', k=3)))"
    )
    bank = str(environment.folder / "data" / "reelbank")
    library = environment.run("python", "-c", api, bank, cwd=empty)
    assert library.returncode == 0 and int(library.stdout) > 0, library.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_wheel_installs_into_a_bare_environment(
    wheel: Path, film: Path, tmp_path: Path
) -> None:
    """With all that it needs from the index, and then one extra by the line that errors print."""
    bare = Environment(tmp_path / "venv")
    pins = str(ROOT / "constraints.txt")
    torch = next(line for line in Path(pins).read_text().splitlines() if line.startswith("torch=="))
    done = bare.pip("-c", pins, torch, str(wheel), timeout=1200)
    if done.returncode and ("No matching distribution" in done.stderr or "onnect" in done.stderr):
        pytest.skip("no index is in reach")
    assert done.returncode == 0, done.stderr
    for absent in ("decord", "matplotlib", "pyarrow", "gradio", "fastapi", "ray"):
        assert not (bare.site / absent).exists(), f"{absent} came along"
    found = bare.run("reelbank", "find", str(film), "a dog")
    assert found.returncode == 0 and "picture" in found.stdout, found.stderr
    asked = bare.run("reelbank", "ask", str(film), "What is the code on the card?")
    assert asked.returncode == 0 and "not in the video" in asked.stdout, asked.stderr
    served = bare.run("reelbank", "serve", "--port", "0")
    assert served.returncode == 2 and "pip install 'reelbank[serve]'" in served.stderr
    added = bare.pip("-c", pins, "reelbank[bench]")
    assert added.returncode == 0 and (bare.site / "matplotlib").is_dir(), added.stderr
