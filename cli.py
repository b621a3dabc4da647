"""plainfilm's command line: parse, build a config, call one function, print, and map errors to exit codes.

Nothing heavy is imported before a command needs it, so that --help is instant.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.config import (
    CompareConfig,
    CrossvalConfig,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    HurdlesConfig,
    PredictConfig,
    ProfileConfig,
    ReportConfig,
    SegmentTestConfig,
    SegmentTrainConfig,
    TrainConfig,
)
from loaders import __version__, errors
from loaders.atomic_file import storage_error
from loaders.config import AuditConfig, BenchLoaderConfig, ConvertConfig, PhantomConfig, SegmentConfig
from loaders.machine import bus_errors_reported, keep_allocations, usable_cores
from loaders.output import Parts, Sheet, table_blocks
from loaders.settings import add_setting, build, convert_values, read_settings, reference_table, settings_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from engine.train.state import Progress, Watch

EXIT_CODES: dict[type[BaseException], int] = {  # DESIGN, Exit codes; the first that fits counts
    errors.ConfigError: 2,
    errors.InputError: 3,
    errors.StorageError: 4,
    errors.IntegrityError: 5,
    errors.LockedError: 6,
    errors.DivergedError: 7,
    errors.Interrupted: 75,
    OSError: 4,
    MemoryError: 4,
    KeyboardInterrupt: 75,
}
EXIT_MEANINGS = (
    "0 done · 2 wrong usage · 3 inputs rejected · 4 input/output failed · 5 integrity (corrupt beton or checkpoint) · "
    "6 locked by another writer · 7 training diverged · 75 interrupted, resumable"
)
NOT_FOR_DIAGNOSIS = "Research software: not for diagnosis."
START = """first steps:
  python cli.py convert SOURCE --out B --holdout 0.15
  python cli.py train B --out R
  python cli.py evaluate R B/heldout.beton
Each command has examples: python cli.py COMMAND --help"""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.  run: takes the screen, then the config or the betons; its docstring is the command's help.

    examples: what follows `python cli.py`.  config: its settings become flags; None for commands that only take betons.
    """

    run: Callable[[Console, Any], None]
    examples: tuple[str, ...]
    config: type | None = None
    positionals: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """The docstring of run with a lower-case first letter and without its full stop."""
        text = self.run.__doc__ or ""
        return text[:1].lower() + text[1:].rstrip(".")

    def example(self, indent: str = "") -> str:
        """The examples as a shell takes them."""
        return "\n".join(f"{indent}python cli.py {line}" for line in self.examples)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.  Gives the exit code."""
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack × and ·
    try:
        parser = make_parser()
        clean_up = handled(signal.default_int_handler, signal.SIGTERM)  # as Ctrl-C does
        with clean_up, bus_errors_reported(EXIT_CODES[errors.IntegrityError], print_error):
            try:
                code = run(parser, parser.parse_args(arguments))
            except SystemExit:  # the parser has printed help or an error
                sys.stdout.flush()
                raise
            sys.stdout.flush()  # what cannot be printed fails here, not at the interpreter's end
            return code
    except tuple(EXIT_CODES) as error:
        print_error(error)
        return next(number for kind, number in EXIT_CODES.items() if isinstance(error, kind))
    finally:
        drop_unprintable_output()


def open_closed_streams() -> None:
    """Replace closed standard streams, which are None in Python, lest output go into the next file that is opened."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115 — to the end


