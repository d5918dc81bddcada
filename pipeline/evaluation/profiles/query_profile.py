"""In which directions the questions of a model look: a profile for key_index=query_lists.

    python -m pipeline.evaluation.profiles.query_profile OUT.npz [--lists 64] [--films 4]
        [--seconds 60] [SETTING=VALUE ...]

Of each layer and KV head: the queries of the tokens of questions, and their mean over each
question, of all query heads that share it, as unit vectors; the directions are the centroids of
`lists` clusters of them. Beside them stands the mean key of the frames. The films are drawn, with
cards; they are others than those of the tables.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from memory.retrieval.block_score.clustering import k_means
from memory.storage.atomic import write_atomically
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films
from pipeline.evaluation.channel_profile import FIRST, keys_and_queries

ROUNDS = 10  # of Lloyd's algorithm


def directions(questions: list[Tensor], heads: int, lists: int) -> Tensor:
    """[L, H, lists, Dh] unit vectors from the queries of each question [n, L, Hq, Dh]."""
    every = torch.cat([torch.cat([each, each.mean(0, keepdim=True)]) for each in questions])
    own = every.unflatten(2, (heads, -1)).permute(1, 2, 0, 3, 4)  # [L, H, n, group, Dh]
    points = normalize(own.flatten(2, 3), dim=-1)  # [L, H, N, Dh]
    centroids, _ = k_means(points.flatten(0, 1), lists, ROUNDS)
    return normalize(centroids, dim=-1).unflatten(0, points.shape[:2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--lists", type=int, default=64)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = [FIRST + number for number in range(args.films)]
        paths = list(films(args.films, args.seconds, [], folder, first=FIRST))
        found = list(keys_and_queries(paths, numbers, args.settings, folder / "bank"))
    common = torch.cat([keys for keys, _ in found]).mean(0)  # [L, H, Dh]
    asked = [each for _, questions in found for each in questions]
    made = directions(asked, common.shape[1], args.lists)
    data = io.BytesIO()
    np.savez(data, directions=made.numpy(), common=common.numpy())
    write_atomically(args.out, data.getvalue())
    layers, heads, lists, width = made.shape
    print(f"{args.out}: {layers} layers, {heads} heads, {lists} directions of {width} numbers")


if __name__ == "__main__":
    main()
