"""What documents quote of honest evaluation: cross-validation, hurdles, copies, as text from stored results."""

import textwrap
from typing import Any

import msgspec

from benchmarks.audit.outcome import count_text
from benchmarks.provenance import circumstances
from benchmarks.table import NOT_MEASURED, markdown
from engine.crossval.controls import beyond_outline
from engine.crossval.output import TARGETS, shown_targets
from engine.crossval.scores import METRICS as AWAY
from engine.crossval.scores import Crossval, OverFolds, TargetResult
from engine.hurdles.results import SHOWN, Hurdles
from engine.segmentation.test import KINDS, SegmentationResult
from engine.statistics.names import difference_texts, short_name, size_text, value_text, with_interval
from loaders.output import number_text

HURDLE_STUDIES = {  # study of `make bench-hurdles` → what it trains on and what else it tests on
    "shortcut": ("phantoms, arms follow the class, no finding", "arms at random"),
    "finding": ("phantoms with a finding, no shortcut", "others of the kind"),
    "two": ("radiographs, two classes", "Actualmed and Figure1"),
    "three": ("radiographs, three classes", "Actualmed and Figure1"),
}

LUNG_SEGMENTERS = {"shipped": "masks by the shipped segmenter", "phantoms": "by one that learnt from phantoms alone"}
LUNG_ANSWERS = {"more": "show more", "none": "no evidence", "unknown": "cannot be told"}
OUTLINE_MEANINGS = {
    "more": "what lies in the lungs adds to that, be it disease or equipment",
    "none": "lungs alone are no evidence, either",
    "unknown": "whether what lies in the lungs adds to that cannot be told",
}
LUNG_ROWS = ("lungs-only", "silhouette", "boxed", "boxed-silhouette")  # of films with a credible mask
LUNG_STUDIES = {"shortcut": "arms follow the class, no finding", "finding": "a finding, no shortcut"}


def crossval_table(results: dict[str, dict[str, Any]]) -> str:
    """For docs/EVALUATION.md: the newest cross-validations of real radiographs, of two and of three classes."""
    studies = honest_study(results, "two"), honest_study(results, "three")
    shown = [target for target in TARGETS if any(target in shown_targets(study) for study in studies)]
    controls = {row.target: row.num_samples for row in studies[0].targets if row.target in LUNG_ROWS}
    names = [TARGETS[one] + (f" (n = {controls[one]})" if one in controls else "") for one in shown]
    head, body = ["tested by"], [[name] for name in (*names, 'always "normal"')]
    for study in studies:
        score = "F1" if len(study.classes) == 2 else "macro F1"
        size = f"n = {study.num_samples} of {study.num_groups} groups"
        head += [f"{', '.join(study.classes)}; {size}: {score}", "ROC-AUC", "accuracy"]
        for cells, target in zip(body, shown, strict=False):
            cells += [interval_cell(study.target(target), metric) for metric in ("f1", "auc", "accuracy")]
        trivial = study.trivial
        body[-1] += [f"{trivial.f1:.3f}", f"{trivial.auc:.1f}", f"{100 * (trivial.accuracy or 0):.1f} %"]
    return "\n".join(markdown([tuple(head), *map(tuple, body)]))


def crossval(results: dict[str, dict[str, Any]], classes: str) -> Crossval:
    """The newest cross-validation of so many classes."""
    name = max(name for name in results if name.endswith(f"crossval-{classes}-classes.json"))
    return msgspec.convert(results[name], Crossval)


def hurdles_of(results: dict[str, dict[str, Any]], study: str) -> Hurdles | None:
    """What `make bench-hurdles` found in one of its studies."""
    stored = results.get("hurdles.json", {}).get(study)
    return msgspec.convert(stored["result"], Hurdles) if stored else None


