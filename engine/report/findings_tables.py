"""The tables of the page of a run of findings: one row a finding, those first that need attention."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.crossval.scores import Crossval, FindingTarget
from engine.evaluate.dataflow import FindingsFlow
from engine.evaluate.findings import FindingResult
from engine.evaluate.results import SubgroupResult
from engine.explain.by_finding import FEW, FindingExplanation
from engine.explain.lungs import IN_BRIEF
from engine.hurdles.results import FindingCell
from engine.report.findings_verdict import auc_of, by_need, is_below, is_worth_having
from engine.report.red_flags import SMALL_GROUP
from engine.report.results import EvaluatedFindings, ExplainedFindings, RunResults
from engine.report.tables import Cell, make_cell
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import CALIBRATION, difference_texts, metric_of, value_text
from loaders.audit.findings import FindingProbe
from loaders.sources.findings import policy_lines as policy_lines  # for the page

MACRO = ("auc", "pr_auc", "f1", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "accuracy")
DIFFERENCES = ("auc", "f1", "sensitivity", "specificity")


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A short cell.  alarm: it needs attention.  small: what stands below it."""

    text: str
    small: str = ""
    alarm: bool = False


NOTHING = Note(text="–")


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingRow:
    """One finding in the table of a set.  standing: why its score is not worth having, or ""."""

    found: FindingResult
    standing: str
    auc: Cell
    sensitivity: Cell
    specificity: Cell
    lungs: Note
    probe: Note
    elsewhere: Note


def finding_rows(results: RunResults, tested: EvaluatedFindings, own: bool) -> list[FindingRow]:
    """The findings of a set, those that need attention first.  own: the set is of the run's own conversion."""
    explained = {found.name: found for found in explanations_of(results.explained_findings, tested.name)}
    audit = results.findings_probes.audit if results.findings_probes and own else None
    alarms = defaultdict[str, list[FindingProbe]](list)
    for probe in audit.probes if audit else []:
        alarms[probe.finding].append(probe)
    away = elsewhere(results, tested)
    return [
        FindingRow(
            found=found,
            standing="not measured" if found.refused else "" if is_worth_having(found) else "too few, or too uncertain",
            auc=make_cell("auc", auc_of(found), Estimate(value=0.5, low=None, high=None, method="")),
            sensitivity=make_cell("sensitivity", found.estimates.get("sensitivity", UNDEFINED)),
            specificity=make_cell("specificity", found.estimates.get("specificity", UNDEFINED)),
            lungs=lung_note(explained.get(found.name)),
            probe=probe_note(alarms[found.name]),
            elsewhere=away_note(auc_of(found), away.get(found.name, [])),
        )
        for found in by_need(tested.metrics.findings)
    ]


def explanations_of(explained: Sequence[ExplainedFindings], name: str) -> Iterator[FindingExplanation]:
    """The findings explained on one set."""
    for one in explained:
        if one.name == name:
            yield from one.explanation.findings


def lung_note(found: FindingExplanation | None) -> Note:
    """Where the evidence for a finding lies."""
    if found is None or not found.num_predicted:
        return NOTHING
    if found.distrust:
        reason = "too few patients" if found.distrust.code in FEW else "a control failed"
        return Note(text=IN_BRIEF["unknown"], small=reason)
    if found.lungs is None:
        return Note(text=IN_BRIEF["unknown"], small="the lungs alone are shown")
    ratio = value_text("lung_ratio", found.lungs.ratio.value)
    return Note(
        text=ratio, small={"unknown": "undecided"}.get(found.region, found.region), alarm=found.region == "outside"
    )


def probe_note(probes: Sequence[FindingProbe]) -> Note:
    """The probe that predicts a finding best of those that raise the alarm, or how many do not."""
    alarms = sorted((probe for probe in probes if probe.alarm), key=lambda probe: -probe.auc)
    if not alarms:
        return Note(text="none", small=f"of {len(probes)}") if probes else NOTHING
    more = f", and {len(alarms) - 1} more" if len(alarms) > 1 else ""
    return Note(text="alarm", small=f"{alarms[0].probe} {value_text('auc', alarms[0].auc)}{more}", alarm=True)


