"""The documents of vnbench*.yaml; lmms-eval runs this file when it loads one of them.

A wrong row or a missing video is reported here: later lmms-eval would try five times and say less.

VNBENCH: a folder with the annotation VNBench-main-4try.json and the videos, or that file.
"""

import os
from pathlib import Path
from typing import Any

from encoders.errors import UserError
from pipeline.evaluation.lmms import documents

if not os.environ.get("VNBENCH"):
    raise UserError(
        "VNBENCH is not set; let it name the folder with VNBench-main-4try.json and the videos, or "
        "such a file."
    )
PLACE = Path(os.environ["VNBENCH"]).absolute()
ANNOTATION = PLACE / "VNBench-main-4try.json" if PLACE.is_dir() else PLACE
TRIES = documents.four_tries(ANNOTATION, ANNOTATION.parent)
FILE = str(ANNOTATION)


def tries(lines: Any) -> Any:
    """A data set of TRIES; `lines`, which lmms-eval loaded, is ignored."""
    import datasets

    return datasets.Dataset.from_list(TRIES)
