"""What speaks against an evaluation: betons that do not fit the run, or that it has seen."""

# N samples

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluate.trained import Trained
from engine.train.leakage import SYNTHETIC_CAUTION, hashes, load_seen, overlap, patients_compared, source_caution
from loaders.batches.loader import Loader
from loaders.beton.format import PATIENT_KNOWN
from loaders.errors import ConfigError, InputError

NOT_EXCLUDED = "leakage between patients is not excluded"
FEW_GROUPS = 10  # below, resamples of groups tell too little of what other groups would give


def check_beton(run: Path, state: dict[str, Any], loader: Loader, *, force: bool) -> list[str]:
    """What speaks against evaluating a run on this beton, in plain words.  state: of the run's weights.

    Errors: InputError for other classes or another size, or for an overlap with the training set unless forced.
    """
    beton, facts = loader.beton, loader.beton.facts
    if beton.verified and facts.classes != tuple(state["classes"]):
        raise InputError(
            f"{beton.path}: classes {', '.join(facts.classes)}, expected {', '.join(state['classes'])}; "
            "convert it with the --classes of the training set"
        )
    if (facts.crop, facts.stored) != (state["crop"], state["stored"]):
        raise InputError(
            f"{beton.path}: frames of {facts.stored} with crops of {facts.crop}, expected {state['stored']} with "
            f"{state['crop']}; convert it with --size {state['crop']}"
        )
    if beton.label_N.max() >= len(state["classes"]):
        raise InputError(f"{beton.path}: labels up to {beton.label_N.max()}, expected below {len(state['classes'])}")
    warnings = []
    if not beton.verified:
        return [
            f"the beton is unverified: overlap with the training set cannot be checked; {NOT_EXCLUDED}",
            "groups are not known: samples are taken as independent, so intervals may be too narrow",
        ]
    if facts.fit != state["fit"]:
        warnings.append(f"frames were fitted by {facts.fit}, in training by {state['fit']}")
    if facts.synthetic:
        warnings.append(SYNTHETIC_CAUTION)
    if caution := source_caution(beton):
        warnings.append(caution)
    seen, key_id = load_seen(run, state["conversion_id"])
    same_key = key_id == facts.site_key_id
    common = overlap(seen["train"], hashes(beton), same_key)
    if any(common.values()):
        found = f"{common['images']} images of the training set" + (
            f" and {common['patients']} images of its patients" if common["patients"] else ""
        )
        if not force:
            raise InputError(
                f"{beton.path}: holds {found}, expected none; choose a held-out beton, "
                "or pass --force to see a leaked score"
            )
        warnings.append(f"leaked: holds {found}; the score says nothing about new patients")
    chosen_on = overlap(seen["val"], hashes(beton), same_key)
    if any(chosen_on.values()):
        warnings.append(
            "holds validation images or patients, on which checkpoint, temperature and thresholds were chosen: "
            "the score is optimistic"
        )
    known = patients_compared(beton.rows_N["patient_hash"], same_key) and patients_compared(
        seen["train"]["patient_hash"], same_key
    )
    if not known:
        why = "the site keys differ" if not same_key else "patients are not known for every image"
        warnings.append(f"{why}: {NOT_EXCLUDED}")
    unknown = int((beton.rows_N["flags"] & PATIENT_KNOWN == 0).sum())
    if unknown:
        warnings.append(
            f"patients are not known for {unknown} of {len(beton)} images: intervals take those as independent, "
            "and may be too narrow"
        )
    return warnings


def check_rival(trained: Trained, rival: Trained) -> None:
    """Errors: ConfigError for the same run twice; InputError for one whose scores cannot stand beside the first's."""
    if trained.run.resolve() == rival.run.resolve():
        raise ConfigError(f"--against: found {rival.run}, the run itself, expected another; name a second run")
    for name in ("classes", "positive", "crop", "stored"):
        found, expected = (
            ", ".join(value) if isinstance(value, list) else value for value in (rival.state[name], trained.state[name])
        )
        if found != expected:
            raise InputError(
                f"{rival.run}: {name} {found}, expected {expected} as of {trained.run}; name a run of the same task"
            )


def absent_classes(classes: tuple[str, ...], label_N: np.ndarray) -> list[str]:
    """What classes without an image mean for means over more than two, in plain words."""
    absent = [name for label, name in enumerate(classes) if not (label_N == label).any()]
    if len(classes) == 2 or not absent:
        return []
    return [f"no image is of {' or '.join(absent)}: means over classes are of what the others define"]


def few_groups(num_groups: int) -> list[str]:
    """What a small number of groups means for the intervals, in plain words."""
    if num_groups < 2:
        return ["all images are of one group: intervals that resample groups are not defined"]
    if num_groups < FEW_GROUPS:
        return [f"{num_groups} groups only: intervals from so few are too narrow"]
    return []
