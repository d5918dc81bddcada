"""The documentation: the site builds strictly and offline, and the README stays two pages long."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a browser would load from another host: scripts, styles, fonts, pictures, frames.
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\ssrc=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\srel=["']?(?:stylesheet|preconnect|icon|preload)[^>]*\shref=["']?(?:https?:)?//"""
    r"""|<link\b[^>]*\shref=["']?(?:https?:)?//[^>]*\srel=["']?(?:stylesheet|preconnect|icon|preload)"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//""",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The built site. `--strict`: a dead link, a dead anchor, or a page outside nav fails."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(folder),
    ]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert build.returncode == 0, build.stdout + build.stderr
    yield folder


def test_the_site_has_every_page(site: Path) -> None:
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")
    }
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    as_html = {page.parent / "index" if page.name == "README" else page for page in pages}
    assert len(pages) > 40
    assert as_html - built == set()


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 40
    foreign = [
        f"{path.relative_to(site)}: {match[0][:100]}"
        for path in files
        for match in FOREIGN.finditer(path.read_text(encoding="utf-8"))
    ]
    assert foreign == []


def test_the_search_for_other_hosts_finds_them() -> None:
    for text in (
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<link href="//fonts.example" rel=preconnect>',
        "@import url(https://fonts.example/x.css)",
    ):
        assert FOREIGN.search(text), text
    assert not FOREIGN.search('<a href="https://example.org">') and not FOREIGN.search(
        '<script src="../x.js">'
    )


def test_the_readme_is_short() -> None:
    data = (ROOT / "README.md").read_bytes()
    assert len(data.splitlines()) <= 250
    assert len(data) <= 15_000


def test_links_of_the_root_pages_lead_somewhere() -> None:
    """MkDocs checks the pages of docs/; this checks those beside it."""
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        missing = [
            target for target in targets if "://" not in target and not (ROOT / target).exists()
        ]
        assert missing == [], name
