"""The device's training step and epochs, without a graph on CPU tensors; what needs CUDA is in test_cuda_kernels.py."""

import contextlib
import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import TrainConfig
from engine.device import Policy, choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import confusion_matrix
from engine.train import trainer
from engine.train.checkpoint import load_checkpoint
from engine.train.device_batches import (
    DeviceBatches,
    ResidentFrames,
    StreamedFrames,
    affine_portable,
    crop_portable,
    frames_on_device,
)
from engine.train.epochs import WARM_UPS, Captured, DeviceEpochs, DeviceStep, warm_up
from engine.train.run_folder import load_config
from engine.train.state import Watch
from engine.train.step import Learner, Step, make_learner, predict, train_step
from engine.train.train import train
from loaders.batches.loader import Loader
from loaders.cautions import caution
from loaders.config import LoaderConfig
from loaders.errors import BetonError, ConfigError, DivergedError, Interrupted
from loaders.sampling import DROPOUT, epoch_matrices, scalar_seed, scalar_seeds
from tests import naive
from tests.example_run import small_training
from tests.findings_example import write_findings

CPU = torch.device("cpu")
POLICY = choose_policy("cpu", "off", "off", 0)
OLD_MPS = replace(POLICY, found_inf=False)  # where fused Adam is deaf to the flag
BATCH = 16


