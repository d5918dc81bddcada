"""One small bank of every kind, and the commands that write and question it.

The film (tests/data/banks_2649461/film.mp4, 16 s, 192x108, four frames a second) shows four cards
of the needle world: code 4821 (1 to 3.5 s), Alice (5 to 7.5 s), a red star (7.5 to 12.5 s) and a
key (13 to 15.5 s). The picture stands still while the star shows, so that compressors have
something to drop. A subtitle file lies beside the film.

Two kinds are missing. No command of one line writes a live stream; only `serve` and `demo` do. A
quantized bank with an unfinished video needs a crash, and the tests of law 4 make one. Knows the
command line and nothing else.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "banks_2649461"
QUESTIONS = (
    "What is the code on the card?",
    "Which icon appears in the video?",
    "What shape is blue?",
)
Reply = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a bank is made and questioned. All are overrides of the command line."""

    parts: tuple[str, ...] = ()  # of `ingest` and of `ask`
    ingest: tuple[str, ...] = ()  # of `ingest` alone
    after: tuple[tuple[str, ...], ...] = ()  # commands after `ingest`, without bank=
    find: tuple[tuple[str, ...], ...] = (("query=a red star", "channels=[picture]"),)
    packed: bool = True  # part of the fixture in tests/data


_EXACT = ("prefill.dtype=float32",)
_INT8 = ("kv_dtype=int8", "token_dtype=int8")
_INT4 = ("kv_dtype=int4", "token_dtype=int4")
_SMALL = ("prefill=none", "reader=tokens", "retriever=clip", "token_dtype=int8")
_SCENES = ("segmenter=scene", "segmenter.warm_up=3")
_WINDOW = ("segmenter.seconds=4",)
_WORDS = (
    ("query=the stone bridge",),
    ("query=a red star", "channels=[subtitle,caption,ocr,picture]"),
)
_COMPRESSORS = {
    "chain": ("compressor=chain",),
    "framediff": ("compressor=framediff",),
    "merge": ("compressor=merge",),
    "pool": ("compressor=pool", "compressor.size=2"),
    "shrink": ("compressor=shrink",),
}

RECIPES: dict[str, Recipe] = {
    "plain": Recipe(
        (*_EXACT, *_WINDOW),
        find=(("query=a red star",), ("query=a red star", "channels=[picture,kv]")),
    ),
    "bfloat16": Recipe(_WINDOW),
    "int8": Recipe((*_INT8, *_WINDOW)),
    "int4": Recipe((*_INT4, *_WINDOW)),
    "compact": Recipe(("experiment=compact", *_WINDOW)),
    **{name: Recipe((*_EXACT, *_INT4, *_WINDOW, *parts)) for name, parts in _COMPRESSORS.items()},
    **{
        f"{name}_float32": Recipe((*_EXACT, *_WINDOW, *parts), packed=False)
        for name, parts in _COMPRESSORS.items()
    },
    "scene": Recipe((*_EXACT, *_INT4, *_SCENES)),
    "scene_float32": Recipe((*_EXACT, *_SCENES), packed=False),
    "no_kv": Recipe(("prefill=none", "reader=tokens", "retriever=clip", *_WINDOW)),
    "subtitles": Recipe((*_SMALL, *_WINDOW), ("text=subtitles",), find=_WORDS),
    "dense": Recipe(
        (*_SMALL, *_WINDOW, "dense=minilm"),
        ("text=subtitles",),
        find=(
            *_WORDS,
            ("query=the stone bridge", "dense=minilm"),
            ("query=end of the tour", "dense=minilm", "late_lines=4"),
        ),
    ),
    "captions": Recipe(
        (*_SMALL, *_WINDOW),
        ("text=captions", f"text.captions.prompt={QUESTIONS[0]}"),
        find=(("query=4821",), *_WORDS),
    ),
    "ocr": Recipe((*_SMALL, *_WINDOW), ("text=ocr",), find=(("query=4821",), *_WORDS)),
    "began": Recipe((*_SMALL, *_WINDOW), ("began=2026-11-20T12:00:00+00:00",)),
    "pruned": Recipe(
        (*_SMALL, *_WINDOW),
        ("began=2026-11-20T12:00:00+00:00",),
        after=(("bank", "action=prune", "max_bytes=30000"),),
    ),
    "part": Recipe((*_SMALL, *_WINDOW, "start=4", "end=12")),
}


