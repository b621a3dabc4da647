"""Statistics of an evaluation against scikit-learn, slow oracles and simulation."""

# N samples, K classes, G groups, R resamples

import json
import re
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from scipy import optimize, stats
from scipy.special import log_softmax
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from benchmarks.interval_coverage import Study, coverage, simulate
from engine.statistics.bootstrap import metrics_of, resample, sum_groups
from engine.statistics.calibration import (
    TEMPERATURES,
    fit_answers,
    fit_temperature,
    logit,
    recalibrate,
    reliability,
    scored_event,
)
from engine.statistics.estimates import Estimate, estimates, paired_differences, trivial
from engine.statistics.metrics import all_metrics, headline_f1
from engine.statistics.names import (
    METRICS,
    difference_texts,
    interval_text,
    metric_of,
    short_name,
    size_text,
    value_text,
    with_interval,
)
from engine.statistics.thresholds import (
    LEAST_POSITIVES,
    choose_operating_points,
    precision_recall_curve,
    roc_curve,
)
from kernels.bootstrap import areas_into, count_into, weighted_sums_into
from loaders import statistics as lower
from loaders.cautions import caution
from loaders.errors import InputError
from loaders.output import number_text, share_text
from loaders.statistics import rank, resampled_means, wilson

pytestmark = pytest.mark.numerical

REPORT = [[244, 5], [3, 160]]  # rows true COVID, normal


def draw(seed: int, num_samples: int, num_classes: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with some skill; coarse: with many ties."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, num_classes, num_samples)
    score_NK = rng.random((num_samples, num_classes)) + 0.01
    score_NK[np.arange(num_samples), label_N] += 0.3
    if coarse:
        score_NK = np.ceil(score_NK * 3)
    return label_N, score_NK / score_NK.sum(1, keepdims=True)


def two_columns(probability_N: np.ndarray) -> np.ndarray:
    """Probabilities of both classes, (N, 2), from the second's."""
    return np.stack([1 - probability_N, probability_N], axis=1)


def slow_ece(score_N: np.ndarray, happened_N: np.ndarray) -> float:
    """The ECE bin by bin: ten bins."""
    total = 0.0
    for low in range(10):
        inside_N = np.minimum(np.floor(score_N * 10), 9) == low
        if inside_N.any():
            total += inside_N.mean() * abs(score_N[inside_N].mean() - happened_N[inside_N].mean())
    return total


def values(found: dict[str, Estimate]) -> dict[str, float | None]:
    """Without intervals."""
    return {name: estimate.value for name, estimate in found.items()}


def test_the_reports_matrix_gives_the_numbers_that_follow_from_it() -> None:
    cell = np.repeat(np.arange(4), np.ravel(REPORT))
    label_N, called_N = cell // 2, cell % 2
    found = estimates(label_N, np.where(np.arange(2) == called_N[:, None], 0.9, 0.1), np.arange(412), 0, resamples=200)
    printed = {
        name: round(100 * (found[name].value or 0), 2) for name in ("accuracy", "sensitivity", "specificity", "f1")
    }
    assert printed == {
        "accuracy": 98.06,
        "sensitivity": 97.99,
        "specificity": 98.16,
        "f1": 98.39,
    }  # the report prints an F1 of 99.51
    always_covid = values(trivial(label_N, 2, 0))
    assert round(100 * (always_covid["f1"] or 0), 1) == 75.3
    assert always_covid["accuracy"] == pytest.approx(249 / 412)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 4), num_samples=st.integers(2, 60), coarse=st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_value_agrees_with_scikit_learn(seed: int, num_classes: int, num_samples: int, coarse: bool) -> None:
    label_N, probability_NK = draw(seed, num_samples, num_classes, coarse)
    found = values(estimates(label_N, probability_NK, np.arange(num_samples), 1, resamples=0))
    called_N = probability_NK.argmax(1)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(label_N, called_N))
    assert found["f1_macro"] == pytest.approx(oracle.f1_score(label_N, called_N, average="macro"))
    several = len(np.unique(label_N)) > 1  # classes are present
    wanted = pytest.approx(oracle.recall_score(label_N, called_N, labels=np.unique(label_N), average="macro"))
    assert found["balanced_accuracy"] == (wanted if several else None)
    if num_classes == 2:
        assert found["brier"] == pytest.approx(oracle.brier_score_loss(label_N, probability_NK[:, 1]))
    else:
        wanted = oracle.brier_score_loss(label_N, probability_NK, labels=range(num_classes))
        assert found["brier"] == pytest.approx(wanted)
    assert found["ece"] == pytest.approx(slow_ece(*scored_event(label_N, probability_NK, 1)))
    reported = [1] if num_classes == 2 else range(num_classes)
    by_class: dict[str, list[float | None]] = {}
    for label in reported:
        is_N, predicted_N, score_N = label_N == label, called_N == label, probability_NK[:, label]
        ((passed, alarms), (missed, hits)) = oracle.confusion_matrix(is_N, predicted_N, labels=[False, True])
        both = is_N.any() and not is_N.all()
        wanted_of = {
            "sensitivity": hits / (hits + missed) if is_N.any() else None,
            "specificity": passed / (passed + alarms) if not is_N.all() else None,
            "ppv": hits / (hits + alarms) if predicted_N.any() else None,
            "npv": passed / (passed + missed) if not predicted_N.all() else None,
            "f1": oracle.f1_score(is_N, predicted_N) if (is_N | predicted_N).any() else None,
            "auc": oracle.roc_auc_score(is_N, score_N) if both else None,
            "pr_auc": oracle.average_precision_score(is_N, score_N) if both else None,
        }
        for name, value in wanted_of.items():
            by_class.setdefault(name, []).append(value)
            if num_classes > 2:
                assert found[f"{name}[{label}]"] == (None if value is None else pytest.approx(value))
    brief = all_metrics(label_N, probability_NK, 1)
    for name, of_class in by_class.items():
        known = [value for value in of_class if value is not None]
        mean = pytest.approx(np.mean(known)) if known else None
        assert found[name] == mean, name
        if name in brief:
            assert brief[name] == mean, name
            for label, value in zip(reported, of_class, strict=True):
                assert brief[f"{name}_per_class"][label] == (None if value is None else pytest.approx(value)), name
    assert brief["accuracy"] == found["accuracy"] and brief["num_samples"] == num_samples
    names = list(range(num_classes))
    assert brief["confusion"] == oracle.confusion_matrix(label_N, called_N, labels=names).tolist()


