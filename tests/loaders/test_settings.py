"""Commands that read a source: one set of settings, with which they find the same files, labels and patients."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from loaders.audit.audit import audit
from loaders.config import AuditConfig, CatalogConfig, ConvertConfig, LoaderConfig
from loaders.convert.convert import convert
from loaders.errors import ConfigError
from loaders.settings import build, settings_of
from tests.loaders.test_dicom import native

SETTINGS = {setting.name: setting for setting in settings_of(CatalogConfig)}
READERS = {"convert", "audit", "segment"}  # of a source
APART = {
    ("phantom", "classes"): "what to draw",
    ("phantom", "findings"): "what to draw",
    ("predict", "max_pixels"): "files are named one by one, without labels or groups",
    ("predict", "assume_modality"): "files are named one by one, without labels or groups",
    ("segment-train", "manifest"): "films with masks, which need no labels",
    ("segment-test", "manifest"): "films with masks, which need no labels",
    ("profile", "source"): "convert.csv lists the files that are read",
}


def test_every_command_with_a_source_has_every_setting_of_a_source() -> None:
    for name, command in cli.COMMANDS.items():
        own = {setting.name: setting for setting in settings_of(command.config)} if command.config else {}
        shared = {setting for setting in own.keys() & SETTINGS.keys() if (name, setting) not in APART}
        assert shared == (SETTINGS.keys() if name in READERS else set()), name
        assert all(own[setting] == SETTINGS[setting] for setting in shared), name  # defaults and help, too


@pytest.mark.parametrize("name", ["max_pixels", "assume_modality"])
def test_a_prediction_reads_the_files_that_a_conversion_reads(name: str) -> None:
    config = cli.COMMANDS["predict"].config
    assert config is not None
    assert SETTINGS[name] in settings_of(config)


# ---- a tree whose files have classes and patients in their names


def draw(path: Path, seed: int, sides: tuple[int, int] = (70, 60)) -> None:
    """A picture that resembles no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, sides).astype(np.uint8)).save(path)


