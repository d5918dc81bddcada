"""What the families of video-LLMs share: loading, text pieces, rotary positions, decoder calls.

One subclass per family adds how it looks at frames and what text stands around each (`llava_ov.py`, `qwen_vl.py`,
`internvl.py`, `smolvlm.py`). Uses transformers' public interfaces only: no patched forward, no copied model code. Knows no
bank, no retrieval, no disk but the checkpoint's.

A prompt is: preamble | frame frame ... frame | tail, where a frame is its time tag, its visual tokens and what the family
puts behind them, and the tail is what comes after a video, the question and the opening of the assistant's turn.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: transformers imports torchvision)

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from encoders.errors import UserError
from encoders.models.attention import ATTENTIONS, Listener
from encoders.models.backbone import Backbone
from encoders.models.batched_cache import StackedCache
from encoders.models.checkpoint import (
    check_device,
    check_memory,
    check_weights,
    first_line,
    offline,
    out_of_memory,
    quiet,
    read_config,
    told_if_too_large,
)
from encoders.models.kv_cache import FixedCache, KVShape, LibraryCache
from encoders.models.onednn_linear import ANY, pack
from encoders.models.positions import Cursor, Line, Positions
from encoders.schema import FrameEmbeds, Frames, KVBlock, VisualTokens

from transformers import AutoProcessor, DynamicCache  # isort: skip
from transformers.cache_utils import DynamicLayer  # isort: skip

_WIDE = 768  # width from which a decoder's matrix products keep all cores busy
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _Heard(Exception):
    """Every layer has said its queries."""


class VideoLLM:
    """A video-LLM of transformers behind the calls Reelbank needs. Shapes: D model width, V vocabulary."""

    # sampled frames that the tower merges into one; segments hold a multiple of it
    temporal_patch = 1
    positions: Positions = Line()

    def __init__(
        self,
        *,
        path: str,
        model_class: Any,
        family: str,
        dtype: str = "float32",
        device: str = "cpu",
        attention: str = "sdpa",
        revision: str | None = None,
    ) -> None:
        """path: a local folder or a hub id. UserError when it cannot be loaded, is of another family or does not fit."""
        if dtype not in DTYPES:
            raise UserError(f"backbone.dtype={dtype} is not known; use one of {', '.join(DTYPES)}.")
        if attention not in ATTENTIONS:
            raise UserError(
                f"backbone.attention={attention} is not known; use one of {', '.join(ATTENTIONS)}."
            )
        self.path, self.dtype, self.device = path, DTYPES[dtype], check_device(device)
        common: dict[str, Any] = {
            "revision": revision,
            "local_files_only": offline(path),
            "trust_remote_code": False,
        }
        config = read_config(path, family, revision, local_only=common["local_files_only"])
        check_weights(path)
        check_memory(path, config, self.dtype, self.device)
        try:
            self.processor = AutoProcessor.from_pretrained(path, **common)
        except (OSError, ValueError, ImportError) as error:
            # ImportError: a processor's own package, which it names
            raise UserError(
                f"Cannot load a model from backbone.path={path}: {first_line(error)}"
            ) from error
        implementation = {
            "text_config": ATTENTIONS[attention],
            "vision_config": attention if attention == "eager" else ATTENTIONS[attention],
        }
        with told_if_too_large(path, self.dtype, self.device):
            self.model = self._load(model_class, attn_implementation=implementation, **common)
            self.model.to(self.device)
        self.model.eval().requires_grad_(False)
        pack(self.model)
        # which calls for other shapes in every step, so no graph is made of it
        pack(self.decoder, ANY)
        self.config = config
        text = config.get_text_config()
        self.kv_shape = KVShape.of(config)
        self.query_heads: int = text.num_attention_heads
        self.full_attention = other_layers(text)
        self._preamble_text, self._tail_template = self._split_chat()
        self._tag_ids: dict[int, list[int]] = {}
        # positions, and cos and sin there
        self._rope = torch.zeros(0, dtype=torch.int64), (torch.zeros(0), torch.zeros(0))

    def _load(self, model_class: Any, **settings: Any) -> Any:
        """The model with its weights. UserError when they cannot be read or are not all there."""
        try:
            with quiet(Path(self.path).is_dir()):
                model, found = model_class.from_pretrained(
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
                    f"transformers has no fused attention for the model at {self.path}; use backbone.attention=eager."
                ) from error
            raise UserError(
                f"Cannot load the weights at backbone.path={self.path}: {first_line(error)}"
            ) from error
        if found["missing_keys"]:  # transformers would go on with random numbers in their place
            missing = sorted(found["missing_keys"])
            raise UserError(
                f"The checkpoint at {self.path} lacks {len(missing)} of the model's weights, such as {missing[0]}; "
                "copy it again."
            )
        return model

    # -- what differs between families ------------------------------------------------------------------------------

    @property
    def is_narrow(self) -> bool:
        """Whether the decoder's matrix products are too small to be divided among many cores."""
        return int(self.config.get_text_config().hidden_size) < _WIDE

    @property
    def decoder(self) -> Any:
        """The language model without its head: hidden states in, hidden states out."""
        return self.model.model.language_model

    def look(self, frames: Frames) -> VisualTokens:
        """Vision tower and projector: T frames -> their visual tokens. No state, no neighbours."""
        raise NotImplementedError

    def after_video(self) -> Tensor:
        """[n, D] embeddings that are no text and stand between the last frame and the text (n may be 0)."""
        return self.embed([])

    def around(self, start: float, end: float) -> tuple[list[int], list[int]]:
        """Token ids before and behind the visual tokens of a frame whose pictures were sampled from `start` to `end`
        seconds (the same but for temporal patches). Here: the time tag, and nothing."""
        return self.tag_ids(end), []

    def grid(self) -> tuple[int, int]:
        """(rows, columns) of a frame's visual tokens before compression."""
        side = round(self.tokens_per_frame**0.5)
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens that `look` makes of a frame, before compression."""
        raise NotImplementedError

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels that `look` expects; fixed per bank."""
        raise NotImplementedError

    def _check_size(self, frames: Frames) -> None:
        """ValueError when the frames do not have `frame_size`."""
        if frames.pixels.shape[1:3] != self.frame_size[::-1]:
            raise ValueError(
                f"frames of {frames.pixels.shape[1:3]} pixels, the tower takes {self.frame_size[::-1]}"
            )

    def _processed(self, frames: np.ndarray) -> Any:
        """What the checkpoint's own processor makes of one clip, [T, H, W, 3] uint8: frames have their size already, so it
        must not choose another by the length of the clip."""
        return self.processor.video_processor(
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )

    def _record(self, seen: list[Tensor], frames: Frames) -> VisualTokens:
        """What the tower made of the frames, in parts [n, rows * columns, D], for families that see each frame alone."""
        tokens = torch.cat(seen)  # [T, rows * columns, D]
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

    # -- text pieces ------------------------------------------------------------------------------------------------

    def _split_chat(self) -> tuple[str, str]:
        """The chat template's text before the video, and after it with "{question}" in the question's place."""
        marker = "\u0001question\u0001"
        parts = [{"type": "video"}, {"type": "text", "text": marker}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(self.processor.video_token)
        return before, after.replace(marker, "{question}")

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of text, nothing added."""
        found: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return found

    def text_of(self, ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        text: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def embed(self, ids: list[int]) -> Tensor:
        """[n, D] embeddings of token ids."""
        found: Tensor = self.model.get_input_embeddings()(
            torch.tensor(ids, dtype=torch.int64, device=self.device)
        )
        return found

    def preamble_ids(self) -> list[int]:
        """What stands before the first frame; the attention sink of the sliding window."""
        return self.ids(self._preamble_text)

    def tail_ids(self, question: str) -> list[int]:
        """What follows the video (after `after_video`): the question and the opening of the assistant's turn."""
        return self.ids(self._tail_template.replace("{question}", question))

    def tag_ids(self, seconds: float) -> list[int]:
        """The time tag of a frame: "[mm:ss]", minutes going on above 59, or "[hh:mm:ss]" where this tokenizer has fewer tokens
        for it, so that a frame late in a long video costs little more than an early one; whole seconds, rounded down."""
        whole = int(seconds + 1e-6)
        if whole not in self._tag_ids:
            minutes, rest = divmod(whole, 60)
            by_minutes = self.ids(f"[{minutes:02d}:{rest:02d}]")
            by_hours = self.ids(f"[{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}]")
            self._tag_ids[whole] = min(by_minutes, by_hours, key=len)  # the first of equals
        return self._tag_ids[whole]

    def with_tags(self, seen: VisualTokens) -> FrameEmbeds:
        """Every frame's visual tokens with the text around them. A frame that repeats another goes on where that one ends,
        without its time tag; where text closes a frame, it keeps its text: marks come in pairs, and on three axes what stands
        behind a frame says where the next one begins."""
        width = self.model.get_input_embeddings().weight.shape[1]
        lengths: list[int] = []
        text: list[int] = []
        visual: list[Tensor] = []
        places: list[Tensor] = []
        repeats = [False] * len(seen.times) if seen.repeats is None else seen.repeats.tolist()
        times = zip(seen.starts.tolist(), seen.times.tolist(), strict=True)
        for (a, b), (start, end), repeated in zip(seen.ranges(), times, repeats, strict=True):
            before, behind = self.around(start, end)
            if repeated and not behind:
                before = []
            text += before + behind
            lengths.append(len(before) + b - a + len(behind))
            visual.append(torch.zeros(lengths[-1], dtype=torch.bool))
            visual[-1][len(before) : len(before) + b - a] = True
            if self.positions.axes == 3:
                places.append(self._places(len(before), seen.pos[a:b], len(behind)))
        is_visual = torch.cat(visual)
        embeds = torch.empty(len(is_visual), width, dtype=self.dtype, device=self.device)
        # [N, D] or, with DeepStack, [N, D * (1 + levels)]
        tokens = seen.tokens.to(self.device, self.dtype)
        embeds[is_visual.to(self.device)] = tokens[:, :width]
        embeds[~is_visual.to(self.device)] = self.embed(text).to(self.dtype)
        return FrameEmbeds(
            embeds,
            torch.tensor([0, *lengths]).cumsum(0),
            is_visual,
            torch.cat(places) if places else None,
            tokens[:, width:].split(width, dim=1) if tokens.shape[1] > width else (),
        )

    def _places(self, before: int, pos: Tensor, behind: int) -> Tensor:
        """[before + n + behind, 3] int32: text on all axes alike, the grid at one moment, text behind its longer side."""
        grid = pos.clone()
        grid[:, 0] = 0
        end = before + max(self.grid())
        text = [
            torch.arange(a, b, dtype=pos.dtype)[:, None].expand(-1, 3)
            for a, b in ((0, before), (end, end + behind))
        ]
        return torch.cat([text[0], grid + before, text[1]])

    def tag_length(self, seconds: float = 0.0) -> int:
        """Tokens of the text around a frame."""
        return sum(len(ids) for ids in self.around(seconds, seconds))

    # -- the decoder ------------------------------------------------------------------------------------------------

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [n, Dh] float32 at positions [n], or [3, n] on three axes; attention scaling included. Not to be written
        to: what was asked for last is kept, for contexts of several questions stand at the same positions."""
        before, found = self._rope
        if torch.equal(positions, before):
            return found
        # says dtype and device, nothing else
        probe = torch.empty(0, dtype=torch.float32, device=self.device)
        cos, sin = self.decoder.rotary_emb(probe, _batched(positions.to(self.device)))
        self._rope = positions, (cos[0], sin[0])
        return cos[0], sin[0]

    def cache(self, capacity: int) -> FixedCache | LibraryCache:
        """An empty cache for this model."""
        if self.full_attention:
            return LibraryCache(config=self.config.get_text_config())
        shape = self.kv_shape
        return FixedCache.empty(
            shape.layers, shape.heads, capacity, shape.width, self.dtype, self.device
        )

    @torch.inference_mode()
    def advance(
        self,
        embeds: Tensor | FrameEmbeds,
        cache: FixedCache | LibraryCache,
        listener: Listener | None = None,
    ) -> Tensor:
        """Run text [n, D] or frames through the decoder after what the cache holds; -> hidden states [n, D]. No logits.

        Positions go on at the cache's cursor, always given: default positions and state on the model's modules (Qwen's
        rope_deltas) are never used, so streams on one model cannot disturb each other.
        """
        extra = {} if listener is None else {"listener": listener}
        placed, cursor = self._placed(embeds, cache.cursor)
        hidden: Tensor = self.decoder(
            past_key_values=cache, use_cache=True, **placed, **extra
        ).last_hidden_state
        cache.cursor = cursor
        return hidden[0]

    @torch.inference_mode()
    def fill(self, embeds: Tensor | FrameEmbeds, cache: FixedCache | LibraryCache) -> None:
        """The same for keys and values alone: what the last layer would make of them is left out."""
        placed, cursor = self._placed(embeds, cache.cursor)
        with cache.filling() if isinstance(cache, FixedCache) else nullcontext():
            self.decoder(past_key_values=cache, use_cache=True, **placed)
        cache.cursor = cursor

    def _placed(
        self, embeds: Tensor | FrameEmbeds, cursor: Cursor
    ) -> tuple[dict[str, Any], Cursor]:
        """What the decoder takes of text [n, D] or frames that stand at a cursor, and where the next token stands."""
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
        extra["position_ids"] = _batched(positions.to(self.device))
        return extra, after

    def stack(self, rows: int, capacity: int) -> StackedCache:
        """Empty caches of several contexts side by side. For models that keep keys and values of every token."""
        shape = self.kv_shape
        return StackedCache.empty(
            rows, shape.layers, shape.heads, capacity, shape.width, self.dtype, self.device
        )

    @torch.inference_mode()
    def advance_all(
        self, texts: Sequence[Tensor], stack: StackedCache, listener: Listener | None = None
    ) -> Tensor:
        """Run a text [n, D] (n may be 0) behind each row of a joined stack in one call; -> hidden states [B, longest n, D], of
        which a shorter text's last ones mean nothing."""
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
        mask = stack.widen(lengths, width)
        if self.model.config.get_text_config()._attn_implementation == ATTENTIONS["eager"]:
            mask = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(self.dtype).min
            )
        hidden: Tensor = self.decoder(
            inputs_embeds=embeds,
            position_ids=positions[0] if self.positions.axes == 1 else positions,
            attention_mask=mask,
            past_key_values=stack.whole,
            use_cache=True,
            masks={},
            **({} if listener is None else {"listener": listener}),
        ).last_hidden_state
        return hidden

    def lay(self, block: KVBlock, cache: FixedCache) -> None:
        """Append stored frames at the cache's cursor: one rotation of each key, no prefill."""
        positions, cursor = self.positions.of_frames(block.pos, block.offsets, cache.cursor)
        cache.append(block.keys, block.values, *self.rope(positions))
        cache.cursor = cursor

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """[n, D] -> [n, V] float32."""
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
        most: int,
        listener: Listener | None = None,
    ) -> Iterator[int]:
        """Greedy decoding from the last hidden state [D]: token ids, one at a time, the stop token not among them."""
        stops = self.stop_ids()
        for step in range(most):
            token = int(self.logits(hidden[None])[0].argmax())
            if token in stops:
                return
            yield token
            if step + 1 < most:
                hidden = self.advance(self.embed([token]), cache, listener)[-1]

    def queries(self, question: str) -> Tensor:
        """[L, H * Dh] float32: mean query of the question's tokens per layer, before rotary embedding.

        The query heads that share a KV head are summed: sum_h <q_h, k_g(h)> = <sum_h q_h, k_g>, so the ranking of frames
        by mean key is that of all heads, and the index is smaller by the group size.
        """
        return self.queries_of([question])[0]

    @torch.inference_mode()
    def queries_of(self, questions: Sequence[str]) -> Tensor:
        """[B, L, H * Dh] float32: the same of several questions, in one pass of the decoder."""
        shape = self.kv_shape
        caught: list[Tensor] = []
        asker = threading.get_ident()

        def catch(_module: Any, _args: Any, out: Tensor) -> None:
            # another thread may be encoding with the same modules
            if threading.get_ident() == asker:
                caught.append(out)
                if len(caught) == len(parts):
                    raise _Heard  # what the last layer makes of them, nobody asks for

        # Projections before rotary embedding are not handed out by transformers; a hook in a `try` leaves no trace.
        # Qwen3 normalises queries behind the projection.
        parts = [
            getattr(layer.self_attn, "q_norm", layer.self_attn.q_proj)
            for layer in self.decoder.layers
        ]
        lead = self.preamble_ids()
        texts = [self.tail_ids(question) for question in questions]
        longest = len(lead) + max(map(len, texts))
        # behind the text, so nothing sees it
        padded = [lead + ids + [0] * (longest - len(lead) - len(ids)) for ids in texts]
        positions, _ = self.positions.of_text(longest, Cursor())
        hooks = [part.register_forward_hook(catch) for part in parts]
        try:
            with suppress(_Heard):
                self.decoder(
                    inputs_embeds=torch.stack([self.embed(ids) for ids in padded]).to(self.dtype),
                    position_ids=_batched(positions.to(self.device)).expand(
                        *positions.shape[:-1], len(texts), -1
                    ),
                    use_cache=False,
                    masks={},
                )
        finally:
            for hook in hooks:
                hook.remove()
        found = torch.stack(
            [
                torch.stack(
                    [
                        q[b, len(lead) : len(lead) + len(ids)].float().mean(0).flatten()
                        for q in caught
                    ]
                )
                for b, ids in enumerate(texts)
            ]
        )  # [B, L, Hq * Dh]
        grouped = found.view(
            len(texts), shape.layers, shape.heads, self.query_heads // shape.heads, shape.width
        ).sum(3)
        return grouped.flatten(2).cpu()

    # -- identity ---------------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """16 hex digits over the checkpoint's configuration and weights: what a bank records."""
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


def _batched(positions: Tensor) -> Tensor:
    """[n] -> [1, n]; [3, n] -> [3, 1, n]: a batch of one, as transformers wants it."""
    return positions[None] if positions.dim() == 1 else positions[:, None]


def other_layers(text_config: Any) -> str:
    """ "" when every layer is full attention, else the names of the layer types that are not."""
    others = {
        type(layer).__name__
        for layer in DynamicCache(config=text_config).layers
        if type(layer) is not DynamicLayer
    }
    named = set(getattr(text_config, "layer_types", None) or ()) - {"full_attention"}
    return ", ".join(sorted(named or others)) if others else ""


def require_full_attention(backbone: Backbone) -> None:
    """UserError unless keys and values of single frames can be kept and recalled for this model."""
    if backbone.full_attention:
        raise UserError(
            f"The model at {backbone.path} has layers of type {backbone.full_attention}, whose keys and values cannot be "
            "recalled frame by frame; use reader=tokens prefill=none retriever=clip."
        )


__all__ = [
    "ATTENTIONS",
    "DTYPES",
    "Listener",
    "VideoLLM",
    "other_layers",
    "require_full_attention",
]
