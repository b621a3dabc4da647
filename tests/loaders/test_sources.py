"""Sources: presets of public sets, and splits by groups."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cli
from loaders.cautions import caution
from loaders.config import PRESETS, CatalogConfig, ConvertConfig
from loaders.convert.convert import convert
from loaders.errors import ConfigError, InputError
from loaders.sources.catalog import Catalog, positive_class, read_catalog
from loaders.sources.entry import EXCLUDED, Entry
from loaders.sources.finding_sets import FINDING_READERS
from loaders.sources.presets import READERS
from loaders.sources.split import group_by, known_patients, split_groups

CHESTXRAY_HEADER = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes,"
)
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
LUNG, INFECTION = (f"{part} Segmentation Data" for part in ("Lung", "Infection"))


def make_tree(root: Path, *paths: str) -> Path:
    """A small picture at each path, no two alike; text where the name is no picture's."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.lower().endswith((".png", ".jpg", ".jpeg")):
            picture_HW = np.random.default_rng(number).integers(0, 256, (40, 40)).astype(np.uint8)
            Image.fromarray(picture_HW).save(root / path)
        else:
            (root / path).write_text("text\n")
    return root


def write_table(path: Path, header: str, *rows: str, end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join((header, *rows, "")).encode("utf-8", "surrogateescape"))


def read(source: Path, preset: str, **settings: object) -> Catalog:
    return read_catalog(CatalogConfig(source=source, preset=preset, **settings))  # type: ignore[arg-type]


def by_path(catalog: Catalog) -> dict[str, Entry]:
    """Each entry by its path, and no path twice."""
    entries = {entry.path: entry for entry in catalog.entries}
    assert len(entries) == len(catalog.entries)
    return entries


def taken(catalog: Catalog) -> dict[str, str]:
    """Path → label of the entries that take part."""
    return {entry.path: entry.label for entry in catalog.entries if not entry.excluded}


# ---- COVID-19 Radiography Database


@pytest.fixture
def radiography(tmp_path: Path) -> Path:
    folders = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    pictures = [
        f"{folder}/{kind}/{folder}-{k}.png" for folder in folders for kind in ("images", "masks") for k in (1, 2)
    ]
    tables = [f"{folder}.metadata.xlsx" for folder in folders]
    odd = ("Normal/overview.png", "COVID/images/._COVID-1.png")
    return make_tree(tmp_path / "COVID-19_Radiography_Dataset", *pictures, *tables, "README.md.txt", *odd)


