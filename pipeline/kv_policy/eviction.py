"""Each KV head keeps as much of a recalled context as a budget holds (H2O, arXiv 2306.14048; CAOTE,
arXiv 2504.14051); encoders/models/eviction/evicted_context.py has the way and the costs.

Nothing of what is stored changes, so any bank can be read so, and another question keeps other
tokens of the same frames.
"""

from encoders.errors import UserError
from encoders.models.backbone import Backbone
from encoders.models.eviction.evicted_context import EvictedContext
from encoders.models.eviction.schema import EvictionScore
from encoders.models.video_llm import require_full_attention
from pipeline.kv_policy.schema import KVPolicy


class Eviction(KVPolicy):
    """Reads what is left of a context."""

    reads_otherwise = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        score: EvictionScore,
        budget: int = 128,
        budget_share: float = 0.5,
        chunk: int = 256,
    ) -> None:
        """score: what a token is worth. Each KV head keeps max(budget, budget_share * context)
        tokens; as many as the context has: all, as without a policy. chunk: tokens that are looked
        at beside those. UserError on values out of range."""
        require_full_attention(backbone)
        if budget < 0 or chunk < 1:
            raise UserError(
                f"kv_policy.budget={budget} kv_policy.chunk={chunk} is too small; use a budget of "
                "0 or more, and a chunk of 1 or more."
            )
        if not 0 <= budget_share <= 1:
            raise UserError(f"kv_policy.budget_share={budget_share} is no share; use 0 to 1.")
        self._score, self._budget, self._share, self._chunk = score, budget, budget_share, chunk
        self.settings = f"eviction {score.settings} {budget} {budget_share} {chunk}"

    def context_attention(self, context: int, sink: int) -> EvictedContext:
        """The sink counts in the budget."""
        budget = max(self._budget, int(self._share * context))
        return EvictedContext(budget, sink, context, self._chunk, self._score)
