"""The FFCV operation: plainfilm's fused crop, augmentation and normalisation as the decoder of an FFCV pipeline.

    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    crops = FusedCropDecoder(LoaderConfig(training=True, seed=1))
    loader = Loader("train.beton", 32, order=OrderOption.RANDOM, pipelines={"image": [crops, ToTensor()]})
    for epoch in range(30):
        crops.set_epoch(epoch)
        for frames_N1HW, labels_N1 in loader:
            ...

The frames are those of plainfilm's own loader to the bit. Importing this module imports FFCV, which sets torch's number
of threads.
"""

# N samples of the beton, B of a batch, T chunks of a batch, one a thread; H W rows and columns of the crop,
# S side of a stored frame, 23 the two rows of an inverse affine matrix

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from numba import carray, types
from numba.extending import intrinsic

from kernels.affine import affine_into, affine_scratch
from kernels.crop import crop_into
from loaders.augmentation import epoch_matrices
from loaders.config import LoaderConfig, crop_side
from loaders.errors import ConfigError


class FusedCropDecoder(NDArrayDecoder):
    """Reads stored frames straight from the beton and writes crops float32 (1, H, W) in [-1, 1].

    Rotation and zoom are plainfilm's: a function of (seed, epoch, sample), so that a frame does not depend on FFCV's
    order or threads.  A subclass because FFCV knows a decoder by its class.
    """

    def __init__(self, config: LoaderConfig, *, crop: int | None = None) -> None:
        """config: seed, training, rotation, zoom and augment_from count.  crop: side in pixels; default 70 % as always.

        Errors, when FFCV builds the pipeline: ConfigError for frames that are not square uint8, or an impossible crop.
        """
        super().__init__()
        self.config, self.epoch = config, 0
        self._crop = crop
        self._inverse_N23 = np.empty((0, 2, 3), np.float32)

    def set_epoch(self, epoch: int) -> None:
        """Draw the rotations and zooms of this epoch; call it before iterating over FFCV's loader."""
        self.epoch = epoch
        if len(self._inverse_N23):
            num_samples = len(self._inverse_N23)
            # in place: FFCV's compiled pipeline holds the address
            self._inverse_N23[:] = epoch_matrices(self.config, epoch, num_samples, self.crop, self.stored)

    @property
    def stored(self) -> int:
        """Side of the stored frames.  Errors: ConfigError."""
        shape, dtype = tuple(self.field.shape), self.field.dtype
        if len(shape) != 2 or shape[0] != shape[1] or dtype != np.uint8:
            raise ConfigError(f"FusedCropDecoder: frames {dtype} of {shape}, expected square uint8; convert them")
        return int(shape[0])

    @property
    def crop(self) -> int:
        """Side of the crop.  Errors: ConfigError."""
        crop = self._crop or crop_side(self.stored)
        if not 1 <= crop <= self.stored or (self.stored - crop) % 2:
            raise ConfigError(
                f"FusedCropDecoder: crop {crop} of frames of {self.stored}, expected a margin of whole pixels; "
                "give another crop"
            )
        return crop

    def accept_globals(self, metadata: np.ndarray, memory_read: Callable) -> None:
        """What FFCV tells before it compiles, and again before each epoch."""
        super().accept_globals(metadata, memory_read)
        if len(self._inverse_N23) != len(metadata):
            self._inverse_N23 = epoch_matrices(self.config, self.epoch, len(metadata), self.crop, self.stored)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, tuple[AllocationQuery, ...]]:
        """Ask FFCV for the batch and for scratch: its own for each batch in the making, so that no two epochs share.

        FFCV multiplies what is asked by the batch size; of scratch only one row a thread is ever touched.
        """
        crop, stored = self.crop, self.stored
        state = replace(previous_state, jit_mode=True, shape=(1, crop, crop), dtype=np.dtype(np.float32))
        scratch = (AllocationQuery(part.shape, as_torch_has_it(part.dtype)) for part in affine_scratch(crop, stored))
        return state, (AllocationQuery((1, crop, crop), np.dtype(np.float32)), *scratch)

    def generate_code(self) -> Callable:
        """The function that FFCV compiles into its pipeline."""
        memory_read, my_range = self.memory_read, Compiler.get_iterator()
        threads, stored, training = Compiler.num_threads, self.stored, self.config.training
        margin = (stored - self.crop) // 2 if self.config.augment_from == "crop" else 0
        low, high = margin, stored - 1 - margin
        num_samples, address = len(self._inverse_N23), self._inverse_N23.ctypes.data
        start = np.zeros(1, np.int64)

        def decode(index_B: Any, memory: Any, metadata: Any, storage_state: Any) -> Any:
            out_B1HW, place_BW, weight_B2W, corner_BW, quad_BSS = memory
            inverse_N23 = carray(pointer_to(address), (num_samples, 2, 3), np.float32)  # type: ignore[call-arg]
            chunks = min(threads, len(index_B))
            for chunk in my_range(chunks):
                corner_W, quad_SS = corner_BW[chunk].view(np.uint32), quad_BSS[chunk].view(np.uint32)
                scratch = (place_BW[chunk], weight_B2W[chunk], corner_W, quad_SS)
                for b in range(chunk * len(index_B) // chunks, (chunk + 1) * len(index_B) // chunks):
                    sample = index_B[b]
                    frame = memory_read(metadata[sample], storage_state)
                    if training:
                        inverse_123 = inverse_N23[sample : sample + 1]
                        affine_into(out_B1HW[b : b + 1], frame, start, stored, inverse_123, low, high, scratch)
                    else:
                        crop_into(out_B1HW[b : b + 1], frame, start, stored)
            return out_B1HW

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


def as_torch_has_it(dtype: np.dtype) -> np.dtype:
    """FFCV allocates through torch, which has int32 where numpy has uint32."""
    return np.dtype(np.int32) if dtype == np.uint32 else dtype


@intrinsic
def pointer_to(typing_context: Any, address: Any) -> Any:
    """Compiled: the memory at an address. FFCV compiles once, and would freeze an array as a constant."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate
