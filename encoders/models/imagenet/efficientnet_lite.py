"""EfficientNet-Lite0 for inference: pictures -> logits of ImageNet's classes.

Tan and Le, arXiv 1905.11946; the Lite form is TensorFlow's (no squeeze-and-excitation, ReLU6).
Batch norms are folded into the convolutions before them, each ReLU6 is part of its convolution, and
tensors lie channels last: on a CPU that takes a third of the time of timm's module, and gives its
numbers. Knows no frames, no files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.models.acceleration.onednn_convolution import clipped_convolution, is_supported

SIDE = 224  # pixels
_EPS = 1e-3  # of the batch norms, as TensorFlow has it
# (blocks, kernel, stride of the first one, whether channels are expanded first)
_STAGES = (
    (1, 3, 1, False),
    (2, 3, 2, True),
    (2, 5, 2, True),
    (3, 3, 2, True),
    (3, 5, 1, True),
    (4, 5, 2, True),
    (1, 3, 1, True),
)


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution with its batch norm. Padding is TensorFlow's "same" for even sides."""

    weight: Tensor  # [out, in / groups, kernel, kernel]
    bias: Tensor  # [out]
    stride: int
    groups: int
    is_clipped: bool  # ReLU6 behind it

    def __call__(self, x: Tensor) -> Tensor:
        total = self.weight.shape[-1] - self.stride  # with stride 1, an even number
        if total % 2:  # one row less in front than behind
            low, high = total // 2, total - total // 2
            x, pad = F.pad(x, (low, high, low, high)), 0
        else:
            pad = total // 2
        if self.is_clipped and is_supported(x.device.type, x.dtype):
            return clipped_convolution(x, self.weight, self.bias, self.stride, pad, self.groups)
        x = F.conv2d(x, self.weight, self.bias, self.stride, pad, 1, self.groups)
        return x.clamp_(0, 6) if self.is_clipped else x


class EfficientNetLite:
    """The network. Computes in one dtype on one device."""

    def __init__(
        self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        """tensors: by the names of the package's file. KeyError if one is missing."""
        self._tensors, self._device, self._dtype = tensors, device, dtype
        self._stem = self._fold("_conv_stem", "_bn0", stride=2)
        self._blocks: list[tuple[bool, list[_Convolution]]] = []  # (adds its input, its layers)
        number = 0
        for blocks, kernel, first_stride, expands in _STAGES:
            for place in range(blocks):
                stride = 1 if place else first_stride
                self._blocks.append((place > 0, self._block(number, kernel, stride, expands)))
                number += 1
        self._head = self._fold("_conv_head", "_bn1")
        self._weight, self._bias = self._put(tensors["_fc.weight"]), self._put(tensors["_fc.bias"])
        del self._tensors

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """[B, 3, SIDE, SIDE], pixels as (x - 127) / 128 -> [B, 1000] float32 logits."""
        x = pictures.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        x = self._stem(x)
        for adds, layers in self._blocks:
            y = x
            for layer in layers:
                y = layer(y)
            x = y.add_(x) if adds else y
        pooled = self._head(x).float().mean((2, 3)).to(self._dtype)
        return F.linear(pooled, self._weight, self._bias).float()

    def _block(self, number: int, kernel: int, stride: int, expands: bool) -> list[_Convolution]:
        """An inverted residual block: expand, filter each channel, project."""
        start = f"_blocks.{number}."
        layers = [self._fold(f"{start}_expand_conv", f"{start}_bn0")] if expands else []
        filters = self._fold(f"{start}_depthwise_conv", f"{start}_bn1", stride, depthwise=True)
        assert filters.weight.shape[-1] == kernel
        project = self._fold(f"{start}_project_conv", f"{start}_bn2", is_clipped=False)
        return [*layers, filters, project]

    def _fold(
        self,
        convolution: str,
        norm: str,
        stride: int = 1,
        *,
        depthwise: bool = False,
        is_clipped: bool = True,
    ) -> _Convolution:
        """The convolution with the batch norm behind it, computed in float64."""
        weight = self._tensors[f"{convolution}.weight"].double()
        gain, shift, mean, variance = (
            self._tensors[f"{norm}.{name}"].double()
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / (variance + _EPS).sqrt()
        folded = self._put(weight * scale.view(-1, 1, 1, 1))
        return _Convolution(
            folded.contiguous(memory_format=torch.channels_last),
            self._put(shift - mean * scale),
            stride,
            len(weight) if depthwise else 1,
            is_clipped,
        )

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype)
