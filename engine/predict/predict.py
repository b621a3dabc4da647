"""A prediction: from files of any kind to calibrated probabilities, or to the reason why there are none."""

# N samples of a batch, K classes, H W rows and columns of the crop, S side of a stored frame

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.config import PredictConfig, check_out
from engine.device import Policy, choose_policy, settle_precision
from engine.evaluate.trained import Trained, load_trained
from engine.predict.table import PredictedFile, Source, kind_text, list_sources, opened_spool, opened_table
from engine.train.leakage import RECORD, load_record
from loaders.audit.findings import DEFECTS, FIXED
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError, InputError
from loaders.images.decode import Decoded, DecodeSettings, Task, decode_all
from loaders.images.quality import fix_of, own_defects
from loaders.output import Line, Parts, PhaseProgress, Sheet, caution_lines, path_line

WINDOW = 1024  # files whose frames lie on the disk at once: 100 MB at 320 × 320
UNREADABLE, LOW_CONFIDENCE = "unreadable", "low-confidence"
SETS = {"train": "training", "val": "validation"}  # as a person calls them


@dataclass(kw_only=True, slots=True)
class Predicted:
    """What became of the files.  predicted, abstained: class or kind of reason → files.  in_set: the run's set → files.

    usable: files that the network was given.  first: of the others, the first and why.
    temperature: by which logits were divided.
    """

    out: Path
    classes: tuple[str, ...]
    min_confidence: float
    temperature: float
    files: int = 0
    usable: int = 0
    first: str = ""
    predicted: Counter[str] = field(default_factory=Counter)
    abstained: Counter[str] = field(default_factory=Counter)
    in_set: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    cautions: list[Caution] = field(default_factory=list)

    def count(self, row: PredictedFile) -> None:
        """Take one row into the sums."""
        self.files += 1
        self.usable += row.probabilities is not None
        if row.probabilities is None and not self.first:
            self.first = f"{row.path}: {row.reason}"
        self.repaired += bool(row.fix)
        if row.in_set:
            self.in_set[row.in_set] += 1
        if row.predicted_class:
            self.predicted[row.predicted_class] += 1
        else:
            self.abstained[row.kind] += 1

    def check(self) -> None:
        """Errors: InputError when not a single file could be given to the network."""
        if not self.usable:
            reasons = ", ".join(f"{number} {kind_text(kind)}" for kind, number in self.abstained.most_common())
            raise InputError(
                f"{self.out}: none of {self.files} files could be predicted ({reasons}), the first because: "
                f"{self.first}; expected frontal chest radiographs; no table is written"
            )


