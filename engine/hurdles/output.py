"""How a hurdles run is shown: the matrix as tables, and what it means in plain English."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.hurdles.matrix import (
    CONFOUNDED,
    drop_text,
    empty_text,
    headline,
    headline_drop,
    headline_metric,
    least_favourable,
    matrix_cells,
    matrix_columns,
    matrix_rows,
    metric_note,
)
from engine.hurdles.results import HURDLES, PICTURE, REMOVED, SHOWN, TABLE, Cell, FindingCell, Hurdles, Row
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import (
    difference_texts,
    fewer_classes,
    interval_text,
    metric_of,
    over_classes,
    place_of,
    short_name,
    value_text,
    with_interval,
)
from loaders.cautions import NOTHING_CLINICAL, Caution, each_once
from loaders.output import DASH, Line, Parts, Sheet, caution_lines, counted, path_line
from loaders.records import written_out

REMOVALS = {"pixels": "equal pixels", "patient": "a patient in both", "group": "a group in both",
            "copy": "copies by their look"}  # fmt: skip
MOST_SENTENCES = 12  # cells away from home; of more the least favourable of each row is described
MOST_PLACES = 3  # cells that a caution names
LIMITS = (
    "Each network is scored alone, at home on its own test fold and away on all of the other collection, and the "
    "scores are averaged. Temperature and threshold (Youden's) are of each network's own validation films. 95 % "
    "intervals are over groups; they leave out how much another training would differ, of which the range of the "
    "networks' own scores gives an idea."
)


def range_text(cell: Cell) -> str:
    """The lowest and the highest score of the networks on their own."""
    key = headline_metric(cell)
    values = [value for network in cell.networks if (value := network.values.get(key)) is not None]
    if not values:
        return DASH
    return f"{value_text(key, min(values)).removesuffix(' %')} to {value_text(key, max(values))}"


def sentences(result: Hurdles) -> list[str]:
    """What the matrix means, in plain English: row by row, then how well collections are told apart."""
    found, few = [], sum(cell.place == "away" for cell in result.cells) <= MOST_SENTENCES
    sentence_of = away_sentence if result.task == "classes" else findings_sentence
    mean = "" if result.task == "classes" else "mean "
    for row in matrix_rows(result):
        if row.confounded:
            found.append(
                f"The row of {row.name} is {CONFOUNDED}: a class that it is trained on shares no source with the "
                f"others, so that its score at home {NOTHING_CLINICAL}."
            )
        home, away = result.home(row.name), result.away(row.name)
        if guessing := guessing_text(home):
            at_home = value_text("auc", headline(home).value)
            found.append(f"Trained on {row.name}, the {mean}AUC at home, {at_home}, {guessing}.")
        worst = least_favourable(away)
        if worst is None:
            found.append(f"{row.name} was tested on no other collection.")
        elif few or len(away) == 1:
            found += [sentence_of(row, home, cell) for cell in away]
        else:
            lower = sum((headline_drop(cell).low or 0) > 0 for cell in away)
            found.append(
                f"{sentence_of(row, home, worst)} This is the least favourable of {len(away)} other collections; the "
                f"drop's interval lies wholly above 0 on {lower or 'none'} of them."
            )
    return found + [probe.sentence for probe in result.told_apart]


def away_sentence(row: Row, home: Cell, cell: Cell) -> str:
    """What becomes of a row on another collection."""
    key, found, drop = headline_metric(cell), headline(cell), headline_drop(cell)
    if found.value is None:
        return f"Trained on {row.name}, no score is defined on {cell.column}."
    over = fewer_classes(found)
    name = ("AUC" if key == "auc" else metric_of(key).name) + (f" (mean over {over})" if over else "")
    near, far = value_text(key, home.estimates.get(key, UNDEFINED).value), value_text(key, found.value)
    apart, ends = drop_texts(key, drop)
    between = f"(drop {apart}, 95 % interval {ends})"
    if drop.low is None or drop.high is None:
        text = f"is {near} at home and {far} on {cell.column}, without an interval of the drop"
    elif drop.low > 0:
        text = f"falls from {near} at home to {far} on {cell.column} {between}"
    elif drop.high < 0:
        text = f"rises from {near} at home to {far} on {cell.column} {between}"
    else:
        text = f"is {near} at home and {far} on {cell.column} {between}, which neither shows nor excludes a fall"
    guessing = guessing_text(cell)
    return f"Trained on {row.name}, the {name} {text}{f'; there it {guessing}' if guessing else ''}."


def findings_sentence(row: Row, home: Cell, cell: Cell) -> str:
    """What becomes of a row's findings on another collection: their mean, and those that fall for sure."""
    key, drop, found = headline_metric(cell), headline_drop(cell), headline(cell)
    if found.value is None:
        return f"Trained on {row.name}, no finding is measured on {cell.column}."
    near = home.estimates.get(key, UNDEFINED)
    name = "AUC" if key == "auc" else metric_of(key).name
    text = (
        f"Trained on {row.name}, the mean {name} is {value_text(key, near.value)} {over_classes(near, 'findings')} at "
        f"home and {value_text(key, found.value)} {over_classes(found, 'findings')} on {cell.column}"
    )
    if drop.value is None:
        return f"{text}; none is measured in both."
    apart, ends = drop_texts(key, drop)
    between = ", without an interval" if drop.low is None or drop.high is None else f" (95 % interval {ends})"
    if drop.low is not None and drop.high is not None and drop.low <= 0 <= drop.high:
        between += ", which neither shows nor excludes a fall"
    sure = sorted((one for one in cell.findings if (low_of(one, key)) > 0), key=lambda one: -low_of(one, key))
    named = [f"{one.name} falls by {drop_texts(key, one.drop[key])[0]}" for one in sure[:MOST_PLACES]]
    if more := len(sure) - len(named):
        named.append(f"{counted(more, 'other falls', 'others fall')} as well")
    singly = f"Taken singly, {', '.join(named)}" if named else "No single finding is shown to fall"
    guessing = guessing_text(cell)
    return (
        f"{text}; over {counted(drop.defined or 0, 'finding')} measured in both the drop is {apart}{between}. {singly}."
        f"{f' There the mean {guessing}.' if guessing else ''}"
    )


