"""Whether two commits write the same banks and open one another's.

    python -m tests.measure.old_banks make OUT [--checkout DIR]
    python -m tests.measure.old_banks compare OUT OTHER
    python -m tests.measure.old_banks open OUT [--checkout DIR]
    python -m tests.measure.old_banks pack OUT FOLDER
    python -m tests.measure.old_banks cite FOLDER

`make` writes one small bank of every kind (tests/support/old_banks.py), and its answers, with the
code in DIR. `compare` checks that two such folders have the same bytes, file by file, and the same
answers. `open` checks that the code in DIR gives the same answers from copies of the banks. `pack`
writes the fixture of tests/laws/test_5_old_banks.py. `cite` stores which spans today's code cites
in that fixture, for a change of the rule of citations, and changes nothing else in it.

DIR is this checkout by default. The exit code is 1 if anything differs. `--kinds plain int8` limits
an action to these kinds.

`compare` takes every byte of every file, with two exceptions. Of catalog.sqlite it takes the rows
of all tables and the revision, because SQLite's pages depend on its version and on the text of the
schema. It skips writer.lock, which holds a process id. `compare` and `open` leave out the seconds
of each stage.
"""

import argparse
import contextlib
import hashlib
import io
import json
import lzma
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.support import measurement_page, old_banks
from tests.support.old_banks import RECIPES, ROOT, command_line

_MACHINE = (b"/work", b"/tmp", b"/home", b"/root", b"/var")  # what a fixture must not hold
_TIME = 1_700_000_000  # Unix seconds of every file; 0 would say that a bank has no vectors


def make(out: Path, checkout: Path, kinds: list[str]) -> int:
    """Make the banks and question them. FileExistsError when OUT has some."""
    out.mkdir(parents=True)
    old_banks.put_film(out)
    answers: dict[str, Any] = {}
    with command_line(checkout) as line:
        for name in kinds:
            replies = old_banks.make(line, out, name)
            files = contents(
                out / name
            )  # asking writes nothing but search rows, which are files too
            answers[name] = replies | old_banks.inspect(line, out, name)
            changes = sum(contents(out / name).get(file) != value for file, value in files.items())
            print(
                f"{name}: {len(files)} files, {_size(out / name):,} bytes, {changes} changed by "
                "asking",
                flush=True,
            )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True
    )
    text = json.dumps({"commit": commit.stdout.strip(), "kinds": answers}, indent=1)
    (out / "answers.json").write_text(text + "\n", encoding="utf-8")
    return 0


def compare(out: Path, other: Path, kinds: list[str]) -> int:
    """Banks of two commits, file by file, and what each commit answered from its own."""
    wrong = 0
    for name in kinds:
        before, after = contents(out / name), contents(other / name)
        lines = [file for file in sorted({*before, *after}) if before.get(file) != after.get(file)]
        lines += differences(read_answers(out)[name], read_answers(other)[name])
        wrong += _report(name, f"{len(before)} files and all answers are equal", lines)
    return int(wrong > 0)


def reopen(out: Path, checkout: Path, kinds: list[str]) -> int:
    """Question copies of the banks with the code of a checkout. Encoding must find no work."""
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary, command_line(checkout) as line:
        folder = Path(temporary)
        old_banks.put_film(folder)
        for name in kinds:
            shutil.copytree(out / name, folder / name)
            files = contents(folder / name)
            before = read_answers(out)[name]
            lines = differences(
                {key: before[key] for key in _KEYS}, old_banks.inspect(line, folder, name)
            )
            again = old_banks.ingest(line, folder, name)
            expected = before["ingest"] | {"new_segments": 0, "nbytes": 0}
            if "after 0" not in before:  # else there are fewer segments
                lines += differences(expected, again, "ingest again")
            later = contents(folder / name)
            lines += [f"{file} changed" for file in files if files[file] != later.get(file)]
            wrong += _report(name, "all answers are equal, and nothing is encoded again", lines)
    return int(wrong > 0)


_KEYS = ("ask", "find", "ls", "segments", "verify")


