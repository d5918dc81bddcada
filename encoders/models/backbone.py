"""The roles of a model: what the write path calls of any (`VideoModel`), and what the readers call
of one in this process (`Backbone`), and nothing else.

Knows the records of `encoders/schema.py` and the parts that every family has: the prompt's text,
the language model, the tower. Knows no family and no checkpoint. `VideoLLM` implements it. It
stands here and not in `encoders/schema.py`, because those parts belong to this folder. Importing it
loads no transformers.

Shapes: T frames, N visual tokens, M block tokens, D model width.
"""

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from encoders.schema import FrameEmbeds, Frames, VisualTokens

if TYPE_CHECKING:  # it loads transformers, which callers that only name the role do not need
    from encoders.models.language_model import LanguageModel
    from encoders.models.loading.vision_tower import VisionTower
    from encoders.models.prompt_text import PromptText


class VideoModel(Protocol):
    """The model of a run, as far as the write path and the settings know it. Its only state is its
    weights. A `Backbone` is one that answers in this process; pipeline/endpoint/ has one that asks
    elsewhere.
    """

    path: str  # a folder or a hub id
    dtype: torch.dtype
    device: torch.device
    # sampled frames that the vision tower merges into one; segments hold a multiple of it
    temporal_patch: int
    # True if `frame_size_for` depends on the film; False if all frames have `frame_size`
    keeps_shape: bool
    is_narrow: bool  # True if a step computes too little to be divided among threads
    reads_text: bool  # False: a prompt holds no recalled text
    # the only questions that the model knows, such as "needle_world"; None = any
    questions: str | None

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame before compression."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the frames that `encode_frames` takes, of a film whose shape
        is not known.
        """
        ...

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        """(width, height) in pixels for a film of this width over height."""
        ...

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """Run the vision tower and the projector on T frames. ValueError if they do not have
        a size that `frame_size_for` gives.
        """
        ...

    def fingerprint(self) -> str:
        """16 hex digits over configuration and weights; settings that change keys add a suffix."""
        ...


class Backbone(VideoModel, Protocol):
    """A video-LLM in this process. Contexts live in caches that the caller holds."""

    config: Any  # transformers' configuration of the checkpoint
    prompt: "PromptText"
    tower: "VisionTower"  # it may leave memory until `encode_frames` needs it
    language_model: "LanguageModel"
    # True: the text before the frames says how many they are; then `opening_ids` does
    counts_frames: bool
    # True: frames are numbered in the order in which an answer reads them, so that their text
    # cannot be stored with keys
    renumbers_frames: bool

    @property
    def has_weights(self) -> bool:
        """False for a model that only says how large frames are and how many tokens they have."""
        ...

    def frame_tokens(self, config: Any, width: int = 0, height: int = 0) -> int:
        """Visual tokens, before compression, of a frame (or temporal patch) of so many pixels.
        config: the model's own."""
        ...

    def opening_ids(self, frames: int, seconds: float) -> list[int]:
        """Token ids before the first of so many frames, the last one sampled at `seconds`. Stored
        keys saw `prompt.preamble_ids()` in their place, which say neither.
        """
        ...

    def frame_embeds(self, visual: VisualTokens, *, whole: bool = False) -> FrameEmbeds:
        """Embeddings [M, D] of every frame: its visual tokens between the texts around it.

        whole: these are all frames of a prompt, in its order.
        """
        ...

    def frame_text_length(self, seconds: float = 0.0) -> int:
        """Number of text tokens around a frame at this time."""
        ...

    def after_video(self) -> Tensor:
        """Embeddings [n, D] after the last frame that are not text; n may be 0."""
        ...
