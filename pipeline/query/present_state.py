"""Questions about the present state: "what is the code now?", "what is the latest code?".

Such a question has one answer where a value changed: the newest. Rules over English words; knows no
bank and no clock.
"""

import re

from pipeline.query.plan import QUOTED
from pipeline.query.time_phrases import parse_video_time
from pipeline.query.wall_phrases import parse_wall_clock

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


def at_any_time(question: str) -> str:
    """The question without the time that it names: "what was the code on Tuesday?" becomes "What
    was the code?". Quoted words stay."""
    quotations = QUOTED.findall(question)
    text = without_present(question) or question
    wall = next(iter(parse_wall_clock(text)), None)
    if wall is not None and not any(wall.words in each for each in quotations):
        text = wall.rest
    phrase = parse_video_time(text)
    if (
        phrase is not None
        and phrase.is_limit
        and not any(phrase.words in each for each in quotations)
    ):
        text = phrase.rest
    return re.sub(r"\s+([?.!,])", r"\1", text)
