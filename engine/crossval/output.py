"""How a cross-validation is shown: headline and honest scores as a figure, as tables, and in plain English."""

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from msgspec.structs import replace

from engine.crossval.scores import METRICS, Crossval, Target, TargetResult
from engine.figures import FAINT, INK, VALIDATION, ready, set_note, set_title
from engine.statistics.names import (
    difference_texts,
    headline_name,
    interval_text,
    metric_of,
    short_name,
    size_text,
    value_text,
    with_interval,
)
from loaders.figure_text import class_names
from loaders.output import Line, Parts, Sheet, caution_lines, path_line

TARGETS: dict[Target, str] = {
    "random": "random split",
    "group": "group split",
    "lungs-hidden": "lungs hidden",
    "external": "another collection",
}
MEANING: dict[Target, str] = {
    "random": "headline: patients may be in both",
    "group": "honest: only new patients",
    "lungs-hidden": "new patients, all but the lungs",
    "external": "honest: from elsewhere",
}
FILES = ("crossval.png", "crossval.csv", "crossval.json")
SHOWN_MATRIX = 3  # classes; the matrix of more does not fit a line
HEADLINE, HONEST, GUESS = "#c0504d", VALIDATION, "#888888"


def crossval_figure(result: Crossval) -> Figure:
    """F1 and its 95 % interval, a line a test target, folds as small dots, n beside each, guessing as a dotted line."""
    names = class_names(result.classes)
    figure = Figure(figsize=(9.2, 1.6 + 0.82 * len(TARGETS)), layout="constrained")
    axes = figure.subplots()
    across, low_end = axes.get_yaxis_transform(), 1.0
    for place, target in enumerate(TARGETS):
        row = result.target(target)
        found = None if row is None else row.f1.estimate
        if row is None or found is None or found.value is None:
            state = "not measured" if row is None else "undefined"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line of guessing
            axes.text(0.02, place, state, va="center", color=FAINT, style="italic", transform=across, bbox=box)
            continue
        colour = HEADLINE if target == "random" else HONEST
        low = found.value if found.low is None else found.low
        high = found.value if found.high is None else found.high
        dots = [value for value in row.f1.folds if value is not None]
        low_end = min([low_end, low, *dots])
        axes.barh(place, high - low, left=low, height=0.34, color=colour, alpha=0.28, linewidth=0)
        axes.plot(dots, [place + 0.3] * len(dots), "o", color=colour, markersize=3, alpha=0.55, clip_on=False)
        axes.plot([found.value] * 2, [place - 0.17, place + 0.17], color=colour, linewidth=3, solid_capstyle="butt")
        interval = "no interval" if found.low is None else interval_text("f1", found)
        size = f"{interval}, n = {size_text(row.num_samples, row.num_groups)}"
        text = partial(axes.text, va="center", transform=across)
        text(1.02, place - 0.11, value_text("f1", found.value), color=colour, fontsize=12, weight="bold")
        text(1.02, place + 0.21, size, color=INK, fontsize=8)
    guess = result.always_positive or result.trivial
    if guess.f1 is not None:
        low_end = min(low_end, guess.f1)
        # guessing scores otherwise on another collection, whose classes are otherwise common
        axes.plot([guess.f1] * 2, [-0.6, len(TARGETS) - 1.5], color=GUESS, linestyle=":", linewidth=1.2)
        axes.text(
            guess.f1, -0.56, f" always {names.text_of[guess.predicted]}: {value_text('f1', guess.f1)}", color=GUESS,
            fontsize=8, va="bottom", ha="left" if guess.f1 < 0.8 else "right",
        )  # fmt: skip
    labels = [f"{name}\n{MEANING[target]}" for target, name in TARGETS.items()]
    axes.set_yticks(range(len(TARGETS)), labels=labels, fontsize=9, color=INK)
    axes.set(xlim=(max(0.0, low_end - 0.04), 1.0), ylim=(len(TARGETS) - 0.45, -0.6))
    which = headline_name("f1", len(result.classes), names.text_of[result.positive])
    axes.set_xlabel(f"{which}: value, 95 % interval over groups, folds as dots", color=INK)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    folds = result.settings["folds"]
    title = f"Headline and honest: {names.listed()}, {result.num_samples:,} {kind}, {folds} folds"
    set_title(figure, title, x=0.01, ha="left")
    set_note(figure, names.note, "Research software: not for diagnosis.")
    return ready(figure)


