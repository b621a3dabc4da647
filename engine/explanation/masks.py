"""The lungs of a beton's samples: mask files matched to samples through convert.csv, or the lungs' usual region."""

# N samples, H W rows and columns of the crop

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np

from engine.explanation.lungs import Kind
from loaders.beton import Beton
from loaders.config import Fit
from loaders.entry import check_regular
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.lungs import read_mask, template_SS
from loaders.spool import inside

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm")
WHOLE = re.compile(r"[0-9]{1,18}")
STEP = r"(?:crop [0-9]+:[0-9]+,[0-9]+:[0-9]+|invert|rotate (?:90|180|270))"
MENDED = re.compile(rf"mended: ({STEP}(?:; {STEP})*)$")  # in convert.csv's reason: steps of loaders.audit.mend
REMEDY = "name the convert.csv of the conversion that made the beton with --table"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A radiograph as convert.csv tells of it.  size: columns and rows, None if not known.  fix: how it was mended."""

    size: tuple[int, int] | None
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Where each sample's lungs are found.  path_of: sample → mask file, where there is one; None: the template.

    written: sample → what conversion made it of, where that is known.
    """

    kind: Kind
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
    tells which file became which sample.
    Errors: ConfigError for a table or CSV that is none; InputError for masks of other radiographs, or one that a link
    or the CSV takes from elsewhere.
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

    Errors: ConfigError; InputError for a table of another conversion.
    """
    columns = ("path", "label", "split", "sample", "reason", "width", "height")
    rows = read_rows(path, columns, f"expected a convert.csv; {REMEDY}")
    facts = beton.facts
    rows = [row for row in rows if row["split"] == facts.split and WHOLE.fullmatch(row["sample"])]
    sample_of = {row["path"]: int(row["sample"]) for row in rows}
    label_of = {int(row["sample"]): row["label"] for row in rows}
    if label_of != {sample: facts.classes[label] for sample, label in enumerate(beton.label_N)}:
        raise InputError(
            f"{path}: lists {len(sample_of)} files of split {facts.split} that are not the {len(beton)} samples of "
            f"{beton.path}, expected the table of its own conversion; {REMEDY}"
        )
    return sample_of, {int(row["sample"]): written_as(row) for row in rows}


def written_as(row: dict[str, str]) -> Written:
    """What a row of convert.csv tells of a written file."""
    sides = [int(row[name]) if WHOLE.fullmatch(row[name]) else 0 for name in ("width", "height")]
    mended = MENDED.search(row["reason"])
    return Written(size=(sides[0], sides[1]) if all(sides) else None, fix=mended[1] if mended else "")


def read_rows(path: Path, columns: tuple[str, ...], expected: str) -> list[dict[str, str]]:
    """The rows of a CSV with at least these columns.  Errors: ConfigError; InputError for no regular file."""
    check_regular(path)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            rows = [{name: row[name] or "" for name in columns} for row in reader] if {*columns} <= {*names} else None
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}, {expected}") from error
    if rows is None:
        found = ", ".join(names)[:200] or "none"  # of what may be no CSV at all
        raise ConfigError(f"{path}: columns {found}, expected {', '.join(columns)}; {expected}")
    return rows


def match_csv(path: Path, sample_of: dict[str, int]) -> dict[int, Path]:
    """Masks that a CSV ties to radiographs by path, such as phantoms.csv; the end of a path is enough if it is unique.

    Masks' paths are relative to the CSV.
    """
    rows = read_rows(path, ("path", "mask"), "expected a CSV that ties each radiograph's path to its mask")
    by_name: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
    for file, sample in sample_of.items():
        by_name[PurePosixPath(file).name].append((PurePosixPath(file), sample))
    found = {}
    for row in rows:
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
