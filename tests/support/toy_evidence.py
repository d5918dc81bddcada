"""Toys of families: encode frames in segments, read them, and ask by the command line."""

from contextlib import nullcontext
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401

import pytest
import torch

from encoders.models.video_llm import VideoLLM
from encoders.prefill import WindowPrefill
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.reader import KVReader, TokenReader
from tests.support.families import FAMILIES, FPS, backbone_of, folder
from tests.support.paths import CONF
from tests.support.toys import toy_parts

QUESTION = "In what order did the star and the circle appear?"
READERS = [TokenReader, KVReader]
# a model behind an address is no VideoLLM
YAMLS = sorted(set((CONF / "backbone").glob("*.yaml")) - {CONF / "backbone" / "endpoint.yaml"})


def silent(stage: str):
    """A timer of stages that times nothing."""
    return nullcontext()


def toy_of(name: str) -> VideoLLM:
    """Skips the test if the package of its processor is missing."""
    if FAMILIES[name].needs:
        pytest.importorskip(FAMILIES[name].needs)
    return backbone_of(name)


def encode(backbone, frames, sizes, window=1000, prefill=None) -> list[Run]:
    """Encode in segments of these many sampled frames; one run per segment."""
    prefill = prefill or WindowPrefill(backbone, window_frames=window, dtype="float32")
    runs, at, first = [], 0, 0
    for number, size in enumerate(sizes):
        seen = backbone.encode_frames(frames.part(at, at + size))
        runs.append(Run("toy", number, first, seen, prefill(seen)))
        at, first = at + size, first + len(seen.times)
    assert at == len(frames)
    return runs


def evidence(runs: list[Run]) -> Evidence:
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 0.5)


def arguments_for(family, film: Path, bank: Path, *more: str) -> list[str]:
    settings = {"path": folder(family.name), "dtype": "float32"} | family.settings
    yaml = next(
        file.stem
        for file in reversed(YAMLS)
        if f".{family.adapter.__qualname__}\n" in file.read_text()
    )
    return [
        f"video={film}", f"bank={bank}", f"question={QUESTION}", f"fps={FPS}", toy_parts()[1],
        f"backbone={yaml}", "reader.max_new_tokens=6",
        *(f"++backbone.{key}={value}" for key, value in settings.items()), *more,
    ]  # fmt: skip
