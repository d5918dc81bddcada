"""Lines of a film -> the sentences that they hold, word for word.

Lines break where a subtitle ends, sentences where a full stop stands. A sentence is a part of the
text of its lines, joined by blanks: nothing is written anew. Knows no bank and no vector.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from encoders.text.lines import FINDING, TextLine

SPOKEN = ("subtitle", "speech")  # the first of them that has lines stands for what is said
PRINTED = "ocr"
WRITTEN = ("caption", FINDING)  # by a model, of a segment
_JOINED_S = 1.5  # a longer pause ends a sentence
_MOST_LINES = 6  # of one sentence; where nobody set a full stop, of `_LOOSE_LINES`
_LOOSE_LINES = 3
_PUNCTUATED = 0.1  # share of lines with a full stop; below it, nobody set any
_NOISE = re.compile(
    r"\s*(?:[\[(\u266a\u266b#*].*[\])\u266a\u266b#*]|[\W_]*)\s*"
)  # "[music]", "..."
_STOPS = ".!?\u2026\u3002\uff01\uff1f"
_CLOSERS = "\"'\u201d\u2019\u00bb)]"
_BREAK = re.compile(rf"(?<=[{_STOPS}])[{re.escape(_CLOSERS)}]*\s+|(?<=[\u3002\uff01\uff1f])")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(])(?:(?:[A-Z]\.)*[A-Z]|Mrs?|Ms|Dr|Prof|St|No|vs|e\.g|i\.e|cf|approx)\.$"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Some words of a film, as they stand in its lines."""

    text: str
    lines: tuple[TextLine, ...]  # of one kind and one video, in time order

    @property
    def video_id(self) -> str:
        """Of the film."""
        return self.lines[0].video_id

    @property
    def kind(self) -> str:
        """The kind of its lines."""
        return self.lines[0].kind

    @property
    def start(self) -> float:
        """Seconds of video time."""
        return self.lines[0].start

    @property
    def end(self) -> float:
        """Seconds of video time."""
        return max(line.end for line in self.lines)


def sentences(lines: Sequence[TextLine]) -> list[Sentence]:
    """The sentences of one video, in time order.

    What is said comes from one channel: lines of a subtitle file and of a recognizer say the same.
    Print that shows again and again counts once.
    """
    ordered = sorted(lines, key=lambda line: (line.start, line.end, line.kind))
    ordered = [line for line in ordered if not _NOISE.fullmatch(line.text)]
    kinds = {line.kind for line in ordered}
    spoken = next((kind for kind in SPOKEN if kind in kinds), "")
    parts = [list(_spoken([line for line in ordered if line.kind == spoken]))]
    first: dict[str, Sentence] = {}
    for line in ordered:
        if line.kind == PRINTED:
            first.setdefault(" ".join(line.text.casefold().split()), Sentence(line.text, (line,)))
    parts.append(list(first.values()))
    parts.append([Sentence(line.text, (line,)) for line in ordered if line.kind in WRITTEN])
    whole = [sentence for part in parts for sentence in part]
    return sorted(whole, key=lambda each: (each.start, each.end, each.kind))


def _spoken(lines: Sequence[TextLine]) -> Iterator[Sentence]:
    stops = sum(line.text.rstrip(_CLOSERS)[-1:] in _STOPS for line in lines)
    most = _MOST_LINES if stops >= _PUNCTUATED * len(lines) else _LOOSE_LINES
    for run in _runs(lines):
        yield from _split(run, most)


def _runs(lines: Sequence[TextLine]) -> Iterator[list[TextLine]]:
    """Lines between two pauses. Roll-up subtitles repeat a line: the second one is left out."""
    run: list[TextLine] = []
    for line in lines:
        if run and line.text == run[-1].text and line.start <= run[-1].end + _JOINED_S:
            continue
        if run and line.start - run[-1].end > _JOINED_S:
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def _split(run: Sequence[TextLine], most: int) -> Iterator[Sentence]:
    """The sentences of neighboring lines; one of more than `most` lines is cut between lines."""
    text = " ".join(line.text for line in run)
    starts, at = [], 0  # of each line in the text
    for line in run:
        starts.append(at)
        at += len(line.text) + 1
    owner = [number for number, line in enumerate(run) for _ in range(len(line.text) + 1)]
    begin = 0
    for end in (*_ends(text), len(text)):
        while begin < end:
            first, last = owner[begin], owner[min(end, len(text)) - 1]
            stop = end if last - first < most else starts[first + most]
            words = text[begin:stop].strip()
            if not _NOISE.fullmatch(words):
                last = owner[min(stop, len(text)) - 1]
                yield Sentence(words, tuple(run[first : last + 1]))
            begin = stop


def _ends(text: str) -> Iterator[int]:
    """Where a sentence ends and the next one begins."""
    for match in _BREAK.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        if not after or after[:1].islower() or _ABBREVIATED.search(before[-12:]):
            continue
        yield match.end()


def by_kind(every: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """Kind -> its sentences, in time order."""
    ordered = sorted(every, key=lambda each: each.kind)  # stable: the time order stays
    return {kind: list(group) for kind, group in groupby(ordered, key=lambda each: each.kind)}
