"""The machine as this process may use it: cores, memory, the memory allocator, and bus errors."""

import contextlib
import ctypes
import gc
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from loaders.errors import BetonError

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
DEFAULT_PERIOD = 100_000  # microseconds; cgroup version 1 keeps it in a separate file, which nobody changes


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
                values = (folder / name).read_text().split()
            except OSError:  # the root has no limits, and a container may not see its parents
                continue
            if values and values[0].isdigit():  # "max" and -1 are no limit
                yield list(map(int, values))


def keep_allocations(enabled: bool = True) -> bool:
    """Have glibc keep freed memory instead of returning it to the system, for the rest of this process.

    A training step allocates and frees activations of 100-200 MB.  By default each is mapped anew, zeroed by the
    kernel and page-faulted in, which takes about a third of a step.  Keeping it takes a seventh more memory at size
    128.  The first few allocations of a size may still be mapped anew: an aligned block does not fit into the gap that
    it left until gaps have merged.
    Gives whether it took effect: never without glibc, nor when not enabled.  Source: mallopt(3).
    """
    if not enabled or platform.libc_ver()[0] != "glibc":
        return False
    # huge pages for torch's allocations, a variable that it reads once: fewer faults in the first step
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    # of glibc's malloc.h: map no block, never trim the heap, and grow it by 64 MiB at least
    mmap_max, trim_threshold, top_pad = (-4, 0), (-1, -1), (-2, 64 << 20)
    return all(libc.mallopt(name, value) for name, value in (mmap_max, trim_threshold, top_pad))


@contextlib.contextmanager
def bus_errors_reported(code: int, report: Callable[[BetonError], None]) -> Iterator[None]:
    """Where SIGBUS would end the process, report which open beton was cut short, and exit with this status.

    Betons check their file before and after each use of the map, so this is for a cut in between.  A Python handler
    would never run: the system returns to the instruction that failed.  So C calls back into Python, which is sound
    because that instruction only reads a map: nothing is half done.  Any other bus error ends the process as before.
    """
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    first = threading.Lock()

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handler(_: int) -> None:
        if not first.acquire(blocking=False):
            time.sleep(60)  # another thread is reporting, and ends this one too
        try:
            if (error := cut_beton()) is not None:
                report(error)
                os._exit(code)
        finally:
            set_handler(signal.SIGBUS, before)
            signal.raise_signal(signal.SIGBUS)  # delivered once this handler has returned

    before = set_handler(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(signal.SIGBUS, before)


def cut_beton() -> BetonError | None:
    """The error of an open beton whose file has changed since it was opened; None if there is none."""
    module = sys.modules.get("loaders.beton.map")
    for found in gc.get_objects():
        if module is not None and type(found) is module.BetonMap:
            try:
                found.check_unchanged()
            except BetonError as error:
                return error
    return None
