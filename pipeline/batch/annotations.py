"""The annotation formats of benchmarks: one small class each converts a row to our columns.

Knows field names and nothing else. pipeline/batch/jobs.py lists the columns. `video` is a path
template below videos=DIR with the row's fields in braces; it is a setting because copies are stored
differently. `prompt` is the benchmark's own prompt as far as known; option_choice=parse uses it.
"""

import re
from typing import Any

from pipeline.batch.jobs import text
from pipeline.batch.schema import LETTERS, RowError

Values = dict[str, Any]
_YES_NO = ("Yes", "No")
_YES_NO_PROMPT = "{question}\nAnswer only with Yes or No."
_MF2_PROMPT = "Statement: {}\nBased on the movie, is the above statement TRUE or FALSE?"
# options inside a question, one per line
_INLINE_OPTION = re.compile(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", re.MULTILINE)


class Benchmark:
    """Base of all formats below."""

    def __init__(self, *, video: str, prompt: str) -> None:
        self.video, self.prompt = video, prompt


class OwnColumns:
    """Rows that already have our columns."""

    def __init__(self, *, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, values: Values) -> list[Values]:
        return [values]


class VideoMME(Benchmark):
    """question_id, videoID, duration (short, medium, long), task_type, question, options ("A.
    ..."), answer (letter).
    """

    def __call__(self, values: Values) -> list[Values]:
        row = _select(
            values,
            "question",
            "options",
            "answer",
            id="question_id",
            task="task_type",
            duration="duration",
        )
        return [row | {"video": _video_path(self.video, values)}]


class MLVU(Benchmark):
    """Two layouts.

    As published: video, question, candidates, answer (text), question_type. As in lmms-eval:
    video_name, task_type, question with the options as lines "(A) ...", answer (letter).
    """

    def __call__(self, values: Values) -> list[Values]:
        if "candidates" in values:
            row = _select(values, "question", "answer", options="candidates", task="question_type")
        else:
            row = _select(values, "question", "answer", task="task_type")
            inline = _INLINE_OPTION.findall(row["question"])
            if [letter for letter, _ in inline] != list(LETTERS[: len(inline)]) or len(inline) < 2:
                raise RowError(
                    "the question holds no options (A) ... on lines of their own, and there are "
                    "no candidates"
                )
            row |= {
                "options": [option for _, option in inline],
                "question": row["question"].split("\n(A)")[0].strip(),
            }
        name = values.get("video") or values.get("video_name")
        return [
            row | {"video": _video_path(self.video, values | {"video": name, "task": row["task"]})}
        ]


class LongVideoBench(Benchmark):
    """id, video_path, question, correct_choice (index), question_category, duration_group, and the
    options: candidates, or option0 to option4 with "N/A" for missing ones.
    """

    def __call__(self, values: Values) -> list[Values]:
        row = _select(
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
                "answer": _letter_at(values, "correct_choice"),
                "video": _video_path(self.video, values),
            }
        ]


class EgoSchema(Benchmark):
    """question_idx, video_idx, question, option (5 times "A. ..."), answer ("0" to "4"; absent in
    the hidden part).
    """

    def __call__(self, values: Values) -> list[Values]:
        row = _select(values, "question", id="question_idx", options="option")
        return [
            row | {"answer": _letter_at(values, "answer"), "video": _video_path(self.video, values)}
        ]


class CGBench(Benchmark):
    """qid, video_uid, question, choices, right_answer (letter), sub_category, clue_intervals.

    clue_intervals: the seconds that the answer rests on; citations are compared with them.
    """

    def __call__(self, values: Values) -> list[Values]:
        row = _select(
            values,
            "question",
            id="qid",
            options="choices",
            answer="right_answer",
            task="sub_category",
        )
        return [
            row
            | {"evidence": values.get("clue_intervals"), "video": _video_path(self.video, values)}
        ]


class MF2(Benchmark):
    """movie_id, true_claim, false_claim: two questions that only count as right together."""

    def __call__(self, values: Values) -> list[Values]:
        video = _video_path(self.video, values)
        pair = f"{values['movie_id']}: {text(values, 'true_claim')} | {text(values, 'false_claim')}"
        return [
            {
                "video": video,
                "question": _MF2_PROMPT.format(text(values, column)),
                "options": ["TRUE", "FALSE"],
                "answer": truth,
                "task": column,
                "group": pair,
            }
            for column, truth in (("true_claim", "TRUE"), ("false_claim", "FALSE"))
        ]


