"""A hurdles run: networks of each row trained fold by fold, tested on every column, and put side by side."""

# N samples, K classes or findings

import contextlib
import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from engine.config import HurdlesConfig
from engine.crossval.findings import short_folds
from engine.crossval.folds import Fold, Pool, away_cautions, deal_folds
from engine.evaluate.checks import class_cautions, group_cautions
from engine.evaluate.copies import unsearched
from engine.figures import png
from engine.hurdles.cells import Found, Tested, cell_of, home_tests, measure, tested_labels
from engine.hurdles.collections import Collection, Plan, open_collections, plan_rows, split_by_source
from engine.hurdles.figure import hurdles_figure
from engine.hurdles.networks import (
    NetworkScores,
    finished,
    fold_identity,
    network_folder,
    predict_away,
    train_network,
)
from engine.hurdles.output import hurdle_rows
from engine.hurdles.overlaps import UNIONS, Overlap, Shared, find_overlaps, open_training
from engine.hurdles.results import (
    HURDLES,
    PICTURE,
    REMOVED,
    TABLE,
    Cell,
    CollectionResult,
    Hurdles,
    Row,
)
from engine.train.leakage import ALL, sources_of
from engine.train.run_folder import CONFIG, check_settings, save_settings, settled_recipe, shared_settings
from engine.train.state import UNWATCHED, Watch
from loaders.atomic_file import locked, publish_bytes, publish_rows
from loaders.audit.audit import collection_of_betons
from loaders.audit.collection import probe_sources
from loaders.cautions import Caution, caution, each_once
from loaders.errors import ConfigError, Interrupted
from loaders.records import write_record, written_out

T = TypeVar("T")
SOURCES, NETWORKS = "sources", "networks"
CONFOUNDED = ("confounded-with-source", "findings-confounded-with-source")
# settings that no network's scores depend on, on a CPU; collections are known by their conversions, wherever they lie
FREE = ("collections", "out", "leave_one_out", "seeds", "keep_copies", "resamples", "threads", "prefetch", "arena")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRow:
    """A row, what it is trained on, and its networks.  cautions: what limits them all."""

    plan: Plan
    pool: Pool
    cautions: list[Caution]
    networks: tuple[NetworkScores, ...]


def hurdles(config: HurdlesConfig, watch: Watch = UNWATCHED) -> Hurdles:
    """Train, test, and give what hurdles.json holds; hurdles.csv, hurdles.png and removed.csv go beside it.

    Errors: InputError for collections that do not belong together, or none to train on; ConfigError for a folder of
    other settings; LockedError; StorageError; DivergedError; Interrupted, after which the same call goes on.
    """
    with contextlib.ExitStack() as lock, contextlib.ExitStack() as stack:
        collections = open_collections(config.collections, stack)
        cautions, plans = list[Caution](), list[Plan]()
        if config.by == "folder":
            plans, cautions = plan_rows(collections, config)  # before anything is written
        lock.enter_context(locked(config.out))
        if (config.out / NETWORKS).exists() and not (config.out / CONFIG).exists():
            raise ConfigError(
                f"{config.out}: holds {NETWORKS} but no {CONFIG}, expected a new folder; choose another --out"
            )
        config = replace(config, recipe=settled_recipe([config.out], config.recipe))
        check_settings(config.out, config, FREE)
        if config.by == "source":
            collections, cautions = split_by_source(collections[0], config.out / SOURCES, stack)
            plans, more = plan_rows(collections, config)
            cautions += more
        shared = {
            (tested.identity, known.identity): find_overlaps(config.out, tested, known, watch)
            for tested in collections
            for known in collections
            if known.to_train
        }
        for one in collections:
            cautions += unsearched(one.pool.betons[0], ())
        pools = [open_training(config.out, plan, shared, stack) for plan in plans]
        folds = [deal(config, *row) for row in zip(plans, pools, strict=True)]
        check_networks(config, plans, pools, folds)
        save_settings(config.out, config)
        rows = train_rows(config, plans, pools, folds, watch)
        result, listed = test_rows(config, rows, collections, shared, cautions, watch)
        publish_rows(config.out / TABLE, hurdle_rows(result))
        publish_rows(config.out / REMOVED, listed)
        publish_bytes(config.out / PICTURE, png(hurdles_figure(result)))
        write_record(config.out / HURDLES, result)
        for name in (SOURCES, UNIONS):  # once their betons are closed: they can be made again
            lock.callback(shutil.rmtree, config.out / name, ignore_errors=True)
        return result


