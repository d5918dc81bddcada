"""The common part of all families of video-LLMs: loading, text around frames, rotary positions,
decoder calls.

One subclass per family (`llava_onevision.py`, `qwen_vl.py`, `internvl.py`, `smolvlm.py`) adds how
it encodes frames and which text surrounds each. Uses transformers' public interfaces only: no
patched forward, no copied model code. Knows no bank, no retrieval, and no disk but the
checkpoint's.

A prompt is: preamble | frame frame ... frame | suffix. A frame is its time tag, its visual tokens
and the text that the family puts after them. The suffix is what follows a video: the question and
the start of the assistant's turn.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from encoders.errors import UserError
from encoders.models.attention import ATTENTIONS, Listener, register
from encoders.models.backbone import Backbone
from encoders.models.batched_cache import BatchedCache
from encoders.models.checkpoint import (
    check_device,
    check_memory,
    check_weights,
    first_line,
    is_offline,
    memory_errors_as_user_errors,
    out_of_memory,
    quiet_loading,
    read_config,
)
from encoders.models.kv_cache import FixedCache, KVShape, LibraryCache
from encoders.models.onednn_linear import MIN_WEIGHTS_DECODER, pack
from encoders.models.positions import Cursor, LinearPositions, Positions
from encoders.schema import FrameEmbeds, Frames, KVBlock, VisualTokens

from transformers import AutoConfig, AutoProcessor, DynamicCache, PreTrainedConfig  # isort: skip
from transformers.cache_utils import DynamicLayer  # isort: skip

_WIDE = 768  # width from which a decoder's matrix products keep all cores busy
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadOptions(TypedDict, total=False):
    """The options of `VideoLLM.__init__`. A family's constructor passes them on: `**options:
    Unpack[LoadOptions]`.
    """

    dtype: str
    device: str
    attention: str
    revision: str | None
    batch: int | None
    reads_text: bool
    questions: str | None


class _QueriesComplete(Exception):
    """Every layer has computed its queries."""


class VideoLLM:
    """A transformers video-LLM as a Backbone. Shapes: D model width, V vocabulary."""

    model_class: Any  # transformers' class of the family
    family: str  # transformers' model type
    # hub id -> configuration as its authors published it
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # True if tests/laws/test_1_families.py compares its logits with transformers' own forward
    checked_equal = False
    # sampled frames that the tower merges into one; segments contain a multiple of it
    temporal_patch = 1
    positions: Positions = LinearPositions()
    batch = 8  # frames that pass through the tower at once

    def __init__(
        self,
        path: str,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
        batch: int | None = None,
        reads_text: bool = True,
        questions: str | None = None,
    ) -> None:
        """path: a local folder or a hub id. batch: frames (or temporal patches) that pass through
        the tower at once; bounds memory and changes nothing else; None = the family's default.
        reads_text: False for a model that was never taught to read text beside frames.
        questions: the only questions that the model knows, such as needle_world; None = any.
        UserError if the checkpoint cannot be loaded, is of another family, or does not fit into
        memory.
        """
        if dtype not in DTYPES:
            raise UserError(f"backbone.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
        if attention not in ATTENTIONS:
            raise UserError(
                f"backbone.attention={attention} is not known; use one of {', '.join(ATTENTIONS)}."
            )
        self.path, self.dtype, self.device = path, DTYPES[dtype], check_device(device)
        self.reads_text, self.questions = reads_text, questions
        self.batch = self.batch if batch is None else batch
        common: dict[str, Any] = {
            "revision": revision,
            "local_files_only": is_offline(path),
            "trust_remote_code": False,
        }
        config = read_config(path, self.family, revision, local_only=common["local_files_only"])
        check_weights(path)
        check_memory(path, config, self.dtype, self.device)
        self.processor = self._load_processor(**common)
        register()
        implementation = {
            "text_config": ATTENTIONS[attention],
            "vision_config": attention if attention == "eager" else ATTENTIONS[attention],
        }
        with memory_errors_as_user_errors(path, self.dtype, self.device):
            self.model = self._load(attn_implementation=implementation, **common)
            self.model.to(self.device)
        self.model.eval().requires_grad_(False)
        pack(self.model)
        # its shapes change in every step, so no graph is traced of it
        pack(self.decoder, MIN_WEIGHTS_DECODER)
        self.config = config
        text = config.get_text_config()
        self.kv_shape = KVShape.of(config)
        self.query_heads: int = text.num_attention_heads
        self.other_layers = other_layers(text)
        self._preamble_text, self._suffix_template = self._split_chat()
        self._time_tag_ids: dict[int, list[int]] = {}
        # the last positions, and cosine and sine there
        self._rope = torch.zeros(0, dtype=torch.int64), (torch.zeros(0), torch.zeros(0))

    def _load_processor(self, **settings: Any) -> Any:
        """The checkpoint's processor. UserError if it cannot be loaded."""
        try:
            return AutoProcessor.from_pretrained(self.path, **settings)
        except (OSError, ValueError, ImportError) as error:
            # ImportError: the processor's own package is missing; the error names it
            raise UserError(
                f"Cannot load a model from backbone.path={self.path}: {first_line(error)}"
            ) from error

    def _load(self, **settings: Any) -> Any:
        """The model with its weights. UserError if they cannot be read or are incomplete."""
        try:
            with quiet_loading(Path(self.path).is_dir()):
                model, report = self.model_class.from_pretrained(
                    self.path,
                    dtype=self.dtype,
                    use_safetensors=True,
                    output_loading_info=True,
                    **settings,
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            if out_of_memory(error):
                raise
            if "scaled_dot_product_attention" in str(error):
                raise UserError(
                    f"transformers has no fused attention for the model at {self.path}; use "
                    "backbone.attention=eager."
                ) from error
            raise UserError(
                f"Cannot load the weights at backbone.path={self.path}: {first_line(error)}"
            ) from error
        if report["missing_keys"]:  # transformers would continue with random numbers in their place
            missing = sorted(report["missing_keys"])
            raise UserError(
                f"The checkpoint at {self.path} lacks {len(missing)} of the model's weights, such "
                f"as {missing[0]}; "
                "copy it again."
            )
        return model

    # -- what differs between families -------------------------------------------------------------

    @property
    def is_narrow(self) -> bool:
        """True if the decoder's matrix products are too small to use many cores."""
        return int(self.config.get_text_config().hidden_size) < _WIDE

    @property
    def decoder(self) -> Any:
        """The language model without its head: hidden states in, hidden states out."""
        return self.model.model.language_model

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """Run the vision tower and the projector: T frames -> their visual tokens. No state, no
        neighbors.
        """
        raise NotImplementedError

    def after_video(self) -> Tensor:
        """[n, D] embeddings that are not text, between the last frame and the suffix; n
        may be 0.
        """
        return self.embed([])

    def frame_text_ids(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """Token ids before and after the visual tokens of a frame. Its images were sampled from
        `start` to `end` seconds; the two differ only for temporal patches. Default: the time tag,
        and nothing.
        """
        return self.time_tag_ids(end), []

    @staticmethod
    def frame_grid(config: Any, width: int = 0, height: int = 0) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens before compression, from the configuration
        alone. width, height: pixels of a frame; families with a fixed size ignore them.
        """
        raise NotImplementedError

    @classmethod
    def frame_tokens(cls, config: Any, width: int = 0, height: int = 0) -> int:
        """Number of visual tokens of a frame (or temporal patch) before compression."""
        rows, columns = cls.frame_grid(config, width, height)
        return rows * columns

    @classmethod
    def published_config(cls, path: str) -> PreTrainedConfig | None:
        """The configuration of a hub id as its authors published it; None for any other id."""
        return AutoConfig.for_model(**cls.published[path]) if path in cls.published else None

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens before compression."""
        return self.frame_grid(self.config, *self.frame_size)

    @property
    def tokens_per_frame(self) -> int:
        """Number of visual tokens that `encode_frames` makes of a frame, before compression."""
        return self.frame_tokens(self.config, *self.frame_size)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels that `encode_frames` expects; fixed per bank."""
        raise NotImplementedError

    def _check_size(self, frames: Frames) -> None:
        """ValueError if the frames do not have `frame_size`."""
        if frames.pixels.shape[1:3] != self.frame_size[::-1]:
            raise ValueError(
                f"frames of {frames.pixels.shape[1:3]} pixels, the tower takes "
                f"{self.frame_size[::-1]}"
            )

    def _process(self, frames: np.ndarray) -> Any:
        """The output of the checkpoint's own processor for one clip, [T, H, W, 3] uint8. The frames
        have their final size, so the processor must not choose another one from the length of the
        clip.
        """
        return self.processor.video_processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )

    def _visual_tokens(self, features: list[Tensor], frames: Frames) -> VisualTokens:
        """The record of the tower's outputs, in parts [n, rows * columns, D], for families that
        encode each frame alone.
        """
        tokens = torch.cat(features)  # [T, rows * columns, D]
        rows, columns = self.grid()
        places = torch.stack(
            torch.meshgrid(*(torch.arange(n) for n in (len(tokens), rows, columns)), indexing="ij"),
            dim=-1,
        )
        return VisualTokens(
            tokens=tokens.flatten(0, 1).cpu(),
            pos=places.reshape(-1, 3).to(torch.int32),
            offsets=torch.arange(len(tokens) + 1) * tokens.shape[1],
            times=torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64)),
        )

    # -- text pieces -------------------------------------------------------------------------------

    def _split_chat(self) -> tuple[str, str]:
        """The chat template's text before the video, and the text after it with "{question}" in the
        question's place.
        """
        marker = "\u0001question\u0001"
        parts = [{"type": "video"}, {"type": "text", "text": marker}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(self.processor.video_token)
        return before, after.replace(marker, "{question}")

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added."""
        token_ids: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return token_ids

    def text_of(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def embed(self, ids: list[int]) -> Tensor:
        """[n, D] embeddings of n token ids."""
        rows: Tensor = self.model.get_input_embeddings()(
            torch.tensor(ids, dtype=torch.int64, device=self.device)
        )
        return rows

    def preamble_ids(self) -> list[int]:
        """Token ids before the first frame; the attention sink of the sliding window."""
        return self.ids(self._preamble_text)

    def suffix_ids(self, question: str) -> list[int]:
        """Token ids after the video (and `after_video`): the question and the start of the
        assistant's turn.
        """
        return self.ids(self._suffix_template.replace("{question}", question))

    def time_tag_ids(self, seconds: float) -> list[int]:
        """The time tag of a frame, in whole seconds, rounded down: "[mm:ss]", with minutes above
        59, or "[hh:mm:ss]" if this tokenizer needs fewer tokens for it. So a frame late in a long
        video costs little more than an early one.
        """
        whole = int(seconds + 1e-6)
        if whole not in self._time_tag_ids:
            minutes, rest = divmod(whole, 60)
            by_minutes = self.ids(f"[{minutes:02d}:{rest:02d}]")
            by_hours = self.ids(f"[{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}]")
            self._time_tag_ids[whole] = min(by_minutes, by_hours, key=len)  # the first one on a tie
        return self._time_tag_ids[whole]

    def frame_embeds(self, visual_tokens: VisualTokens) -> FrameEmbeds:
        """Every frame's visual tokens with the text around them. A repeated frame continues where
        the frame that it repeats ends, without a time tag. If the family puts text after a frame,
        the repeated frame keeps its text: marks come in pairs, and with three axes the text after a
        frame determines where the next one begins.
        """
        width = self.model.get_input_embeddings().weight.shape[1]
        lengths: list[int] = []
        text: list[int] = []
        visual: list[Tensor] = []
        places: list[Tensor] = []
        repeats = (
            [False] * len(visual_tokens.times)
            if visual_tokens.repeats is None
            else visual_tokens.repeats.tolist()
        )
        times = zip(visual_tokens.starts.tolist(), visual_tokens.times.tolist(), strict=True)
        for (a, b), (start, end), repeated in zip(
            visual_tokens.ranges(), times, repeats, strict=True
        ):
            before, behind = self.frame_text_ids(start, end)
            if repeated and not behind:
                before = []
            text += before + behind
            lengths.append(len(before) + b - a + len(behind))
            visual.append(torch.zeros(lengths[-1], dtype=torch.bool))
            visual[-1][len(before) : len(before) + b - a] = True
            if self.positions.axes == 3:
                places.append(self._frame_pos(len(before), visual_tokens.pos[a:b], len(behind)))
        is_visual = torch.cat(visual)
        embeds = torch.empty(len(is_visual), width, dtype=self.dtype, device=self.device)
        # [N, D] or, with DeepStack, [N, D * (1 + levels)]
        tokens = visual_tokens.tokens.to(self.device, self.dtype)
        embeds[is_visual.to(self.device)] = tokens[:, :width]
        embeds[~is_visual.to(self.device)] = self.embed(text).to(self.dtype)
        return FrameEmbeds(
            embeds,
            torch.tensor([0, *lengths]).cumsum(0),
            is_visual,
            torch.cat(places) if places else None,
            tokens[:, width:].split(width, dim=1) if tokens.shape[1] > width else (),
        )

    def _frame_pos(self, before: int, pos: Tensor, behind: int) -> Tensor:
        """[before + n + behind, 3] int32: text with equal positions on all axes, the grid at one
        moment, then text after the grid's longer side.
        """
        grid = pos.clone()
        grid[:, 0] = 0
        end = before + max(self.grid())
        text = [
            torch.arange(a, b, dtype=pos.dtype)[:, None].expand(-1, 3)
            for a, b in ((0, before), (end, end + behind))
        ]
        return torch.cat([text[0], grid + before, text[1]])

    def frame_text_length(self, seconds: float = 0.0) -> int:
        """Number of tokens of the text around a frame at this time."""
        return sum(len(ids) for ids in self.frame_text_ids(seconds, seconds))

    # -- the decoder -------------------------------------------------------------------------------

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [n, Dh] float32 at positions [n], or [3, n] for three axes; attention
        scaling included. Read-only: the last result is cached, because contexts of several
        questions use the same positions.
        """
        last_positions, tables = self._rope
        if torch.equal(positions, last_positions):
            return tables
        # carries dtype and device, nothing else
        probe = torch.empty(0, dtype=torch.float32, device=self.device)
        cos, sin = self.decoder.rotary_emb(probe, _add_batch_axis(positions.to(self.device)))
        self._rope = positions, (cos[0], sin[0])
        return cos[0], sin[0]

    def cache(self, capacity: int) -> FixedCache | LibraryCache:
        """An empty cache for this model."""
        if self.other_layers:
            return LibraryCache(config=self.config.get_text_config())
        shape = self.kv_shape
        return FixedCache.empty(
            shape.layers, shape.heads, capacity, shape.width, self.dtype, self.device
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
        hidden: Tensor = self.decoder(
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
            self.decoder(past_key_values=cache, use_cache=True, **placed)
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
                extra["visual_pos_masks"] = embeds.visual[None].to(self.device)
                extra["deepstack_visual_embeds"] = list(embeds.deepstack)
            embeds = embeds.embeds
        else:
            positions, after = self.positions.of_text(len(embeds), cursor)
        extra["inputs_embeds"] = embeds[None].to(self.dtype)
        extra["position_ids"] = _add_batch_axis(positions.to(self.device))
        return extra, after

    def batched_cache(self, rows: int, capacity: int) -> BatchedCache:
        """Empty caches of several contexts. For models that keep keys and values of every token."""
        shape = self.kv_shape
        return BatchedCache.empty(
            rows, shape.layers, shape.heads, capacity, shape.width, self.dtype, self.device
        )

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
            [text.to(self.dtype) for text in texts], batch_first=True
        )
        positions = torch.zeros((self.positions.axes, len(lengths), width), dtype=torch.int64)
        for b, (row, length) in enumerate(zip(stack.rows, lengths, strict=True)):
            if length:
                positions[:, b, :length], row.cursor = self.positions.of_text(length, row.cursor)
        positions = positions.to(self.device)
        mask = stack.append_mask(lengths, width)
        if self.model.config.get_text_config()._attn_implementation == ATTENTIONS["eager"]:
            mask = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(self.dtype).min
            )
        hidden: Tensor = self.decoder(
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
        scores: Tensor = self.model.lm_head(hidden)
        return scores.float()

    def stop_ids(self) -> set[int]:
        """Token ids that end an answer."""
        ends = self.model.generation_config.eos_token_id
        ends = self.processor.tokenizer.eos_token_id if ends is None else ends
        return set(ends) if isinstance(ends, list) else {ends}

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
        stops = self.stop_ids()
        for step in range(max_new_tokens):
            token = int(self.logits(hidden[None])[0].argmax())
            if token in stops:
                return
            yield token
            if step + 1 < max_new_tokens:
                hidden = self.forward(self.embed([token]), cache, listener)[-1]

    def queries(self, question: str) -> Tensor:
        """[L, H * Dh] float32: mean query of the question's tokens per layer, before rotary
        embedding.

        The query heads that share a KV head are summed: sum_h <q_h, k_g(h)> = <sum_h q_h, k_g>. So
        the ranking of frames by mean key is that of all heads, and the index is smaller by the
        group size.
        """
        return self.queries_of([question])[0]

    @torch.inference_mode()
    def queries_of(self, questions: Sequence[str]) -> Tensor:
        """[B, L, H * Dh] float32: the queries of several questions, in one pass of the decoder."""
        shape = self.kv_shape
        lead = self.preamble_ids()
        texts = [self.suffix_ids(question) for question in questions]
        longest = len(lead) + max(map(len, texts))
        # after the text, so nothing attends to it
        padded = [lead + ids + [0] * (longest - len(lead) - len(ids)) for ids in texts]
        positions, _ = self.positions.of_text(longest, Cursor())
        with self._captured_queries() as queries:
            self.decoder(
                inputs_embeds=torch.stack([self.embed(ids) for ids in padded]).to(self.dtype),
                position_ids=_add_batch_axis(positions.to(self.device)).expand(
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
            len(texts), shape.layers, shape.heads, self.query_heads // shape.heads, shape.width
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
            for layer in self.decoder.layers
        ]
        hooks = [part.register_forward_hook(capture) for part in parts]
        try:
            with suppress(_QueriesComplete):
                yield queries
        finally:
            for hook in hooks:
                hook.remove()

    # -- identity ----------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """16 hex digits over the checkpoint's configuration and weights; a bank records them."""
        digest = hashlib.sha256(
            json.dumps(self.config.to_diff_dict(), sort_keys=True, default=str).encode()
        )
        folder = Path(self.path)
        if folder.is_dir():
            for file in sorted(folder.glob("*.safetensors")):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        else:
            digest.update(str(self.config._commit_hash).encode())
        return digest.hexdigest()[:16]


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


def require_full_attention(backbone: Backbone) -> None:
    """UserError unless keys and values of single frames can be kept and recalled for this model."""
    if backbone.other_layers:
        raise UserError(
            f"The model at {backbone.path} has layers of type {backbone.other_layers}, whose keys "
            "and values cannot be "
            "recalled frame by frame; use reader=tokens prefill=none retriever=clip."
        )


__all__ = [
    "ATTENTIONS",
    "DTYPES",
    "Listener",
    "LoadOptions",
    "VideoLLM",
    "other_layers",
    "require_full_attention",
]
