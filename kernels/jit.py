"""The one compilation policy of every kernel.

No fastmath: the same source gives the same bits with any number of threads, and the affine kernel at the identity
equals the crop kernel. No bounds checks: callers check shapes once (NUMBA_BOUNDSCHECK=1 turns them on for testing).
The GIL is released, so plain Python threads run kernels side by side; compiled code is cached on disk.
"""

from numba import njit

kernel = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
inlined = njit(nogil=True, cache=True, fastmath=False, error_model="numpy", inline="always")