def honest_study(results: dict[str, dict[str, Any]], classes: str) -> Crossval:
    """The newest cross-validation of so many classes, that of the lungs alone, and that on another collection."""
    study, found = crossval(results, classes), hurdles_of(results, classes)
    controls = [name for name in results if name.endswith(f"crossval-{classes}-controls.json")]
    if controls:
        of_lungs = msgspec.convert(results[max(controls)], Crossval).targets
        study = msgspec.structs.replace(study, targets=[*study.targets, *of_lungs])
    if found is None:
        return study
    (away,) = found.away(found.rows[0].name)
    values = {name: [one.values[name] for one in away.networks] for name in AWAY}
    row = TargetResult(
        target="external",
        num_samples=away.num_samples,
        num_groups=away.num_groups,
        confusion=[],
        **{
            name: OverFolds(estimate=away.estimates[name], mean=away.estimates[name].value, spread=None, folds=folds)
            for name, folds in values.items()
        },
    )
    return msgspec.structs.replace(study, targets=[*study.targets, row])


def hurdle_lines(results: dict[str, dict[str, Any]]) -> str:
    """For docs/EVALUATION.md: the matrices of `make bench-hurdles`."""
    stored = results.get("hurdles.json")
    if stored is None:
        return NOT_MEASURED
    rows: list[tuple[str, ...]] = [
        ("trained on", "tested on", "films (groups)", *map(short_name, SHOWN), "drop of the ROC-AUC")
    ]
    for name, (trained, tested) in HURDLE_STUDIES.items():
        found = hurdles_of(results, name)
        assert found is not None, "a stored result has every study"
        for cell in found.cells:
            counts = zip(found.classes, cell.class_counts, strict=True)
            size = f"{', '.join(f'{count} {label}' for label, count in counts)} ({cell.num_groups})"
            values = (with_interval(key, cell.estimates[key]) for key in SHOWN)
            drop = difference_texts("auc", cell.drop["auc"]) if cell.drop else ("", "")
            where = tested if cell.place == "away" else "home"
            rows.append((trained, where, size, *values, f"{drop[0]} ({drop[1]})" if cell.drop else ""))
    at = [f"{one['provenance']['commit'][:7]} ({one['provenance']['date'][:10]})" for one in stored.values()]
    text = (
        f"{found.folds} folds, {found.seeds} seeds: means over {found.rows[0].num_networks} networks, each scored "
        f"alone, with 95 % intervals over groups. Commits {', '.join(dict.fromkeys(at))}. The last: "
        f"{circumstances(stored[name]['provenance'])}"
    )
    return "\n".join([*markdown(rows), "", textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)])


