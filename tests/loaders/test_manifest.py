"""Manifests: columns by their spellings, rows that repeat a file, views, and paths below roots."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig
from loaders.convert.conversion import Conversion
from loaders.convert.convert import convert
from loaders.errors import ConfigError, InputError
from loaders.sources.catalog import Catalog, read_catalog
from loaders.sources.entry import Entry, projection
from loaders.sources.manifest import COLUMNS


def read(folder: Path, table: str, **settings: object) -> Catalog:
    (folder / "films.csv").write_text(table)
    return read_catalog(CatalogConfig(manifest=folder / "films.csv", **settings))  # type: ignore[arg-type]


def draw(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32(path.encode())
        picture_HW = np.random.default_rng(seed).integers(0, 256, (40, 40)).astype(np.uint8)
        Image.fromarray(picture_HW).save(root / path)
    return root


def plan(manifest: Path, out: Path, **settings: object) -> Conversion:
    catalog = CatalogConfig(manifest=manifest, **settings)  # type: ignore[arg-type]
    return convert(ConvertConfig(catalog=catalog, out=out, size=32, workers=1, val=0.5, dry_run=True))


# ---- columns


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("path,label,patient,view,source,split,sex,age", []),
        ("PATH,Label, Patient ,VIEW,Source,Split,Sex,Age", []),
        (
            "Image Index,Finding Labels,Patient ID,View Position,dataset,data_split,Patient Gender,Patient Age",
            ["Image Index as path", "Finding Labels as label", "Patient ID as patient", "View Position as view",
             "dataset as source", "Patient Gender as sex", "Patient Age as age", "data_split as split"],
        ),
        (
            "image_path,diagnosis,subject_id,AP/PA,hospital,split,gender,Age (years)",
            ["image_path as path", "diagnosis as label", "subject_id as patient", "AP/PA as view",
             "hospital as source", "gender as sex", "Age (years) as age"],
        ),
        (
            "File-Name,Class,PatientID,ViewPosition,Site,Partition,PatientSex,PatientAge",
            ["File-Name as path", "Class as label", "PatientID as patient", "ViewPosition as view", "Site as source",
             "PatientSex as sex", "PatientAge as age", "Partition as split"],
        ),
    ],
)  # fmt: skip
def test_columns_are_found_by_their_usual_spellings_and_reported(tmp_path: Path, header: str, taken: list) -> None:
    catalog = read(tmp_path, f"{header}\na.png,covid,7,PA,A,train,F,60\nb.png,normal,8,AP,B,Test,M,\n")
    assert catalog.entries[0] == Entry(
        path="a.png", label="covid", patient="7", view="PA", source="A", split="train", sex="F", age="60"
    )
    assert (catalog.entries[1].split, catalog.entries[1].age) == ("heldout", "")
    assert catalog.cautions == ((caution("columns-taken", columns=taken),) if taken else ())


def test_an_option_names_a_column_whatever_else_there_is(tmp_path: Path) -> None:
    header = "path,label,patient,view,source,split,sex,age"
    table = f"{header},{','.join(f'My {name}' for name in header.split(','))}\n"
    table += (
        "a.png,x,1,LL,A,val,F,1,b.png,covid,2,PA,B,test,M,9\nc.png,x,1,LL,A,val,F,1,d.png,normal,3,AP,B,train,F,8\n"
    )
    options = {f"{name}_column": f" my  {name.upper()}" for name in header.split(",")}
    catalog = read(tmp_path, table, **options)
    assert catalog.entries[0] == Entry(
        path="b.png", label="covid", patient="2", view="PA", source="B", split="heldout", sex="M", age="9"
    )
    assert not catalog.cautions
    for name in header.split(","):
        with pytest.raises(ConfigError, match=rf"--{name}-column: found 'mine', expected one of path, label, .*My age"):
            read(tmp_path, table, **{f"{name}_column": "mine"})


def test_two_columns_for_one_thing_are_refused_unless_one_has_the_plain_name(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"columns finding and Target may each be the label, .*; decide by --label-col"
    ):
        read(tmp_path, "path,finding,Target\na.png,covid,1\n")
    with pytest.raises(InputError, match=r"columns rad_id and annotator may each be the reader, .*; rename one"):
        read(tmp_path, "path,label,rad_id,annotator\na.png,covid,1,2\n")
    catalog = read(tmp_path, "path,label,Image,Target\na.png,covid,x.png,1\n")
    assert [(entry.path, entry.label) for entry in catalog.entries] == [("a.png", "covid")] and not catalog.cautions
    catalog = read(tmp_path, "path,finding,Target\na.png,covid,1\n", label_column="target")
    assert catalog.classes == ("1",)


def test_a_table_without_the_columns_says_how_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns a, b, expected at least path and label; .* by --path-column and"):
        read(tmp_path, "A;b\n1;2\n")


@pytest.mark.parametrize(
    ("written", "split"),
    [("Train", "train"), ("TRAINING", "train"), ("valid", "val"), ("Validation", "val"), ("dev", "val"),
     ("test", "heldout"), ("Testing", "heldout"), ("holdout", "heldout"), ("", "")],
)  # fmt: skip
def test_splits_have_their_usual_names(tmp_path: Path, written: str, split: str) -> None:
    assert read(tmp_path, f"path,label,split\na.png,covid,{written}\n").entries[0].split == split


def test_another_split_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3 has split 'fold 1', expected train, val, heldout or nothing; correct"):
        read(tmp_path, "path,label,split\na.png,covid,train\nb.png,covid,fold 1\n")


def test_sex_and_age_stay_in_the_catalog(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{label}{place}.png" for label in "ab" for place in range(4)))
    rows = [f"{label}{place}.png,{label},{label}{place},Secretsex,97531" for label in "ab" for place in range(4)]
    (tmp_path / "films.csv").write_text("\n".join(["path,label,patient,sex,age", *rows]))
    config = ConvertConfig(
        catalog=CatalogConfig(manifest=tmp_path / "films.csv"), out=tmp_path / "out", size=32, workers=1, val=0.5,
        site_key=tmp_path / "key",
    )  # fmt: skip
    done = convert(config)
    assert {entry.sex for entry in done.catalog.entries} == {"Secretsex"}
    for path in (tmp_path / "out").iterdir():
        assert b"Secretsex" not in path.read_bytes() and b"97531" not in path.read_bytes()
    assert "97531" not in repr(done.cautions)


def test_each_spelling_belongs_to_one_column() -> None:
    spellings = " ".join(COLUMNS.values()).split()
    assert len(spellings) == len(set(spellings))
    assert all(spelling.isalnum() and spelling == spelling.casefold() for spelling in spellings)


# ---- rows of one file


def test_rows_of_one_file_that_agree_are_merged_and_counted(tmp_path: Path) -> None:
    table = "path,label,patient,view\na.png,covid,,PA\nb.png,normal,1,\n./a.png,Covid,12.0,pa\na.png,covid,12,\n"
    catalog = read(tmp_path, table)
    assert catalog.entries[0] == Entry(path="a.png", label="covid", patient="12", view="PA")
    assert len(catalog.entries) == 2
    assert caution("rows-merged", rows=4, files=2) in catalog.cautions


@pytest.mark.parametrize(
    ("column", "one", "other", "shown"),
    [("view", "PA", "LL", r" \(PA and LL\)"), ("source", "A", "B", r" \(A and B\)"),
     ("split", "train", "test", r" \(train and heldout\)"), ("patient", "12", "13", ",")],
)  # fmt: skip
def test_rows_of_one_file_that_contradict_each_other_are_refused_with_both_lines(
    tmp_path: Path, column: str, one: str, other: str, shown: str
) -> None:
    table = f"path,label,{column}\na.png,covid,{one}\nb.png,normal,{one}\na.png,covid,{other}\n"
    with pytest.raises(InputError, match=rf"lines 2 and 4 have a\.png with another {column} each{shown}"):
        read(tmp_path, table)


def test_labels_of_one_file_are_refused_or_combined_by_readers(tmp_path: Path) -> None:
    table = "image,finding,rad_id\na.png,covid,R1\na.png,normal,R2\nb.png,normal,R1\na.png,normal,R3\n"
    found = (
        r"a\.png is 'covid' \(line 2\) and 'normal' \(line 3\), expected one label; .* --readers any, majority or all"
    )
    with pytest.raises(InputError, match=found):
        read(tmp_path, table)
    for readers, label in (("any", "covid"), ("majority", "normal"), ("all", "normal")):
        assert read(tmp_path, table, readers=readers).entries[0].label == label


# ---- views


VIEWS = {
    "pa": (
        "PA",
        "pa",
        "P.A.",
        "PA erect",
        "Postero-Anterior",
        "posteroanterior",
        "CHEST PA",
        "PA view",
        "POSTERO_ANTERIOR",
        "PA supine",
    ),
    "ap": (
        "AP",
        "A-P",
        "AP Supine",
        "APS",
        "AP erect",
        "AP semi-erect",
        "AP_horizontal",
        "portable",
        "anteroposterior",
        "antero posterior",
    ),
    "frontal": ("Frontal", "front", "CHEST AP/PA"),
    "lateral": ("L", "LL", "RL", "Lateral", "left lateral", "LAT", "X-table lateral", "PA/LAT"),
    "other": ("Axial", "Coronal", "LLD", "AP LLD", "oblique", "AP lordotic", "costal"),
    "": ("", "unknown", "NA", "-", "?", "None", "Unknown view", "not specified", "#N/A", "XR CHEST 1V", "erect"),
}


@pytest.mark.parametrize("wanted", VIEWS)
def test_views_are_known_in_their_spellings(wanted: str) -> None:
    assert {spelling: projection(spelling) for spelling in VIEWS[wanted]} == dict.fromkeys(VIEWS[wanted], wanted)


@pytest.mark.parametrize(
    ("views", "kept"),
    [("frontal", "PA AP Supine Frontal "), ("pa", "PA Frontal "), ("ap", "AP Supine Frontal "),
     ("all", "PA AP Supine Frontal Lateral Axial ")],
)  # fmt: skip
def test_files_of_another_view_are_left_out_and_those_of_none_stay(tmp_path: Path, views: str, kept: str) -> None:
    stated = ("PA", "AP Supine", "Frontal", "Lateral", "Axial", "")
    rows = "".join(f"{place}.png,covid,{view}\n" for place, view in enumerate(stated))
    catalog = read(tmp_path, f"path,label,view\n{rows}", views=views)
    assert " ".join(entry.view for entry in catalog.entries if not entry.excluded) == kept
    assert {entry.kind for entry in catalog.entries if entry.excluded} <= {"other-view"}
    assert all(entry.excluded for entry in catalog.entries if entry.kind)


def test_a_table_of_other_views_alone_says_why_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no radiographs found, and 2 files that are of a view not asked for"):
        read(tmp_path, "path,label,view\na.png,covid,LL\nb.png,normal,LL\n")


def test_a_view_that_a_file_states_itself_leaves_it_out_when_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    draw(tmp_path, *(f"{label}{place}.png" for label in "ab" for place in range(4)))
    rows = [f"{label}{place}.png,{label},,{'LL' * (place == 3)}" for label in "ab" for place in range(4)]
    (tmp_path / "films.csv").write_text("\n".join(["path,label,patient,view", *rows]))
    monkeypatch.setattr(
        "loaders.convert.conversion.Row.view", property(lambda row: "LL" if "0" in row.entry.path else "")
    )
    done = plan(tmp_path / "films.csv", tmp_path / "out")
    verdicts = {row.entry.path: (row.verdict, row.kind, row.reason) for row in done.rows}
    assert verdicts["a0.png"] == ("excluded", "other-view", "lateral view")
    assert verdicts["a3.png"] == ("excluded", "other-view", "lateral view")
    assert done.counts == {"written": 4, "rejected": 0, "duplicate": 0, "excluded": 4}


def test_both_columns_of_views_of_chexpert_count(tmp_path: Path) -> None:
    table = "Path,label,Frontal/Lateral,AP/PA\na.jpg,covid,Frontal,AP\nb.jpg,covid,Lateral,\nc.jpg,covid,Frontal,\n"
    assert [entry.view for entry in read(tmp_path, table).entries] == ["AP", "Lateral", "Frontal"]
    named = read(tmp_path, table, view_column="frontal/lateral")
    assert [entry.view for entry in named.entries] == ["Frontal", "Lateral", "Frontal"]


# ---- patients in paths


@pytest.mark.parametrize(
    ("pattern", "patient"),
    [(r"(patient\d+)/", "patient00114"), (r"(\d{5})", "00114"), (r"^[^/]+/([^/]+)/", "patient00114"),
     (r"^(view\d)", "view1")],
)  # fmt: skip
def test_a_group_regex_searches_the_whole_path(tmp_path: Path, pattern: str, patient: str) -> None:
    catalog = read(tmp_path, "path,label\ntrain/patient00114/study4/view1_frontal.jpg,covid\n", group_regex=pattern)
    assert catalog.entries[0].patient == patient


def test_the_preset_of_nih_reads_the_file_name_alone(tmp_path: Path) -> None:
    table = "path,label\n00000009_000.x/00001280_004.png,covid\n00000009_000.x/b.png,covid\n"
    assert [entry.patient for entry in read(tmp_path, table, group_regex="nih").entries] == ["00001280", ""]


# ---- paths


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two roots and a folder outside, with films, and a table beside them."""
    draw(tmp_path / "one", "a0.png", "a1.png", "b0.png", "b1.png", "sub/b2.png")
    draw(tmp_path / "two", "a2.png", "a3.png", "b3.png", "a0.png")
    draw(tmp_path / "outside", "c.png")
    (tmp_path / "one" / "link.png").symlink_to(tmp_path / "two" / "b3.png")
    (tmp_path / "one" / "leak.png").symlink_to(tmp_path / "outside" / "c.png")
    (tmp_path / "alias").symlink_to(tmp_path / "two", target_is_directory=True)
    (tmp_path / "tables").mkdir()
    return tmp_path


