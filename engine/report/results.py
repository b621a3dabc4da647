"""The results of a run: every record and picture in its folder.  What cannot be read is named and left out."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import UnsetType

from engine.crossval.scores import CROSSVAL, Crossval
from engine.evaluate.dataflow import DATAFLOW, DataFlow
from engine.evaluate.findings import FIGURES as FINDINGS_FIGURES
from engine.evaluate.findings import FINDINGS, FindingsMetrics
from engine.evaluate.results import FIGURES, METRICS, Collection, Metrics
from engine.explain.by_finding import BY_FINDING, FindingsExplanation
from engine.explain.findings import EXPLANATION, Explanation
from engine.hurdles.matrix import is_elsewhere, least_favourable
from engine.hurdles.results import HURDLES, Cell, Hurdles, Row
from engine.hurdles.results import PICTURE as HURDLES_PICTURE
from engine.report.probes import FINDINGS_PROBES, PROBES, FindingsProbes, Probes
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.train.run_folder import CONFIG
from engine.train.summary import SUMMARY, Summary
from loaders.cautions import Caution, caution
from loaders.config import Task
from loaders.errors import ConfigError, IntegrityError
from loaders.html import png_uri
from loaders.records import R, decode_record
from loaders.settings import read_settings

CROSSVAL_PICTURE = "crossval.png"
PICTURES = 10_000_000  # bytes of all pictures before base64, which adds a third: the page stays below 15 MB
ONE_PICTURE = 4_000_000


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
class EvaluatedFindings:
    """One evaluation of findings; see EvaluatedSet."""

    name: str
    metrics: FindingsMetrics
    pictures: dict[str, str]
    dataflow: DataFlow | None

    def estimate(self, name: str) -> Estimate:
        """The mean of a metric over the findings that are measured, with its interval."""
        return self.metrics.macro.get(name, UNDEFINED)

    @property
    def one_class(self) -> bool:
        """Whether no finding is measured, so that there is no ranking to judge."""
        return self.estimate("auc").value is None


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
class ExplainedFindings:
    """One explanation of findings; see ExplainedSet."""

    name: str
    explanation: FindingsExplanation
    overlays: dict[str, str]
    gallery: str


Tested = EvaluatedSet | EvaluatedFindings


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResults:
    """All results of a run.  What is not there is None or empty; left_out lists what the page cannot show.

    A run of classes has evaluations, explanations and probes; one of findings has those by finding.
    """

    summary: Summary | None
    config: dict[str, Any]
    history: list[dict[str, float | None]]
    evaluations: list[EvaluatedSet]
    explanations: list[ExplainedSet]
    tested_findings: list[EvaluatedFindings]
    explained_findings: list[ExplainedFindings]
    probes: Probes | None
    findings_probes: FindingsProbes | None
    crossval: Crossval | None
    hurdles: Hurdles | None
    dataflow: DataFlow | None
    curves: str
    crossval_picture: str
    hurdles_picture: str
    left_out: list[Caution] = field(default_factory=list)

    @property
    def task(self) -> Task:
        """Whether the run tells classes apart or findings."""
        if self.summary:
            return self.summary.task
        return "findings" if self.tested_findings or self.explained_findings else "classes"

    @property
    def classes(self) -> list[str]:
        """Names of the classes or findings, as the run or its evaluations have them."""
        if self.summary:
            return self.summary.classes
        if self.tested_findings:
            return self.tested_findings[0].metrics.names
        return self.evaluations[0].metrics.classes if self.evaluations else []

    @property
    def tested(self) -> Sequence[Tested]:
        """The evaluations, of either task."""
        return self.tested_findings if self.task == "findings" else self.evaluations

    @property
    def explained(self) -> Sequence[ExplainedSet | ExplainedFindings]:
        """The explanations, of either task."""
        return self.explained_findings if self.task == "findings" else self.explanations

    @property
    def is_asked(self) -> bool:
        """Whether the run is of a vision-language model, which has no maps."""
        return self.summary is not None and not isinstance(self.summary.tune, UnsetType)

    @property
    def is_explained(self) -> bool:
        """Whether it is known of any set what the model relies on; of findings, whether each one measured was asked."""
        regions = [found.explanation.region for found in self.explanations]
        explained = [found for one in self.explained_findings for found in one.explanation.findings]
        measured = {found.name for one in self.tested_findings for found in one.metrics.findings if not found.refused}
        all_asked = measured <= {found.name for found in explained}
        return any(region != "unknown" for region in [*regions, *(found.region for found in explained)]) and all_asked

    @property
    def audit_cautions(self) -> list[Caution]:
        """What the probes' audit found that limits a score."""
        if self.findings_probes and self.findings_probes.audit:
            return self.findings_probes.audit.cautions
        return self.probes.cautions if self.probes else []

    @property
    def is_probed(self) -> bool:
        """Whether any probe was run."""
        audit = self.findings_probes.audit if self.findings_probes else self.probes
        return audit is not None and bool(audit.probes)

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
        return trained or any(tested.metrics.synthetic for tested in self.tested)


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

    def beside_metrics(self, name: str, figures: Sequence[str]) -> dict[str, Any]:
        """The figures and the data flow of a set that was evaluated."""
        pictures = {figure: self.picture(f"evaluation/{name}/{figure}") for figure in figures}
        return {
            "pictures": {figure: uri for figure, uri in pictures.items() if uri},
            "dataflow": self.record_of(DataFlow, f"evaluation/{name}/{DATAFLOW}"),
        }

    def overlays(self, name: str, files: Sequence[str]) -> dict[str, Any]:
        """The overlays of a set that was explained, by file, or else its gallery."""
        overlays = {
            file: uri
            for file in dict.fromkeys(files)
            if file and Path(file).name == file and (uri := self.picture(f"explanation/{name}/{file}"))
        }
        return {"overlays": overlays, "gallery": "" if overlays else self.picture(f"explanation/{name}/gallery.png")}


