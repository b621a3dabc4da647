"""An evaluation in the terminal: its estimates, operating points and subgroups, of classes or of findings."""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from engine.evaluate.copies import COPIES
from engine.evaluate.evaluate import Evaluation
from engine.evaluate.findings import FINDINGS, FindingResult, FindingsMetrics
from engine.evaluate.looking import Change, Looking
from engine.evaluate.results import COLLECTIONS, METRICS, Difference, Metrics
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import (
    difference_texts,
    interval_text,
    over_classes,
    place_of,
    short_name,
    size_text,
    value_text,
    with_interval,
)
from engine.statistics.thresholds import RULE_OUT
from loaders.output import DASH, Line, Parts, Sheet, caution_lines, number_text, path_line, share_text

AT_POINT = ("sensitivity", "specificity", "ppv", "npv", "ppv_at_prevalence", "npv_at_prevalence")
IN_SUBGROUP = ("accuracy", "sensitivity", "specificity", "auc")
OF_FINDING = ("auc", "sensitivity", "specificity", "f1", "ppv", "ece")  # at its threshold; the others: findings.json
AT_RULE_OUT = ("sensitivity", "specificity", "npv")
OF_CLASS = ("sensitivity", "specificity", "ppv", "f1", "auc")  # of each of many classes; the others: metrics.json
INTERVALS = (
    "Intervals: {resamples:,} resamples of groups; Wilson's where none moves a share, as at 0 or 1; none (–) of too "
    "few groups"
)
MOST_NAMED = 5  # classes; a matrix of more has their numbers as headers, since their names would not fit


def evaluation_parts(evaluation: Evaluation) -> Parts:
    """Everything that one evaluation reports."""
    result, out = evaluation.metrics, evaluation.out
    files = [*([COPIES] if (out / COPIES).exists() else []), *evaluation.figures]
    if isinstance(result, FindingsMetrics):
        return [*findings_parts(result), *(path_line(out / file) for file in (FINDINGS, "scores.csv", *files))]
    parts: list[Line | Sheet] = [headline(result), *of_what(result)]
    if len(result.classes) > 2:
        parts.append(by_class(result))
    if result.operating_points:
        parts += operating_points(result)
    if result.difference is not None:
        parts += differences(result, result.difference)
    parts += subgroups(result)
    parts.append(matrix(result))
    parts += looking_parts(result.looking)
    parts += caution_lines(result.cautions, result.set_name)
    if result.difference is not None:
        parts += caution_lines(result.difference.cautions, f"{result.set_name}, the run {result.difference.against}")
    parts += [path_line(out / file) for file in (METRICS, "scores.csv", *files)]
    return parts


def headline(result: Metrics) -> Sheet:
    """Every estimate of the whole, the trivial classifier beside it."""
    rows = tuple(
        (
            row_name(name, estimate, result.classes),
            value_text(name, estimate.value),
            interval_text(name, estimate),
            with_interval(name, result.trivial.get(name)),
        )
        for name, estimate in in_order(result.estimates)
        if in_headline(name, result)
    )
    title = f"{result.set_name} ({result.beton}): {size_text(result.num_samples, result.num_groups)}"
    return Sheet(headers=("metric", "value", "95 % interval", f"always {result.largest_class}"), rows=rows, title=title)


def row_name(name: str, estimate: Estimate, classes: Sequence[str]) -> str:
    """A metric's name for people, and over how many classes a mean is; of two classes only where it leaves one out."""
    partial = len(classes) > 2 or estimate.defined != estimate.classes
    over = over_classes(estimate) if partial else ""
    return f"{short_name(name, classes)}, {over}" if over else short_name(name, classes)


def in_headline(name: str, result: Metrics) -> bool:
    """Whether the headline has this metric: not what another row or table shows."""
    if len(result.classes) > 2:
        return "[" not in name and name != "f1_macro"  # of more than two classes F1 itself is the macro mean
    return name != f"f1[{result.classes.index(result.positive)}]"  # which is F1 itself


