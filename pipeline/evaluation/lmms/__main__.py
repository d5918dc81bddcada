"""Run lmms-eval with `python -m pipeline.evaluation.lmms ...`, also with a CPU-only torch.

`python -m lmms_eval` alone fails there: it imports torchvision before anything of ours
(encoders/models/torchvision_ops.py explains the problem).
"""

import runpy

import encoders.models.torchvision_ops  # noqa: F401

if __name__ == "__main__":
    runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
