"""Which channels of keys matter to a model's search: a profile for block_score=channel_subset.

    python -m pipeline.evaluation.channel_profile OUT.json [--films 4] [--seconds 60]
        [SETTING=VALUE ...]

    importance(l, h, i) = mean over films, questions, tokens and query heads of |q_i| times
                          the deviation over the film's frames of (mean of k)_i

as Double Sparsity calibrates channels once (arXiv 2408.07092), with the deviation in place of the
mean size: what all frames have in common ranks none of them. The films are drawn, with cards; they
are others than those of the tables.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from memory.storage.atomic import write_atomically
from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films, texts

FIRST = 1000  # number of the first film; those of attention_recall begin at 0


def keys_and_queries(
    paths: list[Path], numbers: list[int], settings: list[str], bank: Path
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Of each film: the mean keys of its frames [T, L, H, Dh], and the queries of each question
    about it [n, L, Hq, Dh]. numbers: of the films.
    """
    common = [f"bank={bank}", "video=-", "question=-", "text=none", "clip=embedded"]
    config = compose("ask", [*common, *settings])
    backbone = build_local(config)
    model = backbone.language_model
    for number, path in zip(numbers, paths, strict=True):
        config.video = str(path)
        qa = build_qa(config, backbone)
        with qa.bank as opened:
            source = build_source(config, backbone)
            qa.ingest(source)
            video_id = source.info.video_id
            segments = opened.catalog.segments(video_id)
            means = [
                opened.catalog.read_segment(video_id, row.number).key_means for row in segments
            ]
            keys = torch.cat([each for each in means if each is not None])  # [T, L, H * Dh]
        yield keys.unflatten(2, (model.kv_shape.heads, -1)), model.queries_of(texts(number))


def importance(paths: list[Path], numbers: list[int], settings: list[str], bank: Path) -> Tensor:
    """[L, H, Dh] float32."""
    total: Tensor | None = None
    for keys, questions in keys_and_queries(paths, numbers, settings, bank):
        spread = keys.std(0)  # [L, H, Dh]
        for queries in questions:
            size = queries.abs().mean(0).unflatten(1, (keys.shape[2], -1)).mean(2)
            total = size * spread if total is None else total + size * spread
    assert total is not None  # at least one film, and each has questions
    return total / total.sum(-1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = [FIRST + number for number in range(args.films)]
        paths = list(films(args.films, args.seconds, [], folder, first=FIRST))
        found = importance(paths, numbers, args.settings, folder / "bank")
    rounded = [[[round(x, 5) for x in head] for head in layer] for layer in found.tolist()]
    write_atomically(args.out, (json.dumps({"importance": rounded}) + "\n").encode())
    print(
        f"{args.out}: {len(rounded)} layers, {len(rounded[0])} heads, {len(rounded[0][0])} channels"
    )


if __name__ == "__main__":
    main()
