"""Freed memory goes back while a process runs. A process of its own: what malloc was told stays."""

import subprocess
import sys

import pytest

HOLES = """
import sys, time
from pathlib import Path
from pipeline.runtime.heap_trimmer import HeapTrimmer
from pipeline.runtime.malloc import retain_freed, share_heaps

def resident():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) << 10

if sys.argv[1] == "retained":
    assert retain_freed(10**9)
else:
    assert share_heaps()
blocks = [bytearray(100_000) for _ in range(1000)]
kept = blocks[::50]
full = resident()
del blocks
holes = resident()
with HeapTrimmer(0.05):
    ends = time.monotonic() + (0.5 if sys.argv[1] == "retained" else 20)
    while full - resident() < 80_000_000 and time.monotonic() < ends:
        time.sleep(0.01)
print(full - holes > 80_000_000, full - resident() > 80_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc, and /proc")
@pytest.mark.parametrize(("how", "said"), [("returned", "False True"), ("retained", "False False")])
def test_holes_between_what_stays_go_back_unless_they_are_to_be_retained(how: str, said: str):
    done = subprocess.run(
        [sys.executable, "-c", HOLES, how], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == said, done.stderr
