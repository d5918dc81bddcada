"""The video-LLM of this process as a model that reads text alone (pipeline/text_model.py)."""

from encoders.models.backbone import Backbone
from memory.retrieval.common import hits
from memory.schema import Evidence, Question
from pipeline.answer.reader import TokenReader
from pipeline.runtime.stage_timer import StageTimer


class LocalTextModel:
    """The video-LLM of this process, reading text alone."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def write(self, prompt: str, most_tokens: int) -> str:
        reader = TokenReader(self._backbone, max_new_tokens=most_tokens)
        evidence = Evidence(Question(prompt, ""), (), hits([], []), recent=0, interval=1.0)
        return reader.read(evidence, StageTimer()).text
