"""The words of a video for a question: which lines belong to it, which of them a model reads, and
how they look in a prompt.

Knows the bank's search and a tokenizer; of frames their times. Lines stand before the question in
time order, or between the frames (`between_frames`), each with its time and kind: "[02:05] on
screen: ...", before the question of several videos also with the film: "[a.mp4 02:05] on screen:
...". Without lines the prompt is the question alone.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from encoders.text.lines import SentenceEncoder, TextLine
from memory.bank import MemoryBank
from memory.retrieval.fusion import fuse_ranked
from memory.schema import Question, VideoSpan, VideoTitle
from memory.text.bm25 import RankedLine
from pipeline.answer.line_scan.line_stream import stream
from pipeline.answer.line_scan.schema import LineScan
from pipeline.answer.quotes.quotation import Quotation
from pipeline.answer.requests.line_limits import is_asked, lines_seen
from pipeline.config.units import format_time
from pipeline.query import plan as planner
from pipeline.query.time_phrases import parse_video_time
from pipeline.schema import CHANNEL_WORDS, CitedLine

DEFAULT_TOKENS = 512  # of lines in a prompt, for a model that understands any text
MAX_LINES = 8
# coverage: a line with one of three words of the question tells nothing
MIN_COVERAGE = 0.34
# cosine: 95 of 100 lines with the question's meaning in other words lie above it, and 1 of 50
# others
MIN_COSINE = 0.45

LineName = tuple[float, str, str, str]  # start, kind, text, video id


def find(
    bank: MemoryBank,
    question: Question,
    durations: Mapping[str, float],
    sentence_encoder: SentenceEncoder | None = None,
    line_scan: LineScan | None = None,
) -> tuple[RankedLine, ...]:
    """The lines that belong to a question, best first; none after its moment.

    durations: seconds of each video. sentence_encoder: ranks lines by their vectors as well, and
    line_scan reads all of them; the rankings are fused by rank. Quoted words must occur, so for
    them only words count.
    """
    plan = planner.plan(question.search_text)
    line_filter = lines_seen(question, plan.time, durations)
    by_words = bank.text.search(plan.query, line_filter, 4 * MAX_LINES)
    ranked = sorted(by_words, key=lambda one: -one.score * plan.weights.get(one.line.kind, 1.0))
    lines = [one for one in ranked if one.coverage >= MIN_COVERAGE]
    rankings = [lines]
    if sentence_encoder is not None and not plan.query.phrases:
        vector = sentence_encoder.embed([plan.text])[0].numpy()  # [E]
        by_meaning = bank.text.nearest(vector, line_filter, 4 * MAX_LINES)
        rankings.append([one for one in by_meaning if one.coverage >= MIN_COSINE])
    if line_scan is not None and not plan.query.phrases:
        every = stream(bank.text, line_filter)
        rankings.append(line_scan.rank(plan.text, every, MAX_LINES))
    if len(rankings) > 1:
        lines = fuse_ranked(rankings, _name)
    lines = [one for one in lines if is_asked(one, question)]
    # of lines with the same text, the best
    best = {one.line.text.casefold(): one for one in reversed(lines)}
    return tuple(one for one in lines if best[one.line.text.casefold()] is one)[:MAX_LINES]


def time_note(question: str, duration: float) -> str:
    """What the user must know where words of a question may name a time: they limit the lines
    alone; "" where there are none.

    duration: seconds of the video.
    """
    phrase = parse_video_time(question)
    if phrase is None:
        return ""
    start, end = phrase.time.span(duration)
    stretch = f"{format_time(start)}-{format_time(min(end, duration))}"
    return (
        f'The words "{phrase.words}" limit the lines to {stretch} but not the pictures; end= and '
        "asked_at= limit both."
    )


def _name(one: RankedLine) -> LineName:
    return name_of(one.line)


def name_of(line: TextLine) -> LineName:
    """What tells a line from all others of a bank."""
    return line.start, line.kind, line.text, line.video_id


def select_lines(
    matches: Sequence[RankedLine],
    count_tokens: Callable[[str], int],
    read_tokens: int,
    titles: Mapping[str, VideoTitle] | None = None,
) -> tuple[TextLine, ...]:
    """The best lines that fit into `read_tokens` tokens, in time order, of several videos one
    after another.

    count_tokens: of a text in the model's prompt. titles: as in `prompt_line`.
    """
    order = list(titles or ())
    selected: list[TextLine] = []
    left = read_tokens
    for match in matches if read_tokens else ():
        tokens = count_tokens(prompt_line(match.line, titles))
        if tokens <= left:
            selected.append(match.line)
            left -= tokens

    def place(line: TextLine) -> tuple[int, float, float, str]:
        video = order.index(line.video_id) if line.video_id in order else 0
        return video, line.start, line.end, line.kind

    return tuple(sorted(selected, key=place))


def prompt_line(line: TextLine, titles: Mapping[str, VideoTitle] | None = None) -> str:
    """A line in a prompt. Characters that could form a special token are removed.

    titles: of the videos, by id, where there are several: "[a.mp4 02:05] said: ...".
    """
    when = format_time(line.start + 1e-6, hours="never")
    name = f"{titles[line.video_id].name} " if titles and line.video_id in titles else ""
    words = f"{name}{when}", CHANNEL_WORDS.get(line.kind, line.kind), line.text
    where, channel, text = (re.sub(r"[<>|]+", " ", each) for each in words)
    return f"[{where}] {channel}: {text}\n"


def prompt(
    lines: Sequence[TextLine], question: str, titles: Mapping[str, VideoTitle] | None = None
) -> str:
    """The text behind the frames: the lines, then the question. titles: as in `prompt_line`."""
    return "".join(prompt_line(line, titles) for line in lines) + question


class Stretch(NamedTuple):
    """Frames first..stop-1 of a video, and the lines right before them."""

    lines: str
    first: int
    stop: int


def between_frames(lines: Sequence[TextLine], times: Sequence[float]) -> list[Stretch]:
    """The frames of a video, cut where its lines stand: each line behind the last frame up to its
    middle, as LongVideoBench places subtitles (arXiv 2407.15754).

    lines: in time order. times: seconds of the frames, rising.
    """
    before: dict[int, str] = {0: ""}
    for line in lines:
        place = bisect_right(times, (line.start + line.end) / 2)
        before[place] = before.get(place, "") + prompt_line(line)
    places = sorted(before)
    ends = [*places[1:], len(times)]
    return [Stretch(before[at], at, end) for at, end in zip(places, ends, strict=True)]


def line_spans(matches: Sequence[RankedLine]) -> list[VideoSpan]:
    """Where each line is, best first."""
    return [VideoSpan(match.line.video_id, match.start, match.end) for match in matches]


def cite_quoted(quotation: Quotation, matches: Sequence[RankedLine]) -> tuple[CitedLine, ...]:
    """The quoted lines, and those that were found beside them."""
    quoted = {name_of(line) for line in quotation.lines}
    beside = [match for match in matches if _name(match) not in quoted]
    return tuple(
        CitedLine(
            line.start,
            line.end,
            line.kind,
            line.text,
            quotation.confidence,
            True,
            line.video_id,
        )
        for line in quotation.lines
    ) + cite_lines(beside, ())


def cite_lines(matches: Sequence[RankedLine], read: Sequence[TextLine]) -> tuple[CitedLine, ...]:
    """The lines as an answer cites them. read: the lines that the model read."""
    return tuple(
        CitedLine(
            match.line.start,
            match.line.end,
            match.line.kind,
            match.line.text,
            round(match.coverage, 3),
            match.line in read,
            match.line.video_id,
        )
        for match in matches
    )
