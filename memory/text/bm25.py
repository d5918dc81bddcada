"""Text lines ranked for a question by BM25 over the catalog's full-text index.

Knows the rows and their words; no frames, no prompts. SQLite's own bm25() counts every line that
has a word, each time: a second for common words in a million lines. So here:
    1 count the lines that have each word, up to COMMON_LINES
    2 candidates: lines with rare words (in fewer than COMMON_LINES lines), best those with the most
      and the rarest; if all words are common, lines that have them all; at most MAX_CANDIDATES
    3 BM25 (Robertson's, k1 and b below) over the candidates alone, read from the catalog. Words
      that a line lacks but a neighbor within NEAR_S seconds has count half: a sentence spans
      several subtitles, a slide has several lines
The question's moment (no look-ahead) and its span of time limit which lines can match.
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

COMMON_LINES = 4000
MAX_CANDIDATES = 400
NEAR_S = 8.0
K1, B = 1.2, 0.5  # b below the usual 0.75: lines are short, and a short one is not a better one
# words of a line; a constant, not counted, as later lines must not change earlier scores
MEAN_WORDS = 8.0
_NEIGHBOR_WEIGHT = 0.5
Term = tuple[str, ...]  # one word, or letters in a row (memory/text/tokenizer.py)
# ids of lines (None: all), and a span of video time in seconds
# and the second by which a line must be known
Part = tuple[range | None, tuple[float, float], float]


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Which lines can match."""

    video_id: str | None = None  # None: all videos of the bank
    kinds: tuple[str, ...] = ()  # empty: all
    start: float = 0.0  # seconds of video time
    end: float = math.inf
    asked_at: float = math.inf  # seconds: lines that became known later do not match
    # video id -> start and end in seconds; if not empty, only lines inside match
    within: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    # video id -> its own `asked_at`, where the videos of `within` do not begin together
    moments: Mapping[str, float] = field(default_factory=dict)

    def moment(self, video_id: str) -> float:
        """Seconds: lines of this video that became known later do not match."""
        return self.moments.get(video_id, self.asked_at)

    def span(self, video_id: str) -> tuple[float, float]:
        """Seconds of this video inside which lines match."""
        if not self.within:
            return self.start, self.end
        low, high = self.within.get(video_id, (0.0, 0.0))
        return max(low, self.start), min(high, self.end)

    def passes(self, line: TextLine) -> bool:
        """Whether a line of one of the filter's videos can match."""
        if self.kinds and line.kind not in self.kinds:
            return False
        if line.known > self.moment(line.video_id):
            return False
        start, end = self.span(line.video_id)
        return line.start < end and line.end > start


@dataclass(frozen=True, slots=True)
class RankedLine:
    """A line with its score."""

    line: TextLine
    score: float  # BM25, neighbors included
    # 0..1: share of the question's terms, weighted by rarity, in this line and its neighbors
    coverage: float
    start: float  # seconds: with the neighbors that counted
    end: float


def search(
    rows: TextRows, query: Query, line_filter: LineFilter, most: int = 50
) -> list[RankedLine]:
    """The best lines, at most `most`, best first; ties in time order."""
    if query.is_empty or not rows.has_text:
        return []
    scope = _Scope(rows, line_filter)
    terms = tuple(dict.fromkeys((*query.terms, *query.phrases)))
    ids_by_term = {  # 1
        term: scope.search_ids(_match(term), most=COMMON_LINES, at_any_time=True) for term in terms
    }
    count = scope.count()
    idf = {
        term: math.log(1 + (max(count - len(ids), 0) + 0.5) / (len(ids) + 0.5))
        for term, ids in ids_by_term.items()
    }
    candidates = rows.lines(_candidates(scope, query, ids_by_term, idf))  # 2
    return _ranked(candidates, idf, line_filter)[:most]  # 3


class _Scope:
    """The lines that can match.

    Word counts for one video ignore lines that became known after the question's moment: how common
    a word is must not reveal what comes later.
    """

    def __init__(self, rows: TextRows, line_filter: LineFilter) -> None:
        self._rows, self._line_filter = rows, line_filter
        own = [line_filter.video_id] if line_filter.video_id is not None else None
        if own is None and line_filter.moments:
            own = sorted(line_filter.within)
        self._runs = (
            None
            if own is None
            else [(run.ids, line_filter.moment(each)) for each in own for run in rows.runs(each)]
        )
        kinds = " OR ".join(f'"{kind}"' for kind in line_filter.kinds)
        self._kinds = [f"kind : ({kinds})"] if kinds else []

    @property
    def is_bounded(self) -> bool:
        """True if the filter limits the time."""
        times = (self._line_filter.start, self._line_filter.end)
        return times != (0.0, math.inf) or bool(self._line_filter.within)

    def search_ids(self, *matches: str, most: int, at_any_time: bool = False) -> list[int]:
        """Ids of lines that match all FTS5 expressions. at_any_time: ignore the filter's span."""
        match = " AND ".join((*matches, *self._kinds))
        ids: list[int] = []
        for among, during, known_by in self._everywhere() if at_any_time else self._parts:
            ids += self._rows.search_ids(match, among, known_by, during, most=most - len(ids))
        return ids

    @cached_property
    def _parts(self) -> list[Part]:
        line_filter = self._line_filter
        if not line_filter.within:
            times = (line_filter.start, line_filter.end)
            return [(ids, times, known_by) for ids, _, known_by in self._everywhere()]
        spans = line_filter.within
        if line_filter.video_id is not None:
            spans = {line_filter.video_id: spans.get(line_filter.video_id, (0.0, 0.0))}
        parts: list[Part] = []
        for video_id in sorted(spans):
            during, known_by = line_filter.span(video_id), line_filter.moment(video_id)
            if during[0] < during[1]:
                parts += [(run.ids, during, known_by) for run in self._rows.runs(video_id)]
        return parts

    def _everywhere(self) -> list[Part]:
        always = (0.0, math.inf)
        if self._runs is None:
            return [(None, always, self._line_filter.asked_at)]
        return [(ids, always, known_by) for ids, known_by in self._runs]

    def count(self) -> int:
        if self._runs is None:
            return self._rows.count()
        return sum(self._rows.count(ids, known_by) for ids, known_by in self._runs)


