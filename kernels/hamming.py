"""Hamming distances: the best of many codes of 128 bits to each of a library's."""

# Q codes that are looked for, N codes of the library, B of a block, W words of a code

import numpy as np

from kernels.jit import inlined, kernel

BLOCK = 1024  # codes that stay in the processor's nearest cache, with their distances


@inlined
def count_bits(word):
    """Ones of a uint64, in arithmetic that LLVM turns into the processor's own instruction, in vectors too.

    Source: Warren 2012, Hacker's Delight, section 5-1.
    """
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel
def nearest_into(best_N, code_WN, query_QW):
    """For each code of the library, the nearest of the queries.

    code_WN: uint64 (2, N), query_QW: uint64 (Q, 2).  best_N: uint64, written whole: the distance times 2**32, plus the
    query's place, the first of equals; all ones where there is no query.
    """
    for start in range(0, best_N.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        best_B, first_B, second_B = best_N[block], code_WN[0, block], code_WN[1, block]
        best_B[:] = np.uint64(0xFFFFFFFFFFFFFFFF)
        for query in range(query_QW.shape[0]):
            first, second, place = query_QW[query, 0], query_QW[query, 1], np.uint64(query)
            for code in range(best_B.shape[0]):
                distance = count_bits(first_B[code] ^ first) + count_bits(second_B[code] ^ second)
                best_B[code] = min(best_B[code], (distance << np.uint64(32)) | place)
