"""Rows of answers.jsonl before there is an answer: with what is known of the question, or with the
reason why it has none."""

from typing import Any

from encoders.errors import UserError
from pipeline.batch.schema import Job, QuestionAnswered, Task


def failure(task: Task, job: Job, error: Exception | str) -> QuestionAnswered:
    """The row of a question that could not be answered."""
    why = str(error) if isinstance(error, UserError | str) else f"{type(error).__name__}: {error}"
    return QuestionAnswered(empty_row(task, job) | {"error": " ".join(why.split())})


def empty_row(task: Task, job: Job) -> dict[str, Any]:
    """All columns of answers.jsonl, filled with what is known before the answer."""
    return {
        "id": job.id,
        "video": task.name,
        "video_id": None,
        "question": job.question,
        "options": list(job.options),
        "asked_at": job.asked_at,
        "answer": None,
        "choice": None,
        "truth": job.letter if job.options else job.answer,
        "accepted": list(job.accepted),
        "rule": job.rule,
        "right": None,
        "scores": [],
        "spans": [],
        "cited": [],
        "videos": [],
        "recalled": [],
        "found": None,
        "found_videos": [],
        "answered_at": None,
        "in_time": None,
        "basis": [],
        # of one of several videos: moments are compared with it, and answers are not
        "evidence": [] if job.evidence_video else [list(span) for span in job.evidence],
        "evidence_video": None,
        "evidence_cited": None,
        "evidence_seconds_cited": None,
        "seconds": {},
        "video_seconds": None,
        "frames_read": None,
        "visual_tokens": None,
        "prompt_tokens": None,
        "answer_tokens": None,
        "cost": None,
        "cited_by": None,
        "channel": None,
        "confidence": None,
        "task": job.task,
        "category": job.category,
        "duration": job.duration,
        "group": job.group,
        "pair": job.pair,
        "control": job.control,
        "bank": task.bank,
        "bank_id": None,
        "warning": "",
        "error": None,
        "job": job.digest(),
    }
