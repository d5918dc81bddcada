"""Abstention: how a model is led to say that the video does not show what is asked, and when it is
taken at its word although it says something else.

The parts of `conf/abstention/`. All but `none` append an instruction to the question, for a model
that reads text. Two also measure a probability of absence, at the price of one or no pass over a
few tokens; from `threshold` on, the answer is "not in the video" and cites nothing.
The first token as a measure of confidence: Kadavath et al. 2022, arXiv 2207.05221 (P(True));
sufficiency of a context: Joren et al. 2024, arXiv 2411.06037.

Knows logits and a tokenizer; no evidence, no cache and no frame.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.prompt_text import PromptText
from pipeline.answer.schema import Abstention
from pipeline.schema import NOT_SHOWN

_YES, _NO = ("yes", "Yes"), ("no", "No")


class NoAbstention:
    """The model says by itself what it does not see."""

    instruction = ""
    check_prompt = ""
    threshold: float | None = None

    def __init__(self, *, backbone: Backbone | None = None) -> None:
        pass

    def absence(self, logits: Tensor) -> Tensor:
        raise NotImplementedError("nothing is measured")


class Instruction(NoAbstention):
    """The model is told what to answer where the video does not show it. Nothing is measured."""

    def __init__(self, instruction: str, *, backbone: Backbone) -> None:
        """instruction: follows the question; a model that reads no text never sees it."""
        self.instruction = instruction if backbone.reads_text else ""


class FirstToken(Instruction):
    """Absence is the probability that the answer begins as "not in the video" does.

    Costs no pass: the logits of the answer's first token are there anyway. It also works with a
    model that was trained to answer so, such as the embedded one.
    """

    def __init__(self, instruction: str, threshold: float, *, backbone: Backbone) -> None:
        """threshold: 0..1. UserError beyond it."""
        super().__init__(instruction, backbone=backbone)
        self.threshold = _probability("first_token", threshold)
        self._tokens = _first_tokens(backbone.prompt, (NOT_SHOWN, NOT_SHOWN.capitalize()), 2)

    def absence(self, logits: Tensor) -> Tensor:
        """[B, V] float32 logits of the answer's first token -> [B] float32 probabilities."""
        return logits.softmax(-1)[:, self._tokens].sum(-1).cpu()


class Sufficiency(Instruction):
    """Absence is the model's probability of "no" when it is asked first whether the frames suffice.

    Costs a pass over the prompt of the check, behind the frames that the question reads anyway.
    """

    def __init__(
        self, instruction: str, check_prompt: str, threshold: float, *, backbone: Backbone
    ) -> None:
        """check_prompt: with {question} in the question's place; yes and no are its answers.

        threshold: 0..1. UserError where a value does not fit, or the model can answer no such
        question.
        """
        super().__init__(instruction, backbone=backbone)
        if not backbone.reads_text or backbone.questions is not None:
            raise UserError(
                "abstention=sufficiency asks the model whether the frames suffice, which "
                f"{backbone.path} was never taught; use abstention=first_token."
            )
        thought = backbone.prompt.thought
        if thought is not None and thought.expected:
            raise UserError(
                "abstention=sufficiency needs a model that answers without a thought; use "
                "abstention=first_token."
            )
        if "{question}" not in check_prompt:
            raise UserError(
                f"abstention.check_prompt={check_prompt!r} asks nothing; put {{question}} into it."
            )
        self.threshold = _probability("sufficiency", threshold)
        self.check_prompt = check_prompt
        self._yes = _first_tokens(backbone.prompt, _YES, 1)
        self._no = _first_tokens(backbone.prompt, _NO, 1)

    def absence(self, logits: Tensor) -> Tensor:
        """[B, V] float32 logits behind the check's prompt -> [B] float32: p(no) / p(yes or no)."""
        probabilities = logits.softmax(-1)
        no = probabilities[:, self._no].sum(-1)
        yes = probabilities[:, self._yes].sum(-1)
        return (no / (yes + no).clamp_min(torch.finfo(no.dtype).tiny)).cpu()


def instructed(question: str, abstention: Abstention) -> str:
    """The question as the model reads it."""
    return "\n".join(filter(None, [question, abstention.instruction]))


def is_absent(absence: float | None, abstention: Abstention) -> bool:
    """Whether the probability of absence is high enough to answer "not in the video". A threshold
    of 1 only measures, also where rounding makes a probability 1.
    """
    threshold = abstention.threshold
    return absence is not None and threshold is not None and threshold <= absence and threshold < 1


def _probability(name: str, threshold: float) -> float:
    if not 0.0 <= threshold <= 1.0:
        raise UserError(
            f"abstention.threshold={threshold} is no probability; use 0 to 1 with "
            f"abstention={name}."
        )
    return threshold


def _first_tokens(prompt: PromptText, answers: Sequence[str], letters: int) -> list[int]:
    """The first token of each answer, without and with a leading space, each token once.

    letters: fewer do not tell the answer from others, and a space alone never does. UserError
    where no token is left.
    """
    firsts = {prompt.ids(space + answer)[0] for answer in answers for space in ("", " ")}
    telling = sorted(token for token in firsts if len(prompt.text_of([token]).strip()) >= letters)
    if not telling:
        raise UserError(
            f"The model's tokenizer cuts {answers[0]!r} into letters, which abstention= cannot "
            "weigh; use abstention=instruction."
        )
    return telling
