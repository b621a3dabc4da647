"""One training step, against a plain PyTorch reference and against itself."""

import copy
import shutil
from itertools import groupby

import numpy as np
import pytest
import torch
from torch import nn

from engine.device import Policy, choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import confusion_matrix
from engine.train.step import FindingsLoss, Step, make_learner, predict, train_step
from loaders.batches.loader import Loader
from loaders.errors import ConfigError, DivergedError
from tests.naive import Plain
from tests.rounding import MARGIN, rounded

COMPILER = any(map(shutil.which, ("g++", "clang++", "c++")))
CPU = choose_policy("cpu", "off", "off", 0)


def step_of(network: nn.Module, policy: Policy = CPU, class_weight_K: np.ndarray | None = None) -> Step:
    return Step(make_learner(network, policy, learning_rate=1e-3, batch_size=8, class_weight_K=class_weight_K), 2)


def batch(num_samples: int = 8, crop: int = 64, classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand((num_samples, 1, crop, crop), generator=generator) * 2 - 1
    return frames, torch.arange(num_samples) % classes


def some_findings(num_samples: int = 8, seed: int = 0) -> torch.Tensor:
    """Three findings, of which a third of the labels are unknown, one of them in every sample."""
    finding_NK = np.random.default_rng(seed).choice([0.0, 1.0, np.nan], (num_samples, 3))
    finding_NK[:, 2] = np.nan
    return torch.from_numpy(finding_NK.astype(np.float32))


def masked_loss(logits_NK: torch.Tensor, finding_NK: torch.Tensor) -> torch.Tensor:
    """The mean binary cross-entropy of the labels that are known, as one writes it."""
    known_NK = ~finding_NK.isnan()
    known = logits_NK[known_NK], finding_NK[known_NK].to(logits_NK.dtype)
    return nn.functional.binary_cross_entropy_with_logits(*known)


def pair(crop: int, dropout: float = 0.0, seed: int = 0, classes: int = 2) -> tuple[Cnn, Plain]:
    """Our network and the plain one with the same weights; batch norm cancels the plain one's biases."""
    torch.manual_seed(seed)
    plain, ours = Plain(classes, crop, dropout), Cnn(classes, crop, dropout)
    weights = plain.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    return ours, plain


def gradient_error(network: nn.Module, exact: nn.Module, names: list[str]) -> float:
    """Relative distance of the named gradients from float64's."""
    wanted, found = dict(exact.named_parameters()), dict(network.named_parameters())
    distance = sum((found[name].grad.double() - wanted[name].grad).norm() ** 2 for name in names)
    return float((distance / sum(wanted[name].grad.norm() ** 2 for name in names)) ** 0.5)


@pytest.mark.numerical
@pytest.mark.parametrize(("crop", "task"), [(32, "classes"), (45, "classes"), (32, "findings"), (45, "findings")])
def test_gradients_are_as_near_float64_as_float32s_rounding_allows(crop: int, task: str) -> None:
    errors: dict[tuple[str, str], list[tuple[float, float]]] = {}
    plain_loss, own_loss, classes = nn.functional.cross_entropy, nn.functional.cross_entropy, 2
    if task == "findings":
        plain_loss, own_loss, classes = masked_loss, FindingsLoss(), 3
    for seed in range(7):
        network, plain = pair(crop, seed=seed, classes=classes)
        exact = copy.deepcopy(plain).double().train()
        allowed = rounded(copy.deepcopy(exact), seed)
        frames, labels = batch(8, crop, seed=seed)
        labels = some_findings(seed=seed) if task == "findings" else labels
        for reference in (exact, allowed):
            plain_loss(reference(frames.double()), labels).backward()
        for layout in (torch.contiguous_format, torch.channels_last):
            ours = copy.deepcopy(network).to(memory_format=layout).train()
            own_loss(ours(frames.contiguous(memory_format=layout)), labels).backward()
            # biases in front of a batch norm have a true gradient of zero and no counterpart in ours
            parameters = [name for name, _ in ours.named_parameters()]
            for layer, group in groupby(parameters, lambda name: name.rpartition(".")[0]):
                names = list(group)  # together: the last bias alone is one number, whose error is chance
                found = (gradient_error(ours, exact, names), gradient_error(allowed, exact, names))
                errors.setdefault((str(layout), layer), []).append(found)
            buffers = dict(exact.named_buffers())
            for name, buffer in ours.named_buffers():
                wanted = buffers[name]
                if name.endswith("running_mean"):  # the plain network's running mean counts its convolution's bias
                    block = int(name.split(".")[1])
                    wanted = wanted - 0.1 * exact.features[block - 1].bias
                torch.testing.assert_close(buffer.double(), wanted.double(), rtol=1e-5, atol=1e-6)
    for where, pairs in errors.items():
        # the lower quartile: a near tie in a pooling window can flip in either, and does in one seed of five
        ours_error, allowed_error = np.quantile(pairs, 0.25, axis=0)
        assert ours_error <= MARGIN * allowed_error, (where, ours_error, allowed_error)
        assert np.median(pairs, axis=0)[0] <= 3 * MARGIN * allowed_error, (where, pairs)  # and no more than some flip


@pytest.mark.parametrize("weight", [None, [3.0, 0.25, 1.0]])
def test_the_loss_of_findings_and_its_gradient_are_those_of_the_known_labels_alone(weight: list[float] | None) -> None:
    finding_NK, ours_NK = some_findings(), torch.randn((8, 3), generator=torch.Generator().manual_seed(1))
    weight_K = None if weight is None else torch.tensor(weight)
    theirs_NK = ours_NK.double().requires_grad_()
    ours_NK = ours_NK.requires_grad_()
    known_NK = ~finding_NK.isnan()
    factor_NK = torch.ones(8, 3) if weight_K is None else torch.where(finding_NK == 1, weight_K, 1.0)
    loss_M = nn.functional.binary_cross_entropy_with_logits(
        theirs_NK[known_NK], finding_NK[known_NK].double(), reduction="none"
    )
    expected = (loss_M * factor_NK[known_NK]).mean()
    found = FindingsLoss(weight_K)(ours_NK, finding_NK)
    expected.backward(), found.backward()
    # each logit's loss takes a handful of operations, and all are summed up in one chain
    torch.testing.assert_close(found.double(), expected, rtol=8 * 2.0**-24, atol=0)
    torch.testing.assert_close(ours_NK.grad.double(), theirs_NK.grad, rtol=8 * 2.0**-24, atol=2.0**-26)
    assert (ours_NK.grad[finding_NK.isnan()] == 0).all() and ours_NK.grad[known_NK].all()


def findings_step(network: nn.Module) -> Step:
    options = {"learning_rate": 1e-3, "batch_size": 8, "class_weight_K": None}
    return Step(make_learner(network, CPU, task="findings", **options), 3)  # type: ignore[arg-type]


def test_a_step_on_findings_counts_each_known_label_in_its_cell_and_weighs_the_loss_by_samples() -> None:
    network, (frames, _), finding_NK = pair(32, classes=3)[0], batch(8, 32), some_findings()
    tally = train_step(findings_step(network), frames, finding_NK, seed=0, number=0)
    logits_NK = pair(32, classes=3)[0].train()(frames).detach()  # before the step
    cells = [
        [((logits_NK[:, place] > 0) == called).logical_and(finding_NK[:, place] == true).sum().item()
         for true in (0, 1) for called in (False, True)]
        for place in range(3)
    ]  # fmt: skip
    assert tally.confusion == cells and sum(map(sum, cells)) == int((~finding_NK.isnan()).sum()) and cells[2] == [0] * 4
    assert tally.loss_sum == pytest.approx(8 * masked_loss(logits_NK, finding_NK).item(), rel=1e-6)


def test_a_batch_of_which_nothing_is_known_has_no_loss_and_moves_no_weight() -> None:
    network = pair(32, classes=3)[0]
    before = [value.detach().clone() for value in network.parameters()]
    tally = train_step(findings_step(network), batch(8, 32)[0], torch.full((8, 3), np.nan), seed=0, number=0)
    assert (tally.loss, tally.norm, tally.stopped, tally.samples) == (0.0, 0.0, False, 8)
    assert tally.confusion == [[0] * 4] * 3
    assert all(torch.equal(value, kept) for value, kept in zip(network.parameters(), before, strict=True))


@pytest.mark.numerical
def test_one_whole_step_lands_where_the_plain_reference_lands() -> None:
    ours, plain = pair(64)
    frames, labels = batch()
    tally = train_step(step_of(ours), frames, labels, seed=0, number=0)
    plain.train()
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    logits = plain(frames)
    reference = nn.functional.cross_entropy(logits, labels)
    reference.backward()
    optimiser.step()
    assert tally.loss == pytest.approx(reference.item(), rel=1e-5) and tally.loss_sum == 8 * tally.loss
    norm = torch.cat([value.grad.reshape(-1) for value in plain.parameters()]).norm()
    assert tally.norm == pytest.approx(norm.item(), rel=1e-3)
    assert tally.confusion == confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), 2).tolist()
    assert tally.samples == 8 and not tally.stopped
    ours.eval(), plain.eval()
    # Adam's first step moves each weight by the learning rate in its gradient's direction
    moved = dict(plain.named_parameters())
    for name, value in ours.named_parameters():
        differs = (value - moved[name]).abs() > 1e-4
        assert differs.float().mean() < 0.01, name