def test_macro_f1_is_over_the_classes_present_or_predicted_in_early_stopping_as_in_the_estimates() -> None:
    label_N, probability_NK = np.array([0, 0, 1, 1, 1]), two_columns(np.array([0.1, 0.9, 0.9, 0.9, 0.9]))
    absent_NK = np.column_stack([probability_NK, np.zeros(5)])  # a third class, neither present nor predicted
    wanted = oracle.f1_score(label_N, absent_NK.argmax(1), average="macro")
    found = estimates(label_N, absent_NK, np.arange(5), 0, resamples=0)["f1"]
    brief = all_metrics(label_N, absent_NK, 0)
    assert found.value == pytest.approx(wanted) and (found.defined, found.classes) == (2, 3)
    assert brief["f1"] == headline_f1(np.array(brief["confusion"]), 0) == pytest.approx(wanted)
    assert brief["f1_per_class"][2] is None
    without = all_metrics(np.ones(5, int), two_columns(np.ones(5)), 0)  # no positive, and none predicted
    assert without["f1"] is headline_f1(np.array(without["confusion"]), 0) is None


@pytest.mark.parametrize("seed", range(4))
def test_slope_and_intercept_are_those_of_a_logistic_regression_without_penalty(seed: int) -> None:
    label_N, probability_NK = draw(seed, 300, 2)
    fit = recalibrate(label_N == 1, logit(probability_NK[:, 1]))
    logit_N = np.log(probability_NK[:, 1] / probability_NK[:, 0])
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit_N[:, None], label_N)
    assert fit.slope == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    wanted = optimize.brentq(lambda shift: (label_N - 1 / (1 + np.exp(-shift - logit_N))).sum(), -9, 9)
    assert fit.large == pytest.approx(wanted, abs=1e-6)


def test_slope_and_intercept_of_a_calibrated_score_are_one_and_zero() -> None:
    rng = np.random.default_rng(0)
    logit_N = rng.normal(size=200_000)
    probability_N = 1 / (1 + np.exp(-logit_N))
    happened_N = rng.random(200_000) < probability_N
    fit = recalibrate(happened_N, logit(probability_N))
    assert fit.slope == pytest.approx(1, abs=0.02) and fit.large == pytest.approx(0, abs=0.02)
    too_extreme = recalibrate(happened_N, 2 * logit_N)
    assert too_extreme.slope == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("label", "probability", "large_is_known"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], True),
        ([0, 1, 0, 1], [0.0, 1.0, 0.0, 1.0], True),
        ([0, 1, 0, 1], [0.5] * 4, True),
        ([1, 1], [0.2, 0.9], False),
    ],
    ids=["separable", "zero and one", "constant", "one class"],
)
def test_a_slope_without_an_end_is_undefined(label: list[int], probability: list[float], large_is_known: bool) -> None:
    fit = recalibrate(np.array(label) == 1, logit(np.array(probability)))
    assert np.isnan([fit.slope, fit.constant]).all() and np.isfinite(fit.large) == large_is_known


@given(seed=st.integers(0, 10**6), num_groups=st.integers(1, 12), coarse=st.booleans())
@settings(max_examples=30, deadline=None)
def test_kernels_agree_with_slow_oracles(seed: int, num_groups: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    num_samples = int(rng.integers(num_groups, 40))
    group_N = rng.permutation(np.arange(num_samples) % num_groups).astype(np.int32)
    drawn_RG = rng.integers(num_groups, size=(3, num_groups), dtype=np.int32)
    weight_RG = np.full((3, num_groups), 99, np.uint16)
    count_into(weight_RG, drawn_RG)
    assert weight_RG.tolist() == [np.bincount(drawn_G, minlength=num_groups).tolist() for drawn_G in drawn_RG]
    addend_GF, out_RF = rng.normal(size=(num_groups, 5)), np.full((3, 5), np.nan)
    weighted_sums_into(out_RF, weight_RG, addend_GF)
    assert out_RF == pytest.approx(weight_RG @ addend_GF)
    label_N, probability_NK = draw(seed, num_samples, 2, coarse)
    ranking = rank(probability_NK[None, :, 1], label_N[None] == 1, group_N)
    roc_R, precision_R = np.empty((2, 3))
    areas_into(roc_R, precision_R, weight_RG, ranking.group_RN, ranking.positive_RN, ranking.last_RN)
    for weight_G, roc, precision in zip(weight_RG, roc_R, precision_R, strict=True):
        again_N = np.repeat(np.arange(num_samples), weight_G[group_N])
        if len(np.unique(label_N[again_N])) == 2:
            assert roc == pytest.approx(oracle.roc_auc_score(label_N[again_N], probability_NK[again_N, 1]))
            assert precision == pytest.approx(
                oracle.average_precision_score(label_N[again_N], probability_NK[again_N, 1])
            )
        else:
            assert np.isnan(roc) and np.isnan(precision)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_resample_is_the_sample_with_its_groups_repeated(num_classes: int) -> None:
    label_N, probability_NK = draw(1, 90, num_classes)
    group_N = np.arange(90) // 3
    sums = sum_groups(label_N, probability_NK, group_N, 1, None, True)
    found = metrics_of(sums, resample(sums, 3, 7), 1, None)
    first_chunk = np.random.Generator(np.random.SFC64(np.random.SeedSequence(7, spawn_key=(0,))))
    for row, drawn_G in enumerate(first_chunk.integers(30, size=(3, 30), dtype=np.int32), start=1):
        again_N = np.concatenate([np.flatnonzero(group_N == group) for group in drawn_G])
        wanted = values(estimates(label_N[again_N], probability_NK[again_N], np.arange(90), 1, resamples=0))
        for name, value in wanted.items():
            if "calibration" not in name:
                assert found[name][row] == pytest.approx(value), name


def test_one_newton_step_stands_for_refitting_the_recalibration() -> None:
    label_N, probability_NK, group_N = simulate(Study(groups=150), np.random.default_rng(3))
    sums = sum_groups(label_N, probability_NK, group_N, 1, None, True)
    found = metrics_of(sums, resample(sums, 60, 0), 1, None)
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(0, spawn_key=(0,))))
    refitted = []
    for drawn_G in rng.integers(150, size=(60, 150), dtype=np.int32):
        again_N = np.concatenate([np.flatnonzero(group_N == group) for group in drawn_G])
        fit = recalibrate(label_N[again_N] == 1, logit(probability_NK[again_N, 1]))
        refitted.append((fit.slope, fit.large))
    for name, wanted_R in zip(("calibration_slope", "calibration_intercept"), np.transpose(refitted), strict=True):
        one_step_R = found[name][1:]
        assert np.corrcoef(one_step_R, wanted_R)[0, 1] > 0.97
        assert one_step_R.std() == pytest.approx(wanted_R.std(), rel=0.15)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    label_N, probability_NK, group_N = simulate(Study(groups=40), np.random.default_rng(0))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(lower, "usable_cores", lambda cores=cores: cores)
        found.append(estimates(label_N, probability_NK, group_N, 1, resamples=300, seed=5))
    assert found[0] == found[1]
    other = estimates(label_N, probability_NK, group_N, 1, resamples=300, seed=6)
    assert values(other) == values(found[0]) and other != found[0]


