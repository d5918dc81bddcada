"""What a command imports: the time before an answer is nearly all imports, so each has a limit.

Every command runs in a process of its own, with the embedded models, and then says what is loaded.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.compose import compose, options
from tests.support.paths import ROOT
from tests.support.videos import write_video

# loads a library of each line only where a line below allows it
HEAVY = frozenset(
    "torch numpy transformers open_clip timm torchvision faiss av hydra omegaconf yaml PIL rich "
    "pandas matplotlib pyarrow ray gradio fastapi uvicorn sklearn scipy sympy ftfy huggingface_hub "
    "torch._dynamo".split()
)
PROGRAM = """
import json, sys
from pipeline import cli
try:
    cli.main(sys.argv[2:])
except SystemExit as done:
    assert done.code == 0, done.code
open(sys.argv[1], "w").write(json.dumps(sorted(sys.modules)))
"""


def imported(out: Path, *arguments: str) -> set[str]:
    """The heavy libraries that a command leaves in sys.modules."""
    command = [sys.executable, "-c", PROGRAM, str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(out.read_text())) & HEAVY


@pytest.fixture(scope="module", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of this module alone: programs beside it push entries out of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_video(path, 3, 5)
    return path


@pytest.fixture(scope="module")
def bank(film: Path) -> Path:
    """Without rows of conse, whose texts need transformers."""
    folder = film.parent / "bank"
    line = ("ask", str(film), "What is the code?", f"bank={folder}", "clip=embedded")
    imported(film.parent / "out", *line)
    return folder


def test_help_imports_nothing(tmp_path):
    assert imported(tmp_path / "out", "--help") == set()
    assert imported(tmp_path / "out", "ask", "--help") == set()


@pytest.mark.slow  # three processes
def test_a_search_imports_torch_alone(bank, film, tmp_path):
    line = ("find", "query=a red star", f"bank={bank}")
    compose("find", [])  # Hydra composes once, and clip=auto looks at the options of conf/clip
    options("clip", {"backbone": {"device": "cpu"}})
    assert imported(tmp_path / "out", *line) <= {"torch", "numpy", "rich"}
    # the file tells which video is meant
    with_film = imported(tmp_path / "out", *line, f"video={film}")
    assert with_film <= {"torch", "numpy", "rich", "av"}


@pytest.mark.slow
def test_a_question_about_a_film_in_the_bank_imports_the_model_alone(bank, film, tmp_path):
    line = ("ask", str(film), "What is the name?", f"bank={bank}")
    imported(tmp_path / "out", *line)  # once on a machine: Hydra composes, timm lists its classes
    loaded = imported(tmp_path / "out", *line)
    # what transformers imports for any model, and no way around it
    of_transformers = {"torchvision", "sympy", "yaml", "PIL", "huggingface_hub", "torch._dynamo"}
    assert loaded <= {"torch", "numpy", "transformers", "av", "rich", *of_transformers}
