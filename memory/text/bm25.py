"""Lines of text for a question, best first: BM25 over the catalog's full-text index.

Knows the rows and their words; no pictures, no prompts. SQLite's own bm25() counts every line that has a word, each time: a
second for common words in a million lines. So here:
    1 how many lines have each word, counted up to COMMON_LINES
    2 candidates: lines with the telling words (fewer than COMMON_LINES lines have them), the more and rarer words the better; where
      all words are common, lines that have them all; at most MAX_CANDIDATES of them
    3 BM25 (Robertson's, k1 and b below) over the candidates alone, read from the catalog. What neighbours within NEAR_S seconds
      say of words that a line lacks counts half: a sentence goes over several subtitles, a slide has several lines
Which lines are seen depends on the question's moment (no look-ahead) and on the stretch of time that is asked for.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from encoders.text.lines import TextLine
from memory.text import tokenizer
from memory.text.rows import TextRows
from memory.text.tokenizer import Query

COMMON_LINES = 4000  # lines
MAX_CANDIDATES = 400  # candidates
NEAR_S = 8.0
K1, B = 1.2, 0.5  # lines are short, and a short one is not a better one
MEAN_WORDS = (
    8.0  # words of a line; not counted, as lines that come later must not change what is found
)
_NEIGHBOUR = 0.5


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines may be found."""

    video_id: str | None = None  # None: all videos of the bank
    kinds: tuple[str, ...] = ()  # none: all
    start: float = 0.0  # seconds of video time
    end: float = math.inf
    asked_at: float = math.inf  # seconds: what was not known by then is not found
    # only these videos, each between its seconds
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankedLine:
    """A line with what speaks for it."""

    line: TextLine
    score: float  # BM25, neighbours included
    # 0..1: how much of what the question asks for stands in it and near it, rare words counting more
    coverage: float
    start: float  # seconds: with the neighbours that counted
    end: float


def search(
    rows: TextRows, query: Query, line_filter: LineFilter, most: int = 50
) -> list[RankedLine]:
    """At most so many lines, best first; equal ones in time order. Empty where the bank has no text."""
    if query.empty or not rows.has_text:
        return []
    scope = _Scope(rows, line_filter)
    terms = tuple(dict.fromkeys((*query.terms, *query.phrases)))
    having = {
        term: scope.matching(_match(term), most=COMMON_LINES, always=True) for term in terms
    }  # 1
    lines = scope.count()
    idf = {
        term: math.log(1 + (max(lines - len(ids), 0) + 0.5) / (len(ids) + 0.5))
        for term, ids in having.items()
    }
    found = rows.lines(_candidates(scope, query, having, idf))  # 2
    return _ranked(found, idf, line_filter)[:most]  # 3


class _Scope:
    """The lines that may be found. Who asks at a moment meets the words of one video as they were then: how common a word is
    must not tell of what comes later."""

    def __init__(self, rows: TextRows, line_filter: LineFilter) -> None:
        self._rows, self._line_filter = rows, line_filter
        self._runs = (
            None
            if line_filter.video_id is None
            else [run.ids for run in rows.runs(line_filter.video_id)]
        )
        kinds = " OR ".join(f'"{kind}"' for kind in line_filter.kinds)
        self._kinds = [f"kind : ({kinds})"] if kinds else []

    @property
    def bounded(self) -> bool:
        """Whether only a stretch of time is asked for."""
        return (self._line_filter.start, self._line_filter.end) != (0.0, math.inf) or bool(
            self._line_filter.within
        )

    def matching(self, *matches: str, most: int, always: bool = False) -> list[int]:
        """Ids of lines; always: whatever the stretch of time."""
        match = " AND ".join((*matches, *self._kinds))
        found: list[int] = []
        for ids, during in self._everywhere() if always else self._parts:
            found += self._rows.search_ids(
                match, ids, self._line_filter.asked_at, during, most=most - len(found)
            )
        return found

    @cached_property
    def _parts(self) -> list[tuple[range | None, tuple[float, float]]]:
        """Ids of lines and seconds."""
        line_filter = self._line_filter
        if not line_filter.within:
            return [(ids, (line_filter.start, line_filter.end)) for ids, _ in self._everywhere()]
        spans = (
            line_filter.within
            if line_filter.video_id is None
            else {line_filter.video_id: line_filter.within.get(line_filter.video_id, (0.0, 0.0))}
        )
        parts: list[tuple[range | None, tuple[float, float]]] = []
        for video_id, (low, high) in sorted(spans.items()):
            during = max(low, line_filter.start), min(high, line_filter.end)
            if during[0] < during[1]:
                parts += [(run.ids, during) for run in self._rows.runs(video_id)]
        return parts

    def _everywhere(self) -> list[tuple[range | None, tuple[float, float]]]:
        always = (0.0, math.inf)
        return [(None, always)] if self._runs is None else [(ids, always) for ids in self._runs]

    def count(self) -> int:
        if self._runs is None:
            return self._rows.count()
        return sum(self._rows.count(ids, self._line_filter.asked_at) for ids in self._runs)


