"""How a cross-validation is shown: headline and honest scores as a figure, as tables, and in plain English."""

from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec.structs import replace

from engine.config import USUAL_SPLITS
from engine.crossval.controls import control_sentences, mean_of
from engine.crossval.scores import METRICS, Crossval, FindingTarget, OverFolds, Target, TargetResult
from engine.figures import FAINT, INK, VALIDATION, ready, set_note, set_title
from engine.statistics.names import (
    difference_texts,
    headline_name,
    interval_text,
    metric_of,
    over_classes,
    short_name,
    size_text,
    value_text,
    with_interval,
)
from loaders.config import Task
from loaders.figure_text import class_names
from loaders.output import Line, Parts, Sheet, caution_lines, path_line

TARGETS: dict[Target, str] = {
    "random": "random split",
    "group": "group split",
    "lungs-hidden": "lungs hidden",
    "lungs-hole": "lungs cut out",
    "lungs-only": "lungs alone",
    "silhouette": "lungs’ outline",
    "boxed": "lungs, one size",
    "boxed-silhouette": "outline, one size",
    "external": "another collection",
}
MEANING: dict[Target, str] = {
    "random": "headline: patients may be in both",
    "group": "honest: only new patients",
    "lungs-hidden": "new patients, all but the lungs",
    "lungs-hole": "all but each film’s own lungs",
    "lungs-only": "in place, all else blank",
    "silhouette": "in place, no pixel inside",
    "boxed": "stretched, levels equalised",
    "boxed-silhouette": "stretched, no pixel inside",
    "external": "honest: from elsewhere",
}
USUAL: tuple[Target, ...] = (*USUAL_SPLITS, "external")  # rows that are shown even where they were not measured
FILES = ("crossval.png", "crossval.csv", "crossval.json")
SHOWN_MATRIX = 3  # classes; the matrix of more does not fit a line
HEADLINE, HONEST, GUESS = "#c0504d", VALIDATION, "#888888"


def crossval_figure(result: Crossval) -> Figure:
    """F1 and its 95 % interval, a line a test target, folds as small dots, n beside each, guessing as a dotted line.

    Of findings the mean F1, and below it a line a finding, those that do worst above.
    """
    task, main, shown = result.task, main_target(result), shown_targets(result)
    names = class_names(result.classes, kind="class" if task == "classes" else "finding")
    by_finding = by_need(main)
    heights = [1.6 + 0.82 * len(shown), *([0.7 + 0.42 * len(by_finding)] if by_finding else [])]
    figure = Figure(figsize=(9.2, sum(heights)), layout="constrained")
    axes, *below = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    low_end = 1.0
    for place, target in enumerate(shown):
        row = result.target(target)
        if row is None or row.f1.estimate.value is None:
            write_state(axes, place, "not measured" if row is None else "undefined")
            continue
        size = f"n = {size_text(row.num_samples, row.num_groups)}"
        low_end = min(low_end, draw_line(axes, place, row.f1, HEADLINE if target == "random" else HONEST, size))
        if over := over_classes(row.f1.estimate, task) if task == "findings" else "":
            axes.text(
                1.02, place + 0.45, over, va="center", transform=axes.get_yaxis_transform(), color=INK, fontsize=8
            )
    guess = result.always_positive or result.trivial
    if guess.f1 is not None:
        low_end = min(low_end, guess.f1)
        always = names.text_of.get(guess.predicted, guess.predicted)
        # guessing scores otherwise on another collection, whose classes are otherwise common
        axes.plot([guess.f1] * 2, [-0.6, len(shown) - 1.5], color=GUESS, linestyle=":", linewidth=1.2)
        axes.text(
            guess.f1, -0.56, f" always {always}: {value_text('f1', guess.f1)}", color=GUESS,
            fontsize=8, va="bottom", ha="left" if guess.f1 < 0.8 else "right",
        )  # fmt: skip
    labels = [f"{TARGETS[target]}\n{MEANING[target]}" for target in shown]
    which = headline_name("f1", len(result.classes), names.text_of.get(result.positive, ""))
    # a fold measures fewer findings than all folds together, so that its mean may lie outside the interval
    dots = "dots: folds, each over its own findings" if by_finding else "folds as dots"
    finish(axes, labels, low_end, f"{which}: value, 95 % interval over groups, {dots}")
    for axes in below:
        low_end = 1.0
        for place, one in enumerate(by_finding):
            if one.f1.estimate.value is None:
                write_state(axes, place, "undefined: too few known films" if one.refused else "undefined")
                continue
            size = f"present in {one.num_present:,} of {one.num_known:,}"
            low_end = min(low_end, draw_line(axes, place, one.f1, HONEST, size, small=True))
        labels = [names.text_of[one.name] for one in by_finding]
        finish(axes, labels, low_end, f"F1 of each finding, {TARGETS[main.target]}: value, interval, folds")
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    folds = result.settings["folds"]
    title = f"Headline and honest: {names.listed(task)}, {result.num_samples:,} {kind}, {folds} folds"
    set_title(figure, title, x=0.01, ha="left")
    set_note(figure, names.note, "Research software: not for diagnosis.")
    return ready(figure)


