"""From attention to citation: which recalled frames an answer rests on, as time spans. Knows no model."""

from memory.schema import Evidence
from pipeline.schema import CitedFrame

NOT_SHOWN = "not in the video"


def is_shown(text: str) -> bool:
    """False when the answer is that the video does not show what was asked."""
    return NOT_SHOWN not in text.lower()


def cite(evidence: Evidence, weights: dict[int, float], share: float) -> tuple[CitedFrame, ...]:
    """Frames whose weight is at least `share` of the heaviest one's and above an even spread, heaviest first."""
    if not weights:
        return ()
    scores = dict(zip(evidence.hits.frames.tolist(), evidence.hits.scores.tolist(), strict=True))
    least = max(share * max(weights.values()), 1.0 / len(weights))
    cited = [
        CitedFrame(ordinal, run.segment, start, time + evidence.interval, weights[ordinal], scores.get(ordinal))
        for run in evidence.runs
        for ordinal, start, time in zip(run.ordinals, run.tokens.starts.tolist(), run.tokens.times.tolist(), strict=True)
        if weights.get(ordinal, 0.0) >= least
    ]
    return tuple(sorted(cited, key=lambda frame: (-frame.weight, frame.time)))


def spans(cited: tuple[CitedFrame, ...], interval: float) -> tuple[tuple[float, float], ...]:
    """Unions of the cited frames' stretches, in time order; those less than half an interval apart become one span."""
    return _united([(frame.time, frame.end) for frame in cited], interval)


def recalled(evidence: Evidence) -> tuple[tuple[float, float], ...]:
    """The same of all frames that were read."""
    return _united(
        [
            (start, time + evidence.interval)
            for run in evidence.runs
            for start, time in zip(run.tokens.starts.tolist(), run.tokens.times.tolist(), strict=True)
        ],
        evidence.interval,
    )


def _united(stretches: list[tuple[float, float]], interval: float) -> tuple[tuple[float, float], ...]:
    merged: list[list[float]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1] + 0.5 * interval:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return tuple((round(a, 3), round(b, 3)) for a, b in merged)
