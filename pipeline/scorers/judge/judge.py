"""A language model says how good open answers are.

The model is behind any OpenAI-compatible address. A judgement is stored with its prompt and its
model. Knows no server and no way to read a reply.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from encoders.errors import UserError
from pipeline.scorers.judge.judgement_cache import JudgementCache
from pipeline.scorers.judge.reply import FORMS, names, parse
from pipeline.scorers.schema import AnsweredQuestion, Judgement, Score
from pipeline.text_model import TextModel

_PLACES = ("{question}", "{reference}", "{answer}")
_MOST_FAILURES = 8  # in a row, without a reply between them; then the judge is asked no more


class JudgeModel(TextModel, Protocol):
    """A model of texts that has a name and takes several prompts at a time."""

    parallel: int  # prompts at a time

    @property
    def model(self) -> str:
        """Its name. UserError where the server does not say it."""
        ...

    def request(self, content: str) -> dict[str, Any]:
        """All that it is asked with for a text: what a reply depends on."""
        ...


class Judge:
    """Asks a model about each open answer that has a reference.

    An empty answer scores 0, and nothing is asked. A reply in another form than the prompt asks
    for is an error of its question. So is a server that does not reply.
    """

    def __init__(
        self,
        *,
        model: Callable[[], JudgeModel],
        prompt: str,
        reply: str,
        most: float,
        max_tokens: int,
        cache: str,
    ) -> None:
        """prompt: with {question}, {reference} and {answer}; several references are in one line
        each. reply: its form, see reply.py. most: the best score. max_tokens: of a reply. cache:
        folder of replies; "": the user's cache. UserError on settings that cannot work."""
        missing = [place for place in _PLACES if place not in prompt]
        if missing:
            raise UserError(f"score.judge.prompt= has no {' and no '.join(missing)}; put it in")
        if reply not in FORMS:
            raise UserError(f"score.judge.reply={reply} is not known; use {', '.join(FORMS)}")
        if not 0 < most < float("inf") or max_tokens < 1:
            raise UserError("score.judge.most= and score.judge.max_tokens= must be more than 0")
        try:
            self._model = model()
        except UserError as error:
            raise UserError(_own_key(str(error))) from error
        self._prompt, self._form, self._most = prompt, reply, most
        self._max_tokens = max_tokens
        self._cache = JudgementCache(cache)
        self.best: Mapping[str, float] = names(reply, most)

    def __call__(self, questions: Sequence[AnsweredQuestion]) -> list[Score]:
        prompts = [self._fill(one) if _is_judged(one) else "" for one in questions]
        # equal answers to equal questions are judged once
        asked = list(
            dict.fromkeys(
                prompt
                for one, prompt in zip(questions, prompts, strict=True)
                if prompt and one.answer.strip()
            )
        )
        failures = _Failures()
        with ThreadPoolExecutor(max(1, self._model.parallel)) as pool:
            results = pool.map(lambda prompt: self._score(prompt, failures), asked)
            scores = dict(zip(asked, results, strict=True))
        empty = Score(dict.fromkeys(self.best, 0.0))
        return [scores.get(prompt, empty) if prompt else Score() for prompt in prompts]

    def _score(self, prompt: str, failures: "_Failures") -> Score:
        if failures.are_too_many:
            why = f"the judge failed {_MOST_FAILURES} times in a row: {failures.last}"
            return Score(error=f"not asked, because {why}")
        try:
            model = self._model.model
            known = self._cache.get(model, prompt, self._settings)
            reply = known.reply if known else self._model.write(prompt, self._max_tokens)
        except UserError as error:
            failures.last = _own_key(str(error))
            failures.count(failed=True)
            return Score(error=failures.last)
        failures.count(failed=False)
        judgement = Judgement(model, prompt, reply)
        try:
            numbers = parse(reply, self._form, self._most)
            if known is None:
                self._cache.put(judgement, self._settings)
        except UserError as error:
            return Score(error=str(error), judgement=judgement)
        return Score(numbers, judgement=judgement)

    @property
    def _settings(self) -> dict[str, Any]:
        """What a reply depends on, beside the prompt and the model."""
        return self._model.request("") | {"max_tokens": self._max_tokens}

    def _fill(self, question: AnsweredQuestion) -> str:
        values = {
            "question": question.question,
            "reference": "\n".join(question.references),
            "answer": question.answer,
        }
        # not str.format: questions and answers may hold braces, and so may the prompt
        return re.sub(r"\{(question|reference|answer)\}", lambda m: values[m[1]], self._prompt)


def _is_judged(question: AnsweredQuestion) -> bool:
    return bool(question.references) and not question.options


class _Failures:
    """Failures of a server since it last replied. Threads: many may count."""

    def __init__(self) -> None:
        self.last = ""
        self._lock = threading.Lock()
        self._in_a_row = 0

    def count(self, *, failed: bool) -> None:
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if failed else 0

    @property
    def are_too_many(self) -> bool:
        return self._in_a_row >= _MOST_FAILURES


def _own_key(sentence: str) -> str:
    """A sentence about a model behind an address, with the key that sets it here."""
    return sentence.replace("backbone=endpoint", "score=judge").replace(
        "backbone.", "score.judge.model."
    )
