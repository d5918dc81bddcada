"""A conversation as HTML. Knows answers and markup; whatever a user or a model says is escaped.

Each answer carries what it read and cites as data, for the timeline to light up; a cited moment is a button that takes the
player there.
"""

import html
import json
from dataclasses import dataclass, replace

from pipeline.config.units import clock_time
from pipeline.schema import Answer

MOST_TURNS = 20  # that are shown
Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and what has been said to it so far."""

    question: str
    id: int = 0  # counts up within a conversation
    text: str = ""
    state: str = "running"  # or done, failed, cancelled
    cited: Spans = ()
    recalled: Spans = ()
    note: str = ""

    def answered(self, answer: Answer, note: str = "") -> "Turn":
        words = " ".join(filter(None, [note, answer.warning]))
        return replace(
            self,
            text=answer.text,
            state="done",
            cited=answer.spans,
            recalled=answer.recalled,
            note=words,
        )


def conversation(turns: tuple[Turn, ...]) -> str:
    """The newest at the bottom."""
    shown = turns[-MOST_TURNS:]
    if not shown:
        return '<div class="talk empty"><p>Answers appear here, with the moments of the video that they rest on.</p></div>'
    parts = [_turn(turn, newest=number == len(shown) - 1) for number, turn in enumerate(shown)]
    return f'<div class="talk" role="log" aria-live="polite" aria-label="Answers">{"".join(parts)}</div>'


def _turn(turn: Turn, newest: bool) -> str:
    question, text = html.escape(turn.question), html.escape(turn.text)
    caret = '<span class="caret" aria-hidden="true"></span>' if turn.state == "running" else ""
    said = f'<p class="said {turn.state}">{text}{caret}</p>'
    cites = "".join(cite(start, end) for start, end in turn.cited)
    seen = f'<p class="cites"><span>Seen at</span> {cites}</p>' if cites else ""
    note = f'<p class="note">{html.escape(turn.note)}</p>' if turn.note else ""
    data = f'data-recalled="{_data(turn.recalled)}" data-cited="{_data(turn.cited)}"'
    kind = "turn newest" if newest else "turn"
    said = f'<p class="asked">{question}</p>{said}'
    return f'<article class="{kind}" tabindex="0" data-id="{turn.id}" {data}>{said}{seen}{note}</article>'


def cite(start: float, end: float) -> str:
    """A button that takes the player to a moment."""
    label = f"{clock_time(start)}–{clock_time(end)}"
    return f'<button type="button" class="cite" data-start="{start:g}" data-end="{end:g}" title="Show {label}">{label}</button>'


def _data(spans: Spans) -> str:
    return html.escape(json.dumps([[round(a, 2), round(b, 2)] for a, b in spans]))
