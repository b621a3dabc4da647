"""Whether a network looks: how much its answers change when the film is another patient's, grey, or without lungs."""

# N films, S side of the stored frame, W wordings, P prompts, K classes or findings, H W rows and columns of the crop

import contextlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import nn

from engine.device import Policy
from engine.evaluate.trained import Trained, predict_by_wording
from engine.statistics.estimates import UNDEFINED, Estimate, estimates
from engine.statistics.findings import FindingsTest, measure_findings
from engine.train.step import check_logits, to_device
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.images.frame import LUNG_MARGIN, template_SS
from loaders.images.regions import MID_GREY
from loaders.records import Count, Record
from loaders.statistics import Progress, percentile_interval, resampled_means, wilson

Change = Literal["another film", "grey picture", "lungs hidden"]
MOST_HIDDEN = 200  # films that are shown once more with their lungs hidden
# of the log-odds, mean over films: less is none, and so is a small part of what another wording changes
LEAST_EFFECT, LEAST_SHARE = 0.001, 0.02
BATCH = 16


class Replaced(Record, frozen=True, kw_only=True):
    """What becomes of answers when the film is replaced.

    changed: share of films whose predicted class, or of which the presence of a finding, is another one.
    mean_change: of a probability, the largest difference of any class, or the mean over findings.
    """

    by: Change
    num_films: Count
    changed: Estimate
    mean_change: Estimate


class Looking(Record, frozen=True, kw_only=True):
    """Whether a run looks at the films of a set.  run: its name.  num_wordings: 1 for a network that is asked nothing.

    spread: mean over films of how far the probability of a single wording lies from that of all of them, on average;
    None for one wording.  film_effect: mean change of the log-odds, before temperature and bias, by another patient's
    film; word_effect: by another wording; None where there is no other.  auc: of the films as they are, and hidden_auc
    with the lungs hidden; of findings means.
    """

    run: str
    num_wordings: Count
    replaced: list[Replaced]
    spread: float | None
    film_effect: float | None
    word_effect: float | None
    auc: Estimate
    hidden_auc: Estimate

    def of(self, by: Change) -> Replaced | None:
        """One of the replacements."""
        return next((found for found in self.replaced if found.by == by), None)


# ---- scores by wording


