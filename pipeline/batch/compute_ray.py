"""Work on a Ray cluster, through Ray Data: a video with its questions is a block, actors that hold a model take one after the
other, every answer goes back as soon as it is there. Knows tasks and events, and no file of answers.

Ray asks again what a lost actor or node was at, and hands over what it had not handed over; whatever comes twice all the same
is told once. Each actor writes to the first bank of DIR, DIR.1, DIR.2, ... that nobody writes to, and looks into all of them
before it encodes: what was lost with a node on its way is in the bank that it wrote. An actor that lives on behind a network
that does not keeps its bank; the next one takes another. Banks, videos and fetched files are on a file system that all nodes
share. Actors wait when answers are not taken off their hands, so the object store holds a few of them at most.
"""

import json
import logging
import math
import os
import pickle
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow
from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from memory.storage.manifest import BankBusyError, WriterLock
from pipeline.batch import run_folder
from pipeline.batch import tasks as plan
from pipeline.batch.schema import Answered, Encoded, Task, Tell

# where our packages are: the same on all nodes, unless they are installed there
ROOT = Path(__file__).parents[2]

_END_S = 20.0  # how long actors may take to end
_ANSWER_S = 10.0  # how long a cluster may take to answer


class RayCluster:
    """The compute part: runs tasks, tells events (but not how far encoding is)."""

    def __init__(
        self,
        *,
        address: str | None,
        workers: int,
        cpus: float,
        gpus: float,
        tries: int,
        store_mb: int,
    ) -> None:
        for name, value, least in (
            ("workers", workers, 1),
            ("tries", tries, 1),
            ("store_mb", store_mb, 80),
        ):
            if value < least:
                raise UserError(f"compute.{name}={value} is too small; use {least} or more")
        if not cpus >= 0 or not gpus >= 0 or not cpus + gpus > 0:
            raise UserError(
                f"compute.cpus={cpus:g} compute.gpus={gpus:g} is nothing to work with; use compute.cpus=1"
            )
        if gpus > 1 and gpus != int(gpus):
            raise UserError(
                f"compute.gpus={gpus:g} is no share of a GPU and no whole number of them; use such as 0.5, 1 or 2"
            )
        if find_spec("ray") is None:
            raise UserError(
                "compute=ray needs the package ray; install it with pip install 'reelbank[ray]'"
            )
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus
        self.tries, self.store_mb = tries, store_mb
        self._connected = False
        self._bank = ""

    def __call__(
        self, config: DictConfig, tasks: Sequence[Task], downloads: Path, tell: Tell
    ) -> None:
        """Run all tasks. UserError when none can go on."""
        if not tasks:
            return
        settings = OmegaConf.to_container(self.settings(config), resolve=True)
        self._bank = str(config.bank)
        self._connect()
        import ray

        # who has half a video goes on with it first, while its bank is free
        rows = [
            {"task": pickle.dumps(task)}
            for task in sorted(tasks, key=lambda task: not task.bank or task.finished)
        ]
        actors = ray.data.ActorPoolStrategy(
            size=min(self.workers, len(tasks)), max_tasks_in_flight_per_actor=1
        )
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(settings, self.workers, self.tries, str(downloads), os.getcwd()),
            batch_size=1,
            batch_format="pyarrow",
            compute=actors,
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        # each answer is a block: it comes at once, not with the video's last one
        found.context.target_max_block_size = 1
        found.context.max_errored_blocks = -1  # what Ray gives up is told below
        left = {job.id: (task, job) for task in tasks for job in task.jobs}
        with _refusals():
            for table in found.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    event = _read(row)
                    if isinstance(event, Answered) and left.pop(event.row["id"], None) is None:
                        continue  # asked again by a retry
                    if event is not None:
                        tell(event)
        if left:
            from pipeline.batch.worker import failure

            for task, job in left.values():
                tell(failure(task, job, "Ray gave it up; the same command asks it again"))

    def check(self, config: DictConfig) -> None:
        """UserError when an actor does not get what the configuration asks for, or nobody is at the cluster's address."""
        device = config.backbone.device
        if device != "cpu" and not self.gpus:
            raise UserError(
                f"backbone.device={device} needs a GPU, and actors have none; use compute.gpus=1 or a share like 0.5"
            )
        found = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", self.address or "")
        if found is not None:  # Ray itself would try for minutes
            try:
                socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()
            except (OSError, OverflowError) as error:
                raise UserError(
                    f"no Ray cluster answers at {self.address} ({error}); check compute.address="
                ) from error

    def banks(self, bank: str) -> list[str]:
        """All banks that there may be, as with processes: a run may go on with other compute."""
        return plan.banks(bank, self.workers)

    def settings(self, config: DictConfig) -> DictConfig:
        """The configuration of an actor: as many threads as it has cores, and the GPU that Ray gives it."""
        values: dict[str, Any] = {"threads": config.threads or max(1, int(self.cpus))}
        if self.gpus and config.backbone.device == "cpu":
            values["backbone"] = {"device": "cuda"}
        merged = OmegaConf.merge(config, values)
        assert isinstance(merged, DictConfig)
        return merged

    def write(self, path: Path, rows: Sequence[run_folder.Row]) -> None:
        """answers.parquet: one file, written by Ray on the node of this process, where there is a cluster by now."""
        if not self._connected or not rows:
            run_folder.write_parquet(path, rows)
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # whoever writes has another working folder
        parts = path.absolute().with_name(path.name + ".parts")
        shutil.rmtree(parts, ignore_errors=True)
        with _refusals():
            table = ray.data.from_arrow(run_folder.table(rows))
            table.write_parquet(
                str(parts), ray_remote_args={"num_cpus": 0, "scheduling_strategy": here}
            )
        (part,) = parts.glob("*.parquet")
        part.replace(path)
        shutil.rmtree(parts)

    def close(self) -> None:
        """Leave the cluster; one that was started here is stopped. Then wait until its actors have ended, because until they
        have, nobody else can write to their banks."""
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False
            until = time.monotonic() + _END_S
            while any(map(_written, self.banks(self._bank))) and time.monotonic() < until:
                time.sleep(0.05)

    def _connect(self) -> None:
        """UserError when there is no cluster at the address, or none with what an actor needs."""
        for name, value in (
            ("RAY_USAGE_STATS_ENABLED", "0"),
            ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
        ):
            os.environ.setdefault(name, value)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is told in our words
        import ray
        import ray.data

        own: dict[str, Any] = {}
        if self.address is None:
            own = {
                "num_cpus": max(1, math.ceil(self.workers * self.cpus)),
                "object_store_memory": self.store_mb * 10**6,
            }
            own |= {"include_dashboard": False}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            ray.init(
                address=self.address or "local",
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            if self.address is None:
                raise UserError(
                    f"Ray cannot be started here ({_line(error)}); use compute=local"
                ) from error
            raise UserError(
                f"Ray at {self.address} does not answer ({_line(error)}); check compute.address="
            ) from error
        self._connected = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        warnings.filterwarnings("ignore", module=r"ray\..*")
        for name, wanted in (("CPU", self.cpus), ("GPU", self.gpus)):
            most = max(
                (node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"]), default=0
            )
            if most < wanted:  # Ray would wait for such a node, and say nothing
                raise UserError(
                    f"no node of the Ray cluster has {wanted:g} {name}s, the largest has {most:g}; "
                    f"use a smaller compute.{name.lower()}s="
                )


class _Actor:
    """What Ray keeps on a node: a model, loaded for the first video."""

    def __init__(
        self, settings: Any, workers: int, tries: int, downloads: str, folder: str
    ) -> None:
        # where paths are relative to; a node that has no such folder needs absolute ones
        with suppress(OSError):
            os.chdir(folder)
        self._settings, self._workers, self._tries, self._downloads = (
            settings,
            workers,
            tries,
            Path(downloads),
        )
        self._worker: Any = None
        self._own = ""

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """One task in; a row for the video and one for each question out. As many in the same order at every try, because
        Ray counts what it has handed over: where encoding failed, the first row is empty."""
        task: Task = pickle.loads(table["task"][0].as_py())
        first = True
        try:
            for event in self._events(task):
                if isinstance(event, Encoded):
                    yield _row("encoded", asdict(event))
                else:
                    if first:
                        yield _row("nothing")
                    yield _row("answered", event.row)
                first = False
        except Exception as error:
            yield _row(
                "stop",
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}",
            )

    def _events(self, task: Task) -> Iterator[Encoded | Answered]:
        from pipeline.batch.worker import Worker, failure

        if _begun(task) > self._tries:
            yield from (
                failure(task, job, f"the worker died {self._tries} times at it")
                for job in task.in_order()
            )
            return
        if self._worker is None:
            config = OmegaConf.create(self._settings)
            assert isinstance(config, DictConfig)
            self._worker = Worker(config, self._downloads, lambda event: None)
        yield from self._worker.events(self._claimed(task))

    def _claimed(self, task: Task) -> Task:
        """The task with its bank: one that has all of the video, else one that nobody else writes to, best that with a part of
        it, or the one that this actor has."""
        root = self._settings["bank"]
        if not task.finished:  # since it was planned, an actor that is gone may have encoded it
            (found,) = plan.tasks(task.jobs[:1], plan.banks(root, self._workers), self._downloads)
            task = replace(task, bank=found.bank, finished=found.finished)
        if task.finished:
            return task
        for bank in chain(filter(None, (task.bank, self._own)), plan.bank_names(root)):
            try:
                self._worker.claim(bank)
            except BankBusyError:
                continue
            self._own = bank
            return replace(task, bank=bank)
        raise AssertionError("there is always another name")


def _row(kind: str, data: Any = None) -> pyarrow.Table:
    """One row: "encoded" and "answered" with what they say, "stop" with why nothing can go on, "nothing"."""
    return pyarrow.table({"kind": [kind], "data": [json.dumps(data)]})


def _read(row: dict[str, str]) -> Encoded | Answered | None:
    """The event of a row; None of "nothing". UserError of "stop"."""
    data = json.loads(row["data"])
    if row["kind"] == "stop":
        raise UserError(data)
    if row["kind"] == "encoded":
        return Encoded(**data)
    return Answered(data) if row["kind"] == "answered" else None


def _written(bank: str) -> bool:
    """Whether a process has the right to write to a bank."""
    if not Path(bank, "bank.json").is_file():
        return False
    try:
        WriterLock(Path(bank)).release()
    except BankBusyError:
        return True
    return False


def _begun(task: Task) -> int:
    """How often this task was begun in this run, this time included; the cluster's head keeps count."""
    import ray
    from ray.experimental import internal_kv

    run = ray.get_runtime_context().get_job_id()
    key = f"reelbank {run} {task.video} {task.start} {task.end}".encode()
    count = int(internal_kv._internal_kv_get(key) or 0) + 1
    internal_kv._internal_kv_put(key, str(count).encode(), overwrite=True)
    return count


@contextmanager
def _refusals() -> Iterator[None]:
    """What Ray raises when it cannot go on, as a UserError."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray cluster cannot go on ({_line(error)}); run the same command again"
        ) from error


def _line(error: Exception) -> str:
    """The telling line of Ray's long texts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
