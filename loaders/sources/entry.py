"""Entries of the catalog: one source file each, from a folder's listing or a row of a table."""

import csv
import functools
import io
import itertools
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loaders.atomic_file import storage_error
from loaders.config import CatalogConfig, Views
from loaders.errors import ConfigError, InputError
from loaders.images.files import SUFFIXES

SPLITS = ("train", "val", "heldout")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "dev": "val",
    "test": "heldout", "testing": "heldout", "heldout": "heldout", "held-out": "heldout", "holdout": "heldout",
}  # fmt: skip
ABSENT, PRESENT, UNKNOWN = range(3)  # a finding of a film, one byte each
OTHER_CLASS = "other-class"
EXCLUDED = {  # kind of an entry that takes no part → its meaning
    OTHER_CLASS: "of a class not asked for",
    "hidden": "hidden file",
    "server-folder": "in a folder of the file server or the system",
    "no-class": "outside the folders of the classes",
    "link": "link to a folder, which is not followed",
    "mask": "mask",
    "same-name": "same name as another file",
    "unlisted": "not in the set's table",
    "missing": "not in the folder",
    "no-radiograph": "not a radiograph, by the set's table",
    "other-view": "of a view not asked for",
    "other-finding": "finding of no class",
    "no-split": "in none of the set's lists",
    "readers-differ": "without a majority of its readers",
}
# folders that file servers and systems keep beside the user's own: previews, deleted files, forks of other systems
SERVER_FOLDERS = frozenset(("@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "thumbs", "thumbnails"))
# what cells hold where there is nothing to tell, but for case and signs: #N/A, <NA>, (unknown), --
PLACEHOLDERS = frozenset((
    "", "na", "n a", "nan", "nat", "null", "nil", "none", "unknown", "unk", "not known", "missing", "unspecified",
    "not specified", "not stated", "not given", "not available", "not applicable", "not recorded", "not reported",
))  # fmt: skip
ANONYMOUS = frozenset((
    "anon", "anonymous", "anonymized", "anonymised", "deidentified", "de identified", "redacted", "removed",
))  # fmt: skip
# classes without a finding: by the first word, as `negative for pneumonia`, by the whole, or negated, as `no finding`
HEALTHY, HEALTHY_ALONE = (
    frozenset(("normal", "normals", "healthy", "health", "negative", "neg", "nofinding", "nofindings")),
    frozenset(("0", "n", "no", "false", "absent", "none", "control", "controls")),
)
NEGATIONS = frozenset(("no", "non", "not", "without"))
NO_NEGATION = frozenset(("small", "specific", "hodgkin"))  # non-small-cell carcinoma is a finding
LATERAL = frozenset(("l", "ll", "rl", "lat", "lateral", "xtable"))
OBLIQUE = frozenset(
    (
        "axial",
        "coronal",
        "sagittal",
        "costal",
        "oblique",
        "decubitus",
        "lld",
        "rld",
        "llo",
        "rlo",
        "lao",
        "rao",
        "lpo",
        "rpo",
        "lordotic",
    )
)
PA = frozenset(("pa", "posteroanterior", "posterioranterior"))
AP = frozenset(("ap", "aps", "anteroposterior", "anteriorposterior"))
BY_BED = frozenset(("supine", "portable"))  # AP, unless PA is said
FRONTAL = frozenset(("frontal", "front"))
NO_PICTURES = (
    ".csv", ".tsv", ".txt", ".md", ".json", ".jsonl", ".xlsx", ".xls", ".html", ".xml", ".yaml", ".pdf", ".zip",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One source file.  path: relative to the root, with forward slashes.

    excluded: why it takes no part, or "".  kind: of that reason, one of EXCLUDED, or "".  one_film_ids: the PatientID
    in the file is of this film alone, and tells no patient.  sex, age: as a table has them, or "".
    findings: of the task findings ABSENT, PRESENT or UNKNOWN for each finding of the catalog; then label is "".
    """

    path: str
    label: str
    patient: str = ""
    sex: str = ""
    age: str = ""
    view: str = ""
    source: str = ""
    split: str = ""
    excluded: str = ""
    kind: str = ""
    one_film_ids: bool = False
    findings: bytes = b""

    def patient_or(self, in_file: str) -> str:
        """The patient, or else the one that the file itself names; "" for none.  in_file: its PatientID."""
        return self.patient or ("" if self.one_film_ids else patient_id(in_file))


def as_text(cell: str) -> str:
    """A cell whose bytes were not UTF-8, read as Latin-1, in which every byte is a letter or a sign."""
    if cell.isascii():
        return cell
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode("latin-1")
    return cell


def without_decimals(text: str) -> str:
    """12 for 12.0, which a spreadsheet or a data frame makes of a column with gaps."""
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text) if text.endswith("0") else text


def bare_words(text: str) -> str:
    """A cell's words in lower case, without signs."""
    return " ".join(re.split(r"[\W_]+", text.casefold())).strip()


def is_placeholder(text: str) -> bool:
    """Whether a cell stands for nothing, as NA, #N/A, unknown or --."""
    return bare_words(text) in PLACEHOLDERS


def patient_id(text: str) -> str:
    """A patient's identifier; "" for what stands for none, such as NA or anonymous."""
    bare = bare_words(text)
    return "" if bare in PLACEHOLDERS or bare in ANONYMOUS else without_decimals(text.strip())


def spelling(name: str) -> str:
    """What the spellings of a name have in common: Covid is covid, 1.0 is 1, and both ways to write ö are one."""
    return without_decimals(unicodedata.normalize("NFC", " ".join(name.split()).casefold()))


def one_name_each(names: Sequence[str], classes: tuple[str, ...] = ()) -> dict[str, str]:
    """Each spelling of a label or a source → its name: Covid and covid are one class, as are 1 and 1.0.

    The name is that of --classes, or else the commonest spelling, the first in the alphabet of several.
    """
    counts, spellings = Counter((*names, *classes)), defaultdict[str, list[str]](list)
    for name in sorted(counts, key=lambda name: (name not in classes, -counts[name], name)):
        spellings[spelling(name)].append(name)
    return {name: name if name in classes else same[0] for same in spellings.values() for name in same}


def translations(config: CatalogConfig, names: Collection[str]) -> dict[str, str]:
    """The names of --map-label: a label's spelling → its new name.

    Errors: ConfigError for a label that is given two names; InputError for one that is not among the names.
    """
    new_of: dict[str, str] = {}
    for pair in config.map_label:
        old, _, new = pair.rpartition("=")
        if new_of.setdefault(spelling(old), new.strip()) != new.strip():
            raise ConfigError(f"--map-label: found {pair} beside {old}={new_of[spelling(old)]}, expected one of both")
    if lost := new_of.keys() - set(map(spelling, names)):
        named = next(pair for pair in config.map_label if spelling(pair.rpartition("=")[0]) in lost)
        raise InputError(
            f"{config.origin}: --map-label {named!r}, but no file has that label, expected some of "
            f"{', '.join(sorted(names))}; correct it"
        )
    return new_of


def looks_healthy(name: str) -> bool:
    """Whether a class is, by its name, of films without a finding: 0, normal, No Finding, no-pneumonia, healthy."""
    words = re.findall(r"[^\W_]+", spelling(name))
    words = words[1:] if words[1:] and words[0].isdecimal() else words  # 0_Normal
    negated = [second for first, second in itertools.pairwise(words) if first in NEGATIONS]
    if " ".join(words) in HEALTHY_ALONE:
        return True
    if not words or is_placeholder(name) or not HEALTHY.isdisjoint(negated):  # not normal
        return False
    return words[0] in HEALTHY or (bool(negated) and words[0] in NEGATIONS and negated[0] not in NO_NEGATION)


def projection(view: str) -> str:
    """pa, ap, frontal (one of the two), lateral or other: what a view says in any spelling; "" for an unknown one."""
    text = re.sub(r"[\W_]+", " ", re.sub(r"[-.]", "", view.casefold()))
    text = re.sub(r"\b(x|postero|posterior|antero|anterior) (table|anterior|posterior)\b", r"\1\2", text)
    words = set(re.findall(r"[a-z]+", text))
    if words & LATERAL or words & OBLIQUE:
        return "lateral" if words & LATERAL else "other"
    if words & PA:
        return "frontal" if words & AP else "pa"
    return "ap" if words & (AP | BY_BED) else "frontal" if words & FRONTAL else ""


@functools.lru_cache
def other_view(view: str, views: Views) -> str:
    """Why a file of this view is left out; "" for a view that is asked for or unknown."""
    found = projection(view)
    wanted = {"all": (found,), "frontal": ("pa", "ap", "frontal"), "pa": ("pa", "frontal"), "ap": ("ap", "frontal")}
    if not found or found in wanted[views]:
        return ""
    if found == "lateral":
        return "lateral view"
    return f"no frontal view: {view}" if views == "frontal" or found == "other" else f"view {view}, not {views.upper()}"


def may_be_picture(path: str) -> bool:
    """Whether a file may be a picture, by its name."""
    return not path.lower().endswith(NO_PICTURES)


def files_below(source: Path, roots: Sequence[Path] = ()) -> Iterator[PurePosixPath]:
    """Every file below source, relative to it, sorted in each folder.

    Links to folders are listed, not followed, unless they end below one of the roots, or where nothing in source is
    listed by itself, such as a hidden folder; each such folder is followed once, and never from below itself.
    Errors: StorageError when a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise storage_error(Path(error.filename or source), error) from error

    inside = os.path.realpath(source)
    allowed = [os.path.realpath(root) for root in roots]
    followed: set[Path] = set()
    folders = [source]
    while folders:
        top = folders.pop()
        for folder, subfolders, names in os.walk(top, onerror=fail):
            subfolders.sort()
            relative = PurePosixPath(Path(folder).relative_to(source).as_posix())
            # a link to a folder, which may be a loop, is listed as a file, so that it is counted
            links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
            for name in list(links):
                target = Path(os.path.realpath(Path(folder) / name))
                if target.is_relative_to(inside):
                    may_follow = (
                        kind_aside(relative / name / "film")
                        == ""
                        != kind_aside(PurePosixPath(target.relative_to(inside), "film"))
                    )
                else:
                    may_follow = any(map(target.is_relative_to, allowed))
                if may_follow and target not in followed and not Path(os.path.realpath(folder)).is_relative_to(target):
                    followed.add(target)
                    links.remove(name)
                    folders.append(Path(folder) / name)
            for name in sorted(names + links):
                yield relative / name


def kind_aside(path: PurePosixPath) -> str:
    """Why a file is left out by its name or by a folder above it, one of EXCLUDED; "" for others."""
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    return "server-folder" if {part.lower() for part in path.parts[:-1]} & SERVER_FOLDERS else ""


def is_image(path: PurePosixPath) -> bool:
    """Whether a file is a picture, by its name."""
    return path.suffix.lower() in SUFFIXES


def left_out(path: PurePosixPath, kind: str, reason: str, label: str = "") -> Entry:
    """An image of the tree that takes no part."""
    return Entry(path=path.as_posix(), label=label, excluded=reason, kind=kind)


def unlisted(source: Path, paths: Sequence[PurePosixPath], used: set[str], kind: str, reason: str) -> list[Entry]:
    """The images, and links to folders, that no other rule covers."""
    rest = [path for path in paths if path.as_posix() not in used]
    entries = [left_out(path, kind, reason) for path in rest if is_image(path)]
    links = [path for path in rest if not is_image(path) and (source / path).is_dir()]
    return entries + [left_out(path, "link", EXCLUDED["link"]) for path in links]


def read_list(path: Path) -> set[str]:
    """The file names in a list, one on each line; empty without a list.  Errors: StorageError."""
    if not path.is_file():
        return set()
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise storage_error(path, error) from error
    return {line.strip() for line in text.splitlines() if line.strip()}


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]] = ()) -> bytes:
    """A CSV for spreadsheets, with any bytes that file names may hold."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([columns, *rows])
    return text.getvalue().encode("utf-8", "surrogateescape")


def table_path(path: str) -> str:
    """A path as a cell of a CSV: one that a spreadsheet would take for a formula begins with `./` there."""
    return f"./{path}" if path[:1] in ("=", "+", "-", "@", "\t", "\r") else path
