"""Cues of subtitle files: what stands in a .srt, .vtt, .ass, .ssa or .json file, and when it is
shown.

Knows pysubs2 for .ass and .ssa. SubRip and WebVTT are read here: pysubs2 1.8 takes a line with two
inline time tags of WebVTT for the times of a cue, and everything between two angle brackets for a
tag. Words that a cue repeats from the cue before it count once (rolling captions).
"""

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from encoders.text.decoding import decode

Cue = tuple[float, float, str]  # start and end in seconds, text

_TIME = r"(-?)\s*(?:(\d+):)?(\d+):(\d+)(?:[.,](\d+))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?=\s|$)")
_ARROW = re.compile(r"\s*-?\d\S*[:.,]\S*\s*-->")  # a line of times, readable or not
# the tags of SubRip and WebVTT; other words between angle brackets are words
_TAGS = re.compile(
    r"</?(?:(?:b|i|u|s|c|em|strong|ruby|rt|v|lang|font|span)(?:\.[^<>\s]*)?"
    r"|(?:v|lang|font|span)(?:\.[^<>\s]*)?\s[^<>]*"
    r"|(?:\d+:)*\d+[.,]\d+)\s*>",
    re.IGNORECASE,
)
_BREAKS = re.compile(r"<br\s*/?>|\\[Nn]", re.IGNORECASE)
_OVERRIDES = re.compile(r"\{\\[^{}]*\}")  # marks of SubStation that stray into SubRip: {\an8}
_ENTITIES = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z]+\d*);")
# a cue that repeats words for less than this share of the cue before it shows nothing new
_FLASH = 0.1
_PAUSE_S = 0.1  # cues that are further apart do not continue each other
_OPEN_S = 5.0  # length of a last cue of .json that states no end


@dataclass(frozen=True)
class CueFile:
    """What was read of a subtitle file."""

    cues: list[Cue]  # in time order, each word once
    note: str = ""  # about problems of the whole file
    # places of cues whose times make no sense, such as "line 7"; they are not among the cues
    impossible: tuple[str, ...] = ()
    stated: int = 0  # cues of the file, these included
    lines: dict[float, int] = field(default_factory=dict)  # start in seconds -> line of the cue


@dataclass
class _Block:
    """Times of a cue in milliseconds, and the lines that follow them."""

    number: int  # of the line with the times in the file, from 1
    start: int = 0
    end: int = 0  # not after `start`: times that make no sense
    lines: list[str] = field(default_factory=list)


def read_file(path: Path) -> tuple[list[Cue], str]:
    """Cues of a subtitle file in time order, and a message about problems ("" if there are
    none). Cues whose times make no sense are left out.
    """
    read = read_cues(path)
    notes = [read.note] if read.note else []
    if read.impossible:
        notes.append(
            f"{len(read.impossible)} of {read.stated} subtitles in {path.name} were left out, as "
            "their times make no sense"
        )
    return read.cues, "; ".join(notes)


