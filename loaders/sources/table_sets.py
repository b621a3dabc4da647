"""Public sets whose labels are in a table.

Sources, as of November 2026:

* covid-chestxray: https://github.com/ieee8023/covid-chestxray-dataset/blob/master/SCHEMA.md and metadata.csv there
* nih: https://nihcc.app.box.com/v/ChestXray-NIHCC, https://www.kaggle.com/datasets/nih-chest-xrays/data (images_001/)
  and https://huggingface.co/datasets/alkzar90/NIH-Chest-X-ray-dataset/tree/main/data (images/, lists, v2020)
* rsna: https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data; its films are NIH's, renamed one by one
* siim: https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation/data; its films are NIH's, too
* vindr: https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection/data (train.csv, three readers a film)
  and https://physionet.org/content/vindr-cxr/1.0.0/ (annotations/, with a test set on which readers agreed)
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from loaders.cautions import Caution
from loaders.errors import InputError
from loaders.sources.entry import (
    EXCLUDED,
    Entry,
    is_image,
    left_out,
    patient_id,
    read_list,
    unlisted,
    without_decimals,
)
from loaders.sources.table import lowered, read_rows, table_rows

IMAGES = "images"
UNPACK = "unpack the set again, or point SOURCE at the folder that has it"
CHESTXRAY_TABLES = ("metadata.csv",)
CHESTXRAY_COLUMNS = ("patientid", "finding", "view", "modality", "folder", "filename")
NIH_COLUMNS = ("image index", "finding labels", "patient id", "view position")
NIH_SEX = ("patient gender", "patient sex")  # of 2017, of 2020
NIH_SOURCE = "nih-chestxray8"  # of RSNA's and SIIM's films, too: none of these is another collection to the others
NIH_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
NIH_TEST, NIH_REST = "test_list.txt", "train_val_list.txt"
RSNA_TABLES, RSNA_COLUMNS = ("stage_2_train_labels.csv",), ("patientid", "target")
RSNA_DETAILS = "stage_2_detailed_class_info.csv"
RSNA_LABELS = {"normal": "normal", "no lung opacity / not normal": "other-finding"}  # of films without pneumonia
SIIM_TABLES, SIIM_COLUMNS = ("train-rle.csv", "stage_2_train.csv"), ("imageid", "encodedpixels")
VINDR_TABLES = ("train.csv", "annotations/annotations_train.csv", "annotations_train.csv")
VINDR_TEST = ("annotations/annotations_test.csv", "annotations_test.csv")
VINDR_COLUMNS = ("image_id", "class_name", "rad_id")

Paths = Sequence[PurePosixPath]
Found = tuple[list[Entry], list[Caution]]  # what takes part and what does not, and what is to be known about it


def chestxray_entries(source: Path, paths: Paths) -> Found:
    """covid-chestxray-dataset: metadata.csv.  source: the host of the row's URL."""
    table = expected_file(source, CHESTXRAY_TABLES)
    rows = read_rows(
        table,
        lambda row: (PurePosixPath(row["folder"] or IMAGES) / row["filename"]).as_posix(),
        CHESTXRAY_COLUMNS,
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
    return entries + unlisted(source, paths, set(rows), "unlisted", "not in metadata.csv"), []


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


def nih_table(source: Path) -> tuple[Path, dict[str, tuple[int, dict[str, str]]]]:
    """NIH's table, and its rows by the name of the image."""
    table = expected_file(source, NIH_TABLES)
    remedy = f"use {table.name} of the original set"
    optional = (*NIH_SEX, "patient age")
    return table, read_rows(
        table, lambda row: row["image index"], NIH_COLUMNS, optional, remedy, filled=NIH_COLUMNS[:1]
    )


def nih_entries(source: Path, paths: Paths, values_of: Mapping[str, bytes] | None = None) -> Found:
    """NIH ChestX-ray14: Data_Entry_2017.csv; images in images/ or images_001/images/ and so on, found by name.

    The images in test_list.txt are held out; the rest is for training and validation.
    values_of: name → its findings, instead of a class.
    """
    table, rows = nih_table(source)
    place_of, repeated = by_name(paths, lambda path: path.name)
    test, rest = (read_list(own_file(source, name)) for name in (NIH_TEST, NIH_REST))
    if test & rest:
        raise InputError(
            f"{source / NIH_TEST}: {min(test & rest)} is also in {NIH_REST}, expected each image in one; correct a list"
        )
    entries = []
    for name, (_, row) in rows.items():
        label, own_patient = nih_label(row["finding labels"]), patient_id(row["patient id"])
        kind = reason = ""
        if values_of is not None:
            label = ""
        if name not in place_of:
            kind, reason = "missing", EXCLUDED["missing"]
        elif not label and values_of is None:
            kind, reason = "other-finding", f"finding of no class: {row['finding labels'] or 'none given'}"
        elif test and rest and name not in test | rest:
            kind, reason = "no-split", f"neither in {NIH_TEST} nor in {NIH_REST}"
        entries.append(
            Entry(
                path=place_of.get(name, name),
                label=label or (row["finding labels"] if values_of is None else ""),
                findings=b"" if values_of is None else values_of[name],
                patient=own_patient and f"nih-{own_patient.zfill(8)}",
                sex=next(filter(None, (row[name] for name in NIH_SEX)), ""),
                age=row["patient age"],
                view=row["view position"],
                source=NIH_SOURCE,
                split="heldout" if name in test else "",
                excluded=reason,
                kind=kind,
            )
        )
    used = {entry.path for entry in (*entries, *repeated)}
    return entries + repeated + unlisted(source, paths, used, "unlisted", f"not in {table.name}"), []


def nih_label(findings: str) -> str:
    """normal for No Finding, pneumonia where that is one of the findings; "" for the rest."""
    found = [finding.strip().lower() for finding in findings.split("|")]
    return "normal" if found == ["no finding"] else "pneumonia" if "pneumonia" in found else ""


def rsna_entries(source: Path, paths: Paths) -> Found:
    """RSNA Pneumonia Detection Challenge: stage_2_train_labels.csv, one row a box; images by their identifiers.

    With stage_2_detailed_class_info.csv, films are pneumonia, normal or other-finding; without it, pneumonia or
    no-pneumonia, most of which is not normal.  Each film has a patientId of its own: patients are unknown.
    """
    table = expected_file(source, RSNA_TABLES)
    target_of: dict[str, bool] = {}
    for line, row in set_rows(table, RSNA_COLUMNS):
        number = without_decimals(row["target"])
        if number not in ("0", "1"):
            raise InputError(f"{table}: line {line} has Target {row['target']!r}, expected 0 or 1; correct it")
        target_of[row["patientid"]] = target_of.get(row["patientid"], False) or number == "1"
    details, detail_of = source / RSNA_DETAILS, dict[str, str]()
    if details.is_file():
        rows = set_rows(own_file(source, RSNA_DETAILS), ("patientid", "class"))
        detail_of = {row["patientid"]: RSNA_LABELS.get(row["class"].lower(), "") for _, row in rows}
    label_of = {}
    for film, target in target_of.items():
        label_of[film] = "pneumonia" if target else detail_of.get(film, "") if detail_of else "no-pneumonia"
        if not label_of[film]:
            raise InputError(
                f"{details}: {film} is neither Normal nor Not Normal, expected one of them where Target is 0; use the "
                "table of the original set, or none"
            )
    return listed_films(source, paths, label_of, table.name, NIH_SOURCE), []


def siim_entries(source: Path, paths: Paths) -> Found:
    """SIIM-ACR Pneumothorax: train-rle.csv, one row a mask; dicom-images-train/<study>/<series>/<ImageId>.dcm.

    pneumothorax where a film has any mask; -1 is none.  No name of a patient spans films: patients are unknown.
    """
    table = expected_file(source, SIIM_TABLES)
    label_of: dict[str, str] = {}
    for _, row in set_rows(table, SIIM_COLUMNS):
        if row["encodedpixels"] != "-1":
            label_of[row["imageid"]] = "pneumothorax"
        else:
            label_of.setdefault(row["imageid"], "no-pneumothorax")
    return listed_films(source, paths, label_of, table.name, NIH_SOURCE), []


def vindr_entries(source: Path, paths: Paths, readers: str = "majority") -> Found:
    """VinDr-CXR and VinBigData: one row a finding and reader; normal is a film without any, abnormal another.

    readers: a film is abnormal if any of its readers names a finding, or more than half do, or all.  Half is no
    majority, and such a film takes no part.  PhysioNet's test set, on which readers agreed, is held out.
    """
    table = expected_file(source, VINDR_TABLES)
    test = next((name for name in VINDR_TEST if (source / name).is_file()), "")
    entries = vindr_films(source, paths, table, readers, "")
    if test:
        entries += vindr_films(source, paths, own_file(source, test), readers, "heldout")
    used = {entry.path for entry in entries}
    return entries + unlisted(source, paths, used, "unlisted", f"not in {table.name}"), []


def vindr_films(source: Path, paths: Paths, table: Path, readers: str, split: str) -> list[Entry]:
    """The films of one table of VinDr-CXR, each once."""
    found_by: dict[str, dict[str, bool]] = defaultdict(dict)  # film → reader → whether it has a finding
    for _, row in set_rows(table, VINDR_COLUMNS[:2], VINDR_COLUMNS[2:]):
        of_film, reader = found_by[row["image_id"]], row["rad_id"]
        of_film[reader] = of_film.get(reader, False) or row["class_name"].lower() != "no finding"
    label_of = {}
    for film, of_film in found_by.items():
        found, half = sum(of_film.values()), len(of_film) / 2
        abnormal = {"any": found > 0, "majority": found > half, "all": found == len(of_film)}[readers]
        label_of[film] = "abnormal" if abnormal else "normal"
        if readers == "majority" and found == half:
            label_of[film] = ""
    return films(paths, label_of, "vindr", split)


def set_rows(table: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The rows of a set's own table, in which no required cell is empty."""
    return table_rows(table, required, optional, f"use {table.name} of the original set", filled=required)


def listed_films(source: Path, paths: Paths, label_of: Mapping[str, str], table: str, origin: str) -> list[Entry]:
    """The films that a table names, and every other image."""
    entries = films(paths, label_of, origin)
    return entries + unlisted(source, paths, {entry.path for entry in entries}, "unlisted", f"not in {table}")


def films(
    paths: Paths,
    label_of: Mapping[str, str],
    source: str,
    split: str = "",
    values_of: Mapping[str, bytes] | None = None,
) -> list[Entry]:
    """The films of these identifiers, which are their files' names but for the suffix; of several files the first.

    label_of: identifier → label, or "" where readers differ.  values_of: identifier → findings,
    instead of a label.  Their patients are unknown, whatever the files say.
    """
    place_of, repeated = by_name(paths, lambda path: path.stem)
    entries = [entry for entry in repeated if PurePosixPath(entry.path).stem in label_of]
    for film, label in label_of.items():
        kind = "missing" if film not in place_of else "" if label or values_of else "readers-differ"
        entries.append(
            Entry(
                path=place_of.get(film, film),
                label=label,
                findings=values_of[film] if values_of else b"",
                source=source,
                split=split,
                excluded=EXCLUDED.get(kind, ""),
                kind=kind,
                one_film_ids=True,
            )
        )
    return entries


def by_name(paths: Paths, name_of: Callable[[PurePosixPath], str]) -> tuple[dict[str, str], list[Entry]]:
    """Name → path of the first image of that name; and the others of the same name."""
    place_of: dict[str, str] = {}
    repeated = []
    for path in filter(is_image, paths):
        first = place_of.setdefault(name_of(path), path.as_posix())
        if first != path.as_posix():
            repeated.append(left_out(path, "same-name", f"the same name as {first}"))
    return place_of, repeated


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


TABLES = {  # preset → the names that its table may have, and columns by which it is known
    "covid-chestxray": (CHESTXRAY_TABLES, CHESTXRAY_COLUMNS),
    "nih": (NIH_TABLES, NIH_COLUMNS),
    "rsna": (RSNA_TABLES, RSNA_COLUMNS),
    "siim": (SIIM_TABLES, SIIM_COLUMNS),
    "vindr": (VINDR_TABLES, VINDR_COLUMNS[:2]),
}


def has_columns(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """Whether a table has the columns, in any case."""
    return set(wanted) <= set(lowered(found))
