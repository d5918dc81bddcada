"""How much each KV head of a model needs the whole context: a file that head_split reads.

Either of two files will do:
- `python -m pipeline.evaluation.retrieval_heads` writes "scores" [layer][query head]: the share of
  attention on what an answer rests on, as RazorAttention (arXiv 2407.15891) looks for heads that
  fetch. A KV head has the score of its best query head.
- `python -m pipeline.evaluation.profiles.head_gates` writes "gates" [layer][KV head], which
  DuoAttention (arXiv 2410.10819) fits.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.kv_cache import KVShape
from encoders.models.loading.retrieval_heads import NAME


@dataclass(frozen=True, slots=True, eq=False)
class HeadProfile:
    """Scores of KV heads."""

    scores: Tensor  # [L, H] float32, the higher the more

    @classmethod
    def read(cls, path: Path, shape: KVShape) -> "HeadProfile":
        """shape: of the model. UserError on a file that is no profile, or of another model."""
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            scores = torch.tensor(file["gates"] if "gates" in file else file["scores"])
            if scores.dim() != 2 or not bool(scores.float().isfinite().all()):
                raise ValueError("no finite number for each layer and head")
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            raise UserError(
                f"kv_policy.profile={path} cannot be read as a profile of heads ({error}); make "
                "one with `python -m pipeline.evaluation.retrieval_heads`."
            ) from error
        layers, heads = scores.shape
        if (
            layers != shape.layers
            or heads % shape.heads
            or ("gates" in file and heads != shape.heads)
        ):
            raise UserError(
                f"kv_policy.profile={path} is of a model with {layers} layers of {heads} heads, "
                f"and this one has {shape.layers} layers of {shape.heads} KV heads; make one of "
                "this model."
            )
        return cls(scores.float().unflatten(1, (shape.heads, -1)).amax(2))

    def best(self, share: float) -> Tensor:
        """[L, H] bool: this share of all heads, rounded up, those with the highest scores. Of equal
        scores the earlier head comes first."""
        flat = self.scores.flatten()
        order = flat.argsort(descending=True, stable=True)
        chosen = torch.zeros(len(flat), dtype=torch.bool)
        chosen[order[: math.ceil(share * len(flat) - 1e-9)]] = True
        return chosen.view(self.scores.shape)


def profile_path(
    backbone: Backbone, profile: str | None, name: str = NAME, made_by: str = "retrieval_heads"
) -> Path:
    """The file of a profile; None: the one of this name beside the weights. made_by: the program in
    pipeline/evaluation/. UserError if there is none."""
    path = Path(backbone.path) / name if profile is None else Path(profile)
    if profile is None and not path.is_file():
        raise UserError(
            f"{backbone.path} has no {name}; make one with `python -m "
            f"pipeline.evaluation.{made_by}`, and name it in kv_policy.profile=FILE."
        )
    return path
