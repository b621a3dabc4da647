"""The lungs of a cross-validation's films: which have a credible mask, and what each split's frames are made with."""

# N samples, S side of the stored frame, P bytes of eight pixels each, K classes or findings

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from engine.config import CrossvalConfig, FoldSplit
from engine.crossval.folds import Pool
from engine.train.state import Watch
from loaders.audit.removals import lost_cautions, removals
from loaders.cautions import Caution, caution
from loaders.errors import InputError
from loaders.images.files import REFUSALS
from loaders.images.frame import LUNG_MARGIN, template_SS
from loaders.images.regions import LUNG_CONTROLS, common_region, without_region
from loaders.lungs.masks import MaskSource, find_masks
from loaders.records import Count, Record

HIDDEN: FoldSplit = "lungs-hidden"
LEAST_MASKS = 20  # that a common region is made of; of fewer, the lungs' usual region is hidden


class LungUse(Record, frozen=True, kw_only=True):
    """The masks that a cross-validation's frames were made with, as crossval.json holds it.

    kind: where they come from.  segmenter: its identity, "" without one; num_nets, num_phantoms, num_trained, sources:
    its nets, and the phantoms, films and sources of films that these were trained on.  num_seen: films of the pool that
    some net saw, or one of their group; other nets segmented them.
    num_films: of the pool.  lacking: films without a credible mask, by code of REFUSALS.  lacking_by_class: of each
    class, or in which each finding is present: [without, in all].  left_out: they are in no split.
    region_masks: that lungs-hidden's common region was made of, 0 for the usual region.  region_share: of the frame.
    region_cover, least_cover: share of the lungs that it covers, mean and lowest of the masks; None without masks.
    """

    kind: MaskSource
    segmenter: str
    num_nets: Count
    num_phantoms: Count
    num_trained: Count
    sources: list[str]
    num_seen: Count
    num_films: Count
    lacking: dict[str, Count]
    lacking_by_class: dict[str, list[Count]]
    left_out: bool
    region_masks: Count
    region_share: float
    region_cover: float | None
    least_cover: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolLungs:
    """The lungs of the pool that is cross-validated.  mask_NP: masks, bit by bit, 0 where there is none.

    region_SS: what lungs-hidden hides.  cautions: what films without a credible mask mean for the scores.
    """

    mask_NP: np.ndarray
    region_SS: np.ndarray
    use: LungUse
    cautions: list[Caution]

    def change(self, frame_SS: np.ndarray, place: int, split: FoldSplit, crop: int) -> np.ndarray:
        """A frame of the pool as networks see it in a split."""
        if split == HIDDEN:
            return without_region(frame_SS, self.region_SS, crop)
        return LUNG_CONTROLS[split](frame_SS, unpacked(self.mask_NP[place], len(frame_SS)), crop)

    def made_with(self, split: FoldSplit) -> str:
        """What a split's frames are made with, for the identity of its folds."""
        if split == HIDDEN:
            return f"region {hashlib.blake2b(np.packbits(self.region_SS).tobytes(), digest_size=16).hexdigest()}"
        return f"masks {hashlib.blake2b(self.mask_NP.tobytes(), digest_size=16).hexdigest()}"


def unpacked(mask_P: np.ndarray, side: int) -> np.ndarray:
    """A mask, bool S×S, from its bits."""
    return np.unpackbits(mask_P, count=side * side).reshape(side, side).astype(bool)


def changes_frames(split: str) -> bool:
    """Whether a split hides the lungs, or shows them or their outline alone."""
    return split == HIDDEN or split in LUNG_CONTROLS


def needs_lungs(config: CrossvalConfig) -> bool:
    """Whether lungs are needed for any split."""
    return any(map(changes_frames, config.splits))


