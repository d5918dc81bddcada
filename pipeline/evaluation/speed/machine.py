"""The machine: processor, threads, OpenMP and allocator settings, versions, matrix product rate."""

import os
import platform
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "reelbank torch transformers open_clip_torch numpy faiss-cpu av decord safetensors".split()
)
_SETTINGS = (
    "OMP_",
    "KMP_",
    "GOMP_",
    "MKL_",
    "ONEDNN_",
    "MALLOC_",
    "GLIBC_",
    "LD_PRELOAD",
    "ATEN_",
    "CUDA_VISIBLE",
)


def facts(device: torch.device) -> dict[str, Any]:
    """Everything needed to compare two runs."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": usable,
        "bf16_instructions": sorted({"avx512_bf16", "amx_bf16", "bf16"} & _flags()),
        "ram_gb": _ram_gb(),
        "system": platform.platform(),
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "torch_threads": torch.get_num_threads(),
        "settings": {
            key: value for key, value in sorted(os.environ.items()) if key.startswith(_SETTINGS)
        },
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions,
    }


def sentence(facts: dict[str, Any]) -> str:
    """The facts in a sentence or two."""
    settings = ", ".join(f"{key}={value}" for key, value in facts["settings"].items()) or "none set"
    versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
    return (
        f"Machine: {facts['processor']} ({facts['machine']}), {facts['cores']} cores, "
        f"{facts['ram_gb']} GB, device "
        f"{facts['device']}, {facts['torch_threads']} torch threads; OpenMP and allocator: "
        f"{settings}; freed memory kept: "
        f"{facts['keep_freed']}. Load at the start {facts['load'][0]:.1f}, at the end "
        f"{facts.get('load_at_end', facts['load'])[0]:.1f}. {facts['when']}. {versions}."
    )


def matmul_rate(
    dtype: torch.dtype, device: torch.device, side: int = 2048, calls: int = 3
) -> tuple[float, float]:
    """Operations a second, and a CPU second, of the fastest of a few square matrix products.

    The second number hardly changes when other processes use the machine.
    """
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype, device=device)
    best = [float("inf"), float("inf")]
    for _ in range(calls + 1):
        began = time.perf_counter(), time.process_time()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        best = [min(a, max(b, 1e-9)) for a, b in zip(best, took, strict=True)]
    return 2 * side**3 / best[0], 2 * side**3 / best[1]


def _cpuinfo(key: str) -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() == key:
                return line.partition(":")[2].strip()
    return ""


def _flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _ram_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
