"""What every explanation needs of a beton's pictures: crops, maps, the lungs' share, the controls, the examples."""

# N samples, H W rows and columns of the crop, K classes

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import zip_longest

import numpy as np
import torch
from PIL import Image
from torch import nn

from engine.config import ExplainConfig
from engine.explain.cam import cam, evidence
from engine.explain.controls import Deletion, Randomised, deletion, randomised
from engine.explain.findings import Kind
from engine.explain.gallery import overlay
from engine.explain.lungs import LungRatio, lung_ratios, measure_lungs
from kernels.crops import crop_into
from loaders.beton.reader import Beton
from loaders.lungs.masks import Masks
from loaders.machine import usable_cores
from loaders.output import PhaseProgress
from loaders.statistics import Progress

MOST_REFERENCE = 64  # pictures that the average picture and the average maps come from
MOST_CONTROLLED = 32  # pictures of the controls
PART = 64  # pictures whose maps are in memory at once
MOST_KEPT = 1024  # pictures whose lungs are remembered
LungsOf = Callable[[int], tuple[np.ndarray | None, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What every step needs of a beton and a network.  redraw: makes one of the same kind with random weights.

    target_N: the class whose evidence each map shows.  reference_N1HW: ordinary crops.  masks: None where the frames
    show the lungs alone.  lungs_of: a sample's lungs, as of lungs_finder.
    """

    network: nn.Module
    redraw: Callable[[], nn.Module]
    config: ExplainConfig
    beton: Beton
    target_N: np.ndarray
    group_N: np.ndarray
    reference_N1HW: torch.Tensor
    masks: Masks | None
    lungs_of: LungsOf

    def frames(self, sample_N: np.ndarray) -> torch.Tensor:
        """The central crops of some samples, float32 N×1×H×W on the device.  Errors: BetonError."""
        return torch.from_numpy(crops_of(self.beton, sample_N)).to(self.reference_N1HW.device)

    def maps(self, sample_N: np.ndarray) -> np.ndarray:
        """The maps of some samples for their targets, float32 N×H×W."""
        target_N, references = self.target_N[sample_N], self.reference_N1HW
        return cam(self.network, self.frames(sample_N), target_N, method=self.config.method, reference_N1HW=references)


def crops_of(beton: Beton, sample_N: np.ndarray) -> np.ndarray:
    """The central crops of some samples, float32 N×1×H×W.  Errors: BetonError."""
    crop = beton.facts.crop
    beton.check_samples(sample_N)
    out_N1HW = np.empty((len(sample_N), 1, crop, crop), np.float32)
    crop_into(out_N1HW, beton.bytes_B, beton.offset_N[sample_N], beton.side)
    beton.check_unchanged()
    return out_N1HW


def some(sample_N: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of the samples, drawn from the seed, in rising order."""
    if len(sample_N) <= most:
        return sample_N
    return np.sort(np.random.default_rng(seed).permutation(sample_N)[:most])


def measurable(pictures: Pictures) -> np.ndarray:
    """The samples of which some are measured: those that masks were given for, or else all."""
    masks, beton = pictures.masks, pictures.beton
    return masks.samples(beton) if masks and masks.path_of is not None else np.arange(len(beton))


def lungs_finder(masks: Masks | None, beton: Beton) -> LungsOf:
    """What gives a sample's lungs in its crop, bool H×W, or a code of REFUSALS, and remembers the latest samples'."""
    return lru_cache(MOST_KEPT)(partial(masks.crop_of, beton) if masks else lambda sample: (None, "no-mask"))


def measure(pictures: Pictures, sample_N: np.ndarray, progress: Progress) -> tuple[LungRatio | None, dict[int, float]]:
    """The lungs' share of the maps of some samples, and each sample's; PART at a time.

    None where the frames show the lungs alone.  Samples without a credible mask are left out, and counted by reason.
    """
    masks, ratios, areas, kept = pictures.masks, list[float](), list[float](), list[int]()
    if masks is None:
        return None, {}
    without = Counter[str]()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(sample_N), PART):
            part_N = sample_N[start : start + PART]
            pictures.beton.check_samples(part_N)
            of_each = map if masks.segmenter is None else pool.map  # files are decoded one after the other
            lungs = dict(zip(part_N.tolist(), of_each(pictures.lungs_of, part_N.tolist()), strict=True))
            without.update(reason for _, reason in lungs.values() if reason)
            masks_of = {sample: lungs_HW for sample, (lungs_HW, _) in lungs.items() if lungs_HW is not None}
            if masks_of:
                lungs_NHW = np.stack(list(masks_of.values()))
                ratios += lung_ratios(pictures.maps(np.array(list(masks_of))), lungs_NHW).tolist()
                areas += lungs_NHW.mean((1, 2)).tolist()
                kept += masks_of
            progress(start + len(part_N), len(sample_N))
    found = measure_lungs(
        np.array(ratios),
        np.array(areas),
        pictures.group_N[kept],
        masks.kind,
        pictures.config.seed,
        segmenter=masks.segmenter.record.identity if masks.segmenter else "",
        without_mask=dict(sorted(without.items())),
    )
    return found, dict(zip(kept, ratios, strict=True))


def check(pictures: Pictures, sample_N: np.ndarray, progress: PhaseProgress) -> tuple[Randomised, Deletion]:
    """Both controls on some samples."""
    network, config = pictures.network, pictures.config
    frames_N1HW, target_N = pictures.frames(sample_N), pictures.target_N[sample_N]
    found = randomised(
        network,
        pictures.redraw,
        frames_N1HW,
        target_N,
        method=config.method,
        reference_N1HW=pictures.reference_N1HW,
        seed=config.seed,
        progress=partial(progress, "random weights"),
    )
    fill_HW = pictures.reference_N1HW.mean((0, 1)).cpu().numpy()
    blanked = deletion(
        network,
        frames_N1HW,
        pictures.maps(sample_N),
        target_N,
        pictures.group_N[sample_N],
        fill_HW,
        cells=evidence(network, frames_N1HW[:1], target_N[:1]).shape[1:],
        seed=config.seed,
        progress=partial(progress, "blank"),
    )
    return found, blanked


# ---- examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A sample that is shown.  ratio: its lung ratio, None if unknown.  draw: its overlay, with a caption's lines."""

    sample: int
    kind: Kind
    ratio: float | None
    draw: Callable[[tuple[str, str]], Image.Image]


def show(pictures: Pictures, chosen: list[tuple[int, Kind]], ratio_of: dict[int, float]) -> Iterator[Shown]:
    """The samples chosen, one by one.  ratio_of: lung ratios that are known already."""
    if not chosen:
        return
    sample_N = np.array([sample for sample, _ in chosen], np.int64)
    maps_NHW, frames_N1HW = pictures.maps(sample_N), crops_of(pictures.beton, sample_N)
    for place, (sample, kind) in enumerate(chosen):
        (lungs_HW, _), ratio = pictures.lungs_of(sample), ratio_of.get(sample, float("nan"))
        if lungs_HW is not None and sample not in ratio_of:
            ratio = float(lung_ratios(maps_NHW[place : place + 1], lungs_HW[None])[0])
        crop_HW = np.rint((frames_N1HW[place, 0] + 1) * 127.5).astype(np.uint8)
        yield Shown(
            sample=sample,
            kind=kind,
            ratio=ratio if np.isfinite(ratio) else None,
            draw=partial(overlay, crop_HW, maps_NHW[place], lungs_HW),
        )


def choose(label_N: np.ndarray, probability_NK: np.ndarray, count: int) -> list[tuple[int, Kind]]:
    """At most count samples, each once, by kind; a third of the count each, more where another kind has too few.

    right, wrong: the most confident first.  borderline: the two most probable classes closest first.
    Within a kind the true classes take turns.  Ties go by the sample's place.
    """
    predicted_N = probability_NK.argmax(1)
    ordered_NK = np.sort(probability_NK, 1)
    margin_N = ordered_NK[:, -1] - ordered_NK[:, -2]
    right_N = predicted_N == label_N
    confidence_N = probability_NK.max(1)
    queues: dict[Kind, list[int]] = {
        "right": take_turns(label_N, np.flatnonzero(right_N), -confidence_N),
        "wrong": take_turns(label_N, np.flatnonzero(~right_N), -confidence_N),
        "borderline": take_turns(label_N, np.arange(len(label_N)), margin_N),
    }
    return in_rounds(queues, count)


def choose_of_finding(finding_N: np.ndarray, margin_N: np.ndarray, count: int) -> list[tuple[int, Kind]]:
    """The same of a finding, over the samples in which it is known; right are those that have it, and are found.

    finding_N: 1, 0, NaN.  margin_N: log-odds above the threshold, below 0 where it is predicted as absent.
    """
    known_N, found_N = np.isfinite(finding_N), margin_N >= 0
    chosen: dict[Kind, tuple[np.ndarray, np.ndarray]] = {
        "right": (known_N & found_N & (finding_N == 1), -margin_N),
        "wrong": (known_N & (found_N != (finding_N == 1)), -np.abs(margin_N)),
        "borderline": (known_N, np.abs(margin_N)),
    }
    queues: dict[Kind, list[int]] = {}
    for kind, (is_N, key_N) in chosen.items():
        sample_M = np.flatnonzero(is_N)
        queues[kind] = sample_M[np.argsort(key_N[sample_M], kind="stable")].tolist()
    return in_rounds(queues, count)


def in_rounds(queues: dict[Kind, list[int]], count: int) -> list[tuple[int, Kind]]:
    """At most count samples, one of each kind a round, each sample once; by kind, the best first."""
    chosen: dict[int, Kind] = {}
    for turn in zip_longest(*queues.values()):
        for kind, sample in zip(queues, turn, strict=True):
            if sample is not None and len(chosen) < count:
                chosen.setdefault(sample, kind)
    return sorted(chosen.items(), key=lambda pair: list(queues).index(pair[1]))  # stable: best first within a kind


def take_turns(label_N: np.ndarray, sample_M: np.ndarray, key_N: np.ndarray) -> list[int]:
    """The samples by rising key, one of each true class a round."""
    order_M = sample_M[np.argsort(key_N[sample_M], kind="stable")]
    by_class = [order_M[label_N[order_M] == label].tolist() for label in np.unique(label_N)]
    return [sample for turn in zip_longest(*by_class) for sample in turn if sample is not None]
