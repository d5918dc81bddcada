"""Frames in more pixels than the backbone reads, for frame embedders that need them.

The embedded backbone reads 96 x 96 pixels, in which a dog is no dog. A source that can scales each
picture twice; others give the backbone's frames alone.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from encoders.schema import FrameEmbedder, FrameSource


@runtime_checkable
class DetailedEmbedder(Protocol):
    """A frame embedder that reads `Frames.detail` where there is one."""

    @property
    def detail_size(self) -> tuple[int, int]:
        """(width, height) in pixels that it needs."""
        ...


@runtime_checkable
class DetailedSource(Protocol):
    """A source that can scale every picture to a second size."""

    def add_detail(self, size: tuple[int, int]) -> None:
        """Give later frames a `detail` of this (width, height) in pixels, unless the frames
        themselves are as large.
        """
        ...


def ask_for_detail(source: FrameSource, embedders: Iterable[FrameEmbedder]) -> None:
    """Have the source give what these embedders need, as far as it can."""
    sizes = [one.detail_size for one in embedders if isinstance(one, DetailedEmbedder)]
    if sizes and isinstance(source, DetailedSource):
        source.add_detail((max(size[0] for size in sizes), max(size[1] for size in sizes)))


def needed_detail(frames: tuple[int, int], detail: tuple[int, int]) -> tuple[int, int] | None:
    """The size of the detail beside frames of a size; None where these are as large."""
    return None if frames[0] >= detail[0] and frames[1] >= detail[1] else detail
