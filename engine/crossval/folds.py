"""Folds: which samples a cross-validation trains, stops and tests on."""

# N samples of the pool, K findings

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.config import FoldSplit
from engine.evaluate.checks import check_findings, check_lungs, check_task
from engine.evaluate.copies import SharedFilm, copy_cautions, mostly, unsearched
from engine.train.leakage import (
    HASHES,
    hashes,
    image_cautions,
    overlap,
    patient_cautions,
    sources_of,
    unknown_patients,
)
from loaders.beton.format import Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import check_own, check_same_conversion
from loaders.cautions import Caution, caution
from loaders.errors import InputError
from loaders.sources.split import split_findings, split_groups

BETONS = ("train", "val", "heldout")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One fold of a split: places in the pool, int64, in its order.  number: from 1."""

    split: FoldSplit
    number: int
    train_N: np.ndarray
    val_N: np.ndarray
    test_N: np.ndarray


def renumber(group_N: np.ndarray) -> np.ndarray:
    """Group numbers from 0, in order of first appearance, int64 N."""
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in group_N.tolist()], np.int64)


def deal_folds(
    group_N: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    num_folds: int,
    val: float,
    seed: int,
    split: FoldSplit,
    where: str,
) -> list[Fold]:
    """Folds whose test sets hold each sample once, by whole groups, or, of the random split, image by image; then a
    split of what is left.

    Test sets are stratified by class as well as whole groups allow, and those of findings keep each about as common.
    The validation set, on which training stops, is made of whole groups of what the test set leaves, however the test
    set was made.
    group_N: as `renumber` gives it.  labels: int64 N, or of findings float32 N×K.  val: the validation set's share of
    what is left.  where: begins the errors.
    Errors: InputError where a class has too few groups or images; of findings, where there are too few in all, or
    nothing is left to learn.
    """

    def dealt(group_N: np.ndarray, labels: np.ndarray, shares: dict[str, float]) -> np.ndarray:
        if labels.ndim == 2:
            return np.array(split_findings(group_N, labels, shares, seed))
        return np.array(split_groups(group_N, labels, shares, seed, classes))

    by_image = split == "random"
    unit_N = np.arange(len(group_N)) if by_image else group_N
    found, more = ("images", "more radiographs") if by_image else ("groups (patients)", "radiographs of more patients")
    for name, count in class_groups(unit_N, labels, classes).items():
        if count < num_folds:
            lower = f"lower --folds to at most {count}, or " if count > 1 else ""
            raise InputError(
                f"{where}: {name and f'class {name} has '}{count} {found}, expected at least {num_folds}, one a fold; "
                f"{lower}convert {more}"
            )
    names = [str(number) for number in range(1, num_folds + 1)]
    dealt_N = dealt(unit_N, labels, dict.fromkeys(names, 1 / num_folds))
    folds = []
    for name in names:
        rest_N = np.flatnonzero(dealt_N != name)
        rest_group_N, rest_labels = renumber(group_N[rest_N]), labels[rest_N]
        for label, count in class_groups(rest_group_N, rest_labels, classes).items():
            if count < 2:
                raise InputError(
                    f"{where}: beside test fold {name}, {f'class {label} keeps' if label else 'there are'} {count} "
                    "groups (patients), expected at least 2, one each to train and to stop on; choose more --folds, or "
                    "convert radiographs of more patients"
                )
        inner = dealt(rest_group_N, rest_labels, {"train": 1 - val, "val": val})
        train_N, val_N, test_N = rest_N[inner == "train"], rest_N[inner == "val"], np.flatnonzero(dealt_N == name)
        if not learnable(labels[train_N], classes):
            raise InputError(
                f"{where}: beside test fold {name}, no finding is present in some films to train on and absent in "
                "others, expected one or more; convert radiographs of more patients with findings"
            )
        folds.append(Fold(split=split, number=int(name), train_N=train_N, val_N=val_N, test_N=test_N))
    return folds


def class_groups(group_N: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """How many groups count for each class: a group for its commonest label, the smaller on a tie, as in a split.

    Of findings, which no fold needs to have: "" → all groups.
    """
    if labels.ndim == 2:
        return {"": len(np.unique(group_N))}
    count_GK = np.zeros((int(group_N.max()) + 1, len(classes)), np.int64)
    np.add.at(count_GK, (group_N, labels), 1)
    return dict(zip(classes, np.bincount(count_GK.argmax(1), minlength=len(classes)).tolist(), strict=True))


def learnable(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that there are; of findings, those that are present in some films and absent in others."""
    if labels.ndim == 2:
        return [name for name, value_N in zip(classes, labels.T, strict=True) if {0, 1} <= {*value_N.tolist()}]
    return [classes[label] for label in np.unique(labels)]


