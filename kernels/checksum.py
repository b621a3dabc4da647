"""CRC32C of stored frames, in the kernels that read them anyway: a frame comes from memory once.

The checksum of RFC 3720 (Castagnoli's polynomial).  Eight bytes a step: by the processor's instruction where numba says
that there is one, else by tables.  The instruction's result takes three cycles, so that three streams run side by side;
their checksums are joined as in zlib's crc32_combine (Mark Adler).
"""

# B bytes of a beton, N batch

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from kernels.jit import inlined, kernel

POLYNOMIAL = np.uint32(0x82F63B78)  # bits reversed
STREAM = 1024  # bytes of each of three streams: long beside joining them, short beside a frame
ALL_ONES = np.uint32(0xFFFFFFFF)
WORD = 8  # bytes
LOWEST, EIGHT, SIXTEEN, TWENTY_FOUR = np.uint32(0xFF), np.uint32(8), np.uint32(16), np.uint32(24)
INSTRUCTIONS = {"+sse4.2": "llvm.x86.sse42.crc32.64.64", "+crc": "llvm.aarch64.crc32cx"}  # by LLVM's names of features


def byte_tables() -> np.ndarray:
    """What one byte does that has 0 to 7 bytes behind it, uint32 (8, 256)."""
    tables = np.empty((8, 256), np.uint32)
    state = np.arange(256, dtype=np.uint32)
    for behind in range(8):
        for _ in range(8):
            state = state >> np.uint32(1) ^ (state & np.uint32(1)) * POLYNOMIAL
        tables[behind] = state
    return tables


def through(tables: np.ndarray, state: np.ndarray) -> np.ndarray:
    """A state taken through a linear map, given by what it makes of each byte of the state."""
    bytes_4 = (state >> np.uint32(8 * place) & LOWEST for place in range(4))
    return np.bitwise_xor.reduce([table[byte] for table, byte in zip(tables, bytes_4, strict=True)])


def stream_tables() -> np.ndarray:
    """What STREAM bytes of zero make of each byte of a state, uint32 (4, 256)."""
    states = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    tables = states >> EIGHT ^ byte_tables()[0][states & LOWEST]  # of one byte
    for _ in range(STREAM.bit_length() - 1):
        tables = through(tables, tables)  # of twice as many
    return tables


TABLES, STREAM_TABLES = byte_tables(), stream_tables()


@inlined
def word_by_table(state, word):
    """The state, uint32, after eight bytes, uint64."""
    low, high = state ^ np.uint32(word), np.uint32(word >> np.uint64(32))
    first = TABLES[7, low & LOWEST] ^ TABLES[6, low >> EIGHT & LOWEST]
    second = TABLES[5, low >> SIXTEEN & LOWEST] ^ TABLES[4, low >> TWENTY_FOUR]
    third = TABLES[3, high & LOWEST] ^ TABLES[2, high >> EIGHT & LOWEST]
    return first ^ second ^ third ^ TABLES[1, high >> SIXTEEN & LOWEST] ^ TABLES[0, high >> TWENTY_FOUR]


@intrinsic
def word_by_instruction(typing_context: Any, state: Any, word: Any) -> Any:
    """The state, uint32, after eight bytes, uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        state, word = arguments
        if (name := instruction()).startswith("llvm.x86"):  # which takes and gives 64 bits
            function = ir.FunctionType(word.type, [word.type, word.type])
            wide = builder.zext(state, word.type)
            return builder.trunc(builder.call(builder.module.declare_intrinsic(name, (), function), [wide, word]),
                                 state.type)  # fmt: skip
        function = ir.FunctionType(state.type, [state.type, word.type])
        return builder.call(builder.module.declare_intrinsic(name, (), function), [state, word])

    return types.uint32(types.uint32, types.uint64), generate


def instruction() -> str:
    """LLVM's name for the instruction of the processor that numba compiles for; "" where it does not say."""
    features = getattr(cpu_target.target_context.codegen(), "_tm_features", "").split(",")
    return next((name for feature, name in INSTRUCTIONS.items() if feature in features), "")


def advance(state: Any, word: Any) -> Any:
    """The state, uint32, after eight bytes, uint64.  For kernels alone."""
    raise NotImplementedError


@overload(advance, inline="always")
def _advance(state, word):
    if instruction():
        return lambda state, word: word_by_instruction(state, word)  # type: ignore[call-arg]
    return lambda state, word: word_by_table(state, word)


@intrinsic
def word_at(typing_context: Any, bytes_B: Any, place: Any) -> Any:
    """Eight bytes as uint64, lowest first, from any place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(bytes_B, types.intp), generate


@inlined
def past_stream(state):
    """The state, uint32, after STREAM bytes of zero."""
    found = STREAM_TABLES[0, state & LOWEST] ^ STREAM_TABLES[1, state >> EIGHT & LOWEST]
    return found ^ STREAM_TABLES[2, state >> SIXTEEN & LOWEST] ^ STREAM_TABLES[3, state >> TWENTY_FOUR]


@kernel
def crc32c(bytes_B, start, size):
    """CRC32C of `size` bytes from `start` on.

    bytes_B: uint8, contiguous, little-endian machine.  Errors: none here; the reader checks places once.
    """
    state, at, end = ALL_ONES, start, start + size
    while end - at >= 3 * STREAM:
        second, third = np.uint32(0), np.uint32(0)
        for place in range(at, at + STREAM, WORD):
            state = advance(state, word_at(bytes_B, place))  # type: ignore[call-arg]
            second = advance(second, word_at(bytes_B, place + STREAM))
            third = advance(third, word_at(bytes_B, place + 2 * STREAM))
        state = past_stream(past_stream(state) ^ second) ^ third
        at += 3 * STREAM
    while end - at >= WORD:
        state = advance(state, word_at(bytes_B, at))  # type: ignore[call-arg]
        at += WORD
    while at < end:
        state = TABLES[0, (state ^ np.uint32(bytes_B[at])) & LOWEST] ^ state >> EIGHT
        at += 1
    return state ^ ALL_ONES


@kernel
def checksums_into(out_N, bytes_B, offset_N, size):
    """Each frame's CRC32C.

    out_N: uint32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    size: bytes of a frame.  Errors: none here; the reader checks offsets once.
    """
    for n in range(out_N.shape[0]):
        out_N[n] = crc32c(bytes_B, offset_N[n], size)
