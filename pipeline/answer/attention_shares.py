"""How much attention an answer pays to each frame: what citations are made of. Knows no text, no question and no disk.

A backbone calls its listener in every layer, with the queries of a step and all keys. While an answer is being given only the
query of its position is kept; when it is over, one product a layer says what share each query gave to every token of the
context, and the shares are put down to frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_AT_ONCE = 1 << 24  # scores in one product; more steps are taken in parts


class Gaze:
    """A backbone's Listener for one context, or for several side by side (`encoders/models/batched_cache.py`). Call `settle` while the
    cache still holds the answer."""

    def __init__(self, frames_of: Tensor | Sequence[Tensor], seen: Tensor | None = None) -> None:
        """frames_of: [L, S] int64 ordinal of each context token per layer, -1 for text; several: one for each row.
        seen: [B, capacity] bool, which keys belong to a row; None: all."""
        self._owners = [frames_of] if isinstance(frames_of, Tensor) else list(frames_of)
        self._seen = seen
        self._length = max(owners.shape[1] for owners in self._owners)  # of the longest context
        self._mass: dict[int, Tensor] = {}  # layer -> [B, S] float32
        self._since: dict[int, int] = {}  # layer -> tokens that came behind the context
        # queries, keys that they saw, rows that count
        self._steps: dict[int, list[tuple[Tensor, int, Tensor | None]]] = {}
        self._keys: dict[int, tuple[Tensor, float]] = {}  # layer -> all keys, and the scaling
        self._at: Tensor | None = None
        self._active: Tensor | None = None

    def aim(self, at: Sequence[int], active: Sequence[bool]) -> None:
        """For the next steps of several rows: which query of each answers, and whether it does. (One alone: the last.)"""
        self._at, self._active = torch.tensor(at), torch.tensor(active)

    def __call__(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """query [B, Hq, n, Dh], key [B, H, S', Dh]; of several contexts perhaps with room behind what they hold."""
        rows, _, length = key.shape[:3]
        self._since[layer] = self._since.get(layer, 0) + query.shape[2]
        if self._seen is not None:
            length = self._length + self._since[layer]
        alone = self._at is None or query.shape[2] == 1
        last = query[:, :, -1] if alone else query[torch.arange(rows), :, self._at]  # [B, Hq, Dh]
        dropped = self._length + self._since[layer] - length if self._seen is None else 0
        if dropped:  # a sliding layer holds these keys only now
            if dropped < self._length:
                self._add(layer, key, scaling, [(last, length, None)], dropped)
            return
        self._steps.setdefault(layer, []).append((last, length, self._active))
        self._keys[layer] = key, scaling  # of several with the room: in one piece

    @torch.inference_mode()
    def settle(self) -> None:
        """Make shares of what was kept, and let go of the keys."""
        for layer, steps in self._steps.items():
            key, scaling = self._keys[layer]
            part = max(1, _AT_ONCE // (steps[0][0].shape[0] * steps[0][0].shape[1] * key.shape[2]))
            for a in range(0, len(steps), part):
                self._add(layer, key, scaling, steps[a : a + part], 0)
        self._steps, self._keys = {}, {}

    def _add(
        self,
        layer: int,
        key: Tensor,
        scaling: float,
        steps: Sequence[tuple[Tensor, int, Tensor | None]],
        dropped: int,
    ) -> None:
        rows, heads, length = key.shape[:3]
        queries = torch.stack([query for query, _, _ in steps], dim=1)  # [B, T, Hq, Dh]
        # [B, H, T, group, Dh]
        asked = (queries * scaling).unflatten(2, (heads, -1)).permute(0, 2, 1, 3, 4)
        group = asked.shape[3]
        # in the model's dtype, as attention itself does it: the shares are those that the answer was made with
        scores = torch.matmul(asked.flatten(2, 3), key.transpose(2, 3))  # [B, H, T * group, S']
        counts = torch.tensor([count for _, count, _ in steps])
        whole = int(counts.min())  # keys that all see: nearly all of them
        if self._seen is not None:
            whole = min(whole, int(self._seen[:, :whole].all(0).int().cumprod(0).sum()))
        # [T, S' - whole]: others came later
        hidden = (torch.arange(whole, length) >= counts[:, None]).to(key.device)
        if self._seen is not None:
            hidden = hidden | ~self._seen[:, None, whole:length]  # [B, T, S' - whole]
        scores.unflatten(2, (len(steps), group))[..., whole:].masked_fill_(
            hidden.unsqueeze(-2).unsqueeze(-4), -torch.inf
        )
        # [B, H * T * group, S']
        share = torch.softmax(scores, -1, out=scores).view(rows, -1, length)
        counted = torch.ones(rows, len(steps), dtype=key.dtype, device=key.device)
        if steps[0][2] is not None:
            counted = torch.stack(
                [active for _, _, active in steps if active is not None], dim=1
            ).to(counted)
        counted = counted[:, None, :, None].expand(-1, heads, -1, group)  # [B, H, T, group]
        if layer not in self._mass:
            self._mass[layer] = torch.zeros(rows, self._length, device=key.device)
        # a product instead of two sums over the same numbers: a tenth of the time
        summed = torch.bmm(counted.reshape(rows, 1, -1), share)[:, 0]  # [B, S']
        self._mass[layer][:, dropped:] += summed[:, : self._length - dropped]

    def weights(self, row: int = 0) -> dict[int, float]:
        """Share of each frame in the attention on frames, over all layers; they sum to 1."""
        owners = self._owners[row]
        if not self._mass or not owners.shape[1]:
            return {}
        mass = torch.stack(
            [self._mass[layer][row, : owners.shape[1]].cpu() for layer in sorted(self._mass)]
        )
        places = torch.stack([owners[layer] for layer in sorted(self._mass)])
        ordinals, place = places.unique(return_inverse=True)
        summed = torch.zeros(len(ordinals)).index_add_(0, place.flatten(), mass.flatten())
        found = {o: m for o, m in zip(ordinals.tolist(), summed.tolist(), strict=True) if o >= 0}
        total = sum(found.values())
        return {ordinal: m / total for ordinal, m in found.items()} if total else {}
