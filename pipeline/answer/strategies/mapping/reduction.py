"""Findings of all segments -> an answer, by rule. It uses what the findings say, and nothing else.

The result does not depend on the order in which they were read. Knows no model and no video.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from memory.schema import VideoSpan
from pipeline.answer.citations import union_by_video
from pipeline.answer.strategies.mapping.map_plan import Aim
from pipeline.schema import NOT_SHOWN


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a finding names."""

    label: str  # as it was said
    start: float  # seconds
    end: float
    topic: str = ""  # the item of the plan that it belongs to
    video_id: str = ""  # where it appears

    @property
    def name(self) -> str:
        """The label without what does not tell things apart."""
        words = re.sub(r"[^\w\s]", " ", self.label.casefold()).split()
        while len(words) > 1 and words[0] in ("a", "an", "the", "some", "one"):
            words.pop(0)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Reduction:
    """The answer, and what each item of it rests on."""

    text: str
    basis: tuple[tuple[str, tuple[VideoSpan, ...]], ...]  # an item of the answer, and its spans
    shown: bool


def labels(text: str) -> list[str]:
    """The things that an answer names: a list with commas, lines or "and"."""
    parts = re.split(r"\s*(?:[,;\n]|\band\b)\s*", text.strip().rstrip("."))
    cleaned = (re.sub(r"^(?:[-*•]|\d+[.)])\s*", "", part).strip() for part in parts)
    return [part for part in cleaned if part]


def appearances(items: Iterable[Item], gap: float, videos: Sequence[str] = ()) -> list[Item]:
    """Each thing once for every time that it appears, in time order, one video after another. Two
    findings of one thing that are at most `gap` seconds apart are one appearance: it lay across the
    edge of two stretches. videos: their order, where there are several."""
    merged: list[Item] = []
    last: dict[tuple[str, str, str], int] = {}
    when = _when(videos)
    for item in sorted(items, key=lambda one: (*when(one), one.topic, one.name)):
        key = (item.video_id, item.topic, item.name)
        before = last.get(key)
        if before is not None and item.start <= merged[before].end + gap:
            old = merged[before]
            merged[before] = replace(old, end=max(old.end, item.end))
        else:
            last[key] = len(merged)
            merged.append(item)
    return merged


def reduce(
    aim: Aim,
    items: Sequence[Item],
    topics: Sequence[str],
    gap: float,
    videos: Sequence[str] = (),
) -> Reduction:
    """The answer; of several videos, from all of them together. topics: the items of the plan, as
    the question names them. gap: seconds between two findings of one appearance. videos: as in
    `appearances`."""
    shown = appearances(items, gap, videos)
    by_name: dict[str, list[Item]] = {}
    for item in shown:
        by_name.setdefault(item.name, []).append(item)
    if aim == "times":
        return _number(len(shown), shown)
    if aim == "count":
        return _number(len(by_name), shown)
    if aim == "order_of":
        when = _when(videos)
        firsts = [own[0] for topic in topics if (own := _of(shown, topic))]
        return _listed((item.topic, [item]) for item in sorted(firsts, key=when))
    if aim == "most_frequent":
        counts = Counter({name: len(own) for name, own in by_name.items()})
        most = max(counts.values(), default=0)
        often = [own for name, own in by_name.items() if counts[name] == most]
        return _listed((own[0].label, own) for own in often)
    return _listed((own[0].label, own) for own in by_name.values())


def _when(videos: Sequence[str]) -> Callable[[Item], tuple[int, float, float]]:
    """What sorts items in time order, one video after another."""
    place = {video_id: number for number, video_id in enumerate(videos)}
    return lambda item: (place.get(item.video_id, 0), item.start, item.end)


def _of(items: Sequence[Item], topic: str) -> list[Item]:
    return [item for item in items if item.topic == topic]


def _spans(items: Iterable[Item]) -> tuple[VideoSpan, ...]:
    return union_by_video(VideoSpan(item.video_id, item.start, item.end) for item in items)


def _number(number: int, items: Sequence[Item]) -> Reduction:
    return Reduction(str(number), ((str(number), _spans(items)),), True)


def _listed(parts: Iterable[tuple[str, Sequence[Item]]]) -> Reduction:
    basis = tuple((label, _spans(items)) for label, items in parts)
    if not basis:
        return Reduction(NOT_SHOWN, (), False)
    return Reduction(", ".join(label for label, _ in basis), basis, True)
