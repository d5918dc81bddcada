"""The attention of a question over the frames of a context: how much of it chosen frames hold, and
what a layer computes without the others.

This is the ruler for every search that is meant to save attention. With every frame in the context
it is dense: exact softmax attention, computed from the keys and values that the layers themselves
used and from their queries. Knows no search and no disk.

    mass[l, h, f] = mean over the question's tokens of the sum over the tokens of frame f of
                    softmax(scaling * q k^T)
    recall[l, h]  = sum of mass over chosen frames / sum of mass over all frames
    error[l]      = |x - x'| / |x|, with x the attention's output at the question's tokens, and x'
                    the same without the other frames' keys

Cost: one pass of the question over the whole context, and L * Hq * n * S numbers of scores, a
layer at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.kv_cache import FixedCache
from memory.schema import Evidence
from pipeline.answer.attention.suffix_attention import mass_of_parts, suffix_scores
from pipeline.answer.schema import Reader
from pipeline.runtime.stage_timer import StageTimer


@dataclass(frozen=True)
class QuestionAttention:
    """What the layers saw when they read a question behind its frames.

    Shapes: L layers, Hq query heads, H KV heads, n tokens of the question, S tokens of the context
    with them, Dh head width, F frames.
    """

    queries: Tensor  # [L, Hq, n, Dh] at their positions, times the scaling
    keys: Tensor  # [L, H, S, Dh] at their positions
    values: Tensor  # [L, H, S, Dh]
    frames_of: Tensor  # [S] int64 number of each token's frame, -1 for text
    frames: int

    @classmethod
    def of(cls, reader: Reader, evidence: Evidence) -> "QuestionAttention":
        """The attention of the question of the evidence over all of its frames. UserError for a
        model whose layers do not keep every key, and for evidence of each layer's own.
        """
        if evidence.per_layer is not None:
            raise UserError(
                "The attention of a question is measured over the same frames in every layer; use "
                "retriever.per_layer=false."
            )
        evidence = replace(evidence, per_head=None)  # dense: every head reads all frames
        suffix = reader.prompt_suffix(
            evidence.question.prompt, evidence.lines, evidence.titles
        )  # [n, D]
        queries, keys = dict[int, Tensor](), dict[int, Tensor]()

        def listen(layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
            queries[layer], keys[layer] = query[0].float() * scaling, key[0].float()

        with reader.context(evidence, len(suffix), StageTimer()) as (cache, frames_of):
            if not isinstance(cache, FixedCache):
                raise UserError(
                    "The attention of a question is measured on models whose every layer is full "
                    f"attention; {reader.backbone.path} has others."
                )
            reader.language_model.forward(suffix, cache, listen)
            values = torch.stack([layer.values[0].float() for layer in cache.layers])
        text = torch.full((len(suffix),), -1)
        return cls(
            torch.stack([queries[number] for number in range(len(values))]),
            torch.stack([keys[number] for number in range(len(values))]),
            values,
            torch.cat([frames_of[0].cpu(), text]),
            evidence.frame_count,
        )

    @cached_property
    def mass(self) -> Tensor:
        """[L, Hq, F] float32: the share of the question's attention that each frame gets; text
        gets the rest of 1.
        """
        masses = [mass_of_parts(one, self.frames_of, self.frames) for one in self._scores()]
        return torch.stack(masses).cpu()

    @cached_property
    def outputs(self) -> Tensor:
        """[L, n, Hq * Dh] float32: what each layer's attention returns at the question's tokens."""
        everything = torch.ones(self.frames, dtype=torch.bool)
        return torch.stack(list(self._outputs(everything)))

    def recall(self, chosen: Tensor) -> Tensor:
        """[L, Hq]: the share of the attention over all frames that the chosen ones hold.

        chosen: bool [F], or [L, 1, F] for each layer's own, or [L, Hq, F] for each head's own.
        """
        return (self.mass * chosen).sum(-1) / self.mass.sum(-1)

    def errors(self, chosen: Tensor) -> Tensor:
        """[L]: how far each layer's output is from the dense one without the keys of the other
        frames. The layers below are dense, and nothing moves: the error of the choice alone.
        chosen: as of `recall`.
        """
        return torch.stack(
            [
                _relative(mine, dense)
                for mine, dense in zip(self._outputs(chosen), self.outputs, strict=True)
            ]
        )

    def errors_of(self, other: "QuestionAttention") -> Tensor:
        """[L]: how far the outputs of another reading of the same question are from these: with its
        positions, and with the errors of the layers below.
        """
        return torch.stack(
            [
                _relative(theirs, mine)
                for theirs, mine in zip(other.outputs, self.outputs, strict=True)
            ]
        )

    def best(self, count: int, per: str = "model") -> Tensor:
        """The frames with the most attention: no choice of as many frames has a higher recall, mean
        over layers and heads.

        per: "model" (bool [F], the same frames everywhere), "layer" ([L, 1, F]) or "head"
        ([L, Hq, F]).
        """
        share = self.mass / self.mass.sum(-1, keepdim=True)  # of a head's attention to frames
        mass = {
            "model": lambda: share.mean((0, 1)),
            "layer": lambda: share.mean(1, keepdim=True),
            "head": lambda: share,
        }[per]()
        places = mass.topk(min(count, self.frames), -1).indices
        return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, places, True)

    def _scores(self) -> Iterator[Tensor]:
        """Of each layer [Hq, n, S]: scaled products; -inf for later tokens of the question."""
        return map(suffix_scores, self.queries, self.keys)

    def _outputs(self, chosen: Tensor) -> Iterator[Tensor]:
        """Of each layer [n, Hq * Dh], with the keys of text and of the chosen frames."""
        layers, heads, _, _ = self.queries.shape
        whole = chosen.expand(layers, heads, self.frames)
        reads = torch.cat([whole, torch.ones(layers, heads, 1, dtype=torch.bool)], -1)
        group = heads // self.keys.shape[1]
        for scores, own, value in zip(self._scores(), reads, self.values, strict=True):
            # the last column is that of text, whose number is -1
            hidden = ~own[:, self.frames_of].to(scores.device)
            share = torch.softmax(scores.masked_fill_(hidden[:, None], -torch.inf), -1)
            out = share @ value.repeat_interleave(group, 0)  # [Hq, n, Dh]
            yield out.transpose(0, 1).flatten(1).cpu()


def frames_mask(ordinals: Tensor, frames: int) -> Tensor:
    """bool [..., F] from numbers of frames [..., k]."""
    mask = torch.zeros(*ordinals.shape[:-1], frames, dtype=torch.bool)
    return mask.scatter_(-1, ordinals, True)


def _relative(x: Tensor, dense: Tensor) -> Tensor:
    """|x - dense| / |dense|."""
    return (x - dense).norm() / dense.norm()
