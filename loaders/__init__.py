"""Files: radiographs, catalogs, splits, betons, batches.  No engine, and torch only where a batch becomes a tensor.

For scripts, these names are stable:

    from loaders import Loader

    with Loader("B/train.beton", training=True, batch_size=32, seed=1) as loader:
        for epoch in range(2):
            for frames_N1HW, labels_N, index_N in loader:  # float32 in [-1, 1]; tensors=True for torch
                ...

Keywords are the fields of LoaderConfig; a beton is opened by Beton; all errors are in `errors`. Loader and Beton are
imported at their first use, so that `import loaders` imports neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from loaders import errors
from loaders.config import LoaderConfig, __version__

if TYPE_CHECKING:
    from loaders.batches.loader import Loader
    from loaders.beton.reader import Beton

__all__ = ["Beton", "Loader", "LoaderConfig", "__version__", "errors"]

_HOMES = {"Loader": "loaders.batches.loader", "Beton": "loaders.beton.reader"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
