"""Calibration: temperature, reliability diagram, and the slope and intercept of a logistic recalibration."""

# N samples, K classes, B bins, P coefficients

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logsumexp, softmax

from engine.statistics.metrics import ratio

BINS = 10  # equally wide, on 0 to 1
TEMPERATURES = (0.5, 20.0)  # bounds: a validation without an error would sharpen without end
# the same where a bias is fitted as well: scores of answers may differ by thousandths, or by hundreds
ANSWER_TEMPERATURES = (1e-3, 1e3)
MOST_BIAS = 50.0
LEAST_PROBABILITY = 1e-7  # a probability of 0 or 1 has no logit; float32 knows nothing finer next to 1
STEPS = 50
TOLERANCE = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Bins equally wide on 0 to 1: samples, mean predicted probability and observed frequency, float64 B each.

    The latter two are NaN in an empty bin.
    """

    count_B: np.ndarray
    score_B: np.ndarray
    share_B: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalibration:
    """P(event) = sigmoid(constant + slope · logit), and sigmoid(large + logit); NaN where the data do not settle it."""

    constant: float
    slope: float
    large: float


def fit_temperature(logits_NK: np.ndarray, label_N: np.ndarray) -> float:
    """The temperature T within TEMPERATURES of softmax(logits / T) that has the least mean NLL.

    Meant for validation.  Where every sample is classified correctly the NLL falls without end as T falls, and the
    answer is the lower bound; of logits that predict nothing, or the opposite, it is the upper one; without samples, or
    where all logits are equal, 1.  The NLL is convex in 1 / T: its slope has one zero.  Source: Guo et al. 2017.
    """
    logits_NK = logits_NK.astype(np.float64)
    excess_NK = logits_NK - np.take_along_axis(logits_NK, label_N[:, None], 1)  # over the true class's logit
    if not excess_NK.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Derivative of the summed NLL by 1 / T."""
        shifted_NK = inverse * (excess_NK - excess_NK.max(1, keepdims=True))
        weight_NK = np.exp(shifted_NK)
        return float((weight_NK * excess_NK).sum(1) @ (1 / weight_NK.sum(1)))

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return 1 / brentq(slope, low, high, xtol=1e-15)


