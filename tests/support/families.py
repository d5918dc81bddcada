"""Tiny random checkpoints of the real classes of every family, with the family's real processor.

The reference is the library's own forward over pixels.
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import encoders.models.torchvision_ops  # noqa: F401

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from encoders.models.families.internvl import InternVL
from encoders.models.families.llava_onevision import LlavaOneVision
from encoders.models.families.qwen3_vl import Qwen3VL
from encoders.models.families.qwen_vl import Qwen2VL, Qwen25VL
from encoders.models.families.smolvlm import INTRO, SmolVLM
from encoders.models.video_llm import VideoLLM
from encoders.schema import Frames
from pipeline.embedded import tokenizer
from pipeline.needle_world import questions
from tests.support.toys import toy_checkpoint

import transformers as T  # isort: skip

# Qwen's own template for one user message with a video, without its branches for images and for
# several turns.
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == "
    "'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor "
    "%}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FPS = 2.0


@dataclass(frozen=True)
class Family:
    """A family with its toy: how to load it, and what the library's own classes compute from frames
    and a question.
    """

    name: str
    adapter: Callable[..., VideoLLM]
    settings: dict[str, Any]
    make: Callable[[], Path]  # -> a folder with the toy checkpoint
    # -> logits [S, V], inputs
    reference: Callable[[VideoLLM, Frames, str], tuple[torch.Tensor, dict[str, Any]]]
    needs: str = ""  # a package without which the library does not make the processor
    # as `reference`, for reader=tokens where that reads another text than stored keys saw
    by_tokens: Callable[[VideoLLM, Frames, str], tuple[torch.Tensor, dict[str, Any]]] | None = None

    def reference_for(
        self, reader: Any, backbone: VideoLLM, frames: Frames, question: str
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """What this reader must give. reader: its class."""
        by_tokens = self.by_tokens if not reader.needs_kv else None
        return (by_tokens or self.reference)(backbone, frames, question)

    def load(self, **settings: Any) -> VideoLLM:
        return self.adapter(str(made(self.make)), dtype="float32", **(self.settings | settings))


def words(*special: str, **named: str) -> Any:
    """The toy tokenizer with more special tokens; the named ones become attributes of it."""
    toy_tokenizer = tokenizer.build(questions.corpus())
    toy_tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    if not named:
        return toy_tokenizer
    return T.PreTrainedTokenizerFast(
        tokenizer_object=toy_tokenizer.backend_tokenizer, eos_token=toy_tokenizer.eos_token,
        pad_token=toy_tokenizer.pad_token,
        extra_special_tokens=named,
    )  # fmt: skip


def text_config(toy_tokenizer: Any, **more: Any) -> dict[str, Any]:
    return dict(
        vocab_size=len(toy_tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=toy_tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=toy_tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    ) | more  # fmt: skip


def louder(model: Any, seed: int = 0) -> Any:
    """Random models answer with one token whatever they see; larger weights make logits differ."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() > 1:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.08)
    return model.eval()


QWEN_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")


def qwen_ids(toy_tokenizer: Any) -> dict[str, int]:
    names = {
        "vision_start": "vision_start",
        "vision_end": "vision_end",
        "video": "video_pad",
        "image": "image_pad",
    }
    return {
        f"{key}_token_id": toy_tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for key, name in names.items()
    }


