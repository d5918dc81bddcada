"""The documents of reelbank_needle*.yaml. lmms-eval runs this file when it loads one of them; a folder that is not as it should
be is told here, because later lmms-eval would try five times and say less.

REELBANK_NEEDLE: the folder that `reelbank needle files=true out=DIR` wrote; runs/needle if it is not set.
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
    """A data set of FREE, whatever lmms-eval loaded."""
    import datasets

    return datasets.Dataset.from_list(FREE)


def tries(lines: Any) -> Any:
    """A data set of TRIES."""
    import datasets

    return datasets.Dataset.from_list(TRIES)