class ReKVConversations(Benchmark):
    """ReKV's layout, used by QAEgo4D-MC: video_id, video_path, and conversations.

    A conversation has question, choices, answer (text), question_type, and temporal_windows or
    start_time and end_time in seconds.
    """

    def __init__(self, *, video: str, prompt: str, asked_at_end: bool) -> None:
        """asked_at_end: ask each question at its end_time, as in the streaming sets; False: after
        the whole video.
        """
        super().__init__(video=video, prompt=prompt)
        self.asked_at_end = asked_at_end

    def __call__(self, values: Values) -> list[Values]:
        video = _video_path(self.video, values)
        rows = []
        for turn in _objects(values, "conversations"):
            row = _select(turn, "question", "answer", task="question_type") | {
                "options": turn.get("choices"),
                "video": video,
            }
            row["evidence"] = turn.get("temporal_windows")
            row["asked_at"] = turn.get("end_time") if self.asked_at_end else None
            rows.append(row)
        return rows


class StreamingBench(Benchmark):
    """video_path and questions, each with task_type, question, options, answer, and time_stamp
    ("hh:mm:ss", the moment of the question).
    """

    def __call__(self, values: Values) -> list[Values]:
        video = _video_path(self.video, values)
        rows = []
        for turn in _objects(values, "questions"):
            if "ground_truth_output" in turn:
                raise RowError("proactive tasks, which ask when to speak, are not supported")
            row = _select(
                turn, "question", "options", "answer", task="task_type", asked_at="time_stamp"
            )
            rows.append(row | {"video": video})
        return rows


class OVOBench(Benchmark):
    """Backward and real-time tasks: id, task, video, realtime (moment of the question), question,
    options, gt (index).

    Forward tasks have test_info instead, with one row for each moment `realtime`: REC (activity;
    count), SSR (step; type 1 = yes), and CRR (question; type). The wording of their questions is
    ours.
    """

    def __call__(self, values: Values) -> list[Values]:
        if "test_info" in values:
            return self._forward(values)
        row = _select(values, "question", "options", id="id", task="task", asked_at="realtime")
        return [
            row | {"answer": _letter_at(values, "gt"), "video": _video_path(self.video, values)}
        ]

    def _forward(self, values: Values) -> list[Values]:
        task, video, ident = (
            text(values, "task"),
            _video_path(self.video, values),
            text(values, "id"),
        )
        rows = []
        for number, moment in enumerate(_objects(values, "test_info")):
            row: Values = {
                "id": f"{ident}_{number}",
                "task": task,
                "video": video,
                "asked_at": text(moment, "realtime"),
            }
            if task == "REC":
                row["question"] = (
                    f"How often is this done in the video: {text(values, 'activity')}? Answer "
                    "with a single number."
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
                        "Is somebody in the video doing this step right now: "
                        f"{text(moment, 'step')}"
                    )
                elif task == "CRR":
                    row["question"] = (
                        "Does the video so far show enough to answer this question: "
                        f"{text(values, 'question')}"
                    )
                else:
                    raise RowError(f"task={task} is none of the forward tasks REC, SSR and CRR")
            rows.append(row)
        return rows


class VNBench(Benchmark):
    """video, question, options, gt, gt_option, needle_time, length, type, try.

    needle_time: seconds at which needles begin. try: 0 to 3; a question counts as right when all
    four tries are.
    """

    def __init__(self, *, video: str, prompt: str, needle_seconds: float) -> None:
        """needle_seconds: how long a needle is visible; the annotation does not say."""
        super().__init__(video=video, prompt=prompt)
        self.needle_seconds = needle_seconds

    def __call__(self, values: Values) -> list[Values]:
        row = _select(values, "question", "options", answer="gt_option", task="type")
        name = text(values, "video").rsplit("/", 1)[-1].removesuffix(".mp4")
        times = values.get("needle_time") or []
        if not isinstance(times, list) or not all(isinstance(time, int | float) for time in times):
            raise RowError(f"needle_time={times!r} is no list of seconds")
        evidence = [[time, time + self.needle_seconds] for time in times]
        row |= {"id": f"{name}_{text(values, 'try')}", "group": name, "evidence": evidence}
        return [row | {"video": _video_path(self.video, values)}]


def _select(values: Values, *same: str, **renamed: str) -> Values:
    """Rename fields to our columns. RowError names a missing one."""
    columns = {name: name for name in same} | renamed
    missing = [theirs for theirs in columns.values() if theirs not in values]
    if missing:
        raise RowError(f"the field {missing[0]} is missing; it has {', '.join(values) or 'none'}")
    return {ours: values[theirs] for ours, theirs in columns.items()}


def _video_path(video: str, values: Values) -> str:
    try:
        return video.format_map(values)
    except KeyError as error:
        raise RowError(f"the field {error.args[0]}, which names the video, is missing") from error


def _letter_at(values: Values, field: str) -> str | None:
    """The letter of an option index, counted from 0; None when the field is absent or empty."""
    value = values.get(field)
    if value is None or value == "":
        return None
    if not str(value).isdigit() or int(value) >= len(LETTERS):
        raise RowError(f"{field}={value!r} is no number of an option, counted from 0")
    return LETTERS[int(value)]


def _objects(values: Values, field: str) -> list[Values]:
    objects = values.get(field)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise RowError(f"the field {field} is no list of objects")
    return objects
