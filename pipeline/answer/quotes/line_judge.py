"""Which line answers a question, and how sure that is: a small network over the numbers of
pipeline/answer/quotes/agreement.py. Knows no text and no model.

    score of a line   w . x + o . tanh(H x + b), x the numbers of the line, scaled
    none of them      n + v . g, g the numbers of the question and all its lines, scaled
    confidence        1 / (1 + exp(-(slope * (best score - none) + offset)))

A softmax over the lines and "none" was trained on films with questions that a line answers and
others that none does (tests/measure/quote_judge.py wrote the weights). A judge knows the numbers of
one sentence encoder alone: those of another mean something else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.answer.quotes.agreement import Agreement

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class LineJudge:
    """Weights and how to use them."""

    made_with: str  # of the sentence encoder
    arrays: Mapping[str, np.ndarray]  # float32: names as in `scores`
    slope: float
    offset: float
    threshold: float  # an answer is at least this sure

    def scores(self, agreement: Agreement) -> tuple[np.ndarray, float]:
        """[L] float32 score of each line, and that of "none of them"."""
        a = self.arrays
        x = (agreement.lines - a["line_mean"]) / a["line_scale"]  # [L, F]
        g = (agreement.film - a["film_mean"]) / a["film_scale"]
        scores: np.ndarray = x @ a["w"] + np.tanh(x @ a["h"] + a["b"]) @ a["o"]
        return scores, float(a["n"][0] + g @ a["v"])

    def confidence(self, score: float, none: float) -> float:
        """0..1: that the line of this score answers."""
        x = min(max(self.slope * (score - none) + self.offset, -50.0), 50.0)
        return float(1.0 / (1.0 + np.exp(-x)))


def judge_for(made_with: str) -> LineJudge | None:
    """The judge of a sentence encoder; None where none was trained for it."""
    return _judges().get(made_with)


@lru_cache(maxsize=1)
def _judges() -> dict[str, LineJudge]:
    found = (read(path) for path in sorted(WEIGHTS.glob("*.json")))
    return {judge.made_with: judge for judge in found}


def read(path: Path) -> LineJudge:
    """The judge in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    arrays = {name: np.array(rows, np.float32) for name, rows in content["arrays"].items()}
    return LineJudge(
        content["made_with"], arrays, content["slope"], content["offset"], content["threshold"]
    )


def write(path: Path, judge: LineJudge) -> None:
    """Put a judge into a file, with 6 digits of each number."""
    arrays = {name: _rounded(rows.tolist()) for name, rows in judge.arrays.items()}
    content = {
        "made_with": judge.made_with,
        "slope": round(judge.slope, 4),
        "offset": round(judge.offset, 4),
        "threshold": round(judge.threshold, 3),
        "arrays": arrays,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _rounded(rows: object) -> object:
    if isinstance(rows, list):
        return [_rounded(one) for one in rows]
    return float(f"{rows:.6g}")
