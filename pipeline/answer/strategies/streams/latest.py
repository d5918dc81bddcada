"""The newest moment that answers: for questions about the present state.

Where a value changes, as a code that is renewed every day, several moments answer, and the newest
one overrides the others (LongMemEval's knowledge updates; EgoRAG reads the latest first). Windows
of time are looked at from the newest back, each as `retrieve` does, until one answers. Then
whatever came later in that window is looked at again, until nothing newer answers. The moment that
is found is read once more alone, so that no other value stands beside it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from encoders.errors import UserError
from memory.schema import Question
from memory.timeline import Span
from pipeline.answer.schema import NothingSeenError
from pipeline.answer.strategies.schema import Turn
from pipeline.answer.strategies.streams.stream_clock import StreamClock
from pipeline.schema import Answer, CitedVideo, ModelCall, Trace
from pipeline.scorers.spans import union

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

_NEXT_S = 1e-2  # behind the end of a frame, which is rounded
ALONE_S = 4.0  # beside a citation that was read: so little needs no second reading


@dataclass(frozen=True, slots=True)
class _Citation:
    """A stretch that an answer cites."""

    video_id: str
    span: Span  # seconds of the video
    end: float  # of it, on the clock


@dataclass
class _Search:
    """The looks of one question."""

    question: Question
    answerer: "Answerer"
    turn: Turn
    clock: StreamClock
    most: int
    looks: list[Answer] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether as many looks were taken as are allowed."""
        return len(self.looks) >= self.most

    def newest(self) -> Answer | None:
        """The answer of the newest moment; None where nothing answers.

        What no single moment confirms counts only where nothing else does.
        """
        unconfirmed = None
        for window in self.clock.windows():
            found, (low, high) = None, window
            while not self.is_over and low < high:
                answer = self._look(self.clock.limited(self.question, (low, high)))
                if answer is None or not answer.shown:
                    break
                if found is not None and not answer.spans:
                    break  # it names no moment, so nothing says that it is newer
                alone, until = self._alone(answer)
                if alone is None:
                    unconfirmed = unconfirmed or answer
                    break
                found = alone
                if until <= low:  # the same frame again
                    break
                low = until + _NEXT_S
            if found is not None or self.is_over:
                return found or unconfirmed
        return unconfirmed

    def _alone(self, answer: Answer) -> tuple[Answer | None, float]:
        """The newest citation of an answer that also answers alone, and where it ends on the
        clock; None where none does."""
        citations = self.citations(answer)
        if not citations:
            return answer, float("inf")  # it names no moment: nothing can be newer
        if _is_alone(answer):
            return answer, citations[0].end
        for one in citations:
            if self.is_over:
                break
            about = replace(
                self.question, videos=(one.video_id,), spans={one.video_id: (one.span,)}
            )
            alone = self._look(about)
            if alone is not None and alone.shown:
                return alone, one.end
        return None, citations[0].end

    def citations(self, answer: Answer) -> list[_Citation]:
        """What an answer cites, the newest first."""
        own = {each.video_id: each.spans for each in answer.videos}
        cited = [
            _Citation(video_id, span, self.clock.at(video_id, span[0]) + span[1] - span[0])
            for video_id, spans in (own or {answer.video_id: answer.spans}).items()
            for span in spans
        ]
        return sorted(cited, key=lambda each: each.end, reverse=True)

    def _look(self, question: Question | None) -> Answer | None:
        """What `retrieve` answers about a part; None where there is nothing to see."""
        if question is None:
            return None
        try:
            answer = self.answerer.retrieve(question, cancelled=self.turn.cancelled)
        except NothingSeenError:
            return None
        self.looks.append(answer)
        return answer


class Latest:
    """Answers from the newest moment that answers."""

    name = "latest"

    def __init__(self, *, looks: int = 24) -> None:
        """looks: passes of the model, at most. UserError on less than 1."""
        if looks < 1:
            raise UserError(f"answer.looks={looks} reads nothing; use 1 or more.")
        self._looks = looks

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer of the newest moment. UserError where the question sees nothing."""
        timed = answerer.timed(question)
        clock = StreamClock.of(timed.question, answerer.bank)
        if clock is None:  # videos without a common clock
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        search = _Search(timed.question, answerer, turn, clock, self._looks)
        found = search.newest()
        if not search.looks:
            return answerer.retrieve(question, turn.emit, turn.read, cancelled=turn.cancelled)
        if turn.read is not None:
            return self._chosen(question, timed.question, found, answerer, turn)
        unknown = (
            f"{clock.unknown} of {len(timed.question.videos)} videos do not know when they were."
            if clock.unknown
            else ""
        )
        answer = self._result(timed.question, search, found, [timed.note, unknown])
        turn.emit(answer.text)
        return replace(answer, question=question.text, asked_at=answerer.moment(question))

    def _chosen(
        self,
        question: Question,
        limited: Question,
        found: Answer | None,
        answerer: "Answerer",
        turn: Turn,
    ) -> Answer:
        """One of several options, chosen from the moment that was found."""
        about = limited
        if found is not None and found.spans:
            about = replace(limited, videos=(found.video_id,), spans={found.video_id: found.spans})
        answer = answerer.retrieve(about, turn.emit, turn.read, cancelled=turn.cancelled)
        return replace(answer, question=question.text)

    def _result(
        self, question: Question, search: _Search, found: Answer | None, notes: Sequence[str]
    ) -> Answer:
        """The answer with all that was read for it."""
        answer = search.looks[-1] if found is None else found
        calls = tuple(_calls(search.looks))
        same = [look for look in search.looks if look.video_id == answer.video_id]
        recalled = tuple(union(span for look in same for span in look.recalled))
        seconds: dict[str, float] = {}
        for look in search.looks:
            for stage, spent in look.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        videos: tuple[CitedVideo, ...] = ()
        if len(question.videos) > 1:
            row = search.answerer.bank.catalog.require_video(answer.video_id)
            videos = (CitedVideo(answer.video_id, row.info.path, answer.spans, recalled),)
        trace = Trace(
            self.name,
            f"answer=latest looks at the newest first, and {len(search.looks)} times; "
            + ("the newest moment that answers counts" if found else "nothing answers"),
            calls,
            () if answer.trace is None else answer.trace.basis,
        )
        return replace(
            answer,
            frames_read=sum(call.frames for call in calls),
            visual_tokens=sum(call.visual_tokens for call in calls),
            seconds=seconds,
            recalled=recalled,
            videos=videos,
            warning=" ".join(dict.fromkeys(filter(None, [answer.warning, *notes]))),
            trace=trace,
        )


def _is_alone(answer: Answer) -> bool:
    """Whether a model read hardly more than one citation, or words were quoted."""
    if answer.cited_by == "quote":
        return True
    read = [span for each in answer.videos for span in each.recalled] or list(answer.recalled)
    seconds = sum(end - start for start, end in read)
    return len(answer.spans) == 1 and seconds <= answer.spans[0][1] - answer.spans[0][0] + ALONE_S


def _calls(looks: Sequence[Answer]) -> Iterator[ModelCall]:
    for look in looks:
        if look.trace is not None:
            yield from (replace(call, step="look") for call in look.trace.calls)
