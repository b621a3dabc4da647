"""Subgroups of a set under test: its samples by source, by view and by what their rows flag."""

# N samples

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from loaders.beton import Beton
from loaders.beton_footer import BELOW_STORED_SIDE, PATIENT_KNOWN

FEWEST = 10  # samples: an interval of fewer would be so wide that it only misleads
MOST = 20  # subgroups of a kind that are told apart; the smallest are pooled beyond
FLAGS = {
    PATIENT_KNOWN: ("patient known", "patient not known"),
    BELOW_STORED_SIDE: ("smaller than the stored frame", "not smaller than the stored frame"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgroup:
    """Some of a set's samples.  kind: source, view or flag.  index_N: int64, their places, in order."""

    kind: str
    name: str
    index_N: np.ndarray

    @property
    def refused(self) -> str:
        """Why nothing is estimated; "" where something is."""
        return f"too small: fewer than {FEWEST} samples" if len(self.index_N) < FEWEST else ""


def subgroups(beton: Beton) -> list[Subgroup]:
    """The subgroups of a beton, the largest of each kind first.

    A kind in which all samples are alike gives none: it would be the whole set.  An unverified beton tells nothing.
    """
    if not beton.verified:
        return []
    facts, rows_N = beton.facts, beton.rows_N
    found = [
        *by_name("source", facts.sources, rows_N["source"]),
        *by_name("view", facts.views, rows_N["view"]),
    ]
    for flag, names in FLAGS.items():
        found += by_name("flag", names, np.where(rows_N["flags"] & flag, 0, 1))
    return found


def by_name(kind: str, names: tuple[str, ...], value_N: np.ndarray) -> list[Subgroup]:
    """Subgroups of equal values.  value_N: places in names."""
    counts = Counter(value_N.tolist()).most_common()
    if len(counts) < 2:
        return []
    kept = [value for value, _ in counts[:MOST]]
    found = [
        Subgroup(kind=kind, name=names[value] or "unknown", index_N=np.flatnonzero(value_N == value)) for value in kept
    ]
    if rest := len(counts) - len(kept):
        found.append(Subgroup(kind=kind, name=f"{rest} others", index_N=np.flatnonzero(~np.isin(value_N, kept))))
    return found