def with_dicom(source: Path) -> Path:
    """A DICOM without a modality beside the rest."""
    pixels = np.random.default_rng(99).integers(0, 256, (70, 60)).astype(np.uint8)
    (source / "covid" / "dicom.dcm").write_bytes(native(pixels, 8, Modality=None))
    return source


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes of three patients with two images each, a table of them, and what is no radiograph."""
    source = tmp_path / "source"
    rows = [("path", "label", "patient")]
    for label in ("covid", "normal", "pneumonia"):
        for number in range(6):
            place = len(rows) - 1
            path = source / label / f"{place // 2:08}_{number:03}.png"
            draw(path, place)
            rows.append((path.relative_to(tmp_path).as_posix(), f"{label}-listed", f"patient{place // 2}"))
    draw(source / "covid" / "large.png", 100, (90, 90))
    draw(source / "covid" / ".hidden.png", 101)
    draw(source / "beside.png", 102)
    (source / "covid" / "notes.txt").write_text("no picture")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    text = (tmp_path / "table.csv").read_text()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "table.csv").write_text(text)
    lines = text.splitlines()
    (tmp_path / "odd.csv").write_text(
        "\n".join(["where;what;who;same", *(f"{line},".replace(",", ";") for line in lines[1:])])
    )
    lateral = "source/covid/large.png,covid-listed,,lateral"
    (tmp_path / "views.csv").write_text("\n".join([f"{lines[0]},view", *(f"{line},PA" for line in lines[1:]), lateral]))
    rows = [f"{line},{reader}" for line in lines[1:] for reader in "RST"]
    rows[0] = rows[0].replace("covid-listed", "normal-listed")
    (tmp_path / "read.csv").write_text("\n".join([f"{lines[0]},reader", *rows]))
    cells = [("1", "", "Edema"), ("0", "1", "Mass|Edema"), ("-1", "0", "No Finding")]
    films = [(path, patient, *cells[place % 3]) for place, (path, _, patient) in enumerate(map(split_line, lines[1:]))]
    with (tmp_path / "findings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "patient", "Edema", "Mass", "label"), *films])
    return source


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    """The layout of NIH: four patients with two images each, one of another finding, and a held-out list."""
    source = tmp_path / "nih"
    lines = ["Image Index,Finding Labels,Patient ID,View Position"]
    for number in range(10):
        name = f"{number // 2:08}_{number % 2:03}.png"
        draw(source / "images" / name, number)
        finding = "Hernia" if number > 7 else ("No Finding", "Pneumonia")[number // 2 % 2]
        lines.append(f"{name},{finding},{number // 2},PA")
    (source / "Data_Entry_2017.csv").write_text("\n".join(lines))
    return source


Outcome = tuple[set[tuple[str, str, bool]], set[frozenset[str]]]


def outcome(rows: Iterable[tuple[str, str, bool, int]]) -> Outcome:
    """Path, label and whether a file could be read; and the groups of those that could."""
    found = list(rows)
    groups = {group for _, _, _, group in found if group >= 0}
    return (
        {(path, label, readable) for path, label, readable, _ in found},
        {frozenset(path for path, _, readable, of in found if readable and of == group) for group in groups}
        - {frozenset()},
    )


def by_audit(out: Path, **settings: object) -> Outcome:
    result = audit(build(AuditConfig, {"out": out, "size": 32, "workers": 1, "permutations": 999, **settings}))
    return outcome((file.path, file.label, "unreadable" not in file.defects, file.group) for file in result.files)


def by_conversion(out: Path, **settings: object) -> Outcome:
    done = convert(
        build(ConvertConfig, {"out": out, "size": 32, "workers": 1, "dry_run": True, "val": 0.4, **settings})
    )
    rows = [row for row in done.rows if row.verdict != "excluded" and not row.entry.path.endswith(".txt")]
    return outcome((row.entry.path, row.entry.label, row.verdict != "rejected", row.group) for row in rows)


def split_line(line: str) -> list[str]:
    return line.split(",")


CASES: dict[str, Callable[[Path], dict[str, object]]] = {
    "source": lambda tmp: {"source": tmp / "source"},
    "manifest": lambda tmp: {"manifest": tmp / "table.csv"},
    "preset": lambda tmp: {"source": tmp / "nih", "preset": "nih"},
    "classes": lambda tmp: {"source": tmp / "source", "classes": ("normal", "covid")},
    "map_label": lambda tmp: {"source": tmp / "source", "map_label": ("covid=tb", "NORMAL=clear")},
    "group_regex": lambda tmp: {"source": tmp / "source", "group_regex": r"^(\d+)_"},
    "max_pixels": lambda tmp: {"source": tmp / "source", "max_pixels": 5000},
    "root": lambda tmp: {"manifest": tmp / "elsewhere" / "table.csv", "root": (tmp,)},
    **{
        f"{name}_column": lambda tmp, name=name: {
            "manifest": tmp / "odd.csv",
            "path_column": "where",
            "label_column": "what",
            "patient_column": "who",
            f"{name}_column": {"path": "where", "label": "what", "patient": "who"}.get(name, "same"),
        }
        for name in ("path", "label", "patient", "view", "source", "sex", "age", "split")
    },
    "views": lambda tmp: {"manifest": tmp / "views.csv", "views": "pa"},
    "readers": lambda tmp: {"manifest": tmp / "read.csv", "readers": "majority"},
    "assume_modality": lambda tmp: {"source": with_dicom(tmp / "source"), "assume_modality": "DX"},
    "findings": lambda tmp: {"manifest": tmp / "findings.csv", "findings": ("Mass",)},
    "separator": lambda tmp: {"manifest": tmp / "findings.csv", "separator": "|"},
    "uncertain": lambda tmp: {
        "manifest": tmp / "findings.csv",
        "findings": ("Edema", "Mass"),
        "uncertain": ("Edema=present",),
    },
    "blank": lambda tmp: {"manifest": tmp / "findings.csv", "findings": ("Edema", "Mass"), "blank": ("absent",)},
    "classes of a manifest": lambda tmp: {
        "manifest": tmp / "table.csv",
        "classes": ("covid-listed", "normal-listed"),
        "group_regex": "nih",
        "readers": "any",
    },
    "classes of a preset": lambda tmp: {
        "source": tmp / "nih",
        "preset": "nih",
        "classes": ("pneumonia", "normal"),
        "max_pixels": 4200,
    },
}


def test_no_setting_of_a_source_goes_untried() -> None:
    assert CASES.keys() >= SETTINGS.keys()


@pytest.mark.parametrize("case", CASES)
def test_an_audit_has_the_files_labels_and_groups_of_the_conversion(
    case: str, tree: Path, nih: Path, tmp_path: Path
) -> None:
    settings = CASES[case](tmp_path)
    # a plain folder has labels only on request
    labels = {"labels": "folder"} if settings.keys() & {"manifest", "preset", "classes"} == set() else {}
    audited = by_audit(tmp_path / "A", **labels, **settings)
    assert audited == by_conversion(tmp_path / "B", **settings)
    labelled = {label for _, label, _ in audited[0]}
    patients = [group for group in audited[1] if len(group) == 2]
    num_labels = (
        1 if settings.keys() & {"findings", "separator"} else 2 if settings.keys() & {"classes", "preset"} else 3
    )
    assert len(labelled) == num_labels
    if settings.keys() & {"manifest", "preset", "group_regex"}:
        assert len(patients) == (4 if "preset" in settings else 9 if num_labels == 1 else 3 * num_labels)
    else:
        assert not patients
    assert any(not readable for _, _, readable in audited[0]) == (case == "max_pixels")
    assert ("assume_modality" in settings) == any(path.endswith(".dcm") for path, *_ in audited[0])


def test_a_conversion_obeys_the_audit_of_the_same_source_settings_and_wants_no_other(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(tree), "--group-regex", "nih", "--workers", "1", "--size", "32"]
    classes, table = ["--classes", "covid,normal"], str(tmp_path / "A" / "audit.csv")
    assert cli.main(["audit", *asked, *classes, "--out", str(tmp_path / "A"), "--limit-not-a-radiograph", "9"]) == 0
    with (tmp_path / "A" / "audit.csv").open(newline="") as file:
        assert {row["path"].split("/")[0] for row in csv.DictReader(file)} == {"covid", "normal"}
    given = ["--audit", table, "--out", str(tmp_path / "B"), "--dry-run"]
    capsys.readouterr()
    assert cli.main(["convert", *asked, *given]) == 3
    messages = capsys.readouterr().err
    assert "no verdict for pneumonia/" in messages and "with the same --manifest, --root, --preset and" in messages


WRONG: dict[str, list[str]] = {
    "no source": [],
    "both": ["S", "--manifest", "table.csv"],
    "a lost folder": ["lost"],
    "a file for a folder": ["table.csv"],
    "a lost table": ["--manifest", "lost.csv"],
    "a table without labels": ["--manifest", "unlabelled.csv"],
    "a preset that there is not": ["S", "--preset", "nhi"],
    "a preset of a table": ["--manifest", "table.csv", "--preset", "nih"],
    "a folder of another layout": ["S", "--preset", "nih"],
    "a list that cuts through a patient": ["nih", "--preset", "nih"],
    "a class that there is not": ["S", "--classes", "covid,nromal"],
    "a class of a table that there is not": ["--manifest", "table.csv", "--classes", "covid-listed,normal"],
    "a label that there is not": ["S", "--map-label", "flu=covid"],
    "a label without a name": ["S", "--map-label", "covid"],
    "a label with two names": ["S", "--map-label", "covid=a", "--map-label", "Covid=b"],
    "a class twice": ["S", "--classes", "covid,covid"],
    "no regular expression": ["S", "--group-regex", "("],
    "a regular expression without a group": ["S", "--group-regex", "x"],
    "a regular expression that matches nothing": ["S", "--group-regex", "^(patient)"],
    "no pixels": ["S", "--max-pixels", "0"],
    "too many pixels": ["S", "--max-pixels", "999999999"],
    "a class that is a formula": ["formula"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_source_is_refused_with_the_same_message_by_all(
    wrong: str, tree: Path, nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unlabelled.csv").write_text("path\nsource/covid/large.png\n")
    (nih / "test_list.txt").write_text("00000000_000.png\n")
    draw(tmp_path / "formula" / "=a" / "1.png", 1)
    draw(tmp_path / "formula" / "b" / "2.png", 2)
    messages = {}
    needless = {"segment"} if wrong == "a table without labels" else set()
    for name in READERS - needless:
        argv = [name]
        for argument in WRONG[wrong]:
            named = {"S": tree, "lost": tmp_path / "lost", "nih": nih, "formula": tmp_path / "formula"}.get(argument)
            argv.append(str(named or (tmp_path / argument if argument.endswith(".csv") else argument)))
        if name != "convert" and "--preset" not in argv:
            argv += ["--labels", "folder"]
        code = cli.main([*argv, "--out", str(tmp_path / "out"), "--workers", "1"])
        messages[name] = (code, capsys.readouterr().err)
        assert code in (2, 3, 4) and not (tmp_path / "out").exists()
    assert len(set(messages.values())) == 1


GIVEN: dict[str, object] = {
    "manifest": Path("m.csv"),
    "preset": "nih",
    "classes": ("a", "b"),
    "map_label": ("a=b",),
    "group_regex": "nih",
    "root": (Path("r"),),
    **{f"{name}_column": "x" for name in ("path", "label", "patient", "view", "source", "sex", "age", "split")},
    "views": "pa",
    "readers": "any",
    "max_pixels": 9,
    "assume_modality": "DX",
    "labels": "folder",
    "findings": ("a",),
    "separator": "|",
    "uncertain": ("present",),
    "blank": ("absent",),
}
NOT_OF_A_TABLE = {  # settings of findings, which are refused for want of a table
    "findings": "found findings, .* with B/train.beton, expected them in a --manifest",
    "separator": "--separator: found with B/train.beton, expected what parts the labels of a --manifest",
    "uncertain": "found --uncertain without findings",
    "blank": "found --blank without findings",
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_beton_takes_no_other_setting_of_a_source(name: str) -> None:
    assert GIVEN.keys() == (SETTINGS.keys() - {"source"}) | {"labels"}
    flag = "--" + name.replace("_", "-")
    found = "both of SOURCE and --manifest" if name == "manifest" else f"found {flag} with B/train.beton"
    with pytest.raises(ConfigError, match=NOT_OF_A_TABLE.get(name, found)):
        build(AuditConfig, {"source": Path("B/train.beton"), "out": Path("A"), name: GIVEN[name]})


def test_a_beton_with_settings_of_a_folder_exits_with_2(
    betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["audit", str(betons / "train.beton"), "--out", str(tmp_path / "A"), "--classes", "covid,normal"]
    assert cli.main([*argv, "--labels", "folder"]) == 2
    messages = capsys.readouterr().err
    assert "found --classes, --labels with" in messages and "expected SOURCE alone" in messages
    assert not (tmp_path / "A").exists()


def test_what_no_command_can_read_leaves_no_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.png").write_text("no picture")
    assert cli.main(["audit", str(tmp_path / "S"), "--out", str(tmp_path / "A"), "--workers", "1"]) == 3
    printed = " ".join(capsys.readouterr().err.split())
    assert (
        "of 1 files could be read (1: not a PNG, JPEG, TIFF, BMP or DICOM file), the first of them a.png: " in printed
    )
    assert "text, expected PNG or JPEG or TIFF or BMP or DICOM; replace or remove it" in printed
    assert not list((tmp_path / "A").glob("audit.*"))


def test_auto_stands_for_zero_where_the_program_chooses() -> None:
    assert build(LoaderConfig, {"threads": "auto"}).threads == 0
    with pytest.raises(ConfigError, match="batch_size: found 'auto'"):
        build(LoaderConfig, {"batch_size": "auto"})


def test_an_invalid_number_of_workers_is_refused_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["convert", "x", "--out", "y", "--workers", "many"])
    assert stopped.value.code == 2
    assert "--workers: found 'many', expected a number or auto" in capsys.readouterr().err
