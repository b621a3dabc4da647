"""Libraries that are optional, or that do not import as they are: one place for each trick and each error."""

import importlib
from functools import cache
from types import ModuleType

import torch

from loaders.errors import ConfigError


def import_torchvision(name: str = "torchvision") -> ModuleType:
    """A module of torchvision.  Errors: ImportError where torchvision is not installed.

    torchvision's wheels are built for CUDA. Beside a CPU-only torch their compiled part does not load, and the import
    fails when it registers shapes for two operations that nobody declared. What is used here, networks and geometry, is
    plain torch; so the two are declared first.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        declare_operations()
        importlib.import_module("torchvision")  # what the first attempt left is not in the way
    return importlib.import_module(name)


@cache  # the declarations live as long as their library object
def declare_operations() -> torch.library.Library:
    """Declare the two operations that torchvision's import expects of its compiled part."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def import_extra(name: str, extra: str) -> ModuleType:
    """A module of an extra, which needs torchvision.  Errors: ConfigError where the extra is not installed."""
    import_torchvision()  # its import in there would fail beside a CPU-only torch
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name}: not installed ({error}), expected the extra {extra}; install it with "
            f"pip install 'plainfilm[{extra}]'"
        ) from error
