"""Visual tokens -> keys and values, through the decoder over a sliding window with the preamble as
attention sink.

Each segment is one decoder call. It attends to the preamble, the last `window_frames` frames before
it, and itself causally (StreamingLLM's sink, arXiv 2309.17453; ReKV's window, arXiv 2503.00540,
without its loop over frames). The window holds keys as they are stored: before rotary embedding and
in the bank's dtype. For every segment it is laid out at positions from 0 again. So positions stay
small for a video of any length, and a window rebuilt from the bank gives the same bytes.

Calls the decoder only: no logits, no hidden states. Knows no disk and no question.
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.language_model import PositionRule, scaled_model
from encoders.models.sparsity.sparsity import Sparsity
from encoders.models.video_llm import DTYPES, require_full_attention
from encoders.prefill_caches import prefill_caches
from encoders.schema import KVBlock, VisualTokens


class WindowPrefill:
    """Holds the window of one stream; use one object per video."""

    keeps_kv = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        window_frames: int = 32,
        dtype: str = "float32",
        position: PositionRule | None = None,
        sparsity: Sparsity | None = None,
    ) -> None:
        """window_frames: number of earlier frames that a frame attends to. dtype: of the stored
        keys and values. position: how far apart tokens stand while they are encoded; the stored
        keys have no position. sparsity: which of the tokens before it a token of a segment reads;
        None: all. UserError on bad values, or if the model has other layers than full
        attention.
        """
        if window_frames < 0:
            raise UserError(f"prefill.window_frames={window_frames} is negative; use 0 or more.")
        if dtype not in DTYPES:
            raise UserError(f"prefill.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
        require_full_attention(backbone)
        self.backbone, self.window_frames, self.dtype = backbone, window_frames, DTYPES[dtype]
        self._language_model = scaled_model(backbone.language_model, position)
        self._sparsity = sparsity
        self._window: deque[KVBlock] = deque()
        self._sink = self._language_model.embed(backbone.prompt.preamble_ids())  # [P, D]
        self._caches = prefill_caches(self._language_model, self._sink)

    def restore(self, blocks: Iterable[KVBlock]) -> None:
        """Set the window from stored blocks in time order, as if they had just been encoded."""
        self._window.clear()
        for block in blocks:
            self._push(block)

    def __call__(self, visual: VisualTokens, keep: bool = True) -> KVBlock:
        """Encode the next segment of the stream. keep=False leaves the window unchanged, so the
        segment can come again with more frames.
        """
        new = self.backbone.frame_embeds(visual)
        window_tokens = sum(block.keys.shape[2] for block in self._window)
        start = len(self._sink) + window_tokens
        with self._caches.empty(start + len(new)) as cache:
            for block in self._window:
                self._language_model.append_block(block, cache)
            positions, _ = self._language_model.positions.of_frames(
                new.pos, new.offsets, cache.cursor
            )
            table = self._language_model.rope(positions, cache.cursor.text)
            self._language_model.prefill(new, cache, self._sparsity)
            keys, values = cache.stored(start, table, self.dtype)
        block = KVBlock(keys.cpu(), values.cpu(), new.offsets, new.pos)
        if keep:
            self._push(block)
        return block

    def _push(self, block: KVBlock) -> None:
        self._window.append(block)
        frames = sum(len(b.offsets) - 1 for b in self._window)
        while self._window and frames - self.window_frames >= len(self._window[0].offsets) - 1:
            frames -= len(self._window.popleft().offsets) - 1
        if frames > self.window_frames:
            first = self._window[0]
            self._window[0] = first.frames(frames - self.window_frames, len(first.offsets) - 1)


class NoPrefill:
    """Keeps visual tokens only: for `reader=tokens`, and for models whose keys and values cannot be
    recalled.
    """

    keeps_kv = False

    def __init__(self, backbone: Backbone) -> None:
        self.window_frames = 0

    def restore(self, blocks: Iterable[KVBlock]) -> None:
        """Nothing to restore."""

    def __call__(self, visual: VisualTokens, keep: bool = True) -> None:
        return None


def key_means(block: KVBlock) -> Tensor:
    """[T, L, H * Dh] float32: mean key of each frame's tokens (time tag included) per layer, before
    rotary embedding.
    """
    edges = block.offsets.tolist()
    means = [block.keys[:, :, a:b].float().mean(2) for a, b in pairwise(edges)]
    return torch.stack(means).flatten(2)
