"""plainfilm's command line: parse, build a config, call one function, print, and map errors to exit codes.

Nothing heavy is imported before a command needs it, so that --help is instant.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import signal
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.arena import keep_allocations
from engine.config import (
    CompareConfig,
    CrossvalConfig,
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    PredictConfig,
    ProfileConfig,
    ReportConfig,
    TrainConfig,
)
from engine.terminal import Parts, Sheet
from loaders import __version__, errors
from loaders.atomic_file import storage_error
from loaders.config import AuditConfig, BenchLoaderConfig, ConvertConfig, PhantomConfig
from loaders.flags import add_setting, reference_table
from loaders.settings import build, convert_values, read_settings, settings_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from engine.training import Progress
    from loaders.audit.findings import AuditResult

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
MOST_COLUMNS = 6  # classes that a table has columns for
NOT_FOR_DIAGNOSIS = "Research software: not for diagnosis."


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One subcommand.  config: whose settings become flags; None for commands that only take betons."""

    help: str
    config: type | None
    positionals: tuple[str, ...]
    run: Callable[[argparse.Namespace, dict[str, Any]], None]
    example: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.  Gives the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack × and ·
    parser = make_parser()
    namespace = parser.parse_args(arguments)
    try:
        with polite_kill():
            return run(parser, namespace)
    except tuple(EXIT_CODES) as error:
        code = next(number for kind, number in EXIT_CODES.items() if isinstance(error, kind))
        print(f"plainfilm: {printable(message_of(error))}", file=sys.stderr)
        return code


def run(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> int:
    """Run the parsed command."""
    if namespace.version:
        print_version()
        return 0
    if namespace.command is None:
        parser.print_help()
        return 2
    command = COMMANDS[namespace.command]
    names = setting_names(command)
    values = {name: value for name, value in vars(namespace).items() if name in names and value is not None}
    command.run(namespace, values)
    return 0


@contextlib.contextmanager
def polite_kill() -> Iterator[None]:
    """Let SIGTERM clean up like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def message_of(error: BaseException) -> str:
    """What to tell the user."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing half-written is left"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}), expected enough for a batch; use a smaller --batch-size, or fewer --workers"
    if isinstance(error, OSError) and not isinstance(error, errors.StorageError):
        return str(storage_error(Path(str(error.filename or "output")), error))
    return str(error)


def printable(text: object) -> str:
    """Text without control characters or undecodable bytes, which a file name may hold: escaped as in Python."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


# ---- parsing


def make_parser() -> argparse.ArgumentParser:
    """The parser of every command, its flags made from the config classes."""
    parser = argparse.ArgumentParser(
        prog="cli.py",
        description="plainfilm: from a messy folder of chest radiographs to a trained, audited classifier. "
        + NOT_FOR_DIAGNOSIS,
        epilog="exit codes: " + EXIT_MEANINGS,
    )
    parser.add_argument("--version", action="store_true", help="print versions and device")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = commands.add_parser(
            name,
            help=command.help,
            description=command.help,
            epilog="example:\n  " + command.example.replace("\n", "\n  "),
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
                "--resume",
                type=Path,
                metavar="RUN",
                help="continue the run in this folder, with its own settings; DATA may say where its betons lie now",
            )
    return parser


def setting_names(command: Command) -> set[str]:
    """The names that belong to the command's config."""
    return set() if command.config is None else {setting.name for setting in settings_of(command.config)}


def with_config_file(namespace: argparse.Namespace, values: dict[str, Any]) -> dict[str, Any]:
    """The settings of --config, overridden by flags."""
    if namespace.config is None:
        return values
    settings, config = read_settings(namespace.config), COMMANDS[namespace.command].config
    assert config is not None
    try:
        convert_values(config, settings)
    except errors.ConfigError as error:
        raise errors.ConfigError(f"{namespace.config}: {error}") from error
    return settings | values


