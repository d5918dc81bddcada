"""`reelbank watch`: the films of a folder go into a bank as they come."""

import gc
import signal
import threading
from pathlib import Path

from encoders.errors import UserError
from pipeline.config.tasks.file_settings import DeletedFilms, WatchSettings
from pipeline.engine import Engine
from pipeline.watch.folder import Folder
from pipeline.watch.folder_watch import FolderWatch


def run(settings: WatchSettings) -> int:
    """reelbank watch. Ends with Ctrl-C or SIGTERM, behind the current segment."""
    root = Path(settings.folder)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "is not there"
        raise UserError(f"folder={root} {what}; give a folder with films")
    if not settings.settle >= 0 or not settings.every > 0:
        raise UserError(
            f"settle={settings.settle:g} and every={settings.every:g} are no waits; use 0 or more "
            "seconds, and every= above 0"
        )
    gc.enable()  # a watch goes on for weeks
    cancelled = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: cancelled.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with Engine.of(settings) as engine:
            folder = Folder(root.absolute(), recursive=settings.recursive)
            watch = FolderWatch(
                engine,
                folder,
                settle=settings.settle,
                drops=settings.deleted == DeletedFilms.drop,
                tell=_tell,
            )
            if not settings.once:
                _tell(f"watching {root}, bank {engine.bank}; Ctrl-C stops")
            watch.run(cancelled, every=settings.every, once=settings.once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)
