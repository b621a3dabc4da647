"""What a run has seen: the hashes of its images and patients, kept so that no test set shares any of them."""

# N samples

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine.checkpoint import load_checkpoint, save_checkpoint
from engine.training_state import check_run
from loaders.beton import Beton
from loaders.errors import CheckpointError

SEEN = "seen.safetensors"
HASHES = ("pixel_hash", "patient_hash")


def save_seen(run: Path, sets: dict[str, Beton], identity: str) -> None:
    """Keep the pixel and patient hashes of each set, by name (DESIGN, What held-out means).  identity: of run_id."""
    tensors = {
        f"{name}.{kind}": torch.from_numpy(beton.rows_N[kind].copy()) for name, beton in sets.items() for kind in HASHES
    }
    facts = next(iter(sets.values())).facts
    state = {"site_key_id": facts.site_key_id, "conversion_id": facts.conversion_id, "run": identity}
    save_checkpoint(run / SEEN, tensors, state)


def load_seen(
    run: Path, conversion_id: str, identity: str | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """Read the hashes back, set → kind → uint8 (N, 16), and the site key's id.

    identity: of the run that the checkpoint is of, where it says.
    Errors: CheckpointError for a damaged file, or one of another conversion or run than the checkpoint's.
    """
    tensors, state = load_checkpoint(run / SEEN, needed=("site_key_id", "conversion_id"))
    if state["conversion_id"] != conversion_id:
        raise CheckpointError(
            f"{run / SEEN}: of conversion {state['conversion_id']}, expected {conversion_id}; bring the run's own back"
        )
    check_run(run / SEEN, state.get("run"), identity or "")
    sets: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        set_name, kind = name.split(".")
        sets.setdefault(set_name, {})[kind] = tensor.numpy()
    return sets, state["site_key_id"]


def hashes(beton: Beton) -> dict[str, np.ndarray]:
    """The pixel and patient hashes of a beton, uint8 (N, 16) each."""
    return {kind: beton.rows_N[kind].copy() for kind in HASHES}


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
