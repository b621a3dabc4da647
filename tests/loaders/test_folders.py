"""Folders without a preset: classes, splits, masks, links, and what is none of these."""

from pathlib import Path

import pytest

from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig
from loaders.convert.convert import convert
from loaders.errors import InputError
from loaders.sources.catalog import Catalog, read_catalog
from tests.loaders.test_sources import CHESTXRAY_HEADER, NIH_HEADER, make_tree, taken, write_table

CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pneumonia"


def read(source: Path, **settings: object) -> Catalog:
    return read_catalog(CatalogConfig(source=source, **settings))  # type: ignore[arg-type]


def codes(catalog: Catalog) -> set[str]:
    return {found.code for found in catalog.cautions}


def paths(pattern: str, **choices: str) -> list[str]:
    """A path for each choice of words: {label} of the words of label, and so on."""
    made = [pattern]
    for name, words in choices.items():
        made = [path.replace(f"{{{name}}}", word) for path in made for word in words.split("|")]
    return list(dict.fromkeys(made))


# ---- masks


@pytest.mark.parametrize(
    "masks",
    ["{label}/masks/{k}.png", "{label}/Lung Masks/{k}.png", "{label}/infection_mask/{k}.png", "masks/{label}/{k}.png",
     "{label}/Segmentations/{k}.png", "{label}/images/{k}_mask.png", "{label}/images/{k}-segmentation.png"],
)  # fmt: skip
def test_masks_beside_images_are_no_films_and_are_counted(tmp_path: Path, masks: str) -> None:
    films = paths("{label}/images/{k}.png", label="covid|normal", k="1|2")
    catalog = read(make_tree(tmp_path / "s", *films, *paths(masks, label="covid|normal", k="1|2")))
    assert taken(catalog) == {path: path.split("/")[0] for path in films}
    assert {entry.kind for entry in catalog.entries if entry.excluded} == {"mask"}
    assert catalog.cautions == (caution("masks-left-out", masks=4),)


def test_a_mask_is_one_only_beside_its_film_or_in_a_folder_of_masks(tmp_path: Path) -> None:
    films = ["covid/1_mask.png", "covid/unmasked.png", "normal/mask.png", "normal/maskless/2.png"]
    assert sorted(taken(read(make_tree(tmp_path / "s", *films)))) == films


def test_a_class_that_is_called_mask_is_one_when_it_is_asked_for(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "mask/1.png", "no oxygen/2.png", "other/3.png")
    assert read(source).classes == ("no oxygen", "other")
    assert read(source, classes=("mask", "no oxygen")).classes == ("mask", "no oxygen")


def test_the_radiography_database_without_its_preset_has_no_masks_and_the_preset_is_named(tmp_path: Path) -> None:
    tree = paths("{label}/{kind}/{label}-{k}.png", label="COVID|Normal", kind="images|masks", k="1|2|3|4|5|6")
    config = ConvertConfig(
        catalog=CatalogConfig(source=make_tree(tmp_path / "s", *tree)), out=tmp_path / "o", size=32, workers=1,
        site_key=tmp_path / "k",
    )  # fmt: skip
    done = convert(config)
    assert done.counts == {"written": 12, "rejected": 0, "duplicate": 0, "excluded": 12}
    assert caution("looks-like-preset", preset="covid-radiography") in done.cautions


# ---- layouts of public sets without their presets


