"""Programs, test files and modules that README and docs name exist.

`reelbank` commands of the pages are in tests/contracts/test_configs.py.
"""

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
# Pages of measurements keep programs that run, but name files as they were on their day.
MEASUREMENTS = [page for page in DOCS if page.parent.name == "measurements"]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in DOCS if page not in MEASUREMENTS),
]
OURS = {"encoders", "memory", "pipeline", "tests"}
CREATED = re.compile(r"\bCreate\s+`([\w/.]+)`")  # files that a guide has its reader write
NAMED = re.compile(r"`((?:encoders|memory|pipeline|conf|tests)/[\w/.-]+)`")


def programs(text: str) -> Iterator[tuple[str, list[str]]]:
    """(module, arguments) of each `python -m` line in the code blocks of a page."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"\bpython[\d.]* -m ([\w.]+)(.*)", line)
            if match:
                yield match[1], shlex.split(match[2], comments=True)


@pytest.mark.parametrize("page", PAGES + MEASUREMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    created = set(CREATED.findall(text))
    for module, arguments in programs(text):
        if module.partition(".")[0] in OURS:
            assert find_spec(module), f"python -m {module}"
        if module == "pytest":
            paths = [word for word in arguments if word.startswith("tests/")]
            missing = [path for path in paths if path not in created and not (ROOT / path).exists()]
            assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    created = set(CREATED.findall(text))
    named = [path for path in NAMED.findall(text) if path not in created]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_pages_name_programs() -> None:
    assert sum(1 for page in PAGES for _ in programs(page.read_text(encoding="utf-8"))) > 30


def test_no_line_installs_reelbank_by_its_name() -> None:
    """No index has it: a line installs the folder or a wheel, or adds extras that there are to a
    Reelbank that is installed (tests/packaging/test_wheel.py does that).
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = [path for name in OURS - {"tests"} for path in (ROOT / name).rglob("*.py")]
    installed = set[str]()
    for page in (*PAGES, *MEASUREMENTS, *modules):
        for line in re.findall(r"pip install[^`\n]*", page.read_text(encoding="utf-8")):
            assert not re.search(r"(^|[ '])reelbank($|[' =<>~])", line), f"{page}: {line}"
            for names in re.findall(r"(?:\.|reelbank)\[([\w,]+)\]", line):
                installed |= set(names.split(","))
    assert {"serve", "demo", "ray"} <= installed <= set(project["optional-dependencies"])
