"""One note, carried from segment to segment, and an answer from the last one.

After "Chain of Agents". Each step reads one segment and the note so far, and writes the note anew
within `note_tokens`, so the memory of a stream never grows. The bank keeps the note of one video
after every 16 segments (streams/note_store.py): the same question about a stream that went on, or
that was taken up again, reads only what came since, and answers as if it had read everything. Needs
a model that reads text. Knows no retriever.
"""

from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import FINDING, TextLine
from memory.schema import Question
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.mapping.composed_answer import composed_answer
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.answer.strategies.schema import Turn, film_by_film, refuse_more
from pipeline.answer.strategies.segment_slices import (
    SegmentSlice,
    seen_slices,
    visible_segments,
    within,
)
from pipeline.answer.strategies.streams.note_store import Note, NoteStore
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

    def __init__(self, *, note_tokens: int = 256, keep_notes: bool = True) -> None:
        """note_tokens: of the note that is carried on. keep_notes: in the bank, for later
        questions about one video. UserError on less than 16 tokens."""
        if note_tokens < 16:
            raise UserError(f"answer.note_tokens={note_tokens} holds no note; use 16 or more.")
        self._note_tokens, self._keeps = note_tokens, keep_notes

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
        store = self._store(limited, answerer)
        note = Note() if store is None else store.newest()
        reused, rests = note.read, [] if store is None else store.slices(note)
        slices = list(seen_slices(answerer, limited))
        if store is not None:
            slices = [own for own in slices if not store.covers(note, own.segment)]
        for own, following in zip_longest(slices, slices[1:]):
            text = self._step(note.text, own, limited, answerer, log, timer)
            if text:
                rests.append(own)
                note = replace(note, text=text, segments=tuple(each.segment for each in rests))
            if store is not None and (following is None or following.segment != own.segment):
                note = replace(note, read=note.read + 1)
                store.keep(note)
        lines = [
            TextLine(own.video_id, own.start, own.end + 1e-3, FINDING, note.text, own.end,
                     parents=(own.segment,))
            for own in rests
        ]  # fmt: skip
        text, written = "", None
        if rests:
            asked = ANSWER.format(question=limited.search_text, note=note.text)
            # options are chosen from the note as well
            shown = () if turn.read is None else (replace(lines[-1], start=lines[0].start),)
            context = text_context(limited, shown, asked if turn.read is None else question.text)
            written = log.read_with(turn.read, "answer", context, timer, turn.emit)
            text = written.text
        answer = composed_answer(
            limited,
            answerer,
            log,
            timer,
            strategy=self.name,
            why="answer=chain carries a note through every segment"
            f"{film_by_film(question)}, and answers from the last one",
            text=text,
            lines=lines,
            reused=reused,
            notes=(note.text or NOTHING,),
            reading=written,
        )
        if not text.strip():
            turn.emit(answer.text)
        warning = " ".join(filter(None, [answer.warning, timed.note]))
        return replace(answer, question=question.text, warning=warning)

    def _store(self, question: Question, answerer: "Answerer") -> NoteStore | None:
        """The notes of a question about one video; None where none are kept."""
        if not self._keeps or len(question.videos) > 1:
            return None
        rows = visible_segments(answerer.bank, question, question.video_id)
        return NoteStore(answerer, question, rows, f"note_tokens={self._note_tokens}")

    def _step(
        self,
        note: str,
        own: SegmentSlice,
        question: Question,
        answerer: "Answerer",
        log: CallLog,
        timer: StageTimer,
    ) -> str:
        """The note after a slice; "" where the slice adds nothing."""
        interval = answerer.bank.catalog.require_video(own.video_id).interval
        asked = STEP.format(question=question.search_text, note=note or NOTHING)
        titles = answerer.titles(question)
        if titles:
            asked += OF_VIDEO.format(name=titles[own.video_id].name)
        (evidence,) = answerer.recall_all(
            [replace(within(question, own, interval), text=asked, query=question.search_text)]
        )
        if not evidence.frame_count:
            return ""
        text = self._bounded(answerer, log.read("note", evidence, timer).text)
        return text if text != note and is_shown(text) else ""

    def _bounded(self, answerer: "Answerer", text: str) -> str:
        """The first words of a note that fit its budget."""
        words = text.split()
        while words and answerer.reader.count_tokens(" ".join(words)) > self._note_tokens:
            words = words[: -max(1, len(words) // 8)]
        return " ".join(words)
