"""Decisions: what a row of a prediction says of one class or of each finding, by its probabilities, or why it abstains.

A finding is decided as two classes are, once its odds are taken relative to those of its threshold: with a threshold of
0.5 both rules are the same. So a rare finding, whose threshold is low, is not absent of every film for certain.
"""

# K classes or findings, P questions

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit

from engine.evaluate.trained import FindingDecisions, Trained
from engine.statistics.findings import names_of
from loaders.cautions import Caution, caution
from loaders.sources.split import LEAST_KNOWN

LOW_CONFIDENCE, DISAGREE = "low-confidence", "prompts-disagree"
PRESENT, ABSENT, ABSTAINS = "present", "absent", "abstains"
TOO_FEW = "it was known in too few films of validation"
SURE = 1e-9  # thresholds are kept this far from 0 and 1, where odds end


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedFile:
    """The prediction of one file.  path: as the user named it.

    predicted_class: "" where the prediction abstains, and of findings.  kind: why it abstains: unreadable,
    low-confidence, prompts-disagree, or the defects that are against it, joined by ";".  detail: of the kind.
    probabilities: calibrated, in the order of the classes; None for a file that the network was not given, and of a
    finding of which validation knew too few films.
    decisions: on each finding.  undecided: those that abstain, and why.
    fix: how it was repaired, as in convert.csv.  in_set: training or validation, where that set has the same pixels.
    """

    path: str
    predicted_class: str = ""
    kind: str = ""
    detail: str = ""
    probabilities: tuple[float | None, ...] | None = None
    decisions: tuple[str, ...] = ()
    undecided: str = ""
    defects: tuple[str, ...] = ()
    fix: str = ""
    in_set: str = ""
    note: str = ""

    @property
    def reason(self) -> str:
        """Why the prediction abstains, for a person; "" where it does not."""
        return f"{kind_text(self.kind)}: {self.detail}" if self.kind else ""


