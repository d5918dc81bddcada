"""Which pieces of a recognizer become lines."""

from dataclasses import replace

import pytest

from encoders.text.speech.recognizers import SpeechPiece
from encoders.text.speech.speech_filter import SpeechLimits

LIMITS = SpeechLimits(compression=2.4, log_probability=-1.0, no_speech=0.6, repeats=2, row=0.3)
GOOD = SpeechPiece(0.0, 1.0, "The pier was built of oak.", 0.8, 1.2, -0.2, 0.05)


def test_pieces_within_the_limits_stay() -> None:
    edge = GOOD._replace(text="At the edge.", compression=2.4, log_probability=-1.0, no_speech=0.6)
    assert LIMITS.plausible([GOOD, edge]) == [GOOD, edge]


@pytest.mark.parametrize(
    "change",
    [
        {"compression": 2.41},
        {"log_probability": -1.01},
        {"no_speech": 0.61, "log_probability": -0.51},
    ],
)
def test_each_limit_drops_a_piece(change: dict[str, float]) -> None:
    doubtful = SpeechPiece(**{**GOOD._asdict(), **change})
    assert LIMITS.plausible([GOOD, doubtful]) == [GOOD]
    loose = SpeechLimits(compression=9.0, log_probability=-9.0, no_speech=1.0, repeats=9, row=0.0)
    assert loose.plausible([doubtful]) == [doubtful]


def test_words_that_are_sure_outweigh_a_doubt_whether_anybody_speaks() -> None:
    sure = GOOD._replace(no_speech=0.95, log_probability=-0.5)
    assert LIMITS.plausible([sure]) == [sure]


def test_a_line_repeats_at_most_so_often() -> None:
    thanks = [
        GOOD._replace(start=float(i), text=text)
        for i, text in enumerate(
            ["Thank you.", "Thank you", " thank you!", "Thank you. Bye.", "Thank you."]
        )
    ]
    assert LIMITS.plausible(thanks) == [*thanks[:2], *thanks[3:]]
    assert replace(LIMITS, repeats=1).plausible(thanks) == [thanks[0], *thanks[3:]]


def test_a_row_of_one_word_must_be_sure_of_every_word() -> None:
    babble = GOOD._replace(text="do do do, do", least_word=0.01)
    sure = GOOD._replace(text="No, no, no!", least_word=0.4)
    talk = GOOD._replace(text="Row, row, row your boat.", least_word=0.01)
    short = GOOD._replace(text="Go. Go.", least_word=0.01)
    assert LIMITS.plausible([babble, sure, talk, short]) == [sure, talk, short]
    assert replace(LIMITS, row=0.0).plausible([babble]) == [babble]


def test_signs_alone_are_no_words() -> None:
    assert LIMITS.plausible([GOOD._replace(text=" ... ♪")]) == []
