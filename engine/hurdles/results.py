"""The result of a hurdles run: the matrix of training and test collections, as hurdles.json holds it."""

from typing import Any, Literal

from msgspec import field

from engine.statistics.estimates import Estimate
from loaders import __version__
from loaders.audit.findings import ProbeFinding
from loaders.cautions import Caution
from loaders.config import Task
from loaders.records import Count, Record

HURDLES, TABLE, PICTURE, REMOVED = "hurdles.json", "hurdles.csv", "hurdles.png", "removed.csv"
SHOWN = ("auc", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")
Place = Literal["home", "away"]


class CollectionResult(Record, frozen=True, kw_only=True):
    """One collection: a column of the matrix, and a row where it has films to train on.

    conversion_id: of its betons.  identity: of its samples, another for each source of one conversion.  sources: as its
    betons name them, "" for unknown ones.  class_counts: films of each class, or in which each finding is present.
    trained: whether it is a row.  cautions: of its images.
    """

    name: str
    conversion_id: str
    identity: str
    sources: list[str]
    num_samples: Count
    num_groups: Count
    class_counts: list[Count]
    trained: bool
    cautions: list[Caution]


class NetworkResult(Record, frozen=True, kw_only=True):
    """One fold's network on the samples of a cell, or of one finding of it.

    threshold: of the positive class's probability, chosen on the network's own validation set; None where the most
    probable class is predicted, and of a finding that this set knows too little of, where 0.5 is taken.  values: its
    metrics alone, None where undefined.  A network of findings has a temperature and a threshold of each, and none of
    the cell's.
    """

    seed: Count
    fold: Count
    temperature: float | None
    threshold: float | None
    num_samples: Count
    values: dict[str, float | None]


class FindingCell(Record, frozen=True, kw_only=True):
    """One finding of a cell, over the films in which it is known; otherwise as the cell.

    refused: why nothing is estimated, as too few known films.  drop: only where it is measured at home and away.
    """

    name: str
    num_known: Count
    num_present: Count
    num_groups: Count
    refused: Caution | None
    estimates: dict[str, Estimate]
    drop: dict[str, Estimate]
    networks: list[NetworkResult]


class Cell(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The networks of a row tested on a column: at home each on its own test fold, away each on all that is left there.

    estimates: means over the networks, each scored on its own, with intervals over groups.  drop: home minus away, of
    the networks that define the metric in both; of an away cell alone.  removed: reason → films left out of the test,
    since training has them: equal pixels, patients, or a copy by its look.  cautions: of this pair.
    findings: each of them, whose means estimates and drop are then: over those that are measured here, or that are both
    here and at home; `defined` and `classes` count findings.
    """

    row: str
    column: str
    place: Place
    num_samples: Count
    num_groups: Count
    class_counts: list[Count]
    estimates: dict[str, Estimate]
    drop: dict[str, Estimate]
    removed: dict[str, Count]
    networks: list[NetworkResult]
    cautions: list[Caution]
    findings: list[FindingCell] = field(default_factory=list)

    @property
    def task(self) -> Task:
        """What is predicted, and what means are over."""
        return "findings" if self.findings else "classes"


class Row(Record, frozen=True, kw_only=True):
    """Networks trained on one collection, or on all that can be trained on but one.

    without: the collection left out, None for a row of one collection.  confounded: whether a class that its networks
    are trained on shares no source with the others, so that finding and source cannot be separated.
    """

    name: str
    conversion_id: str
    identity: str
    without: str | None
    confounded: bool
    num_networks: Count
    cautions: list[Caution]


class Hurdles(Record, frozen=True, kw_only=True):
    """A hurdles run, as hurdles.json holds it.

    classes: of findings their names, and positive "".  collections, rows: in the order of the matrix.  cells: row by
    row; a row of all but one has its home cell, whose column is the row's own name, and that of the collection left
    out, and those of collections to test on alone.
    told_apart: within a class, or of findings over all films, how well the collection can be told from thumbnails: the
    audit's probe.
    """

    made_by = "hurdles"
    version: int = 1
    classes: list[str]
    positive: str
    synthetic: bool
    by: str
    folds: Count
    seeds: Count
    collections: list[CollectionResult]
    rows: list[Row]
    cells: list[Cell]
    told_apart: list[ProbeFinding]
    cautions: list[Caution]
    settings: dict[str, Any]
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    def __post_init__(self) -> None:
        homes = sorted(cell.row for cell in self.cells if cell.place == "home")
        if homes != sorted({row.name for row in self.rows}) or not {cell.row for cell in self.cells} <= {*homes}:
            raise ValueError("rows without one home cell each, or cells of other rows")

    @property
    def task(self) -> Task:
        """What is predicted: a class, or several findings."""
        return "classes" if self.positive else "findings"

    def cell(self, row: str, column: str) -> Cell | None:
        """The cell of a row and a column by their names; None where there is none."""
        return next((cell for cell in self.cells if (cell.row, cell.column) == (row, column)), None)

    def home(self, row: str) -> Cell:
        """The home cell of a row."""
        return next(cell for cell in self.cells if cell.row == row and cell.place == "home")

    def away(self, row: str) -> list[Cell]:
        """The cells of a row on other collections."""
        return [cell for cell in self.cells if cell.row == row and cell.place == "away"]
