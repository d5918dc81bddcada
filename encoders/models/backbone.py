"""The role of a video-LLM: what the write path and the readers call, and nothing else.

Knows the records of `encoders/schema.py`, the caches and the positions; no family and no
checkpoint. `VideoLLM` implements it. It stands here and not in `encoders/schema.py`, because its
methods take the caches of this folder. Importing it loads no transformers.

Shapes: T frames, N visual tokens, M block tokens, D model width, L layers, H KV heads, Dh head
width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from encoders.models.positions import Positions
from encoders.schema import FrameEmbeds, Frames, KVBlock, VisualTokens

if TYPE_CHECKING:  # these load transformers, which callers that only name the role do not need
    from encoders.models.attention import Listener
    from encoders.models.batched_cache import BatchedCache
    from encoders.models.kv_cache import FixedCache, KVShape, LibraryCache


class Backbone(Protocol):
    """A video-LLM. Its only state is its weights: contexts live in caches that the caller holds."""

    path: str  # a folder or a hub id
    dtype: torch.dtype
    device: torch.device
    kv_shape: "KVShape"
    # "" if every layer is full attention, else the names of the layer types that are not
    other_layers: str
    # sampled frames that the vision tower merges into one; segments hold a multiple of it
    temporal_patch: int
    positions: Positions
    reads_text: bool  # False: a prompt holds no recalled text
    # the only questions that the model knows, such as "needle_world"; None = any
    questions: str | None

    @property
    def is_narrow(self) -> bool:
        """True if the decoder's matrix products are too small to use many cores."""
        ...

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame before compression."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the frames that `encode_frames` takes."""
        ...

    # -- frames and text ---------------------------------------------------------------------------

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """Run the vision tower and the projector on T frames. ValueError if they do not have
        `frame_size`.
        """
        ...

    def frame_embeds(self, visual: VisualTokens) -> FrameEmbeds:
        """Embeddings [M, D] of every frame: its visual tokens between the texts around it."""
        ...

    def frame_text_length(self, seconds: float = 0.0) -> int:
        """Number of text tokens around a frame at this time."""
        ...

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ...

    def text_of(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        ...

    def embed(self, ids: list[int]) -> Tensor:
        """Embeddings [n, D] of n token ids."""
        ...

    def preamble_ids(self) -> list[int]:
        """Token ids before the first frame."""
        ...

    def suffix_ids(self, question: str) -> list[int]:
        """Token ids after the video: the question and the start of the assistant's turn."""
        ...

    def after_video(self) -> Tensor:
        """Embeddings [n, D] after the last frame that are not text; n may be 0."""
        ...

    def stop_ids(self) -> set[int]:
        """Token ids that end an answer."""
        ...

    # -- the decoder -------------------------------------------------------------------------------

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [n, Dh] float32 at positions [n], or [3, n] for three axes. Read-only."""
        ...

    def cache(self, capacity: int) -> "FixedCache | LibraryCache":
        """An empty cache for `capacity` tokens."""
        ...

    def batched_cache(self, rows: int, capacity: int) -> "BatchedCache":
        """Empty caches for `rows` contexts of up to `capacity` tokens."""
        ...

    def forward(
        self,
        embeds: Tensor | FrameEmbeds,
        cache: "FixedCache | LibraryCache",
        listener: "Listener | None" = None,
    ) -> Tensor:
        """Append text [n, D] or frames to the cache; return their hidden states [n, D]."""
        ...

    def forward_batch(
        self, texts: Sequence[Tensor], cache: "BatchedCache", listener: "Listener | None" = None
    ) -> Tensor:
        """Append one text [n, D] to every row; return hidden states [B, longest n, D]."""
        ...

    def prefill(self, embeds: Tensor | FrameEmbeds, cache: "FixedCache | LibraryCache") -> None:
        """Append text [n, D] or frames to the cache and compute no hidden states."""
        ...

    def append_block(self, block: KVBlock, cache: "FixedCache") -> None:
        """Append stored frames to the cache: one rotation per key, no forward pass."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] float32."""
        ...

    def decode(
        self,
        hidden: Tensor,
        cache: "FixedCache | LibraryCache",
        max_new_tokens: int,
        listener: "Listener | None" = None,
    ) -> Iterator[int]:
        """Greedy decoding from the last hidden state [D]: at most `max_new_tokens` token ids,
        without the stop token.
        """
        ...

    def queries_of(self, questions: Sequence[str]) -> Tensor:
        """[B, L, H * Dh] float32: mean query per question and layer, before rotary embedding."""
        ...

    # -- identity ----------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """16 hex digits over configuration and weights; settings that change keys add a suffix."""
        ...
