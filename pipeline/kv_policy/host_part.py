"""The older part of a recalled context stays in the memory of the host, after HGCA (arXiv
2507.03153); encoders/models/context/host_context.py has the equation and the costs.

Nothing of what is stored changes. Frames that a question recalls stay in RAM, and the newest of
them are copied to the device when the context is laid out.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class HostPart(KVPolicy):
    """Reads all of a context, in two places."""

    reads_otherwise = True
    uses_host = True

    def __init__(self, backbone: Backbone, *, device_tokens: int = 4096) -> None:
        """device_tokens: newest tokens of a context that the device holds, beside the text before
        the first frame. UserError below 0."""
        require_full_attention(backbone)
        if device_tokens < 0:
            raise UserError(f"kv_policy.device_tokens={device_tokens} is negative; use 0 or more.")
        self._device_tokens = device_tokens
        self.settings = f"host_part {device_tokens}"

    def host_tokens(self, context: int, sink: int) -> int:
        return max(0, context - sink - self._device_tokens)
