"""Another version of the film, asked as the configuration is: what the footage gives away."""

from pipeline.answer.strategies.schema import AnswerStrategy
from pipeline.controls.schema import Showing, Spans


class OtherFilm:
    """The footage without its needles."""

    showing: Showing = "haystack"
    most_tokens: int | None = None

    def strategy(self, clue: Spans, own: AnswerStrategy) -> AnswerStrategy | None:
        return own
