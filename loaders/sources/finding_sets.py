"""Public sets with several findings a film, whose labels are in tables.

Sources, as of November 2026; of CheXpert a table was seen, of the others columns and layout were only looked up:

* chexpert: https://stanfordmlgroup.github.io/competitions/chexpert and Irvin et al. 2019, https://arxiv.org/abs/1901.07031
* mimic: https://physionet.org/content/mimic-cxr-jpg/2.1.0 and mlmed/torchxrayvision's datasets.py
* padchest: https://bimcv.cipf.es/bimcv-projects/padchest and datasets.py; labels as in Bustos et al. 2020
* brax: https://physionet.org/content/brax/1.1.0 and Reis et al. 2022
* nih, vindr: as in table_sets
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from loaders.cautions import Caution, each_once
from loaders.config import CatalogConfig
from loaders.sources.entry import EXCLUDED, SPLIT_NAMES, Entry, is_image, left_out, patient_id, unlisted
from loaders.sources.finding_tables import Findings, column_findings, listed_findings
from loaders.sources.findings import merge_findings, policies
from loaders.sources.table import read_rows, table_rows
from loaders.sources.table_sets import (
    VINDR_COLUMNS,
    VINDR_TABLES,
    VINDR_TEST,
    Paths,
    by_name,
    expected_file,
    films,
    has_columns,
    nih_entries,
    nih_table,
    own_file,
    set_rows,
)

CHEXPERT_FINDINGS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
CHEXPERT_HOMES = ("CheXpert-v1.0-small", "CheXpert-v1.0")
CHEXPERT_COLUMNS = ("path", "frontal/lateral", "ap/pa", "no finding")
MIMIC, MIMIC_TABLES = "mimic-cxr-2.0.0-", ("chexpert", "metadata", "split")
MIMIC_COLUMNS = ("subject_id", "study_id", "no finding")
PADCHEST_TABLES = tuple(f"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv{suffix}" for suffix in ("", ".gz"))
PADCHEST_COLUMNS = ("imageid", "patientid", "projection", "labels")
PADCHEST_VAGUE = frozenset(("unchanged", "exclude", "suboptimal study"))  # labels that leave all others open
BRAX_TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
BRAX_COLUMNS = ("pngpath", "dicompath", "patientid", "no finding")
NIH_FINDINGS = {  # and the labels of PadChest that each is
    "Atelectasis": "atelectasis, total atelectasis, lobar atelectasis, segmental atelectasis, laminar atelectasis, "
    "round atelectasis, atelectasis basal",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation, air bronchogram",
    "Edema": "pulmonary edema",
    "Effusion": "pleural effusion, loculated pleural effusion, loculated fissural effusion, hydropneumothorax",
    "Emphysema": "emphysema",
    "Fibrosis": "pulmonary fibrosis",
    "Hernia": "hiatal hernia",
    "Infiltration": "infiltrates, interstitial pattern, ground glass pattern, reticular interstitial pattern, "
    "reticulonodular interstitial pattern, alveolar pattern, miliary opacities",
    "Mass": "mass, pulmonary mass, pleural mass",
    "Nodule": "nodule, multiple nodules",
    "Pleural_Thickening": "pleural thickening, apical pleural thickening, calcified pleural thickening",
    "Pneumonia": "pneumonia, atypical pneumonia",
    "Pneumothorax": "pneumothorax, hydropneumothorax",
}
FINDING_TABLES = {  # preset → the names that its table may have, and columns by which it is known
    "chexpert": (("train.csv",), CHEXPERT_COLUMNS),
    "mimic": ((f"{MIMIC}chexpert.csv", f"{MIMIC}chexpert.csv.gz"), MIMIC_COLUMNS),
    "padchest": (PADCHEST_TABLES, PADCHEST_COLUMNS),
    "brax": (BRAX_TABLES, BRAX_COLUMNS),
}

Found = tuple[list[Entry], list[Caution], tuple[str, ...]]  # entries, what is to be known of them, the findings


def own_columns(table: Path, config: CatalogConfig, known_by: Sequence[str], partial: bool) -> Findings:
    """The findings of a table with CheXpert's columns, by line."""
    fits = functools.partial(has_columns, known_by)
    return column_findings(table, config, fits, names=CHEXPERT_FINDINGS, partial=partial)


