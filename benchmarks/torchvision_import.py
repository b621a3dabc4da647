"""torchvision's geometry, for the rivals that use it."""

from __future__ import annotations

from types import ModuleType

from benchmarks.rivals.installed import reason
from engine.networks.registry import import_torchvision


def import_functional() -> ModuleType:
    """torchvision.transforms.v2.functional.  Errors: ImportError where torchvision is not installed."""
    return import_torchvision("torchvision.transforms.v2.functional")


def missing() -> str | None:
    """Why torchvision cannot be imported, even so; None if it can."""
    try:
        import_functional()
    except (ImportError, OSError, RuntimeError) as error:
        return reason("torchvision", error)
    return None