def _candidates(
    scope: _Scope,
    query: Query,
    having: dict[tuple[str, ...], list[int]],
    idf: dict[tuple[str, ...], float],
) -> list[int]:
    phrases = [_match(phrase) for phrase in query.phrases]
    there = sorted(
        (term for term in query.terms if having[term]), key=lambda term: (len(having[term]), term)
    )
    weight: defaultdict[int, float] = defaultdict(float)
    for term in there:
        ids = having[term]
        if len(ids) < COMMON_LINES:
            if phrases or scope.bounded:
                ids = scope.matching(_match(term), *phrases, most=COMMON_LINES)
            for id_ in ids:
                weight[id_] += idf[term]
    if weight:
        return [
            id_
            for id_, _ in sorted(weight.items(), key=lambda item: (-item[1], item[0]))[
                :MAX_CANDIDATES
            ]
        ]
    # common words: as many of them in one line as there are
    for count in range(len(there), 0 if phrases else 1, -1):
        found = scope.matching(*map(_match, there[:count]), *phrases, most=MAX_CANDIDATES)
        if found:
            return found
    return (
        scope.matching(*(phrases or map(_match, there[:1])), most=MAX_CANDIDATES)
        if phrases or there
        else []
    )


def _ranked(
    lines: dict[int, TextLine], idf: dict[tuple[str, ...], float], line_filter: LineFilter
) -> list[RankedLine]:
    terms = tuple(idf)
    asked = sum(idf.values()) or 1.0
    scored: dict[int, dict[tuple[str, ...], float]] = {}
    for id_, line in lines.items():
        told = tokenizer.words(line.text)
        length = K1 * (1 - B + B * len(told) / MEAN_WORDS)
        times = Counter({term: tokenizer.holds(told, term) for term in terms})
        scored[id_] = {
            term: idf[term] * n * (K1 + 1) / (n + length) for term, n in times.items() if n
        }
    order = sorted(lines, key=lambda id_: (lines[id_].video_id, lines[id_].start, id_))
    found = []
    for place, id_ in enumerate(order):
        line, own = lines[id_], scored[id_]
        more: dict[tuple[str, ...], float] = {}
        start, end = line.start, line.end
        for other in _near(order, lines, place):
            gain = {term: score for term, score in scored[other].items() if term not in own}
            if gain:
                more = {
                    term: max(score, more.get(term, 0.0)) for term, score in (more | gain).items()
                }
                start, end = min(start, lines[other].start), max(end, lines[other].end)
        covered = sum(idf[term] for term in (*own, *more))
        score = sum(own.values()) + _NEIGHBOUR * sum(more.values())
        # that it stayed is not known yet; a copy of every line would be a tenth of a search
        shown = (
            line if line.end <= line_filter.asked_at else replace(line, end=line_filter.asked_at)
        )
        found.append(
            RankedLine(
                shown, score, min(covered / asked, 1.0), start, min(end, line_filter.asked_at)
            )
        )
    return sorted(found, key=lambda each: (-each.score, each.line.video_id, each.line.start))


def _near(order: Sequence[int], lines: dict[int, TextLine], place: int) -> list[int]:
    """Lines of the same video within NEAR_S of this one."""
    here = lines[order[place]]
    found = []
    for step in (-1, 1):
        at = place + step
        while 0 <= at < len(order):
            other = lines[order[at]]
            gap = max(other.start - here.end, here.start - other.end)
            if other.video_id != here.video_id or (
                gap > NEAR_S and abs(other.start - here.start) > NEAR_S
            ):
                break
            if gap <= NEAR_S:
                found.append(order[at])
            at += step
    return found


def _match(term: tuple[str, ...]) -> str:
    text = " ".join(term).replace('"', "")
    return f'words : "{text}"'
