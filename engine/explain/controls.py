"""Controls: whether the maps depend on what the network learnt, and whether what they point at matters to it."""

# N samples, H W rows and columns, K classes, P steps of a curve

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from engine.explain.cam import BATCH, Method, evidence, upsample
from engine.explain.lungs import group_interval
from engine.statistics.estimates import Estimate
from loaders.cautions import Caution, caution
from loaders.records import Count, Record
from loaders.statistics import Progress, no_progress

# Mean rank correlation of a map with that of the network with random weights. Of five trained networks it was -0.04 to
# 0.07 for HiResCAM and -0.21 to 0.16 for GradCAM; of a network with itself it is 1.
MOST_CORRELATION = 0.3
REDRAWN = 3  # networks with random weights
STEPS = 10  # of the deletion curve
RANDOM_ORDERS = 2


class Randomised(Record, frozen=True, kw_only=True):
    """The map of each picture beside that from random weights: mean Spearman correlation; None where undefined.

    num_empty: pictures left out since their map, or each from random weights, is of one value.
    """

    correlation: float | None
    num_samples: Count
    num_empty: Count

    @property
    def failure(self) -> Caution | None:
        """Why the maps are not believed; None where they depend on the weights."""
        if self.correlation is None:
            return caution("maps-not-comparable")
        return None if abs(self.correlation) < MOST_CORRELATION else caution("maps-of-random-weights")


class Deletion(Record, frozen=True, kw_only=True):
    """Mean probability of the predicted class as a rising share of the pixels is blanked.

    by_map, at_random: in order of the map, and in random order.  difference: of the areas, map less random.
    """

    share: list[float]
    by_map: list[float]
    at_random: list[float]
    difference: Estimate
    num_samples: Count

    @property
    def area_by_map(self) -> float:
        """Area under the curve in order of the map, from 0 to 1."""
        return float(np.trapezoid(self.by_map, self.share))

    @property
    def area_at_random(self) -> float:
        """Area under the curve in random order."""
        return float(np.trapezoid(self.at_random, self.share))

    @property
    def failure(self) -> Caution | None:
        """Why the maps are not believed; None where the probability falls faster in order of the map, beyond chance."""
        high = self.difference.high
        return None if high is not None and high < 0 else caution("deletion-not-faster")


def randomised(
    network: nn.Module,
    redraw: Callable[[], nn.Module],
    frames_N1HW: torch.Tensor,
    target_N: np.ndarray,
    *,
    method: Method,
    reference_N1HW: torch.Tensor,
    seed: int,
    progress: Progress = no_progress,
) -> Randomised:
    """Compare maps with those from networks of the same kind with fresh random weights (Adebayo et al. 2018).

    redraw: makes one, its weights from torch's generator, which is as before afterwards.
    """
    evidence_of = partial(evidence, method=method, reference_N1HW=reference_N1HW)
    trained_NHW = evidence_of(network, frames_N1HW, target_N).clip(0)
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for done in range(REDRAWN):
            random_NHW = evidence_of(redraw().to(frames_N1HW.device), frames_N1HW, target_N).clip(0)
            found.append([rank_correlation(a, b) for a, b in zip(trained_NHW, random_NHW, strict=True)])
            progress(done + 1, REDRAWN)
    known_RN = np.isfinite(found)
    num_known = int(known_RN.any(0).sum())
    return Randomised(
        correlation=float(np.mean(np.array(found)[known_RN])) if num_known else None,
        num_samples=num_known,
        num_empty=len(target_N) - num_known,
    )


def rank_correlation(first_HW: np.ndarray, second_HW: np.ndarray) -> float:
    """Spearman's; NaN for a map of one value.  Ties take their mean rank."""
    if np.ptp(first_HW) == 0 or np.ptp(second_HW) == 0:
        return float("nan")
    return float(spearmanr(first_HW, second_HW, axis=None).statistic)


def deletion(
    network: nn.Module,
    frames_N1HW: torch.Tensor,
    cam_NHW: np.ndarray,
    target_N: np.ndarray,
    group_N: np.ndarray,
    fill_HW: np.ndarray,
    *,
    cells: Sequence[int],
    seed: int,
    progress: Progress = no_progress,
) -> Deletion:
    """Blank the pixels of each picture in order of its map, and in random order; the maps come from `cam`.

    fill_HW: what blanked pixels show, the average picture.  cells: rows and columns of the maps before they were
    upsampled.  Random orders come from random maps of as many cells, upsampled alike: pixels strewn one by one would
    spoil the texture, which is another test.  Probabilities are the network's own, without temperature.
    Source: Petsiuk et al. 2018.
    """
    num_samples, rows, columns = cam_NHW.shape
    rng = np.random.default_rng(seed)
    random = [upsample(rng.random((num_samples, *cells), np.float32), rows, columns) for _ in range(RANDOM_ORDERS)]
    fill_1HW = torch.from_numpy(fill_HW)[None].to(frames_N1HW.device)
    curves = []
    for done, order_NHW in enumerate((cam_NHW, *random)):
        curves.append(blanking_curve(network, frames_N1HW, order_NHW, target_N, fill_1HW, rng))
        progress(done + 1, 1 + RANDOM_ORDERS)
    share_P = np.linspace(0, 1, STEPS + 1)
    cam_NP, random_NP = curves[0], np.mean(curves[1:], axis=0)
    gap_N = np.trapezoid(cam_NP - random_NP, share_P, axis=1)
    return Deletion(
        share=share_P.tolist(),
        by_map=cam_NP.mean(0).tolist(),
        at_random=random_NP.mean(0).tolist(),
        difference=group_interval(gap_N, group_N, seed),
        num_samples=num_samples,
    )


@torch.no_grad()
def blanking_curve(
    network: nn.Module,
    frames_N1HW: torch.Tensor,
    order_NHW: np.ndarray,
    target_N: np.ndarray,
    fill_1HW: torch.Tensor,
    rng: np.random.Generator,
) -> np.ndarray:
    """Probability of the target after 0, 1/STEPS … all of the pixels, highest in the order first: float64 N×P."""
    network.eval()
    pixels = order_NHW[0].size
    tied_NHW = order_NHW.reshape(len(order_NHW), -1) + 1e-6 * rng.random((len(order_NHW), pixels))  # ties at random
    rank_NM = np.argsort(np.argsort(-tied_NHW, 1), 1)
    rank_N1HW = torch.from_numpy(rank_NM).view(-1, 1, *order_NHW.shape[1:]).to(frames_N1HW.device)
    target_N1 = torch.from_numpy(target_N)[:, None].to(frames_N1HW.device)
    curve = []
    for step in range(STEPS + 1):
        blank_N1HW = torch.where(rank_N1HW < round(step / STEPS * pixels), fill_1HW, frames_N1HW)
        logits_NK = torch.cat([network(part_N1HW) for part_N1HW in blank_N1HW.split(BATCH)])
        curve.append(logits_NK.double().softmax(1).gather(1, target_N1)[:, 0].cpu().numpy())
    return np.stack(curve, 1)
