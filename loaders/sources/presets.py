"""Presets: the layouts of common public sets as distributed, read as entries of the catalog.

Labels mean the same in each set: covid, normal and pneumonia, and what is neither of these by its own name.
Sources of the sets of folders, as of November 2026 (of those with a table, see table_sets):

* covid-radiography: https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database and, for the names of
  its files, https://huggingface.co/spaces/dgrant6/Clinical-Demo/tree/main/data/COVID-19_Radiography_Dataset
* covid-qu-ex: https://www.kaggle.com/datasets/anasmohammedtahir/covidqu and
  https://github.com/nguyen-brat/COVID-QU-Ex-Segmentation (each part's folder is in a folder of the same name)
* kaggle-pneumonia: https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia (chest_xray/ again within
  itself, and in __MACOSX/) and https://data.mendeley.com/datasets/rscbjbr9sj/3, where files have other names
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial as bound
from pathlib import Path, PurePosixPath

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig
from loaders.errors import InputError
from loaders.sources.entry import EXCLUDED, Entry, files_below, is_image, kind_aside, left_out, unlisted
from loaders.sources.finding_sets import FINDING_READERS, FINDING_TABLES
from loaders.sources.table import table_columns
from loaders.sources.table_sets import (
    IMAGES,
    NIH_TEST,
    TABLES,
    UNPACK,
    Found,
    Paths,
    chestxray_entries,
    has_columns,
    nih_entries,
    rsna_entries,
    siim_entries,
    vindr_entries,
)

RADIOGRAPHY_LABELS = {
    "COVID": "covid",
    "Lung_Opacity": "lung-opacity",
    "Normal": "normal",
    "Viral Pneumonia": "pneumonia",
}
QU_EX_PARTS = ("Lung Segmentation Data", "Infection Segmentation Data")  # the second repeats some of the first
QU_EX_SPLITS = {"Train": "train", "Val": "val", "Test": "heldout"}
QU_EX_LABELS = {"COVID-19": "covid", "Non-COVID": "pneumonia", "Normal": "normal"}
KAGGLE_LABELS = {"NORMAL": "normal", "PNEUMONIA": "pneumonia"}
# bacteria and viruses, IM and NORMAL2-IM count their patients anew; Mendeley's names have an identifier of each
KAGGLE_PATIENT = re.compile(
    r"(?:(person\d+_(?:bacteria|virus))_|((?:NORMAL2-)?IM-\d+)-|(?:NORMAL|BACTERIA|VIRUS)-(\d+)-)"
)


def preset_entries(
    source: Path, config: CatalogConfig, partial: bool = False
) -> tuple[list[Entry], list[Caution], tuple[str, ...]]:
    """Every radiograph of a public set, sorted by path, and every other image of its tree with why it is excluded.

    Then what was assumed, and the findings' names, of which entries then have the values as the table has them.
    config.readers: how those of vindr are combined, by majority unless said.  partial: some of the findings will do.
    Errors: InputError when a file that the layout needs is missing or not as expected; StorageError.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected the folder of {config.preset}; check the path")
    preset, findings = config.preset or "", tuple[str, ...]()
    listed = list(files_below(source))
    paths = [path for path in listed if not kind_aside(path)]
    if config.task == "findings":
        entries, cautions, findings = FINDING_READERS[preset](source, paths, config, partial)
    elif preset == "vindr":
        entries, cautions = vindr_entries(source, paths, config.readers or "majority")
    else:
        entries, cautions = READERS[preset](source, paths)
    aside = [(path, kind) for path in listed if is_image(path) and (kind := kind_aside(path))]
    entries += [left_out(path, kind, EXCLUDED[kind]) for path, kind in aside]
    return sorted(entries, key=lambda entry: entry.path), cautions, findings


def check_whole_patients(source: Path, entries: Sequence[Entry]) -> None:
    """Errors: InputError where test_list.txt has some images of a patient and not others."""
    taking_part = [entry for entry in entries if not entry.excluded]
    listed = {entry.patient: entry.path for entry in taking_part if entry.split}
    for entry in taking_part:
        if not entry.split and entry.patient and entry.patient in listed:
            raise InputError(
                f"{source}/{NIH_TEST}: has {listed[entry.patient]} and not {entry.path} of the same patient, "
                "expected whole patients; use the list of the original set"
            )


# ---- sets of folders


def radiography_entries(source: Path, paths: Paths) -> Found:
    """COVID-19 Radiography Database: <class>/images/ and <class>/masks/.

    The source of each image is only in *.metadata.xlsx, which is not read: it stays unknown.
    """
    entries = []
    for path in paths:
        folder, kind = (*path.parts[-3:-1], "", "")[:2]
        label = RADIOGRAPHY_LABELS.get(folder, "")
        if label and kind == IMAGES:
            entries.append(Entry(path=path.as_posix(), label=label))
        elif label and kind == "masks" and is_image(path):
            entries.append(left_out(path, "mask", "lung mask", label))
    if not any(not entry.excluded for entry in entries):
        expected = ", ".join(f"{folder}/{IMAGES}" for folder in RADIOGRAPHY_LABELS)
        raise InputError(f"{source / 'COVID' / IMAGES}: not found or empty, expected some of {expected}; {UNPACK}")
    return entries + outside_classes(source, paths, entries), []


