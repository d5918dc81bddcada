"""rapidocr in a process of its own, so that reading text does not delay encoding. Imports none of
our heavy modules.

Knows one picture at a time; times and repeated readings belong to the extractor
(encoders/text/ocr.py).
"""

import logging
from functools import lru_cache
from typing import Any

import numpy as np

# text, confidence, (left, top, right, bottom) as shares of the picture
OcrText = tuple[str, float, tuple[float, float, float, float]]


@lru_cache(maxsize=1)
def _engine(threads: int) -> Any:
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    # without the model for upside-down lines: it costs time and turns upright lines
    settings = {
        "Global.log_level": "error",
        "Global.use_cls": False,
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
    }
    return RapidOCR(params=settings)


def read(picture: np.ndarray, threads: int = 1) -> list[OcrText]:
    """The lines of text in a picture [height, width, 3] uint8 RGB, from top to bottom."""
    height, width = picture.shape[:2]
    result = _engine(threads)(np.ascontiguousarray(picture[:, :, ::-1]))  # it expects BGR
    if result.txts is None or result.boxes is None or result.scores is None:
        return []
    lines: list[OcrText] = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        left, top = np.asarray(corners).min(0) / (width, height)
        right, bottom = np.asarray(corners).max(0) / (width, height)
        sides = [round(float(np.clip(side, 0, 1)), 4) for side in (left, top, right, bottom)]
        lines.append((str(text), round(float(score), 4), (sides[0], sides[1], sides[2], sides[3])))
    return sorted(lines, key=lambda line: (round(line[2][1], 2), line[2][0]))
