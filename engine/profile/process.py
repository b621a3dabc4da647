"""A process of `profile` that trains one variant on command, so that no variant's settings reach another."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from loaders.errors import InputError

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds that a process has to end


class VariantProcess:
    """A running program that answers JSON lines.  Owns the process.

    Errors: InputError, naming the variant and the last thing that it said, once it has ended.
    """

    def __init__(self, name: str, module: str, arguments: list[str]) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
        )

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._process.stdin.write(json.dumps({"do": do} | how) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().strip().splitlines() or ["nothing"]
        raise InputError(
            f"the process of variant {self.name} ended with exit code {code}: {said[-1]}; expected an answer; "
            "mend what it names, or lower --batch-size if memory ran out"
        )

    def dismiss(self) -> None:
        """Let the process end, without waiting."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdout is not None
        self.dismiss()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> VariantProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()  # in the middle of a turn it would not listen
        self.close()