def pack(out: Path, folder: Path, kinds: list[str]) -> int:
    """Write the banks of the fixture as NAME.tar.xz, and answers.json. ValueError if a bank holds a
    path of this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [name for name in kinds if RECIPES[name].packed]
    for name in kinds:
        (folder / f"{name}.tar.xz").write_bytes(lzma.compress(_archive(out, name), preset=9))
    answers = json.loads((out / "answers.json").read_text(encoding="utf-8"))
    answers["kinds"] = {name: answers["kinds"][name] for name in kinds}
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    print(f"{len(kinds)} banks, {_size(folder):,} bytes in {folder}")
    return 0


def cite(folder: Path, kinds: list[str]) -> int:
    """Ask the packed banks, and put the cited spans into answers.json. 1, and nothing is written,
    if an answer has another text or cites where none was cited before.
    """
    path = folder / "answers.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary, command_line() as line:
        old_banks.put_film(Path(temporary))
        for name in (name for name in kinds if RECIPES[name].packed):
            old_banks.unpack(Path(temporary), name)
            lines, changes = [], 0
            answers = old_banks.ask(line, Path(temporary), name)
            for before, now in zip(stored["kinds"][name]["ask"], answers, strict=True):
                lines += differences(before["text"], now["text"], before["question"])
                if bool(before["spans"]) != bool(now["spans"]):
                    lines += differences(before["spans"], now["spans"], before["question"])
                changes += before["spans"] != now["spans"]
                before["spans"] = now["spans"]
            wrong += _report(name, f"{changes} answers cite other spans", lines)
    if not wrong:
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return int(wrong > 0)


def _archive(out: Path, name: str) -> bytes:
    """The same banks give the same archive: no owner, one time, no lock, and nothing left in
    SQLite's log.
    """
    buffer = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as temporary,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        bank = Path(shutil.copytree(out / name, Path(temporary) / name))
        with contextlib.closing(sqlite3.connect(bank / "catalog.sqlite")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for path in sorted(bank.rglob("*")):
            if not path.is_file() or path.name == "writer.lock":
                continue
            data = path.read_bytes()
            if any(word in data for word in _MACHINE) and path.suffix not in (
                ".safetensors",
                ".npy",
            ):
                raise ValueError(f"{path} holds a path of this machine")
            entry = tarfile.TarInfo(str(path.relative_to(temporary)))
            entry.size, entry.mtime = len(data), _TIME
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def contents(bank: Path) -> dict[str, str]:
    """A digest of each file, by its path in the bank; of the catalog, of its rows."""
    digests = {}
    for path in sorted(bank.rglob("*")):
        file = str(path.relative_to(bank))
        if path.is_file() and file != "writer.lock" and not file.startswith("catalog.sqlite"):
            digests[file] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests | {
        f"catalog.sqlite {table}": rows
        for table, rows in catalog_rows(bank / "catalog.sqlite").items()
    }


def catalog_rows(path: Path) -> dict[str, str]:
    """The rows of every table as text, columns by name; and the revision."""
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as database:
        database.row_factory = sqlite3.Row
        # of the index of words, the tables that SQLite keeps under it
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
        )
        tables = [name for (name,) in database.execute(query)]
        rows = {
            name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')]
            for name in tables
        }
        (revision,) = database.execute("PRAGMA user_version").fetchone()
    texts = {
        name: "\n".join(sorted(repr(sorted(row.items())) for row in each))
        for name, each in rows.items()
    }
    return texts | {"revision": str(revision)}


def differences(before: Any, after: Any, place: str = "") -> list[str]:
    """Where two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = dict.fromkeys([*before, *after])
        return [
            line
            for key in keys
            for line in differences(before.get(key), after.get(key), f"{place} {key}".strip())
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [
            line
            for i, (one, other) in pairs
            for line in differences(one, other, f"{place} {i}".strip())
        ]
    return [] if before == after else [f"{place}: {before!r} became {after!r}"]


def read_answers(out: Path) -> dict[str, Any]:
    """What the banks answered when they were made."""
    answers: dict[str, Any] = json.loads((out / "answers.json").read_text(encoding="utf-8"))[
        "kinds"
    ]
    return answers


def _report(name: str, good: str, lines: list[str]) -> int:
    print(
        f"{name}: {good if not lines else f'{len(lines)} differences'}",
        *lines[:20],
        sep="\n  ",
        flush=True,
    )
    return len(lines)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(arguments: argparse.Namespace) -> int:
    """Do one action; 1 if anything differs."""
    if arguments.action == "cite":
        return cite(arguments.folder.resolve(), arguments.kinds)
    out = arguments.out.resolve()
    if arguments.action == "make":
        return make(out, arguments.checkout.resolve(), arguments.kinds)
    if arguments.action == "open":
        return reopen(out, arguments.checkout.resolve(), arguments.kinds)
    if arguments.action == "compare":
        return compare(out, arguments.other.resolve(), arguments.kinds)
    return pack(out, arguments.folder.resolve(), arguments.kinds)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for action, folders in (
        ("make", ["out"]),
        ("compare", ["out", "other"]),
        ("open", ["out"]),
        ("pack", ["out", "folder"]),
        ("cite", ["folder"]),
    ):
        one = actions.add_parser(action)
        for folder in folders:
            one.add_argument(folder, type=Path)
        if action in ("make", "open"):
            one.add_argument("--checkout", type=Path, default=ROOT)
        one.add_argument("--kinds", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
