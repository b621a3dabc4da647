"""The lungs' share of the maps: how much of what a network looks at lies in the lungs, beside chance."""

# N samples, H W rows and columns of the crop, G groups, R resamples

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["phantom", "folder", "template"]
Looks = Literal["lungs", "outside", "unknown"]
RESAMPLES = 2000
# How far from chance (0) to all of the map within the lungs (1) a network that looks at the lungs must come. Of 13
# networks on phantoms at crops of 64, the eight whose classes the arms told best, or alone, came to -0.26 to 0.03, with
# intervals up to 0.13; the five whose classes only the lungs told, to 0.63 to 0.73, with intervals down to 0.57.
LIMIT = 0.3
NOTHING = "it cannot be told where the model looks"
ONE_GROUP = "all pictures are of one group, so there is no interval"
RANDOM = "maps of a network with random weights look the same"
UNDEFINED = "no map varies over its picture, or no network with random weights has one that does"
ANSWERS: dict[Looks, str] = {
    "lungs": "the model looks at the lungs",
    "outside": "the model looks outside the lungs",
    "unknown": NOTHING,
}
AT_RANDOM = "blanking what the maps point at lowers the probability no faster than blanking at random"


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean and its 95 % interval, which resamples groups; None where there is nothing to resample."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LungRatio:
    """Share of the maps' mass within the lungs over the lungs' share of the crop; 1 is chance.

    area: the lungs' mean share of the crop.  num_samples: pictures with lungs in the crop and a map that is not empty.
    num_empty: pictures left out since their map is empty.  num_outside: those whose lungs are nowhere in the crop.
    """

    ratio: Interval
    area: float | None
    num_samples: int
    num_empty: int
    num_outside: int
    masks: Kind

    @property
    def limit(self) -> float | None:
        """The ratio that parts looking at the lungs from looking elsewhere; between chance and the largest possible."""
        return None if not self.area else 1 + LIMIT * (1 / self.area - 1)


def lung_ratios(cam_NHW: np.ndarray, lungs_NHW: np.ndarray) -> np.ndarray:
    """Each picture's ratio, float64 N; NaN for an empty map, or lungs that are nowhere in the crop.

    cam_NHW: at least 0.  lungs_NHW: bool.
    """
    mass_N, area_N = cam_NHW.sum((1, 2), dtype=np.float64), lungs_NHW.mean((1, 2))
    inside_N = (cam_NHW * lungs_NHW).sum((1, 2), dtype=np.float64)
    known_N = (mass_N > 0) & (area_N > 0)
    return np.divide(inside_N, mass_N * area_N, out=np.full(len(mass_N), np.nan), where=known_N)


def measure_lungs(ratio_N: np.ndarray, area_N: np.ndarray, group_N: np.ndarray, masks: Kind, seed: int) -> LungRatio:
    """The mean over pictures whose ratio is known, as of `lung_ratios`.  area_N: the lungs' share of each crop."""
    known_N = np.isfinite(ratio_N)
    return LungRatio(
        ratio=group_interval(ratio_N[known_N], group_N[known_N], seed),
        area=float(area_N[known_N].mean()) if known_N.any() else None,
        num_samples=int(known_N.sum()),
        num_empty=int((~known_N & (area_N > 0)).sum()),
        num_outside=int((area_N == 0).sum()),
        masks=masks,
    )


def group_interval(value_N: np.ndarray, group_N: np.ndarray, seed: int) -> Interval:
    """The mean of the values and its percentile interval over resamples of whole groups."""
    if not len(value_N):
        return Interval(value=None, low=None, high=None)
    place_N = np.unique(group_N, return_inverse=True)[1]
    sum_G, count_G = np.bincount(place_N, value_N), np.bincount(place_N)
    if len(sum_G) < 2:
        return Interval(value=float(value_N.mean()), low=None, high=None)
    drawn_RG = np.random.default_rng(seed).integers(len(sum_G), size=(RESAMPLES, len(sum_G)))
    low, high = np.percentile(sum_G[drawn_RG].sum(1) / count_G[drawn_RG].sum(1), (2.5, 97.5))
    return Interval(value=float(value_N.mean()), low=float(low), high=float(high))


def looks(lungs: LungRatio, distrust: str) -> Looks:
    """Where the model looks.  distrust: why its maps are not believed, or "": no such map tells where it looks."""
    found, limit = lungs.ratio, lungs.limit
    if distrust or limit is None or found.low is None or found.high is None:
        return "unknown"
    return "outside" if found.high < limit else "lungs" if found.low > limit else "unknown"


def sentence(lungs: LungRatio, distrust: str = "") -> str:
    """Where the model looks, in plain words.  distrust: why a control does not let its maps be believed, or ""."""
    found, limit = lungs.ratio, lungs.limit
    if distrust:
        return f"{NOTHING}: {distrust}"
    if found.value is None or limit is None:
        return f"{NOTHING}: no picture has both a map and a mask of its lungs"
    if found.low is None or found.high is None:
        return f"{NOTHING}: {ONE_GROUP}"
    region = "the lungs' usual region" if lungs.masks == "template" else "the lungs"
    empty = f"; {left_out(lungs.num_empty)}" if lungs.num_empty else ""
    measured = (
        f"{found.value:.2f} times as much of its maps lies in {region} as chance would put there "
        f"(95 % interval {found.low:.2f} to {found.high:.2f}, n = {lungs.num_samples}{empty}; "
        f"a model that looks there comes above {limit:.2f})"
    )
    return f"{ANSWERS[looks(lungs, distrust)]}: {measured}"


def left_out(num_empty: int) -> str:
    """How many empty maps no mean counts."""
    return f"{num_empty:,} empty {'map' if num_empty == 1 else 'maps'} left out"


def controls_failed(content: Mapping[str, Any]) -> bool:
    """Whether a control of an explanation.json failed.  Releases up to 0.6 gave an answer all the same."""
    controls = (content.get(name) for name in ("randomised", "deletion"))
    return any(isinstance(control, dict) and control.get("passed") is False for control in controls)


def answer(content: Mapping[str, Any]) -> Looks:
    """Where the model looks by an explanation.json, "unknown" where its own controls failed."""
    if controls_failed(content):
        return "unknown"
    found = content.get("looks")
    if isinstance(found, str) and found in ANSWERS:
        return found
    text = str(content.get("sentence", ""))  # up to release 0.6 the sentence alone gave the answer
    return next((place for place, words in ANSWERS.items() if text.startswith(words)), "unknown")


def answer_words(content: Mapping[str, Any]) -> str:
    """The sentence of an explanation.json, or, where its own controls failed, that there is none; "" without one."""
    text = content.get("sentence")
    if not isinstance(text, str) or not text:
        return ""
    return f"{NOTHING}: its own controls failed" if controls_failed(content) and not text.startswith(NOTHING) else text
