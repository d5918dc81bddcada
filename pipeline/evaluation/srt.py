"""Sentences of a made film as SubRip subtitles."""

from collections.abc import Iterable

from pipeline.config.units import format_stamp


def srt(cues: Iterable[tuple[float, float, str]]) -> str:
    """The text of a .srt file. cues: start and end in seconds, and the words, in time order."""
    return "\n".join(
        f"{number}\n{format_stamp(start, ',')} --> {format_stamp(end, ',')}\n{words}\n"
        for number, (start, end, words) in enumerate(cues, start=1)
    )
