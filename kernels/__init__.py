"""Arrays: numpy and numba (and its llvmlite) only. Kernels write into `out` and draw no random numbers."""
