"""The command `reelbank`: a light front that parses, and the tasks behind it."""

from pipeline.cli.commands import TASKS
from pipeline.cli.entry import main, run

__all__ = ["TASKS", "main", "run"]
