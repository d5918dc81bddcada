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

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from memory.retrieval.block_score.clustering import k_means
from pipeline.evaluation.profiles.channel_profile import FIRST, keys_and_queries
from pipeline.evaluation.profiles.profile_program import Calibration, Options, ProfileProgram

ROUNDS = 10  # of Lloyd's algorithm


def directions(questions: list[Tensor], heads: int, lists: int) -> Tensor:
    """[L, H, lists, Dh] unit vectors from the queries of each question [n, L, Hq, Dh]."""
    every = torch.cat([torch.cat([each, each.mean(0, keepdim=True)]) for each in questions])
    own = every.unflatten(2, (heads, -1)).permute(1, 2, 0, 3, 4)  # [L, H, n, group, Dh]
    points = normalize(own.flatten(2, 3), dim=-1)  # [L, H, N, Dh]
    centroids, _ = k_means(points.flatten(0, 1), lists, ROUNDS)
    return normalize(centroids, dim=-1).unflatten(0, points.shape[:2])


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lists", type=int, default=64)


def _fit(own: Calibration, options: Options) -> tuple[bytes, str]:
    pairs = list(keys_and_queries(own))
    common = torch.cat([keys for keys, _ in pairs]).mean(0)  # [L, H, Dh]
    asked = [each for _, questions in pairs for each in questions]
    made = directions(asked, common.shape[1], options.lists)
    data = io.BytesIO()
    np.savez(data, directions=made.numpy(), common=common.numpy())
    layers, heads, lists, width = made.shape
    note = f"{layers} layers, {heads} heads, {lists} directions of {width} numbers"
    return data.getvalue(), note


PROGRAM = ProfileProgram(__doc__, _fit, films=4, first=FIRST, add_options=_add_options)


if __name__ == "__main__":
    PROGRAM.run()
