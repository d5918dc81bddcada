"""Some heads whole, and of the others one key and one value for each frame.

RazorAttention (arXiv 2407.15891) keeps everything of few heads, and one compensation token in place
of what the others drop. In a bank, every frame is dropped sooner or later, so each frame has a
compensation token of its own:
    whole heads    keys and values of every token
    other heads    mean over the tokens of a frame of its keys before rotary embedding, and of its
                   values
On reading, a mean stands in the place of each of its n tokens. A softmax over n equal keys gives
them n times the weight of one, so this is the published weight of a token that stands for n. A
stored number depends on its own frame alone (law 3), and the mean key by which frames are searched
does not change.
Bytes: (W + (1 - W) / n) of all heads, where W is the share of whole ones and n the tokens of a
frame. Knows tensors only; nothing of files.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from encoders.errors import UserError


@dataclass(frozen=True, slots=True)
class HeadMeans:
    """Which heads are whole, at least one. G pairs of layer and KV head are not. UserError where
    none is."""

    whole: tuple[tuple[bool, ...], ...]  # [layer][KV head]

    def __post_init__(self) -> None:
        if not any(map(any, self.whole)):
            raise UserError(f"heads={self} has no head that is whole; a bank needs one.")

    def __str__(self) -> str:
        """ "01.11": of the first layer the second head, of the second layer both."""
        return ".".join("".join("01"[one] for one in layer) for layer in self.whole)

    @classmethod
    def parse(cls, text: str) -> "HeadMeans":
        """The inverse of `str`. UserError for any other text."""
        layers = text.split(".")
        if not all(layers) or len({*map(len, layers)}) > 1 or not set(text) <= set("01."):
            raise UserError(f"heads={text} does not say which heads are whole.")
        return cls(tuple(tuple(one == "1" for one in layer) for layer in layers))

    @property
    def mask(self) -> Tensor:
        """[L, H] bool: whole heads."""
        return torch.tensor(self.whole)

    def split(self, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Keys or values [L, H, M, Dh] of whole frames -> [1, L * H - G, M, Dh] of the whole heads,
        and means [T, G, Dh] of the others. ValueError for a model of another shape."""
        if x.shape[:2] != self.mask.shape:
            raise ValueError(f"keys of {tuple(x.shape[:2])} heads, not {tuple(self.mask.shape)}")
        means = [x[~self.mask][:, a:b].float().mean(1) for a, b in pairwise(offsets.tolist())]
        return x[self.mask][None], torch.stack(means).to(x.dtype)

    def join(self, whole: Tensor, means: Tensor, counts: Tensor) -> Tensor:
        """[L, H, n, Dh] of some frames. whole: theirs. means: [T, G, Dh] of these frames. counts:
        [T] tokens of each."""
        x = whole.new_empty((*self.mask.shape, whole.shape[2], whole.shape[3]))
        x[self.mask] = whole[0]
        x[~self.mask] = means.repeat_interleave(counts, dim=0).transpose(0, 1)
        return x
