"""`make bench-findings`: whether findings are learnt from phantoms whose answer is known, and only where it can be.

Phantoms with five findings, drawn independently of one another: the held-out AUC of each must be high; with half of all
labels made unknown their mean may fall only a little; with the labels of patients exchanged at random none may lie far
from guessing.  Every setting of the training is the recipe's.  Exits with 1 where one of these is missed.
"""

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.config import EvaluateConfig, TrainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.findings import FindingsMetrics
from engine.statistics.estimates import UNDEFINED
from engine.statistics.names import with_interval
from engine.train.state import Watch
from engine.train.train import train
from loaders.config import PHANTOM_FINDINGS, CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms

PATIENTS, SIZE, HOLDOUT, LEAST_HELD_OUT = 1200, 96, 0.28, 300
UNKNOWN = 0.5
LEAST_AUC, MOST_LOST, NEAR_GUESSING = 0.90, 0.03, 0.08
STUDIES = ("known", "half unknown", "permuted")


def permute_patients(table: Path, seed: int = 0) -> None:
    """Exchange the findings of whole patients in a table of phantoms, each film taking those of its new patient."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = PHANTOM_FINDINGS.values()
    of_patient = {row["patient"]: [row[name] for name in names] for row in rows}
    givers = list(of_patient)
    random.Random(seed).shuffle(givers)
    taken = dict(zip(of_patient, givers, strict=True))
    for row in rows:
        row.update(zip(names, of_patient[taken[row["patient"]]], strict=True))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def study(name: str, folder: Path, patients: int = PATIENTS, **training: Any) -> FindingsMetrics:
    """The evaluation of a network trained on phantoms, on films of patients that were held out."""
    table = write_phantoms(
        PhantomConfig(
            out=folder / "P", patients=patients, size=160, findings=("all",), seed=1,
            unknown=UNKNOWN if name == "half unknown" else 0.0,
        )
    )  # fmt: skip
    if name == "permuted":
        permute_patients(table)
    catalog = CatalogConfig(manifest=table, findings=("all",))
    convert(ConvertConfig(catalog=catalog, out=folder / "B", size=SIZE, holdout=HOLDOUT, site_key=folder / "site.key"))
    train(TrainConfig(data=folder / "B", out=folder / "R", **training), watch=Watch())
    (found,) = evaluate(EvaluateConfig(run=folder / "R", betons=(folder / "B" / "heldout.beton",)))
    assert isinstance(found.metrics, FindingsMetrics)
    return found.metrics


def missed(found: dict[str, FindingsMetrics]) -> list[str]:
    """What the studies should have reached, and did not: a finding that is not measured has reached nothing."""
    result = []
    for name, metrics in found.items():
        for finding in metrics.findings:
            auc = finding.estimates.get("auc", UNDEFINED).value
            if auc is None:
                result.append(f"{name}: {finding.name} undefined")
            elif (name == "known" and auc < LEAST_AUC) or (name == "permuted" and abs(auc - 0.5) > NEAR_GUESSING):
                result.append(f"{name}: {finding.name} {auc:.3f}")
        if name == "permuted" and metrics.num_groups < LEAST_HELD_OUT:
            result.append(f"{name}: {metrics.num_groups} held-out groups, expected {LEAST_HELD_OUT}")
    if {"known", "half unknown"} <= found.keys():
        known, half = (found[name].macro["auc"].value for name in ("known", "half unknown"))
        if known is not None and half is not None and known - half > MOST_LOST:
            result.append(f"half unknown: the mean AUC falls by {known - half:.3f}")
    return result


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.findings", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=STUDIES, help="studies to measure")
    parser.add_argument("--out", type=Path, default=RESULTS / "findings.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    stored: dict[str, Any] = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            place, began = Path(folder) / name.replace(" ", "-"), time.perf_counter()
            place.mkdir()
            found[name] = metrics = study(name, place)
            seconds = time.perf_counter() - began
            print(f"{name} ({seconds:.0f} s; n = {metrics.num_samples} of {metrics.num_groups} groups):")
            print(f"  mean AUC {with_interval('auc', metrics.macro['auc'])}")
            for finding in metrics.findings:
                shown = with_interval("auc", finding.estimates.get("auc", UNDEFINED))
                print(f"  {finding.name}: AUC {shown}, {finding.num_present} of {finding.num_known} known", flush=True)
            result = msgspec.to_builtins(metrics)
            stored[name] = {"provenance": facts, "seconds": round(seconds, 1), "result": result}
    chosen.out.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    lacking = missed(found)
    print(*(f"missed: {line}" for line in lacking), sep="\n")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
