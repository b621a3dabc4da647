"""A run in progress: epoch after epoch, the best weights and a state that can be resumed to the bit on CPU."""

# N samples, K classes or findings

import contextlib
import logging
import math
import time
from typing import Any, NoReturn

import msgspec
import numpy as np
import torch
from msgspec import UNSET
from scipy.special import expit, softmax
from torch import Tensor, nn

from engine.config import TrainConfig, shared_model, vlm_folder
from engine.device import Policy
from engine.networks.registry import freeze_body, model_facts, model_identity, num_parameters
from engine.networks.vlm import VlmNetwork
from engine.statistics.calibration import fit_answers
from engine.statistics.findings import CELLS, enough_known, training_f1, validation_metrics
from engine.statistics.metrics import all_metrics, headline_f1
from engine.train.checkpoint import best_tensors, file_hash, groups_of, learner_tensors, missing, not_finite, restore
from engine.train.epochs import DeviceEpochs, HostEpochs
from engine.train.leakage import RECORD, load_record, training_cautions
from engine.train.run_folder import BEST, LAST, RunFolder, epochs_recorded, run_id, save_settings
from engine.train.state import Progress, State, Watch, check_run, load_state, settle_best
from engine.train.step import Learner, make_learner
from engine.train.summary import (
    SUMMARY,
    Summary,
    early_convergence,
    label_cautions,
    lung_facts,
    monitor_of,
    title,
    weights_description,
    weights_name,
)
from engine.train.validated import nothing_to_recompute
from loaders import __version__
from loaders.batches.loader import Loader
from loaders.beton.format import Facts, frames_text
from loaders.cautions import caution
from loaders.errors import CheckpointError, DivergedError, Interrupted
from loaders.figure_text import class_names
from loaders.records import write_record

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_WRITES = 10.0  # what a kill costs at most
SECONDS_BETWEEN_CURVES = 30.0  # drawing them takes some 0.3 s


