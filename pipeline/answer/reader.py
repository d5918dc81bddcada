"""Evidence -> answer text, token by token, and the weight that the answer gave to each recalled
frame.

Two readers, one trade. TokenReader prefills the stored visual tokens again: exact, at the cost of a
prefill. KVReader lays the stored keys and values out at contiguous positions: no prefill, but a
frame's keys saw the window it was encoded in, not its new neighbors. With everything recalled and
inside the window both equal a plain forward pass (law 1).

The context is always: preamble | recalled and recent frames, each after its time tag | suffix.
Frames are in time order unless frame_order= says otherwise. Frames of several videos stand video by
video, those of each behind its title. The suffix is the recalled lines of text, if any, and the
question; with lines=between, each line stands behind the last frame up to its middle instead. Knows
no disk, no retrieval and no rotary embedding.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.kv_cache import join_blocks
from encoders.models.language_model import PositionRule
from encoders.models.sparsity.sparsity import Sparsity
from encoders.models.video_llm import require_full_attention
from encoders.schema import FrameEmbeds, KVBlock, join_tokens
from memory.schema import Evidence, Run
from pipeline.answer.cached_reader import BEHIND, BETWEEN, CachedReader
from pipeline.answer.frame_order.frame_orders import FrameOrder
from pipeline.answer.schema import Abstention, Cache, Layout
from pipeline.kv_policy.schema import KVPolicy


class TokenReader(CachedReader):
    """Prefills the recalled visual tokens again: the exact reference, and the reader for banks
    without keys and values."""

    needs_kv = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_new_tokens: int = 64,
        max_thinking_tokens: int = 1024,
        retrieval_heads: str | None = None,
        frame_order: FrameOrder | None = None,
        position: PositionRule | None = None,
        lines: str = BEHIND,
        abstention: Abstention | None = None,
        kv_policy: KVPolicy | None = None,
        chunk_frames: int | None = None,
        sparsity: Sparsity | None = None,
    ) -> None:
        """chunk_frames: frames that pass the decoder at once, each chunk behind those before it
        (chunked prefill, as in Qwen2.5-1M, arXiv 2501.15383). Memory of a pass grows with them, and
        no number changes but by rounding. None = all. sparsity: which of the tokens before it a
        token of a frame reads; None = all. UserError below 1, and on a sparsity for a model that
        has other layers than full attention.
        """
        if chunk_frames is not None and chunk_frames < 1:
            raise UserError(f"reader.chunk_frames={chunk_frames} must be 1 or more; null: all.")
        if sparsity is not None and not sparsity.is_dense:
            require_full_attention(backbone)
        self._chunk, self._sparsity = chunk_frames, sparsity
        super().__init__(
            backbone,
            max_new_tokens=max_new_tokens,
            max_thinking_tokens=max_thinking_tokens,
            retrieval_heads=retrieval_heads,
            frame_order=frame_order,
            position=position,
            lines=lines,
            abstention=abstention,
            kv_policy=kv_policy,
        )
        if backbone.counts_frames:  # then nothing before the frames is the same for every question
            self.sink = self.sink[:0]

    @property
    def settings(self) -> str:
        sparse = self._sparsity is not None and not self._sparsity.is_dense
        return f"{super().settings}{f', {self._sparsity}' if sparse else ''}"

    def layout(self, evidence: Evidence) -> Layout:
        """Every layer reads the same frames. Raises UserError on per-layer hits, which need keys
        and values."""
        if evidence.per_layer is not None or evidence.per_head is not None:
            raise UserError(
                "retriever.per_layer=true and retriever.per_head=true need reader=kv: visual "
                "tokens have no layers and no heads."
            )
        parts: list[Tensor | FrameEmbeds] = []
        counts: list[Tensor] = []  # tokens of each frame, and of the text before each video
        opening = self._opening(evidence)  # [n, D]
        videos, numbers = self._in_order(evidence)
        for video_id, runs in videos.items():
            text = torch.cat([opening, self._title(evidence, video_id)])
            frames = self.backbone.frame_embeds(
                join_tokens([run.tokens for run in runs]), whole=True
            )
            for lines, first, stop in self._stretches(evidence, video_id):
                text = torch.cat([text, self._words(lines)])
                own = frames.frames(first, stop)
                parts += [part for part in (text, own) if len(part)]
                counts += [torch.tensor([len(text)]), own.offsets.diff()]
                text = text[:0]
            opening = opening[:0]
        if len(opening):
            parts, counts = [opening], [torch.tensor([len(opening)])]
        owners = self._owners(counts, numbers)  # [S]
        layers = self._language_model.kv_shape.layers

        def write(cache: Cache) -> None:
            for part in parts:
                sparsity = self._sparsity if isinstance(part, FrameEmbeds) else None
                for chunk in self._chunks(part):
                    self._language_model.prefill(chunk, cache, sparsity)

        return Layout(len(owners), owners.expand(layers, -1), write)

    def _chunks(self, part: Tensor | FrameEmbeds) -> Iterator[Tensor | FrameEmbeds]:
        """The part, or its frames a few at a time."""
        if self._chunk is None or not isinstance(part, FrameEmbeds):
            yield part
            return
        frames = len(part.offsets) - 1
        for first in range(0, frames, self._chunk):
            yield part.frames(first, min(first + self._chunk, frames))

    def _opening(self, evidence: Evidence) -> Tensor:
        """[n, D] embeddings between the sink and the first frame."""
        if not self.backbone.counts_frames:
            return self._language_model.embed([])
        prompt = self.backbone.prompt
        if not evidence.runs:
            return self._language_model.embed(prompt.preamble_ids())
        last = float(evidence.runs[-1].tokens.times[-1])
        return self._language_model.embed(self.backbone.opening_ids(evidence.frame_count, last))


class KVReader(CachedReader):
    """Lays stored keys and values out at contiguous positions: rotates each key once and prefills
    only the suffix."""

    needs_kv = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_new_tokens: int = 64,
        max_thinking_tokens: int = 1024,
        retrieval_heads: str | None = None,
        frame_order: FrameOrder | None = None,
        position: PositionRule | None = None,
        lines: str = BEHIND,
        abstention: Abstention | None = None,
        kv_policy: KVPolicy | None = None,
    ) -> None:
        require_full_attention(backbone)
        if backbone.renumbers_frames:
            raise UserError(
                "backbone.frame_numbers=read needs reader=tokens: stored keys hold the numbers of "
                "their frames' times."
            )
        super().__init__(
            backbone,
            max_new_tokens=max_new_tokens,
            max_thinking_tokens=max_thinking_tokens,
            retrieval_heads=retrieval_heads,
            frame_order=frame_order,
            position=position,
            lines=lines,
            abstention=abstention,
            kv_policy=kv_policy,
        )

    def layout(self, evidence: Evidence) -> Layout:
        """With per-layer hits each layer reads its own frames. Raises UserError when the bank keeps
        no keys and values."""
        videos, numbers = self._in_order(evidence)
        blocks = {video_id: _block(runs) for video_id, runs in videos.items()}
        if not blocks:
            return self._without_frames()
        if evidence.per_layer is not None:
            if not self._order.is_time:
                raise UserError(
                    "retriever.per_layer=true reads frames in time order; use frame_order=time, or "
                    "another retriever."
                )
            if self.lines == BETWEEN:
                raise UserError(
                    "reader.lines=between does not fit retriever.per_layer=true, where each layer "
                    "reads frames of its own; use reader.lines=behind."
                )
            return self._per_layer_layout(evidence.per_layer, list(blocks.values()))
        parts: list[tuple[Tensor, KVBlock]] = []  # text, and the frames behind it
        for video_id, block in blocks.items():
            text = self._title(evidence, video_id)
            for lines, first, stop in self._stretches(evidence, video_id):
                parts.append((torch.cat([text, self._words(lines)]), block.frames(first, stop)))
                text = text[:0]
        counts = [
            part for text, own in parts for part in (torch.tensor([len(text)]), own.offsets.diff())
        ]
        owners = self._owners(counts, numbers).expand(self._language_model.kv_shape.layers, -1)

        def write(cache: Cache) -> None:
            for text, own in parts:
                if len(text):
                    self._language_model.prefill(text, cache)
                if len(own.offsets) > 1:
                    self._language_model.append_block(own, cache)

        return Layout(owners.shape[1], owners, write)

    def _per_layer_layout(self, per_layer: Tensor, blocks: Sequence[KVBlock]) -> Layout:
        """Each layer reads frames of its own. per_layer: [L, k] numbers of frames."""
        if len(blocks) > 1:
            raise UserError(
                "retriever.per_layer=true reads one video at a time; ask about one, or use another "
                "retriever."
            )
        (block,) = blocks
        owners = self._owners([torch.tensor([0]), block.offsets.diff()]).expand(
            self._language_model.kv_shape.layers, -1
        )
        sink = len(self.sink)
        index = _tokens_per_layer(per_layer, owners[0, sink:])  # [L, n]
        owners = torch.cat([owners[:, :sink], owners[:, sink:].gather(1, index)], dim=1)
        write = partial(self._language_model.append_per_layer, block, index)
        return Layout(sink + index.shape[1], owners, write)


def _block(runs: Sequence[Run]) -> KVBlock:
    """The keys and values of frames of one video. UserError where the bank keeps none."""
    blocks = [run.kv for run in runs if run.kv is not None]
    if len(blocks) < len(runs):
        raise UserError(
            "This bank keeps no keys and values (prefill=none); ask with reader=tokens."
        )
    return join_blocks(blocks)


def _tokens_per_layer(per_layer: Tensor, owners: Tensor) -> Tensor:
    """Which tokens each layer reads: [L, n] rising indices. per_layer: [L, k] numbers of each
    layer's frames. owners: [M] number of each token's frame.

    All layers of a cache have the same length. Where a layer's frames have fewer tokens than those
    of another, the first tokens of further frames follow.
    """
    chosen = [torch.isin(owners, frames) for frames in per_layer]  # each [M] bool
    longest = max(int(own.sum()) for own in chosen)
    for own in chosen:
        others = (~own).nonzero()[: longest - int(own.sum()), 0]
        own[others] = True
    return torch.stack([own.nonzero()[:, 0] for own in chosen])
