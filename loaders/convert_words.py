"""What a conversion tells in the terminal: the sums, why files were rejected, the splits, and what to beware of."""

from __future__ import annotations

from loaders.account import Conversion
from loaders.audit.words import audit_parts
from loaders.terminal import Line, Parts, Sheet, path_line

MOST_REASONS = 8  # told one by one


def conversion_parts(done: Conversion) -> Parts:
    """The sums, the audit's findings if it audited, and the files."""
    counts = done.counts
    excluded = f"; {counts['excluded']} more excluded" if counts["excluded"] else ""
    parts: list[Line | Sheet] = [
        Line(
            f"{done.files} files in = {counts['written']} written + {counts['rejected']} rejected + "
            f"{counts['duplicate']} duplicates{excluded}"
        )
    ]
    if done.audited:
        parts += audit_parts(done.audited)
    parts += [Line(f"  rejected {number}: {reason}") for reason, number in list(done.reasons.items())[:MOST_REASONS]]
    if (more := len(done.reasons) - MOST_REASONS) > 0:
        parts.append(Line(f"  and {more} more reasons: see the table of files, convert.csv"))
    parts.append(split_sheet(done))
    parts.append(Line(f"positive class: {done.positive}"))
    if done.told_by_source and not done.audited:  # the audit has said so
        which = ", ".join(done.told_by_source)
        told = f"Every image of {which} comes from a source without any other class: finding and source"
        parts.append(
            Line(f"{told} cannot be told apart, and no accuracy on this collection is evidence.", "bold yellow")
        )
    if done.unknown_patients:
        unknown = f"Patients are unknown for {done.unknown_patients} of {counts['written']} images"
        parts.append(Line(f"{unknown}: leakage between patients is not excluded.", "yellow"))
    return [*parts, *files(done)]


def split_sheet(done: Conversion) -> Sheet:
    """Images of each class in each split: classes are rows, of which there may be many."""
    rows = [(name, *(str(of[name]) for of in done.samples.values())) for name in done.catalog.classes]
    rows.append(("all images", *(str(sum(of.values())) for of in done.samples.values())))
    rows.append(("groups", *(str(done.groups[split]) for split in done.samples)))
    return Sheet(headers=("class", *done.samples), rows=tuple(rows))


def files(done: Conversion) -> list[Line]:
    """What was written, or that nothing was."""
    if done.dry_run:
        return [Line("Dry run: nothing was written.")]
    audit = ("audit.csv", "audit.html") if done.audited else ()
    names = (*(f"{split}.beton" for split in done.samples), "convert.csv", *audit)
    return [path_line(done.out / name) for name in (*names, "preparation.png", "augmentation.png")]
