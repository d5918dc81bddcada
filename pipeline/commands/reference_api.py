"""docs/reference/python-api.md from the source of the package reelbank/: signatures and docstrings.

Reads the files and imports none of them: the package stands above the commands.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

_ORDER = ("open", "Bank", "Stream", "Error")  # the others follow by name
_ERROR = "Bad input. Its text is one sentence: what is wrong, where, and what to do about it."


def api_page(package: Path) -> str:
    """The page as Markdown. package: the folder reelbank/."""
    init = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    names = _exported(init)
    definitions = dict(_definitions(package))
    first = sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else 9, name))
    lines = ["# Python API", "", *_text(ast.get_docstring(init)), ""]
    for name in first:
        lines += [f"## reelbank.{name}", ""]
        if name == "Error":
            lines += [_ERROR, ""]
            continue
        source, node = definitions[name]
        if isinstance(node, ast.FunctionDef):
            lines += _function(node, f"reelbank.{name}")
        else:
            lines += _class(node, source)
    return "\n".join(lines).rstrip() + "\n"


def _exported(init: ast.Module) -> list[str]:
    """The names in __all__."""
    for node in init.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError("reelbank/__init__.py has no __all__")


def _definitions(package: Path) -> Iterator[tuple[str, tuple[str, ast.ClassDef | ast.FunctionDef]]]:
    """Name -> text of its file, and the node, of every class and function."""
    for path in sorted(package.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name, (text, node)


def _class(node: ast.ClassDef, source: str) -> Iterator[str]:
    bases = [ast.unparse(base) for base in node.bases]
    if bases and bases[0] != "Sequence[Hit]":
        yield from (f"A `{bases[0]}` with more.", "")
    yield from (*_text(ast.get_docstring(node)), "")
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    if fields:
        yield from ("| field | type | meaning |", "|---|---|---|")
        for one in fields:
            remark = re.search(r"#\s*(.*)", source.splitlines()[one.lineno - 1])
            kind = ast.unparse(one.annotation).replace("|", "\\|")
            yield f"| `{ast.unparse(one.target)}` | `{kind}` | {remark[1] if remark else ''} |"
        yield ""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
            continue
        if any(ast.unparse(one) == "property" for one in method.decorator_list):
            kind = f": {ast.unparse(method.returns)}" if method.returns else ""
            yield from (f"### {node.name}.{method.name}", "", f"    {method.name}{kind}", "")
            yield from (*_text(ast.get_docstring(method)), "")
        else:
            yield f"### {node.name}.{method.name}"
            yield ""
            yield from _function(method, method.name)


def _function(node: ast.FunctionDef, name: str) -> Iterator[str]:
    """The signature as code, and the docstring."""
    arguments = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(arguments, ast.FunctionDef)
    arguments.args.args = [one for one in arguments.args.args if one.arg != "self"]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parts = _split(ast.unparse(arguments.args))
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) <= 88:
        yield f"    {line}"
    else:
        yield f"    {name}("
        yield from (f"        {part}," for part in parts)
        yield f"    ){returns}"
    yield from ("", *_text(ast.get_docstring(node)), "")


def _split(arguments: str) -> list[str]:
    """Arguments at the commas outside of brackets."""
    parts, depth, begin = [], 0, 0
    for at, letter in enumerate(arguments):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            parts.append(arguments[begin:at].strip())
            begin = at + 1
    return [part for part in (*parts, arguments[begin:].strip()) if part]


def _text(docstring: str | None) -> list[str]:
    """The docstring as Markdown: indented lines are code already."""
    return inspect.cleandoc(docstring or "").splitlines()
