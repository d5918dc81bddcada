"""The cheapest strategy that can answer: rules over the tokens of the video, the kind of question,
and how far the best frame stands out.

No strategy wins everywhere ("LaRA", "Long Context vs. RAG for LLMs"): one pass over all frames is
best while they fit, retrieval finds single moments, and only a pass over every segment counts,
orders and sums up. The trace says which rule decided. Knows strategies by their role.
"""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from encoders.errors import UserError
from memory.schema import Question
from pipeline.answer.requests.request import MOST_READ
from pipeline.answer.strategies.call_log import CallLog
from pipeline.answer.strategies.full import Full
from pipeline.answer.strategies.map_reduce import MapReduce
from pipeline.answer.strategies.mapping.map_plan import map_plan
from pipeline.answer.strategies.mapping.text_levels import text_context
from pipeline.answer.strategies.retrieve import Retrieve, asks_for_newest
from pipeline.answer.strategies.schema import AnswerStrategy, Turn
from pipeline.answer.strategies.segment_slices import frame_tokens
from pipeline.query import plan as planner
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Answer

if TYPE_CHECKING:
    from pipeline.answer.answerer import Answerer

LOOKED_AGAIN = "it shows nothing, so the best frames were read again alone"
Choice = Literal["full", "retrieve", "map_reduce"]
RANKED = 256  # frames whose scores say how far the best one stands out
ASK = (
    'A question about a video: "{question}" Can one moment of the video answer it, or does the '
    "answer need all of the video, as with counts, orders and summaries? Say one word: moment, or "
    "all."
)
_GLOBAL = (
    r"\b(summar\w+|overall|in general|whole (video|film)|main (topic|idea|point|event)\w*)\b"
    r"|\bwhat (is|was) (it|this|the (video|film)) (all )?about\b|\bwhat happens\b"
)


def whole_video_rule(text: str, only_cards: bool) -> str | None:
    """Why a question needs the whole video, by rules over its text; None where it does not.
    only_cards: the model answers questions about cards alone."""
    aim = _aim(text, only_cards)
    if aim is not None and not (only_cards and aim == "union"):
        return f'the question has the aim "{aim}"'
    if not only_cards and re.search(_GLOBAL, planner.plan(text).text.casefold()):
        return "the question is about the whole video"
    return None


def _aim(text: str, only_cards: bool) -> str | None:
    """What the findings of segments are reduced to by rule, such as "count"; None: by no rule."""
    plan = map_plan(text, only_cards=only_cards, reduce="auto")
    return plan.aim if plan is not None and plan.uses_rules else None


