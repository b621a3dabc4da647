"""The learning sets: train.beton and val.beton of one conversion, opened, checked against each other."""

# N samples

from __future__ import annotations

import contextlib
from dataclasses import replace

from engine.config import TrainConfig
from engine.seen import hashes, overlap, patients_compared
from loaders.account import told_by_source
from loaders.beton import Beton
from loaders.errors import InputError
from loaders.loader import Loader

SYNTHETIC_CAUTION = "all images are synthetic phantoms: the score says nothing about patients"


def open_loaders(config: TrainConfig, stack: contextlib.ExitStack) -> tuple[Loader, Loader]:
    """Open train.beton and val.beton.  Errors: InputError unless they are of one conversion and share nothing."""
    for name in ("train.beton", "val.beton"):
        if not (config.data / name).is_file():
            raise InputError(
                f"{config.data}: no {name}, expected a folder that `convert` made; check the path, "
                "or name it beside --resume"
            )
    settings = replace(config.loader, training=True)
    loader = stack.enter_context(Loader(config.data / "train.beton", settings, tensors=True))
    val_loader = stack.enter_context(Loader(config.data / "val.beton", settings, tensors=True, training=False))
    a, b = loader.beton.facts, val_loader.beton.facts
    if (a.conversion_id, a.classes, a.crop, a.stored) != (b.conversion_id, b.classes, b.crop, b.stored):
        raise InputError(
            f"{config.data}: train.beton is of conversion {a.conversion_id or 'unknown'}, val.beton of "
            f"{b.conversion_id or 'unknown'}; expected one conversion; convert the radiographs again"
        )
    if loader.beton.verified:
        common = overlap(hashes(loader.beton), hashes(val_loader.beton), same_key=True)
        if any(common.values()):
            raise InputError(
                f"{config.data}: training and validation share {common['images']} images and "
                f"{common['patients']} images of common patients, expected none; convert the radiographs again"
            )
    return loader, val_loader


def cautions(loader: Loader) -> list[str]:
    """What speaks against any score of a network trained on this set, in plain words."""
    beton = loader.beton
    found = []
    if beton.facts.synthetic:
        found.append(SYNTHETIC_CAUTION)
    if caution := source_caution(beton):
        found.append(caution)
    if not patients_compared(beton.rows_N["patient_hash"], beton.verified):
        found.append("patients are not known for every image: leakage between patients is not excluded")
    return found


def source_caution(beton: Beton) -> str:
    """In plain words, that the source alone tells the label of some class; "" where it does not."""
    told = told_by_source(beton.label_N.tolist(), beton.rows_N["source"].tolist())
    names = ", ".join(beton.facts.classes[label] for label in sorted(told))
    if not told:
        return ""
    said = f"every image of {names} comes from a source without any other class"
    return f"{said}: the score is evidence of nothing clinical"
