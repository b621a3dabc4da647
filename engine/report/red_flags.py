"""Red flags of a run's score: what could explain it other than the disease, each by one plain rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.explain.lungs import answer
from engine.report.results import (
    Material,
    Measured,
    Scored,
    count_in,
    counted,
    dict_in,
    dicts_in,
    interval_text,
    listed,
    measured_in,
    number_in,
    plain_text,
    text_in,
)
from engine.train.summary import early_convergence
from loaders.cautions import Caution, Gravity, caution, cautions_in

FEWEST_POSITIVES = 59  # with none missed among so many, sensitivity is above 95 % with 95 % confidence: 0.95^59 < 5 %
MOST_FEW = 3  # classes named of those with few images, the fewest first
SMALL_GROUP = 30  # images, below which a subgroup's score is not judged
LEAKAGE = ("leakage-forced", "validation-leakage", "unverified-beton")  # shared with training, or not checked


@dataclass(frozen=True, kw_only=True, slots=True)
class RedFlag:
    """One thing that could fool a reader.  effect: on the score.  finding: what was found.  No full stops."""

    gravity: Gravity
    effect: str
    finding: str


def find_red_flags(material: Material, scored: Scored | None) -> list[RedFlag]:
    """Everything found that could explain the score without the disease, gravest first.  scored: the set judged.

    Cautions with an effect on the score, one for each effect, and what the rules below find in the numbers: a CAM
    outside the lungs, probes that alarm, cross-validation that falls or holds without lungs, few images of a class, a
    much worse subgroup.
    """
    rules = (caution_flags, lung_flags, probe_flags, crossval_flags, few_image_flags, subgroup_flags)
    found = [flag for rule in rules for flag in rule(material, scored)]
    return sorted(found, key=lambda flag: flag.gravity)


def may_be_leaked(scored: Scored) -> bool:
    """Whether training, or the choice of the weights, used or may have used images of the set."""
    return any(caution.code in LEAKAGE for caution in scored.cautions)


def caution_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """The run's own cautions that have an effect on the score: of the set, training, probes and cross-validation."""
    found: list[Caution] = [
        *(scored.cautions if scored else []),
        *cautions_in(material.summary),
        *([caution("synthetic-phantoms")] if material.synthetic else []),
        *(material.probes.cautions if material.probes else []),
        *cautions_in(material.own_crossval),
        *early_convergence(material.history[0] if material.history else {}),
    ]
    by_effect: dict[str, Caution] = {}
    for one in found:
        by_effect.setdefault(one.effect, one)
    for shown, one in by_effect.items():
        if shown:
            yield RedFlag(gravity=one.gravity, effect=f"This score {shown}", finding=one.finding)


def rests_on_few_groups(scored: Scored) -> bool:
    """Whether the set has so few groups, or none known, that its intervals are too narrow."""
    return any(one.gravity == Gravity.FEW_GROUPS for one in scored.cautions)


def lung_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """The explanation lies outside the lungs; nothing, where its own controls failed."""
    for explained in material.explanations:
        ratio = measured_in(dict_in(explained.content, "lung_ratio"))
        if answer(explained.content) == "outside":
            share = (
                f" (they have {plain_text(ratio.value, 2)} times their share by area)"
                if ratio.value is not None
                else ""
            )
            yield RedFlag(
                gravity=Gravity.LUNGS,
                effect="This score need not come from the lungs",
                finding=f"the model relies on what lies outside the lungs{share}",
            )
            return


def probe_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """Probes that are given little or nothing of the finding predict the class."""
    alarms = [probe for probe in material.probes.probes if probe.alarm] if material.probes else []
    if alarms:
        best = max(alarms, key=lambda probe: probe.auc)
        number = f"{len(alarms)} of {counted(len(material.probes.probes), 'probe')}" if material.probes else ""
        verb, most = ("predicts", "") if len(alarms) == 1 else ("predict", "at best ")
        target = "the class or its source from little or nothing of the finding"
        yield RedFlag(
            gravity=Gravity.PROBES,
            effect="This score need not come from the disease",
            finding=f"{number} {verb} {target} ({most}{best.name}, AUC {plain_text(best.auc, 2)})",
        )


