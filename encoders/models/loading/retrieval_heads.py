"""The attention heads of a model that look where its answer comes from, read from a file beside its
weights.

A few heads of a language model do the work of fetching what an answer needs (Wu et al. 2024, arXiv
2404.15574; DuoAttention, arXiv 2410.10819). Their attention tells better than that of all heads
which frames an answer rests on. `python -m pipeline.evaluation.retrieval_heads` finds them on films
with cards and writes the file. Without one, all heads count. Knows no cache and no frame.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from encoders.errors import UserError

if TYPE_CHECKING:
    from encoders.models.backbone import Backbone

NAME = "retrieval_heads.json"  # in the folder of a checkpoint
FORMAT = 1


@dataclass(frozen=True, slots=True)
class RetrievalHeads:
    """Query heads by layer, and when they have found nothing."""

    of_layers: Mapping[int, tuple[int, ...]]
    # the least share of their attention that the frames get in some step of an answer that rests
    # on frames, 0 to 1
    least_on_frames: float

    def mask(self, layer: int, heads: int) -> Tensor:
        """[heads] float32: 1 for the query heads of a layer that count, else 0."""
        mask = torch.zeros(heads)
        mask[list(self.of_layers[layer])] = 1.0
        return mask

    def packed(self) -> dict[str, Any]:
        """What the file holds of it."""
        heads = [[layer, head] for layer, own in self.of_layers.items() for head in own]
        return {"format": FORMAT, "heads": heads, "least_on_frames": self.least_on_frames}

    @classmethod
    def of(cls, backbone: "Backbone", path: str | None) -> "RetrievalHeads | None":
        """Those of a model. path: the file; None: the one in the folder of the checkpoint, if there
        is one. UserError where the file is damaged or belongs to a model of another shape."""
        if path is None:
            beside = Path(backbone.path) / NAME
            if not beside.is_file():
                return None
            path = str(beside)
        heads = cls.read(Path(path))
        model = backbone.language_model
        layers, most = model.kv_shape.layers, model.query_heads
        for layer, own in heads.of_layers.items():
            if not 0 <= layer < layers or any(not 0 <= head < most for head in own):
                raise UserError(
                    f"{path} names heads of layer {layer} that {backbone.path} has not ({layers} "
                    f"layers of {most} heads); give the file of this model, or none."
                )
        return heads

    @classmethod
    def read(cls, path: Path) -> "RetrievalHeads":
        """Those of a file. UserError where it is damaged."""
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            if file["format"] != FORMAT:
                raise ValueError(f"format {file['format']}")
            of_layers: dict[int, tuple[int, ...]] = {}
            for layer, head in file["heads"]:
                of_layers[int(layer)] = (*of_layers.get(int(layer), ()), int(head))
            least = float(file["least_on_frames"])
            if not of_layers or not 0.0 <= least <= 1.0:
                raise ValueError("no heads, or no share")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{path} tells no retrieval heads ({error}); make it again with `python -m "
                "pipeline.evaluation.retrieval_heads`, or leave the setting out."
            ) from error
        return cls(of_layers, least)
