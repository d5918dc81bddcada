"""A language model that answers a text, without any video: what planner=model asks.

A judge of answers, or whatever else asks for words, needs no more than this role. Knows readers; no
bank and no server.
"""

from typing import Protocol

from encoders.models.backbone import Backbone
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.runtime.stage_timer import StageTimer


class TextModel(Protocol):
    """Text -> text. `pipeline.endpoint.endpoint.Endpoint` is one as well."""

    def write(self, prompt: str, most_tokens: int) -> str:
        """The answer to a prompt, of at most so many tokens, without a thought before it.
        UserError if the model gives none.
        """
        ...


class LocalTextModel:
    """The video-LLM of this process, reading text alone."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def write(self, prompt: str, most_tokens: int) -> str:
        from pipeline.answer.reader import TokenReader  # which knows the planner's rules

        reader = TokenReader(self._backbone, max_new_tokens=most_tokens)
        evidence = Evidence(Question(prompt, ""), (), hits([], []), recent=0, interval=1.0)
        return reader.read(evidence, StageTimer()).text
