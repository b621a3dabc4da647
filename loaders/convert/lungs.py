"""Lungs in a conversion: each film's mask, found or given, and the frame that it leaves (--lungs)."""

# N films, S side of a stored frame, T of a small mask

import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from loaders.audit.removals import Removal, lost_cautions, removals
from loaders.cautions import caution
from loaders.config import ConvertConfig, LungMode, stored_side
from loaders.convert.conversion import LungsKept, Row
from loaders.errors import InputError, RadiographError
from loaders.images.decode import write_frame
from loaders.images.files import REFUSALS, refuse
from loaders.images.frame import read_mask
from loaders.images.lungs import Lungs, Segmenter, load_segmenter, one_opencv_thread
from loaders.images.regions import LUNG_MODES
from loaders.lungs.masks import match_masks
from loaders.machine import usable_cores
from loaders.output import PhaseProgress, share_text
from loaders.sources.catalog import Catalog
from loaders.sources.entry import ABSENT, PRESENT
from loaders.sources.patient_hash import patient_hash, site_key_id

# Dice of a given mask with the lungs that are found: at least, and at most so far below the median of all given ones.
# Of the 34 public masks, compared by nets that saw none of them, the least is 0.91 and the median 0.96; of the masks of
# other films the median is 0.80, and a half are rejected.
LEAST_LIKENESS, MOST_BELOW = 0.5, 0.15
# Films, others that each is compared with, and the share of these comparisons in which a mask is as like the lungs of
# its own film as the other's, or more: nearly 1 if they belong together, about a half if not
LEAST_COMPARED, MOST_OTHERS, LEAST_OWN = 5, 16, 0.8
SMALL_MASK = 32  # pixels a side, of masks that are compared
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


