"""Texts -> token ids of CLIP (arXiv 2103.00020): byte pairs of the text in lower case.

The pairs are those of the file that open_clip carries, which is read without importing open_clip:
that takes two seconds, as it loads transformers, torchvision and timm. Equal to open_clip's own
tokenizer (tests/unit/encoders/models/test_clip_text.py).
"""

import functools
import gzip
import html
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import regex
import torch
from torch import Tensor

_PAIRS = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894  # of the file's pairs, the most frequent first
_END_OF_WORD = "</w>"
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)


class ClipTokenizer:
    """Byte pair encoding with the vocabulary of CLIP."""

    def __init__(self, length: int) -> None:
        """length: tokens of a row, start and end included. FileNotFoundError without open_clip."""
        self._length = length
        self._ranks, self._ids = _vocabulary()
        # a byte as a letter that may stand in the file
        self._letter_of = dict(zip(_bytes(), _letters(), strict=True))
        self._encode_word = functools.lru_cache(1 << 14)(self._merge)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, length] int64. What is longer is cut before its end token."""
        rows = torch.zeros((len(texts), self._length), dtype=torch.long)
        end = self._ids[_END]
        for row, text in zip(rows, texts, strict=True):
            ids = [self._ids[_START]]
            for word in _WORDS.findall(_cleaned(text)):
                ids.extend(self._encode_word(word))
            ids = [*ids[: self._length - 1], end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _merge(self, word: str) -> tuple[int, ...]:
        """The ids of a word: the most frequent pair of neighbours is joined until none is left."""
        if word in (_START, _END):
            return (self._ids[word],)
        parts = [self._letter_of[byte] for byte in word.encode()]
        parts[-1] += _END_OF_WORD
        while len(parts) > 1:
            ranked = [self._ranks.get(f"{a} {b}", _MERGES) for a, b in pairwise(parts)]
            best = min(ranked)
            if best == _MERGES:
                break
            first, second = parts[ranked.index(best)], parts[ranked.index(best) + 1]
            joined, at = [], 0
            while at < len(parts):
                if parts[at : at + 2] == [first, second]:
                    joined.append(first + second)
                    at += 2
                else:
                    joined.append(parts[at])
                    at += 1
            parts = joined
        return tuple(self._ids[part] for part in parts)


def _cleaned(text: str) -> str:
    """Repaired, in lower case, with single blanks."""
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy  # changes no plain text; importing it takes 0.05 s

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@functools.cache  # every model has the same
def _vocabulary() -> tuple[dict[str, int], dict[str, int]]:
    """The rank of each pair, and the id of each token."""
    lines, letters = _merges(), _letters()
    tokens = [
        *letters,
        *(letter + _END_OF_WORD for letter in letters),
        *"\n".join(lines).replace(" ", "").split("\n"),
        _START,
        _END,
    ]
    ranks = dict(zip(lines, range(len(lines)), strict=True))
    return ranks, dict(zip(tokens, range(len(tokens)), strict=True))


def _merges() -> list[str]:
    """The pairs of the vocabulary, such as "t h", the most frequent first."""
    spec = find_spec("open_clip")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise FileNotFoundError("open_clip is not installed")
    text = gzip.decompress((Path(folders[0]) / _PAIRS).read_bytes()).decode()
    return text.split("\n", _MERGES + 1)[1:-1]


def _bytes() -> list[int]:
    """Every byte; those that are a printable letter come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    return printable + [byte for byte in range(256) if byte not in printable]


def _letters() -> list[str]:
    """What stands for each byte in the file: the letter itself, or one beyond the first 256."""
    own = [byte for byte in _bytes() if chr(byte).isprintable() and byte not in (32, 160)]
    return [chr(byte) for byte in own] + [chr(256 + n) for n in range(256 - len(own))]
