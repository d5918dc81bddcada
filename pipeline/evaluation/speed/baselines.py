"""What a user would do with transformers alone.

Either the whole prompt for every question, or the video's cache kept between questions. It is the
library's own class, attention, cache and `generate`, with the same checkpoint and the same token
ids as Reelbank's. There are no time tags, as the family was published. The kept cache is as fast as
the library allows: tower, and decoder without its head, over chunks of frames; greedy decoding by
hand; `crop` instead of a copy. Knows no bank.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401  (first: the model class imports torchvision)

import numpy as np
import torch
from torch import Tensor

from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.schema import Frames
from pipeline.evaluation.speed.clocks import stopwatch
from pipeline.evaluation.speed.schema import Timed
from pipeline.runtime.stage_timer import StageTimer

from transformers import DynamicCache, LlavaOnevisionForConditionalGeneration  # isort: skip


class TransformersModel:
    """The model as transformers loads it, and the pieces of Reelbank's prompt."""

    def __init__(self, backbone: LlavaOneVision, new_tokens: int) -> None:
        """backbone: gives weights, dtype, device and prompt; nothing of it runs while time is
        measured.
        """
        self.model = LlavaOnevisionForConditionalGeneration.from_pretrained(
            backbone.path, dtype=backbone.dtype, attn_implementation="sdpa", use_safetensors=True
        ).to(backbone.device)
        self.model.eval().requires_grad_(False)
        self.model.generation_config.eos_token_id = None  # every answer has the same length
        self.dtype, self.device, self.new_tokens = backbone.dtype, backbone.device, new_tokens
        self.tokens_per_frame = backbone.tokens_per_frame
        self.preamble = backbone.prompt.preamble_ids()
        self.suffix_ids = backbone.prompt.suffix_ids
        self._tower_s = 0.0
        self._settle: Callable[[], None] = (
            torch.cuda.synchronize if self.device.type == "cuda" else (lambda: None)
        )
        inner = self.model.model.get_video_features

        @functools.wraps(inner)  # `generate` looks at its parameters
        def look(*args: Any, **kwargs: Any) -> Any:
            self._settle()
            began = time.perf_counter()
            features = inner(*args, **kwargs)
            self._settle()
            self._tower_s += time.perf_counter() - began
            return features

        self.model.model.get_video_features = look  # timed, not changed

    def pixels(self, frames: np.ndarray) -> Tensor:
        """[T, H, W, 3] uint8 -> [1, T, 3, H, W], normalized as SigLIP's processor does."""
        moved = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)
        return moved.to(torch.float32).div_(127.5).sub_(1.0).to(self.dtype)[None]

    def decoder(self, cache: DynamicCache, **kwargs: Any) -> Tensor:
        """Hidden states [1, n, D] after what the cache holds; no logits."""
        hidden: Tensor = self.model.model.language_model(
            past_key_values=cache, use_cache=True, **kwargs
        ).last_hidden_state
        return hidden

    def ids(self, tokens: Sequence[int]) -> Tensor:
        """[1, n]."""
        return torch.tensor([list(tokens)], dtype=torch.int64, device=self.device)

    @contextmanager
    def stage(self, clock: StageTimer, name: str) -> Iterator[None]:
        """A timed stage; the tower's share of it goes to `tower` instead."""
        tower = self._tower_s
        with clock(name):
            yield
            self._settle()
        tower = self._tower_s - tower
        clock.seconds[name] -= tower
        clock.seconds["tower"] = clock.seconds.get("tower", 0.0) + tower


class WholePrompt:
    """`generate` from pixels, anew for every question. The tower's output is not kept."""

    keeps_cache = False

    def __init__(self, model: TransformersModel, name: str = "transformers, whole prompt") -> None:
        self.name = self.encoded_by = name
        self._model = model
        self._frames: Frames | None = None

    def encode(self, frames: Frames) -> Timed:
        """Only remembers the frames."""
        self._frames = frames
        return Timed(0.0, 0.0)

    def ask(self, question: str) -> Timed:
        """RuntimeError when memory runs out."""
        assert self._frames is not None
        own, clock, token_times = self._model, StageTimer(), _TokenTimes()
        with stopwatch() as took, torch.inference_mode():
            with own.stage(clock, "prepare"):
                pixels = own.pixels(self._frames.pixels)
                # newline last
                visual = [own.model.config.video_token_id] * (
                    len(self._frames) * own.tokens_per_frame + 1
                )
                ids = own.ids([*own.preamble, *visual, *own.suffix_ids(question)])
            with own.stage(clock, "first_token"):
                generated = own.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pixel_values_videos=pixels,
                    max_new_tokens=own.new_tokens,
                    do_sample=False,
                    streamer=token_times,
                )
        rest = token_times.times[-1] - token_times.times[1]  # times[0] is the prompt's own
        clock.seconds["first_token"] -= rest
        clock.seconds["decode"] = rest
        answer_ids = tuple(generated[0, ids.shape[1] :].tolist())
        return _timed_answer(took.wall_s, took.cpu_s, clock, own.new_tokens, answer_ids)

    def drop(self) -> None:
        self._frames = None