def test_the_network_is_the_recipes() -> None:
    network = Cnn(3, 224, 0.5)
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (1, 32), (32, 64), (64, 128), (128, 256), (256, 256)
    ]  # fmt: skip
    assert network(torch.zeros(2, 1, 224, 224)).shape == (2, 3)
    linears = [layer for layer in network.classifier if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(256 * 49, 512), (512, 3)]


@pytest.mark.numerical
def test_dropout_is_a_function_of_seed_and_step() -> None:
    def loss(seed: int, step: int) -> float:
        return train_step(step_of(pair(32, dropout=0.5)[0]), *batch(8, 32), seed=seed, number=step).loss

    torch.rand(17)
    assert loss(1, 5) == loss(1, 5)
    assert len({loss(1, 5), loss(1, 6), loss(2, 5)}) == 3


def test_a_non_finite_loss_changes_nothing() -> None:
    network = pair(32)[0]
    subject = step_of(network)
    healthy = train_step(subject, *batch(8, 32), seed=0, number=0)
    before = copy.deepcopy(network.state_dict())
    moments = copy.deepcopy(subject.learner.optimiser.state_dict())
    frames, labels = batch(8, 32)
    frames[3, 0, 4, 4] = float("nan")
    with pytest.raises(DivergedError, match=r"step 1: loss nan.*--learning-rate"):
        train_step(subject, frames, labels, seed=0, number=1)
    tally = subject.fetch()
    assert (tally.loss_sum, tally.samples, tally.confusion) == (healthy.loss_sum, 8, healthy.confusion)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    after = subject.learner.optimiser.state_dict()["state"]
    assert after and all(torch.equal(after[i][k], moments["state"][i][k]) for i in after for k in after[i])


