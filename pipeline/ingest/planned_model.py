"""A model that only says how many visual tokens frames will have, for a bank that encodes on
demand.
"""

import numpy as np
import torch

from encoders.models.backbone import Backbone
from encoders.schema import Frames, VisualTokens


class PlannedModel:
    """A VideoModel whose frames are encoded later. It asks its model for numbers alone, so that
    model needs no weights."""

    is_narrow = False  # nothing computes beside the frame embedder, which gets all threads

    def __init__(self, model: Backbone) -> None:
        self._model = model
        self.path, self.dtype, self.device = model.path, model.dtype, model.device
        self.temporal_patch, self.keeps_shape = model.temporal_patch, model.keeps_shape
        self.reads_text, self.questions = model.reads_text, model.questions

    @property
    def tokens_per_frame(self) -> int:
        return self._model.tokens_per_frame

    @property
    def frame_size(self) -> tuple[int, int]:
        return self._model.frame_size

    def frame_size_for(self, ratio: float) -> tuple[int, int]:
        return self._model.frame_size_for(ratio)

    def fingerprint(self) -> str:
        return self._model.fingerprint()

    def encode_frames(self, frames: Frames) -> VisualTokens:
        """The times of the frames and, in `offsets`, how many tokens they will have before
        compression; no tokens."""
        size = self.temporal_patch
        height, width = frames.pixels.shape[1:3]
        times = torch.from_numpy(np.ascontiguousarray(frames.times, dtype=np.float64))
        count = -(-len(times) // size)
        return VisualTokens(
            torch.zeros(0, 0),
            torch.zeros(0, 3, dtype=torch.int32),
            torch.arange(count + 1) * self._model.frame_tokens(self._model.config, width, height),
            torch.stack([part[-1] for part in times.split(size)]),
            None if size == 1 else times[::size].clone(),
        )
