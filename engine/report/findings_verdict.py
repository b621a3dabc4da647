"""The verdict on a run of findings in three plain sentences: over how many, which is weakest, what could fool it."""

from collections.abc import Iterator, Sequence

from engine.evaluate.findings import FindingResult
from engine.hurdles.matrix import headline_drop
from engine.report.red_flags import (
    MOST_FEW,
    SMALL_GROUP,
    RedFlag,
    caution_flags,
    crossval_flags,
    hurdle_flags,
    may_be_leaked,
    rests_on_few_groups,
)
from engine.report.results import EvaluatedFindings, RunResults, listed, upper_first
from engine.report.verdict import (
    NOT_TESTED,
    WIDE,
    Verdict,
    least_favourable,
    missing_checks,
    sources_of_doubt,
    spread_text,
    what_could_fool,
    where_tested,
)
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import interval_text, short_name, value_text
from engine.statistics.thresholds import LEAST_POSITIVES
from loaders.cautions import Gravity
from loaders.output import counted

WIDEST = 0.2  # of an AUC's interval that still tells a useful ranking from a poor one


def judge_findings(results: RunResults) -> Verdict:
    """The verdict, a function of what lies in the run folder.

    Which set: as of classes, by the mean AUC.

    How good: the mean AUC over the findings that are measured, the weakest (with the lowest lower end of its AUC) and
    the best founded (with the narrowest interval).  A finding's score is worth having if at least 59 images have it and
    at least 59 do not, and its AUC's interval is at most 0.2 wide.  Where fewer than half of the findings have such a
    score there is no mean, and where none has, no number at all.  It never calls a score good.

    How sure: as of classes, and how many findings rest on fewer than 59 images that have them.

    What could fool it: the red flags below, gravest first, and which checks were not made.
    """
    tested = least_favourable(results.tested_findings)
    red_flags = find_red_flags(results, tested)
    unchecked = missing_checks(results, tested)
    return Verdict(
        how_good=how_good(tested, red_flags, unchecked),
        how_sure=how_sure(results, tested),
        what_could_fool=what_could_fool(red_flags, unchecked),
        state="flagged" if red_flags else "unchecked" if unchecked else "held",
        red_flags=tuple(red_flags),
        unchecked=tuple(unchecked),
    )


def auc_of(found: FindingResult) -> Estimate:
    """A finding's AUC."""
    return found.estimates.get("auc", UNDEFINED)


def is_worth_having(found: FindingResult) -> bool:
    """Whether a finding's score says something of it."""
    auc, fewest = auc_of(found), min(found.num_present, found.num_known - found.num_present)
    return auc.low is not None and auc.high is not None and auc.high - auc.low <= WIDEST and fewest >= LEAST_POSITIVES


def by_need(findings: Sequence[FindingResult]) -> list[FindingResult]:
    """The findings, those that need attention first: not measured, not worth having, then by the AUC's lower end."""

    def need(found: FindingResult) -> tuple[int, float]:
        if found.refused:
            return 0, found.num_present
        low = auc_of(found).low
        return 1 + is_worth_having(found), 0.0 if low is None else low

    return sorted(findings, key=need)


# ---- the sentences


def how_good(tested: EvaluatedFindings | None, red_flags: list[RedFlag], unchecked: list[str]) -> str:
    """The first sentence."""
    if tested is None:
        return NOT_TESTED
    findings, where = tested.metrics.findings, where_tested(tested)
    worth = [found for found in by_need(findings) if is_worth_having(found)]
    if not worth:
        return f"No score here is worth having: {where} {why_worthless(findings)}."
    if 2 * len(worth) < len(findings):
        few = f"Only {len(worth)} of {counted(len(findings), 'finding')} {'has' if len(worth) == 1 else 'have'}"
        return f"{few} a score worth having: {where} {extremes(worth)}."
    lead, mean = sources_of_doubt(red_flags, unchecked), tested.estimate("auc")
    of = f"the mean AUC over {mean.defined} of {counted(len(findings), 'finding')}"
    if len(findings) == 1:
        measured = extremes(worth)
    elif mean.low is None or mean.low <= 0.5:
        measured = f"{of} was not shown to be better than guessing ({auc_text(mean)})"
    else:
        measured = f"{of} is {auc_text(mean)}, where 0.5 is guessing; {extremes(worth)}"
    unshown = [found.name for found in findings if is_worth_having(found) and (auc_of(found).low or 0) <= 0.5]
    if unshown and len(findings) > 1:
        measured += (
            f"; {some_of(unshown)} {'was' if len(unshown) == 1 else 'were'} not shown to be better than guessing"
        )
    return f"{lead}: {where} {measured}." if lead else f"{upper_first(where)} {measured}."


