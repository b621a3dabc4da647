"""An evaluation: one named checkpoint, one forward pass a beton, and what may speak against the result."""

# N samples, K classes

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoint import file_hash, load_checkpoint, load_network
from engine.config import EvaluateConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.figures import confusion_figure
from engine.learning_sets import SYNTHETIC_CAUTION, source_caution
from engine.metrics import all_metrics
from engine.network import Cnn
from engine.run_folder import BEST
from engine.seen import hashes, load_seen, overlap, patients_compared
from engine.step import predict, softmax
from loaders import __version__
from loaders.atomic_file import locked, publish_bytes
from loaders.config import LoaderConfig
from loaders.errors import CheckpointError, ConfigError, InputError
from loaders.loader import Loader

NEEDED = ("classes", "positive", "crop", "stored", "fit", "dropout", "conversion_id", "epoch")  # of the weights' state
NOT_EXCLUDED = "leakage between patients is not excluded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result on one beton.  warnings: what speaks against it, in plain words."""

    beton: Path
    classes: tuple[str, ...]
    positive: str
    metrics: dict[str, Any]
    warnings: list[str]
    out: Path


def evaluate(
    config: EvaluateConfig, progress: Callable[[str, int, int], None] = lambda name, done, total: None
) -> list[Evaluation]:
    """Evaluate the best checkpoint of a run on betons; write metrics.json, confusion.png and scores.csv for each.

    Errors: CheckpointError for a run without weights; InputError for a beton of other classes or size, or one that
    shares images or patients with the training set (unless config.force); ConfigError; BetonError; StorageError.
    """
    names = [path.stem for path in config.betons]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"betons: found {', '.join(map(str, config.betons)) or 'none'}, expected at least one, of different names"
        )
    if not config.run.is_dir():
        raise ConfigError(f"{config.run}: not a folder, expected a run folder of `train`; check the path")
    checkpoint = config.run / BEST
    sha256 = file_hash(checkpoint)
    tensors, state = load_checkpoint(checkpoint, NEEDED)
    if file_hash(checkpoint) != sha256:
        raise CheckpointError(f"{checkpoint}: replaced while being read, expected it to stay; evaluate again")
    network = Cnn(len(state["classes"]), state["crop"], state["dropout"])
    load_network(network, tensors)
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    network = network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    identity = {
        "path": checkpoint.name,
        "sha256": sha256,
        "epoch": state["epoch"],
        "conversion_id": state["conversion_id"],
    }
    out = config.out or config.run / "evaluation"
    with contextlib.ExitStack() as stack:
        settings = LoaderConfig(
            batch_size=config.batch_size, threads=config.threads, trust_unverified=config.trust_unverified
        )
        loaders = [stack.enter_context(Loader(path, settings, tensors=True)) for path in config.betons]
        warnings = [check_beton(config, state, loader) for loader in loaders]  # all of them, before the first result
        stack.enter_context(locked(out))
        results = []
        for loader, cautions in zip(loaders, warnings, strict=True):
            name = loader.beton.path.stem
            result = evaluate_one(network, policy, loader, state, cautions, out / name, progress)
            publish_evaluation(result, identity, policy, loader)
            results.append(result)
        return results


def evaluate_one(
    network: Cnn,
    policy: Policy,
    loader: Loader,
    state: dict[str, Any],
    cautions: list[str],
    out: Path,
    progress: Callable[[str, int, int], None],
) -> Evaluation:
    """One forward pass over one beton, and its scores.csv."""
    done, total, name = 0, len(loader.beton), loader.beton.path.stem

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        progress(name, done, total)

    label_N, logits_NK = predict(network, loader, policy, count)
    probability_NK = softmax(logits_NK)
    classes = tuple(state["classes"])
    metrics = all_metrics(label_N, probability_NK, classes.index(state["positive"]))
    if metrics["auc"] is None:
        cautions = [*cautions, "only one class is present: the AUC is undefined"]
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["sample", "group", "label", "predicted", *(f"probability_{label}" for label in classes)])
    for sample, (label, row) in enumerate(zip(label_N, probability_NK, strict=True)):
        group = int(loader.beton.rows_N["group"][sample])
        table.writerow([sample, group, classes[label], classes[row.argmax()], *(f"{value:.6f}" for value in row)])
    publish_bytes(out / "scores.csv", text.getvalue().encode())
    return Evaluation(
        beton=loader.beton.path,
        classes=classes,
        positive=state["positive"],
        metrics=metrics,
        warnings=cautions,
        out=out,
    )


def publish_evaluation(result: Evaluation, identity: dict[str, Any], policy: Policy, loader: Loader) -> None:
    """Write metrics.json and confusion.png."""
    facts, metrics = loader.beton.facts, result.metrics
    content = {
        "beton": result.beton.name,
        "split": facts.split,
        "synthetic": facts.synthetic,
        "conversion_id": facts.conversion_id,
        "classes": list(result.classes),
        "positive": result.positive,
        **metrics,
        "warnings": result.warnings,
        "checkpoint": identity,
        "device": policy.describe(),
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }
    publish_bytes(result.out / "metrics.json", (json.dumps(content, indent=2) + "\n").encode())
    kind = "synthetic" if facts.synthetic else facts.split
    title = f"{result.beton.name} ({kind}), n = {metrics['num_samples']}, accuracy {metrics['accuracy']:.1%}"
    picture = confusion_figure(np.array(metrics["confusion"]), result.classes, title)
    publish_bytes(result.out / "confusion.png", picture)


def check_beton(config: EvaluateConfig, state: dict[str, Any], loader: Loader) -> list[str]:
    """What speaks against evaluating on this beton, in plain words.

    Errors: InputError for other classes or another size, or for an overlap with the training set unless forced.
    """
    beton, facts = loader.beton, loader.beton.facts
    if beton.verified and facts.classes != tuple(state["classes"]):
        raise InputError(
            f"{beton.path}: classes {', '.join(facts.classes)}, expected {', '.join(state['classes'])}; "
            "convert it with the --classes of the training set"
        )
    if (facts.crop, facts.stored) != (state["crop"], state["stored"]):
        raise InputError(
            f"{beton.path}: frames of {facts.stored} with crops of {facts.crop}, expected {state['stored']} with "
            f"{state['crop']}; convert it with --size {state['crop']}"
        )
    if beton.label_N.max() >= len(state["classes"]):
        raise InputError(f"{beton.path}: labels up to {beton.label_N.max()}, expected below {len(state['classes'])}")
    warnings = []
    if not beton.verified:
        return [f"the beton is unverified: overlap with the training set cannot be checked; {NOT_EXCLUDED}"]
    if facts.fit != state["fit"]:
        warnings.append(f"frames were fitted by {facts.fit}, in training by {state['fit']}")
    if facts.synthetic:
        warnings.append(SYNTHETIC_CAUTION)
    if caution := source_caution(beton):
        warnings.append(caution)
    seen, key_id = load_seen(config.run, state["conversion_id"])
    same_key = key_id == facts.site_key_id
    common = overlap(seen["train"], hashes(beton), same_key)
    if any(common.values()):
        found = f"{common['images']} images of the training set" + (
            f" and {common['patients']} images of its patients" if common["patients"] else ""
        )
        if not config.force:
            raise InputError(
                f"{beton.path}: holds {found}, expected none; choose a held-out beton, "
                "or pass --force to see a leaked score"
            )
        warnings.append(f"leaked: holds {found}; the score says nothing about new patients")
    chosen_on = overlap(seen["val"], hashes(beton), same_key)
    if any(chosen_on.values()):
        warnings.append(
            "holds validation images or patients, on which the checkpoint was chosen: the score is optimistic"
        )
    known = patients_compared(beton.rows_N["patient_hash"], same_key) and patients_compared(
        seen["train"]["patient_hash"], same_key
    )
    if not known:
        why = "the site keys differ" if not same_key else "patients are not known for every image"
        warnings.append(f"{why}: {NOT_EXCLUDED}")
    return warnings
