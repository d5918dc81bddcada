"""Tokens that a short context guesses, and the whole context checks in one pass.

After RAPID (arXiv 2502.20330): the same model reads few frames and guesses the next tokens one by
one; the whole context then computes all of them at once, and keeps those that it would have given
itself. With greedy decoding the tokens are those of the whole context alone, up to the rounding of
a pass over several tokens. (RAPID also lets guesses change what the target samples; that is not
here.) Cost: a prefill of the question in the short context, and a pass there for each guess. It
saves a pass over the whole context for each guess that is right, so it pays where reading that
context costs more than reading the weights. Knows caches and tokens; no frames and no disk.
"""

from collections.abc import Iterator, Set

from torch import Tensor

from encoders.models.kv_cache import FixedCache
from encoders.models.language_model import LanguageModel
from pipeline.answer.attention.attention_shares import AttentionShares


class Guesser:
    """A short context that follows an answer. Counts what it guessed and what was right."""

    def __init__(self, model: LanguageModel, cache: FixedCache, tokens: int) -> None:
        """cache: holds the question behind few frames, and has room for the answer. tokens: most
        guesses at a time."""
        self._model, self._cache, self._tokens = model, cache, tokens
        self.guessed = self.right = 0

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """What follows these tokens of the answer, which come behind those of the calls before."""
        hidden = self._model.forward(self._model.embed(tokens), self._cache)[-1]
        mark, guesses = self._cache.mark(), list[int]()
        for _ in range(min(self._tokens, most)):
            if guesses:
                hidden = self._model.forward(self._model.embed(guesses[-1:]), self._cache)[-1]
            guesses.append(int(self._model.logits(hidden[None])[0].argmax()))
        self._cache.rewind(mark)
        self.guessed += len(guesses)
        return guesses


def checked_guesses(
    model: LanguageModel,
    stops: Set[int],
    hidden: Tensor,
    cache: FixedCache,
    most: int,
    shares: AttentionShares,
    guesser: Guesser,
) -> Iterator[int]:
    """Greedy decoding from the last hidden state [D] of the whole context: token ids, one at a
    time, without the stop token; as `LanguageModel.decode`, and `shares` hears the same steps."""
    token = int(model.logits(hidden[None])[0].argmax())
    before: list[int] = []  # right guesses that the short context has not read yet
    given = 0
    while given < most and token not in stops:
        yield token
        given += 1
        if given == most:
            return
        guesses = guesser.guess([*before, token], most - given)
        length, cursor = cache.mark()
        passes = _Steps(length)
        states = model.forward(model.embed([token, *guesses]), cache, passes)
        follow = model.logits(states).argmax(-1).tolist()
        before = []
        for number, guess in enumerate(guesses):
            passes.tell(number, shares)
            if guess != follow[number]:
                break
            guesser.right += 1
            if guess in stops:
                return
            yield guess
            given += 1
            if given == most:
                return
            before.append(guess)
        else:
            passes.tell(len(guesses), shares)
        token, stay = follow[len(before)], 1 + len(before)
        cache.rewind((length + stay, model.positions.of_text(stay, cursor)[1]))


class _Steps:
    """A listener of one pass over several tokens, which tells of each as if it came alone."""

    def __init__(self, length: int) -> None:
        """length: tokens before the pass."""
        self._length = length
        self._layers: list[tuple[int, Tensor, Tensor, float]] = []

    def __call__(self, layer: int, query: Tensor, key: Tensor, scaling: float) -> None:
        self._layers.append((layer, query, key, scaling))

    def tell(self, number: int, shares: AttentionShares) -> None:
        """What the token of this number, from 0, attended to."""
        stop = self._length + number + 1
        for layer, query, key, scaling in self._layers:
            shares(layer, query[:, :, number : number + 1], key[:, :, :stop], scaling)
