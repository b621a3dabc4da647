"""Which rivals are installed, and why one is not."""

import importlib
import sys
import warnings
from pathlib import Path

import torch

REASONS = Path(sys.prefix) / "missing"  # `make bench` leaves the installer's messages here, one file a rival
LONGEST = 240  # characters of a reason


def why_missing(rival: str, module: str) -> str | None:
    """Why a rival's module cannot be imported; None if it can.  rival: its name in the Makefile.

    Importing is the test, because a package may be there without the system's libraries that it needs.
    torch's number of threads stays what it was.
    """
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the rivals' own deprecations
            importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return reason(rival, error)
    finally:
        torch.set_num_threads(threads)
    return None


def reason(rival: str, error: Exception) -> str:
    """Why a rival is missing: what the installer reported, else what its import did."""
    return shorten(installer_message(rival) or str(error))


def installer_message(rival: str) -> str:
    """The last line that the installer printed about a rival that it could not install, or nothing."""
    try:
        lines = (REASONS / f"{rival}.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    lines = [line for line in lines if not line.startswith("make")]  # which only says that something failed
    errors = [line for line in lines if "error" in line.lower() or "needs" in line]
    return (errors or lines or [""])[-1].strip()


def shorten(text: str) -> str:
    """A reason that fits a line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
