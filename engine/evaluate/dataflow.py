"""The data flow of a conversion: how many files went in, what became of them and why, without any file's name."""

# N samples

from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path

import numpy as np
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from loaders.beton.reader import Beton
from loaders.convert.conversion import OUTCOMES, kind_text
from loaders.convert.findings import joined_findings
from loaders.errors import BetonError, InputError, StorageError
from loaders.records import Count, Record, write_record
from loaders.sources.entry import SPLITS
from loaders.sources.table import read_rows

DATAFLOW, TABLE = "dataflow.json", "convert.csv"
COLUMNS = ("path", "label", "split", "sample", "group", "verdict", "kind", "reason")
MOST_REASONS = 12  # kinds that are named; rarer ones are added up
OTHER = "other"


class LabelCounts(Record, frozen=True, kw_only=True):
    """Images in which a finding is present, absent or unknown."""

    present: Count
    absent: Count
    unknown: Count


class FindingsFlow(Record, frozen=True, kw_only=True):
    """The labels of a conversion of findings.  splits: split → each finding's labels, in the order of names.

    uncertain, blank: how the table's uncertain and empty values were read: finding → present, absent or unknown.
    """

    names: list[str]
    splits: dict[str, list[LabelCounts]]
    uncertain: dict[str, str]
    blank: dict[str, str]

    def __post_init__(self) -> None:
        if any(len(counts) != len(self.names) for counts in self.splits.values()):
            raise ValueError("counts of other findings")


class DataFlow(Record, frozen=True, kw_only=True):
    """What became of the files of a conversion: in = written + rejected + duplicate; excluded ones are outside.

    reasons: verdict → kind of the reason, as in convert.csv → files, commonest first; the rarest are added up as other.
    splits: split → class → images.  groups: of each split.  findings: of a conversion of findings alone.
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
    findings: FindingsFlow | UnsetType = UNSET

    @property
    def files(self) -> int:
        """Files that went in."""
        return self.written + self.rejected + self.duplicate


def keep_dataflow(run: Path, data: Path, expected: dict[str, int], conversion_id: str = "") -> str:
    """Write RUN/dataflow.json from DATA/convert.csv.  Gives "", or why there is none; one that was there then stays.

    expected: images by split, which the table must have, lest another conversion's be shown.  conversion_id: of the
    run; "" if that is not known.  Errors: StorageError.
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
    try:
        flow = with_findings(flow, data, conversion_id)
    except (BetonError, StorageError) as error:
        return str(error)
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
        flow = with_findings(count_files(rows), beton.path.parent, facts.conversion_id)
    except (BetonError, InputError, StorageError, ValueError):
        return None
    if facts.task == "findings":
        labels = [joined_findings(facts.classes, value_K == 1) for value_K in beton.labels]
    else:
        labels = [facts.classes[label] for label in beton.label_N]
    return flow if found and found == list(zip(labels, beton.rows_N["group"].tolist(), strict=True)) else None


def with_findings(flow: DataFlow, folder: Path, conversion_id: str) -> DataFlow:
    """The data flow with the labels of a folder's betons, if they are of findings.

    Then its splits only count images: which findings a film has together may tell a patient.
    Errors: as of `findings_flow`.
    """
    found = findings_flow(folder, conversion_id)
    if found is UNSET:
        return flow
    return replace(flow, findings=found, splits={split: {"": sum(of.values())} for split, of in flow.splits.items()})


def findings_flow(folder: Path, conversion_id: str) -> FindingsFlow | UnsetType:
    """The labels in a folder's betons of findings; UNSET where the first is of classes.  conversion_id: "" for any.

    Errors: BetonError; StorageError.
    """
    facts, splits = None, dict[str, list[LabelCounts]]()
    for split in SPLITS:
        if not (path := folder / f"{split}.beton").is_file():
            continue
        with Beton(path, trust_unverified=True) as beton:
            if beton.facts.task == "classes":
                return UNSET
            if conversion_id in ("", beton.facts.conversion_id):
                facts = beton.facts
                splits[split] = [
                    LabelCounts(
                        present=int((finding_N == 1).sum()),
                        absent=int((finding_N == 0).sum()),
                        unknown=int(np.isnan(finding_N).sum()),
                    )
                    for finding_N in beton.labels.T
                ]
    if facts is None:
        return UNSET
    return FindingsFlow(names=list(facts.classes), splits=splits, uncertain=facts.uncertain, blank=facts.blank)


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
        written=counts["written"],
        rejected=counts["rejected"],
        duplicate=counts["duplicate"],
        excluded=counts["excluded"],
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