def test_covid_radiography_takes_the_images_of_four_classes(radiography: Path) -> None:
    catalog = read(radiography, "covid-radiography")
    assert catalog.classes == ("covid", "lung-opacity", "normal", "pneumonia")
    assert taken(catalog) == {
        f"{folder}/images/{folder}-{k}.png": label
        for folder, label in zip(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"), catalog.classes, strict=True)
        for k in (1, 2)
    }
    assert {(entry.source, entry.patient, entry.split) for entry in catalog.entries} == {("", "", "")}


def test_covid_radiography_lists_masks_and_stray_images_and_ignores_tables(radiography: Path) -> None:
    left_out = {
        entry.path: entry.excluded for entry in read(radiography, "covid-radiography").entries if entry.excluded
    }
    masks = {path for path, reason in left_out.items() if reason == "lung mask"}
    assert len(masks) == 8 and all("/masks/" in path for path in masks)
    assert left_out["Normal/overview.png"] == "outside the folders of the classes"
    assert left_out["COVID/images/._COVID-1.png"] == "hidden file"
    assert len(left_out) == 10


def test_a_set_unpacked_one_folder_deeper_is_read_alike(radiography: Path) -> None:
    inner, outer = read(radiography, "covid-radiography"), read(radiography.parent, "covid-radiography")
    assert taken(outer) == {f"{radiography.name}/{path}": label for path, label in taken(inner).items()}


def test_covid_radiography_converts_with_mapped_class_names(radiography: Path, tmp_path: Path) -> None:
    config = ConvertConfig(
        catalog=CatalogConfig(source=radiography, preset="covid-radiography", classes=("covid", "normal")),
        out=tmp_path / "out",
        size=32,
        workers=1,
        site_key=tmp_path / "site.key",
    )
    done = convert(config)
    assert done.counts == {"written": 4, "rejected": 0, "duplicate": 0, "excluded": 14}
    assert done.samples == {split: {"covid": 1, "normal": 1} for split in ("train", "val")}


def test_a_link_to_a_folder_is_listed(radiography: Path) -> None:
    (radiography / "more").symlink_to(radiography / "COVID", target_is_directory=True)
    assert by_path(read(radiography, "covid-radiography"))["more"].excluded.startswith("link to a folder")


# ---- COVID-QU-Ex


@pytest.fixture
def qu_ex(tmp_path: Path) -> Path:
    paths = [
        f"{part}/{part}/{split}/{folder}/{kind}/{folder}_{split}_{part[0]}.png"
        for part in (LUNG, INFECTION)
        for split in ("Train", "Val", "Test")
        for folder in ("COVID-19", "Non-COVID", "Normal")
        for kind in ("images", "lung masks", "infection masks")
        if kind != "infection masks" or part == INFECTION
    ]
    return make_tree(tmp_path / "covidqu", *paths)


def test_covid_qu_ex_keeps_its_own_splits_and_leaves_masks_out(qu_ex: Path) -> None:
    catalog = read(qu_ex, "covid-qu-ex")
    assert catalog.classes == ("covid", "normal", "pneumonia")
    entries = by_path(catalog)
    assert len(entries) == 45 and len(taken(catalog)) == 18
    for folder, label in (("COVID-19", "covid"), ("Non-COVID", "pneumonia"), ("Normal", "normal")):
        for split, name in (("Train", "train"), ("Val", "val"), ("Test", "heldout")):
            entry = entries[f"{LUNG}/{LUNG}/{split}/{folder}/images/{folder}_{split}_L.png"]
            assert (entry.label, entry.split, entry.excluded) == (label, name, "")
    reasons = [entry.excluded for entry in entries.values()]
    assert reasons.count("lung mask") == 18 and reasons.count("infection mask") == 9


def test_an_image_of_both_parts_is_taken_once_from_the_lung_part(qu_ex: Path) -> None:
    name = "Normal/images/Normal_Train_L.png"
    make_tree(qu_ex, f"{INFECTION}/{INFECTION}/Test/{name}")
    entries = by_path(read(qu_ex, "covid-qu-ex"))
    kept = f"{LUNG}/{LUNG}/Train/{name}"
    assert not entries[kept].excluded
    assert entries[f"{INFECTION}/{INFECTION}/Test/{name}"].excluded == f"the same name and class as {kept}"


def test_the_infection_part_alone_is_read(qu_ex: Path) -> None:
    catalog = read(qu_ex / INFECTION, "covid-qu-ex")
    assert len(taken(catalog)) == 9 and all(path.startswith(f"{INFECTION}/") for path in taken(catalog))


# ---- covid-chestxray-dataset


def chestxray_row(patient: str, finding: str, view: str, modality: str, filename: str, url: str = "") -> str:
    folder = "volumes" if filename.endswith(".gz") else "images"
    return f'{patient},0,M,65,{finding},Y,,{view},{modality},2020,"Here, there",{folder},{filename},,{url},,"a, b",,'


CHESTXRAY_ROWS = (
    chestxray_row("2", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "a.jpg", "https://www.eurorad.org/case/16953"),
    chestxray_row("2", "Pneumonia/Viral/COVID-19", "L", "X-ray", "b.jpg"),
    chestxray_row("3", "Pneumonia/Viral/SARS", "AP Supine", "X-ray", "c.png"),
    chestxray_row("4", "Pneumonia", "AP", "X-ray", "d.png"),
    chestxray_row("5", "No Finding", "AP Erect", "X-ray", "e.png"),
    chestxray_row("6", "Tuberculosis", "PA", "X-ray", "f.png"),
    chestxray_row("7", "Pneumonia/Viral/COVID-19", "Axial", "CT", "g.png"),
    chestxray_row("7", "Pneumonia/Viral/COVID-19", "Axial", "CT", "h.nii.gz"),
    chestxray_row("8", "", "PA", "X-ray", "i.png"),
)


@pytest.fixture
def chestxray(tmp_path: Path) -> Path:
    root = tmp_path / "covid-chestxray-dataset"
    pictures = ("a.jpg", "b.jpg", "c.png", "d.png", "e.png", "f.png", "g.png", "i.png", "stray.png")
    make_tree(
        root, *(f"images/{name}" for name in pictures), "annotations/lungVAE-masks/a_mask.png", "volumes/h.nii.gz"
    )
    write_table(root / "metadata.csv", CHESTXRAY_HEADER, *CHESTXRAY_ROWS)
    return root


def test_covid_chestxray_takes_frontal_radiographs_with_patient_view_and_source(chestxray: Path) -> None:
    entries = by_path(read(chestxray, "covid-chestxray"))
    shown = {"sex": "M", "age": "65"}
    own = shown | {"source": "covid-chestxray"}
    assert [entry for entry in entries.values() if not entry.excluded] == [
        Entry(path="images/a.jpg", label="covid", patient="covid-2", view="PA", source="eurorad.org", **shown),
        Entry(path="images/c.png", label="pneumonia", patient="covid-3", view="AP Supine", **own),
        Entry(path="images/d.png", label="pneumonia", patient="covid-4", view="AP", **own),
        Entry(path="images/e.png", label="normal", patient="covid-5", view="AP Erect", **own),
    ]


def test_covid_chestxray_records_why_the_rest_is_excluded(chestxray: Path) -> None:
    entries = by_path(read(chestxray, "covid-chestxray"))
    assert {path: entry.excluded for path, entry in entries.items() if entry.excluded} == {
        "images/b.jpg": "lateral view",
        "images/f.png": "finding of no class: Tuberculosis",
        "images/g.png": "no radiograph: modality CT",
        "volumes/h.nii.gz": "no radiograph: modality CT",
        "images/i.png": "finding of no class: none given",
        "images/stray.png": "not in metadata.csv",
        "annotations/lungVAE-masks/a_mask.png": "not in metadata.csv",
    }


def test_classes_of_a_preset_are_asked_for_by_their_mapped_names(chestxray: Path) -> None:
    catalog = read(chestxray, "covid-chestxray", classes=("pneumonia", "covid"))
    assert catalog.classes == ("pneumonia", "covid")
    assert set(taken(catalog)) == {"images/a.jpg", "images/c.png", "images/d.png"}
    assert by_path(catalog)["images/e.png"].excluded == "class normal not asked for"
    assert by_path(catalog)["images/b.jpg"].excluded == "lateral view"


@pytest.mark.parametrize(("mark", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")])
def test_byte_order_marks_and_line_ends_change_nothing(chestxray: Path, mark: str, end: str) -> None:
    wanted = read(chestxray, "covid-chestxray").entries
    write_table(chestxray / "metadata.csv", mark + CHESTXRAY_HEADER, *CHESTXRAY_ROWS, end=end)
    assert read(chestxray, "covid-chestxray").entries == wanted


def test_a_row_that_leads_outside_is_rejected_when_it_is_read_and_no_other(chestxray: Path, tmp_path: Path) -> None:
    make_tree(tmp_path, "secret.png", "secret.jpg")
    bad = [
        chestxray_row("9", "No Finding", "PA", "X-ray", name) for name in ("../../secret.png", f"{tmp_path}/secret.jpg")
    ]
    write_table(chestxray / "metadata.csv", CHESTXRAY_HEADER, *CHESTXRAY_ROWS, *bad)
    config = ConvertConfig(
        catalog=CatalogConfig(source=chestxray, preset="covid-chestxray", classes=("pneumonia", "normal")),
        out=tmp_path / "out",
        workers=1,
        val=0.5,
        dry_run=True,
    )
    with pytest.raises(InputError, match="class normal: 1 patients"):  # the two others are rejected
        convert(config)


@pytest.mark.parametrize(
    ("header", "rows", "found"),
    [
        (CHESTXRAY_HEADER.replace("modality", "mode"), CHESTXRAY_ROWS, "expected at least patientid, finding, view"),
        (CHESTXRAY_HEADER, (CHESTXRAY_ROWS[0], CHESTXRAY_ROWS[0]), "line 3 repeats images/a.jpg of line 2"),
        (CHESTXRAY_HEADER, (chestxray_row("2", "No Finding", "PA", "X-ray", ""),), "line 2 has no filename"),
        ("", (), "columns none"),
    ],
)
def test_a_table_that_is_not_the_sets_is_refused(
    chestxray: Path, header: str, rows: tuple[str, ...], found: str
) -> None:
    write_table(chestxray / "metadata.csv", header, *rows)
    with pytest.raises(InputError, match=rf"metadata\.csv: .*{found}.*; "):
        read(chestxray, "covid-chestxray")


# ---- NIH ChestX-ray14


def nih_row(name: str, findings: str, patient: str, view: str = "PA") -> str:
    return f"{name},{findings},0,{patient},57,M,{view},2682,2749,0.143,0.143,"


NIH_ROWS = (
    nih_row("00000001_000.png", "Cardiomegaly|Emphysema", "1"),
    nih_row("00000002_000.png", "No Finding", "2"),
    nih_row("00000002_001.png", "No Finding", "2", "AP"),
    nih_row("00000003_000.png", "Edema|Pneumonia", "3", "AP"),
    nih_row("00000004_000.png", "Pneumonia", "4"),
    nih_row("00000005_000.png", "No Finding", "5"),
    nih_row("00000006_000.png", "No Finding", "6"),
    nih_row("00000007_000.png", "Pneumonia", "7"),
    nih_row("00000008_000.png", "No Finding", "8"),  # not downloaded
    nih_row("00000009_000.png", "Pneumothorax", "9"),
)
NIH_NAMES = [row.split(",")[0] for row in NIH_ROWS if not row.startswith("00000008")]


@pytest.fixture(params=["images/{}", "images_001/images/{}", "images_001/{}"])
def nih(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    root = make_tree(tmp_path / "nih", *(request.param.format(name) for name in NIH_NAMES))
    write_table(root / "Data_Entry_2017.csv", NIH_HEADER, *NIH_ROWS)
    return root


def names_taken(catalog: Catalog) -> dict[str, str]:
    return {Path(path).name: label for path, label in taken(catalog).items()}


def test_nih_takes_no_finding_and_pneumonia_wherever_the_images_lie(nih: Path) -> None:
    catalog = read(nih, "nih")
    assert catalog.classes == ("normal", "pneumonia")
    assert names_taken(catalog) == {
        "00000002_000.png": "normal",
        "00000002_001.png": "normal",
        "00000003_000.png": "pneumonia",
        "00000004_000.png": "pneumonia",
        "00000005_000.png": "normal",
        "00000006_000.png": "normal",
        "00000007_000.png": "pneumonia",
    }
    entries = {Path(path).name: entry for path, entry in by_path(catalog).items()}
    one = entries["00000002_001.png"]
    assert (one.patient, one.view, one.source, one.split) == ("nih-00000002", "AP", "nih-chestxray8", "")
    assert (one.sex, one.age) == ("M", "57")
    assert entries["00000001_000.png"].excluded == "finding of no class: Cardiomegaly|Emphysema"
    assert entries["00000009_000.png"].excluded == "finding of no class: Pneumothorax"  # no kind of pneumonia
    assert entries["00000008_000.png"].excluded == "not in the folder"


def test_the_table_of_2020_is_read_too(nih: Path) -> None:
    wanted = read(nih, "nih").entries
    (nih / "Data_Entry_2017.csv").unlink()
    write_table(nih / "Data_Entry_2017_v2020.csv", NIH_HEADER.replace("Patient Gender", "Patient Sex"), *NIH_ROWS)
    assert read(nih, "nih").entries == wanted


def test_nih_lists_images_without_a_row_and_a_repeated_name(nih: Path) -> None:
    make_tree(nih, "images_009/00000002_000.png", "nih-chest-xray14-portraint.png")
    entries = by_path(read(nih, "nih"))
    assert entries["images_009/00000002_000.png"].excluded.startswith("the same name as images")
    assert entries["nih-chest-xray14-portraint.png"].excluded == "not in Data_Entry_2017.csv"


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "test_list.txt"])
def test_a_table_that_a_link_takes_from_elsewhere_is_not_read(nih: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere.csv").write_text("secret\n")
    (nih / name).unlink(missing_ok=True)
    (nih / name).symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(InputError, match=f"{name}: leads outside of .*copy it there"):
        read(nih, "nih")
    (nih / name).unlink()
    (nih / name).symlink_to(nih / name)
    with contextlib.suppress(InputError):  # a loop of links is no table
        read(nih, "nih")


def test_the_test_list_is_held_out_and_the_rest_dealt_by_whole_patients(nih: Path, tmp_path: Path) -> None:
    write_table(nih / "test_list.txt", "00000004_000.png", "00000005_000.png", end="\r\n")
    catalog = CatalogConfig(source=nih, preset="nih")
    config = ConvertConfig(catalog=catalog, out=tmp_path / "out", val=0.5, seed=3, workers=1, dry_run=True)
    written = [row for row in convert(config).rows if row.verdict == "written"]
    split_of = {Path(row.entry.path).name: row.split for row in written}
    assert {name for name, split in split_of.items() if split == "heldout"} == {"00000004_000.png", "00000005_000.png"}
    assert split_of["00000002_000.png"] == split_of["00000002_001.png"]
    for split in ("train", "val"):
        assert {row.entry.label for row in written if row.split == split} == {"normal", "pneumonia"}
    assert [row.split for row in convert(config).rows if row.verdict == "written"] == [row.split for row in written]


def test_nih_with_a_test_list_converts_into_three_sets(nih: Path, tmp_path: Path) -> None:
    write_table(nih / "test_list.txt", "00000004_000.png", "00000005_000.png")
    done = convert(
        ConvertConfig(
            catalog=CatalogConfig(source=nih, preset="nih"), out=tmp_path / "out", val=0.5, workers=1, dry_run=True
        )
    )
    assert done.counts == {"written": 7, "rejected": 0, "duplicate": 0, "excluded": 3}
    assert done.samples["heldout"] == {"normal": 1, "pneumonia": 1}
    assert "patients-unknown" not in {found.code for found in done.cautions}


def test_with_both_lists_an_image_in_neither_takes_no_part(nih: Path) -> None:
    write_table(nih / "test_list.txt", "00000004_000.png")
    write_table(nih / "train_val_list.txt", *(name for name in NIH_NAMES if name[7] not in "46"))
    catalog = read(nih, "nih")
    entry = next(entry for entry in catalog.entries if entry.path.endswith("00000006_000.png"))
    assert entry.excluded == "neither in test_list.txt nor in train_val_list.txt"


def test_an_image_in_both_lists_is_refused(nih: Path) -> None:
    for name in ("test_list.txt", "train_val_list.txt"):
        write_table(nih / name, "00000004_000.png")
    with pytest.raises(InputError, match=r"test_list\.txt: 00000004_000\.png is also in train_val_list\.txt.*; "):
        read(nih, "nih")


def test_a_test_list_that_cuts_through_a_patient_is_refused(nih: Path) -> None:
    write_table(nih / "test_list.txt", "00000002_001.png", "00000004_000.png")
    with pytest.raises(InputError, match=r"test_list\.txt: has .*00000002_001\.png and not .*00000002_000\.png.*; "):
        read(nih, "nih")


def test_a_row_of_nih_is_never_found_outside_the_tree(nih: Path) -> None:
    make_tree(nih.parent, "secret.png")
    write_table(nih / "Data_Entry_2017.csv", NIH_HEADER, *NIH_ROWS, nih_row("../secret.png", "No Finding", "9"))
    assert by_path(read(nih, "nih"))["../secret.png"].excluded == "not in the folder"


# ---- all of them


@pytest.mark.parametrize(
    ("preset", "missing"),
    [
        ("covid-radiography", "COVID/images"),
        ("covid-qu-ex", "Lung Segmentation Data"),
        ("covid-chestxray", "metadata.csv"),
        ("nih", "Data_Entry_2017.csv"),
    ],
)
def test_a_tree_of_another_layout_is_refused_with_the_file_that_lacks(
    tmp_path: Path, preset: str, missing: str
) -> None:
    make_tree(tmp_path, "covid/a.png", "normal/b.png")
    with pytest.raises(InputError, match=rf"{tmp_path / missing}: .*, expected .*; unpack the set again"):
        read(tmp_path, preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_that_can_be_named_has_a_reader_and_wants_a_folder(tmp_path: Path, preset: str) -> None:
    assert preset in READERS | FINDING_READERS and READERS.keys() | FINDING_READERS.keys() == set(PRESETS)
    with pytest.raises(InputError, match=f"lost: not a folder, expected the folder of {preset}"):
        read(tmp_path / "lost", preset)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"source": Path("s"), "preset": "nhi"}, "--preset: found 'nhi', expected covid-radiography or "),
        ({"manifest": Path("m.csv"), "preset": "nih"}, "found --preset with --manifest, expected it with SOURCE"),
    ],
)
def test_a_preset_needs_a_known_name_and_a_folder(settings: dict, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        CatalogConfig(**settings)


def test_a_group_regex_names_patients_where_the_set_does_not(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "Normal/images/001_a.png", "COVID/images/002_b.png")
    catalog = read(source, "covid-radiography", group_regex=r"^(\d+)_")
    assert sorted(entry.patient for entry in catalog.entries) == ["001", "002"]


SHARES = {"train": 0.68, "val": 0.17, "heldout": 0.15}


def test_samples_that_share_a_patient_or_pixels_are_one_group_even_in_a_chain() -> None:
    patients = ["a", "b", "b", None, None, "c"]
    pixels = ["1", "1", "2", "2", "3", "4"]
    assert group_by(patients, pixels).tolist() == [0, 0, 0, 0, 1, 2]


def test_unknown_patients_are_groups_of_their_own() -> None:
    assert group_by([None, None, None]).tolist() == [0, 1, 2]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=20, max_size=80),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=50, deadline=None)
