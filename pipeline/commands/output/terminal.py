"""Text of commands in a terminal: an answer with its citations."""

from pipeline.config.units import format_span, format_time
from pipeline.schema import Answer, CitedBy, CitedLine

_CITED_BY: dict[CitedBy, str] = {
    "attention": "",
    "model": ", as the model says",
    "search": ", the best of the search; the model names no moment",
}


def format_answer(answer: Answer) -> str:
    """Citations, warning and figures of an answer as lines of text."""
    if answer.spans:
        spans = ", ".join(format_span(a, b) for a, b in answer.spans)
        lines = [f"seen at {spans}{_CITED_BY[answer.cited_by]}"]
    else:
        lines = [
            "no moment of the video shows it" if not answer.shown else "no single moment stands out"
        ]
    lines += [
        f"{_channel(line)} at {format_time(line.start)} ({line.start:.1f} s): {line.text}"
        for line in answer.lines[:3]
    ]
    lines += [f"warning: {answer.warning}"] if answer.warning else []
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in answer.seconds.items())
    read = f"{answer.visual_tokens} visual tokens"
    if answer.usage is not None:
        cost = "" if answer.usage.cost is None else f", cost {answer.usage.cost:g}"
        read = (
            f"{answer.usage.prompt_tokens} tokens sent, {answer.usage.answer_tokens} received{cost}"
        )
    lines.append(f"{answer.frames_read} frames, {read}; seconds: {stages}")
    return "\n".join(lines)


def _channel(line: CitedLine) -> str:
    """Such as "subtitle"; with a hint when the answer does not use the line."""
    return line.channel if line.read else f"beside it, {line.channel}"