def in_order(found: dict[str, Estimate]) -> list[tuple[str, Estimate]]:
    """Metrics in the order of a table, those of single classes in the classes' order."""
    return sorted(found.items(), key=lambda item: place_of(item[0]))


def by_class(result: Metrics) -> Sheet:
    """Each class against the rest, in the beton's order."""
    found, images = result.estimates, [sum(row) for row in result.confusion]
    rows = tuple(
        (name, f"{images[label]:,}", *(with_interval(kind, found.get(f"{kind}[{label}]")) for kind in OF_CLASS))
        for label, name in enumerate(numbered_names(result.classes))
    )
    return Sheet(
        headers=("class", "images", *(short_name(kind) for kind in OF_CLASS)),
        rows=rows,
        title="Each class against the rest",
    )


def of_what(result: Metrics) -> list[Line]:
    """Which collection and which class the numbers are of, and how the intervals were made."""
    share = f"{share_text(result.prevalence)} of the images are {result.positive}"
    which = "Metrics are of the positive class"
    if len(result.classes) > 2:
        which = "Each metric is the mean over the classes for which it is defined, each against the rest"
    bias = " and with a bias a class" if result.bias else ""
    calibrated = f"; probabilities at temperature {number_text(result.temperature, 2)}{bias}, from validation"
    return [
        Line(f"{COLLECTIONS[result.collection]}."),
        Line(f"{which}; {share}. The predicted class is the most probable one{calibrated}."),
        Line(f"{INTERVALS.format(resamples=result.resamples)}."),
    ]


def operating_points(result: Metrics) -> list[Line | Sheet]:
    """Each operating point on the set under test, and why one is lacking."""
    points, stated = result.operating_points, result.stated_prevalence
    names = [name for name in AT_POINT if any(name in point.estimates for point in points)]
    title = f"Predicting {result.positive} at thresholds fixed on validation"
    at = "the stated prevalence" if stated is None else f"prevalence {number_text(stated)}"
    headers = [short_name(name).replace("the stated prevalence", at) for name in names]
    rows = tuple(
        (point.name, number_text(point.threshold), *(with_interval(name, point.estimates.get(name)) for name in names))
        for point in points
        if point.threshold is not None
    )
    sheets = [Sheet(headers=("point", "threshold", *headers), rows=rows, title=title)] if rows else []
    return [*sheets, *(Line(f"No {point.name} point: {point.refused.text}.") for point in points if point.refused)]


def differences(result: Metrics, found: Difference) -> list[Line | Sheet]:
    """This run minus the other, on the same samples."""
    rows = tuple(
        (row_name(name, estimate, result.classes), *difference_texts(name, estimate))
        for name, estimate in in_order(found.estimates)
        if in_headline(name, result)
    )
    title = f"This run minus {found.against}, on the same samples"
    parts: list[Line | Sheet] = [Sheet(headers=("metric", "difference", "95 % interval"), rows=rows, title=title)]
    if len(result.classes) > 2:
        parts.append(
            Line("Each mean is over the classes for which both runs define the metric; metrics.json has each class.")
        )
    return parts


def subgroups(result: Metrics) -> list[Line | Sheet]:
    """Each subgroup with its size; too small ones without numbers."""
    if not result.subgroups:
        return [Line("Subgroups: none; what is kept of the images is the same for all, or not known.")]
    rows = tuple(
        (
            f"{found.kind}: {found.name}",
            f"{found.num_samples:,}",
            f"{found.num_groups:,}",
            f"{found.num_positives:,}",
            *(
                ("too small", *[""] * (len(IN_SUBGROUP) - 1))
                if found.refused
                else (with_interval(name, found.estimates.get(name)) for name in IN_SUBGROUP)
            ),
        )
        for found in result.subgroups
    )
    headers = ("subgroup", "images", "groups", result.positive, *(short_name(name) for name in IN_SUBGROUP))
    return [Sheet(headers=headers, rows=rows)]


