"""Few heads are stored whole, and the others as one token a frame, after RazorAttention (arXiv
2407.15891); memory/storage/segments/head_means.py has the equation and the bytes.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.video_llm import require_full_attention
from memory.storage.segments.head_means import HeadMeans
from pipeline.kv_policy.head_profile import HeadProfile, profile_path
from pipeline.kv_policy.schema import KVPolicy


class FrameMeans(KVPolicy):
    """Ragged storage: what is left out of a bank saves its bytes."""

    stores = True

    def __init__(
        self, backbone: Backbone, *, profile: str | None = None, share: float = 0.5
    ) -> None:
        """profile: file of the heads' scores; None: the retrieval_heads.json beside the weights.
        share: of all KV heads, those that are stored whole, rounded up; 1: nothing is lost.
        UserError on a share out of range, and on a profile that does not fit."""
        require_full_attention(backbone)
        if not 0 < share <= 1:
            raise UserError(
                f"kv_policy.share={share} stores no head whole; use a share above 0, up to 1."
            )
        path = profile_path(backbone, profile)
        whole = HeadProfile.read(path, backbone.language_model.kv_shape).best(share)
        self.heads = HeadMeans(tuple(tuple(layer) for layer in whole.tolist()))
