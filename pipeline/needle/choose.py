"""Which of the options a model means: the one it names, else the one it finds likeliest. Knows no film and no truth.

A model that answers in letters is asked four times with the options in VNBench's orders. One that was never taught letters,
such as the embedded one, answers in words; then the four tries cannot differ, and four tries count no stricter than one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from encoders.kv import FixedCache
from memory.schema import Evidence
from pipeline.needle.vnbench import LETTERS, ORDERS, prompt, tries
from pipeline.reader import KVReader, TokenReader
from pipeline.score import is_right

Reader = KVReader | TokenReader


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


def in_words(reader: Reader, evidence: Evidence, text: str, options: Sequence[str]) -> int:
    """The number of the option that a free answer names, or else the likeliest."""
    named = [i for i, option in enumerate(options) if is_right(text, option)]
    if named:
        return named[0]
    scores = likelihoods(reader, evidence, options)
    return max(range(len(options)), key=scores.__getitem__)


def in_letters(reader: Reader, evidence: Evidence, question: str, options: Sequence[str]) -> list[str]:
    """What is answered to VNBench's four prompts."""
    texts = []
    for row in tries("", "", question, options, 0, (), 0.0):
        asked = replace(evidence.question, text=prompt(row))
        texts.append(reader.read(replace(evidence, question=asked), _untimed).text)
    return texts


def letters_of(choice: int) -> list[str]:
    """The letters that one option has in the four tries."""
    return [LETTERS[order.index(choice)] for order in ORDERS]


@torch.inference_mode()
def likelihoods(reader: Reader, evidence: Evidence, options: Sequence[str]) -> list[float]:
    """Log-probability of each option as the whole answer, in the spelling (with or without a space) that is likelier."""
    backbone = reader.backbone
    stop = min(backbone.stop_ids())
    tail = reader.tail(evidence.question.text)
    spelled = [[backbone.ids(space + option) for space in ("", " ")] for option in options]
    longest = max(len(ids) for both in spelled for ids in both)

    def score(hidden: torch.Tensor, cache: Any, ids: list[int]) -> float:
        states = torch.cat([hidden, backbone.advance(backbone.embed(ids), cache)])  # [1 + n, D]
        logs = backbone.logits(states).log_softmax(-1)
        return float(logs[torch.arange(len(ids) + 1), torch.tensor([*ids, stop])].sum())

    def fresh(ids: list[int]) -> float:  # a library cache cannot go back
        with reader.context(evidence, len(tail) + longest + 1, _untimed) as (cache, _):
            return score(backbone.advance(tail, cache)[-1:], cache, ids)

    with reader.context(evidence, len(tail) + longest + 1, _untimed) as (cache, _):
        if isinstance(cache, FixedCache):
            hidden = backbone.advance(tail, cache)[-1:]
            mark, found = cache.mark(), []
            for both in spelled:
                scores = []
                for ids in both:
                    cache.rewind(mark)
                    scores.append(score(hidden, cache, ids))
                found.append(max(scores))
            return found
    return [max(fresh(ids) for ids in both) for both in spelled]