REPLACED: dict[Change, str] = {
    "another film": "another patient's film",
    "grey picture": "a grey picture",
    "lungs hidden": "the same film, its lungs hidden",
}


def looking_parts(looking: Sequence[Looking]) -> list[Line | Sheet]:
    """Whether runs look at the film; nothing where none of them is a vision-language model."""
    if not looking:
        return []
    lines = [
        Line(
            f"{found.run}, with the lungs' usual place hidden: ROC-AUC "
            f"{with_interval('auc', found.hidden_auc) or DASH}; as they are: {with_interval('auc', found.auc)}."
        )
        for found in looking
        if found.of("lungs hidden")
    ]
    title = "Does it look? What becomes of the answers when the film is replaced"
    headers = ("run", "replaced by", "films", "other answers", "mean change of a probability")
    return [Sheet(headers=headers, rows=tuple(looking_rows(looking)), title=title), *lines]


def looking_rows(looking: Sequence[Looking]) -> Iterator[tuple[str, ...]]:
    """A row for each replacement of each run, and one for other wordings of the question."""
    for found in looking:
        for one in found.replaced:
            changed = with_interval("accuracy", one.changed)
            yield found.run, REPLACED[one.by], f"{one.num_films:,}", changed, with_interval("ece", one.mean_change)
        if found.spread is not None:
            wordings = f"(one of {found.num_wordings} wordings instead of all)"
            yield found.run, wordings, "", "", number_text(found.spread, 3)


def matrix(result: Metrics) -> Sheet:
    """The confusion matrix; of many classes with their numbers above it, as the table of classes gives them."""
    classes, names = result.classes, numbered_names(result.classes)
    rows = tuple((name, *map(str, counts)) for name, counts in zip(names, result.confusion, strict=True))
    if len(classes) <= MOST_NAMED:
        return Sheet(headers=(f"{result.set_name}: true", *(f"predicted {name}" for name in classes)), rows=rows)
    title = f"{result.set_name}: rows are the true classes, columns the predicted ones"
    return Sheet(headers=("true class", *(str(1 + label) for label in range(len(classes)))), rows=rows, title=title)


def numbered_names(classes: Sequence[str]) -> list[str]:
    """The classes' names; of many each after its number."""
    return [f"{1 + label}: {name}" if len(classes) > MOST_NAMED else name for label, name in enumerate(classes)]


# ---- findings


def findings_parts(result: FindingsMetrics) -> list[Line | Sheet]:
    """Everything that an evaluation of findings reports: one table of all, and what stands out in further ones."""
    parts: list[Line | Sheet] = [findings_table(result), Line(f"{COLLECTIONS[result.collection]}.")]
    parts += [
        Line(
            "Each finding is measured on the images in which it is known, and predicted as present at or above its "
            "threshold, that of the highest F1 on validation; its probabilities are at its own temperature, from there."
        ),
        Line(f"{INTERVALS.format(resamples=result.resamples)}."),
        *(Line(f"Not measured, {found.name}: {found.refused.text}.") for found in result.findings if found.refused),
    ]
    parts += ruled_out(result) + findings_differences(result) + weak_subgroups(result) + looking_parts(result.looking)
    parts.append(Line(f"Other operating points, and all subgroups of each finding: {FINDINGS}."))
    parts += caution_lines(result.cautions, result.set_name)
    return parts + caution_lines(result.difference_cautions, f"{result.set_name}, the run {result.against}")