def outcomes(places: Path, paths: list[str], *roots: str) -> dict[str, tuple[str, str]]:
    """Entry's path → verdict and kind of the files in a table, beside four that are read anyhow."""
    plain = [f"{places}/one/{name}" for name in ("a0.png", "a1.png", "b0.png", "b1.png")]
    rows = "".join(f"{path},{Path(path).name[0] if path in plain else 'a'}\n" for path in [*plain, *paths])
    (places / "tables" / "films.csv").write_text(f"path,label\n{rows}")
    done = plan(places / "tables" / "films.csv", places / "out", root=tuple(places / root for root in roots))
    return {row.entry.path: (row.verdict, row.kind) for row in done.rows[4:]}


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("sub/b2.png", "one/sub/b2.png"),
        ("a2.png", "two/a2.png"),
        ("a0.png", None),  # of the first root that has it: merged
        ("{}/two/a3.png", "two/a3.png"),
        ("{}/alias/a3.png", "two/a3.png"),
        ("{}/one/../two/a3.png", "two/a3.png"),
        ("../two/a3.png", "two/a3.png"),
        ("link.png", "one/link.png"),
        ("sub\\b2.png", "one/sub/b2.png"),
        ("./sub//b2.png", "one/sub/b2.png"),
    ],
)
def test_paths_are_looked_for_below_the_roots(places: Path, path: str, entry: str | None) -> None:
    found = outcomes(places, [path.format(places)], "one", "two")
    assert found == ({entry: ("written", "")} if entry else {})


