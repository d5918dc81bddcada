"""Processes for heavy work: they compute, and they end when their parent is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from encoders.text.worker_pool import worker_pool
from tests.support.paths import ROOT

_PARENT = """
import os, time
from encoders.text.worker_pool import worker_pool
if __name__ == "__main__":
    pool = worker_pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(100)
"""


def test_workers_work() -> None:
    with worker_pool(2) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert _is_running(worker)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while _is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_running(worker)


def _is_running(process: int) -> bool:
    """False as well for one that nobody has waited for yet."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return facts.rpartition(")")[2].split()[0] != "Z"


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from encoders.text.worker_pool import worker_pool
print("the script runs", flush=True)
spec = __spec__
with worker_pool(2) as pool:
    results = [pool.submit(abs, -number) for number in range(4)]
    print([one.result() for one in results])
print(__file__ == sys.argv[0], __spec__ is spec)
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    path = tmp_path / "three_lines.py"
    path.write_text(SCRIPT.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("the script runs\n[0, 1, 2, 3]\nTrue True\n", "")
