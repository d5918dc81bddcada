"""`compute=ray` gives the same answers as one process, survives a lost node, and refuses bad
settings.

The clusters are real: nodes are processes on this machine and share its file system.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from encoders.errors import UserError
from pipeline import cli
from pipeline.batch.compute.ray_compute import RayCompute
from tests.support.batches import (
    answers,
    command,
    encoded,
    jobs,
    kill_after,
    lines,
    overrides,
    put,
    run,
    same,
)
from tests.support.videos import write_video


@pytest.fixture(autouse=True)
def others_do_not_come_first(monkeypatch):
    """Run Ray's workers at normal priority.

    By default they have nice 15: beside four busy processes they get a hundredth of the cores, and
    a test gets no further than its imports.
    """
    monkeypatch.setenv("RAY_worker_niceness", "0")


def make(path: Path, videos: int, seconds: int, asked: int) -> Path:
    """Videos and questions about them, the first of each with options."""
    rows: list[dict[str, Any]] = []
    for number in range(videos):
        write_video(path / f"{number}.mp4", seconds + number, 5)
        for question in range(asked):
            row = {
                "id": f"{number}-{question}",
                "video": f"{number}.mp4",
                "question": f"What is {question}?",
            }
            rows.append(
                row
                | (
                    {"options": ["red", "blue"], "answer": "A"}
                    if question == 0
                    else {"answer": "red"}
                )
            )
    put(path / "jobs.jsonl", rows)
    return path


@pytest.mark.slow  # a cluster starts and ends, 20 to 90 s
def test_ray_says_what_one_process_says(tmp_path):
    """Rows and tables are equal, also for a bad video and for a question that comes too early."""
    folder = make(tmp_path, 2, 8, 3)
    (folder / "bad.mp4").write_text("this is no video\n" * 50)
    bad = [
        {"id": "bad", "video": "bad.mp4", "question": "q"},
        {"id": "early", "video": "0.mp4", "question": "q", "asked_at": 0, "start": 3},
        {"id": "then", "video": "0.mp4", "question": "q", "asked_at": "00:05"},
    ]
    put(folder / "jobs.jsonl", [*jobs(folder), *bad])
    plain, ray = tmp_path / "plain" / "out", tmp_path / "ray" / "out"
    for out, more in ((plain, []), (ray, ["compute=ray"])):
        out.parent.mkdir()
        assert run(folder, out, "threads=1", *more) == 1
    assert same(answers(ray), answers(plain), "bank") and len(answers(ray)) == 9
    one, other = (pyarrow.parquet.read_table(out / "answers.parquet") for out in (plain, ray))
    free = ["seconds", "bank"]
    assert one.schema == other.schema and one.drop_columns(free) == other.drop_columns(free)
    assert sorted(path.name for path in ray.iterdir()) == sorted(
        path.name for path in plain.iterdir()
    )
    assert (
        all(one["new_segments"] > 0 for one in encoded(ray))
        and len(encoded(ray)) == len(encoded(plain)) == 3
    )
    # one process continues what Ray left: it repeats the failed questions and encodes nothing
    before = answers(ray)
    assert run(folder, ray, "threads=1") == 1
    after = answers(ray)
    assert {key for key in after if after[key] != before[key]} <= {"bad", "early"}
    assert same(after, answers(plain), "bank") and [
        one["new_segments"] for one in encoded(ray)[3:]
    ] == [0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_is_lost_on_the_way(tmp_path, monkeypatch):
    """Two nodes with an actor each; one is killed while its actor works on a video.

    Ray restarts the actor on the other node once there is room. It resumes from what was written.
    """
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster
    from ray.experimental import internal_kv

    make(tmp_path, 6, 40, 6)
    store = 80 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": store},
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=store) for _ in range(2)]
        # nodes were started elsewhere: relative paths are the command's
        monkeypatch.chdir(tmp_path)
        folder, out, seen = Path(), Path("lost", "out"), []
        Path("whole").mkdir()
        assert run(folder, Path("whole", "out"), "threads=1") == 0

        def kill() -> None:
            """Kill the node whose actor has just given the first answer of a video and works on the
            next ones.
            """
            told: list[bytes] = []
            while len(told) < 4 or not json.loads(told[-1])["id"].endswith("-0"):
                time.sleep(0.005)
                data = (
                    (out / "answers.jsonl").read_bytes()
                    if (out / "answers.jsonl").exists()
                    else b""
                )
                told = data[: data.rfind(b"\n") + 1].splitlines()
            last = json.loads(told[-1])
            actor = Path(last["bank"], "writer.lock").read_text().strip()
            # its parent
            raylet = int(Path("/proc", actor, "stat").read_text().rpartition(")")[2].split()[1])
            (node,) = (one for one in nodes if one.all_processes["raylet"][0].process.pid == raylet)
            cluster.remove_node(node, allow_graceful=False)
            seen.append(lines(out / "answers.jsonl"))

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        assert (
            run(folder, out, "threads=1", "compute=ray", f"compute.address={cluster.address}") == 0
        )
        killer.join(60)
        assert seen and seen[0] < 36
        assert same(answers(out), answers(Path("whole", "out")), "bank") and len(answers(out)) == 36
        assert {Path(row["bank"]).parent.name for row in answers(out).values()} == {
            "lost"
        } and Path("lost", "bank").is_dir()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        keys = internal_kv._internal_kv_list(b"reelbank ")
        tries = [int(internal_kv._internal_kv_get(key)) for key in keys]
        assert len(tries) == 6 and max(tries) == 2  # what was lost was begun again
        print(
            f"\nkilled with {seen[0]} of 36 answers there; each video begun {tries} times, "
            "answers identical"
        )
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_resumed(tmp_path):
    """kill -9 of the command also ends the cluster that it started; the same command resumes."""
    folder = make(tmp_path, 3, 12, 3)
    (tmp_path / "whole").mkdir()
    assert run(folder, tmp_path / "whole" / "out", "threads=1") == 0
    out, ray = tmp_path / "out", ["threads=1", "compute=ray"]
    process = command(folder, out, *ray)
    assert kill_after(process, lambda: lines(out / "answers.jsonl") >= 2, 0.0)
    assert 2 <= lines(out / "answers.jsonl") < 9
    first = (out / "answers.jsonl").read_bytes()
    until = time.monotonic() + 60
    while (left := daemons(process.pid)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    assert run(folder, out, *ray) == 0
    assert (out / "answers.jsonl").read_bytes().startswith(first[: first.rfind(b"\n") + 1])
    assert same(answers(out), answers(tmp_path / "whole" / "out"), "bank")


def daemons(session: int) -> list[str]:
    """Ray's processes of the cluster that this process id started; its folder's name has the id."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if re.search(rf"session_\S+_{session}\b", words):
                found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_video_that_kills_its_actor_is_given_up(tmp_path):
    """Every actor that begins to write is killed, as if out of memory.

    After `tries` the questions become rows that say so, and the next run answers them.
    """
    folder, bank, killed = make(tmp_path, 1, 8, 2), tmp_path / "bank", set[int]()
    done = threading.Event()

    def kill() -> None:
        """Kill the node whose actor has just answered a video's first question and works on the
        next.
        """
        while not done.is_set():
            owner = (
                (bank / "writer.lock").read_text().strip()
                if (bank / "writer.lock").exists()
                else ""
            )
            if owner and int(owner) not in killed:
                os.kill(int(owner), signal.SIGKILL)
                killed.add(int(owner))
            time.sleep(0.001)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    ray = ["threads=1", "compute=ray", "compute.workers=1", "compute.tries=2"]
    assert run(folder, tmp_path / "out", *ray) == 1
    done.set()
    killer.join()
    found = answers(tmp_path / "out")
    assert len(killed) == 2 and {row["error"] for row in found.values()} == {
        "the worker died 2 times at it"
    }
    assert run(folder, tmp_path / "out", *ray) == 0
    assert all(row["answer"] and not row["error"] for row in answers(tmp_path / "out").values())


REFUSED = {
    "workers": (["compute.workers=0"], "compute.workers=0"),
    "tries": (["compute.tries=0"], "compute.tries=0"),
    "no cores": (["compute.cpus=0"], "compute.cpus=0"),
    "no share": (["compute.gpus=1.5"], "compute.gpus=1.5"),
    "an address": (["compute.address=127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    "a device": (["backbone.device=cuda"], "use compute.gpus=1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_one_sentence_and_leaves_nothing(tmp_path, name, capsys):
    more, words = REFUSED[name]
    put(tmp_path / "jobs.jsonl", [{"video": "0.mp4", "question": "q"}])
    with pytest.raises(SystemExit) as done:
        cli.main(["batch", *overrides(tmp_path, tmp_path / "out"), "compute=ray", *more])
    err = capsys.readouterr().err
    assert (
        done.value.code == 2
        and err.startswith("reelbank: ")
        and words in err
        and err.count("\n") == 1
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "bank").exists()


def test_without_ray_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs ray, .*; say `pip install 'reelbank\[ray\]'`"):
        RayCompute(address=None, workers=1, cpus=1, gpus=0, tries=1, store_mb=100)
