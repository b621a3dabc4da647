"""The target of a collection that is only a test set: the run or beton with whose task it is converted (--like)."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import msgspec
from safetensors import SafetensorError, safe_open

from loaders.atomic_file import storage_error
from loaders.beton.format import GIVEN, frames_text
from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, ConvertConfig, Fit, FrameMode, stored_side
from loaders.errors import CheckpointError, ConfigError, InputError
from loaders.images.lungs import same_segmenter

FOLDS = ("group", "random", "*")  # of `crossval`; all others but these two are of changed frames
WEIGHTS = ("best.safetensors", *(f"folds/{split}-*/run/best.safetensors" for split in FOLDS))
TRAINED_ON = ("train.beton", "val.beton")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a test set must share with its target, as in a beton's facts, which weights keep under the same names."""

    classes: tuple[str, ...]  # or findings
    positive: str
    crop: int
    stored: int
    fit: str
    task: str = "classes"
    lungs: FrameMode = "off"
    segmenter: str = ""


def like_target(config: ConvertConfig, like: Path) -> ConvertConfig:
    """The config of a conversion that makes a test set of the whole collection, with the task of its target.

    like: a run folder or a beton.
    Errors: ConfigError for a setting that contradicts, for no run, and where `out` has betons that would be lost;
    InputError for a target whose frames `convert` cannot make; CheckpointError; BetonError; StorageError.
    """
    lost = [path for path in (like, *(config.out / name for name in TRAINED_ON)) if path.is_file()]
    if lost := [path for path in lost if path.resolve().parent == config.out.resolve()]:
        raise ConfigError(
            f"--out {config.out}: holds {lost[0].name}, which a test set alone would replace, expected a folder "
            "without it; choose another"
        )
    task = read_task(like)
    if task.fit not in get_args(Fit) or stored_side(task.crop) != task.stored:
        raise InputError(
            f"{like}: frames of {task.stored} with crops of {task.crop}, fitted by {task.fit}, expected frames that "
            "`convert` makes; convert its radiographs, and train again"
        )
    if task.lungs == "crossval":
        raise InputError(
            f"{like}: frames show {frames_text(task.lungs, task.segmenter)}, expected films as `convert` makes them; "
            "name the beton that was cross-validated"
        )
    if task.task == "classes" and config.catalog.task == "findings":
        raise ConfigError(f"--like {like}: of one label a film, found findings, expected classes; leave them out")
    wanted: dict[str, Any] = {
        "positive": task.positive or None, "size": task.crop, "fit": task.fit, "lungs": task.lungs,
        "val": 0.0, "holdout": 1.0,
    }  # fmt: skip
    default = {field.name: field.default for field in (*fields(ConvertConfig), *fields(CatalogConfig))}
    for name, expected in {task.task: task.classes, **wanted}.items():
        found = getattr(config.catalog if name == task.task else config, name)
        if found not in (expected, ("all",)) and (name in config.given or found != default[name]):
            shown, needed = (",".join(value) if isinstance(value, tuple) else value for value in (found, expected))
            whose = "of a test set alone" if name in ("val", "holdout") else f"as of {like}"
            raise ConfigError(f"--{name}: found {shown}, expected {needed} {whose}; leave it out")
    check_masks(config, task, like)
    names: dict[str, Any] = {task.task: task.classes}
    catalog = replace(config.catalog, **names)
    return replace(config, catalog=catalog, **wanted)


def check_masks(config: ConvertConfig, task: Task, like: Path) -> None:
    """Errors: ConfigError unless the lungs will be found as the target's were: by masks as files, or its segmenter."""
    given = config.masks != "auto"
    if task.lungs != "off" and given != (task.segmenter == GIVEN):
        remedy = "leave it out" if given else "name a CSV of path and mask"
        expected = "auto" if given else "masks as files"
        raise ConfigError(f"--masks: found {config.masks}, expected {expected}, as of {like}; {remedy}")
    if task.lungs != "off" and not given:
        same_segmenter(config.segmenter, task.segmenter, like)


def read_task(like: Path) -> Task:
    """The task of a run or a beton.  Errors: as above; weights are not read, and so not checked."""
    if like.is_file():
        with Beton(like) as beton:
            facts = beton.facts
            return Task(**{field.name: getattr(facts, field.name) for field in fields(Task)})
    weights = next((path for pattern in WEIGHTS for path in sorted(like.glob(pattern))), None)
    if weights is None:
        raise ConfigError(
            f"--like {like}: no {WEIGHTS[0]}, expected a run of `train` or `crossval`, or a beton; check the path"
        )
    try:
        with safe_open(weights, framework="np") as file:
            state: Any = json.loads(file.metadata()["state"])
        return msgspec.convert(state, Task)
    except OSError as error:
        raise storage_error(weights, error) from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError) as error:
        raise CheckpointError(
            f"{weights}: not the weights of a run ({error}), expected those that `train` wrote; use the last good copy"
        ) from error
