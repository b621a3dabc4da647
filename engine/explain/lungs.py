"""The lungs' share of the maps: how much of the evidence lies in the lungs, beside chance, and what that shows."""

# N samples, H W rows and columns of the crop, G groups, R resamples

from typing import Literal

import numpy as np

from engine.statistics.estimates import LEAST_GROUPS, UNDEFINED, Estimate
from engine.statistics.metrics import ratio
from engine.statistics.names import interval_text, value_text
from loaders.cautions import Caution, caution
from loaders.lungs.masks import MaskSource
from loaders.output import counted
from loaders.records import Count, Record
from loaders.statistics import percentile_interval, resampled_means

Region = Literal["lungs", "outside", "unknown"]
RESAMPLES = 2000
# How far from chance (0) to all of the map within the lungs (1) a network that relies on the lungs must come. Of 20
# networks at crops of 64, 15 on phantoms and 5 on radiographs with random labels, the 15 whose classes showed best, or
# only, in arms or in marks at edges, in corners or in the middle came to -0.55 to 0.04, with intervals up to 0.15; the
# five whose classes showed in the lungs alone, to 0.65 to 0.81, with intervals down to 0.53. Phantoms' own masks and
# those found differ by 0.02 at most. docs/EVALUATION.md has the table.
LIMIT = 0.35
NOTHING = "it cannot be told what the model relies on"
ANSWERS: dict[Region, str] = {
    "lungs": "the model relies on the lungs",
    "outside": "the model relies on what lies outside the lungs",
    "unknown": NOTHING,
}
LUNGS_ALONE = caution("maps-of-lungs-alone")  # why nothing is measured
IN_BRIEF: dict[Region, str] = {"lungs": "the lungs", "outside": "outside the lungs", "unknown": "cannot be told"}


class LungRatio(Record, frozen=True, kw_only=True):
    """Share of the maps' mass within the lungs over the lungs' share of the crop; 1 is chance.

    area: the lungs' mean share of the crop.  num_samples: pictures with lungs in the crop and a map that is not empty.
    num_empty: pictures left out since their map is empty.  num_outside: those whose lungs are nowhere in the crop.
    without_mask: pictures left out since they have no credible mask, by reason, a code of REFUSALS.
    segmenter: the identity of what found the masks; "" for others.
    """

    ratio: Estimate
    area: float | None
    num_samples: Count
    num_empty: Count
    num_outside: Count
    without_mask: dict[str, Count]
    masks: MaskSource
    segmenter: str

    @property
    def num_drawn(self) -> int:
        """All pictures that were to be measured."""
        return self.num_samples + self.num_empty + self.num_outside + sum(self.without_mask.values())

    @property
    def limit(self) -> float | None:
        """The ratio above which a model relies on the lungs; between chance and the largest possible."""
        return None if not self.area else 1 + LIMIT * (1 / self.area - 1)


def lung_ratios(cam_NHW: np.ndarray, lungs_NHW: np.ndarray) -> np.ndarray:
    """Each picture's ratio, float64 N; NaN for an empty map, or lungs that are nowhere in the crop.

    cam_NHW: at least 0.  lungs_NHW: bool.
    """
    mass_N, area_N = cam_NHW.sum((1, 2), dtype=np.float64), lungs_NHW.mean((1, 2))
    inside_N = (cam_NHW * lungs_NHW).sum((1, 2), dtype=np.float64)
    return ratio(inside_N, mass_N * area_N)


def measure_lungs(
    ratio_N: np.ndarray,
    area_N: np.ndarray,
    group_N: np.ndarray,
    masks: MaskSource,
    seed: int,
    *,
    segmenter: str = "",
    without_mask: dict[str, int] | None = None,
) -> LungRatio:
    """The mean over pictures whose ratio is known, as of `lung_ratios`.  area_N: the lungs' share of each crop."""
    known_N = np.isfinite(ratio_N)
    return LungRatio(
        ratio=group_interval(ratio_N[known_N], group_N[known_N], seed),
        area=float(area_N[known_N].mean()) if known_N.any() else None,
        num_samples=int(known_N.sum()),
        num_empty=int((~known_N & (area_N > 0)).sum()),
        num_outside=int((area_N == 0).sum()),
        without_mask=without_mask or {},
        masks=masks,
        segmenter=segmenter,
    )


def group_interval(value_N: np.ndarray, group_N: np.ndarray, seed: int) -> Estimate:
    """The mean of the values and its percentile interval over resamples of whole groups."""
    if not len(value_N):
        return UNDEFINED
    mean_R = resampled_means(value_N, group_N, RESAMPLES, seed)
    if len(np.unique(group_N)) < LEAST_GROUPS:
        return Estimate(value=float(mean_R[0]), low=None, high=None, method="")
    low, high = percentile_interval(mean_R[1:])
    return Estimate(value=float(mean_R[0]), low=low, high=high, method="bootstrap")


def region_of(lungs: LungRatio | None, distrust: Caution | None = None) -> Region:
    """What the model relies on.  lungs: None where nothing was measured.  distrust: why its maps are not believed.

    The lungs' usual region is far larger than the lungs, so that maps within it show nothing.
    """
    if lungs is None or distrust or lungs.limit is None or lungs.ratio.low is None or lungs.ratio.high is None:
        return "unknown"
    if lungs.ratio.high < lungs.limit:
        return "outside"
    return "lungs" if lungs.ratio.low > lungs.limit and lungs.masks != "template" else "unknown"


def sentence(lungs: LungRatio | None, distrust: Caution | None = None) -> str:
    """What the model relies on, in plain English.  Arguments as of region_of."""
    if lungs is None:
        return f"{NOTHING}: {(distrust or LUNGS_ALONE).finding}"
    found, limit = lungs.ratio, lungs.limit
    if found.value is None or limit is None:
        return f"{NOTHING}: no picture has both a map and a mask of its lungs"
    if found.low is None or found.high is None:
        return f"{NOTHING}: all pictures are of one group, so there is no interval"
    if distrust:
        return f"{NOTHING}: {distrust.finding}"
    region, shows = "the lungs", f"a model that relies on them comes above {value_text('lung_ratio', limit)}"
    if lungs.masks == "template":
        region = "the lungs' usual region"
        shows += "; so may others, since the region is far larger than the lungs"
    missing = left_out(lungs.num_empty, sum(lungs.without_mask.values()))
    measured = (
        f"{value_text('lung_ratio', found.value)} times as much of its maps lies in {region} as chance would put there "
        f"(95 % interval {interval_text('lung_ratio', found)}, n = {lungs.num_samples}{missing and f'; {missing}'}; "
        f"{shows})"
    )
    return f"{ANSWERS[region_of(lungs, distrust)]}: {measured}"


def left_out(num_empty: int, num_unmasked: int = 0) -> str:
    """How many pictures no mean counts, since their map is empty, or they have no credible mask; "" for none."""
    counts = ((num_empty, "empty map", ""), (num_unmasked, "image", " without a credible mask"))
    parts = [f"{counted(number, name)}{more}" for number, name, more in counts if number]
    return f"{' and '.join(parts)} left out" if parts else ""
