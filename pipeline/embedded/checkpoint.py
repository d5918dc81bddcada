"""Write a LLaVA-OneVision model as a hub checkpoint: safetensors, configs, tokenizer, processor.

Knows no training; tests use it for random models as well.
"""

from pathlib import Path

import encoders.models.torchvision_ops  # noqa: F401  (first: the processors import torchvision)

from transformers import (  # isort: skip
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)


def save(
    model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the checkpoint; files of an existing one are replaced one by one."""
    side = model.config.vision_config.image_size
    half = [0.5, 0.5, 0.5]  # SigLIP's normalization
    sizes = {"size": {"height": side, "width": side}, "image_mean": half, "image_std": half}
    tokens_per_frame = (-(-(side // model.config.vision_config.patch_size) // 2)) ** 2
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(**sizes, image_grid_pinpoints=[[side, side]]),
        video_processor=LlavaOnevisionVideoProcessor(**sizes),
        tokenizer=tokenizer,
        num_image_tokens=tokens_per_frame,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
