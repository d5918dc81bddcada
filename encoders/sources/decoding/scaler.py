"""Decoded pictures -> RGB of the size that a model reads, upright. Knows PyAV's frames."""

from collections import defaultdict

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from encoders.sources import orientation


class Scaler:
    """Scales the pictures of one thread."""

    def __init__(self) -> None:
        # one for each size: a change of size costs more than the scaling
        self._scalers: defaultdict[tuple[int, int], VideoReformatter]
        self._scalers = defaultdict(VideoReformatter)

    def picture(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """[height, width, 3] uint8 RGB, scaled, then turned and mirrored as the file says. size:
        (width, height) of the result.
        """
        signs = orientation.matrix(frame)
        width, height = size[:: -1 if orientation.is_lying(signs) else 1]
        scaled = (
            self._scalers[size]
            .reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
            .to_ndarray()
        )
        return orientation.upright(scaled, signs)
