"""One note, carried from segment to segment, and an answer from the last one.

After "Chain of Agents". Each step reads one segment and the note so far, and writes the note anew
within `note_tokens`, so the memory of a stream never grows. Needs a model that reads text. Knows no
retriever.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.schema import Question
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.answer.strategies.schema import Turn, refuse_more
from pipeline.answer.strategies.segment_slices import SegmentSlice, seen_slices, within
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer, is_shown

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

STEP = (
    'A video is read part by part to answer "{question}". The note so far: {note} Write the note '
    "anew with what this part adds, as short as you can. If the part adds nothing, repeat the note."
)
OF_VIDEO = " This part is of {name}; say so in the note where it adds something."
ANSWER = (
    'A video was read part by part. The note: {note} Answer from the note alone: "{question}" If '
    "it does not tell, say: not in the video."
)
NOTHING = "nothing yet."


class Chain:
    """Reads the segments one after another with a bounded note."""

    name = "chain"

    def __init__(self, *, note_tokens: int = 256) -> None:
        """note_tokens: of the note that is carried on. UserError on less than 16."""
        if note_tokens < 16:
            raise UserError(f"answer.note_tokens={note_tokens} holds no note; use 16 or more.")
        self._note_tokens = note_tokens

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer from the last note. UserError for a model that reads no text."""
        if answerer.only_cards:
            raise UserError(
                "answer=chain carries a note, and the embedded model reads no text; use "
                "answer=map_reduce, or another backbone="
            )
        refuse_more(question, self.name)
        timed = answerer.timed(question)
        limited = timed.question
        answerer.refuse_unseen(limited)
        timer = StageTimer()
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        note, rests = NOTHING, list[SegmentSlice]()
        titles = answerer.titles(limited)
        for own in seen_slices(answerer, limited):
            interval = answerer.bank.catalog.require_video(own.video_id).interval
            asked = STEP.format(question=limited.search_text, note=note)
            if titles:
                asked += OF_VIDEO.format(name=titles[own.video_id].name)
            (evidence,) = answerer.recall_all(
                [replace(within(limited, own, interval), text=asked, query=limited.search_text)]
            )
            if not evidence.frame_count:
                continue
            told = self._bounded(answerer, log.read("note", evidence, timer).text)
            if told and told != note and is_shown(told):
                note = told
                rests.append(own)
        text = ""
        if rests:
            asked = ANSWER.format(question=limited.search_text, note=note)
            context = text_context(limited, (), asked if turn.read is None else question.text)
            text = log.read_with(turn.read, "answer", context, timer, turn.emit).text
        lines = [
            TextLine(own.video_id, own.start, own.end + 1e-3, FINDING, note, own.end,
                     parents=(own.segment,))
            for own in rests
        ]  # fmt: skip
        answer = composed_answer(
            limited,
            answerer,
            log,
            timer,
            strategy=self.name,
            why="answer=chain carries a note through every segment, and answers from the last one",
            text=text,
            lines=lines,
            notes=(note,),
        )
        if not text.strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, timed.note]))
        return replace(answer, question=question.text, warning=warning)

    def _bounded(self, answerer: "Answerer", text: str) -> str:
        """The first words of a note that fit its budget."""
        words = text.split()
        while words and answerer.reader.count_tokens(" ".join(words)) > self._note_tokens:
            words = words[: -max(1, len(words) // 8)]
        return " ".join(words)
