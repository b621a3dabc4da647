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
from engine.predict.decisions import ABSENT, ABSTAINS, PRESENT, FindingRule, PredictedFile, Rule, kind_text, rule_of
from engine.predict.table import Source, list_sources, opened_spool, opened_table
from engine.train.leakage import RECORD, load_record
from loaders.audit.findings import DEFECTS, FIXED
from loaders.beton.format import GIVEN
from loaders.cautions import Caution, caution, each_once
from loaders.config import HASH_ALGORITHM
from loaders.errors import ConfigError, InputError
from loaders.images.decode import Decoded, DecodeSettings, Task, decode_all
from loaders.images.files import REFUSALS
from loaders.images.lungs import Segmenter, load_segmenter, same_segmenter
from loaders.images.quality import fix_of, own_defects
from loaders.images.regions import LUNG_MODES
from loaders.output import DASH, Line, Parts, PhaseProgress, Sheet, caution_lines, path_line

WINDOW = 1024  # files whose frames lie on the disk at once: 100 MB at 320 × 320
UNREADABLE = "unreadable"
SETS = {"train": "training", "val": "validation"}  # as a person calls them


@dataclass(kw_only=True, slots=True)
class Predicted:
    """What became of the files.  predicted, abstained: class or kind of reason → files.  in_set: the run's set → files.

    decided: finding and decision on it → files.

    usable: files that the network was given.  first: of the others, the first and why.
    temperature: by which logits were divided; None of findings, which have one each.  biased: whether each class has
    a bias as well.
    """

    out: Path
    rule: Rule
    min_confidence: float
    temperature: float | None
    biased: bool = False
    files: int = 0
    usable: int = 0
    first: str = ""
    predicted: Counter[str] = field(default_factory=Counter)
    decided: Counter[tuple[str, str]] = field(default_factory=Counter)
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
        if row.kind:
            self.abstained[row.kind] += 1
        elif row.predicted_class:
            self.predicted[row.predicted_class] += 1
        self.decided.update(zip(self.rule.classes, row.decisions, strict=False))

    def check(self) -> None:
        """Errors: InputError when not a single file could be given to the network."""
        if not self.usable:
            reasons = ", ".join(f"{number} {kind_text(kind)}" for kind, number in self.abstained.most_common())
            raise InputError(
                f"{self.out}: none of {self.files} files could be predicted ({reasons}), the first because: "
                f"{self.first}; expected frontal chest radiographs; no table is written"
            )


