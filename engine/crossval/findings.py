"""The scores of a cross-validation of findings: each over the films in which it is known, and means over findings."""

# N samples, K findings, M samples in which a finding is known, F networks

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from engine.config import FoldSplit
from engine.crossval.folds import Fold, Pool, learnable, only_learnt
from engine.crossval.scores import (
    METRICS,
    OUTLINES,
    SPLITS,
    FindingTarget,
    FoldResult,
    FoldScores,
    Guess,
    Measured,
    Target,
    TargetResult,
    over_folds,
)
from engine.evaluate.checks import finding_cautions
from engine.statistics.estimates import UNDEFINED, Estimate, trivial
from engine.statistics.findings import (
    FindingsAverages,
    FindingsTest,
    enough_known,
    findings_differences,
    known_films,
    mean_or_none,
    measure_findings,
    names_of,
)
from engine.statistics.metrics import confusion_matrix, none_for_nan
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.sources.split import LEAST_KNOWN


def measure_findings_folds(
    pool: Pool,
    found: dict[FoldSplit, list[FoldScores]],
    external: Beton | None,
    kept_N: np.ndarray,
    outside: Sequence[np.ndarray],
    resamples: int,
) -> Measured:
    """What `measure_folds` measures of classes, of each finding at each fold's own threshold, and their means."""
    folds, targets, pooled = [], [], dict[FoldSplit, FindingsTest]()
    for split in [split for split in SPLITS if split in found]:
        tests = [
            FindingsTest(
                finding_NK=pool.labels[fold.place], probability_NK=np.array(fold.probability),
                group_N=pool.group_N[fold.place], threshold=thresholds_of(fold),
            )
            for fold in found[split]
        ]  # fmt: skip
        each = [measure_findings([test], resamples=resamples) for test in tests]
        folds += [
            FoldResult(
                training=replace(fold.training, split=split),  # group folds may count as random ones, too
                num_samples=len(test.group_N), num_groups=len(np.unique(test.group_N)), confusion=[],
                estimates=chosen(alone.macro()),
            )
            for fold, test, alone in zip(found[split], tests, each, strict=True)
        ]  # fmt: skip
        probability_NK, threshold_NK = (np.full(pool.labels.shape, np.nan) for _ in range(2))
        for fold, test in zip(found[split], tests, strict=True):
            probability_NK[fold.place], threshold_NK[fold.place] = test.probability_NK, test.threshold
        pooled[split] = FindingsTest(
            finding_NK=pool.labels, probability_NK=probability_NK, group_N=pool.group_N, threshold=threshold_NK
        )
        together = measure_findings([pooled[split]], resamples=resamples)
        values = {name: np.concatenate([values_of(alone, name, 1) for alone in each]) for name in METRICS}
        targets.append(target_result(split, pool, [pooled[split]], together, values))
    differences = dict[Target, dict[str, Estimate]]()
    for place, (split, tested) in enumerate(pooled.items()):
        row = targets[place]
        if "group" in pooled and split != "group":
            by_finding, means = findings_differences(pooled["group"], tested, resamples=resamples)
            differences[split] = chosen(means)
            pairs = zip(row.findings, by_finding, strict=True)
            row = replace(row, findings=[replace(one, difference=chosen(apart)) for one, apart in pairs])
        if (outline := OUTLINES.get(split)) in pooled:
            by_finding, means = findings_differences(pooled[outline], tested, resamples=resamples)
            pairs = zip(row.findings, by_finding, strict=True)
            findings = [replace(one, beyond_outline=chosen(apart)) for one, apart in pairs]
            row = replace(row, findings=findings, beyond_outline=chosen(means))
        targets[place] = row
    if external is not None:
        alone = [
            FindingsTest(
                finding_NK=external.labels[kept_N], probability_NK=probability_NK,
                group_N=external.rows_N["group"][kept_N].astype(np.int64), threshold=thresholds_of(fold),
            )
            for fold, probability_NK in zip(found["group"], outside, strict=True)
        ]  # fmt: skip
        learnt = learnable(pool.labels, pool.facts.classes)
        seen = only_learnt(alone[0].finding_NK, pool.facts.classes, learnt)
        abroad = measure_findings([dataclasses.replace(test, finding_NK=seen) for test in alone], resamples=resamples)
        values = {name: values_of(abroad, name, len(alone)) for name in METRICS}
        targets.append(target_result("external", pool, alone, abroad, values))
    commoner, present = guesses(pool)
    return Measured(
        class_counts=(pool.labels == 1).sum(0).tolist(), folds=folds, targets=targets, trivial=commoner,
        always_positive=present, differences=differences,
    )  # fmt: skip


def thresholds_of(fold: FoldScores) -> np.ndarray:
    """The probability from which a fold's network predicts each finding as present, float64 K."""
    return np.array([0.5 if threshold is None else threshold for threshold in fold.training.thresholds])


