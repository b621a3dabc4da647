"""The scores of a cross-validation: of each fold, so that none is made twice, and of all; fold.json, crossval.json."""

# N samples, K classes

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from msgspec import UNSET, UnsetType, field
from msgspec.structs import replace

from engine.config import CrossvalConfig, FoldSplit
from engine.crossval.folds import Pool
from engine.crossval.lungs import LungUse
from engine.evaluate.results import Scores
from engine.statistics.averages import NetworkTest, measure_networks
from engine.statistics.estimates import Estimate, estimates, paired_differences, trivial
from engine.train.run_folder import shared_settings
from engine.train.state import Ending
from loaders import __version__
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import Task
from loaders.records import Count, Record

SCORES, CROSSVAL = "fold.json", "crossval.json"
METRICS = ("f1", "auc", "accuracy")
Target = Literal[FoldSplit, "external"]
SPLITS: tuple[FoldSplit, ...] = get_args(FoldSplit)
OUTLINES: dict[Target, FoldSplit] = {"lungs-only": "silhouette", "boxed": "boxed-silhouette"}  # of the same lungs


class FoldTraining(Record, frozen=True, kw_only=True, omit_defaults=True):
    """How the network of one fold was trained.  num_train, num_val: samples.  validation_f1: None where undefined.

    thresholds: of findings, the probability from which each is predicted as present, of the highest F1 on the fold's
    own validation set; None where that knows too few films of it, and 0.5 is taken.
    """

    split: FoldSplit
    fold: Count
    num_train: Count
    num_val: Count
    validation_f1: float | None
    epochs: Count
    best_epoch: Count
    stopped: Ending
    thresholds: list[float | None] = field(default_factory=list)


class FoldScores(Record, frozen=True, kw_only=True):
    """One finished fold, as fold.json holds it.

    identity: conversion id of the fold's betons, which follows from the pool, the split and the samples of each.
    place: the test samples' places in the pool.  probability: what its network predicts of them, N×K, uncalibrated; of
    findings, that each is present.
    """

    made_by = "crossval"
    version: int = 1
    identity: str
    training: FoldTraining
    place: list[Count]
    probability: list[list[float]]
    seconds: float


class FoldResult(Record, frozen=True, kw_only=True):
    """The results of one fold on its own test samples; of findings means over them, and no matrix."""

    training: FoldTraining
    num_samples: Count
    num_groups: Count
    confusion: list[list[Count]]
    estimates: dict[str, Estimate]


class OverFolds(Record, frozen=True, kw_only=True):
    """One metric of a test target.  estimate: of all samples together; of the external beton, of the folds' mean.

    mean, spread: mean and standard deviation of the folds, None where there are too few.  folds: of each.
    """

    estimate: Estimate
    mean: float | None
    spread: float | None
    folds: list[float | None]


