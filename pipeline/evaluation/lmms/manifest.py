"""The entry point `lmms_eval.models`: under which name lmms-eval knows Reelbank, and where its class is.

lmms-eval reads this at every start, whichever model is asked for: nothing of ours is imported here.
"""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFESTS = [
    ModelManifest(model_id="reelbank", chat_class_path="pipeline.evaluation.lmms.model.Reelbank")
]