def kind_text(kind: str) -> str:
    """A kind for a person: several defects are joined by "and"."""
    return " and ".join(kind.split(";"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRule:
    """The most probable class, unless its probability is below min_confidence, or questions are answered otherwise."""

    classes: tuple[str, ...]
    min_confidence: float

    def columns(self) -> list[str]:
        """Names of a row's cells between the path and the defects."""
        return ["predicted_class", "kind", "reason", *(f"probability_{name}" for name in self.classes)]

    def decided(
        self, row: PredictedFile, probability_K: np.ndarray, by_prompt_PK: np.ndarray | None = None
    ) -> PredictedFile:
        """The row with the most probable class, or with the reasons why it abstains.

        by_prompt_PK: by question, of a network that is asked several.
        """
        values = tuple(probability_K.tolist())
        best, reasons = int(probability_K.argmax()), dict[str, str]()
        if values[best] < self.min_confidence:
            found = f"{values[best]:.2f} for {self.classes[best]}, expected at least {self.min_confidence:g}"
            reasons[LOW_CONFIDENCE] = found
        answers = [] if by_prompt_PK is None else by_prompt_PK.argmax(1).tolist()
        if len(set(answers)) > 1:
            counts = Counter(self.classes[answer] for answer in answers)
            reasons[DISAGREE] = " and ".join(f"{count} answered {name}" for name, count in counts.most_common())
        if reasons:
            return replace(row, kind=";".join(reasons), detail="; ".join(reasons.values()), probabilities=values)
        return replace(row, predicted_class=self.classes[best], probabilities=values)

    def cells(self, row: PredictedFile, values: Sequence[Any]) -> list[Any]:
        """Those cells.  values: the probabilities as they are written."""
        return [row.predicted_class or ABSTAINS, row.kind, row.reason, *values]

    def cautions(self) -> list[Caution]:
        """What cannot be decided: nothing."""
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingRule:
    """Each finding present from one bound of its probability, absent up to another, and between both undecided.

    At the bounds its odds are those of its threshold times, or divided by, those of min_confidence; up to a
    min_confidence of 0.5 both are the threshold.  enough_K: findings without enough validation films have no bounds.
    """

    classes: tuple[str, ...]
    present_from_K: np.ndarray
    absent_to_K: np.ndarray
    enough_K: np.ndarray
    threshold_K: np.ndarray

    def columns(self) -> list[str]:
        """Names of a row's cells between the path and the defects."""
        return ["kind", "reason", *(f"{what}_{name}" for name in self.classes for what in ("probability", "decision"))]

    def decided(
        self, row: PredictedFile, probability_K: np.ndarray, by_prompt_PK: np.ndarray | None = None
    ) -> PredictedFile:
        """The row with a decision on each finding.  by_prompt_PK: by question, of a network that is asked several."""
        is_present_K, is_absent_K = probability_K >= self.present_from_K, probability_K <= self.absent_to_K
        decision_K = np.where(is_present_K, PRESENT, np.where(is_absent_K, ABSENT, ABSTAINS))
        decision_K[~self.enough_K] = ABSTAINS
        sides_PK = (probability_K[None] if by_prompt_PK is None else by_prompt_PK) >= self.threshold_K
        differ_K = np.asarray(sides_PK.any(0) & ~sides_PK.all(0))
        decision_K[differ_K] = ABSTAINS
        pairs = zip(probability_K.tolist(), self.enough_K.tolist(), strict=True)
        values = tuple(value if enough else None for value, enough in pairs)
        abstains = np.flatnonzero(decision_K == ABSTAINS).tolist()
        reasons = [self.reason(place, values[place], bool(differ_K[place])) for place in abstains]
        undecided = f"abstains on {'; '.join(reasons)}" if reasons else ""
        return replace(row, decisions=tuple(decision_K.tolist()), probabilities=values, undecided=undecided)

    def reason(self, place: int, probability: float | None, disagree: bool = False) -> str:
        """Why a finding of a film is undecided.  disagree: whether its questions are answered differently."""
        if probability is None:
            return f"{self.classes[place]}: {TOO_FEW}"
        if disagree:
            return f"{self.classes[place]}: its questions are answered differently"
        low, high = float(self.absent_to_K[place]), float(self.present_from_K[place])
        return f"{self.classes[place]}: {probability:.3g} lies between {low:.3g} and {high:.3g}"

    def cells(self, row: PredictedFile, values: Sequence[Any]) -> list[Any]:
        """Those cells.  values: the probabilities as they are written; of a film that was not predicted all abstain."""
        decisions = row.decisions or (ABSTAINS,) * len(self.classes)
        pairs = [cell for pair in zip(values, decisions, strict=True) for cell in pair]
        return [row.kind, row.reason or row.undecided, *pairs]

    def cautions(self) -> list[Caution]:
        """What cannot be decided of any film."""
        few = names_of(self.classes, ~self.enough_K)
        return [caution("few-known-in-validation", findings=few, least=LEAST_KNOWN)] if few else []


Rule = ClassRule | FindingRule


def finding_rule(names: tuple[str, ...], found: FindingDecisions, min_confidence: float) -> FindingRule:
    """The rule of findings.  min_confidence: as of two classes."""
    threshold_K = np.nan_to_num(found.threshold_K, nan=0.5)  # without one, nothing is decided
    middle_K = logit(np.clip(threshold_K, SURE, 1 - SURE))
    margin = logit(max(min_confidence, 0.5))
    high_K, low_K = (expit(middle_K + margin), expit(middle_K - margin)) if margin else (threshold_K, threshold_K)
    return FindingRule(
        classes=names, present_from_K=high_K, absent_to_K=low_K, enough_K=found.enough_K, threshold_K=threshold_K
    )


def rule_of(trained: Trained, min_confidence: float) -> Rule:
    """The rule by which a run decides on films."""
    if trained.task == "findings":
        return finding_rule(trained.classes, trained.findings, min_confidence)
    return ClassRule(classes=trained.classes, min_confidence=min_confidence)
