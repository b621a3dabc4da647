"""The collections of a hurdles run: what networks are trained on, and what they are tested on alone."""

# N samples of a pool

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import HurdlesConfig
from engine.crossval.folds import BETONS, Pool, class_groups, learnable, open_pool, renumber
from loaders.beton.format import frames_text
from loaders.beton.reader import Beton
from loaders.beton.writer import beton_size, check_room, check_same_algorithm, subset_id, write_subset
from loaders.cautions import Caution, caution
from loaders.errors import BetonError, ConfigError, InputError
from loaders.sources.entry import is_placeholder

SAME = {  # what all betons must share: fact → how it is called
    "classes": "classes", "positive": "positive class", "crop": "crops of", "stored": "frames of", "fit": "fitted by",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Collection:
    """One collection.  to_train: whether networks may learn from it, or it is a test set alone.

    numbered: the conversion whose groups its betons' numbers are of, the same for all sources of one conversion.
    """

    name: str
    pool: Pool
    to_train: bool
    numbered: str

    @property
    def number_N(self) -> np.ndarray:
        """The groups as the conversion numbered them."""
        return np.concatenate([beton.rows_N["group"] for beton in self.pool.betons])

    @property
    def identity(self) -> str:
        """Names its samples: the same for the same betons, wherever they lie."""
        sets = " ".join(f"{beton.facts.split} {len(beton)}" for beton in self.pool.betons)
        return subset_id(self.pool.betons[0], f"collection {sets}")

    @property
    def label_counts(self) -> list[int]:
        """Films of each class, or in which each finding is present."""
        return counts_of(self.pool.labels, len(self.pool.facts.classes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a row's networks are trained on.  without: the collection that is left out, None for a row of one."""

    name: str
    members: tuple[Collection, ...]
    without: str | None = None

    @property
    def identity(self) -> str:
        """Names its samples."""
        names = [member.identity for member in self.members]
        return names[0] if len(names) == 1 else hashlib.blake2b(" ".join(names).encode(), digest_size=16).hexdigest()


def open_collections(folders: Sequence[Path], stack: contextlib.ExitStack) -> list[Collection]:
    """Open the betons of each folder.

    Errors: InputError for folders without betons, for the same conversion twice, and for betons of another task than
    the first folder's; ConfigError for two collections of one name; BetonError.
    """
    found: list[Collection] = []
    for folder, name in zip(folders, collection_names(folders), strict=True):
        pool = open_pool(folder, stack, least_classes=1)
        to_train = all((folder / f"{part}.beton").is_file() for part in BETONS[:2])
        for other in found:
            check_alike(pool, other.pool)
        found.append(Collection(name=name, pool=pool, to_train=to_train, numbered=pool.facts.conversion_id))
    return found


def collection_names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with those of the folders around them where they are not different."""
    paths = [folder.resolve() for folder in folders]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = next(path for path in paths if paths.count(path) > 1)
    raise ConfigError(f"collections: found {twice} twice, expected different folders; name each once")


def check_alike(pool: Pool, first: Pool) -> None:
    """Errors: InputError for the same conversion, or another task."""
    found, expected = pool.facts, first.facts
    if found.conversion_id == expected.conversion_id:
        raise InputError(
            f"{pool.folder}: conversion {found.conversion_id}, as {first.folder}, expected another collection; "
            "name each conversion once"
        )
    if found.task != expected.task:
        raise InputError(
            f"{pool.folder}: labels are {found.task}, expected {expected.task}, as {first.folder} has; convert its "
            f"radiographs with --like {first.betons[0].path}"
        )
    differing = []
    for name, called in SAME.items():
        values = [", ".join(value) if isinstance(value, tuple) else value
                  for value in (getattr(found, name), getattr(expected, name))]  # fmt: skip
        if values[0] != values[1]:
            called = expected.task if name == "classes" else called
            differing.append(f"{called} {values[0]}, expected {values[1]}")
    shown = [frames_text(facts.lungs, facts.segmenter) for facts in (found, expected)]
    if shown[0] != shown[1]:
        differing.append(f"frames show {shown[0]}, expected {shown[1]}")
    if differing:
        labels = "--classes, --positive" if expected.task == "classes" else "--findings"
        raise InputError(
            f"{pool.folder}: {'; '.join(differing)}, as {first.folder} has; convert its radiographs with "
            f"--like {first.betons[0].path}, or with the same {labels}, --size, --fit and --lungs"
        )


def split_by_source(
    whole: Collection, folder: Path, stack: contextlib.ExitStack
) -> tuple[list[Collection], list[Caution]]:
    """A collection for each source within one, as betons in folders of their own.

    Films of unknown source belong to none; how many is a caution.
    Errors: InputError for fewer than two sources; StorageError; BetonError.
    """
    pool, facts = whole.pool, whole.pool.facts
    source_N = np.concatenate([beton.rows_N["source"] for beton in pool.betons])
    known = [place for place in np.unique(source_N).tolist() if not is_placeholder(facts.sources[place])]
    if len(known) < 2:
        named = ", ".join(facts.sources[place] for place in known) or "none"
        raise InputError(
            f"{pool.folder}: films of known sources: {named}, expected two sources or more; convert with a manifest "
            "whose column source has them"
        )
    check_room(folder, beton_size(len(pool.labels), facts.stored, pool.betons[0].page_size))
    found = []
    for place in known:
        place_N = np.flatnonzero(source_N == place)
        identity = subset_id(pool.betons[0], f"source {facts.sources[place]}", place_N)
        path = folder / identity[:12] / "heldout.beton"
        if not is_beton(path, identity):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_subset(pool.chosen(place_N), path, "heldout", conversion_id=identity)
        own = open_pool(path.parent, stack, least_classes=1)
        found.append(Collection(name=facts.sources[place], pool=own, to_train=True, numbered=facts.conversion_id))
    unknown = int((~np.isin(source_N, known)).sum())
    return found, [caution("films-without-source", images=unknown)] if unknown else []


def is_beton(path: Path, identity: str) -> bool:
    """Whether a file is the beton of this conversion id, from an earlier run."""
    if not path.is_file():
        return False
    try:
        with Beton(path) as beton:
            return beton.facts.conversion_id == identity
    except BetonError:
        return False


def plan_rows(collections: Sequence[Collection], config: HurdlesConfig) -> tuple[list[Plan], list[Caution]]:
    """The rows: each collection that can be trained on, then all but one for each; and why others are none.

    Errors: InputError where there is no row, a folder has fewer groups of a class than folds, or what is to be
    united has pixels hashed by different algorithms.
    """
    rows, cautions = list[Plan](), list[Caution]()
    for collection in collections:
        if collection.to_train:
            plan = Plan(name=collection.name, members=(collection,))
            add_row(rows, cautions, plan, config)
    material = [collection for collection in collections if collection.to_train]
    for left_out in material if config.leave_one_out else ():
        others = [collection for collection in material if collection is not left_out]
        members = tuple(sorted(others, key=lambda collection: collection.identity))  # in whatever order they are named
        if len(members) == 1:
            cautions.append(caution("left-out-like-another", without=left_out.name, collection=members[0].name))
        elif members:
            check_same_algorithm([beton for member in members for beton in member.pool.betons])  # they will be united
            add_row(
                rows, cautions, Plan(name=f"all but {left_out.name}", members=members, without=left_out.name), config
            )
    names = [*(collection.name for collection in collections), *(row.name for row in rows if row.without is not None)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"collections: found one called {twice!r}, as the row of all others is; give it another name")
    if not rows:
        why = "; ".join(one.finding for one in cautions) or "none has train.beton and val.beton"
        raise InputError(
            f"{', '.join(map(str, config.collections))}: {why}; expected a collection of two classes or more, each "
            "of a group for each fold, to train on; add films of each class from the same source, or lower --folds"
        )
    return rows, cautions


def add_row(rows: list[Plan], cautions: list[Caution], plan: Plan, config: HurdlesConfig) -> None:
    """Add a row, or the caution that says why it is none.  Errors: InputError for a folder of too few groups."""
    pools, facts = [member.pool for member in plan.members], plan.members[0].pool.facts
    labels = np.concatenate([pool.labels for pool in pools])
    known = learnable(labels, facts.classes)
    if facts.task == "findings" and not known:
        cautions.append(caution("collection-without-findings", collection=plan.name))
        return
    if facts.task == "classes" and len(known) < 2:
        cautions.append(caution("collection-of-one-class", collection=plan.name, label=known[0]))
        return
    counts = class_groups(apart(pools), labels, facts.classes)
    fewest = min(counts, key=lambda name: counts[name])
    most_tested = -(-counts[fewest] // config.folds)
    if counts[fewest] < config.folds or counts[fewest] - most_tested < 2:  # one each to train and to stop on
        short = caution(
            "collection-of-few-groups", collection=plan.name, label=fewest or "all kinds", groups=counts[fewest],
            least=max(config.folds, 4 if config.folds == 2 else 3),
        )  # fmt: skip
        if config.by == "folder" and plan.without is None and counts[fewest] < config.folds:
            raise InputError(
                f"{pools[0].folder}: {counts[fewest]} groups (patients) of {fewest or 'all kinds'}, expected at least "
                f"{config.folds}, one a fold; lower --folds, or convert it as a test set alone with --like"
            )
        if config.by == "source" or plan.without is not None:
            cautions.append(short)
            return
    rows.append(plan)


def counts_of(labels: np.ndarray, num_classes: int) -> list[int]:
    """Films of each class, or in which each finding is present."""
    return ((labels == 1).sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)).tolist()


def apart(pools: Sequence[Pool]) -> np.ndarray:
    """The groups of pools one after the other, those of each with numbers of their own, int64 N."""
    starts = np.cumsum([0, *(int(pool.group_N.max()) + 1 for pool in pools[:-1])])
    return renumber(np.concatenate([pool.group_N + start for pool, start in zip(pools, starts, strict=True)]))
