"""`make bench-finding-probes`: how often probes of findings raise an alarm where nothing, or a mark, gives them away.

Phantom patients without a finding are drawn once, each film without and with a mark.  Every seed takes patients, of one
film or two, from that pool and deals them findings of unequal prevalence: independent, or such as come together, with
half of the values unknown, or one finding unknown in a source of darker films.  Marks follow nothing, or the first
finding alone.  The probes are the audit's own; headers and views are invented and tied to nothing.  Seeds share the
pool's bodies, so that the interval of a rate is that of new labels of these bodies.  Exits with 1 where a target is
missed.
"""

# N films, V variants of each, S side of the frame, F features, K findings, A patients, R seeds

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.audit.outcome import count_text, counted
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from loaders.audit.by_finding import describe_tests, run_tests
from loaders.audit.collection import ALPHA
from loaders.audit.probes import FRAME_PROBES, HEADER_PROBE, LUNG_PROBES, VIEW_PROBE, Probe
from loaders.config import PhantomConfig
from loaders.images.frame import grey_window, resize
from loaders.images.lungs import shipped_segmenter
from loaders.phantom.phantom import draw_phantom, plan_phantoms

SIDE, POOL, PATIENTS, IMAGES = 92, 300, 200, 2
PERMUTATIONS, SEEDS, MARKED_SEEDS = 199, 200, 40
PREVALENCE = (0.5, 0.35, 0.25, 0.15, 0.1)
FINDINGS = tuple(f"finding {place}" for place in range(1, 1 + len(PREVALENCE)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One way to deal findings.  shared: of the deviation behind each finding that all findings have in common.

    unknown: share of values.  one_source: the last finding is known in one of two sources alone, of darker films.
    marks: probability that the mark follows the first finding; else a fair coin decides.
    """

    name: str
    shared: float = 0.0
    unknown: float = 0.0
    one_source: bool = False
    marks: float = 0.0


STUDIES = (
    Study(name="independent"),
    Study(name="together", shared=0.7),
    Study(name="half-unknown", shared=0.7, unknown=0.5),
    Study(name="unknown-in-one-source", shared=0.7, one_source=True),
    Study(name="marked", marks=1.0),
    Study(name="marked-half-unknown", unknown=0.5, marks=1.0),
)


@dataclass(frozen=True, slots=True)
class Pool:
    """Features of every film in every variant: darker counts 2, a mark 1.  patient_N: counted from 0."""

    patient_N: np.ndarray
    features: dict[Probe, np.ndarray]
    """Probe → float64 N×V×F."""


def draw_pool(patients: int, seed: int = 0) -> Pool:
    """Draw every film without and with a mark, darken both, and take the features of all probes of frames and lungs."""
    plan = plan_phantoms(PhantomConfig(out=Path("unused"), patients=patients, images_per_patient=IMAGES, seed=seed))
    frames_NVSS = np.empty((len(plan), 4, SIDE, SIDE), np.uint8)
    for place, film in enumerate(plan):
        for marked in (0, 1):
            phantom = draw_phantom(replace(film, label="normal", size=SIDE, marked=marked == 1))
            low, high, _ = grey_window(phantom.image_HW)
            frames_NVSS[place, marked] = resize(phantom.image_HW, SIDE, SIDE, (low, high))
    frames_NVSS[:, 2:] = frames_NVSS[:, :2] // 2
    flat_NSS = frames_NVSS.reshape(-1, SIDE, SIDE)
    masks_NSS = np.array([shipped_segmenter().find(frame_SS).mask_SS for frame_SS in flat_NSS])
    features = {probe: probe.features(flat_NSS) for probe in FRAME_PROBES}
    features |= {probe: probe.features(masks_NSS) for probe in LUNG_PROBES}
    return Pool(
        np.array([film.patient - 1 for film in plan]),
        {probe: values.reshape(len(plan), 4, -1) for probe, values in features.items()},
    )


def alarms(study: Study, pool: Pool, *, patients: int, seed: int, permutations: int) -> list[bool]:
    """Whether each finding raises an alarm, in one collection that a seed deals."""
    rng = np.random.default_rng([seed, 11])
    taken_A = rng.permutation(int(pool.patient_N.max()) + 1)[:patients]
    rows_N = np.flatnonzero(np.isin(pool.patient_N, taken_A))
    _, group_N = np.unique(pool.patient_N[rows_N], return_inverse=True)
    common_A1, own_AK = rng.standard_normal((patients, 1)), rng.standard_normal((patients, len(FINDINGS)))
    score_AK = study.shared * common_A1 + np.sqrt(1 - study.shared**2) * own_AK
    present_NK = (score_AK.argsort(0).argsort(0) < np.multiply(PREVALENCE, patients))[group_N]
    finding_NK = np.where(rng.random(present_NK.shape) < study.unknown, np.nan, present_NK).astype(np.float32)
    marked_N = np.where(rng.random(len(rows_N)) < study.marks, present_NK[:, 0], rng.random(len(rows_N)) < 0.5)
    darker_N = (rng.random(patients) < 0.5)[group_N] if study.one_source else np.zeros(len(rows_N), bool)
    finding_NK[darker_N, -1] = np.nan
    features = {probe: values[rows_N, 2 * darker_N + marked_N] for probe, values in pool.features.items()}
    header_NF = np.column_stack([rng.integers(0, 2, len(rows_N)), rng.choice([9.0, 9.5, 10.0], len(rows_N))])
    features[HEADER_PROBE] = HEADER_PROBE.features(header_NF)
    features[VIEW_PROBE] = VIEW_PROBE.features(rng.standard_normal(len(rows_N)))
    tests = run_tests(features, finding_NK, [*range(len(FINDINGS))], group_N, seed, permutations, 1)
    alarmed = {found.finding for found in describe_tests(tests, FINDINGS) if found.alarm}
    return [name in alarmed for name in FINDINGS]


def measure(study: Study, pool: Pool, *, seeds: int, patients: int, permutations: int) -> dict[str, Any]:
    """In how many collections any finding raised an alarm, but for one that a mark follows; and each."""
    alarm_RK = np.array(
        [alarms(study, pool, patients=patients, seed=seed, permutations=permutations) for seed in range(seeds)]
    )
    family_R = alarm_RK[:, 1:].any(1) if study.marks else alarm_RK.any(1)
    return {
        "study": asdict(study),
        "family": counted(int(family_R.sum()), seeds),
        "first": counted(int(alarm_RK[:, 0].sum()), seeds),
        "findings": dict(zip(FINDINGS, alarm_RK.sum(0).tolist(), strict=True)),
    }


def missed_by(found: dict[str, Any]) -> list[str]:
    """What a study had to reach and did not: a rate of false alarms compatible with 5 %; a marked finding, always."""
    name, family, first = found["study"]["name"], found["family"], found["first"]
    missed = [] if family["low"] <= ALPHA else [f"{name}: false alarms {count_text(family)}, expected up to 5 %"]
    if found["study"]["marks"] and first["hits"] < first["trials"]:
        missed.append(f"{name}: alarms of the marked finding {count_text(first)}, expected always")
    return missed


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    names = [study.name for study in STUDIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finding_probes", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="studies to measure; the others stay")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each study without a mark; default: %(default)s")
    parser.add_argument("--marked-seeds", type=int, default=MARKED_SEEDS, help="of each with one; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "finding_probes.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts, missed = provenance(), list[str]()
    print(describe(facts))
    pool = draw_pool(POOL)
    settings = {"pool": POOL, "patients": PATIENTS, "permutations": PERMUTATIONS, "prevalence": PREVALENCE}
    for study in [one for one in STUDIES if one.name in chosen.only]:
        began, seeds = time.perf_counter(), chosen.marked_seeds if study.marks else chosen.seeds
        found = measure(study, pool, seeds=seeds, patients=PATIENTS, permutations=PERMUTATIONS)
        found |= {"seconds": round(time.perf_counter() - began, 1), "settings": settings, "provenance": facts}
        marked = f"of the marked finding {count_text(found['first'])}, of any other " if study.marks else ""
        print(f"{study.name}: alarms {marked}{count_text(found['family'])} ({found['seconds']} s)", flush=True)
        missed += missed_by(found)
        stored = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
        chosen.out.parent.mkdir(exist_ok=True)
        chosen.out.write_text(json.dumps(stored | {study.name: found}, indent=1) + "\n")
    print("\n".join(missed) or "as expected")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
