"""Groups that must stay together, and their split into training, validation and held-out sets."""

# N samples, G groups, E edges, K findings, S splits, V what is kept even: images, and known and present labels

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from loaders.cautions import Caution, caution
from loaders.errors import InputError
from loaders.sampling import SPLIT, order_keys

MOST_OF_ONE = 0.9  # of the films with an identifier: the patient with most of NIH's 112,120 has 184 of them
PASSES = 20  # over all groups, to even a split of findings
LEAST_KNOWN = 5  # groups in which a finding is present, and in which it is absent, for it to be measured in a set
LEAST_SHARED = 4  # films: nothing can be trained on fewer, two classes in two splits


def known_patients(given: Sequence[str]) -> tuple[list[str], list[Caution]]:
    """The patient of each film, "" where the identifier stands for nobody, as unknown; and a caution if one did.

    given: identifiers, "" for none.  Two kinds stand for nobody, though they look like identifiers:

    * one of all films that have any, or nearly all (MOST_OF_ONE): who removes names often writes one for all.  A real
      patient never has most films of a collection.  Of fewer than LEAST_SHARED films, or of less than a tenth of all
      where the others have no identifier, it may be the one patient there is.
    * 0, unless patients are counted from it: others have numbers of one digit, and most films are theirs.
    """
    counts = Counter(filter(None, given))
    nobody = {
        name
        for name, number in counts.items()
        if number >= max(LEAST_SHARED, MOST_OF_ONE * counts.total(), len(given) / 10)
    }
    zeros = {name for name in counts if not name.strip("0")}
    counted_from_0 = any(name.isdecimal() and 1 <= int(name) <= 9 for name in counts)
    if not counted_from_0 or 2 * sum(counts[name] for name in zeros) > counts.total():
        nobody |= zeros
    kept = ["" if name in nobody else name for name in given]
    shared = sum(counts[name] for name in nobody)
    return kept, [caution("one-patient", shared=shared, films=len(given))] if shared > 1 else []


