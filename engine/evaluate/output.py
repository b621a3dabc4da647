"""What an evaluation tells in the terminal, and how its numbers are written."""

# K classes

from __future__ import annotations

from loaders.output import Line, Parts, Sheet, path_line
from engine.evaluate.evaluate import Evaluation
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
AT_POINT = ("sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence", "npv_at_prevalence")
IN_SUBGROUP = ("accuracy", "sensitivity", "specificity", "auc")
OF_CLASS = ("sensitivity", "specificity", "ppv", "f1", "auc")  # of each of many classes; the others: metrics.json
MOST_NAMED = 5  # classes; a matrix of more has their numbers as headers, since their names would not fit
SHORT = {"ppv_at_prevalence": "PPV at {:.3g}", "npv_at_prevalence": "NPV at {:.3g}"}


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


def difference(name: str, estimate: Estimate) -> tuple[str, str]:
    """A difference and its interval: shares in points of a hundred."""
    scale, form, unit = (1, "{:+.3f}", "") if kind_of(name) in PLAIN else (100, "{:+.1f}", " points")
    if estimate.value is None:
        return "undefined", "–"
    value = form.format(scale * estimate.value) + unit
    if estimate.low is None or estimate.high is None:
        return value, "–"
    return value, f"{form.format(scale * estimate.low)} to {form.format(scale * estimate.high)}{unit}"


def evaluation_parts(result: Evaluation) -> Parts:
    """Everything that one evaluation has to tell."""
    measured = result.measurement
    parts: list[Line | Sheet] = [headline(result)]
    parts += of_what(result)
    if len(result.classes) > 2:
        parts.append(by_class(result))
    if measured.points:
        parts += operating_points(result)
    if measured.difference is not None:
        parts += differences(result, measured.difference)
    parts += subgroups(result)
    parts.append(matrix(result))
    parts += [Line(f"Caution, {result.out.name}: {warning}.", "yellow") for warning in result.warnings]
    parts += [path_line(result.out / file) for file in ("metrics.json", "scores.csv", *result.figures)]
    return parts


def headline(result: Evaluation) -> Sheet:
    """Every estimate of the whole, the trivial classifier beside it."""
    measured, largest = result.measurement, result.classes[result.metrics["largest_class"]["class"]]
    rows = tuple(
        (
            row_name(name, estimate, result.classes),
            number(name, estimate.value),
            interval(name, estimate),
            with_interval(name, measured.trivial.get(name)),
        )
        for name, estimate in in_order(measured.estimates)
        if told(name, result)
    )
    title = f"{result.out.name} ({result.beton.name}): {size(result.metrics['num_samples'], measured.num_groups)}"
    return Sheet(headers=("metric", "value", "95 % interval", f"always {largest}"), rows=rows, title=title)


def row_name(name: str, estimate: Estimate, classes: tuple[str, ...]) -> str:
    """A metric's name for people, and over how many classes a mean is; of two classes only where it leaves one out."""
    partial = len(classes) > 2 or estimate.defined != estimate.classes
    words = over_words(estimate.defined, estimate.classes) if partial else ""
    return f"{shown_name(name, classes)}, {words}" if words else shown_name(name, classes)


def told(name: str, result: Evaluation) -> bool:
    """Whether the headline tells this metric: not what another row or table says."""
    if len(result.classes) > 2:
        return "[" not in name and name != "f1_macro"  # of more than two classes F1 itself is the macro mean
    return name != f"f1[{result.classes.index(result.positive)}]"  # which is F1 itself


def in_order(found: dict[str, Estimate]) -> list[tuple[str, Estimate]]:
    """Metrics in the order of a table, those of single classes in the classes' order."""
    kinds = list(NAMES)

    def place(item: tuple[str, Estimate]) -> tuple[int, int]:
        kind, _, label = item[0].partition("[")
        return kinds.index(kind), int(label.rstrip("]") or -1)

    return sorted(found.items(), key=place)


def by_class(result: Evaluation) -> Sheet:
    """Each class against the rest, in the beton's order."""
    found = result.measurement.estimates
    images = [sum(row) for row in result.metrics["confusion"]]
    rows = tuple(
        (
            name,
            f"{images[label]:,}",
            *(with_interval(kind, found.get(f"{kind}[{label}]")) for kind in OF_CLASS),
        )
        for label, name in enumerate(numbered_names(result.classes))
    )
    return Sheet(
        headers=("class", "images", *(NAMES[kind] for kind in OF_CLASS)),
        rows=rows,
        title="Each class against the rest",
    )


