"""Keys of a segment as low-rank factors, after ShadowKV (arXiv 2410.21465).

Keys before rotary embedding lie near a subspace of few dimensions, another one for each context.
So the keys K [n, H * Dh] of a frame and layer, all KV heads side by side, are stored as A [n, r] of
a basis B [r, H * Dh]:
    K ~ A B
ShadowKV takes the first right singular vectors of all keys of a context. In a bank, a stored key
must not depend on later frames (law 3). So the basis grows: each frame adds as few directions as
it needs, the first singular vectors of what the basis lacks of it, until
    |K - A B| <= loss |K|    in every layer (Frobenius norm, before A and B are rounded)
and A of a frame has numbers for the directions up to its own alone. A frame that resembles an
earlier one adds none. Values are stored as they are, and read for recalled frames alone.

Bytes: of keys, R / (H Dh) for A, where R is the dimension of a segment's basis, and R / M for B,
where M is the tokens of the segment. Cost: an eigendecomposition of n x n and products of n R H Dh
a frame and layer to store; the products alone to read. loss=0 gives keys back up to rounding.
Knows tensors only; nothing of files.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

_TINY = 1e-12  # share of a frame's squares from which a direction is one


@dataclass(frozen=True, slots=True)
class KeyFactors:
    """The factors of the keys of whole frames, in the dtype of the keys."""

    coefficients: Tensor  # [L, 1, M, R]: A, with zeros behind the directions of a frame
    basis: Tensor  # [L, R, H * Dh]: B
    ranks: tuple[int, ...]  # of each frame: how many of the first directions it has numbers for

    @classmethod
    def of(cls, keys: Tensor, offsets: Tensor, loss: float) -> "KeyFactors":
        """keys: [L, H, M, Dh] of frames that are cut by `offsets`. ValueError where they are not
        finite. Deterministic on one machine."""
        rows = keys.transpose(1, 2).flatten(2)  # [L, M, H * Dh]
        if not bool(rows.isfinite().all()):
            raise ValueError("keys that are not finite have no factors")
        basis = rows[:, :0]
        parts: list[Tensor] = []
        for a, b in pairwise(offsets.tolist()):
            frame = rows[:, a:b].double()
            more = _directions(frame, basis, max(loss, _least_loss(keys.dtype)))
            basis = torch.cat([basis, more.to(keys.dtype)], dim=1)
            parts.append(_coefficients(frame, basis).to(keys.dtype))
        ranks = tuple(part.shape[2] for part in parts)
        padded = [
            torch.nn.functional.pad(part, (0, basis.shape[1] - part.shape[2])) for part in parts
        ]
        joined = torch.cat(padded, dim=1) if padded else rows[:, :, :0]
        return cls(joined[:, None], basis, ranks)

    def keys(self, counts: Tensor, heads: int, first: int = 0) -> Tensor:
        """[L, H, n, Dh] of the frames of `coefficients`, with `counts` tokens each. first: the
        number of the first one among `ranks`. Each frame is computed alone, so that a cut has the
        same bits as the whole."""
        ends = counts.cumsum(0).tolist()
        rows = [
            self.coefficients[:, 0, end - count : end, :rank].float() @ self.basis[:, :rank].float()
            for count, end, rank in zip(counts.tolist(), ends, self.ranks[first:], strict=False)
        ]
        joined = torch.cat(rows, dim=1) if rows else self.basis[:, :0].float()
        return joined.to(self.basis.dtype).unflatten(2, (heads, -1)).transpose(1, 2).contiguous()


def _least_loss(dtype: torch.dtype) -> float:
    """What rounding a basis loses of keys: more directions would hold that alone."""
    return max(1e-6, torch.finfo(dtype).eps / 4)


def _directions(frame: Tensor, basis: Tensor, loss: float) -> Tensor:
    """[L, d, W] float64: of what a basis lacks of a frame [L, n, W], the first singular vectors;
    as many as the layer needs that needs most, and zeros where another one has no more."""
    rest = frame
    if basis.shape[1]:
        rest = frame - _coefficients(frame, basis) @ basis.double()
    size = frame.square().sum((1, 2))  # [L]
    squares, turns = torch.linalg.eigh(rest @ rest.transpose(1, 2))
    squares, turns = squares.flip(1).clamp(min=0), turns.flip(2)  # the largest first
    left = squares.flip(1).cumsum(1).flip(1)  # [L, n]: squares from each direction on
    needed = int((left > loss**2 * size[:, None]).sum(1).max())
    sigma = squares[:, :needed, None].sqrt()
    found = turns[:, :, :needed].transpose(1, 2) @ rest
    has = squares[:, :needed, None] > _TINY * size[:, None, None]
    return torch.where(has, found / sigma.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def _coefficients(frame: Tensor, basis: Tensor) -> Tensor:
    """[L, n, R] float64: those of the least squares, as a rounded basis is not quite orthogonal."""
    own = basis.double()
    inverse = torch.linalg.pinv(own @ own.transpose(1, 2), rtol=1e-8, hermitian=True)
    return frame @ own.transpose(1, 2) @ inverse