def test_whole_groups_are_resampled() -> None:
    label_N, probability_NK, _ = simulate(Study(groups=60), np.random.default_rng(0))
    repeated = (np.repeat(label_N, 4), np.repeat(probability_NK, 4, axis=0))
    num_samples = len(label_N)
    once = estimates(label_N, probability_NK, np.arange(num_samples), 1, resamples=500)
    grouped = estimates(*repeated, np.repeat(np.arange(num_samples), 4) + 10**12, 1, resamples=500)
    ungrouped = estimates(*repeated, np.arange(4 * num_samples), 1, resamples=500)
    for name in ("accuracy", "auc", "pr_auc", "brier", "sensitivity"):
        assert asdict(grouped[name]) == pytest.approx(asdict(once[name])), "copies of a sample add nothing"
        widths = [(found[name].high or 0) - (found[name].low or 0) for found in (grouped, ungrouped)]
        assert widths[0] > 1.6 * widths[1]


@pytest.mark.coverage
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    found = coverage(Study(groups=100), studies=150, resamples=200)
    for name in ("accuracy", "sensitivity", "specificity", "auc", "pr_auc", "brier", "f1", "calibration_slope"):
        assert 0.88 <= found[name]["covered"] <= 1, name  # 95 % of 150 studies, four standard errors
    assert found["ece"]["covered"] >= 0.88


