"""Deep layers read the tokens of frames that the question looks at, after FastV (arXiv 2403.06764).

encoders/models/heads/pruned_tokens.py has the equation and the cost. Nothing of what is stored
changes, so any bank can be read so, by both readers.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.heads.pruned_tokens import PrunedTokens
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class TokenPruning(KVPolicy):
    """Behind the first layers, a share of the tokens of frames is read."""

    reads_otherwise = True

    def __init__(self, backbone: Backbone, *, after: int = 2, share: float = 0.5) -> None:
        """after: layers that read everything; the last of them ranks. share: of the tokens of
        frames, time tags among them, that the layers behind read; 1: all, as without a policy.
        UserError on values out of range, and for a model with other layers than full attention."""
        require_full_attention(backbone)
        layers = backbone.language_model.kv_shape.layers
        if not 1 <= after <= layers:
            raise UserError(
                f"kv_policy.after={after}: the model has {layers} layers; use 1 to {layers}."
            )
        if not 0 < share <= 1:
            raise UserError(f"kv_policy.share={share} is no share; use 0 < share <= 1.")
        self._layers, self._after, self._share = layers, after, share
        self.settings = f"token_pruning {after} {share}"

    def context_attention(self, context: int, sink: int) -> PrunedTokens:
        return PrunedTokens(self._layers, self._after, self._share, sink, context)
