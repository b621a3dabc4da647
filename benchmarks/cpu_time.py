"""CPU time of this process and of those that it started."""

from __future__ import annotations

import contextlib
import os
import time

import psutil


def cpu_seconds() -> float:
    """User and system time so far, children included; of children the kernel counts in hundredths of a second."""
    total = time.process_time()
    ended = os.times()
    total += ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now; its time moves to `children_user`
            times = child.cpu_times()
            total += times.user + times.system
    return total