def deal(config: HurdlesConfig, plan: Plan, pool: Pool) -> list[tuple[int, Fold]]:
    """The folds of a row, each with the number of its seed.  Errors: InputError for too few groups of a class."""
    where = plan.name if plan.without or config.by == "source" else str(pool.folder)
    return [
        (repeat, fold)
        for repeat in range(config.seeds)
        for fold in deal_folds(
            pool.group_N, pool.labels, pool.facts.classes, num_folds=config.folds, val=config.val,
            seed=config.loader.seed + repeat, split="group", where=where,
        )
    ]  # fmt: skip


def check_networks(
    config: HurdlesConfig, plans: Sequence[Plan], pools: Sequence[Pool], folds: Sequence[list[tuple[int, Fold]]]
) -> None:
    """Errors: as of `finished`, for any network that is there, before anything is written."""
    for plan, pool, dealt in zip(plans, pools, folds, strict=True):
        for repeat, fold in dealt:
            folder = network_folder(config.out / NETWORKS, plan.identity, repeat, fold.number)
            finished(folder, fold_identity(pool, fold, repeat), fold, pool.facts)


def train_rows(
    config: HurdlesConfig,
    plans: Sequence[Plan],
    pools: Sequence[Pool],
    folds: Sequence[list[tuple[int, Fold]]],
    watch: Watch,
) -> list[TrainedRow]:
    """Train every network that is not there yet.  Errors: Interrupted, and whatever `train` raises."""
    total, done, rows = sum(map(len, folds)), 0, list[TrainedRow]()
    for plan, pool, dealt in zip(plans, pools, folds, strict=True):
        networks = []
        for repeat, fold in dealt:
            folder = network_folder(config.out / NETWORKS, plan.identity, repeat, fold.number)
            watch.begin(f"{plan.name}, network {done + 1}/{total}")
            try:
                networks.append(train_network(config, pool, fold, repeat, folder, watch))
            except Interrupted as error:
                raise Interrupted(
                    f"{config.out}: interrupted while training on {plan.name}; {done} finished networks of {total} are "
                    "kept: the same command goes on from there"
                ) from error
            done += 1
        limits = pool.cautions()
        if pool.facts.task == "findings":
            limits += short_folds("few-known-to-choose", pool, [fold for _, fold in dealt])
        rows.append(TrainedRow(plan=plan, pool=pool, cautions=limits, networks=tuple(networks)))
    return rows


def test_rows(
    config: HurdlesConfig,
    rows: Sequence[TrainedRow],
    collections: Sequence[Collection],
    shared: Shared,
    cautions: list[Caution],
    watch: Watch,
) -> tuple[Hurdles, list[list[Any]]]:
    """Test each row at home and away; the result, and the table of films that training has, too."""
    facts, cells, shown = rows[0].pool.facts, list[Cell](), list[Row]()
    listed: list[list[Any]] = [["row", "column", "sample", "reason", "in training", "similarity", "removed"]]
    for done, row in enumerate(rows):
        watch.phases("test", done, len(rows))
        home = home_tests(row.pool, row.networks)
        at_home = measure(row.pool, home, resamples=config.resamples, seed=config.loader.seed)
        own = group_cautions(len(np.unique(row.pool.group_N)))
        cells.append(cell_of(row.plan.name, row.plan.name, row.pool, ALL, row.pool, home, at_home, None, {}, own))
        for column in collections:
            if column in row.plan.members:
                continue
            films = [(known, film) for known in row.plan.members for film in shared[column.identity, known.identity]]
            found = gravest(films)
            copies = [one for one in found if one[1].reason == "copy"] if config.keep_copies else []
            left_out = [one for one in found if one not in copies]
            listed += [listed_row(row, column, *one, removed=one not in copies) for one in found]
            cells.append(away_cell(config, row, column, left_out, copies, at_home, watch))
        shown.append(
            Row(
                name=row.plan.name,
                conversion_id=row.pool.facts.conversion_id if row.plan.without is None else "",
                identity=row.plan.identity,
                without=row.plan.without,
                confounded=any(one.code in CONFOUNDED for one in row.cautions),
                num_networks=len(row.networks),
                cautions=row.cautions,
            )
        )
    watch.phases("test", len(rows), len(rows))
    betons = [beton for column in collections for beton in column.pool.betons]
    names = [column.name for column in collections for _ in range(len(column.pool.labels))]
    probed = collection_of_betons(betons, names, partial(watch.phases, "probe"))
    if facts.task == "findings":  # which are no classes to look within: over all films
        probed = dataclasses.replace(probed, label_N=np.zeros(len(names), np.int64), classes=("",))
    result = Hurdles(
        classes=list(facts.classes),
        positive=facts.positive,
        synthetic=any(column.pool.facts.synthetic for column in collections),
        by=config.by,
        folds=config.folds,
        seeds=config.seeds,
        collections=[collection_result(column, rows) for column in collections],
        rows=shown,
        cells=cells,
        told_apart=probe_sources(probed, seed=config.loader.seed),
        cautions=each_once(cautions),
        settings=shared_settings(config),
    )
    return result, listed


