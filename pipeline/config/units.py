"""Moments, ages and sizes as people write them on a command line, and back. Knows no command and no bank."""

import re
from datetime import datetime

from encoders.errors import UserError

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds
_SIZES = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("KMGT", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}


def moment(key: str, text: str) -> float:
    """Unix seconds, to the millisecond, of an ISO 8601 text; without an offset it is local time. UserError names the key."""
    try:
        when = datetime.fromisoformat(text.strip())
        if not 1900 <= when.year <= 3000:
            raise ValueError
        return round(when.timestamp(), 3)
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{key}={text} is no moment; write it as {key}=2026-11-20T12:00:00+01:00, or without +01:00 for local time"
        ) from None


def age(key: str, text: str) -> float:
    """Seconds of an age such as 7d, 12h, 30m or 90s."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise UserError(f"{key}={text} is no age; use a number with s, m, h or d, such as {key}=7d")
    return float(found[1]) * _AGES[found[2]]


def size(key: str, text: str) -> float:
    """Bytes of a size such as 10GB, 500MB, 2GiB or 1000000."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text.strip())
    units = {name.lower(): factor for name, factor in _SIZES.items()}
    if found is None or found[2].lower() not in units:
        raise UserError(
            f"{key}={text} is no size; use a number with MB, GB, MiB or GiB, such as {key}=10GB"
        )
    return float(found[1]) * units[found[2].lower()]


def written(when: float | None) -> str:
    """A moment in local time; "" when it is not known."""
    return (
        ""
        if when is None
        else datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")
    )


def on_the_clock(seconds: float) -> str:
    """ "00:02:05": video time."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def clock_time(seconds: float) -> str:
    """ "02:05" or "1:02:05"."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return (
        f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
        if hours
        else f"{rest // 60:02d}:{rest % 60:02d}"
    )
