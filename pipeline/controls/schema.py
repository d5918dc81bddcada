"""The role of a control: what the same model reads of the same video, without the memory's choice.

Knows no implementation, no benchmark and no score.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from pipeline.answer.strategies.schema import AnswerStrategy

Spans = Sequence[Sequence[float]]  # seconds: start, and the end that is not part of it
# what of a film with needles is shown: all of it, its footage alone, its needles alone, or nothing
Showing = Literal["film", "haystack", "needles", ""]


class Control(Protocol):
    """Says what a score is worth: another choice of frames, through the same way of answering."""

    showing: Showing  # anything but "film" and "" needs films whose needles are known
    # visual tokens of the longest video that it is asked about; None: a video of any length
    most_tokens: int | None

    def strategy(self, clue: Spans, own: AnswerStrategy) -> AnswerStrategy | None:
        """How a question is answered. None: this control is not asked this question.

        clue: where the right answer shows, in seconds; () where nobody knows or nothing shows.
        own: the strategy of the configuration that it is a control of.
        """
        ...
