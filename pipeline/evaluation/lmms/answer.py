"""Questions -> answers in the order of the questions, each video encoded once into a bank. Knows no lmms-eval.

A video that cannot be read gets empty answers, which count as wrong, and a line in the log; the rest goes on. What concerns the
whole run, such as a bank that others write, is a UserError.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.sources.container import check_file
from memory.schema import Question
from pipeline.build import build_backbone, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.evaluation.lmms.requests import Asked, Clip, cut, groups

Log = Callable[[str], None]
_OF_A_QUESTION = ("video", "start", "end", "began", "question", "asked_at", "format")


@dataclass(frozen=True, slots=True)
class Told:
    """One answer."""

    text: str  # "" where the video could not be read
    tokens: int  # of the answer


class Answers:
    """A model with a bank, open until `close()`."""

    def __init__(self, settings: Mapping[str, Any], *, info: Log, error: Log) -> None:
        """settings: of `reelbank ask`, by key, as lmms-eval reads them out of --model_args. UserError on what does not fit."""
        for name in _OF_A_QUESTION:
            if name in settings:
                raise UserError(
                    f"{name}={settings[name]} cannot be set for a whole run: the task says what is asked about what."
                )
        self._config = compose(
            "ask", [f"{name}={_written(value)}" for name, value in settings.items()]
        )
        self._info, self._error = info, error
        self._backbone = build_backbone(self._config)
        self._qa = build_qa(self._config, self._backbone)
        self._longest = self._qa.answerer.reader.max_new_tokens

    def close(self) -> None:
        """Close the bank; may be called again."""
        self._qa.bank.close()

    def to(self, requests: Sequence[Asked]) -> Iterator[Told]:
        """Answers in the order of the requests, each as soon as it and all before it are there. The questions about a video are
        answered together, so that what they recall is still in memory."""
        ready: dict[int, Told] = {}
        turn = 0
        for clip, numbers in groups(requests).items():
            video_id = self._encoded(clip)
            for number in numbers:
                ready[number] = (
                    Told("", 0) if video_id is None else self._answer(requests[number], video_id)
                )
                while turn in ready:
                    yield ready.pop(turn)
                    turn += 1

    def _encoded(self, clip: Clip) -> str | None:
        """Have the clip in the bank; its id there, None when it cannot be read."""
        bank = self._qa.bank
        try:
            check_file(Path(clip.path))
            source = open_video(
                self._config, self._backbone, clip.path, start=clip.start, end=clip.end
            )
        except UserError as error:
            self._failed(error)
            return None
        known = bank.catalog.video(source.info.video_id)
        if known is None or not known.finished:
            bank.begin_writing()  # that somebody else writes is no fault of this video
        try:
            done = self._qa.ingest(source)
        except UserError as error:
            self._failed(error)
            return None
        what = (
            f"{done.new_segments} segments encoded in {done.seconds['total']:.1f} s"
            if done.new_segments
            else "in the bank"
        )
        self._info(f"{clip.path}: {what} {done.warning}".rstrip())
        return done.video_id

    def _failed(self, error: UserError) -> None:
        self._error(f"{str(error).rstrip('. ')}; its questions get empty answers.")

    def _answer(self, one: Asked, video_id: str) -> Told:
        self._qa.answerer.reader.max_new_tokens = one.max_new_tokens or self._longest
        text = self._qa.ask(Question(one.question, video_id)).text
        return Told(cut(text, one.until), len(self._backbone.ids(text)))


def _written(value: Any) -> str:
    """A value as it stands on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
