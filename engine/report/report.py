"""The probes of a run: whether anything but the finding predicts the label in the betons that it learnt from."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec

from engine.config import ReportConfig
from engine.evaluate.dataflow import keep_dataflow
from engine.report.page import run_page
from engine.report.results import Material, Reader, count_in, read_material, text_in, texts_in
from engine.report.verdict import Verdict, judge
from engine.train.run_folder import CONFIG, LOCAL
from loaders import __version__
from loaders.atomic_file import locked, publish_bytes, storage_error
from loaders.audit.findings import CollectionFinding, ProbeFinding
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.errors import ConfigError, InputError
from loaders.html import PNG
from loaders.output import Line, Parts, caution_lines, path_line
from loaders.settings import is_path

PROBES = "probes.json"
SEED = 0
PERMUTATIONS = 999  # the fewest with which Holm's correction over a dozen probes can leave a p below 5 %
Progress = Callable[[str, int, int], None]


def probe_run(run: Path, beton_path: Path, progress: Progress = lambda phase, done, total: None) -> CollectionFinding:
    """Run the audit's probes on a training beton, and write RUN/probes.json, the same for the same beton.

    Errors: BetonError; StorageError.
    """
    from loaders.audit.audit import audit_beton  # takes its time to import

    with Beton(beton_path, trust_unverified=True) as beton:
        verified, facts, num_samples = beton.verified, beton.facts, len(beton)
    found = None
    why = "fewer than two classes"
    if verified:
        found = audit_beton(beton_path, SEED, PERMUTATIONS, progress)
    else:
        why = "the beton is unverified: its groups are not known"
    result = found or CollectionFinding(probes=(), cautions=(), skipped={"all probes": why})
    content = {
        "beton": beton_path.name,
        "conversion_id": facts.conversion_id,
        "num_samples": num_samples,
        "seed": SEED,
        "permutations": PERMUTATIONS,
        "probes": [probe_content(probe) for probe in result.probes],
        "cautions": msgspec.to_builtins(result.cautions),
        "skipped": result.skipped,
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }
    publish_bytes(run / PROBES, (json.dumps(content, indent=2) + "\n").encode())
    return result


def probe_content(probe: ProbeFinding) -> dict[str, Any]:
    """One probe for JSON: what was not measured is null, the picture a small PNG in base64."""
    numbers = {name: getattr(probe, name) for name in ("auc", "low", "high", "null_high", "p", "p_holm")}
    picture = None
    if probe.picture_HW is not None:
        picture = base64.b64encode(cv2.imencode(".png", probe.picture_HW)[1].tobytes()).decode()
    return {
        "name": probe.name,
        **{name: float(value) if math.isfinite(value) else None for name, value in numbers.items()},
        "alarm": bool(probe.alarm),
        "sentence": probe.sentence,
        "picture": picture,
    }


REPORT, CROSSVAL, CROSSVAL_PICTURE, BETON = "report.html", "crossval.json", "crossval.png", "train.beton"
RUN_FILES = (CONFIG, "summary.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A page that was written.  notes: what could not be added to it, and why.  left_out: what it does not show."""

    page: Path
    verdict: Verdict
    notes: tuple[str, ...]
    left_out: tuple[Caution, ...]


def report(config: ReportConfig, progress: Progress = lambda phase, done, total: None) -> Report:
    """Gather what the run's own data can still tell, and write the page anew.

    Errors: ConfigError for no run folder, or no cross-validation where one was named; InputError for a data folder
    without train.beton, or of another conversion; BetonError; StorageError; LockedError.
    """
    run = config.run
    if not any((run / name).is_file() for name in RUN_FILES):
        raise ConfigError(f"{run}: no {RUN_FILES[0]}, expected a run folder of `train`; check the path")
    with locked(run):
        material = read_material(run)
        notes = []
        crossval = None if config.crossval is None else read_crossval(config.crossval, material.classes, run)
        data, why = find_data(config, material)
        if data is None:
            notes.append(why)
        else:
            if why := keep_dataflow(run, data, images_of(material)):
                notes.append(f"data flow: {why}")
            if config.probes and not (run / PROBES).is_file():
                probe_run(run, data / BETON, progress)
        if crossval is not None:
            keep_crossval(run, *crossval)
        return write_report(run, notes=tuple(notes))


