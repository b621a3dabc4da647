"""How much of each class is left out: cleaning can itself bias."""

# N films, K classes or findings

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loaders.cautions import Caution, caution
from loaders.statistics import wilson


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """How much of one class was left out, with its 95 % Wilson interval."""

    label: str
    files: int
    removed: int
    low: float
    high: float

    @property
    def percent(self) -> float:
        """The share that was left out, as cautions have it."""
        return round(100 * self.removed / self.files, 1)


def apart(removals: Sequence[Removal]) -> tuple[Removal, Removal] | None:
    """The two classes whose intervals are farthest apart, the one with more removed first; None when all overlap."""
    if len(removals) < 2:
        return None
    most = max(removals, key=lambda removal: removal.low)
    least = min(removals, key=lambda removal: removal.high)
    return (most, least) if most.low > least.high else None


def removal(label: str, lost_N: np.ndarray) -> Removal:
    """How many films of a class are left out.  lost_N: bool, of its films."""
    low, high = wilson(int(lost_N.sum()), len(lost_N))
    return Removal(label=label, files=len(lost_N), removed=int(lost_N.sum()), low=low, high=high)


def removals(names: Sequence[str], labels: np.ndarray, lost_N: np.ndarray) -> list[list[Removal]]:
    """What is compared: all classes; or, for each finding, films with it and films without.

    labels: int64 N, or of findings N×K, 1 where present, 0 where absent.  lost_N: bool, films that are left out.
    """
    if labels.ndim == 1:
        return [[removal(name, lost_N[labels == place]) for place, name in enumerate(names)]]
    return [
        [removal(name, lost_N[value_N == value]) for value in (1, 0)]
        for name, value_N in zip(names, labels.T, strict=True)
    ]


def lost_cautions(families: Sequence[Sequence[Removal]], *, findings: bool) -> list[Caution]:
    """Whether the share without a credible mask differs between classes, or with a finding, beyond chance.

    families: as of removals, of films that are independent of one another.
    """
    found = [pair for family in families if (pair := apart(family))]
    if not found:
        return []
    if findings:
        return [caution("lungs-lost-by-finding", findings=[first.label for first, _ in found])]
    return [caution("lungs-lost-by-class", left_out={one.label: one.percent for one in found[0]})]