def why_worthless(findings: Sequence[FindingResult]) -> str:
    """Why no finding's score is worth having."""
    refused, total = sum(found.refused is not None for found in findings), counted(len(findings), "finding")
    measured = len(findings) - refused
    parts = [f"{refused} of {total} could not be measured, since too few patients are known to have them, or not to"]
    rest = "the other rests" if measured == 1 else f"the other {measured} rest"
    alone = "its score rests" if measured == 1 else f"all {measured} findings rest"
    why = f"on fewer than {LEAST_POSITIVES} images with or without it, or on an interval wider than {WIDEST}"
    if not refused:
        return f"{alone} {why}"
    return "; ".join([*parts, f"{rest} {why}"] if measured else parts)


def extremes(worth: Sequence[FindingResult]) -> str:
    """The weakest finding and the best founded, of those whose scores are worth having, the weakest first."""

    def text(found: FindingResult) -> str:
        return f"{auc_text(auc_of(found))}, present in {found.num_present:,} of {found.num_known:,} known"

    weakest, best = worth[0], min(worth, key=lambda found: (auc_of(found).high or 1) - (auc_of(found).low or 0))
    if len(worth) == 1:
        return f"the AUC of {weakest.name} is {text(weakest)}"
    if weakest is best:
        return f"the weakest, which is also the best founded, is {weakest.name} with {text(weakest)}"
    return f"the weakest is {weakest.name} with {text(weakest)}, and the best founded {best.name} with {text(best)}"


def auc_text(found: Estimate) -> str:
    """An AUC and its interval."""
    between = "no interval" if found.low is None else f"interval {interval_text('auc', found)}"
    return f"{value_text('auc', found.value)} ({between})"


def some_of(names: Sequence[str]) -> str:
    """The first of some findings, and how many more there are."""
    rest = len(names) - MOST_FEW
    return listed([*names[:MOST_FEW], f"{rest} more"] if rest > 0 else list(names))


def how_sure(results: RunResults, tested: EvaluatedFindings | None) -> str:
    """The second sentence."""
    if tested is None:
        return "That is not known either: without a test set there is no interval."
    findings, mean = tested.metrics.findings, tested.estimate("auc")
    few = [found for found in findings if not found.refused and found.num_present < LEAST_POSITIVES]
    parts = []
    worth, total = sum(map(is_worth_having, findings)), counted(len(findings), "finding")
    if not worth:
        parts.append("Not sure at all: more films of known findings are needed before any number means something")
    elif 2 * worth < len(findings):
        parts.append(f"Not very sure: {len(findings) - worth} of {total} have no score worth having")
    elif mean.low is None or mean.high is None:
        parts.append("That is not known: no interval was computed")
    else:
        refused = any(found.refused for found in findings)
        which = "AUC" if len(findings) == 1 else f"mean AUC over {mean.defined} of {total}"
        unsure = mean.high - mean.low > WIDE or bool(few) or refused or rests_on_few_groups(tested)
        parts.append(
            f"{'Not very sure' if unsure else 'Sure within limits'}: the 95 % interval of the {which}, by "
            f"{counted(tested.metrics.num_groups, 'group')}, runs from {interval_text('auc', mean)}"
        )
    if few:
        rarest = min(few, key=lambda found: found.num_present)
        on = f"on fewer than {LEAST_POSITIVES} images{'' if len(few) == 1 else ' each'}"
        verb = "rests" if len(few) == 1 else "rest"
        parts.append(f"{counted(len(few), 'finding')} {verb} {on}, {rarest.name} on {rarest.num_present:,}")
    return "; ".join([*parts, spread_text(results)]) + "."


# ---- red flags


def find_red_flags(results: RunResults, tested: EvaluatedFindings | None) -> list[RedFlag]:
    """Everything found that could explain the scores without the findings, gravest first.

    As of classes, but by finding: the maps outside the lungs, probes that alarm, findings that fall on another
    collection or in a subgroup, that are known of too few patients, or rest on few images.
    """
    rules = (
        caution_flags, crossval_flags, hidden_flags, hurdle_flags, dropped_flags, lung_flags, probe_flags,
        external_flags, few_known_flags, subgroup_flags,
    )  # fmt: skip
    found = [flag for rule in rules for flag in rule(results, tested)]
    return sorted(found, key=lambda flag: flag.gravity)


def lung_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings whose maps lie outside the lungs."""
    for explained in results.explained_findings:
        outside = [found.name for found in explained.explanation.findings if found.region == "outside"]
        if outside:
            yield RedFlag(
                gravity=Gravity.LUNGS,
                effect="Some of these scores need not come from the lungs",
                finding=f"for {some_of(outside)} the model relies on what lies outside the lungs",
            )
            return


def probe_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings that probes predict which are shown little or nothing of them."""
    audit = results.findings_probes.audit if results.findings_probes else None
    alarms = sorted((probe for probe in audit.probes if probe.alarm), key=lambda probe: -probe.auc) if audit else []
    if alarms:
        best, names = alarms[0], list(dict.fromkeys(probe.finding for probe in alarms))
        yield RedFlag(
            gravity=Gravity.PROBES,
            effect="Some of these scores need not come from the finding",
            finding=f"probes predict {some_of(names)} from little or nothing of the finding (at best {best.finding} by "
            f"{best.probe}, AUC {value_text('auc', best.auc)})",
        )


