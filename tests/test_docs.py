"""The documents agree with the code."""

import argparse
import configparser
import io
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import cli
from benchmarks.device import gpu, mps
from benchmarks.document import PICTURE, all_results, documents, filled, latest_bench, results_page
from benchmarks.speed_picture import SOURCE
from benchmarks.targets import STEP_224
from engine.config import Recipe
from engine.train.state import Progress, State
from engine.train.train import epoch_line, live_line
from loaders import __version__
from loaders.audit.page import audit_parts
from loaders.beton import format as beton_format
from loaders.output import Line, Sheet
from tests.house import tree, with_tree
from tests.loaders.test_audit_page import make_file, make_result

REPOSITORY = Path(__file__).parent.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


def test_the_command_line_reference_is_the_codes() -> None:
    assert (REPOSITORY / "docs" / "CLI.md").read_text() == cli.reference(), "run make docs"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "example:" in shown and f"cli.py {name}" in shown
    (commands,) = (action for action in cli.make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert all(action.help for action in commands.choices[name]._actions)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numba', 'cv2', 'matplotlib', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_parse(document: Path) -> None:
    parser = cli.make_parser()
    for line in re.findall(r"^(?:\$ )?python cli\.py (.+)$", document.read_text(), re.MULTILINE):
        words = line.split("#")[0].split()
        if words[0] not in ("--help", "--version"):
            parser.parse_args([word for word in words if word != "\\"])


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+)", document.read_text())
        assert set(named) <= targets, f"{document.name}: {set(named) - targets}"


def test_extras_that_are_installed_or_recommended_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    makefile = (REPOSITORY / "Makefile").read_text()
    sources = [makefile, *(path.read_text() for path in [*DOCUMENTS, *(REPOSITORY / "engine").rglob("*.py")])]
    named = set(re.findall(r"(?:-e '\.|plainfilm)\[([a-z]+)\]'", "\n".join(sources)))
    named |= set(re.findall(r"^RIVALS := (.+)$", makefile, re.MULTILINE)[0].split())
    assert named >= {"test", "export", "ffcv", "cleanvision"}
    assert named <= set(setup["options.extras_require"])  # pip only warns of others


def test_the_changelog_names_this_version() -> None:
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_format_document_has_the_sizes_of_the_code() -> None:
    text = (REPOSITORY / "docs" / "BETON.md").read_text()
    sizes = {
        "Header": beton_format.HEADER,
        "Field descriptor": beton_format.DESCRIPTOR,
        "Allocation row": beton_format.ALLOCATION,
        "Pointer block": beton_format.BLOCK,
        "Footer head": beton_format.HEAD,
        "Footer row": beton_format.ROW,
        "Footer tail": beton_format.TAIL,
    }
    for name, dtype in sizes.items():
        assert f"**{name}, {np.dtype(dtype).itemsize} bytes**" in text, name
        for field in dtype.names or ():
            assert f"`{field}`" in text, f"{name}.{field}"


def test_version_names_versions_and_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert f"plainfilm {__version__}, torch " in shown and "device: " in shown


def test_the_design_shows_every_room_and_no_other() -> None:
    design = (REPOSITORY / "docs" / "DESIGN.md").read_text()
    assert with_tree(design) == design, "run make docs"
    rooms = [line.split()[0] for line in tree().splitlines()]
    assert {path.stem for path in REPOSITORY.glob("[ekl]*/**/*.py")} - {"__init__"} < set(rooms)
    assert all(len(line.split()) > 2 for line in tree().splitlines()), "a module without a docstring"


def test_regression_tests_that_reliability_names_exist() -> None:
    named = set(re.findall(r"\btest_\w+_\w+_\w+_\w+", (REPOSITORY / "docs" / "RELIABILITY.md").read_text()))
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    assert named and not {name for name in named if f"def {name}(" not in sources}


def test_every_quoted_figure_is_that_of_the_stored_results() -> None:
    for path, text in documents(all_results()).items():
        assert path.read_text() == text, f"{path.name}: run make results"


def test_the_picture_of_speed_is_of_the_result_that_the_page_shows() -> None:
    name, bench = latest_bench(all_results())
    with Image.open(PICTURE) as picture:
        assert picture.info[SOURCE] == f"{name} {bench['machine_info']['plainfilm']['commit']}", "run make results"


