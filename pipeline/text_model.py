"""The role of a language model that answers a text, without any video: what planner=model asks.

A judge of answers, or whatever else asks for words, needs no more than this.
"""

from typing import Protocol


class TextModel(Protocol):
    """Text -> text. `pipeline.moments.local_text_model` has that of this process, and
    `pipeline.endpoint.endpoint.Endpoint` is one behind an address.
    """

    def write(self, prompt: str, most_tokens: int) -> str:
        """The answer to a prompt, of at most so many tokens, without a thought before it.
        UserError if the model gives none.
        """
        ...
