"""What a beton says of itself, for the terminal."""

# N samples

from __future__ import annotations

from pathlib import Path

import numpy as np

from loaders.beton import Beton
from loaders.terminal import Parts, Sheet


def beton_parts(path: Path, beton: Beton) -> Parts:
    """Its footer, row by row.  path: as the user named it."""
    facts, rows_N = beton.facts, beton.rows_N
    counts = np.bincount(beton.label_N, minlength=len(facts.classes))
    by_class = ", ".join(f"{name} {count}" for name, count in zip(facts.classes, counts, strict=True))
    rows = {
        "verified": "structure, header and tables" if beton.verified else "no: foreign, without checksums",
        "samples": f"{len(beton):,}: {by_class}",
        "positive class": facts.positive,
        "frames": f"{facts.stored}×{facts.stored} uint8, crop {facts.crop}, {facts.fit}",
        "split": f"{facts.split}, seed {facts.seed}",
        "groups": f"{len(np.unique(rows_N['group'])):,}" if beton.verified else "unknown",
        "patients": f"{int(rows_N['patient_hash'].any(1).sum()):,} images with a known patient",
        "views": ", ".join(view or "unknown" for view in facts.views),
        "sources": ", ".join(source or "unknown" for source in facts.sources),
        "synthetic": "yes" if facts.synthetic else "no",
        "conversion": facts.conversion_id or "unknown",
        "site key": facts.site_key_id or "unknown",
        "bytes": f"{beton.bytes_B.size:,} in pages of {beton.page_size:,}",
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or "unknown",
    }
    return [Sheet(headers=("beton", str(path)), rows=tuple(rows.items()), ends_in_text=True)]