def drop_texts(key: str, drop: Estimate) -> tuple[str, str]:
    """A drop and its interval, without the sign of one that is above 0."""
    apart, ends = difference_texts(key, drop)
    return apart.replace("+", ""), ends.replace("+", "")


def low_of(finding: FindingCell, key: str) -> float:
    """The lower end of a finding's drop; 0 where it has none."""
    return finding.drop.get(key, UNDEFINED).low or 0.0


def guessing_text(cell: Cell) -> str:
    """What an AUC is whose interval does not lie above 0.5; "" for another."""
    found = headline(cell)
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    if headline_metric(cell) != "auc" or low is None or high is None or low > 0.5:
        return ""
    between = "" if found.low is None else f" (95 % interval {interval_text('auc', found)})"
    return f"{'is worse than' if high < 0.5 else 'is not shown to be better than'} guessing{between}"


def gathered_cautions(result: Hurdles) -> list[tuple[str, Caution]]:
    """Each caution once, with what it is of: "" for the whole."""
    found = [("", one) for one in result.cautions]
    found += [(collection.name, one) for collection in result.collections for one in collection.cautions]
    found += [(row.name, one) for row in result.rows for one in row.cautions]
    found += [(f"{cell.row} → {cell.column}", one) for cell in result.cells for one in cell.cautions]
    gathered = []
    for caution in each_once(one for _, one in found):
        places = list(dict.fromkeys(place for place, one in found if one == caution))
        more = len(places) - MOST_PLACES
        named = "; ".join(places[:MOST_PLACES]) + (f" and {more:,} more" if more > 0 else "")
        gathered.append(("" if "" in places else named, caution))
    return gathered


def hurdles_parts(result: Hurdles, out: Path) -> Parts:
    """The matrix, all cells, what they mean, cautions, what was left out of tests, and the files."""
    parts: list[Line | Sheet] = [matrix_sheet(result), cell_sheet(result), *finding_sheets(result)]
    parts += [Line(sentence, "bold") for sentence in sentences(result)]
    if not result.told_apart:
        why = (
            "they share no class of enough groups" if result.task == "classes" else "fewer than two have enough groups"
        )
        parts.append(Line(f"How well collections are told apart was not measured: {why}."))
    parts += [line for of, one in gathered_cautions(result) for line in caution_lines([one], of)]
    for cell in result.cells:
        if cell.removed:
            reasons = ", ".join(f"{REMOVALS.get(reason, reason)} {count:,}" for reason, count in cell.removed.items())
            films = counted(sum(cell.removed.values()), "film")
            parts.append(Line(f"{cell.row} → {cell.column}: {films} of this test left out as in training ({reasons})."))
    parts.append(Line(LIMITS))
    return [*parts, *(path_line(out / name) for name in (HURDLES, TABLE, REMOVED, PICTURE))]


