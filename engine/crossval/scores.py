"""The scores of one fold: what its network said of its test set, kept so that a finished fold is not made again."""

# N samples of the test set, K classes
# N samples, K classes

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.config import CrossvalConfig
from engine.crossval.folds import Pool, every_image_its_own_group
from engine.crossval.output import sentences
from engine.statistics.estimates import Estimate, estimates, paired_differences, trivial
from engine.statistics.metrics import confusion_matrix
from engine.train.run_folder import shared_settings
from loaders import __version__
from loaders.atomic_file import publish_bytes
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.errors import ConfigError

SCORES = "fold.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldScores:
    """One finished fold.  place_N: the test samples' places in the pool, int64.  probability_NK: float64."""

    identity: str
    """Conversion id of the fold's betons, which tells the pool, the split and who is where."""
    split: str
    number: int
    num_train: int
    num_val: int
    place_N: np.ndarray
    probability_NK: np.ndarray
    validation_f1: float
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float


def save_scores(folder: Path, scores: FoldScores) -> None:
    """Write fold.json.  Errors: StorageError."""
    content = asdict(scores)
    for name in ("place_N", "probability_NK"):
        content[name.split("_")[0]] = content.pop(name).tolist()  # JSON keeps every bit of a float
    publish_bytes(folder / SCORES, (json.dumps(content) + "\n").encode())


def load_scores(folder: Path, identity: str, test_N: np.ndarray, num_classes: int) -> FoldScores | None:
    """Read fold.json; None where the fold was not finished.  test_N: the places that it must tell of.

    Errors: ConfigError for a fold of other betons, or one that cannot be read.
    """
    path = folder / SCORES
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        place_N = np.array(content.pop("place"), np.int64)
        probability_NK = np.array(content.pop("probability"), np.float64)
        scores = FoldScores(place_N=place_N, probability_NK=probability_NK, **content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: damaged ({error}), expected the scores of a finished fold; remove it, and the fold is made again"
        ) from error
    if scores.identity != identity:
        raise ConfigError(
            f"{path}: the fold was made of other betons or samples, expected the same; bring the old betons back, "
            "or choose another --out"
        )
    wanted = (len(test_N), num_classes)
    if not (np.array_equal(place_N, test_N) and probability_NK.shape == wanted and np.isfinite(probability_NK).all()):
        raise ConfigError(
            f"{path}: damaged (scores of shape {probability_NK.shape} for {len(place_N)} samples), expected {wanted}, "
            "all finite, of the fold's own samples; remove it, and the fold is made again"
        )
    return scores


METRICS = ("f1", "auc", "accuracy")
ROWS = {"random": "random split", "group": "group split", "lungs-hidden": "lungs hidden"}
EXTERNAL = "external beton"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """Scores of some samples: labels and groups int64 (N,), probabilities float64 (N, K)."""

    label_N: np.ndarray
    group_N: np.ndarray
    probability_NK: np.ndarray
    positive: int

    def estimates(self, resamples: int) -> dict[str, Estimate]:
        """F1, AUC and accuracy with intervals over groups."""
        found = estimates(self.label_N, self.probability_NK, self.group_N, self.positive, resamples=resamples)
        return {name: found[name] for name in METRICS}

    def confusion(self) -> list[list[int]]:
        """Counts: rows are the true classes."""
        predicted_N = self.probability_NK.argmax(1)
        return confusion_matrix(self.label_N, predicted_N, self.probability_NK.shape[1]).tolist()

    @property
    def num_groups(self) -> int:
        """Groups that the samples are of."""
        return len(np.unique(self.group_N))


def account(
    config: CrossvalConfig,
    pool: Pool,
    found: dict[str, list[FoldScores]],
    external: Beton | None,
    outside: Sequence[np.ndarray],
    cautions: Sequence[Caution],
) -> dict[str, Any]:
    """The content of crossval.json.  outside: N×K, what each network of the group split says of the external beton."""
    classes, positive = pool.facts.classes, pool.positive
    folds, rows, pooled = [], [], {}
    for split, name in ROWS.items():
        if split not in found:
            rows.append(not_measured(name, f"run `crossval` with {split} among --splits"))
            continue
        tested = [of_fold(pool, scores) for scores in found[split]]
        told = [one.estimates(config.resamples) for one in tested]
        folds += [
            fold_entry(split, scores, one, said) for scores, one, said in zip(found[split], tested, told, strict=True)
        ]
        pooled[split] = pooled_scores(pool, found[split])
        rows.append(table_row(name, pooled[split], told, config.resamples))
    if external is None:
        rows.append(not_measured(EXTERNAL, "run `crossval` with --external X.beton, a beton of another conversion"))
    else:
        group_N = external.rows_N["group"].astype(np.int64)
        each = [
            Tested(label_N=external.label_N, group_N=group_N, probability_NK=said, positive=positive)
            for said in outside
        ]
        mean = Tested(
            label_N=external.label_N, group_N=group_N, probability_NK=np.mean(outside, axis=0), positive=positive
        )
        rows.append(table_row(EXTERNAL, mean, [one.estimates(config.resamples) for one in each], config.resamples))
    content: dict[str, Any] = {
        "classes": list(classes),
        "positive": pool.facts.positive,
        "n": len(pool.label_N),
        "groups": len(np.unique(pool.group_N)),
        "class_counts": np.bincount(pool.label_N, minlength=len(classes)).tolist(),
        "every_image_its_own_group": every_image_its_own_group(pool.group_N),
        "synthetic": pool.facts.synthetic,
        "conversion_id": pool.facts.conversion_id,
        "external": None if external is None else external.path.name,
        "rows": rows,
        **guesses(pool),
        "differences": differences(pool, pooled, config.resamples),
        "folds": folds,
        "cautions": msgspec.to_builtins(cautions),
        "settings": shared_settings(config),
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }
    return content | {"sentences": sentences(content)}


