"""How much memory this process may still take. Knows no model and no device but the host."""

import os
from contextlib import suppress
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
# of the container that this process is in: version 2, version 1
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def host_memory() -> int | None:
    """Bytes that this process may still take, swap included; None where the system does not say.
    A container's limit counts as the machine's memory.
    """
    limits = []
    if "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, KeyError):
        rows = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = [int(rows[name].split()[0]) for name in ("MemAvailable", "SwapFree")]
        limits.append(1024 * sum(free))
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(file.read_text()))
    return min(limits) if limits else None