class KeptCache:
    """The video's keys and values in the library's DynamicCache.

    They are computed once; after each question the cache is cropped back.
    """

    keeps_cache = True

    def __init__(
        self, model: TransformersModel, chunk_frames: int, name: str = "transformers, KV kept"
    ) -> None:
        """chunk_frames: frames that go through tower and decoder at once."""
        self.name = self.encoded_by = name
        self._model, self.chunk_frames = model, chunk_frames
        self._cache: DynamicCache | None = None

    def encode(self, frames: Frames) -> Timed:
        """RuntimeError when memory runs out."""
        self.drop()
        own, clock = self._model, StageTimer()
        with stopwatch() as took, torch.inference_mode():
            cache = DynamicCache(config=own.model.config.get_text_config())
            with own.stage(clock, "prefill"):
                own.decoder(cache, input_ids=own.ids(own.preamble))
            for first in range(0, len(frames), self.chunk_frames):
                with own.stage(clock, "prepare"):
                    pixels = own.pixels(frames.pixels[first : first + self.chunk_frames])
                    # newline last
                    embeds = own.model.get_video_features(pixels).pooler_output[:, :-1]
                with own.stage(clock, "prefill"):
                    own.decoder(cache, inputs_embeds=embeds)
        self._cache = cache
        return Timed(
            took.wall_s, took.cpu_s, clock.seconds, facts={"chunk_frames": self.chunk_frames}
        )

    def ask(self, question: str) -> Timed:
        assert self._cache is not None
        own, cache, clock = self._model, self._cache, StageTimer()
        length = cache.get_seq_length()
        tokens: list[Tensor] = []
        with stopwatch() as took, torch.inference_mode():
            with own.stage(clock, "first_token"):
                newline = own.model.model.image_newline[None, None]
                tail = own.model.get_input_embeddings()(own.ids(own.suffix_ids(question)))
                hidden = own.decoder(cache, inputs_embeds=torch.cat([newline, tail], dim=1))
                tokens.append(own.model.lm_head(hidden[:, -1:]).argmax(-1))
            with own.stage(clock, "decode"):
                for _ in range(own.new_tokens - 1):
                    hidden = own.decoder(cache, input_ids=tokens[-1])
                    tokens.append(own.model.lm_head(hidden).argmax(-1))
            with own.stage(clock, "crop"):
                cache.crop(length - cache.get_seq_length())
        answer_ids = tuple(torch.cat(tokens, dim=1)[0].tolist())
        return _timed_answer(took.wall_s, took.cpu_s, clock, own.new_tokens, answer_ids)

    def drop(self) -> None:
        self._cache = None


def fastest_chunk(
    model: TransformersModel, frames: Frames, choices: Sequence[int]
) -> tuple[int, dict[int, float]]:
    """The chunk size that encodes these frames fastest in two tries, and the seconds of all."""
    took = {}
    for chunk in choices:
        arm = KeptCache(model, chunk)
        took[chunk] = min(arm.encode(frames).wall_s for _ in range(2))
        arm.drop()
    return min(took, key=took.__getitem__), took


class _TokenTimes:
    """A streamer that records when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def _timed_answer(
    wall_s: float, cpu_s: float, clock: StageTimer, new_tokens: int, ids: tuple[int, ...]
) -> Timed:
    # cropping comes after the answer
    late = clock.seconds["decode"] + clock.seconds.get("crop", 0.0)
    each = clock.seconds["decode"] / max(new_tokens - 1, 1)
    return Timed(wall_s, cpu_s, clock.seconds, wall_s - late, each, ids)
