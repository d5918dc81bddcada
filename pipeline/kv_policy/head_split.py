"""Few heads read everything, and the others the beginning and the newest tokens of a context, after
RazorAttention (arXiv 2407.15891) and DuoAttention (arXiv 2410.10819).

encoders/models/heads/head_spans.py has the equation and the costs. The beginning is the text before
the first frame. Frames of an answer are in time order, so the newest tokens are those of the newest
frames. Nothing of what is stored changes, so any bank can be read so.
"""

import torch

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.heads.head_spans import HeadSpans
from encoders.models.loading.retrieval_heads import NAME
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.head_profile import HeadProfile, profile_path
from pipeline.kv_policy.schema import KVPolicy


class HeadSplit(KVPolicy):
    """Retrieval heads, and heads that read a window."""

    reads_otherwise = True
    profile_name = NAME  # in the folder of a checkpoint
    made_by = "retrieval_heads"  # the program in pipeline/evaluation/

    def __init__(
        self,
        backbone: Backbone,
        *,
        profile: str | None = None,
        share: float = 0.5,
        window: int = 128,
        window_share: float = 0.2,
        compensation: bool = True,
    ) -> None:
        """profile: file of the heads' scores; None: the retrieval_heads.json beside the weights.
        share: of all KV heads, those that read everything; 1: all, as without a policy. The others
        read max(window, window_share * context) tokens beside the beginning. compensation: and one
        token in place of those that they do not read. UserError on values out of range, and on a
        profile that does not fit."""
        require_full_attention(backbone)
        for name, value in (("share", share), ("window_share", window_share)):
            if not 0 <= value <= 1:
                raise UserError(f"kv_policy.{name}={value} is no share; use 0 to 1.")
        if window < 0:
            raise UserError(f"kv_policy.window={window} is negative; use 0 or more.")
        path = profile_path(backbone, profile, self.profile_name, self.made_by)
        scores = HeadProfile.read(path, backbone.language_model.kv_shape)
        self._reads_all = scores.best(share)  # [L, H] bool
        self._window, self._window_share, self._compensates = window, window_share, compensation
        heads = "".join("01"[int(one)] for one in self._reads_all.flatten())
        self.settings = f"head_split {heads} {window} {window_share} {compensation}"

    def context_attention(self, context: int, sink: int) -> HeadSpans:
        """Those of the retrieval heads hold the context."""
        window = max(self._window, int(self._window_share * context))
        spans = torch.where(self._reads_all, context, window)
        return HeadSpans(spans, sink, context, self._compensates)
