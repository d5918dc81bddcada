"""Measures the shape of a checkout: widths, lengths, circles, types, names. Prints Markdown.

    python -m tests.measure.structure [CHECKOUT [LATER_CHECKOUT]]

One folder prints its numbers (default: this checkout). Two folders print before and after side by
side. The program parses the files and imports none of them, so it can measure any commit.
"""

import argparse
import ast
import re
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support import measurement_page
from tests.support.paths import ROOT

# whose classes, functions, types and names are measured
PACKAGES = ("encoders", "memory", "pipeline", "reelbank")
FOLDERS = (*PACKAGES, "conf", "tests")  # whose files and lines are counted
LONG_FUNCTION = 50  # lines
LONG_LINE = 100  # characters
LONG_SENTENCE = 25  # words
PARTICIPLES = frozenset(
    "told found made held seen known asked wanted given shown kept gone used".split()
)


def _ranks() -> dict[str, int]:
    """Unit -> rank of its layer, 0 for the highest, from the import contract in pyproject.toml."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    contract, *_ = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    layers = contract["layers"]
    return {unit: -rank for rank, line in enumerate(layers) for unit in line.split(" | ")}


# A module may import modules of lower layers and of its own unit.
RANKS = _ranks()

Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Module:
    """One parsed file."""

    name: str  # dotted, such as memory.bank
    path: Path  # below the checkout
    text: str
    tree: ast.Module


class Checkout:
    """The parsed Python files of one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]

    @cached_property
    def modules(self) -> list[Module]:
        """The modules of the four packages."""
        modules = []
        for path in self.files:
            relative = path.relative_to(self.root)
            if relative.parts[0] in PACKAGES:
                name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                text = path.read_text(encoding="utf-8")
                modules.append(Module(name, relative, text, ast.parse(text)))
        return modules

    @cached_property
    def functions(self) -> list[tuple[int, str]]:
        """(lines, name) of every function and method, longest first. Decorators do not count."""
        sizes = [
            (_lines_of(node), f"{module.path}:{name}")
            for module in self.modules
            for name, node in scopes(module.tree)
            if isinstance(node, Function)
        ]
        return sorted(sizes, key=lambda one: (-one[0], one[1]))

    @cached_property
    def classes(self) -> list[tuple[int, str]]:
        """(public methods and properties, name) of every class, widest first. Inherited ones do not
        count.
        """
        widths = [
            (
                sum(
                    isinstance(one, Function) and not one.name.startswith("_") for one in node.body
                ),
                f"{module.path}:{name}",
            )
            for module in self.modules
            for name, node in scopes(module.tree)
            if isinstance(node, ast.ClassDef)
        ]
        return sorted(widths, key=lambda one: (-one[0], one[1]))

    def graph(self, *, everywhere: bool) -> Graph:
        """Who imports whom. everywhere: also inside functions and under TYPE_CHECKING."""
        names = {module.name for module in self.modules}
        return {
            module.name: set(_imports(module, names, everywhere=everywhere))
            for module in self.modules
        }

    def loose_files(self) -> Counter[str]:
        """Python files that lie directly in each folder; an empty __init__.py does not count."""
        files = (path for path in self.files if path.name != "__init__.py" or path.stat().st_size)
        return Counter(str(path.parent.relative_to(self.root)) for path in files)

    def sentences(self) -> list[int]:
        """Words of every sentence in docstrings."""
        nodes = (
            node
            for module in self.modules
            for node in (module.tree, *(node for _, node in scopes(module.tree)))
        )
        texts = (ast.get_docstring(node) or "" for node in nodes)
        return [len(sentence.split()) for text in texts for sentence in _sentences(text)]


def scopes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every class and function below a node, with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield prefix + node.name, node
            yield from scopes(node, f"{prefix}{node.name}.")
        else:
            yield from scopes(node, prefix)


