"""`make results`: docs/RESULTS.md, two pictures and the quoted figures of other documents, from stored JSON.

Nothing is measured here.  `make bench`, `make audit-quality` and others store what they measure in benchmarks/results/;
each table names the commit, the processor, the versions and the date of its file, and what missed its target comes
first.  A part of a document that is written so stands between `<!-- name -->` and `<!-- end -->`.
"""

import json
import re
import statistics
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import equivalence
from benchmarks.contest import Comparison, from_record
from benchmarks.credible_masks import mask_lines
from benchmarks.device import gpu, mps
from benchmarks.foundation import foundation_lines
from benchmarks.honesty import (
    copy_lines,
    crossval_table,
    finding_lines,
    honest_sentences,
    honest_study,
    hurdle_lines,
    hurdles_of,
    look_sentences,
    lung_lines,
)
from benchmarks.provenance import circumstances
from benchmarks.settings import RESULTS
from benchmarks.speed_picture import save_speed, speed_figure
from benchmarks.table import NOT_MEASURED, markdown, speed_table
from benchmarks.targets import (
    FILES,
    REFERENCE_128,
    REFERENCE_224,
    STEP_224,
    STEP_224_MIXED,
    TRAINING,
    place_of,
    shortfall,
    target_of,
)  # fmt: skip
from benchmarks.validation import validation_lines
from engine.crossval.output import crossval_figure
from engine.figures import png
from engine.hurdles.figure import hurdles_figure
from engine.statistics.names import short_name

DOCS = Path(__file__).parents[1] / "docs"
README, SECURITY, RESULTS_PAGE, AUDIT, EVALUATION, LUNGS, FOUNDATION = (
    DOCS.parent / "README.md", DOCS.parent / "SECURITY.md", DOCS / "RESULTS.md", DOCS / "AUDIT.md",
    DOCS / "EVALUATION.md", DOCS / "LUNGS.md", DOCS / "FOUNDATION.md",
)  # fmt: skip
PICTURE, HONEST_PICTURE = DOCS / "pictures" / "speed.png", DOCS / "pictures" / "crossval.png"
HURDLES_PICTURE = DOCS / "pictures" / "hurdles.png"
PLACE = re.compile(r"<!-- ([a-z0-9-]+) -->\n.*?<!-- end -->", re.DOTALL)
COVERAGE = (0.93, 0.97)  # of 95 % intervals
DEVICE_TARGETS = {"CUDA": gpu.TARGETS, "MPS": mps.TARGETS}

Row = tuple[str, str, str, str]  # what missed its target: part, what, found, target