class FindingTarget(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The results of one finding on a test target, over the films in which it is known.

    refused: why nothing is estimated, as too few known films; a fold alone may have too few, and is None then.
    confusion: as of the target, rows absent and present.  difference: this split minus the group split.
    beyond_outline: as of the target.
    """

    name: str
    num_known: Count
    num_present: Count
    num_groups: Count
    refused: Caution | None
    f1: OverFolds
    auc: OverFolds
    accuracy: OverFolds
    confusion: list[list[Count]]
    difference: dict[str, Estimate]
    beyond_outline: dict[str, Estimate] = field(default_factory=dict)


class TargetResult(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The results on one test target: a split's test folds together, or the external beton.

    confusion: of the external beton the sum of its networks' matrices, so that it counts each sample once for each.
    findings: each finding, whose means f1, auc and accuracy are then, over those that are measured; no confusion.
    beyond_outline: of lungs-only and boxed, this split minus that of their outline alone, on the same samples.
    """

    target: Target
    num_samples: Count
    num_groups: Count
    f1: OverFolds
    auc: OverFolds
    accuracy: OverFolds
    confusion: list[list[Count]]
    findings: list[FindingTarget] = field(default_factory=list)
    beyond_outline: dict[str, Estimate] = field(default_factory=dict)


class Guess(Record, frozen=True, kw_only=True):
    """The metrics of always predicting one class; of findings, that each is present, or the commoner of both."""

    predicted: str
    f1: float | None
    auc: float | None
    accuracy: float | None


class Crossval(Record, frozen=True, kw_only=True):
    """A cross-validation, as crossval.json holds it.

    classes: of findings their names, and positive "".  class_counts: images of each class, or in which each finding is
    present.  external: the external beton's file, if one was tested.  targets: those that
    were measured.  always_positive: for two classes.  differences: each other split minus the group split, on the same
    samples.  lungs: the masks that frames were made with, if any were.
    """

    made_by = "crossval"
    version: int = 1
    classes: list[str]
    positive: str
    num_samples: Count
    num_groups: Count
    class_counts: list[Count]
    synthetic: bool
    conversion_id: str
    external: str | None
    targets: list[TargetResult]
    trivial: Guess
    always_positive: Guess | None
    differences: dict[Target, dict[str, Estimate]]
    folds: list[FoldResult]
    cautions: list[Caution]
    settings: dict[str, Any]
    lungs: LungUse | UnsetType = UNSET
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    def target(self, name: Target) -> TargetResult | None:
        """The results on one test target; None where it was not measured."""
        return next((result for result in self.targets if result.target == name), None)

    @property
    def task(self) -> Task:
        """What is predicted: a class, or several findings."""
        return "classes" if self.positive else "findings"

    @property
    def every_image_its_own_group(self) -> bool:
        """Whether no two samples share a group, so that folds of groups are random folds."""
        return self.num_groups == self.num_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What is measured of a cross-validation, in fields as of Crossval."""

    class_counts: list[int]
    folds: list[FoldResult]
    targets: list[TargetResult]
    trivial: Guess
    always_positive: Guess | None
    differences: dict[Target, dict[str, Estimate]]


def crossval_of(
    config: CrossvalConfig,
    pool: Pool,
    measured: Measured,
    external: Beton | None,
    cautions: list[Caution],
    lungs: LungUse | UnsetType,
) -> Crossval:
    """The content of crossval.json."""
    return Crossval(
        classes=list(pool.facts.classes),
        positive=pool.facts.positive,
        num_samples=len(pool.labels),
        num_groups=len(np.unique(pool.group_N)),
        class_counts=measured.class_counts,
        synthetic=pool.facts.synthetic,
        conversion_id=pool.facts.conversion_id,
        external=None if external is None else external.path.name,
        targets=measured.targets,
        trivial=measured.trivial,
        always_positive=measured.always_positive,
        differences=measured.differences,
        folds=measured.folds,
        cautions=cautions,
        settings=shared_settings(config),
        lungs=lungs,
    )


def measure_folds(
    pool: Pool,
    found: dict[FoldSplit, list[FoldScores]],
    external: Beton | None,
    kept_N: np.ndarray,
    outside: Sequence[np.ndarray],
    resamples: int,
) -> Measured:
    """Every fold, every split, and the external beton.

    kept_N: samples of `external` that are scored.  outside: N×K, what each network of the group split predicts of them.
    """
    classes, positive = pool.facts.classes, pool.positive
    folds, targets, pooled = [], [], dict[FoldSplit, Scores]()
    for split in SPLITS:
        if split in found:
            each = []
            pooled_NK = np.full((len(pool.labels), len(classes)), np.nan)
            for fold in found[split]:
                place_N, probability_NK = np.array(fold.place, np.int64), np.array(fold.probability)
                pooled_NK[place_N] = probability_NK
                tested = scores_of(pool, pool.labels[place_N], pool.group_N[place_N], probability_NK)
                each.append(estimates_of(tested, resamples))
                folds.append(
                    FoldResult(
                        training=replace(fold.training, split=split),  # group folds may count as random ones, too
                        num_samples=len(place_N),
                        num_groups=tested.num_groups,
                        confusion=tested.confusion,
                        estimates=each[-1],
                    )
                )
            pooled[split] = scores_of(pool, pool.labels, pool.group_N, pooled_NK)
            targets.append(target_result(split, pooled[split], each, resamples))
    for place, split in enumerate(pooled):
        if (outline := OUTLINES.get(split)) in pooled:
            beyond = apart(pool, pooled[outline], pooled[split], resamples)
            targets[place] = replace(targets[place], beyond_outline=beyond)
    if external is not None:
        label_N, group_N = external.label_N[kept_N], external.rows_N["group"][kept_N].astype(np.int64)
        alone = [scores_of(pool, label_N, group_N, probability_NK) for probability_NK in outside]
        targets.append(external_result(alone, resamples))
    largest = trivial(pool.labels, len(classes), positive)
    share = float((pool.labels == positive).mean())
    always = Guess(predicted=pool.facts.positive, f1=2 * share / (1 + share), auc=0.5, accuracy=share)
    return Measured(
        class_counts=np.bincount(pool.labels, minlength=len(classes)).tolist(),
        folds=folds,
        targets=targets,
        trivial=Guess(
            predicted=classes[int(np.bincount(pool.labels).argmax())],
            **{name: largest[name].value for name in METRICS},
        ),
        always_positive=always if len(classes) == 2 else None,
        differences=differences(pool, pooled, resamples),
    )


def scores_of(pool: Pool, label_N: np.ndarray, group_N: np.ndarray, probability_NK: np.ndarray) -> Scores:
    """What networks predict of some samples with the pool's classes."""
    classes, positive = pool.facts.classes, pool.positive
    return Scores(label_N=label_N, probability_NK=probability_NK, group_N=group_N, classes=classes, positive=positive)


def estimates_of(tested: Scores, resamples: int) -> dict[str, Estimate]:
    """F1, AUC and accuracy with intervals over groups."""
    found = estimates(tested.label_N, tested.probability_NK, tested.group_N, tested.positive, resamples=resamples)
    return {name: found[name] for name in METRICS}


def target_result(target: Target, tested: Scores, each: Sequence[dict[str, Estimate]], resamples: int) -> TargetResult:
    """The results on a split's samples together.  each: the estimates of each network alone, for mean and spread."""
    values = [{metric: one[metric].value for metric in METRICS} for one in each]
    return result_of(target, [tested], estimates_of(tested, resamples), values)


def external_result(alone: Sequence[Scores], resamples: int) -> TargetResult:
    """The results of networks on another collection.

    Each is scored alone, as on its own test fold, and the scores are averaged: mean probabilities of several networks
    tend to score better than one network does.
    """
    tests = [NetworkTest(label_N=one.label_N, probability_NK=one.probability_NK, group_N=one.group_N) for one in alone]
    found = measure_networks(tests, alone[0].positive, resamples=resamples)
    return result_of("external", alone, found.estimates(), found.values())


def result_of(
    target: Target,
    tested: Sequence[Scores],
    found: dict[str, Estimate],
    values: Sequence[dict[str, float | None]],
) -> TargetResult:
    """The results on a test target.  tested: the same samples each time.  values: of each network alone."""
    f1, auc, accuracy = (over_folds(found[metric], [one[metric] for one in values]) for metric in METRICS)
    return TargetResult(
        target=target,
        num_samples=len(tested[0].label_N),
        num_groups=tested[0].num_groups,
        f1=f1,
        auc=auc,
        accuracy=accuracy,
        confusion=np.sum([one.confusion for one in tested], axis=0).tolist(),
    )


def over_folds(estimate: Estimate, folds: list[float | None]) -> OverFolds:
    """A metric of a test target, with its mean and spread over the folds that define it."""
    known = [value for value in folds if value is not None]
    mean = float(np.mean(known)) if known else None
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return OverFolds(estimate=estimate, mean=mean, spread=spread, folds=folds)


def differences(pool: Pool, pooled: dict[FoldSplit, Scores], resamples: int) -> dict[Target, dict[str, Estimate]]:
    """Each other split minus the group split, on the same samples."""
    return {
        split: apart(pool, pooled["group"], tested, resamples)
        for split, tested in pooled.items()
        if "group" in pooled and split != "group"
    }


def apart(pool: Pool, first: Scores, second: Scores, resamples: int) -> dict[str, Estimate]:
    """The second split minus the first, on the pool's samples."""
    both = first.probability_NK, second.probability_NK
    found = paired_differences(pool.labels, *both, pool.group_N, pool.positive, resamples=resamples)
    return {name: found[name] for name in METRICS}


def score_rows(
    pool: Pool,
    found: dict[FoldSplit, list[FoldScores]],
    external: Beton | None,
    kept_N: np.ndarray,
    outside: Sequence[np.ndarray],
) -> Iterator[list[Any]]:
    """The rows of crossval.csv: each sample by the network that was not trained on it; the external beton's by each.

    beton: the file's name without its ending; sample: the place in it.
    """
    classes = pool.facts.classes

    def cells(label: int, row_K: np.ndarray) -> list[str]:
        return [classes[label], classes[row_K.argmax()], *(f"{value:.6f}" for value in row_K)]

    names = (f"probability_{name}" for name in classes)
    yield ["split", "fold", "beton", "sample", "group", "label", "predicted", *names]
    group_N = pool.rows("group")  # as the betons have it
    for split in SPLITS:
        for fold in found.get(split, []):
            for place, row_K in zip(fold.place, np.array(fold.probability), strict=True):
                yield [
                    split,
                    fold.training.fold,
                    *pool.origin(place),
                    group_N[place],
                    *cells(pool.labels[place], row_K),
                ]
    if external is not None:
        group_N = external.rows_N["group"]
        for fold, probability_NK in zip(found["group"], outside, strict=True):
            for sample, row_K in zip(kept_N, probability_NK, strict=True):
                where = fold.training.fold, external.path.stem, sample, group_N[sample]
                yield ["external", *where, *cells(external.label_N[sample], row_K)]
