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
    classes: list[str]
    splits: list[tuple[str, list[int], int, str]]


def make_flow(content: dict[str, Any]) -> Flow | None:
    """The data flow of dataflow.json; None where it is not known."""
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
    classes = sorted({str(name) for split in by_split for name in dict_in(by_split, split)})
    splits = []
    for split in by_split:
        numbers = [count_in(by_split, split, name) or 0 for name in classes]
        groups = count_in(content, "groups", split)
        splits.append((split, numbers, sum(numbers), "–" if groups is None else f"{groups:,}"))
    return Flow(
        files=written + rejected + duplicate,
        written=written,
        rejected=rejected,
        duplicate=duplicate,
        excluded=counts["excluded"] or 0,
        reasons=reasons,
        classes=classes,
        splits=splits,
    )
