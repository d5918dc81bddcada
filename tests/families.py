"""Tiny random checkpoints of the real classes of every family, with the family's real processor, and the library's own
forward over pixels as the reference."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import encoders.torchvision_ops  # noqa: F401

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from encoders.backbone import VideoLLM
from encoders.qwen_vl import Qwen2VL, Qwen3VL, Qwen25VL
from encoders.schema import Frames
from pipeline.tiny import questions, tokenizer

import transformers as T  # isort: skip

# Qwen's own template for one user message with a video, without the branches for images and several turns.
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FPS = 2.0


@dataclass(frozen=True)
class Family:
    """A family with its toy: how to load it and what the library's own classes say to frames and a question."""

    name: str
    adapter: Callable[..., VideoLLM]
    settings: dict[str, Any]
    make: Callable[[], tuple[Any, Any]]  # -> model, processor
    reference: Callable[[VideoLLM, Frames, str], tuple[torch.Tensor, dict[str, Any]]]  # -> logits [S, V], inputs

    def load(self, **settings: Any) -> VideoLLM:
        return self.adapter(str(folder(self.name)), dtype="float32", **(self.settings | settings))


def words(*special: str) -> Any:
    made = tokenizer.build(questions.corpus())
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def text_config(made: Any, **more: Any) -> dict[str, Any]:
    return dict(
        vocab_size=len(made), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=made.convert_tokens_to_ids("<|im_end|>"), pad_token_id=made.convert_tokens_to_ids("<|endoftext|>"),
    ) | more  # fmt: skip


def louder(model: Any, seed: int = 0) -> Any:
    """Random models answer with one token whatever they see; larger weights make logits differ."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() > 1:
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.08)
    return model.eval()


QWEN_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")


def _qwen_ids(made: Any) -> dict[str, int]:
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "video": "video_pad", "image": "image_pad"}
    return {f"{key}_token_id": made.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def qwen2_vl() -> tuple[Any, Any]:
    made = words(*QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = dict(depth=2, embed_dim=32, hidden_size=64, num_heads=2, mlp_ratio=2, patch_size=14)
    config = T.Qwen2VLConfig(
        text_config=text_config(made, rope_parameters=rope), vision_config=vision, tie_word_embeddings=True, **_qwen_ids(made)
    )
    processor = T.Qwen2VLProcessor(T.Qwen2VLImageProcessor(), made, T.Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
    return T.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> tuple[Any, Any]:
    made = words(*QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    vision = dict(
        depth=2, hidden_size=32, out_hidden_size=64, num_heads=2, intermediate_size=64, patch_size=14, window_size=56,
        fullatt_block_indexes=[1], tokens_per_second=3,
    )  # fmt: skip
    config = T.Qwen2_5_VLConfig(
        text_config=text_config(made, rope_parameters=rope), vision_config=vision, tie_word_embeddings=True, **_qwen_ids(made)
    )
    processor = T.Qwen2_5_VLProcessor(T.Qwen2VLImageProcessor(), made, T.Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
    return T.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl() -> tuple[Any, Any]:
    made = words(*QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = dict(
        depth=3, hidden_size=32, out_hidden_size=64, num_heads=2, intermediate_size=64, patch_size=16,
        num_position_embeddings=64, deepstack_visual_indexes=[0, 1],
    )  # fmt: skip
    config = T.Qwen3VLConfig(
        text_config=text_config(made, head_dim=16, rope_parameters=rope), vision_config=vision, tie_word_embeddings=True,
        **_qwen_ids(made),
    )  # fmt: skip
    video = T.Qwen3VLVideoProcessor(patch_size=16)
    processor = T.Qwen3VLProcessor(T.Qwen2VLImageProcessor(patch_size=16), made, video, chat_template=QWEN_TEMPLATE)
    return T.Qwen3VLForConditionalGeneration(config), processor


def processed(backbone: VideoLLM, frames: Frames, question: str) -> tuple[torch.Tensor, dict[str, Any]]:
    """The library's processor and the library's forward, told nothing but pixels, times and the question."""
    parts = [{"type": "video"}, {"type": "text", "text": question}]
    text = backbone.processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    metadata = VideoMetadata(
        total_num_frames=len(frames), fps=FPS, frames_indices=np.round(frames.times * FPS).astype(int).tolist()
    )
    inputs = backbone.processor(
        text=[text], videos=[torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)], video_metadata=[metadata],
        do_resize=False, do_sample_frames=False, return_tensors="pt",
    )  # fmt: skip
    backbone.model.model.rope_deltas = None
    with torch.inference_mode():
        return backbone.model(**inputs, use_cache=False).logits[0], dict(inputs)


FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2_vl", Qwen2VL, {"width": 84, "height": 56, "fps": FPS}, qwen2_vl, processed),
        Family("qwen2_5_vl", Qwen25VL, {"width": 84, "height": 56, "fps": FPS}, qwen2_5_vl, processed),
        Family("qwen3_vl", Qwen3VL, {"width": 96, "height": 64}, qwen3_vl, processed),
    )
}


@functools.cache
def folder(name: str) -> Path:
    """A folder with the family's toy checkpoint."""
    torch.manual_seed(0)
    model, processor = FAMILIES[name].make()
    target = Path(tempfile.mkdtemp(prefix=f"reelbank-{name}-"))
    louder(model).save_pretrained(target)
    processor.save_pretrained(target)
    return target


@functools.cache
def backbone_of(name: str) -> VideoLLM:
    return FAMILIES[name].load()


def frames_for(backbone: VideoLLM, count: int, seed: int = 0, video_id: str = "toy") -> Frames:
    """Random pixels at FPS frames a second."""
    width, height = backbone.frame_size
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Frames(video_id, pixels, np.arange(count, dtype=np.float64) / FPS)
