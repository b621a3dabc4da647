"""A subset: a beton of chosen samples of other betons, their frames as they are or changed."""

# N samples, S side of a stored frame

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loaders.beton import Beton
from loaders.beton_writer import write_beton
from loaders.errors import InputError, StorageError

Change = Callable[[np.ndarray], np.ndarray]
"""frame_SS → frame_SS, uint8."""


def subset_id(beton: Beton, words: str, *index_N: np.ndarray) -> str:
    """The conversion id of subsets of a beton's conversion.  words: what is done; index_N: who is in which subset."""
    identity = hashlib.blake2b(f"{beton.facts.conversion_id}\0{words}\0".encode(), digest_size=16)
    for chosen_N in index_N:
        identity.update(len(chosen_N).to_bytes(8, "little") + chosen_N.astype("<i8").tobytes())
    return identity.hexdigest()


def check_own(beton: Beton) -> None:
    """Errors: InputError unless the beton is plainfilm's own."""
    if not beton.verified:
        raise InputError(
            f"{beton.path}: without plainfilm's footer, so neither groups nor patients are known, "
            "expected a beton of `convert`; convert the radiographs"
        )


def check_same_conversion(betons: Sequence[Beton]) -> None:
    """Errors: InputError unless all betons are plainfilm's own and of one conversion."""
    first = betons[0]
    for beton in betons:
        check_own(beton)
        if replace(beton.facts, split="") != replace(first.facts, split=""):
            raise InputError(
                f"{beton.path}: of conversion {beton.facts.conversion_id}, {first.path.name} of "
                f"{first.facts.conversion_id}, expected one conversion; convert the radiographs again"
            )


def write_subset(
    sources: Sequence[tuple[Beton, np.ndarray]],
    path: Path,
    split: str,
    *,
    conversion_id: str | None = None,
    change: Change | None = None,
) -> None:
    """Write a beton of the chosen samples of each source, one source after the other, atomically.

    sources: verified betons of one conversion, and index_N of each: the samples, in the order that they get.
    split: what the beton calls itself.  conversion_id: by default the sources' own.
    change: what becomes of each frame; without it its bytes are copied.  Labels and rows stay: group, view, source,
    flags and both hashes, of which the pixels' is of the radiograph as it was decoded, whatever change does.
    Errors: InputError for betons of different conversions, or no samples; BetonError for a frame that is not what was
    written; StorageError.
    """
    betons = [beton for beton, _ in sources]
    check_same_conversion(betons)
    label_N = np.concatenate([beton.label_N[index_N] for beton, index_N in sources])
    rows_N = np.concatenate([beton.rows_N[index_N] for beton, index_N in sources])
    facts = replace(betons[0].facts, split=split, conversion_id=conversion_id or betons[0].facts.conversion_id)

    def frames() -> Iterator[np.ndarray]:
        for beton, index_N in sources:
            for sample in index_N.tolist():
                beton.check_samples(np.array([sample]))  # a damaged frame would get a new, valid checksum
                yield beton.frame(sample) if change is None else change(beton.frame(sample))
            beton.check_unchanged()  # since the last one was checked

    write_beton(path, frames(), label_N, rows_N, facts, betons[0].page_size)


def check_room(folder: Path, needed: int) -> None:
    """Errors: StorageError when the disk that folder is on, or will be, has fewer bytes free."""
    existing = next(place for place in [folder, *folder.absolute().parents] if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(f"{folder}: {free:,} bytes free on the disk, expected {needed:,}; free some space")