def drop_unprintable_output() -> None:
    """Drop output that a stream cannot take: else the interpreter would try again at its end, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_error(error: BaseException) -> None:
    """Print an error as one line, if anything can be printed."""
    with contextlib.suppress(OSError):
        print(f"plainfilm: {printable(message_of(error))}", file=sys.stderr, flush=True)


def run(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> int:
    """Run the parsed command."""
    if namespace.version:
        print_version()
        return 0
    if namespace.command is None:
        parser.print_help()
        return 2
    command, screen = COMMANDS[namespace.command], console()
    if command.config is None:
        command.run(screen, namespace.betons)
        return 0
    names = {setting.name for setting in settings_of(command.config)}
    values = {name: value for name, value in vars(namespace).items() if name in names and value is not None}
    if namespace.command == "train" and namespace.resume:
        resume_run(screen, namespace, values)
    else:
        command.run(screen, build(command.config, with_config_file(command, namespace, values), command.positionals))
    return 0


@contextlib.contextmanager
def handled(handler: Callable[[int, Any], Any], *numbers: signal.Signals) -> Iterator[None]:
    """Give these signals to a handler."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def message_of(error: BaseException) -> str:
    """The error message for the user."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; no partly written file is left"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}), expected enough for a batch; use a smaller --batch-size, or fewer --workers"
    if isinstance(error, OSError) and not isinstance(error, errors.StorageError):
        return str(storage_error(Path(str(error.filename or "output")), error))
    return str(error)


def printable(text: object) -> str:
    """Text without control characters or undecodable bytes, which a file name may hold: escaped as in Python."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


# ---- parsing


class Parser(argparse.ArgumentParser):
    """A parser with printable errors: a shell's * may put any file name among the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command, its flags made from the config classes."""
    parser = Parser(
        prog="cli.py",
        description="plainfilm: from a messy folder of chest radiographs to a trained, audited classifier. "
        + NOT_FOR_DIAGNOSIS,
        epilog=f"{START}\n\n{textwrap.fill('exit codes: ' + EXIT_MEANINGS, 80)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print versions and device")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = commands.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog=f"example:\n{command.example('  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.config is None:
            child.add_argument("betons", nargs="+", type=Path, metavar="BETON", help="betons to read")
        else:
            for setting in settings_of(command.config):
                add_setting(child, setting, positional=setting.name in command.positionals)
            child.add_argument("--config", type=Path, metavar="FILE", help="JSON file of settings; flags override it")
        if name == "train":
            child.add_argument(
                "--resume", type=Path, metavar="RUN", help="continue the run in this folder, with its own settings"
            )
    return parser


def with_config_file(command: Command, namespace: argparse.Namespace, values: dict[str, Any]) -> dict[str, Any]:
    """The settings of --config, overridden by flags."""
    if namespace.config is None:
        if command.positionals:
            check_both_named(command, namespace.command, values)
        return values
    settings = read_settings(namespace.config)
    assert command.config is not None
    try:
        convert_values(command.config, settings)
    except errors.ConfigError as error:
        raise errors.ConfigError(f"{namespace.config}: {error}") from error
    return settings | values


def check_both_named(command: Command, name: str, values: dict[str, Any]) -> None:
    """Errors: ConfigError for a lone argument where a run and files are expected: argparse takes it for a file."""
    first, last = command.positionals[0], command.positionals[-1]
    if first not in values and last in values:
        found, one = ", ".join(map(str, values[last])), last.removesuffix("s").upper()
        raise errors.ConfigError(f"{name}: found {found}, expected {first.upper()} and at least one {one}; name both")


def reference() -> str:
    """docs/CLI.md: every command with its settings, from the code."""
    parts = [
        "# Command line",
        "Written by `make docs` from the code; do not edit. `python cli.py COMMAND --help` shows the same.",
        f"Exit codes: {EXIT_MEANINGS}.",
    ]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", f"{command.help[0].upper()}{command.help[1:]}.", f"```sh\n{command.example()}\n```"]
        if command.config is not None:
            parts.append(reference_table(settings_of(command.config), command.positionals))
            parts.append("`--config FILE` reads settings from JSON, such as a run's config.json; flags override it.")
        if name == "train":
            parts.append("`--resume RUN` continues the run in that folder, with its own settings.")
    return "\n\n".join(parts) + "\n"


# ---- showing


