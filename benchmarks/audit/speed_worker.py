"""One timed run of an audit, by plainfilm or cleanvision; imports little, since worker processes import it too."""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.settings import THREADS


def time_ours(folder: Path) -> float:
    """Seconds of one audit of files, table and page included, imports not; as the command does, workers begin to start
    before them.
    """
    from loaders.workers import worker_context

    worker_context()
    from loaders.audit.audit import audit
    from loaders.config import AuditConfig, CatalogConfig

    started = time.perf_counter()
    audit(AuditConfig(catalog=CatalogConfig(source=folder), out=folder.parent / "audit", workers=THREADS))
    return time.perf_counter() - started


def time_cleanvision(folder: Path) -> float:
    """Seconds of one default run, imports not included."""
    from cleanvision import Imagelab  # type: ignore[import-not-found,import-untyped,unused-ignore]

    started = time.perf_counter()
    Imagelab(data_path=str(folder), verbose=False).find_issues(n_jobs=THREADS, verbose=False)
    return time.perf_counter() - started


RIVALS: dict[str, Callable[[Path], float]] = {"plainfilm": time_ours, "cleanvision": time_cleanvision}


def main() -> None:
    """One run of one rival: prints its seconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit.speed_worker", description=__doc__)
    parser.add_argument("who", choices=list(RIVALS))
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        seconds = RIVALS[chosen.who](chosen.folder)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