def test_the_page_of_results_lists_what_missed_its_target_and_who_is_missing() -> None:
    machine = {"commit": "abc", "dirty": False, "date": "2026-11-29T20", "cpu": "Xeon", "cores": 2, "load_average": 0.1}
    found = {
        "what": STEP_224, "amount": 1, "unit": "steps",
        "rivals": {
            "plainfilm": {"seconds": [1.0, 1.0, 1.0]},
            "stock PyTorch": {"seconds": [2.0, 3.0, 4.0]},
            "FFCV": {"missing": "no wheel"},
        },
    }  # fmt: skip
    bench = {
        "benchmarks": [{"extra_info": found}, {"extra_info": {}}],
        "facts": {"scale": ["1 ms"]},
        "machine_info": {"plainfilm": machine | {"versions": {"torch": "2", "ffcv": None}}},
    }
    older = {"machine_info": {"plainfilm": machine | {"date": "2026-11-28T20", "commit": "old"}}}
    one = {"f1": 0.9, "auc": 0.95, "epochs": 12, "seconds": 1.0, "commit": "abcdef123456", "cpu": "Xeon"}
    difference = {"ways": ["bfloat16", "float32"], "metric": "auc", "seeds": 2, "mean": -0.004}
    runs = {"bfloat16": {"0": one}, "float32": {"0": one}, "plain": {}}
    differences = [difference | {"low": -0.023, "high": 0.015}]
    equivalence = {"trainings": runs, "differences": differences, "provenance": {}, "settings": {"seeds": 20}}
    page = results_page({"2026-11-29.json": bench, "2026-11-28.json": older, "equivalence.json": equivalence})
    assert f"| speed | {STEP_224}, over stock PyTorch | 3.00 | 3.5 |" in page
    assert f"| {STEP_224} | 1 steps | stock PyTorch: 0.333 | 3.00 (2.00–4.00) | 3.5 **missed** by 0.50 |" in page
    assert (
        "|  |  | FFCV: missing |  |  |" in page
        and "Scale:" in page
        and "load average 0.1 at the start; torch 2." in page
    )
    assert "| learning | bfloat16 beside float32 | -2.30 to +1.50 points of AUC | within ±1.5 |" in page
    assert "| learning | bfloat16 beside float32 | 2 of 20 seeds of bfloat16 and float32 | all of them |" in page
    assert "Trained at abcdef1 on Xeon." in page
    assert "| bfloat16 | 1 | 0.950 | 0.900 | 12.0 |" in page and "-0.40 points (-2.30 to +1.50) | 2 |" in page
    assert "The commit of this result was not recorded." in page and "Not measured yet." in page
    assert "| `2026-11-28.json` | contests | old | 2026-11-28 | Xeon |" in page
    for target in (*gpu.TARGETS, *mps.TARGETS):
        assert f"| {target.what} | not measured | {target.asked} |" in page


def test_marks_that_a_document_lost_are_an_error() -> None:
    assert filled("a\n<!-- x -->\nold\n<!-- end -->\nb", {"x": "new"}) == "a\n<!-- x -->\nnew\n<!-- end -->\nb"
    with pytest.raises(KeyError, match="marks y"):
        filled("<!-- x -->\nold\n<!-- end -->", {"y": "new"})


def test_the_readme_is_short() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.split()) <= 900
    assert max(map(len, text.splitlines())) <= 120
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(set(pictures)) == len(pictures)


