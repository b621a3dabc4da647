"""The report of a run: the audit's probes on its training beton, what else its data still shows, and the page."""

from dataclasses import dataclass
from pathlib import Path

from engine.config import ReportConfig
from engine.crossval.scores import CROSSVAL, Crossval
from engine.evaluate.dataflow import keep_dataflow
from engine.hurdles.results import HURDLES, Hurdles
from engine.report.findings_verdict import judge_findings
from engine.report.page import run_page
from engine.report.probes import FINDINGS_PROBES, PROBES, probe_run
from engine.report.results import CROSSVAL_PICTURE, HURDLES_PICTURE, RunResults, read_results
from engine.report.verdict import Verdict, judge
from engine.train.run_folder import CONFIG, data_folder
from engine.train.summary import SUMMARY
from loaders.atomic_file import locked, publish_bytes
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.errors import ConfigError, InputError
from loaders.html import PNG
from loaders.output import Line, Parts, PhaseProgress, caution_lines, path_line
from loaders.records import Record, read_record, write_record

REPORT, BETON = "report.html", "train.beton"
JOINING: dict[type[Record], tuple[str, str]] = {  # results of other folders, each with its file and its picture
    Crossval: (CROSSVAL, CROSSVAL_PICTURE),
    Hurdles: (HURDLES, HURDLES_PICTURE),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A page that was written.  notes: what could not be added to it, and why.  left_out: what it does not show."""

    page: Path
    verdict: Verdict
    notes: tuple[str, ...]
    left_out: tuple[Caution, ...]


def report(config: ReportConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Report:
    """Gather what the run's own data can still tell, and write the page anew.

    Errors: ConfigError for no run folder, or no cross-validation or hurdles where some were named; InputError for a
    data folder without train.beton, or of another conversion; BetonError; StorageError; LockedError.
    """
    run = config.run
    if not any((run / name).is_file() for name in (CONFIG, SUMMARY)):
        raise ConfigError(f"{run}: no {CONFIG}, expected a run folder of `train`; check the path")
    with locked(run):
        results = read_results(run)
        notes, sizes = [], dict[str, int]()
        if summary := results.summary:
            sizes = {"train": summary.training_images, "val": summary.validation_images}
        joining = [
            read_result(kind, folder, results, run)
            for kind, folder in ((Crossval, config.crossval), (Hurdles, config.hurdles))
            if folder is not None
        ]
        data, why = find_data(config, results)
        if data is None:
            notes.append(why)
        else:
            if why := keep_dataflow(run, data, sizes, results.conversion_id):
                notes.append(f"data flow: {why}")
            kept = FINDINGS_PROBES if results.task == "findings" else PROBES
            if config.probes and not (run / kept).is_file():
                probe_run(run, data / BETON, progress)
        for record, picture_B in joining:
            name, picture = JOINING[type(record)]
            write_record(run / name, record)
            if picture_B.startswith(PNG):
                publish_bytes(run / picture, picture_B)
            else:
                (run / picture).unlink(missing_ok=True)  # of an earlier one
        return write_report(run, notes=tuple(notes))


def refresh_report(run: Path) -> Report:
    """Write the page anew, after a command left something in the run folder.  Errors: LockedError; StorageError."""
    with locked(run):
        return write_report(run)


def write_report(run: Path, *, notes: tuple[str, ...] = ()) -> Report:
    """Write RUN/report.html: the same bytes for the same files in the run folder.  notes: of the report.

    The page says what is missing, with the command that makes it.
    For the owner of run's lock.  Errors: StorageError.
    """
    results = read_results(run)
    verdict = judge_findings(results) if results.task == "findings" else judge(results)
    publish_bytes(run / REPORT, run_page(results, verdict).encode("utf-8"))
    return Report(page=run / REPORT, verdict=verdict, notes=notes, left_out=tuple(results.left_out))


def find_data(config: ReportConfig, results: RunResults) -> tuple[Path | None, str]:
    """The data folder: the one named, else the run's own if it still holds the run's conversion; else why not.

    Errors: InputError when the one named is not what the run was trained on; BetonError.
    """
    data = config.data or data_folder(config.run)
    if data is None or not (data / BETON).is_file():
        if config.data is not None:
            raise InputError(f"{data}: no {BETON}, expected the folder that the run was trained on; check the path")
        return None, "data flow and probes, since the run's data folder is not there; name it with --data"
    with Beton(data / BETON, trust_unverified=True) as beton:
        found, expected = beton.facts.conversion_id, results.conversion_id
    if expected and found != expected:
        which = f"{data / BETON}: of conversion {found or 'unknown'}, expected {expected}, on which the run was trained"
        if config.data is not None:
            raise InputError(f"{which}; bring that one back, or leave --data out")
        return None, f"data flow and probes; {which}"
    return data, ""


def read_result(
    kind: type[Crossval] | type[Hurdles], folder: Path, results: RunResults, run: Path
) -> tuple[Crossval | Hurdles, bytes]:
    """The result in a folder of `crossval` or `hurdles` and its picture, b"" for none.  results: of the run.

    Errors: ConfigError for a folder without a result; IntegrityError for a damaged one; InputError for one of other
    classes than the run's; StorageError.
    """
    name, picture = JOINING[kind]
    if not (folder / name).is_file():
        raise ConfigError(f"{folder}: no {name}, expected a folder of `{kind.made_by}`; check the path")
    found, expected = read_record(kind, folder / name), results.classes
    if expected and (found.classes, found.task) != (expected, results.task):
        raise InputError(
            f"{folder / name}: {found.task} {', '.join(found.classes)}, expected {', '.join(expected)} as of {run}; "
            f"name the folder of a `{kind.made_by}` of the run's own data"
        )
    return found, (folder / picture).read_bytes() if (folder / picture).is_file() else b""


def report_parts(done: Report) -> Parts:
    """Three sentences, what is missing, and the page."""
    parts = [
        Line(f"{question}: {sentence}".replace("\u00a0", " "), "bold" if done.verdict.state == "flagged" else "")
        for question, sentence in done.verdict.sentences.items()
    ]
    parts += [Line(f"Not in the report: {note}.", "yellow") for note in done.notes]
    return [*parts, *left_out_parts(done), path_line(done.page)]


def left_out_parts(done: Report) -> Parts:
    """What lies in the run folder and is not on its page."""
    return caution_lines(done.left_out, done.page.name)