def chosen(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The metrics of a cross-validation among others; none of a finding that is not measured."""
    return {name: found[name] for name in METRICS if name in found}


def values_of(found: FindingsAverages, metric: str, num_networks: int) -> np.ndarray:
    """One metric of each network and finding, float64 (F, K), NaN where undefined."""
    unknown_F = np.full(num_networks, np.nan)
    return np.stack([one.row_XR[metric][:, 0] if one else unknown_F for one in found.by_finding], axis=1)


def target_result(
    target: Target, pool: Pool, tests: Sequence[FindingsTest], found: FindingsAverages, value_FK: dict[str, np.ndarray]
) -> TargetResult:
    """The results on a test target.  tests: the same samples each time.  value_FK: by metric, of each network alone."""
    first, by_finding, means = tests[0], found.estimates(), found.macro()
    findings, learnt = [], learnable(pool.labels, pool.facts.classes)
    for place, (name, estimates) in enumerate(zip(pool.facts.classes, by_finding, strict=True)):
        known = [test.of(place) for test in tests]
        f1, auc, accuracy = (
            over_folds(estimates.get(metric, UNDEFINED), none_for_nan(value_FK[metric][:, place])) for metric in METRICS
        )
        matrices = [
            confusion_matrix(test.label_N, (test.probability_NK[:, 1] >= test.threshold).astype(int), 2)
            for test in known
        ]
        findings.append(
            FindingTarget(
                name=name, num_known=len(known[0].label_N), num_present=int(known[0].label_N.sum()),
                num_groups=len(np.unique(known[0].group_N)), difference={}, f1=f1, auc=auc, accuracy=accuracy,
                refused=None if estimates else why_refused(name, learnt),
                confusion=np.sum(matrices, axis=0).tolist(),
            )
        )  # fmt: skip
    f1, auc, accuracy = (
        over_folds(means[metric], [mean_or_none(value_K) for value_K in value_FK[metric]]) for metric in METRICS
    )
    return TargetResult(
        target=target, num_samples=len(first.group_N), num_groups=len(np.unique(first.group_N)), confusion=[],
        findings=findings, f1=f1, auc=auc, accuracy=accuracy,
    )  # fmt: skip


def why_refused(name: str, learnt: Sequence[str]) -> Caution:
    """Why a finding is not measured.  learnt: the findings that networks can have learnt."""
    if name not in learnt:
        return caution("findings-not-in-training", findings=[name])
    return caution("findings-not-measured", findings=[name], least=LEAST_KNOWN)


def guesses(pool: Pool) -> tuple[Guess, Guess]:
    """Always predicting the commoner of absent and present, and always present: means over the findings measured."""
    enough_K = enough_known(pool.labels, pool.group_N)
    known = [value_N[known_films(value_N)] == 1 for value_N in pool.labels.T[enough_K]]
    largest = [trivial(is_present_M.astype(int), 2, 1) for is_present_M in known]
    share_K = np.array([is_present_M.mean() for is_present_M in known])
    always = {"f1": 2 * share_K / (1 + share_K), "auc": np.full(len(known), 0.5), "accuracy": share_K}
    commoner = {name: np.array([one[name].value for one in largest], np.float64) for name in METRICS}
    return (
        Guess(predicted="the commoner", **{name: mean_or_none(commoner[name]) for name in METRICS}),
        Guess(predicted="present", **{name: mean_or_none(always[name]) for name in METRICS}),
    )


def fold_cautions(pool: Pool, folds: Sequence[Fold]) -> list[Caution]:
    """Findings that are not measured, and those of which folds know too little to test or to choose a threshold."""
    return [
        *finding_cautions(pool.facts.classes, pool.labels, pool.group_N),
        *short_folds("few-known-to-test", pool, folds),
        *short_folds("few-known-to-choose", pool, folds),
    ]


def short_folds(code: str, pool: Pool, folds: Sequence[Fold]) -> list[Caution]:
    """Findings of which test folds, or validation sets, know too little; splits whose folds are alike once.

    Those that the pool itself knows too little of are not among them.
    """
    enough_all_K = enough_known(pool.labels, pool.group_N)
    short = {fold.split: Counter[str]() for fold in folds}
    number = Counter(fold.split for fold in folds)
    for fold in folds:
        place_N = fold.test_N if code == "few-known-to-test" else fold.val_N
        short[fold.split].update(
            names_of(pool.facts.classes, enough_all_K & ~enough_known(pool.labels[place_N], pool.group_N[place_N]))
        )
    named = {
        split: [f"{name} ({count[name]} of {number[split]})" for name in pool.facts.classes if count[name]]
        for split, count in short.items()
    }
    return [
        caution(code, splits=[other for other in named if named[other] == names], findings=names, least=LEAST_KNOWN)
        for place, names in enumerate(named.values())
        if names and names not in list(named.values())[:place]
    ]


def finding_rows(
    pool: Pool,
    found: dict[FoldSplit, list[FoldScores]],
    external: Beton | None,
    kept_N: np.ndarray,
    outside: Sequence[np.ndarray],
) -> Iterator[list[Any]]:
    """The rows of crossval.csv, as of classes: of each finding its label, 1, 0 or nothing, prediction and probability.

    beton: the file's name without its ending; sample: the place in it.
    """
    names = pool.facts.classes
    columns = (f"{what}_{name}" for name in names for what in ("label", "predicted", "probability"))
    yield ["split", "fold", "beton", "sample", "group", *columns]

    def cells(value_K: np.ndarray, row_K: np.ndarray, fold: FoldScores) -> list[Any]:
        return [
            cell
            for value, score, threshold in zip(value_K.tolist(), row_K.tolist(), thresholds_of(fold), strict=True)
            for cell in ("" if np.isnan(value) else int(value), int(score >= threshold), f"{score:.6f}")
        ]

    group_N = pool.rows("group")  # as the betons have it
    for split in SPLITS:
        for fold in found.get(split, []):
            for place, row_K in zip(fold.place, np.array(fold.probability), strict=True):
                where = split, fold.training.fold, *pool.origin(place), group_N[place]
                yield [*where, *cells(pool.labels[place], row_K, fold)]
    if external is not None:
        group_N = external.rows_N["group"]
        for fold, probability_NK in zip(found["group"], outside, strict=True):
            for sample, row_K in zip(kept_N, probability_NK, strict=True):
                abroad = "external", fold.training.fold, external.path.stem, sample, group_N[sample]
                yield [*abroad, *cells(external.labels[sample], row_K, fold)]