def only_learnt(finding_NK: np.ndarray, names: Sequence[str], learnt: Sequence[str]) -> np.ndarray:
    """Labels of findings, unknown where networks have learnt nothing of a finding: their outputs mean nothing there."""
    return np.where([name in learnt for name in names], finding_NK, np.float32(np.nan))


def every_image_its_own_group(group_N: np.ndarray) -> bool:
    """Whether no two samples share a group, so that group folds are random folds."""
    return len(np.unique(group_N)) == len(group_N)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Open betons, one after the other.  start_B: each one's first place.  group_N: counted from 0.

    kept_N: which of their samples are used, int64, rising.  labels: int64 N, or of findings float32 N×K, NaN for
    unknown.
    """

    folder: Path
    betons: tuple[Beton, ...]
    start_B: np.ndarray
    kept_N: np.ndarray
    labels: np.ndarray
    group_N: np.ndarray

    @property
    def facts(self) -> Facts:
        """The facts of the conversion; the split is the first beton's."""
        return self.betons[0].facts

    @property
    def positive(self) -> int:
        """The positive class; findings have none."""
        return self.facts.classes.index(self.facts.positive)

    def chosen(self, place_N: np.ndarray) -> list[tuple[Beton, np.ndarray]]:
        """The betons that places in the pool, rising, lie in, with the samples' places there."""
        own_N = self.kept_N[place_N]
        parts = [
            (beton, own_N[(own_N >= start) & (own_N < start + len(beton))] - start)
            for beton, start in zip(self.betons, self.start_B, strict=True)
        ]
        return [(beton, index_N) for beton, index_N in parts if len(index_N)]

    def origin(self, place: int) -> tuple[str, int]:
        """The beton that a place lies in, by the name of its file, and the sample there."""
        own = int(self.kept_N[place])
        which = int(np.searchsorted(self.start_B, own, side="right")) - 1
        return self.betons[which].path.stem, own - int(self.start_B[which])

    def rows(self, name: str) -> np.ndarray:
        """One column of the rows of all samples."""
        return np.concatenate([beton.rows_N[name] for beton in self.betons])[self.kept_N]

    def without(self, left_out_N: np.ndarray) -> "Pool":
        """The pool without some samples, bool N; its groups are numbered anew."""
        kept_N = ~left_out_N
        return replace(
            self, kept_N=self.kept_N[kept_N], labels=self.labels[kept_N], group_N=renumber(self.group_N[kept_N])
        )

    def cautions(self) -> list[Caution]:
        """What limits any score on this pool."""
        hash_N16 = self.rows("patient_hash")
        alone = [caution("every-image-its-own-group")] if every_image_its_own_group(self.group_N) else []
        return image_cautions(self.betons) + patient_cautions(hash_N16) + alone


def open_pool(folder: Path, stack: contextlib.ExitStack, *, least_classes: int = 2) -> Pool:
    """Open every beton of a conversion.

    Errors: InputError for none, for betons of different conversions, and for fewer classes; BetonError.
    """
    paths = [path for name in BETONS if (path := folder / f"{name}.beton").is_file()]
    if not paths:
        raise InputError(
            f"{folder}: none of {', '.join(f'{name}.beton' for name in BETONS)}, expected a folder that `convert` "
            "made; check the path"
        )
    betons = tuple(stack.enter_context(Beton(path, trust_unverified=True)) for path in paths)
    check_same_conversion(betons)
    labels = np.concatenate([beton.labels for beton in betons])
    facts = betons[0].facts
    known = learnable(labels, facts.classes)
    if facts.task == "findings" and least_classes > 1 and not known:
        raise InputError(
            f"{folder}: {len(labels)} images, and no finding that is present in some and absent in others, expected "
            "one or more; convert others"
        )
    if facts.task == "classes" and len(known) < least_classes:
        raise InputError(
            f"{folder}: {len(labels)} images, all of class {known[0]}, expected two classes or more; convert another"
        )
    return Pool(
        folder=folder,
        betons=betons,
        start_B=np.cumsum([0, *(len(beton) for beton in betons[:-1])]),
        kept_N=np.arange(len(labels)),
        labels=labels,
        group_N=renumber(np.concatenate([beton.rows_N["group"] for beton in betons])),
    )


