"""The numerical tests as other processors run them: `python -m tests.processors`, and pytest's options after it.

Part of this processor's instructions are held back from oneDNN, MKL, torch, numpy and numba. What a processor cannot
be made to do without, or does not have, is named and left out.
"""

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
from rich.console import Console

TESTS = Path(__file__).parent
MARK = "pytest.mark.numerical"
CHOSEN = "numerical and not coverage"  # which is counted over so many studies that one processor's count will do


@dataclass(frozen=True, kw_only=True, slots=True)
class Processor:
    """has: instructions as LLVM names them; lacks: one of those that are held back.  The rest: how to hold them back.

    numba: a processor of LLVM's.  numpy: what begins so is switched off.
    """

    name: str
    has: str
    lacks: str
    onednn: str
    mkl: str
    torch: str
    numba: str
    numpy: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Variables for a process that is to do without."""
        found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[index, call-overload]
        return {
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "MKL_ENABLE_INSTRUCTIONS": self.mkl,
            "ATEN_CPU_CAPABILITY": self.torch,
            "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in found if name.startswith(self.numpy)),
            "NUMBA_CPU_NAME": self.numba,
            "NUMBA_CPU_FEATURES": "",  # or the features of this processor would come on top of the name's
        }


PROCESSORS = (
    Processor(
        name="AVX-512 without products in bfloat16",
        has="avx512bw",
        lacks="avx512bf16",
        onednn="AVX512_CORE",
        mkl="AVX512",
        torch="avx512",
        numba="skylake-avx512",
        numpy=("AVX512_ICL", "AVX512_SPR"),
    ),
    Processor(
        name="AVX2",
        has="avx2",
        lacks="avx512f",
        onednn="AVX2",
        mkl="AVX2",
        torch="avx2",
        numba="haswell",
        numpy=("AVX512", "X86_V4"),
    ),
    Processor(
        name="plain x86-64",
        has="sse2",
        lacks="avx",
        onednn="SSE41",
        mkl="SSE4_2",
        torch="default",
        numba="generic",
        numpy=("AVX", "FMA3", "X86_V3", "X86_V4"),
    ),
)


def features() -> set[str]:
    """The instructions that this processor has, as LLVM names them."""
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


def left_out(processor: Processor, present: set[str]) -> str:
    """Why it cannot be stood in for here; empty where it can."""
    if processor.has not in present:
        return f"this processor has no {processor.has} itself"
    if processor.lacks not in present:
        return f"this processor has no {processor.lacks} to hold back, so that make test has run them so"
    return ""


def numerical_files() -> list[Path]:
    """The files with numerical tests: collecting all others would take longer than running these."""
    return sorted(path for path in TESTS.rglob("test_*.py") if MARK in path.read_text())


def main(options: Iterable[str]) -> int:
    """Run them on all processors that can be stood in for at once; gives an exit code that is not 0, if any is.

    One process each: divided further, each part would have to import everything and compile what it uses.
    """
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if platform.machine() not in ("x86_64", "AMD64"):
        console.print(f"{platform.machine()}: only x86-64 is known how to hold back; nothing run")
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", CHOSEN, *options]
    command += map(str, numerical_files())
    worst, running = 0, {}
    with contextlib.ExitStack() as stack:
        for processor in PROCESSORS:
            if not left_out(processor, features()):
                output = stack.enter_context(tempfile.TemporaryFile("w+"))
                environment = os.environ | processor.environment()
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
                running[processor.name] = process, output
        for processor in PROCESSORS:
            if processor.name not in running:
                console.print(f"== {processor.name}: left out; {left_out(processor, features())}")
                continue
            process, output = running[processor.name]
            worst = process.wait() or worst  # 5 where no test is marked
            output.seek(0)
            variables = (f"{name}={value!r}" for name, value in processor.environment().items())
            console.print(f"== {processor.name}:", *variables)
            console.print(output.read())
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
