"""What victims of a training run first: a number that is not finite at a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_device(found_inf: bool) -> None:
    """Have trainings run the device's epochs on CPU tensors.  found_inf: of Policy."""
    from dataclasses import replace

    from engine.train import trainer as training_run
    from engine.train.epochs import DeviceEpochs

    def make_epochs(self: training_run.Training) -> DeviceEpochs:
        learner = replace(self.learner, policy=replace(self.policy, found_inf=found_inf))
        return DeviceEpochs(learner, self.loader, self.val_loader, self.config.loader.resident)

    training_run.Training.make_epochs = make_epochs  # type: ignore[method-assign]


def tell_steps(told: Callable[[Any, int], None], done: Callable[[Any, int], None] = lambda learner, step: None) -> None:
    """Tell of every training step of this process: its learner and number, before and after it."""
    from engine.train.step import Step

    plain_call, number = Step.__call__, [0]

    def call(self: Step, *arguments: Any) -> None:
        told(self.learner, number[0])
        plain_call(self, *arguments)
        done(self.learner, number[0])
        number[0] += 1

    Step.__call__ = call  # type: ignore[method-assign]


def fingerprint(tensors: dict[str, Any]) -> str:
    """A hash of a run's weights, buffers and moments; other tensors take no part."""
    from engine.train.checkpoint import digest

    kept = {name: value for name, value in tensors.items() if name.startswith(("network.", "adam."))}
    return digest({name: value.detach().cpu() for name, value in kept.items()}, "")


def note_steps(out: str) -> None:
    """Append a fingerprint after every step: what a healthy run is after so many."""
    from engine.train.checkpoint import network_tensors, optimiser_tensors

    def note(learner: Any, step: int) -> None:
        with Path(out).open("a") as file:
            file.write(fingerprint(network_tensors(learner) | optimiser_tensors(learner)) + "\n")

    tell_steps(lambda learner, step: None, note)


def poison(kind: str, at: int) -> None:
    """Put a number that is not finite, or far too large, in a place of the learner right before a step."""
    import torch

    place, _, what = kind.partition(" ")
    value = {"NaN": float("nan"), "inf": float("inf"), "overflow": 3e38}[what]

    def strike(learner: Any, step: int) -> None:
        if step != at:
            return
        network = learner.network
        parameter = next(network.parameters())
        with torch.no_grad():
            if place == "weight":
                parameter.view(-1)[0] = value
            elif place in ("mean", "variance"):
                name = {"mean": "running_mean", "variance": "running_var"}[place]
                next(buffer for path, buffer in network.named_buffers() if path.endswith(name)).view(-1)[0] = value
            elif place in ("exp_avg", "exp_avg_sq"):
                learner.optimiser.state[parameter][place].view(-1)[0] = value
        if place == "gradient":
            parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
        elif place == "loss":
            learner.loss.register_forward_hook(lambda module, inputs, output: output * value)

    tell_steps(strike)
