"""Doubts about a run's score: what could explain it other than the disease, each by one plain rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.cautions import EARLY_F1
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
    share_text,
    text_in,
)

FEWEST_POSITIVES = 59  # with none missed among so many, sensitivity is above 95 % with 95 % confidence: 0.95^59 < 5 %
MOST_FEW = 3  # classes named of those with few images, the fewest first
SMALL_GROUP = 30  # images, below which a subgroup's score is not judged
LEAKED = ("leaked", "holds validation")  # how evaluate's warnings of an overlap begin
UNVERIFIED = "overlap with the training set cannot be checked"
UNGROUPED = "groups are not known"
NOT_EXCLUDED = "leakage between patients is not excluded"
SOURCE_TELLS = "evidence of nothing clinical"


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """One thing that could fool a reader.  lead: what it does to the score.  words: what was found, no full stop."""

    lead: str
    words: str


def find_doubts(material: Material, scored: Scored | None) -> list[Doubt]:
    """Everything found that could explain the score without the disease, gravest first.  scored: the set spoken of.

    Each rule is one function below, in order of gravity: overlap with training, source equals class, phantoms, a CAM
    outside the lungs, probes that alarm, cross-validation that falls or holds without lungs, early convergence,
    patients unknown, few images of a class, few groups, a much worse subgroup.
    """
    rules = (
        overlap_doubts,
        source_doubts,
        synthetic_doubts,
        lung_doubts,
        probe_doubts,
        crossval_doubts,
        early_doubts,
        patient_doubts,
        few_doubts,
        group_doubts,
        subgroup_doubts,
    )
    return [doubt for rule in rules for doubt in rule(material, scored)]


def may_be_seen(scored: Scored) -> bool:
    """Whether training, or the choice of the weights, has or may have seen images of the set."""
    return any(warning.startswith(LEAKED) or UNVERIFIED in warning for warning in scored.warnings)


def overlap_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """The set shares images or patients with training, or the checkpoint was chosen on it."""
    for warning in scored.warnings if scored else []:
        if warning.startswith("leaked"):
            yield Doubt(lead="This score is leaked", words=f"the set tested {warning.removeprefix('leaked: ')}")
        elif warning.startswith(LEAKED):
            yield Doubt(lead="This score is optimistic", words=f"the set tested {warning}")


def source_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """A class comes from sources that have no other class, in the training set or in the one tested."""
    warnings = [*texts(material), *(scored.warnings if scored else [])]
    found = [warning.rpartition(": ")[0] for warning in warnings if SOURCE_TELLS in warning]
    if not found and material.probes and material.probes.cautions:
        found = [caution.split(". ")[0].rstrip(".") for caution in material.probes.cautions]
    if found:
        yield Doubt(
            lead="This score is evidence of nothing clinical",
            words=f"source and finding cannot be told apart, since {lower_first(found[0])}",
        )


def synthetic_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """Phantoms."""
    if material.synthetic:
        yield Doubt(lead="This score says nothing about patients", words="the images are phantoms, drawn by a program")


def lung_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """The explanation lies outside the lungs; nothing, where its own controls failed."""
    for explained in material.explanations:
        ratio = measured_in(dict_in(explained.content, "lung_ratio"))
        if answer(explained.content) == "outside":
            share = (
                f" (they have {plain_text(ratio.value, 2)} times their share by area)"
                if ratio.value is not None
                else ""
            )
            yield Doubt(
                lead="This score need not come from the lungs", words=f"the model looks outside the lungs{share}"
            )
            return


def probe_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """Probes that see little or nothing of the finding predict the class."""
    alarms = [probe for probe in material.probes.probes if probe.alarm] if material.probes else []
    if alarms:
        best = max(alarms, key=lambda probe: probe.auc)
        number = f"{len(alarms)} of {counted(len(material.probes.probes), 'probe')}" if material.probes else ""
        verb, most = ("predicts", "") if len(alarms) == 1 else ("predict", "at best ")
        target = "the class or its source from little or nothing of the finding"
        yield Doubt(
            lead="This score need not come from the disease",
            words=f"{number} {verb} {target} ({most}{best.name}, AUC {plain_text(best.auc, 2)})",
        )


def crossval_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """Random folds above group folds; lungs hidden, yet above guessing; an external set below."""
    rows = {text_in(row, "name"): row for row in dicts_in(material.own_crossval, "rows")}
    f1 = {name: measured_in(dict_in(row, "f1")) for name, row in rows.items()}
    auc = {name: measured_in(dict_in(row, "auc")) for name, row in rows.items()}
    none = Measured()
    hidden, group, mixed = auc.get("lungs hidden", none), f1.get("group split", none), f1.get("random split", none)
    if hidden.low is not None and hidden.low > 0.5:
        yield Doubt(
            lead="This score need not come from the lungs",
            words=f"with the lungs hidden, cross-validation still reaches AUC {plain_text(hidden.value, 2)} "
            f"({interval_text(hidden, share=False, digits=2)})",
        )
    if group.high is not None and mixed.value is not None and mixed.value > group.high:
        yield Doubt(
            lead="This score may be flattered",
            words=f"random folds reach F1 {plain_text(mixed.value, 2)}, folds by patient only "
            f"{plain_text(group.value, 2)}: images of one patient give each other away",
        )
    away, home = auc.get("external beton", none), auc.get("group split", none)
    if away.high is not None and home.low is not None and away.high < home.low:
        yield Doubt(
            lead="This score does not travel",
            words=f"on an external set the AUC falls from {plain_text(home.value, 2)} to {plain_text(away.value, 2)}",
        )


def early_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """99 % after one epoch."""
    first = material.history[0] if material.history else {}
    for name, word in (("val_f1", "F1"), ("val_accuracy", "accuracy")):
        value = first.get(name)
        if value is not None and value >= EARLY_F1:
            yield Doubt(
                lead="This score came suspiciously early",
                words=f"validation {word} was {share_text(value)} after one epoch: suspect the data",
            )
            return


def patient_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """Patients are unknown, or cannot be compared."""
    warnings = [*(scored.warnings if scored else []), *texts(material)]
    found = next((warning for warning in warnings if NOT_EXCLUDED in warning), "")
    if not found and material.own_crossval.get("every_image_its_own_group") is True:
        found = f"no two images are known to be of one patient: {NOT_EXCLUDED}"
    if found:
        yield Doubt(lead="This score may be flattered by patients that training has seen", words=lower_first(found))


def few_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """Fewer than 59 images of a class in the set tested."""
    counts = class_counts(scored)
    few = {name: number for name, number in counts.items() if number < FEWEST_POSITIVES}
    if few:
        named = [f"{few[name]:,} of {name}" for name in sorted(few, key=lambda name: few[name])[:MOST_FEW]]
        if (rest := len(few) - MOST_FEW) > 0:
            named.append(f"few of {counted(rest, 'further class', 'further classes')}")
        yield Doubt(
            lead="This score rests on few images",
            words=f"too few images: {listed(named)}, fewer than {FEWEST_POSITIVES}, so that even without one miss a "
            "sensitivity above 95 % would not be shown",
        )


def group_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
    """So few groups, or none known, that evaluate warned of its own intervals."""
    for warning in scored.warnings if scored else []:
        if warning.startswith(UNGROUPED):
            yield Doubt(lead="This score is less sure than its intervals say", words=warning)
        elif "group" in warning and "intervals" in warning:
            yield Doubt(lead="This score rests on few patients", words=warning)


def subgroup_doubts(material: Material, scored: Scored | None) -> Iterator[Doubt]:
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
                yield Doubt(
                    lead="This score does not hold everywhere",
                    words=f"for {text_in(part, 'kind')} {text_in(part, 'name') or 'unknown'} the {mean}{word} is only "
                    f"{plain_text(inside.value, 2)} ({interval_text(inside, share=False, digits=2)})",
                )
                return


def texts(material: Material) -> list[str]:
    """The cautions of the training."""
    found = material.summary.get("cautions")
    return [caution for caution in found if isinstance(caution, str)] if isinstance(found, list) else []


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


def lower_first(text: str) -> str:
    """A sentence that goes on another's line."""
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text
