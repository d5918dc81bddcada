"""The documents of reelbank_needle*.yaml; lmms-eval runs this file when it loads one of them.

Errors of the folder are raised here: later lmms-eval would try five times and say less.

REELBANK_NEEDLE: the folder that `reelbank needle files=true out=DIR` wrote; default runs/needle.
"""

import os
from pathlib import Path
from typing import Any

from pipeline.evaluation.lmms import documents

FOLDER = Path(os.environ.get("REELBANK_NEEDLE") or "runs/needle").absolute()
FREE = documents.needle(FOLDER)
TRIES = documents.four_tries(FOLDER / "vnbench.json", FOLDER)
FILE = str(FOLDER / "items.jsonl")


def free(lines: Any) -> Any:
    """A data set of FREE; `lines`, which lmms-eval loaded, is ignored."""
    import datasets

    return datasets.Dataset.from_list(FREE)


def tries(lines: Any) -> Any:
    """A data set of TRIES; `lines` is ignored."""
    import datasets

    return datasets.Dataset.from_list(TRIES)
