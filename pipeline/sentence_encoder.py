"""The sentence encoder of a run. Apart from pipeline/build.py, which loads all that encodes and
answers: a search needs no more than this.
"""

from typing import TYPE_CHECKING

from encoders.errors import UserError
from encoders.text.lines import SentenceEncoder
from encoders.text.packaged_encoder import PackagedEncoder
from pipeline.config.parts import PartSettings, check, instantiate

if TYPE_CHECKING:
    from memory.bank_text import BankText


def build_sentence_encoder(node: PartSettings) -> SentenceEncoder | None:
    """The sentence encoder of dense=; None where lines are searched by their words alone.

    UserError when it cannot work here.
    """
    check("dense", node)
    encoder: SentenceEncoder | None = instantiate("dense", node) if node else None
    return None if isinstance(encoder, PackagedEncoder) and not encoder.is_installed else encoder


def is_automatic(node: PartSettings) -> bool:
    """Whether the settings leave it open if there is a sentence encoder: dense=auto."""
    return str(node.get("_target_", "")).endswith(PackagedEncoder.__name__)


def fitting(encoder: SentenceEncoder | None, text: "BankText") -> SentenceEncoder | None:
    """The encoder, where the vectors of a bank are its own or there are none yet.

    With dense=auto, None where they are another's. UserError for an encoder that was asked for.
    """
    if encoder is None:
        return None
    try:
        if text.has_vectors:
            text.refuse_other_vectors(encoder.made_with)
    except UserError:
        if isinstance(encoder, PackagedEncoder):
            return None
        raise
    return encoder
