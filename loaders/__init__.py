"""Files: radiographs, catalogs, splits, betons, batches.  No engine, and torch only where a batch becomes a tensor.

For scripts, these names are stable:

    from loaders import Loader

    with Loader("B/train.beton", training=True, batch_size=32, seed=1) as loader:
        for epoch in range(2):
            for frames_N1HW, labels_N, index_N in loader:  # float32 in [-1, 1]; tensors=True for torch
                ...

Keywords are the fields of LoaderConfig; a beton is opened by Beton; all errors are in `errors`. FusedCropDecoder and
FieldReader work inside FFCV's pipelines; decode_radiograph and stored_frame prepare a file as training does, and
load_segmenter, hash_pixels and LUNG_MODES show its lungs alone as `predict` does. All but LoaderConfig and errors are
imported at their first use, so that `import loaders` imports neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from loaders import errors
from loaders.config import LoaderConfig, __version__

if TYPE_CHECKING:
    from loaders.batches.loader import Loader
    from loaders.beton.ffcv_fields import FieldReader
    from loaders.beton.ffcv_operation import FusedCropDecoder
    from loaders.beton.reader import Beton
    from loaders.images.decode import hash_pixels
    from loaders.images.frame import stored_frame
    from loaders.images.lungs import load_segmenter
    from loaders.images.radiograph import decode_radiograph
    from loaders.images.regions import LUNG_MODES

__all__ = [
    "LUNG_MODES", "Beton", "FieldReader", "FusedCropDecoder", "Loader", "LoaderConfig", "__version__",
    "decode_radiograph", "errors", "hash_pixels", "load_segmenter", "stored_frame",
]  # fmt: skip

_HOMES = {
    "Loader": "loaders.batches.loader",
    "Beton": "loaders.beton.reader",
    "FieldReader": "loaders.beton.ffcv_fields",
    "FusedCropDecoder": "loaders.beton.ffcv_operation",
    "decode_radiograph": "loaders.images.radiograph",
    "hash_pixels": "loaders.images.decode",
    "stored_frame": "loaders.images.frame",
    "load_segmenter": "loaders.images.lungs",
    "LUNG_MODES": "loaders.images.regions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