def matrix_sheet(result: Hurdles) -> Sheet:
    """The matrix: AUC and its interval, or what is defined instead."""

    def cell_text(row: Row, column: int, cell: Cell | None) -> str:
        if cell is None:
            return empty_text(result, row, column)
        key, note = headline_metric(cell), "" if headline_metric(cell) == "auc" else f"{metric_note(cell)} "
        return f"{'home ' if cell.place == 'home' else ''}{note}{with_interval(key, headline(cell), cell.task)}"

    rows = tuple(
        (
            f"{row.name}, {CONFOUNDED}" if row.confounded else row.name,
            *(cell_text(row, column, cell) for column, cell in enumerate(matrix_cells(result, row))),
        )
        for row in matrix_rows(result)
    )
    which = "AUC" if result.task == "classes" else "Mean AUC over findings"
    title = f"{which} with its 95 % interval: rows are trained on, columns are tested on"
    return Sheet(title=title, headers=("trained on", *matrix_columns(result)), rows=rows)


def cell_sheet(result: Hurdles) -> Sheet:
    """Every cell with its metrics, its drop and the range of its networks."""
    rows = tuple(
        (
            f"{cell.row}, at home" if cell.place == "home" else f"{cell.row} → {cell.column}",
            f"{cell.num_samples:,}",
            f"{cell.num_groups:,}",
            *(estimate_text(cell, key) for key in SHOWN),
            drop_text(cell),
            f"{len(cell.networks):,}: {range_text(cell)}",
        )
        for row in matrix_rows(result)
        for cell in (result.home(row.name), *result.away(row.name))
    )
    names = [short_name(key) for key in SHOWN]
    headers = ("trained on → tested on", "images", "groups", *names, "drop from home", "networks")
    return Sheet(title="Drop and networks' range: of the AUC, or what is defined instead", headers=headers, rows=rows)


def estimate_text(cell: Cell, key: str) -> str:
    """An estimate of a cell; over how many findings a mean is only where that is not as of the AUC, beside it."""
    found, area = cell.estimates.get(key, UNDEFINED), cell.estimates.get("auc", UNDEFINED)
    if cell.findings and key != "auc" and found.defined == area.defined:
        found = replace(found, defined=found.classes)
    return with_interval(key, found, cell.task)


def finding_sheets(result: Hurdles) -> list[Sheet]:
    """Of findings a table a row of the matrix: each at home and in the least favourable cell, the surest fall first."""
    sheets = []
    for row in matrix_rows(result):
        home, worst = result.home(row.name), least_favourable(result.away(row.name))
        if not home.findings or worst is None:
            continue
        pairs = sorted(
            zip(home.findings, worst.findings, strict=True),
            key=lambda pair: (not pair[1].drop, -low_of(pair[1], "auc")),
        )
        sheets.append(
            Sheet(
                title=f"By finding: trained on {row.name}, at home and on {worst.column}, the least favourable",
                headers=("finding", "present of known at home", "away", "ROC-AUC at home", "away", "drop"),
                rows=tuple(
                    (
                        near.name,
                        *(f"{one.num_present:,} of {one.num_known:,}" for one in (near, far)),
                        *(with_interval("auc", one.estimates.get("auc", UNDEFINED)) for one in (near, far)),
                        "{} ({})".format(*drop_texts("auc", far.drop["auc"])) if far.drop else "not measured in both",
                    )
                    for near, far in pairs
                ),
            )
        )
    return sheets


def hurdle_rows(result: Hurdles) -> Iterator[list[Any]]:
    """The rows of hurdles.csv: each metric of each cell.  drop: home minus away.

    Of findings also of each of them, and "" for their mean, with the findings that it and its drop are over.
    """
    more = [["finding"], ["over"], ["drop_over"]] if result.task == "findings" else [[], [], []]
    yield [
        "row", "column", "place", "confounded", *more[0], "metric", "value", "low", "high", *more[1],
        "drop", "drop_low", "drop_high", *more[2], "images", "groups", "networks",
        *(f"removed_{reason}" for reason in REMOVALS),
    ]  # fmt: skip
    for row in matrix_rows(result):
        for cell in (result.home(row.name), *result.away(row.name)):
            place = [*written_out([cell.row, cell.column]), cell.place, "yes" if row.confounded else "no"]
            removed = [cell.removed.get(reason, 0) for reason in REMOVALS]
            tested: list[tuple[str, int, Cell | FindingCell]] = [("", cell.num_samples, cell)]
            tested += [(written_out(one.name), one.num_known, one) for one in cell.findings]
            for name, images, one in tested:
                for key in sorted(one.estimates, key=place_of):
                    found, drop = one.estimates[key], one.drop.get(key, UNDEFINED)
                    named, over, drop_over = ([name], [found.defined], [drop.defined]) if more[0] else ([], [], [])
                    yield [
                        *place, *named, key, found.value, found.low, found.high, *over, drop.value, drop.low,
                        drop.high, *drop_over, images, one.num_groups, len(one.networks), *removed,
                    ]  # fmt: skip
