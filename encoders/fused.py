"""GELU in vision transformers in bfloat16 on a CPU, where torch's takes in its tanh form as long as the product before it.

In wide layers oneDNN applies it while the product's rows are still in the cache, without rounding between them. In small ones,
which are better off as graphs (encoders/traced.py), tanh gives way to the sigmoid that it is. Knows two shapes that an MLP can
have and no model.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

_FORMS = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}  # as transformers calls them: as torch does
_WIDE = 1 << 20  # weights from which a layer takes its GELU in: graphs cannot hold such a product
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


class SigmoidGELU(nn.Module):
    """GELU in its tanh form: x (1 + tanh u) / 2 = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3), any shape.

    Computed in float32, as torch's is, and rounded once; in half of its time, for tanh is slow where sigmoid is not."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(2 * math.sqrt(2 / math.pi)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        inner = torch.addcmul(self.scale, wide, wide, value=0.044715 * 2 * math.sqrt(2 / math.pi))
        return inner.mul_(wide).sigmoid_().mul_(wide).to(x.dtype)


def fuse_gelu(model: nn.Module) -> int:
    """Replace, in place, every `fc1` with an `activation_fn` beside it (SigLIP's MLP) and every linear layer before a GELU in
    an nn.Sequential (open_clip's) by LinearGELU, or only the activation by SigmoidGELU; -> how many. Each MLP is tried before
    and after, and left as it was unless both say the same up to rounding. None but in bfloat16 on a CPU."""
    return sum(_fused(module) for module in list(model.modules()))


def _fused(mlp: nn.Module) -> bool:
    names = list(mlp._modules)
    if isinstance(mlp, nn.Sequential):
        pairs = list(pairwise(names))
    else:
        pairs = [("fc1", "activation_fn")] if {"fc1", "activation_fn"} <= set(names) else []
    for first, second in pairs:
        linear, form = mlp._modules[first], _form(mlp._modules[second])
        if not isinstance(linear, nn.Linear) or form is None or linear.weight.dtype != torch.bfloat16:
            continue
        if linear.weight.device.type != "cpu":
            continue
        if linear.weight.numel() >= _WIDE and linear.bias is not None and torch.backends.mkldnn.is_available():
            return _replaced(mlp, {first: LinearGELU(linear, form), second: nn.Identity()}, linear.in_features)
        if form == "tanh":
            return _replaced(mlp, {second: SigmoidGELU()}, linear.in_features)
    return False


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
