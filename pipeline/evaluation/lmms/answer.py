"""Questions -> answers in the order of the questions, each video encoded once into a bank.

A video that cannot be read gets empty answers, which count as wrong, and a line in the log; the run
continues. Errors of the whole run, such as a bank that another process writes, are UserErrors.
Knows no lmms-eval.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from encoders.sources.container import check_file
from memory.schema import Question
from pipeline.answer.schema import local
from pipeline.build import build_local, build_qa, open_video
from pipeline.config.compose import compose
from pipeline.evaluation.lmms.requests import Clip, VideoRequest, cut, groups

Log = Callable[[str], None]
_OF_A_QUESTION = ("video", "start", "end", "began", "question", "asked_at", "format")


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """One answer."""

    text: str  # "" where the video could not be read
    tokens: int  # of the answer


class Answers:
    """A model with a bank, open until `close()`."""

    def __init__(self, settings: Mapping[str, Any], *, info: Log, error: Log) -> None:
        """settings: of `reelbank ask`, by key, as lmms-eval reads them from --model_args.

        UserError on a setting that does not fit.
        """
        for name in _OF_A_QUESTION:
            if name in settings:
                raise UserError(
                    f"{name}={settings[name]} cannot be set for a whole run: the task says what is "
                    "asked about what."
                )
        values = {"text": "none"} | dict(settings)  # words only where they are asked for
        self._config = compose(
            "ask", [f"{name}={_override(value)}" for name, value in values.items()]
        )
        self._info, self._error = info, error
        self._backbone = build_local(self._config)
        self._qa = build_qa(self._config, self._backbone)
        self._reader = local(self._qa.answerer.reader, "lmms-eval")
        self._longest = self._reader.max_new_tokens

    def close(self) -> None:
        """Close the bank; may be called again."""
        self._qa.bank.close()

    def to(self, requests: Sequence[VideoRequest]) -> Iterator[TextAnswer]:
        """Answers in the order of the requests, each as soon as it and all before it are ready.

        Questions about one video are answered together, so that what they recall is still in
        memory.
        """
        ready: dict[int, TextAnswer] = {}
        turn = 0
        for clip, numbers in groups(requests).items():
            video_id = self._encode(clip)
            for number in numbers:
                ready[number] = (
                    TextAnswer("", 0)
                    if video_id is None
                    else self._answer(requests[number], video_id)
                )
                while turn in ready:
                    yield ready.pop(turn)
                    turn += 1

    def _encode(self, clip: Clip) -> str | None:
        """Encode the clip unless the bank has it; its id, or None when it cannot be read."""
        bank = self._qa.bank
        try:
            check_file(Path(clip.path))
            source = open_video(
                self._config, self._backbone, clip.path, start=clip.start, end=clip.end
            )
        except UserError as error:
            self._report_failure(error)
            return None
        video = bank.catalog.video(source.info.video_id)
        if video is None or not video.finished:
            bank.begin_writing()  # another writer is an error of the run, not of this video
        try:
            done = self._qa.ingest(source)
        except UserError as error:
            self._report_failure(error)
            return None
        what = (
            f"{done.new_segments} segments encoded in {done.seconds['total']:.1f} s"
            if done.new_segments
            else "in the bank"
        )
        self._info(f"{clip.path}: {what} {done.warning}".rstrip())
        return done.video_id

    def _report_failure(self, error: UserError) -> None:
        self._error(f"{str(error).rstrip('. ')}; its questions get empty answers.")

    def _answer(self, one: VideoRequest, video_id: str) -> TextAnswer:
        self._reader.max_new_tokens = one.max_new_tokens or self._longest
        text = self._qa.ask(Question(one.question, video_id)).text
        return TextAnswer(cut(text, one.until), len(self._backbone.prompt.ids(text)))


def _override(value: Any) -> str:
    """A value as the command line writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
