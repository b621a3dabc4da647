"""Leakage: hashes of a run's images and patients, looks, and sources, kept to tell what a test set shares with it."""

# N samples, B bytes of a look

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.config import TrainConfig
from engine.statistics.findings import both_known
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.state import check_run
from loaders.audit.copies import looks_of
from loaders.batches.loader import Loader
from loaders.beton.format import conversion_text
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.config import FORMER_ALGORITHM
from loaders.errors import InputError
from loaders.sources.confounding import finding_cautions, source_cautions
from loaders.sources.entry import is_placeholder, spelling
from loaders.statistics import Progress, no_progress

RECORD = "leakage.safetensors"
ALL = slice(None)  # of all images
HASHES, LOOK = ("pixel_hash", "patient_hash"), "look"


@dataclass(frozen=True, kw_only=True, slots=True)
class LeakageRecord:
    """What a run keeps of the films that it knows.  sets: set → kind → rows.

    Rows are uint8 (N, 16) of HASHES; (N, B) of LOOK, which `--no-look` and earlier releases leave out.
    site_key_id: of the patients' hashes.  hash_algorithm: of the pixels'.
    sources: of all sets; "" among them where some are unknown, as all are in a record of an earlier release.
    """

    sets: dict[str, dict[str, np.ndarray]]
    site_key_id: str
    hash_algorithm: str
    sources: set[str]


def save_record(
    run: Path, sets: dict[str, Beton], identity: str, *, look: bool = True, progress: Progress = no_progress
) -> None:
    """Write the leakage record: by set, hashes of pixels and patients, and looks if asked for; and the sources.

    identity: of run_id.  progress: of the looks.
    """
    found = {name: hashes(beton) | ({LOOK: looks_of(beton, progress)} if look else {}) for name, beton in sets.items()}
    tensors = {
        f"{name}.{kind}": torch.from_numpy(rows) for name, kinds in found.items() for kind, rows in kinds.items()
    }
    facts = next(iter(sets.values())).facts
    state = {
        "site_key_id": facts.site_key_id,
        "hash_algorithm": facts.hash_algorithm,
        "conversion_id": facts.conversion_id,
        "run": identity,
        "sources": sorted({name for beton in sets.values() for name in sources_of(beton)}),
    }
    save_checkpoint(run / RECORD, tensors, state)


def load_record(run: Path, identity: str) -> LeakageRecord:
    """Read the leakage record.  identity: of run_id.

    Errors: CheckpointError for a damaged file, or one of another run.
    """
    tensors, state = load_checkpoint(run / RECORD, needed=("site_key_id", "run"))
    check_run(run / RECORD, state["run"], identity)
    sets: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        set_name, kind = name.split(".")
        sets.setdefault(set_name, {})[kind] = tensor.numpy()
    return LeakageRecord(
        sets=sets, site_key_id=state["site_key_id"], hash_algorithm=state.get("hash_algorithm", FORMER_ALGORITHM),
        sources=set(state.get("sources", [""])),
    )  # fmt: skip


def hashes(beton: Beton) -> dict[str, np.ndarray]:
    """The pixel and patient hashes of a beton, uint8 (N, 16) each."""
    return {kind: beton.rows_N[kind].copy() for kind in HASHES}


def sources_of(beton: Beton) -> set[str]:
    """The sources of a beton's images, in one spelling of each; "" for unknown ones."""
    names = [beton.facts.sources[place] for place in np.unique(beton.rows_N["source"])]
    return {"" if is_placeholder(name) else spelling(name) for name in names}


def shared(hash_a_N16: np.ndarray, hash_b_N16: np.ndarray) -> int:
    """How many rows of b, all-zero ones apart, occur in a.  uint8 (N, 16) each."""
    known = {row.tobytes() for row in hash_a_N16} - {bytes(16)}
    return sum(row.tobytes() in known for row in hash_b_N16)


