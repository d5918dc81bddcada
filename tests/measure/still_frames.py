"""How much of footage stands still, and what encoding it could save before the vision tower.

    python -m tests.measure.still_frames [--out PAGE] FILM... [--side 384] [--patch 14]

Each film is sampled at 1 frame a second, in segments of eight. A frame counts as still if the mean
difference of its pixels from the last frame that is not still is small; `compressor=merge` counts
tokens in this way. A patch counts by itself against the frame before. The first frame of a segment
is never still. Then the random 0.6 B model at 64 frames (bench_preset=small), by operations: the
most that leaving out so many frames could speed up encoding,

    total / (total - share of still frames * (tower + decoder + attention))

where a still frame costs nothing at all. That is a bound: it keeps a token, and is compared.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from encoders.errors import UserError
from encoders.sources.file import FileSource
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.evaluation.speed import operations
from tests.support import measurement_page

_SEGMENT, _FRAMES, _WINDOW = 8, 64, 32
_LEVELS = (1.0, 2.0, 4.0, 8.0)  # of 255


def segments(film: Path, side: int) -> Iterator[np.ndarray]:
    """[T, side, side] float32 brightness of each segment's frames."""
    source = FileSource(film, 1.0, width=side, height=side)
    frames = np.concatenate([batch.pixels.mean(3, dtype=np.float32) for batch in source.frames()])
    for first in range(0, len(frames), _SEGMENT):
        yield frames[first : first + _SEGMENT]


def still_frames(frames: np.ndarray, level: float) -> int:
    """Frames of a segment that differ from the last one that does not count by `level` at most."""
    kept, still = frames[0], 0
    for frame in frames[1:]:
        if np.abs(frame - kept).mean() <= level:
            still += 1
        else:
            kept = frame
    return still


def still_patches(frames: np.ndarray, level: float, patch: int) -> float:
    """The same of patches, each beside its own place in the frame before, in frames."""
    if len(frames) < 2:
        return 0.0
    cut = frames.shape[1] // patch * patch
    away = np.abs(np.diff(frames[:, :cut, :cut], axis=0))
    blocks = away.reshape(len(away), cut // patch, patch, cut // patch, patch).mean((2, 4))
    return float((blocks <= level).mean() * len(away))


def model_operations() -> operations.Operations:
    """Of encoding 64 frames with the random 0.6 B model."""
    made = compose("bench", ["bench_preset=small"]).made
    assert made is not None
    vision = SimpleNamespace(num_channels=3, **made["vision"])
    text = SimpleNamespace(**made["text"])
    config = SimpleNamespace(vision_config=vision, get_text_config=lambda: text)
    return operations.encode_windowed(
        config, _FRAMES, tokens=198, sink=14, segment=_SEGMENT, window=_WINDOW
    )


def report(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    print("| film | frames | " + " | ".join(f"frames, {level:g}" for level in _LEVELS), end=" | ")
    print(" | ".join(f"patches, {level:g}" for level in _LEVELS) + " |")
    print("|---" * (2 + 2 * len(_LEVELS)) + "|")
    total, sums = 0, np.zeros(2 * len(_LEVELS))
    for film in arguments.films:
        count, own = 0, np.zeros(2 * len(_LEVELS))
        try:
            for frames in segments(film, arguments.side):
                count += len(frames)
                own += [still_frames(frames, level) for level in _LEVELS] + [
                    still_patches(frames, level, arguments.patch) for level in _LEVELS
                ]
        except UserError as error:
            print(f"| {film.name} | left out: {error} |" + " |" * 2 * len(_LEVELS))
            continue
        _print(film.name, count, own)
        total, sums = total + count, sums + own
    _print("all", total, sums)
    did = model_operations()
    print("\n| 0.6 B, 64 frames | 10^9 operations a frame | share |\n|---|---|---|")
    for name in ("tower", "decoder", "attention", "total"):
        value = getattr(did, name)
        print(f"| {name} | {value / _FRAMES / 1e9:.1f} | {value / did.total:.0%} |")
    print(
        "\n| still frames | at most times as fast, tower alone | tower and decoder |\n|---|---|---|"
    )
    for level, each in zip(_LEVELS, sums / total, strict=False):
        tower = did.total / (did.total - each * did.tower)
        print(f"| {level:g} of 255: {each:.1%} | {tower:.2f} | {1 / (1 - each):.2f} |")


def _print(name: str, count: int, own: np.ndarray) -> None:
    shares = " | ".join(f"{each:.1%}" for each in own / max(count, 1))
    print(f"| {name} | {count} | {shares} |")


def main() -> None:
    """Count films."""
    register()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--patch", type=int, default=14)
    measurement_page.run(parser, report)


if __name__ == "__main__":
    main()