def open_masks(config: ConvertConfig, catalog: Catalog) -> LungMasks:
    """The masks that a conversion needs.

    Errors: ConfigError for masks or a segmenter that are not there; InputError for masks of other films;
    IntegrityError for a damaged segmenter; StorageError.
    """
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

    rows: all that have groups, duplicates too: a film is segmented by nets not known to have seen its group.
    key: of the site.  The same bytes with any number of workers.  Errors: as check_likeness.
    """
    side, segmenter = stored_side(config.size), masks.segmenter
    same_key = site_key_id(key) == segmenter.record.site_key_id
    patients = [patient_hash(key, row.patient).tobytes() if same_key and row.patient else b"" for row in rows]
    pixels, group_N = [row.decoded.pixel_hash for row in rows], np.array([row.group for row in rows])
    nets_of_row = segmenter.nets_for(pixels, patients, group_N).tolist()
    frames_NSS = np.memmap(spool, np.uint8, "r").reshape(-1, side, side)
    compared: list[tuple[Row, np.ndarray, np.ndarray]] = []

    def keep(row: Row, nets: Sequence[int], given_SS: np.ndarray | None) -> Lungs | None:
        frame_SS = frames_NSS[row.place]
        lungs = None if given_SS is None and nets[0] < 0 else segmenter.find(frame_SS, [max(0, net) for net in nets])
        mask_SS = given_SS
        if mask_SS is None:
            try:
                mask_SS = credible(lungs)
            except RadiographError as error:
                row.drop(error.code, str(error))
                return None
        row.mask_hash = hashlib.blake2b(np.packbits(mask_SS).tobytes(), digest_size=16).digest()
        write_frame(spool, row.place, LUNG_MODES[masks.mode](frame_SS, mask_SS, config.size).reshape(-1))
        return lungs

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
            found = list(threads.map(keep, *zip(*block, strict=True))) if block else []
            for (row, _, given_SS), lungs in zip(block, found, strict=True):
                if given_SS is not None and lungs and not lungs.problem:
                    compared.append((row, small(lungs.mask_SS), small(given_SS)))
            progress("lungs", min(start + BLOCK, len(places)), len(places))
    check_likeness(config, compared)


def credible(lungs: Lungs | None) -> np.ndarray:
    """The mask that was found, bool S×S; None for a film that every net saw.  Errors: RadiographError."""
    if lungs is None:
        raise refuse("a film that every net saw", "one that some net never saw", "lungs-seen")
    if lungs.problem:
        found = (
            f"share of the frame {lungs.area:.2f}, agreement {lungs.agreement:.2f}, smaller lung over larger "
            f"{lungs.balance:.2f}, share of the outline on the edge {lungs.cut:.2f}"
        )
        raise refuse(f"{REFUSALS[lungs.problem][0]} ({found})", "a credible mask", lungs.problem)
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


def small(mask_SS: np.ndarray) -> np.ndarray:
    """A mask as it is compared: bool T×T."""
    return cv2.resize(mask_SS.astype(np.uint8) * 255, (SMALL_MASK, SMALL_MASK), interpolation=cv2.INTER_AREA) > 127


def check_likeness(config: ConvertConfig, compared: Sequence[tuple[Row, np.ndarray, np.ndarray]]) -> None:
    """Reject films whose given mask is unlike the lungs that are found in them: it is another film's, or turned.

    Lungs of two films are alike, with a Dice of 0.8, and a hospital's masks may follow another convention: so a mask
    is compared with what is usual among those given.  compared: film, lungs found, mask given, bool T×T.
    Errors: InputError where masks are no more like their own films' lungs than others'.
    """
    if not compared:
        return
    found_NTT, given_NTT = (np.array(masks) for masks in list(zip(*compared, strict=True))[1:])
    num_films, own_N = len(found_NTT), dices(found_NTT, given_NTT)
    if num_films >= LEAST_COMPARED:
        away = np.linspace(1, num_films - 1, min(num_films - 1, MOST_OTHERS)).astype(int)
        share = float(np.mean([own_N >= dices(np.roll(found_NTT, rows, 0), given_NTT) for rows in away]))
        if share < LEAST_OWN:
            least = [compared[place][0].entry.path for place in np.argsort(own_N)[:3].tolist()]
            raise InputError(
                f"{config.masks}: masks are more like the lungs of their own film than of another one in "
                f"{share_text(share)} of comparisons ({num_films} films), expected nearly all; check which film each "
                f"mask is of, for the rows may be shifted; the least alike: {', '.join(least)}"
            )
    limit = max(LEAST_LIKENESS, float(np.median(own_N)) - MOST_BELOW)
    for (row, _, _), likeness in zip(compared, own_N.tolist(), strict=True):
        if likeness < limit:
            expected = f"at least {limit:.2f} with the lungs that are found, as of other masks"
            error = refuse(f"a mask with a Dice of {likeness:.2f}", expected, "mask-of-another-film")
            row.drop(error.code, str(error))


def dices(first_NTT: np.ndarray, second_NTT: np.ndarray) -> np.ndarray:
    """The Dice coefficient of each pair of masks, of which none is empty: float64 N."""
    return 2 * (first_NTT & second_NTT).sum((1, 2)) / np.maximum(1, first_NTT.sum((1, 2)) + second_NTT.sum((1, 2)))


def lungs_kept(masks: LungMasks, catalog: Catalog, films: Sequence[Row]) -> LungsKept:
    """What became of the films whose lungs were looked for, with cautions.  films: these, in the catalog's order."""
    cautions = [caution("masks-of-no-film", masks=masks.num_lost)] if masks.num_lost else []
    first_of = {row.group: row for row in reversed(films)}  # independent of one another
    cautions += lost_cautions(families(catalog, list(first_of.values())), findings=catalog.task == "findings")
    shown = (family if catalog.task == "classes" else family[:1] for family in families(catalog, films))
    return LungsKept(
        mode=masks.mode,
        segmenter=masks.identity,
        removals=tuple(itertools.chain.from_iterable(shown)),
        cautions=tuple(cautions),
    )


def families(catalog: Catalog, films: Sequence[Row]) -> list[list[Removal]]:
    """How much of each class was rejected; of findings, for each, of the films with it and of those without."""
    lost_N = np.array([row.verdict != "written" for row in films], bool)
    if catalog.task == "classes":
        return removals(catalog.classes, np.array([catalog.classes.index(row.entry.label) for row in films]), lost_N)
    known = {PRESENT: 1.0, ABSENT: 0.0}
    label_NK = np.array([[known.get(value, np.nan) for value in row.entry.findings] for row in films])
    return removals(catalog.classes, label_NK.reshape(len(films), len(catalog.classes)), lost_N)
