"""Benchmarks of streaming video: each question has a moment, and sees only what came before it."""

from collections.abc import Iterator

from pipeline.batch.annotations.benchmark import Benchmark, nested
from pipeline.batch.annotations.columns import seconds, text
from pipeline.batch.annotations.fields import Values, letter_at, missing_field, objects, select
from pipeline.batch.schema import Entry, RejectedRow, RowError
from pipeline.scorers.schema import CONTAINS

_YES_NO = ("Yes", "No")
_GROUPS = {  # of OVO-Bench, with its tasks
    "backward": ("EPM", "HLD", "ASI"),
    "real-time": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
_SUBJECTS = {"REC": "activity", "SSR": "step", "CRR": "question"}  # what a forward task is about


class StreamingBench(Benchmark):
    """video_path and questions, each with task_type, question, options, answer, and time_stamp
    ("hh:mm:ss", the moment of the question).
    """

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        yield from nested(entry, "questions")

    def __call__(self, values: Values) -> list[Values]:
        if "ground_truth_output" in values:
            raise RowError("a proactive task; use annotations=streaming_bench_proactive")
        row = select(
            values, "question", "options", "answer", task="task_type", asked_at="time_stamp"
        )
        return [row | self._files(values)]


class StreamingBenchProactive(Benchmark):
    """video_path and questions, each with task_type, question, time_stamp (from when on to watch),
    ground_truth_time_stamp (when to speak), and ground_truth_output (what to say).
    """

    def __init__(
        self, *, video: str, prompt: str, proactive: str, late: float, tolerance: float
    ) -> None:
        """prompt: what is asked when the time has come. proactive: whether it has, with question
        and output in braces. late: seconds after the right moment in which the model is still
        asked. tolerance: by which an answer may come too early or too late."""
        super().__init__(video=video, prompt=prompt)
        self.proactive, self.late, self.tolerance = proactive, late, tolerance

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        yield from nested(entry, "questions")

    def __call__(self, values: Values) -> list[Values]:
        row = select(values, answer="ground_truth_output", task="task_type", asked_at="time_stamp")
        question = text(values, "question")
        due = seconds(select(values, due="ground_truth_time_stamp"), "due")
        if due is None:
            raise RowError("the field ground_truth_time_stamp is empty")
        output = text(values, "ground_truth_output")
        ask = self.proactive.replace("{question}", question).replace("{output}", output)
        watch = {"prompt": ask, "due": due, "until": due + self.late, "tolerance": self.tolerance}
        row |= {
            "question": self.prompt.replace("{question}", question),
            "query": question,
            "rule": CONTAINS,
            "watch": watch,
        }
        return [row | self._files(values)]


class OVOBench(Benchmark):
    """Backward and real-time tasks: id, task, video, realtime (moment of the question), question,
    options, gt (index).

    Forward tasks have test_info instead, with one row for each moment `realtime`: REC (activity;
    count), SSR (step; type 1 = yes), and CRR (question; type). `category` is the group of a task.
    """

    def __init__(self, *, video: str, prompt: str, forward: dict[str, str]) -> None:
        """forward: REC, SSR and CRR -> what is asked, with activity, step or question in braces."""
        super().__init__(video=video, prompt=prompt)
        self.forward = forward

    def __call__(self, values: Values) -> list[Values]:
        task = text(values, "task")
        group = next((name for name, tasks in _GROUPS.items() if task in tasks), None)
        if group is None:
            known = ", ".join(name for tasks in _GROUPS.values() for name in tasks)
            raise RowError(f"task={task} is none of {known}")
        row = {"task": task, "category": group} | self._files(values)
        if group == "forward":
            moments = objects(values, "test_info")
            return [row | self._moment(values, *one) for one in enumerate(moments)]
        row |= select(values, "question", "options", id="id", asked_at="realtime")
        return [row | {"answer": letter_at(values, "gt")}]

    def _moment(self, values: Values, number: int, moment: Values) -> Values:
        """One question of a forward task."""
        task, name = text(values, "task"), _SUBJECTS[text(values, "task")]
        fields = {**values, **moment}
        if name not in fields:
            raise missing_field(name, fields)
        subject = text(fields, name)
        row: Values = {
            "id": f"{text(values, 'id')}_{number}",
            "question": self.forward[task].replace(f"{{{name}}}", subject),
            "prompt": "{question}",
            "query": subject,
            "asked_at": text(moment, "realtime"),
        }
        if task == "REC":
            return row | {"answer": text(moment, "count"), "rule": "number"}
        kind = text(moment, "type")
        if kind not in ("0", "1"):
            raise RowError(f"type={kind} of {task} is neither 0 nor 1")
        return row | {"options": list(_YES_NO), "answer": _YES_NO[kind == "0"]}
