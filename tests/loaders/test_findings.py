"""Findings: values in cells, what uncertain and empty ones become, sets of findings, and splits that keep all even."""

import csv
import gzip
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.config import AuditLimits, CatalogConfig, ConvertConfig
from loaders.convert.conversion import Conversion, conversion_parts
from loaders.convert.convert import convert
from loaders.errors import ConfigError, InputError
from loaders.sources.catalog import Catalog, read_catalog
from loaders.sources.confounding import finding_cautions
from loaders.sources.entry import ABSENT, PRESENT, UNKNOWN
from loaders.sources.finding_sets import CHEXPERT_FINDINGS, NIH_FINDINGS
from loaders.sources.findings import BLANK, UNCERTAIN, combined, read_value
from loaders.sources.split import known_groups, prevalence_gap, split_findings
from tests.loaders.test_sources import make_tree, taken, write_table
from tests.loaders.test_table_sets import label_table

SHARES = {"train": 0.6, "val": 0.2, "heldout": 0.2}
SIGNS = {ABSENT: "-", PRESENT: "+", UNKNOWN: "?"}
CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding," + ",".join(CHEXPERT_FINDINGS)


def read(table: Path, **settings: Any) -> Catalog:
    return read_catalog(CatalogConfig(manifest=table, **settings))


def read_set(source: Path, preset: str, **settings: Any) -> Catalog:
    return read_catalog(CatalogConfig(source=source, preset=preset, **settings))


def signs(catalog: Catalog) -> dict[str, str]:
    """File → a sign for each finding: present, absent or unknown; of those that take part."""
    assert catalog.task == "findings"
    return {
        Path(entry.path).stem: "".join(SIGNS[value] for value in entry.findings)
        for entry in catalog.entries
        if not entry.excluded
    }


def table_of(tmp_path: Path, text: str) -> Path:
    """A table with these lines, whose cells are parted as in its first."""
    path = tmp_path / "films.csv"
    path.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")
    return path


# ---- values and tables


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ("1|1.0|1.00|true|TRUE|Yes|y|present| Positive |1,0", PRESENT),
        ("0|0.0|False|NO|n|Absent|negative|0,0", ABSENT),
        ("-1|-1.0|-1,0|\u22121|uncertain|U|?|possible", UNCERTAIN),
        ("|nan|NaN|NA|n/a|<NA>|#N/A|null|None|--", BLANK),
        ("unknown|not stated|missing", UNKNOWN),
        ("2|0.5|-2|10|covid|1;0|11.0", None),
    ],
)
def test_cells_of_any_spelling_have_one_value(cells: str, value: int | None) -> None:
    assert {cell: read_value(cell) for cell in cells.split("|")} == dict.fromkeys(cells.split("|"), value)


def test_a_cell_that_is_no_value_is_refused_with_its_place(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,Edema,Mass\na.png,1,0\nb.png,0,maybe so")
    with pytest.raises(InputError) as refused:
        read(table, findings=("Edema", "Mass"))
    assert str(refused.value) == (
        f"{table}: line 3 has 'maybe so' in the column Mass, expected 1, 0, -1 (uncertain), nothing, true or false, "
        "yes or no, present or absent; correct it, or leave the column out of --findings"
    )


FILMS = """path,patient,No Finding,Edema,Pleural Effusion,sex,note
    a.png,p1,,1,0,F,
    b.png,p2,1,,-1,M,x
    c.png,p3,0,-1.0,,F,
    d.png,p4,1.0,,1,M,"""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"a": "+-", "b": "-?", "c": "??", "d": "-+"}),
        ({"uncertain": ("present",)}, {"a": "+-", "b": "-+", "c": "+?", "d": "-+"}),
        ({"uncertain": ("absent",), "blank": ("absent",)}, {"a": "+-", "b": "--", "c": "--", "d": "-+"}),
        ({"uncertain": ("Edema=present",)}, {"a": "+-", "b": "-?", "c": "+?", "d": "-+"}),
        ({"uncertain": ("present", "edema=absent")}, {"a": "+-", "b": "-+", "c": "-?", "d": "-+"}),
        ({"blank": ("absent", "pleural_effusion=unknown")}, {"a": "+-", "b": "-?", "c": "??", "d": "-+"}),
    ],
)
def test_policies_decide_uncertain_and_empty_cells_but_no_finding_makes_empty_ones_absent(
    tmp_path: Path, settings: dict[str, Any], expected: dict[str, str]
) -> None:
    catalog = read(table_of(tmp_path, FILMS), findings=("all",), **settings)
    assert catalog.classes == ("Edema", "Pleural Effusion") and signs(catalog) == expected
    assert caution("no-finding-cells", cells=2) in catalog.cautions
    (blank,) = (one for one in catalog.cautions if one.code == "blank-cells")
    (uncertain,) = (one for one in catalog.cautions if one.code == "uncertain-cells")
    assert blank.parameters["cells"] == [f"Pleural Effusion as {catalog.blank['Pleural Effusion']} (1)"]
    assert uncertain.parameters["cells"] == [f"{name} as {catalog.uncertain[name]} (1)" for name in catalog.classes]


def test_all_takes_columns_of_values_alone_and_says_so_and_names_are_found_in_any_spelling(tmp_path: Path) -> None:
    table = table_of(tmp_path, FILMS)
    assert caution("findings-taken", findings=["Edema", "Pleural Effusion"]) in read(table, findings=("all",)).cautions
    chosen = read(table, findings=("pleural_effusion", " EDEMA "))
    assert chosen.classes == ("pleural_effusion", " EDEMA ") and signs(chosen)["a"] == "-+"
    assert not {"findings-taken"} & {one.code for one in chosen.cautions}


