"""The text of a prompt as token ids: what precedes the frames, the time tags, and what follows.

Knows the checkpoint's tokenizer and its chat template. Knows no weights, no pixels, and no family:
the text around a frame is the family's (`VideoLLM.frame_text_ids`).
"""

from typing import Any


class PromptText:
    """Token ids of the parts of a prompt."""

    def __init__(
        self, tokenizer: Any, generation_config: Any, preamble: str, suffix_template: str
    ) -> None:
        """tokenizer, generation_config: the checkpoint's. preamble: the text before the first
        frame. suffix_template: the text after the video, with "{question}" in the question's place.
        """
        self._tokenizer, self._generation_config = tokenizer, generation_config
        self._preamble, self._suffix_template = preamble, suffix_template
        self._time_tag_ids: dict[int, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added."""
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return token_ids

    def text_of(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
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