def test_no_group_is_in_two_splits_and_shares_are_met_within_the_largest_group(sizes: list[int], seed: int) -> None:
    group_N = np.repeat(np.arange(len(sizes)), sizes)
    label_N = group_N % 2
    splits = np.array(split_groups(group_N, label_N, SHARES, seed, ["a", "b"]))
    for group in range(len(sizes)):
        assert len(set(splits[group_N == group])) == 1
    for label in (0, 1):
        of_class = splits[label_N == label]
        for name, share in SHARES.items():
            assert abs((of_class == name).sum() - share * len(of_class)) <= max(sizes) + 1
            assert (of_class == name).any()


def test_the_split_is_a_function_of_the_seed() -> None:
    group_N, label_N = np.arange(60), np.arange(60) % 3
    splits = [split_groups(group_N, label_N, SHARES, seed, "abc") for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_a_group_of_mixed_labels_stays_whole() -> None:
    group_N = np.array([0, 0, 0, *range(1, 21)])
    label_N = np.array([0, 1, 1, *[0, 1] * 10])
    splits = split_groups(group_N, label_N, {"train": 0.8, "val": 0.2}, 0, ["a", "b"])
    assert len(set(splits[:3])) == 1


def test_a_class_with_fewer_patients_than_splits_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="class rare: 2 patients"):
        split_groups(np.arange(12), np.array([1, 1] + [0] * 10), SHARES, 0, ["common", "rare"])