def test_findings_are_translated_and_several_become_one_that_is_absent_where_all_are(tmp_path: Path) -> None:
    rows = ["a,1,0,0", "b,0,0,1", "c,0,,0", "d,-1,1,0", "e,0,-1,"]
    table = table_of(tmp_path, "path,Nodule,Mass,Edema\n" + "\n".join(f"{row[0]}.png{row[1:]}" for row in rows))
    pairs = ("Nodule=lesion", "mass=lesion")
    catalog = read(table, findings=("lesion",), map_label=pairs)
    assert signs(catalog) == {"a": "+", "b": "-", "c": "?", "d": "+", "e": "?"}
    assert caution("labels-translated", labels=["Nodule = lesion (1)", "Mass = lesion (1)"]) in catalog.cautions
    assert read(table, findings=("all",), map_label=pairs).classes == ("lesion", "Edema")
    with pytest.raises(InputError, match=r"--map-label 'Rib=x', but no file has that label, expected some of .*Mass"):
        read(table, findings=("all",), map_label=("Rib=x",))


LISTS = """path,Finding Labels
    a.png,Edema|Effusion
    b.png,No Finding
    c.png,
    d.png,effusion | Mass
    e.png,unknown
    f.png,Edema|Nothing else"""


def test_a_column_of_lists_names_what_is_present_and_no_finding_means_none_is(tmp_path: Path) -> None:
    table = table_of(tmp_path, LISTS)
    catalog = read(table, separator="|")
    assert catalog.classes == ("Edema", "Effusion", "Mass", "Nothing else")
    assert signs(catalog) == {"a": "++--", "b": "----", "c": "????", "d": "-++-", "e": "????", "f": "+--+"}
    chosen = read(table, separator="|", findings=("mass", "Edema"), blank=("absent",))
    assert signs(chosen) == {"a": "-+", "b": "--", "c": "--", "d": "+-", "e": "??", "f": "-+"}
    translated = read(table, separator="|", map_label=("Effusion=Fluid", "Mass=Fluid"), findings=("Fluid",))
    assert signs(translated)["a"] == signs(translated)["d"] == "+" and signs(translated)["b"] == "-"


def test_lists_as_programs_write_them_are_read(tmp_path: Path) -> None:
    rows = "a.png;['pleural effusion', 'nodule ']\nb.png;['normal']\nc.png;[]"
    catalog = read(table_of(tmp_path, f"path;labels\n{rows}"), separator=",")
    assert catalog.classes == ("nodule", "pleural effusion")
    assert signs(catalog) == {"a": "++", "b": "--", "c": "??"}


@pytest.mark.parametrize(
    ("text", "settings", "kind", "found"),
    [
        (
            FILMS,
            {"findings": ("Oedema",)},
            ConfigError,
            "--findings: found 'Oedema', expected some of .*Edema, Pleural",
        ),
        (FILMS, {"findings": ("No Finding",)}, ConfigError, "found No Finding, expected findings: .*leave it out"),
        (FILMS, {"findings": ("note",)}, InputError, "line 3 has 'x' in the column note"),
        (
            FILMS,
            {"findings": ("all",), "uncertain": ("Rib=present",)},
            ConfigError,
            "--uncertain: found Rib=present, exp",
        ),
        (
            "path,label\na.png,x",
            {"findings": ("all",)},
            InputError,
            "columns path, label, of which none has only values",
        ),
        ("path,Edema\na.png,\nb.png,NA", {"findings": ("all",)}, InputError, "none has only values of findings"),
        ("path,Edema", {"findings": ("Edema",)}, InputError, "no radiographs found"),
        ("path,Edema,edema \na.png,1,0", {"findings": ("Edema",)}, InputError, "2 columns Edema, but for case, blanks"),
        (
            "Edema,Mass\n1,0",
            {"findings": ("all",)},
            InputError,
            "columns edema, mass, expected at least path; name them",
        ),
        ("path,label\na.png,No Finding", {"separator": "|"}, InputError, "no labels but No Finding or nothing"),
        (
            LISTS,
            {"separator": "|", "findings": ("Hernia",)},
            ConfigError,
            "found 'Hernia', expected some of Edema, Eff",
        ),
        (LISTS, {"separator": "|", "findings": ("normal",)}, ConfigError, "found normal, expected findings"),
        ("path,=Edema\na.png,1", {"findings": ("all",)}, InputError, "finding '=Edema', expected a name that a spread"),
    ],
)
def test_tables_without_what_is_asked_for_are_refused_with_a_remedy(
    tmp_path: Path, text: str, settings: dict[str, Any], kind: type[Exception], found: str
) -> None:
    with pytest.raises(kind, match=found):
        read(table_of(tmp_path, text), **settings)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfPath,Edema , Mass\r\na.png,1.0,\r\nb.png,-1.0,0\r\n",
        b"Path; Edema;Mass\na.png;1,0;\nb.png;-1,0;0,0\n",
        "Path\tEdema\tMass\na.png\tTRUE\nb.png\t?\tFALSE\n".encode("utf-16"),
        gzip.compress(b'"Path","Edema","Mass"\n"a.png","yes",""\n"b.png","-1","no"\n', mtime=0),
    ],
    ids=("byte order mark", "semicolons", "UTF-16", "gzip"),
)
def test_tables_of_any_dialect_are_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "films.csv").write_bytes(data)
    assert signs(read(tmp_path / "films.csv", findings=("all",))) == {"a": "+?", "b": "?-"}


