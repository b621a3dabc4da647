"""Presets: the layouts of common public sets as distributed, read as entries of the catalog.

Labels of every set are mapped to covid, normal, pneumonia (and lung-opacity), so that --classes means the same for
each. Sources, as of November 2026:

* covid-radiography: https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database and, for the names of
  its files, https://huggingface.co/spaces/dgrant6/Clinical-Demo/tree/main/data/COVID-19_Radiography_Dataset
* covid-qu-ex: https://www.kaggle.com/datasets/anasmohammedtahir/covidqu and
  https://github.com/nguyen-brat/COVID-QU-Ex-Segmentation (each part's folder is in a folder of the same name)
* covid-chestxray: https://github.com/ieee8023/covid-chestxray-dataset/blob/master/SCHEMA.md and metadata.csv there
* nih: https://nihcc.app.box.com/v/ChestXray-NIHCC, https://www.kaggle.com/datasets/nih-chest-xrays/data (images_001/)
  and https://huggingface.co/datasets/alkzar90/NIH-Chest-X-ray-dataset/tree/main/data (images/, lists, v2020)
"""

# N entries that take part

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from loaders.errors import InputError
from loaders.images.files import SUFFIXES
from loaders.sources.entry import EXCLUDED, Entry, files_below, kind_aside, patient_id, read_list
from loaders.sources.split import group_by, known_patients, split_groups
from loaders.sources.table import read_rows

IMAGES = "images"
RADIOGRAPHY_LABELS = {
    "COVID": "covid",
    "Lung_Opacity": "lung-opacity",
    "Normal": "normal",
    "Viral Pneumonia": "pneumonia",
}
QU_EX_PARTS = ("Lung Segmentation Data", "Infection Segmentation Data")  # the second repeats some of the first
QU_EX_SPLITS = {"Train": "train", "Val": "val", "Test": "heldout"}
QU_EX_LABELS = {"COVID-19": "covid", "Non-COVID": "pneumonia", "Normal": "normal"}
NIH_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
NIH_SEX = ("patient gender", "patient sex")  # of 2017, of 2020
NIH_TEST, NIH_REST = "test_list.txt", "train_val_list.txt"
UNPACK = "unpack the set again, or point SOURCE at the folder that has it"

Paths = Sequence[PurePosixPath]


def preset_entries(source: Path, preset: str) -> list[Entry]:
    """Every radiograph of a public set, sorted by path, and every other image of its tree with why it is excluded.

    Errors: InputError when a file that the layout needs is missing or not as expected; StorageError.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected the folder of {preset}; check the path")
    listed = list(files_below(source))
    entries = READERS[preset](source, [path for path in listed if not kind_aside(path)])
    aside = [(path, kind) for path in listed if is_image(path) and (kind := kind_aside(path))]
    entries += [left_out(path, kind, EXCLUDED[kind]) for path, kind in aside]
    return sorted(entries, key=lambda entry: entry.path)


def is_image(path: PurePosixPath) -> bool:
    """Whether a file is a picture, by its name."""
    return path.suffix.lower() in SUFFIXES


def left_out(path: PurePosixPath, kind: str, reason: str, label: str = "") -> Entry:
    """An image of the tree that takes no part."""
    return Entry(path=path.as_posix(), label=label, excluded=reason, kind=kind)


def unlisted(source: Path, paths: Paths, used: set[str], kind: str, reason: str) -> list[Entry]:
    """The images, and links to folders, that no other rule covers."""
    rest = [path for path in paths if path.as_posix() not in used]
    entries = [left_out(path, kind, reason) for path in rest if is_image(path)]
    links = [path for path in rest if not is_image(path) and (source / path).is_dir()]
    return entries + [left_out(path, "link", "link to a folder, which is not followed") for path in links]


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


def split_rest(given: Sequence[Entry], val: float, seed: int) -> tuple[Entry, ...]:
    """Where only the held-out share is named, by test_list.txt or a folder, split the rest by whole patients.

    given: a set's entries in order; those without a split become train and val.  val, seed: of the conversion.
    Errors: InputError for too few patients.
    """
    entries = list(given)
    taking_part = [place for place, entry in enumerate(entries) if not entry.excluded]
    places = [place for place in taking_part if not entries[place].split]
    if not places or len(places) == len(taking_part):
        return tuple(entries)
    labels = [entries[place].label for place in places]
    classes = sorted(set(labels))
    patients, _ = known_patients([entries[place].patient for place in places])
    group_N = group_by([patient or None for patient in patients])
    label_N = np.array([classes.index(label) for label in labels])
    shares = {"train": 1 - val, "val": val}
    for place, split in zip(places, split_groups(group_N, label_N, shares, seed, classes), strict=True):
        entries[place] = replace(entries[place], split=split)
    return tuple(entries)


# ---- sets of folders


def radiography_entries(source: Path, paths: Paths) -> list[Entry]:
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
    return entries + unlisted(
        source, paths, {entry.path for entry in entries}, "no-class", "outside the folders of the classes"
    )


def qu_ex_entries(source: Path, paths: Paths) -> list[Entry]:
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
    return entries + unlisted(
        source, paths, {entry.path for entry in entries}, "no-class", "outside the folders of the classes"
    )


# ---- sets with a table


def chestxray_entries(source: Path, paths: Paths) -> list[Entry]:
    """covid-chestxray-dataset: metadata.csv.  source: the host of the row's URL."""
    table = expected_file(source, ("metadata.csv",))
    required = ("patientid", "finding", "view", "modality", "folder", "filename")
    rows = read_rows(
        table,
        lambda row: (PurePosixPath(row["folder"] or IMAGES) / row["filename"]).as_posix(),
        required,
        ("url", "sex", "age"),
        "use metadata.csv of the original set",
        filled=("filename",),
    )
    entries = []
    for path, (_, row) in rows.items():
        label, own_patient = chestxray_label(row["finding"]), patient_id(row["patientid"])
        kind = reason = ""
        if row["modality"].lower() != "x-ray":
            kind, reason = "no-radiograph", f"no radiograph: modality {row['modality'] or 'unknown'}"
        elif not label:
            kind, reason = "other-finding", f"finding of no class: {row['finding'] or 'none given'}"
        entries.append(
            Entry(
                path=path,
                label=label or row["finding"],
                patient=own_patient and f"covid-{own_patient}",
                sex=row["sex"],
                age=row["age"],
                view=row["view"],
                source=host_of(row["url"]) or "covid-chestxray",
                excluded=reason,
                kind=kind,
            )
        )
    return entries + unlisted(source, paths, set(rows), "unlisted", "not in metadata.csv")


