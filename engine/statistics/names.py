"""The one table of metrics: what each is called and means, and how its values are written for people.

Terminal, page, model card, comparison, cross-validation, explanation and figures all take names and numbers from here;
files keep keys and unrounded values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.statistics.estimates import Estimate
from loaders.output import DASH, MINUS, counted, number_text, share_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric.  key: in files.  name: in full.  short: for narrow tables; "" for the name.

    meaning: a sentence without capital and full stop, of two classes of which one is positive.  mean_of: what is
    averaged over more classes; "" for the same.  unit: a share is written in per cent.  digits: decimals.
    larger_is_better: None where the best value lies between.
    """

    key: str
    name: str
    meaning: str
    short: str = ""
    mean_of: str = ""
    unit: Literal["share", "number"] = "number"
    digits: int = 3
    larger_is_better: bool | None = True


# fmt: off
METRICS = {metric.key: metric for metric in (
    Metric(key="accuracy", name="accuracy", unit="share", digits=1,
           meaning="of all images, those whose class was predicted"),
    Metric(key="balanced_accuracy", name="balanced accuracy", unit="share", digits=1,
           meaning="mean of sensitivity and specificity; 50 % is guessing",
           mean_of="of the images of a class, those predicted as it, each class counting the same"),
    Metric(key="sensitivity", name="sensitivity", unit="share", digits=1,
           meaning="of the images of the positive class, those predicted as it",
           mean_of="of the images of a class, those predicted as it"),
    Metric(key="specificity", name="specificity", unit="share", digits=1,
           meaning="of the other images, those not predicted as the positive class",
           mean_of="of the images of other classes, those not predicted as it"),
    Metric(key="ppv", name="positive predictive value", short="PPV", unit="share", digits=1,
           meaning="of the images predicted as positive, those that are, at this set’s prevalence",
           mean_of="of the images predicted as a class, those of it"),
    Metric(key="npv", name="negative predictive value", short="NPV", unit="share", digits=1,
           meaning="of the images predicted as negative, those that are, at this set’s prevalence",
           mean_of="of the images not predicted as a class, those not of it"),
    Metric(key="ppv_at_prevalence", name="positive predictive value", short="PPV at the stated prevalence",
           unit="share", digits=1, meaning="the same at the stated prevalence"),
    Metric(key="npv_at_prevalence", name="negative predictive value", short="NPV at the stated prevalence",
           unit="share", digits=1, meaning="the same at the stated prevalence"),
    Metric(key="f1", name="F1",
           meaning="harmonic mean of sensitivity and positive predictive value",
           mean_of="harmonic mean of a class’s sensitivity and positive predictive value"),
    Metric(key="f1_macro", name="macro F1", meaning="mean F1 of the classes"),
    Metric(key="auc", name="ROC-AUC",
           meaning="how often a positive image scores higher than another; 0.5 is guessing",
           mean_of="how often an image of a class scores higher than another; 0.5 is guessing"),
    Metric(key="pr_auc", name="PR-AUC",
           meaning="mean precision over all levels of recall; guessing gives the prevalence",
           mean_of="a class’s mean precision over all levels of recall; guessing gives its prevalence"),
    Metric(key="brier", name="Brier score", larger_is_better=False,
           meaning="mean squared error of the probability; 0 is perfect",
           mean_of="squared error of the probabilities, summed over the classes; 0 is perfect"),
    Metric(key="ece", name="expected calibration error", short="ECE", larger_is_better=False,
           meaning="mean gap between predicted probability and observed frequency, in ten bins",
           mean_of="mean gap between the highest probability and how often its class is the true one, in ten bins"),
    Metric(key="calibration_slope", name="calibration slope", larger_is_better=None,
           meaning="1 is right; below 1, probabilities are too extreme"),
    Metric(key="calibration_intercept", name="calibration intercept", larger_is_better=None,
           meaning="0 is right; below 0, probabilities are too high"),
    Metric(key="loss", name="cross-entropy", digits=4, larger_is_better=False, meaning="what training minimises"),
    Metric(key="dice", name="Dice",
           meaning="twice what two masks share over the sum of their areas; 1 if they are the same"),
    Metric(key="iou", name="intersection over union", short="IoU",
           meaning="what two masks share over what either covers; 1 if they are the same"),
    Metric(key="lung_ratio", name="lung ratio", digits=2, larger_is_better=None,
           meaning="the lungs’ share of the map over their share of the crop; 1 is chance"),
    Metric(key="correlation", name="correlation with random weights", digits=2, larger_is_better=False,
           meaning="rank correlation of maps with those of a network with random weights; 0 if weights matter"),
    Metric(key="area_by_map", name="deletion: area in order of the map", larger_is_better=False,
           meaning="mean probability while pixels are blanked, those first that the map marks most"),
    Metric(key="area_at_random", name="deletion: area in random order", larger_is_better=None,
           meaning="mean probability while pixels are blanked in random order"),
    Metric(key="deletion", name="deletion: difference", larger_is_better=False,
           meaning="the area in order of the map less that in random order; below 0 if the map marks what matters"),
)}
RESULTS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence",
           "npv_at_prevalence", "f1", "f1_macro", "auc", "pr_auc")
