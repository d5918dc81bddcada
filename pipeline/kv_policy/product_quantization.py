"""Product quantization at rest, after MILLION (arXiv 2504.03661).

The equation and the costs are in memory/storage/segments/codebook.py, and `python -m
pipeline.evaluation.profiles.kv_codebook` makes a codebook.
"""

from pathlib import Path

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from memory.storage.segments.codebook import NAME, Codebook
from pipeline.kv_policy.schema import KVPolicy


class ProductQuantization(KVPolicy):
    """Keys and values as numbers of centroids."""

    stores = True

    def __init__(self, backbone: Backbone, *, codebook: str | None = None) -> None:
        """codebook: its file; None: the one in the checkpoint's folder. UserError if there is none,
        or if it is of a model of another shape."""
        path = Path(backbone.path) / NAME if codebook is None else Path(codebook)
        if codebook is None and not path.is_file():
            raise UserError(
                f"{backbone.path} has no {NAME}; make one with `python -m "
                "pipeline.evaluation.profiles.kv_codebook`, and name it in kv_policy.codebook=FILE."
            )
        self.codebook = Codebook.read(path)
        shape = backbone.language_model.kv_shape
        own = (shape.layers, shape.heads, shape.width)
        if self.codebook.shape != own:
            raise UserError(
                f"{path} is of a model with (layers, KV heads, width) {self.codebook.shape}, and "
                f"{backbone.path} has {own}; make one of this model."
            )
