"""Questions about when a thing is in the picture -> the thing: "when is a dog in the picture?" asks
for "dog".

Rules over English phrases; knows no line and no bank. A question that says more of the thing, such
as its colour or its place, is none of these: the names of things do not answer it.
"""

import re

from memory.text import tokenizer

_THING = r"(?:a|an|any|some|the|one) +(?P<thing>[\w' -]+?)"
_THINGS = r"(?:(?:a|an|any|some|the|one) +)?(?P<thing>[\w' -]+?)"
_SHOWN = (
    r"(?:in (?:the |this |a |any )?(?:pictures?|view|sight|video|film|clip|shot|frame|scene|image)"
    r"|on (?:camera|(?:the )?screen)|visible|seen|shown|there|present|to be seen)"
)
_END = rf"(?: +{_SHOWN})?(?: +{_SHOWN})?\W*"
_QUESTIONS = tuple(
    re.compile(one, re.IGNORECASE)
    for one in (
        rf"(?:at what times? |when |where )?(?:is|are|was|were) there {_THINGS}{_END}",
        rf"(?:at what times? |when |where )(?:is|are|was|were) {_THINGS}{_END}",
        rf"(?:is|are|was|were) {_THING} +{_SHOWN}{_END}",
        rf"(?:when |where )?(?:do|does|did) {_THINGS} +(?:appear|show up|come into view){_END}",
        rf"(?:when |where )?(?:can|do|did|could) (?:you|we|i|one) see {_THINGS}{_END}",
        rf"(?:when |where )?can {_THINGS} be seen{_END}",
        rf"(?:does|do|did) (?:the |this )?(?:film|video|clip) show {_THINGS}{_END}",
        rf"(?:show|find)(?: me)? {_THING}{_END}",
    )
)
_SOMEBODY = frozenset(
    "people somebody someone anybody anyone persons".split()  # of whom "person" is the name
)
_MOST_WORDS = 3  # of a name


def asked_thing(question: str) -> str:
    """The thing, such as "dog"; "" where a question asks for something else."""
    for pattern in _QUESTIONS:
        match = pattern.fullmatch(question.strip())
        if match is None:
            continue
        thing = match["thing"].strip().lower()
        if thing in _SOMEBODY:
            return "person"
        words = thing.split()
        is_name = 0 < len(words) <= _MOST_WORDS and tokenizer.STOP.isdisjoint(words)
        return thing if is_name else ""
    return ""


def is_named(thing: str, names: str) -> bool:
    """True if a thing is one of these names, or their kind: a table is a dining table.

    names: separated by commas. A hot dog is no dog, and a teddy bear is no bear.
    """
    asked = tokenizer.words(thing)
    for name in names.split(","):
        words = tokenizer.words(name)
        if asked and words[-len(asked) :] == asked and (words == asked or name not in _NO_KIND):
            return True
    return False


_NO_KIND = frozenset({"hot dog", "teddy bear"})
