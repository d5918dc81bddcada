"""The role of what queries read of a context that was laid out before them. Knows tensors only."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor


class ContextAttention(Protocol):
    """Attention to one context of one row without padding, and to all behind it."""

    def attend(
        self,
        attend: Callable[..., Any],
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """Attention of a layer. attend: that of queries that read everything. query [1, Hq, n, Dh],
        the last n tokens; key and value [1, H, S, Dh]; returns [1, n, Hq, Dh] and None."""
        ...

    def whole_keys(self, layer: int, key: Tensor) -> Tensor:
        """[1, H, S, Dh]: the keys of the whole context in order, for citations. key: those that
        `attend` gets."""
        return key