@pytest.mark.numerical
def test_one_batch_is_overfitted() -> None:
    subject = step_of(pair(32)[0])
    frames, labels = batch(8, 32)
    losses = [train_step(subject, frames, labels, seed=0, number=number).loss for number in range(60)]
    assert losses[-1] < 0.01 < losses[0]


@pytest.mark.numerical
def test_class_weights_weigh_the_loss() -> None:
    frames, labels = batch(8, 32)
    labels[:] = torch.tensor([0] * 6 + [1] * 2)
    losses = []
    for weights in (None, np.array([1.0, 1.0]), np.array([0.5, 4.0])):
        losses.append(train_step(step_of(pair(32)[0], CPU, weights), frames, labels, seed=0, number=0).loss)
    assert losses[0] == pytest.approx(losses[1]) and losses[2] != pytest.approx(losses[0])


@pytest.mark.extras
@pytest.mark.skipif(not COMPILER, reason="torch.compile on a CPU needs a C++ compiler: install g++")
def test_compiled_and_eager_steps_agree() -> None:
    compiled = choose_policy("cpu", "off", "on", 0)
    results = []
    for policy in (CPU, compiled):
        network = pair(32)[0]
        subject = step_of(network, policy)
        losses = [train_step(subject, *batch(8, 32), seed=0, number=number).loss for number in range(3)]
        losses.append(train_step(subject, *batch(5, 32), seed=0, number=3).loss)  # the tail of an epoch
        results.append((losses, network.state_dict()))
    assert results[0][0] == pytest.approx(results[1][0], rel=2e-3)
    for name, value in results[0][1].items():
        if "num_batches" not in name:
            torch.testing.assert_close(value, results[1][1][name], rtol=0, atol=4e-3)


@pytest.mark.numerical
def test_bfloat16_autocast_stays_near_float32() -> None:
    mixed = choose_policy("cpu", "on", "off", 0)
    losses = [train_step(step_of(pair(32)[0], policy), *batch(8, 32), seed=0, number=0).loss for policy in (CPU, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


@pytest.mark.numerical
def test_prediction_covers_the_set_in_order_whatever_the_batch_size(betons) -> None:
    network = pair(32)[0]
    results = []
    for batch_size in (1, 7, 64):
        with Loader(betons / "val.beton", batch_size=batch_size, tensors=True) as loader:
            labels, logits = predict(network, loader, CPU)
            assert (labels == loader.beton.label_N).all()
            results.append(logits)
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)
    np.testing.assert_allclose(results[0], results[2], atol=1e-5)


def test_a_device_that_is_not_there_is_named() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"--device {missing}: not on this machine"):
        choose_policy(missing, "auto", "auto", 100)


def test_auto_is_eager_float32_on_a_cpu_and_switches_are_obeyed() -> None:
    auto = choose_policy("cpu", "auto", "auto", 10**9)
    assert auto.autocast is None and not auto.compiled and auto.memory_format == torch.channels_last
    asked = choose_policy("cpu", "on", "off", 1)
    assert asked.autocast == torch.bfloat16 and not asked.compiled


def test_compiling_without_a_compiler_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler found, expected one of .*--compile off"):
        choose_policy("cpu", "off", "on", 1)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert choose_policy("cpu", "off", "on", 1).compiled