def test_one_huge_patient_does_not_starve_a_split() -> None:
    group_N = np.array([0] * 97 + [1, 2, 3, 4])
    label_N = np.zeros(101, int)
    splits = split_groups(group_N, label_N, {"train": 0.8, "val": 0.2}, 3, ["only"])
    assert set(splits) == {"train", "val"}


def test_a_zero_share_gets_nothing() -> None:
    splits = split_groups(np.arange(40), np.arange(40) % 2, {"train": 0.8, "val": 0.2, "heldout": 0.0}, 0, "ab")
    assert set(splits) == {"train", "val"}


# ---- what a table or a tree says twice, or for nobody


def manifest(folder: Path, *rows: str, header: str = "path,label,patient") -> Path:
    write_table(folder / "films.csv", header, *rows)
    return folder / "films.csv"


def test_spellings_of_one_label_are_one_class_of_the_commonest_spelling(tmp_path: Path) -> None:
    labels = ("Covid", "covid", "covid", "no  finding", "No Finding", "No Finding", "1", "1.0", "1.0")
    table = manifest(tmp_path, *(f"{place}.png,{label}," for place, label in enumerate(labels)))
    catalog = read_catalog(CatalogConfig(manifest=table))
    assert catalog.classes == ("1.0", "No Finding", "covid")
    (found,) = catalog.cautions
    assert found == caution("labels-joined", labels=["1 = 1.0", "Covid = covid", "no  finding = No Finding"])
    chosen = read_catalog(CatalogConfig(manifest=table, classes=("Covid", "1")))
    assert chosen.classes == ("Covid", "1")
    assert [entry.label for entry in chosen.entries if not entry.excluded] == ["Covid"] * 3 + ["1"] * 3
    apart = read_catalog(CatalogConfig(manifest=table, classes=("Covid", "covid")))  # asked for as two
    assert [entry.label for entry in apart.entries if not entry.excluded] == ["Covid", "covid", "covid"]


