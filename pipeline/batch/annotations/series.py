"""Benchmarks about episodes of a series, and about days of one person's life."""

import re
from collections.abc import Iterator

from pipeline.batch.annotations.benchmark import Benchmark
from pipeline.batch.annotations.columns import text
from pipeline.batch.annotations.fields import Values, letter_at, select
from pipeline.batch.schema import Entry, RejectedRow, RowError

_EPISODE = re.compile(r"s(\d+)e(\d+)", re.IGNORECASE)
_OPTIONS = tuple(f"a{number}" for number in range(5))


class TVQALong(Benchmark):
    """TVQA's questions asked of whole episodes: an object of shows, of seasons, of episodes, each
    with `questions`. TVQA's own .jsonl, a question a line, has the same rows.

    A question has qid, q, a0 to a4, answer_idx, show_name, and vid_name (the clip, such as
    "friends_s01e02_seg02_clip_01"). Its `ts` counts from the begin of that clip, whose place in the
    episode the annotation does not say, so it is not compared with the citations.
    """

    whole_file = True

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        if "q" in entry.values or "qid" in entry.values:
            yield entry
            return
        for name, inner in entry.values.items():
            if isinstance(inner, dict):
                yield from self.unfold(Entry(f"{entry.place}, {name}", inner))
            elif name == "questions" and isinstance(inner, list):
                for number, values in enumerate(inner, start=1):
                    place = f"{entry.place}, question {number}"
                    if isinstance(values, dict):
                        yield Entry(place, values)
                    else:
                        yield RejectedRow(place, "not an object with named values")
            elif name != "clips":  # the clips of an episode, in order
                yield RejectedRow(f"{entry.place}, {name}", "neither questions nor an object")

    def __call__(self, values: Values) -> list[Values]:
        row = select(values, id="qid", question="q", task="show_name")
        match = _EPISODE.search(text(values, "vid_name"))
        if match is None:
            raise RowError(
                f"vid_name={values['vid_name']} names no episode, as friends_s01e02_... does"
            )
        episode = {"season": int(match[1]), "episode": int(match[2])}
        row |= {
            "options": list(select(values, *_OPTIONS).values()),
            "answer": letter_at(values, "answer_idx"),
        }
        return [row | self._files(values | episode)]


class EgoLifeQA(Benchmark):
    """ID, type, question, choice_a to choice_d, answer (letter), and query_time: date ("DAY1") and
    time ("11210217", hours, minutes, seconds and a twentieth of a second).

    A question is about all clips of its person that ended before it: those whose names, which sort
    by time, come before the clip that runs at query_time.
    """

    def __init__(self, *, video: str, prompt: str, person: str, subtitles: str = "") -> None:
        """video: pattern of all clips, with {person}. person: whose clips, such as A1_JAKE, unless
        a row has `identity`."""
        super().__init__(video=video, prompt=prompt, subtitles=subtitles)
        self.person = person

    def __call__(self, values: Values) -> list[Values]:
        row = select(
            values,
            "question",
            "answer",
            id="ID",
            task="type",
            a="choice_a",
            b="choice_b",
            c="choice_c",
            d="choice_d",
        )
        options = [row.pop(name) for name in "abcd"]
        person = values.get("identity") or self.person
        files = self._files(values | {"person": person})
        before = f"{_day(values)}_{person}_{_time(values)}"
        # a list is one question about all of them together
        return [row | {"options": options, "video": [files["video"]], "before": before}]


def _moment(values: Values) -> Values:
    moment = values.get("query_time")
    if not isinstance(moment, dict):
        raise RowError(f"query_time={moment!r} is no object with date and time")
    return moment


def _day(values: Values) -> str:
    date = str(_moment(values).get("date", ""))
    if not re.fullmatch(r"DAY[1-9]", date):
        raise RowError(f"query_time.date={date!r} is no day, such as DAY1")
    return date


def _time(values: Values) -> str:
    time = str(_moment(values).get("time", ""))
    if not re.fullmatch(r"\d{8}", time):
        raise RowError(f"query_time.time={time!r} is no time, such as 11210217")
    return time
