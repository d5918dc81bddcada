"""What Whisper writes where nobody speaks: dropped by what the model knows of its own certainty.

docs/measurements/2026-11_speech_epyc-2core.md has the effect of each limit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.text.speech.recognizers import SpeechPiece


@dataclass(frozen=True, slots=True)
class SpeechLimits:
    """The least that a piece must fulfil.

    compression: most characters by compressed characters of a window. log_probability: least mean
    of a window's tokens. no_speech: greatest probability that a window has no speech, where the
    words are half as unsure as log_probability allows; alone it drops windows full of good words.
    repeats: most times that the same words may follow each other.
    row: least probability of every word, in a line of three or more that are all the same: "do do
    do", as of babble. "No, no, no!" is surer.
    """

    compression: float
    log_probability: float
    no_speech: float
    repeats: int
    row: float

    def plausible(self, pieces: Sequence[SpeechPiece]) -> list[SpeechPiece]:
        """The pieces within the limits, in their order."""
        good: list[SpeechPiece] = []
        last, count = "", 0
        for piece in pieces:
            if not self._is_certain(piece):
                continue
            words = "".join(letter for letter in piece.text.lower() if letter.isalnum())
            count = count + 1 if words == last else 1
            last = words
            if words and count <= self.repeats:
                good.append(piece)
        return good

    def _is_certain(self, piece: SpeechPiece) -> bool:
        if piece.least_word < self.row and _is_row(piece.text):
            return False
        return (
            piece.compression <= self.compression
            and piece.log_probability >= self.log_probability
            and (
                piece.no_speech <= self.no_speech
                or piece.log_probability >= self.log_probability / 2
            )
        )


def _is_row(text: str) -> bool:
    """True for one word again and again."""
    words = re.findall(r"\w+", text.lower())
    return len(words) > 2 and len(set(words)) == 1
