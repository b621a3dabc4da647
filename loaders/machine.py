"""The machine as far as this process may use it: cores and memory, also inside a container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


DEFAULT_PERIOD = 100_000  # microseconds; version 1 keeps it in a file of its own that nobody changes


def usable_cores() -> int:
    """Cores that this process may keep busy, by affinity and by its container's quota; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = _limits("cpu", "cpu.max", "cpu.cfs_quota_us")
    shares = [quota / (period[0] if period else DEFAULT_PERIOD) for quota, *period in limits]
    return max(1, math.ceil(min([cores, *shares])))


def usable_memory() -> int:
    """Bytes of memory that this process may fill: the machine's, or its container's limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = _limits("memory", "memory.max", "memory.limit_in_bytes")
    return min([physical, *(limit for limit, *_ in limits)])


def _limits(controller: str, unified: str, legacy: str) -> Iterator[list[int]]:
    """The numbers in the control files of this process's groups and of their parents, where they set a limit.

    unified, legacy: the file's name in version 2 and in version 1.  Source: Linux, admin-guide, cgroup-v1 and v2.
    """
    try:
        groups = OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            name, base = unified, CGROUPS
        elif controller in controllers.split(","):
            name, base = legacy, CGROUPS / controller
        else:
            continue
        inside = base / group.lstrip("/")
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(base):
                break
            try:
                words = (folder / name).read_text().split()
            except OSError:  # the root has no limits, and a container may not see its parents
                continue
            if words and words[0].isdigit():  # "max" and -1 are no limit
                yield list(map(int, words))
