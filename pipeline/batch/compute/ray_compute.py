"""Run a batch on a Ray cluster with Ray Data: a video with its questions is one block.

Knows tasks and events; no answer files. Actors that hold a model take one block after the other and
return every answer as soon as it is ready.

Ray repeats the work of a lost actor or node, and it delivers what had not been delivered;
duplicates are dropped. Each actor writes to the first bank of DIR, DIR.1, DIR.2, ... without a
writer. It reads all of them before it encodes, so it finds what a lost node had encoded. An actor
behind a broken network keeps its bank, and its successor takes another one. Banks, videos, and
fetched files are on a file system that all nodes share. Actors wait while their answers are not
consumed, so the object store holds only a few.
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
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow

from encoders.errors import UserError
from encoders.extras import require_extra
from memory.storage.manifest import BankBusyError, WriterLock
from pipeline.batch import run_folder
from pipeline.batch.schema import EmitEvent, Encoded, QuestionAnswered, Task, VideoEncoded
from pipeline.batch.tasks import bank_names, plan_tasks, worker_banks
from pipeline.config.tasks.evaluation_settings import BatchSettings

if TYPE_CHECKING:  # importing the worker imports torch, which an actor does on its node
    from pipeline.batch.compute.worker import Worker

# the folder of our packages; the same on all nodes, unless they are installed there
ROOT = Path(__file__).parents[3]

_MAX_CLOSE_S = 20.0  # how long actors may take to exit
_CONNECT_S = 10.0  # how long a cluster may take to accept a connection


class RayCompute:
    """The compute part for Ray. Emits no encoding progress."""

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
        for name, value, minimum in (
            ("workers", workers, 1),
            ("tries", tries, 1),
            ("store_mb", store_mb, 80),
        ):
            if value < minimum:
                raise UserError(f"compute.{name}={value} is too small; use {minimum} or more")
        if not cpus >= 0 or not gpus >= 0 or not cpus + gpus > 0:
            raise UserError(
                f"compute.cpus={cpus:g} compute.gpus={gpus:g} is nothing to work with; use "
                "compute.cpus=1"
            )
        if gpus > 1 and gpus != int(gpus):
            raise UserError(
                f"compute.gpus={gpus:g} is no share of a GPU and no whole number of them; use "
                "such as 0.5, 1 or 2"
            )
        require_extra("ray", "compute=ray")
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus
        self.tries, self.store_mb = tries, store_mb
        self._connected = False
        self._bank = ""

    def __call__(
        self, config: BatchSettings, tasks: Sequence[Task], downloads: Path, emit: EmitEvent
    ) -> None:
        """Run all tasks. UserError when the cluster cannot continue."""
        if not tasks:
            return
        self._bank = str(config.bank)
        self._connect()
        pending = {job.id: (task, job) for task in tasks for job in task.jobs}
        with _ray_errors():
            for event in self._events(config, tasks, downloads):
                if isinstance(event, QuestionAnswered):
                    if event.row["id"] not in pending:
                        continue  # a duplicate from a retry
                    del pending[event.row["id"]]
                emit(event)
        if pending:
            from pipeline.batch.compute.rows import failure

            for task, job in pending.values():
                emit(failure(task, job, "Ray gave it up; the same command asks it again"))

    def _events(
        self, config: BatchSettings, tasks: Sequence[Task], downloads: Path
    ) -> Iterator[VideoEncoded | QuestionAnswered]:
        """The events of all actors as they arrive, possibly some of them twice."""
        import ray

        settings = self.settings(config)
        # half-encoded videos first, while their banks are unlocked
        rows = [
            {"task": pickle.dumps(task)}
            for task in sorted(tasks, key=lambda task: not task.bank or task.finished)
        ]
        actors = ray.data.ActorPoolStrategy(
            size=min(self.workers, len(tasks)), max_tasks_in_flight_per_actor=1
        )
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(settings, self.workers, self.tries, str(downloads), os.getcwd()),
            batch_size=1,
            batch_format="pyarrow",
            compute=actors,
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        # each answer is a block of its own, so that it arrives without waiting for the others
        results.context.target_max_block_size = 1
        results.context.max_errored_blocks = -1  # `__call__` reports blocks that Ray gives up
        for table in results.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for row in table.to_pylist():
                yield from _parse_row(row)

    def check(self, config: BatchSettings) -> None:
        """UserError when actors lack a GPU that the configuration needs, or when no cluster
        answers.
        """
        device = config.backbone["device"]
        if device != "cpu" and not self.gpus:
            raise UserError(
                f"backbone.device={device} needs a GPU, and actors have none; use compute.gpus=1 "
                "or a share like 0.5"
            )
        match = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", self.address or "")
        if match is not None:  # Ray itself would retry for minutes
            try:
                socket.create_connection((match[1], int(match[2])), timeout=_CONNECT_S).close()
            except (OSError, OverflowError) as error:
                raise UserError(
                    f"no Ray cluster answers at {self.address} ({error}); check compute.address="
                ) from error

    def banks(self, bank: str) -> list[str]:
        """The banks of all workers. The names are those of processes, so a run can change its
        compute.
        """
        return worker_banks(bank, self.workers)

    def settings(self, config: BatchSettings) -> BatchSettings:
        """The configuration of an actor: a thread for each of its cores, and the GPU that Ray
        assigns.
        """
        values: dict[str, Any] = {"threads": config.threads or max(1, int(self.cpus))}
        if self.gpus and config.backbone["device"] == "cpu":
            values["backbone"] = config.backbone | {"device": "cuda"}
        return config.changed(**values)

    def write(self, path: Path, rows: Sequence[run_folder.Row]) -> None:
        """Write answers.parquet. With a cluster, Ray writes it on the node of this process."""
        if not self._connected or not rows:
            run_folder.write_parquet(path, rows)
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # the writing process has another working folder
        parts = path.absolute().with_name(path.name + ".parts")
        shutil.rmtree(parts, ignore_errors=True)
        with _ray_errors():
            table = ray.data.from_arrow(run_folder.to_table(rows))
            table.write_parquet(
                str(parts), ray_remote_args={"num_cpus": 0, "scheduling_strategy": here}
            )
        (part,) = parts.glob("*.parquet")
        part.replace(path)
        shutil.rmtree(parts)

    def close(self) -> None:
        """Disconnect; stop a cluster that was started here.

        Waits until the actors have exited, because their banks stay locked until then.
        """
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False
            deadline = time.monotonic() + _MAX_CLOSE_S
            while any(map(_has_writer, self.banks(self._bank))) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _connect(self) -> None:
        """UserError when no cluster answers, or when no node is large enough for an actor."""
        for name, value in (
            ("RAY_USAGE_STATS_ENABLED", "0"),
            ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
        ):
            os.environ.setdefault(name, value)
        os.environ.setdefault(
            "RAY_BACKEND_LOG_LEVEL", "fatal"
        )  # failures are reported in our own sentences
        import ray
        import ray.data

        options: dict[str, Any] = {}
        if self.address is None:
            options = {
                "num_cpus": max(1, math.ceil(self.workers * self.cpus)),
                "object_store_memory": self.store_mb * 10**6,
            }
            options |= {"include_dashboard": False}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            ray.init(
                address=self.address or "local",
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            if self.address is None:
                raise UserError(
                    f"Ray cannot be started here ({_last_line(error)}); use compute=local"
                ) from error
            raise UserError(
                f"Ray at {self.address} does not answer ({_last_line(error)}); check "
                "compute.address="
            ) from error
        self._connected = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        warnings.filterwarnings("ignore", module=r"ray\..*")
        self._check_nodes()

    def _check_nodes(self) -> None:
        """UserError when no node is large enough for an actor. Ray would wait for one silently."""
        import ray

        for name, required in (("CPU", self.cpus), ("GPU", self.gpus)):
            largest = max(
                (node["Resources"].get(name, 0) for node in ray.nodes() if node["Alive"]), default=0
            )
            if largest < required:
                raise UserError(
                    f"no node of the Ray cluster has {required:g} {name}s, the largest has "
                    f"{largest:g}; use a smaller compute.{name.lower()}s="
                )


class _Actor:
    """A worker on a node. It loads its model for the first video."""

    def __init__(
        self, settings: BatchSettings, workers: int, tries: int, downloads: str, folder: str
    ) -> None:
        # relative paths start here; a node without this folder needs absolute ones
        with suppress(OSError):
            os.chdir(folder)
        self._settings, self._workers, self._tries = settings, workers, tries
        self._downloads = Path(downloads)
        self._worker: Worker | None = None
        self._own = ""

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """One task in; one row for its videos and one for each question out.

        Every try yields the same number of rows in the same order, because Ray counts what it has
        delivered. If encoding fails, the first row lacks that video.
        """
        task: Task = pickle.loads(table["task"][0].as_py())
        try:
            for event in self._events(task):
                if isinstance(event, QuestionAnswered):
                    yield _row("answered", event.row)
                else:
                    yield _row("encoded", [asdict(one) for one in event])
        except Exception as error:
            yield _row(
                "stop",
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}",
            )

    def _events(self, task: Task) -> Iterator[Encoded | QuestionAnswered]:
        from pipeline.batch.compute.rows import failure
        from pipeline.batch.compute.worker import Worker

        if _count_attempt(task) > self._tries:
            yield ()
            yield from (
                failure(task, job, f"the worker died {self._tries} times at it")
                for job in task.in_order()
            )
            return
        if self._worker is None:
            self._worker = Worker(self._settings, self._downloads, lambda event: None)
        yield from self._worker.events(self._claim_bank(self._worker, task))

    def _claim_bank(self, worker: "Worker", task: Task) -> Task:
        """The task with a bank that has the whole video, or else one that this actor has locked.

        Order: the bank with a part of the video, the actor's own bank, the first unlocked one.
        """
        root = self._settings.bank
        if not task.finished:  # a lost actor may have encoded it since the task was planned
            banks = worker_banks(root, self._workers)
            (current,) = plan_tasks(task.jobs[:1], banks, self._downloads)
            task = replace(task, bank=current.bank, finished=current.finished)
        if task.finished:
            return task
        for bank in chain(filter(None, (task.bank, self._own)), bank_names(root)):
            try:
                worker.claim(bank)
            except BankBusyError:
                continue
            self._own = bank
            return replace(task, bank=bank)
        raise AssertionError("there is always another name")


def _row(kind: str, data: Any) -> pyarrow.Table:
    """One row. kind: "encoded", "answered", or "stop" (data is the reason)."""
    return pyarrow.table({"kind": [kind], "data": [json.dumps(data)]})


def _parse_row(row: dict[str, str]) -> list[VideoEncoded | QuestionAnswered]:
    """The events of a row. UserError for "stop"."""
    data = json.loads(row["data"])
    if row["kind"] == "stop":
        raise UserError(data)
    if row["kind"] == "encoded":
        return [VideoEncoded(**one) for one in data]
    return [QuestionAnswered(data)]


def _has_writer(bank: str) -> bool:
    """Whether a process holds the write lock of a bank."""
    if not Path(bank, "bank.json").is_file():
        return False
    try:
        WriterLock(Path(bank)).release()
    except BankBusyError:
        return True
    return False


def _count_attempt(task: Task) -> int:
    """How often this run has started the task, counting now. The cluster's head stores it."""
    import ray
    from ray.experimental import internal_kv

    run = ray.get_runtime_context().get_job_id()
    key = f"reelbank {run} {task.name} {task.start} {task.end}".encode()
    count = int(internal_kv._internal_kv_get(key) or 0) + 1
    internal_kv._internal_kv_put(key, str(count).encode(), overwrite=True)
    return count


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Convert Ray's errors into a UserError."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray cluster cannot go on ({_last_line(error)}); run the same command again"
        ) from error


def _last_line(error: Exception) -> str:
    """The informative line of Ray's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
