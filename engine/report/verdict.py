"""The verdict on a run in three plain sentences, by plain rules: how good, how sure, what could fool it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.hurdles.matrix import NOT_ELSEWHERE, is_elsewhere
from engine.report.red_flags import RedFlag, find_red_flags, may_be_leaked, rests_on_few_groups
from engine.report.results import EvaluatedFindings, EvaluatedSet, RunResults, Tested, listed, upper_first
from engine.statistics.estimates import Estimate
from engine.statistics.names import interval_text, over_classes, value_text
from engine.statistics.thresholds import LEAST_POSITIVES
from loaders.output import counted

AnySet = TypeVar("AnySet", EvaluatedSet, EvaluatedFindings, Tested)
WIDE = 0.10  # an interval of more than ten points
MOST_NAMED = 3  # red flags in the sentence; the list below it has them all
NOT_TESTED = (
    "That is not known: it has been tested on no radiograph that training did not see, and the validation score, by "
    "which it was chosen, is no evidence."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Three sentences, and what they rest on.  state: "flagged", "unchecked" or "held"."""

    how_good: str
    how_sure: str
    what_could_fool: str
    state: str
    red_flags: tuple[RedFlag, ...]
    unchecked: tuple[str, ...]

    @property
    def sentences(self) -> dict[str, str]:
        """Question → answer."""
        return {"How good": self.how_good, "How sure": self.how_sure, "What could fool it": self.what_could_fool}


def judge(results: RunResults) -> Verdict:
    """The verdict, a function of what lies in the run folder.

    Which set: of those that share nothing with training (a set with a caution of leakage, or whose overlap could not
    be checked, or which has one class alone, only where there is no other), the one whose AUC (else accuracy) has the
    lowest lower end, since that is the least favourable.

    How good: for two classes sensitivity and specificity, else accuracy and macro F1, each with the lower end of its
    95 % interval, and what always answering the largest class would reach.  Where the AUC's lower end is 0.5 or less
    (or, without an AUC, accuracy's not above that of the largest class) it states that nothing is shown.  It never
    calls a score good: with a red flag, it opens with what the gravest one does to the score; with a check missing,
    with that.

    How sure: "not very" where the AUC's interval is wider than ten points (accuracy's, without an AUC or at a perfect
    one), was resampled by too few groups, or rests on fewer than 59 images of a class; whether other splits were tried
    (cross-validation), and their spread.

    What could fool it: the red flags of engine.report.red_flags, gravest first, three of them and how many more; then
    which checks were not made (a test set, the explanation, probes, cross-validation, hidden lungs, another
    collection). Without any it states that no check found anything, which proves nothing.
    """
    tested = least_favourable(results.evaluations)
    red_flags = find_red_flags(results, tested)
    unchecked = missing_checks(results, tested)
    state = "flagged" if red_flags else "unchecked" if unchecked else "held"
    return Verdict(
        how_good=how_good(tested, red_flags, unchecked),
        how_sure=how_sure(results, tested),
        what_could_fool=what_could_fool(red_flags, unchecked),
        state=state,
        red_flags=tuple(red_flags),
        unchecked=tuple(unchecked),
    )


def least_favourable(evaluations: Sequence[AnySet]) -> AnySet | None:
    """The evaluation that the verdict speaks of; of findings by their mean AUC."""

    def rank(tested: Tested) -> tuple[bool, bool, float, str]:
        found = headline(tested)[2] if isinstance(tested, EvaluatedSet) else tested.estimate("auc")
        ends = [end for end in (found.low, found.value) if end is not None]
        return may_be_leaked(tested), tested.one_class, ends[0] if ends else 0.0, tested.name

    return min(evaluations, key=rank, default=None)


def headline(tested: EvaluatedSet) -> tuple[str, str, Estimate]:
    """The key of AUC with its name, of more than two classes their mean; accuracy where only that has an interval.

    At a perfect ranking the AUC's is a point, which is none.
    """
    auc, accuracy = tested.estimate("auc"), tested.estimate("accuracy")
    if auc.value is None or (auc.low == auc.high and accuracy.low is not None):
        return "accuracy", "accuracy", accuracy
    name = "AUC" if tested.num_classes <= 2 else f"mean AUC {over_fewer(auc)}".rstrip()
    return "auc", name, auc


def missing_checks(results: RunResults, tested: Tested | None) -> list[str]:
    """The checks that were not made."""
    measured = {
        found.target
        for found in (results.own_crossval.targets if results.own_crossval else [])
        if found.f1.estimate.value is not None or found.auc.estimate.value is not None
    }
    told = {one.code for one in results.own_crossval.cautions} if results.own_crossval else set()
    elsewhere = told.isdisjoint(NOT_ELSEWHERE)
    relies = "what the model relies on"
    looks = any(one.metrics.looking for one in results.tested)
    checks = {
        "a set that training never saw": tested is not None and not may_be_leaked(tested),
        "whether it looks" if results.is_asked else relies: looks if results.is_asked else results.is_explained,
        "shortcuts in the collection": results.is_probed,
        "cross-validation": "group" in measured,
        "hidden lungs": "lungs-hidden" in measured,
        "another collection": any(found.metrics.collection == "external" for found in results.tested)
        or ("external" in measured and elsewhere)
        or any(map(is_elsewhere, results.away_cells)),
    }
    return [name for name, done in checks.items() if not done]


