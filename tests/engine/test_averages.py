"""Averages over networks against a loop that scores each network on literally resampled samples."""

# N samples, K classes, G groups, X networks, R resamples

from typing import Any

import numpy as np
import pytest
from msgspec.structs import asdict
from scipy import stats

from benchmarks.interval_coverage import NetworkStudy, network_coverage
from engine.statistics.averages import Averages, NetworkTest, drops, measure_networks
from engine.statistics.estimates import UNDEFINED, Estimate, estimates
from loaders import statistics as lower
from loaders.errors import InputError
from loaders.statistics import wilson

pytestmark = pytest.mark.numerical

HEADLINE = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auc", "brier", "ece", "f1")


def network(seed: int, num_samples: int = 60, num_classes: int = 2, **changes: Any) -> NetworkTest:
    """A network of some skill on samples in groups of three; group 4 is that of samples 12, 13 and 14."""
    rng = np.random.default_rng(seed)
    label_N = np.arange(num_samples) // 3 % num_classes
    score_NK = rng.random((num_samples, num_classes)) + 0.01
    score_NK[np.arange(num_samples), label_N] += 0.3
    made = {"label_N": label_N, "probability_NK": score_NK / score_NK.sum(1, keepdims=True)}
    return NetworkTest(**made | {"group_N": np.arange(num_samples) // 3, "repeat": seed} | changes)


def part(test: NetworkTest, chosen_N: np.ndarray, **changes: Any) -> NetworkTest:
    """The same network on some of its samples."""
    found = {"label_N": test.label_N, "probability_NK": test.probability_NK, "group_N": test.group_N}
    chosen = {name: value_N[chosen_N] for name, value_N in found.items()}
    return NetworkTest(**chosen | {"threshold": test.threshold, "repeat": test.repeat} | changes)


def folds(test: NetworkTest, num_folds: int, **changes: Any) -> list[NetworkTest]:
    """A test as that of the networks of folds of whole groups, class by class."""
    return [part(test, test.group_N // 2 % num_folds == fold, **changes) for fold in range(num_folds)]


def called(label: list[int], called: list[int], **changes: Any) -> NetworkTest:
    """A network that is sure of its predictions; each sample is a group."""
    probability_NK = np.where(np.arange(2) == np.array(called)[:, None], 0.9, 0.1)
    made = {"label_N": np.array(label), "probability_NK": probability_NK, "group_N": np.arange(len(label))}
    return NetworkTest(**made | changes)


def numbers(found: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates, to compare to rounding."""
    return {name: pytest.approx(asdict(estimate), abs=1e-12) for name, estimate in found.items()}


def plain(found: dict[str, Estimate]) -> dict[str, Any]:
    """Estimates as dictionaries."""
    return {name: asdict(estimate) for name, estimate in found.items()}


def naive_value(test: NetworkTest, again_N: np.ndarray, name: str) -> float:
    """One metric of one network on some of its samples, repeated; NaN where undefined."""
    if not len(again_N):
        return np.nan
    drawn = part(test, again_N)
    found = estimates(
        drawn.label_N, drawn.probability_NK, drawn.group_N, 1, threshold=test.threshold, resamples=0
    )[name].value  # fmt: skip
    return np.nan if found is None else found


@pytest.mark.parametrize("num_classes", [2, 3])
def test_each_network_is_scored_alone_on_the_same_resampled_groups(num_classes: int) -> None:
    threshold = 0.4 if num_classes == 2 else None
    tests = [
        each
        for seed in range(2)
        for each in folds(network(seed, num_classes=num_classes, threshold=threshold), 3, repeat=seed)
    ]
    found = measure_networks(tests, 1, resamples=20, seed=7)
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(7, spawn_key=(0,))))
    rows = [np.arange(20), *rng.integers(20, size=(20, 20), dtype=np.int32)]
    for name in ("accuracy", "sensitivity", "specificity", "auc", "brier", "f1"):
        name = name if num_classes == 2 or name in ("accuracy", "brier") else f"{name}[2]"
        naive_XR = np.array([
            [
                naive_value(test, np.concatenate([np.flatnonzero(test.group_N == group) for group in drawn_G]), name)
                for drawn_G in rows
            ]
            for test in tests
        ])  # fmt: skip
        assert found.row_XR[name] == pytest.approx(naive_XR, nan_ok=True), name
        defined_X = np.isfinite(naive_XR[:, 0])
        mean_R = [np.nanmean(row_X[defined_X]) for row_X in naive_XR.T if np.isfinite(row_X[defined_X]).any()]
        estimate, groups = found.estimates()[name], found.groups[name]
        assert estimate.value == pytest.approx(mean_R[0])
        half = stats.t.ppf(0.975, groups - 1) * np.std(mean_R[1:]) * np.sqrt(groups / (groups - 1))
        if name != "brier":
            assert estimate.low is not None and estimate.high is not None
            odds = np.log([end / (1 - end) for end in (estimate.low, estimate.high)])
            assert np.diff(odds) / 2 == pytest.approx(half / (mean_R[0] * (1 - mean_R[0]))), name


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("certain", [False, True])
def test_one_network_alone_has_the_estimates_of_an_evaluation(num_classes: int, certain: bool) -> None:
    test = network(3, num_classes=num_classes, threshold=0.35 if num_classes == 2 else None)
    if certain:
        test = network(3, num_classes=num_classes, probability_NK=np.eye(num_classes)[test.label_N] * 0.9 + 0.05)
    found = measure_networks([test], 1, resamples=200, seed=5)
    wanted = estimates(
        test.label_N, test.probability_NK, test.group_N, 1, threshold=test.threshold, resamples=200, seed=5
    )
    assert plain(found.estimates()) == numbers(wanted)
    (values,) = found.values()
    assert {name: value for name, value in values.items() if "calibration" not in name} == {
        name: pytest.approx(estimate.value) for name, estimate in wanted.items() if "calibration" not in name
    }


def test_a_patient_in_the_folds_of_three_seeds_moves_in_all_of_them() -> None:
    test = network(1)
    once = measure_networks(folds(test, 4), 1, resamples=300)
    thrice = measure_networks([each for repeat in range(3) for each in folds(test, 4, repeat=repeat)], 1, resamples=300)
    assert plain(thrice.estimates()) == numbers(once.estimates())
    assert thrice.groups == once.groups and once.groups["accuracy"] == 20 and once.groups["sensitivity"] == 10


def test_groups_are_added_over_the_folds_of_a_repeat_and_the_fewest_of_the_repeats_count() -> None:
    test = network(0)
    away = [test, test, part(test, np.arange(60) < 30)]
    assert measure_networks(away, 1, resamples=0).groups["accuracy"] == 10
    fewer = [*folds(test, 5), part(network(9), np.arange(60) >= 12, repeat=1)]
    assert measure_networks(fewer, 1, resamples=0).groups["accuracy"] == 16


def test_a_network_without_a_metric_is_left_out_of_its_mean_alone() -> None:
    whole, negatives = called([1, 1, 0, 0, 0], [1, 0, 0, 0, 1]), called([0, 0, 0, 0], [0, 1, 1, 1], repeat=1)
    found = measure_networks([whole, negatives], 1, resamples=200)
    first, second = found.values()
    assert second["sensitivity"] is second["auc"] is second["balanced_accuracy"] is None
    assert second["specificity"] == 0.25 and first["sensitivity"] == 0.5
    mean = found.estimates()
    assert mean["sensitivity"].value == 0.5 and mean["specificity"].value == pytest.approx((2 / 3 + 0.25) / 2)
    assert mean["accuracy"].value == pytest.approx((3 / 5 + 1 / 4) / 2)
    alone = measure_networks([negatives], 1, resamples=200).estimates()
    assert alone["sensitivity"] == alone["auc"] == UNDEFINED and alone["balanced_accuracy"].value is None


def test_a_resample_that_leaves_a_fold_without_positives_still_counts() -> None:
    label = [1, 0, 0, 0] * 4  # one positive a fold
    test = called(label, [1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    each = [part(test, np.arange(16) // 4 == fold) for fold in range(4)]
    found = measure_networks(each, 1, resamples=400)
    missing_XR = np.isnan(found.row_XR["sensitivity"])
    assert not missing_XR[:, 0].any() and missing_XR.any(0).mean() > 0.5
    sensitivity = found.estimates()["sensitivity"]
    assert sensitivity.value == 0.75 and sensitivity.low is not None and sensitivity.high is not None
    assert sensitivity.low < 0.4 and sensitivity.high > 0.9  # left out, all that remain are alike


def test_networks_that_predict_one_class_each_leave_the_mean_open() -> None:
    label = [1] * 10 + [0] * 10
    tests = [called(label, [1] * 20), called(label, [0] * 20, repeat=1)]
    sensitivity = measure_networks(tests, 1, resamples=100).estimates()["sensitivity"]
    half = wilson(0, 10)[1]
    assert sensitivity == Estimate(value=0.5, low=0.5 - half, high=0.5 + half, method="wilson")
    perfect = [called(label, label), called(label, label, repeat=1)]
    found = measure_networks(perfect, 1, resamples=100).estimates()
    assert found["sensitivity"] == Estimate(value=1.0, low=wilson(10, 10)[0], high=1.0, method="wilson")


@pytest.mark.parametrize("num_folds", [1, 3])
def test_means_over_classes_are_each_networks_own(num_folds: int) -> None:
    rng = np.random.default_rng(0)
    tests = []
    for repeat in range(2):  # class 2 is absent, and predicted by the first network alone
        test = network(repeat, 90, 3)
        label_N, score_NK = test.label_N % 2, test.probability_NK.copy()
        score_NK[:, 2] = 0.9 * (rng.random(90) < 0.1) * (repeat == 0)
        made = part(test, np.ones(90, bool), label_N=label_N, probability_NK=score_NK / score_NK.sum(1, keepdims=True))
        tests += folds(made, num_folds, repeat=repeat)
    found = measure_networks(tests, 1, resamples=50)
    each = [values["f1"] for values in found.values()]
    assert found.estimates()["f1"].value == found.estimates()["f1_macro"].value == pytest.approx(np.mean(each))
    assert found.row_XR["f1[2]"][0, 0] == 0 and np.isnan(found.row_XR["f1[2]"][-1, 0])


def test_a_drop_is_home_minus_away_of_the_networks_that_define_the_metric_in_both() -> None:
    positives, both = called([1, 1], [1, 0]), called([1, 0, 0, 1], [1, 0, 0, 1])
    home = measure_networks([positives, replace_groups(both, 10)], 1, resamples=100)
    away = [called([1, 1, 0, 0], [0, 1, 1, 0], repeat=repeat, group_N=np.arange(4) + 100) for repeat in range(2)]
    found = drops(home, measure_networks(away, 1, resamples=100))
    assert found["auc"].value == 1 - 0.5 and found["specificity"].value == 1 - 0.5  # the second network's
    assert found["sensitivity"].value == (0.5 + 1) / 2 - 0.5
    one_class = [called([1] * 6, [0, 1] * 3, repeat=repeat) for repeat in range(2)]
    found = drops(home, measure_networks(one_class, 1, resamples=100))
    assert found["auc"] == found["specificity"] == UNDEFINED and found["balanced_accuracy"].value is None
    assert found["sensitivity"].value == 0.25 and "calibration_slope" not in found


def replace_groups(test: NetworkTest, first: int) -> NetworkTest:
    """The same network with other groups."""
    return part(test, np.ones(len(test.label_N), bool), group_N=test.group_N + first)


def test_a_drop_of_more_than_two_classes_is_over_the_classes_of_both() -> None:
    home = network(0, num_classes=3)
    away = part(network(1, num_classes=3), home.label_N < 2)
    averages = [measure_networks([test], 1, resamples=100) for test in (home, away)]
    first, second = (found.estimates() for found in averages)
    sensitivity = drops(*averages)["sensitivity"]
    wanted = [(first[f"sensitivity[{label}]"].value or 0) - (second[f"sensitivity[{label}]"].value or 0)
              for label in range(2)]  # fmt: skip
    assert sensitivity.value == pytest.approx(np.mean(wanted)) and (sensitivity.defined, sensitivity.classes) == (2, 3)


@pytest.mark.parametrize("name", HEADLINE)
def test_home_and_away_are_independent_however_alike_their_groups_are(name: str) -> None:
    test, other = network(1, 90), network(2, 90)
    averages = [measure_networks([each], 1, resamples=400, seed=3) for each in (test, other)]
    same = drops(averages[0], averages[0])[name]
    first, second = (found.estimates()[name] for found in averages)
    apart = drops(*averages)[name]
    assert same.value == 0 and same.low is not None and same.high is not None
    assert same.low == pytest.approx(-same.high) and same.high > 0, "the same draws would cancel"
    for end, one, two in (("low", "low", "high"), ("high", "high", "low")):
        distances = (getattr(first, one) - first.value, getattr(second, two) - second.value)
        assert abs(getattr(apart, end) - apart.value) == pytest.approx(np.hypot(*distances))


def test_any_number_of_threads_gives_the_same_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list[Averages]()
    for cores in (1, 3):
        monkeypatch.setattr(lower, "usable_cores", lambda cores=cores: cores)
        found.append(measure_networks(folds(network(0), 4), 1, resamples=300, seed=5))
    assert plain(found[0].estimates()) == plain(found[1].estimates())
    assert drops(*found).keys() == drops(found[1], found[0]).keys()


def test_an_empty_test_fold_defines_nothing_and_bad_probabilities_are_refused() -> None:
    test = network(0)
    empty = part(test, np.zeros(60, bool), repeat=1)
    found = measure_networks([test, empty], 1, resamples=50)
    assert set(found.values()[1].values()) == {None}
    assert plain(found.estimates()) == numbers(measure_networks([test], 1, resamples=50).estimates())
    with pytest.raises(InputError, match="without finite ones"):
        measure_networks([part(test, np.ones(60, bool), probability_NK=np.full((60, 2), np.nan))], 1)


@pytest.mark.coverage
def test_intervals_of_averages_and_drops_hold_the_truth_about_as_often_as_they_say() -> None:
    study = NetworkStudy(home=40, away=40, prevalence=0.3, folds=4, repeats=2)
    found = network_coverage(study, studies=100, resamples=100, population=4000)
    for kind, of_kind in found.items():
        for name, row in of_kind.items():
            assert 0.86 <= row["covered"] <= 1, (kind, name)  # 95 % of 100 studies, four standard errors
    assert found["home"]["sensitivity"]["otherwise"] < found["home"]["sensitivity"]["covered"]
    assert found["drop"]["ece"]["otherwise"] < 0.86, "the ECE of small folds is pushed up"
