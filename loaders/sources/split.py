"""Groups that must stay together, and their split into training, validation and held-out sets."""

# N samples, G groups, E edges

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from loaders.cautions import Caution, caution
from loaders.errors import InputError
from loaders.sampling import SPLIT, order_keys

MOST_OF_ONE = 0.9  # of the films with an identifier: the patient with most of NIH's 112,120 has 184 of them
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
