"""Rows of print that stand together on the screen, as those of a title or a sentence on two rows.

A reader of print gives rows. Knows their boxes and times; no question and no bank.
"""

from collections.abc import Iterable

from encoders.text.lines import TextLine

_GAP = 0.9  # of the lower row's height: a wider gap ends a block
_OVERLAP = 0.3  # of the narrower row's width that lies above or below the other row
_HEIGHTS = 1.6  # times as high as the other row, at most
_TOGETHER = 0.5  # of the shorter row's seconds that both show


def block_of(row: TextLine, others: Iterable[TextLine]) -> list[TextLine]:
    """The row and those of its block, from top to bottom; the row alone if it has no box."""
    beside = [one for one in others if one is not row and _show_together(row, one)]
    block = [row]
    while below := next((one for one in beside if _is_below(block[-1], one)), None):
        block.append(below)
        beside.remove(below)
    while above := next((one for one in beside if _is_below(one, block[0])), None):
        block.insert(0, above)
        beside.remove(above)
    return block


def _show_together(a: TextLine, b: TextLine) -> bool:
    shared = min(a.end, b.end) - max(a.start, b.start)
    return shared > 0 and shared >= _TOGETHER * min(a.end - a.start, b.end - b.start)


def _is_below(upper: TextLine, lower: TextLine) -> bool:
    """Whether `lower` is the next row of the block whose last row is `upper`."""
    if upper.box is None or lower.box is None:
        return False
    left, top, right, bottom = upper.box
    its_left, its_top, its_right, its_bottom = lower.box
    heights = sorted((bottom - top, its_bottom - its_top))
    widths = sorted((right - left, its_right - its_left))
    return (
        its_top > (top + bottom) / 2
        and its_top - bottom <= _GAP * (its_bottom - its_top)
        and heights[1] <= _HEIGHTS * heights[0]
        and min(right, its_right) - max(left, its_left) >= _OVERLAP * widths[0]
    )
