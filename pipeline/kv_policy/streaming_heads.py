"""Few heads read everything, by fitted gates, and the others drop what they do not read, after
DuoAttention (arXiv 2410.10819).
"""

from encoders.models.backbone import Backbone
from pipeline.kv_policy.head_split import HeadSplit

NAME = "head_gates.json"  # in the folder of a checkpoint
WINDOW, WINDOW_SHARE = 128, 0.2


class StreamingHeads(HeadSplit):
    """Retrieval heads by their gates; the others keep the beginning and a window, and no token in
    place of the rest."""

    profile_name = NAME
    made_by = "profiles.head_gates"

    def __init__(
        self,
        backbone: Backbone,
        *,
        profile: str | None = None,
        share: float = 0.5,
        window: int = WINDOW,
        window_share: float = WINDOW_SHARE,
    ) -> None:
        """profile: None: the head_gates.json beside the weights. The others as of HeadSplit."""
        super().__init__(
            backbone,
            profile=profile,
            share=share,
            window=window,
            window_share=window_share,
            compensation=False,
        )


def window_tokens(context: int) -> int:
    """Newest tokens that a streaming head reads by default."""
    return max(WINDOW, int(WINDOW_SHARE * context))