def guesses(pool: Pool) -> dict[str, Any]:
    """The classifier that always says the largest class; for two classes also that of the positive one, for its F1."""
    classes, positive = pool.facts.classes, pool.positive
    largest = trivial(pool.label_N, len(classes), positive)
    share = float((pool.label_N == positive).mean())
    always = {"class": pool.facts.positive, "f1": 2 * share / (1 + share), "auc": 0.5, "accuracy": share}
    return {
        "trivial": {
            "class": classes[int(np.bincount(pool.label_N).argmax())],
            **{name: largest[name].value for name in METRICS},
        },
        "always_positive": always if len(classes) == 2 else None,
    }


def of_fold(pool: Pool, scores: FoldScores) -> Tested:
    """A fold's own test set."""
    place_N = scores.place_N
    return Tested(
        label_N=pool.label_N[place_N],
        group_N=pool.group_N[place_N],
        probability_NK=scores.probability_NK,
        positive=pool.positive,
    )


def pooled_scores(pool: Pool, folds: Sequence[FoldScores]) -> Tested:
    """Every sample of the pool in its order, by the network that had not seen it."""
    probability_NK = np.full((len(pool.label_N), len(pool.facts.classes)), np.nan)
    for scores in folds:
        probability_NK[scores.place_N] = scores.probability_NK
    return Tested(
        label_N=pool.label_N, group_N=pool.group_N, probability_NK=probability_NK, positive=pool.positive
    )  # fmt: skip


def table_row(name: str, tested: Tested, told: Sequence[dict[str, Estimate]], resamples: int) -> dict[str, Any]:
    """One measured row.  told: the estimates of each network alone, for mean and spread (standard deviation)."""
    row: dict[str, Any] = {"name": name, "n": len(tested.label_N), "groups": tested.num_groups, "why": ""}
    for metric, found in tested.estimates(resamples).items():
        values = [said[metric].value for said in told]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if known else None
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
        row[metric] = asdict(found) | {"mean": mean, "spread": spread, "folds": values}
    row |= {"mean": row["f1"]["mean"], "spread": row["f1"]["spread"], "confusion": tested.confusion()}
    return row


def not_measured(name: str, remedy: str) -> dict[str, Any]:
    """A row without numbers."""
    nothing = dict.fromkeys(("n", "groups", *METRICS, "mean", "spread", "confusion"))
    return {"name": name, **nothing, "why": f"not measured: {remedy}"}


def fold_entry(split: str, scores: FoldScores, tested: Tested, told: dict[str, Estimate]) -> dict[str, Any]:
    """One fold as crossval.json has it."""
    return {
        "split": split,
        "fold": scores.number,
        "n": len(tested.label_N),
        "groups": tested.num_groups,
        "training": scores.num_train,
        "validation": scores.num_val,
        "confusion": tested.confusion(),
        "estimates": {name: asdict(found) for name, found in told.items()},
        "validation_f1": scores.validation_f1,
        "epochs": scores.epochs,
        "best_epoch": scores.best_epoch,
        "stopped": scores.stopped,
    }


def differences(pool: Pool, pooled: dict[str, Tested], resamples: int) -> dict[str, Any]:
    """Each other split minus the group split, on the same samples."""
    if "group" not in pooled:
        return {}
    result = {}
    for split in ("random", "lungs-hidden"):
        if split in pooled:
            first, second = pooled["group"].probability_NK, pooled[split].probability_NK
            found = paired_differences(
                pool.label_N, first, second, pool.group_N, pool.positive, resamples=resamples
            )  # fmt: skip
            result[ROWS[split]] = {name: asdict(found[name]) for name in METRICS}
    return result


def scores_csv(
    pool: Pool, found: dict[str, list[FoldScores]], external: Beton | None, outside: Sequence[np.ndarray]
) -> bytes:
    """crossval.csv: each sample's scores by the network that had not seen it; the external beton's, all networks' mean.

    beton: the file's name without its ending; sample: the place in it.
    """
    classes = pool.facts.classes
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            "split",
            "fold",
            "beton",
            "sample",
            "group",
            "label",
            "predicted",
            *(f"probability_{name}" for name in classes),
        ]
    )

    def write(split: str, fold: int | str, origin: tuple[str, int], group: int, label: int, said_K: np.ndarray) -> None:
        cells = (f"{value:.6f}" for value in said_K)
        table.writerow([split, fold, *origin, group, classes[label], classes[said_K.argmax()], *cells])

    group_N = np.concatenate([beton.rows_N["group"] for beton in pool.betons])  # as the betons tell it
    for split in ROWS:
        for scores in found.get(split, []):
            for place, said_K in zip(scores.place_N.tolist(), scores.probability_NK, strict=True):
                write(split, scores.number, pool.origin(place), int(group_N[place]), int(pool.label_N[place]), said_K)
    if external is not None:
        for sample, said_K in enumerate(np.mean(outside, axis=0)):
            group, label = int(external.rows_N["group"][sample]), int(external.label_N[sample])
            write("external", "mean", (external.path.stem, sample), group, label, said_K)
    return text.getvalue().encode()
