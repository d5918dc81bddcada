"""Which channels of keys matter to a model's search: a profile for block_score=channel_subset.

    python -m pipeline.evaluation.profiles.channel_profile OUT.json [--films 4] [--seconds 60]
        [SETTING=VALUE ...]

    importance(l, h, i) = mean over films, questions, tokens and query heads of |q_i| times
                          the deviation over the film's frames of (mean of k)_i

as Double Sparsity calibrates channels once (arXiv 2408.07092), with the deviation in place of the
mean size: what all frames have in common ranks none of them. The films are drawn, with cards; they
are others than those of the tables.
"""

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.build import build_local, build_qa, build_source
from pipeline.config.compose import compose
from pipeline.evaluation.attention_recall import texts
from pipeline.evaluation.profiles.profile_program import Calibration, Options, ProfileProgram

FIRST = 1000  # number of the first film


def keys_and_queries(own: Calibration) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Of each film: the mean keys of its frames [T, L, H, Dh], and the queries of each question
    about it [n, L, Hq, Dh].
    """
    config = compose("ask", own.overrides)
    backbone = build_local(config)
    model = backbone.language_model
    for number, path in zip(own.numbers, own.paths, strict=True):
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


def importance(own: Calibration) -> Tensor:
    """[L, H, Dh] float32."""
    total: Tensor | None = None
    for keys, questions in keys_and_queries(own):
        spread = keys.std(0)  # [L, H, Dh]
        for queries in questions:
            size = queries.abs().mean(0).unflatten(1, (keys.shape[2], -1)).mean(2)
            total = size * spread if total is None else total + size * spread
    assert total is not None  # at least one film, and each has questions
    return total / total.sum(-1, keepdim=True)


def _fit(own: Calibration, options: Options) -> tuple[bytes, str]:
    rounded = [
        [[round(x, 5) for x in head] for head in layer] for layer in importance(own).tolist()
    ]
    note = f"{len(rounded)} layers, {len(rounded[0])} heads, {len(rounded[0][0])} channels"
    return (json.dumps({"importance": rounded}) + "\n").encode(), note


PROGRAM = ProfileProgram(__doc__, _fit, films=4, first=FIRST)


if __name__ == "__main__":
    PROGRAM.run()
