"""How an answer is written: how long it may be, where it ends, and how each token is chosen.

The default is greedy: the likeliest token each time. A temperature above 0 chooses by chance, among
the likeliest tokens whose probabilities add up to top_p (nucleus sampling, Holtzman et al. 2020,
arXiv 1904.09751). Knows logits and texts; no model and no tokenizer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Choose = Callable[[Tensor], int]  # [V] float32 logits -> a token id


@dataclass(frozen=True, slots=True)
class Generation:
    """What one question asks of its answer."""

    max_tokens: int | None = None  # None: as many as the reader allows
    stop: tuple[str, ...] = ()  # texts before which the answer ends, none empty
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # 0..1: share of the probability that tokens are chosen from
    seed: int | None = None  # of the choices; None: another one each time
    form: str = ""  # JSON schema that the answer fits; "": text

    def chooser(self) -> Choose:
        """The choice of one answer's tokens. The same seed makes the same choices."""
        if self.temperature <= 0:
            return greedy
        random = torch.Generator()
        if self.seed is None:
            random.seed()
        else:
            random.manual_seed(self.seed % (1 << 63))

        def choose(logits: Tensor) -> int:
            shares = (logits.double().cpu() / self.temperature).softmax(-1)
            ranked, ids = shares.sort(descending=True, stable=True)
            before = ranked.cumsum(-1) - ranked  # of the tokens in front of each
            ranked = ranked.where(before < self.top_p, torch.zeros_like(ranked))
            ranked[0] = ranked[0].clamp_min(1e-12)  # top_p=0: the likeliest alone
            return int(ids[torch.multinomial(ranked, 1, generator=random)])

        return choose

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first stop text, and whether there is one."""
        places = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def settled(self, text: str) -> str:
        """The text without an end that may be the beginning of a stop text."""
        longest = max(
            (
                size
                for stop in self.stop
                for size in range(1, min(len(stop), len(text) + 1))
                if text.endswith(stop[:size])
            ),
            default=0,
        )
        return text[: len(text) - longest]


def greedy(logits: Tensor) -> int:
    """The likeliest token."""
    return int(logits.argmax())
