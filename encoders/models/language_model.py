"""The language model of a video-LLM: embeddings, rotary positions, caches, decoder calls, and
greedy decoding.

Knows transformers' public interfaces and the caches of this folder. Knows no pixels, no family,
and no checkpoint.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch
from torch import Tensor

from encoders.models.attention import ATTENTIONS, Listener
from encoders.models.batched_cache import BatchedCache
from encoders.models.kv_cache import FixedCache, KVShape, LibraryCache
from encoders.models.positions import Cursor, LinearPositions, Positions
from encoders.models.prompt_text import PromptText
from encoders.schema import FrameEmbeds, KVBlock

from transformers import DynamicCache, PreTrainedConfig  # isort: skip
from transformers.cache_utils import DynamicLayer  # isort: skip

_WIDE = 768  # width from which a decoder's matrix products keep all cores busy


class _QueriesComplete(Exception):
    """Every layer has computed its queries."""


class LanguageModel:
    """The decoder of a video-LLM with its embeddings and its head. Contexts live in caches that the
    caller holds.

    Shapes: D model width, L layers, H KV heads, Dh head width, V vocabulary.
    """

    def __init__(
        self,
        model: Any,
        decoder: Any,
        config: PreTrainedConfig,
        prompt: PromptText,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """model: transformers' model of the family, with its weights. decoder: the part of it that
        turns hidden states into hidden states. config: the checkpoint's.
        """
        self._model, self._decoder, self._config, self._prompt = model, decoder, config, prompt
        self._dtype, self._device = dtype, device
        text = config.get_text_config()
        self.kv_shape = KVShape.of(config)
        # "" if every layer is full attention, else the names of the layer types that are not
        self.other_layers = other_layers(text)
        # a family with three axes sets its own
        self.positions: Positions = LinearPositions()
        self._query_heads: int = text.num_attention_heads
        # the last positions, and cosine and sine there
        self._rope = torch.zeros(0, dtype=torch.int64), (torch.zeros(0), torch.zeros(0))

    @property
    def is_narrow(self) -> bool:
        """True if the decoder's matrix products are too small to use many cores."""
        return int(self._config.get_text_config().hidden_size) < _WIDE

    def embed(self, ids: list[int]) -> Tensor:
        """[n, D] embeddings of n token ids."""
        rows: Tensor = self._model.get_input_embeddings()(
            torch.tensor(ids, dtype=torch.int64, device=self._device)
        )
        return rows

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [n, Dh] float32 at positions [n], or [3, n] for three axes; attention
        scaling included. Read-only: the last result is cached, because contexts of several
        questions use the same positions.
        """
        last_positions, tables = self._rope
        if torch.equal(positions, last_positions):
            return tables
        # carries dtype and device, nothing else
        probe = torch.empty(0, dtype=torch.float32, device=self._device)
        cos, sin = self._decoder.rotary_emb(probe, _add_batch_axis(positions.to(self._device)))
        self._rope = positions, (cos[0], sin[0])
        return cos[0], sin[0]

    def cache(self, capacity: int) -> FixedCache | LibraryCache:
        """An empty cache for this model."""
        if self.other_layers:
            return LibraryCache(config=self._config.get_text_config())
        shape = self.kv_shape
        return FixedCache.empty(
            shape.layers, shape.heads, capacity, shape.width, self._dtype, self._device
        )

    def batched_cache(self, rows: int, capacity: int) -> BatchedCache:
        """Empty caches of several contexts. For models that keep keys and values of every token."""
        shape = self.kv_shape
        return BatchedCache.empty(
            rows, shape.layers, shape.heads, capacity, shape.width, self._dtype, self._device
        )

    @torch.inference_mode()
    def forward(
        self,
        embeds: Tensor | FrameEmbeds,
        cache: FixedCache | LibraryCache,
        listener: Listener | None = None,
    ) -> Tensor:
        """Run text [n, D] or frames through the decoder after the tokens in the cache; return
        hidden states [n, D]. No logits.

        Positions continue at the cache's cursor and are always passed. Default positions and state
        on the model's modules (Qwen's rope_deltas) are never used, so streams on one model cannot
        disturb each other.
        """
        extra = {} if listener is None else {"listener": listener}
        placed, cursor = self._decoder_inputs(embeds, cache.cursor)
        hidden: Tensor = self._decoder(
            past_key_values=cache, use_cache=True, **placed, **extra
        ).last_hidden_state
        cache.cursor = cursor
        return hidden[0]

    @torch.inference_mode()
    def prefill(self, embeds: Tensor | FrameEmbeds, cache: FixedCache | LibraryCache) -> None:
        """As `forward`, for keys and values alone: the unused outputs of the last layer are
        skipped.
        """
        placed, cursor = self._decoder_inputs(embeds, cache.cursor)
        with cache.filling() if isinstance(cache, FixedCache) else nullcontext():
            self._decoder(past_key_values=cache, use_cache=True, **placed)
        cache.cursor = cursor

    def _decoder_inputs(
        self, embeds: Tensor | FrameEmbeds, cursor: Cursor
    ) -> tuple[dict[str, Any], Cursor]:
        """The decoder's arguments for text [n, D] or frames at a cursor, and the cursor
        after them.
        """
        extra: dict[str, Any] = {"masks": {}}
        if isinstance(embeds, FrameEmbeds):
            positions, after = self.positions.of_frames(embeds.pos, embeds.offsets, cursor)
            if embeds.deepstack:
                extra["visual_pos_masks"] = embeds.visual[None].to(self._device)
                extra["deepstack_visual_embeds"] = list(embeds.deepstack)
            embeds = embeds.embeds
        else:
            positions, after = self.positions.of_text(len(embeds), cursor)
        extra["inputs_embeds"] = embeds[None].to(self._dtype)
        extra["position_ids"] = _add_batch_axis(positions.to(self._device))
        return extra, after

    @torch.inference_mode()
    def forward_batch(
        self, texts: Sequence[Tensor], stack: BatchedCache, listener: Listener | None = None
    ) -> Tensor:
        """Run a text [n, D] (n may be 0) after each row of a joined batch in one call; return
        hidden states [B, longest n, D]. The last hidden states of a shorter text are meaningless.
        """
        lengths = [len(text) for text in texts]
        width = max(lengths)
        embeds = torch.nn.utils.rnn.pad_sequence(
            [text.to(self._dtype) for text in texts], batch_first=True
        )
        positions = torch.zeros((self.positions.axes, len(lengths), width), dtype=torch.int64)
        for b, (row, length) in enumerate(zip(stack.rows, lengths, strict=True)):
            if length:
                positions[:, b, :length], row.cursor = self.positions.of_text(length, row.cursor)
        positions = positions.to(self._device)
        mask = stack.append_mask(lengths, width)
        if self._model.config.get_text_config()._attn_implementation == ATTENTIONS["eager"]:
            mask = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(self._dtype).min
            )
        hidden: Tensor = self._decoder(
            inputs_embeds=embeds,
            position_ids=positions[0] if self.positions.axes == 1 else positions,
            attention_mask=mask,
            past_key_values=stack.joint,
            use_cache=True,
            masks={},
            **({} if listener is None else {"listener": listener}),
        ).last_hidden_state
        return hidden

    def append_block(self, block: KVBlock, cache: FixedCache) -> None:
        """Append stored frames at the cache's cursor: one rotation per key, no forward pass."""
        positions, cursor = self.positions.of_frames(block.pos, block.offsets, cache.cursor)
        cache.append(block.keys, block.values, *self.rope(positions))
        cache.cursor = cursor

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] float32."""
        scores: Tensor = self._model.lm_head(hidden)
        return scores.float()

    @torch.inference_mode()
    def decode(
        self,
        hidden: Tensor,
        cache: FixedCache | LibraryCache,
        max_new_tokens: int,
        listener: Listener | None = None,
    ) -> Iterator[int]:
        """Greedy decoding from the last hidden state [D]: token ids, one at a time, without the
        stop token.
        """
        stops = self._prompt.stop_ids()
        for step in range(max_new_tokens):
            token = int(self.logits(hidden[None])[0].argmax())
            if token in stops:
                return
            yield token
            if step + 1 < max_new_tokens:
                hidden = self.forward(self.embed([token]), cache, listener)[-1]

    @torch.inference_mode()
    def queries_of(self, questions: Sequence[str]) -> Tensor:
        """[B, L, H * Dh] float32: mean query of each question's tokens per layer, before rotary
        embedding. One pass of the decoder answers all questions.

        The query heads that share a KV head are summed: sum_h <q_h, k_g(h)> = <sum_h q_h, k_g>. So
        the ranking of frames by mean key is that of all heads, and the index is smaller by the
        group size.
        """
        shape = self.kv_shape
        lead = self._prompt.preamble_ids()
        texts = [self._prompt.suffix_ids(question) for question in questions]
        longest = len(lead) + max(map(len, texts))
        # after the text, so nothing attends to it
        padded = [lead + ids + [0] * (longest - len(lead) - len(ids)) for ids in texts]
        positions, _ = self.positions.of_text(longest, Cursor())
        with self._captured_queries() as queries:
            self._decoder(
                inputs_embeds=torch.stack([self.embed(ids) for ids in padded]).to(self._dtype),
                position_ids=_add_batch_axis(positions.to(self._device)).expand(
                    *positions.shape[:-1], len(texts), -1
                ),
                use_cache=False,
                masks={},
            )
        means = torch.stack(
            [
                torch.stack(
                    [
                        q[b, len(lead) : len(lead) + len(ids)].float().mean(0).flatten()
                        for q in queries
                    ]
                )
                for b, ids in enumerate(texts)
            ]
        )  # [B, L, Hq * Dh]
        per_kv_head = means.view(
            len(texts), shape.layers, shape.heads, self._query_heads // shape.heads, shape.width
        ).sum(3)
        return per_kv_head.flatten(2).cpu()

    @contextmanager
    def _captured_queries(self) -> Iterator[list[Tensor]]:
        """`with ... as queries: decoder(...)` collects each layer's queries before rotary
        embedding, and ends the pass once the last layer has computed them."""
        queries: list[Tensor] = []
        thread = threading.get_ident()

        def capture(_module: Any, _args: Any, out: Tensor) -> None:
            # another thread may be encoding with the same modules
            if threading.get_ident() == thread:
                queries.append(out)
                if len(queries) == len(parts):
                    raise _QueriesComplete  # the outputs of the last layer are unused

        # transformers does not return projections before rotary embedding; a hook in a `try` leaves
        # no trace. Qwen3 normalizes queries after the projection.
        parts = [
            getattr(layer.self_attn, "q_norm", layer.self_attn.q_proj)
            for layer in self._decoder.layers
        ]
        hooks = [part.register_forward_hook(capture) for part in parts]
        try:
            with suppress(_QueriesComplete):
                yield queries
        finally:
            for hook in hooks:
                hook.remove()


def _add_batch_axis(positions: Tensor) -> Tensor:
    """[n] -> [1, n]; [3, n] -> [3, 1, n]: a batch of one, as transformers expects it."""
    return positions[None] if positions.dim() == 1 else positions[:, None]


def other_layers(text_config: Any) -> str:
    """ "" if every layer is full attention, else the names of the other layer types."""
    others = {
        type(layer).__name__
        for layer in DynamicCache(config=text_config).layers
        if type(layer) is not DynamicLayer
    }
    named = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention"}
    return ", ".join(sorted(named or others)) if others else ""