@pytest.mark.parametrize("path", ["leak.png", "{}/outside/c.png", "../outside/c.png", "{}/one/leak.png"])
@pytest.mark.parametrize("roots", [("one",), ("one", "two")])
def test_nothing_outside_the_roots_is_read(places: Path, path: str, roots: tuple[str, ...]) -> None:
    ((verdict, kind),) = outcomes(places, [path.format(places)], *roots).values()
    assert (verdict, kind) == ("rejected", "outside-source")


def test_a_single_root_and_a_root_that_is_a_link(places: Path) -> None:
    written = ("written", "")
    assert outcomes(places, ["sub/b2.png"], "one") == {"sub/b2.png": written}
    assert outcomes(places, [f"{places}/alias/a3.png", f"{places}/two/a2.png"], "one", "alias") == {
        "two/a3.png": written, "two/a2.png": written,
    }  # fmt: skip
    assert outcomes(places, ["link.png"], "one") == {"link.png": ("rejected", "outside-source")}  # two is no root


@pytest.mark.parametrize("roots", [("one",), ("one", "two"), ()])
def test_a_file_that_is_not_there_is_not_found_and_names_the_folder(places: Path, roots: tuple[str, ...]) -> None:
    base = places / "one" if roots else places
    rows = "".join(f"{name},{name.rsplit('/')[-1][0]}\n" for name in ("a0.png", "a1.png", "b0.png", "b1.png", "ax.png"))
    table = (base.parent if roots else places / "one") / "films.csv"
    table.write_text(f"path,label\n{rows}")
    done = plan(table, places / "out", root=tuple(places / root for root in roots))
    (lost,) = (row for row in done.rows if row.verdict == "rejected")
    expected = " or ".join(str(places / root) for root in roots or ("one",))
    assert lost.kind == "not-found"
    assert lost.reason.startswith(f"not found, expected a file below {expected}; check the column of paths")
    assert "--root" in lost.reason and "permission" not in lost.reason


