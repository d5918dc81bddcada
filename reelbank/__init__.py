"""Reelbank from Python: films go into a bank, answers and moments come out.

    import reelbank

    bank = reelbank.open("films")
    bank.add("talk.mp4")
    print(bank.ask("What was the total?", video="talk.mp4").text)
    for hit in bank.find("the slide with the budget"):
        print(hit.timecode, hit.score, hit.words)

To import it takes milliseconds: models and libraries load with the first call that needs them.
Every error of use is a `reelbank.Error`, whose text is one sentence.
"""

from reelbank.own_packages import refuse_others

refuse_others()

from encoders.errors import UserError as Error  # noqa: E402
from reelbank.bank import Bank, open  # noqa: E402
from reelbank.records import (  # noqa: E402
    Answer,
    Clip,
    Evidence,
    Hit,
    Hits,
    Moment,
    Progress,
    Report,
    Span,
    Video,
)
from reelbank.stream import Stream  # noqa: E402
from reelbank.summary import Chapter, Sentence, Summary  # noqa: E402

__all__ = [
    "Answer",
    "Bank",
    "Chapter",
    "Clip",
    "Error",
    "Evidence",
    "Hit",
    "Hits",
    "Moment",
    "Progress",
    "Report",
    "Sentence",
    "Span",
    "Stream",
    "Summary",
    "Video",
    "open",
]
