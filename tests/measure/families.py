"""How near every family is to its own processor and transformers' own forward, as a table.

    .venv/bin/python -m tests.measure.families

Tiny random models of the real classes with their real processors, float32. Both get the same frames
of the final size, their times, and a question. A second table says which grid a film of another
shape gets.
"""

import argparse
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import torch

from encoders.models.families.patch_grid import grid_for
from encoders.models.positions import Cursor
from encoders.models.video_llm import VideoLLM
from encoders.prefill import NoPrefill, WindowPrefill
from encoders.schema import Frames
from memory.schema import Evidence, Hits, Question, Run
from pipeline.answer.reader import KVReader, TokenReader
from tests.support import measurement_page
from tests.support.families import FAMILIES, FPS, Family, as_llavas_processor, frames_for
from tests.support.more_families import MORE

QUESTION = "In what order did the star and the circle appear?"
FRAMES = 10
SHAPES = {"16:9": 16 / 9, "4:3": 4 / 3, "21:9": 21 / 9, "1:1": 1.0, "9:16": 9 / 16}
# settings that make a family write what its processor in transformers writes
AS_PROCESSOR: dict[str, dict[str, Any]] = {"llava_ov": {"time_tags": False}}


@dataclass(frozen=True)
class Row:
    """What was compared for one family. None: the reader does not serve it."""

    ids: str  # number of equal ids, or where they differ
    positions: str
    pixels: float  # largest difference
    tokens: float  # largest difference of the logits with reader=tokens
    kv: float | None  # and with reader=kv
    spread: float  # standard deviation of the logits


def silent(stage: str) -> Any:
    return nullcontext()


def compare(family: Family) -> Row:
    """One family against its processor and the library's forward."""
    backbone = family.load(**AS_PROCESSOR.get(family.name, {}))
    frames = frames_for(backbone, FRAMES)
    reference = as_llavas_processor if family.name in AS_PROCESSOR else family.reference
    wanted, inputs = (family.by_tokens or reference)(backbone, frames, QUESTION)
    stored = wanted
    if family.by_tokens is not None:  # keys saw another text than tokens do
        stored, _ = family.reference(backbone, frames, QUESTION)
    kv = None
    if not backbone.language_model.other_layers:
        kv = furthest(KVReader(backbone), evidence(backbone, frames, True), stored)
    return Row(
        ids_of(backbone, frames, inputs),
        positions_of(backbone, frames, inputs),
        pixels_of(backbone, frames, inputs),
        furthest(TokenReader(backbone), evidence(backbone, frames, False), wanted),
        kv,
        float(wanted.std()),
    )


def evidence(backbone: VideoLLM, frames: Frames, keeps_kv: bool) -> Evidence:
    """Two segments with all frames."""
    prefill = WindowPrefill(backbone, dtype="float32") if keeps_kv else NoPrefill(backbone)
    runs: list[Run] = []
    first = 0
    for number, (a, b) in enumerate(((0, 4), (4, len(frames)))):
        seen = backbone.encode_frames(frames.part(a, b))
        runs.append(Run("toy", number, first, seen, prefill(seen)))
        first += len(seen.times)
    none = Hits(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    return Evidence(Question(QUESTION, "toy"), tuple(runs), none, 0, 1 / FPS)


def furthest(reader: Any, given: Evidence, wanted: torch.Tensor) -> float:
    """The largest difference of the logits behind the video."""
    got = reader.logits(given, silent)
    return float((got - wanted[-len(got) :]).abs().max())


def ids_of(backbone: VideoLLM, frames: Frames, inputs: dict[str, Any]) -> str:
    """The ids of our prompt against those of the processor."""
    seen = backbone.encode_frames(frames)
    given = inputs["input_ids"][0].tolist()
    ids = backbone.opening_ids(len(seen.times), float(seen.times[-1]))
    times = zip(seen.starts.tolist(), seen.times.tolist(), strict=True)
    for (start, end), (a, b) in zip(times, seen.ranges(), strict=True):
        before, behind = backbone.frame_text_ids(start, end)
        ids = ids + before
        ids = ids + [given[min(len(ids), len(given) - 1)]] * (b - a) + behind
    # what follows the last frame and is no text stands for the family's own token
    ids = ids + [given[min(len(ids), len(given) - 1)]] * len(backbone.after_video())
    ids = ids + backbone.prompt.suffix_ids(QUESTION)
    if ids == given:
        return f"{len(ids)} equal"
    same = next((n for n, (a, b) in enumerate(zip(ids, given, strict=False)) if a != b), 0)
    return f"differ from {same} of {len(given)} on"


def positions_of(backbone: VideoLLM, frames: Frames, inputs: dict[str, Any]) -> str:
    """Positions on three axes against the model's own function."""
    rule = backbone.language_model.positions
    if rule.axes == 1:
        return "one axis"
    names = ("input_ids", "mm_token_type_ids", "attention_mask", "video_grid_thw")
    more = ("second_per_grid_ts",) if "second_per_grid_ts" in inputs else ()
    given = {name: inputs[name] for name in (*names, *more)}
    wanted, _ = backbone.model.model.get_rope_index(**given)
    embeds = backbone.frame_embeds(backbone.encode_frames(frames))
    first, cursor = rule.of_text(len(backbone.prompt.preamble_ids()), Cursor())
    middle, cursor = rule.of_frames(embeds.pos, embeds.offsets, cursor)
    last, _ = rule.of_text(len(backbone.prompt.suffix_ids(QUESTION)), cursor)
    ours = torch.cat([first, middle, last], dim=1)
    if torch.equal(ours, wanted[-3:, 0]):
        return f"{ours.shape[1]} equal"
    return f"differ by up to {int((ours - wanted[-3:, 0]).abs().max())}"


def pixels_of(backbone: VideoLLM, frames: Frames, inputs: dict[str, Any]) -> float:
    """The largest difference of what the tower gets, in normalized units."""
    made: Any = backbone
    got = made.pixels(frames.pixels)
    got = got[0] if isinstance(got, tuple) else got
    wanted = inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    assert wanted is not None
    return float((got - wanted.reshape(got.shape)).abs().max())


def report(arguments: argparse.Namespace) -> None:
    """Print both tables."""
    print(f"## Against processor and forward, {FRAMES} frames\n")
    print("| family | ids | positions | pixels | logits, tokens | logits, kv | their spread |")
    print("|---|---|---|---|---|---|---|")
    for name, family in (FAMILIES | MORE).items():
        row = compare(family)
        kv = "refused" if row.kv is None else f"{row.kv:.1e}"
        print(
            f"| {name} | {row.ids} | {row.positions} | {row.pixels:.1e} | {row.tokens:.1e} "
            f"| {kv} | {row.spread:.2f} |",
            flush=True,
        )
    print("\n## Grids of films, at most 144 tokens\n")
    print("| film | rows x columns | tokens | distortion | squeezed to 16:9 |")
    print("|---|---|---|---|---|")
    for shape, ratio in SHAPES.items():
        rows, columns = grid_for(ratio, 144)
        own, squeezed = (math.exp(abs(math.log(r / ratio))) for r in (columns / rows, 16 / 9))
        print(f"| {shape} | {rows} x {columns} | {rows * columns} | {own:.2f} | {squeezed:.2f} |")


def main() -> None:
    """Read the command line."""
    measurement_page.run(argparse.ArgumentParser(description=__doc__), report)


if __name__ == "__main__":
    main()
