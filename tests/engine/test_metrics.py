"""Metrics against scikit-learn, and the report's own matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from engine.statistics.metrics import all_metrics, confusion_matrix, f1_scores, matrix_metrics, roc_auc

pytestmark = pytest.mark.numerical

REPORT = np.array([[244, 5], [3, 160]])  # rows true COVID, normal


def test_the_reports_matrix_gives_the_numbers_that_follow_from_it() -> None:
    found = matrix_metrics(REPORT, positive=0)
    assert round(found["accuracy"], 4) == 0.9806
    assert round(found["sensitivity"], 4) == 0.9799
    assert round(found["f1"], 4) == 0.9839  # the report prints 0.9951, which its matrix does not give
    assert round(found["specificity"], 4) == round(160 / 163, 4)


@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 4), num_samples=st.integers(1, 60), coarse=st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_metric_agrees_with_scikit_learn(seed: int, num_classes: int, num_samples: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, num_classes, num_samples)
    score_NK = rng.random((num_samples, num_classes))
    if coarse:  # many ties
        score_NK = np.ceil(score_NK * 3)
    probability_NK = score_NK / score_NK.sum(1, keepdims=True)
    predicted_N = probability_NK.argmax(1)
    found = all_metrics(label_N, probability_NK, positive=1)
    names = list(range(num_classes))
    assert found["confusion"] == oracle.confusion_matrix(label_N, predicted_N, labels=names).tolist()
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(label_N, predicted_N))
    wanted_f1 = oracle.f1_score(label_N, predicted_N, labels=names, average=None, zero_division=0)
    assert found["f1_per_class"] == pytest.approx(wanted_f1.tolist())
    assert found["f1"] == pytest.approx(wanted_f1[1] if num_classes == 2 else wanted_f1.mean())
    for label in names:
        present = label_N == label
        if present.any() and not present.all():
            wanted = oracle.roc_auc_score(present, probability_NK[:, label])
            assert found["auc_per_class"][label] == pytest.approx(wanted)
        else:
            assert found["auc_per_class"][label] is None
        if present.any():
            assert found["sensitivity_per_class"][label] == pytest.approx((predicted_N[present] == label).mean())
        if not present.all():
            assert found["specificity_per_class"][label] == pytest.approx((predicted_N[~present] != label).mean())


def test_the_auc_of_one_class_is_undefined() -> None:
    assert roc_auc(np.ones(3, bool), np.arange(3.0)) is None
    assert roc_auc(np.zeros(3, bool), np.arange(3.0)) is None


def test_the_trivial_classifier_always_says_the_largest_class() -> None:
    probability_NK = np.array([[0.9, 0.1]] * 4)
    found = all_metrics(np.array([0, 1, 1, 1]), probability_NK, positive=0)
    assert found["largest_class"] == {
        "class": 1,
        "auc": 0.5,
        "accuracy": 0.75,
        "f1": 0.0,
        "sensitivity": 0.0,
        "specificity": 1.0,
    }


def test_a_class_neither_present_nor_predicted_has_f1_zero_not_nan() -> None:
    assert f1_scores(confusion_matrix(np.array([0]), np.array([0]), 3)).tolist() == [1.0, 0.0, 0.0]
