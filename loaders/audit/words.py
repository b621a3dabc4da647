"""What an audit tells in the terminal: defects by class, and what the collection gives away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from loaders.audit.findings import DEFECTS, AuditResult, CollectionFinding
from loaders.terminal import Line, Parts, Sheet, path_line

MOST_COLUMNS = 6  # classes that a table has columns for


def audit_parts(result: AuditResult) -> Parts:
    """What was found in the files, and in the collection."""
    parts = file_parts(result) if result.files else []
    return parts if result.collection is None else [*parts, *collection_parts(result.collection)]


def audit_files(result: AuditResult, out: Path) -> Parts:
    """What was written; betons have no table of files."""
    return [path_line(out / name) for name in (*(["audit.csv"] if result.files else []), "audit.html")]


def file_parts(result: AuditResult) -> list[Line | Sheet]:
    """Verdicts, and defects by class: the commonest classes have columns of their own."""
    counts = result.counts()
    of_label = Counter(file.label for file in result.files)
    labels = [label for label, _ in of_label.most_common(MOST_COLUMNS)]
    more = len(of_label) > len(labels)
    headers = [label or "files" for label in labels] + (["others"] if more else [])
    rows = []
    for defect, by_label in result.by_defect().items():
        counts_of = [by_label.get(label, 0) for label in labels]
        others = [sum(by_label.values()) - sum(counts_of)] if more else []
        rows.append((defect, *map(str, counts_of + others), DEFECTS[defect]))
    parts: list[Line | Sheet] = [
        Line(
            f"{len(result.files)} files: {counts['keep']} keep + {counts['fix']} fix + "
            f"{counts['quarantine']} quarantine; {result.seconds:.1f} s"
        )
    ]
    if rows:
        parts.append(Sheet(headers=("defect", *headers, "what it means"), rows=tuple(rows), ends_in_text=True))
    return [*parts, Line("Names burned into pixels are not read: look before you share.")]


def collection_parts(found: CollectionFinding) -> list[Line | Sheet]:
    """Cautions, the probes' table, the alarms in words, and what was not probed."""
    rows = tuple(
        (
            probe.name,
            f"{probe.auc:.3f}",
            f"{probe.low:.3f}–{probe.high:.3f}",
            f"{probe.p_holm:.4f}",
            "alarm" if probe.alarm else "",
        )
        for probe in found.probes
    )
    parts: list[Line | Sheet] = [Line(caution, "bold yellow") for caution in found.cautions]
    parts.append(Sheet(headers=("what a probe sees", "AUC", "95 % interval", "p (Holm)", ""), rows=rows))
    parts += [Line(probe.sentence, "yellow") for probe in found.probes if probe.alarm]
    for reason, number in Counter(found.skipped.values()).items():
        first = next(name for name, why in found.skipped.items() if why == reason)
        parts.append(Line(f"Not probed: {first}{f' and {number - 1} more' if number > 1 else ''}: {reason}"))
    return parts