def elsewhere(results: RunResults, tested: EvaluatedFindings) -> dict[str, list[tuple[str, Estimate]]]:
    """Each finding's AUC elsewhere, by the name of the set or collection: on other external sets, and in the hurdles'
    row of the run's own conversion.
    """
    found = defaultdict[str, list[tuple[str, Estimate]]](list)
    for other in results.tested_findings:
        if other.metrics.collection == "external" and other.name != tested.name:
            for one in other.metrics.findings:
                found[one.name].append((other.name, auc_of(one)))
    for cell in results.away_cells:
        for away in cell.findings:
            found[away.name].append((cell.column, away.estimates.get("auc", UNDEFINED)))
    return found


def away_note(home: Estimate, away: Sequence[tuple[str, Estimate]]) -> Note:
    """The lowest AUC elsewhere."""
    measured = [(auc.value, name, auc) for name, auc in away if auc.value is not None]
    if not measured:
        return NOTHING
    value, name, auc = min(measured, key=lambda item: item[0])
    return Note(text=value_text("auc", value), small=name, alarm=is_below(auc, home))


# ---- the other tables


def macro_rows(tested: EvaluatedFindings) -> list[tuple[str, str, Cell]]:
    """The means over findings: key, name and cell."""
    keys = [key for key in MACRO if tested.estimate(key).value is not None]
    return [(key, metric_of(key).name, make_cell(key, tested.estimate(key))) for key in keys]


def point_names(tested: EvaluatedFindings) -> list[str]:
    """The operating points that any finding has."""
    return list(dict.fromkeys(point.name for found in tested.metrics.findings for point in found.operating_points))


def calibration_keys(tested: EvaluatedFindings) -> list[str]:
    """The measures of calibration that any finding has."""
    return [key for key in CALIBRATION if any(key in found.estimates for found in tested.metrics.findings)]


def worst_parts(tested: EvaluatedFindings) -> list[tuple[FindingResult, SubgroupResult]]:
    """Each finding's subgroup with the lowest AUC, of those that have one and are not small."""
    found = []
    for one in by_need(tested.metrics.findings):
        parts = [part for part in one.subgroups if part.num_samples >= SMALL_GROUP]
        ranked = [(part.estimates.get("auc", UNDEFINED).value, place) for place, part in enumerate(parts)]
        known = [(value, place) for value, place in ranked if value is not None]
        if known:
            found.append((one, parts[min(known)[1]]))
    return found


def difference_rows(tested: EvaluatedFindings) -> list[tuple[str, list[tuple[str, str]]]]:
    """What this run does better or worse than another, of the mean and then of each finding: value and interval."""
    rows = [("mean over findings", tested.metrics.macro_difference)]
    rows += [(found.name, found.difference) for found in by_need(tested.metrics.findings)]
    return [
        (name, [difference_texts(key, found.get(key, UNDEFINED)) for key in DIFFERENCES])
        for name, found in rows
        if found
    ]


def crossval_rows(crossval: Crossval) -> list[tuple[FindingTarget, list[FindingTarget | None]]]:
    """Each finding on the first target, and on each in order, None where there is none; the lowest first."""
    of_target = [{found.name: found for found in target.findings} for target in crossval.targets]
    first = of_target[0].values() if of_target else []

    def need(found: FindingTarget) -> tuple[bool, float]:
        low = found.auc.estimate.low
        return low is not None, 0.0 if low is None else low

    return [(found, [others.get(found.name) for others in of_target]) for found in sorted(first, key=need)]


def hurdle_rows(results: RunResults) -> tuple[list[str], list[tuple[str, list[FindingCell | None]]]]:
    """The hurdles' row of the run's own conversion by finding: columns, home first, and each finding's cells."""
    if results.hurdles is None or results.own_row is None:
        return [], []
    home = results.hurdles.home(results.own_row.name)
    cells = [home, *results.away_cells]
    of_cell = [{found.name: found for found in cell.findings} for cell in cells]
    rows = [(found.name, [others.get(found.name) for others in of_cell]) for found in home.findings]
    return ["at home", *(cell.column for cell in results.away_cells)], rows


def flow_rows(flow: FindingsFlow, order: Sequence[str]) -> list[tuple[str, int]]:
    """The findings of a data flow with their places: those of the run in its order, then the others."""
    ranked = sorted(flow.names, key=lambda name: (name not in order, order.index(name) if name in order else 0))
    return [(name, flow.names.index(name)) for name in ranked]
