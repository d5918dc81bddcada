"""What a model thinks before it answers: decoded, and read by nobody but the model.

Some models write a thought between two marks first. It is no part of the answer, of its options'
likelihoods, or of its citations. A thought that fills its room is ended from outside. Knows no
evidence and no text.
"""

import threading

import torch
from torch import Tensor

from encoders.models.language_model import LanguageModel
from encoders.models.prompt_text import PromptText
from pipeline.answer.attention.attention_shares import AttentionShares
from pipeline.answer.schema import Cache
from pipeline.runtime.cancel import raise_if_cancelled

# tokens behind a thought that are no answer yet: its end, and blank lines
_BETWEEN = 8


def room_for_thoughts(prompt: PromptText, most: int) -> int:
    """Tokens of a cache for a thought of at most `most` tokens."""
    if prompt.thought is None:
        return 0
    return _BETWEEN + (most if prompt.thought.expected else 0)


@torch.inference_mode()
def think(
    model: LanguageModel,
    prompt: PromptText,
    hidden: Tensor,
    cache: Cache,
    shares: AttentionShares,
    most: int,
    cancelled: threading.Event | None = None,
) -> Tensor:
    """Let the model finish its thought; return the last hidden state [D] behind it, where the
    answer begins. hidden: [D] behind the beginning of the thought. most: tokens of the thought.
    Raises Cancelled.

    `shares` hears what follows the thought, and counts the tokens of the thought.
    """
    marks = prompt.thought
    assert marks is not None
    ends = prompt.stop_ids() | {marks.end}
    for _ in range(most if marks.expected else 0):
        raise_if_cancelled(cancelled)
        token = int(model.logits(hidden[None])[0].argmax())
        if token in ends:
            break
        hidden = model.forward(model.embed([token]), cache)[-1]
        shares.pass_over(1)
    hidden = model.forward(model.embed([marks.end]), cache, shares)[-1]
    for _ in range(_BETWEEN - 2):  # its own blank lines, as it would write them
        token = int(model.logits(hidden[None])[0].argmax())
        if token in ends or prompt.text_of([token]).strip():
            break
        hidden = model.forward(model.embed([token]), cache, shares)[-1]
    return hidden
