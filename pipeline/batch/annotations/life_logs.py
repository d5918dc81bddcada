"""Benchmarks about a day that is put together from videos of several people."""

import re
from collections.abc import Iterator
from typing import Any

from pipeline.batch.annotations.benchmark import Benchmark, nested
from pipeline.batch.annotations.columns import seconds
from pipeline.batch.annotations.fields import Values, select
from pipeline.batch.schema import Entry, RejectedRow, RowError

_TASKS = ("objects_retrieval", "people_retrieval")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")


class XLeBench(Benchmark):
    """One object a day: `tasks`, of which objects_retrieval and people_retrieval have a
    `query_list`. Each of its objects has query_metadata, with video_uid and query_range.start_time
    ("HH:MM", when the video begins on that day), and `queries`: query, response_start_time_sec, and
    response_end_time_sec, in seconds of the day.

    A query is asked of the video that has its response.
    """

    whole_file = True

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        tasks = entry.values.get("tasks")
        if not isinstance(tasks, dict):
            yield RejectedRow(entry.place, f"tasks={tasks!r} is no object of tasks")
            return
        for task in _TASKS:
            found = tasks.get(task)
            if found is None:
                continue
            place = f"{entry.place}, {task}"
            if not isinstance(found, dict):
                yield RejectedRow(place, "no object with query_list")
                continue
            for one in nested(Entry(place, found | {"task": task}), "query_list"):
                if isinstance(one, RejectedRow):
                    yield one
                else:
                    yield from nested(one, "queries")

    def __call__(self, values: Values) -> list[Values]:
        row = select(values, "task", question="query")
        metadata = _object(values, "query_metadata")
        begin = _clock(_object(metadata, "query_range"))
        start = _second(values, "response_start_time_sec")
        end = _second(values, "response_end_time_sec")
        if not begin <= start <= end:
            raise RowError(
                f"the response, {start} to {end} s, does not follow the video's begin at {begin} s"
            )
        files = self._files(select(metadata, "video_uid"))
        return [row | files | {"evidence": [[start - begin, end - begin]]}]


def _object(values: Values, field: str) -> dict[str, Any]:
    found = values.get(field)
    if not isinstance(found, dict):
        raise RowError(f"{field}={found!r} is no object")
    return found


def _second(values: Values, field: str) -> float:
    """A second of the day."""
    found = seconds(select(values, field), field)
    if found is None:
        raise RowError(f"the field {field} is empty")
    return found


def _clock(values: Values) -> float:
    """Seconds of the day at which a video begins."""
    time = _CLOCK.fullmatch(str(values.get("start_time", "")))
    if time is None:
        raise RowError(
            f"start_time={values.get('start_time')!r} is no time of a day, such as 08:30"
        )
    return 3600.0 * int(time[1]) + 60.0 * int(time[2])
