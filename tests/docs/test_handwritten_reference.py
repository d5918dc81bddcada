"""The hand-written reference pages name every route, metric, environment variable and file."""

import re
import tarfile
from pathlib import PurePosixPath

import pytest

from tests.support.paths import ROOT

REFERENCE = ROOT / "docs" / "reference"
SERVER = sorted((ROOT / "pipeline" / "server").rglob("*.py"))
BANKS = sorted((ROOT / "tests" / "data" / "banks_2649461").glob("*.tar.xz"))
METRIC = re.compile(r"\.(?:counter|gauge)\(\s*\"(\w+)\"|(?:Counter|Gauge|Histogram)\(\s*\"(\w+)\"")


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_http_page_lists_every_route() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SERVER)
    routes = {
        f"{method.upper()} {re.sub(r'{[^}]+}', 'ID', path)}"
        for method, path in re.findall(r"@app\.(get|post|put|delete)\(\"([^\"]+)\"", source)
    }
    listed = set(re.findall(r"`((?:GET|POST|PUT|DELETE) [^`?]+)`", page("http-api.md")))
    assert len(routes) > 8 and listed == routes


def test_the_http_page_lists_every_metric() -> None:
    source = (ROOT / "pipeline" / "server" / "metrics.py").read_text(encoding="utf-8")
    source += (ROOT / "pipeline" / "server" / "app.py").read_text(encoding="utf-8")
    metrics = {f"{first or second}" for first, second in METRIC.findall(source)}
    listed = set(re.findall(r"`(reelbank_\w+)`", page("http-api.md")))
    listed = {name.removeprefix("reelbank_") for name in listed}
    tiers = {name for name in listed if re.fullmatch(r"memory_\w+_bytes", name)}
    assert len(metrics) > 5
    assert {name.removeprefix("reelbank_") for name in metrics} - tiers == listed - tiers


def test_the_files_page_lists_every_environment_variable() -> None:
    folders = ("encoders", "memory", "pipeline", "tests")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    used = set(re.findall(r"\"(REELBANK_[A-Z_]+)\"", source))
    assert used and used == set(re.findall(r"`(REELBANK_[A-Z_]+)`", page("files.md")))


@pytest.mark.parametrize("archive", BANKS, ids=lambda path: path.stem)
def test_the_files_page_lists_every_file_of_a_bank(archive) -> None:
    section = page("files.md").split("## In a bank")[1].split("\n## ")[0]
    names = {"VIDEO": "[0-9a-f]+(?:[-.].*)?", "EXTRACTOR": r"\w+", "NUMBER": r"\d{6}"}
    names |= {"SEAL": "[0-9a-f]+"}
    patterns = [
        re.compile("".join(names.get(word, re.escape(word)) for word in re.split(r"(\w+)", cell)))
        for line in section.splitlines()
        if line.startswith("| `")
        for cell in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    with tarfile.open(archive) as tar:
        files = [PurePosixPath(member.name) for member in tar.getmembers() if member.isfile()]
    root = next(file.parent for file in files if file.name == "bank.json")
    for file in files:
        relative = file.relative_to(root)
        paths = [str(relative), *map(str, relative.parents)]  # a cache is listed as a folder
        assert any(one.fullmatch(path) for one in patterns for path in paths), relative
