"""Pictures of a file by decord, as far as it is exact. Knows the facts of a `Container`.

decord's pictures are one group of pictures off, without a word, wherever a picture behind a
keyframe is shown before it.
"""

from collections.abc import Sequence

import numpy as np

from encoders.sources.container import Container
from encoders.sources.ffmpeg_name import ffmpeg_name

# Formats in which decord seeks exactly. In MPEG-TS, `get_batch` returns pictures one second off.
_DECORD_KINDS = ("mov,mp4", "matroska", "avi")
# pictures between keyframes: each batch decodes from a keyframe, so long runs cost quadratic time
_DECORD_RUN = 3000
_CLOCK_S = 5e-3  # decord reports times in float32, which is off by 2 ms after ten hours


class DecordError(Exception):
    """decord cannot open the file, or cannot continue."""


def why_not_decord(facts: Container) -> str:
    """The reason not to use decord for this file; empty if there is none."""
    if not facts.kind.startswith(_DECORD_KINDS):
        return f"decord seeks wrongly in {facts.kind}"
    if not facts.is_stamped:
        return "the file has no time stamps"
    if facts.cut_off:
        return "the file is cut off at its end"
    # decord fails at a place that depends on how far it decoded ahead, so two passes would differ
    if facts.torn:
        return "the file is damaged inside"
    if facts.longest_run > _DECORD_RUN:
        return f"{facts.longest_run} pictures lie between two keyframes, too many for decord"
    return ""


class DecordReader:
    """Pictures by number, in rising order. One thread; memory bounded by the scaled size."""

    def __init__(self, facts: Container, width: int, height: int) -> None:
        try:
            import decord  # here: an extra
        except ImportError as error:
            raise DecordError("decord is not installed") from error
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, IndexError)
        try:
            self._reader = decord.VideoReader(
                ffmpeg_name(facts.path), num_threads=1, width=width, height=height
            )
        except (*self._errors, RuntimeError) as error:
            raise DecordError(f"decord cannot open this file ({facts.codec})") from error
        if len(self._reader) != len(facts.times):  # decord hangs when it reads past the real end
            raise DecordError(
                f"decord counts {len(self._reader)} pictures, the file holds {len(facts.times)}"
            )
        self._times = facts.times

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """[len(numbers), height, width, 3] uint8. DecordError if one of them cannot be decoded."""
        try:
            starts = np.asarray(self._reader.get_frame_timestamp(list(numbers)))[:, 0]
            pixels: np.ndarray = self._reader.get_batch(list(numbers)).asnumpy()
            # frees what was decoded ahead: 119 MB instead of 560 MB on a 640 x 480 file
            self._reader.seek(0)
        except self._errors as error:
            raise DecordError("decord cannot decode on") from error
        if np.abs(starts - self._times[list(numbers)]).max() > _CLOCK_S:
            raise DecordError("decord and the container disagree about time")
        return pixels
