"""`reelbank pull NAME`: fetches a published model into the hub's cache, where every command finds
it.

Says its size first, and asks where that is large. The same command goes on after an interruption.
Without a network, it says how to bring the files.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from encoders.conse.required_packages import missing_packages
from encoders.errors import UserError
from encoders.hub_cache import cached_folder, has_weights
from pipeline.commands.machine.hub_repository import (
    HubRepository,
    NoHubError,
    Report,
    check_space,
    look_up,
)
from pipeline.commands.machine.model_sizes import CLIP_REPOSITORIES, CLIP_WEIGHTS
from pipeline.config.compose import options
from pipeline.config.tasks.bank_settings import PullSettings
from pipeline.config.tasks.pipeline_settings import OutputFormat
from pipeline.config.units import format_size, parse_size


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that a user asked for."""

    name: str
    repository: str
    revision: str
    brought: str  # settings that use a folder with its files
    used: str  # what to type next

    def here(self) -> Path | None:
        """The folder in the cache if it has all weights; asks no hub."""
        if self.name in CLIP_REPOSITORIES:
            return cached_folder(self.repository, self.revision, CLIP_WEIGHTS)
        folder = cached_folder(self.repository, self.revision)
        return folder if folder is not None and has_weights(folder) else None


def run(settings: PullSettings) -> int:
    """reelbank pull."""
    model = _hub_model(settings.name)
    limit = parse_size("ask_over", settings.ask_over)
    quiet = settings.format == OutputFormat.json
    try:
        repository = look_up(model.repository, model.revision)
        missing = repository.missing()
        if missing:
            _announce(model, repository, missing)
            check_space(repository)
            if missing > limit and not settings.yes:
                _ask(model, missing)
        with _bar(model.name, repository.size, quiet) as report:
            folder = repository.fetch(report)
    except NoHubError as error:
        here = model.here()
        if here is None:
            raise UserError(
                f"{error}; where there is a network, say `hf download {model.repository} "
                f"--local-dir DIR`, bring DIR here and give {model.brought}, or bring the cache "
                "and set HF_HOME to it"
            ) from error
        print(f"reelbank: {error}; what is here is used.", file=sys.stderr)
        folder, repository, missing = here, None, 0
    if quiet:
        facts = {
            "name": model.name,
            "repository": model.repository,
            "commit": repository.commit if repository else folder.name,
            "folder": str(folder),
            "bytes": repository.size if repository else None,
            "fetched_bytes": missing,
        }
        print(json.dumps(facts))
    else:
        print(f"{model.name} is in {folder}; say {model.used}")
    return 0


def _hub_model(name: str) -> HubModel:
    """The repository of a name. UserError if there is no such model."""
    if "/" in name:
        use = f"backbone=FAMILY backbone.path={name}"
        return HubModel(name, name, "main", "backbone.path=DIR", f"`reelbank ask FILM ... {use}`")
    if name in CLIP_REPOSITORIES:
        brought = f"clip={name} clip.pretrained=DIR/{CLIP_WEIGHTS}"
        next_line = f'`reelbank find FILM "..." clip={name}`'
        return HubModel(name, CLIP_REPOSITORIES[name], "main", brought, next_line)
    nodes = options("backbone", {"fps": 1.0})
    if name == "embedded":
        raise UserError("The embedded model is shipped with Reelbank; there is nothing to fetch")
    if name == "conse":
        raise UserError(
            "clip=conse is not fetched from a hub: "
            + (missing_packages() or "its packages are installed, so there is nothing to fetch")
        )
    if "path" not in nodes.get(name, {}):
        raise UserError(
            f"There is no model {name!r}; `reelbank models` lists them, beside "
            f"{', '.join(CLIP_REPOSITORIES)} for pictures, or give a repository as ORG/NAME"
        )
    return HubModel(
        name,
        str(nodes[name]["path"]),
        str(nodes[name].get("revision") or "main"),
        f"backbone={name} backbone.path=DIR",
        f'`reelbank ask FILM "..." -m {name}`',
    )


def _announce(model: HubModel, repository: HubRepository, missing: int) -> None:
    there = repository.size - missing
    print(
        f"{model.name}: {format_size(repository.size)} in {len(repository.files)} files of "
        f"{repository.id}"
        + (f", {format_size(there)} of them here" if there else "")
        + f"; into {repository.cache}",
        file=sys.stderr,
        flush=True,
    )


def _ask(model: HubModel, missing: int) -> None:
    """Ask on the terminal. UserError where nobody can answer, or the answer is no."""
    size = format_size(missing)
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{model.name} is {size}; say `reelbank pull {model.name} --yes`")
    print(f"Fetch {size}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was fetched")


@contextmanager
def _bar(name: str, size: int, quiet: bool) -> Iterator[Report]:
    """A bar on stderr with bytes, speed and time left; a line in 10 s outside a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        job = bar.add_task(f"fetching {name}", total=size)
        done, told = 0, time.perf_counter()

        def report(nbytes: int) -> None:
            nonlocal done, told
            done += nbytes
            bar.update(job, completed=done)
            now = time.perf_counter()
            if not quiet and not console.is_terminal and now - told > 10:
                told = now
                line = f"fetching {name}: {format_size(done)} of {format_size(size)}"
                print(line, file=sys.stderr, flush=True)

        yield report
