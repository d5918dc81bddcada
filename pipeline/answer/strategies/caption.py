"""Captions and other lines of the video alone; no frame is read.

After "A simple LLM framework for long-range video question-answering" (LLoVi). The model reads the
lines that the bank has: captions, subtitles, speech and print. Lines that are more than one prompt
holds are summarised for the question first. The vision tower is not in memory meanwhile; who
encodes the next film loads it again. Knows no retriever and no reader of frames.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import KINDS, TextLine
from memory.schema import Question
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.text_levels import (
    ANSWER,
    TextLevels,
    in_order,
    text_context,
)
from pipeline.answer.strategies.schema import Turn, film_by_film, refuse_more
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, Reading

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer


class Caption:
    """Answers from the lines of the video."""

    name = "caption"

    def __init__(
        self,
        *,
        summarise_first: bool = False,
        line_tokens: int = 2048,
        contexts: int = 8,
        kinds: list[str] | None = None,
        unload_tower: bool = True,
    ) -> None:
        """summarise_first: summarise the lines for the question even where they fit one prompt.
        line_tokens: of lines in one prompt. contexts: summaries in one pass. kinds: of lines that
        are read; None: all. unload_tower: take the vision tower out of memory before reading.
        UserError on values that cannot be."""
        if line_tokens < 128 or contexts < 1:
            raise UserError(
                f"answer.line_tokens={line_tokens} answer.contexts={contexts} is too small; use "
                "128 tokens and 1 context or more."
            )
        unknown = sorted(set(kinds or ()) - set(KINDS))
        if unknown:
            raise UserError(
                f"answer.kinds has {', '.join(unknown)}; use some of {', '.join(KINDS)}."
            )
        self._summarises, self._line_tokens = summarise_first, line_tokens
        self._contexts, self._kinds = contexts, tuple(kinds or KINDS)
        self._unloads = unload_tower

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer. A model that reads no text leaves it to quotes. UserError where the video has
        no line that the question may see."""
        refuse_more(question, self.name)
        timed = answerer.timed(question)
        limited = timed.question
        lines = self._lines(limited, answerer)
        whose = "the video" if len(question.videos) == 1 else f"{len(question.videos)} videos"
        if not lines:
            raise UserError(
                f"answer=caption reads lines, and the bank has none of {whose} up to this "
                "moment; encode it with text=captions or another text=, or choose another answer="
            )
        if answerer.only_cards:
            return answerer.in_words(question, turn.emit)
        films = answerer.film_encoder if self._unloads else None
        is_released = films is not None and films.release_tower()
        without = ", with the vision tower out of memory" * is_released
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        titles = answerer.titles(limited)
        levels = TextLevels(
            log, timer, answerer.reader.count_tokens, self._line_tokens, self._contexts, titles
        )
        written: Reading | None = None
        fitting, text = levels.fit(limited, lines, at_least_once=self._summarises), ""
        if fitting:
            asked = ANSWER.format(question=limited.search_text)
            chosen = asked if turn.read is None else question.text
            context = text_context(limited, fitting, chosen, titles)
            written = log.read_with(turn.read, "answer", context, timer, turn.emit)
            text = written.text
        answer = composed_answer(
            limited,
            answerer,
            log,
            timer,
            strategy=self.name,
            why=f"answer=caption reads the {len(lines)} lines of {whose}"
            f"{film_by_film(question)}, and no frame{without}",
            text=text,
            lines=levels.rests_on(fitting),
            channel=lines[0].kind,
            cited_by="quote",
            reading=written,
        )
        if not text.strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, timed.note]))
        return replace(answer, question=question.text, warning=warning)

    def _lines(self, question: Question, answerer: "Answerer") -> list[TextLine]:
        """The lines that the question sees, in time order."""
        found = [
            line
            for video_id in question.videos
            for start, end in question.spans_of(video_id)
            for line in answerer.bank.text.during(video_id, start, end)
            if line.kind in self._kinds and line.known <= question.moment(video_id)
        ]
        return in_order(question, found)