def chexpert_entries(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """CheXpert: train.csv and valid.csv, in source or in its own folder there; films by patient, study and view.

    Its 200 patients of valid.csv, labelled by radiologists, are held out, as its paper compares on them.
    """
    home = next((name for name in CHEXPERT_HOMES if (source / name / "train.csv").is_file()), "")
    place_of = {path.parts[-3:]: path.as_posix() for path in paths if is_image(path)}
    entries, cautions = list[Entry](), list[Caution]()
    names: tuple[str, ...] = ()
    for name, split in (("train.csv", ""), ("valid.csv", "heldout")):
        if split and not (source / home / name).is_file():
            continue
        table = expected_file(source, [f"{home}/{name}".strip("/")])
        found = own_columns(table, config, CHEXPERT_COLUMNS, partial)
        names, cautions = found.names, cautions + found.cautions
        optional, remedy = (*CHEXPERT_COLUMNS[1:3], "sex", "age"), f"use {name} of the original set"
        rows = read_rows(table, lambda row: row["path"], ("path",), optional, remedy, filled=("path",))
        for path, (line, row) in rows.items():
            patient, *_ = film = tuple(path.split("/")[-3:])
            missing = film not in place_of
            entries.append(
                Entry(
                    path=place_of.get(film, path),
                    label="",
                    findings=found.of_row[line],
                    patient=f"chexpert-{patient}" if patient.startswith("patient") else "",
                    sex=row["sex"],
                    age=row["age"],
                    view=row["ap/pa"] or row["frontal/lateral"],
                    source="chexpert",
                    split=split,
                    excluded=EXCLUDED["missing"] if missing else "",
                    kind="missing" if missing else "",
                )
            )
    used = {entry.path for entry in entries}
    rest = unlisted(source, paths, used, "unlisted", "not in train.csv or valid.csv")
    return entries + rest, each_once(cautions), names


def mimic_entries(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """MIMIC-CXR-JPG: findings by study, films and views from its metadata, its own split; files by their DICOM name."""
    labels, about_films, splits = ((f"{MIMIC}{kind}.csv", f"{MIMIC}{kind}.csv.gz") for kind in MIMIC_TABLES)
    table, metadata = expected_file(source, labels), expected_file(source, about_films)
    found = own_columns(table, config, MIMIC_COLUMNS, partial)
    remedy = "use the table of the original set"
    studies = {row["study_id"]: found.of_row[line] for line, row in table_rows(table, ("study_id",), (), remedy)}
    split_of: dict[str, str] = {}
    if any((source / name).is_file() for name in splits):
        rows = table_rows(expected_file(source, splits), ("dicom_id", "split"), (), remedy)
        split_of = {row["dicom_id"]: SPLIT_NAMES.get(row["split"].lower(), "") for _, row in rows}
    place_of, repeated = by_name(paths, lambda path: path.stem)
    entries = []
    columns = ("dicom_id", "subject_id", "study_id")
    films_of = read_rows(metadata, lambda row: row["dicom_id"], columns, ("viewposition",), remedy, filled=columns)
    for film, (_, row) in films_of.items():
        kind = "missing" if film not in place_of else "" if row["study_id"] in studies else "unlisted"
        entries.append(
            Entry(
                path=place_of.get(film, f"{film}.jpg"),
                label="",
                findings=studies.get(row["study_id"], b""),
                patient=f"mimic-{row['subject_id']}",
                view=row["viewposition"],
                source="mimic-cxr",
                split=split_of.get(film, ""),
                excluded=f"its study is not in {table.name}" if kind == "unlisted" else EXCLUDED.get(kind, ""),
                kind=kind,
            )
        )
    used = {entry.path for entry in (*entries, *repeated)}
    rest = unlisted(source, paths, used, "unlisted", f"not in {metadata.name}")
    return entries + repeated + rest, found.cautions, found.names


def padchest_entries(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """PadChest: its table of 160,000 films, found by name.  Unless findings are named, NIH's 14 in PadChest's labels.

    Labels such as `unchanged` leave open what else is on a film.  Projections to be excluded take no part.
    """
    table = expected_file(source, PADCHEST_TABLES)
    optional = ("patientsex_dicom", "patientbirth", "studydate_dicom")
    remedy = f"use {table.name} of the original set"
    rows = read_rows(table, lambda row: row["imageid"], PADCHEST_COLUMNS, optional, remedy, filled=("imageid",))
    joined: dict[str, list[str]] = {}
    names = () if config.findings == ("all",) else tuple(NIH_FINDINGS)
    for name in names:
        for label in NIH_FINDINGS[name].split(", "):
            joined.setdefault(label, []).append(name)
    cells = {film: row["labels"] for film, (_, row) in rows.items()}
    found = listed_findings(
        table, cells, ",", config, names=names, partial=partial, joined=joined, vague=PADCHEST_VAGUE
    )
    place_of, repeated = by_name(paths, lambda path: path.name)
    entries = []
    for film, (_, row) in rows.items():
        kind = "missing" if film not in place_of else "other-view" if row["projection"] == "EXCLUDE" else ""
        born, taken = row["patientbirth"][:4], row["studydate_dicom"][:4]
        own_patient = patient_id(row["patientid"])
        entries.append(
            Entry(
                path=place_of.get(film, film),
                label="",
                findings=found.of_row[film],
                patient=own_patient and f"padchest-{own_patient}",
                sex=row["patientsex_dicom"],
                age=str(int(taken) - int(born)) if born.isdecimal() and taken.isdecimal() else "",
                view=row["projection"],
                source="padchest",
                excluded="excluded by its projection" if kind == "other-view" else EXCLUDED.get(kind, ""),
                kind=kind,
            )
        )
    used = {entry.path for entry in (*entries, *repeated)}
    rest = unlisted(source, paths, used, "unlisted", f"not in {table.name}")
    return entries + repeated + rest, found.cautions, found.names


def brax_entries(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """BRAX: its master spreadsheet; PNG where there is one, else DICOM."""
    table = expected_file(source, BRAX_TABLES)
    found = own_columns(table, config, BRAX_COLUMNS, partial)
    known = {path.as_posix() for path in paths}
    entries, again = list[Entry](), list[Entry]()
    optional = ("patientsex", "patientage", "viewposition")
    for line, row in table_rows(table, BRAX_COLUMNS[:3], optional, f"use {table.name} of the original set"):
        files = [path for path in (row["pngpath"], row["dicompath"], f"{row['dicompath']}.dcm") if path in known]
        again += [left_out(PurePosixPath(path), "same-name", f"the same film as {files[0]}") for path in files[1:]]
        own_patient = patient_id(row["patientid"])
        entries.append(
            Entry(
                path=files[0] if files else row["pngpath"] or row["dicompath"],
                label="",
                findings=found.of_row[line],
                patient=own_patient and f"brax-{own_patient}",
                sex=row["patientsex"],
                age=row["patientage"],
                view=row["viewposition"],
                source="brax",
                excluded="" if files else EXCLUDED["missing"],
                kind="" if files else "missing",
            )
        )
    used = {entry.path for entry in (*entries, *again)}
    return (
        entries + again + unlisted(source, paths, used, "unlisted", f"not in {table.name}"),
        found.cautions,
        found.names,
    )


def nih_findings(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """NIH ChestX-ray14 with its 14 findings."""
    table, rows = nih_table(source)
    cells = {name: row["finding labels"] for name, (_, row) in rows.items()}
    found = listed_findings(table, cells, "|", config, names=tuple(NIH_FINDINGS), partial=partial)
    entries, cautions = nih_entries(source, paths, found.of_row)
    return entries, cautions + found.cautions, found.names


def vindr_findings(source: Path, paths: Paths, config: CatalogConfig, partial: bool) -> Found:
    """VinDr-CXR with the findings that its readers named; by majority unless config.readers says otherwise."""
    train, test = expected_file(source, VINDR_TABLES), [name for name in VINDR_TEST if (source / name).is_file()]
    tables = {"": train} | dict(zip(["heldout"], [own_file(source, name) for name in test], strict=False))
    rows_of = {split: set_rows(table, VINDR_COLUMNS[:2], VINDR_COLUMNS[2:]) for split, table in tables.items()}
    cells = {(split, line): row["class_name"] for split, rows in rows_of.items() for line, row in rows}
    found = listed_findings(train, cells, "|", config, partial=partial)
    entries = list[Entry]()
    for split, rows in rows_of.items():
        # without readers, all rows are of those who agreed
        told = [(line, row["image_id"], row["rad_id"] or "all", found.of_row[split, line]) for line, row in rows]
        decided = policies(found.names, config)
        values_of = merge_findings(tables[split], told, found.names, config.readers or "majority", decided)
        entries += films(paths, dict.fromkeys(values_of, ""), "vindr", split, values_of)
    used = {entry.path for entry in entries}
    return entries + unlisted(source, paths, used, "unlisted", f"not in {train.name}"), found.cautions, found.names


FINDING_READERS: Mapping[str, Callable[[Path, Paths, CatalogConfig, bool], Found]] = {
    "chexpert": chexpert_entries,
    "mimic": mimic_entries,
    "padchest": padchest_entries,
    "brax": brax_entries,
    "nih": nih_findings,
    "vindr": vindr_findings,
}
