"""Children: each a process of its own, forked from one that has imported everything, so that a crash is counted."""

import atexit
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, NoReturn, Self

REPOSITORY = Path(__file__).parent.parent.parent
IMPORTS = "import tests.faults.small_run as small_run; small_run.warm_up()"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a child ended.

    code: exit status, or minus the signal that ended it.  seconds: from start to end.  peak: most resident memory of
    it and its reaped children, bytes.  timed_out: it was killed because its time was up.
    """

    code: int
    seconds: float
    peak: int
    timed_out: bool
    output: str
    errors: str

    @property
    def traceback(self) -> bool:
        """Whether it printed a traceback, which no user's mistake may."""
        return "Traceback (most recent call last)" in self.errors


class Child:
    """A running child, leader of its own process group.

    Unless wait() is called it stays a zombie of the server, so its process id cannot be another's.
    """

    def __init__(self, server: "ForkServer", pid: int, folder: Path) -> None:
        self.pid = pid
        self._server = server
        self._folder = folder
        self._began = time.monotonic()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the child alone a signal; nothing happens to one that has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill the child with all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._server.ask({"alive": self.pid})["alive"]

    def wait(self, timeout: float = 60.0) -> Ending:
        """Wait for its end, at most `timeout` seconds: then it and its group are killed."""
        answer = self._server.ask({"wait": self.pid, "timeout": timeout})
        if timed_out := answer["running"]:
            self.kill_group()
            answer = self._server.ask({"wait": self.pid, "timeout": 60.0})
        return Ending(
            code=os.waitstatus_to_exitcode(answer["status"]),
            seconds=time.monotonic() - self._began,
            peak=answer["peak"] * 1024,
            timed_out=timed_out,
            output=(self._folder / "output").read_text(errors="replace"),
            errors=(self._folder / "errors").read_text(errors="replace"),
        )


class ForkServer:
    """A process with plainfilm imported, which forks children; close() ends them.

    The next server of the same imports and environment is the same process, since starting one takes seconds.  It ends
    with the process that started it.

    A child runs `before` (Python source, where a campaign plants its fault) and then `cli.main(argv)`, or only
    `before` without argv; its exit status is main's.  Fork keeps a child at milliseconds where an import takes
    seconds; no thread of the server may be alive then.
    """

    _idle: ClassVar[dict[str, list[subprocess.Popen[str]]]] = {}  # by imports and environment

    def __init__(self, folder: Path, environment: dict[str, str] | None = None, imports: str = IMPORTS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = 0
        self._children: set[int] = set()  # that nobody has waited for
        outer = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        environment = outer | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"} | (environment or {})
        self._key = repr((imports, sorted(environment.items())))
        while idle := self._idle.get(self._key):
            self._process = idle.pop()
            if self._process.poll() is None:
                return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.processes", imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        )
        atexit.register(end, self._process)

    def start(
        self,
        argv: list[str] | None = None,
        *,
        before: str = "",
        cwd: Path | None = None,
        memory: int | None = None,
        file_size: int | None = None,
    ) -> Child:
        """Start a child.  memory, file_size: limits of address space and of a file written, bytes."""
        self._count += 1
        folder = self._folder / f"{self._count:06}"
        folder.mkdir()
        (folder / "output").touch()
        (folder / "errors").touch()
        order = {"argv": argv, "before": before, "folder": str(folder), "cwd": cwd and str(cwd)}
        answer = self.ask(order | {"memory": memory, "file_size": file_size})
        self._children.add(answer["pid"])
        return Child(self, answer["pid"], folder)

    def run(self, argv: list[str] | None = None, *, timeout: float = 60.0, **options: object) -> Ending:
        """Start a child, wait for its end.  options: as of start."""
        return self.start(argv, **options).wait(timeout)  # type: ignore[arg-type]

    def ask(self, order: dict[str, object]) -> dict:
        """One order to the server, and its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self._process.wait()}")
        answer = json.loads(line)
        if answer.get("running") is False:
            self._children.discard(int(str(order["wait"])))
        return answer

    def close(self) -> None:
        """Kill the children that still run."""
        try:
            for pid in sorted(self._children):
                for kill in (os.kill, os.killpg):
                    with contextlib.suppress(ProcessLookupError):
                        kill(pid, signal.SIGKILL)
                self.ask({"wait": pid, "timeout": 30.0})
        except (OSError, RuntimeError):  # the server has ended, and its children with it
            end(self._process)
        else:
            self._idle.setdefault(self._key, []).append(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(server: subprocess.Popen[str]) -> None:
    """End a server, which kills its children."""
    for stream in (server.stdin, server.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    server.wait(timeout=30)


def run_child(order: dict) -> NoReturn:
    """The forked child's life; never returns."""
    folder = Path(order["folder"])
    for stream, name in ((0, os.devnull), (1, folder / "output"), (2, folder / "errors")):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
    for limit, value in ((resource.RLIMIT_AS, order["memory"]), (resource.RLIMIT_FSIZE, order["file_size"])):
        if value is not None:
            resource.setrlimit(limit, (value, value))
    if order["cwd"]:
        os.chdir(order["cwd"])
    try:
        exec(compile(order["before"], "<before>", "exec"), {"__name__": "__before__"})
        code = 0
        if order["argv"] is not None:
            import cli

            code = cli.main(order["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 — the child's own end is shown by its status
        sys.excepthook(*sys.exc_info())
        code = 1
    # as the interpreter's own end does: what runs at exit runs, then streams are flushed
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def fork_child(order: dict, living: set[int]) -> int:
    """Fork a child; its process id, which is put among the living, too.

    Ctrl-C waits until it is there, and has a session of its own, where a terminal's Ctrl-C or the runner's does not
    come: in Python's hooks of fork, which may run then, it would be lost.
    """
    interrupted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, before)
            run_child(order)
        finally:
            os._exit(1)
    living.add(pid)
    signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
    return pid


def serve(imports: str, orders: IO[str], answers: IO[str]) -> None:
    """Fork children as ordered, until there are no more orders or Ctrl-C; those that still run are killed then."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it was ignored
    exec(imports, {})
    ended: dict[int, dict] = {}
    living: set[int] = set()

    def reap(pid: int) -> bool:
        if pid not in ended:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                ended[pid] = {"running": False, "status": status, "peak": usage.ru_maxrss}
                living.discard(pid)
        return pid in ended

    def obey() -> None:
        for line in orders:
            order = json.loads(line)
            if "wait" in order:
                until = time.monotonic() + order["timeout"]
                while not reap(order["wait"]) and time.monotonic() < until:
                    time.sleep(0.002)
                answer = ended.pop(order["wait"], {"running": True})
            elif "alive" in order:
                answer = {"alive": not reap(order["alive"])}
            else:
                answer = {"pid": fork_child(order, living)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

    try:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                obey()
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C
    finally:
        for pid in living:
            for kill in (os.kill, os.killpg):  # it may lead no group yet; or it was reaped, and Ctrl-C came then
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin, os.fdopen(os.dup(1), "w"))