def hidden_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings that cross-validation predicts with the lungs hidden, where their mean does not already show it."""
    hidden = results.own_crossval.target("lungs-hidden") if results.own_crossval else None
    names = [found.name for found in hidden.findings if (found.auc.estimate.low or 0) > 0.5] if hidden else []
    if hidden and names and (hidden.auc.estimate.low or 0) <= 0.5:
        yield RedFlag(
            gravity=Gravity.CROSSVAL,
            effect="Some of these scores need not come from the lungs",
            finding=f"with the lungs hidden, cross-validation still predicts {some_of(names)}",
        )


def dropped_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings that drop on another collection of the hurdles, where their mean does not already show it."""
    for cell in results.away_cells:
        names = [found.name for found in cell.findings if (found.drop.get("auc", UNDEFINED).low or 0) > 0]
        if names and not any((headline_drop(one).low or 0) > 0 for one in results.away_cells):
            yield RedFlag(
                gravity=Gravity.CROSSVAL,
                effect="Some of these scores do not hold on another collection",
                finding=f"networks trained on the same films fall on {cell.column} in {some_of(names)}",
            )
            return


def external_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings whose whole AUC interval on an external set lies below that on the run's own."""
    own = [found for found in results.tested_findings if found.metrics.collection == "own" and not may_be_leaked(found)]
    homes = {found.name: auc_of(found) for one in own[:1] for found in one.metrics.findings}
    for away in results.tested_findings:
        fallen = [
            f"{found.name} from {value_text('auc', home.value)} to {value_text('auc', auc_of(found).value)}"
            for found in by_need(away.metrics.findings)
            for home in [homes.get(found.name, UNDEFINED)]
            if away.metrics.collection == "external" and is_below(auc_of(found), home)
        ]
        if fallen:
            yield RedFlag(
                gravity=Gravity.CROSSVAL,
                effect="Some of these scores do not hold on another collection",
                finding=f"on the external set {away.name} the AUC falls, of {some_of(fallen)}",
            )
            return


def is_below(first: Estimate, second: Estimate) -> bool:
    """Whether the whole interval of the first lies below that of the second."""
    return first.high is not None and second.low is not None and first.high < second.low


def few_known_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """Findings that are not measured, and those that fewer than 59 images have."""
    findings = tested.metrics.findings if tested else []
    if refused := [found.name for found in by_need(findings) if found.refused]:
        yield RedFlag(
            gravity=Gravity.FEW_IMAGES,
            effect="Some findings have no score",
            finding=f"too few patients are known to have {some_of(refused)}, or not to",
        )
    few = [found for found in findings if not found.refused and found.num_present < LEAST_POSITIVES]
    if few:
        rarest = sorted(few, key=lambda found: found.num_present)
        yield RedFlag(
            gravity=Gravity.FEW_IMAGES,
            effect="Some of these scores rest on few images",
            finding=f"too few images: {some_of([f'{found.num_present:,} of {found.name}' for found in rarest])}, fewer "
            f"than {LEAST_POSITIVES}, so that a sensitivity above 95 % could not be shown even if none were missed",
        )


def subgroup_flags(results: RunResults, tested: EvaluatedFindings | None) -> Iterator[RedFlag]:
    """The finding whose AUC in a subgroup lies wholly, and furthest, below that of the set."""
    worse = [
        (auc.value or 0.0, found, part, auc)
        for found in (tested.metrics.findings if tested else [])
        for part in found.subgroups
        for auc in [part.estimates.get("auc", UNDEFINED)]
        if part.num_samples >= SMALL_GROUP and is_below(auc, auc_of(found))
    ]
    if worse:
        _, found, part, auc = min(worse, key=lambda item: item[0])
        more = len({found.name for _, found, _, _ in worse}) - 1
        rest = (
            f"; {counted(more, 'further finding')} {'falls' if more == 1 else 'fall'} in a subgroup, too"
            if more
            else ""
        )
        yield RedFlag(
            gravity=Gravity.SUBGROUP,
            effect="Some of these scores do not hold everywhere",
            finding=f"for {part.kind} {part.name or 'unknown'} the {short_name('auc')} of {found.name} is only "
            f"{value_text('auc', auc.value)} ({interval_text('auc', auc)}){rest}",
        )
