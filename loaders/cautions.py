"""Cautions: what limits or undoes a result, each a code with parameters; the one place that holds their texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

Parameter = str | int | float | list[str]


class Gravity(IntEnum):
    """What undoes a score, gravest first: the order of red flags, of cautions and of other findings alike."""

    LEAKAGE = 0
    CONFOUNDED = 1
    SYNTHETIC = 2
    LUNGS = 3
    PROBES = 4
    CROSSVAL = 5
    EARLY = 6
    PATIENTS = 7
    FEW_IMAGES = 8
    FEW_GROUPS = 9
    SUBGROUP = 10
    NOTE = 11
    """To be known, but no red flag."""


class Caution(msgspec.Struct, frozen=True):
    """One caution, of what holds it: a run, a set, a comparison.  A rival's lie in a list of the rival's own.

    Errors: ValueError for a code that is not in CODES, and for parameters that are not the code's; a file with such a
    caution is refused by msgspec when it is read.
    """

    code: str
    parameters: dict[str, Parameter] = {}

    def __post_init__(self) -> None:
        code = CODES.get(self.code)
        if code is None:
            raise ValueError(f"caution {self.code!r}, expected one of loaders.cautions")
        if self.parameters.keys() != code.parameters.keys():
            raise ValueError(
                f"caution {self.code}: parameters {sorted(self.parameters)}, expected {sorted(code.parameters)}"
            )
        for name, kind in code.parameters.items():
            if not fits(self.parameters[name], kind):
                raise ValueError(f"caution {self.code}: {name} {self.parameters[name]!r}, expected {kind.__name__}")

    @property
    def finding(self) -> str:
        """What was found, without a full stop."""
        lists = {name: ", ".join(value) for name, value in self.parameters.items() if isinstance(value, list)}
        return CODES[self.code].finding.format(**self.parameters | lists)

    @property
    def effect(self) -> str:
        """What that does to the score, to follow "the score"; "" where it is no red flag."""
        return CODES[self.code].effect

    @property
    def gravity(self) -> Gravity:
        """How much it undoes."""
        return CODES[self.code].gravity

    @property
    def text(self) -> str:
        """All of it in plain English, to follow `Caution: `, without a full stop."""
        return f"{self.finding}: the score {self.effect}" if self.effect else self.finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """What a code means.  finding: what was found, a template of the parameters, without a full stop.

    effect: what that does to the score, to follow "the score"; only red flags have one, and a gravity above NOTE.
    """

    finding: str
    effect: str = ""
    gravity: Gravity = Gravity.NOTE
    parameters: dict[str, type] = field(default_factory=dict)


def fits(value: Parameter, kind: type) -> bool:
    """Whether a parameter is of its type; a whole number may stand for a float."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return not isinstance(value, bool) and isinstance(value, (int, float) if kind is float else kind)


def caution(code: str, **parameters: Parameter) -> Caution:
    """A caution.  Errors: ValueError for an unknown code, or parameters that are not the code's."""
    return Caution(code, parameters)


def each_once(found: Iterable[Caution]) -> list[Caution]:
    """Cautions in order, equal ones once."""
    kept: list[Caution] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept


BETWEEN_PATIENTS = "may be inflated, since leakage between patients is not excluded"

