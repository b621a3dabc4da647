"""Planted shortcuts: how often the probes raise an alarm when arms or a mark follow the class, and when nothing does.

A pool of phantom patients without a finding is drawn once, each film with arms down and up, with and without a mark.
Every seed takes patients from it, deals them classes, and ties arms or mark to the class with probability rho, else by
a fair coin.  The probes are the audit's own, on the same frames; headers are invented and tied to nothing; sources
are left out.  Seeds share the pool's bodies, so that the interval of a rate is that of new collections of these bodies.
"""

# N films, V variants of each, S side of the frame, F features, P patients

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.audit.outcome import Outcome, Target, columns, count_text, counted
from loaders.audit.collection import ALPHA
from loaders.audit.probes import FRAME_PROBES, HEADER_PROBE, LUNG_PROBES, VIEW_PROBE, Probe
from loaders.audit.verdicts import lateral_odds
from loaders.config import PhantomConfig
from loaders.images.frame import grey_window, resize
from loaders.images.kind import kind_features, kind_of, shipped_weights
from loaders.images.lungs import shipped_segmenter
from loaders.phantom.phantom import draw_phantom, plan_phantoms
from loaders.statistics import deal_groups, fit_folds, holm, labelling_aucs, permutation_p, permute_groups

SIDE = 92
POOL, PATIENTS, IMAGES = 600, 400, 2
PERMUTATIONS = 999
RHOS = (0.25, 0.5, 0.75, 1.0)
TIES = ("arms", "mark")
LEAST_POWER = 0.8
VIEW, HEADER = VIEW_PROBE.name, HEADER_PROBE.name


@dataclass(frozen=True, slots=True)
class Pool:
    """Features of every film in every variant: arms up counts 2, a mark 1.  patient_N: counted from 0."""

    patient_N: np.ndarray
    features: dict[str, np.ndarray]
    """Probe → float64 N×V×F."""


def draw_pool(patients: int, seed: int, progress: Callable[[str], None]) -> Pool:
    """Draw every film four times and take all probes' features."""
    plan = plan_phantoms(PhantomConfig(out=Path("unused"), patients=patients, images_per_patient=IMAGES, seed=seed))
    frames_NVSS = np.empty((len(plan), 4, SIDE, SIDE), np.uint8)
    for place, film in enumerate(plan):
        if place % 100 == 0:
            progress(f"drawing film {place + 1} of {len(plan)}")
        for variant in range(4):
            planned = replace(film, label="normal", size=SIDE, arms_up=variant >= 2, marked=variant % 2 == 1)
            phantom = draw_phantom(planned)
            low, high, _ = grey_window(phantom.image_HW)
            frames_NVSS[place, variant] = resize(phantom.image_HW, SIDE, SIDE, (low, high))
    progress("features")
    flat_NSS = frames_NVSS.reshape(-1, SIDE, SIDE)
    features = {probe.name: probe.features(flat_NSS) for probe in FRAME_PROBES}
    progress("lungs")
    masks_NSS = np.array([shipped_segmenter().find(frame_SS).mask_SS for frame_SS in flat_NSS])
    features |= {probe.name: probe.features(masks_NSS) for probe in LUNG_PROBES}
    odds_N = [lateral_odds(kind_of(kind_features(frame_SS), shipped_weights())[0]) for frame_SS in flat_NSS]
    features[VIEW] = VIEW_PROBE.features(np.array(odds_N))
    return Pool(
        patient_N=np.array([film.patient - 1 for film in plan]),
        features={name: values.reshape(len(plan), 4, -1) for name, values in features.items()},
    )


def tie(rng: np.random.Generator, first_N: np.ndarray, rho: float) -> np.ndarray:
    """With probability rho whether the class is the first, else heads of a fair coin: bool N."""
    return np.where(rng.random(len(first_N)) < rho, first_N, rng.random(len(first_N)) < 0.5)


