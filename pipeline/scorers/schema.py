"""The role of a scorer, and the records that it works with.

Knows no file, no model and no statistics: intervals are in pipeline/scoring.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from encoders.errors import UserError
from pipeline.schema import Basis
from pipeline.scorers.spans import Span
from pipeline.scoring import is_right, states

# what the digits of an answer must equal; without it, its words must (pipeline/scoring.py)
NUMBER = "number"
CONTAINS = "contains"  # the answer holds the reference


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with its references, and the answer with what was read and cited for it."""

    id: str
    video: str  # intervals resample videos
    question: str
    answer: str  # as the model gave it; "": it gave none
    references: tuple[str, ...] = ()  # right answers, any of which counts; (): unknown
    rule: str = ""  # NUMBER, CONTAINS, or ""
    options: tuple[str, ...] = ()  # without letters; (): an open question
    letter: str | None = None  # of the right option; None: unknown
    choice: str | None = None  # letter of the option that the answer chose; None: it chose none
    evidence: tuple[Span, ...] = ()  # that the right answer rests on; (): unknown
    recalled: tuple[Span, ...] = ()  # that the model read
    cited: tuple[Span, ...] = ()
    # by a search alone, best first, with None for a moment of another video than the evidence's;
    # None: it was answered
    found: tuple[Span | None, ...] | None = None
    in_time: bool | None = None  # whether the answer came when it was due; None: at any time
    best: Span | None = None  # the cited span with the heaviest frame
    is_quote: bool = False  # the answer is lines of the film, which say more than what was asked
    basis: tuple[Basis, ...] = ()  # of each statement of the answer
    group: str = ""  # questions of a group only count as right together
    pair: str = ""  # a true claim and a false one, which only count as right together

    def __post_init__(self) -> None:
        """UserError on a row that no scorer can take."""
        found = (one for one in self.found or () if one is not None)
        spans = (*self.evidence, *self.recalled, *self.cited, *found)
        bad = next((one for one in spans if not 0 <= one[0] <= one[1] < float("inf")), None)
        if bad is not None:
            raise UserError(f"{self.id}: {list(bad)} is no start and end in seconds")
        letters = [chr(ord("A") + number) for number in range(len(self.options))]
        for name, letter in (("the right option", self.letter), ("the choice", self.choice)):
            if letter is not None and letter not in letters:
                raise UserError(f"{self.id}: {name} is {letter}, and it has {len(letters)} options")

    @property
    def right(self) -> bool | None:
        """Whether the answer is right: the right option, or one of the references. None: unknown.

        An answer that chose no option is wrong, and so is one that came too early or too late.
        """
        if self.in_time is False:
            return False
        if self.options:
            return None if self.letter is None else self.choice == self.letter
        if not self.references:
            return None
        return any(
            matches(self.answer, reference, self.rule, is_quote=self.is_quote)
            for reference in self.references
        )


def matches(answer: str, reference: str, rule: str = "", *, is_quote: bool = False) -> bool:
    """Whether an open answer is the reference.

    rule "": equal up to case and a full stop. NUMBER: the digits of the answer, joined, are the
    reference, as in OVO-Bench. CONTAINS: the reference stands in it, as in StreamingBench's
    proactive tasks. Of a quote, the words of the reference stand in it side by side, as RULER
    counts (arXiv 2404.06654).
    """
    if rule == CONTAINS:
        return reference in answer
    if is_quote:
        return states(answer, reference)
    if rule == NUMBER:
        return "".join(one for one in answer if one in "0123456789") == reference
    return is_right(answer, reference)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge was asked about an answer, and what it said."""

    model: str
    prompt: str
    reply: str


@dataclass(frozen=True, slots=True)
class Score:
    """Numbers of one answer by name; none where the question has nothing to compare with."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    error: str = ""  # one sentence: why there are none
    judgement: Judgement | None = None


class Scorer(Protocol):
    """Says how good answers are."""

    @property
    def best(self) -> Mapping[str, float]:
        """Name of each number -> its value for a perfect answer. The worst value is 0."""
        ...

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        """A score for each question, in order. A number about several questions together stands at
        the first of them. A question that cannot be scored has an error, and the others go on."""
        ...


def each(
    questions: Sequence[AnsweredQuestion],
    numbers: Callable[[AnsweredQuestion], Mapping[str, float]],
) -> list[Score]:
    """The score of every question by itself. A UserError of `numbers` is that question's error."""
    scores = []
    for question in questions:
        try:
            scores.append(Score(numbers(question)))
        except UserError as error:
            scores.append(Score(error=str(error)))
    return scores


def column(key: str, name: str, scorer: Scorer) -> str:
    """The name of a number in tables. key: of the scorer in the settings."""
    return key if len(scorer.best) == 1 else f"{key}_{name}"
