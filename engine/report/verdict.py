"""The verdict on a run in three plain sentences, by plain rules: how good, how sure, what could fool it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.explain.lungs import answer
from engine.report.red_flags import (
    FEWEST_POSITIVES,
    RedFlag,
    class_counts,
    find_red_flags,
    may_be_leaked,
    rests_on_few_groups,
)
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
    upper_first,
)
from engine.statistics.names import over_words

WIDE = 0.10  # an interval of more than ten points
MOST_NAMED = 3  # red flags in the sentence; the list below it has them all


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
        return {
            "How good": self.how_good,
            "How sure": self.how_sure,
            "What could fool it": self.what_could_fool,
        }


def judge(material: Material) -> Verdict:
    """The verdict, a function of what lies in the run folder.

    Which set: of those that share nothing with training (a set with a caution of leakage, or whose overlap could not
    be checked, only where there is no other), the one whose AUC (else accuracy) has the lowest lower end,
    since that is the least favourable.

    How good: for two classes sensitivity and specificity, else accuracy and macro F1, each with the lower end of its
    95 % interval, and what always answering the largest class would reach.  Where the AUC's lower end is 0.5 or less
    (or, without an AUC, accuracy's not above that of the largest class) it says that nothing is shown.  It never says
    good: with a red flag, it opens with what the gravest one does to the score; with a check missing, with that.

    How sure: "not very" where the AUC's interval is wider than ten points (accuracy's, without an AUC or at a perfect
    one), was resampled by too few groups, or rests on fewer than 59 images of a class; whether other splits were tried
    (cross-validation), and their spread.

    What could fool it: the red flags of engine.report.red_flags, gravest first, three of them and how many more; then
    which checks were not made (a test set, the explanation, probes, cross-validation, hidden lungs, another
    collection). With none it says that nothing was found, which proves nothing.
    """
    scored = least_favourable(material.evaluations)
    red_flags = find_red_flags(material, scored)
    unchecked = missing_checks(material, scored)
    state = "flagged" if red_flags else "unchecked" if unchecked else "held"
    return Verdict(
        how_good=how_good(scored, red_flags, unchecked),
        how_sure=how_sure(material, scored),
        what_could_fool=what_could_fool(red_flags, unchecked),
        state=state,
        red_flags=tuple(red_flags),
        unchecked=tuple(unchecked),
    )


def least_favourable(evaluations: list[Scored]) -> Scored | None:
    """The evaluation that the verdict speaks of."""

    def rank(scored: Scored) -> tuple[bool, float, str]:
        _, found = headline(scored)
        ends = [end for end in (found.low, found.value) if end is not None]
        return may_be_leaked(scored), ends[0] if ends else 0.0, scored.name

    return min(evaluations, key=rank, default=None)


def headline(scored: Scored) -> tuple[str, Measured]:
    """AUC with its name, of more than two classes their mean; accuracy where only that has an interval.

    At a perfect ranking the AUC's is a point, which is none.
    """
    auc, accuracy = scored.estimate("auc"), scored.estimate("accuracy")
    if auc.value is None or (auc.low == auc.high and accuracy.low is not None):
        return "accuracy", accuracy
    if scored.num_classes <= 2:
        return "AUC", auc
    return f"mean AUC {fewer}" if (fewer := over_fewer(auc)) else "mean AUC", auc


def missing_checks(material: Material, scored: Scored | None) -> list[str]:
    """What was not looked at, in words."""
    measured = {
        text_in(row, "name")
        for row in dicts_in(material.own_crossval, "rows")
        if number_in(row, "f1", "value") is not None or number_in(row, "auc", "value") is not None
    }
    own = text_in(material.summary, "conversion_id")
    others = {text_in(found.content, "conversion_id") for found in material.evaluations} - {"", own}
    checks = {
        "a set that training never saw": scored is not None and not may_be_leaked(scored),
        "where the model looks": any(is_told(explained.content) for explained in material.explanations),
        "shortcuts in the collection": material.probes is not None and bool(material.probes.probes),
        "cross-validation": "group split" in measured,
        "hidden lungs": "lungs hidden" in measured,
        "another collection": bool(own and others) or "external beton" in measured,
    }
    return [name for name, done in checks.items() if not done]


def is_told(explanation: dict[str, Any]) -> bool:
    """Whether an explanation tells where the model looks."""
    return answer(explanation) != "unknown"


def how_good(scored: Scored | None, red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """The first sentence."""
    if scored is None:
        return (
            "That is not known: it has been tested on no radiograph that training did not see, and the "
            "validation score, by which it was chosen, is no evidence."
        )
    lead = red_flags[0].effect if red_flags else "Not all that could fool it was looked for" if unchecked else ""
    measured = score_words(scored)
    return f"{lead}: {measured}." if lead else f"{upper_first(measured)}."


def score_words(scored: Scored) -> str:
    """What was measured, and what always answering the largest class would reach."""
    content = scored.content
    noun = "phantom" if content.get("synthetic") is True else "radiograph"
    number = count_in(content, "num_samples")
    of = f"on {counted(number, noun)} ({scored.name})" if number is not None else f"on {scored.name}"
    of += "" if may_be_leaked(scored) else ", which training never saw,"
    if unshown(scored):
        always = f"always answering {largest_class(scored)}"
        return f"{of} it was not shown to be better than {always} ({headline_words(scored)})"
    names = content.get("classes")
    if isinstance(names, list) and len(names) == 2:
        positive = text_in(content, "positive") or str(names[0])
        finds, clears = scored.estimate("sensitivity"), scored.estimate("specificity")
        said = f"it finds {share_words(finds)} of {positive} and clears {share_words(clears)} of the others"
        trivial = "finds all and clears none" if largest_class(scored) == positive else "finds none"
    else:
        right, f1 = scored.estimate("accuracy"), scored.estimate("f1")
        over = f" {fewer}" if (fewer := over_fewer(f1)) else ""
        said = f"it is right for {share_words(right)}, with a macro F1 of {plain_text(f1.value, 2)}{over}"
        trivial = f"is right for {share_text(scored.trivial('accuracy').value)}"
    return f"{of} {said}; always answering {largest_class(scored)} {trivial}"


def over_fewer(found: Measured) -> str:
    """Over how many classes a mean is, where it leaves classes out."""
    return over_words(found.defined, found.classes) if found.defined != found.classes else ""


def share_words(found: Measured) -> str:
    """A share and where its interval begins."""
    begins = f" (interval from {share_text(found.low)})" if found.low is not None else ""
    return f"{share_text(found.value)}{begins}" if found.value is not None else "an unknown share"


def headline_words(scored: Scored) -> str:
    """The headline with its interval."""
    name, found = headline(scored)
    interval = interval_text(found, share=False)
    return f"{name} {plain_text(found.value)}{f', interval {interval}' if interval else ''}"


def unshown(scored: Scored) -> bool:
    """Whether it may be no better than guessing."""
    auc, accuracy, trivial = scored.estimate("auc"), scored.estimate("accuracy"), scored.trivial("accuracy").value
    if auc.value is not None and (auc.low is not None or accuracy.low is None):
        return (auc.low if auc.low is not None else auc.value) <= 0.5
    end = accuracy.low if accuracy.low is not None else accuracy.value
    return end is None or trivial is None or end <= trivial


def largest_class(scored: Scored) -> str:
    """The name of the commonest class in the set."""
    place, names = number_in(scored.content, "largest_class", "class"), scored.content.get("classes")
    if isinstance(names, list) and place is not None and 0 <= place < len(names):
        return str(names[int(place)])
    counts = class_counts(scored)
    return max(counts, key=lambda name: counts[name]) if counts else "the largest class"


def how_sure(material: Material, scored: Scored | None) -> str:
    """The second sentence."""
    if scored is None:
        return "That is not known either: without a test set there is no interval."
    groups = count_in(scored.content, "num_groups")
    name, found = headline(scored)
    few = {label: number for label, number in class_counts(scored).items() if number < FEWEST_POSITIVES}
    parts = []
    if found.low is None or found.high is None:
        parts.append("That is not known: no interval was computed")
    else:
        unsure = found.high - found.low > WIDE or bool(few) or rests_on_few_groups(scored)
        of = f", by {counted(groups, 'group')}," if groups is not None else ""
        parts.append(
            f"{'Not very sure' if unsure else 'Sure within limits'}: the 95 % interval of the {name}{of} runs from "
            f"{plain_text(found.low)} to {plain_text(found.high)}"
        )
    if few:
        label = min(few, key=lambda label: few[label])
        parts.append(f"it rests on {counted(few[label], 'image')} of {label}")
    parts.append(spread_words(material))
    return "; ".join(parts) + "."


def spread_words(material: Material) -> str:
    """What other splits gave."""
    row = next((row for row in dicts_in(material.own_crossval, "rows") if text_in(row, "name") == "group split"), {})
    f1 = measured_in(dict_in(row, "f1"))
    if f1.value is None:
        return "this is one training on one split, and another may differ by more than the interval says"
    spread = number_in(row, "spread")
    by = f", with a spread of {plain_text(spread, 2)} between folds" if spread is not None else ""
    between = f" ({interval_text(f1, share=False, digits=2)})" if f1.low is not None and f1.high is not None else ""
    return f"cross-validation by groups gives F1 {plain_text(f1.value, 2)}{between}{by}"


def what_could_fool(red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """The third sentence."""
    missing = f"not looked at: {listed(unchecked)}" if unchecked else ""
    if not red_flags:
        found = "Nothing that was looked for was found, which does not prove that nothing could fool it"
        return f"{found}; {missing}." if missing else f"{found}."
    named = "; ".join(flag.finding for flag in red_flags[:MOST_NAMED])
    more = len(red_flags) - MOST_NAMED
    parts = [named, f"and {counted(more, 'further red flag')}, listed in the report" if more > 0 else "", missing]
    return f"{upper_first('; '.join(part for part in parts if part))}."
