"""The audit's probes on the training beton of a run: probes.json, or of findings probes-by-finding.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loaders import __version__
from loaders.audit.findings import CollectionFinding, FindingsAudit, ProbeFinding
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.output import PhaseProgress
from loaders.records import Count, Record, write_record

PROBES, FINDINGS_PROBES = "probes.json", "probes-by-finding.json"
SEED = 0
PERMUTATIONS = 999  # the fewest with which Holm's correction over a dozen probes can leave a p below 5 %


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


class FindingsProbes(Record, frozen=True, kw_only=True):
    """The audit of the training beton of a run of findings, as probes-by-finding.json holds it.

    audit: None where refused says why.
    """

    made_by = "report"
    version: int = 1
    beton: str
    conversion_id: str
    num_samples: Count
    seed: Count
    permutations: Count
    audit: FindingsAudit | None
    refused: Caution | None
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    def __post_init__(self) -> None:
        if (self.audit is None) == (self.refused is None):
            raise ValueError("either an audit or why there is none")
        if self.audit and not is_whole(self.audit):
            raise ValueError("numbers of other findings")


def is_whole(audit: FindingsAudit) -> bool:
    """Whether the tables of an audit are of its findings: a file may have been edited."""
    tables: list[Sequence[Sequence[object]]] = [audit.present, audit.known, audit.phi]
    sources = audit.sources
    rows = [row for table in tables for row in table] + [row for one in sources for row in (one.known, one.present)]
    sized = {*map(len, [*tables, *rows, audit.told_by_source])} <= {len(audit.findings)}
    return sized and all(absent >= 0 for one in sources for absent in one.absent)


def probe_run(
    run: Path, beton_path: Path, progress: PhaseProgress = lambda phase, done, total: None
) -> Probes | FindingsProbes:
    """Run the audit's probes on a training beton, and write their file in RUN, the same for the same beton.

    Errors: BetonError; StorageError.
    """
    from loaders.audit.audit import audit_beton  # takes its time to import

    with Beton(beton_path, trust_unverified=True) as beton:
        verified, facts, num_samples = beton.verified, beton.facts, len(beton)
    result = audit_beton(beton_path, SEED, PERMUTATIONS, progress) if verified else None
    why = None if result else caution("one-class" if verified else "no-groups-to-probe")
    common: dict[str, Any] = {
        "beton": beton_path.name, "conversion_id": facts.conversion_id, "num_samples": num_samples, "seed": SEED,
        "permutations": PERMUTATIONS,
    }  # fmt: skip
    if facts.task == "findings":
        assert not isinstance(result, CollectionFinding)
        by_finding = FindingsProbes(**common, audit=result, refused=why)
        write_record(run / FINDINGS_PROBES, by_finding)
        return by_finding
    assert not isinstance(result, FindingsAudit)
    skipped = {"all probes": why} if why else {}
    found = result or CollectionFinding(probes=[], cautions=[], skipped=skipped)
    probes = Probes(**common, probes=found.probes, cautions=found.cautions, skipped=found.skipped)
    write_record(run / PROBES, probes)
    return probes
