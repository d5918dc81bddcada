"""The sentence encoder of a run. Apart from pipeline/build.py, which loads all that encodes and
answers: a search needs no more than this.
"""

from encoders.text.lines import SentenceEncoder
from pipeline.config.parts import PartSettings, check, instantiate


def build_sentence_encoder(node: PartSettings) -> SentenceEncoder | None:
    """The sentence encoder of dense=; None where lines are searched by their words alone.

    UserError when it cannot work here.
    """
    check("dense", node)
    return instantiate("dense", node) if node else None
