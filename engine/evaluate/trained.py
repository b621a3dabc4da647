"""The decision rule of a run: its temperature and operating points, chosen on validation and never on another set."""

# N samples, K classes or findings, M samples in which a finding is known,
# H W rows and columns of the crop, B bytes of stored frames, W (of scores) wordings, P questions

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from engine.config import VLM
from engine.device import Policy
from engine.networks.registry import network_of
from engine.networks.vlm import VlmNetwork
from engine.statistics.calibration import ANSWER_TEMPERATURES, TEMPERATURES, fit_answers, fit_temperature
from engine.statistics.findings import POINT, enough_known, f1_point, known_films, names_of, two_logits
from engine.statistics.thresholds import LEAST_POSITIVES, RULE_OUT, OperatingPoint, choose_operating_points
from engine.train.checkpoint import ValidationScores, file_hash, load_checkpoint, load_network, validation_scores
from engine.train.leakage import RECORD, load_record
from engine.train.run_folder import BEST, LOCAL, model_folder
from engine.train.step import predict_batch, to_device
from kernels.crops import crop_into
from loaders.beton.format import frames_text
from loaders.cautions import Caution, caution
from loaders.config import LungMode, Task
from loaders.errors import CheckpointError, ConfigError, StorageError
from loaders.records import Count, Record
from loaders.sources.split import LEAST_KNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What validation settled.  temperature: by which logits are divided.

    bias_K: added to them then, of a network whose logits are scores of answers in words; None of any other.
    points: thresholds of the calibrated probability of the positive class, against all others for three classes.
    """

    temperature: float
    points: tuple[OperatingPoint, ...]
    bias_K: np.ndarray | None = None

    def cautions(self) -> list[Caution]:
        """What limits probabilities and thresholds of this rule."""
        at_bound = self.temperature in (TEMPERATURES if self.bias_K is None else ANSWER_TEMPERATURES)
        return [caution("temperature-at-bound", temperature=self.temperature)] if at_bound else []

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, K)."""
        scaled_NK = logits_NK.astype(np.float64) / self.temperature
        return softmax(scaled_NK if self.bias_K is None else scaled_NK + self.bias_K, axis=1)

    def point(self, name: str) -> OperatingPoint:
        """The operating point of that name."""
        return next(point for point in self.points if point.name == name)


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingDecisions:
    """What validation settled of each finding: a decision of two classes each, whose points have POINT as well.

    names: of the findings.  enough_K: whether validation knows enough of each; else its temperature is 1 and it has no
    threshold but 0.5.
    """

    names: tuple[str, ...]
    by_finding: tuple[Decision, ...]
    enough_K: np.ndarray

    def cautions(self) -> list[Caution]:
        """What limits probabilities and thresholds of these rules, each with the findings that it is of."""
        at_bound_K = np.array([bool(decision.cautions()) for decision in self.by_finding])
        refused_K = np.array([decision.point(RULE_OUT).refused is not None for decision in self.by_finding])
        found: tuple[tuple[str, np.ndarray, dict[str, int]], ...] = (
            ("few-known-in-validation", ~self.enough_K, {"least": LEAST_KNOWN}),
            ("temperatures-at-bound", at_bound_K, {}),
            ("findings-without-rule-out", refused_K & self.enough_K, {"least": LEAST_POSITIVES}),
        )
        return [
            caution(code, findings=names_of(self.names, chosen_K), **parameters)
            for code, chosen_K, parameters in found
            if chosen_K.any()
        ]

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities that each finding is present, float64 (N, K), to the bit those of its decision."""
        of_finding = zip(self.by_finding, logits_NK.T, strict=True)
        return np.stack([decision.probabilities(two_logits(logit_N))[:, 1] for decision, logit_N in of_finding], axis=1)

    @property
    def threshold_K(self) -> np.ndarray:
        """The probability from which each finding is predicted as present; NaN where validation settles none."""
        return np.array([decision.point(POINT).threshold for decision in self.by_finding], np.float64)


def decide_findings(scores: ValidationScores, names: Sequence[str], *, answers: bool = False) -> FindingDecisions:
    """The decision rules of a checkpoint of findings.  answers: see `decide`."""
    enough_K = enough_known(scores.labels, scores.group_N)
    found = []
    for place, enough in enumerate(enough_K.tolist()):
        known_M = known_films(scores.labels[:, place]) if enough else np.empty(0, np.int64)
        logits_M2 = two_logits(scores.logits_NK[known_M, place])
        is_present_M = scores.labels[known_M, place] == 1
        own = ValidationScores(
            labels=is_present_M.astype(np.int64), logits_NK=logits_M2, group_N=scores.group_N[known_M]
        )
        decision = decide(own, 1, answers=answers)
        point = f1_point(is_present_M, decision.probabilities(logits_M2)[:, 1])
        found.append(replace(decision, points=(*decision.points, point)))
    return FindingDecisions(names=tuple(names), by_finding=tuple(found), enough_K=enough_K)


def decide(scores: ValidationScores, positive: int, *, answers: bool = False) -> Decision:
    """The decision rule that the validation scores of a checkpoint give.

    answers: whether logits are scores of answers in words, which need a bias as well.
    """
    if answers:
        temperature, bias_K = fit_answers(scores.logits_NK, scores.labels)
        uncut = Decision(temperature=temperature, points=(), bias_K=bias_K)
    else:
        uncut = Decision(temperature=fit_temperature(scores.logits_NK, scores.labels), points=())
    score_N = uncut.probabilities(scores.logits_NK)[:, positive]
    return replace(uncut, points=choose_operating_points(scores.labels == positive, score_N))


class Checkpoint(Record, frozen=True, kw_only=True):
    """Which weights a result is of."""

    sha256: str
    epoch: Count
    conversion_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The best checkpoint of a run, read once.  network: on the host, in evaluation mode.  state: the facts in it.

    rule: the decision of classes, or those of findings.
    """

    run: Path
    network: nn.Module
    state: dict[str, Any]
    rule: Decision | FindingDecisions
    sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of classes or findings, in the order of the outputs."""
        return tuple(self.state["classes"])

    @property
    def task(self) -> Task:
        """Whether the network tells classes apart or findings."""
        return self.state.get("task", "classes")

    @property
    def lungs(self) -> LungMode:
        """Whether the network was trained on the lungs alone, and how they are shown."""
        return self.state.get("lungs", "off")

    @property
    def segmenter(self) -> str:
        """The identity of what found the lungs, or "given"; "" of whole films."""
        return self.state.get("segmenter", "")

    @property
    def decision(self) -> Decision:
        """The decision rule of a network of classes."""
        assert isinstance(self.rule, Decision)
        return self.rule

    @property
    def findings(self) -> FindingDecisions:
        """The decision rules of a network of findings."""
        assert isinstance(self.rule, FindingDecisions)
        return self.rule

    @property
    def checkpoint(self) -> Checkpoint:
        """Which weights these are."""
        return Checkpoint(sha256=self.sha256, epoch=self.state["epoch"], conversion_id=self.state["conversion_id"])

    @property
    def is_asked(self) -> bool:
        """Whether the network is a vision-language model, which is asked questions."""
        return isinstance(self.network, VlmNetwork)

    def refuse_asked(self, command: str, instead: str) -> None:
        """Errors: ConfigError for a vision-language model, where a command cannot take one."""
        if self.is_asked:
            raise ConfigError(
                f"{self.run}: a vision-language model, expected another network for `{command}`; {instead}"
            )

    def probabilities(self, frames_B: np.ndarray, offset_N: np.ndarray, policy: Policy) -> np.ndarray:
        """Calibrated probabilities, float64 (N, K), of stored frames; see `scores`."""
        return self.rule.probabilities(self.scores(frames_B, offset_N, policy).mean(1))

    def by_prompt(self, scores_NWK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities by question, both orders of its options together, float64 (N, P, K).

        P is 1 for a network that is asked nothing.
        """
        asked = self.network.wordings if isinstance(self.network, VlmNetwork) else ()
        prompt_W = np.array([one.prompt for one in asked] or [0])
        by_prompt = [scores_NWK[:, prompt_W == prompt].mean(1) for prompt in np.unique(prompt_W)]
        return np.stack([self.rule.probabilities(logits_NK) for logits_NK in by_prompt], 1)

    @torch.inference_mode()
    def scores(self, frames_B: np.ndarray, offset_N: np.ndarray, policy: Policy) -> np.ndarray:
        """Logits of stored frames by wording, float32 (N, W, K); the network is on the policy's device.

        W is 1 for a network that is asked nothing.
        frames_B: uint8, bytes that the frames lie in.  offset_N: where each begins.
        Errors: CheckpointError for outputs that are not finite.
        """
        crop, stored = self.state["crop"], self.state["stored"]
        crops_N1HW = np.empty((len(offset_N), 1, crop, crop), np.float32)
        crop_into(crops_N1HW, frames_B, offset_N, stored)
        scores_NWK = predict_by_wording(self.network, to_device(torch.from_numpy(crops_N1HW), policy), policy)
        if not np.isfinite(scores_NWK).all():
            raise CheckpointError(
                f"{self.run}: the network's outputs are not finite, expected finite numbers; train it again"
            )
        return scores_NWK


