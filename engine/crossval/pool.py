"""The pool of a cross-validation: every sample of one conversion's betons, whatever their split was."""

# N samples of the pool

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.crossval.folds import renumber
from engine.learning_sets import SYNTHETIC_CAUTION
from engine.seen import HASHES, hashes, overlap, patients_compared
from loaders.account import told_by_source
from loaders.beton import Beton
from loaders.beton_footer import Facts
from loaders.errors import InputError
from loaders.subset import check_own, check_same_conversion

BETONS = ("train", "val", "heldout")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Open betons, one after the other.  start_B: each one's first place.  group_N: counted from 0."""

    folder: Path
    betons: tuple[Beton, ...]
    start_B: np.ndarray
    label_N: np.ndarray
    group_N: np.ndarray

    @property
    def facts(self) -> Facts:
        """What the conversion says of itself; its split is the first beton's."""
        return self.betons[0].facts

    @property
    def positive(self) -> int:
        """The positive class."""
        return self.facts.classes.index(self.facts.positive)

    def chosen(self, place_N: np.ndarray) -> list[tuple[Beton, np.ndarray]]:
        """The betons that places in the pool, rising, lie in, with the samples' places there."""
        ends_B = np.append(self.start_B[1:], len(self.label_N))
        parts = [
            (beton, place_N[(place_N >= start) & (place_N < end)] - start)
            for beton, start, end in zip(self.betons, self.start_B, ends_B, strict=True)
        ]
        return [(beton, index_N) for beton, index_N in parts if len(index_N)]

    def origin(self, place: int) -> tuple[str, int]:
        """The beton that a place lies in, by the name of its file, and the sample there."""
        which = int(np.searchsorted(self.start_B, place, side="right")) - 1
        return self.betons[which].path.stem, place - int(self.start_B[which])

    def cautions(self) -> list[str]:
        """What speaks against any score on this pool, in plain words."""
        facts, found = self.facts, []
        if facts.synthetic:
            found.append(SYNTHETIC_CAUTION)
        source_N = np.concatenate([beton.rows_N["source"] for beton in self.betons])
        told = told_by_source(self.label_N.tolist(), source_N.tolist())
        if told:
            names = ", ".join(facts.classes[label] for label in told)
            found.append(
                f"every image of {names} comes from a source without any other class: "
                "the score is evidence of nothing clinical"
            )
        if not all(patients_compared(beton.rows_N["patient_hash"], True) for beton in self.betons):
            found.append(
                "patients are not known for every image: leakage between patients is not excluded, by groups either"
            )
        return found


def open_pool(folder: Path, stack: contextlib.ExitStack) -> Pool:
    """Open every beton of a conversion.

    Errors: InputError for none, for betons of different conversions, and for a single class; BetonError.
    """
    paths = [path for name in BETONS if (path := folder / f"{name}.beton").is_file()]
    if not paths:
        raise InputError(
            f"{folder}: none of {', '.join(f'{name}.beton' for name in BETONS)}, expected a folder that `convert` "
            "made; check the path"
        )
    betons = tuple(stack.enter_context(Beton(path, trust_unverified=True)) for path in paths)
    check_same_conversion(betons)
    label_N = np.concatenate([beton.label_N for beton in betons])
    present = [betons[0].facts.classes[label] for label in np.unique(label_N)]
    if len(present) < 2:
        raise InputError(
            f"{folder}: {len(label_N)} images, all of class {present[0]}, expected two classes or more; convert another"
        )
    return Pool(
        folder=folder,
        betons=betons,
        start_B=np.cumsum([0, *(len(beton) for beton in betons[:-1])]),
        label_N=label_N,
        group_N=renumber(np.concatenate([beton.rows_N["group"] for beton in betons])),
    )


def open_external(path: Path, pool: Pool, stack: contextlib.ExitStack) -> tuple[Beton, list[str]]:
    """Open a beton of other images, and say what speaks against it.

    Errors: InputError for other classes or sizes, or one that shares images or patients with the pool; BetonError.
    """
    beton = stack.enter_context(Beton(path, trust_unverified=True))
    check_own(beton)
    facts, mine = beton.facts, pool.facts
    if facts.classes != mine.classes:
        raise InputError(
            f"{path}: classes {', '.join(facts.classes)}, expected {', '.join(mine.classes)}; "
            f"convert it with --classes {','.join(mine.classes)}"
        )
    if (facts.crop, facts.stored) != (mine.crop, mine.stored):
        raise InputError(
            f"{path}: frames of {facts.stored} with crops of {facts.crop}, expected {mine.stored} with {mine.crop}; "
            f"convert it with --size {mine.crop}"
        )
    same_key = facts.site_key_id == mine.site_key_id
    seen = {kind: np.concatenate([beton.rows_N[kind] for beton in pool.betons]) for kind in HASHES}
    common = overlap(seen, hashes(beton), same_key)
    if any(common.values()):
        raise InputError(
            f"{path}: shares {common['images']} images with {pool.folder} and {common['patients'] or 0} images of its "
            "patients, expected none; choose a beton of other patients, or, where both collections merely number their "
            "patients alike, convert it with another --site-key"
        )
    cautions = []
    if facts.fit != mine.fit:
        cautions.append(f"{path.name}: frames were fitted by {facts.fit}, in the pool by {mine.fit}")
    if not same_key or not patients_compared(beton.rows_N["patient_hash"], True):
        why = "patients are not known for every image" if same_key else "its site key is another"
        cautions.append(f"{path.name}: {why}: that it shares patients with the pool is not excluded")
    return beton, cautions
