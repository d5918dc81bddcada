"""Holds an answer to a JSON schema: of each token, only those that a fitting text can go on with.

llguidance (extra `json`) says which these are: a parser of the schema walks along with the answer,
and marks the tokens of the vocabulary at each step. Knows a tokenizer and logits; no model and no
question.
"""

import functools
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.extras import require_extra
from encoders.models.generation import Choose

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class JsonForms:
    """The forms of one tokenizer. Threads: any."""

    def __init__(self, tokenizer: Any, stop_ids: Collection[int]) -> None:
        """tokenizer: of transformers. stop_ids: that end an answer."""
        self._tokenizer, self._stop_ids = tokenizer, sorted(stop_ids)
        self._lock = threading.Lock()

    def check(self, schema: str) -> None:
        """UserError on a JSON schema that nothing can be held to, and without the extra."""
        self._matcher(schema)

    def constrain(self, schema: str, choose: Choose) -> Choose:
        """The choice of one answer's tokens, among those that fit. UserError as `check`."""
        matcher = self._matcher(schema)

        def choose_fitting(logits: Tensor) -> int:
            fits = torch.zeros(len(logits), dtype=torch.bool)
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            own = np.unpackbits(bits, bitorder="little")[: len(logits)]
            fits[: len(own)] = torch.from_numpy(own.astype(bool))
            _refuse(matcher.get_error())
            token = choose(logits.masked_fill(~fits.to(logits.device), -torch.inf))
            matcher.consume_token(token)
            return token

        return choose_fitting

    def _matcher(self, schema: str) -> "LLMatcher":
        require_extra("json", "response_format")
        from llguidance import LLMatcher

        try:
            # or the model may write blanks between two values for as long as it likes
            grammar = LLMatcher.grammar_from_json_schema(
                schema, overrides={"whitespace_flexible": False}
            )
        except ValueError as error:
            _refuse(str(error))
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        _refuse(matcher.get_error())
        return matcher

    @functools.cached_property
    def _vocabulary(self) -> "LLTokenizer":
        """Of the tokenizer. Takes up to a second. UserError where it cannot be read."""
        from llguidance.hf import from_tokenizer

        with self._lock:
            try:
                return from_tokenizer(self._tokenizer, eos_token=self._stop_ids)
            except ValueError as error:
                raise UserError(
                    f"response_format needs a model with a fast tokenizer ({error}); ask for the "
                    "form in the question"
                ) from None


def _refuse(problem: str) -> None:
    """UserError where llguidance has a problem with a schema."""
    if problem:
        first = " ".join(problem.split())[:200]
        raise UserError(f"response_format cannot be kept to: {first}; use a simpler JSON schema")