def console() -> Console:
    """The terminal; if it is none, the width is for bars alone, and tables and lines are printed unwrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110, highlight=False, markup=False, emoji=False)


def show(screen: Console, text: object, style: str | None = None, *, whole: bool = False) -> None:
    """Print one line, which may hold names of files or classes; a terminal wraps it between words unless whole."""
    shown, width = printable(text), limit(screen)
    if width is not None and not whole:
        shown = textwrap.fill(shown, width, break_long_words=False, break_on_hyphens=False)
    screen.print(shown, style=style, soft_wrap=True)


def limit(screen: Console) -> int | None:
    """The width of a terminal; None for a pipe or a file."""
    return screen.width if screen.file.isatty() else None


def with_bars(screen: Console, work: Callable[..., Any], *arguments: object) -> Any:
    """The result of work(*arguments, progress), with a bar for each phase: its count, rate and time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{speed:,.0f}/s" if (speed := task.finished_speed or task.speed) else "")

    name = TextColumn("{task.description:12}", markup=False)
    with Progress(name, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=screen) as bar:
        return work(*arguments, Bars(bar))


class Bars:
    """Progress by phase, each a bar that appears with its first report, and starts anew with another total."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.tasks = bar, {}  # type: ignore[var-annotated]

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self.tasks:
            self.tasks[phase] = self.bar.add_task(printable(phase), total=total)
        self.bar.update(self.tasks[phase], completed=done, total=total)


def show_parts(screen: Console, parts: Parts) -> None:
    """Print the output of a command."""
    for part in parts:
        if isinstance(part, Sheet):
            show_sheet(screen, part)
        else:
            show(screen, part.text, part.style or None, whole=part.whole)


def show_sheet(screen: Console, sheet: Sheet) -> None:
    """Print a table, in blocks of columns where a terminal is too narrow for all of them."""
    if sheet.title:
        show(screen, sheet.title, style="bold")
    sheet = replace(
        sheet,
        headers=tuple(map(printable, sheet.headers)),
        rows=tuple(tuple(map(printable, row)) for row in sheet.rows),
    )
    rule = "-" if screen.options.ascii_only else "─"
    for lines in table_blocks(sheet, limit(screen), rule):
        screen.print("", *lines, "", sep="\n", soft_wrap=True)


# ---- commands


def load(screen: Console, name: str, *, status: str = "loading torch …") -> Any:
    """Import a module, with a status line, since that takes a while."""
    with screen.status(status):
        return importlib.import_module(name)


def start_decoders(workers: int) -> None:
    """Begin to start what decodes in parallel, while this process imports what it needs itself."""
    if (workers or usable_cores()) > 1:
        importlib.import_module("loaders.workers").worker_context()


def show_results(screen: Console, parts: Parts) -> None:
    """Print the output of a command whose results are predictions, or scores of them."""
    show_parts(screen, parts)
    screen.print(NOT_FOR_DIAGNOSIS)


def run_phantom(screen: Console, config: PhantomConfig) -> None:
    """Draw synthetic radiographs, with or without confounders."""
    folder = load(screen, "loaders.phantom.phantom", status="loading kernels …")
    manifest = with_bars(screen, lambda progress: folder.write_phantoms(config, partial(progress, "draw")))
    show(screen, f"Synthetic radiographs of {config.patients} patients; table: {manifest}")


def run_convert(screen: Console, config: ConvertConfig) -> None:
    """Decode, check and split radiographs into betons."""
    start_decoders(config.workers)
    convert = load(screen, "loaders.convert.convert", status="loading kernels …")
    result = with_bars(screen, convert.convert, config)
    show_parts(screen, load(screen, "loaders.convert.conversion").conversion_parts(result))


def run_audit(screen: Console, config: AuditConfig) -> None:
    """Find the defects of each file, and test whether the labels can be predicted without the lungs."""
    if config.beton is None:
        start_decoders(config.workers)
    audit = load(screen, "loaders.audit.audit", status="loading the audit …")
    result, page = with_bars(screen, audit.audit, config), load(screen, "loaders.audit.page")
    show_parts(screen, [*page.audit_parts(result), *page.written_files(result, config.out)])


def run_info(screen: Console, betons: list[Path]) -> None:
    """Show the facts of betons."""
    from loaders.beton.reader import Beton, beton_parts

    for path in betons:
        with Beton(path, trust_unverified=True) as beton:
            show_parts(screen, beton_parts(path, beton))


def run_verify(screen: Console, betons: list[Path]) -> None:
    """Check every byte of betons."""
    from loaders.beton.reader import Beton

    for path in betons:
        with Beton(path, trust_unverified=True) as beton:
            with_bars(screen, lambda progress, beton=beton: beton.verify(partial(progress, "verify")))
            show(screen, f"{path}: intact: {len(beton):,} samples, every checksum agrees")


def run_bench_loader(screen: Console, config: BenchLoaderConfig) -> None:
    """Measure the throughput of the loader, and find its bottleneck."""
    throughput = load(screen, "loaders.batches.throughput", status="loading kernels …")
    result = with_bars(screen, lambda progress: throughput.measure(config, partial(progress, "epochs")))
    show_parts(screen, throughput.throughput_parts(config, result))


@contextlib.contextmanager
def training(screen: Console, arena: bool) -> Iterator[Watch]:
    """Show trainings, and stop them when Ctrl-C or SIGTERM asks to; a second one interrupts at once.

    The live line fits 80 columns, and is erased at the end.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    keep_allocations(arena)
    columns = (BarColumn(bar_width=10), TextColumn("{task.description}", markup=False))
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    with handled(ask_to_stop, signal.SIGINT, signal.SIGTERM), bar:
        view, watch = TrainingView(bar), importlib.import_module("engine.train.state").Watch
        yield watch(begin=view.begin, show=view.show, note=view.note, phases=Bars(bar), stopping=stop.is_set)


