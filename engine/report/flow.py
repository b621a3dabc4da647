"""The data flow of a conversion as a run's page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.report.material import count_in, dict_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What became of the files.  reasons: reason, verdict, files.  splits: split, images by class, sum, groups."""

    files: int
    written: int
    rejected: int
    duplicate: int
    excluded: int
    reasons: list[tuple[str, str, int]]
    splits: list[str]
    classes: list[tuple[str, list[int]]]
    images: list[int]
    groups: list[str]


def make_flow(content: dict[str, Any], order: list[str]) -> Flow | None:
    """The data flow of dataflow.json; None where it is not known.  order: the run's classes; others follow theirs."""
    counts = {name: count_in(content, "counts", name) for name in ("written", "rejected", "duplicate", "excluded")}
    written, rejected, duplicate = counts["written"], counts["rejected"], counts["duplicate"]
    if written is None or rejected is None or duplicate is None:
        return None
    reasons = [
        (str(reason), verdict, number)
        for verdict in ("rejected", "duplicate", "excluded")
        for reason in dict_in(content, "reasons", verdict)
        if (number := count_in(content, "reasons", verdict, reason)) is not None
    ]
    by_split = dict_in(content, "splits")
    found = sorted({str(name) for split in by_split for name in dict_in(by_split, split)})
    names = [name for name in order if name in found] + [name for name in found if name not in order]
    numbers = [[count_in(by_split, split, name) or 0 for split in by_split] for name in names]
    groups = [count_in(content, "groups", split) for split in by_split]
    return Flow(
        files=written + rejected + duplicate,
        written=written,
        rejected=rejected,
        duplicate=duplicate,
        excluded=counts["excluded"] or 0,
        reasons=reasons,
        splits=[str(split) for split in by_split],
        classes=list(zip(names, numbers, strict=True)),
        images=[sum(column) for column in zip(*numbers, strict=True)],
        groups=["–" if number is None else f"{number:,}" for number in groups],
    )
