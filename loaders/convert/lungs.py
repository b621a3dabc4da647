"""Lungs in a conversion: each film's mask, found or given, and the frame that it leaves (--lungs)."""

# N films, S side of a stored frame

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from loaders.audit.findings import Removal
from loaders.audit.page import apart
from loaders.cautions import caution
from loaders.config import ConvertConfig, LungMode, stored_side
from loaders.convert.conversion import LungsKept, Row
from loaders.convert.patient_hash import patient_hash, site_key_id
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.images.decode import write_frame
from loaders.images.files import refuse
from loaders.images.frame import read_mask
from loaders.images.lungs import Segmenter, dice, load_segmenter
from loaders.images.regions import LUNG_MODES
from loaders.lungs.masks import match_masks
from loaders.machine import usable_cores
from loaders.output import PhaseProgress
from loaders.sources.catalog import Catalog
from loaders.sources.entry import ABSENT, PRESENT
from loaders.statistics import wilson

LEAST_LIKENESS = 0.5  # Dice of a given mask and credible lungs that are found
BLOCK = 64  # films whose given masks are read, one after the other, before threads take them


@dataclass(frozen=True, kw_only=True, slots=True)
class LungMasks:
    """Where masks come from.  segmenter: finds them, or what it finds is compared with given ones.

    given: path of a radiograph → its mask file; None where they are found.  num_lost: given ones of no radiograph.
    """

    mode: LungMode
    segmenter: Segmenter
    given: dict[str, Path] | None = None
    num_lost: int = 0

    @property
    def identity(self) -> str:
        """The segmenter's in a beton's facts."""
        return self.segmenter.record.identity if self.given is None else "given"


def open_masks(config: ConvertConfig, catalog: Catalog) -> LungMasks | None:
    """The masks that a conversion needs; None for whole films.

    Errors: ConfigError for masks or a segmenter without --lungs, or that are not there; InputError for masks of other
    films; IntegrityError for a damaged segmenter; StorageError.
    """
    if config.lungs == "off":
        for name, usual in (("masks", "auto"), ("segmenter", "shipped")):
            if (found := getattr(config, name)) != usual:
                raise ConfigError(
                    f"found --{name} {found} with --lungs off, expected --lungs masked, boxed or boxed-equal with it; "
                    "name one, or leave it out"
                )
        return None
    segmenter = load_segmenter(config.segmenter)
    if config.masks == "auto":
        return LungMasks(mode=config.lungs, segmenter=segmenter)
    number_of = {entry.path: number for number, entry in enumerate(catalog.entries)}
    films = f"the {len(number_of)} files of {config.catalog.origin}"
    mask_of, num_lost = match_masks(Path(config.masks), number_of, films, f"{config.catalog.origin}")
    given = {path: mask_of[number] for path, number in number_of.items() if number in mask_of}
    return LungMasks(mode=config.lungs, segmenter=segmenter, given=given, num_lost=num_lost)


def keep_lungs(
    config: ConvertConfig, masks: LungMasks, rows: Sequence[Row], spool: Path, key: bytes, progress: PhaseProgress
) -> None:
    """Apply the region to the frames of all rows that are written; reject those without a credible mask.

    rows: all that have groups, duplicates too: a film is segmented by nets that saw none of its group.
    key: of the site.  The same bytes with any number of workers.
    """
    side, record = stored_side(config.size), masks.segmenter.record
    same_key = site_key_id(key) == record.site_key_id
    patients = [patient_hash(key, row.patient).tobytes() if same_key and row.patient else b"" for row in rows]
    pixels, group_N = [row.decoded.pixel_hash for row in rows], np.array([row.group for row in rows])
    nets_of_row = masks.segmenter.nets_for(pixels, patients, group_N).tolist()
    frames_NSS = np.memmap(spool, np.uint8, "r").reshape(-1, side, side)

    def keep(row: Row, nets: Sequence[int], given_SS: np.ndarray | None) -> None:
        frame_SS = frames_NSS[row.place]
        try:
            mask_SS = found_lungs(masks.segmenter, frame_SS, nets) if masks.given is None else given_SS
            if given_SS is not None:
                check_likeness(masks.segmenter, frame_SS, nets, given_SS)
        except RadiographError as error:
            row.drop(error.code, str(error))
            return
        assert mask_SS is not None
        row.mask_hash = hashlib.blake2b(np.packbits(mask_SS).tobytes(), digest_size=16).digest()
        write_frame(spool, row.place, LUNG_MODES[masks.mode](frame_SS, mask_SS, config.size).reshape(-1))

    places = [place for place, row in enumerate(rows) if row.verdict == "written"]
    with one_opencv_thread(), ThreadPoolExecutor(config.workers or usable_cores()) as threads:
        for start in range(0, len(places), BLOCK):
            block = []
            for place in places[start : start + BLOCK]:
                try:
                    given_SS = None if masks.given is None else given_mask(config, masks.given, rows[place])
                    block.append((rows[place], nets_of_row[place], given_SS))
                except RadiographError as error:
                    rows[place].drop(error.code, str(error))
            for _ in threads.map(keep, *zip(*block, strict=True)) if block else ():
                pass
            progress("lungs", min(start + BLOCK, len(places)), len(places))