class Training:
    """One run in progress: the learner, the loaders, and the state that a checkpoint keeps."""

    def __init__(
        self, config: TrainConfig, loader: Loader, val_loader: Loader, network: nn.Module, policy: Policy, watch: Watch
    ) -> None:
        self.config, self.loader, self.val_loader = config, loader, val_loader
        self.network, self.policy, self.watch = network, policy, watch
        self.facts: Facts = loader.beton.facts
        self.findings = self.facts.task == "findings"
        self.num_train, self.num_val = len(loader.beton), len(val_loader.beton)
        self.cautions = training_cautions(loader.beton)
        val, self.measured = val_loader.beton, 0
        if self.findings:
            self.measured = int(enough_known(val.labels, groups_of(val)).sum())
            self.cautions += label_cautions(loader.beton, val)
        self.monitor = monitor_of(config.recipe.monitor, val)
        if self.monitor != config.recipe.monitor:
            self.cautions.append(caution("monitored-by-loss", monitor=config.recipe.monitor))
        self.cautions += nothing_to_recompute(config.recipe.validate_with, network, config.model)
        self.best: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # not written yet
        self.written = self.drawn = float("-inf")
        self.kept: int | None = None  # the step of the state on the disk
        # on a GPU an epoch may take less time than what it leaves takes to be written
        self.pause = 0.0 if policy.device.type == "cpu" else SECONDS_BETWEEN_WRITES

    def run(self, resume: bool) -> Summary:
        """Epoch after epoch until the schedule or early stopping ends it."""
        config, facts = self.config, self.facts
        self.state = State(
            conversion_id=facts.conversion_id,
            loader=self.loader.state_dict(),
            confusion=self.no_confusion(),
            run=run_id(config, facts.conversion_id, model_identity(self.network)),
            amp=self.policy.why_precision,
        )
        tensors: dict[str, Tensor] = {}
        if resume:
            tensors = self.find_state()
            save_settings(config.out, config)  # where the betons lie now
        names, purge_epoch = facts.classes if self.findings else (), len(self.state.history) + 1
        with RunFolder(config.out, purge_epoch, names) as self.folder:
            logger.info("plainfilm %s, torch %s, conversion %s", __version__, torch.__version__, facts.conversion_id)
            if facts.lungs != "off":
                logger.info("frames show %s", frames_text(facts.lungs, facts.segmenter))
            why = [reason.finding for reason in (self.state.amp, self.policy.why) if reason]
            logger.info("%s; %s", self.policy.describe(), "; ".join(why))
            for caution in self.cautions:
                logger.warning("%s", caution.text)
            self.learner = self.make_learner()
            if tensors:
                restore(self.learner, tensors)
                self.loader.load_state_dict(self.state.loader)
                logger.info("resumed at step %d, epoch %d", self.state.step, self.loader.epoch + 1)
            self.epochs = self.make_epochs()
            self.epochs.validated.restore(tensors)
            if isinstance(self.network, VlmNetwork) and not self.state.finished:
                films = self.num_val + (0 if config.zero_shot else self.num_train * config.recipe.epochs)
                self.watch.note(self.network.cost(facts.crop, self.policy.device, films))
            self.started = time.perf_counter() - self.state.seconds
            was_finished = bool(self.state.finished)
            try:
                while not self.state.finished:
                    if not config.zero_shot:
                        self.train_epoch()
                    self.finish_epoch()
                if not was_finished:
                    self.save_last()
            except (Interrupted, DivergedError) as error:
                self.record()
                self.draw()
                try:
                    self.save_last()
                except DivergedError as damaged:  # the state saved before stays
                    self.fail(error if isinstance(error, DivergedError) else damaged)
                if isinstance(error, DivergedError):
                    self.fail(error)
                where = f"{config.out}: interrupted at step {self.state.step}"
                logger.warning("interrupted at step %d", self.state.step)
                raise Interrupted(f"{where}; continue with --resume {config.out}") from error
            self.cautions += self.epochs.cautions()
            if not config.zero_shot:
                self.cautions += early_convergence(self.state.history[0])
            if not was_finished:
                self.policy.remember_compiled()
            summary = self.summary()
            write_record(config.out / SUMMARY, summary)
            return summary

    def summary(self) -> Summary:
        """The summary of the run, which is finished."""
        state, config, facts = self.state, self.config, self.facts
        assert state.finished, "only a run that has ended has a summary"
        return Summary(
            best_f1=state.best_f1,
            best_value=None if self.monitor == "f1" or state.best_score is None else abs(state.best_score),
            measured=self.measured,
            best_epoch=0 if config.zero_shot else state.best_epoch,
            epochs=0 if config.zero_shot else len(state.history),
            stopped=state.finished,
            images_per_second=float(np.median([row["images_per_second"] for row in state.history])),
            seconds=round(state.seconds, 3),
            steps=state.step,
            classes=list(facts.classes),
            positive=facts.positive,
            crop=facts.crop,
            synthetic=facts.synthetic,
            **lung_facts(facts),
            task=facts.task,
            monitor=self.monitor,
            validate_with=config.recipe.validate_with,
            conversion_id=facts.conversion_id,
            cautions=self.cautions,
            training_images=self.num_train,
            validation_images=self.num_val,
            model=shared_model(config.model),
            weights=weights_name(config),
            head_epochs=config.recipe.frozen_epochs,
            parameters=num_parameters(self.network),
            tune=config.vlm.tune if vlm_folder(config.model) else UNSET,
            device=self.policy.describe(),
            device_type=self.policy.device.type,
            amp=state.amp,
            compile=self.policy.why,
            checkpoint_sha256=file_hash(config.out / BEST),
            versions={"plainfilm": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
        )

    def find_state(self) -> dict[str, Tensor]:
        """Take over the state that the run was left in, and give its tensors; none if none was saved.

        Errors: CheckpointError for a damaged or missing file, another run's, or one that began on other betons.
        """
        out, state = self.config.out, self.state
        tensors: dict[str, Tensor] = {}
        if (out / LAST).exists():
            tensors, self.state = load_state(out / LAST)
            if self.state.conversion_id != self.facts.conversion_id:
                raise CheckpointError(
                    f"{out}: began on conversion {self.state.conversion_id}, {self.config.data} now holds "
                    f"{self.facts.conversion_id}; bring the old betons back, or train anew"
                )
            check_run(out / LAST, self.state.run, state.run)
            self.state.run, self.kept = state.run, self.state.step
        else:
            self.cautions.append(caution("training-restarted"))
        if (out / RECORD).exists():
            load_record(out, state.run)
        settle_best(self.state, out / BEST, self.network)
        if not tensors and (self.state.best_epoch > 1 or (out / SUMMARY).exists() or epochs_recorded(out) > 1):
            raise missing(out / LAST, "the state that the run continues from")
        return tensors

    def make_learner(self) -> Learner:
        """The network on its device, with what trains it."""
        config = self.config
        weights = None
        if config.recipe.class_weights and self.findings:
            present_K, absent_K = ((self.loader.beton.labels == value).sum(0) for value in (1, 0))
            weights = np.where(present_K * absent_K > 0, absent_K / np.maximum(present_K, 1), 1.0)
        elif config.recipe.class_weights:
            count_K = np.bincount(self.loader.beton.label_N, minlength=len(self.facts.classes))
            weights = count_K.sum() / (len(count_K) * np.maximum(count_K, 1))
        return make_learner(
            self.network, self.policy, learning_rate=config.recipe.learning_rate, batch_size=config.loader.batch_size,
            class_weight_K=weights, task=self.facts.task,
        )  # fmt: skip

    def make_epochs(self) -> HostEpochs | DeviceEpochs:
        """What runs the epochs: batches are made on the device, unless that is a CPU."""
        if self.policy.device.type == "cpu" or vlm_folder(self.config.model):  # its pictures are made on the host
            return HostEpochs(self.learner, self.loader, self.val_loader, self.config.recipe.validate_with)
        return DeviceEpochs(
            self.learner, self.loader, self.val_loader, self.config.loader.resident, self.config.recipe.validate_with
        )

    def train_epoch(self) -> None:
        """The rest of the current epoch, batch by batch."""
        state = self.state
        # of the epoch alone, so that a resumed run does the same
        if freeze_body(self.learner.network, len(state.history) < self.config.recipe.frozen_epochs):
            self.epochs.renew()
        clock, before = time.perf_counter(), self.loader.position
        done = before
        with contextlib.closing(self.epochs.train(state)) as losses:  # type: ignore[type-var]
            self.watch.check_stop()
            for loss in losses:
                done = self.loader.position
                state.rate = (done - before) / (time.perf_counter() - clock)
                self.show("training", done, self.num_train, loss)
                self.watch.check_stop()
        if done > before:  # a device may have been far behind
            state.rate = (done - before) / (time.perf_counter() - clock)

    def finish_epoch(self) -> None:
        """Validate, keep the weights if they are the best so far, and decide whether to go on."""
        state, config = self.state, self.config
        done, started = 0, time.perf_counter()

        def progress(samples: int) -> None:
            nonlocal done
            done += samples
            if config.zero_shot:
                state.rate = done / (time.perf_counter() - started)
                self.show("zero-shot", done, self.num_val, math.nan)
            else:
                self.show("validation", done, self.num_val, state.loss_sum / self.num_train)
            self.watch.check_stop()

        labels, logits_NK = self.epochs.validate(progress)
        group_N = groups_of(self.val_loader.beton)[self.val_loader.epoch_order(0)]
        metrics = self.validation_metrics(labels, logits_NK, group_N)
        loss = self.learner.loss_of(logits_NK, labels)
        metrics["score"] = score = -loss if self.monitor == "loss" else metrics[self.monitor]  # larger is better
        epoch = len(state.history) + 1
        auc_of_findings = metrics["auc_per_finding"] if self.findings else []
        state.history.append(
            {
                "epoch": epoch,
                "train_loss": None if config.zero_shot else state.loss_sum / self.num_train,
                "train_f1": None if config.zero_shot else self.training_f1(),
                "val_loss": loss,
                **{f"val_{name}": metrics[name] for name in ("f1", "accuracy", "auc", "sensitivity", "specificity")},
                "images_per_second": round(state.rate, 2),
                **{f"val_auc[{place}]": value for place, value in enumerate(auc_of_findings)},
            }
        )
        if state.best_score is None or score > state.best_score + config.recipe.min_delta:
            network = self.epochs.validated.network
            validating = {f"validated.{name}": value for name, value in network.state_dict().items()}
            self.check_finite(self.kept_tensors() | validating)  # weights trained with such moments are no best ones
            state.best_f1, state.best_score, state.best_epoch = metrics["f1"], score, epoch
            best = best_tensors(network, labels, logits_NK, group_N)
            about = weights_description(config, self.facts, state.run, epoch, metrics)
            self.best = best, about | model_facts(network)
        state.loss_sum, state.confusion = 0.0, self.no_confusion()
        state.loader = self.loader.state_dict()
        if config.zero_shot:
            state.finished = "zero-shot"
        elif state.idle() >= config.recipe.patience:
            state.finished = "patience"
        elif epoch >= config.recipe.epochs:
            state.finished = "epochs"
        logger.info("epoch %d: %s", epoch, state.history[-1])
        due = state.finished or time.perf_counter() - self.written >= self.pause
        if due:
            self.record()
            if state.finished or time.perf_counter() - self.drawn >= SECONDS_BETWEEN_CURVES:
                self.draw()
        self.show("epoch", self.num_train, self.num_train, state.history[-1]["train_loss"] or math.nan)
        if due and not state.finished:
            self.save_last()

    def validation_metrics(self, labels: np.ndarray, logits_NK: np.ndarray, group_N: np.ndarray) -> dict[str, Any]:
        """The metrics of one forward pass over the validation set."""
        wide_NK = logits_NK.astype(np.float64)
        if self.findings:
            return validation_metrics(labels, expit(wide_NK), group_N)
        if vlm_folder(self.config.model):  # sums of log-probabilities, which are biased by the length of names
            temperature, bias_K = fit_answers(logits_NK, labels)
            wide_NK = wide_NK / temperature + bias_K
        metrics = all_metrics(labels, softmax(wide_NK, axis=1), self.facts.classes.index(self.facts.positive))
        # F1 is undefined without a positive: epochs can be compared all the same
        return metrics | {"f1": metrics["f1"] or 0.0}

    def training_f1(self) -> float | None:
        """F1 of the predictions that the epoch's steps were made from."""
        counts = np.array(self.state.confusion)
        if self.findings:
            return training_f1(counts)
        return headline_f1(counts, self.facts.classes.index(self.facts.positive))

    def no_confusion(self) -> list[list[int]]:
        """Counts of nothing, as `Step` keeps them."""
        classes = len(self.facts.classes)
        return np.zeros((classes, len(CELLS) if self.findings else classes), np.int64).tolist()

    def record(self) -> None:
        """Write the best weights and the metrics of every epoch, if any is new."""
        if self.best is not None:
            self.folder.save_best(*self.best)
            self.best = None
        if self.folder.recorded < len(self.state.history):
            self.folder.record(self.state.history)

    def draw(self) -> None:
        """Draw the curves of all epochs so far, if there are any."""
        if self.state.history and not self.config.zero_shot:  # there is no curve
            self.drawn = time.perf_counter()
            names = class_names(self.facts.classes, kind="finding" if self.findings else "class")
            what = title(self.facts, names, self.num_train, self.num_val, self.measured)
            findings = list(names.text_of.values()) if self.findings else []
            self.folder.draw(self.state.history, self.state.best_epoch, what, names.note, findings)

    def save_last(self) -> None:
        """Keep weights, optimiser and state, for `--resume`.  Errors: DivergedError, and the one before stays."""
        tensors = self.kept_tensors()
        self.check_finite(tensors)
        self.written = time.perf_counter()
        self.state.seconds = time.perf_counter() - self.started
        self.folder.save_last(tensors, msgspec.to_builtins(self.state))
        self.kept = self.state.step

    def kept_tensors(self) -> dict[str, Tensor]:
        """All that training continues from."""
        return learner_tensors(self.learner) | self.epochs.validated.tensors()

    def fail(self, error: DivergedError) -> NoReturn:
        """Errors: DivergedError, logged: the same with what can be resumed from."""
        kept = "no state was saved yet" if self.kept is None else f"the state of step {self.kept} is kept"
        logger.warning("%s; %s", error, kept)
        raise DivergedError(f"{error}; {kept}") from error

    def check_finite(self, tensors: dict[str, Tensor]) -> None:
        """Errors: DivergedError for weights, buffers or moments that are not finite."""
        if bad := not_finite(tensors):
            raise DivergedError(
                f"step {self.state.step}: {bad} is not finite, expected finite numbers; lower --learning-rate, "
                "or try --amp off"
            )

    def show(self, phase: str, done: int, total: int, loss: float) -> None:
        """Report the progress to `watch`."""
        state, recipe = self.state, self.config.recipe
        # validation is a small part of an epoch, and counts as none of it
        of_epoch = {"training": done / total, "validation": 1.0, "epoch": 0.0, "zero-shot": done / total}[phase]
        epochs_done, epochs = len(state.history) + of_epoch, 1 if self.config.zero_shot else recipe.epochs
        elapsed = time.perf_counter() - self.started
        left = elapsed / epochs_done * (epochs - epochs_done) if epochs_done else None
        self.watch.show(
            Progress(
                phase=phase, done=done, total=total, loss=loss, seconds_left=left, recipe=recipe, state=state,
                monitor=self.monitor,
            )
        )  # fmt: skip
