"""The lungs' share of the maps: how much of the evidence lies in the lungs, beside chance; and the lungs' masks."""

# N samples, H W rows and columns of the crop, G groups, R resamples

import re
from collections import defaultdict
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np

from engine.statistics.estimates import LEAST_GROUPS, UNDEFINED, Estimate
from engine.statistics.metrics import ratio
from engine.statistics.names import interval_text, value_text
from loaders.audit.table import FIX
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import Fit
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.images.decode import inside
from loaders.images.frame import read_mask, template_SS
from loaders.output import counted
from loaders.records import Count, Record
from loaders.sources.table import read_rows
from loaders.statistics import percentile_interval, resampled_means

MaskSource = Literal["phantom", "folder", "template"]
Region = Literal["lungs", "outside", "unknown"]
RESAMPLES = 2000
# How far from chance (0) to all of the map within the lungs (1) a network that relies on the lungs must come. Of 13
# networks on phantoms at crops of 64, the eight whose classes showed best, or only, in the arms came to -0.26 to 0.03,
# with intervals up to 0.13; the five whose classes showed in the lungs alone, to 0.63 to 0.73, with intervals down to
# 0.57.
LIMIT = 0.3
NOTHING = "it is not known what the model relies on"
ANSWERS: dict[Region, str] = {
    "lungs": "the model relies on the lungs",
    "outside": "the model relies on what lies outside the lungs",
    "unknown": NOTHING,
}


class LungRatio(Record, frozen=True, kw_only=True):
    """Share of the maps' mass within the lungs over the lungs' share of the crop; 1 is chance.

    area: the lungs' mean share of the crop.  num_samples: pictures with lungs in the crop and a map that is not empty.
    num_empty: pictures left out since their map is empty.  num_outside: those whose lungs are nowhere in the crop.
    """

    ratio: Estimate
    area: float | None
    num_samples: Count
    num_empty: Count
    num_outside: Count
    masks: MaskSource

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
    ratio_N: np.ndarray, area_N: np.ndarray, group_N: np.ndarray, masks: MaskSource, seed: int
) -> LungRatio:
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


def group_interval(value_N: np.ndarray, group_N: np.ndarray, seed: int) -> Estimate:
    """The mean of the values and its percentile interval over resamples of whole groups."""
    if not len(value_N):
        return UNDEFINED
    mean_R = resampled_means(value_N, group_N, RESAMPLES, seed)
    if len(np.unique(group_N)) < LEAST_GROUPS:
        return Estimate(value=float(mean_R[0]), low=None, high=None, method="")
    low, high = percentile_interval(mean_R[1:])
    return Estimate(value=float(mean_R[0]), low=low, high=high, method="bootstrap")


def region_of(lungs: LungRatio, distrust: Caution | None = None) -> Region:
    """What the model relies on.  distrust: why its maps are not believed: such maps show nothing."""
    found, limit = lungs.ratio, lungs.limit
    if distrust or limit is None or found.low is None or found.high is None:
        return "unknown"
    return "outside" if found.high < limit else "lungs" if found.low > limit else "unknown"


def sentence(lungs: LungRatio, distrust: Caution | None = None) -> str:
    """What the model relies on, in plain English.  distrust: why its maps are not believed."""
    found, limit = lungs.ratio, lungs.limit
    if found.value is None or limit is None:
        return f"{NOTHING}: no picture has both a map and a mask of its lungs"
    if found.low is None or found.high is None:
        return f"{NOTHING}: all pictures are of one group, so there is no interval"
    if distrust:
        return f"{NOTHING}: {distrust.finding}"
    region = "the lungs' usual region" if lungs.masks == "template" else "the lungs"
    empty = f"; {left_out(lungs.num_empty)}" if lungs.num_empty else ""
    measured = (
        f"{value_text('lung_ratio', found.value)} times as much of its maps lies in {region} as chance would put there "
        f"(95 % interval {interval_text('lung_ratio', found)}, n = {lungs.num_samples}{empty}; "
        f"a model that relies on them comes above {value_text('lung_ratio', limit)})"
    )
    return f"{ANSWERS[region_of(lungs, distrust)]}: {measured}"


def left_out(num_empty: int) -> str:
    """How many empty maps no mean counts."""
    return f"{counted(num_empty, 'empty map')} left out"


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm")
WHOLE = re.compile(r"[0-9]{1,18}")
REMEDY = "name the convert.csv of the conversion that made the beton with --table"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A radiograph by its row of convert.csv.  size: columns and rows, None if not known.  fix: how it was repaired."""

    size: tuple[int, int] | None
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Where each sample's lungs are found.  path_of: sample → mask file, where there is one; None: the template.

    written: sample → what conversion made it of, where that is known.
    """

    kind: MaskSource
    path_of: dict[int, Path] | None
    written: dict[int, Written]

    def samples(self, beton: Beton) -> np.ndarray:
        """The samples whose lungs are known, rising."""
        return np.arange(len(beton)) if self.path_of is None else np.array(sorted(self.path_of), np.int64)

    def crop_of(self, beton: Beton, sample: int) -> np.ndarray | None:
        """The lungs in the sample's crop, bool H×W; None where they are not known.  Errors: InputError."""
        facts = beton.facts
        margin = (facts.stored - facts.crop) // 2
        if self.path_of is None:
            mask_SS = template_SS(facts.stored)
        elif sample in self.path_of:
            written = self.written[sample]
            mask_SS = read_mask(
                self.path_of[sample], facts.stored, cast(Fit, facts.fit), size=written.size, fix=written.fix
            )
        else:
            return None
        return mask_SS[margin : margin + facts.crop, margin : margin + facts.crop]