def labelled(folder: Path, labels: Sequence[str]) -> Path:
    return manifest(folder, *(f"{place}.png,{label}," for place, label in enumerate(labels)))


def test_a_class_that_was_asked_for_is_found_in_any_spelling(tmp_path: Path) -> None:
    table = labelled(tmp_path, ("COVID ", "0.0", "tb"))
    assert [entry.label for entry in read_catalog(CatalogConfig(manifest=table, classes=("covid", "0"))).entries] == [
        "covid",
        "0",
        "tb",
    ]


@pytest.mark.parametrize(
    ("pairs", "expected", "told"),
    [
        (("COVID-19=covid", "no finding=normal"), ["covid", "normal", "normal", "Edema, mild"], [
            "COVID-19 = covid (1)", "No Finding = normal (1)", "no  finding = normal (1)",
        ]),
        (("Edema, mild=COVID-19", "COVID-19=Edema, mild"), ["Edema, mild", "No Finding", "No Finding", "COVID-19"], [
            "COVID-19 = Edema, mild (1)", "Edema, mild = COVID-19 (1)",
        ]),
        (("COVID-19=sick", "edema, mild = sick"), ["sick", "No Finding", "No Finding", "sick"], [
            "COVID-19 = sick (1)", "Edema, mild = sick (1)",
        ]),
    ],
    ids=["translated", "exchanged", "joined"],
)  # fmt: skip
def test_labels_are_translated_once_in_any_spelling_and_this_is_told(
    tmp_path: Path, pairs: tuple[str, ...], expected: list[str], told: list[str]
) -> None:
    table = labelled(tmp_path, ("COVID-19", "No Finding", "no  finding", '"Edema, mild"'))
    catalog = read_catalog(CatalogConfig(manifest=table, map_label=pairs))
    assert [entry.label for entry in catalog.entries] == expected
    assert catalog.classes == tuple(sorted(set(expected)))
    assert catalog.cautions[0] == caution("labels-translated", labels=told)


