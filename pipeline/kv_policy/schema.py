"""The role of a policy of keys and values (conf/kv_policy/): how a bank stores them, and which of
them each head reads. Knows no implementation.
"""

from typing import ClassVar, Protocol

from encoders.models.heads.head_spans import HeadSpans
from memory.storage.segments.codebook import Codebook
from memory.storage.segments.head_means import HeadMeans
from pipeline.config.parts import get_object
from pipeline.config.settings import PartSettings


class KVPolicy(Protocol):
    """What a policy does not define is as without one."""

    stores: ClassVar[bool] = False  # whether the bytes of a bank depend on the policy
    codebook: Codebook | None = None  # by which a bank stores keys and values; None: kv_dtype=
    heads: HeadMeans | None = None  # that a bank stores whole; None: all
    splits_heads: bool = False  # whether some heads read a part of the context
    settings: str = ""  # all that an answer depends on beside what is stored

    def spans(self, context: int, sink: int) -> HeadSpans | None:
        """What each head reads of a context of so many tokens while a question is answered; None:
        everything. sink: of these tokens, those before the first frame."""
        return None


def stores_otherwise(node: PartSettings) -> bool:
    """Whether the bytes of a bank depend on the policy of these settings."""
    policy: type[KVPolicy] = get_object(str(node["_target_"]))
    return policy.stores
