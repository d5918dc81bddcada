"""The language model of a video-LLM: embeddings, rotary positions, caches, decoder calls, and
greedy decoding.

Knows transformers' public interfaces and the caches of this folder. Knows no pixels, no family,
and no checkpoint.
"""

import copy
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.attention import ATTENTIONS, Listener
from encoders.models.batched_cache import BatchedCache
from encoders.models.generation import Choose, greedy
from encoders.models.kv_cache import FixedCache, KVShape, LibraryCache, RotaryForm, RotaryTable
from encoders.models.position.dual_chunk import ChunkRotary, DualChunks
from encoders.models.position.rotary_scaling import RotaryScaling
from encoders.models.position.scaled_rotary import ScaledRotary, Table
from encoders.models.positions import Cursor, LinearPositions, Positions
from encoders.models.prompt_text import PromptText
from encoders.models.sparsity.sparsity import Sparsity
from encoders.schema import FrameEmbeds, KVBlock

from transformers import DynamicCache, PreTrainedConfig  # isort: skip
from transformers.cache_utils import DynamicLayer  # isort: skip

PositionRule = RotaryScaling | DualChunks  # a part of conf/position/

_WIDE = 768  # width from which a decoder's matrix products keep all cores busy

# positions at which keys are compared with `RotaryTable.rotate`; a row each for three axes
_PROBES = torch.tensor([[0, 5, 17], [0, 9, 3], [0, 2, 11]])
_MISFIT = 0.03  # relative difference from which rotated keys count as other keys


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
        # True if the decoder's matrix products are too small to use many cores
        self.is_narrow = int(text.hidden_size) < _WIDE
        # "" if every layer is full attention, else the names of the layer types that are not
        self.other_layers = other_layers(text)
        # a family with three axes sets its own
        self.positions: Positions = LinearPositions()
        self.query_heads: int = text.num_attention_heads
        # that the model was made for; None if its configuration states none
        self.max_positions: int | None = getattr(text, "max_position_embeddings", None)
        # the last positions, how many before them are text, and their table
        self._rope: tuple[Tensor, int, RotaryTable] | None = None
        self._scaling: PositionRule | None = None
        self._scaled: ScaledRotary | None = None
        self._chunks: ChunkRotary | None = None

    def embed(self, ids: list[int]) -> Tensor:
        """[n, D] embeddings of n token ids."""
        rows: Tensor = self._model.get_input_embeddings()(
            torch.tensor(ids, dtype=torch.int64, device=self._device)
        )
        return rows

    def rope(self, positions: Tensor, text: int = 0) -> RotaryTable:
        """Rotary embedding of frames at positions [n], or [3, n] for three axes; attention scaling
        included. text: positions before them that belong to text (`Cursor.text`). Read-only: the
        last result is cached, because contexts of several questions use the same positions. For
        models with a `rotary_form`.
        """
        last = self._rope
        if last is not None and last[1] == text and torch.equal(positions, last[0]):
            return last[2]
        assert self.rotary_form is not None  # guaranteed by require_full_attention
        cos_sin = self._frame_table(positions, text) or self._cos_sin(self._within(positions))
        table = RotaryTable.of(*cos_sin, self.rotary_form)
        self._rope = positions, text, table
        return table

    def _within(self, positions: Tensor) -> Tensor:
        """The positions that the decoder gets: within chunks, if there are any."""
        return positions if self._chunks is None else self._chunks.within(positions)

    def _plain_table(self, positions: Tensor) -> RotaryTable:
        """Rotary embedding at positions [n], as the model was trained."""
        assert self.rotary_form is not None  # guaranteed by scaled_model
        return RotaryTable.of(*self._cos_sin(positions), self.rotary_form)

    def _frame_table(self, positions: Tensor, text: int) -> Table | None:
        """Of frames; None without a scaling."""
        if self._scaled is None:
            return None
        before = torch.full_like(positions, text)
        return self._scaled.table(positions, before, self._device, of_frames=True)

    def _text_table(self, positions: Tensor, cursor: Cursor) -> Table | None:
        """Of text tokens that begin at the cursor; None without a scaling."""
        if self._scaled is None:
            return None
        before = cursor.after_text(positions)
        return self._scaled.table(positions, before, self._device, of_frames=False)

    def _rotating(self, tables: Sequence[Table | None]) -> AbstractContextManager[None]:
        """`with` it, the decoder rotates a batch of these rows by their tables."""
        given = [table for table in tables if table is not None]
        if self._scaled is None or not given:
            return nullcontext()
        cos, sin = (torch.stack(parts) for parts in zip(*given, strict=True))
        return self._scaled.placed((cos, sin))

    def _cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[n, R] float32 each, as the decoder computes them."""
        # carries dtype and device, nothing else
        probe = torch.empty(0, dtype=torch.float32, device=self._device)
        cos, sin = self._decoder.rotary_emb(probe, _add_batch_axis(positions.to(self._device)))
        return cos[0], sin[0]

    @cached_property
    def rotary_form(self) -> RotaryForm | None:
        """How the attention of every layer rotates its keys; None if in no way that is known here.

        Found by a probe, because configurations do not say it, and keys that are rotated in another
        way are wrong keys without an error. The same token alone in a context has the same hidden
        states at every position, so its keys there differ by their rotation alone.
        """
        positions = _PROBES if self.positions.axes == 3 else _PROBES[0]
        keys = self._keys_alone(positions)  # [L, 3, H, 1, Dh]
        tables = [self._cos_sin(at) for at in positions.split(1, dim=-1)]
        for form in RotaryForm:
            first, *others = (RotaryTable.of(*table, form) for table in tables)
            raw = first.unrotate(keys[:, 0])
            if all(
                bool((table.misfit(raw, keys[:, row]) < _MISFIT).all())
                for row, table in enumerate(others, 1)
            ):
                return form
        return None

    @torch.inference_mode()
    def _keys_alone(self, positions: Tensor) -> Tensor:
        """[L, n, H, 1, Dh]: keys of one token that stands alone at each of the positions [n], or
        [3, n].
        """
        shape, count = self.kv_shape, positions.shape[-1]
        keys, values = (
            torch.empty(
                (shape.layers, count, shape.heads, 1, shape.width),
                dtype=self._dtype,
                device=self._device,
            )
            for _ in range(2)
        )
        cache = FixedCache(keys, values)
        token = self.embed(self._prompt.preamble_ids()).mean(0).to(self._dtype)  # [D]
        with cache.filling():
            self._decoder(
                inputs_embeds=token.expand(count, 1, -1),
                position_ids=positions[..., None].to(self._device),
                past_key_values=cache,
                use_cache=True,
                masks={},
            )
        return keys

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
        extra: dict[str, Any] = {} if listener is None else {"listener": listener}
        if isinstance(cache, FixedCache) and cache.context_attention is not None:
            extra["context_attention"] = cache.context_attention
        placed, cursor, table = self._decoder_inputs(embeds, cache)
        with self._rotating([table]):
            hidden: Tensor = self._decoder(
                past_key_values=cache, use_cache=True, **placed, **extra
            ).last_hidden_state
        cache.cursor = cursor
        return hidden[0]

    @torch.inference_mode()
    def prefill(
        self,
        embeds: Tensor | FrameEmbeds,
        cache: FixedCache | LibraryCache,
        sparsity: Sparsity | None = None,
    ) -> None:
        """As `forward`, for keys and values alone: the unused outputs of the last layer are
        skipped. sparsity: which keys the new tokens read, for models whose every layer is full
        attention; None: all.
        """
        extra = {} if sparsity is None or sparsity.is_dense else {"sparsity": sparsity}
        placed, cursor, table = self._decoder_inputs(embeds, cache)
        filling = cache.filling() if isinstance(cache, FixedCache) else nullcontext()
        with self._rotating([table]), filling:
            self._decoder(past_key_values=cache, use_cache=True, **placed, **extra)
        cache.cursor = cursor

    def _decoder_inputs(
        self, embeds: Tensor | FrameEmbeds, cache: FixedCache | LibraryCache
    ) -> tuple[dict[str, Any], Cursor, Table | None]:
        """The decoder's arguments for text [n, D] or frames at the cache's cursor, the cursor after
        them, and their table under a scaling. UserError beyond the model's positions.
        """
        cursor = cache.cursor
        extra: dict[str, Any] = {"masks": {}}
        if isinstance(embeds, FrameEmbeds):
            positions, after = self.positions.of_frames(embeds.pos, embeds.offsets, cursor)
            table = self._frame_table(positions, cursor.text)
            if embeds.deepstack:
                extra["visual_pos_masks"] = embeds.visual[None].to(self._device)
                extra["deepstack_visual_embeds"] = list(embeds.deepstack)
            embeds = embeds.embeds
        else:
            positions, after = self.positions.of_text(len(embeds), cursor)
            table = self._text_table(positions, cursor)
        self.refuse_beyond(after)
        if isinstance(cache, FixedCache) and cache.hidden is not None:
            extra["hidden"] = cache.hidden
        if self._chunks is not None:
            assert isinstance(cache, FixedCache)  # guaranteed by scaled_model
            extra["chunks"] = self._chunks.queries(positions, cache.capacity)
        extra["inputs_embeds"] = embeds[None].to(self._dtype)
        extra["position_ids"] = _add_batch_axis(self._within(positions).to(self._device))
        return extra, after, table

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
        tables: list[Table | None] = []
        for b, (row, length) in enumerate(zip(stack.rows, lengths, strict=True)):
            before = row.cursor
            if length:
                positions[:, b, :length], row.cursor = self.positions.of_text(length, row.cursor)
            own = positions[:, b] if self.positions.axes == 3 else positions[0, b]
            tables.append(self._text_table(own, before))
        mask = stack.append_mask(lengths, width)
        extra: dict[str, Any] = {} if listener is None else {"listener": listener}
        if self._chunks is not None:
            extra["chunks"] = self._chunks.queries(positions[0], stack.capacity, stack.places)
        positions = self._within(positions).to(self._device)
        if self._model.config.get_text_config()._attn_implementation == ATTENTIONS["eager"]:
            mask = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(self._dtype).min
            )
        with self._rotating(tables):
            hidden: Tensor = self._decoder(
                inputs_embeds=embeds,
                position_ids=positions[0] if self.positions.axes == 1 else positions,
                attention_mask=mask,
                past_key_values=stack.joint,
                use_cache=True,
                masks={},
                **extra,
            ).last_hidden_state
        return hidden

    def append_block(self, block: KVBlock, cache: FixedCache) -> None:
        """Append stored frames at the cache's cursor: one rotation per key, no forward pass."""
        positions, cursor = self.positions.of_frames(block.pos, block.offsets, cache.cursor)
        self.refuse_beyond(cursor)
        cache.append(block.keys, block.values, self.rope(positions, cache.cursor.text))
        cache.cursor = cursor

    def append_per_layer(self, block: KVBlock, chosen: Tensor, cache: FixedCache) -> None:
        """As `append_block`, but each layer gets its own tokens. chosen: [L, n] int64 rising
        indices of the block's tokens.

        A layer's frames stand as if they were the whole video, each where it would stand if all its
        tokens were chosen. Text continues after the highest position of any layer.
        """
        text = cache.cursor.text
        placed = [self._positions_of(block, tokens, cache.cursor) for tokens in chosen]
        cursor = Cursor.furthest([end for _, end in placed])
        self.refuse_beyond(cursor)
        indices = chosen.to(block.keys.device)
        stored = zip(block.keys, block.values, indices, strict=True)
        cache.append_per_layer(
            (
                (keys.index_select(1, tokens), values.index_select(1, tokens))
                for keys, values, tokens in stored
            ),
            (self.rope(positions, text) for positions, _ in placed),
        )
        cache.cursor = cursor

    def _positions_of(
        self, block: KVBlock, tokens: Tensor, cursor: Cursor
    ) -> tuple[Tensor, Cursor]:
        """Positions of some tokens of a block at the cursor, and the cursor after their frames."""
        if block.pos is None:  # one axis: one after another
            return self.positions.of_frames(None, torch.tensor([0, len(tokens)]), cursor)
        counts = block.offsets.diff()
        owners = torch.arange(len(counts)).repeat_interleave(counts)
        frames = owners[tokens].unique()
        whole = torch.isin(owners, frames).nonzero()[:, 0]  # all tokens of these frames
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts[frames].cumsum(0)])
        positions, end = self.positions.of_frames(block.pos[whole], offsets, cursor)
        return positions[:, torch.searchsorted(whole, tokens)], end

    def refuse_beyond(self, cursor: Cursor, more: int = 0) -> None:
        """UserError if a context up to the cursor, and `more` text tokens, has positions that the
        model was not made for.
        """
        end = self._end(cursor, more)
        if self.max_positions is not None and end > self.max_positions:
            raise UserError(
                f"A context of {end} positions is longer than the {self.max_positions} that the "
                "model was made for (max_position_embeddings); lower read_tokens= or tell_rounds=, "
                "or prefill.window_frames= while encoding."
            )

    def positions_left(self, cursor: Cursor, *, of_frames: bool = False) -> int | None:
        """Text tokens, or tokens of frames, that the model has positions for behind the cursor;
        None: any number.
        """
        scaling = self._scaling
        if self.max_positions is None:
            return None
        reach = 1.0
        if scaling is not None and (of_frames or not scaling.frames_only):
            reach = scaling.reach
        if math.isinf(reach):
            return None
        return max(0, math.floor((self.max_positions - self._end(cursor)) * reach))

    def _end(self, cursor: Cursor, more: int = 0) -> int:
        """Positions that a context up to the cursor, and `more` text tokens, takes of the model."""
        end, scaling = max(cursor.next, cursor.highest + 1) + more, self._scaling
        if scaling is None:
            return end
        fixed = cursor.text + more if scaling.frames_only else 0
        return fixed + math.ceil((end - fixed) / scaling.reach)

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
        choose: Choose = greedy,
    ) -> Iterator[int]:
        """Decoding from the last hidden state [D]: token ids, one at a time, without the stop
        token. choose: each token.
        """
        stops = self._prompt.stop_ids()
        for step in range(max_new_tokens):
            token = choose(self.logits(hidden[None])[0])
            if token in stops:
                return
            yield token
            if step + 1 < max_new_tokens:
                hidden = self.forward(self.embed([token]), cache, listener)[-1]

    @torch.inference_mode()
    def queries_of(self, questions: Sequence[str]) -> list[Tensor]:
        """Of each question [n, L, Hq, Dh] float32: the queries of its n tokens in every layer and
        head, before rotary embedding. One pass of the decoder answers all questions.
        """
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
        shape = (-1, self.query_heads, self.kv_shape.width)
        return [
            torch.stack(
                [q[b, len(lead) : len(lead) + len(ids)].float().reshape(shape) for q in queries], 1
            ).cpu()
            for b, ids in enumerate(texts)
        ]

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


def scaled_model(model: LanguageModel, scaling: PositionRule | None) -> LanguageModel:
    """The same model that rotates by a part of conf/position/ (arXiv 2309.00071 and others); itself
    where that changes nothing. Both can be used side by side. UserError where it does not fit the
    model.
    """
    if scaling is None or scaling.is_identity:
        return model
    scaled = copy.copy(model)
    scaled._rope, scaled._scaling = None, scaling
    if isinstance(scaling, DualChunks):
        sizes = scaling.fitted(model.max_positions, model.positions.axes)
        if model.other_layers or model.rotary_form is None:
            raise UserError(
                "position=dual_chunk needs a model whose every layer is full attention, with "
                "rotary positions; leave it out."
            )
        scaled._chunks = ChunkRotary(*sizes, scaled._plain_table)
    else:
        scaled._scaled = ScaledRotary(model._decoder, scaling, model.max_positions)
    return scaled


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