def test_a_finding_that_is_never_certain_is_unknown_everywhere(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,Edema,Mass\na.png,-1,1\nb.png,-1,0")
    assert signs(read(table, findings=("all",))) == {"a": "?+", "b": "?-"}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"uncertain": ("present",)}, "found --uncertain without findings, expected it with --findings"),
        (
            {"findings": ("a",), "uncertain": ("maybe",)},
            "--uncertain: found 'maybe', expected unknown, present, absent,",
        ),
        (
            {"findings": ("a",), "blank": ("present",)},
            "--blank: found 'present', expected unknown, absent, or FINDING=",
        ),
        ({"findings": ("a",), "blank": ("absent", "unknown")}, "--blank: found 'absent,unknown', expected .*'unknown'"),
        ({"findings": ("a",), "blank": ("=absent",)}, "--blank: found '=absent'"),
        ({"findings": ("a", "a")}, "--findings: found a,a, expected each once"),
        ({"findings": ("a", "all")}, "--findings: found a,all, expected names, or all alone"),
        ({"findings": ("a",), "classes": ("b",)}, "found --classes with findings, expected --findings alone"),
        ({"findings": ("a",), "label_column": "b"}, "found --label-column with --findings, expected --separator with"),
        ({"separator": ""}, "--separator: found empty"),
        (
            {"manifest": None, "source": Path(), "findings": ("a",)},
            "found findings, .* with ., expected them",
        ),
        ({"manifest": None, "source": Path(), "preset": "rsna", "findings": ("a",)}, "found findings, .* with rsna"),
        ({"manifest": None, "source": Path(), "separator": "|"}, "--separator: found with ., expected what parts"),
        (
            {"manifest": None, "source": Path(), "preset": "chexpert", "classes": ("a",)},
            "found --classes with findings",
        ),
    ],
)
def test_settings_of_findings_that_do_not_fit_are_refused(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        CatalogConfig(**{"manifest": Path("films.csv"), **settings})


def test_each_finding_is_its_own_positive_class(tmp_path: Path) -> None:
    catalog = CatalogConfig(manifest=tmp_path / "films.csv", findings=("Edema",))
    with pytest.raises(ConfigError, match=r"found --positive Edema with findings, expected none: .*; leave it out"):
        ConvertConfig(catalog=catalog, out=tmp_path / "out", positive="Edema")


# ---- studies and readers


def test_a_row_that_names_a_study_is_of_each_film_in_it(tmp_path: Path) -> None:
    make_tree(tmp_path, "p1/s1/a.png", "p1/s1/b.png", "p2/s2/c.jpg", "p2/s2/report.txt", "p3/d.png")
    table = table_of(tmp_path, "study,patient,Edema\np1/s1,p1,1\np2/s2/,p2,0\np3/d.png,p3,\np4/s4,p4,1")
    catalog = read(table, findings=("Edema",), path_column="study")
    assert signs(catalog) == {"a": "+", "b": "+", "c": "-", "d": "?", "s4": "+"}
    assert {entry.patient for entry in catalog.entries} == {"p1", "p2", "p3", "p4"}
    assert caution("studies-taken", films=3) in catalog.cautions


READERS = """path,reader,Edema,Mass
    a.png,R1,1,0
    a.png,R2,0,0
    a.png,R3,1,
    b.png,R1,0,1
    b.png,R2,1,1
    c.png,R1,-1,
    c.png,R2,,"""


@pytest.mark.parametrize(
    ("readers", "expected"),
    [("any", {"a": "+-", "b": "++", "c": "??"}), ("majority", {"a": "+-", "b": "?+", "c": "??"}),
     ("all", {"a": "--", "b": "-+", "c": "??"})],
)  # fmt: skip
def test_readers_are_combined_by_finding_over_those_who_know_it(
    tmp_path: Path, readers: str, expected: dict[str, str]
) -> None:
    table = table_of(tmp_path, READERS)
    assert signs(read(table, findings=("all",), readers=readers)) == expected
    with pytest.raises(InputError, match=r"a.png has Edema present \(line 4\) and absent \(line 3\), expected one of"):
        read(table, findings=("all",))
    assert combined([UNKNOWN, UNKNOWN], "any") == UNKNOWN and combined([UNKNOWN, PRESENT], "all") == PRESENT


def test_rows_that_agree_fill_one_another_and_boxes_of_one_reader_are_one_opinion(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,Edema,Mass\na.png,1,\na.png,,0\na.png,-1,\nb.png,,\nb.png,-1,")
    assert signs(read(table, findings=("all",), uncertain=("Edema=absent",))) == {"a": "+-", "b": "-?"}
    boxes = "a.png,R1,Edema\na.png,R1,Mass\na.png,R2,No finding\nb.png,R1,Mass"
    table = table_of(tmp_path, f"path,reader,label\n{boxes}")
    assert signs(read(table, separator="|", readers="any")) == {"a": "++", "b": "-+"}
    with pytest.raises(InputError, match=r"a.png has Edema present .line 2. and absent .line 4."):
        read(table, separator="|")


# ---- conversions


def films(folder: Path, rows: Mapping[str, str], header: str, same: Mapping[str, str] | None = None) -> Path:
    """Small films, and a table with these rows.  same: film → another, whose pixels it has."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(rows):
        grey_HW = np.random.default_rng(place).integers(0, 256, (40, 40)).astype(np.uint8)
        Image.fromarray(grey_HW).save(folder / name)
    for copy, name in (same or {}).items():
        (folder / copy).write_bytes((folder / name).read_bytes())
    write_table(folder / "films.csv", header, *(f"{name},{cells}" for name, cells in rows.items()))
    return folder / "films.csv"


def converted(table: Path, out: Path, like: Path | None = None, **settings: Any) -> Conversion:
    settings = {"findings": ("all",)} | settings if like is None else settings
    catalog = CatalogConfig(manifest=table, **settings)
    return convert(
        ConvertConfig(catalog=catalog, out=out, like=like, size=32, workers=1, site_key=table.parent.parent / "key")
    )


ROWS = {f"{k}.png": f"p{k // 2},{k % 2},{('', '1', '0', '-1')[k % 4]}" for k in range(40)}
HEADER = "path,patient,Edema,Mass"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Conversion:
    folder = tmp_path_factory.mktemp("findings")
    return converted(films(folder / "s", ROWS, HEADER), folder / "B", uncertain=("present",))


def test_findings_reach_the_betons_with_their_names_and_what_was_done(example: Conversion) -> None:
    values: Counter[str] = Counter()
    for split in ("train", "val"):
        with Beton(example.out / f"{split}.beton") as beton:
            facts = beton.facts
            assert facts.task == "findings" and facts.classes == ("Edema", "Mass") and facts.positive == ""
            assert facts.uncertain == {"Edema": "present", "Mass": "present"}
            assert facts.blank == {"Edema": "unknown", "Mass": "unknown"}
            values.update("".join("?" if value != value else "-+"[int(value)] for value in row) for row in beton.labels)
            assert example.samples[split] == dict(zip(facts.classes, (beton.labels == 1).sum(0).tolist(), strict=True))
    assert values == {"-?": 10, "++": 20, "--": 10}
    text = "\n".join(map(str, conversion_parts(example)))
    assert "prevalence differs most between splits in" in text and "positive class" not in text


def test_convert_csv_lists_present_and_unknown_findings(example: Conversion) -> None:
    with (example.out / "convert.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert [rows[f"{k}.png"]["label"] for k in range(4)] == ["", "Edema|Mass", "", "Edema|Mass"]
    assert [rows[f"{k}.png"]["unknown"] for k in range(4)] == ["Mass", "", "", ""]
    for name in ("preparation.png", "augmentation.png"):
        with Image.open(example.out / name) as picture:
            assert picture.height > 400  # two findings, a film each


def test_the_conversion_is_another_if_one_value_is(example: Conversion, tmp_path: Path) -> None:
    def facts(out: Path) -> tuple[str, str]:
        with Beton(out / "train.beton") as beton:
            return beton.facts.conversion_id, beton.facts.source_fingerprint

    table = films(tmp_path / "s", ROWS | {"0.png": "p0,0,0"}, HEADER)
    (tmp_path / "key").write_bytes((example.out.parent / "key").read_bytes())
    (tmp_path / "key").chmod(0o600)
    changed = converted(table, tmp_path / "B", uncertain=("present",))
    films(tmp_path / "s", ROWS, HEADER)
    again = converted(table, tmp_path / "C", uncertain=("present",))
    assert facts(again.out) == facts(example.out)
    assert not set(facts(changed.out)) & set(facts(example.out))


def test_copies_share_what_is_known_of_them_and_contradictions_are_unknown(tmp_path: Path) -> None:
    rows = ROWS | {"x.png": "p50,1,", "y.png": "p51,0,1", "z.png": "p52,,1"}
    table = films(tmp_path / "s", rows, HEADER, {"y.png": "x.png", "z.png": "x.png"})
    done = converted(table, tmp_path / "B")
    kept = {row.entry.path: row for row in done.rows if row.verdict == "written"}
    assert done.counts["duplicate"] == 2 and "x.png" in kept
    assert kept["x.png"].entry.findings == bytes([UNKNOWN, PRESENT])
    assert caution("copies-contradict", films=1) in done.cautions


def test_splits_without_a_finding_are_named_and_never_refused(tmp_path: Path) -> None:
    rows = {f"{k}.png": f"p{k},{int(k == 0)},{k % 2}" for k in range(40)}
    done = converted(films(tmp_path / "s", rows, HEADER), tmp_path / "B")
    few = {
        one.parameters["split"]: one.parameters["findings"] for one in done.cautions if one.code == "findings-undefined"
    }
    assert few == {"val": ["Edema", "Mass"]} and done.samples["val"]["Edema"] == 0
    assert done.findings.finding in ("Edema", "Mass")


def test_an_audit_of_findings_quarantines_copies_that_contradict_each_other(tmp_path: Path) -> None:
    rows = ROWS | {"x.png": "p50,1,"}
    table = films(tmp_path / "s", rows, HEADER, {"x.png": "0.png"})
    catalog = CatalogConfig(manifest=table, findings=("all",))
    lenient = {"limit_not_a_radiograph": 1, "limit_lateral": 1, "limit_low_resolution": 1e6, "limit_exposure": 1e6}
    limits = AuditLimits(**{name: 1e6 for name in AuditLimits.__slots__ if name != "limit_near_duplicate"} | lenient)
    done = convert(
        ConvertConfig(catalog=catalog, out=tmp_path / "B", size=32, workers=1, audit="auto", limits=limits,
                      site_key=tmp_path / "key")
    )  # fmt: skip
    conflicts = {row.entry.path for row in done.rows if "label-conflict" in row.kind}
    assert done.counts["rejected"] == 2 and conflicts == {"0.png", "x.png"}


def test_a_collection_that_lacks_a_finding_has_it_unknown_in_a_test_set(example: Conversion, tmp_path: Path) -> None:
    rows = {f"{k}.png": f"q{k},{k % 2}" for k in range(6)}
    table = films(tmp_path / "s", rows, "path,patient,Oedema")
    done = converted(table, tmp_path / "E", like=example.out / "train.beton", map_label=("Oedema=Edema",))
    assert done.catalog.classes == ("Edema", "Mass") and caution("findings-lacking", findings=["Mass"]) in done.cautions
    with Beton(done.out / "heldout.beton") as beton:
        assert beton.facts.task == "findings" and sorted(beton.labels[:, 0].tolist()) == [0, 0, 0, 1, 1, 1]
        assert np.isnan(beton.labels[:, 1]).all()
    with pytest.raises(
        InputError, match=r"findings .*Oedema, expected some of Edema, Mass; translate them with --map-l"
    ):
        converted(table, tmp_path / "F", like=example.out / "train.beton")
    with pytest.raises(ConfigError, match=r"--findings: found Oedema, expected Edema,Mass as of .*; leave it out"):
        converted(table, tmp_path / "F", like=example.out / "train.beton", findings=("Oedema",))


def test_lists_without_a_finding_of_the_target_leave_it_unknown(example: Conversion, tmp_path: Path) -> None:
    table = films(tmp_path / "s", {"0.png": "q1,Edema", "1.png": "q2,No Finding", "2.png": "q3,"}, "path,patient,label")
    done = converted(
        table, tmp_path / "E", like=example.out / "val.beton", separator="|", findings=("all",), blank=("absent",)
    )
    assert signs(done.catalog) == {"0": "+?", "1": "-?", "2": "-?"}


# ---- public sets


def chexpert(root: Path, rows: Mapping[str, str], name: str = "train") -> None:
    """Rows of CheXpert: patient/study/view → cells behind Path."""
    full = {f"CheXpert-v1.0-small/{name}/{film}.jpg": cells for film, cells in rows.items()}
    make_tree(root, *full)
    write_table(
        root / "CheXpert-v1.0-small" / f"{name}.csv",
        CHEXPERT_HEADER,
        *(f"{path},{cells}" for path, cells in full.items()),
    )


def test_chexpert_takes_its_papers_policies_and_holds_its_200_patients_out(tmp_path: Path) -> None:
    uncertain = ",".join(["-1.0"] * 13)
    chexpert(tmp_path, {"patient00001/study1/view1_frontal": f"Male,60,Frontal,AP,,{uncertain}",
                        "patient00001/study1/view2_lateral": f"Male,60,Lateral,,1.0,{',' * 12}",
                        "patient00002/study1/view1_frontal": f"Female,0,Frontal,PA,,{',' * 12}"})  # fmt: skip
    chexpert(
        tmp_path, {"patient64541/study1/view1_frontal": "Male,7,Frontal,AP,0.0," + ",".join(["1.0"] * 13)}, "valid"
    )
    for source in (tmp_path, tmp_path / "CheXpert-v1.0-small"):
        catalog = read_set(source, "chexpert")
        assert catalog.classes == CHEXPERT_FINDINGS
        own = {entry.patient: entry for entry in catalog.entries if not entry.excluded}
        assert [SIGNS[value] for value in own["chexpert-patient00001"].findings] == list("?-??+??+?+???")
        assert own["chexpert-patient00002"].findings == bytes([ABSENT] * 13)
        assert own["chexpert-patient64541"].split == "heldout" and own["chexpert-patient00001"].split == ""
        assert [entry.kind for entry in catalog.entries if entry.excluded] == ["other-view"]
    five = read_set(
        tmp_path, "chexpert", findings=("edema", "Fracture"), uncertain=("edema=unknown",), blank=("unknown",)
    )
    assert five.uncertain == {"edema": "unknown", "Fracture": "unknown"} and five.classes == ("edema", "Fracture")
    renamed = read_set(tmp_path, "chexpert", map_label=("Pleural Effusion=Effusion",))
    assert renamed.uncertain["Effusion"] == "present" and "Pleural Effusion" not in renamed.classes


POLICIES: list[dict[str, Any]] = [
    *({"uncertain": (uncertain,), "blank": (blank,)} for uncertain in ("unknown", "present", "absent")
      for blank in ("unknown", "absent")),
    {"uncertain": ("unknown", "Edema=present", "Atelectasis=absent"), "blank": ("absent", "Fracture=unknown")},
    {},
]  # fmt: skip


@pytest.mark.radiographs
@pytest.mark.parametrize("settings", POLICIES)
def test_each_policy_gives_the_counts_of_chexperts_table(
    radiographs: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    table, rows = label_table(radiographs, "chexpert_train.csv")
    for path in {row["Path"] for row in rows}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "CheXpert-v1.0-small" / "train.csv").write_bytes(table.read_bytes())
    catalog = read_set(tmp_path, "chexpert", **settings)
    frontal = [row for row in rows if row["Frontal/Lateral"] == "Frontal"]
    signs_of = [entry.findings for entry in catalog.entries if not entry.excluded]
    assert len(signs_of) == len(frontal)
    for place, name in enumerate(CHEXPERT_FINDINGS):
        decided = {"-1.0": catalog.uncertain[name], "": catalog.blank[name], "1.0": "present", "0.0": "absent"}
        expected = Counter(
            "absent" if row["No Finding"] == "1.0" and not row[name] else decided[row[name]] for row in frontal
        )
        found = Counter(("absent", "present", "unknown")[values[place]] for values in signs_of)
        assert found == expected
    beside = sum(not row[name] for row in frontal if row["No Finding"] == "1.0" for name in CHEXPERT_FINDINGS)
    assert caution("no-finding-cells", cells=beside) in catalog.cautions
    uncertain = {name: sum(row[name] == "-1.0" for row in frontal) for name in CHEXPERT_FINDINGS}
    cells = [f"{name} as {catalog.uncertain[name]} ({number})" for name, number in uncertain.items() if number]
    assert caution("uncertain-cells", cells=cells) in catalog.cautions


@pytest.mark.radiographs
def test_chexperts_table_with_small_images_becomes_betons(radiographs: Path, tmp_path: Path) -> None:
    table, rows = label_table(radiographs, "chexpert_train.csv")
    make_tree(tmp_path / "s", *(row["Path"] for row in rows))
    (tmp_path / "s" / "CheXpert-v1.0-small" / "train.csv").write_bytes(table.read_bytes())
    catalog = CatalogConfig(source=tmp_path / "s", preset="chexpert")
    done = convert(
        ConvertConfig(catalog=catalog, out=tmp_path / "B", size=32, workers=1, holdout=0.2, site_key=tmp_path / "key")
    )
    assert done.counts["written"] == sum(row["Frontal/Lateral"] == "Frontal" for row in rows)
    present = sum(done.samples[split]["Support Devices"] for split in done.samples)
    assert present == sum(row["Support Devices"] == "1.0" for row in rows if row["Frontal/Lateral"] == "Frontal")
    assert done.findings.gap < 0.12


@pytest.mark.radiographs
def test_nihs_films_have_the_same_findings_from_their_table_and_from_their_layout(
    radiographs: Path, tmp_path: Path
) -> None:
    table = radiographs / "nih_labels.csv"
    by_table = read(
        table, root=(radiographs,), label_column="Finding Labels", separator="|", patient_column="Patient ID"
    )
    write_table(tmp_path / "Data_Entry_2017.csv", *table.read_text(encoding="utf-8-sig").splitlines())
    (tmp_path / "images").mkdir()
    for name in signs(by_table):
        (tmp_path / "images" / f"{name}.png").touch()
    by_layout = read_set(tmp_path, "nih", findings=("all",))
    assert by_layout.classes == by_table.classes == tuple(NIH_FINDINGS)
    assert signs(by_layout) == signs(by_table) and len(signs(by_table)) == 296


def test_nih_has_its_14_findings_where_they_are_asked_for_and_classes_as_ever(tmp_path: Path) -> None:
    header = "Image Index,Finding Labels,Patient ID,View Position"
    rows = ("00000001_000.png,Effusion|Pleural_Thickening,1,PA", "00000002_000.png,No Finding,2,AP",
            "00000003_000.png,Pneumonia,3,PA")  # fmt: skip
    make_tree(tmp_path, *(f"images/{row.split(',')[0]}" for row in rows))
    write_table(tmp_path / "Data_Entry_2017.csv", header, *rows)
    every = read_set(tmp_path, "nih", findings=("all",))
    assert every.classes == tuple(NIH_FINDINGS) and list(signs(every).values()) == [
        "----+------+--", "-" * 14, "-" * 12 + "+-",
    ]  # fmt: skip
    chosen = read_set(tmp_path, "nih", findings=("Hernia", "pleural thickening"))
    assert chosen.classes == ("Hernia", "pleural thickening") and list(signs(chosen).values()) == ["-+", "--", "--"]
    assert sorted(taken(read_set(tmp_path, "nih")).values()) == ["normal", "pneumonia"]


def test_mimics_findings_of_a_study_are_of_each_film_and_its_split_is_kept(tmp_path: Path) -> None:
    names = [f"files/p10/p1000003{k}/s5041426{k}/{film}.jpg" for k, film in enumerate(("a-1", "b-2", "c-3"))]
    make_tree(tmp_path, *names, "files/p10/p10000030/s50414260/d-4.jpg")
    findings = ",".join(reversed(CHEXPERT_FINDINGS))
    cells = ("1.0" + "," * 12, "," * 12 + "-1.0")
    rows = [f"1000003{k},5041426{k},{cells[k]},{('', '1.0')[k]}" for k in range(2)]
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(
        gzip.compress("\n".join([f"subject_id,study_id,{findings},No Finding", *rows]).encode())
    )
    films = [("a-1", 0, "AP"), ("d-4", 0, "LATERAL"), ("b-2", 1, "PA"), ("c-3", 2, "AP"), ("lost", 1, "AP")]
    write_table(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv", "dicom_id,subject_id,study_id,ViewPosition",
        *(f"{film},1000003{k},5041426{k},{view}" for film, k, view in films),
    )  # fmt: skip
    write_table(
        tmp_path / "mimic-cxr-2.0.0-split.csv", "dicom_id,study_id,subject_id,split",
        "a-1,50414260,10000030,train", "d-4,50414260,10000030,train", "b-2,50414261,10000031,validate",
    )  # fmt: skip
    catalog = read_set(tmp_path, "mimic", findings=("Support Devices", "Enlarged Cardiomediastinum", "Edema"))
    assert signs(catalog) == {"a-1": "+??", "b-2": "-?-"}
    assert {entry.split for entry in catalog.entries if not entry.excluded} == {"train", "val"}
    kinds = {Path(entry.path).stem: entry.kind for entry in catalog.entries if entry.excluded}
    assert kinds == {"d-4": "other-view", "c-3": "unlisted", "lost": "missing"}


def test_padchest_has_nihs_findings_in_its_own_labels_and_all_of_its_own_if_asked(tmp_path: Path) -> None:
    lists = {
        "a": "['laminar atelectasis', 'pleural effusion ', 'scoliosis']",
        "b": "['normal']",
        "c": "['unchanged', 'nodule']",
        "d": "",
        "e": "['normal']",
    }
    make_tree(tmp_path, *(f"0/{name}.png" for name in lists))
    rows = [
        f'{k},{name}.png,0,20140915,P{k},1954,M,{"EXCLUDE" if name == "e" else "PA"},"{cell}"'
        for k, (name, cell) in enumerate(lists.items())
    ]
    header = ",ImageID,ImageDir,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels"
    write_table(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, *rows)
    catalog = read_set(tmp_path, "padchest")
    found = {film: dict(zip(catalog.classes, own, strict=True)) for film, own in signs(catalog).items()}
    assert catalog.classes == tuple(NIH_FINDINGS) and found.keys() == set("abcd")
    assert {name for name, sign in found["a"].items() if sign == "+"} == {"Atelectasis", "Effusion"}
    assert set(found["b"].values()) == {"-"} and set(found["d"].values()) == {"?"}
    assert found["c"].pop("Nodule") == "+" and set(found["c"].values()) == {"?"}
    assert {entry.age for entry in catalog.entries} == {"60"}
    every = read_set(tmp_path, "padchest", findings=("all",))
    assert every.classes == ("laminar atelectasis", "nodule", "pleural effusion", "scoliosis")


def test_brax_takes_the_png_of_a_film_and_its_dicom_file_only_without(tmp_path: Path) -> None:
    files = ["images/id_1/Study_1/Series_1/image-1.png", "Anonymized_DICOMs/id_1/Study_1/Series_1/image-1.dcm",
             "Anonymized_DICOMs/id_2/Study_2/Series_2/image-2.dcm"]  # fmt: skip
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    rows = [f"{files[k or 1]},images/id_{k + 1}/Study_{k + 1}/Series_{k + 1}/image-{k + 1}.png,id_{k + 1},M,60,"
            f"{'1' if k else ''},{',' * 12},PA" for k in (0, 2)]  # fmt: skip
    rows[1] = rows[1].replace("id_3", "id_2").replace("Study_3", "Study_2").replace("Series_3", "Series_2")
    header = f"DicomPath,PngPath,PatientID,PatientSex,PatientAge,No Finding,{','.join(CHEXPERT_FINDINGS)},ViewPosition"
    write_table(tmp_path / "master_spreadsheet_update.csv", header, *rows)
    catalog = read_set(tmp_path, "brax", findings=("Edema",))
    assert signs(catalog) == {"image-1": "?", "image-2": "-"}
    assert {entry.path for entry in catalog.entries if not entry.excluded} == {files[0], files[2]}
    assert {entry.path: entry.kind for entry in catalog.entries if entry.excluded} == {files[1]: "same-name"}


@pytest.mark.parametrize(("readers", "expected"), [(None, "+-"), ("any", "++"), ("all", "--")])
def test_vindrs_readers_are_combined_by_finding_by_majority_unless_said(
    tmp_path: Path, readers: str | None, expected: str
) -> None:
    make_tree(tmp_path, "train/f0.png", "test/f1.png")
    boxes = ("f0,Nodule,R1", "f0,Nodule,R1", "f0,Effusion,R1", "f0,Nodule,R2", "f0,No finding,R3")
    write_table(tmp_path / "annotations" / "annotations_train.csv", "image_id,class_name,rad_id", *boxes)
    test = ("f1,Nodule", "f1,Effusion")
    write_table(tmp_path / "annotations" / "annotations_test.csv", "image_id,class_name", *test)
    settings = {"findings": ("Nodule", "Effusion")} | ({"readers": readers} if readers else {})
    catalog = read_set(tmp_path, "vindr", **settings)
    assert signs(catalog) == {"f0": expected, "f1": "++"}
    assert {Path(entry.path).stem: entry.split for entry in catalog.entries} == {"f0": "", "f1": "heldout"}


@pytest.mark.parametrize(
    ("preset", "missing"),
    [("chexpert", "train.csv"), ("mimic", "mimic-cxr-2.0.0-chexpert.csv"), ("padchest", "PADCHEST_chest"),
     ("brax", "master_spreadsheet_update.csv")],
)  # fmt: skip
def test_a_set_of_findings_without_its_table_is_refused(tmp_path: Path, preset: str, missing: str) -> None:
    with pytest.raises(InputError, match=rf"{missing}.*: not found, expected the set's table of images; unpack"):
        read_set(tmp_path, preset)


@pytest.mark.parametrize(
    ("preset", "table", "header"),
    [
        ("mimic", "mimic-cxr-2.0.0-chexpert.csv", "subject_id,study_id,Atelectasis,No Finding"),
        ("padchest", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", ",ImageID,PatientID,Projection,Labels"),
        ("brax", "master_spreadsheet_update.csv", "DicomPath,PngPath,PatientID,No Finding"),
    ],
)
def test_the_folder_of_a_set_of_findings_is_known_by_its_table(
    tmp_path: Path, preset: str, table: str, header: str
) -> None:
    make_tree(tmp_path, "p10/a.png", "p11/b.png")
    write_table(tmp_path / table, header)
    with pytest.raises(InputError, match=f"looks like the public set {preset}, .* use --preset {preset}"):
        read_catalog(CatalogConfig(source=tmp_path))


def test_films_with_the_same_findings_share_them(tmp_path: Path) -> None:
    rows = "\n".join(f"{k}.png,{k % 2},{('', '-1', '1')[k % 3]}" for k in range(600))
    entries = read(table_of(tmp_path, f"path,Edema,Mass\n{rows}"), findings=("all",)).entries
    assert len({id(entry.findings) for entry in entries}) == len({entry.findings for entry in entries}) == 4


# ---- sources


def test_findings_that_the_source_tells_are_named_and_those_of_one_source() -> None:
    rng, sources = np.random.default_rng(0), ["ab"[film % 2] for film in range(400)]
    value_NK = rng.integers(0, 2, (400, 4)).astype(np.float32)
    own_N = np.arange(400) % 2
    value_NK[:, 1] = own_N  # the source itself
    value_NK[:, 2] = np.where(rng.random(400) < 0.75, own_N, 1 - own_N)
    value_NK[own_N == 0, 3] = np.nan  # known of one source alone
    found = finding_cautions(("even", "own", "near", "lonely"), value_NK, sources, np.arange(400))
    assert found == [
        caution("findings-confounded-with-source", findings=["own"]),
        caution("findings-near-source", findings=["near"], accuracy=0.6),
        caution("findings-of-one-source", findings=["lonely"]),
    ]
    assert finding_cautions(("own",), value_NK[:, 1:2], ["a"] * 400, np.arange(400)) == []
    for few in (1, 4, 5):  # groups with it, all of one source: by chance, or not
        value_N1 = (np.arange(400) < few).astype(np.float32)[:, None]
        alone = finding_cautions(("rare",), value_N1, ["own"] * few + ["other"] * (400 - few), np.arange(400))
        assert [one.code for one in alone] == (["findings-confounded-with-source"] if few == 5 else [])


# ---- splits


def films_of(patients: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of one to five films, and five findings, of prevalence 0.01 to 0.4, a third of them unknown."""
    rng = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(patients), rng.integers(1, 6, patients))
    finding_NK = (rng.random((patients, 5)) < (0.01, 0.03, 0.1, 0.2, 0.4)).astype(np.float32)[group_N]
    finding_NK[rng.random(finding_NK.shape) < 1 / 3] = np.nan
    return group_N, finding_NK


def test_splits_keep_patients_whole_and_every_finding_even() -> None:
    group_N, finding_NK = films_of(1200)
    splits = np.array(split_findings(group_N, finding_NK, SHARES, 1))
    assert all(len(set(splits[group_N == group])) == 1 for group in range(1200))
    for name, share in SHARES.items():
        assert (splits == name).mean() == pytest.approx(share, abs=0.005)
        known_N = ~np.isnan(finding_NK)
        assert known_N[splits == name].sum(0) / known_N.sum(0) == pytest.approx(share, abs=0.01)
    gap, finding = prevalence_gap(finding_NK, splits.tolist())
    drawn = np.random.default_rng(0).choice(list(SHARES), 1200, p=list(SHARES.values()))[group_N]
    assert gap < 0.01 < prevalence_gap(finding_NK, drawn.tolist())[0]
    of_split = [np.nanmean(finding_NK[splits == name, finding]) for name in SHARES]
    assert gap == pytest.approx(np.ptp(of_split), abs=1e-6)


def test_a_split_of_findings_is_a_function_of_the_seed_whatever_groups_are_called() -> None:
    group_N, finding_NK = films_of(60)
    first, again, other = (split_findings(group_N, finding_NK, SHARES, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(split_findings(group_N * 7 + 3, finding_NK, SHARES, 1))) == 3


def test_a_rare_finding_goes_where_it_is_wanted_and_no_split_stays_empty() -> None:
    finding_NK = np.zeros((50, 1), np.float32)
    finding_NK[:10] = 1
    splits = np.array(split_findings(np.arange(50), finding_NK, SHARES, 0))
    assert [(splits[:10] == name).sum() for name in SHARES] == [6, 2, 2]
    assert known_groups(np.arange(50)[splits == "val"], finding_NK[splits == "val", 0]) == (2, 8)
    assert set(split_findings(np.arange(5), finding_NK[:5], {"train": 0.99, "val": 0.01}, 0)) == {"train", "val"}
    with pytest.raises(InputError, match=r"2 patients \(groups\), expected at least 3, one each for train, val, held"):
        split_findings(np.array([0, 0, 1]), finding_NK[:3], SHARES, 0)


def test_a_finding_that_no_film_knows_splits_like_the_others() -> None:
    splits = split_findings(np.arange(40), np.full((40, 2), np.nan, np.float32), {"train": 0.8, "val": 0.2}, 0)
    assert splits.count("val") == 8 and prevalence_gap(np.full((40, 2), np.nan), splits) == (0.0, 0)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("path,Edema,Mass\na.png,1,0\nb.png,0,1\n", {"findings": ("Edema", "edema")}),
        ("path,labels\na.png,Edema|Mass\nb.png,Mass\n", {"findings": ("Mass", "mass"), "separator": "|"}),
        (
            "path,labels\na.png,Pleural_Mass\nb.png,x\n",
            {"findings": ("Pleural Mass", "Pleural_Mass"), "separator": "|"},
        ),
    ],
)
def test_one_finding_under_two_names_is_refused(tmp_path: Path, text: str, settings: dict[str, Any]) -> None:
    first, second = settings["findings"]
    with pytest.raises(ConfigError, match=f"--findings: found {first} and {second}, which are one finding"):
        read(table_of(tmp_path, text), **settings)


def test_groups_move_between_splits_while_that_makes_them_evener() -> None:
    rng = np.random.default_rng(3)
    group_N = np.sort(rng.integers(0, 60, 150))
    finding_NK = (rng.random((150, 6)) < (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)).astype(np.float32)
    shares = {"train": 0.6, "val": 0.15, "heldout": 0.25}
    dealt = np.array(split_findings(group_N, finding_NK, shares, 0))

    def cost(split_N: np.ndarray) -> float:
        value_NV = np.column_stack([np.ones((150, 7)), finding_NK])
        wanted = {name: share * value_NV.sum(0) for name, share in shares.items()}
        return sum(((value_NV[split_N == name].sum(0) - of_V) ** 2 / of_V).sum() for name, of_V in wanted.items())

    for group in np.unique(group_N):  # a slow look at every single move
        for name in shares:
            assert cost(np.where(group_N == group, name, dealt)) > cost(dealt) - 1e-6
