"""Make's targets for tests: none is left out, and test-isa holds back what older processors lack."""

import itertools
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.mark.expression import Expression

from tests import conftest, processors
from tests.processors import PROCESSORS, Processor, features, left_out, numerical_files

REPOSITORY = Path(__file__).parent.parent

# ---- make test and make test-extras


def dry_run(target: str) -> str:
    """The command of a target that runs pytest."""
    command = ["make", "--dry-run", target, "PY=python"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    (line,) = (line for line in printed.splitlines() if "-m pytest" in line)
    return line


def selected(expression: str, marks: frozenset[str]) -> bool:
    """Whether pytest's -m takes a test with these marks."""
    return Expression.compile(expression).evaluate(lambda name, **_: name in marks)


def test_make_test_and_make_test_extras_leave_no_test_out_between_them() -> None:
    expressions = []
    for target in ("test", "test-extras"):
        *options, mark, expression = shlex.split(dry_run(target).partition("-m pytest")[2])
        assert options == ["-n", "auto", "--dist", "worksteal"] and mark == "-m"  # of all tests: no file is named
        expressions.append(expression)
    names = sorted(set(re.findall(r"\w+", " ".join(expressions))) - {"and", "or", "not"})
    for count in range(len(names) + 1):
        for marks in map(frozenset, itertools.combinations(names, count)):
            assert any(selected(expression, marks) for expression in expressions), sorted(marks)


def test_ci_runs_both_where_neither_ffcv_nor_a_browser_may_be_missing() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert script.index("\nexport PLAINFILM_REQUIRE_BROWSER=1\n") < script.index("\nmake test\n")
    assert "\nmake test-extras\n" in script and dry_run("test-extras").startswith("PLAINFILM_REQUIRE_FFCV=1 ")


def test_campaigns_are_extras_and_nothing_else_is_by_its_folder() -> None:
    marked: list[str] = []
    for name in ("faults/test_disk.py", "loaders/test_beton.py", "test_docs.py"):
        path = REPOSITORY / "tests" / name
        item = SimpleNamespace(path=path, add_marker=lambda mark, name=name: marked.append(f"{name} {mark}"))
        conftest.pytest_collection_modifyitems([item])  # type: ignore[list-item]
    assert marked == ["faults/test_disk.py extras"]


def test_every_file_with_tests_is_one_that_pytest_collects() -> None:
    for path in (REPOSITORY / "tests").rglob("*.py"):
        if re.search(r"^ *(async )?def test_\w+\(", path.read_text(), re.MULTILINE):
            assert path.name.startswith("test_"), path


# ---- make test-isa

_, AVX2, PLAIN = PROCESSORS
PROGRAM = """
import json
import numpy as np
import torch
from kernels.fused_block import activate_into
pooled = np.ones((1, 4, 4, 32), np.float32)
activate_into(pooled.copy(), np.zeros(pooled.shape, np.uint8), pooled, *np.ones((3, 32), np.float32), 0, 1)
code = "".join(activate_into.inspect_asm().values())
torch.nn.functional.conv2d(torch.ones(2, 32, 8, 8), torch.ones(32, 32, 3, 3), padding=1)  # oneDNN prints what it has
print(json.dumps({
    "wide": [name for name in ("ymm", "zmm") if name in code],
    "compiled anew": not sum(activate_into.stats.cache_hits.values()),
    "torch": torch.backends.cpu.get_cpu_capability(),
    "numpy": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
}))
"""


def run(cache: Path, processor: Processor | None = None) -> tuple[dict, str]:
    """What a process finds, and all that it prints."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "ONEDNN_VERBOSE": "1"}
    environment |= processor.environment() if processor else {}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def has_any(found: dict, processor: Processor) -> bool:
    """Whether numpy has any of what that processor does without."""
    return any(name.startswith(processor.numpy) for name in found["numpy"])


@pytest.mark.extras
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or "avx512bf16" not in features(),
    reason="needs a processor with AVX-512, part of which is held back",
)
def test_what_is_held_back_is_used_by_none_and_kernels_are_compiled_anew(tmp_path: Path) -> None:
    assert run(tmp_path)[0]["compiled anew"]
    whole, _ = run(tmp_path)
    assert not whole["compiled anew"] and whole["torch"] == "AVX512" and has_any(whole, AVX2)
    found, printed = run(tmp_path, AVX2)
    assert found["compiled anew"] and found["wide"] == ["ymm"] and found["torch"] == "AVX2"
    assert has_any(found, PLAIN) and not has_any(found, AVX2)
    assert "isa:Intel AVX2\n" in printed
    found, printed = run(tmp_path, PLAIN)
    assert found["compiled anew"] and found["wide"] == [] and found["torch"] == "DEFAULT" and not has_any(found, PLAIN)
    assert "isa:Intel SSE4.1\n" in printed


def test_a_processor_that_cannot_be_stood_in_for_is_named() -> None:
    old = {"sse2", "avx", "avx2"}
    assert [left_out(processor, old) for processor in PROCESSORS] == [
        "this processor has no avx512bw itself",
        "this processor has no avx512f to hold back, so that make test has run them so",
        "",
    ]
    assert not any(left_out(processor, old | {"avx512f", "avx512bw", "avx512bf16"}) for processor in PROCESSORS)


def test_a_failing_test_is_a_failure_and_so_is_none_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    test = tmp_path / "test_it.py"
    monkeypatch.setattr(processors.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processors, "features", lambda: {"sse2", "avx", "avx2"})
    monkeypatch.setattr(processors, "numerical_files", lambda: [test])
    options = ["-c", os.devnull, "-W", "ignore"]
    exit_codes = []
    for marked, body in (
        ("", "pass"),
        ("@pytest.mark.numerical\n", "assert False"),
        ("@pytest.mark.numerical\n", "pass"),
    ):
        test.write_text(f"import pytest\n{marked}def test_it():\n    {body}\n")
        exit_codes.append(processors.main(options))
    assert exit_codes == [pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK]
    printed = capfd.readouterr().out
    assert "AVX2: left out; this processor has no avx512f" in printed and "plain x86-64: ONEDNN_MAX_CPU_ISA=" in printed


def test_elsewhere_than_on_x86_nothing_is_run_and_that_is_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(processors.platform, "machine", lambda: "arm64")
    assert processors.main([]) == 0
    assert "nothing run" in capfd.readouterr().out


def test_a_marked_file_is_found_by_its_mark() -> None:
    assert {path.name for path in numerical_files()} >= {"test_step.py", "test_cpu_blocks.py", "test_kernels.py"}


# ---- make run


@pytest.mark.parametrize("data", ["", "my films/all", "my films/films.csv"])
def test_make_run_takes_folders_whose_names_have_blanks(tmp_path: Path, data: str) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s|" "$@" >>"$0.txt"\necho >>"$0.txt"\n')
    python.chmod(0o700)
    (tmp_path / "out").mkdir()  # of somebody else
    command = ["make", "-f", REPOSITORY / "Makefile", "-o", ".venv/base", "run", f"PY={python}", "OUT=out x"]
    for _ in range(1 if data else 2):  # a demo may be made anew
        done = subprocess.run([*command, f"DATA={data}"], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    steps = [line.split("|")[1:-1] for line in python.with_suffix(".txt").read_text().splitlines()]
    source = ["--manifest"] * (data == "" or data.endswith("csv")) + [data or "out x/phantoms/phantoms.csv"]
    converted = next(step for step in steps if step[0] == "convert")
    assert converted[1 : len(source) + 1] == source and converted[-2:] == ["--out", "out x/betons"]
    assert steps[-1] == ["evaluate", "out x/run", "out x/betons/heldout.beton"]
    assert "  out x/run/report.html\n" in done.stdout and not list((tmp_path / "out").iterdir())
