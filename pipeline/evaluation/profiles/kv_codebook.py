"""Fits the centroids by which kv_policy=product_quantization stores keys and values.

    python -m pipeline.evaluation.profiles.kv_codebook OUT [--film FILM ...] [--films 8]
        [--seconds 60] [--bits 8] [--width 2] [--tokens 20000] [SETTING=VALUE ...]

The films are those that are named, or else drawn ones with cards, other than those of the tables.
They are encoded as the settings say. Evenly spaced tokens of them are the points of k-means, for
each piece of `width` numbers of each layer and head: bits / width bits a number. Put the file
beside the weights as kv.codebook, or name it in kv_policy.codebook=FILE. A bank of any film can use
it.
"""

import argparse
from collections.abc import Sequence

import torch

from encoders.models.kv_cache import join_blocks
from encoders.schema import KVBlock
from memory.storage.segments.codebook import Codebook
from pipeline.build import build_local, build_qa
from pipeline.config.compose import compose
from pipeline.evaluation.bank_sizes import encode_segments
from pipeline.evaluation.profiles.profile_program import Calibration, Options, ProfileProgram


def calibration_blocks(own: Calibration) -> list[KVBlock]:
    """The keys and values of all segments of these films, as the encoder makes them."""
    config = compose("ask", own.overrides)
    backbone = build_local(config)
    blocks: list[KVBlock] = []
    qa = build_qa(config, backbone)
    with qa.bank:
        for path in own.paths:
            blocks += [each.kv for each in encode_segments(config, qa, path) if each.kv is not None]
    return blocks


def some_tokens(blocks: Sequence[KVBlock], count: int) -> KVBlock:
    """At most `count` evenly spaced tokens, as one frame."""
    block = join_blocks(blocks)
    total = block.keys.shape[2]
    chosen = torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).long()
    keys, values = block.keys[:, :, chosen], block.values[:, :, chosen]
    return KVBlock(keys, values, torch.tensor([0, len(chosen)]))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bits", type=int, default=8, help="of a piece, 1 to 8")
    parser.add_argument("--width", type=int, default=2, help="numbers of a piece")
    parser.add_argument("--tokens", type=int, default=20_000, help="points of k-means at most")


def _fit(own: Calibration, options: Options) -> tuple[bytes, str]:
    points = some_tokens(calibration_blocks(own), options.tokens)
    backbone = build_local(compose("ask", ["video=-", "question=-", *own.settings]))
    model = backbone.fingerprint().partition("-")[0]
    book = Codebook.fit([points], width=options.width, bits=options.bits, model=model)
    layers, heads, numbers = book.shape
    note = (
        f"codebook {book.digest}, {layers} layers, {heads} heads, {numbers} numbers, "
        f"{book.token_bytes} bytes a token, of {points.keys.shape[2]} tokens"
    )
    return book.data, note


PROGRAM = ProfileProgram(
    __doc__, _fit, films=8, first=2000, add_options=_add_options, takes_films=True
)


if __name__ == "__main__":
    PROGRAM.run()