def qwen2_vl() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = dict(depth=2, embed_dim=32, hidden_size=64, num_heads=2, mlp_ratio=2, patch_size=14)
    config = T.Qwen2VLConfig(
        text_config=text_config(toy_tokenizer, rope_parameters=rope),
        vision_config=vision,
        tie_word_embeddings=True,
        **qwen_ids(toy_tokenizer),
    )
    processor = T.Qwen2VLProcessor(
        T.Qwen2VLImageProcessor(),
        toy_tokenizer,
        T.Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    return T.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = dict(
        depth=2, hidden_size=32, out_hidden_size=64, num_heads=2, intermediate_size=64,
        patch_size=14, window_size=56,
        fullatt_block_indexes=[1], tokens_per_second=3,
    )  # fmt: skip
    config = T.Qwen2_5_VLConfig(
        text_config=text_config(toy_tokenizer, rope_parameters=rope),
        vision_config=vision,
        tie_word_embeddings=True,
        **qwen_ids(toy_tokenizer),
    )
    processor = T.Qwen2_5_VLProcessor(
        T.Qwen2VLImageProcessor(),
        toy_tokenizer,
        T.Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    return T.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    toy_tokenizer = words(*QWEN_SPECIAL)
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    vision = dict(
        depth=3, hidden_size=32, out_hidden_size=64, num_heads=2, intermediate_size=64,
        patch_size=16,
        num_position_embeddings=64, deepstack_visual_indexes=[0, 1],
    )  # fmt: skip
    config = T.Qwen3VLConfig(
        text_config=text_config(toy_tokenizer, head_dim=16, rope_parameters=rope),
        vision_config=vision,
        tie_word_embeddings=True,
        **qwen_ids(toy_tokenizer),
    )  # fmt: skip
    video = T.Qwen3VLVideoProcessor(patch_size=16)
    processor = T.Qwen3VLProcessor(
        T.Qwen2VLImageProcessor(patch_size=16), toy_tokenizer, video, chat_template=QWEN_TEMPLATE
    )
    return T.Qwen3VLForConditionalGeneration(config), processor


def processed(
    backbone: VideoLLM, frames: Frames, question: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The library's processor and forward, which get only pixels, times and the question."""
    parts = [{"type": "video"}, {"type": "text", "text": question}]
    text = backbone.processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    metadata = VideoMetadata(
        total_num_frames=len(frames),
        fps=FPS,
        frames_indices=np.round(frames.times * FPS).astype(int).tolist(),
    )
    inputs = backbone.processor(
        text=[text], videos=[torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        do_resize=False, do_sample_frames=False, return_tensors="pt",
    )  # fmt: skip
    backbone.model.model.rope_deltas = None
    with torch.inference_mode():
        return backbone.model(**inputs, use_cache=False).logits[0], dict(inputs)


def as_qwens_own_processor(
    backbone: VideoLLM, frames: Frames, question: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Qwen3-VL as its authors' processor writes it (transformers 4.57.1,
    processing_qwen3_vl.py:225): the times and patches replace the chat template's whole triple of
    vision marks and video. The library of today keeps the outer marks.
    """
    _, inputs = processed(backbone, frames, question)
    parts = [{"type": "video"}, {"type": "text", "text": question}]
    text = backbone.processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    patches, rows, columns = inputs["video_grid_thw"][0].tolist()
    pads = "<|video_pad|>" * (rows * columns // 4)
    times = [*frames.times.tolist(), frames.times.tolist()[-1]]
    tags = [f"<{(times[2 * k] + times[2 * k + 1]) / 2:.1f} seconds>" for k in range(patches)]
    video = "".join(f"{tag}<|vision_start|>{pads}<|vision_end|>" for tag in tags)
    text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", video)
    ids = torch.tensor([backbone.prompt.ids(text)])
    pad = backbone.processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    inputs |= {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == pad).int() * 2,
    }
    backbone.model.model.rope_deltas = None
    with torch.inference_mode():
        return backbone.model(**inputs, use_cache=False).logits[0], inputs


def as_llavas_processor(
    backbone: VideoLLM, frames: Frames, question: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """LLaVA-OneVision without time tags, as its own processor writes it. The toy's processor states
    the pooled tokens of a frame, where the hub's states the tower's.
    """
    vision = backbone.config.vision_config
    backbone.processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    return processed(backbone, frames, question)


INTERNVL_MARKS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
# The template that the library's conversion script gives to InternVL checkpoints.
INTERNVL_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == "
    "'video' %}"
    "{{ '<video>\n' }}{% else %}{{ c.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def internvl() -> tuple[Any, Any]:
    toy_tokenizer = words(*INTERNVL_MARKS.values(), **INTERNVL_MARKS)
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=[56, 56],
        patch_size=[14, 14],
    )  # fmt: skip
    config = T.InternVLConfig(
        vision_config=vision, text_config=T.Qwen2Config(**text_config(toy_tokenizer)),
        image_seq_length=4,
        tie_word_embeddings=True,
        image_token_id=toy_tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    size = {"height": 56, "width": 56}
    processor = T.InternVLProcessor(
        T.GotOcr2ImageProcessor(size=size), toy_tokenizer, T.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=INTERNVL_TEMPLATE,
    )  # fmt: skip
    return T.InternVLForConditionalGeneration(config), processor


SMOLVLM_MARKS = (
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    "<image>",
    "<video>",
)


def smolvlm() -> tuple[Any, Any]:
    toy_tokenizer = words(*SMOLVLM_MARKS)
    vision = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    config = T.SmolVLMConfig(
        vision_config=vision, text_config=T.LlamaConfig(**text_config(toy_tokenizer)),
        scale_factor=2,
        tie_word_embeddings=True,
        image_token_id=toy_tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
    processor = T.SmolVLMProcessor(
        T.SmolVLMImageProcessor(**sizes),
        toy_tokenizer,
        T.SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=QWEN_TEMPLATE,
    )  # the template for videos is in the library
    return T.SmolVLMForConditionalGeneration(config), processor


def without_numbers(
    backbone: VideoLLM, frames: Frames, question: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The ids of SmolVLM's processor, but with our ids for the opening sentence."""
    _, inputs = processed(backbone, frames, question)
    ids = inputs["input_ids"][0].tolist()
    from num2words import num2words

    count, seconds = num2words(len(frames)), int(frames.times[-1])
    opening = (
        f"You are provided the following series of {count} frames from a 0:00:{seconds:02d} "
        "[H:MM:SS] video.\n"
    )
    theirs, ours = backbone.prompt.ids(opening), backbone.prompt.ids(INTRO)
    at = next(i for i in range(len(ids)) if ids[i : i + len(theirs)] == theirs)
    new = torch.tensor([ids[:at] + ours + ids[at + len(theirs) :]])
    inputs |= {"input_ids": new, "attention_mask": torch.ones_like(new)}
    with torch.inference_mode():
        return backbone.model(**inputs, use_cache=False).logits[0], inputs


def ids_and_pixels(
    backbone: VideoLLM, frames: Frames, question: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """LLaVA-OneVision's processor has no time tags, so this is its forward over our ids, with
    pixels from its processor.
    """
    video = [backbone.config.video_token_id]
    ids = backbone.prompt.preamble_ids()
    for t in frames.times:
        ids = (
            ids
            + backbone.prompt.ids(f"[{int(t) // 60:02d}:{int(t) % 60:02d}]")
            + video * backbone.tokens_per_frame
        )
    ids = (
        ids + video + backbone.prompt.suffix_ids(question)
    )  # the library's features end with the newline
    pixels = backbone.processor.video_processor(
        [torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)], do_resize=False, return_tensors="pt"
    )
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        **pixels,
    }
    with torch.inference_mode():
        return backbone.model(**inputs, use_cache=False).logits[0], inputs


def saved(make: Callable[[], tuple[Any, Any]]) -> Path:
    """A folder with the model and the processor that `make` returns. The model's weights are
    enlarged.
    """
    torch.manual_seed(0)
    model, processor = make()
    target = Path(tempfile.mkdtemp(prefix=f"reelbank-{make.__name__}-"))
    louder(model).save_pretrained(target)
    processor.save_pretrained(target)
    return target


FAMILIES = {
    family.name: family
    for family in (
        Family("llava_ov", LlavaOneVision, {"time_tags": True}, toy_checkpoint, ids_and_pixels),
        Family(
            "qwen2_vl",
            Qwen2VL,
            {"width": 84, "height": 56, "fps": FPS, "text_after_video": "transformers"},
            partial(saved, qwen2_vl),
            processed,
        ),
        Family(
            "qwen2_5_vl",
            Qwen25VL,
            {"width": 84, "height": 56, "fps": FPS, "text_after_video": "transformers"},
            partial(saved, qwen2_5_vl),
            processed,
        ),
        Family(
            "qwen3_vl",
            Qwen3VL,
            {"width": 96, "height": 64},
            partial(saved, qwen3_vl),
            as_qwens_own_processor,
        ),
        Family("internvl", InternVL, {"fps": FPS}, partial(saved, internvl), processed),
        Family(
            "smolvlm",
            SmolVLM,
            {},
            partial(saved, smolvlm),
            without_numbers,
            needs="num2words",
            by_tokens=processed,
        ),
    )
}


# each YAML of conf/backbone: layers, KV heads, head width, and billions of parameters, as the hub
# states them (Qwen3.5 and 3.6: without the layers that only guess further tokens)
STATED = {
    "llava_ov_0p5b": (24, 2, 64, 0.89),
    "llava_ov_7b": (28, 4, 128, 8.03),
    "qwen2_vl_2b": (28, 2, 128, 2.21),
    "qwen2_vl_7b": (28, 4, 128, 8.29),
    "qwen2_5_vl_3b": (36, 2, 128, 3.75),
    "qwen2_5_vl_7b": (28, 4, 128, 8.29),
    "qwen2_5_vl_32b": (64, 8, 128, 33.45),
    "qwen2_5_vl_72b": (80, 8, 128, 73.41),
    "qwen3_vl_2b": (28, 8, 128, 2.13),
    "qwen3_vl_4b": (36, 8, 128, 4.44),
    "qwen3_vl_8b": (36, 8, 128, 8.77),
    "qwen3_vl_8b_thinking": (36, 8, 128, 8.77),
    "qwen3_vl_32b": (64, 8, 128, 33.36),
    "qwen3_vl_30b_a3b": (48, 4, 128, 31.07),
    "qwen3_vl_30b_a3b_thinking": (48, 4, 128, 31.07),
    "qwen3_5_4b": (32, 4, 256, 4.54),
    "qwen3_5_9b": (32, 4, 256, 9.41),
    "qwen3_6_27b": (64, 4, 256, 27.36),
    "qwen3_6_35b_a3b": (40, 2, 256, 35.11),
    "internvl3_1b": (24, 2, 64, 0.94),
    "internvl3_2b": (28, 2, 128, 2.09),
    "internvl3_8b": (28, 4, 128, 7.94),
    "internvl3_14b": (48, 8, 128, 15.12),
    "internvl3_38b": (64, 8, 128, 38.39),
    "internvl3_5_1b": (28, 8, 128, 1.06),
    "internvl3_5_2b": (28, 8, 128, 2.35),
    "internvl3_5_4b": (36, 8, 128, 4.73),
    "internvl3_5_8b": (36, 8, 128, 8.53),
    "internvl3_5_14b": (40, 8, 128, 15.12),
    "internvl3_5_38b": (64, 8, 128, 38.39),
    "glm4_1v_9b": (40, 2, 128, 10.29),
    "glm4_6v_flash": (40, 2, 128, 10.29),
    "videollama3_2b": (28, 2, 128, 1.96),
    "videollama3_7b": (28, 4, 128, 8.04),
    "smolvlm2_256m": (30, 3, 64, 0.26),
    "smolvlm2_500m": (32, 5, 64, 0.51),
    "smolvlm2_2b": (24, 32, 64, 2.25),
}


@functools.cache
def made(make: Callable[[], Path]) -> Path:
    """The folder with a toy checkpoint, made once."""
    return make()


def folder(name: str) -> Path:
    """A folder with the family's toy checkpoint."""
    return made(FAMILIES[name].make)


@functools.cache
def backbone_of(name: str) -> VideoLLM:
    return FAMILIES[name].load()


def frames_for(backbone: VideoLLM, count: int, seed: int = 0, video_id: str = "toy") -> Frames:
    """Random pixels at FPS frames a second."""
    width, height = backbone.frame_size
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(video_id, pixels, np.arange(count, dtype=np.float64) / FPS)
