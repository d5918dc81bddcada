"""Work on this machine: in this process, or in several with a model each. Knows tasks and events, and no file of answers.

Each worker writes a bank of its own, because a bank has one writer: the first one DIR itself, the others DIR.1, DIR.2, ...
Every worker reads them all. A video that an interrupted run left half encoded goes to whoever owns its bank. A worker that
dies (out of memory, say) is replaced, and what it was at is tried once more; workers end with the process that started them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from encoders.errors import UserError
from pipeline.batch import run_folder
from pipeline.batch import tasks as plan
from pipeline.batch.schema import Answered, Event, Task, Tell

_TRIES = 2  # of a task whose worker died


class Local:
    """The compute part: runs tasks, tells events."""

    def __init__(self, *, workers: int, devices: Any) -> None:
        if workers < 1:
            raise UserError(f"compute.workers={workers} does nothing; use 1 or more")
        if devices is not None and (isinstance(devices, str) or not len(devices)):
            raise UserError(
                f"compute.devices={devices} is no list of devices; write compute.devices=[cuda:0,cuda:1]"
            )
        self.workers = workers
        self.devices: list[str] = [str(device) for device in devices or ()]

    def check(self, config: DictConfig) -> None:
        """Anything goes."""

    def __call__(
        self, config: DictConfig, tasks: Sequence[Task], downloads: Path, tell: Tell
    ) -> None:
        """Run all tasks. UserError when none can go on."""
        if not tasks:
            return
        if self.workers == 1:
            self._here(config, tasks, downloads, tell)
        else:
            _Pool(self, config, downloads, tell).run(tasks)

    def banks(self, bank: str) -> list[str]:
        """All banks that there may be: of each worker, and of an earlier run that had more."""
        return plan.banks(bank, self.workers)

    def write(self, path: Path, rows: Sequence[run_folder.Row]) -> None:
        """answers.parquet."""
        run_folder.write_parquet(path, rows)

    def close(self) -> None:
        """Nothing is left open: workers end with their last task."""

    def settings(self, config: DictConfig, number: int) -> DictConfig:
        """The configuration of a worker: its device, and its share of the cores."""
        values: dict[str, Any] = {}
        if self.devices:
            values["backbone"] = {"device": self.devices[number % len(self.devices)]}
        if self.workers > 1 and not config.threads:
            values["threads"] = max(1, (os.cpu_count() or 1) // self.workers)
        merged = OmegaConf.merge(config, values)
        assert isinstance(merged, DictConfig)
        return merged

    def _here(self, config: DictConfig, tasks: Sequence[Task], downloads: Path, tell: Tell) -> None:
        from pipeline.batch.worker import Worker

        worker = Worker(self.settings(config, 0), downloads, tell)
        try:
            # each bank is opened once
            for task in sorted(tasks, key=lambda task: task.bank or str(config.bank)):
                worker.work(replace(task, bank=task.bank or str(config.bank)))
        finally:
            worker.close()


class _Pool:
    """Several workers and what they are at."""

    def __init__(self, local: Local, config: DictConfig, downloads: Path, tell: Tell) -> None:
        self._local, self._config, self._downloads, self._tell = local, config, downloads, tell
        self._context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
        self._banks = local.banks(str(config.bank))
        self._free: deque[Task] = deque()  # for anybody
        self._own: list[deque[Task]] = [deque() for _ in range(local.workers)]
        self._at: dict[Connection, tuple[int, Any, Task | None]] = {}
        self._tries: dict[str, int] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            owned = bool(task.bank) and not task.finished
            (
                self._own[self._banks.index(task.bank) % self._local.workers]
                if owned
                else self._free
            ).append(task)
        for number in range(min(self._local.workers, len(tasks))):
            self._start(number)
        try:
            while self._at:
                for told in wait(list(self._at)):
                    assert isinstance(told, Connection)
                    self._hear(told)
        finally:
            for told, (_, process, _) in self._at.items():
                process.kill()  # what it was writing is whole or absent
                process.join()
                told.close()

    def _start(self, number: int) -> None:
        here, there = self._context.Pipe()
        settings = OmegaConf.to_container(self._local.settings(self._config, number), resolve=True)
        process = self._context.Process(
            target=_serve, args=(there, settings, str(self._downloads)), daemon=True
        )
        process.start()
        there.close()
        self._at[here] = (number, process, None)
        self._next(here)

    def _next(self, told: Connection) -> None:
        """Give a worker its next task, or let it go."""
        number, process, _ = self._at[told]
        queue = self._own[number] or self._free
        task = queue.popleft() if queue else None
        if task is not None:
            task = replace(task, bank=task.bank or self._banks[number])
        # it died: `_hear` finds the end of the pipe
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            told.send(task)
        self._at[told] = (number, process, task)

    def _hear(self, told: Connection) -> None:
        number, process, task = self._at[told]
        try:
            message: Event | str | None = told.recv()
        except (EOFError, ConnectionResetError):
            self._gone(told)
            return
        if message is None:  # the task is done
            self._next(told)
        elif isinstance(message, str):
            raise UserError(message)
        else:
            if isinstance(message, Answered) and task is not None:
                rest = tuple(job for job in task.jobs if job.id != message.row["id"])
                self._at[told] = (number, process, replace(task, jobs=rest))
            self._tell(message)

    def _gone(self, told: Connection) -> None:
        """A worker has ended: because nothing was left, or in the middle of a task."""
        number, process, task = self._at.pop(told)
        told.close()
        process.join()
        if task is None:
            return
        from pipeline.batch.worker import failure

        key = f"{task.video} {task.start} {task.end}"
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] < _TRIES:
            self._own[number].append(task)
        else:
            for job in task.jobs:
                self._tell(
                    failure(
                        task,
                        job,
                        f"the worker died {_TRIES} times at it (exit code {process.exitcode})",
                    )
                )
        self._start(number)


def _serve(told: Connection, settings: Any, downloads: str) -> None:
    """A worker's process: takes tasks until None comes; says events, None after each task, a text when it cannot go on."""
    # who is interrupted is the process that started this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from pipeline.batch.worker import Worker

    config = OmegaConf.create(settings)
    assert isinstance(config, DictConfig)
    worker = None
    try:
        while (task := told.recv()) is not None:
            worker = worker or Worker(config, Path(downloads), told.send)
            worker.work(task)
            told.send(None)
    except UserError as error:
        told.send(str(error))
    finally:
        if worker is not None:
            worker.close()


def _end_with_parent() -> None:
    """A worker alone would go on writing the bank, and whoever resumes the run would be refused."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
