"""The networks of a hurdles run: trained fold by fold, and what each predicts at home and away, kept in its folder."""

# N samples, K classes or findings

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.config import HurdlesConfig
from engine.crossval.crossval import tidy, train_fold
from engine.crossval.folds import Fold, Pool
from engine.device import choose_policy, settle_precision
from engine.evaluate.trained import Trained, load_trained
from engine.train.state import Watch
from engine.train.step import predict
from loaders.batches.loader import Loader
from loaders.beton.format import Facts
from loaders.beton.writer import subset_id
from loaders.config import LoaderConfig
from loaders.errors import ConfigError, IntegrityError
from loaders.records import Count, Record, read_record, write_record

NETWORK, AWAY = "network.json", "away"
POINT = "youden"  # the operating point that sensitivity and specificity are of


class NetworkScores(Record, frozen=True, kw_only=True):
    """One network, and what it predicts at home: network.json.

    identity: conversion id of the fold's betons.  repeat: which seed, from 0.  threshold: of the operating point POINT;
    None for more than two classes, or where validation gives none.  Of findings temperature and threshold of each.
    place: the test samples' places in the row's pool.  probability: calibrated, N×K.  sha256: of the weights.
    """

    made_by = "hurdles"
    version: int = 1
    identity: str
    repeat: Count
    fold: Count
    sha256: str
    temperature: float | list[float]
    threshold: float | list[float | None] | None
    epochs: Count
    best_epoch: Count
    place: list[Count]
    probability: list[list[float]]


class AwayScores(Record, frozen=True, kw_only=True):
    """What one network predicts of all samples of another collection, in order.  sha256: of its weights."""

    made_by = "hurdles"
    version: int = 1
    identity: str
    sha256: str
    probability: list[list[float]]


def network_folder(networks: Path, row: str, repeat: int, fold: int) -> Path:
    """The folder of a network.  row: the identity of what its row is trained on."""
    return networks / row[:12] / f"seed-{repeat}-fold-{fold}"


def fold_identity(pool: Pool, fold: Fold, repeat: int) -> str:
    """The conversion id of a fold's betons."""
    name = f"hurdles {repeat} {fold.number}"
    return subset_id(pool.betons[0], name, fold.train_N, fold.val_N, fold.test_N)


def finished(folder: Path, identity: str, fold: Fold, facts: Facts) -> NetworkScores | None:
    """A network that was trained and tested at home; None where that is still to be done.

    Errors: ConfigError for one of other betons; IntegrityError for a damaged file; StorageError.
    """
    path = folder / NETWORK
    if not path.is_file():
        return None
    scores = read_record(NetworkScores, path)
    if scores.identity != identity:
        raise ConfigError(
            f"{path}: the network was trained on other betons or samples, expected the same; bring the old betons "
            "back, or choose another --out"
        )
    num_classes = len(facts.classes)
    check_shape(path, scores.probability, len(fold.test_N), num_classes)
    rules = [len(one) if isinstance(one, list) else 0 for one in (scores.temperature, scores.threshold)]
    if rules != [num_classes if facts.task == "findings" else 0] * 2:
        raise IntegrityError(
            f"{path}: temperatures and thresholds of {max(rules)} findings, expected those of the row's {facts.task}; "
            f"remove {folder}, and run `hurdles` again"
        )
    if scores.place != fold.test_N.tolist():
        raise IntegrityError(
            f"{path}: scores of other samples, expected the fold's own {len(fold.test_N)}; remove {folder}, and run "
            "`hurdles` again"
        )
    return scores


def check_shape(path: Path, probability: Sequence[Sequence[float]], num_samples: int, num_classes: int) -> None:
    """Errors: IntegrityError for probabilities of other samples or classes."""
    if [len(row) for row in probability] != [num_classes] * num_samples:
        raise IntegrityError(
            f"{path}: {len(probability)} scores, expected {num_classes} for each of {num_samples} samples; remove "
            f"{path.parent}, and run `hurdles` again"
        )


def train_network(
    config: HurdlesConfig, pool: Pool, fold: Fold, repeat: int, folder: Path, watch: Watch
) -> NetworkScores:
    """Train one fold and test it at home, unless that has been done.

    Errors: as of `finished`; Interrupted, and whatever `train` raises.
    """
    identity = fold_identity(pool, fold, repeat)
    if done := finished(folder, identity, fold, pool.facts):
        tidy(folder, keep=False)
        return done
    watch.check_stop()
    training = config.training(folder, repeat)
    summary = train_fold(pool, fold, training, identity, watch)
    trained = load_trained(training.out)
    temperature, threshold = rule_of(trained)
    scores = NetworkScores(
        identity=identity,
        repeat=repeat,
        fold=fold.number,
        sha256=trained.sha256,
        temperature=temperature,
        threshold=threshold,
        epochs=summary.epochs,
        best_epoch=summary.best_epoch,
        place=fold.test_N.tolist(),
        probability=probabilities(config, trained, [folder / "heldout.beton"], watch).tolist(),
    )
    write_record(folder / NETWORK, scores)
    tidy(folder, keep=False)
    return scores


def rule_of(trained: Trained) -> tuple[float | list[float], float | list[float | None] | None]:
    """Temperature and threshold as a network's scores have them."""
    if trained.task == "findings":
        decisions = trained.findings.by_finding
        return [one.temperature for one in decisions], [one.point(POINT).threshold for one in decisions]
    two = len(trained.classes) == 2
    return trained.decision.temperature, trained.decision.point(POINT).threshold if two else None


def predict_away(
    config: HurdlesConfig, network: NetworkScores, folder: Path, pool: Pool, identity: str, watch: Watch
) -> np.ndarray:
    """What a network predicts of another collection, float64 (N, K); kept, and never computed twice.

    identity: of the collection's samples.
    Errors: IntegrityError for a damaged file; CheckpointError for lost weights; Interrupted; StorageError.
    """
    path, num_classes = folder / AWAY / f"{identity[:12]}.json", len(pool.facts.classes)
    if path.is_file():
        scores = read_record(AwayScores, path)
        if (scores.identity, scores.sha256) == (identity, network.sha256):
            check_shape(path, scores.probability, len(pool.labels), num_classes)
            return np.array(scores.probability).reshape(-1, num_classes)
    watch.check_stop()
    trained = load_trained(folder / "run")
    if trained.sha256 != network.sha256:
        raise IntegrityError(
            f"{trained.run}: other weights than those that were tested at home, expected SHA-256 {network.sha256}; "
            f"remove {folder}, and run `hurdles` again"
        )
    probability_NK = probabilities(config, trained, [beton.path for beton in pool.betons], watch)
    path.parent.mkdir(exist_ok=True)
    write_record(path, AwayScores(identity=identity, sha256=network.sha256, probability=probability_NK.tolist()))
    return probability_NK


def probabilities(config: HurdlesConfig, trained: Trained, betons: Sequence[Path], watch: Watch) -> np.ndarray:
    """Calibrated probabilities of the samples of betons one after the other, float64 (N, K).  Errors: Interrupted."""
    policy = choose_policy(config.recipe.device, "off", "off", 0)
    settle_precision(policy)
    network = trained.network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    settings, found = LoaderConfig(batch_size=config.loader.batch_size, threads=config.loader.threads), []
    for path in betons:
        with Loader(path, settings, tensors=True) as loader:
            _, logits_NK = predict(network, loader, policy, lambda samples: watch.check_stop())
            found.append(trained.rule.probabilities(logits_NK))
    return np.concatenate(found)