def crossval_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """Random folds above group folds; lungs hidden, yet above guessing; an external set below."""
    rows = {text_in(row, "name"): row for row in dicts_in(material.own_crossval, "rows")}
    f1 = {name: measured_in(dict_in(row, "f1")) for name, row in rows.items()}
    auc = {name: measured_in(dict_in(row, "auc")) for name, row in rows.items()}
    none = Measured()
    hidden, group, mixed = auc.get("lungs hidden", none), f1.get("group split", none), f1.get("random split", none)
    if hidden.low is not None and hidden.low > 0.5:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score need not come from the lungs",
            finding=f"with the lungs hidden, cross-validation still reaches AUC {plain_text(hidden.value, 2)} "
            f"({interval_text(hidden, share=False, digits=2)})",
        )
    if group.high is not None and mixed.value is not None and mixed.value > group.high:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score may be inflated",
            finding=f"random folds reach F1 {plain_text(mixed.value, 2)}, folds by patient only "
            f"{plain_text(group.value, 2)}, so that images leak between folds through their patients",
        )
    away, home = auc.get("external beton", none), auc.get("group split", none)
    if away.high is not None and home.low is not None and away.high < home.low:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score does not hold on another collection",
            finding=f"on an external set the AUC falls from {plain_text(home.value, 2)} to {plain_text(away.value, 2)}",
        )


def few_image_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """Fewer than 59 images of a class in the set tested."""
    counts = class_counts(scored)
    few = {name: number for name, number in counts.items() if number < FEWEST_POSITIVES}
    if few:
        named = [f"{few[name]:,} of {name}" for name in sorted(few, key=lambda name: few[name])[:MOST_FEW]]
        if (rest := len(few) - MOST_FEW) > 0:
            named.append(f"few of {counted(rest, 'further class', 'further classes')}")
        yield RedFlag(
            gravity=Gravity.FEW_IMAGES,
            effect="This score rests on few images",
            finding=f"too few images: {listed(named)}, fewer than {FEWEST_POSITIVES}, so that a sensitivity above 95 % "
            "could not be shown even if none were missed",
        )


def subgroup_flags(material: Material, scored: Scored | None) -> Iterator[RedFlag]:
    """A source, view or flag whose whole AUC interval, or accuracy's, lies below that of the set.

    Means over other classes than the set's are not compared.
    """
    for part in dicts_in(scored.content, "subgroups") if scored else []:
        for name, word in (("auc", "AUC"), ("accuracy", "accuracy")):
            inside, whole = (
                measured_in(dict_in(part, "estimates", name)),
                scored.estimate(name) if scored else Measured(),
            )
            alike = (count_in(part, "n") or 0) >= SMALL_GROUP and inside.defined == whole.defined
            mean = "mean " if inside.classes else ""
            if alike and inside.high is not None and whole.low is not None and inside.high < whole.low:
                yield RedFlag(
                    gravity=Gravity.SUBGROUP,
                    effect="This score does not hold everywhere",
                    finding=f"for {text_in(part, 'kind')} {text_in(part, 'name') or 'unknown'} the {mean}{word} is "
                    f"only {plain_text(inside.value, 2)} ({interval_text(inside, share=False, digits=2)})",
                )
                return


def class_counts(scored: Scored | None) -> dict[str, int]:
    """Class → images in the set tested, of its confusion matrix; {} where that is not known."""
    rows = scored.content.get("confusion") if scored else None
    names = scored.content.get("classes") if scored else None
    if not (
        isinstance(rows, list) and isinstance(names, list) and len(rows) == len(names) == len(set(map(str, names)))
    ):
        return {}
    counts = {}
    for name, row in zip(names, rows, strict=True):
        cells = [number_in({"cell": cell}, "cell") for cell in row] if isinstance(row, list) else [None]
        if any(cell is None or cell < 0 for cell in cells) or str(name) in counts:
            return {}
        counts[str(name)] = int(sum(cell for cell in cells if cell is not None))
    return counts
