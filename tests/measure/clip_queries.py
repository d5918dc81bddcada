"""A clip as the query: whether what is found first is of the film that it was cut from.

    python -m tests.measure.clip_queries [--seconds 3] [--cuts 6]

Stretches are cut out of each real clip at even distances, and searched for as `find --image CLIP`
does, among the frames of all clips at one a second. The frames of a stretch, and those within a
second of it, are no results: else a search would find the stretch itself. Each frame embedder ranks
alone, and both together, by the ranks of `find`. `nearest`: a frame counts by the frame of the
stretch that it is nearest to, as the search does. `mean`: by the mean of them. Nothing may be tuned
on these films.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: timm imports torchvision)

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.conse.conse_encoder import ConseEncoder
from encoders.models.clip import ClipEncoder
from encoders.models.imagenet.efficientnet_lite import SIDE
from encoders.schema import DualEncoder, Frames, join_frames
from encoders.sources.file import FileSource
from encoders.sources.pictures import pictures_at
from memory.retrieval.frame_index import largest_products
from memory.retrieval.fusion import NEAR_S, Moment, fuse
from pipeline.config.task_settings import WEIGHTS
from pipeline.moments.finder import DEPTH
from pipeline.moments.picture_query import CLIP_FRAMES
from tests.support import measurement_page
from tests.support.paths import CLIPS

SMALL = 96  # pixels of the embedded backbone's frames
QUERY_SIDE = 384  # pixels of the longer side of a query's frames
APART_S = 1.0  # no result is closer to the stretch
LEAST_S = 6.0  # of a film
DRAWS = 10_000
BOTH = "both, as `find`"


@dataclass(frozen=True)
class Film:
    """A real clip: its frames at one a second, and rows of them by embedder."""

    path: Path
    frames: Frames
    rows: dict[str, Tensor]  # [T, E]


@dataclass(frozen=True)
class Cut:
    """A stretch of a film, to search for."""

    film: int
    start: float  # seconds
    end: float
    rows: dict[str, Tensor]  # [8, E]


def embedders() -> dict[str, DualEncoder]:
    return {
        "`conse`": ConseEncoder(),
        "`embedded`": ClipEncoder(f"local-dir:{WEIGHTS / 'clip'}"),
    }


def films(models: dict[str, DualEncoder]) -> list[Film]:
    """Clips of at least LEAST_S that can be read to their end."""
    every = []
    for path in sorted(CLIPS.iterdir()):
        if path.suffix not in (".mp4", ".mkv") or path.stem == "corrupted":
            continue
        source = FileSource(path, width=SMALL, height=SMALL)
        source.add_detail((SIDE, SIDE))
        frames = join_frames(list(source.frames()))
        if frames.times[-1] >= LEAST_S:
            rows = {name: model.embed_frames(frames) for name, model in models.items()}
            every.append(Film(path, frames, rows))
    return every


def cuts(
    every: list[Film], models: dict[str, DualEncoder], seconds: float, most: int
) -> Iterator[Cut]:
    """At most `most` stretches of each film, no two of which overlap."""
    for number, film in enumerate(every):
        room = float(film.frames.times[-1]) - seconds
        count = max(1, min(most, int(room // seconds)))
        for start in np.linspace(0.0, room, count) if count > 1 else [room / 2]:
            times = start + (np.arange(CLIP_FRAMES) + 0.5) * seconds / CLIP_FRAMES
            pictures = pictures_at(film.path, times.tolist(), QUERY_SIDE)
            pixels = np.stack([one for one in pictures if one is not None])
            frames = Frames("query", pixels, np.arange(float(len(pixels))))
            rows = {name: model.embed_frames(frames) for name, model in models.items()}
            yield Cut(number, float(start), float(start) + seconds, rows)


def allowed(cut: Cut, number: int, times: np.ndarray) -> np.ndarray:
    """[T] bool: the frames of a film that may be found."""
    apart = (times <= cut.start - APART_S) | (times >= cut.end + APART_S)
    return apart | (number != cut.film)


def moments(cut: Cut, every: list[Film], name: str, is_mean: bool) -> list[Moment]:
    """The best frames of all films by one embedder, best first."""
    queries = cut.rows[name]
    if is_mean:
        queries = normalize(queries.mean(0, keepdim=True), dim=-1)
    found = []
    for number, film in enumerate(every):
        scores = largest_products(film.rows[name].numpy(), queries.numpy())
        for at in np.flatnonzero(allowed(cut, number, film.frames.times)):
            time = float(film.frames.times[at])
            found.append(Moment(str(number), time, time + 1.0, float(scores[at]), (), at=time))
    found.sort(key=lambda one: (-one.score, one.video_id, one.start))
    return found[:DEPTH]


def shares(cut: Cut, best: list[Moment]) -> tuple[float, float]:
    """Whether the first moment is of the film, and the share of the first three that are."""
    right = [one.video_id == str(cut.film) for one in best[:3]]
    return float(right[0]), sum(right) / 3


def ceiling(cut: Cut, film: Film) -> tuple[float, float]:
    """The most that can be right: moments of the film that are NEAR_S apart, in time order."""
    last, count = -np.inf, 0
    for time in film.frames.times[allowed(cut, cut.film, film.frames.times)]:
        if time - last >= NEAR_S:
            last, count = time + 1.0, count + 1
    return float(count > 0), min(count, 3) / 3


def line(name: str, values: np.ndarray, owners: np.ndarray) -> str:
    """Percent of both shares, a mean over films of the mean over a film's cuts, with 95 % of a
    bootstrap over films. values: [cuts, 2]."""
    means = np.stack([values[owners == film].mean(0) for film in np.unique(owners)]) * 100
    draws = np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))
    low, high = np.percentile(means[draws].mean(1), [2.5, 97.5], axis=0)
    cells = [
        f"{mean:.1f} ({a:.1f} to {b:.1f})"
        for mean, a, b in zip(means.mean(0), low, high, strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} |"


def report(arguments: argparse.Namespace) -> None:
    models = embedders()
    with torch.inference_mode():
        every = films(models)
        asked = list(cuts(every, models, arguments.seconds, arguments.cuts))
    owners = np.array([cut.film for cut in asked])
    count = sum(len(film.frames) for film in every)
    print(
        f"{len(asked)} stretches of {arguments.seconds:g} s of {len(every)} films, "
        f"{count} frames: {', '.join(film.path.stem for film in every)}.\n"
    )
    print("| frame embedder | query | first moment of the film, % | of the first three, % |")
    print("|---|---|---|---|")
    most = np.array([ceiling(cut, every[cut.film]) for cut in asked])
    print(line("the most that is there | ", most, owners))
    by_film = [[allowed(cut, n, film.frames.times).sum() for n, film in enumerate(every)]
               for cut in asked]  # fmt: skip
    lots = np.array(
        [[row[cut.film] / sum(row)] * 2 for row, cut in zip(by_film, asked, strict=True)]
    )
    print(line("frames by lot | ", lots, owners))
    for name in (*models, BOTH):
        results = {}
        for kind in ("mean", "nearest"):
            found = []
            for cut in asked:
                names = tuple(models) if name == BOTH else (name,)
                ranked = {each: moments(cut, every, each, kind == "mean") for each in names}
                found.append(shares(cut, fuse(ranked, {})))
            results[kind] = np.array(found)
            print(line(f"{name} | {kind}", results[kind], owners))
        print(line(f"{name} | nearest less mean", results["nearest"] - results["mean"], owners))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cuts", type=int, default=6)
    measurement_page.run(parser, report)
