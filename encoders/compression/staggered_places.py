"""Which places of each frame a compressor keeps that keeps every place once in a few frames."""

import torch
from torch import Tensor

from encoders.schema import VisualTokens


def staggered_places(visual: VisualTokens, ratio: int) -> Tensor:
    """[N] bool: True for every `ratio`-th token of each frame, one place further in each frame, so
    that `ratio` frames show every place once.

    A frame of m tokens keeps floor(m / ratio) or ceil(m / ratio), and one at least. Frames count
    from the beginning of the record, so a segment does not see its neighbor.
    """
    counts = visual.offsets.diff()
    frame = torch.arange(len(counts)).repeat_interleave(counts)  # [N]
    place = torch.arange(len(frame)) - visual.offsets[:-1].repeat_interleave(counts)  # [N]
    first = torch.minimum(torch.arange(len(counts)) % ratio, counts - 1)[frame]
    return place % ratio == first


def check_ratio(ratio: int) -> None:
    """ValueError for a ratio below 1."""
    if ratio < 1:
        raise ValueError(f"ratio={ratio}: at most all tokens stay (1); 4 keeps a quarter")
