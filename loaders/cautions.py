"""Cautions: what limits or undoes a result, each a code with parameters; the one place that holds their texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

Parameter = str | int | float | list[str]
TERMINAL, JSON, PAGE = PLACES = ("terminal", "json", "page")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """What a code means.  finding: what was found, a template of the parameters, without a full stop.

    effect: what it does to the score; only a red flag has one, and a gravity above NOTE.  places: where it can appear.
    """

    finding: str
    effect: str = ""
    gravity: Gravity = Gravity.NOTE
    parameters: dict[str, type] = field(default_factory=dict)
    places: tuple[str, ...] = PLACES


def fits(value: Parameter, kind: type) -> bool:
    """Whether a parameter is of its type; a whole number may stand for a float."""
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return not isinstance(value, bool) and isinstance(value, (int, float) if kind is float else kind)


def caution(code: str, **parameters: Parameter) -> Caution:
    """A caution.  Errors: ValueError for an unknown code, or parameters that are not the code's."""
    return Caution(code, parameters)


def finding(found: Caution) -> str:
    """What was found, without a full stop."""
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in found.parameters.items()}
    return CODES[found.code].finding.format(**shown)


def text(found: Caution) -> str:
    """A caution in plain English, to follow `Caution: `, without a full stop."""
    effect = CODES[found.code].effect
    return f"{effect}: {finding(found)}" if effect else finding(found)


def gravity(found: Caution) -> Gravity:
    """How much a caution undoes."""
    return CODES[found.code].gravity


def each_once(found: Iterable[Caution]) -> list[Caution]:
    """Cautions in order, equal ones once."""
    kept: list[Caution] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept


CODES: dict[str, Code] = {
    "synthetic-phantoms": Code(
        gravity=Gravity.SYNTHETIC,
        effect="this score says nothing about patients",
        finding="all images are synthetic phantoms, drawn by a program",
    ),
}
