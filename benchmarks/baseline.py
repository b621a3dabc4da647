"""A stored baseline: the ratios of the quick pairs on one kind of machine."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decision import Interval
from benchmarks.provenance import cpu_words

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """ratios: by pair.  provenance: commit, machine and versions."""

    ratios: dict[str, Interval]
    provenance: dict[str, Any]


def default_path() -> Path:
    """The file for machines like this one: 2cores-amd-epyc-25-17.json, by cores, name, family and model."""
    name = re.sub(r"[^a-z0-9]+", "-", " ".join(cpu_words()).lower()).strip("-")
    return FOLDER / f"{os.cpu_count()}cores-{name}.json"


def save(baseline: Baseline, path: Path) -> None:
    """Write as JSON."""
    ratios = {pair: found.record() for pair, found in baseline.ratios.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"provenance": baseline.provenance, "ratios": ratios}, indent=1) + "\n")


def load(path: Path) -> Baseline:
    """Read what `save` wrote.  Errors: OSError, ValueError for another content."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not {"ratios", "provenance"} <= content.keys():
        raise ValueError(f"{path}: no baseline, expected ratios and provenance; run make bench-baseline")
    ratios = {pair: Interval(**found) for pair, found in content["ratios"].items()}
    return Baseline(ratios=ratios, provenance=content["provenance"])
