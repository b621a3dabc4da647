"""Checks before an evaluation: betons that do not fit the run, or that share images or patients with it."""

# N samples, K findings

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluate.results import Collection
from engine.evaluate.trained import Trained
from engine.statistics.findings import enough_known, names_of
from engine.train.leakage import ALL, hashes, image_cautions, load_record, overlap, patient_cautions, sources_of
from loaders.batches.loader import Loader
from loaders.beton.format import PATIENT_KNOWN, frames_text
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError, InputError
from loaders.sources.split import LEAST_KNOWN

FEW_GROUPS = 10  # below, resamples of groups say too little about what other groups would give


def set_cautions(beton: Beton, kept_N: np.ndarray | slice = ALL) -> list[Caution]:
    """What limits a score on this set, whichever run is tested on it.  kept_N: places of the images that are scored."""
    if not beton.verified:
        return [caution("groups-unknown")]
    unknown_N = beton.rows_N["flags"][kept_N] & PATIENT_KNOWN == 0
    unknown = int(unknown_N.sum())
    ungrouped = [caution("ungrouped-images", unknown=unknown, images=len(unknown_N))] if unknown else []
    return image_cautions([beton], kept_N) + ungrouped


def check_findings(run: Path, state: dict[str, Any], beton: Beton) -> None:
    """Errors: InputError for a beton of another task than the run's, or of other findings or another order of them."""
    task, found = state.get("task", "classes"), beton.facts.task if beton.verified else "classes"
    if found != task:
        raise InputError(
            f"{beton.path}: a beton of {found}, expected one of {task} as of {run}; convert it with --like {run}"
        )
    if task == "findings" and beton.facts.classes != tuple(state["classes"]):
        raise InputError(
            f"{beton.path}: findings {', '.join(beton.facts.classes)}, expected {', '.join(state['classes'])} in this "
            f"order; convert it with --like {run}"
        )


def check_lungs(like: Path, state: dict[str, Any], beton: Beton) -> None:
    """Errors: InputError for a beton whose frames show more of a film, or less, than those of a run or beton."""
    expected, found = state.get("lungs", "off"), beton.facts
    if found.lungs != expected:
        shown, needed = frames_text(found.lungs, found.segmenter), frames_text(expected, state.get("segmenter", ""))
        raise InputError(
            f"{beton.path}: frames show {shown}, expected {needed}, as of {like}; convert it with --like {like}"
        )


def check_task(beton: Beton, classes: Sequence[str], crop: int, stored: int) -> None:
    """Errors: InputError for a beton of other classes, unless it is unverified, or of another size."""
    facts = beton.facts
    if beton.verified and facts.classes != tuple(classes):
        raise InputError(
            f"{beton.path}: classes {', '.join(facts.classes)}, expected {', '.join(classes)}; "
            f"convert it with --classes {','.join(classes)}"
        )
    if (facts.crop, facts.stored) != (crop, stored):
        raise InputError(
            f"{beton.path}: frames of {facts.stored} with crops of {facts.crop}, expected {stored} with {crop}; "
            f"convert it with --size {crop}"
        )