@torch.inference_mode()
def scores_by_wording(
    network: nn.Module, loader: Loader, policy: Policy, progress: Callable[[int], None] = lambda samples: None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a set, as of `predict`, and logits of each wording, float32 (N, W, K); one for other networks."""
    label_parts, parts = [], []
    with contextlib.closing(iter(loader)) as batches:  # type: ignore[type-var]
        for frames_N1HW, labels_N, _ in batches:
            label_parts.append(labels_N.numpy())
            parts.append(predict_by_wording(network, to_device(frames_N1HW, policy), policy))
            progress(len(labels_N))
    scores_NWK = np.concatenate(parts)
    check_logits(loader, scores_NWK)
    return np.concatenate(label_parts), scores_NWK


# ---- what is measured of them


def measure_looking(
    trained: Trained,
    beton: Beton,
    policy: Policy,
    scores_NWK: np.ndarray,
    kept_N: np.ndarray,
    labels: np.ndarray,
    group_N: np.ndarray,
    *,
    resamples: int,
    seed: int,
    progress: Progress,
) -> Looking:
    """How much a run looks at the films of a set.

    scores_NWK, labels, group_N: of the films that are scored.  kept_N: their places in the beton.
    """
    rule = trained.rule
    probability_NK = rule.probabilities(scores_NWK.mean(1))
    rng = np.random.default_rng(seed)
    hidden_N = np.sort(rng.permutation(len(kept_N))[:MOST_HIDDEN])
    replaced = []

    def add(by: Change, before_NK: np.ndarray, after_NK: np.ndarray, of_N: np.ndarray) -> None:
        changed_N = (answers(trained, before_NK) != answers(trained, after_NK)).astype(np.float64)
        apart_NK = np.abs(before_NK - after_NK)
        by_finding = trained.task == "findings"
        replaced.append(
            Replaced(
                by=by,
                num_films=len(of_N),
                changed=mean_estimate(changed_N.mean(1) if by_finding else changed_N, group_N[of_N], resamples, seed),
                mean_change=mean_estimate(
                    apart_NK.mean(1) if by_finding else apart_NK.max(1), group_N[of_N], resamples, seed
                ),
            )
        )

    giver_N = other_films(group_N, rng)
    has_other = bool((giver_N >= 0).all())
    if has_other:
        add("another film", probability_NK, probability_NK[giver_N], np.arange(len(kept_N)))
    grey_SS = np.full((trained.state["stored"],) * 2, MID_GREY, np.uint8)
    grey_1K = trained.probabilities(grey_SS.reshape(-1), np.zeros(1, np.int64), policy)
    add("grey picture", probability_NK, np.repeat(grey_1K, len(kept_N), 0), np.arange(len(kept_N)))
    hidden_auc = UNDEFINED
    if trained.lungs == "off":
        found = []
        region_SS = template_SS(trained.state["stored"], LUNG_MARGIN)
        for start in range(0, len(hidden_N), BATCH):
            places = kept_N[hidden_N[start : start + BATCH]]
            frames_NSS = np.stack(
                [np.where(region_SS, np.uint8(MID_GREY), beton.frame(int(place))) for place in places]
            )
            offset_N = np.arange(len(places), dtype=np.int64) * region_SS.size
            found.append(trained.probabilities(frames_NSS.reshape(-1), offset_N, policy))
            progress(start + len(places), len(hidden_N))
        after_NK = np.concatenate(found)
        add("lungs hidden", probability_NK[hidden_N], after_NK, hidden_N)
        hidden_auc = auc(trained, labels[hidden_N], after_NK, group_N[hidden_N], resamples, seed)
    by_wording_NWK = np.stack([rule.probabilities(one_NK) for one_NK in scores_NWK.swapaxes(0, 1)], 1)
    several = scores_NWK.shape[1] > 1
    odds_NWK = scores_NWK.astype(np.float64)
    if trained.task == "classes":
        odds_NWK -= odds_NWK.mean(2, keepdims=True)
    odds_NK = odds_NWK.mean(1)
    return Looking(
        run=trained.run.resolve().name,
        num_wordings=scores_NWK.shape[1],
        replaced=replaced,
        spread=distance(trained, by_wording_NWK, probability_NK[:, None]) if several else None,
        film_effect=distance(trained, odds_NK[giver_N], odds_NK) if has_other else None,
        word_effect=distance(trained, odds_NWK, np.roll(odds_NWK, 1, 1)) if several else None,
        auc=auc(trained, labels, probability_NK, group_N, resamples, seed),
        hidden_auc=hidden_auc,
    )


def answers(trained: Trained, probability_NK: np.ndarray) -> np.ndarray:
    """The predicted class, int64 (N,); of findings whether each is present, bool (N, K)."""
    if trained.task != "findings":
        return probability_NK.argmax(1)
    return probability_NK >= np.nan_to_num(trained.findings.threshold_K, nan=0.5)


def distance(trained: Trained, one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of (..., K): the largest of any class, or the mean over findings."""
    apart = np.abs(one - other)
    return float((apart.mean(-1) if trained.task == "findings" else apart.max(-1)).mean())


def other_films(group_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each film another patient's, by its place; -1 where all are of one patient.  Drawn anew until all differ."""
    if len(np.unique(group_N)) < 2:
        return np.full(len(group_N), -1)
    giver_N = rng.permutation(len(group_N))
    while (same_N := np.flatnonzero(group_N[giver_N] == group_N)).size:
        giver_N[same_N] = rng.integers(len(group_N), size=same_N.size)
    return giver_N


def mean_estimate(value_N: np.ndarray, group_N: np.ndarray, resamples: int, seed: int) -> Estimate:
    """A mean over films, with its interval over resamples of groups; Wilson's of so many groups where none differs."""
    value = float(value_N.mean())
    num_groups = len(np.unique(group_N))
    if num_groups < 2:
        return Estimate(value=value, low=None, high=None, method="")
    if value in (0.0, 1.0):
        low, high = wilson(round(value * num_groups), num_groups)
        return Estimate(value=value, low=low, high=high, method="wilson")
    low, high = percentile_interval(resampled_means(value_N, group_N, resamples, seed))
    return Estimate(value=value, low=low, high=high, method="bootstrap")


def auc(
    trained: Trained, labels: np.ndarray, probability_NK: np.ndarray, group_N: np.ndarray, resamples: int, seed: int
) -> Estimate:
    """The AUC as an evaluation has it; of findings the mean over those that are measured."""
    if trained.task == "findings":
        test = FindingsTest(
            finding_NK=labels, probability_NK=probability_NK, group_N=group_N, threshold=trained.findings.threshold_K
        )
        return measure_findings([test], resamples=resamples, seed=seed).macro().get("auc", UNDEFINED)
    positive = trained.classes.index(trained.state["positive"])
    return estimates(labels, probability_NK, group_N, positive, resamples=resamples, seed=seed).get("auc", UNDEFINED)


def looking_cautions(found: Looking) -> list[Caution]:
    """That a network does not look, or that it reads more than it looks.

    An AUC cannot tell: with films exchanged it is near 0.5 for all.  So the log-odds are compared: what another
    patient's film changes of them, on average, with what another wording of the question changes.
    """
    film, words = found.film_effect, found.word_effect
    if film is None:
        return []
    if film <= max(LEAST_EFFECT, LEAST_SHARE * (words or 0.0)):
        return [caution("does-not-look", film=float(f"{film:.2g}"), words=float(f"{words or 0.0:.2g}"))]
    if words is not None and film <= words:
        return [caution("words-over-film", film=float(f"{film:.2g}"), words=float(f"{words:.2g}"))]
    return []