def test_ci_runs_every_target_that_a_machine_without_a_device_can_run_in_minutes() -> None:
    ran = set(re.findall(r"^make ([a-z-]+)$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE))
    assert ran == {"check", "run", "test", "test-extras", "test-isa", "bench-smoke"}


def test_an_audit_of_many_classes_sums_up_the_rarest() -> None:
    found = make_result([make_file(f"{place}.png", "blurred", label=f"class {place}") for place in range(8)])
    line, sheet, _ = audit_parts(found)
    assert line == Line("8 files: 0 keep + 0 fix + 8 quarantine; 1.0 s")
    assert isinstance(sheet, Sheet)
    assert sheet.headers == ("defect", *(f"class {place}" for place in range(6)), "others", "meaning")
    assert sheet.rows == (("blurred", *["1"] * 6, "2", "blurred"),)


def test_only_a_sheet_that_ends_in_text_has_it_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (("a", "1", "long text"), ("b", "2", "text"))
    for ends_in_text, shown in ((True, " b          2   text\n"), (False, " b          2        text\n")):
        sheet = Sheet(headers=("name", "count", "meaning"), rows=rows, ends_in_text=ends_in_text)
        cli.show_parts(cli.console(), [sheet])
        assert shown in capsys.readouterr().out


def test_a_training_reports_where_it_is_before_its_first_loss_and_which_epoch_is_the_best() -> None:
    row = {"epoch": 2, "train_loss": 0.5, "val_loss": 0.25, "val_f1": 0.75, "images_per_second": 1000.0}
    state = State(conversion_id="", rate=1000.0, best_f1=0.75, best_epoch=2, history=[row])
    recipe, nan = Recipe(epochs=3, patience=7), float("nan")
    now = Progress(phase="epoch", done=1, total=2, loss=nan, seconds_left=None, recipe=recipe, state=state)
    assert live_line(now) == "epoch 2/3  loss –  F1 0.750  1,000 images/s  patience 7  "
    assert epoch_line(now) == "epoch   2  loss 0.5000  val loss 0.2500  val F1 0.750  1,000 images/s  best"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def shown_at(width: int | None, sheet: Sheet) -> list[str]:
    """The lines of a table on a terminal so wide; None: through a pipe."""
    file = io.StringIO() if width is None else Screen()
    cli.show_parts(Console(file=file, width=width or 110, highlight=False, markup=False, emoji=False), [sheet])
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in file.getvalue().splitlines()]


NAMES = tuple(f"{'enlarged ' * (place % 3)}condition number {place}" for place in range(20))
TABLES = (
    Sheet(
        headers=("true class", *map(str, range(20))),
        rows=tuple((name, *(str(353 + 17 * place + other) for other in range(20))) for place, name in enumerate(NAMES)),
    ),
    Sheet(
        title="a title of several words that is longer than the narrowest terminal here",
        headers=("class", "images", "95 % interval", "sensitivity of the class"),
        rows=tuple((name, f"{place:,}000", "95.7 to 99.0 %", "91.2 % (85.7–95.1)") for place, name in enumerate(NAMES)),
    ),
    Sheet(
        headers=("defect", *NAMES[:6], "what it means"),
        rows=(("blurred", *("1234567",) * 6, "a sentence of many words that says in full what is wrong"),),
        ends_in_text=True,
    ),
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 110, 200, None])
@pytest.mark.parametrize("sheet", TABLES, ids=("matrix", "classes", "defects"))
def test_a_table_breaks_between_words_only_and_fits_the_terminal(sheet: Sheet, width: int | None) -> None:
    lines = shown_at(width, sheet)
    found = Counter(word for line in lines for word in line.split())
    for row in (sheet.headers, *sheet.rows):
        for cell in row[1:]:
            for word, count in Counter(cell.split()).items():
                assert found[word] >= count, word
    allowed = {
        word
        for text in (sheet.title, *sheet.headers, *(cell for row in sheet.rows for cell in row))
        for word in text.split()
    }
    assert {word for word in found if word.strip("─")} <= allowed, "no piece of a word or a number"
    if width is not None:
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("sheet", TABLES, ids=("matrix", "classes", "defects"))
def test_through_a_pipe_each_row_is_one_line(sheet: Sheet) -> None:
    lines = [" ".join(line.split()) for line in shown_at(None, sheet)]
    for row in (sheet.headers, *sheet.rows):
        assert " ".join(row) in lines


def test_a_word_wider_than_the_terminal_is_broken_and_nothing_is_lost() -> None:
    sheet = Sheet(headers=("file", "images"), rows=(("x" * 100, "353"),))
    lines = shown_at(40, sheet)
    assert max(map(len, lines)) <= 40 and "".join(lines).count("x") == 100 and any("353" in line for line in lines)


def test_a_long_line_breaks_between_words_on_a_terminal_and_a_path_stays_whole() -> None:
    path = "/a/" + "long/" * 20 + "path.png"
    screen = Screen()
    cli.show(Console(file=screen, width=40, highlight=False), f"Caution: {'353 images, ' * 9}{path} and more")
    lines = screen.getvalue().splitlines()
    assert path in lines and all(len(line) <= 40 for line in lines if line != path)
    assert all(word in ("Caution:", "353", "images,", path, "and", "more") for line in lines for word in line.split())
