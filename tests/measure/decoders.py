"""Seconds to sample films by PyAV and by decord, in one process: `make measure NAME=decoders`.

Arguments: films. Prints for each film and rate: pictures, the share of them that no other one
needs, places where a decoder can begin, milliseconds of the scan, and seconds of the processor of a
pass by each decoder in turn, the least of three.
"""

import sys
import time
from pathlib import Path

import numpy as np

from encoders.errors import UserError
from encoders.sources.container import inspect
from encoders.sources.decoding.decord_reader import why_not_decord
from encoders.sources.file import FileSource

_ROUNDS, _SIDE = 3, 384


def _seconds(path: Path, fps: float, decoder: str) -> float:
    start = time.process_time()
    for _ in FileSource(path, fps, width=_SIDE, height=_SIDE, decoder=decoder).frames():
        pass
    return time.process_time() - start


def main(paths: list[str]) -> None:
    """One line for each film and rate."""
    print("film fps pictures spare entries scan_ms pyav_s decord_s ratio")
    for path in map(Path, paths):
        start = time.process_time()
        facts = inspect(path)
        scan = time.process_time() - start
        for fps in (0.5, 1.0, 2.0, 4.0):
            seconds: dict[str, list[float]] = {"pyav": [], "decord": []}
            for _ in range(_ROUNDS):
                for decoder, each in seconds.items():
                    if decoder == "decord" and why_not_decord(facts):
                        continue
                    try:
                        each.append(_seconds(path, fps, decoder))
                    except UserError as error:
                        print(error)
            pyav, decord = (min(each) if each else float("nan") for each in seconds.values())
            table = facts.packets
            print(
                f"{path.name} {fps:g} {len(facts.times)} {np.mean(table.spare):.2f} "
                f"{int(table.entries.sum())} {1000 * scan:.1f} {pyav:.3f} {decord:.3f} "
                f"{pyav / decord:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