def read_cues(path: Path) -> CueFile:
    """What stands in a subtitle file; nothing and a note where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return CueFile([], f"{path} cannot be read ({(error.strerror or str(error)).lower()})")
    text, guessed = decode(data)
    if text is None:
        return CueFile([], f"{path} is no text file; if it should be one, save it as UTF-8")
    notes = []
    if guessed:
        notes.append(
            f"{path.name} is not UTF-8 and was read as {guessed}; save it as UTF-8 if it looks "
            "wrong"
        )
    is_substation = path.suffix.lower() in (".ass", ".ssa") or "[Script Info]" in text[:1000]
    read = _substation if is_substation else _timed_text
    try:
        found = (_objects if path.suffix.lower() == ".json" else read)(text)
    except ValueError as error:
        return CueFile([], f"{path} cannot be read as subtitles ({error})")
    if not found.cues and not found.impossible:
        notes.append(f"{path.name} has no subtitle in it")
    return replace(found, cues=without_repeats(found.cues), note="; ".join(notes))


def without_repeats(cues: Iterable[Cue]) -> list[Cue]:
    """Cues in time order, each word once: without the lines that a cue takes over from the one
    before it.

    YouTube's captions roll: a cue shows the line before and the next line, and a cue of 10 ms
    between two of them shows the line alone. Other live captions grow word by word.
    """
    rolled: list[Cue] = []
    before: list[str] = []  # lines of the cue before, and its times
    since, until = 0.0, -1.0
    for start, end, text in sorted(cues, key=lambda cue: cue[:2]):
        lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
        if not lines:
            continue
        repeated, more = _continued(before, lines) if start <= until + _PAUSE_S else (0, "")
        fresh = lines[repeated:]
        if more:
            first, last, words = rolled[-1]
            rolled[-1] = (first, max(last, end), "\n".join([words + more, *fresh]))
        elif fresh:
            rolled.append((start, end, "\n".join(fresh)))
        elif end - start >= _FLASH * (until - since):
            first, last, words = rolled[-1]
            rolled[-1] = (first, max(last, end), words)
        before, since, until = lines, start, end
    return rolled


def _continued(before: list[str], lines: list[str]) -> tuple[int, str]:
    """How many of the first lines repeat the last lines shown, and the words by which the last of
    these grew ("" if it did not).
    """
    for count in range(min(len(before), len(lines)), 0, -1):
        *same, last = before[-count:]
        if same != lines[: count - 1]:
            continue
        if last == lines[count - 1]:
            return count, ""
        if lines[count - 1].startswith(last + " "):
            return count, lines[count - 1][len(last) :]
    return 0, ""


def plain_substation(text: str) -> str:
    """Words of an event of .ass or .ssa, lines parted by \\n, without marks and drawings."""
    from pysubs2.formats.substation import parse_tags

    words = "".join(part for part, style in parse_tags(text) if not style.drawing)
    return _BREAKS.sub("\n", words).replace("\\h", " ").strip()


def plain_text(text: str) -> str:
    """Words of a cue of SubRip or WebVTT, without marks and entities."""
    text = _TAGS.sub("", _OVERRIDES.sub("", _BREAKS.sub("\n", text)).replace("\\h", " "))
    return _ENTITIES.sub(lambda entity: html.unescape(entity[0]), text).strip()


def _substation(text: str) -> CueFile:
    """The cues as they stand there. ValueError if it cannot be read."""
    import pysubs2

    try:
        file = pysubs2.SSAFile.from_string(text, format_="ass" if "V4+" in text else "ssa")
    except (pysubs2.Pysubs2Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error
    cues, bad, stated = list[Cue](), list[str](), 0
    for event in file:
        if event.is_comment:
            continue
        stated += 1
        words = plain_substation(event.text)
        if not max(event.start, 0) < event.end:
            bad.append(f"event {stated}")
        elif words:
            cues.append((max(event.start, 0) / 1000, event.end / 1000, words))
    return CueFile(cues, impossible=tuple(bad), stated=stated)


def _objects(text: str) -> CueFile:
    """The cues of a list of objects in JSON. ValueError if it is no such list.

    LongVideoBench has two forms: timestamp [start, end] in seconds and text; or start and end as
    hh:mm:ss.sss and line. An end that is not stated is the start of the next one.
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(found, list):
        raise ValueError("no list of objects")
    cues, bad = list[Cue](), list[str]()
    starts = [_cue_times(one)[0] for one in found]
    for number, one in enumerate(found):
        start, end = _cue_times(one)
        if start is not None and end is None:
            later = (each for each in starts[number + 1 :] if each is not None and each > start)
            end = next(later, start + _OPEN_S)
        if start is None or end is None or not max(start, 0.0) < end:
            bad.append(f"row {number + 1}")
            continue
        words = plain_text(str(one.get("text") or one.get("line") or ""))
        if words:
            cues.append((max(start, 0.0), end, words))
    return CueFile(cues, impossible=tuple(bad), stated=len(found))


def _cue_times(cue: Any) -> tuple[float | None, float | None]:
    """Start and end of an object in seconds; None for what it does not state."""
    if not isinstance(cue, dict):
        return None, None
    times = cue.get("timestamp", [cue.get("start"), cue.get("end")])
    if not isinstance(times, list) or len(times) != 2:
        return None, None
    start, end = (_clock_seconds(time) for time in times)
    return start, end


def _clock_seconds(time: Any) -> float | None:
    """Seconds of 61.5 or of "00:01:01.5"; None for anything else."""
    try:
        parts = [float(part) for part in str(time).split(":")]
    except ValueError:
        return None
    seconds = sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
    return seconds if seconds == seconds and abs(seconds) < 1e9 else None


def _timed_text(text: str) -> CueFile:
    """The cues of SubRip or WebVTT."""
    is_web = text.lstrip("\ufeff \n").startswith("WEBVTT")
    blocks: list[_Block] = []
    for number, line in enumerate(text.split("\n"), start=1):
        times = _TIMES.match(line)
        if times is not None or _ARROW.match(line):
            if blocks:
                _drop_number(blocks[-1].lines, len(blocks) + 1)
            limits = _limits(times) if times is not None else (0, 0)
            blocks.append(_Block(number, *limits))
        elif blocks:
            blocks[-1].lines.append(line)
    if blocks:
        _drop_number(blocks[-1].lines, len(blocks) + 1)
    cues, lines = list[Cue](), dict[float, int]()
    for block in blocks:
        words = "\n".join(block.lines).strip("\n")
        if is_web:  # behind an empty line: the identifier of the next cue, or a comment
            words = words.partition("\n\n")[0]
        words = plain_text(words)
        if block.start < block.end and words:
            cues.append((block.start / 1000, block.end / 1000, words))
            lines.setdefault(block.start / 1000, block.number)
    bad = (f"line {block.number}" for block in blocks if block.start >= block.end)
    return CueFile(cues, "", tuple(bad), len(blocks), lines)


def _limits(times: "re.Match[str]") -> tuple[int, int]:
    """Start and end in milliseconds; what lies before the video begins at 0."""
    limits = []
    for sign, hours, minutes, seconds, part in (times.groups()[:5], times.groups()[5:]):
        whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
        limits.append(0 if sign else whole * 1000 + int((part or "0").ljust(3, "0")[:3]))
    return limits[0], limits[1]


def _drop_number(lines: list[str], number: int) -> None:
    """Remove the number of the next cue from the end of a cue's lines. number: what it should
    be; other digits are words, unless they stand alone.
    """
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not lines[-1].strip().isdecimal():
        return
    stands_alone = len(lines) > 1 and not lines[-2].strip()
    if stands_alone or int(lines[-1]) == number:
        lines.pop()
