"""Damaged films with fixed seeds, and a child process that reads them within limits.

As a program, with the number of workers: reads lines "film seed" and prints a line of JSON for
each: what a pass over the mutant gives. The caller sees a crash as a missing line.
"""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.paths import ROOT

_MEMORY_BYTES = 3 << 30
_SECONDS = 60
_FPS = 25.0
Reply = dict[str, Any]


def read_all(
    jobs: Sequence[tuple[Path, int]], perturb: int, workers: int
) -> dict[tuple[Path, int], Reply]:
    """Read each (film, seed) in a child. perturb: what the C library fills memory with, so that a
    picture of uninitialized memory differs between two runs. workers: of the decoder. RuntimeError
    if the child dies.
    """
    environment = os.environ | {
        "MALLOC_PERTURB_": str(perturb),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.film_mutants", str(workers)],
        input="".join(f"{film} {seed}\n" for film, seed in jobs),
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    replies = [json.loads(line) for line in child.stdout.splitlines()]
    if len(replies) < len(jobs):
        raise RuntimeError(
            f"{jobs[len(replies)]} ended the child: {child.returncode}, {child.stderr}"
        )
    return {job: reply | {"stderr": child.stderr} for job, reply in zip(jobs, replies, strict=True)}


def mutate(data: bytes, seed: int) -> bytes:
    """The film with some damage: flips, zeros, noise, loss, repeats, a cut, or a wrong head."""
    rng = np.random.default_rng(seed)
    mutant = bytearray(data)
    kind = seed % 8
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(mutant)))
        size = int(rng.integers(1, max(2, len(mutant) // 20)))
        if kind in (0, 7):
            # a few bits; 7: in the first or the last bytes, where heads and indexes are
            edge = min(2000, len(mutant))
            for _ in range(int(rng.integers(1, 20))):
                place = int(rng.integers(0, edge if kind == 7 else len(mutant)))
                place = len(mutant) - 1 - place if kind == 7 and rng.random() < 0.5 else place
                mutant[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            mutant[at : at + size] = bytes(len(mutant[at : at + size]))
        elif kind == 2:
            mutant[at : at + size] = rng.bytes(len(mutant[at : at + size]))
        elif kind == 3:
            del mutant[at : at + size]
        elif kind == 4:
            mutant[at:at] = mutant[at : at + size]
        elif kind == 5:
            del mutant[len(mutant) // 5 + at * 4 // 5 :]
        elif kind == 6:
            mutant[at:at] = rng.bytes(size)
    return bytes(mutant)


def read(path: Path, workers: int = 1) -> Reply:
    """What a pass over the film gives: a digest of times and pictures, or the error's sentence."""
    from encoders.errors import UserError
    from encoders.sources.container import inspect
    from encoders.sources.file import FileSource

    digest, frames = hashlib.sha256(), 0
    try:
        film = FileSource(path, _FPS, width=64, height=64, workers=workers)
        for run in film.frames():
            digest.update(run.times.tobytes() + run.pixels.tobytes())
            frames += len(run)
    except UserError as error:
        return {"error": str(error)}
    return {
        "digest": digest.hexdigest(),
        "frames": frames,
        "listed": len(inspect(path).times),
        "note": film.info.note,
        "broke_at": film.info.broke_at,
    }


def _expired(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {_SECONDS} s")


def main() -> None:
    """One reply for each line of the standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _expired)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            name, seed = line.rsplit(maxsplit=1)
            base = Path(name)
            path = Path(folder) / f"mutant{base.suffix}"
            path.write_bytes(mutate(base.read_bytes(), int(seed)))
            signal.alarm(_SECONDS)
            try:
                reply = read(path, int(sys.argv[1]))
            except Exception:  # what the tests look for
                reply = {"traceback": traceback.format_exc()}
            signal.alarm(0)
            reply["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            reply = {
                k: v.replace(folder, "") if isinstance(v, str) else v for k, v in reply.items()
            }
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
