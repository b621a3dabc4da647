"""Confounding of label and source: how well the source alone gives a film's class, and how grave that is."""

# N samples, S sources, C classes, G groups, U pairs of a group and a source, K kinds of groups, R resamples,
# 2 the class and the rest

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loaders.cautions import Caution, caution
from loaders.sources.split import LEAST_KNOWN, known_groups
from loaders.statistics import percentile_interval

STRONG, MODERATE = 0.85, 0.6  # least lower end of the balanced accuracy; guessing gives 0.5
HARDLY_SHARED = (
    0.95  # share of a source's films that a class has in a source of its own, were all classes equally common
)
LEAST_GROUPS = 5  # of the class and of the rest; fewer share a source by chance too often
RESAMPLES = 1000
GRADES = {"strong": "strongly-confounded-with-source", "moderate": "moderately-confounded-with-source"}

Grade = Literal["total", "strong", "moderate", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confounding:
    """How well the source alone tells the films of one class from all others.

    own: the share of its films from sources with hardly any other class.  unshared: whether none of its sources has a
    film of another class.  groups: of the class or of the rest, whichever has fewer.  accuracy: balanced, of the best
    guess from the source, cross-validated; 0.5 is guessing.  low, high: its 95 % interval.
    """

    label: str
    images: int
    own: float
    unshared: bool
    groups: int
    accuracy: float
    low: float
    high: float

    @property
    def own_percent(self) -> float:
        """own in per cent, as it is shown."""
        return round(100 * self.own, 1)

    @property
    def grade(self) -> Grade:
        """How grave it is: total where no source is shared, else by the lower end of the interval of enough groups."""
        if self.unshared:
            return "total"
        if self.groups < LEAST_GROUPS:
            return "none"
        return "strong" if self.low >= STRONG else "moderate" if self.low >= MODERATE else "none"


def measure_confounding(
    labels: Sequence[str], sources: Sequence[Hashable], group_N: np.ndarray, seed: int = 0
) -> list[Confounding]:
    """How well the source alone gives each class, the commonest first; nothing for one class, or one source.

      group_N: films of one patient, or duplicates of one another, share a number, int64.
    The guess is the class, or the rest, which has the larger share of its films in the source; a tie is half right.  It
    is made from all groups but the film's own (leave one group out), and sources of a single group are taken together,
    so that a source for each film, or each patient, gives nothing away by chance.  Balanced accuracy is the mean of
    sensitivity and specificity (Brodersen et al. 2010); the interval resamples groups, with the guesses as they are.
    A class that lies in one group alone is taken film by film, and one that shares no source is not among the rest of
    the others, since it alone would tell them.
    """
    classes, label_N = numbered(labels)
    _, source_N = numbered(sources)
    if len(classes) < 2:
        return []
    _, group_N = np.unique(group_N, return_inverse=True)
    lonely_C = [len(np.unique(group_N[label_N == label])) < 2 for label in range(len(classes))]
    _, group_N = np.unique(
        np.where(np.array(lonely_C)[label_N], len(label_N) + np.arange(len(label_N)), group_N), return_inverse=True
    )
    source_N = rare_together(source_N, group_N)
    if source_N.max() == 0:
        return []
    count_SC = table(source_N, label_N, len(classes))
    pair_U, pair_N = np.unique(group_N * len(count_SC) + source_N, return_inverse=True)
    group_U, source_U = np.divmod(pair_U, len(count_SC))
    count_UC = table(pair_N, label_N, len(classes))
    mixed_S = (count_SC > 0).sum(1) > 1
    unshared_C = ~(count_SC[mixed_S] > 0).any(0)
    found, numbers = list[Confounding](), (0.0, 0.0, 1.0)
    for label, name in enumerate(classes):
        rivals = np.flatnonzero(~unshared_C | unshared_C[label])
        count_S2, count_U2 = against_rest(count_SC, label, rivals), against_rest(count_UC, label, rivals)
        if len(rivals) > 2 or label == rivals[0]:  # of two the second mirrors the first
            numbers = balanced_accuracy(count_S2[source_U], count_U2, group_U, seed)
        share_S2 = count_S2 / count_S2.sum(0)
        own_S = (count_S2[:, 0] > 0) & (share_S2[:, 0] >= HARDLY_SHARED * share_S2.sum(1))
        found.append(
            Confounding(
                label=str(name),
                images=int(count_S2[:, 0].sum()),
                own=float(count_S2[own_S, 0].sum() / count_S2[:, 0].sum()),
                unshared=bool(unshared_C[label]),
                groups=min(len(np.unique(group_U[count_U > 0])) for count_U in count_U2.T),
                accuracy=numbers[0],
                low=numbers[1],
                high=numbers[2],
            )
        )
    return sorted(found, key=lambda one: (-one.images, one.label))


def numbered(names: Sequence[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """The different names in order of appearance, and the place of each there, int64 N."""
    place_of: dict[Hashable, int] = {}
    place_N = np.array([place_of.setdefault(name, len(place_of)) for name in names], np.int64)
    return list(place_of), place_N


def rare_together(source_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Sources counted from 0, of which those with films of one group are one."""
    source_U, _ = np.divmod(np.unique(source_N * (group_N.max() + 1) + group_N), group_N.max() + 1)
    rare_S = np.bincount(source_U) < 2
    return np.unique(np.where(rare_S[source_N], -1, source_N), return_inverse=True)[1]


def table(row_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> np.ndarray:
    """How many films of each class each row has: int64, rows × C."""
    return np.bincount(row_N * num_classes + label_N, minlength=(row_N.max() + 1) * num_classes).reshape(
        -1, num_classes
    )


def against_rest(count_C: np.ndarray, label: int, rivals: np.ndarray) -> np.ndarray:
    """The films of a class, and of its rivals, which include it: int64, rows × 2."""
    return np.column_stack([count_C[:, label], count_C[:, rivals].sum(1) - count_C[:, label]])


def balanced_accuracy(
    source_U2: np.ndarray, own_U2: np.ndarray, group_U: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """The balanced accuracy of guesses from the source, and its interval.

    source_U2: films of the source, of all groups.  own_U2: those of the group alone.  group_U: the group.
    """
    group_G2 = np.column_stack([np.bincount(group_U, own_U2[:, side]) for side in range(2)]).astype(np.int64)
    other_U2, all_U2 = source_U2 - own_U2, group_G2.sum(0) - group_G2[group_U]
    # whole numbers, so that equal shares are equal: 0 for the rest, 1 for a tie, 2 for the class
    guess_U = 1 + np.sign(other_U2[:, 0] * all_U2[:, 1] - other_U2[:, 1] * all_U2[:, 0])
    twice_right_U2 = own_U2 * np.column_stack([guess_U, 2 - guess_U])
    right_G2 = np.column_stack([np.bincount(group_U, twice_right_U2[:, side]) for side in range(2)]) / 2
    group_G4 = np.column_stack([right_G2, group_G2])
    # groups with the same numbers are drawn together: a multinomial over kinds of groups is their bootstrap
    group_G4 = group_G4[np.lexsort(group_G4.T)]
    first_K = np.flatnonzero(np.append(True, (np.diff(group_G4, axis=0) != 0).any(1)))
    number_K = np.diff(np.append(first_K, len(group_G4)))
    rng = np.random.Generator(np.random.Philox(seed))
    drawn_RK = rng.multinomial(len(group_G4), number_K / len(group_G4), size=RESAMPLES)
    sum_R4 = np.vstack([number_K, drawn_RK]) @ group_G4[first_K]
    with np.errstate(invalid="ignore"):  # 0 / 0 where a class was not drawn
        accuracy_R = (sum_R4[:, :2] / sum_R4[:, 2:]).mean(1)
    return float(accuracy_R[0]), *percentile_interval(accuracy_R[1:])


def source_cautions(labels: Sequence[str], sources: Sequence[Hashable], group_N: np.ndarray) -> list[Caution]:
    """A caution for each grade of confounding, with the classes that have it, the commonest first.

    Of several classes of one grade the numbers are of the one that the source tells best.
    """
    found = measure_confounding(labels, sources, group_N)
    of_grade = {grade: [one for one in found if one.grade == grade] for grade in ("total", *GRADES)}
    cautions = []
    if total := of_grade.pop("total"):
        images = sum(one.images for one in total)
        cautions.append(caution("confounded-with-source", classes=[one.label for one in total], images=images))
    for grade, same in of_grade.items():
        if same:
            best = max(same, key=lambda one: one.low)
            own = {one.label: one.own_percent for one in same}
            numbers = {"accuracy": best.accuracy, "low": best.low, "high": best.high}
            cautions.append(caution(GRADES[grade], label=best.label, own_percent=own, **numbers))
    return cautions


def finding_cautions(
    names: Sequence[str], finding_NK: np.ndarray, sources: Sequence[Hashable], group_N: np.ndarray
) -> list[Caution]:
    """Cautions of findings that the source tells, each over its known labels, or that come from one source alone.

    Not of findings with too few groups to be measured.  finding_NK: float, 1 present, 0 absent, NaN unknown.
    """
    of_grade: dict[str, list[str]] = {"total": [], "strong": [], "moderate": [], "one": []}
    _, source_N = numbered(sources)
    if len(set(sources)) < 2:
        return []
    for name, value_N in zip(names, finding_NK.T, strict=True):
        known_N = ~np.isnan(value_N)
        if min(known_groups(group_N, value_N)) < LEAST_KNOWN:
            continue  # as it is not measured
        labels = ["present" if value else "absent" for value in value_N[known_N]]
        found = measure_confounding(labels, source_N[known_N].tolist(), group_N[known_N])
        grade = next((grade for grade in ("total", "strong", "moderate") for one in found if one.grade == grade), "")
        if not grade and len(np.unique(source_N[value_N == 1])) == 1:
            grade = "one"
        if grade:
            of_grade[grade].append(name)
    cautions = []
    if inseparable := of_grade["total"] + of_grade["strong"]:
        cautions.append(caution("findings-confounded-with-source", findings=inseparable))
    if near := of_grade["moderate"]:
        cautions.append(caution("findings-near-source", findings=near, accuracy=MODERATE))
    if lonely := of_grade["one"]:
        cautions.append(caution("findings-of-one-source", findings=lonely))
    return cautions
