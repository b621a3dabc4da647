"""The network that validates: as it trains, with recomputed statistics, or averaged; training never notices it."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.config import TrainConfig, ValidateWith
from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.networks.registry import freeze_body, make_network
from engine.train import trainer
from engine.train.checkpoint import load_checkpoint, load_network, validation_scores
from engine.train.device_batches import DeviceBatches, ResidentFrames
from engine.train.epochs import DeviceEpochs, DeviceStep, HostEpochs, warm_up
from engine.train.run_folder import load_config
from engine.train.state import State, Watch
from engine.train.step import Learner, make_learner, predict, train_step
from engine.train.summary import Summary
from engine.train.train import train, training_parts
from engine.train.validated import AVERAGE, STEPS, Validated, num_recomputed
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig
from loaders.errors import DivergedError, Interrupted
from loaders.records import read_record
from tests.example_run import small_training
from tests.findings_example import write_findings

WAYS: tuple[ValidateWith, ...] = ("running", "recomputed", "averaged")
OTHERS = WAYS[1:]
CPU = torch.device("cpu")
POLICY = choose_policy("cpu", "off", "off", 0)
BATCH = 8


def config(betons: Path, out: Path, **changes: object) -> TrainConfig:
    return small_training(betons, out, **({"epochs": 2, "batch_size": BATCH} | changes))


def tensors(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / f"{name}.safetensors")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a training changes: weights, statistics and moments."""
    return {name: value for name, value in tensors.items() if not name.startswith(AVERAGE)}


def learner(network: nn.Module | None = None, seed: int = 0, amp: str = "off") -> Learner:
    torch.manual_seed(seed)
    return make_learner(
        network or Cnn(2, 32, 0.5), choose_policy("cpu", amp, "off", 0), learning_rate=1e-3, batch_size=BATCH,
        class_weight_K=None,
    )  # fmt: skip


def batches(number: int, size: int = BATCH, side: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand((size, 1, side, side), generator=generator) * (1 + 0.3 * turn) - 0.5 for turn in range(number)]


