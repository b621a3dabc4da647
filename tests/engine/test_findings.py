"""Findings against scikit-learn on the films in which each is known, and against the statistics of two classes."""

# N samples, K findings, M samples in which a finding is known

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict
from sklearn import metrics

from benchmarks.interval_coverage import FindingsStudy, findings_coverage
from engine.statistics.averages import drops, measure_networks
from engine.statistics.estimates import UNDEFINED, Estimate, estimates, paired_differences
from engine.statistics.findings import (
    APART,
    MACRO,
    FindingsTest,
    findings_differences,
    findings_drops,
    known_films,
    measure_findings,
)
from loaders.errors import InputError

pytestmark = pytest.mark.numerical

THRESHOLDS = np.array([0.5, 0.3, 0.7, 0.5])


def network(seed: int = 0, num_samples: int = 240, **changes: Any) -> FindingsTest:
    """A network of some skill on films in groups of three; half of the second finding's labels are unknown.

    The last finding is present in four groups only.
    """
    rng = np.random.default_rng(0)
    group_N = np.arange(num_samples) // 3
    finding_NK = (rng.random((num_samples // 3, 4)) < (0.5, 0.4, 0.2, 0))[group_N].astype(np.float32)
    finding_NK[:12, 3] = 1
    finding_NK[rng.random(num_samples) < 0.5, 1] = np.nan
    logit_NK = np.random.default_rng((1, seed)).normal(size=(num_samples, 4)) + 1.5 * np.nan_to_num(finding_NK) - 0.7
    made: dict[str, Any] = {"finding_NK": finding_NK, "probability_NK": 1 / (1 + np.exp(-logit_NK))}
    return FindingsTest(**made | {"group_N": group_N, "threshold": THRESHOLDS} | changes)


def part(test: FindingsTest, chosen_N: np.ndarray, repeat: int = 0) -> FindingsTest:
    """The same network on some of its films."""
    of = {name: getattr(test, name)[chosen_N] for name in ("finding_NK", "probability_NK", "group_N")}
    return replace(test, **of, repeat=repeat)


def numbers(found: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates, to compare to rounding."""
    return {name: pytest.approx(asdict(estimate), abs=1e-12) for name, estimate in found.items()}


def plain(found: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates as dictionaries."""
    return {name: asdict(estimate) for name, estimate in found.items()}


def test_each_finding_is_measured_on_the_films_in_which_it_is_known_and_means_are_over_those_measured() -> None:
    test = network()
    measured = measure_findings([test], resamples=50)
    found, macro = measured.estimates(), measured.macro()
    for place in range(3):
        known_M = np.isfinite(test.finding_NK[:, place])
        true_M, score_M = test.finding_NK[known_M, place] == 1, test.probability_NK[known_M, place]
        predicted_M = score_M >= THRESHOLDS[place]
        naive = {
            "auc": metrics.roc_auc_score(true_M, score_M),
            "pr_auc": metrics.average_precision_score(true_M, score_M),
            "f1": metrics.f1_score(true_M, predicted_M),
            "sensitivity": metrics.recall_score(true_M, predicted_M),
            "specificity": metrics.recall_score(~true_M, ~predicted_M),
            "ppv": metrics.precision_score(true_M, predicted_M),
            "brier": metrics.brier_score_loss(true_M, score_M),
            "balanced_accuracy": metrics.balanced_accuracy_score(true_M, predicted_M),
        }
        assert {name: found[place][name].value for name in naive} == pytest.approx(naive)
    assert found[3] == {} and tuple(macro) == MACRO
    for name, mean in macro.items():
        assert mean.value == pytest.approx(np.mean([found[place][name].value for place in range(3)])), name
        assert (mean.defined, mean.classes) == (3, 4) and mean.low is not None and mean.low < mean.value < mean.high


def test_a_finding_that_is_known_everywhere_has_the_estimates_of_two_classes() -> None:
    test = network()
    alone = test.of(0)
    apart = estimates(alone.label_N, alone.probability_NK, alone.group_N, 1, threshold=0.5, resamples=100, seed=3)
    assert plain(measure_findings([test], resamples=100, seed=3).estimates()[0]) == numbers(apart)
    first_NK, second_NK = alone.probability_NK, network(1).of(0).probability_NK
    pair = paired_differences(alone.label_N, first_NK, second_NK, alone.group_N, 1, resamples=100, seed=3)
    assert plain(findings_differences(test, network(1), resamples=100, seed=3)[0][0]) == numbers(pair)


@pytest.mark.parametrize(("present", "absent"), [(0, 80), (4, 76), (76, 4), (80, 0)])
def test_a_finding_of_too_few_known_groups_is_undefined_and_takes_no_part_in_means(present: int, absent: int) -> None:
    test = network()
    finding_NK = test.finding_NK.copy()
    finding_NK[:, 0] = np.repeat([1, 0], [3 * present, 3 * absent])
    lacking = measure_findings([replace(test, finding_NK=finding_NK)], resamples=20)
    without = replace(test, finding_NK=finding_NK[:, 1:], probability_NK=test.probability_NK[:, 1:],
                      threshold=THRESHOLDS[1:])  # fmt: skip
    assert lacking.estimates()[0] == {}
    macro, expected = lacking.macro(), measure_findings([without], resamples=20).macro()
    assert plain(macro) == {name: {**asdict(mean), "defined": 2, "classes": 4} for name, mean in expected.items()}


def test_without_a_measured_finding_every_mean_is_undefined_over_none() -> None:
    test = replace(network(), finding_NK=np.full((240, 4), np.nan, np.float32))
    nothing = {**asdict(UNDEFINED), "defined": 0, "classes": 4}
    measured = measure_findings([test], resamples=20)
    assert plain(measured.macro()) == dict.fromkeys(MACRO, nothing) and measured.estimates() == [{}] * 4
    for by_finding, macro in (findings_drops(measured, measured), findings_differences(test, test, resamples=20)):
        assert plain(macro) == dict.fromkeys(APART, nothing) and by_finding == [{}] * 4


def test_what_is_predicted_where_a_finding_is_unknown_changes_nothing() -> None:
    test = network()
    probability_NK = test.probability_NK.copy()
    unknown_NK = np.isnan(test.finding_NK)
    probability_NK[unknown_NK] = np.random.default_rng(5).random(unknown_NK.sum())
    other = replace(test, probability_NK=probability_NK)
    measured, again = (measure_findings([each], resamples=50) for each in (test, other))
    assert measured.estimates() == again.estimates() and measured.macro() == again.macro()
    by_finding, macro = findings_differences(test, other, resamples=50)
    assert by_finding[1]["auc"] == Estimate(value=0.0, low=0.0, high=0.0, method="bootstrap") and macro["f1"].high == 0


def test_findings_in_another_order_have_the_same_results() -> None:
    test, order_K = network(), np.array([2, 0, 3, 1])
    turned = FindingsTest(
        finding_NK=test.finding_NK[:, order_K], probability_NK=test.probability_NK[:, order_K], group_N=test.group_N,
        threshold=THRESHOLDS[order_K],
    )  # fmt: skip
    measured, again = (measure_findings([each], resamples=50) for each in (test, turned))
    assert [measured.estimates()[place] for place in order_K] == again.estimates()
    assert plain(again.macro()) == numbers(measured.macro())


def test_films_of_several_networks_have_thresholds_of_their_own() -> None:
    test = network()
    threshold_NK = np.where(np.arange(240)[:, None] < 120, 0.2, 0.8) * np.ones(4)
    found = measure_findings([replace(test, threshold=threshold_NK)], resamples=20).estimates()[0]
    predicted_N = test.probability_NK[:, 0] >= threshold_NK[:, 0]
    assert found["f1"].value == pytest.approx(metrics.f1_score(test.finding_NK[:, 0] == 1, predicted_N))


def test_networks_of_folds_are_scored_alone_and_a_fold_without_a_known_film_counts_for_nothing() -> None:
    test = network()
    fold_N = test.group_N % 4
    finding_NK = test.finding_NK.copy()
    finding_NK[fold_N == 1, 1] = np.nan
    folds = [part(replace(test, finding_NK=finding_NK), fold_N == fold) for fold in range(4)]
    measured = measure_findings(folds, resamples=50)
    values = measured.by_finding[1].values()
    assert [value["auc"] is None for value in values] == [False, True, False, False]
    mean = np.mean([value["auc"] for value in values if value["auc"] is not None])
    assert measured.estimates()[1]["auc"].value == pytest.approx(mean)
    own = [one["auc"].value for one in measured.estimates()[:3]]
    assert measured.macro()["auc"].value == pytest.approx(np.mean(own))
    away = measure_findings([network(seed) for seed in range(4)], resamples=50, seed=1)
    by_finding, macro = findings_drops(measured, away)
    of_one = [measure_networks([each.of(0) for each in tests], 1, group_G=np.arange(80), resamples=50, seed=seed)
              for tests, seed in ((folds, 0), ([network(seed) for seed in range(4)], 1))]  # fmt: skip
    assert plain(by_finding[0]) == numbers(drops(*of_one)) and by_finding[3] == {}
    assert macro["auc"].value == pytest.approx(np.mean([one["auc"].value for one in by_finding[:3]]))
    assert (macro["auc"].defined, macro["auc"].classes) == (3, 4) and "calibration_slope" not in macro


def test_runs_are_compared_on_the_same_resamples_each_at_its_own_thresholds() -> None:
    first, second = network(0), network(1, threshold=THRESHOLDS + 0.1)
    by_finding, macro = findings_differences(first, second, resamples=200)
    own = [measure_findings([each], resamples=200).estimates() for each in (first, second)]
    for name in ("f1", "auc", "sensitivity"):
        apart = [own[1][place][name].value - own[0][place][name].value for place in range(3)]
        assert [one[name].value for one in by_finding[:3]] == pytest.approx(apart)
        assert macro[name].value == pytest.approx(np.mean(apart))
    assert by_finding[3] == {} and (macro["f1"].defined, macro["f1"].classes) == (3, 4)
    back = findings_differences(second, first, resamples=200)[1]["auc"]
    assert (back.low, back.high) == pytest.approx((-macro["auc"].high, -macro["auc"].low))
    higher = findings_differences(first, replace(first, threshold=THRESHOLDS + 0.2), resamples=200)[0][0]
    assert higher["sensitivity"].value < 0 and higher["sensitivity"].low < higher["sensitivity"].value


def test_probabilities_that_are_not_finite_are_refused_where_the_finding_is_known() -> None:
    test = network()
    probability_NK = test.probability_NK.copy()
    probability_NK[known_films(test.finding_NK[:, 1])[0], 1] = np.nan
    with pytest.raises(InputError, match=r"1 of .* samples without finite ones"):
        measure_findings([replace(test, probability_NK=probability_NK)], resamples=5)


@pytest.mark.coverage
def test_intervals_of_findings_and_their_mean_hold_the_truth() -> None:
    found = findings_coverage(FindingsStudy(groups=60), 100, 200, population=2000)
    assert min(found.values()) >= 0.9, found


def test_without_a_threshold_a_finding_has_what_needs_none_and_no_part_in_other_means() -> None:
    test = network()
    settled = measure_findings([test], resamples=60)
    threshold_K = np.array(np.broadcast_to(test.threshold, 4), np.float64)
    threshold_K[1] = np.nan
    measured = measure_findings([replace(test, threshold=threshold_K)], resamples=60)
    found, macro = measured.estimates(), measured.macro()
    for name, estimate in found[1].items():
        assert (estimate.value is not None) == (name in ("auc", "pr_auc")), name
    assert found[0] == settled.estimates()[0] and macro["auc"] == settled.macro()["auc"]
    both = [settled.estimates()[place]["f1"].value for place in (0, 2)]
    assert (macro["f1"].defined, macro["f1"].classes) == (2, 4) and macro["f1"].value == pytest.approx(np.mean(both))


def test_a_mean_of_shares_that_do_not_move_has_the_interval_of_shares_that_do_not_move() -> None:
    rng = np.random.default_rng(0)
    finding_NK = (rng.random((36, 4)) < 0.35).astype(np.float32)
    probability_NK = np.where(np.arange(4) == 0, 1.0, 0.0) * np.ones((36, 1))  # one always present, the others never
    test = FindingsTest(
        finding_NK=finding_NK, probability_NK=probability_NK, group_N=np.arange(36) // 2, threshold=np.full(4, 0.5)
    )
    mean = measure_findings([test], resamples=200).macro()["sensitivity"]
    assert mean.value == 0.25 and mean.method == "wilson"
    assert mean.low is not None and mean.high is not None and mean.high - mean.low > 0.2
