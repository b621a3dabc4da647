"""The summary of a training: summary.json, and what lies beside the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType

from engine.config import Monitor, TrainConfig, Tune, ValidateWith, shared_model
from engine.statistics.findings import both_known, enough_known, names_of
from engine.statistics.names import METRICS, headline_name, short_name, value_text
from engine.train.checkpoint import groups_of
from engine.train.state import Ending
from loaders.beton.format import Facts, frames_text
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.config import FrameMode, Task
from loaders.figure_text import ClassNames
from loaders.output import counted
from loaders.records import Count, Record
from loaders.sources.split import LEAST_KNOWN

SUMMARY = "summary.json"
EARLY_SCORE = 0.99  # of validation after one epoch; the report saw 99 %, and its data gave the class without the lungs

KEPT: dict[ValidateWith, str] = {
    "running": "the weights of epoch {epoch}",
    "recomputed": "the weights of epoch {epoch}, with recomputed statistics of batch norm,",
    "averaged": "the averaged weights at the end of epoch {epoch}",
}


class Summary(Record, frozen=True, kw_only=True):
    """A finished training, as summary.json holds it.  seconds: of all sessions together.

    task, monitor: a label of classes or several findings, and what chose the best epoch.  best_f1, best_value: of
    validation in that epoch, F1 and what chose it, if that is not F1.  Of findings both are means over those that
    `measured` counts, F1 at each one's threshold of the highest; None without any.
    validate_with: which network validated, and was kept.
    lungs, segmenter: of frames that show the lungs alone, as of Facts.
    device: for people.  device_type: torch's, such as cpu.  compile: why torch.compile is used, or not.
    amp: why it is in mixed precision, or not; None where that was not kept.
    tune: of a vision-language model, whether it was asked as it is, or given an adapter; epochs are then 0.
    """

    made_by = "train"
    version: int = 1
    best_f1: float | None
    best_epoch: Count
    epochs: Count
    stopped: Ending
    images_per_second: float
    seconds: float
    steps: Count
    classes: list[str]
    positive: str
    crop: Count
    synthetic: bool
    lungs: FrameMode | UnsetType = UNSET
    segmenter: str | UnsetType = UNSET
    task: Task = "classes"
    monitor: Monitor = "f1"
    best_value: float | None = None
    validate_with: ValidateWith = "running"
    measured: Count = 0
    conversion_id: str
    cautions: list[Caution]
    training_images: Count
    validation_images: Count
    model: str
    weights: str
    head_epochs: Count
    parameters: Count
    tune: Tune | UnsetType = UNSET
    device: str
    device_type: str
    amp: Caution | None = None
    compile: Caution
    checkpoint_sha256: str
    versions: dict[str, str]
    not_for_diagnosis: bool = True

    @property
    def frames(self) -> str:
        """What the frames show, for a person; "" for whole films."""
        return "" if isinstance(self.segmenter, UnsetType) else frames_text(str(self.lungs), self.segmenter)

    @property
    def zero_shot(self) -> bool:
        """Whether nothing was trained: a vision-language model was asked as it is."""
        return self.stopped == "zero-shot"

    @property
    def ending(self) -> str:
        """Why it ended, to stand in brackets."""
        if self.zero_shot:
            return "zero-shot: nothing was trained"
        if self.stopped == "epochs":
            return "all epochs done"
        return f"stopped early: no better validation {short_name(self.monitor)}"

    @property
    def kept(self) -> str:
        """Which weights were kept; to precede "were kept"."""
        return KEPT[self.validate_with].format(epoch=self.best_epoch)

    @property
    def best(self) -> str:
        """The score that chose the best epoch, and F1 beside another; to follow "validation"."""
        findings = self.task == "findings"
        f1 = f"{METRICS['f1_macro' if findings else 'f1'].name} {value_text('f1', self.best_f1)}"
        if self.measured:
            f1 += f" over {of_findings(self.measured, len(self.classes))}"
        if self.monitor == "f1":
            return f1
        mean = "mean " if findings and self.monitor == "auc" else ""
        return f"{mean}{METRICS[self.monitor].name} {value_text(self.monitor, self.best_value)} ({f1})"


def of_findings(measured: int, number: int) -> str:
    """Which findings a mean is over: "14 findings", or "12 of 14 findings"."""
    every = counted(number, "finding")
    return every if measured == number else f"{measured} of {every}"


def early_convergence(first: Mapping[str, Any]) -> list[Caution]:
    """A caution where a score was too good too soon, which points to the data.  first: the first epoch's metrics.

    Of findings accuracy is none of them: to call every rare one absent is accurate.
    """
    findings = any(name.startswith("val_auc[") for name in first)
    names = {"f1": "f1_macro", "auc": "auc"} if findings else {"f1": "f1", "accuracy": "accuracy"}
    for metric, name in names.items():
        value = first.get(f"val_{metric}")
        if value is not None and value >= EARLY_SCORE:
            return [caution("early-convergence", metric=short_name(name), value=value)]
    return []


def label_cautions(train: Beton, val: Beton) -> list[Caution]:
    """The findings of which training or validation knows too little."""
    names = train.facts.classes
    one_sided_K = ~both_known(train.labels)
    few_K = ~enough_known(train.labels, groups_of(train)) & ~one_sided_K
    few_there_K = ~enough_known(val.labels, groups_of(val))
    found = [caution("findings-not-learnt", findings=names_of(names, one_sided_K))] if one_sided_K.any() else []
    for code, chosen_K in (("few-known-in-training", few_K), ("few-known-in-validation", few_there_K)):
        if chosen_K.any():
            found.append(caution(code, findings=names_of(names, chosen_K), least=LEAST_KNOWN))
    return found


def monitor_of(asked: Monitor, val: Beton) -> Monitor:
    """What decides which epoch is the best: what was asked for, or the loss where validation's labels do not allow it.

    F1 of classes is 0 where nothing defines it, so that it always decides.
    """
    if val.facts.task == "findings":
        defined = bool(enough_known(val.labels, groups_of(val)).any())
    else:
        defined = asked == "f1" or len(np.unique(val.label_N)) > 1
    return asked if defined else "loss"


def title(facts: Facts, names: ClassNames, num_train: int, num_val: int, measured: int = 0) -> str:
    """What the curves show.  measured: how many findings the means are over."""
    kind = "synthetic phantoms" if facts.synthetic else "radiographs"
    if facts.task == "findings":
        which = f"means over {of_findings(measured, len(facts.classes))}"
    else:
        which = headline_name("f1", len(facts.classes), names.text_of[facts.positive])
    return f"{names.listed(facts.task)}: {num_train} training and {num_val} validation {kind}; {which}"


def lung_facts(facts: Facts) -> dict[str, Any]:
    """What weights and the summary keep of frames that show the lungs alone; nothing of whole films."""
    return {} if facts.lungs == "off" else {"lungs": facts.lungs, "segmenter": facts.segmenter}


def weights_name(config: TrainConfig) -> str:
    """The weights that a training began with: none, default, or a file's name without its folder."""
    weights = config.recipe.weights
    return weights if weights in ("none", "default") else Path(weights).name


def weights_description(
    config: TrainConfig, facts: Facts, run: str, epoch: int, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What must be known of the weights to use them.  run: of run_id."""
    return {
        "network": shared_model(config.model),
        "began_with": weights_name(config),
        "classes": list(facts.classes),
        "positive": facts.positive,
        "task": facts.task,
        "crop": facts.crop,
        "stored": facts.stored,
        "fit": facts.fit,
        **lung_facts(facts),
        "dropout": config.recipe.dropout,
        "conversion_id": facts.conversion_id,
        "run": run,
        "epoch": epoch,
        "validated_with": config.recipe.validate_with,
        "validation": metrics,
    }
