"""Questions that are answered when their moment comes, as in StreamingBench's proactive tasks.

From the question's moment on, the model is asked every second of video whether the time has come,
and sees nothing after that second. When it says yes, it is asked the question. Alerts of live
streams (pipeline/alerts/) score that check.
"""

import math
from collections.abc import Sequence

from memory.schema import Question
from pipeline.alerts.check import check_for, probability
from pipeline.alerts.schema import Check
from pipeline.batch.schema import Job, Watch
from pipeline.qa import VideoQA
from pipeline.schema import Answer

_YES = 0.5  # probability of yes from which the time has come


def answer_in_time(qa: VideoQA, job: Job, ids: Sequence[str]) -> tuple[Answer | None, float | None]:
    """The answer to a question that waits, and the second of its answer; (None, None) where the
    time never came.

    ids: of its videos.
    """
    watch = job.watch
    assert watch is not None and job.asked_at is not None
    check = _check(qa, job, watch)
    for number in range(1, math.floor((watch.until - job.asked_at) / watch.every) + 1):
        second = job.asked_at + number * watch.every
        query = job.query or job.question
        chance, _ = probability(qa, Question(check.question, ids, second, query=query), check)
        if chance > _YES:
            return qa.ask(Question(job.question, ids, second, job.id, query=job.query)), second
    return None, None


def is_in_time(second: float | None, watch: Watch) -> bool:
    """Whether an answer at this second comes when it is due."""
    return second is not None and abs(second - watch.due) <= watch.tolerance


def _check(qa: VideoQA, job: Job, watch: Watch) -> Check:
    """Whether the time has come, as the model can be asked: the embedded one knows its own
    questions only."""
    if not qa.backbone.reads_text and qa.backbone.questions:
        return check_for(job.question, qa.backbone.questions)
    return Check(watch.prompt, ("yes", "Yes"), ("no", "No"))