def predict_by_wording(network: nn.Module, frames_N1HW: Tensor, policy: Policy) -> np.ndarray:
    """Logits of a batch on the device by wording, float32 (N, W, K), in evaluation mode; W is 1 for most networks."""
    if not isinstance(network, VlmNetwork):
        return predict_batch(network, frames_N1HW, policy).cpu().numpy()[:, None]
    network.eval()
    with policy.precision():
        return network.by_wording(frames_N1HW).float().cpu().numpy()


def load_trained(run: Path) -> Trained:
    """Read a run's best weights.

    Errors: ConfigError for no folder; CheckpointError for none, damaged ones, or those of another run than the folder.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: not a folder, expected a run folder of `train`; check the path")
    checkpoint = run / BEST
    sha256 = file_hash(checkpoint)
    needed = ("classes", "positive", "crop", "stored", "fit", "dropout", "conversion_id", "run", "epoch")
    tensors, state = load_checkpoint(checkpoint, needed)
    if file_hash(checkpoint) != sha256:
        raise CheckpointError(f"{checkpoint}: replaced while being read, expected it to stay; try again")
    if (run / RECORD).exists():
        load_record(run, state["run"])
    lungs = state.get("lungs", "off")
    if lungs == "crossval":
        raise CheckpointError(
            f"{checkpoint}: trained on {frames_text(lungs, state.get('segmenter', ''))}, expected films as `convert` "
            "makes them: these weights serve that comparison alone; name a run of the splits random or group"
        )
    if lungs not in get_args(LungMode) or (lungs != "off") != bool(state.get("segmenter")):
        raise CheckpointError(
            f"{checkpoint}: lungs {lungs!r} and segmenter {state.get('segmenter')!r}, expected a mode of `convert "
            "--lungs` with one; use the last good copy"
        )
    try:
        network = network_of(state, model_folder(run))
    except StorageError as error:
        raise StorageError(f'{error}; or write where it lies into {run / LOCAL}: "model": "{VLM}FOLDER"') from error
    load_network(network, tensors)
    scores = validation_scores(tensors, checkpoint)
    findings = state.get("task", "classes") == "findings"
    names = state["classes"]
    answers = "vlm" in state
    if findings:
        rule: Decision | FindingDecisions = decide_findings(scores, names, answers=answers)
    else:
        rule = decide(scores, names.index(state["positive"]), answers=answers)
    return Trained(run=run, network=network.eval(), state=state, rule=rule, sha256=sha256)