def _lines_of(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _sentences(text: str) -> Iterator[str]:
    """Sentences of prose. Blocks that are indented, or that look like a table or a command, are
    left out.
    """
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if lines and not any(line.startswith((" ", "\t", "|")) for line in lines):
            yield from (
                part
                for part in re.split(r"(?<=[.!?;:])\s+(?=[A-Z])", " ".join(lines))
                if part.strip()
            )


def _imports(module: Module, names: set[str], *, everywhere: bool) -> Iterator[str]:
    """Modules of ours that a module imports by name."""
    for node in ast.walk(module.tree) if everywhere else _at_import(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            while target and target not in names:  # a name inside a module: the module
                target = target.rpartition(".")[0]
            if target and target != module.name:
                yield target


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = (
        module.name.split(".") if module.path.name == "__init__.py" else module.name.split(".")[:-1]
    )
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (each for other in node.orelse for each in (other, *_at_import(other)))
            continue
        yield node
        yield from _at_import(node)


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan 1972), largest first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                components.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(components, key=lambda circle: (-len(circle), circle))


def upward(graph: Graph) -> list[str]:
    """Imports of a higher layer or of a sibling unit, as "importer -> imported"."""
    arrows = []
    for name, targets in graph.items():
        for target in sorted(targets):
            above, below = unit_of(name), unit_of(target)
            if above and below and above != below and RANKS[below] >= RANKS[above]:
                arrows.append(f"{name} -> {target}")
    return arrows


def unit_of(name: str) -> str | None:
    """The unit of the contract that a module belongs to; None for a module that no layer names."""
    unit = ".".join(name.split(".")[:2])
    return unit if unit in RANKS else None


def signatures(checkout: Checkout) -> tuple[int, int, int]:
    """Three counts of `Any`: in annotations of parameters and returns, as the whole of such an
    annotation, and as the whole annotation of a field.
    """
    total = bare = fields = 0
    for module in checkout.modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                own = node.args
                parameters = [
                    *own.posonlyargs,
                    *own.args,
                    *own.kwonlyargs,
                    *filter(None, [own.vararg, own.kwarg]),
                ]
                hints = [
                    hint
                    for hint in (*(one.annotation for one in parameters), node.returns)
                    if hint is not None
                ]
                total += sum(map(_anys, hints))
                bare += sum(_is_bare(hint) for hint in hints)
            elif isinstance(node, ast.ClassDef):
                fields += sum(
                    _is_bare(one.annotation) for one in node.body if isinstance(one, ast.AnnAssign)
                )
    return total, bare, fields


def _anys(hint: ast.expr) -> int:
    """Quoted annotations are read as well."""
    count = 0
    for node in ast.walk(hint):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            count += len(re.findall(r"\bAny\b", node.value))
        count += (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        )
    return count


def _is_bare(hint: ast.expr) -> bool:
    return ast.unparse(hint).strip("'\"") in ("Any", "Any | None", "None | Any", "typing.Any")


def participles(checkout: Checkout) -> Counter[tuple[str, str]]:
    """(kind, word) of every name that is a bare participle, counted once in each scope.

    Kinds are module, class, function, field, parameter and variable. A leading underscore and upper
    case make no difference.
    """
    bindings = set[tuple[str, str, str, str]]()
    for module in checkout.modules:
        bindings.add((module.name, "", "module", module.name.rpartition(".")[2]))
        for scope, node in [("", module.tree), *scopes(module.tree)]:
            own = "field" if isinstance(node, ast.ClassDef) else "variable"
            bindings |= {(module.name, scope, kind, name) for kind, name in _bound(node, own)}
    plain = [(kind, name.strip("_").lower()) for _, _, kind, name in bindings]
    return Counter((kind, word) for kind, word in plain if word in PARTICIPLES)


def _bound(scope: ast.AST, own: str) -> Iterator[tuple[str, str]]:
    """(kind, name) of what a scope binds, without the scopes inside it. own: the kind of its plain
    names.
    """
    if isinstance(scope, Function):
        yield from (
            ("parameter", node.arg) for node in ast.walk(scope.args) if isinstance(node, ast.arg)
        )
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        if isinstance(node, Function | ast.ClassDef):
            yield ("class" if isinstance(node, ast.ClassDef) else "function"), node.name
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield own, node.id
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield "field", node.attr
        todo.extend(ast.iter_child_nodes(node))


Number = tuple[str, Callable[[Checkout], str]]


def _readme(checkout: Checkout) -> bytes:
    path = checkout.root / "README.md"
    return path.read_bytes() if path.exists() else b""


def _circles(checkout: Checkout, *, everywhere: bool) -> str:
    components = circles(checkout.graph(everywhere=everywhere))
    return f"{len(components)}" + (
        f" ({' + '.join(str(len(one)) for one in components)} modules)" if components else ""
    )


def _upward(checkout: Checkout) -> str:
    if not (checkout.root / "memory" / "storage").is_dir():
        return "no layers yet"
    outside = sum(
        unit_of(module.name) is None and "." in module.name for module in checkout.modules
    )
    return f"{len(upward(checkout.graph(everywhere=True)))}" + (
        f" ({outside} modules in no layer)" if outside else ""
    )


def _long_lines(checkout: Checkout, *, tests: bool) -> str:
    files = [
        path
        for path in checkout.files
        if (path.relative_to(checkout.root).parts[0] == "tests") == tests
    ]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return f"{sum(len(line) > LONG_LINE for line in lines):,} of {len(lines):,}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100 * part / max(whole, 1):.0f} %)"


def _docstrings(checkout: Checkout) -> str:
    modules = [module for module in checkout.modules if module.text.strip()]
    return _share(
        sum(ast.get_docstring(module.tree) is not None for module in modules), len(modules)
    )


def _long_sentences(checkout: Checkout) -> str:
    words = checkout.sentences()
    return _share(sum(count > LONG_SENTENCE for count in words), len(words))


NUMBERS: list[Number] = [
    ("README lines", lambda one: f"{len(_readme(one).splitlines()):,}"),
    ("README bytes", lambda one: f"{len(_readme(one)):,}"),
    ("modules (encoders, memory, pipeline, reelbank)", lambda one: f"{len(one.modules)}"),
    (
        "most loose files in a folder",
        lambda one: "{1} ({0})".format(*one.loose_files().most_common(1)[0]),
    ),
    (
        "folders with more than 12 loose files",
        lambda one: f"{sum(count > 12 for count in one.loose_files().values())}",
    ),
    ("public methods of the widest class", lambda one: f"{one.classes[0][0]}"),
    (
        "classes with more than 15 public methods",
        lambda one: f"{sum(width > 15 for width, _ in one.classes)}",
    ),
    (
        "function lines, median",
        lambda one: f"{statistics.median(lines for lines, _ in one.functions):g}",
    ),
    (
        f"functions over {LONG_FUNCTION} lines",
        lambda one: f"{sum(lines > LONG_FUNCTION for lines, _ in one.functions)}",
    ),
    ("`Any` in parameters and returns", lambda one: f"{signatures(one)[0]}"),
    ("parameters and returns that are just `Any`", lambda one: f"{signatures(one)[1]}"),
    ("fields that are just `Any`", lambda one: f"{signatures(one)[2]}"),
    ("import circles when modules load", lambda one: _circles(one, everywhere=False)),
    ("import circles, also in functions and for types", lambda one: _circles(one, everywhere=True)),
    ("imports upwards", _upward),
    (f"lines over {LONG_LINE} characters, source", lambda one: _long_lines(one, tests=False)),
    (f"lines over {LONG_LINE} characters, tests", lambda one: _long_lines(one, tests=True)),
    ("modules with a docstring", _docstrings),
    ("names that are bare participles", lambda one: f"{participles(one).total()}"),
    (f"docstring sentences over {LONG_SENTENCE} words", _long_sentences),
]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return (
        "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))
        + "\n"
    )


def _ranking(title: str, columns: list[list[tuple[int, str]]], heads: list[str]) -> str:
    """A table of (number, name), each checkout with a ranking of its own."""
    rows = [
        [f"{column[i][0]} `{column[i][1]}`" if i < len(column) else "" for column in columns]
        for i in range(max(map(len, columns)))
    ]
    return f"## {title}\n\n" + (_table(heads, rows) if rows else "None.\n")


def page(checkouts: list[Checkout]) -> str:
    """The Markdown of one checkout, or of two side by side."""
    heads = ["now"] if len(checkouts) == 1 else ["before", "after"]
    numbers = _table(
        ["", *heads], [[label, *(measure(one) for one in checkouts)] for label, measure in NUMBERS]
    )
    counts = [one.loose_files() for one in checkouts]
    folders = [
        [f"`{name}/`", *(str(count[name] or "") for count in counts)]
        for name in sorted({name for c in counts for name in c})
    ]
    words = [participles(one) for one in checkouts]
    by_kind = [
        [
            kind,
            *(
                _spelled({word: n for (other, word), n in count.items() if other == kind})
                for count in words
            ),
        ]
        for kind in ("module", "class", "function", "field", "parameter", "variable")
    ]
    lists = [
        [
            " <-> ".join(circle),
            " and ".join(head for head, has in zip(heads, where, strict=True) if has),
        ]
        for circle, where in _merged([circles(one.graph(everywhere=True)) for one in checkouts])
    ]
    arrows = [
        upward(one.graph(everywhere=True)) if (one.root / "memory" / "storage").is_dir() else []
        for one in checkouts
    ]
    parts = [
        "# The shape of the code\n\n"
        + "".join(
            f"- {head}: {measurement_page.commit(one.root)}\n"
            for head, one in zip(heads, checkouts, strict=True)
        ),
        numbers,
        f"## Files that lie loose in a folder\n\n{_table(['folder', *heads], folders)}",
        _ranking(
            "Public methods of the five widest classes",
            [one.classes[:5] for one in checkouts],
            heads,
        ),
        _ranking(
            f"Functions over {LONG_FUNCTION} lines",
            [
                [(lines, name) for lines, name in one.functions if lines > LONG_FUNCTION]
                for one in checkouts
            ],
            heads,
        ),
        "## Import circles\n\n" + (_table(["circle", "in"], lists) if lists else "None.\n"),
        f"## Names that are bare participles\n\n{_table(['kind', *heads], by_kind)}",
    ]
    if arrows[-1]:
        parts.append("## Imports upwards\n\n" + "".join(f"- {arrow}\n" for arrow in arrows[-1]))
    return "\n".join(parts)


def _spelled(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return "0"
    return f"{total}: " + ", ".join(
        f"{word} {n}" for word, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    )


def _merged(columns: list[list[list[str]]]) -> list[tuple[list[str], list[bool]]]:
    unique = {tuple(circle): circle for column in columns for circle in column}
    return [(circle, [circle in column for column in columns]) for circle in unique.values()]


def report(arguments: argparse.Namespace) -> int:
    """Print the numbers of one or two checkouts; 2 for more of them."""
    folders: list[Path] = arguments.checkouts or [ROOT]
    if len(folders) > 2:
        print("structure: give one folder or two", file=sys.stderr)
        return 2
    print(page([Checkout(folder) for folder in folders]))
    return 0


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "checkouts", nargs="*", type=Path, help="one folder, or two: before and after"
    )
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
