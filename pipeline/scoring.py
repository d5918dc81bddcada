"""Correctness of answers, and accuracies with intervals clustered by video.

Knows no task and no needle.
"""

import re
from collections.abc import Sequence

import numpy as np


def is_right(text: str, truth: str) -> bool:
    """Equal up to case, surrounding space, and a final full stop."""
    return text.strip().rstrip(".").casefold() == truth.strip().casefold()


def states(text: str, truth: str) -> bool:
    """Whether the words of the truth stand side by side in a text, up to case and punctuation.

    For a quote, which says more than the answer: 00:31 "The pier was built of oak." states oak.
    """
    words, wanted = _words(text), _words(truth)
    places = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in places)


def _words(text: str) -> list[str]:
    """A number with its point, a time of day, and a word with its apostrophe are one word each."""
    return re.findall(r"\w+(?:[.,:'’-]\w+)*", text.casefold())


def named_option(text: str, options: Sequence[str], *, is_quote: bool = False) -> int | None:
    """Number of the option that a free answer is; None where it is none of them. A quote names the
    only option that it states."""
    if is_quote:
        stated = [number for number, option in enumerate(options) if states(text, option)]
        return stated[0] if len(stated) == 1 else None
    return next((n for n, option in enumerate(options) if is_right(text, option)), None)


def share(
    results: Sequence[tuple[str, float]], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float, int]:
    """(mean, lower, upper, count) of (video, outcome) pairs; 95 % interval.

    The interval is a percentile bootstrap that resamples whole videos, because questions about one
    video are not independent. Outcomes are booleans or numbers; without results, NaN and 0.
    """
    if not results:
        return float("nan"), float("nan"), float("nan"), 0
    videos = sorted({video for video, _ in results})
    hits = np.array(
        [
            [sum(r for v, r in results if v == video), sum(v == video for v, _ in results)]
            for video in videos
        ]
    )
    rng = np.random.default_rng(seed)
    resampled = hits[rng.integers(0, len(videos), (draws, len(videos)))].sum(1)  # [draws, 2]
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], (2.5, 97.5))
    total = hits.sum(0)
    return float(total[0] / total[1]), float(low), float(high), int(total[1])


def cell(results: Sequence[tuple[str, float]]) -> str:
    """ "97.5 (95.0-99.2), n=120": per cent, interval, questions; "-" without results."""
    mean, low, high, count = share(results)
    return f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f}), n={count}" if count else "-"


def difference(
    results: Sequence[tuple[str, float]],
    reference: Sequence[tuple[str, float]],
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float, int]:
    """(mean difference, lower, upper, count) of two results for the same questions, in pairs.

    Resamples videos as `share` does. Outcomes are booleans or numbers. ValueError when the
    questions differ.
    """
    if [video for video, _ in results] != [video for video, _ in reference]:
        raise ValueError("two results of different questions cannot be compared in pairs")
    if not results:
        return float("nan"), float("nan"), float("nan"), 0
    videos = sorted({video for video, _ in results})
    gains = dict.fromkeys(videos, 0.0)
    counts = dict.fromkeys(videos, 0)
    for (video, after), (_, before) in zip(results, reference, strict=True):
        gains[video] += float(after) - float(before)
        counts[video] += 1
    pairs = np.array([[gains[video], counts[video]] for video in videos])
    # [draws, 2]
    resampled = pairs[
        np.random.default_rng(seed).integers(0, len(videos), (draws, len(videos)))
    ].sum(1)
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], (2.5, 97.5))
    total = pairs.sum(0)
    return float(total[0] / total[1]), float(low), float(high), int(total[1])