def pool_lungs(pool: Pool, config: CrossvalConfig, watch: Watch) -> tuple[Pool, PoolLungs]:
    """The lungs of a pool, and the pool that is cross-validated: where a split shows each film's own lungs, or their
    outline, films without a credible mask are left out of every split, so that all splits test the same films.

    Errors: InputError for betons that show the lungs alone, masks that cannot be used, or no film that is left; as of
    `find_masks`; Interrupted.
    """
    facts, side = pool.facts, pool.facts.stored
    if facts.lungs != "off":
        raise InputError(
            f"{pool.betons[0].path}: found frames of --lungs {facts.lungs}, expected whole ones for "
            f"{', '.join(filter(changes_frames, config.splits))}; name other "
            "splits, as --splits random,group, or convert without --lungs"
        )
    of_beton = [
        (find_masks(beton, config.masks, config.table, config.segmenter), beton, index_N)
        for beton, index_N in pool.chosen(np.arange(len(pool.labels)))
    ]
    mask_NP = np.zeros((len(pool.labels), -(-side * side // 8)), np.uint8)
    problems, count_SS = [], np.zeros((side, side), np.int64)
    each = itertools.chain.from_iterable(masks.each(beton, index_N) for masks, beton, index_N in of_beton)
    for place, (mask_SS, problem) in enumerate(each):
        watch.check_stop()
        if mask_SS is not None:
            mask_NP[place] = np.packbits(mask_SS)
            count_SS += mask_SS
        problems.append(problem)
        watch.phases("lungs", place + 1, len(mask_NP))
    lacking_N = np.array([problem != "" for problem in problems])
    left_out = any(split in LUNG_CONTROLS for split in config.splits)
    if left_out and lacking_N.all():
        raise InputError(
            f"{pool.folder}: no film with a credible mask of its lungs ({REFUSALS[problems[0]][0]}), expected some for "
            f"--splits {','.join(config.splits)}; name masks by --masks, or another --segmenter"
        )
    masks = of_beton[0][0]
    common = masks.kind != "template" and (~lacking_N).sum() >= LEAST_MASKS
    region_SS = common_region(count_SS) if common else template_SS(side, LUNG_MARGIN)
    covers = [share_inside(unpacked(mask_P, side), region_SS) for mask_P in mask_NP[~lacking_N]]
    record = masks.segmenter.record if masks.segmenter else None
    use = LungUse(
        kind=masks.kind,
        segmenter=record.identity if record else "",
        num_nets=len(record.nets) if record else 0,
        num_phantoms=record.num_phantoms if record else 0,
        num_trained=len(set().union(*(net.pixels for net in record.nets))) if record else 0,
        sources=record.sources if record else [],
        num_seen=sum(found.num_seen for found, _, _ in of_beton),
        num_films=len(lacking_N),
        lacking=dict(sorted(Counter(filter(None, problems)).items())),
        lacking_by_class=by_class(pool, lacking_N),
        left_out=left_out,
        region_masks=int((~lacking_N).sum()) if common else 0,
        region_share=float(region_SS.mean()),
        region_cover=float(np.mean(covers)) if covers else None,
        least_cover=min(covers, default=None),
    )
    kept = pool.without(lacking_N) if left_out else pool
    kept_NP = mask_NP[~lacking_N] if left_out else mask_NP
    return kept, PoolLungs(mask_NP=kept_NP, region_SS=region_SS, use=use, cautions=mask_cautions(pool, use, lacking_N))


def share_inside(mask_SS: np.ndarray, region_SS: np.ndarray) -> float:
    """The share of a mask that a region covers."""
    return float((mask_SS & region_SS).sum() / mask_SS.sum())


def by_class(pool: Pool, lacking_N: np.ndarray) -> dict[str, list[int]]:
    """Of each class, or of the films in which each finding is present: how many have no mask, of how many."""
    names = pool.facts.classes
    of_class_NK = pool.labels == 1 if pool.labels.ndim == 2 else pool.labels[:, None] == np.arange(len(names))
    counts = (of_class_NK & lacking_N[:, None]).sum(0).tolist(), of_class_NK.sum(0).tolist()
    return {name: [without, total] for name, without, total in zip(names, *counts, strict=True)}


def mask_cautions(pool: Pool, use: LungUse, lacking_N: np.ndarray) -> list[Caution]:
    """What films without a credible mask mean for the scores, and whether the usual region is hidden instead."""
    found, without = [], int(lacking_N.sum())
    if without and use.left_out:
        reasons = [f"{REFUSALS[code][0]}: {count:,}" for code, count in use.lacking.items()]
        found.append(caution("masks-lacking", without=without, images=use.num_films, reasons=reasons))
        first_N = np.unique(pool.group_N, return_index=True)[1]  # one film a group: independent of one another
        families = removals(pool.facts.classes, pool.labels[first_N], lacking_N[first_N])
        found += lost_cautions(families, findings=pool.facts.task == "findings")
    if use.kind != "template" and not use.region_masks:
        masks = use.num_films - without
        found.append(caution("usual-region-hidden", masks=masks, images=use.num_films, least=LEAST_MASKS))
    return found
