"""The results of a run: every record and picture in its folder.  What cannot be read is named and left out."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.crossval.scores import CROSSVAL, Crossval
from engine.evaluate.dataflow import DATAFLOW, DataFlow
from engine.evaluate.results import FIGURES, METRICS, Collection, Metrics
from engine.explain.findings import EXPLANATION, Explanation
from engine.hurdles.matrix import is_elsewhere, least_favourable
from engine.hurdles.results import HURDLES, Cell, Hurdles, Row
from engine.hurdles.results import PICTURE as HURDLES_PICTURE
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.train.run_folder import CONFIG
from engine.train.summary import SUMMARY, Summary
from loaders import __version__
from loaders.audit.findings import ProbeFinding
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError, IntegrityError
from loaders.html import png_uri
from loaders.records import Count, R, Record, decode_record
from loaders.settings import read_settings

PROBES, CROSSVAL_PICTURE = "probes.json", "crossval.png"
PICTURES = 10_000_000  # bytes of all pictures before base64, which adds a third: the page stays below 15 MB
ONE_PICTURE = 4_000_000


class Probes(Record, frozen=True, kw_only=True):
    """The audit's probes on the training beton, as probes.json holds them.  skipped: probe → why it was not run."""

    made_by = "report"
    version: int = 1
    beton: str
    conversion_id: str
    num_samples: Count
    seed: Count
    permutations: Count
    probes: list[ProbeFinding]
    cautions: list[Caution]
    skipped: dict[str, Caution]
    plainfilm: str = __version__
    not_for_diagnosis: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedSet:
    """One evaluation.  name: of the set's folder.  pictures: figure → data URI.

    dataflow: of the set's conversion, where that is not the run's own.
    """

    name: str
    metrics: Metrics
    pictures: dict[str, str]
    dataflow: DataFlow | None

    def estimate(self, name: str) -> Estimate:
        """A metric with its interval."""
        return self.metrics.estimates.get(name, UNDEFINED)

    def trivial(self, name: str) -> Estimate:
        """The same metric of a classifier that always predicts the largest class."""
        return self.metrics.trivial.get(name, UNDEFINED)

    @property
    def num_classes(self) -> int:
        """How many classes the run distinguishes."""
        return len(self.metrics.classes)

    @property
    def one_class(self) -> bool:
        """Whether all images are of one class, so that no ranking can be judged."""
        return max(self.metrics.class_counts.values()) == self.metrics.num_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedSet:
    """One explanation.  name: of the set's folder.  overlays: file → data URI.  gallery: one picture, without overlays.

    deletion: the curves of the deletion control.
    """

    name: str
    explanation: Explanation
    overlays: dict[str, str]
    gallery: str
    deletion: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """All results of a run.  What is not there is None or empty; left_out lists what the page cannot show."""

    summary: Summary | None
    config: dict[str, Any]
    history: list[dict[str, float | None]]
    evaluations: list[EvaluatedSet]
    explanations: list[ExplainedSet]
    probes: Probes | None
    crossval: Crossval | None
    hurdles: Hurdles | None
    dataflow: DataFlow | None
    curves: str
    crossval_picture: str
    hurdles_picture: str
    left_out: list[Caution] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as the run or its evaluations have them."""
        if self.summary:
            return self.summary.classes
        return self.evaluations[0].metrics.classes if self.evaluations else []

    @property
    def conversion_id(self) -> str:
        """The conversion that the run was trained on; "" where it is not known."""
        return self.summary.conversion_id if self.summary else ""

    def of_collection(self, collection: Collection) -> list[EvaluatedSet]:
        """The evaluations of sets of one kind, such as external ones."""
        return [tested for tested in self.evaluations if tested.metrics.collection == collection]

    @property
    def own_crossval(self) -> Crossval | None:
        """The cross-validation, unless it is known to be of other data than the run."""
        own, other = self.conversion_id, self.crossval.conversion_id if self.crossval else ""
        return None if own and other and own != other else self.crossval

    @property
    def own_row(self) -> Row | None:
        """The hurdles' row of networks that were trained on the run's own conversion, all of it and nothing else."""
        rows = [] if self.hurdles is None or self.hurdles.by == "source" else self.hurdles.rows
        own = [row for row in rows if row.without is None and row.conversion_id == self.conversion_id != ""]
        return own[0] if own else None

    @property
    def away_cells(self) -> list[Cell]:
        """The cells of that row on other collections."""
        return self.hurdles.away(self.own_row.name) if self.hurdles and self.own_row else []

    @property
    def elsewhere(self) -> Cell | None:
        """The least favourable of them, one whose sources are known to be others if there is any."""
        return least_favourable(list(filter(is_elsewhere, self.away_cells)) or self.away_cells)

    @property
    def synthetic(self) -> bool:
        """Whether all images are phantoms."""
        trained = self.summary is not None and self.summary.synthetic
        return trained or any(tested.metrics.synthetic for tested in self.evaluations)


class RunFolderReader:
    """Reads a run folder: a budget for its pictures, and a list of what is left out."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.budget = PICTURES
        self.left_out: list[Caution] = []

    def bytes_of(self, name: str, most: int = 50_000_000) -> bytes | None:
        """A file of the run folder; None where there is none, or none that can be read."""
        path = self.run / name
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > most:
                self.left_out.append(caution("file-too-large", file=name))
                return None
            return path.read_bytes()
        except OSError as error:
            self.left_out.append(caution("file-unreadable", file=name, reason=str(error.strerror)))
            return None

    def record_of(self, kind: type[R], name: str) -> R | None:
        """A record; None where there is none, or none that can be read."""
        content = self.bytes_of(name)
        try:
            return None if content is None else decode_record(kind, content, name)
        except IntegrityError as error:
            reason = str(error).removeprefix(f"{name}: ")
            self.left_out.append(caution("file-unreadable", file=name, reason=reason))
            return None

    def settings(self) -> dict[str, Any]:
        """The settings of the run; {} where they cannot be read."""
        path = self.run / CONFIG
        try:
            return read_settings(path) if path.is_file() else {}
        except ConfigError as error:
            reason = str(error).removeprefix(f"{path}: ")
            self.left_out.append(caution("file-unreadable", file=CONFIG, reason=reason))
            return {}

    def history(self) -> list[dict[str, float | None]]:
        """The rows of metrics.csv."""
        text = (self.bytes_of("metrics.csv") or b"").decode("utf-8", "replace")
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            self.left_out.append(caution("file-unreadable", file="metrics.csv", reason=str(error)))
            return []
        return [{str(name): as_number(value) for name, value in row.items()} for row in rows]

    def own_results(self, kind: type[R], folder: str, file: str, sha256: str) -> Iterator[tuple[str, R]]:
        """The sets below a folder, each with its record, as far as they are of the run's weights.

        sha256: of these weights, "" if unknown.
        """
        for path in sorted((self.run / folder).glob(f"*/{file}")):
            name = f"{folder}/{path.parent.name}"
            record = self.record_of(kind, f"{name}/{file}")
            if record is not None and sha256 not in ("", record.checkpoint.sha256):  # type: ignore[attr-defined]
                self.left_out.append(caution("result-of-other-weights", folder=name))
            elif record is not None:
                yield path.parent.name, record

    def picture(self, name: str) -> str:
        """A PNG as a data URI; "" for none, or once the page is full."""
        png_B = self.bytes_of(name, most=min(ONE_PICTURE, self.budget)) or b""
        uri = png_uri(png_B)
        self.budget -= len(png_B) if uri else 0
        return uri


