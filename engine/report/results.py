"""The material of a run's page: what lies in the run folder, read without trusting any of it."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from loaders.audit.findings import CollectionFinding, ProbeFinding
from loaders.cautions import Caution, caution, cautions_in
from loaders.html import png_file_uri

PICTURES = 10_000_000  # bytes of all pictures before base64, which adds a third: the page stays below 15 MB
ONE_PICTURE = 4_000_000
PROBE_SIDE = 1024  # pixels; a probe's picture has a stored frame's side, at most some hundred


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A number with its 95 % interval; None for what was not measured.

    A mean over classes is of those that define the metric: so many of all classes.  Both are None where it is no mean,
    or of a release up to 0.6, which did not count them.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    defined: int | None = None
    classes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One evaluation.  content: its metrics.json.  pictures: name of the figure → data URI.

    name: of the set, as of its folder.  dataflow: of the set's conversion, where that is not the run's own.
    """

    name: str
    content: dict[str, Any]
    pictures: dict[str, str]
    dataflow: dict[str, Any] = field(default_factory=dict)

    def estimate(self, name: str) -> Measured:
        """A metric with its interval; of older runs, which have none, the value alone."""
        found = measured_in(dict_in(self.content, "estimates").get(name))
        return found if found.value is not None else Measured(value=number_in(self.content, name))

    def trivial(self, name: str) -> Measured:
        """The same metric of a classifier that always answers with the largest class."""
        found = number_in(self.content, "trivial", name)
        value = found if found is not None else number_in(self.content, "largest_class", name)
        defined = count_in(self.content, "trivial_defined", name)
        return Measured(value=value, defined=defined, classes=None if defined is None else self.num_classes)

    @property
    def num_classes(self) -> int:
        """How many classes the set's run tells apart."""
        return len(texts_in(self.content, "classes"))

    @property
    def cautions(self) -> list[Caution]:
        """Of this run's score on the set; a rival's are in the difference to it."""
        return cautions_in(self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """One explanation.  content: its explanation.json.  overlays: file name → data URI.  gallery: one picture, else.

    name: of the set, as of its folder.
    """

    name: str
    content: dict[str, Any]
    overlays: dict[str, str]
    gallery: str
    deletion: str
    """The curves of the deletion control."""


@dataclass(kw_only=True, slots=True)
class Material:
    """All there is; what is not there is empty, and left_out lists what the page cannot show."""

    summary: dict[str, Any]
    config: dict[str, Any]
    history: list[dict[str, float | None]]
    evaluations: list[Scored]
    explanations: list[Explained]
    probes: CollectionFinding | None
    probed: dict[str, Any]
    crossval: dict[str, Any]
    dataflow: dict[str, Any]
    curves: str
    crossval_picture: str
    left_out: list[Caution] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as the run or its evaluations have them."""
        for content in (self.summary, *(scored.content for scored in self.evaluations)):
            if names := texts_in(content, "classes"):
                return names
        return []

    @property
    def own_crossval(self) -> dict[str, Any]:
        """The cross-validation, unless it is known to be of other data than the run."""
        own, other = text_in(self.summary, "conversion_id"), text_in(self.crossval, "conversion_id")
        return {} if own and other and own != other else self.crossval

    @property
    def synthetic(self) -> bool:
        """Whether all images are phantoms."""
        contents = (self.summary, *(scored.content for scored in self.evaluations))
        return any(content.get("synthetic") is True for content in contents)


class Reader:
    """Reads a run folder: a budget for its pictures, and a list of what is left out."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.left = PICTURES
        self.left_out: list[Caution] = []

    def bytes_of(self, name: str, most: int = 50_000_000) -> bytes:
        """A file of the run folder; b"" where there is none, or none that can be read."""
        path = self.run / name
        try:
            if not path.is_file():
                return b""
            if path.stat().st_size > most:
                self.left_out.append(caution("file-too-large", file=name))
                return b""
            return path.read_bytes()
        except OSError as error:
            self.left_out.append(caution("file-unreadable", file=name, reason=str(error.strerror)))
            return b""

    def json_of(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; {} where there is none."""
        text = self.bytes_of(name)
        if not text:
            return {}
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self.left_out.append(caution("file-unreadable", file=name, reason="no JSON object"))
            return {}
        return content

    def history(self) -> list[dict[str, float | None]]:
        """The rows of metrics.csv."""
        text = self.bytes_of("metrics.csv").decode("utf-8", "replace")
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            self.left_out.append(caution("file-unreadable", file="metrics.csv", reason=str(error)))
            return []
        return [{str(name): as_number(value) for name, value in row.items()} for row in rows]

    def of_other_weights(self, name: str, content: dict[str, Any], own: str) -> bool:
        """Whether a result is of weights that the run no longer has; if so, it is left out.  own: its SHA-256."""
        found = text_in(content, "checkpoint", "sha256")
        if not own or not found or own == found:
            return False
        self.left_out.append(caution("result-of-other-weights", folder=name))
        return True

    def picture(self, name: str) -> str:
        """A PNG as a data URI; "" for none, or once the page is full."""
        png_B = self.bytes_of(name, most=min(ONE_PICTURE, self.left))
        uri = png_file_uri(png_B)
        self.left -= len(png_B) if uri else 0
        return uri

    def folders(self, name: str, file: str) -> Iterator[str]:
        """The folders below `name` that hold the file, in order."""
        for path in sorted((self.run / name).glob(f"*/{file}")):
            yield path.parent.name


def read_material(run: Path) -> Material:
    """Read a run folder.  Never fails for what a file holds; files that are damaged are named in left_out."""
    reader = Reader(run)
    summary = reader.json_of("summary.json")
    own = text_in(summary, "checkpoint_sha256")
    curves = reader.picture("curves.png")
    evaluations = []
    for name in reader.folders("evaluation", "metrics.json"):
        content = reader.json_of(f"evaluation/{name}/metrics.json")
        if reader.of_other_weights(f"evaluation/{name}", content, own):
            continue
        figures = texts_in(content, "figures") or ["confusion.png"]
        plain = [figure for figure in figures if Path(figure).name == figure and figure.endswith(".png")]
        pictures = {figure: reader.picture(f"evaluation/{name}/{figure}") for figure in plain}
        if content:
            pictures = {figure: uri for figure, uri in pictures.items() if uri}
            flow = reader.json_of(f"evaluation/{name}/dataflow.json")
            evaluations.append(Scored(name=name, content=content, pictures=pictures, dataflow=flow))
    explanations = []
    for name in reader.folders("explanation", "explanation.json"):
        content = reader.json_of(f"explanation/{name}/explanation.json")
        if reader.of_other_weights(f"explanation/{name}", content, own):
            continue
        files = [text_in(sample, "overlay") for sample in dicts_in(content, "samples")]
        overlays = {
            file: uri
            for file in dict.fromkeys(files)
            if file and Path(file).name == file and (uri := reader.picture(f"explanation/{name}/{file}"))
        }
        gallery = "" if overlays else reader.picture(f"explanation/{name}/gallery.png")
        deletion = reader.picture(f"explanation/{name}/deletion.png")
        if content:
            explanations.append(
                Explained(name=name, content=content, overlays=overlays, gallery=gallery, deletion=deletion)
            )
    probed = reader.json_of("probes.json")
    return Material(
        summary=summary,
        config=reader.json_of("config.json"),
        history=reader.history(),
        evaluations=evaluations,
        explanations=explanations,
        probes=probes_from(probed) if probed else None,
        probed=probed,
        crossval=reader.json_of("crossval.json"),
        dataflow=reader.json_of("dataflow.json"),
        curves=curves,
        crossval_picture=reader.picture("crossval.png"),
        left_out=reader.left_out,
    )


def probes_from(content: dict[str, Any]) -> CollectionFinding:
    """The findings in a probes.json."""
    probes = []
    for probe in dicts_in(content, "probes"):
        numbers = {
            name: math.nan if (value := number_in(probe, name)) is None else value
            for name in ("auc", "low", "high", "null_high", "p", "p_holm")
        }
        probes.append(
            ProbeFinding(
                name=text_in(probe, "name"),
                alarm=probe.get("alarm") is True,
                sentence=text_in(probe, "sentence"),
                picture_HW=picture_from(text_in(probe, "picture")),
                **numbers,
            )
        )
    skipped = {str(name): str(why) for name, why in dict_in(content, "skipped").items()}
    return CollectionFinding(probes=tuple(probes), cautions=tuple(cautions_in(content)), skipped=skipped)


def picture_from(text: str) -> np.ndarray | None:
    """A grey picture, uint8 (H, W), from the base64 of its PNG; None for anything else, or too large."""
    try:
        png_B = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    sides = [int.from_bytes(png_B[start : start + 4]) for start in (16, 20)]  # of its first chunk, IHDR
    if not png_file_uri(png_B) or len(png_B) > ONE_PICTURE or max(sides) > PROBE_SIDE:
        return None
    return cv2.imdecode(np.frombuffer(png_B, np.uint8), cv2.IMREAD_GRAYSCALE)


# ---- values of JSON, of whatever kind they may be


def find(content: Any, *names: str) -> Any:
    """A value by its names, from the outer to the inner; None where one is missing."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def number_in(content: Any, *names: str) -> float | None:
    """A finite number; None for anything else."""
    value = find(content, *names)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if fits and math.isfinite(value) else None


def count_in(content: Any, *names: str) -> int | None:
    """A whole number of things; None for anything else."""
    value = number_in(content, *names)
    return int(value) if value is not None and value >= 0 else None


def text_in(content: Any, *names: str) -> str:
    """A text; "" for anything else."""
    value = find(content, *names)
    return value if isinstance(value, str) else ""


def dict_in(content: Any, *names: str) -> dict[str, Any]:
    """An object; {} for anything else."""
    value = find(content, *names)
    return value if isinstance(value, dict) else {}


def dicts_in(content: Any, *names: str) -> list[dict[str, Any]]:
    """The objects of a list."""
    value = find(content, *names)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts_in(content: Any, *names: str) -> list[str]:
    """The texts of a list."""
    value = find(content, *names)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def measured_in(content: Any) -> Measured:
    """An estimate as estimates.py writes it."""
    value, low, high = (number_in(content, name) for name in ("value", "low", "high"))
    defined, classes = (count_in(content, name) for name in ("defined", "classes"))
    return Measured(value=value, low=low, high=high, defined=defined, classes=classes)


def as_number(text: Any) -> float | None:
    """A number of a table's cell."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


MINUS = "−"


def share_text(value: float | None, digits: int = 1) -> str:
    """A share in per cent.  Only what is whole reads 100 %, and only what is nothing reads 0 %."""
    if value is None:
        return "–"
    least = 10**-digits
    text = f"{min(max(100 * value, least), 100 - least):.{digits}f}" if 0 < value < 1 else f"{100 * value:.{digits}f}"
    text = f"{100 * value:.0f}" if value in (0, 1) else text
    return f"{text}\u00a0%".replace("-", MINUS)


def plain_text(value: float | None, digits: int = 3) -> str:
    """A number with its decimals."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def interval_text(found: Measured, share: bool, digits: int = 3) -> str:
    """The 95 % interval; "" where there is none.  digits: of a number that is no share."""
    if found.low is None or found.high is None:
        return ""
    if share:
        return f"{share_text(found.low).removesuffix(chr(0xA0) + '%')} to {share_text(found.high)}"
    return f"{plain_text(found.low, digits)} to {plain_text(found.high, digits)}"


def part_text(part: float, whole: float) -> str:
    """A part's share of the whole; a dash of nothing."""
    return share_text(part / whole if whole else None)


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 group`, `2,300 groups`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def upper_first(text: str) -> str:
    """A sentence that begins a line."""
    return text[:1].upper() + text[1:]