def check_beton(run: Path, state: dict[str, Any], loader: Loader, *, force: bool) -> list[Caution]:
    """What limits the score of this run on a set: what both share, and what cannot be compared.

    state: of the run's weights.
    Errors: InputError for another task, other classes, another size, or frames that show other parts of a film, or for
    an overlap with the training set unless forced.
    """
    beton, facts = loader.beton, loader.beton.facts
    check_findings(run, state, beton)
    check_task(beton, state["classes"], state["crop"], state["stored"])
    check_lungs(run, state, beton)
    if beton.label_N.max() >= len(state["classes"]):
        raise InputError(f"{beton.path}: labels up to {beton.label_N.max()}, expected below {len(state['classes'])}")
    if not beton.verified:
        return [caution("unverified-beton")]
    found = []
    if facts.fit != state["fit"]:
        found.append(caution("frames-fitted-differently", found=facts.fit, expected=state["fit"]))
    if facts.segmenter != state.get("segmenter", ""):
        found.append(caution("lungs-found-otherwise", found=facts.segmenter, expected=state["segmenter"]))
    record = load_record(run, state["run"])
    same = {
        "same_key": record.site_key_id == facts.site_key_id,
        "same_algorithm": record.hash_algorithm == facts.hash_algorithm,
    }
    common = overlap(record.sets["train"], hashes(beton), **same)
    images, patients = common["images"] or 0, common["patients"] or 0
    if images or patients:
        if not force:
            shared = f"{images} images of the training set" + (f" and {patients} of its patients" if patients else "")
            if not same["same_algorithm"]:
                shared = f"{patients} images of patients of the training set"
            raise InputError(
                f"{beton.path}: holds {shared}, expected none; choose a held-out beton, "
                "or pass --force to see a leaked score"
            )
        found.append(caution("leakage-forced", images=images, patients=patients))
    if any(overlap(record.sets["val"], hashes(beton), **same).values()):
        found.append(caution("validation-leakage"))
    if not same["same_algorithm"]:
        found.append(
            caution("hashed-otherwise", found=facts.hash_algorithm or "none", expected=record.hash_algorithm or "none")
        )
    if not same["same_key"]:
        return [*found, caution("site-keys-differ")]
    found += patient_cautions(beton.rows_N["patient_hash"])
    return found + patient_cautions(record.sets["train"]["patient_hash"], "training-patients-unknown")


def collection_of(
    run: Path, state: dict[str, Any], beton: Beton, checked: Sequence[Caution], *, mostly_copies: bool = False
) -> Collection:
    """Whether a set is of a collection that shares no source with the run's training and validation images.

    state: of the run's weights.  checked: what was found of the set: one that shares images or patients, or whose
    images are mostly copies, is none; where its images cannot be compared, that is unknown.
    """
    if not beton.verified:
        return "unknown-source"
    if beton.facts.conversion_id == state["conversion_id"]:
        return "own"
    trained, tested = load_record(run, state["run"]).sources, sources_of(beton)
    codes = {found.code for found in checked}
    shared = {"leakage-forced", "validation-leakage", "copies-kept"} & codes
    if (trained & tested) - {""} or shared or mostly_copies:
        return "shared-source"
    if "hashed-otherwise" in codes:
        return "not-compared"
    return "unknown-source" if "" in trained | tested else "external"


def check_rival(trained: Trained, rival: Trained) -> None:
    """Errors: ConfigError for the same run twice; InputError for one whose scores cannot stand beside the first's."""
    if trained.run.resolve() == rival.run.resolve():
        raise ConfigError(f"--against: found {rival.run}, the run itself, expected another; name a second run")
    if rival.task != trained.task:
        raise InputError(
            f"{rival.run}: a run of {rival.task}, expected one of {trained.task} as {trained.run}; name a run of the "
            "same task"
        )
    for key in ("classes", "positive", "crop", "stored"):
        name = rival.task if key == "classes" else key
        found, expected = (
            ", ".join(value) if isinstance(value, list) else value for value in (rival.state[key], trained.state[key])
        )
        if found != expected:
            raise InputError(
                f"{rival.run}: {name} {found}, expected {expected} as of {trained.run}; name a run of the same task"
            )
    if rival.lungs != trained.lungs:
        raise InputError(
            f"{rival.run}: trained on --lungs {rival.lungs}, expected {trained.lungs} as of {trained.run}, since both "
            "are tested on the same frames; evaluate each on betons of its own"
        )


def class_cautions(classes: tuple[str, ...], label_N: np.ndarray) -> list[Caution]:
    """What classes without an image mean for the AUC, and for means over more than two classes."""
    absent = [name for label, name in enumerate(classes) if not (label_N == label).any()]
    found = [caution("absent-classes", classes=absent)] if absent and len(classes) > 2 else []
    return [*found, caution("one-class")] if len(absent) == len(classes) - 1 else found


def finding_cautions(names: Sequence[str], finding_NK: np.ndarray, group_N: np.ndarray) -> list[Caution]:
    """Which findings of a set are not measured."""
    few = names_of(names, ~enough_known(finding_NK, group_N))
    return [caution("findings-not-measured", findings=few, least=LEAST_KNOWN)] if few else []


def group_cautions(num_groups: int) -> list[Caution]:
    """What a small number of groups means for the intervals."""
    if num_groups < 2:
        return [caution("one-group")]
    return [caution("few-groups", groups=num_groups)] if num_groups < FEW_GROUPS else []
