"""The data flow of a conversion: how many files went in, what became of them and why, without any file's name."""

from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path

from loaders.beton.reader import Beton
from loaders.convert.conversion import OUTCOMES, kind_text
from loaders.errors import InputError, StorageError
from loaders.records import Count, Record, write_record
from loaders.sources.entry import SPLITS
from loaders.sources.table import read_rows

DATAFLOW, TABLE = "dataflow.json", "convert.csv"
COLUMNS = ("path", "label", "split", "sample", "group", "verdict", "kind", "reason")
MOST_REASONS = 12  # kinds that are named; rarer ones are added up
OTHER = "other"


class DataFlow(Record, frozen=True, kw_only=True):
    """What became of the files of a conversion: in = written + rejected + duplicate; excluded ones are outside.

    reasons: verdict → kind of the reason, as in convert.csv → files, commonest first; the rarest are added up as other.
    splits: split → class → images.  groups: of each split.
    """

    made_by = "report"
    version: int = 1
    written: Count
    rejected: Count
    duplicate: Count
    excluded: Count
    reasons: dict[str, dict[str, Count]]
    splits: dict[str, dict[str, Count]]
    groups: dict[str, Count]

    @property
    def files(self) -> int:
        """Files that went in."""
        return self.written + self.rejected + self.duplicate


def keep_dataflow(run: Path, data: Path, expected: dict[str, int]) -> str:
    """Write RUN/dataflow.json from DATA/convert.csv.  Gives "", or why there is none; one that was there then stays.

    expected: images by split, which the table must have, lest another conversion's be shown.
    Errors: StorageError.
    """
    path = data / TABLE
    if not path.is_file():
        return f"{data} has no {TABLE}"
    try:
        flow = count_files(read_table(path))
    except InputError:
        return f"{path} is no table of `convert`"
    for split, number in expected.items():
        found = sum(flow.splits.get(split, {}).values())
        if found != number:
            return f"{path} has {found} images of {split}, expected {number}: it is of another conversion"
    write_record(run / DATAFLOW, flow)
    return ""


def dataflow_beside(beton: Beton) -> DataFlow | None:
    """The data flow of a beton's conversion, from the table beside it.

    None where there is no table, none that can be read, such as another owner's, or one of another conversion: its
    labels and groups are those of the beton, sample by sample, or it is another's.
    """
    path, facts = beton.path.parent / TABLE, beton.facts
    try:
        rows = read_table(path) if path.is_file() else []
        own = [row for row in rows if row["verdict"] == "written" and row["split"] == facts.split]
        own.sort(key=lambda row: int(row["sample"]))
        found = [(row["label"], int(row["group"])) for row in own]
        flow = count_files(rows)
    except (InputError, StorageError, ValueError):
        return None
    labels = [facts.classes[label] for label in beton.label_N]
    return flow if found and found == list(zip(labels, beton.rows_N["group"].tolist(), strict=True)) else None


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a convert.csv.  Errors: InputError for another table; StorageError."""
    return [row for _, row in read_rows(path, itemgetter("path"), COLUMNS, (), "convert again", strip=False).values()]


def count_files(rows: list[dict[str, str]]) -> DataFlow:
    """Count the rows of a convert.csv."""
    counts = Counter(dict.fromkeys(OUTCOMES, 0))
    kinds: dict[str, Counter[str]] = {verdict: Counter() for verdict in OUTCOMES}
    splits: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        verdict = row["verdict"] if row["verdict"] in OUTCOMES else "rejected"
        counts[verdict] += 1
        if verdict == "written":
            splits[row["split"]][row["label"]] += 1
            groups[row["split"]].add(row["group"])
        else:  # a person may have edited the table, and put a name there
            kinds[verdict][row["kind"] if kind_text(row["kind"]) else OTHER] += 1
    return DataFlow(
        **counts,
        reasons={verdict: commonest(counted) for verdict, counted in kinds.items() if counted},
        splits={split: dict(sorted(splits[split].items())) for split in SPLITS if split in splits},
        groups={split: len(groups[split]) for split in SPLITS if split in groups},
    )


def commonest(counts: Counter[str]) -> dict[str, int]:
    """Kind → files, commonest first; the rarest are added up."""
    ordered = sorted(counts.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    shown = dict(ordered[:MOST_REASONS])
    if rest := sum(number for _, number in ordered[MOST_REASONS:]):
        shown[OTHER] = shown.get(OTHER, 0) + rest
    return shown
