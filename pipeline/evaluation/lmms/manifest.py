"""The entry point `lmms_eval.models`: the name and class under which lmms-eval finds Reelbank.

lmms-eval reads this at every start, for any model, so nothing of ours is imported here.
"""

from lmms_eval.models.registry_v2 import ModelManifest

MANIFESTS = [
    ModelManifest(model_id="reelbank", chat_class_path="pipeline.evaluation.lmms.model.Reelbank")
]