def how_good(tested: EvaluatedSet | None, red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """The first sentence."""
    if tested is None:
        return NOT_TESTED
    lead, measured = sources_of_doubt(red_flags, unchecked), score_text(tested)
    return f"{lead}: {measured}." if lead else f"{upper_first(measured)}."


def sources_of_doubt(red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """What the first sentence opens with: what the gravest red flag does to the score, or that checks are missing."""
    return red_flags[0].effect if red_flags else "Not everything that could fool it was checked" if unchecked else ""


def where_tested(tested: Tested) -> str:
    """On how many images of which set, and whether training saw them."""
    noun = "phantom" if tested.metrics.synthetic else "radiograph"
    of = f"on {counted(tested.metrics.num_samples, noun)} ({tested.name})"
    return of if may_be_leaked(tested) else f"{of}, which training never saw,"


def score_text(tested: EvaluatedSet) -> str:
    """What was measured, and what always answering the largest class would reach."""
    metrics, largest, of = tested.metrics, tested.metrics.largest_class, where_tested(tested)
    if unshown(tested):
        key, name, found = headline(tested)
        between = f", interval {interval_text(key, found)}" if found.low is not None else ""
        shown = f"{name} {value_text(key, found.value)}{between}"
        return f"{of} it was not shown to be better than always answering {largest} ({shown})"
    if tested.num_classes == 2:
        finds, clears = tested.estimate("sensitivity"), tested.estimate("specificity")
        measured = f"it finds {from_share(finds)} of {metrics.positive} and clears {from_share(clears)} of the others"
        trivial = "finds all and clears none" if largest == metrics.positive else "finds none"
    else:
        right, f1 = tested.estimate("accuracy"), tested.estimate("f1")
        over = f" {fewer}" if (fewer := over_fewer(f1)) else ""
        measured = f"it is right for {from_share(right)}, with a macro F1 of {value_text('f1', f1.value)}{over}"
        trivial = f"is right for {value_text('accuracy', tested.trivial('accuracy').value)}"
    return f"{of} {measured}; always answering {largest} {trivial}"


def over_fewer(found: Estimate) -> str:
    """Over how many classes a mean is, where it leaves classes out."""
    return over_classes(found) if found.defined != found.classes else ""


def from_share(found: Estimate) -> str:
    """A share and where its interval begins."""
    begins = f" (interval from {value_text('sensitivity', found.low)})" if found.low is not None else ""
    return f"{value_text('sensitivity', found.value)}{begins}" if found.value is not None else "an unknown share"


def unshown(tested: EvaluatedSet) -> bool:
    """Whether it may be no better than guessing."""
    auc, accuracy, trivial = tested.estimate("auc"), tested.estimate("accuracy"), tested.trivial("accuracy").value
    if auc.value is not None and (auc.low is not None or accuracy.low is None):
        return (auc.low if auc.low is not None else auc.value) <= 0.5
    end = accuracy.low if accuracy.low is not None else accuracy.value
    return end is None or trivial is None or end <= trivial


def how_sure(results: RunResults, tested: EvaluatedSet | None) -> str:
    """The second sentence."""
    if tested is None:
        return "That is not known either: without a test set there is no interval."
    key, name, found = headline(tested)
    few = {label: number for label, number in tested.metrics.class_counts.items() if number < LEAST_POSITIVES}
    parts = []
    if found.low is None or found.high is None:
        parts.append("That is not known: no interval was computed")
    else:
        unsure = found.high - found.low > WIDE or bool(few) or rests_on_few_groups(tested)
        parts.append(
            f"{'Not very sure' if unsure else 'Sure within limits'}: the 95 % interval of the {name}, by "
            f"{counted(tested.metrics.num_groups, 'group')}, runs from "
            f"{interval_text(key, found)}"
        )
    if few:
        label = min(few, key=lambda label: few[label])
        parts.append(f"it rests on {counted(few[label], 'image')} of {label}")
    parts.append(spread_text(results))
    return "; ".join(parts) + "."


def spread_text(results: RunResults) -> str:
    """What other splits gave."""
    group = results.own_crossval.target("group") if results.own_crossval else None
    if group is None or group.f1.estimate.value is None:
        return "this is one training on one split, and another may differ by more than the interval suggests"
    f1, spread = group.f1.estimate, group.f1.spread
    by = f", with a spread of {value_text('f1', spread)} between folds" if spread is not None else ""
    between = f" ({interval_text('f1', f1)})" if f1.low is not None else ""
    return f"cross-validation by groups gives F1 {value_text('f1', f1.value)}{between}{by}"


def what_could_fool(red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """The third sentence."""
    missing = f"not checked: {listed(unchecked)}" if unchecked else ""
    if not red_flags:
        found = "No check found anything that could fool it, which does not prove that nothing could"
        return f"{found}; {missing}." if missing else f"{found}."
    named = "; ".join(flag.finding for flag in red_flags[:MOST_NAMED])
    more = len(red_flags) - MOST_NAMED
    parts = [named, f"and {counted(more, 'further red flag')}, listed in the report" if more > 0 else "", missing]
    return f"{upper_first('; '.join(part for part in parts if part))}."
