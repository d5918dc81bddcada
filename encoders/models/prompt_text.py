"""The text of a prompt as token ids: what precedes the frames, the time tags, and what follows.

Knows the checkpoint's tokenizer and its chat template, and the marks of thoughts and answers that
are tokens of it. Knows no weights, no pixels, and no family: the text around a frame is the
family's (`VideoLLM.frame_text_ids`).
"""

from dataclasses import dataclass
from typing import Any

# tokens around a thought and around an answer; nobody reads them
_MARKS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """The tokens around what a model thinks before it answers."""

    begin: int
    end: int
    opened: bool  # the prompt ends inside a thought
    expected: bool  # the model thinks, so there has to be room for it


class PromptText:
    """Token ids of the parts of a prompt."""

    def __init__(
        self,
        tokenizer: Any,
        generation_config: Any,
        preamble: str,
        suffix_template: str,
        *,
        thinks: bool = False,
    ) -> None:
        """tokenizer, generation_config: the checkpoint's. preamble: the text before the first
        frame. suffix_template: the text after the video, with "{question}" in the question's place.
        thinks: expect a thought before the answer.
        """
        self._tokenizer, self._generation_config = tokenizer, generation_config
        self._preamble, self._suffix_template = preamble, suffix_template
        self._time_tag_ids: dict[int, list[int]] = {}
        marks = {text: self._token(text) for text in _MARKS}
        self._unread = {token for token in marks.values() if token is not None}
        begin, end = marks["<think>"], marks["</think>"]
        opened = suffix_template.rstrip().endswith("<think>")
        # None for a model that has no tokens for thoughts
        self.thought = (
            None
            if begin is None or end is None
            else ThoughtMarks(begin, end, opened, expected=opened or thinks)
        )

    @property
    def tokenizer(self) -> Any:
        """Of the checkpoint."""
        return self._tokenizer

    def _token(self, text: str) -> int | None:
        """The id of a text that is one token; None if it is none."""
        token = self._tokenizer.convert_tokens_to_ids(text)
        is_known = token is not None and self._tokenizer.convert_ids_to_tokens(token) == text
        return int(token) if is_known else None

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added."""
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return token_ids

    def text_of(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens and without marks of thoughts and
        answers.
        """
        readable = [token for token in ids if token not in self._unread] if self._unread else ids
        text: str = self._tokenizer.decode(readable, skip_special_tokens=True)
        return text

    def preamble_ids(self) -> list[int]:
        """Token ids before the first frame; the attention sink of the sliding window."""
        return self.ids(self._preamble)

    def suffix_ids(self, question: str) -> list[int]:
        """Token ids after the video (and `after_video`): the question and the start of the
        assistant's turn.
        """
        return self.ids(self._suffix_template.replace("{question}", question))

    def time_tag_ids(self, seconds: float) -> list[int]:
        """The time tag of a frame, in whole seconds, rounded down: "[mm:ss]", with minutes above
        59, or "[hh:mm:ss]" if this tokenizer needs fewer tokens for it. So a frame late in a long
        video costs little more than an early one.
        """
        whole = int(seconds + 1e-6)
        if whole not in self._time_tag_ids:
            minutes, rest = divmod(whole, 60)
            by_minutes = self.ids(f"[{minutes:02d}:{rest:02d}]")
            by_hours = self.ids(f"[{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}]")
            self._time_tag_ids[whole] = min(by_minutes, by_hours, key=len)  # the first one on a tie
        return self._time_tag_ids[whole]

    def stop_ids(self) -> set[int]:
        """Token ids that end an answer."""
        ends = self._generation_config.eos_token_id
        ends = self._tokenizer.eos_token_id if ends is None else ends
        return set(ends) if isinstance(ends, list) else {ends}