# fmt: on
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")


def metric_of(key: str) -> Metric:
    """The metric of a key: of f1[0] F1."""
    return METRICS[key.partition("[")[0]]


def place_of(key: str) -> tuple[int, int]:
    """Where a key stands in a table of all metrics, to sort by: in this order, those of single classes after a mean."""
    metric, _, label = key.partition("[")
    return list(METRICS).index(metric), int(label.rstrip("]") or -1)


def short_name(key: str, classes: Sequence[str] = ()) -> str:
    """A metric's name for a table: "F1 of covid" for f1[0]."""
    metric, place = metric_of(key), key.partition("[")[2].rstrip("]")
    return f"{metric.short or metric.name}{f' of {classes[int(place)]}' if place else ''}"


def headline_name(key: str, num_classes: int, positive: str) -> str:
    """What a set's one number is: of two classes "F1 of covid", of more, or findings, "macro F1" or "mean ROC-AUC".

    positive: "" of findings.
    """
    if num_classes == 2 and positive:
        return f"{metric_of(key).name} of {positive}"
    return METRICS["f1_macro"].name if key == "f1" else f"mean {metric_of(key).name}"


def over_classes(found: Estimate, of: str = "classes") -> str:
    """Over how many classes a mean is: "over 2 of 20 classes"; "" for what is no mean.  of: or findings."""
    return "" if found.classes is None else f"over {found.defined} of {found.classes} {of}"


def fewer_classes(found: Estimate, of: str = "classes") -> str:
    """The same for a narrow cell, "2 of 20 classes", and only where the mean leaves some out."""
    fewer = found.value is not None and found.defined != found.classes
    return over_classes(found, of).removeprefix("over ") if fewer else ""


def value_text(key: str, value: float | None) -> str:
    """A value: "91.2 %" of a share, else a number such as "0.912"; "undefined"."""
    metric = metric_of(key)
    if value is None:
        return "undefined"
    return share_text(value, metric.digits) if metric.unit == "share" else number_text(value, metric.digits)


def interval_text(key: str, found: Estimate) -> str:
    """The ends of an interval: "85.0 to 95.1 %"; a dash where there is none."""
    if found.low is None or found.high is None:
        return DASH
    return f"{value_text(key, found.low).removesuffix(' %')} to {value_text(key, found.high)}"


def with_interval(key: str, found: Estimate | None, of: str = "classes") -> str:
    """Value and interval in one narrow cell: "91.2 % (85.0–95.1)"; of a mean over fewer than all classes, how many.

    of: what the mean is over, if not classes.
    """
    if found is None:
        return ""
    text = value_text(key, found.value)
    if found.low is not None and found.high is not None:
        low, high = (value_text(key, end).removesuffix(" %") for end in (found.low, found.high))
        text += f" ({low}–{high})"
    fewer = fewer_classes(found, of)
    return f"{text}, {fewer}" if fewer else text


def difference_texts(key: str, found: Estimate) -> tuple[str, str]:
    """A difference, signed, and its interval; of shares in percentage points: "+1.5 points", "−0.2 to +3.1 points"."""
    metric = metric_of(key)
    scale, unit = (100, " points") if metric.unit == "share" else (1, "")
    value, low, high = (
        None if end is None else f"{scale * end:+.{metric.digits}f}".replace("-", MINUS)
        for end in (found.value, found.low, found.high)
    )
    if value is None:
        return "undefined", DASH
    return value + unit, DASH if low is None or high is None else f"{low} to {high}{unit}"


def size_text(num_images: int, num_groups: int, noun: str = "image") -> str:
    """How much was measured: "56 images of 33 groups"; a group is a patient, where patients are known."""
    return f"{counted(num_images, noun)} of {counted(num_groups, 'group')}"
