"""The frame of every measuring program: a head that says what ran where, and a file on request.

A program prints Markdown. `run` prints the head first, and writes the whole page to a file if the
command line has `--out`. Knows nothing of what is measured.
"""

import argparse
import contextlib
import io
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.paths import ROOT


class _Copy(io.TextIOBase):
    """Standard output whose text is also collected."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self.stream = stream
        self.text = io.StringIO()

    def write(self, text: str) -> int:
        self.text.write(text)
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


def run(
    parser: argparse.ArgumentParser, report: Callable[[argparse.Namespace], int | None]
) -> None:
    """Parse the command line, print the head, and let `report` print the rest.

    Adds `--out FILE`. The file is written after `report` returns, and an existing file is refused:
    pages of measurements are not edited. Exits with the code that `report` returns.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--out", dest="page", type=Path, metavar="FILE", help="also write the Markdown to this file"
    )
    arguments = parser.parse_args()
    page: Path | None = arguments.page
    if page is not None and page.exists():
        parser.error(f"{page} exists, and pages of measurements are not edited; name another file")
    copy = _Copy(sys.stdout)  # type: ignore[arg-type]
    with contextlib.redirect_stdout(copy):
        print(head(), flush=True)
        code = report(arguments)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(copy.text.getvalue(), encoding="utf-8")
    sys.exit(code)


def head() -> str:
    """Machine, versions, date, load, commit and command as a Markdown list."""
    # here, because torch takes seconds and `--help` does not need it
    import torch

    from pipeline.evaluation.speed import machine

    facts = machine.facts(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    settings = ", ".join(f"{key}={value}" for key, value in facts["settings"].items())
    program = Path(sys.argv[0]).stem
    command = shlex.join([f"tests.measure.{program}", *sys.argv[1:]])
    return (
        f"- **Machine**: {facts['cores']} cores, {facts['machine']} ({facts['processor']}), "
        f"{facts['ram_gb']} GB of RAM, device {facts['device']}\n"
        f"- **Versions**: Python {facts['python']}, {versions}\n"
        f"- **Settings**: {facts['torch_threads']} torch threads, {settings or 'none set'}\n"
        f"- **Load** at the start: {facts['load'][0]:.1f}\n"
        f"- **Date**: {facts['when']}\n"
        f"- **Commit**: {commit(ROOT)}\n"
        f"- **Command**: `python -m {command}`\n"
    )


def commit(checkout: Path) -> str:
    """The commit of a checkout, and whether its files differ from it; "unknown" outside of git."""
    command = ["git", "-C", str(checkout)]
    try:
        number = subprocess.run(
            [*command, "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            [*command, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{number}` with uncommitted changes" if changes else f"`{number}`"