def open_external(path: Path, pool: Pool, stack: contextlib.ExitStack) -> tuple[Beton, list[Caution]]:
    """Open a beton of other images, with what limits its score.

    Errors: InputError for other classes or sizes, or one that shares images or patients with the pool; BetonError.
    """
    beton = stack.enter_context(Beton(path, trust_unverified=True))
    check_own(beton)
    facts, mine = beton.facts, pool.facts
    state, like = {name: getattr(mine, name) for name in ("task", "classes", "lungs", "segmenter")}, pool.betons[0].path
    check_findings(like, state, beton)
    check_task(beton, mine.classes, mine.crop, mine.stored)
    check_lungs(like, state, beton)
    same = {
        "same_key": facts.site_key_id == mine.site_key_id,
        "same_algorithm": facts.hash_algorithm == mine.hash_algorithm,
    }
    record = {kind: np.concatenate([beton.rows_N[kind] for beton in pool.betons]) for kind in HASHES}
    common = overlap(record, hashes(beton), **same)
    if any(common.values()):
        images, patients = common["images"], common["patients"] or 0
        shared = f"{images} images with {pool.folder} and {patients} images of its patients"
        if images is None:
            shared = f"{patients} images of patients of {pool.folder}"
        raise InputError(
            f"{path}: shares {shared}, expected none; choose a beton of other patients, or, where both collections "
            "merely number their patients alike, convert it with another --site-key"
        )
    return beton, away_cautions(path.name, [beton], pool.betons)


def away_cautions(name: str, tested: Sequence[Beton], trained: Sequence[Beton]) -> list[Caution]:
    """What limits the score on another collection, of one conversion.  name: of the collection."""
    cautions, facts, expected = [], tested[0].facts, trained[0].facts
    if facts.fit != expected.fit:
        cautions.append(caution("external-fitted-differently", beton=name, found=facts.fit, expected=expected.fit))
    if (found := facts.segmenter) != expected.segmenter:
        cautions.append(caution("external-lungs-found-otherwise", beton=name, found=found, expected=expected.segmenter))
    sources, known = (set().union(*map(sources_of, betons)) for betons in (tested, trained))
    if shared := sorted((sources & known) - {""}):
        cautions.append(caution("external-shares-sources", beton=name, sources=shared[:3]))
    elif "" in sources | known:
        cautions.append(caution("external-sources-unknown", beton=name))
    others = sorted({beton.facts.hash_algorithm for beton in trained} - {facts.hash_algorithm})
    if others:
        cautions.append(
            caution("external-hashed-otherwise", beton=name, found=facts.hash_algorithm, expected=others[0])
        )
    hash_N16 = np.concatenate([beton.rows_N["patient_hash"] for beton in tested])
    if any(beton.facts.site_key_id != facts.site_key_id for beton in trained):
        cautions.append(caution("external-site-key-differs", beton=name))
    elif unknown := unknown_patients(hash_N16):
        cautions.append(caution("external-patients-unknown", beton=name, unknown=unknown, images=len(hash_N16)))
    return cautions


def external_copies(beton: Beton, copies: Sequence[SharedFilm], *, kept: bool) -> list[Caution]:
    """What copies of the pool's films in an external beton mean for its score.  kept: whether they are scored."""
    code, name = "external-copies-kept" if kept else "external-copies-removed", beton.path.name
    found = copy_cautions(code, beton, copies, beton=name) + unsearched(beton, ())
    return found + ([caution("external-mostly-copies", beton=name)] if mostly(copies, beton) else [])