def images_of(material: Material) -> dict[str, int]:
    """The run's images by split, as far as its summary has them."""
    names = {"train": "training_images", "val": "validation_images"}
    counts = {split: count_in(material.summary, name) for split, name in names.items()}
    return {split: count for split, count in counts.items() if count is not None}


def refresh_report(run: Path) -> Report:
    """Write the page anew, after a command left something in the run folder.  Errors: LockedError; StorageError."""
    with locked(run):
        return write_report(run)


def write_report(run: Path, *, notes: tuple[str, ...] = ()) -> Report:
    """Write RUN/report.html: the same bytes for the same files in the run folder.  notes: of the report.

    What a file lacks, or a file that is not there, is said on the page, with the command that makes it.
    For the owner of run's lock.  Errors: StorageError.
    """
    material = read_material(run)
    verdict = judge(material)
    publish_bytes(run / REPORT, run_page(material, verdict).encode("utf-8"))
    return Report(page=run / REPORT, verdict=verdict, notes=notes, left_out=tuple(material.left_out))


def find_data(config: ReportConfig, material: Material) -> tuple[Path | None, str]:
    """The data folder: the one named, else the run's own if it still holds the run's conversion; else why not.

    Errors: InputError when the one named is not what the run was trained on; BetonError.
    """
    own = text_in(Reader(config.run).json_of(LOCAL), "data") or text_in(material.config, "data")
    data = config.data or (Path(own) if own and is_path(own) else None)
    if data is None or not (data / BETON).is_file():
        if config.data is not None:
            raise InputError(f"{data}: no {BETON}, expected the folder that the run was trained on; check the path")
        return None, "data flow and probes, since the run's data folder is not there; name it with --data"
    with Beton(data / BETON, trust_unverified=True) as beton:
        found, expected = beton.facts.conversion_id, text_in(material.summary, "conversion_id")
    if expected and found != expected:
        told = f"{data / BETON}: of conversion {found or 'unknown'}, expected {expected}, on which the run was trained"
        if config.data is not None:
            raise InputError(f"{told}; bring that one back, or leave --data out")
        return None, f"data flow and probes; {told}"
    return data, ""


def read_crossval(crossval: Path, expected: list[str], run: Path) -> tuple[bytes, bytes]:
    """The result in a folder of `crossval` and its picture, b"" for none.  expected: the classes of the run.

    Errors: ConfigError for a folder without a result; InputError for one of other classes than the run's; StorageError.
    """
    source = crossval / CROSSVAL
    try:
        text = source.read_bytes()
        content = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{crossval}: no {CROSSVAL}, expected a folder of `crossval`; check the path") from error
    except OSError as error:
        raise storage_error(source, error) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not JSON ({error}), expected what `crossval` wrote; run it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ConfigError(f"{source}: no rows, expected what `crossval` wrote; run it again")
    found = texts_in(content, "classes")
    if found and expected and found != expected:
        raise InputError(
            f"{source}: classes {', '.join(found)}, expected {', '.join(expected)} as of {run}; name the "
            "cross-validation of the run's own data"
        )
    picture = crossval / CROSSVAL_PICTURE
    return text, picture.read_bytes() if picture.is_file() else b""


def keep_crossval(run: Path, text: bytes, png_B: bytes) -> None:
    """Put a cross-validation's result into the run folder, with its picture.  Errors: StorageError."""
    publish_bytes(run / CROSSVAL, text)
    if png_B.startswith(PNG):
        publish_bytes(run / CROSSVAL_PICTURE, png_B)
    else:
        (run / CROSSVAL_PICTURE).unlink(missing_ok=True)  # of an earlier one


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
