"""Spans that grow with the context, for each head its own, after MoA (arXiv 2406.14909):
    span(l, h) = a[l, h] + b[l, h] * context
tokens, beside the beginning. encoders/models/heads/head_spans.py has the equation and the costs.
"""

import hashlib
import json
from pathlib import Path

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.heads.head_spans import HeadSpans
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class SpanProfile(KVPolicy):
    """Reads what a file says of each KV head."""

    reads_otherwise = True

    def __init__(
        self, backbone: Backbone, *, profile: str | None = None, compensation: bool = False
    ) -> None:
        """profile: JSON file {"spans": [layer][KV head][a, b]}; None: every head reads everything.
        UserError on a file that does not fit."""
        require_full_attention(backbone)
        shape = backbone.language_model.kv_shape
        self._compensates = compensation
        self._rules = torch.tensor([0.0, 1.0]).expand(shape.layers, shape.heads, 2)  # [L, H, 2]
        if profile is not None:
            try:
                self._rules = torch.tensor(json.loads(Path(profile).read_text())["spans"]).float()
                expected = (shape.layers, shape.heads, 2)
                if self._rules.shape != expected or not bool(self._rules.isfinite().all()):
                    raise ValueError(f"no finite numbers [layer][KV head][2] of {expected}")
            except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
                raise UserError(
                    f"kv_policy.profile={profile} cannot be read as spans of heads ({error}); "
                    'write {"spans": [layer][KV head][a, b]}: a + b * context tokens.'
                ) from error
        digest = hashlib.sha256(self._rules.contiguous().numpy().tobytes()).hexdigest()[:16]
        self.settings = f"span_profile {digest} {compensation}"

    def context_attention(self, context: int, sink: int) -> HeadSpans:
        """At most the context each."""
        spans = (self._rules[..., 0] + self._rules[..., 1] * context).long().clamp(0, context)
        return HeadSpans(spans, sink, context, self._compensates)
