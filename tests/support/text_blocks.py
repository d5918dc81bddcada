"""Blocks of text lines for a bank, and a bank that takes them."""

from pathlib import Path
from typing import Any

from encoders.text.lines import TextBlock, TextLine, TextSpan
from memory.bank import MemoryBank
from memory.retrieval.uniform import UniformRetriever


def line(
    start: float, text: str, video_id: str = "v", kind: str = "subtitle", seconds: float = 2.0
) -> TextLine:
    return TextLine(video_id, start, start + seconds, kind, text, start + seconds)


def block(
    number: int,
    *lines: TextLine,
    video_id: str = "v",
    last: bool = False,
    extractor: str = "subtitles",
) -> TextBlock:
    """Ten seconds of text."""
    return TextBlock(
        video_id,
        extractor,
        "made so",
        number,
        TextSpan(10.0 * number, 10.0 * number + 10, lines, last),
    )


def opened(root: Path, **options: Any) -> MemoryBank:
    return MemoryBank.open(root, {"model": "m"}, UniformRetriever(), recent_frames=1, **options)


BLOCKS = (
    block(0, line(1, "the harbour was rebuilt"), line(8, "with granite", seconds=5)),
    block(1, line(12, "bread needs salt")),
    block(2, line(21, "and the harbour again"), last=True),
)