def test_a_label_to_translate_that_no_file_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    table = labelled(tmp_path, ("COVID-19", "Normal"))
    with pytest.raises(InputError, match=r"'flu=covid', but no file has that label, expected some of COVID-19, Normal"):
        read_catalog(CatalogConfig(manifest=table, map_label=("normal=clear", "flu=covid")))
    for pair in ("covid", "=covid", "covid= "):
        with pytest.raises(ConfigError, match=r"--map-label: found '.*', expected LABEL=CLASS"):
            CatalogConfig(manifest=table, map_label=(pair,))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--map-label", "COVID-19=covid,No finding=normal"], ("COVID-19=covid", "No finding=normal")),
        (["--map-label", "a=b", "--map-label", "c=d, e=f"], ("a=b", "c=d", "e=f")),
        (["--map-label", '"Edema, mild=edema",x=y'], ("Edema, mild=edema", "x=y")),
        (["--map-label", '"Edema, mild"=edema'], ("Edema, mild=edema",)),
    ],
)
def test_lists_of_the_command_line_may_be_repeated_and_quote_commas(
    arguments: list[str], expected: tuple[str, ...]
) -> None:
    given = cli.make_parser().parse_args(["convert", "S", "--out", "B", *arguments])
    assert tuple(given.map_label) == expected


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("covid", "normal"), "covid"),
        (("normal", "pneumonia"), "pneumonia"),
        (("No Finding", "Pneumothorax"), "Pneumothorax"),
        (("Negative for Pneumonia", "Typical"), "Typical"),
        (("0", "1"), "1"),
        (("0.0", "1.0"), "1.0"),
        (("0_Normal", "1_Tb"), "1_Tb"),
        (("no-pneumonia", "pneumonia"), "pneumonia"),
        (("no", "yes"), "yes"),
        (("False", "True"), "True"),
        (("CONTROL", "tb"), "tb"),
        (("healthy", "sick", "worse"), "sick"),
        (("negative", "normal", "positive"), "positive"),
        (("abnormal", "normal"), "abnormal"),
        (("(normal)", "tb"), "tb"),
        (("No Lung Opacity / Not Normal", "Normal"), "No Lung Opacity / Not Normal"),
        (("non-small-cell carcinoma", "normal"), "non-small-cell carcinoma"),
        (("false positive", "true"), "false positive"),
        (("absent breath sounds", "normal"), "absent breath sounds"),
        (("normal", "not normal"), "not normal"),
        (("nodule", "normal"), "nodule"),
        (("normal", "no finding"), "normal"),  # nothing else is left
    ],
)
def test_a_class_that_looks_like_health_is_positive_only_where_it_is_listed_first(
    classes: tuple[str, ...], expected: str
) -> None:
    assert positive_class(classes, listed=False) == expected
    assert positive_class(classes, listed=True) == classes[0]


