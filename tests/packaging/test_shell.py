"""The project shell: pins, CI, and the import of torchvision beside any torch."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from tests.support.project import CORE, EXTRAS, requirements_of

# what torch brings along in other builds than the pinned one
FOREIGN_BUILD = re.compile(r"nvidia-|cuda-|triton")


def pins() -> dict[str, str]:
    """Name -> version of every line of constraints.txt; anything but an exact pin fails."""
    lines = [
        line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()
    ]
    found: dict[str, str] = {}
    for line in filter(None, lines):
        name, equals, version = line.partition("==")
        assert equals and re.fullmatch(r"[\w.]+", version), f"not an exact pin: {line}"
        assert canonicalize_name(name) not in found, f"pinned twice: {name}"
        found[canonicalize_name(name)] = version
    return found


EVERY = {
    str(one): one for one in [*CORE, *(one for name in EXTRAS for one in requirements_of(name))]
}


@pytest.mark.parametrize("requirement", EVERY.values(), ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version, f"{requirement.name} has no pin in constraints.txt"
    assert requirement.specifier.contains(version), f"{requirement} excludes its own pin {version}"


def test_everything_behind_the_dependencies_is_pinned() -> None:
    pinned, seen = pins(), set()
    todo = [*CORE, *requirements_of("dev")]
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name in seen or FOREIGN_BUILD.match(name):
            continue
        seen.add(name)
        for text in importlib.metadata.requires(name) or ():
            behind = Requirement(text)
            if behind.marker is None or behind.marker.evaluate({"extra": ""}):
                todo.append(behind)
    assert len(seen) > 40, "the walk through the installed packages found next to nothing"
    assert sorted(seen - pinned.keys()) == []


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    commands = [
        line
        for line in script.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert commands == ["make test"]
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"


def run(code: str) -> str:
    """What a fresh interpreter prints; importing torch takes it two seconds."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# An interpreter where no torchvision build registers anything and some operators exist. It prints
# every declaration.
DECLARE = """
import torch
def foreign(path): raise OSError("built for another torch")
torch.ops.load_library = foreign
library = torch.library.Library("torchvision", "FRAGMENT")
for name in {present}:
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
define = torch.library.Library.define
def record(self, schema, *args, **kwargs):
    print(schema.partition("(")[0])
    return define(self, schema, *args, **kwargs)
torch.library.Library.define = record
from encoders.models import torchvision_ops
assert all(hasattr(torch.ops.torchvision, name) for name in ("nms", "qnms"))
assert torchvision_ops.declare_missing() == []  # what is declared is not declared again
"""


@pytest.mark.parametrize(
    ("present", "declared"),
    [
        pytest.param([], ["nms", "qnms"], marks=pytest.mark.slow, id="none"),
        pytest.param(["nms"], ["qnms"], id="one"),
        pytest.param(["nms", "qnms"], [], marks=pytest.mark.slow, id="both"),
    ],
)
def test_only_missing_operators_are_declared(present: list[str], declared: list[str]) -> None:
    assert run(DECLARE.format(present=present)).split() == declared


@pytest.mark.slow  # seconds of CPU
def test_torchvision_imports_after_the_operators() -> None:
    code = "import encoders.models.torchvision_ops, torchvision; print(torchvision.__version__)"
    assert run(code).startswith(pins()["torchvision"])
