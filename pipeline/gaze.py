"""How much attention an answer pays to each frame: what citations are made of. Knows no text, no question and no disk.

A backbone calls its listener in every layer, with the queries of a step and all keys. The share that the answering position
gives to every token of the context is added up over heads and steps by layer; only at the end tokens are put down to frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Gaze:
    """A backbone's Listener for one context, or for several side by side (`encoders/stacked.py`)."""

    def __init__(self, frames_of: Tensor | Sequence[Tensor], seen: Tensor | None = None) -> None:
        """frames_of: [L, S] int64 ordinal of each context token per layer, -1 for text; several: one for each row.
        seen: [B, capacity] bool, which keys belong to a row; None: all."""
        self._owners = [frames_of] if isinstance(frames_of, Tensor) else list(frames_of)
        self._seen = seen
        self._length = max(owners.shape[1] for owners in self._owners)  # of the longest context
        self._mass: dict[int, Tensor] = {}  # layer -> [B, S] float32
        self._since: dict[int, int] = {}  # layer -> tokens that came behind the context
        self._at: Tensor | None = None
        self._active: Tensor | None = None

    def aim(self, at: Sequence[int], active: Sequence[bool]) -> None:
        """For the next steps of several rows: which query of each answers, and whether it does. (One alone: the last.)"""
        self._at, self._active = torch.tensor(at), torch.tensor(active)[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """query [B, Hq, n, Dh], key [B, H, S', Dh]."""
        rows, heads, length = key.shape[:3]
        self._since[layer] = self._since.get(layer, 0) + query.shape[2]
        first = self._length + self._since[layer] - length if self._seen is None else 0  # a sliding layer drops what is old
        if first >= self._length:
            return
        last = query[:, :, -1] if self._at is None else query[torch.arange(rows), :, self._at.to(query.device)]  # [B, Hq, Dh]
        grouped = last.unflatten(1, (heads, -1)).float()  # [B, H, group, Dh]
        scores = torch.matmul(grouped, key.float().transpose(2, 3)).mul_(scaling)  # [B, H, group, S']
        if self._seen is not None:
            scores.masked_fill_(~self._seen[:, None, None, :length], -torch.inf)
        share = scores.softmax(-1).sum((1, 2))[:, : self._length - first]
        if self._active is not None:
            share = share * self._active.to(share.device)
        if layer not in self._mass:
            self._mass[layer] = torch.zeros(rows, self._length, device=key.device)
        self._mass[layer][:, first:] += share

    def weights(self, row: int = 0) -> dict[int, float]:
        """Share of each frame in the attention on frames, over all layers; they sum to 1."""
        owners = self._owners[row]
        if not self._mass or not owners.shape[1]:
            return {}
        mass = torch.stack([self._mass[layer][row, : owners.shape[1]].cpu() for layer in sorted(self._mass)])
        places = torch.stack([owners[layer] for layer in sorted(self._mass)])
        ordinals, place = places.unique(return_inverse=True)
        summed = torch.zeros(len(ordinals)).index_add_(0, place.flatten(), mass.flatten())
        found = {o: m for o, m in zip(ordinals.tolist(), summed.tolist(), strict=True) if o >= 0}
        total = sum(found.values())
        return {ordinal: m / total for ordinal, m in found.items()} if total else {}
