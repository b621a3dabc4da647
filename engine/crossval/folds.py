"""Folds: which samples a cross-validation trains, stops and tests on."""

# N samples of the pool

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loaders.errors import InputError
from loaders.split import split_groups

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One fold: places in the pool, int64, in its order.  number: from 1."""

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
    label_N: np.ndarray,
    classes: Sequence[str],
    *,
    num_folds: int,
    val: float,
    seed: int,
    by_image: bool,
    where: str,
) -> list[Fold]:
    """Folds whose test sets hold each sample once, by whole groups or image by image; then a split of what is left.

    Test sets are stratified by class as well as whole groups allow. The validation set, on which training stops, is
    made of whole groups of what the test set leaves, however the test set was made.
    group_N: as `renumber` gives it.  val: the validation set's share of what is left.  where: begins the errors.
    Errors: InputError where a class has too few groups or images.
    """
    unit_N = np.arange(len(group_N)) if by_image else group_N
    found, more = ("images", "more radiographs") if by_image else ("groups (patients)", "radiographs of more patients")
    counts = class_groups(unit_N, label_N, len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count < num_folds:
            lower = f"lower --folds to at most {count}, or " if count > 1 else ""
            raise InputError(
                f"{where}: class {name} has {count} {found}, expected at least {num_folds}, one a fold; "
                f"{lower}convert {more}"
            )
    names = [str(number) for number in range(1, num_folds + 1)]
    dealt_N = np.array(split_groups(unit_N, label_N, dict.fromkeys(names, 1 / num_folds), seed, classes))
    return [
        inner_split(group_N, label_N, classes, dealt_N == name, number=int(name), val=val, seed=seed, where=where)
        for name in names
    ]


def inner_split(
    group_N: np.ndarray,
    label_N: np.ndarray,
    classes: Sequence[str],
    tested_N: np.ndarray,
    *,
    number: int,
    val: float,
    seed: int,
    where: str,
) -> Fold:
    """The fold that tests on some samples.  tested_N: bool.  Errors: InputError where a class keeps too few groups."""
    rest_N = np.flatnonzero(~tested_N)
    rest_group_N = renumber(group_N[rest_N])
    for name, count in zip(classes, class_groups(rest_group_N, label_N[rest_N], len(classes)), strict=True):
        if count < 2:
            raise InputError(
                f"{where}: beside test fold {number}, class {name} keeps {count} groups (patients), expected at least "
                "2, one each to train and to stop on; choose more --folds, or convert radiographs of more patients"
            )
    inner = np.array(split_groups(rest_group_N, label_N[rest_N], {TRAIN: 1 - val, VAL: val}, seed, classes))
    return Fold(
        number=number,
        train_N=rest_N[inner == TRAIN],
        val_N=rest_N[inner == VAL],
        test_N=np.flatnonzero(tested_N),
    )


def class_groups(group_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> list[int]:
    """How many groups count for each class: a group for its commonest label, the smaller on a tie, as in a split."""
    count_GK = np.zeros((int(group_N.max()) + 1, num_classes), np.int64)
    np.add.at(count_GK, (group_N, label_N), 1)
    return np.bincount(count_GK.argmax(1), minlength=num_classes).tolist()


def every_image_its_own_group(group_N: np.ndarray) -> bool:
    """Whether no two samples share a group, so that group folds are random folds."""
    return len(np.unique(group_N)) == len(group_N)
