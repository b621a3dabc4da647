"""Findings in a conversion: copies that share them, how many labels each split has, and what is shown of them."""

# N images, K findings

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loaders.cautions import Caution, caution
from loaders.sources.confounding import finding_cautions
from loaders.sources.entry import PRESENT, SPLITS, UNKNOWN, Entry
from loaders.sources.split import LEAST_KNOWN, group_by, known_groups, prevalence_gap

JOINED_BY = "|"  # findings in one cell of convert.csv


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingCounts:
    """Labels of findings in splits.  present, absent: split → finding → images.

    gap: the largest difference of a finding's prevalence between two splits.  finding: of which it is.
    """

    present: dict[str, dict[str, int]] = field(default_factory=dict)
    absent: dict[str, dict[str, int]] = field(default_factory=dict)
    gap: float = 0.0
    finding: str = ""


def finding_values(entries: Iterable[Entry]) -> np.ndarray:
    """The findings of entries, float32 (N, K): 1 present, 0 absent, NaN unknown."""
    value_of = np.array([0, 1, np.nan], np.float32)  # in the order of ABSENT, PRESENT and UNKNOWN
    rows = [entry.findings for entry in entries]
    return value_of[np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)]


def join_copies(
    entries: Sequence[Entry], pixel_hashes: Sequence[bytes], kept_of: Mapping[str, str]
) -> tuple[list[Entry], list[Caution]]:
    """The entries with the findings that any copy knows, but unknown where copies contradict each other.

    kept_of: path of a copy by its look → path of the film that is kept.  Gives a caution if any do.
    """
    families: dict[int, list[int]] = defaultdict(list)
    kept = [kept_of.get(entry.path, entry.path) for entry in entries]
    for place, family in enumerate(group_by(pixel_hashes, kept).tolist()):
        families[family].append(place)
    joined, contradicting = list(entries), 0
    for places in filter(lambda places: len(places) > 1, families.values()):
        known = [{*values} - {UNKNOWN} for values in zip(*(entries[place].findings for place in places), strict=True)]
        contradicting += any(len(values) > 1 for values in known)
        findings = bytes(next(iter(values)) if len(values) == 1 else UNKNOWN for values in known)
        for place in places:
            joined[place] = replace(entries[place], findings=findings)
    return joined, [caution("copies-contradict", films=contradicting)] if contradicting else []


def count_findings(
    names: Sequence[str], entries: Sequence[Entry], splits: Sequence[str], group_N: np.ndarray
) -> tuple[FindingCounts, list[Caution]]:
    """The labels of each finding in each split; and cautions of those that are few, or that the source tells."""
    finding_NK, split_N = finding_values(entries), np.array(splits)
    present, absent = (
        {
            split: dict(zip(names, (finding_NK[split_N == split] == value).sum(0).tolist(), strict=True))
            for split in SPLITS
            if split in splits
        }
        for value in (1, 0)
    )
    gap, finding = prevalence_gap(finding_NK, splits)
    cautions = finding_cautions(names, finding_NK, [entry.source for entry in entries], group_N)
    for split in present:
        own_N = split_N == split
        few = [
            name
            for name, value_N in zip(names, finding_NK[own_N].T, strict=True)
            if min(known_groups(group_N[own_N], value_N)) < LEAST_KNOWN
        ]
        if few and split != "train":  # where nothing is measured
            cautions.append(caution("findings-undefined", split=split, findings=few, least=LEAST_KNOWN))
    return FindingCounts(present=present, absent=absent, gap=gap, finding=names[finding]), cautions


def finding_rows(names: Sequence[str], counts: FindingCounts, images: Counter[str]) -> list[tuple[str, ...]]:
    """For each finding, and each split, the images in which it is present, absent and unknown.  images: of a split."""

    def cell(split: str, name: str) -> str:
        present, absent = counts.present[split][name], counts.absent[split][name]
        return f"{present} / {absent} / {images[split] - present - absent}"

    return [(name, *(cell(split, name) for split in counts.present)) for name in names]


def present_and_unknown(names: Sequence[str], entry: Entry) -> tuple[str, str]:
    """The findings that are present, and those that are unknown, as convert.csv lists them."""
    present, unknown = (
        joined_findings(names, [own == value for own in entry.findings]) if entry.findings else ""
        for value in (PRESENT, UNKNOWN)
    )
    return present, unknown


def joined_findings(names: Sequence[str], chosen: Iterable[bool]) -> str:
    """The findings that are chosen, in one cell of convert.csv."""
    return JOINED_BY.join(name for name, own in zip(names, chosen, strict=True) if own)