def group_by(*key_lists: Sequence[Hashable | None], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Join samples that share a key in any of the lists, or are a pair; None joins nothing.

    Each list has one key for each sample.  Gives group numbers, int64 N, counted from 0 in order of first appearance.
    """
    edges = list(pairs)
    for keys in key_lists:
        first: dict[Hashable, int] = {}
        edges += [(first.setdefault(key, sample), sample) for sample, key in enumerate(keys) if key is not None]
    edges_E2, num_samples = np.array(edges, np.int64).reshape(-1, 2), len(key_lists[0])
    graph = coo_array((np.ones(len(edges)), tuple(edges_E2.T)), shape=(num_samples, num_samples))
    component_N = connected_components(graph, directed=False)[1]
    _, first_G, group_N = np.unique(component_N, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_G))[group_N]


def split_groups(
    group_N: np.ndarray, label_N: np.ndarray, shares: dict[str, float], seed: int, classes: Sequence[str]
) -> list[str]:
    """Assign whole groups to splits so that each class comes close to its shares in images.

    A group counts for its commonest label (the smaller on a tie). In an order drawn from the seed each group goes to
    the split that lacks most images; then a split without a class gets the smallest group of the fullest.
    shares: split name → share of the images; they add up to 1, and zero shares get nothing.
    Gives one split name for each sample.
    Errors: InputError when a class has fewer groups than there are splits.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for sample, group in enumerate(group_N.tolist()):
        members[group].append(sample)
    strata: dict[int, list[int]] = defaultdict(list)
    for group, samples in members.items():
        counts = Counter(label_N[samples].tolist())
        strata[min(counts, key=lambda label: (-counts[label], label))].append(group)
    keys = order_keys(seed, SPLIT, 0, int(group_N.max()) + 1)
    wanted = {name: share for name, share in shares.items() if share > 0}
    split_of: dict[int, str] = {}
    for label in range(len(classes)):
        groups = sorted(strata[label], key=lambda group: int(keys[group]))
        if len(groups) < len(wanted):
            raise InputError(
                f"class {classes[label]}: {len(groups)} patients (groups), expected at least {len(wanted)}, "
                f"one each for {', '.join(wanted)}; add radiographs of more patients"
            )
        split_of |= assign(groups, {group: len(members[group]) for group in groups}, wanted)
    return [split_of[group] for group in group_N.tolist()]


def assign(groups: list[int], size: dict[int, int], shares: dict[str, float]) -> dict[int, str]:
    """Assign one class's groups, in order, to the split that lacks most; no split stays empty."""
    total = sum(size.values())
    lacking = {name: share * total for name, share in shares.items()}
    split_of: dict[int, str] = {}
    for group in groups:
        name = max(lacking, key=lambda split: lacking[split])
        split_of[group] = name
        lacking[name] -= size[group]
    for name in shares:
        if name not in split_of.values():
            counts = Counter(split_of.values())
            donor = max(shares, key=lambda split: counts[split])
            given = min((group for group in groups if split_of[group] == donor), key=lambda group: size[group])
            split_of[given] = name
    return split_of


def split_findings(group_N: np.ndarray, finding_NK: np.ndarray, shares: dict[str, float], seed: int) -> list[str]:
    """Assign whole groups to splits so that images, and each finding's known and present labels, come close to shares.

    group_N: int64.  finding_NK: float, 1 present, 0 absent, NaN unknown.  shares: split name → share of the images;
    they add up to 1, and zero shares get nothing.
    As in iterative stratification (Sechidis et al. 2011), groups with most of what is rarest come first, in an order
    drawn from the seed where they have about the same; each goes where the sum of (found - wanted)² / wanted over
    images and labels rises least.  A split that stays empty gets the smallest group of the one with most.  Then groups
    move, one by one, where that lowers the sum, until none does or PASSES are over; none is the last of its split.
    Gives one split name for each sample, a pure function of the arguments.  Errors: InputError for too few groups.
    """
    wanted = {name: share for name, share in shares.items() if share > 0}
    names, own_G, group_N = list(wanted), *np.unique(group_N, return_inverse=True)
    if len(own_G) < len(names):
        raise InputError(
            f"{len(own_G)} patients (groups), expected at least {len(names)}, one each for {', '.join(names)}; add "
            "radiographs of more patients"
        )
    value_NV = np.column_stack([np.ones(len(finding_NK)), ~np.isnan(finding_NK), finding_NK == 1])
    value_GV = np.column_stack([np.bincount(group_N, value_N, len(own_G)) for value_N in value_NV.T])
    value_GV = value_GV[:, value_GV.any(0)]
    total_V = value_GV.sum(0)
    keys_G = order_keys(seed, SPLIT, 0, int(own_G.max()) + 1)[own_G]
    rank_G = np.floor(np.log2((value_GV / total_V).sum(1)))
    wanted_SV = np.array(list(wanted.values()))[:, None] * total_V
    found_SV, split_G = np.zeros_like(wanted_SV), np.empty(len(own_G), np.int64)
    for group in np.lexsort([keys_G, -rank_G]):
        value_V = value_GV[group]
        rise_S = (value_V * (2 * found_SV + value_V) / wanted_SV).sum(1)
        split_G[group] = split = rise_S.argmin()
        found_SV[split] += value_V
    for split in range(len(names)):
        if split not in split_G:
            donor_G = np.flatnonzero(split_G == np.bincount(split_G).argmax())
            split_G[donor_G[value_GV[donor_G, 0].argmin()]] = split
    descend(split_G, value_GV, wanted_SV)
    return [names[split] for split in split_G[group_N].tolist()]


def descend(split_G: np.ndarray, value_GV: np.ndarray, wanted_SV: np.ndarray) -> None:
    """Move groups between splits, in place, while that brings what splits have closer to what is wanted."""
    num_splits = len(wanted_SV)
    over_SV = np.stack([value_GV[split_G == split].sum(0) for split in range(num_splits)]) - wanted_SV
    left_S = np.bincount(split_G, minlength=num_splits)
    for _ in range(PASSES):
        moved = False
        for group in range(len(split_G)):
            value_V, here = value_GV[group], split_G[group]
            rise_S = (value_V * (2 * over_SV + value_V) / wanted_SV).sum(1)  # by its arrival
            fall = (value_V * (2 * over_SV[here] - value_V) / wanted_SV[here]).sum()  # by its departure
            rise_S[here] = fall
            there = rise_S.argmin()
            if left_S[here] > 1 and rise_S[there] < fall - 1e-9:
                over_SV[here] -= value_V
                over_SV[there] += value_V
                left_S[here], left_S[there], split_G[group], moved = left_S[here] - 1, left_S[there] + 1, there, True
        if not moved:
            return


def prevalence_gap(finding_NK: np.ndarray, splits: Sequence[str]) -> tuple[float, int]:
    """The largest difference of a finding's prevalence among its known labels between two splits, and which finding's.

    finding_NK: as above.  splits: of each sample.  A finding that fewer than two splits know has none.
    """
    split_N = np.array(splits)
    gap_K = np.zeros(finding_NK.shape[1])
    for finding, value_N in enumerate(finding_NK.T):
        known_N = ~np.isnan(value_N)
        gap_K[finding] = np.ptp([value_N[known_N & (split_N == name)].mean() for name in set(split_N[known_N])] or [0])
    return float(gap_K.max()), int(gap_K.argmax())


def known_groups(group_N: np.ndarray, value_N: np.ndarray) -> tuple[int, int]:
    """Groups with a present and with an absent label of a finding, of which fewer than LEAST_KNOWN are too few."""
    present, absent = (len(np.unique(group_N[value_N == value])) for value in (1, 0))
    return present, absent
