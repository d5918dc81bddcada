"""Which option a model means: the one it names, else the one it finds likeliest.

A model that answers in letters is asked four times, with the options in VNBench's orders. A model
that never learned letters, such as the embedded one, answers in words. Its four tries cannot
differ, so they count no stricter than one. Knows no film and no truth.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from memory.schema import Evidence
from pipeline.answer.likelihood import likelier_spellings, spellings
from pipeline.answer.schema import EvidenceReader, Reader, is_local
from pipeline.evaluation.needle.films.vnbench import LETTERS, ORDERS, prompt, tries
from pipeline.runtime.stage_timer import StageTimer
from pipeline.schema import Reading


class OptionReader(Protocol):
    """Reads the evidence of a question for one of its options, in place of the reader."""

    texts: list[str]  # the answers to VNBench's four prompts; [] where none are asked
    choice: int | None  # number of the option; None before it read

    def __call__(self, evidence: Evidence, timer: StageTimer) -> Reading: ...


def option_reader(
    reader: EvidenceReader, question: str, options: Sequence[str], *, letters: bool
) -> OptionReader | None:
    """letters: the four tries, else the likeliest option. None where the model is not in this
    process, so that no likelihood is known."""
    if letters:
        return FourTries(reader, question, options)
    return LikeliestOption(reader, options) if is_local(reader) else None


class LikeliestOption:
    """The option that the model finds likeliest as the whole answer. The likelier spelling counts:
    with or without a space before it."""

    def __init__(self, reader: Reader, options: Sequence[str]) -> None:
        self._reader, self._options = reader, options
        self.texts: list[str] = []
        self.choice: int | None = None

    def __call__(self, evidence: Evidence, timer: StageTimer) -> Reading:
        forms = spellings(self._reader.backbone, self._options)
        result = self._reader.log_likelihoods(evidence, evidence.question.text, forms, timer)
        scores = likelier_spellings(result.values)
        self.choice = max(range(len(scores)), key=scores.__getitem__)
        return Reading(self._options[self.choice], result.weights)


class FourTries:
    """The answers to VNBench's four prompts, from the same evidence."""

    def __init__(self, reader: EvidenceReader, question: str, options: Sequence[str]) -> None:
        self._reader = reader
        rows = tries("", "", question, options, 0, (), 0.0)
        self._prompts = [prompt(row) for row in rows]
        self.texts: list[str] = []
        self.choice: int | None = None

    def __call__(self, evidence: Evidence, timer: StageTimer) -> Reading:
        readings = [
            self._reader.read(
                replace(evidence, question=replace(evidence.question, text=text)), timer
            )
            for text in self._prompts
        ]
        self.texts = [reading.text for reading in readings]
        return readings[0]


def letters_of(choice: int) -> list[str]:
    """The letters that one option has in the four tries."""
    return [LETTERS[order.index(choice)] for order in ORDERS]