def read_results(run: Path) -> RunResults:
    """Read a run folder.  Never fails for what a file holds; files that are damaged are named in left_out."""
    reader = RunFolderReader(run)
    summary = reader.record_of(Summary, SUMMARY)
    own = summary.checkpoint_sha256 if summary else ""
    curves = reader.picture("curves.png")
    evaluations = [
        EvaluatedSet(name=name, metrics=metrics, **reader.beside_metrics(name, FIGURES))
        for name, metrics in reader.own_results(Metrics, "evaluation", METRICS, own)
    ]
    tested_findings = [
        EvaluatedFindings(name=name, metrics=metrics, **reader.beside_metrics(name, FINDINGS_FIGURES))
        for name, metrics in reader.own_results(FindingsMetrics, "evaluation", FINDINGS, own)
    ]
    explanations = []
    for name, explanation in reader.own_results(Explanation, "explanation", EXPLANATION, own):
        beside = reader.overlays(name, [example.overlay for example in explanation.samples])
        deletion = reader.picture(f"explanation/{name}/deletion.png")
        explanations.append(ExplainedSet(name=name, explanation=explanation, deletion=deletion, **beside))
    explained_findings = []
    for name, by_finding in reader.own_results(FindingsExplanation, "explanation", BY_FINDING, own):
        files = [example.overlay for found in by_finding.findings for example in found.samples]
        explained_findings.append(ExplainedFindings(name=name, explanation=by_finding, **reader.overlays(name, files)))
    return RunResults(
        summary=summary,
        config=reader.settings(),
        history=reader.history(),
        evaluations=evaluations,
        explanations=explanations,
        tested_findings=tested_findings,
        explained_findings=explained_findings,
        probes=reader.record_of(Probes, PROBES),
        findings_probes=reader.record_of(FindingsProbes, FINDINGS_PROBES),
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
