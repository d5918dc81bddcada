"""How far apart tokens stand for rotary embedding: ways to read more than a model was trained for.

    angle of pair i at position p = p * theta_i / factor_i

`theta_i` is the model's own frequency of the pair, R / 2 of them in a head. A factor of 1 leaves a
pair as it is; one of 2 puts two positions where one was. Each way says the factors, and what the
cosines and sines are multiplied by (YaRN's temperature). With `frames_only`, frames take smaller
steps and text takes whole ones, so text stands to text as it was trained. Knows frequencies only:
no model, no keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encoders.errors import UserError


class RotaryScaling(Protocol):
    """A way."""

    @property
    def frames_only(self) -> bool:
        """True if positions of text stay as they are. The time before a frame belongs to it."""
        ...

    @property
    def is_identity(self) -> bool:
        """True if nothing changes."""
        ...

    @property
    def reach(self) -> float:
        """How many times as many positions as before fit the model."""
        ...

    @property
    def attention_factor(self) -> float:
        """Of cosines and sines of the tokens that are scaled."""
        ...

    def factors(self, frequencies: Tensor, positions: int | None) -> Tensor:
        """[R / 2] float32, 1 or more. frequencies: [R / 2] radians a position, falling. positions:
        that the model was made for. UserError if they do not fit the model.
        """
        ...


@dataclass(frozen=True)
class NoScaling:
    """Positions as the model was trained."""

    frames_only: bool = False
    is_identity: bool = True
    reach: float = 1.0
    attention_factor: float = 1.0

    def factors(self, frequencies: Tensor, positions: int | None) -> Tensor:
        return torch.ones(len(frequencies))


class _OneFactor:
    """What ways with one factor share: a factor of 1 changes nothing but cosines and sines."""

    factor: float

    @property
    def attention_factor(self) -> float:
        raise NotImplementedError

    @property
    def is_identity(self) -> bool:
        return self.factor == 1.0 and self.attention_factor == 1.0

    @property
    def reach(self) -> float:
        return self.factor


@dataclass(frozen=True)
class LinearScaling(_OneFactor):
    """Every pair by one factor: position interpolation (arXiv 2306.15595); with frames_only the
    smaller steps of visual tokens (V2PE, arXiv 2412.09616), here without training.
    """

    factor: float = 2.0
    frames_only: bool = False
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        _refuse_below_one("factor", self.factor)

    def factors(self, frequencies: Tensor, positions: int | None) -> Tensor:
        return torch.full((len(frequencies),), float(self.factor))


@dataclass(frozen=True)
class YarnScaling(_OneFactor):
    """YaRN (arXiv 2309.00071): pairs that turn often stay, pairs that turn rarely are interpolated.

        turns_i  = positions * theta_i / (2 pi)
        factor_i = 1 / (g_i + (1 - g_i) / factor)
        g_i      = 1 above beta_fast turns, 0 below beta_slow, linear in the number i between

    With frames_only it is Partial YaRN (arXiv 2510.15231), for frames in place of sound; Visual
    Context Window Extension (arXiv 2409.20018) scales visual tokens alone as well. positions: that
    the model was trained on; None = those of its configuration. temperature: None = 0.1 ln(factor)
    + 1, or 1 with frames_only, where the text that reads the frames is not scaled.
    """

    factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    positions: int | None = None
    frames_only: bool = False
    temperature: float | None = None

    def __post_init__(self) -> None:
        _refuse_below_one("factor", self.factor)
        if not 0 < self.beta_slow < self.beta_fast:
            raise UserError(
                f"position.beta_slow={self.beta_slow:g} must be above 0 and below "
                f"position.beta_fast={self.beta_fast:g}; 1 and 32 are usual."
            )
        if self.positions is not None and self.positions < 1:
            raise UserError(f"position.positions={self.positions} must be 1 or more.")

    @property
    def attention_factor(self) -> float:
        if self.temperature is not None:
            return self.temperature
        return 1.0 if self.frames_only else 0.1 * math.log(self.factor) + 1.0

    def factors(self, frequencies: Tensor, positions: int | None) -> Tensor:
        positions = self.positions or positions
        if positions is None:
            raise UserError(
                "position.positions= is needed: the model's configuration does not say how many "
                "positions it was trained on."
            )
        kept = self._extrapolated(frequencies, positions)
        return 1.0 / (kept + (1.0 - kept) / self.factor)

    def _extrapolated(self, frequencies: Tensor, positions: int) -> Tensor:
        """[R / 2]: g, from 1 for the pairs that turn most to 0."""
        turns = positions * frequencies.double() / (2 * math.pi)
        # the number of the pair with so many turns: frequencies fall geometrically
        numbers = torch.arange(len(frequencies), dtype=torch.float64)
        slope = (turns[-1].log() - turns[0].log()) / max(len(frequencies) - 1, 1)
        low, high = (
            float((math.log(beta) - turns[0].log()) / slope)
            for beta in (self.beta_fast, self.beta_slow)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), 2 * len(frequencies) - 1)
        if low == high:
            high += 0.001
        return (1.0 - ((numbers - low) / (high - low)).clamp(0, 1)).float()


@dataclass(frozen=True)
class VectorScaling:
    """A factor for each pair, as a search has found them (LongRoPE, arXiv 2402.13753)."""

    per_pair: Sequence[float] = (1.0,)
    frames_only: bool = False
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.per_pair:
            raise UserError("position.per_pair= is empty; give a factor for each pair.")
        for factor in self.per_pair:
            _refuse_below_one("per_pair", factor)

    @property
    def is_identity(self) -> bool:
        return all(factor == 1.0 for factor in self.per_pair) and self.attention_factor == 1.0

    @property
    def reach(self) -> float:
        return max(self.per_pair)

    def factors(self, frequencies: Tensor, positions: int | None) -> Tensor:
        if len(self.per_pair) == 1:
            return torch.full((len(frequencies),), float(self.per_pair[0]))
        if len(self.per_pair) != len(frequencies):
            raise UserError(
                f"position.per_pair= has {len(self.per_pair)} factors, but a head of this model "
                f"has {len(frequencies)} pairs; give one for each, or one for all."
            )
        return torch.tensor([float(factor) for factor in self.per_pair])


def _refuse_below_one(name: str, factor: float) -> None:
    if not (factor >= 1.0 and math.isfinite(factor)):
        raise UserError(
            f"position.{name}={factor:g} must be a number from 1 on; 1 changes nothing."
        )
