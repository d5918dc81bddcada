"""Splits text into search words: the same way for stored lines and for questions.

Knows no language model and no database. Ignores case, accents and letter forms; strips English
endings (Snowball). Scripts without spaces between words (Chinese, Japanese, Thai, ...) and Hangul
are split into letters: a part of a run is then found as two or more letters in a row.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"  # Kana, Han, Hangul
    "\uf900-\ufaff\U00020000-\U0003ffff"  # more Han
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_KANA_MARKS = "\u3099\u309a"  # the dots that distinguish Kana
_MARKED = range(0x0E00, 0x1800)  # scripts whose marks are vowels: never removed
_QUOTED = re.compile(
    '["\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d]([^"\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d]{1,200})["\u201c\u201d\u00ab\u00bb\u300d]'
)

# words without content for a search; compared before endings are stripped
STOP = frozenset(
    """a about after all also am an and any anyone are as at be because been before being but by
    can clip could did do does doing down during for from further had has have having he her
    here hers him his how i if in into is it its just me mention mentioned moment my of off on
    once only or other our out over own s said same say says she should so some someone speaker
    such t talk talked talking tell than that the their them then there these they this those
    through to told too under until up very video was we were what when where which while who
    whom why will with would you your film""".split()
)


@dataclass(frozen=True, slots=True)
class Query:
    """The terms of a search."""

    terms: tuple[tuple[str, ...], ...]  # each one word, or letters in a row
    phrases: tuple[tuple[str, ...], ...] = ()  # quoted: a line must contain them all

    @property
    def is_empty(self) -> bool:
        return not self.terms and not self.phrases


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return [word for token in _WORD.findall(_plain(text)) for word in (_stem(token),)]


def query(text: str, ignore: Collection[str] = ()) -> Query:
    """The search terms of a question: its words without stop words, and without `ignore` (lower
    case), unless no other words are left."""
    phrases = tuple(tuple(phrase) for phrase in map(words, _QUOTED.findall(text)) if phrase)
    tokens = _WORD.findall(_plain(text))
    content = [token for token in tokens if token not in STOP] or tokens
    content = [token for token in content if token not in ignore] or content
    terms: dict[tuple[str, ...], None] = {}
    for run in _runs(content):
        if len(run) == 1:
            terms[(_stem(run[0]),)] = None
        else:
            terms |= dict.fromkeys((a, b) for a, b in pairwise(run))
    return Query(tuple(terms), phrases)


def count_term(tokens: list[str], term: tuple[str, ...]) -> int:
    """How often a term occurs in a text's words."""
    if len(term) == 1:
        return tokens.count(term[0])
    size = len(term)
    return sum(tuple(tokens[i : i + size]) == term for i in range(len(tokens) - size + 1))


def index_text(text: str) -> str:
    """The text for the full-text index: the words with spaces between them."""
    return " ".join(words(text))


def _runs(tokens: Iterable[str]) -> list[list[str]]:
    """Each word alone; letters of scripts without spaces together."""
    runs: list[list[str]] = []
    open_run = False
    for token in tokens:
        unspaced = len(token) == 1 and re.match(f"[{_UNSPACED}]", token) is not None
        if unspaced and open_run:
            runs[-1].append(token)
        else:
            runs.append([token])
        open_run = unspaced
    return runs


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = (
        c
        for c in decomposed
        if c in _KANA_MARKS or ord(c) in _MARKED or not unicodedata.combining(c)
    )
    # U+0640 only stretches Arabic letters
    return unicodedata.normalize("NFC", "".join(letters)).replace("\u0640", "")


@lru_cache(maxsize=1 << 16)
def _stem(token: str) -> str:
    return str(_stemmer().stemWord(token)) if token.isascii() and token.isalpha() else token


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import snowballstemmer  # here: it imports forty languages, and most commands need none

    return snowballstemmer.stemmer("english")
