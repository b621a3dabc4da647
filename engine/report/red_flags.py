"""Red flags of a run's score: what could explain it other than the disease, each by one plain rule."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.crossval.controls import beyond_outline, outline_tells, with_outline
from engine.crossval.scores import OUTLINES
from engine.hurdles.matrix import drop_text, headline, headline_drop, headline_metric, least_favourable
from engine.report.results import EvaluatedSet, RunResults, Tested, listed
from engine.statistics.estimates import UNDEFINED
from engine.statistics.names import interval_text, short_name, value_text
from engine.statistics.thresholds import LEAST_POSITIVES
from engine.train.summary import early_convergence
from loaders.cautions import Caution, Gravity, caution
from loaders.output import counted

MOST_FEW = 3  # classes named of those with few images, the fewest first
SMALL_GROUP = 30  # images, below which a subgroup's score is not judged
# shared with training, or not checked
LEAKAGE = ("leakage-forced", "validation-leakage", "copies-kept", "unverified-beton", "hashed-otherwise")


@dataclass(frozen=True, kw_only=True, slots=True)
class RedFlag:
    """One thing that could fool a reader.  effect: on the score.  finding: what was found.  No full stops."""

    gravity: Gravity
    effect: str
    finding: str


def find_red_flags(results: RunResults, tested: EvaluatedSet | None) -> list[RedFlag]:
    """Everything found that could explain the score without the disease, gravest first.  tested: the set judged.

    Cautions with an effect on the score, one for each effect, and what the rules below find in the numbers: a CAM
    outside the lungs, probes that alarm, cross-validation that falls or holds without lungs, another collection on
    which the score falls, few images of a class, a much worse subgroup.
    """
    rules = (
        caution_flags, lung_flags, probe_flags, crossval_flags, external_flags, hurdle_flags, few_image_flags,
        subgroup_flags,
    )  # fmt: skip
    found = [flag for rule in rules for flag in rule(results, tested)]
    return sorted(found, key=lambda flag: flag.gravity)


def may_be_leaked(tested: Tested) -> bool:
    """Whether training, or the choice of the weights, used or may have used images of the set."""
    return any(caution.code in LEAKAGE for caution in tested.metrics.cautions)


def caution_flags(results: RunResults, tested: Tested | None) -> Iterator[RedFlag]:
    """The run's own cautions that have an effect on the score: of the set, training, probes and cross-validation."""
    found: list[Caution] = [
        *(tested.metrics.cautions if tested else []),
        *(results.summary.cautions if results.summary else []),
        *([caution("synthetic-phantoms")] if results.synthetic else []),
        *results.audit_cautions,
        *(results.own_crossval.cautions if results.own_crossval else []),
        *(results.own_row.cautions if results.own_row else []),
        *early_convergence(results.history[0] if results.history else {}),
    ]
    by_effect: dict[str, Caution] = {}
    for one in found:
        by_effect.setdefault(one.meaning.effect, one)
    for shown, one in by_effect.items():
        if shown:
            score = "The score" if shown.startswith("of ") else "This score"
            effect = f"{score} {shown}".replace("of such a finding", "of some findings")  # named in the finding
            yield RedFlag(gravity=one.meaning.gravity, effect=effect, finding=one.finding)


def rests_on_few_groups(tested: Tested) -> bool:
    """Whether the set has so few groups, or none known, that its intervals are too narrow."""
    return any(one.meaning.gravity == Gravity.FEW_GROUPS for one in tested.metrics.cautions)


def lung_flags(results: RunResults, tested: EvaluatedSet | None) -> Iterator[RedFlag]:
    """The explanation lies outside the lungs; nothing, where its own controls failed."""
    for explained in results.explanations:
        lungs = explained.explanation.lungs
        if lungs and explained.explanation.region == "outside":
            ratio = value_text("lung_ratio", lungs.ratio.value)
            yield RedFlag(
                gravity=Gravity.LUNGS,
                effect="This score need not come from the lungs",
                finding="the model relies on what lies outside the lungs (they have "
                f"{ratio} times their share by area)",
            )
            return


def probe_flags(results: RunResults, tested: EvaluatedSet | None) -> Iterator[RedFlag]:
    """Probes that are given little or nothing of the finding predict the class."""
    probes = results.probes.probes if results.probes else []
    alarms = [probe for probe in probes if probe.alarm]
    if alarms:
        best = max(alarms, key=lambda probe: probe.auc or 0.0)
        number = f"{len(alarms)} of {counted(len(probes), 'probe')}"
        verb, most = ("predicts", "") if len(alarms) == 1 else ("predict", "at best ")
        target = "the class or its source from little or nothing of the finding"
        yield RedFlag(
            gravity=Gravity.PROBES,
            effect="This score need not come from the disease",
            finding=f"{number} {verb} {target} ({most}{best.name}, AUC {value_text('auc', best.auc)})",
        )