CODES: dict[str, Code] = {
    # of a set that shares something with training
    "leakage-forced": Code(
        gravity=Gravity.LEAKAGE,
        effect="is leaked",
        finding="the set tested holds {images:,} images of the training set and {patients:,} images known to be of its "
        "patients",
        parameters={"images": int, "patients": int},
    ),
    "validation-leakage": Code(
        gravity=Gravity.LEAKAGE,
        effect="is optimistic",
        finding="the set tested holds images or patients of the validation set, on which the checkpoint, the "
        "temperature and the thresholds were chosen",
    ),
    # of the images
    "confounded-with-source": Code(
        gravity=Gravity.CONFOUNDED,
        effect="is evidence of nothing clinical",
        finding="finding and source cannot be separated, since all images of {classes} ({images:,}) come from sources "
        "that have no other class",
        parameters={"classes": list, "images": int},
    ),
    "synthetic-phantoms": Code(
        gravity=Gravity.SYNTHETIC,
        effect="says nothing about patients",
        finding="all images are synthetic phantoms, drawn by a program",
    ),
    "early-convergence": Code(
        gravity=Gravity.EARLY,
        effect="came suspiciously early",
        finding="validation {metric} was {value:.3f} after one epoch, which a shortcut in the data would explain (see "
        "`audit`)",
        parameters={"metric": str, "value": float},
    ),
    "patients-unknown": Code(
        gravity=Gravity.PATIENTS,
        effect=BETWEEN_PATIENTS,
        finding="patients are unknown for {unknown:,} of {images:,} images",
        parameters={"unknown": int, "images": int},
    ),
    "training-patients-unknown": Code(
        gravity=Gravity.PATIENTS,
        effect=BETWEEN_PATIENTS,
        finding="patients are unknown for {unknown:,} of {images:,} training images",
        parameters={"unknown": int, "images": int},
    ),
    "site-keys-differ": Code(
        gravity=Gravity.PATIENTS,
        effect=BETWEEN_PATIENTS,
        finding="the site keys differ, so that patients cannot be compared with those of the training set",
    ),
    "unverified-beton": Code(
        gravity=Gravity.PATIENTS,
        effect=BETWEEN_PATIENTS,
        finding="the beton is unverified, so that its overlap with the training set cannot be checked",
    ),
    "every-image-its-own-group": Code(
        gravity=Gravity.PATIENTS, effect=BETWEEN_PATIENTS, finding="no two images are known to be of one patient"
    ),
    "frames-fitted-differently": Code(
        finding="frames were fitted by {found}, but by {expected} in training",
        parameters={"found": str, "expected": str},
    ),
    # of the statistics
    "groups-unknown": Code(
        gravity=Gravity.FEW_GROUPS,
        effect="is less certain than its intervals suggest",
        finding="groups are unknown, so that images are taken as independent",
    ),
    "one-group": Code(
        gravity=Gravity.FEW_GROUPS,
        effect="rests on few patients",
        finding="all images are of one group, so that no interval can be computed",
    ),
    "few-groups": Code(
        gravity=Gravity.FEW_GROUPS,
        effect="rests on few patients",
        finding="there are only {groups} groups, and intervals from so few are too narrow",
        parameters={"groups": int},
    ),
    "ungrouped-images": Code(
        finding="the intervals may be too narrow: {unknown:,} of {images:,} images have no known patient and are taken "
        "as independent",
        parameters={"unknown": int, "images": int},
    ),
    "one-class": Code(finding="only one class is present, so that the AUC is undefined"),
    "absent-classes": Code(
        finding="no image is of {classes}: means are over the other classes", parameters={"classes": list}
    ),
    "temperature-at-bound": Code(
        finding="the temperature is at its bound, {temperature:g}: validation was too easy or too hard to calibrate "
        "by, so that a probability means little",
        parameters={"temperature": float},
    ),
    # of an explanation
    "usual-lung-region": Code(
        finding="no masks were given, so that the lungs are assumed to lie where they usually do; name masks with "
        "--masks"
    ),
    "empty-maps": Code(
        finding="{empty:,} of {images:,} maps are empty, since nothing speaks for the predicted class; the lung ratio "
        "leaves them out",
        parameters={"empty": int, "images": int},
    ),
    "lungs-outside-crop": Code(
        finding="{outside:,} of {images:,} images have no lungs within their crop; the lung ratio leaves them out",
        parameters={"outside": int, "images": int},
    ),
    "maps-of-random-weights": Code(
        finding="a network with random weights gives the same maps, so that they show nothing that this one learnt"
    ),
    "maps-not-comparable": Code(
        finding="the maps, or those of networks with random weights, are uniform, so that it cannot be checked whether "
        "they show what this one learnt"
    ),
    "deletion-not-faster": Code(
        finding="hiding what the maps mark was not shown to lower the probability faster than hiding at random"
    ),
    # of a cross-validation
    "external-fitted-differently": Code(
        finding="{beton}: frames were fitted by {found}, but by {expected} in the pool",
        parameters={"beton": str, "found": str, "expected": str},
    ),
    "external-site-key-differs": Code(
        finding="{beton}: its site key is another, so that patients shared with the pool are not excluded",
        parameters={"beton": str},
    ),
    "external-patients-unknown": Code(
        finding="{beton}: patients are unknown for {unknown:,} of {images:,} images, so that patients shared with the "
        "pool are not excluded",
        parameters={"beton": str, "unknown": int, "images": int},
    ),
    "crossval-of-other-conversion": Code(
        finding="this cross-validation is of another conversion than the run, and the verdict does not count it"
    ),
    # of a training
    "training-restarted": Code(
        finding="no state had been saved before the interruption, so that training started again from the beginning"
    ),
    "not-captured": Code(
        finding="{work} of {images} runs without a CUDA graph, and more slowly: {reason}",
        parameters={"work": str, "images": int, "reason": str},
    ),
    "triton-unavailable": Code(
        finding="batches are made by plain PyTorch instead of Triton, and more slowly: {reason}",
        parameters={"reason": str},
    ),
    # of a profile
    "machine-busy": Code(
        finding="{load:.1f} processes wanted {cores} cores before the profile began: on a quiet machine everything is "
        "faster, and the ratios differ",
        parameters={"load": float, "cores": int},
    ),
    "machine-unsteady": Code(
        finding="matrix products ran {ratio:.1f} times as fast in one round as in another, so that shares of the "
        "machine's rate mean little",
        parameters={"ratio": float},
    ),
    # of a prediction
    "audit-off": Code(finding="with --audit off, lateral views, CT and the like are predicted as well"),
    "no-leakage-record": Code(
        finding="there is no {file}, so that it is unknown which files the run was trained on", parameters={"file": str}
    ),
    "files-of-the-run": Code(
        finding="files whose pixels are in the run's {set} set: {files:,}; predictions for them say nothing about new "
        "radiographs",
        parameters={"set": str, "files": int},
    ),
    "folder-without-pictures": Code(finding="{folder} holds no file that may be a picture", parameters={"folder": str}),
    "files-named-twice": Code(
        finding="{files:,} of the files were named more than once; each has one row", parameters={"files": int}
    ),
    # of a report
    "file-unreadable": Code(finding="{file} could not be read: {reason}", parameters={"file": str, "reason": str}),
    "file-too-large": Code(finding="{file} is too large for this page and was left out", parameters={"file": str}),
    "result-of-other-weights": Code(
        finding="{folder} is of weights that the run no longer has and was left out; make it again",
        parameters={"folder": str},
    ),
    # of every model card
    "valid-for-its-data-only": Code(
        finding="a score holds for the hospitals, devices and patients of its data, and must be measured anew elsewhere"
    ),
    "shortcuts-not-excluded": Code(
        finding="a classifier of radiographs may rely on marks, arm position or the source of an image instead of the "
        "lungs, and a high score does not exclude it"
    ),
}
