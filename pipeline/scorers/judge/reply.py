"""What a judge may reply, read strictly: anything else is no score.

- yes_no_score: a dictionary {'pred': 'yes', 'score': 4}, in Python or JSON, as the prompt of
  Video-ChatGPT asks for (arXiv 2306.05424; used for MSVD-QA, ActivityNet-QA and RVS)
- yes_no: the word yes or no
- score: a number

Knows no server.
"""

import ast
import math
import re
from collections.abc import Mapping

from encoders.errors import UserError

FORMS = ("yes_no_score", "yes_no", "score")
_FENCE = re.compile(r"\A```\w*\s*(.*?)\s*```\Z", re.DOTALL)
_MOST_LETTERS = 80  # of a reply in a sentence


def names(form: str, most: float) -> Mapping[str, float]:
    """The numbers that a form gives, with their best values."""
    best = {"right": 1.0, "score": most}
    return {
        name: value
        for name, value in best.items()
        if form == "yes_no_score" or (name == "right") == (form == "yes_no")
    }


def parse(reply: str, form: str, most: float) -> dict[str, float]:
    """The numbers of a reply. UserError on one that has another form or is out of range."""
    text = reply.strip()
    fence = _FENCE.match(text)
    text = fence[1] if fence else text
    if form == "yes_no_score":
        numbers = _of_dictionary(text)
    elif form == "yes_no":
        numbers = {"right": _yes_no(text)}
    else:
        numbers = {"score": _number(text)}
    found = {name: value for name, value in numbers.items() if value is not None}
    if found.keys() != names(form, most).keys() or not 0 <= found.get("score", 0.0) <= most:
        wanted = {
            "yes_no_score": f"a dictionary with pred, yes or no, and score, from 0 to {most:g},",
            "yes_no": "yes or no",
            "score": f"a number from 0 to {most:g}",
        }[form]
        raise UserError(f"the judge replied {_short(reply)}, where {wanted} is asked for")
    return found


def _of_dictionary(text: str) -> dict[str, float | None]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    pred, score = value.get("pred"), value.get("score")
    return {
        "right": _yes_no(pred) if isinstance(pred, str) else None,
        "score": _number(str(score)) if type(score) in (int, float) else None,
    }


def _yes_no(text: str) -> float | None:
    word = text.strip().strip("\"'").rstrip(".").casefold()
    return {"yes": 1.0, "no": 0.0}.get(word)


def _number(text: str) -> float | None:
    try:
        value = float(text.strip().rstrip("."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain[:_MOST_LETTERS] + ("..." if len(plain) > _MOST_LETTERS else ""))
