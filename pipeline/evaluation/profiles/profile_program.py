"""What the programs of this folder share: drawn films, and a file that is fitted to them."""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memory.storage.atomic import write_atomically
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films

Options = argparse.Namespace


@dataclass(frozen=True, slots=True)
class Calibration:
    """Films that a model encodes to be fitted to."""

    paths: list[Path]
    numbers: list[int]  # of drawn films, which name their cards; none for films of the user
    settings: list[str]  # as of reelbank ask
    bank: Path  # a folder for as long as the program runs

    @property
    def overrides(self) -> list[str]:
        """The settings of a run that encodes the films; each names its own `video`."""
        common = [f"bank={self.bank}", "video=-", "question=-", "text=none", "clip=embedded"]
        return [*common, *self.settings]


@dataclass(frozen=True, slots=True)
class ProfileProgram:
    """`python -m pipeline.evaluation.profiles.NAME OUT [OPTION ...] [SETTING=VALUE ...]`."""

    description: str
    # -> the bytes of the file, and what to print of them
    fit: Callable[[Calibration, Options], tuple[bytes, str]]
    films: int  # drawn ones, where the user does not say
    first: int  # number of the first film; those of attention_recall begin at 0
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    takes_films: bool = False  # whether the user may name films in place of drawn ones

    def run(self) -> None:
        """Read the command line, fit, and write the file. UserError on settings that do not fit."""
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("out", type=Path)
        if self.takes_films:
            parser.add_argument("--film", type=Path, action="append", default=[], help="to encode")
        parser.add_argument("--films", type=int, default=self.films, help="drawn ones")
        parser.add_argument("--seconds", type=float, default=60.0, help="of a drawn film")
        self.add_options(parser)
        parser.add_argument(
            "settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask"
        )
        args = parser.parse_intermixed_args()
        register()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = list(args.film) if self.takes_films else []
            numbers = [] if paths else list(range(self.first, self.first + args.films))
            paths = paths or list(films(args.films, args.seconds, [], folder, first=self.first))
            own = Calibration(paths, numbers, args.settings, folder / "bank")
            data, note = self.fit(own, args)
        write_atomically(args.out, data)
        print(f"{args.out}: {note}")
