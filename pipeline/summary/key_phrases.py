"""The title of a chapter, in the words of the film: a heading that shows in it, or its key phrases.

A key phrase is a run of telling words that stands in one sentence as it is (as in RAKE, Rose et al.
2010), weighed by how often its words come in the chapter and in how few other chapters they come.
Knows sentences; no bank.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from memory.text import tokenizer
from pipeline.summary.sentences import PRINTED, Sentence
from pipeline.summary.word_rows import content_words

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_MOST_WORDS = 3  # of a phrase
_MOST_CHARS = 48  # of a phrase in a script without blanks
_HEADING_WORDS = range(2, 10)
_LARGER = 1.15  # a heading is printed so many times as high as the rows beside it
_FIRST_WORDS = 6  # of a chapter without any phrase
# words that say little in a title, beside the stop words of the search
_PLAIN = frozenset(
    """again almost already always another around away back became become began begin better bit
    both bring brought call called came come comes could day days don down each else end enough
    even ever every everybody everyone everything few first found gave get gets getting give given
    go goes going gone good got great half hello help hold i'm i've it's keep kept kind knew know
    last later least left let let's like little live long look looked lot made make makes making
    many may maybe might more most much must near need needs never new next night no nobody not
    nothing now number often old one ones onto own part people place put quite really right round
    said saw second see seen set shall show side since small something sometimes soon still stood
    stop sure take taken takes tell than thank that's thing things think third though thought
    three today together tonight took tried try turn turned twice two us use used using want
    wanted way week weeks well went whole within without won't wouldn't year years yes yet
    you're""".split()
)


def title(chapter: Sequence[Sentence], others: Sequence[Sequence[Sentence]]) -> str:
    """The title of a chapter; "" where it has no words.

    others: the other chapters of the film. Each part between commas stands in a sentence as it is.
    """
    heading = _heading(chapter)
    if heading:
        return heading
    phrases = key_phrases(chapter, others)
    if phrases:
        return ", ".join(phrases)
    first = next((each.text for each in chapter if each.text.strip()), "")
    words = first.split()
    return " ".join(words[:_FIRST_WORDS])[:_MOST_CHARS].rstrip(" ,;:.")


def key_phrases(
    chapter: Sequence[Sentence], others: Sequence[Sequence[Sentence]], most: int = 2
) -> list[str]:
    """The phrases that tell a chapter from the others, the best first; no two share a word."""
    counts = Counter(_words(chapter))
    spread = Counter(word for each in (chapter, *others) for word in set(_words(each)))
    chapters = 1 + len(others)
    weight = {
        word: (count - 0.7) * math.log1p(chapters / spread[word]) for word, count in counts.items()
    }
    scores: dict[str, float] = {}
    for sentence in chapter:
        for phrase in _phrases(sentence.text):
            words = content_words(phrase)
            score = sum(weight.get(word, 0.0) for word in words) / math.sqrt(max(len(words), 1))
            scores.setdefault(phrase, score)
    chosen: list[str] = []
    taken: set[str] = set()
    for phrase in sorted(scores, key=lambda each: -scores[each]):  # stable: the earlier first
        own = set(content_words(phrase))
        if own and not own & taken:
            chosen.append(phrase)
            taken |= own
        if len(chosen) == most:
            break
    return chosen


def _words(chapter: Sequence[Sentence]) -> list[str]:
    return [word for sentence in chapter for word in content_words(sentence.text)]


def _phrases(text: str) -> Iterator[str]:
    """Runs of telling words, as they stand in the text."""
    run: list[re.Match[str]] = []
    for match in _WORD.finditer(text):
        is_joined = bool(run) and text[run[-1].end() : match.start()].isspace()
        if run and (not is_joined or not _is_telling(match[0])):
            yield from _parts(text, run)
            run = []
        if _is_telling(match[0]):
            run.append(match)
    if run:
        yield from _parts(text, run)


def _parts(text: str, run: Sequence[re.Match[str]]) -> Iterator[str]:
    """A run, or pieces of a long one."""
    for first in range(max(len(run) - _MOST_WORDS, 0) + 1):
        part = run[first : first + _MOST_WORDS]
        phrase = text[part[0].start() : part[-1].end()]
        if len(phrase) <= _MOST_CHARS:
            yield phrase
    if len(run) > 1:
        yield from (match[0] for match in run if len(match[0]) <= _MOST_CHARS)


def _is_telling(word: str) -> bool:
    lower = word.lower().replace("\u2019", "'")
    bare = lower.split("'")[0]
    known = tokenizer.STOP | _PLAIN
    return not ({lower, bare} & known) and (len(word) > 2 or not word.isascii() or word.isupper())


def _heading(chapter: Sequence[Sentence]) -> str:
    """The first print of a chapter that is larger than the print beside it, or ""."""
    rows = [each.lines[0] for each in chapter if each.kind == PRINTED and each.lines[0].box]
    for line in rows:
        beside = [other for other in rows if other.start < line.end and other.end > line.start]
        if len(beside) < 2 or len(line.text.split()) not in _HEADING_WORDS:
            continue
        heights = [_height(other.box) for other in beside if other is not line]
        tops = [other.box[1] for other in beside if other.box and other is not line]
        if line.box and line.box[1] < min(tops) and _height(line.box) >= _LARGER * median(heights):
            return line.text
    return ""


def _height(box: tuple[float, float, float, float] | None) -> float:
    return 0.0 if box is None else box[3] - box[1]