def all_results() -> dict[str, dict[str, Any]]:
    """Every stored result by file name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def latest_bench(results: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """File name and content of the newest whole result of `make bench`."""
    found = {name: content for name, content in results.items() if "plainfilm" in content.get("machine_info", {})}
    return max(found.items(), key=lambda item: item[1]["machine_info"]["plainfilm"]["date"])


def comparisons_of(bench: dict[str, Any]) -> list[Comparison]:
    """The contests of a result, in the order of the table."""
    found = [from_record(one["extra_info"]) for one in bench["benchmarks"] if one["extra_info"]]
    return sorted(found, key=lambda comparison: place_of(comparison.what))


# ---- documents with parts


def filled(text: str, parts: dict[str, str]) -> str:
    """A document with each of these parts between its marks.  Errors: KeyError for marks that are not there."""
    marks = {mark[1] for mark in PLACE.finditer(text)}
    if lost := set(parts) - marks:
        raise KeyError(f"marks {', '.join(sorted(lost))}: not in the document, expected <!-- name --> … <!-- end -->")
    return PLACE.sub(
        lambda mark: f"<!-- {mark[1]} -->\n{parts[mark[1]]}\n<!-- end -->" if mark[1] in parts else mark[0], text
    )


def with_audit(text: str, stored: dict[str, Any]) -> str:
    """docs/AUDIT.md with the table, targets and circumstances of each part.  stored: by part."""
    return filled(text, {mark[1]: audit_part(stored.get(mark[1])) for mark in PLACE.finditer(text)})


def audit_part(found: dict[str, Any] | None) -> str:
    """One part of `make audit-quality`, or that it has not been measured."""
    if found is None:
        return NOT_MEASURED
    verdicts = [
        f"{'met   ' if target['met'] else 'MISSED'}  {target['what']}: {target['found']}, expected {target['expected']}"
        for target in found["targets"]
    ]
    return "\n".join(["```text", *found["lines"], *verdicts, "```", "", circumstances(found["provenance"])])


# ---- the page of results


def results_page(results: dict[str, dict[str, Any]]) -> str:
    """docs/RESULTS.md."""
    name, bench = latest_bench(results)
    missed = missed_targets(results)
    lines = [
        "# Results",
        "",
        "Written by `make results` from `benchmarks/results/*.json`, not by hand. [BENCHMARKS.md](BENCHMARKS.md) says",
        "what each contest is and how to measure again. A ratio above 1 means that plainfilm is faster.",
        "",
        "## Targets that were missed",
        "",
        *markdown([("part", "what", "found", "target"), *missed]),
        "",
        "## Speed",
        "",
        "![Ratios over rivals, on a logarithmic scale](pictures/speed.png)",
        "",
        *speed_lines(bench),
        "",
        f"From `{name}`. {circumstances(bench['machine_info']['plainfilm'])}",
        "",
    ]
    sections: tuple[tuple[str, str, Callable[[dict[str, Any]], list[str]]], ...] = (
        ("Learning as well as plain PyTorch", "equivalence.json", equivalence_lines),
        ("Which network validates", "validation.json", validation_lines),
        ("How often bench-compare errs", "trust.json", trust_lines),
        ("Coverage of the intervals", "interval_coverage.json", coverage_lines),
        ("Copies between two sets", "copies.json", copy_lines),
        ("The audit", "audit.json", audit_lines),
        ("Probes of findings", "finding_probes.json", finding_lines),
        ("The classifier of kinds", "kind.json", kind_lines),
    )
    for title, file, section in sections:
        found = results.get(file)
        lines += [f"## {title}", "", *(section(found) if found else [NOT_MEASURED]), ""]
    lines += ["## Devices", "", *device_lines(results), ""]
    lines += ["## Other stored results", "", *older_lines(results, name)]
    return "\n".join(lines).rstrip() + "\n"


def missed_targets(results: dict[str, dict[str, Any]]) -> list[Row]:
    """Everything that is below its target, or has one and was not measured."""
    rows: list[Row] = []
    for comparison in comparisons_of(latest_bench(results)[1]):
        for rival in comparison.rivals:
            target = target_of(comparison.what, rival)
            if target and shortfall(comparison.what, rival, comparison.ratio(rival)):
                rows.append(
                    (
                        "speed",
                        f"{comparison.what}, over {rival}",
                        f"{comparison.ratio(rival):.2f}",
                        f"{target.least:.3g}",
                    )
                )
    for lacking in equivalence.missed(results["equivalence.json"]) if "equivalence.json" in results else ():
        found, _, expected = lacking.partition(", expected ")
        rows.append(("learning", "bfloat16 beside float32", found, expected or "all of them"))
    if found := results.get("interval_coverage.json"):
        for metric, shares in coverage_of(found).items():
            if not all(COVERAGE[0] <= share <= COVERAGE[1] for share in shares):
                span = f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"
                rows.append(("intervals", f"coverage for {metric}", span, "93 to 97 %"))
    for part, found in results.get("audit.json", {}).items():
        for target in found["targets"]:
            if not target["met"]:
                rows.append((f"audit, {part}", target["what"], target["found"], target["expected"]))
    rows += [
        (device, target["what"], str(target["measured"] or "not measured"), target["asked"])
        for device, targets in device_targets(results).items()
        for target in targets
        if target["verdict"] != "met"
    ]
    return rows


def speed_lines(bench: dict[str, Any]) -> list[str]:
    """The contests, and what was measured beside none.  bench: pytest-benchmark's JSON."""
    lines = markdown(speed_table(comparisons_of(bench)))
    for what, found in bench["facts"].items():
        lines += ["", f"{what[:1].upper()}{what[1:]}:", "", "```text", *found, "```"]
    return lines


def equivalence_lines(found: dict[str, Any]) -> list[str]:
    """The ways to train, and their paired differences."""
    rows: list[tuple[str, ...]] = [("trained in", "seeds", "held-out ROC-AUC", "best validation F1", "epochs")]
    for way, runs in found["trainings"].items():
        means = [statistics.mean(one[key] for one in runs.values()) for key in ("auc", "f1", "epochs") if runs]
        texts = [f"{mean:.{digits}f}" for mean, digits in zip(means, (3, 3, 1), strict=bool(means))]
        rows.append((way, str(len(runs)), *(texts or ["not measured"] * 3)))
    lines = [*markdown(rows), ""]
    rows = [("paired difference", "of", f"{100 * equivalence.LEVEL:.0f} % interval of Student's t", "seeds")]
    for row in found["differences"]:
        rows.append((" less ".join(row["ways"]), short_name(row["metric"]), equivalence.points(row), str(row["seeds"])))
    where = {f"{one['commit'][:7]} on {one['cpu']}" for runs in found["trainings"].values() for one in runs.values()}
    return [*lines, *markdown(rows), "", f"Trained at {', '.join(sorted(where))}. {circumstances(found['provenance'])}"]


