"""Dual Chunk Attention (arXiv 2402.17463): positions count within chunks, so that no two tokens
stand further apart than the model was trained on, in a context of any length.

A context is cut into chunks of s positions; the model was trained on c > s. A key at position p
stands at p mod s. A query at position p stands, towards the keys of

    its own chunk        at p mod s
    the chunk before     at min(p mod s + s, c - 1)
    all earlier chunks   at c - 1

so all distances are below c, the c - s nearest ones of a neighboring chunk are true, and earlier
chunks keep no order among themselves. A context of one chunk is as it was.

The three queries become one product: with C chunks, a key is laid into the place of its own chunk
among C places of Dh numbers, and a query holds at each place what stands towards that chunk. So
every attention function, mask and listener works as it is. This is the exact reference: it costs C
times the products of queries with keys and a copy of the keys, and nothing where all positions
are in the first chunk. Knows rotary tables; no model and no cache.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.kv_cache import RotaryTable

_SHARE = 0.75  # of the positions that a chunk takes by default


@dataclass(frozen=True)
class DualChunks:
    """chunk: positions of a chunk, s; None: three quarters of `positions`. positions: that the
    model was trained on, c; None: those of its configuration.
    """

    chunk: int | None = None
    positions: int | None = None

    # as of RotaryScaling: all tokens alike, and any number of positions fits the model
    frames_only = False
    is_identity = False
    reach = math.inf

    def __post_init__(self) -> None:
        for name in ("chunk", "positions"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"position.{name}={value} must be 1 or more.")

    def fitted(self, positions: int | None, axes: int) -> tuple[int, int]:
        """(s, c) for a model. positions: of its configuration. UserError where it does not fit."""
        if axes != 1:
            raise UserError(
                "position=dual_chunk needs a model whose positions stand on one axis, and this one "
                "has three; use position=partial_yarn."
            )
        trained = self.positions or positions
        if trained is None:
            raise UserError(
                "position.positions= is needed: the model's configuration does not say how many "
                "positions it was trained on."
            )
        chunk = self.chunk or max(1, int(_SHARE * trained))
        if chunk >= trained:
            raise UserError(
                f"position.chunk={chunk} must be below the {trained} positions that the model was "
                "trained on; three quarters of them are usual."
            )
        return chunk, trained


class ChunkRotary:
    """The positions of a model under dual chunks."""

    def __init__(self, chunk: int, trained: int, table: Callable[[Tensor], RotaryTable]) -> None:
        """chunk, trained: s and c. table: rotary embedding at positions [n]."""
        self.chunk, self._trained, self._table = chunk, trained, table

    def within(self, positions: Tensor) -> Tensor:
        """Where tokens at these positions stand in their chunks."""
        return positions % self.chunk

    def towards(self, positions: Tensor, chunks_before: int) -> Tensor:
        """Where queries at these positions stand towards keys so many chunks before."""
        own = self.within(positions)
        if chunks_before == 0:
            return own
        return (own + self.chunk if chunks_before == 1 else own * 0 + self._trained).clamp(
            max=self._trained - 1
        )

    def queries(
        self, positions: Tensor, capacity: int, places: Tensor | None = None
    ) -> "ChunkQueries":
        """What attention needs to know of a pass. positions: [n], or [B, n], of its queries.
        capacity: of the cache. places: [B, S] positions of the keys; None: they are 0, 1, 2, ...
        """
        at = positions if positions.dim() == 2 else positions[None]
        turns = [
            [self._table(self.towards(row, before)) for before in range(3)] for row in at.cpu()
        ]
        return ChunkQueries(at // self.chunk, turns, self.chunk, -(-capacity // self.chunk), places)


@dataclass(frozen=True)
class ChunkQueries:
    """The queries of one pass, for `encoders/models/attention.py`. Shapes: B contexts, n queries,
    S keys, C chunks, Dh head width."""

    chunks_of: Tensor  # [B, n] int64 number of each query's chunk
    turns: list[list[RotaryTable]]  # of each context, towards its own, the last and earlier chunks
    chunk: int
    most: int  # C: chunks of the whole cache, the same in every pass over it
    places: Tensor | None  # [B, S] positions of the keys; None: 0, 1, 2, ...

    @property
    def is_one_chunk(self) -> bool:
        """Whether nothing changes: every query is in the first chunk."""
        return int(self.chunks_of.max()) == 0

    def spread(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """[B, Hq, n, Dh] and [B, H, S, Dh], rotated within their chunks -> [B, Hq, n, C * Dh] and
        [B, H, S, C * Dh], whose products are those of dual chunks.
        """
        if self.most == 1:
            return query, key
        towards = torch.stack(
            [self._turned(query[b], tables) for b, tables in enumerate(self.turns)]
        )  # [B, 3, Hq, n, Dh]
        numbers = torch.arange(self.most, device=query.device)
        before = (self.chunks_of.to(query.device)[..., None] - numbers).clamp(0, 2)  # [B, n, C]
        batch, heads, count, width = query.shape
        index = before[:, None, :, :, None].expand(batch, heads, count, self.most, width)
        queries = towards.permute(0, 2, 3, 1, 4).gather(3, index).flatten(3)
        places = torch.arange(key.shape[2], device=key.device)[None]
        if self.places is not None:
            places = self.places.to(key.device)
        own = (places[:, : key.shape[2]] // self.chunk)[..., None] == numbers  # [B, S, C]
        keys = (key[:, :, :, None] * own[:, None, :, :, None].to(key.dtype)).flatten(3)
        return queries, keys

    def _turned(self, query: Tensor, tables: list[RotaryTable]) -> Tensor:
        """[Hq, n, Dh] -> [3, Hq, n, Dh]: towards the three kinds of chunks, by one rotation each of
        what the query was before any.
        """
        raw = tables[0].unrotate(query)
        turned = [query, *(table.rotate(raw).to(query.dtype) for table in tables[1:])]
        return torch.stack(turned)
