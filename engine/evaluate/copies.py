"""Films that a test set shares with training: equal pixels, a patient, or a copy of a film by its look."""

# N samples

import contextlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.train.leakage import LOOK, RECORD, hashes, load_record
from engine.train.run_folder import data_folder
from loaders.atomic_file import publish_rows
from loaders.audit.copies import LEAST_SIDE, Copy, can_compare, copies_by_frames, copies_by_looks
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.errors import BetonError, InputError, StorageError
from loaders.statistics import Progress, no_progress

COPIES = "copies.csv"
Reason = Literal["pixels", "patient", "copy"]
HASH_OF: dict[Reason, str] = {"pixels": "pixel_hash", "patient": "patient_hash"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFilm:
    """A film of a test set that training has, too.

    sample: its place in the test set.  reason: the first that holds.  of: the name of the set in training that has it
    (train, val or heldout).  place: of the film there.  similarity: of a copy, 1 if equal; None for other reasons.
    """

    sample: int
    reason: Reason
    of: str
    place: int
    similarity: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSet:
    """A set of films that a network knows.  hashes: of pixels, by hash_algorithm, and patients, under a site key.

    copies: finds those of a test set by their look.

    copies is None where neither frames nor looks are at hand.
    """

    name: str
    site_key_id: str
    hash_algorithm: str
    hashes: dict[str, np.ndarray]
    copies: Callable[[Beton, Progress], list[Copy]] | None


def shared_films(tested: Beton, known: Sequence[Beton], progress: Progress = no_progress) -> list[SharedFilm]:
    """The films of a test set that betons at hand have, too, each once, in order of the samples.

    Patients are compared where the site keys are the same, and pixels where they are hashed by the same algorithm.
    """
    sets = [
        KnownSet(
            name=beton.facts.split,
            site_key_id=beton.facts.site_key_id,
            hash_algorithm=beton.facts.hash_algorithm,
            hashes=hashes(beton),
            copies=by_frames(beton),
        )
        for beton in known
    ]
    return shared_with(tested, sets, progress)


def by_frames(known: Beton) -> Callable[[Beton, Progress], list[Copy]]:
    """The search for copies of a set's films by their frames."""
    return lambda tested, progress: copies_by_frames(tested, known, progress)


def by_looks(look_NB: np.ndarray) -> Callable[[Beton, Progress], list[Copy]]:
    """The search for copies of films by their looks."""
    return lambda tested, progress: copies_by_looks(tested, look_NB, progress)


def known_to(run: Path, state: dict[str, Any], stack: contextlib.ExitStack) -> list[KnownSet]:
    """The training and validation set of a run: the hashes that it keeps, and frames, or else looks, to compare by.

    Frames are those of betons of the run's own conversion, where they lie as they did in training.
    state: of the run's weights.  Errors: CheckpointError for a damaged record; without one nothing is known.
    """
    if not (run / RECORD).exists():
        return []
    record = load_record(run, state["run"])
    at_hand = {name: open_own(run, name, state["conversion_id"], stack) for name in record.sets}
    return [
        KnownSet(
            name=name, site_key_id=record.site_key_id, hash_algorithm=record.hash_algorithm, hashes=kinds,
            copies=by_frames(beton) if (beton := at_hand[name]) else by_looks(kinds[LOOK]) if LOOK in kinds else None,
        )
        for name, kinds in sorted(record.sets.items())
    ]  # fmt: skip


def open_own(run: Path, name: str, conversion_id: str, stack: contextlib.ExitStack) -> Beton | None:
    """A beton that the run was trained on, where it lay then; None where it is gone, replaced or damaged."""
    folder = data_folder(run)
    if folder is None or not (folder / f"{name}.beton").is_file():
        return None
    try:
        beton = stack.enter_context(Beton(folder / f"{name}.beton"))
    except (BetonError, StorageError):
        return None
    return beton if beton.facts.conversion_id == conversion_id else None


def shared_with(tested: Beton, known: Sequence[KnownSet], progress: Progress = no_progress) -> list[SharedFilm]:
    """The films of a test set that known sets have, too, each once, in order of the samples.

    A copy of several films is listed with the most similar one.
    """
    found: dict[int, SharedFilm] = {}
    for reason, kind in HASH_OF.items():
        for one in known:
            if comparable(reason, one, tested):
                for sample, place in equal_rows(tested.rows_N[kind], one.hashes[kind]):
                    shared = SharedFilm(sample=sample, reason=reason, of=one.name, place=place, similarity=None)
                    found.setdefault(sample, shared)
    searched = [(one.name, one.copies) for one in known if one.copies] if can_compare(tested) else []
    copies = [(name, copy) for name, search in searched for copy in search(tested, progress)]
    for name, copy in sorted(copies, key=lambda item: -item[1].similarity):
        shared = SharedFilm(sample=copy.sample, reason="copy", of=name, place=copy.of, similarity=copy.similarity)
        found.setdefault(copy.sample, shared)
    return [found[sample] for sample in sorted(found)]


def comparable(reason: Reason, known: KnownSet, tested: Beton) -> bool:
    """Whether a test set's hashes of pixels, or patients, can be compared with those of a known set."""
    if reason == "pixels":
        return known.hash_algorithm == tested.facts.hash_algorithm
    return known.site_key_id == tested.facts.site_key_id


def equal_rows(tested_N16: np.ndarray, known_N16: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places of hashes that both have, the first of equal ones in the second; all-zero ones are unknown."""
    place_of = {row.tobytes(): place for place, row in reversed(list(enumerate(known_N16))) if row.any()}
    for sample, row in enumerate(tested_N16):
        if (place := place_of.get(row.tobytes())) is not None:
            yield sample, place


def copies_in(shared: Iterable[SharedFilm]) -> list[SharedFilm]:
    """The copies among shared films."""
    return [film for film in shared if film.reason == "copy"]


def mostly(copies: Sequence[SharedFilm], tested: Beton) -> bool:
    """Whether most films of a test set are copies, so that it is no other collection, even without them."""
    return 2 * len(copies) > len(tested)


def without(tested: Beton, copies: Iterable[SharedFilm]) -> np.ndarray:
    """Places of a test set's films, int64, that are no copies.  Errors: InputError where all are."""
    kept_N = np.setdiff1d(np.arange(len(tested)), [film.sample for film in copies])
    if not len(kept_N):
        raise InputError(
            f"{tested.path}: found copies of training films alone, {len(tested):,} of them, expected other films; "
            "choose another beton, or pass --keep-copies to see a leaked score"
        )
    return kept_N


def copy_cautions(code: str, tested: Beton, copies: Sequence[SharedFilm], **parameters: str) -> list[Caution]:
    """How many films of a test set are copies; nothing where none is.  parameters: of the code, beside the counts."""
    sets = sorted({film.of for film in copies})
    return [caution(code, copies=len(copies), images=len(tested), sets=sets, **parameters)] if copies else []


def unsearched(tested: Beton, known: Sequence[KnownSet]) -> list[Caution]:
    """Why copies of known films could not be looked for, and of which sets."""
    if not can_compare(tested):
        return [caution("frames-too-small-for-copies", stored=tested.side, least=LEAST_SIDE)]
    sets = [one.name for one in known if one.copies is None]
    return [caution("no-looks", sets=sets)] if sets else []


def publish_copies(folder: Path, copies: Iterable[SharedFilm], kept: Container[int]) -> None:
    """Write copies.csv, which lists the copies by sample; without any, remove an earlier one.

    kept: the samples that are scored.
    """
    rows = [
        [film.sample, film.of, film.place, f"{film.similarity:.3f}", "no" if film.sample in kept else "yes"]
        for film in sorted(copies, key=lambda film: film.sample)
    ]
    if rows:
        publish_rows(folder / COPIES, [["sample", "set", "sample_there", "similarity", "removed"], *rows])
    else:
        (folder / COPIES).unlink(missing_ok=True)