def adjusted_p(pool: Pool, *, patients: int, rho: float, tied: str, seed: int, permutations: int) -> dict[str, float]:
    """Probe → p after Holm's correction, of one collection.  tied: arms, mark, or "" for neither."""
    rng = np.random.default_rng([seed, 7])
    taken_P = rng.permutation(int(pool.patient_N.max()) + 1)[:patients]
    rows_N = np.flatnonzero(np.isin(pool.patient_N, taken_P))
    _, group_N = np.unique(pool.patient_N[rows_N], return_inverse=True)
    label_N = (rng.permutation(patients) % 2)[group_N]
    up_N, marked_N = (tie(rng, label_N == 0, rho if tied == name else 0.0) for name in TIES)
    variant_N = 2 * up_N + marked_N
    inputs: list[tuple[Probe, np.ndarray]] = [
        (probe, pool.features[probe.name][rows_N, variant_N]) for probe in (*FRAME_PROBES, *LUNG_PROBES, VIEW_PROBE)
    ]
    header_NF = np.column_stack([rng.integers(0, 2, len(rows_N)), rng.choice([9.0, 9.5, 10.0], len(rows_N))])
    inputs.append((HEADER_PROBE, HEADER_PROBE.features(header_NF)))
    fold_N = deal_groups(group_N, seed)
    label_RN = permute_groups(label_N, group_N, permutations, seed)
    p = [
        permutation_p(labelling_aucs(fit_folds(features_NF, fold_N, probe.standardise), label_RN, 2))
        for probe, features_NF in inputs
    ]
    return dict(zip([probe.name for probe, _ in inputs], holm(p), strict=True))


def alarms(found: list[dict[str, float]]) -> tuple[dict[str, Any], dict[str, int]]:
    """In how many collections any probe raised an alarm, and in how many each did."""
    family = sum(min(p.values()) <= ALPHA for p in found)
    return counted(family, len(found)), {name: sum(p[name] <= ALPHA for p in found) for name in found[0]}


def shortcuts(
    *, null_seeds: int = 200, seeds: int = 40, pool: int = POOL, patients: int = PATIENTS,
    permutations: int = PERMUTATIONS, progress: Callable[[str], None] = lambda step: None,
) -> Outcome:  # fmt: skip
    """The alarm rate without a shortcut, and the power with one."""
    films = draw_pool(pool, 0, progress)
    plan = [("", 0.0, null_seeds)] + [(tied, rho, seeds) for tied in TIES for rho in RHOS]
    results: list[tuple[str, float, dict[str, Any], dict[str, int]]] = []
    for tied, rho, count in plan:
        found = []
        for seed in range(count):
            if seed % 10 == 0:
                progress(f"{tied or 'nothing'} tied, rho {rho:g}, seed {seed}")
            found.append(adjusted_p(films, patients=patients, rho=rho, tied=tied, seed=seed, permutations=permutations))
        results.append((tied, rho, *alarms(found)))
    return conclude(results, patients, {"pool": pool, "patients": patients, "permutations": permutations})


def conclude(
    results: list[tuple[str, float, dict[str, Any], dict[str, int]]], patients: int, settings: dict[str, int]
) -> Outcome:
    """The power curve, and the targets.  results: what is tied, rho, alarms of the family, alarms of each probe."""
    rows = [["tied to the class", "rho", "alarm, any probe", "by probe"]]
    targets = []
    for tied, rho, family, each in results:
        by_probe = ", ".join(f"{name} {count}" for name, count in each.items() if count)
        rows.append([tied or "nothing", f"{rho:g}", count_text(family), by_probe])
        what, found = f"{tied or 'nothing'} tied, rho {rho:g}: alarms", count_text(family)
        share = family["hits"] / family["trials"]
        if not tied:
            met, expected = family["low"] <= ALPHA <= family["high"], "an interval that contains 5 %"
        elif rho == 1:
            met, expected = share == 1, "always"
        elif rho == RHOS[0]:
            met, expected = share >= LEAST_POWER, f"at least {LEAST_POWER:.0%} with {patients} patients"
        else:
            continue
        targets.append(Target(what=what, found=found, expected=expected, met=met))
    record = {
        "settings": settings,
        "alarms": [{"tied": tied, "rho": rho, "family": family, "probes": each} for tied, rho, family, each in results],
    }
    return Outcome(lines=tuple(columns(rows)), record=record, targets=tuple(targets))
