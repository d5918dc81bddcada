"""The shape of the repository: how wide folders and classes are, how things are named, and that
tests import no other tests.

`python -m tests.measure.structure` prints the numbers behind these limits.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.measure.structure import Checkout, Module, scopes
from tests.support.paths import ROOT

FILES_IN_A_FOLDER = 12
PUBLIC_METHODS = 15  # with properties, without inherited ones
# Folders that hold more files of one kind, with the number that they have. Lower a number when a
# folder shrinks; do not raise one.
WIDE_FOLDERS = {
    "pipeline/batch": 13,
    "pipeline/server": 13,
}
PARTICIPLES = frozenset(
    "told found made held seen known asked wanted given shown kept gone".split()
)
FOLDERS_OF_TESTS = frozenset("laws contracts unit commands docs packaging".split())


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    return Checkout(ROOT)


def test_no_folder_is_wide(checkout: Checkout) -> None:
    files = [module.path for module in checkout.modules if module.path.name != "__init__.py"]
    counts = {str(path.parent): 0 for path in files}
    for path in files:
        counts[str(path.parent)] += 1
    assert len(counts) > 20
    wide = {
        folder: count
        for folder, count in counts.items()
        if count > WIDE_FOLDERS.get(folder, FILES_IN_A_FOLDER)
    }
    assert wide == {}, f"split what has more than {FILES_IN_A_FOLDER} files"


def test_no_class_is_wide(checkout: Checkout) -> None:
    assert len(checkout.classes) > 200
    wide = [f"{name} has {width}" for width, name in checkout.classes if width > PUBLIC_METHODS]
    assert wide == [], f"more than {PUBLIC_METHODS} public methods"


def definitions(module: Module) -> Iterator[str]:
    """The module's own name and the name of every class and function in it."""
    yield module.name.rpartition(".")[2]
    yield from (node.name for _, node in scopes(module.tree))


def test_no_name_is_a_bare_participle(checkout: Checkout) -> None:
    bare = {
        f"{module.path}: {name}"
        for module in checkout.modules
        for name in definitions(module)
        if name.strip("_").lower() in PARTICIPLES
    }
    assert bare == set(), "name the thing, not what happened to it"


def test_tests_import_no_other_tests() -> None:
    """Helpers live in tests/support, fixtures in a conftest.py."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert len(files) > 100
    imports = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith("tests.") and name.split(".")[1] in FOLDERS_OF_TESTS
    ]
    assert imports == []


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a file imports; a relative import counts as one of a test."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "tests.unit" if node.level else node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "line",
    [
        "from tests.laws.test_1_exact import check",
        "from tests.unit import memory",
        "import tests.commands.test_cli",
        "from .test_cli import run",
    ],
)
def test_the_search_for_imports_finds_them(line: str) -> None:
    (name,) = imported(ast.parse(line))
    assert name.split(".")[1] in FOLDERS_OF_TESTS
