"""Findings for tests: small betons made directly, each finding a bright patch at a place of its own; an evaluation."""

# N samples, K findings, S side of a stored frame

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluate.findings import FindingsMetrics, finding_results
from engine.evaluate.trained import Checkpoint, decide_findings
from engine.statistics.findings import FindingsTest, measure_findings
from engine.train.checkpoint import ValidationScores
from loaders.beton.format import PATIENT_KNOWN, ROW, Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import HASH_ALGORITHM, stored_side
from loaders.statistics import no_progress

NAMES = ("Effusion", "Nodule", "Edema")


def write_findings(
    folder: Path,
    names: tuple[str, ...] = NAMES,
    *,
    counts: dict[str, int] | None = None,
    crop: int = 64,
    prevalence: float = 0.4,
    unknown: float = 0.0,
    strength: int = 60,
    sources: tuple[str, ...] = ("", "A", "B"),
    seed: int = 0,
) -> Path:
    """Write train.beton, val.beton and heldout.beton of one conversion into a folder; give the folder.

    counts: split → images, of two a patient.  unknown: share of labels that are made unknown, at random.
    strength: grey levels that a patch adds to noise of deviation 20; at 0 nothing can be learnt.
    """
    counts = counts or {"train": 96, "val": 48, "heldout": 48}
    rng, side = np.random.default_rng(seed), stored_side(crop)
    facts = Facts(
        classes=names, positive="", stored=side, crop=crop, fit="stretch", split="", seed=seed,
        conversion_id=hashlib.blake2b(f"{names}{counts}{seed}{unknown}".encode(), digest_size=16).hexdigest(),
        site_key_id="0" * 16, source_fingerprint="0" * 32, sources=sources, views=("", "PA", "AP"), task="findings",
        uncertain=dict.fromkeys(names, "unknown"), blank=dict.fromkeys(names, "unknown"), hash_algorithm=HASH_ALGORITHM,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for split, count in counts.items():
        true_NK = rng.random((count, len(names))) < prevalence
        finding_NK = np.where(rng.random(true_NK.shape) < unknown, np.nan, true_NK).astype(np.float32)
        frames_NSS = np.clip(rng.normal(100, 20, (count, side, side)), 0, 255)
        for place in range(len(names)):
            row, column = divmod(place, 4)
            size, margin = crop // 5, (side - crop) // 2
            top, left = (margin + index * crop // 4 + 2 for index in (row, column))
            frames_NSS[true_NK[:, place], top : top + size, left : left + size] += strength
        rows_N = np.zeros(count, ROW)
        rows_N["pixel_hash"] = rng.integers(0, 256, (count, 16))
        rows_N["group"] = first + np.arange(count) // 2
        rows_N["patient_hash"] = [
            np.frombuffer(hashlib.blake2b(f"{seed} {group}".encode(), digest_size=16).digest(), np.uint8)
            for group in rows_N["group"].tolist()
        ]
        rows_N["source"] = rng.integers(1, len(sources), count) if len(sources) > 1 else 0
        rows_N["view"] = rng.integers(1, 3, count)
        rows_N["flags"] = PATIENT_KNOWN
        first += -(-count // 2)
        frames_NSS = np.clip(frames_NSS, 0, 255).astype(np.uint8)
        write_beton(
            folder / f"{split}.beton",
            iter(frames_NSS),
            finding_NK,
            rows_N,
            replace(facts, split=split),
            page_size=1 << 21,
        )
    return folder


def relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write a folder's betons again with other labels, whatever their frames show.  change: of each, float32 (N, K)."""
    for path in folder.glob("*.beton"):
        with Beton(path) as beton:
            frames = [beton.frame(sample).copy() for sample in range(len(beton))]
            labels, rows_N, facts, page = change(beton.labels.copy()), beton.rows_N.copy(), beton.facts, beton.page_size
        write_beton(path, iter(frames), labels, rows_N, facts, page)
    return folder


def evaluated(
    names: tuple[str, ...] = NAMES, num_samples: int = 240, *, rare: int = 0, **changes: Any
) -> tuple[FindingsTest, FindingsMetrics]:
    """Scores of some skill on films in groups of two, and what findings.json has of them.

    rare: so many of the last findings are never present.  changes: of findings.json.
    """
    rng, num_findings = np.random.default_rng(0), len(names)
    finding_NK = (rng.random((num_samples, num_findings)) < 0.3).astype(np.float32)
    logits_NK = (rng.normal(size=finding_NK.shape) + np.linspace(0.5, 3, num_findings) * finding_NK).astype(np.float32)
    finding_NK[rng.random(finding_NK.shape) < 0.2] = np.nan
    finding_NK[:, num_findings - rare :] *= 0
    group_N = np.arange(num_samples) // 2
    rule = decide_findings(ValidationScores(labels=finding_NK, logits_NK=logits_NK, group_N=group_N), names)
    test = FindingsTest(
        finding_NK=finding_NK, probability_NK=rule.probabilities(logits_NK), group_N=group_N,
        threshold=rule.threshold_K,
    )  # fmt: skip
    settings = {"resamples": 40, "seed": 0}
    measured = measure_findings([test], resamples=40)
    halves = [("source", name, np.arange(place, num_samples, 2)) for place, name in enumerate("AB")]
    content: dict[str, Any] = {
        "set_name": "heldout-00000000", "beton": "heldout.beton", "split": "heldout", "synthetic": True,
        "conversion_id": "0" * 32, "collection": "own", "num_samples": num_samples, "num_groups": num_samples // 2,
        "findings": finding_results(test, rule, measured, halves, [], settings, no_progress), "macro": measured.macro(),
        "against": "", "macro_difference": {}, "uncertain": dict.fromkeys(names, "unknown"),
        "blank": dict.fromkeys(names, "unknown"), **settings, "cautions": [], "difference_cautions": [],
        "checkpoint": Checkpoint(sha256="0" * 64, epoch=1, conversion_id="0" * 32), "device": "cpu",
    }  # fmt: skip
    return test, FindingsMetrics(**content | changes)