def test_labels_that_differ_in_more_than_spelling_stay_apart(tmp_path: Path) -> None:
    labels = ("1", "10", "1.5", "1.05", "covid", "covid-19", "no finding", "nofinding")
    catalog = read_catalog(CatalogConfig(manifest=manifest(tmp_path, *(f"{label}.png,{label}," for label in labels))))
    assert catalog.classes == tuple(sorted(labels)) and not catalog.cautions


@pytest.mark.parametrize(
    "nobody",
    [
        "",
        "unknown",
        "NA",
        "n/a",
        "None",
        "nan",
        "NULL",
        "Anonymous",
        "-",
        " ? ",
        "#N/A",
        "<NA>",
        "(unknown)",
        "not available",
        "ANONYMISED",
    ],
)
def test_a_placeholder_is_no_patient(tmp_path: Path, nobody: str) -> None:
    rows = [f"{place}.png,{'ab'[place % 2]},{patient}" for place, patient in enumerate((nobody, nobody, "7"))]
    entries = read_catalog(CatalogConfig(manifest=manifest(tmp_path, *rows))).entries
    assert [entry.patient for entry in entries] == ["", "", "7"]


@pytest.mark.parametrize("label", ["NaN", "unknown", "N/A", "#N/A", "null", "not specified"])
def test_a_placeholder_is_no_label(tmp_path: Path, label: str) -> None:
    table = manifest(tmp_path, "a.png,covid,", "b.png,normal,", f"c.png,{label},")
    with pytest.raises(InputError, match=f"the label {label!r} stands for none, .* by --classes covid,normal, or name"):
        read_catalog(CatalogConfig(manifest=table))
    assert read_catalog(CatalogConfig(manifest=table, classes=("covid", "normal"))).classes == ("covid", "normal")
    assert len(read_catalog(CatalogConfig(manifest=table, classes=("covid", label))).classes) == 2
    assert read_catalog(CatalogConfig(manifest=table, map_label=(f"{label}=normal",))).classes == ("covid", "normal")


def test_both_ways_to_write_an_umlaut_are_one_label(tmp_path: Path) -> None:
    composed, decomposed = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"
    table = manifest(tmp_path, f"a.png,{composed},", f"b.png,{decomposed},", "c.png,normal,")
    assert len(read_catalog(CatalogConfig(manifest=table)).classes) == 2
    for name in (composed, decomposed):
        assert read_catalog(CatalogConfig(manifest=table, classes=(name, "normal"))).classes == (name, "normal")


def test_a_number_that_a_spreadsheet_gave_decimals_is_the_same_patient(tmp_path: Path) -> None:
    rows = ("a.png,a,12", "b.png,b,12.0", "c.png,b,12.50", "d.png,b,012")
    entries = read_catalog(CatalogConfig(manifest=manifest(tmp_path, *rows))).entries
    assert [entry.patient for entry in entries] == ["12", "12", "12.50", "012"]


