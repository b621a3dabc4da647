"""The matrix of a hurdles run: which cell stands where, and what a cell is judged by."""

from engine.hurdles.results import Cell, Hurdles, Row
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import difference_texts, fewer_classes, short_name
from loaders.output import DASH

OWN_FOLDS = "at home"  # heads the column of the home cells of rows of all but one collection: they lie on no diagonal
CONFOUNDED = "confounded with source"
NOT_ELSEWHERE = (  # cautions of a pair, with one of which a test is on no other collection
    "external-shares-sources", "external-sources-unknown", "external-copies-kept", "external-mostly-copies",
    "external-hashed-otherwise",
)  # fmt: skip


def headline_metric(cell: Cell) -> str:
    """The metric that a cell is judged by: the AUC, or where one class leaves it undefined what is defined."""
    keys = ("auc", "sensitivity", "specificity")
    return next((key for key in keys if cell.estimates.get(key, UNDEFINED).value is not None), "auc")


def headline(cell: Cell) -> Estimate:
    """The metric that a cell is judged by, with its interval."""
    return cell.estimates.get(headline_metric(cell), UNDEFINED)


def headline_drop(cell: Cell) -> Estimate:
    """How much lower that metric is than at home."""
    return cell.drop.get(headline_metric(cell), UNDEFINED)


def is_elsewhere(cell: Cell) -> bool:
    """Whether a cell has a score on another collection, one that is known to share no source."""
    another = cell.place == "away" and {one.code for one in cell.cautions}.isdisjoint(NOT_ELSEWHERE)
    return another and headline(cell).value is not None


def least_favourable(cells: list[Cell]) -> Cell | None:
    """The cell with the largest drop, by its lower end; those without one come after, by their score."""

    def rank(cell: Cell) -> tuple[float, float]:
        drop, found = headline_drop(cell), headline(cell)
        ends = [end for end in (drop.low, drop.value) if end is not None]
        return -(ends[0] if ends else -2.0), 2.0 if found.value is None else found.value

    return min(cells, key=rank, default=None)


def matrix_rows(result: Hurdles) -> list[Row]:
    """The rows in the order in which they are shown: those of all but one collection below the others."""
    return sorted(result.rows, key=lambda row: row.without is not None)


def matrix_columns(result: Hurdles) -> list[str]:
    """The collections, then OWN_FOLDS where rows of all but one collection are shown."""
    own_folds = [OWN_FOLDS] if any(row.without is not None for row in result.rows) else []
    return [*(collection.name for collection in result.collections), *own_folds]


def matrix_cells(result: Hurdles, row: Row) -> list[Cell | None]:
    """The cells of a row, in the order of the columns; None where nothing was tested."""
    found = [result.cell(row.name, collection.name) for collection in result.collections]
    home = result.home(row.name) if row.without is not None else None
    return [*found, home] if len(matrix_columns(result)) > len(found) else found


def empty_text(result: Hurdles, row: Row, column: int) -> str:
    """Why a place of the matrix is empty."""
    if column == len(result.collections):
        return ""
    trained = row.without is not None and result.collections[column].trained
    return "in training" if trained else "not tested"


def metric_note(cell: Cell) -> str:
    """What a cell shows, unless that is the AUC over all classes: "sensitivity", "over 2 of 3 classes"."""
    key, over = headline_metric(cell), fewer_classes(headline(cell), cell.task)
    return ", ".join(filter(None, ("" if key == "auc" else short_name(key), f"over {over}" if over else "")))


def drop_text(cell: Cell) -> str:
    """The drop of a cell with its interval, for a narrow place: "12.5 (2.0 to 23.0 points)"; "" for none.

    Of findings over how many, where that is not all: "0.125 (0.020 to 0.230), 2 of 3 findings".
    """
    drop, ends = (text.replace("+", "") for text in difference_texts(headline_metric(cell), headline_drop(cell)))
    whole = drop if ends == DASH else f"{drop.removesuffix(' points')} ({ends})"
    if cell.findings and (over := fewer_classes(headline_drop(cell), cell.task)):
        whole += f", {over}"
    return "" if headline_drop(cell).value is None else whole
