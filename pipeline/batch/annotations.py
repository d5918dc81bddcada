"""The annotation files of benchmarks, one small class each: their row -> rows in our columns (pipeline/batch/jobs.py).

Knows field names and nothing else. `video` is the path of a video below videos=DIR, with the row's fields in braces; it is
a setting because people keep their copies differently. `prompt` is how the benchmark's own code asks, as far as we know its
words; choice=parse takes it.
"""

import re
from typing import Any

from pipeline.batch.jobs import text
from pipeline.batch.schema import LETTERS, Refused

Values = dict[str, Any]
_YES_NO = ("Yes", "No")
_YES_NO_PROMPT = "{question}\nAnswer only with Yes or No."
# options that stand inside a question, one a line
_INSIDE = re.compile(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", re.MULTILINE)


class Layout:
    """What all of them are told."""

    def __init__(self, *, video: str, prompt: str) -> None:
        self.video, self.prompt = video, prompt


class Table:
    """Rows that have our columns already."""

    def __init__(self, *, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, values: Values) -> list[Values]:
        return [values]


class VideoMME(Layout):
    """question_id, videoID, duration (short, medium, long), task_type, question, options ("A. ..."), answer (letter)."""

    def __call__(self, values: Values) -> list[Values]:
        row = _picked(
            values,
            "question",
            "options",
            "answer",
            id="question_id",
            task="task_type",
            duration="duration",
        )
        return [row | {"video": _named(self.video, values)}]


class MLVU(Layout):
    """As published: video, question, candidates, answer (text), question_type. As in lmms-eval: video_name, task_type, the
    options as lines "(A) ..." inside the question, answer (letter)."""

    def __call__(self, values: Values) -> list[Values]:
        if "candidates" in values:
            row = _picked(values, "question", "answer", options="candidates", task="question_type")
        else:
            row = _picked(values, "question", "answer", task="task_type")
            found = _INSIDE.findall(row["question"])
            if [letter for letter, _ in found] != list(LETTERS[: len(found)]) or len(found) < 2:
                raise Refused(
                    "the question holds no options (A) ... on lines of their own, and there are no candidates"
                )
            row |= {
                "options": [option for _, option in found],
                "question": row["question"].split("\n(A)")[0].strip(),
            }
        name = values.get("video") or values.get("video_name")
        return [row | {"video": _named(self.video, values | {"video": name, "task": row["task"]})}]


class LongVideoBench(Layout):
    """id, video_path, question, correct_choice (index), question_category, duration_group; candidates, or option0 to option4
    with "N/A" behind the last one."""

    def __call__(self, values: Values) -> list[Values]:
        row = _picked(
            values, "question", id="id", task="question_category", duration="duration_group"
        )
        options = values.get("candidates")
        if options is None:
            options = [
                values[key]
                for key in sorted(values)
                if re.fullmatch(r"option\d", key) and values[key] != "N/A"
            ]
        return [
            row
            | {
                "options": options,
                "answer": _by_index(values, "correct_choice"),
                "video": _named(self.video, values),
            }
        ]


class EgoSchema(Layout):
    """question_idx, video_idx, question, option (5 times "A. ..."), answer ("0" to "4"; absent in the hidden part)."""

    def __call__(self, values: Values) -> list[Values]:
        row = _picked(values, "question", id="question_idx", options="option")
        return [row | {"answer": _by_index(values, "answer"), "video": _named(self.video, values)}]


class CGBench(Layout):
    """qid, video_uid, question, choices, right_answer (letter), sub_category, and clue_intervals: the seconds that the answer
    rests on, which the citations are held against."""

    def __call__(self, values: Values) -> list[Values]:
        row = _picked(
            values,
            "question",
            id="qid",
            options="choices",
            answer="right_answer",
            task="sub_category",
        )
        return [
            row | {"evidence": values.get("clue_intervals"), "video": _named(self.video, values)}
        ]


class MF2(Layout):
    """movie_id, true_claim, false_claim: two questions that count as right together."""

    def __call__(self, values: Values) -> list[Values]:
        video = _named(self.video, values)
        pair = f"{values['movie_id']}: {text(values, 'true_claim')} | {text(values, 'false_claim')}"
        return [
            {
                "video": video,
                "question": f"Statement: {text(values, column)}\nBased on the movie, is the above statement TRUE or FALSE?",
                "options": ["TRUE", "FALSE"],
                "answer": truth,
                "task": column,
                "group": pair,
            }
            for column, truth in (("true_claim", "TRUE"), ("false_claim", "FALSE"))
        ]


class Conversations(Layout):
    """ReKV's layout, in which QAEgo4D-MC comes: video_id, video_path, and conversations with question, choices, answer (text),
    question_type, and temporal_windows or start_time and end_time in seconds."""

    def __init__(self, *, video: str, prompt: str, asked_at_end: bool) -> None:
        """asked_at_end: a question is asked at its end_time, as in the streaming sets; False: after the whole video."""
        super().__init__(video=video, prompt=prompt)
        self.asked_at_end = asked_at_end

    def __call__(self, values: Values) -> list[Values]:
        video = _named(self.video, values)
        rows = []
        for turn in _list(values, "conversations"):
            row = _picked(turn, "question", "answer", task="question_type") | {
                "options": turn.get("choices"),
                "video": video,
            }
            row["evidence"] = turn.get("temporal_windows")
            row["asked_at"] = turn.get("end_time") if self.asked_at_end else None
            rows.append(row)
        return rows


class StreamingBench(Layout):
    """video_path and questions with task_type, question, time_stamp ("hh:mm:ss", when it is asked), options and answer."""

    def __call__(self, values: Values) -> list[Values]:
        video = _named(self.video, values)
        rows = []
        for turn in _list(values, "questions"):
            if "ground_truth_output" in turn:
                raise Refused("proactive tasks, which ask when to speak, are not supported")
            row = _picked(
                turn, "question", "options", "answer", task="task_type", asked_at="time_stamp"
            )
            rows.append(row | {"video": video})
        return rows


class OVOBench(Layout):
    """id, task, video, realtime (when it is asked), question, options, gt (index): the backward and real-time tasks.

    The forward tasks have test_info instead, one row for each of its moments `realtime`: REC (activity; count), SSR (step;
    type 1 = yes) and CRR (question; type). Their questions are in our words.
    """

    def __call__(self, values: Values) -> list[Values]:
        if "test_info" in values:
            return self._forward(values)
        row = _picked(values, "question", "options", id="id", task="task", asked_at="realtime")
        return [row | {"answer": _by_index(values, "gt"), "video": _named(self.video, values)}]

    def _forward(self, values: Values) -> list[Values]:
        task, video, ident = text(values, "task"), _named(self.video, values), text(values, "id")
        rows = []
        for number, moment in enumerate(_list(values, "test_info")):
            row: Values = {
                "id": f"{ident}_{number}",
                "task": task,
                "video": video,
                "asked_at": text(moment, "realtime"),
            }
            if task == "REC":
                row["question"] = (
                    f"How often is this done in the video: {text(values, 'activity')}? Answer with a single number."
                )
                row |= {"answer": text(moment, "count"), "rule": "number"}
            else:
                row |= {
                    "options": list(_YES_NO),
                    "answer": _YES_NO[text(moment, "type") == "0"],
                    "prompt": _YES_NO_PROMPT,
                }
                if task == "SSR":
                    row["question"] = (
                        f"Is somebody in the video doing this step right now: {text(moment, 'step')}"
                    )
                elif task == "CRR":
                    row["question"] = (
                        f"Does the video so far show enough to answer this question: {text(values, 'question')}"
                    )
                else:
                    raise Refused(f"task={task} is none of the forward tasks REC, SSR and CRR")
            rows.append(row)
        return rows


class VNBench(Layout):
    """video, question, options, gt, gt_option, needle_time (seconds at which needles begin), length, type, try (0 to 3): a
    question counts when all four tries at it are right."""

    def __init__(self, *, video: str, prompt: str, needle_seconds: float) -> None:
        """needle_seconds: how long a needle shows; the annotation does not say."""
        super().__init__(video=video, prompt=prompt)
        self.needle_seconds = needle_seconds

    def __call__(self, values: Values) -> list[Values]:
        row = _picked(values, "question", "options", answer="gt_option", task="type")
        name = text(values, "video").rsplit("/", 1)[-1].removesuffix(".mp4")
        times = values.get("needle_time") or []
        if not isinstance(times, list) or not all(isinstance(time, int | float) for time in times):
            raise Refused(f"needle_time={times!r} is no list of seconds")
        evidence = [[time, time + self.needle_seconds] for time in times]
        row |= {"id": f"{name}_{text(values, 'try')}", "group": name, "evidence": evidence}
        return [row | {"video": _named(self.video, values)}]


def _picked(values: Values, *same: str, **renamed: str) -> Values:
    """Our column -> the value of theirs; Refused names one that is missing."""
    columns = {name: name for name in same} | renamed
    missing = [theirs for theirs in columns.values() if theirs not in values]
    if missing:
        raise Refused(f"the field {missing[0]} is missing; it has {', '.join(values) or 'none'}")
    return {ours: values[theirs] for ours, theirs in columns.items()}


def _named(video: str, values: Values) -> str:
    try:
        return video.format_map(values)
    except KeyError as error:
        raise Refused(f"the field {error.args[0]}, which names the video, is missing") from error


def _by_index(values: Values, field: str) -> str | None:
    """A letter from an index counted from 0; None where nobody told."""
    value = values.get(field)
    if value is None or value == "":
        return None
    if not str(value).isdigit() or int(value) >= len(LETTERS):
        raise Refused(f"{field}={value!r} is no number of an option, counted from 0")
    return LETTERS[int(value)]


def _list(values: Values, field: str) -> list[Values]:
    found = values.get(field)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused(f"the field {field} is no list of objects")
    return found
