"""The settings of a run: those that may be shared, and beside them what only this machine needs to know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loaders.atomic_file import publish_bytes
from loaders.settings import flatten, read_settings, settings_of

CONFIG = "config.json"
LOCAL = "local.json"  # where betons lie may name patients or people: for its owner alone, not to be shared


def shared_settings(config: Any) -> dict[str, Any]:
    """A config's settings without any path: what a run says of itself.  Of a file of weights the name stays."""
    paths = {setting.name for setting in settings_of(type(config)) if Path in (setting.kind, setting.item)}
    shared = {name: value for name, value in flatten(config).items() if name not in paths}
    if "weights" in shared:
        shared["weights"] = Path(shared["weights"]).name
    return shared


def told_settings(config: Any, found: dict[str, Any]) -> dict[str, Any]:
    """A config's settings as far as those found in a folder can tell: without paths if it came without local.json."""
    return flatten(config) if "data" in found else shared_settings(config)


def save_settings(folder: Path, config: Any) -> None:
    """Write local.json, for its owner alone, and then config.json.  Errors: StorageError."""
    shared = shared_settings(config)
    local = {name: value for name, value in flatten(config).items() if name not in shared or shared[name] != value}
    publish_bytes(folder / LOCAL, (json.dumps(local, indent=2) + "\n").encode(), mode=0o600)
    publish_bytes(folder / CONFIG, (json.dumps(shared, indent=2) + "\n").encode())


def read_run_settings(folder: Path) -> dict[str, Any]:
    """The settings in a folder, paths included unless it came without its local.json.  Errors: ConfigError.

    Up to release 0.5 all of them were in config.json.
    """
    local = folder / LOCAL
    paths = read_settings(local) if local.is_file() else {}
    return read_settings(folder / CONFIG) | paths