def overlap(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], *, same_key: bool, same_algorithm: bool
) -> dict[str, int | None]:
    """How many samples of b share their image or patient, by `hashes`, with a.

    patients: None under other site keys.  images: None where pixels are hashed by another algorithm.
    """
    return {
        "images": shared(a["pixel_hash"], b["pixel_hash"]) if same_algorithm else None,
        "patients": shared(a["patient_hash"], b["patient_hash"]) if same_key else None,
    }


def unknown_patients(hash_N16: np.ndarray) -> int:
    """How many samples have no patient hash, so that leakage between their patients would not show."""
    return int((~hash_N16.any(1)).sum())


def open_loaders(config: TrainConfig, stack: contextlib.ExitStack) -> tuple[Loader, Loader]:
    """Open train.beton and val.beton.

    Errors: InputError unless they are of one conversion and share nothing, and where no finding can be learnt.
    """
    for name in ("train.beton", "val.beton"):
        if not (config.data / name).is_file():
            raise InputError(
                f"{config.data}: no {name}, expected a folder that `convert` made; check the path, "
                "or name it beside --resume"
            )
    settings = replace(config.loader, training=True)
    loader = stack.enter_context(Loader(config.data / "train.beton", settings, tensors=True))
    val_loader = stack.enter_context(Loader(config.data / "val.beton", settings, tensors=True, training=False))
    a, b = loader.beton.facts, val_loader.beton.facts
    if (a.conversion_id, a.task, a.classes, a.crop, a.stored, a.lungs, a.segmenter) != (
        b.conversion_id, b.task, b.classes, b.crop, b.stored, b.lungs, b.segmenter,
    ):  # fmt: skip
        raise InputError(
            f"{config.data}: train.beton is of {conversion_text(a)}, val.beton of {conversion_text(b)}; expected one "
            "conversion; convert the radiographs again"
        )
    if a.task == "findings" and not both_known(loader.beton.labels).any():
        raise InputError(
            f"{config.data}: no finding is known to be present in one training film and absent in another, expected at "
            "least one; convert with more films, or read blank or uncertain values otherwise (--blank, --uncertain)"
        )
    if loader.beton.verified:
        common = overlap(hashes(loader.beton), hashes(val_loader.beton), same_key=True, same_algorithm=True)
        if any(common.values()):
            raise InputError(
                f"{config.data}: training and validation share {common['images']} images and "
                f"{common['patients']} images of common patients, expected none; convert the radiographs again"
            )
    return loader, val_loader


def image_cautions(betons: Sequence[Beton], kept_N: np.ndarray | slice = ALL) -> list[Caution]:
    """What limits any score on these images, which are of one conversion: phantoms, and classes tied to sources.

    kept_N: places of those that count, in all betons one after the other.
    """
    facts = betons[0].facts
    found = [caution("synthetic-phantoms")] if facts.synthetic else []
    if facts.lungs not in ("off", "crossval"):
        found.append(caution("lungs-alone", lungs=facts.lungs))
    source_N, group_N = (
        np.concatenate([beton.rows_N[name] for beton in betons])[kept_N] for name in ("source", "group")
    )
    own = np.concatenate([beton.labels for beton in betons])[kept_N]
    if facts.task == "findings":
        return found + finding_cautions(facts.classes, own, source_N.tolist(), group_N)
    labels = [facts.classes[label] for label in own]
    return found + source_cautions(labels, source_N.tolist(), group_N)


def patient_cautions(hash_N16: np.ndarray, code: str = "patients-unknown") -> list[Caution]:
    """Whether leakage between patients is excluded.  hash_N16: of patients, uint8."""
    unknown = unknown_patients(hash_N16)
    return [caution(code, unknown=unknown, images=len(hash_N16))] if unknown else []


def training_cautions(beton: Beton) -> list[Caution]:
    """What limits any score of a network trained on this set."""
    return image_cautions([beton]) + patient_cautions(beton.rows_N["patient_hash"])