def trust_lines(found: dict[str, Any]) -> list[str]:
    """Counts of false alarms and of slowdowns found."""
    rows = [(one["subject"], one["what"], f"{one['fallen']} of {one['runs']}") for one in found["counts"]]
    return [*markdown([("subject", "compared", "reported as fallen"), *rows]), "", circumstances(found["provenance"])]


def coverage_of(found: dict[str, Any]) -> dict[str, list[float]]:
    """Metric → the share of intervals that contain the truth, a value a kind of study."""
    return {
        metric: [study["metrics"][metric]["covered"] for study in found["coverage"]]
        for metric in found["coverage"][0]["metrics"]
    }


def coverage_lines(found: dict[str, Any]) -> list[str]:
    """A row a metric, a column a kind of study."""
    studies = [
        f"{study['groups']} groups, prevalence {study['prevalence']:g}, separation {study['separation']:g}"
        for study in (one["study"] for one in found["coverage"])
    ]
    rows = [(metric, *(f"{100 * share:.1f} %" for share in shares)) for metric, shares in coverage_of(found).items()]
    settings = found["settings"]
    return [
        f"How often a 95 % interval contains the truth, in {settings['studies']:,} simulated studies of each kind, "
        f"with {settings['resamples']:,} resamples of groups:",
        "",
        *markdown([("metric", *studies), *rows]),
        "",
        circumstances(found["provenance"]),
    ]


def audit_lines(found: dict[str, Any]) -> list[str]:
    """Each target of each part; the tables are in docs/AUDIT.md."""
    rows = [
        (part, target["what"], target["found"], target["expected"], "met" if target["met"] else "**missed**")
        for part, one in found.items()
        for target in one["targets"]
    ]
    commits: dict[str, list[str]] = {}
    for part, one in found.items():
        commits.setdefault(circumstances(one["provenance"]), []).append(part)
    return [
        "The targets; the tables are in [AUDIT.md](AUDIT.md).",
        "",
        *markdown([("part", "what", "found", "target", ""), *rows]),
        *(line for facts, parts in commits.items() for line in ("", f"{', '.join(parts)}: {facts}")),
    ]


def kind_lines(found: dict[str, Any]) -> list[str]:
    """Pictures by true and predicted kind."""
    table = found["cross-validated"]
    kinds = list(dict.fromkeys(kind for row in table.values() for kind in row))
    rows = [(truth, *(str(row.get(kind, "·")) for kind in kinds)) for truth, row in table.items()]
    return [
        "Cross-validated with whole patients left out; rows are true kinds, columns predicted ones.",
        "",
        *markdown([("true kind", *kinds), *rows]),
        "",
        circumstances(found.get("provenance", {})),
    ]


