"""`python -m pipeline.evaluation.lmms ...` is `python -m lmms_eval ...`, also beside a CPU-only torch. There lmms-eval fails by itself: it
imports torchvision before anything of ours is imported (encoders/models/torchvision_ops.py says what is wrong with that).
"""

import runpy

import encoders.models.torchvision_ops  # noqa: F401

if __name__ == "__main__":
    runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
