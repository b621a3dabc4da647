"""Lungs alone for tests: the betons of a small conversion as `convert --lungs` makes them, and runs that name them."""

# N samples

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.run_folder import BEST
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import LungMode
from loaders.images.lungs import load_segmenter
from loaders.images.regions import LUNG_MODES
from loaders.lungs.masks import segmented

SHIPPED = load_segmenter("shipped").record.identity


def write_lungs(betons: Path, folder: Path, lungs: LungMode = "masked", segmenter: str = SHIPPED) -> Path:
    """Write the betons of a folder into another, each frame with its lungs alone; give that folder.

    Films without a credible mask are left out.  segmenter: what the betons name as having found the lungs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(betons.glob("*.beton")):
        with Beton(source) as beton:
            masks = segmented(beton, load_segmenter("shipped"))
            found = [masks.found(beton, sample) for sample in range(len(beton))]
            kept_N = np.flatnonzero([not lungs.problem for lungs in found])
            change = (lambda frame_SS, *mask: frame_SS) if lungs == "off" else LUNG_MODES[lungs]
            frames = (change(beton.frame(sample), found[sample].mask_SS, beton.facts.crop) for sample in kept_N)
            identity = f"{sum(map(ord, lungs + segmenter)):032x}"
            facts = replace(beton.facts, lungs=lungs, segmenter=segmenter, conversion_id=identity)
            write_beton(
                folder / source.name, frames, beton.labels[kept_N], beton.rows_N[kept_N], facts, beton.page_size
            )
    return folder


def run_with(run: Path, copy: Path, **state: Any) -> Path:
    """A copy of a run whose weights have another state."""
    shutil.copytree(run, copy)
    tensors, content = load_checkpoint(copy / BEST)
    save_checkpoint(copy / BEST, tensors, content | state)
    return copy
