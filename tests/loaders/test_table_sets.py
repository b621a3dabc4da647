"""Sets as RSNA, SIIM, VinDr and Kaggle distribute them: replicas with small images, from tables of their form."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig
from loaders.convert.conversion import Conversion
from loaders.convert.convert import convert
from loaders.errors import InputError
from loaders.sources.catalog import Catalog, read_catalog
from tests.loaders.test_dicom import native
from tests.loaders.test_sources import by_path, make_tree, read, taken, write_table

RSNA, RSNA_HEADER = "stage_2_train_labels.csv", "patientId,x,y,width,height,Target"
SIIM_HEADER = "ImageId, EncodedPixels"
VINDR_HEADER = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"


def films(root: Path, paths: Iterable[str], patient: str = "") -> Path:
    """A small film at each path, no two alike: DICOM, whose patient is that of its name, or PNG."""
    for number, path in enumerate(paths):
        grey_HW = np.random.default_rng(number).integers(0, 256, (40, 40)).astype(np.uint8)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(("dcm", "dicom")):
            (root / path).write_bytes(native(grey_HW, 8, PatientID=patient or Path(path).stem))
        else:
            Image.fromarray(grey_HW).save(root / path)
    return root


def converted(source: Path, preset: str, **settings: object) -> Conversion:
    catalog = CatalogConfig(source=source, preset=preset, **settings)  # type: ignore[arg-type]
    out = source.parent / "out"
    return convert(ConvertConfig(catalog=catalog, out=out, size=32, workers=1, site_key=source.parent / "site.key"))


def written(done: Conversion) -> Counter[str]:
    """Label → films in the betons."""
    return Counter(row.entry.label for row in done.rows if row.verdict == "written")


# ---- RSNA


RSNA_ROWS = [
    *(f"p{k},{x},50,60,70,1" for k in range(5) for x in (10, 20)),  # two boxes each
    *(f"n{k},,,,,0" for k in range(10)),
]


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    names = [f"{kind}{k}" for kind, number in (("p", 5), ("n", 10)) for k in range(number)]
    paths = [f"stage_2_train_images/{name}.dcm" for name in names] + ["stage_2_test_images/t.dcm"]
    root = films(tmp_path / "rsna", paths)
    write_table(root / RSNA, RSNA_HEADER, *RSNA_ROWS, end="\r\n")
    return root


def test_rsna_has_a_film_once_whatever_its_boxes_and_calls_none_normal(rsna: Path) -> None:
    done = converted(rsna, "rsna")
    assert written(done) == {"pneumonia": 5, "no-pneumonia": 10} and done.counts["excluded"] == 1
    assert {row.entry.source for row in done.rows if row.verdict == "written"} == {"nih-chestxray8"}
    assert by_path(done.catalog)["stage_2_test_images/t.dcm"].excluded == f"not in {RSNA}"


def test_identifiers_of_films_are_no_patients_though_dicom_has_them(rsna: Path) -> None:
    done = converted(rsna, "rsna")
    assert caution("patients-unknown", unknown=15, images=15) in done.cautions
    named = converted(rsna, "rsna", group_regex=r"(\w\d)\.dcm")  # where the user knows better
    assert "patients-unknown" not in {found.code for found in named.cautions}


def test_rsnas_second_table_tells_normal_films_from_others_without_pneumonia(rsna: Path) -> None:
    details = [(f"p{k}", "Lung Opacity") for k in range(5) for _ in range(2)]
    details += [(f"n{k}", ("Normal", "No Lung Opacity / Not Normal")[k % 2]) for k in range(10)]
    write_table(rsna / "stage_2_detailed_class_info.csv", "patientId,class", *(",".join(row) for row in details))
    catalog = read(rsna, "rsna")
    assert Counter(taken(catalog).values()) == {"pneumonia": 5, "normal": 5, "other-finding": 5}
    write_table(rsna / "stage_2_detailed_class_info.csv", "patientId,class", *(",".join(row) for row in details[:-1]))
    with pytest.raises(InputError, match=r"detailed_class_info.csv: n9 is neither Normal nor Not Normal, expected"):
        read(rsna, "rsna")


@pytest.mark.parametrize(("row", "found"), [("x,,,,,2", "line 22 has Target '2', expected 0 or 1"),
                                            (",,,,,1", "line 22 has no patientid")])  # fmt: skip
def test_a_target_of_rsna_is_0_or_1(rsna: Path, row: str, found: str) -> None:
    write_table(rsna / RSNA, RSNA_HEADER, *RSNA_ROWS, row)
    with pytest.raises(InputError, match=found):
        read(rsna, "rsna")


# ---- SIIM


def test_siim_finds_films_by_name_and_a_mask_is_a_pneumothorax(tmp_path: Path) -> None:
    names = [f"1.2.276.{k}" for k in range(12)]
    paths = [f"dicom-images-train/study{name}/series{name}/{name}.dcm" for name in names]
    root = films(tmp_path / "siim", [*paths, "dicom-images-train/again/x/1.2.276.0.dcm", "dicom-images-test/s/t.dcm"])
    rows = [f"{name}, -1" for name in names[:6]] + [f"{name},12 3 45 6" for name in names[5:] for _ in range(2)]
    write_table(root / "train-rle.csv", SIIM_HEADER, *rows, "1.2.276.lost,-1")
    done = converted(root, "siim")
    assert written(done) == {"no-pneumothorax": 5, "pneumothorax": 7}  # the sixth has both, and so a mask
    assert Counter(entry.kind for entry in done.catalog.entries if entry.excluded) == {
        "missing": 1, "same-name": 1, "unlisted": 1,
    }  # fmt: skip
    assert caution("patients-unknown", unknown=12, images=12) in done.cautions


# ---- VinDr


def vindr_rows(*opinions: str) -> list[str]:
    """Rows of films f0, f1 and so on.  opinions: a letter for each row, F a finding, n none; a reader each."""
    class_of = {"F": "Cardiomegaly,3", "n": "No finding,14"}
    return [f"f{k},{class_of[letter]},R{r},,,," for k, of in enumerate(opinions) for r, letter in enumerate(of)]


@pytest.mark.parametrize(
    ("readers", "abnormal"), [(None, "0 1"), ("majority", "0 1"), ("any", "0 1 2 4"), ("all", "0 5")]
)
def test_readers_of_vindr_are_combined_by_majority_unless_said(
    tmp_path: Path, readers: str | None, abnormal: str
) -> None:
    root = make_tree(tmp_path / "vindr", *(f"train/f{k}.png" for k in range(6)))
    rows = vindr_rows("FFF", "FFn", "Fnn", "nnn", "Fn", "F")
    if readers != "all":
        rows = [row for row in rows if not row.startswith("f5")]
    write_table(root / "train.csv", VINDR_HEADER, *rows)
    catalog = read(root, "vindr", **({"readers": readers} if readers else {}))
    found = {path for path, label in taken(catalog).items() if label == "abnormal"}
    assert found == {f"train/f{k}.png" for k in abnormal.split()}
    apart = [entry.path for entry in catalog.entries if entry.kind == "readers-differ"]
    assert apart == (["train/f4.png"] if readers in (None, "majority") else [])


def test_a_reader_of_vindr_who_names_findings_beside_none_has_found_them(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "v", "train/f0.jpg", "train/f1.jpg")
    rows = [f"f0,{name},R1,,,," for name in ("No finding,14", "Nodule/Mass,8", "Nodule/Mass,8")]
    write_table(root / "train.csv", VINDR_HEADER, *rows, "f1,No finding,14,R1,,,,")
    assert taken(read(root, "vindr")) == {"train/f0.jpg": "abnormal", "train/f1.jpg": "normal"}


def test_vindr_of_physionet_keeps_its_test_set(tmp_path: Path) -> None:
    root = films(tmp_path / "v", [f"{split}/{split}{k}.dicom" for split in ("train", "test") for k in range(8)])
    opinions = [("No finding", "Pneumonia")[k % 2] for k in range(8)]
    rows = [f"train{k},R{r},{name},,,," for k, name in enumerate(opinions) for r in range(3)]
    header = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    write_table(root / "annotations" / "annotations_train.csv", header, *rows)
    rows = [f"test{k},{name},,,," for k, name in enumerate(opinions)]
    write_table(root / "annotations" / "annotations_test.csv", header.replace("rad_id,", ""), *rows)
    done = converted(root, "vindr")
    assert done.samples["heldout"] == {"abnormal": 4, "normal": 4} and sum(written(done).values()) == 16


# ---- Kaggle's pneumonia


def kaggle(root: Path, *more: str) -> Path:
    names = [f"train/NORMAL/IM-{k:04}-0001.jpeg" for k in range(100, 110)]
    names += [f"train/PNEUMONIA/person{k}_{kind}_{k}.jpeg" for k in range(5) for kind in ("virus", "bacteria")]
    names += ["train/PNEUMONIA/person1_virus_77.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
              "val/PNEUMONIA/person1946_bacteria_4874.jpeg", "test/NORMAL/NORMAL2-IM-0100-0001.jpeg",
              "test/PNEUMONIA/person8_virus_1.jpeg"]  # fmt: skip
    return make_tree(root / "archive", *(f"chest_xray/{name}" for name in (*names, *more)))


def test_kaggles_pneumonia_keeps_its_test_set_and_deals_the_rest_anew(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    for copy in ("chest_xray/chest_xray", "chest_xray/__MACOSX"):  # as its archive has it
        for path in sorted((root / "chest_xray").glob("t*/*/*.jpeg")):
            again = root / copy / path.relative_to(root / "chest_xray")
            again.parent.mkdir(parents=True, exist_ok=True)
            again.write_bytes(path.read_bytes())
    done = converted(root, "kaggle-pneumonia")
    assert done.counts == {"written": 25, "rejected": 0, "duplicate": 0, "excluded": 46}
    assert done.samples["heldout"] == {"normal": 1, "pneumonia": 1}
    assert {row.split for row in done.rows if row.entry.path.startswith("chest_xray/val/")} <= {"train", "val"}
    assert "patients-unknown" not in {found.code for found in done.cautions}
    split_of = {Path(row.entry.path).name: row.split for row in done.rows if row.verdict == "written"}
    assert split_of["person1_virus_1.jpeg"] == split_of["person1_virus_77.jpeg"]


def test_kaggles_splits_are_not_used_where_a_patient_is_on_both_sides(tmp_path: Path) -> None:
    root = kaggle(tmp_path, "test/NORMAL/IM-0100-0002.jpeg", "test/NORMAL/IM-0101-0001-0001.jpeg")
    catalog = read(root, "kaggle-pneumonia")
    assert {entry.split for entry in catalog.entries} == {""}
    assert catalog.cautions == (caution("own-splits-not-used", patients=2),)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1_bacteria_2.jpeg", "person1_bacteria"), ("person1_virus_6.jpeg", "person1_virus"),
        ("IM-0115-0001.jpeg", "IM-0115"), ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0117-0001.jpeg", "NORMAL2-IM-0117"), ("BACTERIA-1008087-0002.jpeg", "1008087"),
        ("VIRUS-1008087-0001.jpeg", "1008087"), ("other.jpeg", ""),
    ],
)  # fmt: skip
def test_patients_of_kaggles_set_are_in_the_names_of_its_files(tmp_path: Path, name: str, patient: str) -> None:
    (entry,) = read(make_tree(tmp_path, f"train/NORMAL/{name}"), "kaggle-pneumonia").entries
    assert entry.patient == (patient and f"kermany-{patient}")


# ---- the tables as their sets have them


def label_table(radiographs: Path, name: str) -> tuple[Path, list[dict[str, str]]]:
    """One of the tables of public sets, and its rows."""
    table = radiographs / "label_tables" / name
    with table.open(newline="") as file:
        return table, list(csv.DictReader(file))


def placed(root: Path, table: Path, name: str, paths: Iterable[str]) -> Path:
    """A replica of a set: its table, and a film at each path."""
    films(root, dict.fromkeys(paths))
    (root / name).write_bytes(table.read_bytes())
    return root


@pytest.mark.radiographs
def test_rsnas_own_table_converts(radiographs: Path, tmp_path: Path) -> None:
    table, rows = label_table(radiographs, "rsna_stage_2_train_labels.csv")
    root = placed(tmp_path / "r", table, RSNA, (f"stage_2_train_images/{row['patientId']}.dcm" for row in rows))
    positive = {row["patientId"] for row in rows if row["Target"] == "1"}
    names = {row["patientId"] for row in rows}
    done = converted(root, "rsna")
    assert written(done) == {"pneumonia": len(positive), "no-pneumonia": len(names - positive)}


@pytest.mark.radiographs
def test_siims_own_table_converts(radiographs: Path, tmp_path: Path) -> None:
    table, rows = label_table(radiographs, "siim_train_rle.csv")
    paths = (f"dicom-images-train/{row['ImageId']}.1/{row['ImageId']}.2/{row['ImageId']}.dcm" for row in rows)
    root = placed(tmp_path / "s", table, "train-rle.csv", paths)
    none = {row["ImageId"] for row in rows if row[" EncodedPixels"].strip() == "-1"}
    names = {row["ImageId"] for row in rows}
    assert written(converted(root, "siim")) == {"no-pneumothorax": len(none), "pneumothorax": len(names - none)}


@pytest.mark.radiographs
@pytest.mark.parametrize("readers", ["any", "majority", "all"])
def test_vinbigdatas_own_table_converts(radiographs: Path, tmp_path: Path, readers: str) -> None:
    table, rows = label_table(radiographs, "vinbigdata_train.csv")
    root = placed(tmp_path / "v", table, "train.csv", (f"train/{row['image_id']}.dicom" for row in rows))
    done = converted(root, "vindr", readers=readers)
    found: dict[str, dict[str, bool]] = {}
    for row in rows:
        of = found.setdefault(row["image_id"], {})
        of[row["rad_id"]] = of.get(row["rad_id"], False) or row["class_name"] != "No finding"
    share_of = {film: sum(of.values()) / len(of) for film, of in found.items()}
    expected = Counter(
        "abnormal" if share > {"any": 0, "majority": 0.5, "all": 0.999}[readers] else "normal"
        for share in share_of.values()
        if readers != "majority" or share != 0.5
    )
    assert written(done) == expected and done.counts["excluded"] == len(share_of) - expected.total()


@pytest.mark.radiographs
def test_chexperts_tree_is_no_folder_of_classes_and_its_table_names_the_way(radiographs: Path, tmp_path: Path) -> None:
    table, rows = label_table(radiographs, "chexpert_train.csv")
    root = tmp_path / "CheXpert-v1.0-small"
    make_tree(tmp_path, *(row["Path"] for row in rows))
    (root / "train.csv").write_bytes(table.read_bytes())
    with pytest.raises(InputError, match=r"looks like the public set chexpert, .* use --preset chexpert"):
        read_plain(root)
    with pytest.raises(InputError, match=r"look like patients, studies or parts of a set, .* --manifest"):
        read_plain(root / "train")


def read_plain(source: Path) -> Catalog:
    return read_catalog(CatalogConfig(source=source))