def test_backslashes_are_slashes_where_the_file_as_written_is_not_there(tmp_path: Path) -> None:
    draw(tmp_path, "sub/a.png", "sub\\b.png", "sub/b.png")
    table = "path,label\nsub\\a.png,covid\nsub\\b.png,normal\n"
    assert [entry.path for entry in read(tmp_path, table).entries] == ["sub/a.png", "sub\\b.png"]


def test_roots_are_folders_and_columns_belong_to_manifests(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--root: found .*lost, expected a folder; check the path"):
        read(tmp_path, "path,label\na.png,covid\n", root=(tmp_path / "lost",))
    with pytest.raises(ConfigError, match="found --view-column with S, expected them with --manifest"):
        CatalogConfig(source=Path("S"), root=(tmp_path,), view_column="x")
    with pytest.raises(ConfigError, match="found --readers with --preset nih, expected it with vindr"):
        CatalogConfig(source=Path("S"), readers="any", preset="nih")


def test_links_of_a_public_set_are_read_where_they_end_below_a_root(places: Path) -> None:
    rows = []
    (places / "set" / "images").mkdir(parents=True)
    for number, name in enumerate(("a0", "a1", "b0", "b1")):
        (places / "set" / "images" / f"{name}.png").symlink_to(places / "one" / f"{name}.png")
        rows.append(f"{name}.png,{'No Finding' if name[0] == 'a' else 'Pneumonia'},{number},PA\n")
    (places / "set" / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,View Position\n" + "".join(rows)
    )

    def converted(*roots: Path) -> Conversion:
        catalog = CatalogConfig(source=places / "set", preset="nih", root=roots)
        return convert(ConvertConfig(catalog=catalog, out=places / "B", size=32, workers=1, val=0.5, dry_run=True))

    assert converted(places / "one").counts["written"] == 4
    with pytest.raises(InputError, match=r"leads outside the source folder.*name the folder that it lies in by --root"):
        converted()


def test_an_audit_below_two_roots_is_honoured(places: Path) -> None:
    names = [f"{places}/one/{name}" for name in ("a0.png", "a1.png", "b0.png", "b1.png")] + ["a2.png"]
    (places / "tables" / "films.csv").write_text("path,label\n" + "".join(f"{n},{Path(n).name[0]}\n" for n in names))
    rows = [f"one/{Path(name).name};Keep;;{place}" for place, name in enumerate(names[:4])]
    (places / "audit.csv").write_text(
        "\r\n".join(["path;verdict;fix;group", *rows, "two/a2.png; QUARANTINE ;;9", ";;;"])
    )
    catalog = CatalogConfig(manifest=places / "tables" / "films.csv", root=(places / "one", places / "two"))
    done = convert(ConvertConfig(
        catalog=catalog, out=places / "out", size=32, workers=1, val=0.5, dry_run=True, audit=str(places / "audit.csv"),
    ))  # fmt: skip
    assert {row.entry.path: row.verdict for row in done.rows if row.verdict != "written"} == {"two/a2.png": "rejected"}


def test_chexpert_is_read_from_the_folder_above_it(tmp_path: Path) -> None:
    films = [f"CheXpert-v1.0-small/train/patient0000{n}/study1/view1_frontal.jpg" for n in range(1, 5)]
    draw(tmp_path / "data", *films)
    rows = "".join(f"{film},Male,60,Frontal,AP,{place % 2}.0\n" for place, film in enumerate(films))
    (tmp_path / "train.csv").write_text(f"Path,Sex,Age,Frontal/Lateral,AP/PA,Pneumothorax\n{rows}")
    done = plan(
        tmp_path / "train.csv", tmp_path / "out", root=(tmp_path / "data",), label_column="Pneumothorax",
        group_regex=r"(patient\d+)/",
    )  # fmt: skip
    assert done.counts["written"] == 4 and {row.patient for row in done.rows} == {
        f"patient0000{n}" for n in range(1, 5)
    }


# ---- sources


def test_sources_have_one_name_each_and_placeholders_are_none(tmp_path: Path) -> None:
    sources = ("Hospital A", "hospital  a", "Hospital A", "unknown", "#N/A", "")
    rows = "".join(f"{place}.png,{'ab'[place % 2]},{source}\n" for place, source in enumerate(sources))
    catalog = read(tmp_path, "path,label,source\n" + rows)
    assert [entry.source for entry in catalog.entries] == ["Hospital A"] * 3 + [""] * 3
    assert [one.code for one in catalog.cautions] == ["sources-joined"]


# ---- several things at once


def test_a_group_regex_searches_below_each_of_several_roots(tmp_path: Path) -> None:
    files = [f"site{site}/p{patient}/x.png" for site in (0, 1) for patient in (1, 2)]
    draw(tmp_path, *files)
    rows = "".join(f"{tmp_path / path},{'ab'[place % 2]}\n" for place, path in enumerate(files))
    roots = (tmp_path / "site0", tmp_path / "site1")
    catalog = read(tmp_path, "path,label\n" + rows, root=roots, group_regex="^([^/]+)/")
    assert [entry.patient for entry in catalog.entries] == ["p1", "p2", "p1", "p2"]


def test_columns_that_differ_in_blanks_alone_are_refused_whichever_is_named(tmp_path: Path) -> None:
    table = "path,Finding Labels,Finding  Labels\na.png,covid,normal\nb.png,normal,covid\n"
    for changes in ({}, {"label_column": "finding labels"}):
        with pytest.raises(InputError, match=r"columns (finding labels|Finding Labels and)"):
            read(tmp_path, table, **changes)


def test_two_columns_of_sex_are_none_unless_one_is_named(tmp_path: Path) -> None:
    table = "path,label,Gender,Patient Gender\na.png,covid,F,M\nb.png,normal,M,F\n"
    assert [entry.sex for entry in read(tmp_path, table).entries] == ["", ""]
    assert [entry.sex for entry in read(tmp_path, table, sex_column="gender").entries] == ["F", "M"]


def test_films_without_a_majority_are_left_out_and_counted(tmp_path: Path) -> None:
    table = "path,label,reader\na.png,covid,1\na.png,normal,2\nb.png,covid,1\nc.png,normal,1\n"
    first, *others = read(tmp_path, table, readers="majority").entries
    assert (
        first.kind == "readers-differ" and first.excluded and [entry.label for entry in others] == ["covid", "normal"]
    )


def test_a_table_of_one_split_is_refused_with_what_would_do(tmp_path: Path) -> None:
    draw(tmp_path, *(f"{label}{place}.png" for label in "ab" for place in range(4)))
    rows = [f"{label}{place}.png,{label},train" for label in "ab" for place in range(4)]
    (tmp_path / "films.csv").write_text("\n".join(["path,label,split", *rows]))
    with pytest.raises(InputError, match="no file is of split val, expected train and val; name both, or leave all"):
        plan(tmp_path / "films.csv", tmp_path / "out")