def crossval_flags(results: RunResults, tested: Tested | None) -> Iterator[RedFlag]:
    """Random folds above group folds; lungs hidden, yet above guessing; lungs that show no more than their outline; an
    external set below.
    """
    own = results.own_crossval
    targets = own.targets if own else []
    f1 = {result.target: result.f1.estimate for result in targets}
    auc = {result.target: result.auc.estimate for result in targets}
    hidden, group, mixed = (auc.get("lungs-hidden", UNDEFINED), f1.get("group", UNDEFINED), f1.get("random", UNDEFINED))
    if hidden.low is not None and hidden.low > 0.5:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score need not come from the lungs",
            finding=f"with the lungs hidden, cross-validation still reaches AUC {value_text('auc', hidden.value)} "
            f"({interval_text('auc', hidden)})",
        )
    for split in OUTLINES:
        if own and outline_tells(own, split) and beyond_outline(own.target(split)) == "none":
            yield RedFlag(
                gravity=Gravity.CROSSVAL,
                effect="This score need not come from the disease",
                finding=with_outline(own, split),
            )
    # of findings F1 alone does not show it: every fold chooses its own thresholds
    apart = own.differences.get("random", {}) if own else {}
    higher = results.task == "classes" or (apart.get("auc", UNDEFINED).low or 0) > 0
    if group.high is not None and mixed.value is not None and mixed.value > group.high and higher:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score may be inflated",
            finding=f"random folds reach F1 {value_text('f1', mixed.value)}, folds by patient only "
            f"{value_text('f1', group.value)}, so that images leak between folds through their patients",
        )
    away, home = auc.get("external", UNDEFINED), auc.get("group", UNDEFINED)
    alike = away.defined == home.defined  # else the means are over different findings
    if away.high is not None and home.low is not None and away.high < home.low and alike:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score does not hold on another collection",
            finding=f"on an external set the AUC falls from {value_text('auc', home.value)} to "
            f"{value_text('auc', away.value)}",
        )


def external_flags(results: RunResults, tested: EvaluatedSet | None) -> Iterator[RedFlag]:
    """The whole AUC interval on an external set, or sensitivity's or specificity's where that has one class, lies below
    that at home: on the run's own held-out set, or else of cross-validation by groups.
    """
    homes = [found.metrics.estimates for found in results.of_collection("own") if not may_be_leaked(found)]
    group = results.own_crossval.target("group") if results.own_crossval else None
    homes += [{"auc": group.auc.estimate}] if group else []
    for away in results.of_collection("external"):
        for name in ("sensitivity", "specificity") if away.one_class else ("auc",):
            near, far = homes[0].get(name, UNDEFINED) if homes else UNDEFINED, away.estimate(name)
            if far.high is not None and near.low is not None and far.high < near.low and far.defined == near.defined:
                yield RedFlag(
                    gravity=Gravity.CROSSVAL,
                    effect="This score does not hold on another collection",
                    finding=f"on the external set {away.name} the {short_name(name)} falls from "
                    f"{value_text(name, near.value)} to {value_text(name, far.value)}",
                )
                return


def hurdle_flags(results: RunResults, tested: Tested | None) -> Iterator[RedFlag]:
    """In the hurdles' row of the run's own conversion the whole interval of a drop to another collection is above 0."""
    worst = least_favourable([cell for cell in results.away_cells if (headline_drop(cell).low or 0) > 0])
    if worst and results.hurdles:
        key, away = headline_metric(worst), headline(worst).value
        home = results.hurdles.home(worst.row).estimates.get(key, UNDEFINED)
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="This score does not hold on another collection",
            finding=f"networks trained on the same films fall on {worst.column} from a mean {short_name(key)} of "
            f"{value_text(key, home.value)} at home to {value_text(key, away)}, a drop of {drop_text(worst)}",
        )


def few_image_flags(results: RunResults, tested: EvaluatedSet | None) -> Iterator[RedFlag]:
    """Fewer than 59 images of a class in the set tested."""
    counts = tested.metrics.class_counts if tested else {}
    few = {name: number for name, number in counts.items() if number < LEAST_POSITIVES}
    if few:
        named = [f"{few[name]:,} of {name}" for name in sorted(few, key=lambda name: few[name])[:MOST_FEW]]
        if (rest := len(few) - MOST_FEW) > 0:
            named.append(f"few of {counted(rest, 'further class', 'further classes')}")
        yield RedFlag(
            gravity=Gravity.FEW_IMAGES,
            effect="This score rests on few images",
            finding=f"too few images: {listed(named)}, fewer than {LEAST_POSITIVES}, so that a sensitivity above 95 % "
            "could not be shown even if none were missed",
        )


def subgroup_flags(results: RunResults, tested: EvaluatedSet | None) -> Iterator[RedFlag]:
    """A source, view, sex, age or flag whose whole AUC interval, or accuracy's, lies below that of the set.

    Means over other classes than the set's are not compared.
    """
    if tested is None:
        return
    for part in tested.metrics.subgroups:
        for name in ("auc", "accuracy"):
            inside, whole = part.estimates.get(name, UNDEFINED), tested.estimate(name)
            alike = part.num_samples >= SMALL_GROUP and inside.defined == whole.defined
            mean = "mean " if inside.classes else ""
            if alike and inside.high is not None and whole.low is not None and inside.high < whole.low:
                yield RedFlag(
                    gravity=Gravity.SUBGROUP,
                    effect="This score does not hold everywhere",
                    finding=f"for {part.kind} {part.name or 'unknown'} the {mean}{short_name(name)} is "
                    f"only {value_text(name, inside.value)} ({interval_text(name, inside)})",
                )
                return
