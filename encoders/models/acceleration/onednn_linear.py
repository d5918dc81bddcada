"""Linear layers in bfloat16 on a CPU in oneDNN's own order, and faster GELUs in vision
transformers.

torch passes a layer's weights to oneDNN as they are, and oneDNN reorders them in every call. With
weights packed once, encoding takes 4 % less time (0.6 B parameters), and a small decoder's products
for one token take a third less. A GELU after such a layer is applied while the product's rows are
still in the cache. Small towers run faster as graphs (encoders/models/acceleration/jit_trace.py).
There, only GELU's tanh is replaced by an equal sigmoid: torch's tanh takes as long as the product
before it. Knows two layouts of an MLP and no model.
"""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_GELU_KINDS = {
    "gelu_pytorch_tanh": "tanh",
    "gelu": "none",
}  # transformers' name -> torch's name
MIN_WEIGHTS = 1 << 19  # weights from which a layer is packed in models that could be traced instead
# weights from which it is packed in others: below, reordering costs nothing
MIN_WEIGHTS_DECODER = 1 << 14
_CLOSE = 0.05  # tolerance for rounding, for outputs of size one


class PackedLinear(nn.Module):
    """x W^T + b, or the GELU of that, [..., in] -> [..., out] bfloat16. Holds the weights in
    oneDNN's order only.
    """

    def __init__(self, linear: nn.Linear, gelu: str = "") -> None:
        """gelu: "tanh" or "none", as torch.nn.functional.gelu names it; "" = no GELU. RuntimeError
        if torch or the processor has no such product.
        """
        super().__init__()
        self.in_features, self.out_features, self.gelu = (
            linear.in_features,
            linear.out_features,
            gelu,
        )
        self.bias = linear.bias
        # not a parameter, because only this product can read it
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        after: tuple[str, list[float], str] = (
            ("gelu", [], self.gelu) if self.gelu else ("none", [], "")
        )
        output: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *after)
        return output


class SigmoidGELU(nn.Module):
    """GELU in its tanh form, for any shape: x (1 + tanh u) / 2 = x sigmoid(2u) with u = sqrt(2 /
    pi) (x + 0.044715 x^3).

    Computed in float32, like torch's, and rounded once; in half the time, because sigmoid is faster
    than tanh.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(2 * math.sqrt(2 / math.pi)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        inner = torch.addcmul(self.scale, wide, wide, value=0.044715 * 2 * math.sqrt(2 / math.pi))
        return inner.mul_(wide).sigmoid_().mul_(wide).to(x.dtype)


def pack(model: nn.Module, min_weights: int = MIN_WEIGHTS) -> None:
    """Replace, in place, the GELUs that this file can compute faster, then every linear layer of at
    least `min_weights` weights that are not shared. Each MLP and the first layer are compared
    before and after. They stay as they were unless both outputs agree up to rounding. Changes only
    bfloat16 layers on a CPU with bfloat16 instructions.
    """
    if not _supported():
        return
    for module in list(model.modules()):
        _fuse_gelu(module, min_weights)
    uses = Counter(
        id(one)
        for module in model.modules()
        for one in module._parameters.values()
        if one is not None
    )
    places = [(module, name) for module in list(model.modules()) for name in list(module._modules)]
    verified = False
    for module, name in places:
        linear = module._modules[name]
        if (
            not isinstance(linear, nn.Linear)
            or not _is_wide(linear, min_weights)
            or uses[id(linear.weight)] > 1
        ):
            continue
        packed = PackedLinear(linear)
        if not verified and not _close(
            _probe_output(linear, linear.in_features), _probe_output(packed, linear.in_features)
        ):
            return
        verified = True
        # one at a time, so that only one layer's weights exist twice
        module._modules[name] = packed


def count_weights(model: nn.Module) -> int:
    """Number of learned parameters of a model, packed or not."""
    packed = (one for one in model.modules() if isinstance(one, PackedLinear))
    return sum(one.numel() for one in model.parameters()) + sum(
        one.in_features * one.out_features for one in packed
    )


def _supported() -> bool:
    """True if torch has these products and the processor has bfloat16."""
    try:
        probe = nn.Linear(64, 64).bfloat16().requires_grad_(False)
        return (
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
            and _probe_output(PackedLinear(probe, "tanh"), 64) is not None
        )
    except (RuntimeError, AttributeError):
        return False


def _fuse_gelu(mlp: nn.Module, min_weights: int) -> None:
    """Merge an MLP's GELU into the layer before it, or replace it by SigmoidGELU. The layer is
    `fc1` next to an `activation_fn` (SigLIP), or a linear layer before a GELU in an nn.Sequential
    (open_clip).
    """
    names = list(mlp._modules)
    if isinstance(mlp, nn.Sequential):
        pairs = list(pairwise(names))
    else:
        pairs = [("fc1", "activation_fn")] if {"fc1", "activation_fn"} <= set(names) else []
    for first, second in pairs:
        linear, form = mlp._modules[first], _gelu_kind(mlp._modules[second])
        if not isinstance(linear, nn.Linear) or form is None or not _is_cpu_bfloat16(linear):
            continue
        if _is_wide(linear, min_weights):
            _try_replace(
                mlp, {first: PackedLinear(linear, form), second: nn.Identity()}, linear.in_features
            )
        elif form == "tanh":
            _try_replace(mlp, {second: SigmoidGELU()}, linear.in_features)


def _is_cpu_bfloat16(linear: nn.Linear) -> bool:
    return linear.weight.dtype == torch.bfloat16 and linear.weight.device.type == "cpu"


def _is_wide(linear: nn.Linear, min_weights: int) -> bool:
    return _is_cpu_bfloat16(linear) and linear.weight.numel() >= min_weights


def _gelu_kind(activation: Any) -> str | None:
    """The kind of GELU, or None for another activation."""
    if isinstance(activation, nn.GELU):
        return activation.approximate
    if not type(activation).__module__.startswith("transformers."):
        return None
    from transformers.activations import ACT2FN  # loaded with the model

    return next(
        (form for name, form in _GELU_KINDS.items() if type(activation) is type(ACT2FN[name])), None
    )


def _try_replace(mlp: nn.Module, parts: dict[str, nn.Module], width: int) -> None:
    """Put these parts into the MLP, and undo it if the output changes beyond rounding."""
    before = {name: mlp._modules[name] for name in parts}
    expected = _probe_output(mlp, width)
    mlp._modules.update(parts)
    if not _close(expected, _probe_output(mlp, width)):
        mlp._modules.update(before)


@torch.inference_mode()
def _probe_output(module: nn.Module, width: int) -> Tensor | None:
    """A module's output for some fixed rows; None if it does not take them."""
    probe = torch.linspace(-3, 3, 4 * width).view(1, 4, width).sin().bfloat16()
    try:
        output = module(probe)
    except (RuntimeError, TypeError, AttributeError):
        return None
    return output if isinstance(output, Tensor) else None


def _close(expected: Tensor | None, output: Tensor | None) -> bool:
    if expected is None or output is None or expected.shape != output.shape:
        return False
    return torch.allclose(
        expected, output, atol=_CLOSE * max(1.0, float(expected.abs().max())), rtol=0
    )
