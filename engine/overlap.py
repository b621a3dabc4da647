"""Overlap: images and patients that two sets share, found through the hashes in their betons."""

# N samples

from __future__ import annotations

import numpy as np


def shared(hash_a_N16: np.ndarray, hash_b_N16: np.ndarray) -> int:
    """How many rows of b, all-zero ones apart, occur in a.  uint8 (N, 16) each."""
    known = {row.tobytes() for row in hash_a_N16}
    nothing = bytes(16)
    return sum((key := row.tobytes()) in known and key != nothing for row in hash_b_N16)


def overlap(a: dict[str, np.ndarray], b: dict[str, np.ndarray], same_key: bool) -> dict[str, int | None]:
    """Shared images and shared patients of two sets, in samples of b.  patients: None under different site keys.

    a, b: pixel_hash and patient_hash, uint8 (N, 16) each.
    """
    return {
        "images": shared(a["pixel_hash"], b["pixel_hash"]),
        "patients": shared(a["patient_hash"], b["patient_hash"]) if same_key else None,
    }


def patients_compared(hash_N16: np.ndarray, same_key: bool) -> bool:
    """Whether every sample has a patient hash under a common key, so that patient leakage would show."""
    return same_key and bool(hash_N16.any(1).all())