class Route:
    """Chooses one of `full`, `retrieve` and `map_reduce` for each question."""

    name = "route"

    def __init__(
        self,
        *,
        map_reduce: MapReduce,
        full_tokens: int | None = None,
        margin: float = 0.0,
        by: str = "rules",
    ) -> None:
        """full_tokens: visual tokens of a video up to which `full` reads it, where the window of
        the model holds them; None: as many as an answer reads anyway. margin: standard deviations
        by which the best frame stands out from the next ones; below it, `map_reduce` answers. 0:
        not looked at. by: "rules", or "model", which asks the model what kind of question it is.
        UserError on values that cannot be."""
        if by not in ("rules", "model"):
            raise UserError(f"answer.by={by} is not known; use rules or model.")
        if full_tokens is not None and full_tokens < 0:
            raise UserError(f"answer.full_tokens={full_tokens} is too small; use 0 or more.")
        if not margin >= 0:
            raise UserError(f"answer.margin={margin} is too small; use 0 or more.")
        self._strategies: dict[Choice, AnswerStrategy] = {
            "full": Full(),
            "retrieve": Retrieve(),
            "map_reduce": map_reduce,
        }
        self._full_tokens, self._margin, self._by = full_tokens, margin, by
        self._ends_early = map_reduce.ends_early

    def answer(self, question: Question, answerer: "Answerer", turn: Turn) -> Answer:
        """The answer of the chosen strategy; its trace says why."""
        log = CallLog(answerer.reader, answerer.batched_reader, turn.cancelled)
        timer = StageTimer()
        with timer("route"):
            timed = answerer.timed(question)
            if asks_for_newest(timed, only_cards=answerer.only_cards):
                choice: Choice = "retrieve"
                why = "the newest moment may override others"
            else:
                choice, why = self.choose(timed.question, answerer, log, timer)
        own = turn
        pieces: list[str] = []
        if choice == "retrieve" and self._may_look_again(timed.question, answerer, turn):
            own = replace(turn, emit=pieces.append)
        answer = self._strategies[choice].answer(question, answerer, own)
        if own is not turn:
            if not answer.shown and answer.trace is not None and answer.trace.calls:
                answer = self._looked_again(question, answer, answerer, own)
                pieces = [answer.text]
            for piece in pieces:
                turn.emit(piece)
        if answer.trace is None:
            return answer
        trace = replace(
            answer.trace,
            why=f"answer=route: {why}; {answer.trace.why}",
            calls=(*log.calls, *answer.trace.calls),
        )
        seconds = {"route": timer.seconds["route"]} | answer.seconds
        seconds["total"] = answer.seconds["total"] + timer.seconds["route"]
        return replace(answer, trace=trace, seconds=seconds)

    def _may_look_again(self, question: Question, answerer: "Answerer", turn: Turn) -> bool:
        """Whether "not in the video" is worth a second look. It is cheap for cards alone: their
        frames rank first, and a map of them ends early."""
        return (
            answerer.only_cards
            and self._ends_early
            and answerer.raw_scores is not None
            and turn.read is None
            and len(question.videos) <= MOST_READ
        )

    def _looked_again(
        self, question: Question, refused: Answer, answerer: "Answerer", turn: Turn
    ) -> Answer:
        """What the frames that fit best say alone, where together they said nothing; else the
        refusal, with what this cost."""
        again = self._strategies["map_reduce"].answer(question, answerer, turn)
        assert refused.trace is not None
        calls = refused.trace.calls + (again.trace.calls if again.trace is not None else ())
        kept = again if again.shown and again.trace is not None else refused
        assert kept.trace is not None
        trace = replace(kept.trace, calls=calls, why=f"{refused.trace.why}; {LOOKED_AGAIN}")
        return replace(
            kept,
            trace=trace,
            visual_tokens=trace.visual_tokens,
            frames_read=sum(call.frames for call in calls),
            seconds=again.seconds | {"total": refused.seconds["total"] + again.seconds["total"]},
        )

    def choose(
        self, question: Question, answerer: "Answerer", log: CallLog, timer: StageTimer
    ) -> tuple[Choice, str]:
        """The strategy, and the rule that chose it."""
        kind = self._kind(question, answerer, log, timer)
        if kind is not None:
            return "map_reduce", kind
        if len(question.videos) > MOST_READ:
            return (
                "retrieve",
                f"the question is about single moments of {len(question.videos)} videos",
            )
        tokens = frame_tokens(answerer.bank, question)
        most = answerer.read_tokens if self._full_tokens is None else self._full_tokens
        window = Full().most(answerer)
        if tokens <= (most if window is None else min(most, window)):
            return "full", f"all {tokens} visual tokens fit one pass"
        stands_out = self._stands_out(question, answerer) if self._margin else None
        if stands_out is not None and stands_out < self._margin:
            why = f"no frame stands out ({stands_out:.2f} standard deviations of {self._margin:g})"
            return "map_reduce", why
        return "retrieve", "the question is about single moments"

    def _kind(
        self, question: Question, answerer: "Answerer", log: CallLog, timer: StageTimer
    ) -> str | None:
        """Why the question needs the whole video; None where it does not."""
        text, only_cards = question.search_text, answerer.only_cards
        if self._by == "rules" or only_cards or _aim(text, only_cards) not in (None, "union"):
            return whole_video_rule(text, only_cards)
        asked = text_context(question, (), ASK.format(question=planner.plan(text).text))
        word = log.read("route", asked, timer).text.casefold()
        return "the model says that it needs the whole video" if "all" in word else None

    def _stands_out(self, question: Question, answerer: "Answerer") -> float | None:
        """By how many standard deviations the best frame lies above the best ones together; None
        where the retriever gives no scores to compare."""
        part = answerer.raw_scores
        if part is None or len(question.videos) > 1:
            return None
        ranked = answerer.bank.rank_frames(
            question.search_text,
            question.video_id,
            during=_during(question),
            asked_at=question.moment(question.video_id),
            most=RANKED,
            part=part,
        )
        scores = [moment.score for moment in ranked]
        if len(scores) < 2:
            return None
        mean = sum(scores) / len(scores)
        spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
        return None if spread == 0 else (scores[0] - mean) / spread


def _during(question: Question) -> tuple[float, float]:
    """Seconds of the one video that the question is about; (0, infinite) without a limit."""
    start, end = question.hull(question.video_id)
    return max(start, 0.0), end
