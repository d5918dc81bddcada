"""Keys and values as they are: the default."""

from encoders.models.backbone import VideoModel
from pipeline.kv_policy.schema import KVPolicy


class NoPolicy(KVPolicy):
    """Stores what kv_dtype= says, and every head reads everything."""

    def __init__(self, backbone: VideoModel) -> None:
        """backbone: of any kind."""
