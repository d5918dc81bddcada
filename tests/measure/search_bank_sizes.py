"""Megabytes an hour of banks that are only searched, by frame embedder and thumbnails.

    python -m tests.measure.search_bank_sizes [--out PAGE] FILM... [--arms "clip=conse" ...]

Each film goes into a new bank with `visual_tokens=on_demand text=none` and the settings of an arm;
then it is searched, the bank is closed, and its files are counted. `segments` holds embeddings,
times and thumbnails; `index` is a cache of a search, which may be deleted; `embeddings` are rows of
a second embedder; the rest is the catalog, of which a short film pays a fixed part. Bytes are those
of the film and the settings: nothing here depends on the machine.
"""

import argparse
import tempfile
from pathlib import Path

from encoders.sources.container import inspect
from pipeline.config.task_settings import register
from pipeline.engine import Engine
from tests.support import measurement_page

ARMS = (
    "clip=embedded",
    "clip=conse",
    "clip=conse source.keep=jpeg",
    "clip=conse source.keep=jpeg source.keep_bytes=40000",
)
PARTS = ("segments", "embeddings", "index")


def sizes(film: Path, arm: str) -> dict[str, int]:
    """Bytes of each part of a bank, and of all its files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bank"
        settings = [f"bank={root}", "visual_tokens=on_demand", "text=none", *arm.split()]
        with Engine.compose(settings) as engine:
            engine.add(str(film))
            engine.find("a dog", channels=["picture"])
        parts = {name: _nbytes(root / name) for name in PARTS}
        return parts | {"all": _nbytes(root)}


def _nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(arguments: argparse.Namespace) -> None:
    """A row for each film and arm."""
    names = (*PARTS, "all")
    print("| film, s | settings | " + " | ".join(f"{name}, MB/h" for name in names) + " |")
    print("|---" * (2 + len(names)) + "|")
    for film in arguments.films:
        seconds = inspect(film).duration
        for arm in arguments.arms:
            own = sizes(film, arm)
            cells = " | ".join(f"{own[name] / 1e6 * 3600 / seconds:.1f}" for name in names)
            print(f"| {film.name}, {seconds:.0f} | `{arm}` | {cells} |", flush=True)


def main() -> None:
    """Count the banks of films."""
    register()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
