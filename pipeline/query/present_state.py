"""Questions about the present state: "what is the code now?", "what is the latest code?".

Such a question has one answer where a value changed: the newest. Rules over English words; knows no
bank and no clock.
"""

import re

from pipeline.query.plan import QUOTED

_WORDS = re.compile(
    r"(?<!until )(?<!till )(?<!up to )(?<!by )(?<!from )\b(?:as of |right )?now\b(?! and then)"
    r"|\b(?:at the moment|at present|currently)\b(?! (?:when|of|that)\b)"
    r"|(?<=\bthe )(?:current|latest|newest|most recent)(?= +\w)",
    re.IGNORECASE,
)


def without_present(question: str) -> str | None:
    """The question without the words that ask for the present state; None where it has none, and
    where they are quoted."""
    match = _WORDS.search(question)
    if match is None or any(match.group() in quotation for quotation in QUOTED.findall(question)):
        return None
    rest = " ".join((question[: match.start()] + " " + question[match.end() :]).split())
    rest = re.sub(r"\s+([?.!,])", r"\1", rest).strip(" ,")
    return rest[:1].upper() + rest[1:] if re.search(r"\w{2}", rest) else None