def lung_lines(results: dict[str, dict[str, Any]]) -> str:
    """For docs/EVALUATION.md: what `make bench-lungs` found, part by part."""
    stored = results.get("lungs.json")
    if stored is None:
        return NOT_MEASURED
    lines, rows = [], list[tuple[str, ...]]()
    if "dice" in stored:
        test = msgspec.convert(stored["dice"]["result"], SegmentationResult)
        rows = [("masks", *(f"mean {short_name(metric)}" for metric in test.scores))]
        rows += [
            (kind, *(with_interval(metric, test.scores[metric][kind]) for metric in test.scores)) for kind in KINDS
        ]
        worst = (
            f"n = {size_text(test.num_films, test.num_groups, 'film')}; the worst: {value_text('dice', test.worst)}."
        )
        lines += [*markdown(rows), "", worst, ""]
    if "controls" in stored:
        found = {name: msgspec.convert(one, Crossval) for name, one in stored["controls"]["result"].items()}
        rows = [("tested by", *(f"ROC-AUC, {LUNG_SEGMENTERS[name]}" for name in found))]
        for target in TARGETS:
            cells = [study.target(target) for study in found.values()]
            if any(cells):
                shown = (with_interval("auc", cell.auc.estimate) if cell else "not measured" for cell in cells)
                rows.append((TARGETS[target], *shown))
        for target in ("lungs-only", "boxed"):
            cells = [study.target(target) for study in found.values()]
            answers = [LUNG_ANSWERS[beyond_outline(cell)] if cell else "not measured" for cell in cells]
            rows.append((f"{TARGETS[target]} beside their outline", *answers))
        sizes = " and ".join(str(study.num_samples) for study in found.values())
        lines += [*markdown(rows), "", f"n = {sizes} films with a credible mask.", ""]
    if "hurdles" in stored:
        rows = [("lungs", "ROC-AUC at home", "on another collection", "drop")]
        for mode, one in stored["hurdles"]["result"].items():
            study = msgspec.convert(one, Hurdles)
            (away,) = study.away(study.rows[0].name)
            home = study.home(study.rows[0].name)
            drop = difference_texts("auc", away.drop["auc"])
            shown = (with_interval("auc", cell.estimates["auc"]) for cell in (home, away))
            rows.append((mode, *shown, f"{drop[0]} ({drop[1]})"))
        lines += [*markdown(rows), ""]
    if "cover" in stored:
        rows = [("lungs-hidden's region, of", "hides of the frame", "covers of true lungs", "least", "true masks")]
        for name, one in stored["cover"]["result"].items():
            shares = (f"{100 * one[key]:.1f} %" for key in ("share", "cover", "least"))
            rows.append((name, *shares, str(one["films"])))
        lines += [*markdown(rows), ""]
    rows = [("phantoms, boxed-equal", "masks", "ROC-AUC of each seed", "held-out groups")]
    for study_name in ("shortcut", "finding"):
        for way, each in stored.get(study_name, {}).get("result", {}).items():
            aucs = ", ".join(value_text("auc", one["auc"]) for one in each)
            masks = "none, whole films" if way == "whole" else way
            rows.append((LUNG_STUDIES[study_name], masks, aucs, str(min(one["groups"] for one in each))))
    lines += [*markdown(rows), ""] if len(rows) > 1 else []
    at = [f"{one['provenance']['commit'][:7]} ({one['provenance']['date'][:10]})" for one in stored.values()]
    last = list(stored.values())[-1]["provenance"]
    text = f"Commits {', '.join(dict.fromkeys(at))}. The last: {circumstances(last)}"
    return "\n".join([*lines, textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)])


def interval_cell(found: TargetResult | None, metric: str) -> str:
    """An estimate with its interval."""
    if found is None:
        return "not measured"
    estimate = getattr(found, metric).estimate
    value, low, high = estimate.value, estimate.low, estimate.high
    if metric == "accuracy":
        return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def honest_sentences(results: dict[str, dict[str, Any]]) -> str:
    """For README: what cross-validation of two classes, and another collection, found on real radiographs."""
    study, found, away = honest_study(results, "two"), hurdles_of(results, "two"), ""
    rows = {target: interval_cell(study.target(target), "f1") for target in TARGETS}
    if found:
        home, cell = found.home(found.rows[0].name), found.away(found.rows[0].name)[0]
        share = cell.class_counts[0] / cell.num_samples
        always = 2 * share / (1 + share)
        away = (
            f"On {cell.num_samples} films of another collection, which shares no source with these, the ROC-AUC falls "
            f"from {with_interval('auc', home.estimates['auc'])} to {with_interval('auc', cell.estimates['auc'])}; "
            f"F1 is {value_text('f1', cell.estimates['f1'].value)}, where always answering COVID-19 has "
            f"{value_text('f1', always)}. "
        )
    sentences = (
        f"On {study.num_samples} radiographs, COVID-19 against normal, cross-validation scores an F1 of "
        f"{rows['random']} with random folds, {rows['group']} with folds of new patients, and "
        f"{rows['lungs-hidden']} with the lungs covered in training and test. Most of the score needs no lungs, so "
        "it is no evidence of the disease: every COVID-19 image comes from another source than every normal one. "
        f"{lungs_sentence(study)}{away}"
        "[Tables](docs/EVALUATION.md)."
    )
    return textwrap.fill(sentences, 118, break_long_words=False, break_on_hyphens=False)