def predict_files(config: PredictConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Predicted:
    """Predict the class of each file, in a table that is published whole at the end.

    Files are decoded, repaired and fitted as `convert` does with the same --audit, at the size of the run's betons; the
    network sees the same central crop as in `evaluate`.  A file that cannot be used is a row with its reason.
    Errors: ConfigError; CheckpointError for a run without weights; InputError for a file that is not there, and where
    none could be predicted, whereupon an earlier table stays; LockedError; StorageError.
    """
    check_out(config.table)  # before any file is decoded
    trained = load_trained(config.run)
    sources, cautions = list_sources(config.files)
    if os.path.realpath(config.table) in map(os.path.realpath, (source.file for source in sources)):
        raise ConfigError(f"--out {config.table}: is one of the files to predict, expected another name; choose one")
    known = None
    if (config.run / RECORD).exists():
        sets, *_ = load_record(config.run, trained.state["run"])
        hashes = ((name, row) for name, kinds in sets.items() for row in kinds["pixel_hash"] if row.any())
        known = {row.tobytes(): SETS.get(name, name) for name, row in hashes}
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    trained.network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    found = Predicted(
        out=config.table, classes=trained.classes, min_confidence=config.min_confidence,
        temperature=trained.decision.temperature, cautions=cautions,
    )  # fmt: skip
    found.cautions += trained.decision.cautions()
    if config.audit == "off":
        found.cautions.append(caution("audit-off"))
    if known is None:
        found.cautions.append(caution("no-leakage-record", file=str(config.run / RECORD)))
    size = min(WINDOW, len(sources)) * trained.state["stored"] ** 2
    with opened_spool(config.table, size) as spool, opened_table(config.table, config.kind, trained.classes) as write:
        for row in rows_of(config, trained, policy, sources, known or {}, spool, progress):
            found.count(row)
            write(row)
        found.check()  # while the table can still be dropped
    for name, number in sorted(found.in_set.items()):
        found.cautions.append(caution("files-of-the-run", set=name, files=number))
    return found


def rows_of(
    config: PredictConfig, trained: Trained, policy: Policy, sources: Sequence[Source], known: dict[bytes, str],
    spool: Path, progress: PhaseProgress,
) -> Iterator[PredictedFile]:  # fmt: skip
    """The row of each file, in order; no more than WINDOW files are held at once."""
    state = trained.state
    settings = DecodeSettings(
        side=state["stored"], fit=state["fit"], max_pixels=config.max_pixels, workers=config.workers,
        limits=config.limits if config.audit == "auto" else None, assume_modality=config.assume_modality,
    )  # fmt: skip
    for start in range(0, len(sources), WINDOW):
        window = sources[start : start + WINDOW]
        usable = [source for source in window if not source.problem]
        tasks = [Task(place, source.file) for place, source in enumerate(usable)]
        # what a folder's links may lead to has been checked; a file that was named is read wherever it is
        decoding = decode_all(Path("/"), tasks, settings, spool, lambda done, total: None)
        waiting: list[tuple[PredictedFile, int]] = []  # and the place of its frame
        place = -1
        with contextlib.closing(decoding) as decoded:
            for done, source in enumerate(window, start + 1):
                if source.problem:
                    row = PredictedFile(path=source.path, kind=UNREADABLE, detail=source.problem, defects=(UNREADABLE,))
                else:
                    row, place = judged_row(source.path, next(decoded), config, known), place + 1
                waiting.append((row, place))
                progress("predict", done, len(sources))
                if len(waiting) == config.batch_size:
                    yield from predicted_rows(waiting, trained, policy, spool, config.min_confidence)
                    waiting = []
        yield from predicted_rows(waiting, trained, policy, spool, config.min_confidence)


def judged_row(path: str, decoded: Decoded, config: PredictConfig, known: dict[bytes, str]) -> PredictedFile:
    """The row of a file before prediction; with the kind of reason if the network should not be given the file."""
    if decoded.problem:
        return PredictedFile(path=path, kind=UNREADABLE, detail=decoded.problem, defects=(UNREADABLE,))
    defects: tuple[str, ...] = ()
    fix = ""
    if decoded.measurement is not None:
        defects = tuple(own_defects(decoded.measurement, config.limits))
        fix = fix_of(decoded.measurement, defects)
    grave = [name for name in defects if name not in FIXED]
    return PredictedFile(
        path=path, kind=";".join(grave), detail="; ".join(DEFECTS[name] for name in grave), defects=defects,
        fix=fix, in_set=known.get(decoded.pixel_hash, ""), note=decoded.note,
    )  # fmt: skip


def predicted_rows(
    waiting: Sequence[tuple[PredictedFile, int]], trained: Trained, policy: Policy, spool: Path, min_confidence: float
) -> Iterator[PredictedFile]:
    """The rows, predicted where no reason is against it.  Errors: CheckpointError for outputs that are not finite."""
    place_N = np.array([place for row, place in waiting if not row.kind], np.int64)
    probability_NK = iter(())
    if len(place_N):
        frames_B = np.memmap(spool, np.uint8, "r")
        probability_NK = iter(trained.probabilities(frames_B, place_N * trained.state["stored"] ** 2, policy))
    for row, _ in waiting:
        yield row if row.kind else predicted_row(row, next(probability_NK), trained.classes, min_confidence)


def predicted_row(
    row: PredictedFile, probability_K: np.ndarray, classes: tuple[str, ...], min_confidence: float
) -> PredictedFile:
    """The row with the most probable class, or with the reason why it abstains."""
    values = tuple(probability_K.tolist())
    best = int(probability_K.argmax())
    if values[best] >= min_confidence:
        return replace(row, predicted_class=classes[best], probabilities=values)
    found = f"{values[best]:.2f} for {classes[best]}, expected at least {min_confidence:g}"
    return replace(row, kind=LOW_CONFIDENCE, detail=found, probabilities=values)


def prediction_parts(found: Predicted) -> Parts:
    """Counts, cautions, and where the table is."""
    predicted, abstained = sum(found.predicted.values()), sum(found.abstained.values())
    parts: list[Line | Sheet] = [
        Line(f"{found.files:,} files: {predicted:,} predicted + {abstained:,} abstained", "bold"),
        Sheet(
            headers=("predicted class", "files"),
            rows=tuple((name, f"{found.predicted[name]:,}") for name in found.classes),
        ),
    ]
    if found.abstained:
        rows = tuple((kind_text(kind), f"{number:,}") for kind, number in found.abstained.most_common())
        parts.append(Sheet(headers=("abstained because of", "files"), rows=rows))
    calibrated = f"calibrated on validation, at temperature {found.temperature:.3g}"
    abstains = f"the prediction abstains below {found.min_confidence:g} (--min-confidence)"
    parts.append(Line(f"Probabilities {calibrated}; {abstains}."))
    if found.repaired:
        parts.append(Line(f"{found.repaired:,} repaired as by `convert --audit auto`: see the column fix."))
    parts += caution_lines(found.cautions)
    return [*parts, path_line(found.out)]
