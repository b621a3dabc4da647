"""The lungs' masks of a beton's films: given as files, found by a segmenter, or the same usual region for all."""

# N samples, H W rows and columns of the crop, S side of the stored frame

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np

from loaders.beton.format import PATIENT_KNOWN
from loaders.beton.reader import Beton
from loaders.config import Fit
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.images.decode import inside
from loaders.images.frame import FIX, read_mask, template_SS
from loaders.images.lungs import Lungs, Segmenter, load_segmenter
from loaders.sources.table import read_rows

MaskSource = Literal["phantom", "folder", "template", "segmenter"]
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm")
SEGMENTED = "masks.csv"  # what `segment` writes beside masks/ and doubtful/
WHOLE = re.compile(r"[0-9]{1,18}")
REMEDY = "name the convert.csv of the conversion that made the beton with --table"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A radiograph by its row of convert.csv.  size: columns and rows, None if not known.  fix: how it was repaired."""

    size: tuple[int, int] | None
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Where each sample's lungs are found.

    path_of: sample → mask file, where there is one.  written: sample → what conversion made it of, where that is known.
    segmenter, nets_N2: what finds them, and by which nets each sample's, as Segmenter.nets_for chooses.
    num_seen: samples that some net is known to have seen, or one of their group.
    """

    kind: MaskSource
    path_of: dict[int, Path] | None = None
    written: dict[int, Written] | None = None
    segmenter: Segmenter | None = None
    nets_N2: np.ndarray | None = None
    num_seen: int = 0

    def samples(self, beton: Beton) -> np.ndarray:
        """The samples whose lungs may be known, rising: a segmenter's mask may yet not be credible."""
        if self.nets_N2 is not None:
            return np.flatnonzero(self.nets_N2[:, 0] >= 0)
        return np.arange(len(beton)) if self.path_of is None else np.array(sorted(self.path_of), np.int64)

    def found(self, beton: Beton, sample: int) -> Lungs | None:
        """What the segmenter finds in a sample; None where there is none, or every net saw its group."""
        if self.segmenter is None or self.nets_N2 is None or self.nets_N2[sample, 0] < 0:
            return None
        return self.segmenter.find(beton.frame(sample), self.nets_N2[sample])

    def frame_of(self, beton: Beton, sample: int) -> np.ndarray | None:
        """The lungs in the sample's frame, bool S×S; None where they are not known, or not credible.

        Errors: InputError for a mask that cannot be used.
        """
        return self.lungs_of(beton, sample)[0]

    def crop_of(self, beton: Beton, sample: int) -> tuple[np.ndarray | None, str]:
        """The lungs in the sample's crop, bool H×W, or why there are none.  Reasons and errors as of lungs_of."""
        (mask_SS, reason), facts = self.lungs_of(beton, sample), beton.facts
        inside = slice(margin := (facts.stored - facts.crop) // 2, margin + facts.crop)
        return None if mask_SS is None else mask_SS[inside, inside], reason

    def lungs_of(self, beton: Beton, sample: int) -> tuple[np.ndarray | None, str]:
        """The lungs in the sample's frame, bool S×S, or why there are none, a code of loaders.images.files.REFUSALS.

        Errors: InputError for a mask that cannot be used.
        """
        facts = beton.facts
        if self.segmenter is not None:
            return credible(self.found(beton, sample))
        if self.path_of is None:
            return template_SS(facts.stored), ""
        if sample not in self.path_of or self.written is None:
            return None, "no-mask"
        file, written = self.path_of[sample], self.written[sample]
        return read_mask(file, facts.stored, cast(Fit, facts.fit), size=written.size, fix=written.fix), ""

    def each(self, beton: Beton, sample_N: np.ndarray) -> Iterator[tuple[np.ndarray | None, str]]:
        """lungs_of of some samples, in order: a segmenter finds them in threads, files are read one after the other."""
        if self.segmenter is None or self.nets_N2 is None:
            yield from (self.lungs_of(beton, sample) for sample in sample_N.tolist())
        else:
            found = self.segmenter.find_all(lambda place: beton.frame(int(sample_N[place])), self.nets_N2[sample_N])
            yield from map(credible, found)


def credible(lungs: Lungs | None) -> tuple[np.ndarray | None, str]:
    """A mask that was found, or why it cannot be believed; None for a film that every net saw."""
    reason = "lungs-seen" if lungs is None else lungs.problem
    return None if lungs is None or reason else lungs.mask_SS, reason


def find_masks(beton: Beton, masks: str, table: Path | None, segmenter: str = "shipped") -> Masks:
    """The masks of a beton.  masks: auto, for those that the segmenter finds; usual, for one region; a folder or a CSV.

    table: the conversion's convert.csv; None for the one beside the beton.  A beton holds no file names: that table
    shows which file became which sample.
    Errors: ConfigError for what is not there; InputError for a table or CSV that is none, masks of other radiographs,
    or one that a link or the CSV takes from elsewhere; IntegrityError for a damaged segmenter; StorageError.
    """
    if masks in ("auto", "usual") and table is not None:
        raise ConfigError(f"--table: found {table} with --masks {masks}, expected files of masks; name them, too")
    if masks != "auto" and segmenter != "shipped":
        raise ConfigError(f"--segmenter: found {segmenter} with --masks {masks}, expected --masks auto; leave one out")
    if masks == "usual":
        return Masks(kind="template")
    if masks == "auto":
        return segmented(beton, load_segmenter(segmenter))
    return given_masks(beton, Path(masks), table)


def segmented(beton: Beton, segmenter: Segmenter) -> Masks:
    """Masks that a segmenter finds, each by nets that are not known to have seen the film or its group.

    Errors: ConfigError for a beton whose pixels are hashed by another algorithm than those of the films that nets saw.
    """
    facts, record, rows_N = beton.facts, segmenter.record, beton.rows_N
    if beton.verified and facts.hash_algorithm != record.hash_algorithm:
        raise ConfigError(
            f"{beton.path}: pixels are hashed by {facts.hash_algorithm}, expected {record.hash_algorithm} as in "
            "segmenter.json, since films that its nets saw could not be found; convert the radiographs again, or name "
            "masks by --masks"
        )
    same_key = facts.site_key_id == record.site_key_id
    known_N = (rows_N["flags"] & PATIENT_KNOWN > 0) & same_key
    patients = [row.tobytes() if known else b"" for row, known in zip(rows_N["patient_hash"], known_N, strict=True)]
    films = [row.tobytes() for row in rows_N["pixel_hash"]], patients, rows_N["group"]
    return Masks(
        kind="segmenter", segmenter=segmenter, nets_N2=segmenter.nets_for(*films),
        num_seen=int(segmenter.saw(*films).any(0).sum()),
    )  # fmt: skip


def given_masks(beton: Beton, masks: Path, table: Path | None) -> Masks:
    """Masks in files."""
    place = table or beton.path.with_name("convert.csv")
    sample_of, written = read_table(place, beton)
    found, _ = match_masks(masks, sample_of, f"the {len(beton)} radiographs of {beton.path}", str(place))
    if lost := [path for path in found.values() if not path.is_file()]:
        raise InputError(f"{lost[0]}: not found, expected a mask; correct its path in {masks}, or drop its row")
    own = beton.facts.synthetic and masks.name == "phantoms.csv"
    return Masks(kind="phantom" if own else "folder", path_of=found, written=written)


def match_masks(masks: Path, number_of: Mapping[str, int], films: str, listed: str) -> tuple[dict[int, Path], int]:
    """Masks in a folder, or listed in a CSV, by the number of their radiograph; and how many are of none.

    number_of: path of a radiograph → its number.  films, listed: what these are, and where they are listed, in errors.
    Errors: ConfigError for no folder or CSV, or the folder of `segment`; InputError for none of these radiographs'
    masks, or one elsewhere.
    """
    if not masks.exists():
        raise ConfigError(f"--masks {masks}: not there, expected a folder of mask files, or a CSV; check the path")
    if (masks / SEGMENTED).is_file():
        raise ConfigError(
            f"--masks {masks}: holds {SEGMENTED} of `segment`, and doubtful masks beside credible ones, expected that "
            f"table, which lists the credible ones; name {masks / SEGMENTED}"
        )
    found, lost = match_folder(masks, number_of) if masks.is_dir() else match_csv(masks, number_of)
    if not found:
        raise InputError(
            f"{masks}: no mask for any of {films}, expected names or paths like those in {listed}; name the masks of "
            "these radiographs"
        )
    base = masks if masks.is_dir() else masks.parent
    for path in found.values():
        try:
            inside(base, str(path.relative_to(base)))
        except (RadiographError, ValueError) as error:  # ValueError: an absolute path
            if not isinstance(error, RadiographError) or error.code == "outside-source":
                raise InputError(f"{path}: leads outside of {base}, expected a mask below it; copy it there") from error
    return found, lost


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


def match_csv(path: Path, number_of: Mapping[str, int]) -> tuple[dict[int, Path], int]:
    """Masks that a CSV ties to radiographs by path, such as phantoms.csv; and how many of its masks are of none.

    The end of a path is enough where one radiograph alone has it, and one row of the CSV.  Masks' paths are relative
    to the CSV.
    """
    remedy = "name a CSV that ties each radiograph's path to its mask"
    every = read_rows(path, itemgetter("path"), ("path", "mask"), (), remedy, strip=False).values()
    mask_of = {PurePosixPath(row["path"]): row["mask"] for _, row in every}
    by_name: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
    for film, number in number_of.items():
        by_name[PurePosixPath(film).name].append((PurePosixPath(film), number))
    fitting: dict[int, list[Path]] = defaultdict(list)
    listed = {film: mask for film, mask in mask_of.items() if mask}
    for wanted, mask in listed.items():
        films = by_name[wanted.name]
        numbers = [number for film, number in films if film == wanted] or [
            number for film, number in films if film not in mask_of and same_end(film, wanted)
        ]
        if len(numbers) == 1:
            fitting[numbers[0]].append(path.parent / mask)
    found = {number: masks[0] for number, masks in fitting.items() if len(masks) == 1}
    return found, len(listed) - len(found)


def same_end(first: PurePosixPath, second: PurePosixPath) -> bool:
    """Whether one path is the end of the other."""
    return all(a == b for a, b in zip(reversed(first.parts), reversed(second.parts), strict=False))


def match_folder(folder: Path, number_of: Mapping[str, int]) -> tuple[dict[int, Path], int]:
    """Masks named after radiographs: x.png, x_mask.png or x.jpg.mask.png for x.jpg, in any folder below; and how many
    are of none.

    A name that several radiographs or several masks have ties nothing.
    """
    masks: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in PICTURES:
            masks[stem_of(file.name)].append(file)
    films: dict[str, list[int]] = defaultdict(list)
    for name, number in number_of.items():
        films[stem_of(PurePosixPath(name).name)].append(number)
    found = {
        numbers[0]: masks[stem][0]
        for stem, numbers in films.items()
        if len(numbers) == 1 and len(masks.get(stem, ())) == 1
    }
    return found, sum(map(len, masks.values())) - len(found)


def stem_of(name: str) -> str:
    """A name without what tells a mask from its picture: `x` of x.jpg, x_mask.png and x.jpg.mask.png."""
    stem = PurePosixPath(name)
    while stem.suffix.lower() in (*PICTURES, ".mask"):
        stem = stem.with_suffix("")
    return re.sub(r"[-_. ]?mask$", "", stem.name, flags=re.IGNORECASE)
