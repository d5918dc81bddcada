"""Frame embedders on real pictures: which film shows what is asked for, and what a frame costs.

    python -m tests.measure.pictures find FOLDER
    python -m tests.measure.pictures cost [--rounds 9]

`find`: the questions of tests/data/pictures, over the real clips and pictures that are here;
pictures of installed packages become films of four seconds in FOLDER. A film's score is that of its
best frame at one frame a second, as in `reelbank find`. The control is clip=conse with the vectors
of its classes dealt to other classes. `cost`: CPU ms (user and system) of a frame, arms taking
turns, and what is computed once. Nothing may be tuned on these questions.
"""

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import encoders.models.torchvision_ops  # noqa: F401  (first: timm imports torchvision)

import numpy as np
import torch
from PIL import Image

from encoders.conse.conse_encoder import ConseEncoder
from encoders.models.clip import ClipEncoder
from encoders.models.imagenet import efficientnet_lite
from encoders.models.imagenet.class_names import image_classes
from encoders.models.imagenet.efficientnet_lite import SIDE
from encoders.models.imagenet.image_classifier import _prepared
from encoders.models.imagenet.lite0_package import LITE0
from encoders.schema import DualEncoder, Frames, join_frames
from encoders.sources.file import FileSource
from pipeline.config.task_settings import WEIGHTS
from tests.support import measurement_page
from tests.support.paths import CLIPS, ROOT
from tests.support.videos import write_video

QUESTIONS = ROOT / "tests" / "data" / "pictures" / "questions.tsv"
SMALL = 96  # pixels of the embedded backbone's frames
DRAWS = 10_000
PICTURES = {".png", ".jpg"}


@dataclass(frozen=True)
class Asked:
    """A question and the film that it is about."""

    film: str
    question: str

    @property
    def is_of_a_clip(self) -> bool:
        return "/" not in self.film


def questions() -> list[Asked]:
    with QUESTIONS.open(encoding="utf-8", newline="") as stream:
        return [Asked(**row) for row in csv.DictReader(stream, delimiter="\t")]


def films(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """The files of the films that are here; pictures are turned into films."""
    found = {}
    for name in dict.fromkeys(names):
        package, _, rest = name.partition("/")
        if not rest:
            path = CLIPS / name
        else:
            spec = find_spec(package)
            places = spec.submodule_search_locations if spec else None
            path = Path(places[0]) / rest if places else Path("nowhere")
        if path.is_file() and path.suffix in PICTURES:
            path = film_of(path, folder / f"{name.replace('/', '-')}.mp4")
        if path.is_file():
            found[name] = path
    return found


def film_of(picture: Path, film: Path) -> Path:
    """Four seconds of 640 x 360 pixels, in which a window of the picture's width moves down it."""
    whole = Image.open(picture).convert("RGB")
    height = min(whole.height, round(whole.width * 9 / 16))

    def paint(number: int, seconds: float) -> np.ndarray:
        top = round((whole.height - height) * min(1.0, seconds / 3))
        return np.asarray(whole.crop((0, top, whole.width, top + height)).resize((640, 360)))

    if not film.exists():
        film.parent.mkdir(parents=True, exist_ok=True)
        write_video(film, 4, 5, size=(640, 360), paint=paint)
    return film


def frames_of(path: Path, detail: bool) -> Frames:
    """At one frame a second, for the embedded backbone. detail: with the second size as well."""
    source = FileSource(path, width=SMALL, height=SMALL)
    if detail:
        source.add_detail((SIDE, SIDE))
    return join_frames(list(source.frames()))


class Shuffled(ConseEncoder):
    """clip=conse that calls every class by another one's name."""

    def _class_vectors(self) -> torch.Tensor:
        vectors = super()._class_vectors()
        return vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))]


def arms() -> Iterator[tuple[str, DualEncoder, bool]]:
    """(name, embedder, whether it sees the frames' detail)."""
    yield "`conse`", ConseEncoder(), True
    yield "`conse`, bfloat16", ConseEncoder(dtype="bfloat16"), True
    yield f"`conse`, frames of {SMALL} x {SMALL} alone", ConseEncoder(), False
    yield "`embedded`", ClipEncoder(f"local-dir:{WEIGHTS / 'clip'}"), False
    yield "`conse`, class vectors shuffled", Shuffled(), True


def ranks(embedder: DualEncoder, every: dict[str, Frames], asked: Sequence[Asked]) -> np.ndarray:
    """[questions] rank of the right film, from 1; films that score the same share the mean rank."""
    texts = embedder.embed_texts([one.question for one in asked])
    names = list(every)
    best = torch.stack(
        [(texts @ embedder.embed_frames(every[name]).T).max(1).values for name in names], 1
    )
    right = torch.tensor([names.index(one.film) for one in asked])
    own = best.gather(1, right[:, None])
    above, same = (best > own).sum(1), (best == own).sum(1)
    found: np.ndarray = (above + (same + 1) / 2).numpy()
    return found


def line(name: str, found: np.ndarray) -> str:
    """R@1, R@3 and MRR with 95 % of a bootstrap over questions, and the mean rank."""
    draws = np.random.default_rng(0).integers(0, len(found), (DRAWS, len(found)))

    def value(score: Callable[[np.ndarray], np.ndarray], scale: float, digits: int) -> str:
        each = score(found) * scale
        low, high = np.percentile(each[draws].mean(1), [2.5, 97.5])
        return f"{each.mean():.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    parts = (
        value(lambda rank: rank <= 1, 100, 1),
        value(lambda rank: rank <= 3, 100, 1),
        value(lambda rank: 1 / rank, 1, 3),
    )
    return f"| {name} | {' | '.join(parts)} | {found.mean():.1f} |"