def write_state(axes: Axes, place: float, state: str) -> None:
    """Why a line shows no score."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line of guessing
    across = axes.get_yaxis_transform()
    axes.text(0.02, place, state, va="center", color=FAINT, style="italic", transform=across, bbox=box)


def draw_line(axes: Axes, place: float, found: OverFolds, colour: str, size: str, *, small: bool = False) -> float:
    """One score with its interval and folds; the lowest of them.  size: of what was measured."""
    value = found.estimate.value
    assert value is not None
    low = value if found.estimate.low is None else found.estimate.low
    high = value if found.estimate.high is None else found.estimate.high
    dots = [value for value in found.folds if value is not None]
    axes.barh(place, high - low, left=low, height=0.34, color=colour, alpha=0.28, linewidth=0)
    axes.plot(dots, [place + 0.3] * len(dots), "o", color=colour, markersize=3, alpha=0.55, clip_on=False)
    axes.plot([value] * 2, [place - 0.17, place + 0.17], color=colour, linewidth=3, solid_capstyle="butt")
    interval = "no interval" if found.estimate.low is None else interval_text("f1", found.estimate)
    text = partial(axes.text, va="center", transform=axes.get_yaxis_transform())
    if small:
        text(1.02, place, f"{value_text('f1', value)} ({interval}), {size}", color=INK, fontsize=8)
    else:
        text(1.02, place - 0.11, value_text("f1", value), color=colour, fontsize=12, weight="bold")
        text(1.02, place + 0.21, f"{interval}, {size}", color=INK, fontsize=8)
    return min([low, *dots])


def finish(axes: Axes, labels: list[str], low_end: float, title: str) -> None:
    """Labels, limits and look of one part of the figure."""
    axes.set_yticks(range(len(labels)), labels=labels, fontsize=9, color=INK)
    axes.set(xlim=(max(0.0, low_end - 0.04), 1.0), ylim=(len(labels) - 0.45, -0.6))
    axes.set_xlabel(title, color=INK)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def main_target(result: Crossval) -> TargetResult:
    """The target that findings are shown of: the group split where it was measured, since it is honest."""
    return result.target("group") or result.targets[0]


def by_need(target: TargetResult) -> list[FindingTarget]:
    """The findings, the lowest F1 first and those that are not measured last."""
    return sorted(target.findings, key=lambda one: (one.f1.estimate.value is None, one.f1.estimate.value))


def sentences(result: Crossval) -> list[str]:
    """What the scores mean, in plain English."""
    found = [random_sentence(result), *control_sentences(result)]
    if row := result.target("external"):
        found.append(
            f"On {result.external} each of the group split's {len(row.f1.folds)} networks is scored alone and the "
            "scores averaged; none was trained on any of it."
        )
    return [sentence for sentence in found if sentence]


def random_sentence(result: Crossval) -> str:
    """What the random split adds to the group split."""
    if result.every_image_its_own_group:
        return (
            "Each image is a group of its own, since no two are known to be of one patient: folds of groups are random "
            "folds, and both rows are the same"
        ) + ("." if result.synthetic else "; whether patients were recognised is not known.")
    differences = result.differences.get("random", {})
    difference = differences.get("f1")
    if difference is None or difference.value is None:
        return ""
    apart, ends = difference_texts("f1", difference)
    higher = round(difference.value, metric_of("f1").digits)
    compared = "as high" if higher == 0 else f"{apart[1:]} {'higher' if higher > 0 else 'lower'}"
    sentence = (
        f"{mean_of(result)}F1 is {compared} in the random split {'as' if higher == 0 else 'than'} in the group split"
    )
    if difference.low is not None:
        sentence += f" (95 % interval of the difference {ends})"
    meaning = "this neither shows nor excludes that the network recognises patients"
    sure = [difference] if result.task == "classes" else [difference, differences["auc"]]  # thresholds are chosen anew
    if all(one.low is not None and one.low > 0 for one in sure):
        meaning = (
            "the random split has images of the same patients in training and test, and the network recognises patients"
        )
    return f"{sentence}: {meaning}. Only the group split shows how it does on new patients."


def shown_targets(result: Crossval | None) -> list[Target]:
    """The test targets that have a row: the usual ones, and controls that were measured."""
    return [target for target in TARGETS if target in USUAL or (result and result.target(target))]


def not_measured(result: Crossval | None) -> dict[Target, str]:
    """The usual test targets that were not measured, each with what measures it."""
    missing = {target: f"run `crossval` with {target} among --splits" for target in USUAL}
    missing["external"] = (
        "run `crossval` with --external X.beton, or `evaluate` X.beton, of a collection that `convert` --like "
        "converted, or `hurdles` of both"
    )
    return {
        target: f"not measured: {how}"
        for target, how in missing.items()
        if result is None or result.target(target) is None
    }


def controls_not_measured(result: Crossval) -> str:
    """The controls of the lungs that were not measured, in one line; "" where all were."""
    missing = [target for target in TARGETS if target not in shown_targets(result)]
    names = ", ".join(TARGETS[target] for target in missing)
    return f"Not measured: {names} (`crossval` with --splits group,{','.join(missing)})." if missing else ""


def crossval_parts(result: Crossval, out: Path) -> Parts:
    """The folds, the table of headline and honest scores, what they mean, and the files."""
    task = result.task
    two, small = (task == "classes" and len(result.classes) <= most for most in (2, SHOWN_MATRIX))
    means = "classes that define them" if task == "classes" else "findings that are measured, each at its threshold"
    which = f"F1 of {result.positive}" if two else f"F1 and ROC-AUC are means over the {means}"
    order = f"rows are the true classes, in the order {', '.join(result.classes)}"
    matrices = f"Matrices: {order}." if small else f"Each fold's matrix is in crossval.json: {order}."
    if task == "findings":
        matrices = (
            "Each finding's matrix is in crossval.json, and each fold's thresholds: its own validation's highest F1."
        )
    missing, names = not_measured(result), [short_name(metric) for metric in METRICS]
    parts: list[Line | Sheet] = []
    by_fold = Sheet(
        title="Test folds",
        headers=("split, fold", "images", "groups", *names, *(["matrix"] if small else []), "best epoch"),
        rows=tuple(
            (
                f"{fold.training.split} {fold.training.fold}",
                f"{fold.num_samples:,}",
                f"{fold.num_groups:,}",
                *(with_interval(metric, replace(fold.estimates[metric], low=None), task) for metric in METRICS),
                *([str(fold.confusion)] if small else []),
                f"{fold.training.best_epoch} of {fold.training.epochs}" if fold.training.epochs else "zero-shot",
            )
            for fold in result.folds
        ),
    )
    headline = Sheet(
        title=f"Headline and honest: {which}",
        headers=("tested by", "images", "groups", *names, "mean F1", "spread"),
        rows=(
            *(table_row(target, result.target(target), task) for target in shown_targets(result)),
            *trivial_rows(result),
        ),
    )
    parts += [by_fold, headline, *finding_sheets(result)]
    parts += [Line(f"{TARGETS[target]}: {why}.") for target, why in missing.items()]
    parts += [Line(line) for line in (controls_not_measured(result),) if line]
    parts += [Line(sentence, "bold") for sentence in sentences(result)]
    parts += caution_lines(result.cautions)
    parts.append(
        Line(
            "In brackets 95 % intervals over groups, of every sample's score by the network not trained on it; "
            "they leave out how much another training would differ. Mean and spread (standard deviation) are of the "
            "folds. Within a split, ROC-AUC ranks scores of different networks together, which lowers it: the folds' "
            f"own are above. {matrices}"
        )
    )
    parts += [path_line(out / name) for name in FILES]
    return parts


def finding_sheets(result: Crossval) -> list[Sheet]:
    """Of findings a table of them: F1 of the group split, and the AUC of every test target that was measured."""
    main = main_target(result)
    of_target = {
        TARGETS[target.target]: {one.name: one.auc.estimate for one in target.findings} for target in result.targets
    }
    sheet = Sheet(
        title=f"By finding, the lowest F1 ({TARGETS[main.target]}) first",
        headers=(
            "finding",
            "present of known",
            short_name("f1"),
            "spread",
            *(f"ROC-AUC, {name}" for name in of_target),
        ),
        rows=tuple(
            (
                one.name,
                f"{one.num_present:,} of {one.num_known:,}",
                with_interval("f1", one.f1.estimate),
                "" if one.f1.spread is None else value_text("f1", one.f1.spread),
                *(with_interval("auc", found[one.name]) for found in of_target.values()),
            )
            for one in by_need(main)
        ),
    )
    return [sheet] if main.findings else []


def table_row(target: Target, row: TargetResult | None, task: Task) -> tuple[str, ...]:
    """A row of the headline table."""
    if row is None:
        return (TARGETS[target], "–", "–", "not measured", "", "", "", "")
    metrics = (with_interval(metric, getattr(row, metric).estimate, task) for metric in METRICS)
    counts = f"{row.num_samples:,}", f"{row.num_groups:,}"
    return (TARGETS[target], *counts, *metrics, value_text("f1", row.f1.mean), value_text("f1", row.f1.spread))


def trivial_rows(result: Crossval) -> list[tuple[str, ...]]:
    """Classifiers that have learnt nothing: always the largest class, and of two classes always the positive one."""
    counts = f"{result.num_samples:,}", f"{result.num_groups:,}"
    rows = {}
    for guess in filter(None, (result.trivial, result.always_positive)):
        values = (value_text(metric, getattr(guess, metric)) for metric in METRICS)
        rows[guess.predicted] = (f"always {guess.predicted}", *counts, *values, "", "")
    return list(rows.values())
