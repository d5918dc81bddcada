"""Renders a conversation as HTML. Knows answers and markup; all text from users and models is
escaped.

Each answer carries its recalled and cited spans as data attributes, which the timeline highlights.
A cited span is a button that moves the player there.
"""

import html
import json
from dataclasses import dataclass, replace

from pipeline.config.units import format_time
from pipeline.schema import Answer

MAX_EXCHANGES = 20  # shown; older ones are dropped
Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer so far."""

    question: str
    id: int = 0  # increases within a conversation
    text: str = ""
    state: str = "running"  # or done, failed, cancelled
    cited: Spans = ()
    recalled: Spans = ()
    note: str = ""

    def with_answer(self, answer: Answer, note: str = "") -> "Exchange":
        note_text = " ".join(filter(None, [note, answer.warning]))
        return replace(
            self,
            text=answer.text,
            state="done",
            cited=answer.spans,
            recalled=answer.recalled,
            note=note_text,
        )


def render_conversation(exchanges: tuple[Exchange, ...]) -> str:
    """All exchanges, the latest at the bottom."""
    visible = exchanges[-MAX_EXCHANGES:]
    if not visible:
        return (
            '<div class="talk empty"><p>Answers appear here, with the moments of the video '
            "that they rest on.</p></div>"
        )
    parts = [
        _exchange(exchange, newest=number == len(visible) - 1)
        for number, exchange in enumerate(visible)
    ]
    return (
        '<div class="talk" role="log" aria-live="polite" aria-label="Answers">'
        f"{''.join(parts)}</div>"
    )


def _exchange(exchange: Exchange, newest: bool) -> str:
    question, text = html.escape(exchange.question), html.escape(exchange.text)
    caret = '<span class="caret" aria-hidden="true"></span>' if exchange.state == "running" else ""
    answer = f'<p class="said {exchange.state}">{text}{caret}</p>'
    buttons = "".join(citation_button(start, end) for start, end in exchange.cited)
    citations = f'<p class="cites"><span>Seen at</span> {buttons}</p>' if buttons else ""
    note = f'<p class="note">{html.escape(exchange.note)}</p>' if exchange.note else ""
    data = f'data-recalled="{_data(exchange.recalled)}" data-cited="{_data(exchange.cited)}"'
    kind = "turn newest" if newest else "turn"
    body = f'<p class="asked">{question}</p>{answer}'
    return (
        f'<article class="{kind}" tabindex="0" data-id="{exchange.id}" {data}>'
        f"{body}{citations}{note}</article>"
    )


def citation_button(start: float, end: float) -> str:
    """A button that moves the player to a cited span, in seconds."""
    label = f"{format_time(start)}–{format_time(end)}"
    return (
        f'<button type="button" class="cite" data-start="{start:g}" data-end="{end:g}" '
        f'title="Show {label}">{label}</button>'
    )


def _data(spans: Spans) -> str:
    return html.escape(json.dumps([[round(a, 2), round(b, 2)] for a, b in spans]))