def reference() -> str:
    """docs/CLI.md: every command with its settings, from the code."""
    parts = [
        "# Command line",
        "Written by `make docs` from the code; do not edit. `python cli.py COMMAND --help` says the same.",
        f"Exit codes: {EXIT_MEANINGS}.",
    ]
    for name, command in COMMANDS.items():
        example = f"```sh\n{command.example}\n```"
        parts += [f"## {name}", f"{command.help[0].upper()}{command.help[1:]}.", example]
        if command.config is not None:
            parts.append(reference_table(settings_of(command.config), command.positionals))
            parts.append("`--config FILE` reads settings from JSON, such as a run's config.json; flags override it.")
        if name == "train":
            parts.append("`--resume RUN` continues the run in that folder, with its own settings.")
    return "\n\n".join(parts) + "\n"


# ---- showing


def console() -> Console:
    """The terminal; wide enough for tables where it is not one."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110, highlight=False, markup=False, emoji=False)


def show(screen: Console, text: object, style: str | None = None) -> None:
    """Print one line that may hold names of files or classes; a long path stays in one piece."""
    screen.print(printable(text), style=style, soft_wrap=True)


def bar(screen: Console) -> Bar:
    """A progress bar with count, rate and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{speed:,.0f}/s" if (speed := task.finished_speed or task.speed) else "")

    return Progress(
        TextColumn("{task.description:12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=screen,
    )


def training_bar(screen: Console) -> Bar:
    """A live line that fits 80 columns, and leaves nothing behind."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=10), TextColumn("{task.description}", markup=False))
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


class Bars:
    """Progress by phase, each a bar that appears with its first report."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.tasks = bar, {}  # type: ignore[var-annotated]

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self.tasks:
            self.tasks[phase] = self.bar.add_task(printable(phase), total=total)
        self.bar.update(self.tasks[phase], completed=done)


def percent(value: float | None) -> str:
    """A share for people; some are undefined."""
    return "undefined" if value is None else f"{value:.2%}"


def grid(*headers: str, title: str | None = None) -> Any:
    """A table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(printable(header), justify="right" if index else "left", overflow="fold")
    return table


def show_parts(screen: Console, parts: Parts) -> None:
    """Print what a command has to tell."""
    for part in parts:
        if isinstance(part, Sheet):
            table = grid(*part.headers, title=printable(part.title) or None)
            for row in part.rows:
                table.add_row(*map(printable, row))
            screen.print(table)
        else:
            show(screen, part.text, part.style or None)


# ---- commands


def run_phantom(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Draw synthetic radiographs."""
    from loaders.phantom_folder import write_phantoms

    config = build(PhantomConfig, with_config_file(namespace, values))
    screen = console()
    with bar(screen) as shown:
        manifest = write_phantoms(config, partial(Bars(shown), "draw"))
    show(screen, f"Synthetic radiographs of {config.patients} patients; table: {manifest}")


def run_convert(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Convert radiographs to betons."""
    from loaders.convert import convert

    config = build(ConvertConfig, with_config_file(namespace, values))
    screen = console()
    with bar(screen) as shown:
        done = convert(config, Bars(shown))
    counts = done.counts
    screen.print(
        f"{done.files} files in = {counts['written']} written + {counts['rejected']} rejected + "
        f"{counts['duplicate']} duplicates" + (f"; {counts['excluded']} more excluded" if counts["excluded"] else "")
    )
    if done.audited:
        show_audit(screen, done.audited)
    shown_reasons = list(done.reasons.items())[:8]
    for reason, number in shown_reasons:
        show(screen, f"  rejected {number}: {reason}")
    if more := len(done.reasons) - len(shown_reasons):
        show(screen, f"  and {more} more reasons: see the table of files, convert.csv")
    table = grid("split", *done.catalog.classes, "images", "groups")
    for split, by_class in done.samples.items():
        table.add_row(split, *map(str, by_class.values()), str(sum(by_class.values())), str(done.groups[split]))
    screen.print(table)
    show(screen, f"positive class: {done.catalog.positive}")
    if done.told_by_source and not done.audited:  # the audit has said so
        which = ", ".join(done.told_by_source)
        told = f"Every image of {which} comes from a source without any other class: finding and source"
        show(screen, f"{told} cannot be told apart, and no accuracy on this collection is evidence.", "bold yellow")
    if done.unknown_patients:
        unknown = f"Patients are unknown for {done.unknown_patients} of {counts['written']} images"
        show(screen, f"{unknown}: leakage between patients is not excluded.", "yellow")
    if done.dry_run:
        screen.print("Dry run: nothing was written.")
        return
    for name in (
        *(f"{split}.beton" for split in done.samples),
        "convert.csv",
        *(["audit.csv", "audit.html"] if done.audited else []),
        "preparation.png",
        "augmentation.png",
    ):
        show(screen, done.out / name)


def run_audit(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Audit files and the collection."""
    config = build(AuditConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading the audit …"):
        auditing = importlib.import_module("loaders.audit.audit")
    with bar(screen) as shown:
        result = auditing.audit(config, Bars(shown))
    show_audit(screen, result)
    for name in (*(["audit.csv"] if result.files else []), "audit.html"):
        show(screen, config.out / name)


def show_audit(screen: Console, result: AuditResult) -> None:
    """Defects by class, and what the collection gives away."""
    from loaders.audit.findings import DEFECTS

    if result.files:
        counts = result.counts()
        screen.print(
            f"{len(result.files)} files: {counts['keep']} keep + {counts['fix']} fix + "
            f"{counts['quarantine']} quarantine; {result.seconds:.1f} s"
        )
        of_label = Counter(file.label for file in result.files)
        labels = [label for label, _ in of_label.most_common(MOST_COLUMNS)]
        headers = [label or "files" for label in labels] + (["others"] if len(of_label) > len(labels) else [])
        table = grid("defect", *headers, "what it means")
        table.columns[-1].justify = "left"
        for defect, by_label in result.by_defect().items():
            counts_of = [by_label.get(label, 0) for label in labels]
            rest = [sum(by_label.values()) - sum(counts_of)] if len(of_label) > len(labels) else []
            table.add_row(defect, *map(str, counts_of + rest), DEFECTS[defect])
        if table.rows:
            screen.print(table)
        screen.print("Names burned into pixels are not read: look before you share.")
    if result.collection is None:
        return
    for caution in result.collection.cautions:
        show(screen, caution, "bold yellow")
    probes = grid("what a probe sees", "AUC", "95 % interval", "p (Holm)", "")
    for probe in result.collection.probes:
        probes.add_row(
            printable(probe.name), f"{probe.auc:.3f}", f"{probe.low:.3f}–{probe.high:.3f}", f"{probe.p_holm:.4f}",
            "alarm" if probe.alarm else "",
        )  # fmt: skip
    screen.print(probes)
    for probe in result.collection.probes:
        if probe.alarm:
            show(screen, probe.sentence, "yellow")
    for reason, number in Counter(result.collection.skipped.values()).items():
        first = next(name for name, why in result.collection.skipped.items() if why == reason)
        show(screen, f"Not probed: {first}{f' and {number - 1} more' if number > 1 else ''}: {reason}")


def run_info(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Show what betons say of themselves."""
    import numpy as np

    from loaders.beton import Beton

    screen = console()
    for path in namespace.betons:
        with Beton(path, trust_unverified=True) as beton:
            facts, rows_N = beton.facts, beton.rows_N
            counts = np.bincount(beton.label_N, minlength=len(facts.classes))
            table = grid("beton", str(path))
            by_class = ", ".join(f"{name} {count}" for name, count in zip(facts.classes, counts, strict=True))
            rows = {
                "verified": "structure, header and tables" if beton.verified else "no: foreign, without checksums",
                "samples": f"{len(beton):,}: {by_class}",
                "positive class": facts.positive,
                "frames": f"{facts.stored}×{facts.stored} uint8, crop {facts.crop}, {facts.fit}",
                "split": f"{facts.split}, seed {facts.seed}",
                "groups": f"{len(np.unique(rows_N['group'])):,}" if beton.verified else "unknown",
                "patients": f"{int(rows_N['patient_hash'].any(1).sum()):,} images with a known patient",
                "views": ", ".join(view or "unknown" for view in facts.views),
                "sources": ", ".join(source or "unknown" for source in facts.sources),
                "synthetic": "yes" if facts.synthetic else "no",
                "conversion": facts.conversion_id or "unknown",
                "site key": facts.site_key_id or "unknown",
                "bytes": f"{beton.bytes_B.size:,} in pages of {beton.page_size:,}",
                "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or "unknown",
            }
            for name, value in rows.items():
                table.add_row(name, printable(value))
            screen.print(table)


def run_verify(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Check every byte of betons."""
    from loaders.beton import Beton

    screen = console()
    for path in namespace.betons:
        with bar(screen) as shown, Beton(path, trust_unverified=True) as beton:
            beton.verify(partial(Bars(shown), "verify"))
            show(screen, f"{path}: whole: {len(beton):,} samples, every checksum agrees")


def run_bench_loader(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Measure a loader on this machine."""
    config = build(BenchLoaderConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading kernels …"):
        throughput = importlib.import_module("loaders.throughput")
    with bar(screen) as shown:
        found = throughput.measure(config, partial(Bars(shown), "epochs"))
    kind = "evaluation" if config.evaluation else "training"
    show(
        screen,
        f"{config.beton}: {found.num_samples:,} frames of {found.side}×{found.side}, crops of {found.crop}; {kind} "
        f"batches of {config.loader.batch_size}, {found.threads} threads, order {found.order}",
    )
    screen.print(f"opened in {found.open_seconds * 1e3:,.1f} ms, first batch {found.first_batch_seconds:.2f} s later")
    table = grid("epoch", "images/s", "waited for", "from disk")
    for number, (epoch, rate) in enumerate(zip(found.epochs, found.rates, strict=True), start=1):
        disk = f"{epoch.disk_bytes / epoch.seconds / 1e6:,.0f} MB/s"
        table.add_row(str(number), f"{rate:,.0f}", f"{epoch.waited / epoch.seconds:.1%}", disk)
    screen.print(table)
    stages = grid("one thread alone", "µs an image")
    for name, microseconds in found.stages.items():
        stages.add_row(name, f"{microseconds:,.1f}")
    screen.print(stages)
    rates = sorted(found.rates)
    middle = statistics.median(rates)
    screen.print(f"{middle:,.0f} images/s (median; {rates[0]:,.0f} to {rates[-1]:,.0f})", style="bold")
    show(screen, f"Bound by {found.bound}.")


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second one does not wait."""
    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_train(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Train, or continue a run."""
    if namespace.resume is not None and (set(values) - {"data"} or namespace.config):
        flags = ", ".join(sorted(set(values) - {"data"})) or "config"
        raise errors.ConfigError(
            f"--resume: found {flags} beside it, expected none: a run continues with its own settings"
        )
    fresh = None if namespace.resume else build(TrainConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        training = importlib.import_module("engine.training")
    config = fresh or replace(training.resume_config(namespace.resume), **values)
    keep_allocations(config.arena)
    with stop_signals() as stop, training_bar(screen) as shown:
        view = TrainingView(screen, shown)
        summary = training.train(config, resume=fresh is None, watch=view, stopping=stop.is_set)
    importlib.import_module("engine.report.report").report(ReportConfig(run=config.out, probes=False))
    screen.print(
        f"Best validation F1 {percent(summary['best_f1'])} in epoch {summary['best_epoch']} of {summary['epochs']} "
        f"({summary['stopped']}); {summary['images_per_second']:,.0f} images/s, {summary['seconds']:,.1f} s "
        f"on {summary['device']}"
    )
    if not summary["device"].startswith("cpu"):
        show(screen, summary["compile"])
    for name in ("best.safetensors", "metrics.csv", "curves.png", "summary.json", "report.html"):
        show(screen, config.out / name)
    for caution in summary["cautions"]:
        show(screen, f"Caution: {caution}.", style="yellow")
    screen.print(NOT_FOR_DIAGNOSIS)


class TrainingView:
    """A training as a live line, and a line for each epoch that is done."""

    def __init__(self, screen: Console, bar: Bar) -> None:
        self.screen, self.bar = screen, bar
        self.task = bar.add_task("training", total=None)
        self.told: int | None = None
        self.name = ""

    def named(self, name: str) -> TrainingView:
        """The same view for the next of several networks."""
        self.name, self.told = f"{name}  ", None
        return self

    def __call__(self, now: Progress) -> None:
        loss = "–" if math.isnan(now.loss) else f"{now.loss:.3f}"
        left = "" if now.seconds_left is None else f"≤ {now.seconds_left / 60:.1f} min"
        self.bar.update(
            self.task,
            description=f"{self.name}epoch {now.epoch}/{now.epochs}  loss {loss}  F1 {now.best_f1:.3f}  "
            f"{now.images_per_second:,.0f} images/s  patience {now.patience_left}  {left}",
            completed=now.done,
            total=now.total,
        )
        if now.phase == "epoch" and self.told != len(now.history):
            self.told = len(now.history)
            row = now.history[-1]
            best = "  best" if now.best_epoch == row["epoch"] else ""
            self.screen.print(
                f"{self.name}epoch {row['epoch']:3}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
                f"val F1 {row['val_f1']:.4f}  {row['images_per_second']:,.0f} images/s{best}"
            )


def run_compare(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Train networks on the same split, one after the other."""
    config = build(CompareConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        comparison = importlib.import_module("engine.comparison.comparison")
        words = importlib.import_module("engine.comparison.words")
    keep_allocations(config.arena)
    with stop_signals() as stop, training_bar(screen) as shown:
        view = TrainingView(screen, shown)
        result = comparison.compare(config, watch=view.named, progress=Bars(shown), stopping=stop.is_set)
    show_parts(screen, words.comparison_parts(result))
    screen.print(NOT_FOR_DIAGNOSIS)


def run_crossval(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Train and test on every fold, or go on with it."""
    config = build(CrossvalConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        validating = importlib.import_module("engine.crossval.crossval")
        words = importlib.import_module("engine.crossval.words")
    keep_allocations(config.arena)
    with stop_signals() as stop, training_bar(screen) as shown:
        view = TrainingView(screen, shown)
        content = validating.crossval(config, begin=view.named, stopping=stop.is_set)
    show_parts(screen, words.crossval_parts(content, config.out))
    screen.print(NOT_FOR_DIAGNOSIS)


def run_evaluate(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Evaluate a run on betons."""
    if "run" not in values and namespace.config is None:  # argparse takes a lone argument for the beton
        found = ", ".join(map(str, values["betons"]))
        raise errors.ConfigError(f"evaluate: found {found}, expected RUN and at least one BETON; name both")
    config = build(EvaluateConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        evaluation = importlib.import_module("engine.evaluation.evaluation")
        words = importlib.import_module("engine.evaluation.words")
    with bar(screen) as shown:
        results = evaluation.evaluate(config, Bars(shown))
    for result in results:
        show_parts(screen, words.evaluation_parts(result))
    show(screen, NOT_FOR_DIAGNOSIS)


def run_predict(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Say the class of files, or why not."""
    if "run" not in values and namespace.config is None:  # argparse takes a lone argument for the file
        found = ", ".join(map(str, values["files"]))
        raise errors.ConfigError(f"predict: found {found}, expected RUN and at least one FILE; name both")
    config = build(PredictConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        prediction = importlib.import_module("engine.prediction.prediction")
        words = importlib.import_module("engine.prediction.words")
    with bar(screen) as shown:
        found = prediction.predict_files(config, Bars(shown))
    show_parts(screen, words.prediction_words(found))
    screen.print(NOT_FOR_DIAGNOSIS)
    found.check()


def run_export(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Write a run as ONNX, with its model card."""
    config = build(ExportConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        exporting = importlib.import_module("engine.export.export")
        words = importlib.import_module("engine.export.words")
    with bar(screen) as shown:
        done = exporting.export(config, Bars(shown))
    show_parts(screen, words.export_words(done))
    screen.print(NOT_FOR_DIAGNOSIS)


def run_explain(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Show where a run looks."""
    config = build(ExplainConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        explaining = importlib.import_module("engine.explanation.explain")
        words = importlib.import_module("engine.explanation.words")
    with bar(screen) as shown:
        result = explaining.explain(config, Bars(shown))
    show_parts(screen, words.explanation_parts(result))


def run_profile(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Compare the reference pipeline with the engine, and say what bounds the engine."""
    config = build(ProfileConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("loading torch …"):
        profiling = importlib.import_module("engine.profile.profile")
        account = importlib.import_module("engine.profile.account")
    with bar(screen) as shown:
        found = profiling.profile(config, Bars(shown))
    reference, engine, bound = found.reference, found.engine, found.bound
    show(
        screen,
        f"{config.data}: {found.num_images:,} {'phantoms' if found.facts.synthetic else 'radiographs'}, crops of "
        f"{found.facts.crop}, batches of {config.loader.batch_size}; {found.device}; {config.rounds} rounds, medians",
    )
    table = grid("milliseconds an image", "reference", "engine", "ratio")
    for part in account.PARTS:
        if part in reference.parts or part in engine.parts:
            sides = [(side.parts.get(part, 0.0) * 1e3, part in side.overlapped) for side in (reference, engine)]
            cells = [f"({value:,.3f})" if beside else f"{value:,.3f}" for value, beside in sides]
            table.add_row(part, *cells, f"{sides[0][0] / sides[1][0]:,.2f}×" if sides[1][0] else "")
    for name in ("training", "validation"):
        a, b = (getattr(side, name) * 1e3 for side in (reference, engine))
        table.add_row(name, f"{a:,.3f}", f"{b:,.3f}", f"{a / b:,.2f}×")
    screen.print(table)
    if reference.overlapped or engine.overlapped:
        screen.print("In brackets: time of threads or workers beside the training; it is in no sum.")
    waterfall = grid(
        f"{account.EPOCHS} epochs of {account.TRAINING:,} + {account.VALIDATION} images", "seconds", "gain", "adds"
    )
    for place, row in enumerate(found.variants):
        gain = found.variants[place - 1].run_seconds / row.run_seconds if place else None
        waterfall.add_row(row.variant.name, f"{row.run_seconds:,.1f}", f"{gain:.2f}×" if gain else "", row.variant.adds)
    waterfall.add_row("the report", f"{account.REPORT_SECONDS:,.1f}", "", "other hardware: Apple M3 Max")
    screen.print(waterfall)
    screen.print(
        f"From the second row on with {engine.conversion_seconds:,.1f} s of conversion, once: measured on "
        f"{config.rounds} × {profiling.CONVERTED} files in one process; its workers share it."
    )
    screen.print(f"An epoch of the engine is {found.ratio:.2f} times as fast as the reference's.", style="bold")
    screen.print(
        f"This machine: {bound.matmul / 1e9:,.0f} GFLOP/s in matrix products, {bound.copy / 1e9:,.1f} GB/s copied. "
        f"The engine's steps reach {bound.arithmetic:.2f} of the first; copying each convolution's output there and "
        f"back would take {bound.copying:.2f} of their time."
    )
    show(screen, f"Bound by {found.verdict.text}.", style="bold")
    for caution in found.cautions:
        show(screen, f"Caution: {caution}.", style="yellow")
    for path in (found.out / "profile.png", found.out / "profile.json", *([config.trace] if config.trace else [])):
        show(screen, path)


def run_report(namespace: argparse.Namespace, values: dict[str, Any]) -> None:
    """Write the page of a run anew."""
    config = build(ReportConfig, with_config_file(namespace, values))
    screen = console()
    with screen.status("reading the run …"):
        reporting = importlib.import_module("engine.report.report")
        words = importlib.import_module("engine.report.words")
    with bar(screen) as shown:
        done = reporting.report(config, Bars(shown))
    show_parts(screen, words.report_parts(done))
    screen.print(NOT_FOR_DIAGNOSIS)


def print_version() -> None:
    """Versions and the device that `--device auto` takes."""
    import numba
    import numpy
    import torch

    from engine.device import choose_device, device_name

    print(f"plainfilm {__version__}, torch {torch.__version__}, numba {numba.__version__}, numpy {numpy.__version__}")
    print(f"device: {device_name(choose_device('auto'))}")


COMMANDS = {
    "phantom": Command(
        help="draw synthetic radiographs, with or without the report's trap",
        config=PhantomConfig,
        positionals=("out",),
        run=run_phantom,
        example="python cli.py phantom P --patients 200 --strength 0.5",
    ),
    "convert": Command(
        help="decode, check and split radiographs into betons",
        config=ConvertConfig,
        positionals=("source",),
        run=run_convert,
        example="python cli.py convert SOURCE --out B --holdout 0.15\n"
        "python cli.py convert --manifest radiographs.csv --classes covid,normal --size 128 --audit auto --out B",
    ),
    "audit": Command(
        help="say what is wrong with each file, and whether labels can be told without the lungs",
        config=AuditConfig,
        positionals=("source",),
        run=run_audit,
        example="python cli.py audit SOURCE --labels folder --out A\n"
        "python cli.py convert SOURCE --audit A/audit.csv --out B   # after you edited its verdicts\n"
        "python cli.py audit B/train.beton --out A2",
    ),
    "info": Command(
        help="show what a beton says of itself",
        config=None,
        positionals=(),
        run=run_info,
        example="python cli.py info B/train.beton",
    ),
    "verify": Command(
        help="check every byte of a beton",
        config=None,
        positionals=(),
        run=run_verify,
        example="python cli.py verify B/*.beton",
    ),
    "bench-loader": Command(
        help="measure how fast batches come, and what bounds them",
        config=BenchLoaderConfig,
        positionals=("beton",),
        run=run_bench_loader,
        example="python cli.py bench-loader B/train.beton\n"
        "python cli.py bench-loader B/train.beton --step-ms 20 --threads 4",
    ),
    "train": Command(
        help="train the recipe's network on betons",
        config=TrainConfig,
        positionals=("data",),
        run=run_train,
        example="python cli.py train B --out R\n"
        "python cli.py train B --model resnet18 --weights default --out R2\n"
        "python cli.py train --resume R",
    ),
    "compare": Command(
        help="train several networks on the same split, and give one table",
        config=CompareConfig,
        positionals=("data",),
        run=run_compare,
        example="python cli.py compare B --models cnn,resnet18 --epochs 10 --out C",
    ),
    "crossval": Command(
        help="train and test on every fold: by random images, by groups, and with the lungs hidden",
        config=CrossvalConfig,
        positionals=("data",),
        run=run_crossval,
        example="python cli.py crossval B --folds 5 --out C\n"
        "python cli.py crossval B --folds 5 --out C --external B2/heldout.beton   # continues, and adds a row",
    ),
    "evaluate": Command(
        help="evaluate a run on betons that it has not seen",
        config=EvaluateConfig,
        positionals=("run", "betons"),
        run=run_evaluate,
        example="python cli.py evaluate R B/heldout.beton\n"
        "python cli.py evaluate R B/heldout.beton --prevalence 0.05 --against R2",
    ),
    "predict": Command(
        help="say the class of radiographs, calibrated, or why not, in a table",
        config=PredictConfig,
        positionals=("run", "files"),
        run=run_predict,
        example="python cli.py predict R new/\n"
        "python cli.py predict R film-1.dcm film-2.png --out two.jsonl --min-confidence 0.9",
    ),
    "export": Command(
        help="write a run as ONNX that takes stored frames, with a model card",
        config=ExportConfig,
        positionals=("run",),
        run=run_export,
        example="python cli.py export R\npython cli.py export R --out model.onnx",
    ),
    "explain": Command(
        help="show where a run looks in the pictures, and whether that is the lungs",
        config=ExplainConfig,
        positionals=("run", "beton"),
        run=run_explain,
        example="python cli.py explain R B/heldout.beton\n"
        "python cli.py explain R B/heldout.beton --masks P/phantoms.csv",
    ),
    "profile": Command(
        help="compare with the pipeline that one would write in plain PyTorch, and name the bottleneck",
        config=ProfileConfig,
        positionals=("data",),
        run=run_profile,
        example="python cli.py profile B --source SOURCE\n"
        "python cli.py profile B --source SOURCE --rounds 3 --workers 4 --trace steps.json",
    ),
    "report": Command(
        help="write the page of a run: the verdict in three sentences, and all it rests on",
        config=ReportConfig,
        positionals=("run",),
        run=run_report,
        example="python cli.py report R\npython cli.py report R --data B --crossval C",
    ),
}

if __name__ == "__main__":
    sys.exit(main())