def read_results(run: Path) -> RunResults:
    """Read a run folder.  Never fails for what a file holds; files that are damaged are named in left_out."""
    reader = RunFolderReader(run)
    summary = reader.record_of(Summary, SUMMARY)
    own = summary.checkpoint_sha256 if summary else ""
    curves = reader.picture("curves.png")
    evaluations = []
    for name, metrics in reader.own_results(Metrics, "evaluation", METRICS, own):
        pictures = {figure: reader.picture(f"evaluation/{name}/{figure}") for figure in FIGURES}
        evaluations.append(
            EvaluatedSet(
                name=name,
                metrics=metrics,
                pictures={figure: uri for figure, uri in pictures.items() if uri},
                dataflow=reader.record_of(DataFlow, f"evaluation/{name}/{DATAFLOW}"),
            )
        )
    explanations = []
    for name, explanation in reader.own_results(Explanation, "explanation", EXPLANATION, own):
        files = dict.fromkeys(example.overlay for example in explanation.samples)
        overlays = {
            file: uri
            for file in files
            if file and Path(file).name == file and (uri := reader.picture(f"explanation/{name}/{file}"))
        }
        explanations.append(
            ExplainedSet(
                name=name,
                explanation=explanation,
                overlays=overlays,
                gallery="" if overlays else reader.picture(f"explanation/{name}/gallery.png"),
                deletion=reader.picture(f"explanation/{name}/deletion.png"),
            )
        )
    return RunResults(
        summary=summary,
        config=reader.settings(),
        history=reader.history(),
        evaluations=evaluations,
        explanations=explanations,
        probes=reader.record_of(Probes, PROBES),
        crossval=reader.record_of(Crossval, CROSSVAL),
        hurdles=reader.record_of(Hurdles, HURDLES),
        dataflow=reader.record_of(DataFlow, DATAFLOW),
        curves=curves,
        crossval_picture=reader.picture(CROSSVAL_PICTURE),
        hurdles_picture=reader.picture(HURDLES_PICTURE),
        left_out=reader.left_out,
    )


def as_number(text: Any) -> float | None:
    """A number of a table's cell."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def upper_first(text: str) -> str:
    """A sentence that begins a line."""
    return text[:1].upper() + text[1:]