def findings_table(result: FindingsMetrics) -> Sheet:
    """A row a finding, those of the least AUC first, below their mean."""
    mean = result.macro["auc"]
    means = (mean_cell(name, result.macro) for name in OF_FINDING)
    rows = [(f"mean {over_classes(mean, 'findings')}", "", "", *means, "")]
    for found in result.by_need:
        cells = ["not measured", *[""] * len(OF_FINDING)]
        if not found.refused:
            cells = [*(cell(name, found.estimates) for name in OF_FINDING), number_text(found.threshold, 3)]
        rows.append((found.name, f"{found.num_known:,}", f"{found.num_present:,}", *cells))
    headers = ("finding", "known", "present", *(short_name(name) for name in OF_FINDING), "threshold")
    title = f"{result.set_name} ({result.beton}): {size_text(result.num_samples, result.num_groups)}"
    return Sheet(headers=headers, rows=tuple(rows), title=title)


def cell(name: str, found: dict[str, Estimate]) -> str:
    """A value with its interval, without what a mean is over."""
    return with_interval(name, replace(found.get(name, UNDEFINED), defined=None, classes=None))


def mean_cell(name: str, macro: dict[str, Estimate]) -> str:
    """A mean with its interval, and over how many findings, where that is not the number that the row has."""
    alike = macro[name].defined == macro["auc"].defined
    return cell(name, macro) if alike else with_interval(name, macro[name], "findings")


def ruled_out(result: FindingsMetrics) -> list[Line | Sheet]:
    """The findings that validation gives a threshold to rule out by, at it."""
    rows = tuple(
        (found.name, number_text(point.threshold, 3), *(cell(name, point.estimates) for name in AT_RULE_OUT))
        for found in result.by_need
        for point in found.operating_points
        if point.name == RULE_OUT and point.threshold is not None
    )
    headers = ("finding", "threshold", *(short_name(name) for name in AT_RULE_OUT))
    return [Sheet(headers=headers, rows=rows, title="Ruled out below thresholds fixed on validation")] if rows else []


def findings_differences(result: FindingsMetrics) -> list[Line | Sheet]:
    """This run minus the other, on the same images, by finding, below the mean."""
    names, over = ("auc", "f1"), over_classes(result.macro_difference.get("auc", UNDEFINED), "findings")
    each = [(f"mean {over}", result.macro_difference), *((found.name, found.difference) for found in result.by_need)]
    rows = tuple(
        (label, *(text for name in names for text in difference_texts(name, apart[name])))
        for label, apart in each
        if apart
    )
    headers = ("finding", *(header for name in names for header in (short_name(name), "95 % interval")))
    title = f"This run minus {result.against}, on the same images"
    return [Sheet(headers=headers, rows=rows, title=title)] if result.against else []


def weak_subgroups(result: FindingsMetrics) -> list[Line | Sheet]:
    """Of each finding the weakest subgroup whose whole AUC interval lies below that of all images."""
    if not any(found.subgroups for found in result.findings):
        return [Line("Subgroups: none; what is kept of the images is the same for all, or too little is known.")]
    rows = tuple(row for found in result.by_need if (row := weakest_row(found)))
    if not rows:
        return [Line("Subgroups: in none does the whole AUC interval of a finding lie below that of all images.")]
    auc = short_name("auc")
    headers = ("finding", auc, "known there", "present", f"{auc} there", "subgroup")
    title = "Weakest subgroups whose whole AUC interval lies below that of all images"
    return [Sheet(headers=headers, rows=rows, title=title, ends_in_text=True)]


def weakest_row(found: FindingResult) -> tuple[str, ...]:
    """The row of a finding's weakest subgroup; () where none lies below."""
    whole = found.estimates.get("auc", UNDEFINED)
    inside = [(part, part.estimates.get("auc", UNDEFINED)) for part in found.subgroups]
    below = [(each.high, part, each) for part, each in inside if each.high is not None and each.high < (whole.low or 0)]
    if not below:
        return ()
    _, part, each = min(below, key=lambda one: one[0])
    counts = f"{part.num_samples:,}", f"{part.num_positives:,}"
    return (found.name, cell("auc", found.estimates), *counts, with_interval("auc", each), f"{part.kind}: {part.name}")
