"""CPU seconds of commands about a film in a bank, with and without the resident process.

    python -m tests.measure.start_up [--rounds 7] [--before CHECKOUT] [--out FILE]

--before: another checkout of the project, whose commands take turns with these.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from encoders.errors import UserError
from pipeline.resident.client import request, start_resident
from tests.support import measurement_page
from tests.support.paths import ROOT
from tests.support.videos import write_video

_IMPORTS = {
    "import torch": "import gc; gc.disable(); import torch",
    "import transformers.modeling_utils": "import gc; gc.disable(); "
    "import encoders.models.torchvision_ops, transformers.modeling_utils",
}

Row = tuple[float, float]  # seconds: CPU of all processes that took part, and wall time


def report(options: argparse.Namespace) -> int:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="rb") as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        folder = Path(name)
        write_video(folder / "plain.mp4", 10, 5, size=(192, 108))
        make = ["-m", "pipeline.needle_world.video", "plain.mp4", "cards.mp4", "code:4821@3"]
        _run(make, ROOT, folder, None)
        lines = {
            "--help": ["--help"],
            "ask": ["ask", "video=cards.mp4", "question=What is the code?", "bank=bank"],
            "find": ["find", "query=a card with a code", "bank=bank"],
        }
        roots = {"": ROOT} | ({"before: ": options.before} if options.before else {})
        arms = {
            (mark + line, root): ["-m", "pipeline.cli", *words]
            for line, words in lines.items()
            for mark, root in roots.items()
        }
        arms |= {(name, ROOT): ["-c", code] for name, code in _IMPORTS.items()}
        rows: dict[str, list[Row]] = {}
        for number in range(options.rounds + 1):  # the first round fills the bank and caches
            for (arm, root), words in arms.items():
                row = _run(words, root, folder, None)
                rows.setdefault(arm, []).extend([row] if number else [])
        bank = str(folder / "bank")
        start_resident(bank)
        try:
            for number in range(options.rounds + 1):
                for line in ("ask", "find"):
                    row = _run(arms[line, ROOT], ROOT, folder, bank)
                    kind = f"{line}, resident" if number else f"{line}, resident, the first"
                    rows.setdefault(kind, []).append(row)
        finally:
            request(bank, "stop")
    print("| command | n | CPU s | wall s |\n|---|---|---|---|")
    for arm, measured in rows.items():
        print(f"| {arm} | {len(measured)} | {_cell(measured, 0)} | {_cell(measured, 1)} |")
    return 0


def _cell(rows: list[Row], column: int) -> str:
    """Median, lowest and highest."""
    values = [row[column] for row in rows]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _run(words: list[str], root: Path, folder: Path, bank: str | None) -> Row:
    """Run Python with these words. bank: whose resident process takes part."""
    command = [sys.executable, *words]
    environment = os.environ | {"PYTHONPATH": str(root)}
    before, began = _cpu_seconds(bank), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - began
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed: {done.stderr}")
    return _cpu_seconds(bank) - before, wall


def _cpu_seconds(bank: str | None) -> float:
    """User and system time of the children that have ended, and of a bank's resident process."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = usage.ru_utime + usage.ru_stime
    reply = None if bank is None else request(bank, "status")
    if reply is None:
        return own
    stat = Path(f"/proc/{reply['status']['pid']}/stat").read_text().rpartition(")")[2].split()
    return own + (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, help="another checkout")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
