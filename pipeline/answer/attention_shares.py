"""How much attention an answer pays to each frame; citations are made of it. Knows no text, no
question and no disk.

A backbone calls its listener in every layer with the queries of a step and all keys. During the
answer, only the query at the answering position of each step is stored. Afterwards, one product per
layer gives the share of each query that went to every token of the context, and the shares are
summed per frame.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from memory.schema import FrameName

_MAX_SCORES = 1 << 24  # in one product; more steps are computed in parts

# the query of a step [B, Hq, Dh], the keys that it saw, the rows that count [B] (None: all)
_Step = tuple[Tensor, int, Tensor | None]


class AttentionShares:
    """A backbone's Listener for one context, or for several side by side
    (`encoders/models/batched_cache.py`). Call `finish` while the cache still holds the answer.

    Shapes: B contexts, L layers, S context tokens, H KV heads, Hq query heads, Dh head width, T
    steps.
    """

    def __init__(
        self, frames_of: Tensor | Sequence[Tensor], row_keys: Tensor | None = None
    ) -> None:
        """frames_of: [L, S] int64 number of each context token's frame, -1 for text; for several
        contexts one each. row_keys: [B, capacity] bool, the keys that belong to a row; None: all.
        """
        self._owners = [frames_of] if isinstance(frames_of, Tensor) else list(frames_of)
        self._row_keys = row_keys
        self._length = max(owners.shape[1] for owners in self._owners)  # of the longest context
        self._mass: dict[int, Tensor] = {}  # layer -> [B, S] float32
        self._new_tokens: dict[int, int] = {}  # layer -> tokens behind the context that it heard
        self._passed_over = 0  # further tokens behind the context
        self._steps: dict[int, list[_Step]] = {}
        self._keys: dict[int, tuple[Tensor, float]] = {}  # layer -> all keys, and the scaling
        self._positions: Tensor | None = None
        self._active: Tensor | None = None

    def select_queries(self, positions: Sequence[int], active: Sequence[bool]) -> None:
        """For the next steps of several rows: which query of each row answers, and whether it
        counts. A single context counts its last query."""
        self._positions, self._active = torch.tensor(positions), torch.tensor(active)

    def pass_over(self, tokens: int) -> None:
        """Count tokens behind the context whose attention is not the answer's."""
        self._passed_over += tokens

    def __call__(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        """query [B, Hq, n, Dh], key [B, H, S', Dh]; the keys of several contexts may have free room
        at the end."""
        rows, _, length = key.shape[:3]
        self._new_tokens[layer] = self._new_tokens.get(layer, 0) + query.shape[2]
        if self._row_keys is not None:
            length = self._length + self._new_tokens[layer]
        takes_last = self._positions is None or query.shape[2] == 1
        # [B, Hq, Dh]
        last = query[:, :, -1] if takes_last else query[torch.arange(rows), :, self._positions]
        dropped = 0
        if self._row_keys is None:
            dropped = self._length + self._passed_over + self._new_tokens[layer] - length
        if dropped:  # a sliding layer has these keys only now
            if dropped < self._length:
                self._add(layer, key, scaling, [(last, length, None)], dropped)
            return
        self._steps.setdefault(layer, []).append((last, length, self._active))
        self._keys[layer] = key, scaling  # of several contexts with the room: in one piece

    @torch.inference_mode()
    def finish(self) -> None:
        """Compute the shares of the stored queries, and release the keys."""
        for layer, steps in self._steps.items():
            key, scaling = self._keys[layer]
            rows, heads = steps[0][0].shape[:2]
            part = max(1, _MAX_SCORES // (rows * heads * key.shape[2]))
            for a in range(0, len(steps), part):
                self._add(layer, key, scaling, steps[a : a + part], 0)
        self._steps, self._keys = {}, {}

    def _add(
        self, layer: int, key: Tensor, scaling: float, steps: Sequence[_Step], dropped: int
    ) -> None:
        """Add the shares of these steps to the layer's mass. dropped: context tokens whose keys the
        layer has no more."""
        rows, heads, length = key.shape[:3]
        queries = torch.stack([query for query, _, _ in steps], dim=1)  # [B, T, Hq, Dh]
        # [B, H, T, group, Dh]
        grouped = (queries * scaling).unflatten(2, (heads, -1)).permute(0, 2, 1, 3, 4)
        group = grouped.shape[3]
        # in the model's dtype, as attention itself computes: the shares are those of the answer
        scores = torch.matmul(grouped.flatten(2, 3), key.transpose(2, 3))  # [B, H, T * group, S']
        self._hide(scores.unflatten(2, (len(steps), group)), [count for _, count, _ in steps])
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

    def _hide(self, scores: Tensor, key_counts: Sequence[int]) -> None:
        """Set scores [B, H, T, group, S'] of keys that a step did not see to -inf. key_counts: [T]
        keys of each step."""
        length = scores.shape[-1]
        counts = torch.tensor(key_counts)
        shared = int(counts.min())  # keys that all steps see: nearly all of them
        if self._row_keys is not None:
            shared = min(shared, int(self._row_keys[:, :shared].all(0).int().cumprod(0).sum()))
        # [T, S' - shared]: the others came later
        hidden = (torch.arange(shared, length) >= counts[:, None]).to(scores.device)
        if self._row_keys is not None:
            hidden = hidden | ~self._row_keys[:, None, shared:length]  # [B, T, S' - shared]
        scores[..., shared:].masked_fill_(hidden.unsqueeze(-2).unsqueeze(-4), -torch.inf)

    def weights(self, names: Sequence[FrameName], row: int = 0) -> dict[FrameName, float]:
        """Share of each frame in the attention on frames, over all layers. The shares sum to 1;
        without frames there are none. names: of the frames by their numbers."""
        owners = self._owners[row]
        if not self._mass or not owners.shape[1]:
            return {}
        mass = torch.stack(
            [self._mass[layer][row, : owners.shape[1]].cpu() for layer in sorted(self._mass)]
        )
        owners_of_layers = torch.stack([owners[layer] for layer in sorted(self._mass)])
        numbers, place = owners_of_layers.unique(return_inverse=True)
        summed = torch.zeros(len(numbers)).index_add_(0, place.flatten(), mass.flatten())
        of_frames = {
            names[number]: share
            for number, share in zip(numbers.tolist(), summed.tolist(), strict=True)
            if number >= 0
        }
        total = sum(of_frames.values())
        return {name: share / total for name, share in of_frames.items()} if total else {}
