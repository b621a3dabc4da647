"""Campaigns side by side, each in a process of its own with a progress bar."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tests.faults.campaign import Campaign, Tally

PATIENCE = 60  # seconds in which an interrupted campaign cleans up what it has mounted and started


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A campaign that has ended.  count: attempts that were asked for.  seconds: from start to end."""

    campaign: Campaign
    count: int
    tally: Tally
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A campaign under way.  folder: where it works, which is the runner's, so that it goes whatever ends the job."""

    campaign: Campaign
    count: int
    process: SpawnProcess
    folder: tempfile.TemporaryDirectory
    bar: TaskID
    began: float

    def end(self, seconds: float) -> bool:
        """Wait for the end of a process that has no more to do, and clear its folder.  Gives whether it came."""
        self.process.join(max(0, seconds))
        ended = not self.process.is_alive()
        self.process.kill()
        self.process.join()
        if self.process.exitcode:
            self.interrupt()  # its servers, which then end with their children
        self.folder.cleanup()
        return ended

    def interrupt(self) -> None:
        """Ctrl-C for the process and its servers."""
        pid = self.process.pid or 0
        try:
            os.killpg(pid, signal.SIGINT)
        except ProcessLookupError:  # it has no session of its own yet, or all are gone
            with contextlib.suppress(ProcessLookupError):
                if self.process.is_alive():
                    os.kill(pid, signal.SIGINT)


def attack(
    run: Callable[[int, int, Path, Callable[[], None]], Tally], count: int, seed: int, folder: Path, pipe: Connection
) -> None:
    """A job's process: one campaign in an empty folder.  It sends None for each attempt, and its tally at the end.

    A campaign that an exception ends sends no tally: that is counted as broken, with the traceback.
    """
    os.setsid()  # Ctrl-C comes from the runner, once: a second one would interrupt the clean-up
    try:
        tally = run(count, seed, folder, lambda: pipe.send(None))
    except KeyboardInterrupt:
        return
    except Exception:  # noqa: BLE001 — the next campaign runs nevertheless
        tally = Tally()
        tally.broke(f"seed {seed}: the campaign itself ended:\n{traceback.format_exc()}")
    pipe.send(tally)


def start(campaign: Campaign, count: int, seed: int, bar: TaskID) -> tuple[Connection, Job]:
    """Start a campaign; gives the pipe on which it reports its progress."""
    context = multiprocessing.get_context("spawn")  # each has memory, threads and modules of its own
    ours, theirs = context.Pipe(duplex=False)
    folder = tempfile.TemporaryDirectory(prefix=f"faults-{campaign.name}-", ignore_cleanup_errors=True)
    process = context.Process(target=attack, args=(campaign.run, count, seed, Path(folder.name), theirs))
    process.start()
    theirs.close()
    began = time.monotonic()
    return ours, Job(campaign=campaign, count=count, process=process, folder=folder, bar=bar, began=began)


def message_of(pipe: Connection, job: Job, seed: int) -> Tally | None:
    """What a job sends next; one that ends without its tally has broken."""
    try:
        return pipe.recv()
    except (EOFError, OSError):  # at the end of a message, or in its middle
        job.process.join(PATIENCE)
        tally = Tally()
        tally.broke(f"seed {seed}: the campaign's process ended with {job.process.exitcode}, and sent no tally")
        return tally


def side_by_side(
    campaigns: list[tuple[Campaign, int]], seed: int, most: int, console: Console
) -> Generator[Done, None, None]:
    """Run campaigns, at most so many at a time, in their order; gives each when it ends.

    campaigns: campaigns with the attempts of each.  Whatever ends this early, Ctrl-C too, interrupts those under way.
    """
    waiting, running = deque(campaigns), dict[Connection, Job]()
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    campaign, count = waiting.popleft()
                    pipe, job = start(campaign, count, seed, progress.add_task(campaign.name, total=count))
                    running[pipe] = job
                for pipe in wait(list(running)):
                    assert isinstance(pipe, Connection)
                    job = running[pipe]
                    tally = message_of(pipe, job, seed)
                    if tally is None:
                        progress.advance(job.bar)
                        continue
                    del running[pipe]
                    pipe.close()
                    seconds = time.monotonic() - job.began
                    if not job.end(PATIENCE):
                        tally.broke(f"seed {seed}: the campaign's process did not end after its tally")
                    progress.remove_task(job.bar)
                    yield Done(campaign=job.campaign, count=job.count, tally=tally, seconds=seconds)
        finally:
            interrupt(running)


def interrupt(running: dict[Connection, Job]) -> None:
    """End campaigns under way with their servers; one that takes too long to clean up is killed."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C
    for job in running.values():
        job.interrupt()
    until = time.monotonic() + PATIENCE
    for pipe, job in running.items():
        pipe.close()
        job.end(until - time.monotonic())
    signal.signal(signal.SIGINT, before)
