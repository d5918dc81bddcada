"""Text -> the words that are searched. The same for what is stored and for what is asked.

Knows no language model and no database. Case, accents and the forms of a letter do not count; English endings are cut off
(Snowball). Scripts that put no blanks between words (Chinese, Japanese, Thai, ...) and Hangul are taken letter by letter, so
that a part of a run is found as two or more letters in a row.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"  # Kana, Han, Hangul
    "\uf900-\ufaff\U00020000-\U0003ffff"  # more Han
)
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_KEPT_MARKS = "\u3099\u309a"  # the dots that tell Kana apart
_MARKED = range(0x0E00, 0x1800)  # scripts whose marks are vowels: never dropped
_QUOTED = re.compile(
    '["\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d]([^"\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d]{1,200})["\u201c\u201d\u00ab\u00bb\u300d]'
)

# Words that say nothing about what is looked for; matched before endings are cut
STOP = frozenset(
    """a about after all also am an and any anyone are as at be because been before being but by can clip could did do does
    doing down during for from further had has have having he her here hers him his how i if in into is it its just me mention
    mentioned moment my of off on once only or other our out over own s said same say says she should so some someone speaker
    such t talk talked talking tell than that the their them then there these they this those through to told too under until
    up very video was we were what when where which while who whom why will with would you your film""".split()
)


@dataclass(frozen=True, slots=True)
class Query:
    """What a text is searched for."""

    terms: tuple[tuple[str, ...], ...]  # each one word, or letters that stand in a row
    phrases: tuple[tuple[str, ...], ...] = ()  # quoted: lines without them do not count

    @property
    def empty(self) -> bool:
        return not self.terms and not self.phrases


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return [word for token in _WORD.findall(_plain(text)) for word in (_stem(token),)]


def query(text: str, less: Collection[str] = ()) -> Query:
    """What a question looks for: its words without those that say nothing, and without `less` (lower case), unless there are no
    others."""
    phrases = tuple(tuple(found) for found in map(words, _QUOTED.findall(text)) if found)
    tokens = _WORD.findall(_plain(text))
    telling = [token for token in tokens if token not in STOP] or tokens
    telling = [token for token in telling if token not in less] or telling
    terms: dict[tuple[str, ...], None] = {}
    for run in _runs(telling):
        if len(run) == 1:
            terms[(_stem(run[0]),)] = None
        else:
            terms |= dict.fromkeys((a, b) for a, b in pairwise(run))
    return Query(tuple(terms), phrases)


def holds(tokens: list[str], term: tuple[str, ...]) -> int:
    """How often a term stands in a text's words."""
    if len(term) == 1:
        return tokens.count(term[0])
    size = len(term)
    return sum(tuple(tokens[i : i + size]) == term for i in range(len(tokens) - size + 1))


def indexed(text: str) -> str:
    """What goes into the index: the words with blanks between them."""
    return " ".join(words(text))


def _runs(tokens: Iterable[str]) -> list[list[str]]:
    """Each word alone, letters of scripts without blanks together."""
    runs: list[list[str]] = []
    open_run = False
    for token in tokens:
        alone = len(token) == 1 and re.match(f"[{_ALONE}]", token) is not None
        if alone and open_run:
            runs[-1].append(token)
        else:
            runs.append([token])
        open_run = alone
    return runs


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    kept = (
        c for c in apart if c in _KEPT_MARKS or ord(c) in _MARKED or not unicodedata.combining(c)
    )
    # the stretcher of Arabic letters
    return unicodedata.normalize("NFC", "".join(kept)).replace("\u0640", "")


@lru_cache(maxsize=1 << 16)
def _stem(token: str) -> str:
    return str(_stemmer().stemWord(token)) if token.isascii() and token.isalpha() else token


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import snowballstemmer  # here: it brings forty languages, and most commands need none

    return snowballstemmer.stemmer("english")
