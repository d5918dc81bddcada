"""Whether a question is English, and what kind of words answers it: a number, a time, a name or a
person.

Rules over words; knows no line and no model.
"""

import re
from collections.abc import Callable

from memory.text import tokenizer

_NUMBERS = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion half quarter dozen once twice""".split()
)
_TIMES = frozenset(
    """january february march april may june july august september october november december monday
    tuesday wednesday thursday friday saturday sunday christmas easter spring summer autumn winter
    morning noon afternoon evening night midnight today tomorrow yesterday week month year
    o'clock""".split()
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|far|old|high|tall|big|large|small|wide|deep|heavy|hot|cold|fast"
    r"|often)\b|\b(?:prices?|costs?|age|salary|wages|temperature)\b"
)
_ASKS_TIME = re.compile(r"\bwhen\b|\b(?:what|which) (?:time|hour|day|date|month|year)\b")
_ASKS_NAME = re.compile(r"\bnames?\b|\b(?:is|are|was|were) [\w' ]+ called\b")
_ASKS_PERSON = re.compile(r"\b(?:who|whom|whose)\b")
_PERSONS = frozenset(
    """i we he she they me us him them my our somebody someone everybody nobody man men woman women
    boy boys girl girls child children people person mother father parents brother brothers sister
    sisters son sons daughter daughters uncle aunt grandmother grandfather husband wife friend
    friends neighbour neighbours neighbor neighbors colleague colleagues team company foundation
    ministry government police army navy committee university school customers students""".split()
)
# a capital inside a sentence, as in "a banker called Lorenz"
_NAME = re.compile(r"(?<!^)(?<![.!?:] )\b[^\W\d_a-zß-ÿ][^\W\d_]+")
_WORD = re.compile(r"[^\W_]+")

_ASKING = frozenset("who whom whose what which when where why how".split())
_ENGLISH_SHARE = 0.3  # of function words: English questions have more, all others had at most 0.17

Matches = Callable[[str], bool]


def is_english(question: str) -> bool:
    """Whether a question has an English question word, or many English words of other kinds that
    carry no content. The judge of lines and the rules here know no other language.
    """
    words = [word.lower() for word in _WORD.findall(question)]
    plain = sum(word in tokenizer.STOP for word in words)
    return any(word in _ASKING for word in words) or plain >= _ENGLISH_SHARE * max(1, len(words))


def expected(question: str) -> Matches | None:
    """The test that a text must pass to answer this question; None where any text may."""
    lower = question.lower()
    for asks, matches in _RULES:
        if asks.search(lower):
            return matches
    return None


def has_number(text: str) -> bool:
    """Digits, or a word such as "forty"."""
    return any(word[0].isdigit() or word in _NUMBERS for word in _WORD.findall(text.lower()))


def has_time(text: str) -> bool:
    """A number, a day, a month, a season, or a part of the day."""
    return has_number(text) or any(
        word in _TIMES or word.removesuffix("s") in _TIMES for word in _WORD.findall(text.lower())
    )


def has_name(text: str) -> bool:
    """A word with a capital inside a sentence. True for text without any capital, which a
    recognizer wrote.
    """
    return text == text.lower() or any(not has_time(name) for name in _NAME.findall(text))


def has_person(text: str) -> bool:
    """A name, or a word for somebody."""
    return has_name(text) or any(word in _PERSONS for word in _WORD.findall(text.lower()))


_RULES = (
    (_ASKS_TIME, has_time),
    (_ASKS_NUMBER, has_number),
    (_ASKS_NAME, has_name),
    (_ASKS_PERSON, has_person),
)
