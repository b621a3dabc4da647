"""The checksum of stored frames against RFC 3720 and the crc32c package."""

import numpy as np
import pytest
from crc32c import crc32c as package
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from kernels import checksum
from kernels.checksum import STREAM, checksums_into, crc32c
from kernels.crops import affine_into, affine_scratch, crop_into

PUBLISHED = [  # RFC 3720, B.4, and the check value of every catalogue of CRCs
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.numerical
@pytest.mark.parametrize(("data", "expected"), PUBLISHED)
def test_the_checksum_is_the_published_one(data: bytes, expected: int) -> None:
    assert crc32c(np.frombuffer(data, np.uint8), 0, len(data)) == expected


@pytest.mark.numerical
@given(
    start=st.integers(0, 40),
    size=st.one_of(st.integers(0, 40), st.integers(-9, 9).map(lambda off: 3 * STREAM + off), st.integers(0, 30_000)),
    seed=st.integers(0, 9),
)
@settings(max_examples=200, deadline=None)
def test_the_checksum_is_the_packages_from_any_byte_and_of_any_length(start: int, size: int, seed: int) -> None:
    bytes_B = np.random.default_rng(seed).integers(0, 256, 30_040, dtype=np.uint8)
    bytes_B.flags.writeable = False  # as a map is
    assert crc32c(bytes_B, start, size) == package(bytes_B[start : start + size].data)


def test_tables_and_instruction_take_a_word_alike() -> None:
    if not checksum.instruction():
        pytest.skip("numba names no instruction for CRC32C here")
    by_table = njit(lambda state, word: checksum.word_by_table(np.uint32(state), np.uint64(word)))
    by_instruction = njit(lambda state, word: checksum.word_by_instruction(np.uint32(state), np.uint64(word)))
    random = np.random.default_rng(0)
    for state, word in zip(
        random.integers(0, 2**32, 200, np.uint32), random.integers(0, 2**64, 200, np.uint64), strict=True
    ):
        assert by_table(state, word) == by_instruction(state, word)


def test_an_instruction_is_used_only_where_numba_compiles_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    codegen = checksum.cpu_target.target_context.codegen()
    for features, expected in (
        ("", ""),
        ("+sse2,-sse4.2", ""),
        ("+sse2,+sse4.2,+avx", "llvm.x86.sse42.crc32.64.64"),
        ("+neon,+crc,+v8a", "llvm.aarch64.crc32cx"),
    ):
        monkeypatch.setattr(codegen, "_tm_features", features)
        assert checksum.instruction() == expected


@pytest.mark.numerical
@pytest.mark.parametrize(("stored", "crop"), [(320, 224), (91, 63), (3, 1)])
def test_crops_come_with_the_checksums_of_their_whole_frames(stored: int, crop: int) -> None:
    size = stored**2
    bytes_B = np.random.default_rng(0).integers(0, 256, 3 * size + 50, dtype=np.uint8)
    offset_N = np.array([0, 2 * size + 50, size + 1])
    expected_N = [package(bytes_B[start : start + size].data) for start in offset_N]
    out_N1HW, crc_N = np.empty((3, 1, crop, crop), np.float32), np.zeros((3, 3), np.uint32)
    crop_into(out_N1HW, bytes_B, offset_N, stored, crc_N[0])
    inverse_N23 = np.tile(np.float32([[1, 0, 0], [0, 1, 0]]), (3, 1, 1))
    affine_into(out_N1HW, bytes_B, offset_N, stored, inverse_N23, 0, stored - 1, affine_scratch(crop, stored), crc_N[1])
    checksums_into(crc_N[2], bytes_B, offset_N, size)
    assert crc_N.tolist() == [expected_N] * 3
