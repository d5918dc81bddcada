"""Benchmarks with options whose rows need more than other names for their fields."""

import difflib
import re

from pipeline.batch.annotations.benchmark import Benchmark
from pipeline.batch.annotations.columns import text
from pipeline.batch.annotations.fields import (
    Values,
    inline_options,
    is_empty,
    letter_at,
    number,
    select,
)
from pipeline.batch.schema import RowError

_MF2_PROMPT = "Statement: {}\nBased on the movie, is the above statement TRUE or FALSE?"


class MLVU(Benchmark):
    """Two layouts.

    As published: video, question, candidates, answer (text), question_type. As in lmms-eval:
    video_name, task_type, question with the options as lines "(A) ...", answer (letter).
    """

    def __call__(self, values: Values) -> list[Values]:
        if "candidates" in values:
            row = select(values, "question", "answer", options="candidates", task="question_type")
        else:
            row = select(values, "question", "answer", task="task_type")
            row["question"], row["options"] = inline_options(str(row["question"]))
        name = values.get("video") or values.get("video_name")
        return [row | self._files(values | {"video": name, "task": row["task"]})]


class LongVideoBench(Benchmark):
    """id, video_path, question, correct_choice (index), question_category, duration_group, duration
    (seconds), and the options: candidates, or option0 to option4 with "N/A" for missing ones.

    question_wo_referring_query is the question without the words that say which moment it is about.
    With refer=true, those words alone are searched for. subtitle_path is a track that may begin
    earlier than the video: its second starting_timestamp_for_subtitles is the video's second 0.
    """

    def __init__(self, *, video: str, prompt: str, subtitles: str, refer: bool) -> None:
        """refer: search for the referring words of a question instead of all of it."""
        super().__init__(video=video, prompt=prompt, subtitles=subtitles)
        self.refer = refer

    def __call__(self, values: Values) -> list[Values]:
        row = select(
            values, "question", id="id", task="question_category", duration="duration_group"
        )
        options = values.get("candidates")
        if options is None:
            options = [
                values[key]
                for key in sorted(values)
                if re.fullmatch(r"option\d", key) and values[key] != "N/A"
            ]
        row |= {"options": options, "answer": letter_at(values, "correct_choice")}
        bare = values.get("question_wo_referring_query")
        if self.refer and not is_empty(bare):
            row["query"] = referring_words(text(values, "question"), str(bare))
        if not is_empty(values.get("starting_timestamp_for_subtitles")):
            row["subtitles_from"] = number(values, "starting_timestamp_for_subtitles")
        return [row | self._files(values)]


class MF2(Benchmark):
    """movie_id, true_claim, false_claim: two questions that only count as right together."""

    def __call__(self, values: Values) -> list[Values]:
        files = self._files(values)
        pair = f"{values['movie_id']}: {text(values, 'true_claim')} | {text(values, 'false_claim')}"
        return [
            files
            | {
                "question": _MF2_PROMPT.format(text(values, column)),
                "options": ["TRUE", "FALSE"],
                "answer": truth,
                "task": column,
                "pair": pair,
            }
            for column, truth in (("true_claim", "TRUE"), ("false_claim", "FALSE"))
        ]


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
        row = select(values, "question", "options", answer="gt_option", task="type")
        name = text(values, "video").rsplit("/", 1)[-1].removesuffix(".mp4")
        times = values.get("needle_time") or []
        if not isinstance(times, list) or not all(isinstance(time, int | float) for time in times):
            raise RowError(f"needle_time={times!r} is no list of seconds")
        evidence = [[time, time + self.needle_seconds] for time in times]
        row |= {"id": f"{name}_{text(values, 'try')}", "group": name, "evidence": evidence}
        return [row | self._files(values)]


def referring_words(question: str, bare: str) -> str:
    """The words of a question that another wording of it lacks, in their order; "" for none.

    "What does the man in the red hat hold?" and "What does the man hold?" give "in the red hat".
    """
    words, others = question.split(), bare.split()
    matcher = difflib.SequenceMatcher(
        None, [_plain(word) for word in words], [_plain(word) for word in others], autojunk=False
    )
    added = [
        word
        for kind, start, stop, _, _ in matcher.get_opcodes()
        if kind in ("delete", "replace")
        for word in words[start:stop]
    ]
    return " ".join(added).strip(" ,.?")


def _plain(word: str) -> str:
    return word.casefold().strip(",.?!:;\"'")