def test_a_share_at_its_end_has_wilsons_interval_of_the_groups_behind_it() -> None:
    label_N = np.array([1] * 20 + [0] * 30)
    group_N = np.concatenate([np.arange(20) // 2, 100 + np.arange(30) // 3])  # 10 groups each
    group_N[-3:] = 0  # one group holds both classes
    found = estimates(label_N, two_columns(0.8 * label_N + 0.1), group_N, 1, prevalence=0.1, resamples=200)
    of_ten, of_all = wilson(10, 10), wilson(19, 19)
    for name in ("sensitivity", "specificity", "ppv", "npv", "auc", "pr_auc"):
        assert found[name] == Estimate(value=1.0, low=of_ten[0], high=1.0, method="wilson"), name
    for name in ("accuracy", "f1_macro"):
        assert found[name].method == "wilson"
    assert found["accuracy"].low == of_all[0]
    stated = found["ppv_at_prevalence"]
    assert (stated.value, stated.high, stated.method) == (1.0, 1.0, "wilson")
    assert stated.low == pytest.approx(0.1 * of_ten[0] / (0.1 * of_ten[0] + 0.9 * (1 - of_ten[0])))


def test_predictive_values_follow_the_stated_prevalence() -> None:
    label_N, probability_NK = draw(0, 200, 2)
    found = values(estimates(label_N, probability_NK, np.arange(200), 1, prevalence=0.02, resamples=0))
    sensitivity, specificity = found["sensitivity"] or 0, found["specificity"] or 0
    assert found["ppv_at_prevalence"] == pytest.approx(
        sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
    )
    assert found["npv_at_prevalence"] == pytest.approx(
        specificity * 0.98 / (specificity * 0.98 + (1 - sensitivity) * 0.02)
    )
    own = values(estimates(label_N, probability_NK, np.arange(200), 1, prevalence=label_N.mean(), resamples=0))
    assert own["ppv_at_prevalence"] == pytest.approx(own["ppv"])
    assert "ppv_at_prevalence" not in values(estimates(label_N, probability_NK, np.arange(200), 1, resamples=0))


@given(
    seed=st.integers(0, 10**6),
    num_samples=st.integers(1, 8),
    num_groups=st.integers(1, 4),
    num_classes=st.integers(2, 3),
    kind=st.sampled_from(["any", "one class", "constant", "certain"]),
    positive=st.integers(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_sample_estimates_are_numbers_in_order_or_none(
    seed: int, num_samples: int, num_groups: int, num_classes: int, kind: str, positive: int
) -> None:
    label_N, probability_NK = draw(seed, num_samples, num_classes, coarse=True)
    group_N = np.arange(num_samples) % num_groups
    if kind == "one class":
        label_N[:] = seed % num_classes
    elif kind == "constant":
        probability_NK[:] = 1 / num_classes
    elif kind == "certain":
        probability_NK = np.eye(num_classes)[probability_NK.argmax(1)]
    found = estimates(label_N, probability_NK, group_N, positive, prevalence=0.1, resamples=20)
    json.dumps([asdict(estimate) for estimate in found.values()], allow_nan=False)
    for name, estimate in found.items():
        if estimate.low is None or estimate.high is None:
            assert estimate.low is estimate.high is None and estimate.method == "", name
        else:
            assert estimate.value is not None and estimate.method in ("bootstrap", "wilson")
            assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9, name
            if "calibration" not in name and name != "brier":
                assert estimate.low >= 0 and estimate.high <= 1, name
    if min(num_groups, num_samples) == 1:
        assert all(estimate.low is None for estimate in found.values()), "one group says nothing about others"
    flat = values(trivial(label_N, num_classes, positive, prevalence=0.1))
    assert flat.keys() == found.keys()
    assert all(value is None or isfinite(value) for value in flat.values())
    others = paired_differences(label_N, probability_NK, probability_NK[::-1], group_N, positive, resamples=20)
    json.dumps([asdict(estimate) for estimate in others.values()], allow_nan=False)


def test_one_class_only_leaves_what_it_defines() -> None:
    found = values(estimates(np.ones(6, int), two_columns(np.linspace(0.3, 0.9, 6)), np.arange(6), 1, resamples=50))
    undefined = {name for name, value in found.items() if value is None}
    assert undefined == {
        "balanced_accuracy",
        "specificity",
        "auc",
        "pr_auc",
        "calibration_slope",
        "calibration_intercept",
    }


def test_a_slope_that_two_images_decide_is_undefined_and_one_that_many_decide_is_not() -> None:
    rng = np.random.default_rng(4)
    label_N = np.array([0, 1] * 30)
    separated_N = np.where(label_N == 1, 0.9, 0.1) + rng.uniform(-0.05, 0.05, 60)
    separated_N[0] = np.sort(separated_N[label_N == 1])[1]  # the one image that a threshold does not separate
    found = estimates(label_N, two_columns(separated_N), np.arange(60), 1, resamples=300)
    assert found["calibration_slope"] == Estimate(value=None, low=None, high=None, method="")
    assert found["auc"].value is not None and found["brier"].value is not None
    label_N, probability_NK, group_N = simulate(Study(groups=100), rng)
    settled = estimates(label_N, probability_NK, group_N, 1, resamples=300)["calibration_slope"]
    assert settled.value is not None and settled.low is not None and settled.high is not None


def test_a_metric_of_a_single_group_has_no_interval() -> None:
    label_N = np.array([1, 1, 0, 0, 0, 0])  # both positives are of one patient
    probability_NK = two_columns(np.array([0.9, 0.2, 0.1, 0.3, 0.6, 0.2]))
    found = estimates(label_N, probability_NK, np.array([0, 0, 1, 2, 3, 4]), 1, resamples=100)
    assert found["sensitivity"] == Estimate(value=0.5, low=None, high=None, method="")
    assert found["auc"].low is None and found["specificity"].low is not None


def test_resamples_without_a_class_are_left_out_of_the_interval() -> None:
    label_N = np.array([1, 1, 0, 0])  # of four groups, a resample lacks a class in one case of eight
    found = estimates(label_N, two_columns(np.array([0.9, 0.4, 0.6, 0.1])), np.arange(4), 1, resamples=400)
    assert found["auc"].value == 0.75 and found["auc"].low is not None and found["auc"].low > 0
    assert found["sensitivity"].value == 0.5 and found["sensitivity"].method == "bootstrap"


def test_probabilities_that_are_not_finite_are_refused() -> None:
    probability_NK = two_columns(np.array([0.2, np.nan, 0.7]))
    with pytest.raises(InputError, match="1 of 3 samples"):
        estimates(np.array([0, 1, 1]), probability_NK, np.arange(3), 1)


def test_the_trivial_classifier_calls_the_largest_class_with_a_constant_score() -> None:
    label_N = np.array([0] * 3 + [1] * 7)
    found = values(trivial(label_N, 2, 0))
    assert (found["accuracy"], found["sensitivity"], found["specificity"]) == (0.7, 0.0, 1.0)
    assert (found["auc"], found["pr_auc"], found["f1"], found["ppv"]) == (0.5, 0.3, 0.0, None)
    assert (found["brier"], found["ece"], found["calibration_slope"]) == (0.21, 0.0, None)
    brief = all_metrics(label_N, two_columns(np.linspace(0, 1, 10)), 0)["largest_class"]
    assert brief.pop("class") == 1
    assert brief == {name: found[name] for name in ("auc", "accuracy", "f1", "sensitivity", "specificity")}
    three = values(trivial(np.array([0, 1, 1, 2]), 3, 0))
    assert (three["accuracy"], three["auc"], three["sensitivity[1]"]) == (0.5, 0.5, 1.0)


def called(called_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities, of which the highest are those of the classes called."""
    return np.where(np.arange(num_classes) == called_N[:, None], 0.9, 0.1 / (num_classes - 1))


def test_a_mean_over_classes_is_of_those_that_define_it_and_reports_how_many() -> None:
    label_N = np.repeat(np.arange(20), 10)
    found = estimates(label_N, called(np.zeros(200, int), 20), np.arange(200), 0, resamples=50)
    assert found["ppv"].value == pytest.approx(0.05)  # by scikit-learn's zero_division=0 it is 0.0025
    wanted = {"ppv": 1, "npv": 19, "sensitivity": 20, "specificity": 20, "f1": 20, "f1_macro": 20, "auc": 20}
    assert {name: found[name].defined for name in wanted} == wanted
    assert {found[name].classes for name in wanted} == {20}
    for name in ("accuracy", "brier", "ece", "ppv[0]"):
        assert found[name].defined is found[name].classes is None
    flat = trivial(label_N, 20, 0)
    assert (flat["ppv"].value, flat["ppv"].defined, flat["ppv"].classes) == (pytest.approx(0.05), 1, 20)
    two = estimates(np.array([0, 0, 0]), called(np.zeros(3, int), 2), np.arange(3), 0, resamples=0)
    assert (two["f1_macro"].value, two["f1_macro"].defined, two["f1_macro"].classes) == (1.0, 1, 2)
    assert two["f1"].classes is two["sensitivity"].classes is None


def test_the_difference_of_two_means_is_over_the_classes_that_both_runs_define() -> None:
    label_N = np.repeat(np.arange(4), 10)
    first_N, second_N = label_N.copy(), np.where(label_N == 3, 0, label_N)  # the second never calls class 3
    first_N[:5] = 1
    first, second = (estimates(label_N, called(x, 4), np.arange(40), 0, resamples=0) for x in (first_N, second_N))
    found = paired_differences(label_N, called(first_N, 4), called(second_N, 4), np.arange(40), 0, resamples=50)
    apart = [(second[f"ppv[{label}]"].value or 0) - (first[f"ppv[{label}]"].value or 0) for label in range(3)]
    assert found["ppv"].value == pytest.approx(np.mean(apart)) and second["ppv[3]"].value is None
    assert (found["ppv"].defined, found["ppv"].classes) == (3, 4) and found["sensitivity"].defined == 4
    assert found["accuracy"].classes is None


def test_a_mean_slope_is_of_the_classes_whose_slope_is_settled() -> None:
    rng = np.random.default_rng(3)
    label_N = np.repeat(np.arange(4), [150, 150, 150, 2])  # two images of one patient settle no slope
    score_NK = rng.random((len(label_N), 4)) + 0.6 * np.eye(4)[label_N]
    group_N = np.append(np.arange(450), [450, 450])
    found = estimates(label_N, score_NK / score_NK.sum(1, keepdims=True), group_N, 0, resamples=200)
    for name in ("calibration_slope", "calibration_intercept"):
        known = [value for label in range(4) if (value := found[f"{name}[{label}]"].value) is not None]
        assert found[f"{name}[3]"].value is None and found[name].defined == len(known)
        assert found[name].value == (pytest.approx(np.mean(known)) if known else None)


def test_a_threshold_calls_the_positive_class_from_that_probability_on() -> None:
    label_N, score_N = np.array([1, 1, 1, 0, 0, 0]), np.array([0.9, 0.3, 0.1, 0.8, 0.2, 0.1])
    for positive, probability_NK in ((1, two_columns(score_N)), (0, two_columns(1 - score_N))):
        own_N = label_N if positive else 1 - label_N
        found = estimates(own_N, probability_NK, np.arange(6), positive, threshold=0.3, scores=False, resamples=0)
        assert found["sensitivity"].value == pytest.approx(2 / 3)
        assert found["specificity"].value == pytest.approx(2 / 3)
        assert not {"auc", "pr_auc", "brier", "ece", "calibration_slope"} & found.keys()


def test_progress_ends_at_the_number_of_resamples() -> None:
    steps: list[tuple[int, int]] = []
    label_N, probability_NK = draw(0, 30, 2)
    estimates(label_N, probability_NK, np.arange(30), 1, resamples=150, progress=lambda *step: steps.append(step))
    assert steps[-1] == (150, 150) and steps == sorted(steps)


def test_a_paired_difference_is_of_the_same_resamples() -> None:
    label_N, first_NK, group_N = simulate(Study(groups=100), np.random.default_rng(4))
    second_NK = two_columns(np.clip(first_NK[:, 1] + 0.02 * np.sin(np.arange(len(label_N))), 0.001, 0.999))
    found = paired_differences(label_N, first_NK, second_NK, group_N, 1, resamples=400, prevalence=0.1)
    first, second = (
        estimates(label_N, probability_NK, group_N, 1, resamples=400, prevalence=0.1)
        for probability_NK in (first_NK, second_NK)
    )
    assert found.keys() == first.keys()
    for name in ("accuracy", "auc", "brier"):
        assert found[name].value == pytest.approx((second[name].value or 0) - (first[name].value or 0))
        width = (found[name].high or 0) - (found[name].low or 0)
        assert 0 < width < 0.6 * ((first[name].high or 0) - (first[name].low or 0)), "paired, the patients cancel"
    back = paired_differences(label_N, second_NK, first_NK, group_N, 1, resamples=400)
    assert back["auc"].value == pytest.approx(-(found["auc"].value or 0))
    assert back["auc"].low == pytest.approx(-(found["auc"].high or 0))


def test_two_perfect_runs_differ_by_less_than_their_groups_can_tell() -> None:
    label_N = np.arange(40) % 2
    found = paired_differences(
        label_N, two_columns(0.1 + 0.8 * label_N), two_columns(0.2 + 0.6 * label_N), np.arange(40), 1, resamples=50
    )
    half = wilson(0, 40)[1]
    assert found["accuracy"] == Estimate(value=0.0, low=-half, high=half, method="wilson")
    assert found["brier"].value == pytest.approx(0.04 - 0.01)


def test_two_runs_that_err_on_the_same_samples_are_not_reported_as_equal() -> None:
    label_N = np.arange(40) % 2
    score_N = np.where((label_N == 1) == (np.arange(40) >= 6), 0.9, 0.1)  # six are wrong
    one_NK, other_NK = two_columns(score_N), two_columns(np.where(score_N > 0.5, 0.8, 0.2))
    found = paired_differences(label_N, one_NK, other_NK, np.arange(40), 1, resamples=50)
    half = wilson(0, 40)[1]
    assert found["accuracy"] == Estimate(value=0.0, low=-half, high=half, method="wilson")
    assert found["f1_macro"].method == found["auc"].method == "wilson" and found["brier"].method == "bootstrap"
    opposite = paired_differences(label_N, 1 - one_NK, one_NK, np.arange(40) // 2, 1, resamples=50)["sensitivity"]
    assert opposite.value == pytest.approx(0.7) and opposite.method == "bootstrap"
    every = paired_differences(label_N, two_columns(1.0 - label_N), two_columns(1.0 * label_N), np.arange(40), 1)
    assert every["accuracy"] == Estimate(value=1.0, low=1 - half, high=1.0, method="wilson")
    same = paired_differences(label_N, one_NK, one_NK.copy(), np.arange(40), 1, resamples=50)
    assert {(item.value, item.low, item.high) for name, item in same.items() if "calibration" not in name} == {
        (0, 0, 0)
    }


def test_predictive_values_that_no_resample_moves_keep_the_intervals_of_their_parts() -> None:
    label_N = np.arange(40) % 2
    called_N = np.full(40, 0.9)  # everyone is called positive: sensitivity 1, specificity 0
    found = estimates(label_N, two_columns(called_N), np.arange(40), 1, prevalence=0.1, resamples=50)
    stated, half = found["ppv_at_prevalence"], wilson(0, 20)[1]
    assert stated.value == pytest.approx(0.1) and stated.method == "wilson"
    assert stated.low == pytest.approx(0.1 * (1 - half) / (0.1 * (1 - half) + 0.9))
    assert stated.high == pytest.approx(0.1 / (0.1 + 0.9 * (1 - half)))


@pytest.mark.coverage
@pytest.mark.parametrize(("gap", "num_samples"), [(0.0, 40), (0.05, 150), (0.1, 40), (0.1, 150)])
def test_the_interval_of_an_ece_of_few_filled_bins_holds_the_truth(gap: float, num_samples: int) -> None:
    rng, held = np.random.default_rng(5), 0
    for study in range(60):
        probability_NK = two_columns(np.full(num_samples, 0.45))
        label_N = (rng.random(num_samples) < 0.45 + gap).astype(int)
        found = estimates(label_N, probability_NK, np.arange(num_samples), 1, resamples=200, seed=study)["ece"]
        held += (found.low or 0) - 1e-9 <= gap <= (found.high or 0) + 1e-9
    assert held >= 54, "95 % of 60 studies, two standard errors"


def test_the_ece_of_a_set_without_an_error_has_an_interval() -> None:
    label_N = np.arange(40) % 2
    found = estimates(label_N, two_columns(0.03 + 0.94 * label_N), np.arange(40), 1, resamples=100)["ece"]
    assert found.value == pytest.approx(0.03) and found.low == 0, "3 % of 40 may come true yet not be seen"
    assert found.high == pytest.approx(0.03 + wilson(0, 40)[1])


def validation(num_positive: int, num_negative: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which samples of a validation set are positive, and their scores."""
    rng = np.random.default_rng(seed)
    is_N = rng.permutation(np.repeat([True, False], [num_positive, num_negative]))
    return is_N, 1 / (1 + np.exp(-1.5 * (2 * is_N - 1) - rng.normal(size=len(is_N))))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=300),
    st.sampled_from([1.0, 0.05, 1 / 3]),
)
def test_operating_points_are_the_best_of_scikit_learns_curve(samples: list[tuple[bool, int]], step: float) -> None:
    """Whole numbers make ties; the first best threshold of the curve, which goes down from infinity, is the highest."""
    is_N, score_N = np.array([one for one, _ in samples]), step * np.array([score for _, score in samples])
    is_N[:2] = True, False
    is_N = np.concatenate([is_N, np.ones(LEAST_POSITIVES, bool)])  # enough for rule-out
    score_N = np.concatenate([score_N, step * (np.arange(LEAST_POSITIVES) % 23)])
    half, youden, rule_out = choose_operating_points(is_N, score_N)
    false_P, true_P, threshold_P = (curve[1:] for curve in oracle.roc_curve(is_N, score_N, drop_intermediate=False))
    gain_P = np.round(true_P - false_P, 12)
    assert (half.name, half.threshold, half.refused) == ("0.5", 0.5, None)
    assert youden.threshold == threshold_P[gain_P == gain_P.max()].max() and youden.refused is None
    assert rule_out.threshold == threshold_P[true_P >= 0.95].max() and rule_out.refused is None


def test_rule_out_needs_59_validation_positives() -> None:
    assert 0.95**59 < 0.05 < 0.95**58
    *_, refused = choose_operating_points(*validation(58, 500))
    assert refused.threshold is None
    assert refused.refused == caution("few-validation-positives", positives=58, least=59)
    *_, chosen = choose_operating_points(*validation(59, 5))
    assert chosen.threshold is not None and chosen.refused is None


@pytest.mark.parametrize(("num_positive", "num_negative"), [(70, 0), (0, 70), (1, 0)])
def test_points_of_one_class_are_refused(num_positive: int, num_negative: int) -> None:
    half, youden, rule_out = choose_operating_points(*validation(num_positive, num_negative))
    assert half.threshold == 0.5
    assert youden.threshold is None and rule_out.threshold is None and rule_out.refused
    assert youden.refused == caution("one-class-in-validation", positives=num_positive, negatives=num_negative)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    """Probabilities, the plain way."""
    return np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_temperature_has_the_least_nll(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(size=(400, num_classes)).astype(np.float32)
    label_N = (softmax(logits_NK).cumsum(1) < rng.random((400, 1))).sum(1)
    found = fit_temperature(3 * logits_NK, label_N)
    wanted = optimize.minimize_scalar(
        lambda t: oracle.log_loss(label_N, softmax(3 * logits_NK.astype(float) / t)), bounds=(0.5, 9), method="bounded"
    )
    assert found == pytest.approx(wanted.x, rel=1e-3)
    assert 2 < found < 4.5, "three times too extreme"


@pytest.mark.parametrize("num_classes", [2, 3])
def test_no_temperature_moves_the_area_under_a_curve(num_classes: int) -> None:
    rng = np.random.default_rng(6)
    label_N = rng.integers(0, 2, 120)
    logits_NK = np.zeros((120, num_classes))
    logits_NK[:, 1] = rng.normal(1 + 4 * label_N, 3.5)
    sharp_NK, soft_NK = softmax(logits_NK / 0.05), softmax(logits_NK)
    assert (sharp_NK[:, 1] == 1).mean() > 0.4, "as after a validation without an error"
    group_N = np.arange(120)
    for positive in (0, 1):
        sharp, soft = (
            estimates(label_N, probability_NK, group_N, positive, resamples=50)
            for probability_NK in (sharp_NK, soft_NK)
        )
        names = ("auc", "pr_auc") if num_classes == 2 else ("auc[1]", "pr_auc[1]")
        assert all(asdict(sharp[name]) == pytest.approx(asdict(soft[name])) for name in names)
    place = 1 if num_classes == 3 else None
    measured = [all_metrics(label_N, probability_NK, 1) for probability_NK in (sharp_NK, soft_NK)]
    auc, other = (found["auc_per_class"][place] if place else found["auc"] for found in measured)
    assert auc == pytest.approx(other) == pytest.approx(oracle.roc_auc_score(label_N == 1, logits_NK[:, 1]))


def test_a_temperature_without_an_end_stops_at_a_bound() -> None:
    logits_NK = np.array([[2.0, 0.0], [0.0, 1.0], [1e4, -1e4]])
    assert fit_temperature(logits_NK, np.array([0, 1, 0])) == TEMPERATURES[0]
    assert fit_temperature(logits_NK, np.array([1, 0, 1])) == TEMPERATURES[1]
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 0])) == 1.0
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1.0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_scores_of_answers_get_the_scale_and_the_bias_of_a_logistic_regression(num_classes: int) -> None:
    rng = np.random.default_rng(4)
    label_N = rng.integers(num_classes, size=400)
    logits_NK = rng.normal(size=(400, num_classes)) * 0.02 + 0.03 * np.eye(num_classes)[label_N]
    logits_NK += np.arange(num_classes) * 5.0 - 40  # long names have low sums
    temperature, bias_K = fit_answers(logits_NK, label_N)

    def nll(scale: float, own_K: np.ndarray) -> float:
        log_NK = log_softmax(logits_NK * scale + own_K, axis=1)
        return -float(log_NK[np.arange(len(label_N)), label_N].mean())

    best = nll(1 / temperature, bias_K)
    assert best < 0.9 * np.log(num_classes) and abs(bias_K.mean()) < 1e-9
    for step in (-1e-3, 1e-3):  # the least there is, since it is convex
        centre_K = logits_NK.mean(0)
        assert nll((1 + step) / temperature, bias_K - step * centre_K / temperature) >= best
        for place in range(num_classes):
            assert nll(1 / temperature, bias_K + step * np.eye(num_classes)[place]) >= best
    if num_classes == 2:  # Platt's: scikit-learn's logistic regression of the difference, hardly penalised
        odds_N1 = (logits_NK[:, 1] - logits_NK[:, 0])[:, None]
        centred_N1 = (odds_N1 - odds_N1.mean()) / odds_N1.std()
        theirs = LogisticRegression(C=1e8, tol=1e-10).fit(centred_N1, label_N)
        assert 1 / temperature == pytest.approx(theirs.coef_[0, 0] / odds_N1.std(), rel=1e-3)


def test_answers_without_samples_or_without_a_difference_are_left_alone_or_get_the_shares() -> None:
    temperature, bias_K = fit_answers(np.zeros((0, 3)), np.zeros(0, int))
    assert temperature == 1.0 and not bias_K.any()
    temperature, bias_K = fit_answers(np.full((4, 2), [-3.0, -90.0]), np.array([0, 0, 0, 1]))
    odds = (-3.0 + 90.0) / temperature + bias_K[0] - bias_K[1]
    assert odds == pytest.approx(np.log(3), abs=1e-4)
    one = fit_answers(np.array([[0.0, 1.0], [0.5, 0.2]]), np.array([1, 1]))
    assert np.isfinite(one[0]) and np.isfinite(one[1]).all()


def test_reliability_has_the_mean_score_and_share_of_each_bin() -> None:
    score_N, happened_N = np.array([0.0, 0.05, 0.1, 0.95, 1.0, 1.0]), np.array([0, 1, 0, 1, 1, 0], bool)
    found = reliability(score_N, happened_N)
    assert found.count_B.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found.score_B[[0, 1, 9]] == pytest.approx([0.025, 0.1, 2.95 / 3])
    assert found.share_B[[0, 1, 9]] == pytest.approx([0.5, 0, 2 / 3])
    assert np.isnan(found.share_B[2:9]).all()


@pytest.mark.parametrize("coarse", [False, True])
def test_curves_are_scikit_learns(coarse: bool) -> None:
    label_N, probability_NK = draw(2, 80, 2, coarse)
    is_N, score_N = label_N == 1, probability_NK[:, 1]
    false_P, true_P, threshold_P = oracle.roc_curve(is_N, score_N, drop_intermediate=False)
    roc = roc_curve(is_N, score_N)
    assert roc is not None
    assert [line_P.tolist() for line_P in roc] == [line_P.tolist() for line_P in (false_P, true_P, threshold_P)]
    precision_P, recall_P, _ = oracle.precision_recall_curve(is_N, score_N)
    curve = precision_recall_curve(is_N, score_N)
    assert curve is not None
    assert curve[0] == pytest.approx(recall_P[::-1]) and curve[1] == pytest.approx(precision_P[::-1])
    assert roc_curve(np.ones(3, bool), np.arange(3.0)) is None
    assert precision_recall_curve(np.zeros(3, bool), np.arange(3.0)) is None


def test_an_interval_of_few_groups_is_as_wide_as_students_t() -> None:
    rng = np.random.default_rng(0)
    logit_N = rng.normal(size=200)
    label_N = (rng.random(200) < 1 / (1 + np.exp(-logit_N))).astype(int)
    probability_NK = two_columns(1 / (1 + np.exp(-logit_N)))
    for groups in (2, 3, 12):
        group_N = np.arange(200) % groups
        other_NK = two_columns(1 / (1 + np.exp(-logit_N - rng.normal(size=200))))
        found = paired_differences(label_N, probability_NK, other_NK, group_N, 1, resamples=400)["brier"]
        sums = [sum_groups(label_N, p_NK, group_N, 1, None, True) for p_NK in (probability_NK, other_NK)]
        first, second = (metrics_of(one, resample(one, 400, 0), 1, None)["brier"][1:] for one in sums)
        error = (second - first).std() * np.sqrt(groups / (groups - 1))
        assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, groups - 1) * error)