def device_targets(results: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Device → targets with what was measured, of its newest file, or with nothing."""
    found = {
        "MPS" if "mps" in str(one["policy"]) else "CUDA": one["targets"]
        for one in sorted((one for one in results.values() if "sections" in one), key=lambda one: one["date"])
    }
    return {
        device: found.get(device)
        or [
            {"what": target.what, "asked": target.asked, "measured": None, "verdict": "not measured"}
            for target in targets
        ]
        for device, targets in DEVICE_TARGETS.items()
    }


def device_lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """What `make bench-gpu` and `make bench-mps` stored."""
    stored = [one for one in results.values() if "sections" in one]
    lines = [] if stored else ["No CUDA device and no Mac has run `make bench-gpu` or `make bench-mps` yet.", ""]
    for one in stored:
        rows = [(row["what"], str(row["measured"]), row["asked"], row["verdict"]) for row in one["targets"]]
        lines += [f"### {one['device']}", "", *markdown([("what", "found", "target", ""), *rows]), ""]
        lines += [f"Commit {one['commit']}, {one['date'][:10]}, torch {one['versions']['torch']}.", ""]
    return lines


def older_lines(results: dict[str, dict[str, Any]], shown: str) -> list[str]:
    """Files of other machines and older commits, which are kept and not shown."""
    rows = []
    for name, content in results.items():
        runs = content.get("runs", [content])
        facts = [run.get("machine_info", {}).get("plainfilm") or run.get("provenance") for run in runs]
        if name == shown or name[:1] not in "0123456789" or not facts[-1]:
            continue
        kind = "baseline of bench-compare" if "ratios" in content else "contests"
        rows.append((f"`{name}`", kind, facts[-1]["commit"], facts[-1]["date"][:10], facts[-1]["cpu"]))
    rows += [
        (f"`{name}`", "cross-validation; see [EVALUATION.md](EVALUATION.md)", "not recorded", name[:10], "not recorded")
        for name, content in results.items()
        if "crossval" in name
    ]
    return markdown([("file", "what", "commit", "date", "processor"), *rows])


# ---- quoted figures


def speed_sentences(bench: dict[str, Any]) -> str:
    """For README: the ratios that a reader cares about, and where they were measured."""
    by_what = {comparison.what: comparison for comparison in comparisons_of(bench)}

    def ratio(what: str, rival: str) -> str:
        comparison = by_what[what]
        found = [comparison.ratio(name) for name in comparison.rivals if name.startswith(rival)]
        return f"{found[0]:.3g}" if found else "(not measured)"

    training = by_what[TRAINING]
    augmented = [name for name in training.rivals if name.startswith("FFCV") and target_of(TRAINING, name)]
    over_ffcv = sorted(map(training.ratio, augmented))
    span = f"{over_ffcv[0]:.3g} to {over_ffcv[-1]:.3g}" if over_ffcv else "(not measured)"
    mixed = f" (bfloat16: {ratio(STEP_224_MIXED, 'stock')})" if STEP_224_MIXED in by_what else ""
    facts = bench["machine_info"]["plainfilm"]
    pairs = [(one, rival) for one in by_what.values() for rival in one.rivals if target_of(one.what, rival)]
    missed = sum(shortfall(one.what, rival, one.ratio(rival)) > 0 for one, rival in pairs)
    sentences = (
        f"Measured on {facts['cores']} cores ({facts['cpu']}, commit {facts['commit'][:7]}, {facts['date'][:10]}). "
        f"Training batches come {ratio(FILES, 'DataLoader')} times as fast as from torch's DataLoader on the original "
        f"files, and {span} times as fast as from FFCV with the same augmentation. "
        f"A training step is {ratio(STEP_224, 'stock')} times{mixed} as fast as stock PyTorch's, and an "
        f"epoch from files {ratio(REFERENCE_224, 'reference')} times (crops of 224) or "
        f"{ratio(REFERENCE_128, 'reference')} times (128) as fast as the plain pipeline's. "
        f"{missed} of {len(pairs)} targets were missed; [docs/RESULTS.md](docs/RESULTS.md) has every contest."
    )
    return textwrap.fill(sentences, 118, break_long_words=False, break_on_hyphens=False)


def documents(results: dict[str, dict[str, Any]]) -> dict[Path, str]:
    """Every document that quotes stored results, as it should be."""
    _, bench = latest_bench(results)
    return {
        RESULTS_PAGE: results_page(results),
        README: filled(
            README.read_text(encoding="utf-8"), {"speed": speed_sentences(bench), "honest": honest_sentences(results)}
        ),
        SECURITY: filled(SECURITY.read_text(encoding="utf-8"), {"looks": look_sentences(results)}),
        AUDIT: with_audit(AUDIT.read_text(encoding="utf-8"), results.get("audit.json", {})),
        EVALUATION: filled(
            EVALUATION.read_text(encoding="utf-8"),
            {"crossval": crossval_table(results), "hurdles": hurdle_lines(results), "lungs": lung_lines(results)},
        ),
        FOUNDATION: filled(FOUNDATION.read_text(encoding="utf-8"), {"foundation": foundation_lines(results)}),
        LUNGS: filled(LUNGS.read_text(encoding="utf-8"), {"credible-masks": mask_lines(results)}),
    }


def main() -> None:
    """Write every document, and the picture."""
    results = all_results()
    for path, text in documents(results).items():
        path.write_text(text, encoding="utf-8")
    name, bench = latest_bench(results)
    facts = bench["machine_info"]["plainfilm"]
    save_speed(speed_figure(comparisons_of(bench), facts), name, facts["commit"], PICTURE)
    HONEST_PICTURE.write_bytes(png(crossval_figure(honest_study(results, "two"))))
    if found := hurdles_of(results, "two"):
        HURDLES_PICTURE.write_bytes(png(hurdles_figure(found)))


if __name__ == "__main__":
    main()
