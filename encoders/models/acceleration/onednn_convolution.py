"""A convolution and the ReLU6 behind it in one pass, by oneDNN.

torch writes the convolution's output, then reads and writes all of it again to clip it. Where
outputs are large and a sum has few terms, as in mobile networks, that takes a tenth of the time or
more. Knows no model.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

_CLOSE = 0.05  # tolerance for rounding, for outputs of size one to six


def clipped_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, groups: int
) -> Tensor:
    """conv2d(x, weight, bias) clipped to 0..6. RuntimeError unless `is_supported`."""
    steps = [padding, padding], [stride, stride], [1, 1]
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, *steps, groups, "hardtanh", [0.0, 6.0], ""
    )
    return output


@functools.cache
def is_supported(device: str, dtype: torch.dtype) -> bool:
    """Whether `clipped_convolution` works here and gives torch's numbers."""
    if device != "cpu":
        return False
    x, weight, bias = (
        torch.linspace(-3, 3, 9 * 64).sin().view(1, 4, 12, 12).to(dtype),
        torch.linspace(-2, 2, 4 * 9).cos().view(4, 1, 3, 3).to(dtype),
        torch.linspace(-1, 1, 4).to(dtype),
    )
    try:
        with torch.inference_mode():
            found = clipped_convolution(x, weight, bias, 2, 1, 4)
            expected = F.conv2d(x, weight, bias, 2, 1, 1, 4).clamp_(0, 6)
    except (RuntimeError, AttributeError):
        return False
    return found.shape == expected.shape and torch.allclose(found, expected, atol=_CLOSE, rtol=0)
