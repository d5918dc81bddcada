"""Linear layers in bfloat16 on a CPU, as oneDNN wants them, and GELU in vision transformers.

torch hands oneDNN a layer's weights as they are, which are put into its own order again in every call; packed once,
encoding takes 4 % less time (0.6 B parameters), and a small decoder's products for one token a third less. A GELU behind such
a layer is applied while the product's rows are still in the cache. In small towers, which are better off as graphs
(encoders/models/jit_trace.py), only GELU's tanh gives way to the sigmoid that it is: torch's takes as long as the product before it.
Knows two shapes that an MLP can have and no model.
"""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

_GELU_KINDS = {
    "gelu_pytorch_tanh": "tanh",
    "gelu": "none",
}  # as transformers calls them: as torch does
MIN_WEIGHTS = 1 << 19  # weights from which a layer is packed where a graph could be made instead
MIN_WEIGHTS_DECODER = 1 << 14  # and where not: below, reordering costs nothing
_CLOSE = 0.05  # what rounding may make of outputs of size one


class PackedLinear(nn.Module):
    """x W^T + b, or the GELU of that, [..., in] -> [..., out] bfloat16. Holds the weights in oneDNN's order and no others."""

    def __init__(self, linear: nn.Linear, gelu: str = "") -> None:
        """gelu: "tanh" or "none", as torch.nn.functional.gelu takes it; "": none at all. RuntimeError where torch or the
        processor has no such product."""
        super().__init__()
        self.in_features, self.out_features, self.gelu = (
            linear.in_features,
            linear.out_features,
            gelu,
        )
        self.bias = linear.bias
        # no parameter: nothing but the product can read it
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        after: tuple[str, list[float], str] = (
            ("gelu", [], self.gelu) if self.gelu else ("none", [], "")
        )
        output: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *after)
        return output


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


def pack(model: nn.Module, min_weights: int = MIN_WEIGHTS) -> None:
    """Replace, in place, the GELUs that this file knows how to compute faster, then every linear layer of `least` weights that
    shares them with nobody. Each MLP, and the first layer, are tried before and after, and all is left as it was unless
    both say the same up to rounding. Only what is in bfloat16 on a CPU that has instructions for it."""
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
        # one at a time, so that the weights are there twice of one layer only
        module._modules[name] = packed


def count_weights(model: nn.Module) -> int:
    """How many numbers a model has learnt, packed or not."""
    packed = (one for one in model.modules() if isinstance(one, PackedLinear))
    return sum(one.numel() for one in model.parameters()) + sum(
        one.in_features * one.out_features for one in packed
    )


def _supported() -> bool:
    """Whether torch has these products, and the processor bfloat16."""
    try:
        probe = nn.Linear(64, 64).bfloat16().requires_grad_(False)
        return (
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
            and _probe_output(PackedLinear(probe, "tanh"), 64) is not None
        )
    except (RuntimeError, AttributeError):
        return False


def _fuse_gelu(mlp: nn.Module, min_weights: int) -> None:
    """The GELU of an MLP into the layer before it, or by its sigmoid: of `fc1` with an `activation_fn` beside it (SigLIP's), or
    of a linear layer before a GELU in an nn.Sequential (open_clip's)."""
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
    """Which GELU it is, if it is one."""
    if isinstance(activation, nn.GELU):
        return activation.approximate
    return next(
        (form for name, form in _GELU_KINDS.items() if type(activation) is type(ACT2FN[name])), None
    )


def _try_replace(mlp: nn.Module, parts: dict[str, nn.Module], width: int) -> None:
    """Give the MLP these parts, if it does the same with them."""
    before = {name: mlp._modules[name] for name in parts}
    expected = _probe_output(mlp, width)
    mlp._modules.update(parts)
    if not _close(expected, _probe_output(mlp, width)):
        mlp._modules.update(before)


@torch.inference_mode()
def _probe_output(module: nn.Module, width: int) -> Tensor | None:
    """What a module makes of some rows; None where it takes something else."""
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
