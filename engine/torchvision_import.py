"""torchvision beside a torch without its compiled operations.

torchvision's wheels are built for CUDA. Beside a CPU-only torch their compiled part does not load, and the import fails
when it registers shapes for two operations that nobody declared. What is used here, networks and geometry, is plain
torch; so the two are declared first.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

import torch

OPERATIONS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """A module of torchvision.  Errors: ImportError where torchvision is not installed."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        declare()
        importlib.import_module("torchvision")  # what the first attempt left is not in the way
    return importlib.import_module(name)


@cache  # the declarations live as long as their library object
def declare() -> torch.library.Library:
    """Tell torch of the two operations."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATIONS:
        library.define(f"{name}{SIGNATURE}")
    return library
