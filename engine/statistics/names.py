"""Names of metrics: what each is called, and how its value is written."""

from __future__ import annotations

from engine.statistics.estimates import Estimate

NAMES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at the stated prevalence",
    "npv_at_prevalence": "NPV at the stated prevalence",
    "f1": "F1",
    "f1_macro": "F1, macro",
    "auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "brier": "Brier score",
    "ece": "ECE, ten bins",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
PLAIN = ("auc", "pr_auc", "brier", "ece", "calibration_slope", "calibration_intercept")  # the others are shares


def kind_of(name: str) -> str:
    """The metric of a name: f1 of f1[0]."""
    return name.partition("[")[0]


def shown_name(name: str, classes: tuple[str, ...]) -> str:
    """A metric's name for people: "F1 of covid" for f1[0]."""
    kind, _, place = name.partition("[")
    shown = NAMES.get(kind, kind.replace("_", " "))
    return f"{shown} of {classes[int(place.rstrip(']'))]}" if place else shown


def over_words(defined: int | None, classes: int | None) -> str:
    """Over how many classes a mean is: "over 2 of 20 classes"; "" for what is no mean over classes."""
    return "" if defined is None or classes is None else f"over {defined} of {classes} classes"


def fewer_words(defined: int | None, classes: int | None) -> str:
    """The same for a narrow cell, "2 of 20 classes", and only where the mean leaves classes out."""
    return "" if defined == classes else over_words(defined, classes).removeprefix("over ")


def number(name: str, value: float | None) -> str:
    """A metric's value: a share in per cent, else three decimals."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if kind_of(name) in PLAIN else f"{100 * value:.1f} %"


def interval(name: str, estimate: Estimate) -> str:
    """The interval's ends, or a dash where there is none."""
    if estimate.low is None or estimate.high is None:
        return "–"
    if kind_of(name) in PLAIN:
        return f"{estimate.low:.3f} to {estimate.high:.3f}"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"


def with_interval(name: str, estimate: Estimate | None) -> str:
    """Value and interval in one narrow cell: "91.2 % (85.0–95.1)"; of a mean over fewer than all classes, how many."""
    if estimate is None:
        return ""
    fewer = fewer_words(estimate.defined, estimate.classes)
    of = f", {fewer}" if fewer else ""
    if estimate.low is None or estimate.high is None:
        return number(name, estimate.value) + of
    low, high = (number(name, end).removesuffix(" %") for end in (estimate.low, estimate.high))
    return f"{number(name, estimate.value)} ({low}–{high}){of}"


def size(num_samples: int, num_groups: int) -> str:
    """How much was measured: "56 images of 33 groups"."""
    images, groups = "image" if num_samples == 1 else "images", "group" if num_groups == 1 else "groups"
    return f"{num_samples:,} {images} of {num_groups:,} {groups}"
