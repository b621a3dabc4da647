"""Arrays: numpy and numba only. Kernels write into the `out` they are given and draw no random numbers."""
