"""From attention to citation: which recalled frames an answer rests on, as time spans. Knows no model."""

import torch

from memory.schema import Evidence
from pipeline.schema import CitedFrame


def cite(evidence: Evidence, weights: dict[int, float], share: float) -> tuple[CitedFrame, ...]:
    """Frames whose weight is at least `share` of the heaviest one's and above an even spread, heaviest first."""
    if not weights:
        return ()
    scores = dict(zip(evidence.hits.frames.tolist(), evidence.hits.scores.tolist(), strict=True))
    least = max(share * max(weights.values()), 1.0 / len(weights))
    frames = ((run.segment, ordinal) for run in evidence.runs for ordinal in run.ordinals)
    cited = [
        CitedFrame(ordinal, segment, start, end, weights[ordinal], scores.get(ordinal))
        for (segment, ordinal), (start, end) in zip(frames, _stretches(evidence), strict=True)
        if weights.get(ordinal, 0.0) >= least
    ]
    return tuple(sorted(cited, key=lambda frame: (-frame.weight, frame.time)))


def spans(cited: tuple[CitedFrame, ...], interval: float) -> tuple[tuple[float, float], ...]:
    """Unions of the cited frames' stretches, in time order; those less than half an interval apart become one span."""
    return _united([(frame.time, frame.end) for frame in cited], interval)


def recalled(evidence: Evidence) -> tuple[tuple[float, float], ...]:
    """The same of all frames that were read."""
    return _united(_stretches(evidence), evidence.interval)


def _stretches(evidence: Evidence) -> list[tuple[float, float]]:
    """What each frame stands for, from its start to its end, in time order."""
    if not evidence.runs:
        return []
    starts = torch.cat([run.tokens.starts for run in evidence.runs]).tolist()
    times = torch.cat([run.tokens.times for run in evidence.runs]).tolist()
    return [(start, time + evidence.interval) for start, time in zip(starts, times, strict=True)]


def _united(
    stretches: list[tuple[float, float]], interval: float
) -> tuple[tuple[float, float], ...]:
    merged: list[list[float]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1] + 0.5 * interval:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([start, end])
    return tuple((round(a, 3), round(b, 3)) for a, b in merged)