def fit_answers(logits_NK: np.ndarray, label_N: np.ndarray) -> tuple[float, np.ndarray]:
    """The temperature T within ANSWER_TEMPERATURES and the bias of softmax(logits / T + bias) with the least mean NLL.

    Meant for the validation scores of answers in words, whose sums depend on how long and how common the words are.
    bias: float64 (K,), its mean 0, within MOST_BIAS.  Without samples both are 1 and 0; where no logit tells
    samples apart T is at its bound, and the bias gives the classes' shares.  The NLL is convex in 1 / T and the bias.
    Sources: Platt 1999 (two classes); Guo et al. 2017; Zhao et al. 2021, who take the bias from an empty input.
    """
    logits_NK = logits_NK.astype(np.float64)
    num_samples, num_classes = logits_NK.shape
    if not num_samples:
        return 1.0, np.zeros(num_classes)
    centre_K = logits_NK.mean(0)
    centred_NK = logits_NK - centre_K  # so that scale and bias hardly depend on one another
    spread = max(float(centred_NK.std()), 1e-12)
    is_label_NK = np.eye(num_classes)[label_N]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean NLL, and its gradient; values: scale of the standardised logits, and bias."""
        shifted_NK = values[0] * centred_NK / spread + values[1:]
        probability_NK = softmax(shifted_NK, axis=1)
        excess_NK = (probability_NK - is_label_NK) / num_samples
        nll = float((logsumexp(shifted_NK, axis=1) - (shifted_NK * is_label_NK).sum(1)).mean())
        return nll, np.array([(excess_NK * centred_NK / spread).sum(), *excess_NK.sum(0)])

    bounds = [(spread / ANSWER_TEMPERATURES[1], spread / ANSWER_TEMPERATURES[0])]
    found = minimize(
        loss, np.array([bounds[0][0], *np.zeros(num_classes)]), jac=True, method="L-BFGS-B",
        bounds=bounds + [(-MOST_BIAS, MOST_BIAS)] * num_classes, options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    temperature = float(np.clip(spread / found.x[0], *ANSWER_TEMPERATURES))
    bias_K = found.x[1:] - centre_K / temperature
    return temperature, bias_K - bias_K.mean()


def scored_event(label_N: np.ndarray, probability_NK: np.ndarray, positive: int) -> tuple[np.ndarray, np.ndarray]:
    """The event of ECE and reliability diagram: its predicted probability, float N, and whether it happened, bool N.

    Of two classes the event is the positive class; of more, that the most probable class is the true one.
    """
    if probability_NK.shape[1] == 2:
        return probability_NK[:, positive], label_N == positive
    return probability_NK.max(1), label_N == probability_NK.argmax(1)


def bin_of(score_N: np.ndarray) -> np.ndarray:
    """The bin of each score, int64 N: bin b holds b / BINS <= score < (b + 1) / BINS, the last also 1."""
    return np.minimum((score_N * BINS).astype(np.int64), BINS - 1)


def reliability(score_N: np.ndarray, happened_N: np.ndarray) -> Reliability:
    """A reliability diagram's bins.  scikit-learn's calibration_curve gives no counts, which intervals need."""
    bin_N = bin_of(score_N)
    count_B = np.bincount(bin_N, minlength=BINS).astype(np.float64)
    score_B, share_B = (
        ratio(np.bincount(bin_N, weights=value_N, minlength=BINS), count_B) for value_N in (score_N, happened_N)
    )
    return Reliability(count_B=count_B, score_B=score_B, share_B=share_B)


def logit(probability_N: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), float64, p kept LEAST_PROBABILITY away from 0 and 1."""
    clipped_N = np.clip(probability_N.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.log(clipped_N) - np.log1p(-clipped_N)


def recalibrate(is_positive_N: np.ndarray, logit_N: np.ndarray) -> Recalibration:
    """Fit both logistic recalibrations by maximum likelihood (Newton's method).

    slope: below 1 where probabilities are too extreme.  large: calibration in the large, the constant with the slope
    held at 1; above 0 where probabilities are too low.  All NaN where one class is missing; the slope and its constant
    also where a threshold separates the classes (the slope has no end) or all logits are equal.
    Sources: Cox 1958; Van Calster et al. 2016.
    """
    if is_positive_N.all() or not is_positive_N.any():
        return Recalibration(constant=np.nan, slope=np.nan, large=np.nan)
    one_N1 = np.ones((len(logit_N), 1))
    (large,) = fit_logistic(one_N1, is_positive_N, logit_N)
    positive_M, negative_M = logit_N[is_positive_N], logit_N[~is_positive_N]
    if positive_M.min() >= negative_M.max() or negative_M.min() >= positive_M.max():
        return Recalibration(constant=np.nan, slope=np.nan, large=large)
    constant, slope = fit_logistic(np.column_stack([one_N1, logit_N]), is_positive_N, np.zeros(len(logit_N)))
    return Recalibration(constant=constant, slope=slope, large=large)


def fit_logistic(design_NP: np.ndarray, is_positive_N: np.ndarray, offset_N: np.ndarray) -> list[float]:
    """Coefficients, P of them, without a penalty; NaN where Newton's method, with halved steps, does not settle."""

    def loss(coefficient_P: np.ndarray) -> float:
        predictor_N = design_NP @ coefficient_P + offset_N
        return float(np.logaddexp(0, np.where(is_positive_N, -predictor_N, predictor_N)).sum())

    coefficient_P = np.zeros(design_NP.shape[1])
    current = loss(coefficient_P)
    for _ in range(STEPS):
        fitted_N = expit(design_NP @ coefficient_P + offset_N)
        gradient_P = design_NP.T @ (is_positive_N - fitted_N)
        curvature_PP = (design_NP.T * (fitted_N * (1 - fitted_N))) @ design_NP
        try:
            step_P = np.linalg.solve(curvature_PP, gradient_P)
        except np.linalg.LinAlgError:
            break
        while (tried := loss(coefficient_P + step_P)) > current + TOLERANCE * abs(current) and np.abs(step_P).max() > 0:
            step_P /= 2
        coefficient_P, current = coefficient_P + step_P, tried
        if np.abs(step_P).max() < TOLERANCE**0.5 * (1 + np.abs(coefficient_P).max()):
            return coefficient_P.tolist()
    return [np.nan] * len(coefficient_P)