def chance(count: int) -> str:
    """Of a search that ranks so many films by lot."""
    mrr = sum(1 / rank for rank in range(1, count + 1)) / count
    return f"| chance | {100 / count:.1f} | {300 / count:.1f} | {mrr:.3f} | {(count + 1) / 2:.1f} |"


def find(folder: Path) -> None:
    every = questions()
    here = films([one.film for one in every], folder)
    absent = sorted({one.film for one in every} - here.keys())
    print(f"Not here, and left out: {', '.join(absent) or 'nothing'}.\n")
    for title, names in (
        ("The real clips", [name for name in here if "/" not in name]),
        ("All films", list(here)),
    ):
        asked = [one for one in every if one.film in names]
        sizes = {detail: {name: frames_of(here[name], detail) for name in names}
                 for detail in (False, True)}  # fmt: skip
        seconds = sum(len(frames) for frames in sizes[True].values())
        print(f"## {title}\n\n{len(asked)} questions, {len(names)} films, {seconds} frames.\n")
        print("| embedder | R@1 % | R@3 % | MRR | mean rank |\n|---|---|---|---|---|")
        print(chance(len(names)), flush=True)
        found = {}
        for name, embedder, detail in arms():
            found[name] = ranks(embedder, sizes[detail], asked)
            print(line(name, found[name]), flush=True)
        first = next(iter(found.values()))
        print("\nRight film behind the third place, by `conse`:\n")
        for one, rank in zip(asked, first, strict=True):
            if rank > 3:
                print(f"- {one.question} ({one.film}): {rank:.0f}")
        print()


def cost(rounds: int) -> None:
    """CPU ms of a frame, one thread, arms taking turns."""
    import timm

    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 720, 1280, 3), dtype=np.uint8)
    large = Frames("a", pixels, np.arange(16.0))
    square = Frames("a", np.ascontiguousarray(pixels[:, :SIDE, :SIDE]), np.arange(16.0))
    reference = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
    prepared = _prepared(square.pixels)
    channels_last = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
    channels_last = channels_last.to(memory_format=torch.channels_last)
    prepared_last = prepared.contiguous(memory_format=torch.channels_last)

    def conse(batch: int, dtype: str = "float32") -> Callable[[], object]:
        encoder = ConseEncoder(batch=batch, dtype=dtype)
        return lambda: encoder.embed_frames(square)

    def in_plain_torch(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with patch.object(efficientnet_lite, "is_supported", lambda *_: False):
                work()

        return run

    whole = ConseEncoder()
    embedded = ClipEncoder(f"local-dir:{WEIGHTS / 'clip'}")
    works: dict[str, Callable[[], object]] = {
        "timm's module": lambda: reference(prepared),
        "timm's module, channels last": lambda: channels_last(prepared_last),
        "`conse`, one frame at a time": conse(1),
        "`conse`, batches of 4 (default)": conse(4),
        "`conse`, batches of 16": conse(16),
        "`conse`, batches of 4, ReLU6 in passes of its own": in_plain_torch(conse(4)),
        "`conse`, bfloat16, batches of 4": conse(4, "bfloat16"),
        "`conse`, frames of 1280 x 720 (scaled by torch)": lambda: whole.embed_frames(large),
        "`embedded`": lambda: embedded.embed_frames(square),
    }
    print(f"{rounds} rounds, one thread, weights: {LITE0.name}.\n")
    in_turns(works, 16, rounds)
    film = CLIPS / "dog.mp4"
    if film.exists():
        count = len(frames_of(film, detail=True))
        print(f"\nDecoding {film.name} (1280 x 720) for the embedded backbone.\n")
        arms_of_decoding: dict[str, Callable[[], object]] = {
            f"frames of {SMALL} x {SMALL}": lambda: frames_of(film, detail=False),
            f"and of {SIDE} x {SIDE}": lambda: frames_of(film, detail=True),
        }
        in_turns(arms_of_decoding, count, rounds)
    with TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
        image_classes.cache_clear()
        begin = time.process_time()
        ConseEncoder().embed_frames(square)
        print(f"\nOnce a machine: {time.process_time() - begin:.1f} CPU s, and a process of "
              "its own for the pickle.")  # fmt: skip


def in_turns(works: dict[str, Callable[[], object]], frames: int, rounds: int) -> None:
    """Print the CPU ms a frame of each arm."""
    times: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for work in works.values():
            work()
        for number in range(rounds):
            order = list(works)[number % len(works) :] + list(works)[: number % len(works)]
            for name in order:
                begin = time.process_time()
                works[name]()
                times[name].append((time.process_time() - begin) / frames * 1000)
    print("| arm | CPU ms a frame: median (least-most) |\n|---|---|")
    for name, each in times.items():
        print(f"| {name} | {np.median(each):.1f} ({min(each):.1f}-{max(each):.1f}) |", flush=True)


def report(arguments: argparse.Namespace) -> None:
    if arguments.what == "find":
        find(arguments.folder)
    else:
        cost(arguments.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("find").add_argument("folder", type=Path)
    commands.add_parser("cost").add_argument("--rounds", type=int, default=9)
    measurement_page.run(parser, report)