@pytest.fixture(scope="module")
def runs(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[ValidateWith, Path]:
    """The same training, validated in each way."""
    folder = tmp_path_factory.mktemp("validated")
    for way in WAYS:
        train(config(betons, folder / way, validate_with=way))
    return {way: folder / way for way in WAYS}


# ---- whole trainings


@pytest.mark.parametrize("way", OTHERS)
def test_a_training_is_the_same_however_it_is_validated(runs: dict[ValidateWith, Path], way: ValidateWith) -> None:
    assert same(tensors(runs["running"]), trained(tensors(runs[way])))
    plain, other = (load_checkpoint(runs[name] / "last.safetensors")[1] for name in ("running", way))
    losses = [[row["train_loss"] for row in state["history"]] for state in (plain, other)]
    assert losses[0] == losses[1]
    assert [row["val_loss"] for row in plain["history"]] != [row["val_loss"] for row in other["history"]]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_as_the_best_is_what_validated(
    betons: Path, runs: dict[ValidateWith, Path], way: ValidateWith
) -> None:
    path = runs[way] / "best.safetensors"
    best, state = load_checkpoint(path)
    network = Cnn(2, 32, 0.5)
    load_network(network, best)
    network.to(memory_format=torch.channels_last)
    with Loader(betons / "val.beton", LoaderConfig(batch_size=BATCH), tensors=True) as loader:
        _, logits_NK = predict(network, loader, POLICY)
    assert np.array_equal(logits_NK, validation_scores(best, path).logits_NK)
    assert state["validated_with"] == way
    summary = read_record(Summary, runs[way] / "summary.json")
    assert summary.validate_with == way and load_config(runs[way]).recipe.validate_with == way
    assert ("kept" in training_parts(summary, runs[way])[1].text) == (way != "running")


def interrupted_and_resumed(settings: TrainConfig, after: int) -> None:
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        train(settings, watch=Watch(stopping=lambda: next(asked) >= after))
    train(load_config(settings.out), resume=True)


# asked after each step, each batch that statistics are recomputed from, and each validation batch, in either epoch
@pytest.mark.parametrize("after", [3, 7, 9, 14])
@pytest.mark.parametrize("way", OTHERS)
def test_a_run_interrupted_anywhere_resumes_to_identical_weights_in_each_way(
    betons: Path, runs: dict[ValidateWith, Path], tmp_path: Path, way: ValidateWith, after: int
) -> None:
    interrupted_and_resumed(config(betons, tmp_path / "run", validate_with=way), after)
    for name in ("last", "best"):
        assert same(tensors(runs[way], name), tensors(tmp_path / "run", name))


@pytest.mark.parametrize("way", OTHERS)
def test_in_bfloat16_each_way_resumes_to_identical_weights(betons: Path, tmp_path: Path, way: ValidateWith) -> None:
    train(config(betons, tmp_path / "whole", validate_with=way, amp="on"))
    interrupted_and_resumed(config(betons, tmp_path / "part", validate_with=way, amp="on"), 9)
    for name in ("last", "best"):
        assert same(tensors(tmp_path / "whole", name), tensors(tmp_path / "part", name))


@pytest.mark.parametrize("way", OTHERS)
def test_the_devices_epochs_resume_to_identical_weights_in_each_way(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: ValidateWith
) -> None:
    def make_epochs(self: trainer.Training) -> DeviceEpochs:
        return DeviceEpochs(self.learner, self.loader, self.val_loader, "auto", self.config.recipe.validate_with)

    monkeypatch.setattr(trainer.Training, "make_epochs", make_epochs)
    for name in ("running", way):
        train(config(betons, tmp_path / name, validate_with=name))
    interrupted_and_resumed(config(betons, tmp_path / "part", validate_with=way), 3)
    assert same(tensors(tmp_path / "running"), trained(tensors(tmp_path / way)))
    for name in ("last", "best"):
        assert same(tensors(tmp_path / way, name), tensors(tmp_path / "part", name))


@pytest.mark.parametrize("way", OTHERS)
def test_findings_are_validated_in_each_way(tmp_path: Path, way: ValidateWith) -> None:
    data = write_findings(tmp_path / "findings", counts={"train": 40, "val": 40}, crop=32, unknown=0.2)
    summary = train(config(data, tmp_path / "run", validate_with=way, epochs=1))
    assert summary.validate_with == way and summary.best_epoch == 1


# ---- recomputed


@pytest.mark.numerical
@pytest.mark.parametrize(
    ("model", "amp", "tolerance"), [("cnn", "off", 1e-4), ("cnn", "on", 0.03), ("resnet18", "off", 1e-4)]
)
def test_recomputed_statistics_are_those_of_all_values_together(model: str, amp: str, tolerance: float) -> None:
    subject = learner(make_network(model, 2, 64, 0.5), amp=amp)
    given = batches(3, side=64)
    given[2] = given[2][:5]  # a smaller batch counts for less
    oracle = copy.deepcopy(subject.network).train()
    if isinstance(oracle, Cnn):
        oracle.fused = False
    values: dict[str, list[np.ndarray]] = {}
    norms = {name: one for name, one in oracle.named_modules() if isinstance(one, nn.BatchNorm2d)}
    for name, norm in norms.items():

        def note(module: nn.Module, inputs: tuple[torch.Tensor], name: str = name) -> None:
            values.setdefault(name, []).append(inputs[0].double().transpose(0, 1).flatten(1).detach().numpy())

        norm.register_forward_pre_hook(note)
    with torch.no_grad():
        for frames in given:
            oracle(frames)
    validated = Validated(subject, "recomputed", 3)
    validated.finish_epoch(iter(given))
    assert not any(module.training for module in validated.network.modules())
    for name, pieces in values.items():
        norm, together_KV = validated.network.get_submodule(name), np.concatenate(pieces, axis=1)
        scale = together_KV.std()
        np.testing.assert_allclose(norm.running_mean, together_KV.mean(1), atol=tolerance * scale)
        np.testing.assert_allclose(norm.running_var, together_KV.var(1, ddof=1), rtol=tolerance, atol=1e-9)
        assert norm.momentum == 0.1
    assert same(dict(subject.network.named_parameters()), dict(validated.network.named_parameters()))


@pytest.mark.parametrize("way", OTHERS)
def test_recomputing_takes_no_random_number_and_leaves_the_trained_network_alone(way: ValidateWith) -> None:
    subject = learner()
    before, generator = copy.deepcopy(subject.network.state_dict()), torch.get_rng_state()
    Validated(subject, way, 3).finish_epoch(iter(batches(2)))
    assert same(before, subject.network.state_dict()) and torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("way", OTHERS)
def test_statistics_of_a_frozen_body_stay_those_that_training_uses(way: ValidateWith) -> None:
    subject = learner()
    freeze_body(subject.network, True)
    validated = Validated(subject, way, 3)
    with torch.no_grad():
        subject.network.features[1].running_mean += 1
    validated.finish_epoch(iter(batches(2)))
    assert same(subject.network.state_dict(), validated.network.state_dict())
    freeze_body(subject.network, False)
    validated.finish_epoch(iter(batches(2)))
    assert not same(subject.network.state_dict(), validated.network.state_dict())


def test_an_eighth_of_an_epoch_is_recomputed_from() -> None:
    found = {number: num_recomputed(number) for number in (1, 2, 8, 15, 16, 52, 255, 256, 10_000)}
    assert found == {1: 1, 2: 1, 8: 1, 15: 1, 16: 2, 52: 6, 255: 31, 256: 32, 10_000: 32}


@pytest.fixture
def loaders(betons: Path) -> Iterator[tuple[Loader, Loader]]:
    settings = LoaderConfig(training=True, batch_size=BATCH)
    with (
        Loader(betons / "train.beton", settings, tensors=True) as loader,
        Loader(betons / "val.beton", settings, tensors=True, training=False) as val_loader,
    ):
        yield loader, val_loader


@pytest.mark.numerical
def test_the_epochs_own_first_batches_are_recomputed_from(loaders: tuple[Loader, Loader]) -> None:
    given, made = [], []
    for kind in (HostEpochs, DeviceEpochs):
        epochs = kind(learner(), *loaders, validate_with="recomputed")
        loaders[0].set_epoch(1)
        list(epochs.train(State(conversion_id="", confusion=[[0, 0], [0, 0]])))
        before = loaders[0].state_dict()
        made.append([frames.clone() for frames in epochs.recomputed_batches(lambda samples: None)])
        assert loaders[0].state_dict() == before
    loaders[0].set_epoch(1)
    given = [frames for frames, _, _ in loaders[0]]
    for found in made:
        assert len(found) == num_recomputed(len(given)) > 0
        for frames, wanted in zip(found, given, strict=False):
            torch.testing.assert_close(frames, wanted, atol=1e-3, rtol=0)
    assert all(torch.equal(frames, wanted) for frames, wanted in zip(made[0], given, strict=False))


# ---- averaged


@pytest.mark.numerical
def test_averages_are_those_of_the_formula_and_their_statistics_are_their_own() -> None:
    subject = learner()
    validated = Validated(subject, "averaged", 4)
    wanted = {name: value.double() for name, value in subject.network.named_parameters()}
    generator, stopped = torch.Generator().manual_seed(1), torch.zeros(())
    for step in range(1, 60):
        with torch.no_grad():
            for value in subject.network.parameters():
                value += torch.rand(value.shape, generator=generator)
        validated.follow(stopped)
        share = max(1 / 4, 9 / (9 + step))
        for name, value in subject.network.named_parameters():
            wanted[name] = wanted[name] + share * (value.double() - wanted[name])
    assert int(validated.tensors()[STEPS]) == 59
    validated.finish_epoch(iter(batches(2)))
    for name, value in validated.network.named_parameters():
        torch.testing.assert_close(value.double(), wanted[name], rtol=1e-4, atol=1e-4)
    same_weights = learner(copy.deepcopy(validated.network))
    recomputed = Validated(same_weights, "recomputed", 4)
    recomputed.finish_epoch(iter(batches(2)))
    assert same(recomputed.network.state_dict(), validated.network.state_dict())


def test_an_average_begins_with_the_weights_that_training_began_with() -> None:
    subject = learner()
    validated = Validated(subject, "averaged", 4)
    with torch.no_grad():
        subject.network.classifier[1].weight += 1
    validated.restore({})
    assert same(dict(subject.network.named_parameters()), dict(validated.network.named_parameters()))


def test_a_step_that_is_not_finite_leaves_the_average_alone(loaders: tuple[Loader, Loader]) -> None:
    epochs = HostEpochs(learner(), *loaders, validate_with="averaged")
    frames, labels, _ = next(iter(loaders[0]))
    train_step(epochs.step, frames, labels, seed=0, number=0)
    epochs.validated.follow(epochs.step.stopped)
    before = {name: value.clone() for name, value in epochs.validated.tensors().items()}
    with pytest.raises(DivergedError):
        train_step(epochs.step, frames * float("nan"), labels, seed=0, number=1)
    epochs.validated.follow(epochs.step.stopped)
    assert same(before, epochs.validated.tensors())


def test_a_warm_up_takes_the_average_back(loaders: tuple[Loader, Loader]) -> None:
    loader = loaders[0]
    batches = DeviceBatches(loader, ResidentFrames(loader, CPU), POLICY, BATCH)
    step = DeviceStep(learner(), batches, 2, "averaged")
    step.begin(0.0, [[0, 0], [0, 0]], 0)
    count = next(batches.begin(0, 0))
    before = {name: value.clone() for name, value in step.validated.tensors().items()}
    warm_up(step, count, step.touched, CPU)
    assert same(before, step.validated.tensors())
    step(count)
    assert not same(before, step.validated.tensors())
