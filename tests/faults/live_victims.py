"""What victims do to files that plainfilm is using, each in a process of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from loaders.batches.loader import Loader
from loaders.beton.ffcv_fields import FieldReader
from loaders.errors import BetonError
from loaders.images.frame import stored_frame
from loaders.images.radiograph import decode_radiograph
from loaders.sampling import epoch_matrices
from tests.loaders.test_beton import write

STORED = 46  # side of the frames


def load_kernels() -> None:
    """Load every kernel that victims need, so that they are forked with them; starts no thread."""
    with tempfile.TemporaryDirectory() as folder:
        path, picture = Path(folder) / "x.beton", Path(folder) / "x.png"
        write(path, 2)
        with Loader(path, training=True) as loader:
            index_N = np.arange(2)
            loader.make_batch(index_N, None)
            loader.make_batch(index_N, epoch_matrices(loader.config, 0, 2, loader.beton.facts.crop, loader.beton.side))
        cv2.imwrite(str(picture), np.arange(1600, dtype=np.uint8).reshape(40, 40))
        stored_frame(decode_radiograph(picture, max_pixels=1 << 20).grey_HW, STORED, "stretch")


def without_privileges() -> None:
    """Give up every capability: else root may write anywhere."""
    if os.getuid():
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def disturb(action: Callable[[], None], when: str, count: int) -> None:
    """Act once during a conversion: before the count-th file is decoded, or when all are and the betons are due."""
    import loaders.convert.convert
    import loaders.images.decode

    owner, name = (
        (loaders.images.decode, "decode_into_spool") if when == "decode" else (loaders.convert.convert, "write")
    )
    inner, calls = getattr(owner, name), iter(range(1 << 30))

    def acting(*given: object, **named: object) -> object:
        if next(calls) == (count if when == "decode" else 0):
            action()
        return inner(*given, **named)

    setattr(owner, name, acting)


def cut_later(path: Path, size: int, owner: type, name: str, count: int, delay: float) -> None:
    """Cut a file short in place, in another thread, some seconds after the count-th call of a method has begun."""
    inner, calls = getattr(owner, name), iter(range(1 << 30))

    def cut() -> None:
        time.sleep(delay)
        os.truncate(path, size)

    def acting(*given: object, **named: object) -> object:
        if next(calls) == count:
            thread = threading.Thread(target=cut)
            thread.start()
            if not delay:
                thread.join()
        return inner(*given, **named)

    setattr(owner, name, acting)


def batches_of(path: Path, kind: str) -> Iterator[tuple[np.ndarray, ...]]:
    """What a reader of this kind gives, one batch after another."""
    if kind == "fields":
        with FieldReader(path) as reader:
            for sample in range(len(reader)):
                yield reader.value("image", sample), np.array(reader.value("label", sample))
        return
    options: dict[str, Any] = {"training": kind == "training", "resident": "on" if kind == "resident" else "auto"}
    with Loader(path, batch_size=4, threads=2, seed=3, **options) as loader:
        yield from loader


def be_reader(path: Path, truth: Path, kind: str, action: Callable[[], None], count: int) -> None:
    """Read a beton, act on it before the count-th batch, and print how it ended: equal, wrong or told."""
    expected = list(batches_of(truth, kind))
    given = 0
    try:
        for batch in batches_of(path, kind):
            if not all(map(np.array_equal, batch, expected[given])):
                sys.stdout.write(f"wrong: batch {given}")
                return
            if (given := given + 1) == count:
                time.sleep(0.05)  # until the batches that are made ahead are there: the cut falls between two uses
                action()
                time.sleep(0.01)
    except BetonError as error:
        sys.stdout.write(f"told: {error}")
        return
    sys.stdout.write("equal" if given == len(expected) else f"wrong: {given} of {len(expected)} batches")


# ---- actions: what a victim does to a file


def write_over(path: Path, content: Path) -> None:
    """Write another file's bytes over this one, as cp does."""
    time.sleep(0.02)  # a clock tick of the file system after it was written
    with path.open("r+b") as file:
        file.write(content.read_bytes())


def become(path: Path, kind: str, other: Path) -> None:
    """Make a picture something else.  other: another picture, of which it may get the bytes."""
    match kind:
        case "gone":
            path.unlink()
        case "folder gone":
            shutil.rmtree(path.parent.parent)
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "other":
            path.write_bytes(other.read_bytes())
        case "text":
            path.write_text("no radiograph any more\n")
        case "fifo":
            path.unlink()
            os.mkfifo(path)