def gravest(films: Sequence[tuple[T, Overlap]]) -> list[tuple[T, Overlap]]:
    """Each film once, in order, with who has it: a copy only where it is nothing else, then the most similar one."""
    ordered = sorted(films, key=lambda one: (one[1].sample, one[1].reason == "copy", -(one[1].similarity or 0)))
    return list({film.sample: (known, film) for known, film in reversed(ordered)}.values())[::-1]


def away_cell(
    config: HurdlesConfig,
    row: TrainedRow,
    column: Collection,
    removed: Sequence[tuple[Collection, Overlap]],
    copies: Sequence[tuple[Collection, Overlap]],
    at_home: Found,
    watch: Watch,
) -> Cell:
    """Each network of a row on what another collection has beside films that training has, too.

    removed: those, each with the collection that has it.  copies: those that are tested on nevertheless.
    """
    pool = column.pool
    left_N = np.setdiff1d(np.arange(len(pool.labels)), [film.sample for _, film in removed])
    tests, labels = [], tested_labels(pool, row.pool)
    for place, network in enumerate(row.networks):
        folder = network_folder(config.out / NETWORKS, row.plan.identity, network.repeat, network.fold)
        try:
            probability_NK = predict_away(config, network, folder, pool, column.identity, watch)
        except Interrupted as error:
            raise Interrupted(
                f"{config.out}: interrupted while testing on {column.name}; what is done is kept: the same command "
                "goes on from there"
            ) from error
        tests.append(
            Tested(
                network=network,
                labels=labels[left_N],
                probability_NK=probability_NK[left_N],
                group_N=pool.group_N[left_N],
                repeat=place,  # all are tested on the same groups
            )
        )
    betons = [beton for member in row.plan.members for beton in member.pool.betons]
    found = away_cautions(column.name, pool.betons, betons)
    if copies:
        names, films = sorted({known.name for known, _ in copies}), len(pool.labels)
        found.append(caution("external-copies-kept", beton=column.name, copies=len(copies), images=films, sets=names))
    if 2 * (sum(film.reason == "copy" for _, film in removed) + len(copies)) > len(pool.labels):
        found.append(caution("external-mostly-copies", beton=column.name))
    away = None
    if len(left_N):
        # another seed, so that home and away are resampled independently
        away = measure(pool, tests, resamples=config.resamples, seed=config.loader.seed + 1)
        found += group_cautions(len(np.unique(pool.group_N[left_N])))
        if pool.facts.task == "classes":
            found += class_cautions(pool.facts.classes, pool.labels[left_N])
    else:
        found.append(caution("nothing-left-to-test", collection=column.name))
    counts = dict(Counter(film.reason for _, film in removed))
    return cell_of(row.plan.name, column.name, pool, left_N, row.pool, tests, away, at_home, counts, found)


def listed_row(row: TrainedRow, column: Collection, known: Collection, film: Overlap, *, removed: bool) -> list[Any]:
    """A line of removed.csv: a film of a cell, and the one in training, each by its beton and place there."""
    (tested, sample), (name, place) = column.pool.origin(film.sample), known.pool.origin(film.of)
    where = f"{known.name}/{name}.beton {place}"
    similarity = "" if film.similarity is None else f"{film.similarity:.3f}"
    named = [row.plan.name, column.name, f"{tested}.beton {sample}", film.reason, where, similarity]
    return written_out([*named, "yes" if removed else "no"])


def collection_result(column: Collection, rows: Sequence[TrainedRow]) -> CollectionResult:
    """A collection as the result has it."""
    return CollectionResult(
        name=column.name,
        conversion_id=column.pool.facts.conversion_id,
        identity=column.identity,
        sources=sorted(set().union(*map(sources_of, column.pool.betons))),
        num_samples=len(column.pool.labels),
        num_groups=len(np.unique(column.pool.group_N)),
        class_counts=column.label_counts,
        trained=any(row.plan.members == (column,) for row in rows),
        cautions=column.pool.cautions(),
    )
