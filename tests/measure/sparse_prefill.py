"""What a sparse prefill leaves out, and how far its outputs are from the dense ones.

    python -m tests.measure.sparse_prefill [--films 6] [--seconds 60] [--out runs/sparse-prefill]
        [SETTING=VALUE ...]

Drawn films with cards, one thread. Two contexts: a segment of eight frames behind the preamble and
a window of 32 frames, as `prefill=` encodes it, and a whole film in one prefill, as `reader=tokens`
reads it. Columns:

- pairs: kept pairs of queries and keys in per cent of all, mean over layers, heads and films.
- scores: products of queries with keys that the choice itself takes, in per cent of all.
- error: |x - x'| / |x| of a layer's attention, in per cent, with dense layers below; of each
  layer, and their mean with an interval of 95 %, bootstrapped over films.
- keys: |k - k'| / |k| of the keys that a prefill stores, with the errors of the layers below, in
  per cent, mean over layers. Of segments: behind a sparse window, too.
- ms: CPU time of a prefill, median over films.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from encoders.models.backbone import Backbone
from encoders.models.kv_cache import FixedCache
from encoders.models.sparsity.sample_attention import SampleAttention
from encoders.models.sparsity.sparsity import NoSparsity, Sparsity, earlier
from encoders.models.sparsity.x_attention import XAttention
from encoders.prefill import WindowPrefill
from encoders.schema import FrameEmbeds, KVBlock, VisualTokens, join_tokens
from pipeline.build import build_local, build_source
from pipeline.config.compose import compose
from pipeline.config.task_settings import register
from pipeline.evaluation.attention_recall import films
from pipeline.scoring import cell

FIRST = 3000  # number of the first film; those of other tables are below
SEGMENT, WINDOW = 8, 32  # frames
WAYS: dict[str, tuple[Sparsity, float]] = {  # and the share of the products that scores take
    "dense": (NoSparsity(), 0.0),
    "xattention, threshold 1": (XAttention(threshold=1.0, block=32, stride=8), 0.0),
    **{
        f"xattention {threshold:g}, blocks of {block}": (
            XAttention(threshold=threshold, block=block, stride=stride),
            1 / stride,
        )
        for block, stride, threshold in ((32, 8, 0.8), (32, 8, 0.9), (32, 8, 0.95), (128, 16, 0.9))
    },
    **{
        f"sample {threshold:g}": (SampleAttention(threshold=threshold), 0.05)
        for threshold in (0.8, 0.95)
    },
}


@dataclass(frozen=True)
class Prefill:
    """What a film gave with one way."""

    pairs: float
    errors: list[float]  # of each layer
    keys: float
    ms: float


@dataclass(frozen=True)
class Attention:
    """What the layers saw in a dense prefill: of each layer [Hq, n, Dh] and [H, S, Dh]."""

    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    scaling: float

    def without(self, way: Sparsity) -> tuple[float, list[float]]:
        """The share of kept pairs, and each layer's error."""
        kept, errors = [], []
        for query, key, value in zip(self.queries, self.keys, self.values, strict=True):
            causal = earlier(query.shape[1], key.shape[1], query.device)
            group = len(query) // len(key)
            scores = query @ key.repeat_interleave(group, 0).transpose(1, 2) * self.scaling
            reads = way.choose(query, key, self.scaling)
            outs = [
                scores.masked_fill(~mask, -torch.inf).softmax(-1)
                @ value.repeat_interleave(group, 0)
                for mask in (causal, causal if reads is None else reads)
            ]
            errors.append(float((outs[0] - outs[1]).norm() / outs[0].norm()))
            kept.append(
                1.0 if reads is None else float(reads.float().mean() / causal.float().mean())
            )
        return statistics.mean(kept), errors


def attention_of(backbone: Backbone, before: list[KVBlock], new: FrameEmbeds) -> Attention:
    """Of a dense prefill behind the preamble and stored blocks."""
    model = backbone.language_model
    sink = model.embed(backbone.prompt.preamble_ids())
    cache = model.cache(len(sink) + sum(b.keys.shape[2] for b in before) + len(new))
    assert isinstance(cache, FixedCache)
    model.prefill(sink, cache)
    for block in before:
        model.append_block(block, cache)
    seen: list[tuple[Tensor, Tensor, float]] = []
    model.forward(
        new, cache, lambda layer, q, k, scaling: seen.append((q[0], k[0].clone(), scaling))
    )
    return Attention(
        [query.float() for query, _, _ in seen],
        [key.float() for _, key, _ in seen],
        [layer.values[0].float() for layer in cache.layers],
        seen[0][2],
    )


