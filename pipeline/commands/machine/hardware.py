"""Probes of the machine: cores, instructions, GPUs, memory, and the disk of the bank.

Linux says it in /proc; elsewhere, what torch and Python know. Sizes in the facts are bytes.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from encoders.memory_limits import host_memory
from pipeline.commands.machine.finding import Finding, Status
from pipeline.config.units import format_size

CPUINFO = Path("/proc/cpuinfo")
# as Linux names the instructions -> as people do
_INSTRUCTIONS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_tile": "amx",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
    "asimd": "neon",
    "sve": "sve",
    "bf16": "bf16",
}
_WALK_S = 1.0  # seconds of looking for the files of a bank


def processor() -> Iterator[Finding]:
    """Model, cores that this process may use, and the instructions that make models fast."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = CPUINFO.read_text(encoding="utf-8") if CPUINFO.is_file() else ""
    model = _field(text, "model name") or platform.processor() or platform.machine()
    flags = set((_field(text, "flags") or _field(text, "Features") or "").split())
    found = [name for flag, name in _INSTRUCTIONS.items() if flag in flags]
    yield Finding(
        "machine", "cpu", Status.OK, f"{model}, {usable} of {os.cpu_count()} cores usable",
        {"model": model, "cores": os.cpu_count(), "usable_cores": usable},
    )  # fmt: skip
    told = ", ".join(found) or "none of those that are looked for"
    bfloat16 = any(name in found for name in ("avx512-bf16", "amx-bf16", "bf16"))
    told += "" if bfloat16 else "; bfloat16 is emulated, which is slower"
    facts = {name: flag in flags for flag, name in _INSTRUCTIONS.items()}
    yield Finding("machine", "instructions", Status.NOTE, told, facts)


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def accelerators() -> Iterator[Finding]:
    """Each GPU with its memory."""
    import torch

    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding(
            "machine", f"cuda:{index}", Status.OK,
            f"{name}, {format_size(free)} of {format_size(total)} free",
            {"model": name, "bytes": total, "free_bytes": free},
        )  # fmt: skip
    if torch.cuda.device_count():
        return
    if torch.backends.mps.is_available():
        yield Finding("machine", "mps", Status.OK, "Apple's GPU, which shares the memory")
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU alone"
    yield Finding(
        "machine", "gpu", Status.NOTE, f"none; torch {torch.__version__} is built for {build}",
        {"torch_cuda": torch.version.cuda},
    )  # fmt: skip


def memory() -> Iterator[Finding]:
    """What this process may still take; a container's limit counts."""
    free = host_memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = f"{format_size(total)}" + (f", {format_size(free)} free" if free is not None else "")
    yield Finding("machine", "memory", Status.OK, text, {"bytes": total, "free_bytes": free})


def bank(folder: Path) -> Iterator[Finding]:
    """The bank: where it is, how large, and the disk below it."""
    facts: dict[str, object] = {"folder": str(folder)}
    if (folder / "bank.json").is_file():
        nbytes, complete = _size(folder)
        facts |= {"bytes": nbytes, "complete": complete}
        text = f"{folder}, {'' if complete else 'more than '}{format_size(nbytes)}"
        yield Finding("bank", "bank", Status.OK, text, facts)
    elif folder.exists() and not folder.is_dir():
        text = f"{folder} is no folder; choose another with --bank DIR or REELBANK_BANK"
        yield Finding("bank", "bank", Status.BROKEN, text, facts)
    else:
        text = f"{folder}, which the first film makes"
        yield Finding("bank", "bank", Status.NOTE, text, facts)
    above = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    if not os.access(above, os.W_OK):
        text = f"{above} cannot be written; choose another with --bank DIR or REELBANK_BANK"
        yield Finding("bank", "access", Status.BROKEN, text)
    free = shutil.disk_usage(above).free
    yield Finding(
        "bank", "disk", Status.OK, f"{format_size(free)} free at {above}", {"free_bytes": free}
    )


def _size(folder: Path) -> tuple[int, bool]:
    """Bytes of all files in a folder, and whether all were seen in the time."""
    total, stop = 0, time.monotonic() + _WALK_S
    for root, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(root, name)).st_size
        if time.monotonic() > stop:
            return total, False
    return total, True
