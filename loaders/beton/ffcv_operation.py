"""An FFCV operation: plainfilm's fused crop, augmentation and normalisation as the decoder of an FFCV pipeline.

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

# N samples of the beton, B of a batch, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.ndarray import NDArrayDecoder
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from numba import carray, njit, types
from numba.extending import intrinsic

from kernels.crops import affine_into, affine_scratch, crop_into
from kernels.jit import POLICY
from loaders.config import LoaderConfig, crop_side
from loaders.errors import ConfigError
from loaders.sampling import epoch_matrices, sampled_pixels


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
        # by (samples, crop, stored): compiled pipelines hold these arrays' addresses, so none may be freed or moved
        self._matrices: dict[tuple[int, int, int], np.ndarray] = {}

    def set_epoch(self, epoch: int) -> None:
        """Draw the rotations and zooms of this epoch; call it before iterating over FFCV's loader."""
        self.epoch = epoch
        for (num_samples, crop, stored), inverse_N23 in self._matrices.items():
            inverse_N23[:] = epoch_matrices(self.config, epoch, num_samples, crop, stored)

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
        crop = crop_side(self.stored) if self._crop is None else self._crop
        if not 1 <= crop <= self.stored or (self.stored - crop) % 2:
            found = f"crop {crop} of frames of {self.stored}"
            raise ConfigError(f"FusedCropDecoder: {found}, expected a margin of whole pixels; give another crop")
        return crop

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """The memory that FFCV allocates: the batch."""
        shape, dtype = (1, self.crop, self.crop), np.dtype(np.float32)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def matrices(self) -> np.ndarray:
        """The matrices of the beton that FFCV has announced, float32 N23, at an address that does not change."""
        key = (len(self.metadata), self.crop, self.stored)
        if key not in self._matrices:
            self._matrices[key] = epoch_matrices(self.config, self.epoch, *key)
        return self._matrices[key]

    def generate_code(self) -> Callable:
        """The function that FFCV compiles into its pipeline."""
        memory_read, my_range = self.memory_read, Compiler.get_iterator()
        threads, crop, stored, training = Compiler.num_threads, self.crop, self.stored, self.config.training
        low, high = sampled_pixels(self.config, crop, stored)
        num_samples, address = len(self.metadata), self.matrices().ctypes.data
        # Compiled separately for each pipeline: FFCV 1.0.2 changes a numba type in place (`t1.mutable = False`), which
        # breaks whatever was compiled for it before: numba then fails or loops for ever.
        affine_apart, crop_apart = (njit(**POLICY)(kernel.py_func) for kernel in (affine_into, crop_into))

        def decode(index_B: Any, out_B1HW: Any, metadata: Any, storage_state: Any) -> Any:
            inverse_N23 = carray(pointer_to(address), (num_samples, 2, 3), np.float32)  # type: ignore[call-arg]
            start, chunks = np.zeros(1, np.int64), min(threads, len(index_B))
            for chunk in my_range(chunks):
                scratch = affine_scratch(crop, stored)
                for b in range(chunk * len(index_B) // chunks, (chunk + 1) * len(index_B) // chunks):
                    sample = index_B[b]
                    frame = memory_read(metadata[sample], storage_state)
                    if training:
                        inverse_123 = inverse_N23[sample : sample + 1]
                        affine_apart(out_B1HW[b : b + 1], frame, start, stored, inverse_123, low, high, scratch)
                    else:
                        crop_apart(out_B1HW[b : b + 1], frame, start, stored)
            return out_B1HW

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


@intrinsic
def pointer_to(typing_context: Any, address: Any) -> Any:
    """The memory at an address, in compiled code.  FFCV compiles once, and would freeze an array as a constant."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate
