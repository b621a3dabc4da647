"""`make bench-foundation`: a vision-language model beside the recipe and ResNet-18, and whether it looks at the films.

Each is trained, or asked as it is, on one split of phantoms and on one of the radiographs of patients, and tested on
what is held out; the vision-language model's answers are compared with those about other films, and with those of
networks from whose films the lungs were hidden in training and test.  --model: its folder; without one, the tiny one of
random weights that the tests use, which shows that everything runs and nothing about real models.
Exits with 2 where there are no radiographs of patients.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.datasets import data_folder
from benchmarks.provenance import circumstances, describe, provenance
from benchmarks.settings import RESULTS
from benchmarks.tiny_models import tiny_vlm
from engine.compare import compare
from engine.config import CompareConfig, CrossvalConfig, EvaluateConfig, Recipe, TrainConfig, VlmConfig
from engine.crossval.crossval import crossval
from engine.evaluate.evaluate import evaluate
from engine.evaluate.looking import Looking
from engine.evaluate.results import Metrics
from engine.statistics.estimates import Estimate
from engine.statistics.names import with_interval
from engine.train.state import Watch
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.output import share_text
from loaders.phantom.phantom import write_phantoms

SIZE, PATIENTS, EPOCHS, FOLD_EPOCHS, FOLDS = 64, 300, 20, 6, 2
STUDIES = ("phantoms", "patients")
OUT = RESULTS / "foundation.json"
TINY = "The vision-language model is a tiny one of random weights, which shows that all runs, and nothing of real ones"


def converted(study: str, folder: Path, data: Path | None) -> Path | None:
    """The betons of a study; None without radiographs of patients."""
    if study == "patients" and data is None:
        return None
    if study == "phantoms":
        manifest = write_phantoms(PhantomConfig(out=folder / "p", patients=PATIENTS, size=128))
    else:
        assert data is not None
        manifest = data / "radiographs.csv"
    catalog = CatalogConfig(manifest=manifest)
    convert(ConvertConfig(catalog=catalog, out=folder / "b", size=SIZE, holdout=0.2, site_key=folder / "site.key"))
    return folder / "b"


def measured(betons: Path, model: str, folder: Path, epochs: int) -> dict[str, Any]:
    """What became of each network, JSON-ready: scores, looks, and what is left of the AUC with the lungs hidden."""
    config = CompareConfig(
        data=betons, out=folder / "c", models=("cnn", "resnet18", model), recipe=Recipe(epochs=epochs, amp="off"),
        vlm=VlmConfig(tune="both"),
    )  # fmt: skip
    watch = Watch(begin=lambda name: print(f"  {name}", flush=True))
    networks: dict[str, Any] = {}
    for row, training in zip(compare(config, watch).networks, config.trainings().values(), strict=True):
        (found,) = evaluate(EvaluateConfig(run=training.out, betons=(betons / "heldout.beton",), device="cpu"))
        assert isinstance(found.metrics, Metrics) and row.training is not None
        networks[row.model] = {
            "f1": found.metrics.estimates["f1"],
            "auc": found.metrics.estimates["auc"],
            "trivial": found.metrics.trivial["accuracy"],
            "accuracy": found.metrics.estimates["accuracy"],
            "seconds": row.training.seconds,
            "looking": found.metrics.looking[0] if found.metrics.looking else None,
            "cautions": [one.code for one in found.metrics.cautions],
        }
        if training.model == model:
            networks[row.model]["folds"] = folds_of(betons, training, folder / f"x-{training.vlm.tune}", watch)
    return {"images": found.metrics.num_samples, "networks": msgspec.to_builtins(networks)}


def folds_of(betons: Path, training: TrainConfig, out: Path, watch: Watch) -> dict[str, Estimate]:
    """The AUC of networks of folds by patient, and of those from whose films the lungs were hidden."""
    recipe = replace(training.recipe, epochs=min(training.recipe.epochs, FOLD_EPOCHS))
    found = crossval(
        CrossvalConfig(
            data=betons, out=out, model=training.model, vlm=training.vlm, recipe=recipe, folds=FOLDS,
            splits=("group", "lungs-hidden"),
        ),
        watch,
    )  # fmt: skip
    return {one.target: one.auc.estimate for one in found.targets if one.auc.estimate.value is not None}


def foundation_lines(results: dict[str, dict[str, Any]]) -> str:
    """For docs/FOUNDATION.md: the networks side by side, and what becomes of answers when films are replaced."""
    stored = results.get("foundation.json")
    if not stored:
        return "Not measured."
    lines = []
    for study in STUDIES:
        if study not in stored["studies"]:
            continue
        found = stored["studies"][study]
        heads = (
            f"{study}, {found['images']} held out", "F1", "ROC-AUC", "folds: ROC-AUC", "lungs hidden",
            "other answers: another film", "grey", "log-odds: film, words", "seconds",
        )  # fmt: skip
        lines += [f"| {' | '.join(heads)} |"]
        lines += ["| --- |" + " --- |" * 8]
        lines += [f"| {name} | {' | '.join(cells_of(one))} |" for name, one in found["networks"].items()]
        lines += [""]
    facts = circumstances(stored["provenance"])
    made = f"{EPOCHS} epochs at most, {FOLD_EPOCHS} in folds; `make bench-foundation`"
    return "\n".join([*lines, f"{stored['model']}. {made}. {facts}"])


def cells_of(found: dict[str, Any]) -> list[str]:
    """A network's cells."""
    folds = found.get("folds", {})
    scores = [found["f1"], found["auc"], folds.get("group"), folds.get("lungs-hidden")]
    cells = [
        with_interval(metric, msgspec.convert(one, Estimate)) if one else "–"
        for metric, one in zip(("f1", "auc", "auc", "auc"), scores, strict=True)
    ]
    looks = ["–"] * 3
    if found["looking"]:
        looking = msgspec.convert(found["looking"], Looking)
        by = [looking.of("another film"), looking.of("grey picture")]
        looks = [share_text(one.changed.value) if one else "–" for one in by]
        looks.append(f"{looking.film_effect:.2g}, {looking.word_effect:.2g}")
    return [*cells, *looks, f"{found['seconds']:,.0f}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foundation", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a model; default: a tiny one of random weights")
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    data, facts = data_folder(), provenance()
    print(describe(facts))
    named = f"The vision-language model is {chosen.model.name}" if chosen.model else TINY
    stored: dict[str, Any] = {"provenance": facts, "model": named, "studies": {}}
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model or tiny_vlm(Path(folder) / "tiny-random-vl")
        for study in STUDIES:
            print(study, flush=True)
            (place := Path(folder) / study).mkdir()
            if betons := converted(study, place, data):
                stored["studies"][study] = measured(betons, f"vlm:{model}", place, EPOCHS)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(stored, indent=1) + "\n")
    print(foundation_lines({"foundation.json": stored}))
    return 0 if data else 2


if __name__ == "__main__":
    sys.exit(main())