def predict_files(config: PredictConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Predicted:
    """Predict the class of each file, or each finding, in a table that is published whole at the end.

    Files are decoded, repaired and fitted as `convert` does with the same --audit, at the size of the run's betons; the
    network sees the same central crop as in `evaluate`, for a run on the lungs alone with the lungs cut out in the same
    way.  A file that cannot be used is a row with its reason.
    Errors: ConfigError; CheckpointError for a run without weights; IntegrityError for a damaged segmenter; InputError
    for a file that is not there, and where none could be predicted, whereupon an earlier table stays; LockedError;
    StorageError.
    """
    check_out(config.table)  # before any file is decoded
    trained = load_trained(config.run)
    segmenter = segmenter_for(config, trained)
    sources, cautions = list_sources(config.files)
    if os.path.realpath(config.table) in map(os.path.realpath, (source.file for source in sources)):
        raise ConfigError(f"--out {config.table}: is one of the files to predict, expected another name; choose one")
    known, unknown = known_films(config.run, trained)
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    trained.network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    rule = rule_of(trained, config.min_confidence)
    found = Predicted(
        out=config.table, rule=rule, min_confidence=config.min_confidence,
        temperature=None if trained.task == "findings" else trained.decision.temperature, biased=trained.is_asked,
        cautions=cautions,
    )  # fmt: skip
    found.cautions += each_once([*trained.rule.cautions(), *rule.cautions()])
    if config.audit == "off":
        found.cautions.append(caution("audit-off"))
    if segmenter is not None and trained.segmenter == GIVEN:
        found.cautions.append(caution("masks-given-in-training", segmenter=segmenter.record.identity))
    found.cautions += unknown
    size = min(WINDOW, len(sources)) * trained.state["stored"] ** 2
    with opened_spool(config.table, size) as spool, opened_table(config.table, config.kind, rule) as write:
        for row in rows_of(config, trained, rule, policy, segmenter, sources, known, spool, progress):
            found.count(row)
            write(row)
        found.check()  # while the table can still be dropped
    for name, number in sorted(found.in_set.items()):
        found.cautions.append(caution("files-of-the-run", set=name, files=number))
    return found


def known_films(run: Path, trained: Trained) -> tuple[dict[bytes, str], list[Caution]]:
    """Pixel hash → the run's set that has the film; empty where that cannot be known, with why.

    Errors: CheckpointError for a damaged record.
    """
    if not (run / RECORD).exists():
        return {}, [caution("no-leakage-record", file=str(run / RECORD))]
    record = load_record(run, trained.state["run"])
    if record.hash_algorithm != HASH_ALGORITHM:
        return {}, [caution("run-hashed-otherwise", found=record.hash_algorithm or "none", expected=HASH_ALGORITHM)]
    hashes = ((name, row) for name, kinds in record.sets.items() for row in kinds["pixel_hash"] if row.any())
    return {row.tobytes(): SETS.get(name, name) for name, row in hashes}, []


def segmenter_for(config: PredictConfig, trained: Trained) -> Segmenter | None:
    """What finds the lungs, for a run on the lungs alone; None for one on whole films.

    Errors: ConfigError for another segmenter than the run's, or one that such a run does not use; IntegrityError.
    """
    if trained.lungs == "off":
        if config.segmenter != "shipped":
            raise ConfigError(
                f"--segmenter: found {config.segmenter}, expected none, since {config.run} is of whole films; leave it "
                "out"
            )
        return None
    if trained.segmenter == GIVEN:
        return load_segmenter(config.segmenter)
    return same_segmenter(config.segmenter, trained.segmenter, config.run)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A row before its prediction.  place: of its frame in the spool.  pixels: hash of the radiograph's pixels."""

    row: PredictedFile
    place: int = 0
    pixels: bytes = b""


def rows_of(
    config: PredictConfig, trained: Trained, rule: Rule, policy: Policy, segmenter: Segmenter | None,
    sources: Sequence[Source], known: dict[bytes, str], spool: Path, progress: PhaseProgress,
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
        waiting: list[Waiting] = []
        place = -1
        with contextlib.closing(decoding) as decoded:
            for done, source in enumerate(window, start + 1):
                if source.problem:
                    row = PredictedFile(path=source.path, kind=UNREADABLE, detail=source.problem, defects=(UNREADABLE,))
                    waiting.append(Waiting(row=row))
                else:
                    found, place = next(decoded), place + 1
                    row = judged_row(source.path, found, config, known)
                    waiting.append(Waiting(row=row, place=place, pixels=found.pixel_hash))
                progress("predict", done, len(sources))
                if len(waiting) == config.batch_size:
                    yield from predicted_rows(waiting, trained, rule, policy, segmenter, spool)
                    waiting = []
        yield from predicted_rows(waiting, trained, rule, policy, segmenter, spool)


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


def with_lungs_alone(
    waiting: Sequence[Waiting], trained: Trained, segmenter: Segmenter, spool: Path
) -> Iterator[Waiting]:
    """The same, once frames in the spool show the lungs alone; a film whose mask is not credible abstains.

    A film that some nets were trained on is known by its pixels: who the patients are is not known here.  Nets are
    chosen for each film alone, so that a prediction does not depend on the files beside it.
    """
    usable = [one for one in waiting if not one.row.kind]
    stored = trained.state["stored"]
    frames_NSS = np.memmap(spool, np.uint8, "r+").reshape(-1, stored, stored)
    nets_N2 = np.array([segmenter.nets_of_film(one.pixels) for one in usable], np.int64).reshape(-1, 2)
    found = segmenter.find_all(lambda number: frames_NSS[usable[number].place], nets_N2)
    lungs_of = {one.place: lungs for one, lungs in zip(usable, found, strict=True)}
    for one in waiting:
        row, frame_SS = one.row, frames_NSS[one.place]
        if not row.kind:
            lungs = lungs_of[one.place]
            if lungs is None or lungs.problem:
                kind = lungs.problem if lungs else "lungs-seen"
                row = replace(row, kind=kind, detail=REFUSALS[kind][0])
            else:
                frame_SS[:] = LUNG_MODES[trained.lungs](frame_SS, lungs.mask_SS, trained.state["crop"])
        yield replace(one, row=row)


def predicted_rows(
    waiting: Sequence[Waiting], trained: Trained, rule: Rule, policy: Policy, segmenter: Segmenter | None, spool: Path
) -> Iterator[PredictedFile]:
    """The rows, predicted where no reason is against it.  Errors: CheckpointError for outputs that are not finite."""
    if segmenter is not None:
        waiting = list(with_lungs_alone(waiting, trained, segmenter, spool))
    place_N = np.array([one.place for one in waiting if not one.row.kind], np.int64)
    predicted: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if len(place_N):
        frames_B = np.memmap(spool, np.uint8, "r")
        scores_NWK = trained.scores(frames_B, place_N * trained.state["stored"] ** 2, policy)
        predicted = zip(trained.rule.probabilities(scores_NWK.mean(1)), trained.by_prompt(scores_NWK), strict=True)
    for one in waiting:
        yield one.row if one.row.kind else rule.decided(one.row, *next(predicted))


def prediction_parts(found: Predicted) -> Parts:
    """Counts, cautions, and where the table is."""
    abstained, findings = sum(found.abstained.values()), isinstance(found.rule, FindingRule)
    predicted = found.files - abstained
    words = ("scored", "not scored") if findings else ("predicted", "abstained")
    parts: list[Line | Sheet] = [
        Line(f"{found.files:,} files: {predicted:,} {words[0]} + {abstained:,} {words[1]}", "bold"),
        finding_sheet(found, found.rule)
        if isinstance(found.rule, FindingRule)
        else Sheet(
            headers=("predicted class", "files"),
            rows=tuple((name, f"{found.predicted[name]:,}") for name in found.rule.classes),
        ),
    ]
    if found.abstained:
        rows = tuple((kind_text(kind), f"{number:,}") for kind, number in found.abstained.most_common())
        parts.append(Sheet(headers=(f"{words[1]} because of", "files"), rows=rows))
    if findings:
        parts.append(Line(BOUNDS.format(found.min_confidence)))
    else:
        bias = " and with a bias a class" if found.biased else ""
        calibrated = f"calibrated on validation, at temperature {found.temperature:.3g}{bias}"
        abstains = f"the prediction abstains below {found.min_confidence:g} (--min-confidence)"
        parts.append(Line(f"Probabilities {calibrated}; {abstains}."))
    if found.repaired:
        parts.append(Line(f"{found.repaired:,} repaired as by `convert --audit auto`: see the column fix."))
    parts += caution_lines(found.cautions)
    return [*parts, path_line(found.out)]


BOUNDS = (
    "Probabilities calibrated on validation, each finding at its own temperature; between the last two columns, around "
    "its threshold, a finding abstains (--min-confidence {:g})."
)


def finding_sheet(found: Predicted, rule: FindingRule) -> Sheet:
    """What became of each finding, and the bounds of its probability."""
    rows = []
    for place, name in enumerate(rule.classes):
        bounds = (float(rule.absent_to_K[place]), float(rule.present_from_K[place]))
        shown = (f"{bound:.3g}" if rule.enough_K[place] else DASH for bound in bounds)
        rows.append((name, *(f"{found.decided[name, what]:,}" for what in (PRESENT, ABSENT, ABSTAINS)), *shown))
    return Sheet(headers=("finding", PRESENT, ABSENT, "abstained", "absent up to", "present from"), rows=tuple(rows))
