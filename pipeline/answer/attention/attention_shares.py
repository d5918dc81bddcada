"""How much attention an answer pays to each frame; citations are made of it. Knows no text, no
question and no disk.

A backbone calls its listener in every layer with the queries of a step and all keys. During the
answer, only the query at the answering position of each step is stored. Afterwards, one product per
layer gives the share of each query that went to every token of the context, and the shares are
summed per frame.

Two things make these shares evidence. The step that predicts the end of the answer says nothing of
its content, and its attention scatters over frames: it does not count. Where a model's retrieval
heads are known (`retrieval_heads.py`), only they count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.models.loading.retrieval_heads import RetrievalHeads
from memory.schema import FrameName

_MAX_SCORES = 1 << 24  # in one product; more steps are computed in parts
# in one product: its cost for each score is that of so many more numbers in a head
_MAX_STEPS = 16

# the query of a step [B, Hq, Dh], the keys that it saw, the rows that count [B] (None: all)
_Step = tuple[Tensor, int, Tensor | None]


class AttentionShares:
    """A backbone's Listener for one context, or for several side by side
    (`encoders/models/batched_cache.py`). Call `finish` while the cache still holds the answer.

    Shapes: B contexts, L layers, S context tokens, H KV heads, Hq query heads, Dh head width, T
    steps, F frames.
    """

    def __init__(
        self,
        frames_of: Tensor | Sequence[Tensor],
        row_keys: Tensor | None = None,
        heads: RetrievalHeads | None = None,
        hidden: Tensor | None = None,
    ) -> None:
        """frames_of: [L, S] int64 number of each context token's frame, -1 for text; for several
        contexts one each. row_keys: [B, capacity] bool, the keys that belong to a row; None: all.
        heads: those that count; None: all of every layer. hidden: bool [L, Hq, S], the context's
        tokens that a head does not read; None: it reads all.
        """
        self._owners = [frames_of] if isinstance(frames_of, Tensor) else list(frames_of)
        self._row_keys = row_keys
        self._heads, self._hidden = heads, hidden
        self._length = max(owners.shape[1] for owners in self._owners)  # of the longest context
        # of each row [T, F + 1] float32 attention of all layers; column 0 is text
        self._mass = [
            torch.zeros(0, int(owners.max()) + 2 if owners.numel() else 1)
            for owners in self._owners
        ]
        self._heads_heard: dict[int, int] = {}  # layer -> heads that count
        self._new_tokens: dict[int, int] = {}  # layer -> tokens behind the context that it heard
        self._passed_over = 0  # further tokens behind the context
        self._heard: dict[int, int] = {}  # layer -> steps so far
        self._counted: list[Tensor | None] = []  # of each step the rows that count [B]
        # layer -> steps whose shares are still to be computed, and the number of the first
        self._steps: dict[int, list[_Step]] = {}
        self._first_steps: dict[int, int] = {}
        self._keys: dict[int, tuple[Tensor, float]] = {}  # layer -> all keys, and the scaling
        self._positions: Tensor | None = None
        self._active: Tensor | None = None
        self._ended: Sequence[bool] = ()

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
        if self._heads is not None and layer not in self._heads.of_layers:
            return
        rows, _, length = key.shape[:3]
        self._new_tokens[layer] = self._new_tokens.get(layer, 0) + query.shape[2]
        if self._row_keys is not None:
            length = self._length + self._new_tokens[layer]
        takes_last = self._positions is None or query.shape[2] == 1
        # [B, Hq, Dh]
        last = query[:, :, -1] if takes_last else query[torch.arange(rows), :, self._positions]
        step = self._heard.get(layer, 0)
        self._heard[layer] = step + 1
        if step == len(self._counted):
            self._counted.append(self._active)
        dropped = 0
        if self._row_keys is None:
            dropped = self._length + self._passed_over + self._new_tokens[layer] - length
        if dropped:  # a sliding layer has these keys only now
            if dropped < self._length:
                self._add(layer, key, scaling, step, [(last, length, None)], dropped)
            return
        self._steps.setdefault(layer, []).append((last, length, self._active))
        self._first_steps.setdefault(layer, step)
        self._keys[layer] = key, scaling  # of several contexts with the room: in one piece

    @torch.inference_mode()
    def finish(self, ended: Sequence[bool]) -> None:
        """Compute the shares of the stored queries, and release the keys. ended: of each row,
        whether its last step predicted the end of the answer."""
        self._ended = ended
        for layer, steps in self._steps.items():
            key, scaling = self._keys[layer]
            rows, heads = steps[0][0].shape[:2]
            most = max(1, min(_MAX_STEPS, _MAX_SCORES // (rows * heads * key.shape[2])))
            for a in range(0, len(steps), most):
                first = self._first_steps[layer] + a
                self._add(layer, key, scaling, first, steps[a : a + most], 0)
        self._steps, self._first_steps, self._keys = {}, {}, {}

    def _add(
        self,
        layer: int,
        key: Tensor,
        scaling: float,
        first: int,
        steps: Sequence[_Step],
        dropped: int,
    ) -> None:
        """Add the shares of a layer in these steps. first: number of the first step. dropped:
        context tokens whose keys the layer has no more."""
        rows, heads, length = key.shape[:3]
        queries = torch.stack([query for query, _, _ in steps], dim=1)  # [B, T, Hq, Dh]
        # [B, H, T, group, Dh]
        grouped = (queries * scaling).unflatten(2, (heads, -1)).permute(0, 2, 1, 3, 4)
        group = grouped.shape[3]
        # in the model's dtype, as attention itself computes: the shares are those of the answer
        scores = torch.matmul(grouped.flatten(2, 3), key.transpose(2, 3))  # [B, H, T * group, S']
        apart = scores.unflatten(2, (len(steps), group))
        self._hide(apart, [count for _, count, _ in steps])
        if self._hidden is not None:
            own = self._hidden[layer].unflatten(0, (heads, group))  # [H, group, S]
            places = own[:, None].to(scores.device)
            apart[..., : places.shape[-1]].masked_fill_(places, -torch.inf)
        # [B, H * T * group, S']
        share = torch.softmax(scores, -1, out=scores).view(rows, -1, length)
        counts = torch.ones(heads, group, dtype=key.dtype, device=key.device)
        if self._heads is not None:
            counts = self._heads.mask(layer, heads * group).view(heads, group).to(counts)
        self._heads_heard[layer] = int(counts.sum())
        # [T, H * T * group]: of each step its own heads. A product instead of sums over the same
        # numbers: a tenth of the time
        own = torch.eye(len(steps), dtype=key.dtype, device=key.device)
        own = (own[:, None, :, None] * counts[None, :, None, :]).reshape(len(steps), -1)
        summed = torch.matmul(own, share).float().cpu()  # [B, T, S']
        for row, (owners, mass) in enumerate(zip(self._owners, self._mass, strict=True)):
            if first + len(steps) > len(mass):
                more = torch.zeros(first + len(steps) - len(mass), mass.shape[1])
                self._mass[row] = mass = torch.cat([mass, more])
            frames = owners[layer, dropped:].cpu() + 1
            mass[first : first + len(steps)].index_add_(1, frames, summed[row, :, : len(frames)])

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

    def of_steps(self, row: int = 0) -> Tensor:
        """[T, F + 1] float32 of each step that predicted a part of the answer: the mean share of a
        head's attention that went to text of the context, then to each frame. The rest went to the
        question and the answer."""
        counted = [step is None or bool(step[row]) for step in self._counted]
        steps = [number for number, counts in enumerate(counted) if counts]
        if self._ended and self._ended[row] and len(steps) > 1:
            steps.pop()
        return self._mass[row][steps] / max(sum(self._heads_heard.values()), 1)

    def weights(self, names: Sequence[FrameName], row: int = 0) -> dict[FrameName, float]:
        """Share of each frame in the attention on frames. The shares sum to 1; without frames there
        are none, and neither where retrieval heads look at none. names: of the frames by their
        numbers."""
        if not self._heads_heard or not self._owners[row].shape[1]:
            return {}
        on_frames = self.of_steps(row)[:, 1:]
        least = 0.0 if self._heads is None else self._heads.least_on_frames
        if not len(on_frames) or float(on_frames.sum(1).max()) < least:
            return {}
        summed = on_frames.square().sum(0).sqrt() if self._heads is not None else on_frames.sum(0)
        total = float(summed.sum())
        read = self._owners[row].unique().tolist()
        return {
            names[number]: float(summed[number]) / total for number in read if number >= 0 and total
        }
