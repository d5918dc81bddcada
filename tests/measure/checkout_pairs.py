"""What one command takes in two checkouts, whole processes in turn.

    python -m tests.measure.checkout_pairs BEFORE AFTER [--pairs 3] [--out PAGE] -- COMMAND...

COMMAND is what follows `reelbank`, such as `bench bench_preset=smoke out={out}`, and must end with
exit code 0; `{out}` becomes a new folder. Both checkouts run in this program's environment, so
they share all packages, and each process proves that it imports its own checkout. Each round begins
with the other checkout. CPU seconds are those of all threads and of all children; they depend on
other programs less than wall seconds do. The first run of each warms the file cache and is not
counted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.measure.on_demand import spread
from tests.support import measurement_page

# the entry point, after a look at whose code it is
_RUN = """
import sys, pipeline, reelbank.__main__ as entry
assert pipeline.__path__[0].startswith(sys.argv[1] + "/"), pipeline.__path__
del sys.argv[1]
entry.main()
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One run of the command, in seconds."""

    cpu: float
    wall: float


def run(checkout: Path, command: list[str]) -> Process:
    """The command in a checkout. RuntimeError where it fails."""
    with tempfile.TemporaryDirectory(prefix="pairs-") as out, Path(out, "errors").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(checkout)]
            + [word.replace("{out}", f"{out}/out") for word in command],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        began = time.perf_counter()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status):
            log.seek(0)
            raise RuntimeError(f"{checkout}: {log.read().strip()[-500:]}")
    return Process(usage.ru_utime + usage.ru_stime, wall)


def report(arguments: argparse.Namespace) -> None:
    """A row for each checkout, and the ratios of the pairs."""
    folders = [path.resolve() for path in (arguments.before, arguments.after)]
    for folder in folders:
        run(folder, arguments.command)
    rounds: list[tuple[Process, Process]] = []
    loads = [os.getloadavg()[0]]
    for number in range(arguments.pairs):
        order = folders[:: -1 if number % 2 else 1]
        took = {folder: run(folder, arguments.command) for folder in order}
        rounds.append((took[folders[0]], took[folders[1]]))
        loads.append(os.getloadavg()[0])
    print(f"\n{arguments.pairs} pairs, load {min(loads):.1f} to {max(loads):.1f}.\n")
    print("| checkout | CPU s | wall s |\n|---|---|---|")
    for name, own in zip(("before", "after"), zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {spread(p.cpu for p in own)} | {spread(p.wall for p in own)} |")
    ratios = [after.cpu / before.cpu for before, after in rounds]
    print(
        f"\nCPU seconds, after over before: {statistics.median(ratios):.3f}; each round: ", end=""
    )
    print(", ".join(f"{ratio:.3f}" for ratio in ratios))


def main() -> None:
    """Compare two checkouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
