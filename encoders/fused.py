"""A linear layer and the GELU behind it as one product, for vision transformers in bfloat16 on a CPU.

torch's GELU in its tanh form takes as long there as the product before it; oneDNN applies it while the product's rows are
still in the cache, without rounding between them. Knows two shapes that an MLP can have and no model.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

_FORMS = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}  # as transformers calls them: as torch does
_WIDE = 1 << 20  # weights from which a layer is replaced: a small model gains more from being traced (encoders/traced.py)
_CLOSE = 0.05  # what rounding may make of outputs of size one


class LinearGELU(nn.Module):
    """gelu(x W^T + b) of a layer that has W and b; [..., in] -> [..., out] bfloat16."""

    def __init__(self, linear: nn.Linear, form: str) -> None:
        """form: "tanh" or "none", as torch.nn.functional.gelu takes it."""
        super().__init__()
        self.weight, self.bias, self.form = linear.weight, linear.bias, form

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], self.form)
        return found


def fuse_gelu(model: nn.Module) -> int:
    """Replace, in place, every `fc1` with an `activation_fn` beside it (SigLIP's MLP) and every linear layer before a GELU in
    an nn.Sequential (open_clip's) by LinearGELU; -> how many. Each MLP is tried before and after, and left as it was unless
    both say the same up to rounding. None that is small, none but in bfloat16 on a CPU, none where torch is without oneDNN."""
    return sum(_fused(module) for module in list(model.modules())) if torch.backends.mkldnn.is_available() else 0


def _fused(mlp: nn.Module) -> bool:
    names = list(mlp._modules)
    if isinstance(mlp, nn.Sequential):
        pairs = list(pairwise(names))
    else:
        pairs = [("fc1", "activation_fn")] if {"fc1", "activation_fn"} <= set(names) else []
    for first, second in pairs:
        linear, form = mlp._modules[first], _form(mlp._modules[second])
        if isinstance(linear, nn.Linear) and form is not None and _suits(linear):
            return _replaced(mlp, {first: LinearGELU(linear, form), second: nn.Identity()}, linear.in_features)
    return False


def _suits(linear: nn.Linear) -> bool:
    if linear.bias is None or linear.weight.numel() < _WIDE:
        return False
    return linear.weight.dtype == torch.bfloat16 and linear.weight.device.type == "cpu"


def _form(activation: Any) -> str | None:
    """Which GELU it is, if it is one."""
    if isinstance(activation, nn.GELU):
        return activation.approximate
    return next((form for name, form in _FORMS.items() if type(activation) is type(ACT2FN[name])), None)


@torch.inference_mode()
def _replaced(mlp: nn.Module, parts: dict[str, nn.Module], width: int) -> bool:
    """Whether the MLP does the same with these parts, which it then keeps."""
    probe = torch.linspace(-3, 3, 4 * width).view(1, 4, width).sin().bfloat16()
    before = {name: mlp._modules[name] for name in parts}
    try:
        wanted = mlp(probe)
        mlp._modules.update(parts)
        if torch.allclose(mlp(probe), wanted, atol=_CLOSE * max(1.0, float(wanted.abs().max())), rtol=0):
            return True
    except (RuntimeError, NotImplementedError, AttributeError):  # another shape of MLP, or a torch without this product
        pass
    mlp._modules.update(before)
    return False
