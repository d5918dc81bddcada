"""Run a batch on this machine: in this process, or in several processes with a model each.

Knows tasks and events; no answer files. A bank has one writer, so each worker writes its own: DIR,
DIR.1, DIR.2, ... All workers read all banks. A video that an interrupted run left half encoded goes
to the worker that owns its bank. A worker that dies (out of memory, for example) is replaced, and
its task is tried once more. Workers end with the process that started them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.batch import run_folder
from pipeline.batch.schema import EmitEvent, Event, QuestionAnswered, Task
from pipeline.batch.tasks import worker_banks
from pipeline.config.tasks.evaluation_settings import BatchSettings

_MAX_TRIES = 2  # of a task whose worker died


class LocalCompute:
    """The compute part for one machine."""

    def __init__(self, *, workers: int, devices: Any) -> None:
        if workers < 1:
            raise UserError(f"compute.workers={workers} does nothing; use 1 or more")
        if devices is not None and (isinstance(devices, str) or not len(devices)):
            raise UserError(
                f"compute.devices={devices} is no list of devices; "
                "write compute.devices=[cuda:0,cuda:1]"
            )
        self.workers = workers
        self.devices: list[str] = [str(device) for device in devices or ()]

    def check(self, config: BatchSettings) -> None:
        """Every configuration is possible."""

    def __call__(
        self, config: BatchSettings, tasks: Sequence[Task], downloads: Path, emit: EmitEvent
    ) -> None:
        """Run all tasks. UserError when no worker can continue."""
        if not tasks:
            return
        if self.workers == 1:
            self._run_here(config, tasks, downloads, emit)
        else:
            _WorkerPool(self, config, downloads, emit).run(tasks)

    def banks(self, bank: str) -> list[str]:
        """The banks of all workers, and those of an earlier run with more workers."""
        return worker_banks(bank, self.workers)

    def write(self, path: Path, rows: Sequence[run_folder.Row]) -> None:
        """Write answers.parquet."""
        run_folder.write_parquet(path, rows)

    def close(self) -> None:
        """Nothing to close: workers end with their last task."""

    def settings(self, config: BatchSettings, number: int) -> BatchSettings:
        """The configuration of worker `number`: its device and its share of the cores."""
        values: dict[str, Any] = {}
        if self.devices:
            values["backbone"] = config.backbone | {
                "device": self.devices[number % len(self.devices)]
            }
        if self.workers > 1 and not config.threads:
            values["threads"] = max(1, (os.cpu_count() or 1) // self.workers)
        return config.changed(**values)

    def _run_here(
        self, config: BatchSettings, tasks: Sequence[Task], downloads: Path, emit: EmitEvent
    ) -> None:
        from pipeline.batch.compute.worker import Worker

        worker = Worker(self.settings(config, 0), downloads, emit)
        try:
            # sorted by bank, so that each bank is opened once
            # and the whole bank last
            for task in sorted(
                tasks, key=lambda task: (not task.videos, task.bank or str(config.bank))
            ):
                worker.work(replace(task, bank=task.bank or str(config.bank)))
        finally:
            worker.close()


@dataclass(frozen=True, slots=True)
class _WorkerState:
    """A worker's process and the unanswered rest of its task."""

    number: int
    process: SpawnProcess
    task: Task | None = None  # None: no task is left for it


class _WorkerPool:
    """Worker processes, their task queues, and what each one is doing."""

    def __init__(
        self, compute: LocalCompute, config: BatchSettings, downloads: Path, emit: EmitEvent
    ) -> None:
        self._compute, self._config, self._downloads, self._emit = compute, config, downloads, emit
        self._context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
        self._banks = compute.banks(str(config.bank))
        self._shared: deque[Task] = deque()  # for any worker
        self._own: list[deque[Task]] = [deque() for _ in range(compute.workers)]
        self._workers: dict[Connection, _WorkerState] = {}
        self._tries: dict[str, int] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.bank and not task.finished:  # half encoded: for the owner of that bank
                self._own[self._banks.index(task.bank) % self._compute.workers].append(task)
            else:
                self._shared.append(task)
        for number in range(min(self._compute.workers, len(tasks))):
            self._start(number)
        try:
            while self._workers:
                for connection in wait(list(self._workers)):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
        finally:
            for connection, worker in self._workers.items():
                worker.process.kill()  # a segment that it was writing is complete or absent
                worker.process.join()
                connection.close()

    def _start(self, number: int) -> None:
        here, there = self._context.Pipe()
        settings = self._compute.settings(self._config, number)
        process = self._context.Process(
            target=_run_worker, args=(there, settings, str(self._downloads)), daemon=True
        )
        process.start()
        there.close()
        self._workers[here] = _WorkerState(number, process)
        self._send_task(here)

    def _send_task(self, connection: Connection) -> None:
        """Send a worker its next task; None ends it."""
        worker = self._workers[connection]
        queue = self._own[worker.number] or self._shared
        task = queue.popleft() if queue else None
        if task is not None:
            task = replace(task, bank=task.bank or self._banks[worker.number])
        # if it has died, `_receive` sees the end of the pipe
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(task)
        self._workers[connection] = replace(worker, task=task)

    def _receive(self, connection: Connection) -> None:
        worker = self._workers[connection]
        try:
            message: Event | str | None = connection.recv()
        except (EOFError, ConnectionResetError):
            self._handle_exit(connection)
            return
        if message is None:  # the task is done
            self._send_task(connection)
        elif isinstance(message, str):
            raise UserError(message)
        else:
            if isinstance(message, QuestionAnswered) and worker.task is not None:
                rest = tuple(job for job in worker.task.jobs if job.id != message.row["id"])
                task = replace(worker.task, jobs=rest)
                self._workers[connection] = replace(worker, task=task)
            self._emit(message)

    def _handle_exit(self, connection: Connection) -> None:
        """A worker has ended: without a task because none is left, or else by a crash."""
        worker = self._workers.pop(connection)
        connection.close()
        worker.process.join()
        task = worker.task
        if task is None:
            return
        from pipeline.batch.compute.rows import failure

        key = f"{task.name} {task.start} {task.end}"
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] < _MAX_TRIES:
            self._own[worker.number].append(task)
        else:
            exit_code = worker.process.exitcode
            why = f"the worker died {_MAX_TRIES} times at it (exit code {exit_code})"
            for job in task.jobs:
                self._emit(failure(task, job, why))
        self._start(worker.number)


def _run_worker(connection: Connection, config: BatchSettings, downloads: str) -> None:
    """The main function of a worker process: takes tasks until it receives None.

    Sends events, None after each task, and an error sentence when it cannot continue.
    """
    # Ctrl-C is handled by the parent process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    from pipeline.batch.compute.worker import Worker

    worker = None
    try:
        while (task := connection.recv()) is not None:
            worker = worker or Worker(config, Path(downloads), connection.send)
            worker.work(task)
            connection.send(None)
    except UserError as error:
        connection.send(str(error))
    finally:
        if worker is not None:
            worker.close()


def _exit_with_parent() -> None:
    """An orphaned worker would keep its bank locked, and a resumed run could not write to it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