def find_masks(beton: Beton, masks: Path | None, table: Path | None) -> Masks:
    """The masks of a beton.  masks: a folder of mask files, or a CSV of path and mask; None for the usual region.

    table: the conversion's convert.csv; None for the one beside the beton.  A beton holds no file names: that table
    shows which file became which sample.
    Errors: ConfigError for what is not there; InputError for a table or CSV that is none, masks of other radiographs,
    or one that a link or the CSV takes from elsewhere; StorageError.
    """
    if masks is None:
        if table is not None:
            raise ConfigError(f"--table: found {table} without --masks, expected both; name the masks, too")
        return Masks(kind="template", path_of=None, written={})
    place = table or beton.path.with_name("convert.csv")
    sample_of, written = read_table(place, beton)
    if not masks.exists():
        raise ConfigError(f"--masks {masks}: not there, expected a folder of mask files, or a CSV; check the path")
    found = match_folder(masks, sample_of) if masks.is_dir() else match_csv(masks, sample_of)
    if not found:
        raise InputError(
            f"{masks}: no mask for any of the {len(beton)} radiographs of {beton.path}, expected names or paths like "
            f"those in {place}; name the masks of these radiographs"
        )
    base = masks if masks.is_dir() else masks.parent
    for path in found.values():
        try:
            inside(base, str(path.relative_to(base)))
        except (RadiographError, ValueError) as error:  # ValueError: an absolute path
            raise InputError(f"{path}: leads outside of {base}, expected a mask below it; copy it there") from error
    return Masks(kind="phantom" if beton.facts.synthetic else "folder", path_of=found, written=written)


def read_table(path: Path, beton: Beton) -> tuple[dict[str, int], dict[int, Written]]:
    """Each written file's sample in this beton, and what it was made of.

    Errors: ConfigError for no file; InputError for no table, or one of another conversion; StorageError.
    """
    if not path.exists():
        raise ConfigError(f"{path}: not there, expected a convert.csv; {REMEDY}")
    facts = beton.facts
    told = "group" if facts.task == "findings" else "label"  # which tells the conversion's own table from another
    columns = ("path", told, "split", "sample", "fix", "width", "height")
    every = read_rows(path, itemgetter("path"), columns, (), REMEDY, strip=False).values()
    rows = [row for _, row in every if row["split"] == facts.split and WHOLE.fullmatch(row["sample"])]
    sample_of = {row["path"]: int(row["sample"]) for row in rows}
    own = map(str, beton.rows_N["group"]) if told == "group" else (facts.classes[label] for label in beton.label_N)
    if {int(row["sample"]): row[told] for row in rows} != dict(enumerate(own)):
        raise InputError(
            f"{path}: lists {len(sample_of)} files of split {facts.split} that are not the {len(beton)} samples of "
            f"{beton.path}, expected the table of its own conversion; {REMEDY}"
        )
    written = {}
    for row in rows:
        width, height = (int(row[name]) if WHOLE.fullmatch(row[name]) else 0 for name in ("width", "height"))
        fix = row["fix"] if FIX.fullmatch(row["fix"]) else ""
        written[int(row["sample"])] = Written(size=(width, height) if width and height else None, fix=fix)
    return sample_of, written


def match_csv(path: Path, sample_of: dict[str, int]) -> dict[int, Path]:
    """Masks that a CSV ties to radiographs by path, such as phantoms.csv; the end of a path is enough if it is unique.

    Masks' paths are relative to the CSV.
    """
    remedy = "name a CSV that ties each radiograph's path to its mask"
    rows = read_rows(path, itemgetter("path"), ("path", "mask"), (), remedy, strip=False).values()
    by_name: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
    for file, sample in sample_of.items():
        by_name[PurePosixPath(file).name].append((PurePosixPath(file), sample))
    found = {}
    for _, row in rows:
        wanted = PurePosixPath(row["path"])
        candidates = [sample for file, sample in by_name[wanted.name] if same_end(file, wanted)]
        if len(candidates) == 1 and row["mask"]:
            found[candidates[0]] = path.parent / row["mask"]
    return found


def same_end(first: PurePosixPath, second: PurePosixPath) -> bool:
    """Whether one path is the end of the other."""
    return all(a == b for a, b in zip(reversed(first.parts), reversed(second.parts), strict=False))


def match_folder(folder: Path, sample_of: dict[str, int]) -> dict[int, Path]:
    """Masks named after radiographs: x.png, x_mask.png or x.jpg.mask.png for x.jpg, in any folder below.

    A name that several radiographs or several masks have ties nothing.
    """
    masks: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICTURES:
            masks[stem_of(file.name)].append(file)
    samples: dict[str, list[int]] = defaultdict(list)
    for name, sample in sample_of.items():
        samples[stem_of(PurePosixPath(name).name)].append(sample)
    return {
        numbers[0]: masks[stem][0]
        for stem, numbers in samples.items()
        if len(numbers) == 1 and len(masks.get(stem, ())) == 1
    }


def stem_of(name: str) -> str:
    """A name without what tells a mask from its picture: `x` of x.jpg, x_mask.png and x.jpg.mask.png."""
    stem = PurePosixPath(name)
    while stem.suffix.lower() in (*PICTURES, ".mask"):
        stem = stem.with_suffix("")
    return re.sub(r"[-_. ]?mask$", "", stem.name, flags=re.IGNORECASE)