def _candidates(
    scope: _Scope, query: Query, ids_by_term: dict[Term, list[int]], idf: dict[Term, float]
) -> list[int]:
    phrases = [_match(phrase) for phrase in query.phrases]
    terms = sorted(
        (term for term in query.terms if ids_by_term[term]),
        key=lambda term: (len(ids_by_term[term]), term),
    )
    weight: defaultdict[int, float] = defaultdict(float)
    for term in terms:
        ids = ids_by_term[term]
        if len(ids) < COMMON_LINES:
            if phrases or scope.is_bounded:
                ids = scope.search_ids(_match(term), *phrases, most=COMMON_LINES)
            for id_ in ids:
                weight[id_] += idf[term]
    if weight:
        best = sorted(weight.items(), key=lambda item: (-item[1], item[0]))
        return [id_ for id_, _ in best[:MAX_CANDIDATES]]
    # common words only: lines that have as many of them as possible
    for count in range(len(terms), 0 if phrases else 1, -1):
        ids = scope.search_ids(*map(_match, terms[:count]), *phrases, most=MAX_CANDIDATES)
        if ids:
            return ids
    if not phrases and not terms:
        return []
    return scope.search_ids(*(phrases or map(_match, terms[:1])), most=MAX_CANDIDATES)


def _ranked(
    lines: dict[int, TextLine], idf: dict[Term, float], line_filter: LineFilter
) -> list[RankedLine]:
    total = sum(idf.values()) or 1.0
    scores = {id_: _term_scores(line.text, idf) for id_, line in lines.items()}
    order = sorted(lines, key=lambda id_: (lines[id_].video_id, lines[id_].start, id_))
    ranked = []
    for position, id_ in enumerate(order):
        line, own = lines[id_], scores[id_]
        added: dict[Term, float] = {}
        start, end = line.start, line.end
        for other in _neighbors(order, lines, position):
            gain = {term: score for term, score in scores[other].items() if term not in own}
            if gain:
                added = {
                    term: max(score, added.get(term, 0.0)) for term, score in (added | gain).items()
                }
                start, end = min(start, lines[other].start), max(end, lines[other].end)
        covered = sum(idf[term] for term in (*own, *added))
        score = sum(own.values()) + _NEIGHBOR_WEIGHT * sum(added.values())
        # hide an end after the question's moment; copying every line would cost a tenth of a search
        moment = line_filter.moment(line.video_id)
        if line.end > moment:
            line = replace(line, end=moment)
        end = min(end, moment)
        ranked.append(RankedLine(line, score, min(covered / total, 1.0), start, end))
    return sorted(ranked, key=lambda each: (-each.score, each.line.video_id, each.line.start))


def _term_scores(text: str, idf: dict[Term, float]) -> dict[Term, float]:
    """BM25 of each term that the text has."""
    words = tokenizer.words(text)
    length = K1 * (1 - B + B * len(words) / MEAN_WORDS)
    counts = Counter({term: tokenizer.count_term(words, term) for term in idf})
    return {term: idf[term] * n * (K1 + 1) / (n + length) for term, n in counts.items() if n}


def _neighbors(order: Sequence[int], lines: dict[int, TextLine], position: int) -> list[int]:
    """Lines of the same video within NEAR_S of this one."""
    here = lines[order[position]]
    neighbors = []
    for step in (-1, 1):
        at = position + step
        while 0 <= at < len(order):
            other = lines[order[at]]
            gap = max(other.start - here.end, here.start - other.end)
            if other.video_id != here.video_id or (
                gap > NEAR_S and abs(other.start - here.start) > NEAR_S
            ):
                break
            if gap <= NEAR_S:
                neighbors.append(order[at])
            at += step
    return neighbors


def _match(term: Term) -> str:
    text = " ".join(term).replace('"', "")
    return f'words : "{text}"'
