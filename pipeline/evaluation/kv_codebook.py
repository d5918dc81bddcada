"""Fits the centroids by which kv_policy=product_quantization stores keys and values.

    python -m pipeline.evaluation.kv_codebook OUT [--film FILM ...] [--films 8] [--seconds 60]
        [--bits 8] [--width 2] [--tokens 20000] [SETTING=VALUE ...]

The films are those that are named, or else drawn ones with cards, other than those of the tables.
They are encoded as the settings say. Evenly spaced tokens of them are the points of k-means, for
each piece of `width` numbers of each layer and head: bits / width bits a number. Put the file
beside the weights as kv.codebook, or name it in kv_policy.codebook=FILE. A bank of any film can use
it.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from encoders.models.kv_cache import join_blocks
from encoders.schema import KVBlock
from memory.storage.atomic import write_atomically
from memory.storage.segments.codebook import Codebook
from pipeline.build import build_local, build_qa
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films
from pipeline.evaluation.bank_sizes import encode_segments

_FIRST = 2000  # number of the first film; those of attention_recall begin at 0


def calibration_blocks(paths: Sequence[Path], settings: Sequence[str], bank: Path) -> list[KVBlock]:
    """The keys and values of all segments of these films, as the encoder makes them."""
    common = [f"bank={bank}", "video=-", "question=-", "text=none", "clip=embedded"]
    config = compose("ask", [*common, *settings])
    backbone = build_local(config)
    blocks: list[KVBlock] = []
    qa = build_qa(config, backbone)
    with qa.bank:
        for path in paths:
            blocks += [each.kv for each in encode_segments(config, qa, path) if each.kv is not None]
    return blocks


def some_tokens(blocks: Sequence[KVBlock], count: int) -> KVBlock:
    """At most `count` evenly spaced tokens, as one frame."""
    block = join_blocks(blocks)
    total = block.keys.shape[2]
    chosen = torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).long()
    keys, values = block.keys[:, :, chosen], block.values[:, :, chosen]
    return KVBlock(keys, values, torch.tensor([0, len(chosen)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--film", type=Path, action="append", default=[], help="to encode")
    parser.add_argument("--films", type=int, default=8, help="drawn ones, without --film")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a drawn film")
    parser.add_argument("--bits", type=int, default=8, help="of a piece, 1 to 8")
    parser.add_argument("--width", type=int, default=2, help="numbers of a piece")
    parser.add_argument("--tokens", type=int, default=20_000, help="points of k-means at most")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = args.film or list(films(args.films, args.seconds, [], folder, first=_FIRST))
        blocks = calibration_blocks(paths, args.settings, folder / "bank")
        backbone = build_local(compose("ask", ["video=-", "question=-", *args.settings]))
    points = some_tokens(blocks, args.tokens)
    model = backbone.fingerprint().partition("-")[0]
    book = Codebook.fit([points], width=args.width, bits=args.bits, model=model)
    write_atomically(args.out, book.data)
    layers, heads, numbers = book.shape
    print(
        f"{args.out}: codebook {book.digest}, {layers} layers, {heads} heads, {numbers} numbers, "
        f"{book.token_bytes} bytes a token, of {points.keys.shape[2]} tokens"
    )


if __name__ == "__main__":
    main()
