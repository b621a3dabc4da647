"""A bus error told in words: what the system sends to a reader of a map whose file was cut short in place."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from loaders.errors import BetonError


@contextlib.contextmanager
def bus_errors_told(code: int, tell: Callable[[BetonError], None]) -> Iterator[None]:
    """End the process with this exit status, after telling which open beton was cut short, where SIGBUS would end it.

    Betons look at their file before and after each use of the map, so this is for a cut in between.  A Python handler
    would never run: the system returns to the instruction that failed.  So C calls back into Python, which is sound
    because that instruction only reads a map: nothing is half done.  Any other bus error ends the process as before.
    """
    number = getattr(signal, "SIGBUS", None)
    if number is None:  # Windows
        yield
        return
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    first = threading.Lock()

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handler(_: int) -> None:
        if not first.acquire(blocking=False):
            time.sleep(60)  # another thread is telling, and ends this one too
        try:
            if (error := cut_beton()) is not None:
                tell(error)
                os._exit(code)
        finally:
            set_handler(number, before)
            signal.raise_signal(number)  # comes as soon as this one is done with

    before = set_handler(number, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        set_handler(number, before)


def cut_beton() -> BetonError | None:
    """What an open beton that is no longer as it was opened has to say."""
    module = sys.modules.get("loaders.beton_map")
    for found in gc.get_objects():
        if module is not None and type(found) is module.BetonMap:
            try:
                found.check_unchanged()
            except BetonError as error:
                return error
    return None