@given(hits=st.integers(0, 60), more=st.integers(0, 60))
def test_wilsons_interval_is_scipys(hits: int, more: int) -> None:
    if hits + more:
        wanted = stats.binomtest(hits, hits + more).proportion_ci(method="wilson")
        assert wilson(hits, hits + more) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert wilson(0, 0) == (0, 1)


def test_resampled_means_are_means_of_whole_groups() -> None:
    rng = np.random.default_rng(0)
    value_N, group_N = rng.normal(size=50), 7 * rng.integers(0, 20, 50)
    found = resampled_means(value_N, group_N, 3, seed=5)
    names = np.unique(group_N)
    first = np.random.Generator(np.random.SFC64(np.random.SeedSequence(5, spawn_key=(0,))))
    drawn_RG = first.integers(len(names), size=(3, len(names)), dtype=np.int32)
    again = [np.concatenate([value_N[group_N == names[group]] for group in drawn_G]).mean() for drawn_G in drawn_RG]
    assert found == pytest.approx([value_N.mean(), *again])


def test_every_metric_of_a_result_has_a_name_a_meaning_and_a_format() -> None:
    keys = {"loss", "lung_ratio"}
    for num_classes in (2, 3):
        label_N, probability_NK = draw(0, 40, num_classes)
        found = estimates(label_N, probability_NK, np.arange(40), 0, prevalence=0.1, resamples=2)
        keys |= found.keys() | trivial(label_N, num_classes, 0, prevalence=0.1).keys()
        brief = all_metrics(label_N, probability_NK, 0)
        keys |= brief["largest_class"].keys() - {"class"}
        keys |= {key.removesuffix("_per_class") for key in brief} - {"num_samples", "confusion", "largest_class"}
    for key in keys:
        metric = metric_of(key)
        assert metric.name and metric.meaning and value_text(key, 0.5) in ("50.0 %", "0.500", "0.50", "0.5000"), key
    assert {metric.key for metric in METRICS.values() if metric.unit == "share"} <= {
        "accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence",
        "npv_at_prevalence",
    }  # fmt: skip
    assert all(key == metric.key for key, metric in METRICS.items())