@pytest.fixture
def loader(betons: Path) -> Iterator[Loader]:
    with Loader(betons / "train.beton", training=True, seed=3, batch_size=BATCH, tensors=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Betons of three findings, a third of whose labels are unknown."""
    counts = {"train": 2 * BATCH + 5, "val": 40}
    return write_findings(tmp_path_factory.mktemp("findings"), counts=counts, crop=32, unknown=0.3)


@pytest.fixture
def finding_loader(findings: Path) -> Iterator[Loader]:
    with Loader(findings / "train.beton", training=True, seed=3, batch_size=BATCH, tensors=True) as opened:
        yield opened


def learner(loader: Loader, policy: Policy = POLICY, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    facts = loader.beton.facts
    network = Cnn(len(facts.classes), facts.crop, 0.5)
    return make_learner(
        network, policy, learning_rate=1e-3, batch_size=BATCH, class_weight_K=None, task=facts.task
    )  # fmt: skip


def device_step(loader: Loader, policy: Policy = POLICY) -> DeviceStep:
    facts = loader.beton.facts
    batches, num_classes = DeviceBatches(loader, ResidentFrames(loader, CPU), policy, BATCH), len(facts.classes)
    step = DeviceStep(learner(loader, policy), batches, num_classes)
    step.begin(0.0, [[0] * (4 if facts.task == "findings" else num_classes)] * num_classes, 0)
    return step


def content(step: DeviceStep) -> list[torch.Tensor]:
    """Everything that a step changes, copied."""
    return [tensor.detach().clone() for tensor in step.touched]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


# ---- batches


@pytest.mark.parametrize("inner", [False, True])
def test_the_portable_batch_is_within_a_thousandth_of_the_oracle(inner: bool) -> None:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (4, 46, 46), np.uint8)
    config = LoaderConfig(training=True, rotation=180, zoom_low=0.0, zoom_high=0.5)
    inverse = epoch_matrices(config, 1, 4, 32, 46)
    low, high = (7, 38) if inner else (0, 45)
    found = affine_portable(torch.from_numpy(frames), torch.from_numpy(inverse), 32, low=low, high=high).numpy()
    for n in range(4):
        assert np.abs(found[n] - naive.affine(frames[n], inverse[n], 32, low, high)).max() < 1e-3


def test_the_portable_crop_is_the_oracles() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 46, 46), np.uint8)
    found = crop_portable(torch.from_numpy(frames), 32).numpy()
    for n in range(3):
        assert np.abs(found[n] - naive.crop(frames[n], 32)).max() < 1e-6


@pytest.mark.parametrize("order", ["random", "pages"])
@pytest.mark.parametrize("position", [0, 2 * BATCH])
def test_device_batches_are_the_loaders(betons: Path, order: str, position: int) -> None:
    with Loader(betons / "train.beton", training=True, seed=3, batch_size=BATCH, order=order, tensors=True) as loader:
        batches = DeviceBatches(loader, ResidentFrames(loader, CPU), POLICY, BATCH)
        loader.load_state_dict(loader.state_dict() | {"epoch": 2, "position": position})
        counts = batches.begin(2, position)
        for (frames, labels, _), count in zip(loader, counts, strict=True):
            made, made_labels = batches.make(count)
            assert torch.equal(labels, made_labels)
            torch.testing.assert_close(made, frames, atol=1e-3, rtol=0)
            batches.advance(count)


def test_validation_batches_are_the_loaders_to_the_bit(betons: Path) -> None:
    with Loader(betons / "val.beton", batch_size=7, tensors=True) as loader:
        for frames_kind in (ResidentFrames(loader, CPU), StreamedFrames(loader, CPU, 7)):
            batches = DeviceBatches(loader, frames_kind, POLICY, 7)
            for (frames, labels, _), count in zip(loader, batches.begin(0, 0), strict=True):
                made, made_labels = batches.make(count)
                assert torch.equal(made, frames) and torch.equal(labels, made_labels)
                batches.advance(count)


def test_streamed_batches_are_the_resident_ones(loader: Loader) -> None:
    resident = DeviceBatches(loader, ResidentFrames(loader, CPU), POLICY, BATCH)
    streamed = DeviceBatches(loader, StreamedFrames(loader, CPU, BATCH), POLICY, BATCH)
    number = 0
    for count, same in zip(resident.begin(1, BATCH), streamed.begin(1, BATCH), strict=True):
        assert count == same
        for ours, theirs in zip(resident.make(count), streamed.make(count), strict=True):
            assert torch.equal(ours, theirs)
        resident.advance(count), streamed.advance(count)
        number += 1
    assert number == len(loader) - 1 >= 2


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_device_batches_of_findings_are_the_loaders_with_every_label(finding_loader: Loader, kind: str) -> None:
    loader = finding_loader
    frames_kind = ResidentFrames(loader, CPU) if kind == "resident" else StreamedFrames(loader, CPU, BATCH)
    batches, unknown = DeviceBatches(loader, frames_kind, POLICY, BATCH), 0
    for (frames, finding_NK, _), count in zip(loader, batches.begin(0, 0), strict=True):
        made, made_NK = batches.make(count)
        assert made_NK.dtype == torch.float32 and made_NK.shape == (count, 3)
        torch.testing.assert_close(made_NK, finding_NK, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(made, frames, atol=1e-3, rtol=0)
        unknown += int(made_NK.isnan().sum())
        batches.advance(count)
    assert count < BATCH and unknown


@pytest.mark.parametrize("policy", [POLICY, OLD_MPS])
def test_an_epoch_of_findings_on_the_host_and_on_a_device_is_a_plain_loop_to_the_bit(
    finding_loader: Loader, policy: Policy
) -> None:
    loader = finding_loader
    device, plain = device_step(loader, policy), learner(loader, policy)
    host = Step(learner(loader, policy), 3)
    loss_sum, cells_K4 = 0.0, np.zeros((3, 4), np.int64)
    for number, count in enumerate(device.batches.begin(0, 0)):
        frames, finding_NK = (tensor.clone() for tensor in device.batches.make(count))
        torch.manual_seed(scalar_seed(3, DROPOUT, number))
        logits_NK = plain.network.train()(frames)
        loss = plain.loss(logits_NK, finding_NK)
        plain.optimiser.zero_grad()
        loss.backward()
        plain.optimiser.step()
        loss_sum += loss.item() * count
        for place, (finding_N, logit_N) in enumerate(zip(finding_NK.T, logits_NK.T, strict=True)):
            for finding, logit in zip(finding_N.tolist(), logit_N.tolist(), strict=True):
                if not np.isnan(finding):
                    cells_K4[place, int(2 * finding) + (logit > 0)] += 1
        assert train_step(host, frames, finding_NK, seed=3, number=number).loss == loss.item()
        torch.manual_seed(scalar_seed(3, DROPOUT, number))
        device(count)
    for step in (host, device):
        tally = step.fetch()
        assert tally.loss_sum == loss_sum and tally.confusion == cells_K4.tolist()
        assert tally.samples == loader.num_samples and not tally.stopped
        for name, value in plain.network.state_dict().items():
            assert torch.equal(step.learner.network.state_dict()[name], value), name


def test_frames_are_resident_where_they_fit_and_streamed_where_not(loader: Loader, betons: Path) -> None:
    def kinds(resident: str, room: int) -> set[type]:
        return set(map(type, frames_on_device([loader, loader], CPU, [8, 8], resident=resident, room=room)))

    assert kinds("auto", 1 << 40) == kinds("on", 1 << 40) == {ResidentFrames}
    assert kinds("auto", 1 << 20) == kinds("off", 1 << 40) == {StreamedFrames}
    with pytest.raises(ConfigError, match=r"--resident on: .* GB free on cpu, expected room"):
        kinds("on", 1 << 20)


@pytest.mark.parametrize("resident", ["on", "off"])
def test_a_damaged_frame_is_found_on_its_way_to_the_device(betons: Path, tmp_path: Path, resident: str) -> None:
    content = bytearray((betons / "train.beton").read_bytes())
    with Loader(betons / "train.beton") as whole:
        content[int(whole.beton.offset_N[5]) + 9] ^= 1
    (tmp_path / "train.beton").write_bytes(content)
    with (
        Loader(tmp_path / "train.beton", training=True) as loader,
        pytest.raises(BetonError, match="sample 5: checksum"),
    ):
        (frames,) = frames_on_device([loader], CPU, [8], resident=resident, room=1 << 40)
        list(frames.walk(loader.epoch_order(0), 0, 8))


# ---- the step


@pytest.mark.parametrize("policy", [POLICY, OLD_MPS, replace(POLICY, autocast=torch.bfloat16)])
def test_an_epoch_on_the_host_and_on_a_device_is_a_plain_loop_to_the_bit(loader: Loader, policy: Policy) -> None:
    device, host, plain = device_step(loader, policy), Step(learner(loader, policy), 2), learner(loader, policy)
    loss_sum, confusion = 0.0, np.zeros((2, 2), np.int64)
    for number, count in enumerate(device.batches.begin(0, 0)):
        frames, labels = (tensor.clone() for tensor in device.batches.make(count))
        torch.manual_seed(scalar_seed(3, DROPOUT, number))
        plain.network.train()
        with policy.precision():
            logits = plain.network(frames)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        plain.optimiser.zero_grad()
        loss.backward()
        plain.optimiser.step()
        loss_sum += loss.item() * count
        confusion += confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), 2)
        assert train_step(host, frames, labels, seed=3, number=number).loss == loss.item()
        torch.manual_seed(scalar_seed(3, DROPOUT, number))
        device(count)
    assert count < BATCH  # a tail
    for step in (host, device):
        tally = step.fetch()
        assert tally.loss_sum == loss_sum and tally.confusion == confusion.tolist()
        assert tally.samples == loader.num_samples and not tally.stopped
        for name, value in plain.network.state_dict().items():
            assert torch.equal(step.learner.network.state_dict()[name], value), name


@pytest.mark.parametrize("policy", [POLICY, OLD_MPS])
def test_after_a_step_that_is_not_finite_nothing_changes_any_more(loader: Loader, policy: Policy) -> None:
    step = device_step(loader, policy)
    counts = step.batches.begin(0, 0)
    step(next(counts))
    healthy = content(step)
    real, calls = step.batches.make, iter(range(9))

    def poisoned(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        frames, labels = real(count)
        frames = frames.clone()
        if next(calls) == 0:
            frames[0, 0, 3, 3] = float("nan")
        return frames, labels

    step.batches.make = poisoned  # type: ignore[method-assign]
    for _ in range(3):
        step(BATCH)
    assert equal(healthy[:-2], content(step)[:-2])  # all but the flag and the report
    tally = step.fetch()
    assert tally.stopped and np.isnan(tally.loss) and tally.samples == int(step.batches.position) == BATCH
    assert next(calls) == 3
    names = {name for name in step.learner.network.state_dict() if "running" in name}
    assert names and all(torch.isfinite(step.learner.network.state_dict()[name]).all() for name in names)


def test_a_gradient_that_is_not_finite_is_a_step_that_is_not(loader: Loader) -> None:
    step = device_step(loader)
    counts = step.batches.begin(0, 0)
    before = content(step)
    handle = step.recipe.parameters[3].register_hook(lambda gradient: gradient * float("inf"))
    step(next(counts))
    handle.remove()
    tally = step.fetch()
    assert tally.stopped and np.isfinite(tally.loss) and not np.isfinite(tally.norm)
    assert equal(before[:-2], content(step)[:-2])


def test_a_warm_up_leaves_everything_as_it_was_and_in_its_place(loader: Loader) -> None:
    step = device_step(loader)
    counts = step.batches.begin(0, 0)
    step(next(counts))
    before, places = content(step), [tensor.data_ptr() for tensor in step.touched]
    generator = torch.get_rng_state()
    calls = []
    warm_up(lambda size: (calls.append(size), step(size)), 5, step.touched, CPU)
    assert len(calls) == 3
    assert equal(before, content(step)) and [tensor.data_ptr() for tensor in step.touched] == places
    assert torch.equal(generator, torch.get_rng_state())
    state = step.learner.network.state_dict()
    touched = {tensor.data_ptr() for tensor in step.touched}
    assert all(parameter.data_ptr() in touched for parameter in step.learner.network.parameters())
    assert {
        value.data_ptr() for moments in step.learner.optimiser.state.values() for value in moments.values()
    } <= touched
    assert state.keys() == Cnn(2, 32, 0.5).state_dict().keys()


def test_a_step_touches_only_what_it_says_it_touches(loader: Loader) -> None:
    step = device_step(loader)
    counts = step.batches.begin(0, 0)
    everything = dict(step.learner.network.state_dict())
    before = copy.deepcopy(everything)
    warm_up(step, next(counts), step.touched, CPU)
    assert all(torch.equal(before[name], value) for name, value in everything.items())


def test_packed_buffers_keep_their_names_values_and_checkpoints(loader: Loader, tmp_path: Path) -> None:
    from engine.train.checkpoint import learner_tensors, restore, save_checkpoint

    step = device_step(loader)
    for count in step.batches.begin(0, 0):
        step(count)
    tensors = learner_tensors(step.learner)
    save_checkpoint(tmp_path / "c", tensors, {})
    other = learner(loader, seed=9)
    restore(other, load_checkpoint(tmp_path / "c")[0])
    again = learner_tensors(other)
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert int(other.network.state_dict()["features.1.num_batches_tracked"]) == len(loader)


def test_without_cuda_a_captured_function_is_the_function() -> None:
    total = torch.zeros(1)
    captured = Captured(total.add_, [total], CPU, "sum")
    captured.prepare([3, 2])
    assert total == 0
    captured(3), captured(2)
    assert total == 5


def test_validation_gives_the_logits_of_predict(betons: Path, loader: Loader) -> None:
    subject = learner(loader)
    with Loader(betons / "val.beton", batch_size=9, tensors=True) as val_loader:
        labels, logits = predict(subject.network, val_loader, POLICY)
        epochs = DeviceEpochs(subject, loader, val_loader)
        for _ in range(2):  # an epoch's begin where the last one ended
            found_labels, found = epochs.validate(lambda samples: None)
            assert (found_labels == labels).all()
            np.testing.assert_allclose(found, logits, atol=1e-5)


def test_seeds_drawn_at_once_are_those_drawn_one_by_one() -> None:
    steps = np.arange(5, 9, dtype=np.uint64)
    assert scalar_seeds(7, DROPOUT, steps) == [scalar_seed(7, DROPOUT, int(step)) for step in steps]


# ---- whole trainings


def config(betons: Path, out: Path, **changes: object) -> TrainConfig:
    return small_training(betons, out, **({"epochs": 2, "batch_size": BATCH} | changes))


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run the device's epochs, on CPU tensors."""

    def make_epochs(self: trainer.Training) -> DeviceEpochs:
        return DeviceEpochs(self.learner, self.loader, self.val_loader, self.config.loader.resident)

    monkeypatch.setattr(trainer.Training, "make_epochs", make_epochs)


def last(run: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return load_checkpoint(run / "last.safetensors")


def same_run(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, moments and state, the clocks apart."""
    (weights, state), (others, other) = last(a), last(b)
    for content in (state, other):
        for name in ("seconds", "rate"):
            content.pop(name)
        for row in content["history"]:
            row.pop("images_per_second")
    return state == other and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def whole(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two epochs on the device's path."""
    out = tmp_path_factory.mktemp("device") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer.Training,
            "make_epochs",
            lambda self: DeviceEpochs(self.learner, self.loader, self.val_loader, self.config.loader.resident),
        )
        train(config(betons, out))
    return out


def test_a_device_run_is_the_host_run_but_for_the_interpolations_rounding(
    betons: Path, whole: Path, tmp_path: Path
) -> None:
    train(config(betons, tmp_path / "host"))
    ours, host = (last(run)[1] for run in (whole, tmp_path / "host"))
    assert [ours[k] for k in ("step", "loader", "confusion", "finished")] == [
        host[k] for k in ("step", "loader", "confusion", "finished")
    ]
    assert ours["history"][0]["train_loss"] == pytest.approx(host["history"][0]["train_loss"], rel=0.02)


@pytest.mark.usefixtures("on_device")
def test_a_streamed_run_is_the_resident_run(betons: Path, whole: Path, tmp_path: Path) -> None:
    train(config(betons, tmp_path / "run", resident="off"))
    assert "streamed" in (tmp_path / "run" / "train.log").read_text()
    assert same_run(whole, tmp_path / "run")


# asked before each epoch, after each step and each validation batch
@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("after", [0, 1, 2, 4, 5, 6, 8])
def test_a_device_run_interrupted_anywhere_resumes_to_the_same_run(
    betons: Path, whole: Path, tmp_path: Path, after: int
) -> None:
    count = iter(range(100))
    with pytest.raises(Interrupted) as stop:
        train(config(betons, tmp_path / "run"), watch=Watch(stopping=lambda: next(count) >= after))
    assert f"interrupted at step {last(tmp_path / 'run')[1]['step']};" in str(stop.value)
    train(load_config(tmp_path / "run"), resume=True)
    assert same_run(whole, tmp_path / "run")


@pytest.mark.usefixtures("on_device")
def test_divergence_on_the_device_names_its_step_and_keeps_the_healthy_state(betons: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step [12]: loss .*expected finite"):
        train(config(betons, tmp_path / "run", learning_rate=1e30))
    tensors, state = last(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert state["step"] in (1, 2) and state["loader"]["position"] == state["step"] * BATCH


def test_writes_that_wait_lose_nothing(
    betons: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def make_epochs(self: trainer.Training) -> DeviceEpochs:
        self.pause, self.written = 1e9, 1e9  # as on a GPU, whose epochs are short
        return DeviceEpochs(self.learner, self.loader, self.val_loader)

    monkeypatch.setattr(trainer.Training, "make_epochs", make_epochs)
    written: list[int] = []
    real = trainer.RunFolder.record

    def record(self: trainer.RunFolder, history: list, *others: object) -> None:
        written.append(len(history))
        real(self, history, *others)

    monkeypatch.setattr(trainer.RunFolder, "record", record)
    train(config(betons, tmp_path / "run"))
    assert written == [2] and same_run(whole, tmp_path / "run")
    count = iter(range(100))
    with pytest.raises(Interrupted):
        train(
            config(betons, tmp_path / "broken"), watch=Watch(stopping=lambda: next(count) >= 7)
        )  # in the second epoch
    assert (tmp_path / "broken" / "best.safetensors").exists()
    train(load_config(tmp_path / "broken"), resume=True)
    assert written == [2, 1, 2] and same_run(whole, tmp_path / "broken")
    for name in ("run", "broken"):
        assert torch_equal(whole / "best.safetensors", tmp_path / name / "best.safetensors")
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        assert [event.step for event in events.Scalars("val/f1")] == [1, 2]


def torch_equal(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same tensors."""
    (ours, _), (theirs, _) = load_checkpoint(a), load_checkpoint(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_device_without_memory_left_is_a_memory_error_that_names_it(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: trainer.Training, resume: bool) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(trainer.Training, "run", run)
    with pytest.raises(MemoryError, match=r"^cpu: CUDA out of memory\. Tried to allocate 2\.00 GiB\.$"):
        train(config(betons, tmp_path / "run"))


CUDA = torch.device("cuda")


class Stream:
    """Waits for nothing."""

    def __init__(self, device: Any = None) -> None:
        self.waited: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waited.append(other)


class Graph:
    """Replays what was called while it was captured: here, it only counts."""

    def __init__(self) -> None:
        self.replayed = 0

    def replay(self) -> None:
        self.replayed += 1


class Recorder:
    """A function on a tensor, and in which of two ways it was called."""

    def __init__(self, fails: bool = False) -> None:
        self.total, self.fails, self.capturing = torch.zeros(1), fails, False
        self.called: list[tuple[int, bool]] = []

    def __call__(self, size: int) -> None:
        self.called.append((size, self.capturing))
        if self.capturing and self.fails:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        self.total += size


@pytest.fixture
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(fails=getattr(request, "param", False))
    current = Stream()

    @contextlib.contextmanager
    def capture(graph: Graph, *, pool: str, stream: Stream) -> Iterator[None]:
        assert pool == "pool" and stream.waited == [current] * len(current.waited)
        made.capturing, before = True, made.total.clone()
        try:
            yield
        finally:
            made.capturing = False
            made.total.copy_(before)  # a capture runs nothing

    fakes = {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": capture,
        "graph_pool_handle": lambda: "pool",
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: current,
        "set_stream": lambda stream: None,
        "synchronize": lambda device=None: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    return made


def test_each_size_is_warmed_up_and_captured_once_and_replayed_from_then_on(recorder: Recorder) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "sum")
    captured.prepare([32, 16, 32])
    captured.prepare([32])
    warm = [(size, capturing) for size in (32, 16) for capturing in [False] * WARM_UPS + [True]]
    assert recorder.called == warm and recorder.total == 0
    captured(32), captured(16), captured(32)
    assert recorder.called == warm
    assert [captured.graphs[size].replayed for size in (32, 16)] == [2, 1]  # type: ignore[attr-defined]


def test_a_size_that_was_not_prepared_runs_as_it_is(recorder: Recorder) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "sum")
    captured(5)
    assert recorder.called == [(5, False)] and recorder.total == 5


@pytest.mark.parametrize("recorder", [True], indirect=True)
def test_where_a_capture_fails_the_work_goes_on_uncaptured_and_the_log_says_why(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "training step")
    with caplog.at_level(logging.WARNING):
        captured.prepare([32, 16])
        captured.prepare([32])
    assert captured.failed  # once: what it leaves behind could spoil another capture
    assert caplog.messages == [captured.failed.text]
    reason = "CUDA error: operation not permitted when stream is capturing"
    assert captured.failed == caution("not-captured", work="training step", images=32, reason=reason)
    assert recorder.total == 0 and not captured.graphs
    captured(32)
    assert recorder.total == 32 and recorder.called[-1] == (32, False)