def qu_ex_entries(source: Path, paths: Paths) -> Found:
    """COVID-QU-Ex: <part>/<Train|Val|Test>/<class>/images, "lung masks" and "infection masks"; its own splits.

    An image of the infection part that the lung part also has, by class and name, is taken once.
    """
    lung, infection = QU_EX_PARTS
    entries = []
    in_lung_part: dict[tuple[str, str], str] = {}
    in_parts = [path for path in paths if len(path.parts) > 4 and set(QU_EX_PARTS) & set(path.parts)]
    for path in sorted(in_parts, key=lambda path: infection in path.parts):
        split, folder, kind, name = path.parts[-4:]
        label = QU_EX_LABELS.get(folder, "")
        if not label or split not in QU_EX_SPLITS:
            continue
        if kind == IMAGES:
            entry = Entry(path=path.as_posix(), label=label, split=QU_EX_SPLITS[split])
            if infection not in path.parts:
                in_lung_part[label, name] = entry.path
            elif (label, name) in in_lung_part:
                reason = f"the same name and class as {in_lung_part[label, name]}"
                entry = replace(entry, excluded=reason, kind="same-name")
            entries.append(entry)
        elif kind in ("lung masks", "infection masks") and is_image(path):
            entries.append(left_out(path, "mask", kind.removesuffix("s"), label))
    if not any(not entry.excluded for entry in entries):
        raise InputError(
            f"{source / lung}: no radiographs, expected Train, Val and Test with "
            f"{', '.join(f'{folder}/{IMAGES}' for folder in QU_EX_LABELS)}; {UNPACK}"
        )
    return entries + outside_classes(source, paths, entries), []


def kaggle_pneumonia_entries(source: Path, paths: Paths) -> Found:
    """Kermany's pneumonia of children: <train|val|test>/<class>; what the folder within has again is taken once.

    Its 16 images for validation join those of training, to be dealt anew.  Its test set is held out unless a patient of
    it, by the files' names, is in training, too; then all is dealt anew.
    """
    entries: dict[PurePosixPath, Entry] = {}
    again = []
    for path in sorted((path for path in paths if is_image(path)), key=lambda path: (len(path.parts), path)):
        split, folder = ("", "", *path.parts)[-3:-1]
        label = KAGGLE_LABELS.get(folder.upper(), "")
        if not label or split not in ("train", "val", "test"):
            continue
        match = KAGGLE_PATIENT.match(path.name)
        entry = Entry(
            path=path.as_posix(),
            label=label,
            patient=f"kermany-{next(filter(None, match.groups()))}" if match else "",
            source="kermany",
            split="heldout" if split == "test" else "",
        )
        first = entries.setdefault(PurePosixPath(*path.parts[-3:]), entry)
        if first is not entry:
            again.append(left_out(path, "same-name", f"the same name and class as {first.path}", label))
    if not entries:
        raise InputError(
            f"{source / 'train'}: no radiographs, expected train, val and test with NORMAL and PNEUMONIA; {UNPACK}"
        )
    found, cautions = list(entries.values()), []
    in_test, in_rest = ({e.patient for e in found if bool(e.split) is test} - {""} for test in (True, False))
    if crossing := in_test & in_rest:
        found = [replace(entry, split="") for entry in found]
        cautions.append(caution("own-splits-not-used", patients=len(crossing)))
    return [*found, *again, *outside_classes(source, paths, [*found, *again])], cautions


def outside_classes(source: Path, paths: Paths, entries: Sequence[Entry]) -> list[Entry]:
    """The images that are in no folder of a class."""
    return unlisted(source, paths, {entry.path for entry in entries}, "no-class", EXCLUDED["no-class"])


def set_of_folders(paths: Paths) -> str:
    """The preset whose folders and names these are; "" for none."""
    for path in paths:
        folder, kind = ("", "", *path.parts)[-3:-1]
        if set(QU_EX_PARTS) & set(path.parts):
            return "covid-qu-ex"
        if folder in RADIOGRAPHY_LABELS and kind == IMAGES:
            return "covid-radiography"
        if kind.upper() in KAGGLE_LABELS and KAGGLE_PATIENT.match(path.name):
            return "kaggle-pneumonia"
    return ""


def set_of_table(folder: Path) -> str:
    """The preset whose table is in a folder, by its name and columns; "" for none."""
    for preset, (names, columns) in (TABLES | FINDING_TABLES).items():
        fits = bound(has_columns, columns)
        for table in (folder / name for name in names):
            with contextlib.suppress(InputError):  # no table, whatever its name
                if table.is_file() and not table.is_symlink() and fits(table_columns(table, fits)):
                    return preset
    return ""


READERS: dict[str, Callable[[Path, Paths], Found]] = {
    "covid-radiography": radiography_entries,
    "covid-qu-ex": qu_ex_entries,
    "covid-chestxray": chestxray_entries,
    "nih": nih_entries,
    "rsna": rsna_entries,
    "siim": siim_entries,
    "vindr": vindr_entries,
    "kaggle-pneumonia": kaggle_pneumonia_entries,
}