class CommandLine:
    """The command line of a checkout, in one process that stays."""

    def __init__(self, checkout: Path = ROOT) -> None:
        """RuntimeError when Python finds the packages elsewhere."""
        runner = Path(__file__).with_name("command_runner.py")
        # one thread: sums of floats come in one order
        environment = os.environ | {
            "PYTHONPATH": str(checkout),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(runner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        package = Path(self._reply()["package"])
        if package.resolve() != (checkout / "pipeline").resolve():
            self.close()
            raise RuntimeError(f"{package} is in use, not the one in {checkout}")

    def run(self, folder: Path, *arguments: str) -> Any:
        """What a command prints as JSON. RuntimeError if it fails; `verify` may find damage."""
        assert self._process.stdin is not None
        request = {"folder": str(folder), "arguments": [*arguments, "format=json"]}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        reply = self._reply()
        if not reply["output"]:
            raise RuntimeError(
                f"{' '.join(arguments)}: exit code {reply['code']}, {reply['errors']}"
            )
        return without_timings(json.loads(reply["output"]))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _reply(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the command line ended with code {self._process.wait()}")
        reply: Reply = json.loads(line)
        return reply


@contextmanager
def command_line(checkout: Path = ROOT) -> Iterator[CommandLine]:
    """A command line that is closed afterwards."""
    line = CommandLine(checkout)
    try:
        yield line
    finally:
        line.close()


def without_timings(value: Any) -> Any:
    """The same JSON without the seconds of each stage, which no two runs share, and without an
    empty list of further frame embedders, which old replies do not have."""
    if isinstance(value, dict):
        return {
            k: without_timings(v)
            for k, v in value.items()
            if not (k in ("seconds", "text_seconds") and isinstance(v, dict))
            and not (k == "pictures" and not v)
        }
    return [without_timings(each) for each in value] if isinstance(value, list) else value


def put_film(folder: Path) -> None:
    """Film and subtitles, under a relative name: a bank stores the path that it is given."""
    for name in ("film.mp4", "film.srt"):
        shutil.copyfile(DATA / name, folder / name)


def unpack(folder: Path, name: str) -> Path:
    """The bank of the fixture as the old commit left it."""
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def make(line: CommandLine, folder: Path, name: str) -> Reply:
    """Write the bank folder/NAME, where the film lies. Returns what `ingest` and the commands after
    it print.
    """
    recipe = RECIPES[name]
    replies: Reply = {"ingest": ingest(line, folder, name)}
    for number, command in enumerate(recipe.after):
        replies[f"after {number}"] = line.run(folder, *command, f"bank={name}")
    return replies


def ingest(line: CommandLine, folder: Path, name: str) -> Reply:
    """Encode the film; nothing new where the bank is whole."""
    recipe = RECIPES[name]
    reply: Reply = line.run(
        folder, "ingest", "video=film.mp4", "fps=0.5", f"bank={name}", *recipe.parts, *recipe.ingest
    )
    return reply


def ask(
    line: CommandLine, folder: Path, name: str, questions: Sequence[str] = QUESTIONS
) -> list[Reply]:
    """Answers that read four of eight frames."""
    parts = RECIPES[name].parts
    # the default of that commit; today's would add vectors to the bank
    dense = () if any(part.startswith("dense=") for part in parts) else ("dense=none",)
    own = (f"bank={name}", "fps=0.5", "read_tokens=64", "recent_frames=1", *parts, *dense)
    return [
        line.run(folder, "ask", "video=film.mp4", f"question={question}", *own)
        for question in questions
    ]


def find(line: CommandLine, folder: Path, name: str) -> list[Reply]:
    """Moments for each query of the recipe."""
    return [
        line.run(folder, "find", f"bank={name}", "fps=0.5", *query) for query in RECIPES[name].find
    ]


def inspect(line: CommandLine, folder: Path, name: str) -> Reply:
    """Everything that can be asked of a bank."""
    return {
        "ask": ask(line, folder, name),
        "find": find(line, folder, name),
        "ls": line.run(folder, "bank", "action=ls", f"bank={name}"),
        "segments": line.run(folder, "bank", "action=ls", f"bank={name}", "start=0"),
        "verify": line.run(folder, "bank", "action=verify", f"bank={name}"),
    }
