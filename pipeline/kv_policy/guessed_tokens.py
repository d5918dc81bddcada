"""Few frames guess the answer, and all frames check it (RAPID, arXiv 2502.20330);
pipeline/answer/speculation/guessing.py has the way and the costs.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class GuessedTokens(KVPolicy):
    """Speculative reading. The same answer, in fewer passes over a long context."""

    reads_otherwise = True

    def __init__(self, backbone: Backbone, *, frames: int = 4, tokens: int = 4) -> None:
        """frames: of the short context, those that rank first. tokens: guesses at a time. UserError
        below 1."""
        require_full_attention(backbone)
        if frames < 1 or tokens < 1:
            raise UserError(
                f"kv_policy.frames={frames} kv_policy.tokens={tokens} guesses nothing; use 1 or "
                "more of each."
            )
        self.guesses = frames, tokens
        self.settings = f"guessed_tokens {frames} {tokens}"
