"""Keys at rest as low-rank factors, and values as they are, after ShadowKV (arXiv 2410.21465);
memory/storage/segments/key_factors.py has the equation, the bytes and the costs.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class LowRankKeys(KVPolicy):
    """What is searched by keys reads their factors; values are read of recalled frames alone."""

    stores = True

    def __init__(self, backbone: Backbone, *, loss: float = 0.1) -> None:
        """loss: share of the keys of a frame that may be missing, in every layer (Frobenius norm);
        0: nothing but rounding. UserError on another value."""
        require_full_attention(backbone)
        if not 0 <= loss < 1:
            raise UserError(
                f"kv_policy.loss={loss} is no share of the keys; use 0 or more, and less than 1."
            )
        self.key_loss = float(loss)