def lungs_sentence(study: Crossval) -> str:
    """For README: the lungs alone beside their outline; nothing where they were not measured."""
    alone, outline = study.target("lungs-only"), study.target("silhouette")
    if alone is None or outline is None:
        return ""
    return (
        f"Shown the lungs alone ({alone.num_samples} films), networks score {interval_cell(alone, 'f1')}; shown their "
        f"outline, without a pixel of the film, {interval_cell(outline, 'f1')}: "
        f"{OUTLINE_MEANINGS[beyond_outline(alone)]}. "
    )


def copy_lines(found: dict[str, Any]) -> list[str]:
    """For docs/RESULTS.md: how many planted copies were found, and what else was called one."""
    ways = [(size, way) for size, of_size in found["found"].items() for way in ("frames", "looks") if way in of_size]
    kinds = list(next(iter(found["found"].values()))["frames"]["found"])
    rows = [("size", "by", "films", *(kind.replace("-", " ") for kind in kinds))]
    for size, way in ways:
        counts = found["found"][size][way]["found"]
        for films in sorted({name for of_kind in counts.values() for name in of_kind}, reverse=True):
            cells = (f"{counts[kind][films][0]} of {counts[kind][films][1]}" for kind in kinds)
            rows.append((size, way, films, *cells))
    searched = [("looks searched", "seconds of 200 films", "peak MiB")]
    searched += [(f"{int(number):,}", f"{took:.1f}", f"{peak:.0f}") for number, (took, peak) in found["search"].items()]
    text = (
        "Copies that were found, of those planted; of other films and of films of the same patient, those that were "
        f"called copies although they are none. {circumstances(found['provenance'])}"
    )
    return [*markdown(rows), "", *markdown(searched), "", *textwrap.wrap(text, 128, break_long_words=False)]


def finding_lines(found: dict[str, Any]) -> list[str]:
    """For docs/RESULTS.md: how often the probes of findings raised an alarm, study by study."""
    rows = [("findings", "collections", "alarm of the marked finding", "of any other", "measured at")]
    for name, study in found.items():
        first = count_text(study["first"]) if study["study"]["marks"] else "no mark"
        at = f"{study['provenance']['commit'][:7]} ({study['provenance']['date'][:10]})"
        rows.append((name.replace("-", " "), str(study["family"]["trials"]), first, count_text(study["family"]), at))
    text = (
        "Alarms after the correction for all probes and findings, with exact 95 % intervals: 5 % are due without a "
        "shortcut, and all of a finding that a mark follows. Five findings of 10 to 50 % of the patients. The last: "
        f"{circumstances(study['provenance'])}"
    )
    return [*markdown(rows), "", *textwrap.wrap(text, 128, break_long_words=False, break_on_hyphens=False)]


def look_sentences(results: dict[str, dict[str, Any]]) -> str:
    """For SECURITY.md: what the best reconstruction of films from their looks shows."""
    stored = results.get("copies.json")
    if stored is None:
        return NOT_MEASURED
    found = stored["privacy"]["real"]
    of_real = {name: beyond for name, (_, beyond) in found["ways"].items()}
    best, whole = max(of_real, key=lambda name: of_real[name]), found["ways"]["mean film"][0]
    sentences = (
        f"The best reconstruction of {found['films']} real films that was tried ({best}, by a library of "
        f"{found['library']} other real films and their looks) has a correlation of "
        f"{number_text(of_real[best], 2)} with what the mean film leaves unexplained. With the whole film it has one "
        f"of {number_text(found['ways'][best][0], 2)}, where the mean film alone, which needs no look, has "
        f"{number_text(whole, 2)}: any two chests correlate. It grows with the attacker's library, and "
        "no larger one was at hand. Phantoms, drawn from few numbers, give themselves away."
    )
    return textwrap.fill(sentences, 128, break_long_words=False, break_on_hyphens=False)
