"""The documents agree with the code."""

from __future__ import annotations

import argparse
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cli
from benchmarks.speed_document import PLACE, filled
from benchmarks.targets import STEP_224
from loaders import __version__
from loaders.beton import format as beton_footer
from loaders.beton import format as beton_format

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


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_format_document_has_the_sizes_of_the_code() -> None:
    text = (REPOSITORY / "docs" / "BETON.md").read_text()
    sizes = {
        "Header": beton_format.HEADER,
        "Field descriptor": beton_format.DESCRIPTOR,
        "Allocation row": beton_format.ALLOCATION,
        "Pointer block": beton_footer.BLOCK,
        "Footer head": beton_footer.HEAD,
        "Footer row": beton_footer.ROW,
        "Footer tail": beton_footer.TAIL,
    }
    for name, dtype in sizes.items():
        assert f"**{name}, {np.dtype(dtype).itemsize} bytes**" in text, name
        for field in dtype.names or ():
            assert f"`{field}`" in text, f"{name}.{field}"


def test_version_names_versions_and_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert f"plainfilm {__version__}, torch " in shown and "device: " in shown


def test_the_design_names_every_module_and_no_other() -> None:
    design = (REPOSITORY / "docs" / "DESIGN.md").read_text()
    table = re.findall(r"^\| `([\w/]+)/` \|.*\| (.*) \|$", design, re.MULTILINE)
    packages = {path.parent.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("[ekl]*/**/__init__.py")}
    assert sorted(layer for layer, _ in table) == sorted(packages)
    for layer, modules in table:
        found = {path.stem for path in (REPOSITORY / layer).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`(\w+)`", modules)) == found


def test_the_tables_of_speed_are_those_of_the_stored_result() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert PLACE.search(text) and filled(text) == text, "run python -m benchmarks.speed_document"


def test_a_table_of_speed_has_every_pair_with_its_target_and_who_is_missing(tmp_path: Path) -> None:
    rivals = {"seconds": [1.0, 1.0, 1.0]}
    found = {
        "what": STEP_224, "amount": 1, "unit": "steps",
        "rivals": {"plainfilm": rivals, "stock PyTorch": {"seconds": [2.0, 3.0, 4.0]}, "FFCV": {"missing": "no wheel"}},
    }  # fmt: skip
    machine = {"commit": "abc", "dirty": False, "date": "2026-11-29T20", "cpu": "Xeon", "cores": 2, "load_average": 0.1}
    content = {
        "benchmarks": [{"extra_info": found}],
        "facts": {"scale": ["1 ms"]},
        "machine_info": {"plainfilm": machine},
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    text = filled("a\n<!-- speed old.json -->\nb\n<!-- end -->\nc", tmp_path / "x.json")
    assert text.startswith("a\n<!-- speed x.json -->\n| what |") and text.endswith("<!-- end -->\nc")
    assert f"| {STEP_224} | 1 steps | stock PyTorch: 0.333 | 3.00 (2.00–4.00) | 3.5 **missed** by 0.50 |" in text
    assert "|  |  | FFCV: missing |  |  |" in text and "Scale:" in text and "load average 0.1" in text


def test_ci_runs_every_target_that_a_machine_without_a_device_can_run_in_minutes() -> None:
    ran = set(re.findall(r"^make ([a-z-]+)$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE))
    assert ran == {"check", "run", "test", "test-isa", "ffcv", "bench-smoke"}
