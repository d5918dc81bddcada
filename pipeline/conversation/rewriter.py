"""A question that points back at earlier rounds -> one that can be understood alone.

The rules of the history come first ("and after that?" is a time); a rewriter sees what they leave.
Query rewriting in conversations: Vakulenko et al. 2021, arXiv 2004.14652.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from encoders.errors import UserError
from encoders.models.backbone import VideoModel
from pipeline.conversation.round import Round, context_text
from pipeline.text_model import TextModel

_POINTS_BACK = re.compile(
    r"\b(?:he|she|it|they|him|her|his|hers|its|them|their|that|this|those|these|there|then|one"
    r"|ones|same|other|else)\b|^\s*(?:and|but|so|why|what about|how about)\b",
    re.IGNORECASE,
)
_ROUNDS = 3  # that the model sees
_PROMPT = (
    "{rounds}\n"
    "Next question: {question}\n"
    "Write the next question so that it can be understood without the ones before it. Write that "
    "question alone."
)


class Rewriter(Protocol):
    """Rewrites the questions of a conversation."""

    def __call__(self, question: str, rounds: Sequence[Round]) -> str:
        """The question in full; the same text where nothing is to be done. rounds: earlier ones,
        the newest last."""
        ...


class NoRewriter:
    """Every question stays as it is."""

    def __init__(
        self,
        *,
        backbone: VideoModel | None = None,
        model: Callable[[], TextModel] | None = None,
    ) -> None:
        pass

    def __call__(self, question: str, rounds: Sequence[Round]) -> str:
        return question


class ModelRewriter:
    """A language model rewrites what points back."""

    def __init__(
        self, max_new_tokens: int, *, backbone: VideoModel, model: Callable[[], TextModel]
    ) -> None:
        """model: loads it, or knows its address. UserError where it reads no text, or has no room
        for a question."""
        if max_new_tokens < 1:
            raise UserError(
                f"follow_up.max_new_tokens={max_new_tokens} gives no room for a question; use 1 or "
                "more"
            )
        if not backbone.reads_text:
            raise UserError(
                f"follow_up=model needs a model that reads text, and {backbone.path} knows single "
                "questions; use follow_up=rules or another backbone="
            )
        self._max_new_tokens, self._model = max_new_tokens, model

    def __call__(self, question: str, rounds: Sequence[Round]) -> str:
        if not rounds or not _POINTS_BACK.search(question):
            return question
        prompt = _PROMPT.format(rounds=context_text(rounds[-_ROUNDS:]), question=question)
        written = self._model().write(prompt, self._max_new_tokens).strip()
        # a model that says more than a question has not done what it was asked for
        first = written.splitlines()[0].strip(' "') if written else ""
        return first if first.endswith("?") else question
