"""Text of commands in a terminal: an answer with its citations."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from pipeline.config.units import format_span, format_time
from pipeline.schema import CHANNEL_WORDS, PICTURE, Answer, CitedBy, CitedLine

_CITED_BY: dict[CitedBy, str] = {
    "attention": "",
    "model": ", as the model says",
    "search": ", the best of the search; the model names no moment",
    "quote": "",
    "finding": "",
}


def format_answer(answer: Answer) -> str:
    """Citations, warning and figures of an answer as lines of text."""
    if answer.spans:
        where = [f"at {_spans(answer.spans)}"]
        if answer.videos:
            cited = sorted(answer.videos, key=lambda each: each.video_id != answer.video_id)
            where = [
                f"in {Path(each.path).name} at {_spans(each.spans)}" for each in cited if each.spans
            ]
        word, by = CHANNEL_WORDS[answer.channel or PICTURE], _CITED_BY[answer.cited_by]
        lines = [f"{word} {'; '.join(where)}{_dates(answer)}{by}"]
    elif answer.shown:
        lines = ["no single moment stands out"]
    else:
        lines = ["no moment of the video shows it" if answer.frames_read else "nothing is cited"]
    if answer.confidence is not None:
        channel = f"{answer.channel}, " if answer.channel else ""
        lines[0] += f"; {channel}confidence {answer.confidence:.2f}"
    beside = [line for line in answer.lines if not (line.read and answer.cited_by == "quote")]
    names = {each.video_id: f" in {Path(each.path).name}" for each in answer.videos}
    lines += [
        f"{_channel(line)}{names.get(line.video_id, '')} at {format_time(line.start)} "
        f"({line.start:.1f} s): {line.text}"
        for line in beside[:3]
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


def _spans(spans: Sequence[tuple[float, float]]) -> str:
    return ", ".join(format_span(a, b) for a, b in spans)


def _dates(answer: Answer) -> str:
    """When the first spans were, by the clock on the wall; "" where nobody knows."""
    starts = (datetime.fromtimestamp(start) for start, _ in answer.wall_clock[:3])
    return "".join(f", {start:%A %Y-%m-%d %H:%M:%S}" for start in starts)


def _channel(line: CitedLine) -> str:
    """Such as "subtitle"; with a hint when the answer does not use the line."""
    return line.channel if line.read else f"beside it, {line.channel}"