@pytest.mark.parametrize(
    ("table", "header", "films", "preset"),
    [
        ("Data_Entry_2017.csv", NIH_HEADER, "images_001/images/1.png images_002/images/2.png", "nih"),
        ("metadata.csv", CHESTXRAY_HEADER, "images/1.png volumes/2.png", "covid-chestxray"),
        ("stage_2_train_labels.csv", "patientId,x,y,width,height,Target",
         "stage_2_train_images/1.dcm stage_2_test_images/2.dcm", "rsna"),
        ("train-rle.csv", "ImageId, EncodedPixels", "dicom-images-train/1/2/3.dcm dicom-images-test/1/2/4.dcm", "siim"),
        ("train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", "train/1.dicom test/2.dicom",
         "vindr"),
        ("annotations/annotations_train.csv", "image_id,rad_id,class_name", "train/1.dicom test/2.dicom", "vindr"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["", "download/", "set/set/"])
def test_a_public_set_whose_labels_are_in_its_table_is_refused_with_its_preset(
    tmp_path: Path, table: str, header: str, films: str, preset: str, around: str
) -> None:
    source = make_tree(tmp_path / "s", *(around + film for film in films.split()))
    write_table(source / around / table, header)
    with pytest.raises(InputError, match=rf"looks like the public set {preset}, .*; use --preset {preset}"):
        read(source)


def test_a_table_of_another_kind_is_no_sign_of_a_public_set(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "a/1.png", "b/2.png")
    write_table(source / "train.csv", "id,label")
    write_table(source / "metadata.csv", "path,finding")
    (source / "train-rle.csv").write_bytes(b"PK\3\4 a workbook")
    assert read(source).classes == ("a", "b")
    write_table(source / "Data_Entry_2017.csv", NIH_HEADER)
    assert read(source, classes=("a", "b")).classes == ("a", "b")  # named, they are classes


def test_covid_qu_ex_without_its_preset_is_refused_and_one_part_of_it_is_read(tmp_path: Path) -> None:
    part = "{part} Segmentation Data/{part} Segmentation Data/{split}/{label}/{kind}/{label}{k}.png"
    tree = paths(part, part="Lung|Infection", split="Train|Val|Test", label="COVID-19|Normal",
                 kind="images|lung masks", k="1")  # fmt: skip
    source = make_tree(tmp_path / "s", *tree)
    with pytest.raises(InputError, match=r"each of Infection Segmentation Data, Lung .* use --preset covid-qu-ex"):
        read(source)
    catalog = read(source / "Lung Segmentation Data")
    assert catalog.classes == ("COVID-19", "Normal")
    assert {entry.split for entry in catalog.entries if not entry.excluded} == {"train", "val", "heldout"}
    assert codes(catalog) == {"masks-left-out", "folders-are-splits", "folders-around-all", "looks-like-preset"}


@pytest.mark.parametrize(
    "folders",
    [
        "{split}/patient0000{k}/study1", "train/patient0000{k}/study1", "x/train/patient0000{k}/study1",
        "patient0000{k}/study1", "p1{k}/p1{k}00003{k}/s5041426{k}", "sub-0{k}", "1.2.276.0.7230010.3.1.{k}/2",
        "fold_{k}/covid", "images_00{k}", "2020{k}", "Study {k}", "96dd6373-ef13-7794-103f-13d24abcbab{k}",
    ],
)  # fmt: skip
def test_folders_of_patients_studies_and_parts_are_no_classes(tmp_path: Path, folders: str) -> None:
    tree = paths(f"{folders}/view1_frontal.png", split="train|valid", k="1|2|3")
    source = make_tree(tmp_path / "CheXpert-v1.0-small", *tree)
    write_table(source / "films.csv", CHEXPERT_HEADER)
    with pytest.raises(InputError, match=r"look like patients, studies or parts of a set, expected one folder a class"):
        read(source)


def test_a_crowd_of_folders_with_a_film_or_two_each_is_no_set_of_classes(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", *(f"Name{chr(65 + n)}^Given/{n}.png" for n in range(21)))
    with pytest.raises(InputError, match=r"the 21 folders NameA\^Given, NameB\^Given, NameC\^Given, … look like"):
        read(source)


@pytest.mark.parametrize("names", ["0|1", "grade1|grade2|grade3", "class 1|class 2", "COVID-19|type2", "T4|N1"])
def test_numbers_in_the_names_of_classes_do_no_harm(tmp_path: Path, names: str) -> None:
    source = make_tree(tmp_path / "s", *paths("{label}/patient00001/{label}.png", label=names))
    assert read(source).classes == tuple(sorted(names.split("|")))


def test_folders_are_classes_whatever_they_look_like_when_they_are_named(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "case-1001/a.png", "case-1002/b.png")
    with pytest.raises(InputError, match="or name the folders in --classes"):
        read(source)
    assert read(source, classes=("case-1001", "case-1002")).classes == ("case-1001", "case-1002")


# ---- folders around all others, and splits


@pytest.mark.parametrize("around", ["s/", "dataset/", "a/b/c/", "images/", "train/"])
def test_a_folder_around_all_classes_is_none_and_is_named(tmp_path: Path, around: str) -> None:
    films = [around + path for path in paths("{label}/{k}.png", label="covid|normal", k="1|2")]
    beside = ["__MACOSX/s/covid/._1.png", "README.md", "masks/covid/1.png"]
    catalog = read(make_tree(tmp_path / "s", *films, *beside))
    assert sorted(taken(catalog)) == sorted(films) and catalog.classes == ("covid", "normal")
    assert caution("folders-around-all", folder=around.rstrip("/")) in catalog.cautions


@pytest.mark.parametrize("tree", ["chest_xray/{split}/{label}/{split}{label}.jpeg", "{split}/{split}/{label}/{k}.png",
                                  "x/{split}_set/{label}/images/{split}{label}.png", "{label}/{split}/{k}.png",
                                  "{label}/{label}/{split}/{k}.png"])  # fmt: skip
def test_splits_are_found_within_other_folders_twice_over_and_below_classes(tmp_path: Path, tree: str) -> None:
    films = paths(tree, split="train|val|test", label="NORMAL|SICK", k="1|2")
    catalog = read(make_tree(tmp_path / "s", *films))
    assert catalog.classes == ("NORMAL", "SICK") and set(taken(catalog)) == set(films)
    split_of = {entry.path: entry.split for entry in catalog.entries}
    for path in films:
        assert split_of[path] == next(
            split for name, split in {"train": "train", "val": "val", "test": "heldout"}.items() if name in path
        )
    assert "folders-are-splits" in codes(catalog)


@pytest.mark.parametrize(
    ("tree", "classes"),
    [
        ("covid/{k}.png", ("covid",)),
        ("covid/{site}/{k}.png", ("covid",)),  # sites of one class
        ("Normal/{site}/{k}.png", ("Normal",)),
        ("mine/images/{k}.png", ("mine",)),
        ("mine/patient{k}/1.png", ("mine",)),
        ("{split}/{split}/{k}.png", ("test", "train")),  # a class in a folder of its own name
    ],
)
def test_a_class_alone_stays_one(tmp_path: Path, tree: str, classes: tuple[str, ...]) -> None:
    films = paths(tree, k="1|2", site="A|B", split="train|test")
    if classes == ("test", "train"):
        with pytest.raises(InputError, match="no radiographs found"):  # splits without classes
            read(make_tree(tmp_path / "s", *films))
        return
    catalog = read(make_tree(tmp_path / "s", *films))
    assert catalog.classes == classes and len(taken(catalog)) == len(films) and not catalog.cautions


def test_a_folder_that_is_named_as_a_class_is_not_looked_into(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "mine/a/1.png", "mine/b/2.png")
    assert read(source).classes == ("a", "b")
    assert read(source, classes=("mine",)).classes == ("mine",)


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ("train/a/1.png test/a/2.png chest_xray/train/a/1.png", "test, train are splits, but chest_xray is none"),
        ("a/train/1.png a/test/2.png a/extra/3.png b/train/4.png", "test, train are splits, but extra is none"),
        ("a/train/1.png a/test/2.png b/3.png", "test, train are splits, but some files are in none"),
        ("x/train/a/1.png x/test/a/2.png y/train/a/3.png", "each of x, y has splits of its own and a in them"),
        ("train/NORMAL/IM-1-1.png test/NORMAL/IM-2-1.png c/train/NORMAL/IM-1-1.png", "use --preset kaggle-pneumonia"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, tree: str, found: str) -> None:
    with pytest.raises(InputError, match=rf"{found}"):
        read(make_tree(tmp_path / "s", *tree.split()))


def test_a_split_may_hold_a_class_of_its_own_name(tmp_path: Path) -> None:
    films = paths("{split}/{label}/{split}-{label}.png", split="train|test", label="test|covid")
    catalog = read(make_tree(tmp_path / "s", *films))
    assert catalog.classes == ("covid", "test") and len(taken(catalog)) == 4


def test_sets_for_validation_and_testing_alone_are_splits(tmp_path: Path) -> None:
    films = paths("{split}/{label}/{split}-{label}.png", split="val|test", label="a|b")
    assert read(make_tree(tmp_path / "s", *films)).classes == ("a", "b")


# ---- folders without films


def test_folders_without_pictures_are_no_classes_and_are_named(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "a/1.png", "b/2.png", "docs/readme.txt")
    for name in ("pneumonia", ".git", "masks"):
        (source / name).mkdir()
    catalog = read(source)
    assert catalog.classes == ("a", "b")
    assert catalog.cautions == (caution("folders-without-films", folders=["docs", "pneumonia"]),)


def test_a_class_whose_counterpart_is_empty_is_refused_with_its_name(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "train/a/1.png", "test/a/2.png")
    (source / "train" / "b").mkdir()
    with pytest.raises(InputError, match=r"one class, a \(there are no pictures in the folders b, .*\); expected at"):
        convert(ConvertConfig(catalog=CatalogConfig(source=source), out=tmp_path / "o", dry_run=True))


# ---- links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Two classes, one of them a link to a folder elsewhere."""
    films = [f"store/covid/{k}.png" for k in range(8)] + [f"source/normal/n{k}.png" for k in range(8)]
    make_tree(tmp_path, *films)
    (tmp_path / "source" / "covid").symlink_to(tmp_path / "store" / "covid")
    return tmp_path / "source"


@pytest.mark.parametrize("all_links", [False, True])
def test_a_class_that_is_a_link_to_elsewhere_is_refused_with_the_remedy(linked: Path, all_links: bool) -> None:
    if all_links:
        (linked / "normal").rename(linked.parent / "store" / "normal")
        (linked / "normal").symlink_to("../store/normal")
    found = "covid, normal" if all_links else "covid"
    store = linked.parent / "store"
    with pytest.raises(InputError, match=rf"{found}: links to folders elsewhere, .* allow it with --root {store},"):
        read(linked)
    if not all_links:
        assert read(linked, classes=("normal",)).classes == ("normal",)


def test_a_class_that_is_a_link_into_a_root_is_read_and_decoded(linked: Path, tmp_path: Path) -> None:
    (linked.parent / "store" / "covid" / "loop").symlink_to("..")
    (linked / "normal" / "secret.png").symlink_to("/etc/hostname")
    catalog = CatalogConfig(source=linked, root=(linked.parent / "store",))
    done = convert(ConvertConfig(catalog=catalog, out=tmp_path / "o", size=32, workers=1, site_key=tmp_path / "k"))
    assert done.counts == {"written": 16, "rejected": 1, "duplicate": 0, "excluded": 1}
    assert {row.kind for row in done.rows} == {"", "outside-source", "link"}


def test_a_link_into_a_hidden_store_of_the_source_is_followed(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", ".store/x/1.png", "normal/2.png")
    (source / "covid").symlink_to(".store/x")
    assert taken(read(source)) == {"covid/1.png": "covid", "normal/2.png": "normal"}


def test_links_within_the_source_and_loops_add_no_film(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "covid/1.png", "normal/2.png")
    for name, target in (("again", "covid"), ("normal/up", ".."), ("normal/self", "self"), ("gone", "nowhere")):
        (source / name).symlink_to(target)
    catalog = read(source, root=(tmp_path,))
    assert taken(catalog) == {"covid/1.png": "covid", "normal/2.png": "normal", "normal/self": "normal"}
    assert {entry.path for entry in catalog.entries if entry.kind == "link"} == {"again", "normal/up"}


def test_without_labels_masks_and_folders_of_patients_are_files_as_others(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "s", "patient00001/1.png", "patient00001/masks/1.png")
    catalog = read_catalog(CatalogConfig(source=source), labelled=False)
    assert [(entry.kind, entry.label) for entry in catalog.entries] == [("", "")] * 2 and not catalog.cautions
