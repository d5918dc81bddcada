"""Moments, ages, sizes and video times as text, and back. Knows no command and no bank."""

import math
import re
from datetime import datetime
from typing import Literal

from encoders.errors import UserError

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
_SIZES = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}


def parse_moment(key: str, text: str) -> float:
    """Unix seconds, to the millisecond, of an ISO 8601 text; local time without an offset.

    UserError names the key.
    """
    try:
        when = datetime.fromisoformat(text.strip())
        if not 1900 <= when.year <= 3000:
            raise ValueError
        return round(when.timestamp(), 3)
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{key}={text} is no moment; write it as {key}=2026-11-20T12:00:00+01:00, "
            "or without +01:00 for local time"
        ) from None


def parse_seconds(key: str, value: object) -> float:
    """Seconds of video time of 90, "90", "1:30" or "0:01:30". UserError names the key."""
    try:
        parts = [float(part) for part in str(value).split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(not 0 <= part < math.inf for part in parts):
        raise UserError(f"{key}={value!r} is no time; give seconds, mm:ss or hh:mm:ss")
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def parse_span(key: str, text: str) -> tuple[float, float]:
    """Start and end in seconds of "31-45", "0:31-0:45" or "0:00:31 - 0:00:45". UserError names the
    key."""
    parts = [part.strip() for part in re.split(r"[-\u2013]", text)]
    if len(parts) != 2:
        raise UserError(f"{key}={text!r} is no stretch; give start and end, such as 0:31-0:45")
    start, end = (parse_seconds(key, part) for part in parts)
    if not start < end:
        raise UserError(f"{key}={text!r} ends before it begins; give the earlier time first")
    return start, end


def parse_age(key: str, text: str) -> float:
    """Seconds of an age such as 7d, 12h, 30m or 90s."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise UserError(f"{key}={text} is no age; use a number with s, m, h or d, such as {key}=7d")
    return float(match[1]) * _AGES[match[2]]


def parse_size(key: str, text: str) -> float:
    """Bytes of a size such as 10GB, 500MB, 2GiB or 1000000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip())
    units = {name.lower(): factor for name, factor in _SIZES.items()}
    if match is None or match[2].lower() not in units:
        raise UserError(
            f"{key}={text} is no size; use a number with MB, GB, MiB or GiB, such as {key}=10GB"
        )
    return float(match[1]) * units[match[2].lower()]


def format_moment(when: float | None) -> str:
    """A moment (Unix seconds) in local time; "" for None."""
    return (
        ""
        if when is None
        else datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")
    )


Hours = Literal["if needed", "always", "never"]


def format_time(seconds: float, *, hours: Hours = "if needed") -> str:
    """Video time as text: "02:05" or "1:02:05"; hours="always": "00:02:05"; hours="never": "62:05".

    Fractions of a second are cut off.
    """
    whole = int(seconds)
    if hours == "never":
        return f"{whole // 60:02d}:{whole % 60:02d}"
    minutes_seconds = f"{whole % 3600 // 60:02d}:{whole % 60:02d}"
    if hours == "always":
        return f"{whole // 3600:02d}:{minutes_seconds}"
    return f"{whole // 3600}:{minutes_seconds}" if whole >= 3600 else minutes_seconds


def format_stamp(seconds: float, mark: str = ".") -> str:
    """Video time to the millisecond, as WebVTT has it: "00:01:02.345"; SubRip has mark=","."""
    whole, rest = divmod(round(1000 * seconds), 1000)
    return f"{format_time(whole, hours='always')}{mark}{rest:03d}"


def format_duration(seconds: float) -> str:
    """A length of time with three digits: "4.51 h", "2.7 min", "12 s", "0.8 s"."""
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= factor:
            count = seconds / factor
            return f"{count:.{2 if unit == 'h' and count < 10 else 1}f} {unit}"
    return f"{seconds:.{0 if seconds >= 10 else 1}f} s"


def format_size(nbytes: float) -> str:
    """Bytes as text: "11 MB", "1.4 GB", "0.3 MB"."""
    unit, count = ("GB", nbytes / 1e9) if nbytes >= 1e9 else ("MB", nbytes / 1e6)
    return f"{count:.{0 if count >= 10 else 1}f} {unit}"


def format_span(start: float, end: float, *, hours: Hours = "if needed") -> str:
    """Two times and their seconds: "02:05-02:09 (125.0-129.5 s)"."""
    return (
        f"{format_time(start, hours=hours)}-{format_time(end, hours=hours)} "
        f"({start:.1f}-{end:.1f} s)"
    )
