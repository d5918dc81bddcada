"""Cosines and sines of a model under a scaling, and the hook that gives them to its decoder.

Knows transformers' rotary embeddings as modules: their configuration, `inv_freq`, and what they
return. A hook of torch replaces their output, for one call of one thread; models of other readers
and of the encoder share the decoder and see nothing of it.

Every position is a sum p = t + v: t of them belong to text, and v to frames (`Cursor.text`). With
`frames_only`, only v is scaled, and the two angles are added:
    cos(a + b) = cos a cos b - sin a sin b      sin(a + b) = sin a cos b + cos a sin b
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from encoders.errors import UserError
from encoders.models.position.rotary_scaling import RotaryScaling

Table = tuple[Tensor, Tensor]  # cosines and sines, [..., n, R] float32 each


class ScaledRotary:
    """The rotary embedding of one decoder under a scaling."""

    def __init__(self, decoder: Any, scaling: RotaryScaling, positions: int | None) -> None:
        """positions: that the model was made for. UserError where its frequencies are not fixed or
        do not fit.
        """
        own: Any = getattr(decoder, "rotary_emb", None)
        if getattr(own, "inv_freq", None) is None:
            raise UserError(
                "position= needs a model with one rotary embedding for all layers; leave it out."
            )
        kind = str(getattr(own, "rope_type", "default"))
        if "dynamic" in kind or kind == "longrope":
            raise UserError(
                f"position= does not fit this model, whose frequencies depend on the length of the "
                f"context (rope_type={kind}); leave it out."
            )
        frequencies: Tensor = own.inv_freq
        factors = scaling.factors(frequencies.detach().float().cpu(), positions)
        scaled = type(own)(own.config).to(frequencies.device)
        scaled.inv_freq = frequencies / factors.to(frequencies)
        # the model's own temperature counts once
        scaled.attention_scaling = 1.0 if scaling.frames_only else own.attention_scaling
        self._own, self._scaled, self._scaling = own, scaled, scaling
        self._given = threading.local()
        own.register_forward_hook(self._replace)

    def table(
        self, positions: Tensor, text: Tensor, device: torch.device, *, of_frames: bool
    ) -> Table:
        """[n, R] each, at positions [n] or [3, n], of which `text` [n] or [3, n] belong to text.
        of_frames: the tokens there are those of frames.
        """
        if self._scaling.frames_only:
            cos_text, sin_text = _table(self._own, text, device)
            cos, sin = _table(self._scaled, positions - text, device)
            cos, sin = cos_text * cos - sin_text * sin, sin_text * cos + cos_text * sin
        else:
            cos, sin = _table(self._scaled, positions, device)
        if of_frames or not self._scaling.frames_only:
            cos, sin = cos * self._scaling.attention_factor, sin * self._scaling.attention_factor
        return cos, sin

    @contextmanager
    def placed(self, table: Table) -> Iterator[None]:
        """`with rotary.placed(table): decoder(...)`: this thread's calls rotate by the table, [B or
        1, n, R] each.
        """
        self._given.table = table
        try:
            yield
        finally:
            self._given.table = None

    def _replace(self, _module: Any, _args: Any, out: Table) -> Table | None:
        table: Table | None = getattr(self._given, "table", None)
        if table is None:
            return None
        cos, sin = (part.to(own.dtype) for part, own in zip(table, out, strict=True))
        return cos, sin


def _table(rotary: Any, positions: Tensor, device: torch.device) -> Table:
    """As the module computes it."""
    probe = torch.empty(0, dtype=torch.float32, device=device)  # carries dtype and device alone
    batch = positions[None] if positions.dim() == 1 else positions[:, None]
    cos, sin = rotary(probe, batch.to(device))
    return cos[0], sin[0]