def sentences(result: Crossval) -> list[str]:
    """What the scores mean, in plain English."""
    found = [random_sentence(result), hidden_sentence(result)]
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
    difference = result.differences.get("random", {}).get("f1")
    if difference is None or difference.value is None:
        return ""
    apart, ends = difference_texts("f1", difference)
    higher = round(difference.value, metric_of("f1").digits)
    compared = "as high" if higher == 0 else f"{apart[1:]} {'higher' if higher > 0 else 'lower'}"
    sentence = f"F1 is {compared} in the random split {'as' if higher == 0 else 'than'} in the group split"
    if difference.low is not None:
        sentence += f" (95 % interval of the difference {ends})"
    meaning = "this neither shows nor excludes that the network recognises patients"
    if difference.low is not None and difference.low > 0:
        meaning = (
            "the random split has images of the same patients in training and test, and the network recognises patients"
        )
    return f"{sentence}: {meaning}. Only the group split shows how it does on new patients."


def hidden_sentence(result: Crossval) -> str:
    """What is left without the lungs."""
    row = result.target("lungs-hidden")
    if row is None or row.auc.estimate.value is None:
        return ""
    auc, shown = row.auc.estimate, with_interval("auc", row.auc.estimate)
    still, meaning = "", "this neither shows nor excludes that the label can be predicted without the lungs"
    if auc.low is not None and auc.low > 0.5:
        still = "still "
        meaning = "the label can be predicted without the lungs, so a score on whole frames need not come from them"
    return (
        f"With the lungs hidden the AUC is {still}{shown}: {meaning}. The network was given the whole frame, more than "
        "the crop, with the region where lungs usually are hidden; of unusual lungs an edge may show."
    )


def not_measured(result: Crossval | None) -> dict[Target, str]:
    """The test targets that were not measured, each with what measures it."""
    missing = {target: f"run `crossval` with {target} among --splits" for target in TARGETS}
    missing["external"] = (
        "run `crossval` with --external X.beton, or `evaluate` X.beton, of a collection that `convert` --like "
        "converted, or `hurdles` of both"
    )
    return {
        target: f"not measured: {how}"
        for target, how in missing.items()
        if result is None or result.target(target) is None
    }


def crossval_parts(result: Crossval, out: Path) -> Parts:
    """The folds, the table of headline and honest scores, what they mean, and the files."""
    two, small = len(result.classes) == 2, len(result.classes) <= SHOWN_MATRIX
    which = f"F1 of {result.positive}" if two else "F1 and ROC-AUC are means over the classes that define them"
    order = f"rows are the true classes, in the order {', '.join(result.classes)}"
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
                *(with_interval(metric, replace(fold.estimates[metric], low=None)) for metric in METRICS),
                *([str(fold.confusion)] if small else []),
                f"{fold.training.best_epoch} of {fold.training.epochs}",
            )
            for fold in result.folds
        ),
    )
    headline = Sheet(
        title=f"Headline and honest: {which}",
        headers=("tested by", "images", "groups", *names, "mean F1", "spread"),
        rows=(*(table_row(target, result.target(target)) for target in TARGETS), *trivial_rows(result)),
    )
    parts += [by_fold, headline]
    parts += [Line(f"{TARGETS[target]}: {why}.") for target, why in missing.items()]
    parts += [Line(sentence, "bold") for sentence in sentences(result)]
    parts += caution_lines(result.cautions)
    parts.append(
        Line(
            "In brackets 95 % intervals over groups, of every sample's score by the network not trained on it; "
            "they leave out how much another training would differ. Mean and spread (standard deviation) are of the "
            "folds. Within a split, ROC-AUC ranks scores of different networks together, which lowers it: the folds' "
            "own are above. "
            + (f"Matrices: {order}." if small else f"Each fold's matrix is in crossval.json: {order}.")
        )
    )
    parts += [path_line(out / name) for name in FILES]
    return parts


def table_row(target: Target, row: TargetResult | None) -> tuple[str, ...]:
    """A row of the headline table."""
    if row is None:
        return (TARGETS[target], "–", "–", "not measured", "", "", "", "")
    metrics = (with_interval(metric, getattr(row, metric).estimate) for metric in METRICS)
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
