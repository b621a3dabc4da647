"""The probes of a run: whether anything but the finding predicts the label in the betons that it learnt from."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2

from loaders import __version__
from loaders.atomic_file import publish_bytes
from loaders.audit.findings import CollectionFinding, ProbeFinding
from loaders.beton import Beton

PROBES = "probes.json"
SEED = 0
PERMUTATIONS = 999  # the fewest with which Holm's correction over a dozen probes can leave a p below 5 %
Progress = Callable[[str, int, int], None]


def probe_run(run: Path, beton_path: Path, progress: Progress = lambda phase, done, total: None) -> CollectionFinding:
    """Run the audit's probes on a training beton, and write RUN/probes.json, the same for the same beton.

    Errors: BetonError; StorageError.
    """
    from loaders.audit.audit import audit_beton  # takes its time to import

    with Beton(beton_path, trust_unverified=True) as beton:
        verified, facts, num_samples = beton.verified, beton.facts, len(beton)
    found = None
    why = "fewer than two classes"
    if verified:
        found = audit_beton(beton_path, SEED, PERMUTATIONS, progress)
    else:
        why = "the beton is unverified: its groups are not known"
    result = found or CollectionFinding(probes=(), cautions=(), skipped={"all probes": why})
    content = {
        "beton": beton_path.name,
        "conversion_id": facts.conversion_id,
        "num_samples": num_samples,
        "seed": SEED,
        "permutations": PERMUTATIONS,
        "probes": [probe_content(probe) for probe in result.probes],
        "cautions": list(result.cautions),
        "skipped": result.skipped,
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }
    publish_bytes(run / PROBES, (json.dumps(content, indent=2) + "\n").encode())
    return result


def probe_content(probe: ProbeFinding) -> dict[str, Any]:
    """One probe for JSON: what was not measured is null, the picture a small PNG in base64."""
    numbers = {name: getattr(probe, name) for name in ("auc", "low", "high", "null_high", "p", "p_holm")}
    picture = None
    if probe.picture_HW is not None:
        picture = base64.b64encode(cv2.imencode(".png", probe.picture_HW)[1].tobytes()).decode()
    return {
        "name": probe.name,
        **{name: float(value) if math.isfinite(value) else None for name, value in numbers.items()},
        "alarm": bool(probe.alarm),
        "sentence": probe.sentence,
        "picture": picture,
    }
