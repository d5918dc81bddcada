"""`reelbank skill`: a SKILL.md that teaches an agent the commands, in the Agent Skills format."""

import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from encoders.errors import UserError
from memory.storage.atomic import write_atomically


def text() -> str:
    """The skill: front matter with name and description, then Markdown."""
    return files("pipeline.agents").joinpath("skill.md").read_text(encoding="utf-8")


def run(words: Sequence[str], options: Mapping[str, str]) -> int:
    """reelbank skill [-o FILE]: on stdout, or into a file, whose folder is made."""
    if words:
        raise UserError(f"reelbank skill takes no word, such as {words[0]}; leave it out")
    out = options.get("out", "")
    if not out:
        sys.stdout.write(text())
        return 0
    path = Path(out).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file, such as {path / 'SKILL.md'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text().encode())
    print(f"{path}: the skill reelbank")
    return 0
