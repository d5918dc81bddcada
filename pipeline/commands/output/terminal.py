"""Text of commands in a terminal: an answer with its citations."""

from pipeline.config.units import format_span, format_time
from pipeline.schema import Answer, CitedLine


def format_answer(answer: Answer) -> str:
    """Citations, warning and figures of an answer as lines of text."""
    if answer.spans:
        lines = ["seen at " + ", ".join(format_span(a, b) for a, b in answer.spans)]
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
    lines.append(
        f"{answer.frames_read} frames, {answer.visual_tokens} visual tokens; seconds: {stages}"
    )
    return "\n".join(lines)


def _channel(line: CitedLine) -> str:
    """Such as "subtitle"; with a hint when the answer does not use the line."""
    return line.channel if line.read else f"beside it, {line.channel}"