def test_numbers_of_metrics_are_written_in_one_way() -> None:
    share = Estimate(value=0.912, low=0.85, high=1.0, method="bootstrap", defined=2, classes=3)
    assert with_interval("accuracy", share) == "91.2 % (85.0–100), 2 of 3 classes"
    one_class = estimates(np.ones(4, int), two_columns(np.ones(4)), np.arange(4), 1, resamples=2)["balanced_accuracy"]
    assert with_interval("balanced_accuracy", one_class) == "undefined"  # and no mean over 0 of 2 classes
    assert interval_text("f1", share) == "0.850 to 1.000" and value_text("auc", None) == "undefined"
    assert value_text("ppv", 0.99999) == "99.9 %" and value_text("ppv", 1.0) == "100 %", "only the whole reads 100 %"
    assert value_text("npv", 0.0001) == "0.1 %" and value_text("npv", 0.0) == "0 %"
    assert share_text(0.5) == "50.0 %" and share_text(None) == number_text(float("nan"), 2) == "–"
    assert number_text(-0.0001, 3) == "0.000" and number_text(-1.5, 1) == "−1.5" and number_text(12345.6) == "12,346"
    lower = Estimate(value=-0.002, low=-0.0304, high=0.03, method="bootstrap")
    assert difference_texts("accuracy", lower) == ("−0.2 points", "−3.0 to +3.0 points")
    assert difference_texts("f1", lower) == ("−0.002", "−0.030 to +0.030")
    alone = Estimate(value=0.25, low=None, high=None, method="")
    assert (
        with_interval("brier", alone) == "0.250"
        and interval_text("brier", alone) == "–"
        and not with_interval("f1", None)
    )
    assert difference_texts("f1", replace(alone, value=None)) == ("undefined", "–")
    assert short_name("ppv[1]", ("a", "b")) == "PPV of b" and short_name("f1") == "F1"
    assert size_text(1, 1) == "1 image of 1 group" and size_text(2300, 40) == "2,300 images of 40 groups"


def test_no_other_module_names_metrics_or_writes_shares_by_hand() -> None:
    root = Path(__file__).parents[2]
    named = re.compile(r"[\"'](ROC-AUC|PR-AUC|PPV|NPV|Brier score|Dice|IoU|F1|macro F1|F1, macro)[\"']")
    by_hand = re.compile(r"\{[^{}]*(100 \*|\* 100)[^{}]*\}|:[+,]?\.\d+%")
    odd = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for folder in ("engine", "loaders", "cli.py")
        for path in sorted((root / folder).rglob("*.py") if (root / folder).is_dir() else [root / folder])
        if path.name not in ("names.py", "output.py") or path.parent.name in ("evaluate", "crossval", "profile")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if named.search(line) or by_hand.search(line)
    ]
    assert not odd, "\n".join(odd)