def of_segments(backbone: Backbone, visual: VisualTokens) -> Callable[[Sparsity], list[KVBlock]]:
    """Encodes a film in segments, by one way."""

    def encode(way: Sparsity) -> list[KVBlock]:
        prefill = WindowPrefill(backbone, window_frames=WINDOW, dtype="float32", sparsity=way)
        frames = len(visual.times) // SEGMENT
        return [prefill(visual.frames(SEGMENT * n, SEGMENT * (n + 1))) for n in range(frames)]

    return encode


def of_one_pass(backbone: Backbone, visual: VisualTokens) -> Callable[[Sparsity], list[KVBlock]]:
    """Prefills a whole film at once, by one way."""

    def encode(way: Sparsity) -> list[KVBlock]:
        prefill = WindowPrefill(backbone, window_frames=0, dtype="float32", sparsity=way)
        return [prefill(visual)]

    return encode


def measured(
    encode: Callable[[Sparsity], list[KVBlock]],
    seen: Attention,
    dense: list[KVBlock],
    way: Sparsity,
) -> Prefill:
    """One way in one context of a film."""
    began = time.process_time()
    blocks = encode(way)
    ms = 1e3 * (time.process_time() - began) / len(blocks)
    theirs, ours = (torch.cat([b.keys for b in each], 2) for each in (dense, blocks))
    moved = (theirs - ours).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    pairs, errors = seen.without(way)
    return Prefill(pairs, errors, float(moved.mean()), ms)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a film")
    parser.add_argument("--out", type=Path, default=Path("runs/sparse-prefill"))
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as of reelbank ask")
    args = parser.parse_intermixed_args()
    register()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["video=-", "question=-", f"bank={args.out / 'bank'}", "text=none", "clip=embedded"]
    config = compose("ask", [*common, *args.settings])
    backbone = build_local(config)
    rows: dict[tuple[str, str], list[Prefill]] = {}
    for path in films(args.films, args.seconds, [], args.out, first=FIRST):
        config.video = str(path)
        frames = list(build_source(config, backbone).frames())
        for context, way, found in of_film(backbone, [backbone.encode_frames(f) for f in frames]):
            rows.setdefault((context, way), []).append(found)
        print("\n".join([f"behind {path.stem}:", *table(rows), ""]), flush=True)


def of_film(backbone: Backbone, parts: list[VisualTokens]) -> Iterator[tuple[str, str, Prefill]]:
    """Every context and way of a film."""
    visual = join_tokens(parts)
    for name, make in (("segment", of_segments), ("whole film", of_one_pass)):
        encode = make(backbone, visual)
        dense = encode(NoSparsity())
        if name == "segment":
            new = visual.frames(WINDOW, WINDOW + SEGMENT)
            before = dense[: WINDOW // SEGMENT]
        else:
            new, before = visual, []
        seen = attention_of(backbone, before, backbone.frame_embeds(new))
        for way, (sparsity, _) in WAYS.items():
            yield name, way, measured(encode, seen, dense, sparsity)


def table(rows: dict[tuple[str, str], list[Prefill]]) -> list[str]:
    """Markdown."""
    lines = [
        "| context | way | pairs (%) | scores (%) | error (%) | of each layer | keys (%) | ms |"
    ]
    lines.append("|---" * 8 + "|")
    for (context, way), found in rows.items():
        layers = [
            100 * statistics.mean(each) for each in zip(*(f.errors for f in found), strict=True)
        ]
        error = cell([(str(n), statistics.mean(one.errors)) for n, one in enumerate(found)])
        cells = (
            context,
            way,
            f"{100 * statistics.mean(one.pairs for one in found):.1f}",
            f"{100 * WAYS[way][1]:.1f}",
            error,
            " ".join(f"{each:.1f}" for each in layers),
            f"{100 * statistics.mean(one.keys for one in found):.1f}",
            f"{statistics.median(one.ms for one in found):.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