def of_what(result: Evaluation) -> list[Line]:
    """Which class the numbers are of, and how the intervals were made."""
    share = f"{100 * result.measurement.prevalence:.1f} % of the images are {result.positive}"
    which = "Metrics are of the positive class"
    if len(result.classes) > 2:
        which = "Each metric is the mean over the classes for which it is defined, each against the rest"
    temperature = result.decision.temperature
    calibrated = "" if temperature is None else f"; probabilities at temperature {temperature:.2f}, from validation"
    resamples = f"{result.bootstrap.resamples:,} resamples of groups"
    return [
        Line(f"{which}; {share}. The predicted class is the most probable one{calibrated}."),
        Line(f"Intervals: {resamples}; Wilson's where a share is 0 or 1; none (–) where groups are too few for one."),
    ]


def operating_points(result: Evaluation) -> list[Line | Sheet]:
    """Each operating point on the set under test, and why one is lacking."""
    measured, stated = result.measurement, result.bootstrap.prevalence
    names = [name for name in AT_POINT if any(name in at.estimates for at in measured.points)]
    title = f"Calling {result.positive} at thresholds fixed on validation"
    headers = [SHORT[name].format(stated) if name in SHORT and stated is not None else NAMES[name] for name in names]
    known = [at for at in measured.points if at.point.threshold is not None]
    rows = tuple(
        (at.point.name, f"{at.point.threshold:.3g}", *(with_interval(name, at.estimates.get(name)) for name in names))
        for at in known
    )
    parts: list[Line | Sheet] = (
        [Sheet(headers=("point", "threshold", *headers), rows=rows, title=title)] if rows else []
    )
    refused = [Line(f"No {at.point.name} point: {at.point.refused}.") for at in measured.points if at.point.refused]
    return parts + refused


def differences(result: Evaluation, found: dict[str, Estimate]) -> list[Line | Sheet]:
    """This run minus the other, on the same samples."""
    rows = tuple(
        (row_name(name, estimate, result.classes), *difference(name, estimate))
        for name, estimate in in_order(found)
        if told(name, result)
    )
    title = f"This run minus {result.against}, on the same samples"
    parts: list[Line | Sheet] = [Sheet(headers=("metric", "difference", "95 % interval"), rows=rows, title=title)]
    if len(result.classes) > 2:
        parts.append(
            Line("Each mean is over the classes for which both runs define the metric; metrics.json has each class.")
        )
    return parts


def subgroups(result: Evaluation) -> list[Line | Sheet]:
    """Each subgroup with its size; too small ones without numbers."""
    if not result.measurement.subgroups:
        return [Line("Subgroups: none; source, view and flags are the same for all images, or not known.")]
    rows = tuple(
        (
            f"{found.subgroup.kind}: {found.subgroup.name}",
            f"{len(found.subgroup.index_N):,}",
            f"{found.num_groups:,}",
            f"{found.positives:,}",
            *(
                ("too small", *[""] * (len(IN_SUBGROUP) - 1))
                if found.subgroup.refused
                else (with_interval(name, found.estimates.get(name)) for name in IN_SUBGROUP)
            ),
        )
        for found in result.measurement.subgroups
    )
    headers = ("subgroup", "n", "groups", result.positive, *(NAMES[name] for name in IN_SUBGROUP))
    return [Sheet(headers=headers, rows=rows)]


def matrix(result: Evaluation) -> Sheet:
    """The confusion matrix; of many classes with their numbers above it, as the table of classes gives them."""
    classes, names = result.classes, numbered_names(result.classes)
    rows = tuple((name, *map(str, counts)) for name, counts in zip(names, result.metrics["confusion"], strict=True))
    if len(classes) <= MOST_NAMED:
        return Sheet(headers=(f"{result.out.name}: true", *(f"predicted {name}" for name in classes)), rows=rows)
    title = f"{result.out.name}: rows are the true classes, columns the predicted ones"
    return Sheet(headers=("true class", *(str(1 + label) for label in range(len(classes)))), rows=rows, title=title)


def numbered_names(classes: tuple[str, ...]) -> list[str]:
    """The classes' names; of many each after its number."""
    return [f"{1 + label}: {name}" if len(classes) > MOST_NAMED else name for label, name in enumerate(classes)]
