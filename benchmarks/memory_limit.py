"""A memory limit: the loader on a beton four times as large, beside a plain read of the same file.

As a program it is the child: it joins the control group, makes one pass, and prints its rate. It imports no torch.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 1 << 20
LIMIT = 256 * MIB
CHUNK = 4 * MIB  # of the plain read
PATIENCE = 20.0  # seconds, after which an epoch is broken off and counts as far as it came
GROUPS = Path("/sys/fs/cgroup")
NAME = f"plainfilm-benchmark-{os.getpid()}"


@contextlib.contextmanager
def limited_group(limit: int = LIMIT) -> Iterator[Path | None]:
    """A control group with this memory limit, of version 1 or 2; None where none can be made."""
    for parent, setting in ((GROUPS / "memory", "memory.limit_in_bytes"), (GROUPS, "memory.max")):
        group = parent / NAME
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / setting).write_text(str(limit))
            except OSError:
                group.rmdir()
                continue
            break
    else:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def rate(group: Path, beton: Path, way: str) -> float:
    """MB a second of one pass over the beton, from the disk, by a child under the limit.

    Errors: CalledProcessError when the child fails, such as when the limit is too small for it.
    """
    forget(beton)
    command = [sys.executable, "-m", "benchmarks.memory_limit", str(group), str(beton), way]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return float(done.stdout)


def forget(path: Path) -> None:
    """Ask the system to drop its cached pages of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(beton: Path) -> int:
    """Read the file from beginning to end; gives its bytes."""
    chunk, total = bytearray(CHUNK), 0
    with beton.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            total += count
    return total


def run_epoch(beton: Path, *, training: bool) -> int:
    """One epoch of the loader; gives the bytes of the frames that it read."""
    from loaders.batches.loader import Loader  # after the process has joined the group

    end, samples = time.perf_counter() + PATIENCE, 0
    with Loader(beton, training=training, threads=2) as loader:
        for frames_N1HW, *_ in loader:
            frames_N1HW.max()
            samples += len(frames_N1HW)
            if time.perf_counter() > end:
                break
        return samples * loader.beton.side**2


WAYS: dict[str, Callable[[Path], int]] = {
    "plain read": read,
    "loader, evaluation": lambda beton: run_epoch(beton, training=False),
    "loader, training": lambda beton: run_epoch(beton, training=True),
}


def main(group: str, beton: str, way: str) -> None:
    """The child."""
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    if way != "plain read":  # compile, or load what was compiled, before the clock starts
        import loaders.batches.loader  # noqa: F401
    start = time.perf_counter()
    total = WAYS[way](Path(beton))
    print(total / 1e6 / (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