def run_train(screen: Console, config: TrainConfig, *, resume: bool = False) -> None:
    """Train the recipe's network on betons."""
    train = load(screen, "engine.train.train")
    with training(screen, config.recipe.arena) as watch:
        summary = train.train(config, resume=resume, watch=watch)
    report = load(screen, "engine.report.report")
    update_page(screen, report.report, ReportConfig(run=config.out, probes=False))
    show_results(screen, train.training_parts(summary, config.out))


def update_page(screen: Console, write: Callable[..., Any], given: object) -> None:
    """Write a run's page, and show what it leaves out.  The results are safe even if another process has the folder."""
    try:
        show_parts(screen, load(screen, "engine.report.report").left_out_parts(write(given)))
    except errors.LockedError as error:
        show(screen, f"report.html is not written: {error}", style="yellow")


def resume_run(screen: Console, namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Continue the run of --resume.  Errors: ConfigError for settings other than the folder of its betons."""
    if set(values) - {"data"} or namespace.config:
        flags = ", ".join(sorted(set(values) - {"data"})) or "config"
        raise errors.ConfigError(
            f"--resume: found {flags} with it, expected none: a run continues with its own settings"
        )
    config = load(screen, "engine.train.run_folder").load_config(namespace.resume, values.get("data"))
    run_train(screen, config, resume=True)


class TrainingView:
    """A training as a live line, and a line for each finished epoch."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.task, self.name = bar, bar.add_task("training", total=None), ""
        self.output = importlib.import_module("engine.train.train")

    def begin(self, name: str) -> None:
        """Show the next of several trainings."""
        self.name = f"{name}  "

    def note(self, text: str) -> None:
        """Print what must be known before long work."""
        self.bar.console.print(printable(self.name + text), soft_wrap=True)

    def show(self, now: Progress) -> None:
        """Move the live line on, and print an epoch that has ended."""
        line = self.name + self.output.live_line(now)
        self.bar.update(self.task, description=line, completed=now.done, total=now.total)
        if now.phase == "epoch":
            self.bar.console.print(self.name + self.output.epoch_line(now))


def run_compare(screen: Console, config: CompareConfig) -> None:
    """Train several networks on the same split, and compare them in one table."""
    compare = load(screen, "engine.compare")
    with training(screen, config.recipe.arena) as watch:
        result = compare.compare(config, watch)
    show_results(screen, compare.comparison_parts(result, config.out))


def run_crossval(screen: Console, config: CrossvalConfig) -> None:
    """Train and test on every fold: of random images, of groups, with the lungs hidden, or by the lungs alone."""
    crossval = load(screen, "engine.crossval.crossval")
    with training(screen, config.recipe.arena) as watch:
        result = crossval.crossval(config, watch)
    show_results(screen, load(screen, "engine.crossval.output").crossval_parts(result, config.out))


def run_hurdles(screen: Console, config: HurdlesConfig) -> None:
    """Train on each of several collections, and test at home and on every other."""
    hurdles = load(screen, "engine.hurdles.hurdles")
    with training(screen, config.recipe.arena) as watch:
        result = hurdles.hurdles(config, watch)
    show_results(screen, load(screen, "engine.hurdles.output").hurdles_parts(result, config.out))


def run_evaluate(screen: Console, config: EvaluateConfig) -> None:
    """Evaluate a run on held-out betons."""
    evaluate, output = load(screen, "engine.evaluate.evaluate"), load(screen, "engine.evaluate.output")
    for result in with_bars(screen, evaluate.evaluate, config):
        show_parts(screen, output.evaluation_parts(result))
    if config.out is None:  # the page shows what is in the run folder
        update_page(screen, load(screen, "engine.report.report").refresh_report, config.run)
    screen.print(NOT_FOR_DIAGNOSIS)


def run_predict(screen: Console, config: PredictConfig) -> None:
    """Write a table of predicted classes, with calibrated probabilities, or the reason to abstain."""
    predict = load(screen, "engine.predict.predict")
    show_results(screen, predict.prediction_parts(with_bars(screen, predict.predict_files, config)))


def run_export(screen: Console, config: ExportConfig) -> None:
    """Export a run as an ONNX model that takes stored frames, with a model card."""
    export = load(screen, "engine.export.export")
    show_results(screen, export.export_parts(with_bars(screen, export.export, config)))


def run_explain(screen: Console, config: ExplainConfig) -> None:
    """Show which parts of the radiographs a run uses, and whether these are the lungs."""
    explain = load(screen, "engine.explain.explain")
    show_parts(screen, explain.explained_parts(with_bars(screen, explain.explain, config)))
    if config.out is None:
        update_page(screen, load(screen, "engine.report.report").refresh_report, config.run)


def run_profile(screen: Console, config: ProfileConfig) -> None:
    """Compare training with a pipeline in plain PyTorch, and find the bottleneck."""
    profile, output = load(screen, "engine.profile.profile"), load(screen, "engine.profile.output")
    show_parts(screen, output.profile_parts(config, with_bars(screen, profile.profile, config)))


def run_report(screen: Console, config: ReportConfig) -> None:
    """Write the page of a run: the verdict in three sentences, and the evidence for it."""
    report = load(screen, "engine.report.report", status="reading the run …")
    show_results(screen, report.report_parts(with_bars(screen, report.report, config)))


def run_segment(screen: Console, config: SegmentConfig) -> None:
    """Find the lungs of radiographs: a mask each, and whether it can be believed."""
    segment, found = load(screen, "loaders.lungs.segment", status="loading the segmenter …"), None
    if importlib.import_module("loaders.images.lungs").is_sam2(config.segmenter):
        found = load(screen, "engine.segmentation.sam2").open_sam2(config.segmenter)
        show(screen, found.cost())
    work = partial(segment.segment, segmenter=found)
    show_parts(screen, segment.segment_parts(with_bars(screen, work, config)))


def run_segment_train(screen: Console, config: SegmentTrainConfig) -> None:
    """Train a segmenter of lungs in folds by patient, and test each net on films that it never saw."""
    train = load(screen, "engine.segmentation.train")
    show_parts(screen, train.trained_parts(with_bars(screen, train.segment_train, config)))


def run_segment_test(screen: Console, config: SegmentTestConfig) -> None:
    """Measure how well a segmenter's masks agree with given ones."""
    test = load(screen, "engine.segmentation.test", status="loading the segmenter …")
    show_parts(screen, test.score_parts(with_bars(screen, test.segment_test, config)))


def print_version() -> None:
    """Versions, and the device that `--device auto` chooses."""
    import numba
    import numpy
    import torch

    from engine.device import choose_device, device_name

    print(f"plainfilm {__version__}, torch {torch.__version__}, numba {numba.__version__}, numpy {numpy.__version__}")
    print(f"device: {device_name(choose_device('auto'))}")


COMMANDS = {
    "phantom": Command(run_phantom, ("phantom P --patients 200 --strength 0.5",), PhantomConfig, ("out",)),
    "convert": Command(
        run_convert,
        (
            "convert SOURCE --out B --holdout 0.15",
            "convert --manifest radiographs.csv --classes covid,normal --size 128 --audit auto --out B",
            "convert SOURCE --lungs boxed-equal --out B   # the lungs alone, at one size",
            "convert ELSEWHERE --like R --map-label COVID-19=covid,Healthy=normal --out EXT   # a test set alone",
        ),
        ConvertConfig,
        ("source",),
    ),
    "audit": Command(
        run_audit,
        (
            "audit SOURCE --labels folder --out A",
            "convert SOURCE --audit A/audit.csv --out B   # after you edited its verdicts",
            "audit B/train.beton --out A2",
        ),
        AuditConfig,
        ("source",),
    ),
    "info": Command(run_info, ("info B/train.beton",)),
    "verify": Command(run_verify, ("verify B/*.beton",)),
    "bench-loader": Command(
        run_bench_loader,
        ("bench-loader B/train.beton", "bench-loader B/train.beton --step-ms 20 --threads 4"),
        BenchLoaderConfig,
        ("beton",),
    ),
    "train": Command(
        run_train,
        ("train B --out R", "train B --model resnet18 --weights default --out R2", "train --resume R"),
        TrainConfig,
        ("data",),
    ),
    "compare": Command(run_compare, ("compare B --models cnn,resnet18 --epochs 10 --out C",), CompareConfig, ("data",)),
    "crossval": Command(
        run_crossval,
        (
            "crossval B --folds 5 --out C",
            "crossval B --folds 5 --out C --external B2/heldout.beton   # continues, and adds a row",
            "crossval B --splits group,lungs-only,silhouette --out C2   # do lungs alone show more than their outline?",
        ),
        CrossvalConfig,
        ("data",),
    ),
    "hurdles": Command(
        run_hurdles,
        (
            "hurdles B1 B2 EXT --out H   # EXT: a test set of `convert` --like",
            "hurdles B1 B2 B3 --out H --leave-one-out --seeds 5",
            "hurdles B --by source --out H",
        ),
        HurdlesConfig,
        ("collections",),
    ),
    "evaluate": Command(
        run_evaluate,
        ("evaluate R B/heldout.beton", "evaluate R B/heldout.beton --prevalence 0.05 --against R2"),
        EvaluateConfig,
        ("run", "betons"),
    ),
    "predict": Command(
        run_predict,
        ("predict R new/", "predict R film-1.dcm film-2.png --out two.jsonl --min-confidence 0.9"),
        PredictConfig,
        ("run", "files"),
    ),
    "export": Command(run_export, ("export R", "export R --out model.onnx"), ExportConfig, ("run",)),
    "explain": Command(
        run_explain,
        (
            "explain R B/heldout.beton",
            "explain R B/heldout.beton --masks P/phantoms.csv",
            "explain R B/heldout.beton --segmenter S",
        ),
        ExplainConfig,
        ("run", "beton"),
    ),
    "profile": Command(
        run_profile,
        ("profile B --source SOURCE", "profile B --source SOURCE --rounds 3 --workers 4 --trace steps.json"),
        ProfileConfig,
        ("data",),
    ),
    "segment": Command(
        run_segment,
        (
            "segment SOURCE --out M",
            "convert SOURCE --lungs masked --masks M/masks.csv --out B   # after you looked at the contact sheet",
        ),
        SegmentConfig,
        ("source",),
    ),
    "segment-train": Command(
        run_segment_train,
        ("segment-train --manifest masks.csv --out S", "segment SOURCE --segmenter S --out M"),
        SegmentTrainConfig,
    ),
    "segment-test": Command(
        run_segment_test,
        ("segment-test --manifest masks.csv --out T", "segment-test --manifest masks.csv --segmenter S --out T2"),
        SegmentTestConfig,
    ),
    "report": Command(run_report, ("report R", "report R --data B --crossval C --hurdles H"), ReportConfig, ("run",)),
}

if __name__ == "__main__":
    sys.exit(main())