def found_lungs(segmenter: Segmenter, frame_SS: np.ndarray, nets: Sequence[int]) -> np.ndarray:
    """The lungs that are found in a frame, bool S×S.  Errors: RadiographError where they are not credible."""
    if nets[0] < 0:
        raise refuse("a film that every net saw", "one that some net never saw", "lungs-seen")
    lungs = segmenter.find(frame_SS, nets)
    if lungs.problem:
        found = (
            f"share of the frame {lungs.area:.2f}, agreement {lungs.agreement:.2f}, smaller lung over larger "
            f"{lungs.balance:.2f}, share of the outline on the edge {lungs.cut:.2f}"
        )
        raise refuse(f"{lungs.problem}: {found}", "a credible mask", lungs.problem)
    return lungs.mask_SS


def given_mask(config: ConvertConfig, given: dict[str, Path], row: Row) -> np.ndarray:
    """The mask that is given for a film, bool S×S.  Errors: RadiographError for none, or an unusable one.

    Not in several threads at once: decoders silence Pillow for the whole process.
    """
    path, size = given.get(row.entry.path), (row.decoded.width, row.decoded.height)
    if path is None:
        raise refuse("no mask", f"one in {config.masks}", "no-mask")
    try:
        return read_mask(path, stored_side(config.size), config.fit, size=size, fix=row.fix)
    except InputError as error:
        raise RadiographError(str(error), "mask-unusable") from error


def check_likeness(segmenter: Segmenter, frame_SS: np.ndarray, nets: Sequence[int], given_SS: np.ndarray) -> None:
    """Errors: RadiographError for a mask unlike the credible lungs that are found: it is another film's, or turned."""
    lungs = segmenter.find(frame_SS, [max(0, net) for net in nets])
    if not lungs.problem and (likeness := dice(lungs.mask_SS, given_SS)) < LEAST_LIKENESS:
        expected = f"at least {LEAST_LIKENESS} with the lungs that are found"
        raise refuse(f"a mask with a Dice of {likeness:.2f}", expected, "mask-of-another-film")


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV without threads of its own, which would be as many again for each of ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def lungs_kept(masks: LungMasks, catalog: Catalog, films: Sequence[Row]) -> LungsKept:
    """What became of the films whose lungs were looked for, with cautions.  films: these, in the catalog's order."""
    cautions = [caution("masks-of-no-film", masks=masks.num_lost)] if masks.num_lost else []
    first_of = {row.group: row for row in reversed(films)}  # independent of one another
    found = [pair for family in families(catalog, list(first_of.values())) if (pair := apart(family))]
    if found and catalog.task == "findings":
        cautions.append(caution("lungs-lost-by-finding", findings=[pair[0].label for pair in found]))
    elif found:
        left_out = {one.label: round(100 * one.removed / one.files, 1) for one in found[0]}
        cautions.append(caution("lungs-lost-by-class", left_out=left_out))
    shown = (family if catalog.task == "classes" else family[:1] for family in families(catalog, films))
    return LungsKept(
        mode=masks.mode,
        segmenter=masks.identity,
        removals=tuple(itertools.chain.from_iterable(shown)),
        cautions=tuple(cautions),
    )


def families(catalog: Catalog, films: Sequence[Row]) -> list[list[Removal]]:
    """How much of each class was rejected; of findings, for each, of the films with it and of those without."""

    def removal(label: str, own: Sequence[Row]) -> Removal:
        removed = sum(row.verdict != "written" for row in own)
        low, high = wilson(removed, len(own))
        return Removal(label=label, files=len(own), removed=removed, low=low, high=high)

    if catalog.task == "classes":
        return [[removal(name, [row for row in films if row.entry.label == name]) for name in catalog.classes]]
    return [
        [removal(name, [row for row in films if row.entry.findings[place] == value]) for value in (PRESENT, ABSENT)]
        for place, name in enumerate(catalog.classes)
    ]