def chestxray_label(finding: str) -> str:
    """covid for Pneumonia/Viral/COVID-19, normal for No Finding, pneumonia for other Pneumonia/…; "" for the rest."""
    parts = [part.strip().lower() for part in finding.split("/")]
    if "covid-19" in parts:
        return "covid"
    return {"no finding": "normal", "pneumonia": "pneumonia"}.get(parts[0], "")


def host_of(url: str) -> str:
    """radiopaedia.org for https://www.radiopaedia.org/cases/1; "" for no URL."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:  # such as an open bracket
        return ""


def nih_entries(source: Path, paths: Paths) -> list[Entry]:
    """NIH ChestX-ray14: Data_Entry_2017.csv; images in images/ or images_001/images/ and so on, found by name.

    The images in test_list.txt are held out; the rest is for training and validation.
    """
    table = expected_file(source, NIH_TABLES)
    required = ("image index", "finding labels", "patient id", "view position")
    remedy = f"use {table.name} of the original set"
    rows = read_rows(
        table, lambda row: row["image index"], required, (*NIH_SEX, "patient age"), remedy, filled=required[:1]
    )
    place_of: dict[str, str] = {}
    repeated = []
    for path in paths:
        if is_image(path) and place_of.setdefault(path.name, path.as_posix()) != path.as_posix():
            repeated.append(left_out(path, "same-name", f"the same name as {place_of[path.name]}"))
    test, rest = (read_list(own_file(source, name)) for name in (NIH_TEST, NIH_REST))
    if test & rest:
        raise InputError(
            f"{source / NIH_TEST}: {min(test & rest)} is also in {NIH_REST}, expected each image in one; correct a list"
        )
    entries = []
    for name, (_, row) in rows.items():
        label, own_patient = nih_label(row["finding labels"]), patient_id(row["patient id"])
        kind = reason = ""
        if name not in place_of:
            kind, reason = "missing", "not in the folder"
        elif not label:
            kind, reason = "other-finding", f"finding of no class: {row['finding labels'] or 'none given'}"
        elif test and rest and name not in test | rest:
            kind, reason = "no-split", f"neither in {NIH_TEST} nor in {NIH_REST}"
        entries.append(
            Entry(
                path=place_of.get(name, name),
                label=label or row["finding labels"],
                patient=own_patient and f"nih-{own_patient.zfill(8)}",
                sex=next(filter(None, (row[name] for name in NIH_SEX)), ""),
                age=row["patient age"],
                view=row["view position"],
                source="nih-chestxray8",
                split="heldout" if name in test else "",
                excluded=reason,
                kind=kind,
            )
        )
    used = {entry.path for entry in (*entries, *repeated)}
    return entries + repeated + unlisted(source, paths, used, "unlisted", f"not in {table.name}")


def nih_label(findings: str) -> str:
    """normal for No Finding, pneumonia where that is one of the findings; "" for the rest."""
    found = [finding.strip().lower() for finding in findings.split("|")]
    return "normal" if found == ["no finding"] else "pneumonia" if "pneumonia" in found else ""


def expected_file(source: Path, names: Sequence[str]) -> Path:
    """The first of these that is in source.  Errors: InputError, also for a link that leads out of source."""
    for name in names:
        if (source / name).is_file():
            return own_file(source, name)
    raise InputError(f"{source / names[0]}: not found, expected the set's table of images; {UNPACK}")


def own_file(source: Path, name: str) -> Path:
    """A table or list of the set.  Errors: InputError for a link that leads out of it."""
    path = source / name
    if source.resolve() not in Path(os.path.realpath(path)).parents:  # unlike resolve(), it accepts a loop of links
        raise InputError(f"{path}: leads outside of {source}, expected the set's own file; copy it there")
    return path


READERS: dict[str, Callable[[Path, Paths], list[Entry]]] = {
    "covid-radiography": radiography_entries,
    "covid-qu-ex": qu_ex_entries,
    "covid-chestxray": chestxray_entries,
    "nih": nih_entries,
}
