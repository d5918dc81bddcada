"""A device that computes on the CPU and otherwise keeps CUDA's rules: a stand-in where there is no
GPU.

Its tensors say that they are on cuda:0. An operation that mixes them with tensors of the CPU raises
the error that CUDA raises. The numbers underneath are real, so answers can be compared. It knows
nothing of kernels, and its copies are finished at once.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = torch.device("cuda:0")
# the only operations that CUDA allows between its tensors and those of the CPU
_COPIES = {Tensor.copy_, Tensor.to, Tensor.type_as, torch._has_compatible_shallow_copy_type}


class FarTensor(Tensor):
    """A tensor of the CPU that says that it is elsewhere."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})

    def record_stream(self, stream: Any) -> None:
        """Nothing is freed early here."""


class _FarMode(TorchFunctionMode):
    """Tensors that are made on the device, or moved there, become FarTensors."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})


def _near(x: Any) -> Any:
    return x.as_subclass(Tensor) if isinstance(x, FarTensor) else x


def _far(x: Any) -> Any:
    return x.as_subclass(FarTensor) if type(x) is Tensor else x


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == FAR.type


def _device_of(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The device that a call names; None if it names none."""
    if "device" in kwargs:
        return kwargs["device"]
    if func is Tensor.to:
        for one in args[1:]:
            if isinstance(one, str | torch.device):
                return one
            if isinstance(one, Tensor):
                return FAR if isinstance(one, FarTensor) else "cpu"
    return None


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The function on the tensors underneath, by CUDA's rules."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    is_far = any(isinstance(x, FarTensor) for x in tensors)
    if func is Tensor.pin_memory:
        return args[0]
    if func is torch._C._nn._parse_to:  # reads the arguments of `module.to`
        return func(*args, **kwargs)
    named = _device_of(func, args, kwargs)
    if not is_far and not _is_far(named):
        return func(*args, **kwargs)
    with torch._C.DisableTorchFunction():
        if func == Tensor.device.__get__:
            return FAR
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return False
        if func is Tensor.__iter__:
            return iter(_call(Tensor.unbind, args, {}))
        if func is Tensor.requires_grad_:
            return args[0]  # nothing is trained here
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        _refuse_mixture(func, args, tensors, is_far)
        goes_far = is_far if named is None else _is_far(named)
        if func is Tensor.cpu:
            goes_far = False
        if func is Tensor.cuda:
            func, args, goes_far = Tensor.clone, args[:1], True
        plain_args, plain_kwargs = tree_map(_near, (args, _without_far(kwargs)))
        if func is Tensor.to:
            plain_args = tuple("cpu" if _names_device(x) else x for x in plain_args)
        moves = func in (Tensor.to, Tensor.cpu) and goes_far != is_far
        out = func(*plain_args, **plain_kwargs)
        if moves and isinstance(out, Tensor) and isinstance(plain_args[0], Tensor):
            # a copy, as between devices
            out = out.clone() if out.data_ptr() == plain_args[0].data_ptr() else out
        # a torch.Size is no container of tensors
        return tree_map(_far, out) if goes_far and not isinstance(out, torch.Size) else out


def _names_device(x: Any) -> bool:
    return isinstance(x, str | torch.device)


def _without_far(kwargs: dict[str, Any]) -> dict[str, Any]:
    if _is_far(kwargs.get("device")):
        return kwargs | {"device": "cpu"}
    return kwargs


def _refuse_mixture(func: Any, args: Any, tensors: list[Tensor], is_far: bool) -> None:
    """RuntimeError where CUDA raises one. A number (no axis) of the CPU goes with everything."""
    if not is_far or func in _COPIES:
        return
    if func is Tensor.__getitem__ and isinstance(args[0], FarTensor):
        return  # a CPU index is moved
    if func is Tensor.__setitem__ and isinstance(args[0], FarTensor):
        indices = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor)]
        if not indices:  # a copy
            return
        tensors = [x for x in (args[0], args[2]) if isinstance(x, Tensor)]
    if any(not isinstance(x, FarTensor) and x.dim() > 0 for x in tensors):
        name = getattr(func, "__name__", str(func))
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! (in {name})"
        )


class _Stream:
    """A stream whose work is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, _: "_Stream") -> None: ...

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: Any) -> None: ...


@contextlib.contextmanager
def far_device(free_bytes: int = 1 << 40) -> Iterator[torch.device]:
    """In the block, and in threads that begin in it, cuda:0 is there. free_bytes: its memory."""
    run = threading.Thread.run

    def run_with_device(thread: threading.Thread) -> None:
        with _FarMode():
            run(thread)

    keeps = torch.__future__.get_overwrite_module_params_on_conversion()
    # `module.to` makes new parameters; otherwise it would put the numbers into the old ones
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    cuda = {
        "Stream": _Stream,
        "stream": lambda stream: stream,
        "current_stream": lambda *_: _Stream(),
        "mem_get_info": lambda *_: (free_bytes, free_bytes),
    }
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(threading.Thread, "run", run_with_device))
            for name, stand_in in cuda.items():
                stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
            stack.enter_context(_FarMode())
            yield FAR
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(keeps)
