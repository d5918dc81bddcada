"""Records -> lines of a film. The same thing, or the same print, seen again and again is one line,
by the tracker of text=objects. Knows no file and no bank.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median_low

from encoders.errors import UserError
from encoders.text.lines import TextLine, TextSpan, split_line
from encoders.text.records.record import SPEECH, Record
from encoders.text.sightings.detector import Sighting
from encoders.text.sightings.sighting_tracker import SightingTracker
from encoders.text.subtitles import SPAN_S

_GAP_S = 3.0  # for which a thing may be out of sight within one line, as of text=objects
_MOMENT_S = 1.0  # that a moment lasts where a file has no other
_LONGEST_MOMENT_S = 3.0  # where a file has few
_WORDS_S = 5.0  # that words last at most where their end is not stated
_MOST_SIGHTINGS = 3_000_000  # of all readings; more is minutes of work

_Stretch = tuple[Record, float]  # and its end in seconds


def with_ends(records: Sequence[Record]) -> list[Record]:
    """Records of a whole file, each with an end: a moment lasts until the next one of its kind. It
    lasts no longer than is usual between two; words, 5 seconds. Weak records count as well: a
    picture was looked at there.
    """
    return [
        one if one.end is not None else replace(one, end=end)
        for kind, own in _by_kind(records).items()
        for one, end in _with_ends(own, most=_WORDS_S if kind == SPEECH else None)
    ]


def lines_of(records: Sequence[Record], video_id: str) -> list[TextLine]:
    """The lines of a video, in time order, of records with ends. UserError where too many
    overlap."""
    lines = list[TextLine]()
    for kind, own in _by_kind(records).items():
        stretches = [(one, one.end) for one in own if one.end is not None]
        if kind == SPEECH:
            lines += (
                TextLine(video_id, one.start, end, kind, one.text, end, one.score, one.box)
                for one, end in stretches
            )
        else:
            lines += _tracked(stretches, video_id, kind)
    pieces = [piece for line in lines for piece in split_line(line)]
    return sorted(pieces, key=lambda line: (line.start, line.end, line.kind, line.text))


def spans_of(lines: Sequence[TextLine], start: float, end: float, note: str) -> list[TextSpan]:
    """Lines in spans of ten minutes from `start` to `end` without gaps; the last one says so."""
    by_span: defaultdict[int, list[TextLine]] = defaultdict(list)
    for line in lines:
        by_span[int(line.start // SPAN_S)].append(line)
    last = max([int(max(end - 1e-6, start) // SPAN_S), *by_span])
    numbers = range(int(start // SPAN_S), last + 1)
    return [
        TextSpan(
            max(number * SPAN_S, start),
            max(end, start) if number == last else (number + 1) * SPAN_S,
            tuple(by_span.get(number, ())),
            number == last,
            note if number == numbers[0] else "",
        )
        for number in numbers
    ]


def _by_kind(records: Iterable[Record]) -> dict[str, list[Record]]:
    by_kind: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda one: (one.start, one.text)):
        by_kind[record.kind].append(record)
    return by_kind


def _with_ends(records: Sequence[Record], most: float | None) -> Iterator[_Stretch]:
    """most: seconds that a moment lasts; None: the usual time between two."""
    times = sorted({record.start for record in records})
    moments = sorted({record.start for record in records if record.end is None})
    steps = [b - a for a, b in pairwise(moments)]
    usual = min(median_low(steps), _LONGEST_MOMENT_S) if steps else _MOMENT_S
    longest = usual if most is None else most
    following = dict(pairwise(times))
    for record in records:
        last = record.start + longest
        next_at = min(following.get(record.start, last), last)
        yield record, next_at if record.end is None else record.end


def _tracked(stretches: Sequence[_Stretch], video_id: str, kind: str) -> tuple[TextLine, ...]:
    """Readings wherever something appears or goes -> lines."""
    tracker = SightingTracker(video_id, kind, score=0.0, gap=_GAP_S, minimum=0.0)
    times = sorted({time for one, end in stretches for time in (one.start, end)})
    waiting, active = iter([*stretches, None]), list[_Stretch]()
    coming, count = next(waiting), 0
    for time in times:
        active = [one for one in active if one[1] > time]
        while coming is not None and coming[0].start <= time:
            active.append(coming)
            coming = next(waiting)
        count += len(active)
        if count > _MOST_SIGHTINGS:
            raise UserError(
                "too many records of the file overlap in time; leave out rows with low scores, as "
                "with --score 0.5"
            )
        tracker.take(time, _once(one for one, _ in active), time)
    return tracker.finish(times[-1])


def _once(records: Iterable[Record]) -> list[Sighting]:
    """What is seen at one time, the surest first; of a name without boxes, the surest alone."""
    seen = sorted(records, key=lambda one: (-one.score, one.text, one.box or ()))
    names, reading = set[str](), list[Sighting]()
    for one in seen:
        if one.box is None and one.text in names:
            continue
        names.add(one.text)
        reading.append(Sighting(one.text, one.score, one.box))
    return reading


def within(lines: Iterable[TextLine], begin: float, end: float) -> list[TextLine]:
    """The lines that overlap a part of the film, cut to it."""
    return [
        replace(line, start=max(line.start, begin), end=min(line.end, end))
        for line in lines
        if line.start < end and line.end > begin
    ]