@pytest.mark.parametrize(
    ("given", "nobody"),
    [
        (["X"] * 8, {"X"}),
        (["X"] * 4, {"X"}),
        (["X"] * 3, set()),  # nothing to train on: they may be of one patient
        (["X"] * 19 + ["Y"], {"X"}),  # one other film does not make a patient of it
        (["X"] * 8 + [""] * 8, {"X"}),
        (["X"] * 5 + [""] * 95, set()),  # the one patient known
        (["X"] * 3 + ["Y"] * 3, set()),
        (["X"], set()),
        (["0"] * 8, {"0"}),
        (["000"] * 3 + ["MRN1", "MRN2", "MRN3", "MRN4"], {"000"}),
        (["0"] * 2 + ["4711", "8012", "9000"], {"0"}),
        (["0", "0", "1", "2", "2", "3"], set()),  # counted from 0
        (["0", "2", "3"], set()),
        (["0"] * 6 + ["1", "2", "3"], {"0"}),
        ([""] * 5, set()),
        ([], set()),
    ],
)
def test_one_identifier_for_most_films_or_0_is_no_patient(given: list[str], nobody: set[str]) -> None:
    kept, cautions = known_patients(given)
    assert kept == ["" if patient in nobody else patient for patient in given]
    shared = sum(patient in nobody for patient in given)
    assert cautions == ([caution("one-patient", shared=shared, films=len(given))] if nobody else [])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = manifest(tmp_path, "a.png,covid,1,normal", header="path,label,patient, Label")
    with pytest.raises(InputError, match=r"2 columns label, but for case and blanks, expected one; rename"):
        read_catalog(CatalogConfig(manifest=table))
    table = manifest(
        tmp_path, "a.png,covid,1,2", "b.png,normal,1,2", header="path,label,note,Note"
    )  # that nobody reads
    assert len(read_catalog(CatalogConfig(manifest=table)).entries) == 2


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "Thumbnails", ".thumbnails"])
def test_previews_and_deleted_files_of_servers_are_no_films(tmp_path: Path, folder: str) -> None:
    films = ["covid/a.png", "normal/b.png"]
    beside = [f"covid/{folder}/a.png", f"{folder}/covid/a.png", f"covid/{folder}/a.png/SYNO_THUMB_M.png"]
    source = make_tree(tmp_path / "source", *films, *beside[:2], f"normal/{folder}/b.png/thumb.jpg")
    catalog = read_catalog(CatalogConfig(source=source))
    assert sorted(taken(catalog)) == films and catalog.classes == ("covid", "normal")
    assert {entry.kind for entry in catalog.entries if entry.excluded} <= {"server-folder", "hidden"}
    assert all(EXCLUDED[entry.kind] == entry.excluded for entry in catalog.entries if entry.excluded)


def test_folders_named_as_splits_are_splits_and_never_classes(tmp_path: Path) -> None:
    films = [
        f"{split}/{label}/{split}-{label}-{k}.png" for split in ("train", "val", "test") for label in "ab" for k in "12"
    ]
    catalog = read_catalog(CatalogConfig(source=make_tree(tmp_path / "s", *films, "train/loose.png", "README.md")))
    assert catalog.classes == ("a", "b")
    split_of = {entry.path: entry.split for entry in catalog.entries if not entry.excluded}
    assert {path.split("/")[0]: split for path, split in split_of.items()} == {
        "train": "train", "val": "val", "test": "heldout",
    }  # fmt: skip
    assert len(split_of) == 12
    assert catalog.cautions == (caution("folders-are-splits", folders=["test", "train", "val"]),)
    assert {entry.path for entry in catalog.entries if entry.kind == "no-class"} == {"train/loose.png", "README.md"}


def test_without_a_folder_for_validation_it_is_dealt_from_that_of_training(tmp_path: Path) -> None:
    films = [f"Training/{label}/{label}{k}.png" for label in "ab" for k in range(10)]
    films += [f"Testing/{label}/{label}{k}.jpg" for label in "ab" for k in range(3)]
    config = ConvertConfig(
        catalog=CatalogConfig(source=make_tree(tmp_path / "s", *films)), out=tmp_path / "o", size=32, workers=1,
        site_key=tmp_path / "k",
    )  # fmt: skip
    samples = convert(config).samples
    assert samples == {"train": {"a": 8, "b": 8}, "val": {"a": 2, "b": 2}, "heldout": {"a": 3, "b": 3}}


def test_a_class_may_be_called_test_and_splits_beside_classes_are_refused(tmp_path: Path) -> None:
    classes = make_tree(tmp_path / "classes", "covid/a.png", "test/b.png")
    assert read_catalog(CatalogConfig(source=classes)).classes == ("covid", "test")
    mixed = make_tree(tmp_path / "mixed", "train/covid/a.png", "test/covid/b.png", "mixed/train/covid/a.png")
    with pytest.raises(InputError, match="the folders test, train are splits, but mixed is none"):
        read_catalog(CatalogConfig(source=mixed))


def test_presets_read_patients_as_tables_do(chestxray: Path, tmp_path: Path) -> None:
    patients = {"a.jpg": "2", "c.png": "2.0", "d.png": "NA"}
    rows = [chestxray_row(patient, "Pneumonia", "PA", "X-ray", name) for name, patient in patients.items()]
    write_table(chestxray / "metadata.csv", CHESTXRAY_HEADER, *rows)
    entries = by_path(read(chestxray, "covid-chestxray"))
    assert [entries[f"images/{name}"].patient for name in patients] == ["covid-2", "covid-2", ""]
    films = make_tree(tmp_path / "nih", "images/a.png", "images/b.png", "images/c.png")
    rows = [
        nih_row("a.png", "No Finding", "2"),
        nih_row("b.png", "No Finding", "2.0"),
        nih_row("c.png", "Pneumonia", "-"),
    ]
    write_table(films / "Data_Entry_2017.csv", NIH_HEADER, *rows)
    entries = by_path(read(films, "nih"))
    assert [entries[f"images/{name}.png"].patient for name in "abc"] == ["nih-00000002", "nih-00000002", ""]
