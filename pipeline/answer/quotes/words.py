"""Who answers: the model from frames, or the words of the film.

A model that reads text answers by itself. A model that reads none, and knows only the questions of
its own world, answers those; for any other question the words of the film answer, in quotes. Where
nothing answers, one sentence says so and what can be done. Knows no frame.
"""

from dataclasses import dataclass

from memory.schema import Question
from pipeline.answer.quotes.known_things import were_looked_for
from pipeline.answer.quotes.quoter import Quoter
from pipeline.needle_world.questions import is_about_cards
from pipeline.query import plan as planner
from pipeline.query import presence
from pipeline.schema import NOT_SAID, NOT_SEEN

NO_WORDS = (
    "The bank has no words of this film, and the embedded model knows only cards: extract words "
    "with text=, choose a backbone=, or use `reelbank find`."
)
NO_ANSWER = "The model gave no answer; ask in other words."
NOT_ASKED = (
    "The embedded model knows only cards, so the pictures were not asked; another backbone= can."
)
NAMES_ASKED = (
    "Only the names that text=objects and text=labels give were searched, and these miss small and "
    "short things; another backbone= looks at the pictures."
)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of the films of one bank, beside one model."""

    quoter: Quoter
    only_cards: bool  # the model reads no text and knows only the questions of the needle world

    def replace_model(self, question: Question) -> bool:
        """Whether the model cannot answer this question at all."""
        return self.only_cards and not is_about_cards(planner.plan(question.text).text)

    def complete_model(self, question: Question) -> bool:
        """Whether words that the model does not read may say what it does not see."""
        return self.only_cards and self.has_lines(question)

    def has_lines(self, question: Question) -> bool:
        """Whether the bank has any line of the question's videos."""
        text = self.quoter.bank.text
        return any(run.lines for video_id in question.videos for run in text.runs(video_id))

    def refusal(self, question: Question) -> tuple[str, str]:
        """What is said where nothing answers, and what the user must know of it.

        "Not seen" needs a question for the presence of a thing, and extractors that know its name
        and have looked at each video up to the moment of the question.
        """
        thing = presence.asked_thing(planner.plan(question.search_text).text)
        if thing and were_looked_for(thing, question, self.quoter.bank):
            return NOT_SEEN, NAMES_ASKED
        return (NOT_SAID, NOT_ASKED) if self.has_lines(question) else (NO_WORDS, "")
