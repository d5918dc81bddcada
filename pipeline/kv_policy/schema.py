"""The role of a policy of keys and values (conf/kv_policy/): how a bank stores them, and which of
them each head reads. Knows no implementation.
"""

from typing import ClassVar, Protocol

from encoders.models.context.schema import ContextAttention
from memory.storage.segments.codebook import Codebook
from memory.storage.segments.head_means import HeadMeans
from pipeline.config.parts import get_object
from pipeline.config.settings import PartSettings


class KVPolicy(Protocol):
    """What a policy does not define is as without one."""

    stores: ClassVar[bool] = False  # whether the bytes of a bank depend on the policy
    codebook: Codebook | None = None  # by which a bank stores keys and values; None: kv_dtype=
    heads: HeadMeans | None = None  # that a bank stores whole; None: all
    key_loss: float | None = None  # of low-rank keys that a bank stores; None: whole keys
    reads_otherwise: bool = False  # whether a context is read in another way than whole
    # frames that a short context guesses from, and guesses at a time; None: nothing is guessed
    guesses: tuple[int, int] | None = None
    uses_host: bool = False  # whether a part of a context lies in the memory of the host
    settings: str = ""  # all that an answer depends on beside what is stored

    def context_attention(self, context: int, sink: int) -> ContextAttention | None:
        """How a question reads a context of so many tokens; None: every head reads everything.
        sink: of these tokens, those before the first frame."""
        return None

    def host_tokens(self, context: int, sink: int) -> int:
        """How many tokens of a context lie in the memory of the host; those behind the sink."""
        return 0


def stores_otherwise(node: PartSettings) -> bool:
    """Whether the bytes of a bank depend on the policy of these settings."""
    policy: type[KVPolicy] = get_object(str(node["_target_"]))
    return policy.stores
