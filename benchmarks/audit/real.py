"""Real defects: the audit of PLAINFILM_DATA beside its tables, each patient judged by weights that never saw it."""

# N files

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.audit.kind_recipe import Folds, fit_kind_folds, rescored, rows_of
from benchmarks.audit.outcome import Outcome, Target, columns, count_text, counted
from benchmarks.datasets import data_folder
from loaders.audit.audit import audited_catalog
from loaders.audit.findings import HARMLESS, FileFinding
from loaders.audit.verdicts import judge_files
from loaders.config import AuditConfig, AuditLimits, CatalogConfig, stored_side
from loaders.errors import InputError
from loaders.images.decode import Decoded, DecodeSettings, Task, decode_all
from loaders.images.frame import grey_window
from loaders.images.radiograph import decode_radiograph

LEAST_LATERAL, LEAST_CT, LEAST_JOINED, MOST_MARKED, MOST_QUARANTINED = 7, 11, 26, 0.05, 0.03


def audited(data: Path, progress: Callable[[str], None]) -> list[FileFinding]:
    """Every file of the folder through the shipped pipeline, but for the five scores of the classifier of kinds."""
    config = AuditConfig(catalog=CatalogConfig(source=data), out=data.parent / "nothing is written")
    entries = audited_catalog(config).entries
    limits = AuditLimits()
    settings = DecodeSettings(side=stored_side(224), fit="stretch", max_pixels=64_000_000, workers=0, limits=limits)
    progress("classifiers of kinds, one a fold")
    folds = fit_kind_folds(data)
    progress("files")
    tasks = [Task(place, entry.path) for place, entry in enumerate(entries)]
    decoded = list(decode_all(data, tasks, settings, None, lambda done, total: None))
    progress("the same files, as classifiers that never saw the patient judge them")
    patients = patients_of(data)
    decoded = [
        judged_held_out(data / entry.path, found, patients.get(entry.path, ""), folds)
        for entry, found in zip(entries, decoded, strict=True)
    ]
    return judge_files(entries, decoded, limits, lambda phase, done, total: None)


def patients_of(data: Path) -> dict[str, str]:
    """Path → patient, of the three tables."""
    found = {row["path"]: row["patient"] for name in ("radiographs", "audit") for row in rows_of(data / f"{name}.csv")}
    return found | {row["mask"]: row["patient"] for row in rows_of(data / "lung_masks.csv")}


def judged_held_out(path: Path, found: Decoded, patient: str, folds: Folds) -> Decoded:
    """The same file with the scores of other weights."""
    if found.measurement is None:
        return found
    grey_HW = decode_radiograph(path, max_pixels=64_000_000).grey_HW
    low, high, _ = grey_window(grey_HW)
    return replace(found, measurement=rescored(found.measurement, grey_HW, (low, high), folds.of(patient)))


def real(*, progress: Callable[[str], None] = lambda step: None) -> Outcome:
    """Count what was found of each kind of defect.  Errors: InputError without PLAINFILM_DATA."""
    data = data_folder()
    if data is None:
        raise InputError("PLAINFILM_DATA: no radiographs.csv, expected the real radiographs; set it to their folder")
    return compare(audited(data, progress), {row["path"]: row["defect"] for row in rows_of(data / "audit.csv")})


def compare(files: list[FileFinding], truth: dict[str, str]) -> Outcome:
    """The audit's findings beside the truth.  truth: path → lateral, ct, annotated or equalised-copy."""
    by_path = {file.path: file for file in files}
    groups = {Path(file.path).stem: file.group for file in files if file.path.startswith("radiographs/")}
    of: dict[str, list[FileFinding]] = {kind: [] for kind in ("lateral", "ct", "annotated", "equalised-copy")}
    for path, kind in truth.items():
        of[kind].append(by_path[path])
    of["mask"] = [file for file in files if file.path.startswith("lung_masks/")]
    clean = [file for file in files if file.path.startswith("radiographs/")]
    checks = [
        at_least("lateral views flagged as lateral", of["lateral"], has("lateral"), LEAST_LATERAL),
        at_least("CT slices quarantined", of["ct"], quarantined, LEAST_CT),
        at_least("CT slices flagged as no radiographs", of["ct"], has("not-a-radiograph"), None),
        at_least(
            "annotated copies flagged as annotated", of["annotated"], has("colour-annotation"), len(of["annotated"]),
        ),
        at_least(
            "equalised copies joined to their originals", of["equalised-copy"],
            lambda file: file.group == groups.get(Path(file.path).stem.removeprefix("Equalized")), LEAST_JOINED,
        ),
        at_least(
            "lung masks flagged as no radiographs", of["mask"], has("not-a-radiograph"), len(of["mask"]),
        ),
        at_most("radiographs/ with annotation or borders", clean, has("colour-annotation", "borders"), MOST_MARKED),
        at_most("radiographs/ quarantined", clean, quarantined, MOST_QUARANTINED),
        at_most(
            "radiographs/ quarantined for more than being a copy", clean,
            lambda file: quarantined(file) and not set(file.defects) <= set(HARMLESS), None,
        ),
    ]  # fmt: skip
    reasons = Counter(defect for file in clean for defect in file.defects)
    rows = [["what", "found", "expected", ""]] + [
        [
            what,
            count_text(count),
            target.expected if target else "",
            ("met" if target.met else "MISSED") if target else "",
        ]
        for what, count, target in checks
    ]
    listed = ", ".join(f"{defect} {count}" for defect, count in reasons.most_common())
    record: dict[str, Any] = {what: count for what, count, _ in checks}
    record |= {
        "defects of radiographs/": dict(reasons.most_common()),
        "quarantined of radiographs/": {
            file.path: list(file.defects) for file in clean if file.verdict == "quarantine"
        },
        "missed": {kind: [file.path for file in found if file.verdict == "keep"] for kind, found in of.items()},
    }
    return Outcome(
        lines=(*columns(rows), f"defects among the {len(clean)} files of radiographs/: {listed or 'none'}"),
        record=record,
        targets=tuple(target for _, _, target in checks if target),
    )


def has(*defects: str) -> Callable[[FileFinding], bool]:
    """Whether a file has one of these defects."""
    return lambda file: not set(defects).isdisjoint(file.defects)


def quarantined(file: FileFinding) -> bool:
    """Whether conversion will leave a file out."""
    return file.verdict == "quarantine"


Check = tuple[str, dict[str, Any], Target | None]


def at_least(what: str, files: list[FileFinding], holds: Callable[[FileFinding], bool], least: int | None) -> Check:
    """How many files of a defect were found."""
    count = counted(sum(map(holds, files)), len(files))
    if least is None:
        return what, count, None
    expected = f"at least {least} of {len(files)}"
    return what, count, Target(what=what, found=count_text(count), expected=expected, met=count["hits"] >= least)


def at_most(what: str, files: list[FileFinding], holds: Callable[[FileFinding], bool], share: float | None) -> Check:
    """How many clean files were suspected."""
    count = counted(sum(map(holds, files)), len(files))
    if share is None:
        return what, count, None
    met = count["hits"] <= share * len(files)
    return what, count, Target(what=what, found=count_text(count), expected=f"at most {share:.0%}", met=met)
