"""Which option a model means: the one it names, else the one it finds likeliest.

A model that answers in letters is asked four times, with the options in VNBench's orders. A model
that never learned letters, such as the embedded one, answers in words. Its four tries cannot
differ, so they count no stricter than one. Knows no film and no truth.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from memory.schema import Evidence
from pipeline.answer.likelihood import likelier_spellings, spellings
from pipeline.answer.schema import EvidenceReader, Reader, is_local
from pipeline.evaluation.needle.films.vnbench import LETTERS, ORDERS, prompt, tries
from pipeline.scoring import is_right


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


def choose_option(
    reader: EvidenceReader, evidence: Evidence, text: str, options: Sequence[str]
) -> int | None:
    """Number of the option that a free answer names, else of the likeliest one; None where the
    model is not in this process, so that no likelihood is known.
    """
    named = [i for i, option in enumerate(options) if is_right(text, option)]
    if named:
        return named[0]
    if not is_local(reader):
        return None
    scores = likelihoods(reader, evidence, options)
    return max(range(len(options)), key=scores.__getitem__)


def answer_tries(
    reader: EvidenceReader, evidence: Evidence, question: str, options: Sequence[str]
) -> list[str]:
    """The answers to VNBench's four prompts."""
    texts = []
    for row in tries("", "", question, options, 0, (), 0.0):
        tried = replace(evidence.question, text=prompt(row))
        texts.append(reader.read(replace(evidence, question=tried), _untimed).text)
    return texts


def letters_of(choice: int) -> list[str]:
    """The letters that one option has in the four tries."""
    return [LETTERS[order.index(choice)] for order in ORDERS]


def likelihoods(reader: Reader, evidence: Evidence, options: Sequence[str]) -> list[float]:
    """Log-probability of each option as the whole answer.

    The likelier spelling counts: with or without a space before it.
    """
    forms = spellings(reader.backbone, options)
    result = reader.log_likelihoods(evidence, evidence.question.text, forms, _untimed)
    return likelier_spellings(result.values)
