"""What collections of a hurdles run share: films left out of a test since training has them, and unions to train on."""

# N samples of a pool

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.crossval.folds import Pool, open_pool
from engine.evaluate.copies import shared_films
from engine.hurdles.collections import Collection, Plan, apart, is_beton
from engine.train.state import Watch
from loaders.audit.copies import LIMIT_FRAMES, LIMIT_LOOKS, copies_within
from loaders.beton.writer import beton_size, check_room, write_union
from loaders.records import Count, Record, known_record, write_record
from loaders.sources.split import group_by

OVERLAPS, UNIONS = "overlaps", "unions"


class Overlap(Record, frozen=True, kw_only=True):
    """A film of a collection that another has, too: places in the two pools.  similarity: of a copy."""

    sample: Count
    of: Count
    reason: str
    similarity: float | None


class Overlaps(Record, frozen=True, kw_only=True):
    """The films of a collection that another has, too, by the identities of both.  limits: of similarity."""

    made_by = "hurdles"
    version: int = 1
    limits: tuple[float, float] = (LIMIT_FRAMES, LIMIT_LOOKS)
    tested: str
    known: str
    films: list[Overlap]


# collections tested and known, by their identities → the films that both have
Shared = Mapping[tuple[str, str], list[Overlap]]


def find_overlaps(out: Path, tested: Collection, known: Collection, watch: Watch) -> list[Overlap]:
    """The films of a collection that another has, too, or that are copies of others of its own, each with one of them.

    Kept in `out`, and never looked for twice.

    Errors: BetonError; Interrupted; StorageError.
    """
    path = out / OVERLAPS / f"{tested.identity[:12]}-{known.identity[:12]}.json"
    kept = known_record(Overlaps, path)
    wanted = (tested.identity, known.identity, (LIMIT_FRAMES, LIMIT_LOOKS))
    if kept is not None and (kept.tested, kept.known, kept.limits) == wanted:
        return kept.films
    watch.check_stop()
    splits = [beton.facts.split for beton in known.pool.betons]
    start_of = dict(zip(splits, known.pool.start_B.tolist(), strict=True))

    def progress(done: int, total: int) -> None:
        watch.check_stop()
        watch.phases(f"copies {tested.name}", done, total)

    if tested is known:
        pairs = copies_within(known.pool.betons, progress)
        films = [
            Overlap(sample=pair.first, of=pair.second, reason="copy", similarity=pair.similarity) for pair in pairs
        ]
        return keep_overlaps(path, tested, known, films)
    films = [
        Overlap(
            sample=int(start) + film.sample,
            of=start_of[film.of] + film.place,
            reason=film.reason,
            similarity=film.similarity,
        )
        for beton, start in zip(tested.pool.betons, tested.pool.start_B, strict=True)
        for film in shared_films(beton, known.pool.betons, progress)
    ]
    if tested.numbered == known.numbered:  # sources of one conversion, which may share groups for any reason
        first = {number: place for place, number in reversed(list(enumerate(known.number_N.tolist())))}
        found = {film.sample for film in films}
        films += [
            Overlap(sample=place, of=first[number], reason="group", similarity=None)
            for place, number in enumerate(tested.number_N.tolist())
            if number in first and place not in found
        ]
    return keep_overlaps(path, tested, known, films)


def keep_overlaps(path: Path, tested: Collection, known: Collection, films: list[Overlap]) -> list[Overlap]:
    """Write what was found.  Errors: StorageError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, Overlaps(tested=tested.identity, known=known.identity, films=films))
    return films


def open_training(out: Path, plan: Plan, shared: Shared, stack: contextlib.ExitStack) -> Pool:
    """What a row is trained on: a collection's own pool, or one of a beton that unites several.

    Films that are copies of one another are of one group, and so in one fold; in a union also those of the same pixels,
    patient or, of sources of one conversion, group.
    Errors: InputError for members whose pixels are hashed by different algorithms; BetonError; StorageError.
    """
    pools = [member.pool for member in plan.members]
    starts = np.cumsum([0, *(len(pool.labels) for pool in pools[:-1])]).tolist()
    pairs = [
        (start + film.sample, other + film.of)
        for tested, start in zip(plan.members, starts, strict=True)
        for known, other in zip(plan.members, starts, strict=True)
        for film in shared.get((tested.identity, known.identity), ())
    ]
    group_N = group_by(apart(pools).tolist(), pairs=pairs)
    if len(pools) == 1:
        return replace(pools[0], group_N=group_N)
    path = out / UNIONS / plan.identity[:12] / "heldout.beton"
    if not is_beton(path, plan.identity):
        betons = [beton for pool in pools for beton in pool.betons]
        check_room(out, beton_size(sum(map(len, betons)), betons[0].facts.stored, betons[0].page_size))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_union(betons, group_N, path, "heldout", plan.identity)
    return open_pool(path.parent, stack)
