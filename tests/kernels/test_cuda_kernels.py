"""The Triton kernels: in Triton's interpreter where there is no GPU, compiled for GPUs, and, marked cuda, on one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch's builds for CUDA")

ROOT = Path(__file__).parents[2]
HAS_CUDA = torch.cuda.is_available()
on_cuda = [pytest.mark.cuda, pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device: run make bench-gpu on one")]

# Triton decides at import whether a kernel is interpreted; a process of its own leaves torch.compile alone
INTERPRETED = """
import numpy as np, torch
from kernels.crops import affine_into, affine_scratch
from kernels.crops import crop_into
from kernels.cuda import batch_into
from loaders.sampling import epoch_matrices
from loaders.config import LoaderConfig
from tests import naive

generator = np.random.default_rng(0)
for side, crop in ((46, 32), (92, 64), (47, 33)):
    frames = generator.integers(0, 256, (6, side, side), np.uint8)
    margin = (side - crop) // 2
    for low, high in ((0, side - 1), (margin, side - 1 - margin)):
        for dtype, extra in ((torch.float32, 0.0), (torch.bfloat16, 2.0**-8)):
            config = LoaderConfig(training=True, rotation=180, zoom_low=0.0, zoom_high=0.5)
            inverse = epoch_matrices(config, 1, 6, crop, side)
            order = np.array([3, 1, 5, 0, 2, 4])
            labels = np.array([0, 1, 1, 0, 1, 2])
            out, out_labels = torch.full((3, 1, crop, crop), 9, dtype=dtype), torch.full((3,), 9)
            tensors = [torch.from_numpy(array) for array in (frames, order, labels, inverse[order])]
            position = torch.tensor([2])
            chosen = order[2:5]
            batch_into(out, out_labels, *tensors, position, low=low, high=high, staged=False)
            assert out_labels.tolist() == labels[2:5].tolist()
            host = np.empty((3, 1, crop, crop), np.float32)
            scratch = affine_scratch(crop, side)
            affine_into(host, frames.reshape(-1), chosen * side**2, side, inverse[chosen], low, high, scratch)
            assert np.abs(out.float().numpy() - host).max() <= 1e-6 + extra
            for n, sample in enumerate(chosen):
                oracle = naive.affine(frames[sample], inverse[sample], crop, low, high)
                assert np.abs(out[n, 0].float().numpy() - oracle).max() < 1e-3 + extra
            staged = torch.from_numpy(frames[chosen].copy())
            again, again_labels = torch.empty_like(out), torch.empty_like(out_labels)
            batch_into(again, again_labels, staged, *tensors[1:], position, low=low, high=high, staged=True)
            assert torch.equal(again, out) and torch.equal(again_labels, out_labels)
            identity = np.tile(np.array([[1, 0, margin], [0, 1, margin]], np.float32), (6, 1, 1))
            tensors[3] = torch.from_numpy(identity)
            batch_into(out, out_labels, *tensors, position, low=low, high=high, staged=False)
            batch_into(again, again_labels, *tensors[:3], None, position, low=low, high=high, staged=False)
            assert torch.equal(again, out) and torch.equal(again_labels, out_labels)
            crop_into(host, frames.reshape(-1), chosen * side**2, side)
            # the interpreter truncates to bfloat16 where a GPU rounds
            assert np.abs(again.float().numpy() - host).max() <= extra
print("agreed")
"""

FINDINGS = """
import sys
from pathlib import Path
import torch
from engine.device import choose_policy
from engine.train.device_batches import DeviceBatches, ResidentFrames, StreamedFrames
from loaders.batches.loader import Loader
from tests.findings_example import write_findings

folder = write_findings(Path(sys.argv[1]), counts={"train": 11}, crop=32, unknown=0.3)
policy = choose_policy("cpu", "off", "off", 0)
for training in (True, False):
    with Loader(folder / "train.beton", training=training, seed=3, batch_size=4, tensors=True) as loader:
        for frames in (ResidentFrames(loader, policy.device), StreamedFrames(loader, policy.device, 4)):
            batches = DeviceBatches(loader, frames, policy, 4)
            batches.triton = True
            number = 0
            for (wanted, labels, _), count in zip(loader, batches.begin(0, 0), strict=True):
                made, made_labels = batches.make(count)
                torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)
                torch.testing.assert_close(made_labels, labels, atol=0, rtol=0, equal_nan=True)
                assert made_labels.dtype == torch.float32 and made_labels.shape == (count, 3)
                batches.advance(count)
                number += count
            assert number == 11
            loader.set_epoch(0)
print("agreed")
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.cuda import batch_kernel

common = {"out_label_N": "*i64", "frames_MSS": "*u8", "order_O": "*i64", "label_O": "*i64", "position": "*i64"}
for architecture in (80, 90):
    for out in ("*fp32", "*bf16"):
        for staged in (False, True):
            constants = {"low": 1, "high": 318, "stored": 320, "crop": 224, "staged": staged}
            for types, more in (({}, {"inverse_O23": None}), ({"inverse_O23": "*fp32"}, {})):
                values = constants | more
                signature = {"out_N1HW": out} | common | types | dict.fromkeys(values, "constexpr")
                signature = {name: signature[name] for name in batch_kernel.arg_names}
                source = ASTSource(fn=batch_kernel, signature=signature, constexprs=values)
                target = GPUTarget("cuda", architecture, 32)
                made = triton.compile(source, target=target, options={"enable_fp_fusion": False})
                assert made.asm["cubin"] and "fma.rn.f32" not in made.asm["ptx"]
                assert ("cvt.rn.bf16" in made.asm["ptx"]) == (out == "*bf16")
print("compiled")
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.extras
def test_interpreted_kernels_agree_with_the_hosts_and_with_the_oracle() -> None:
    done = run(INTERPRETED, TRITON_INTERPRET="1")
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr


@pytest.mark.extras
def test_interpreted_kernels_make_batches_of_findings_with_every_label(tmp_path: Path) -> None:
    done = run(FINDINGS, str(tmp_path), TRITON_INTERPRET="1")
    assert done.returncode == 0 and "agreed" in done.stdout, done.stderr


@pytest.mark.extras
def test_kernels_compile_for_gpus_without_fused_multiply_adds(tmp_path: Path) -> None:
    done = run(COMPILED, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0 and "compiled" in done.stdout, done.stderr


def test_importing_the_engine_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import engine.train.train, engine.train.epochs"
    assert run(code).returncode == 0


def cuda_policy(**changes: object) -> object:
    from dataclasses import replace

    from engine.device import choose_policy, settle_precision

    policy = replace(choose_policy("cuda", "auto", "off", 0), **changes)
    settle_precision(policy)
    return policy


# Of captured and uncaptured steps: the largest relative distance of the first epoch's losses; after three epochs the
# mean distance of parameters and the relative one of running statistics. Measured on a CPU: weights that begin 1e-6
# apart give 1e-3, 3e-4, 0.05 in float32 and 0.03, 1.6e-3, 0.24 in bfloat16; a step that leaks gives at least 0.19,
# 2.6e-3, 0.24 and 0.2, 4.2e-3, 0.45.
BOUNDS = {None: (5e-3, 1e-3, 0.15), torch.bfloat16: (0.08, 2.4e-3, 0.35)}


class TestOnCuda:
    """What only a CUDA device can show."""

    pytestmark = on_cuda

    @pytest.mark.parametrize("resident", ["on", "off"])
    @pytest.mark.parametrize("training", [True, False])
    def test_batches_are_the_hosts(self, betons: Path, resident: str, training: bool) -> None:
        from engine.train.device_batches import DeviceBatches, frames_on_device
        from loaders.batches.loader import Loader

        policy = cuda_policy(autocast=None)
        with Loader(betons / "train.beton", training=training, seed=3, batch_size=16, tensors=True) as loader:
            (frames,) = frames_on_device([loader], policy.device, [16], resident=resident)
            batches = DeviceBatches(loader, frames, policy, 16)
            for (wanted, labels, _), count in zip(loader, batches.begin(0, 0), strict=True):
                made, made_labels = batches.make(count)
                torch.testing.assert_close(made.cpu(), wanted, rtol=0, atol=1e-6)
                assert torch.equal(made_labels.cpu(), labels)
                batches.advance(count)

    @pytest.mark.parametrize(("autocast", "dropout"), [(None, 0.0), (None, 0.5), (torch.bfloat16, 0.5)])
    def test_captured_steps_are_the_uncaptured_ones(
        self, betons: Path, autocast: torch.dtype | None, dropout: float
    ) -> None:
        from engine.train.state import State

        results = []
        for captured in (True, False):
            with device_epochs(betons, autocast, captured, dropout=dropout) as epochs:
                state = State(conversion_id="", confusion=[[0, 0], [0, 0]])
                losses = step_losses(epochs, state)
                for _ in range(2):
                    list(epochs.train(state))
                assert bool(epochs.run_step.graphs) == captured
                taken = [int(moments["step"]) for moments in epochs.learner.optimiser.state.values()]
                assert taken == [state.step] * len(taken) and state.step == 3 * len(losses)
                weights = epochs.learner.network.state_dict()
                results.append((state, losses, weights, epochs.validate(lambda samples: None)[1]))
        (ours, our_losses, weights, logits), (theirs, their_losses, others, other_logits) = results
        assert (ours.step, ours.loader) == (theirs.step, theirs.loader)
        assert ours.loss_sum == pytest.approx(theirs.loss_sum, rel=0.02)
        loss_bound, parameter_bound, statistic_bound = BOUNDS[autocast]
        assert our_losses[0] == pytest.approx(their_losses[0], rel=1e-4 if autocast is None else 1e-2)
        np.testing.assert_allclose(our_losses, their_losses, rtol=loss_bound)
        for name, value in weights.items():
            distance = (value - others[name]).abs().float()
            if name.endswith("num_batches_tracked"):
                assert value == others[name] == ours.step, name
            elif "running" in name:
                assert distance.norm() < statistic_bound * others[name].float().norm(), name
            else:
                assert distance.mean() < parameter_bound, name
        assert np.isfinite(logits).all() and np.isfinite(other_logits).all()

    @pytest.mark.filterwarnings("ignore:.*prototype")  # a warning of set_sync_debug_mode
    def test_an_epoch_waits_for_the_device_at_its_ends_only(self, betons: Path) -> None:
        from engine.train.state import State

        with device_epochs(betons, torch.bfloat16, True) as epochs:
            state = State(conversion_id="", confusion=[[0, 0], [0, 0]])
            list(epochs.train(state)), epochs.validate(lambda samples: None)
            real, real_cpu = epochs.step.fetch, torch.Tensor.cpu

            def allowed(function):
                def call(*arguments):
                    torch.cuda.set_sync_debug_mode("default")
                    try:
                        return function(*arguments)
                    finally:
                        torch.cuda.set_sync_debug_mode("error")

                return call

            epochs.step.fetch = allowed(real)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch.Tensor, "cpu", allowed(real_cpu))
                torch.cuda.set_sync_debug_mode("error")
                try:
                    list(epochs.train(state)), epochs.validate(lambda samples: None)
                finally:
                    torch.cuda.set_sync_debug_mode("default")

    def test_dropout_in_a_graph_is_a_function_of_seed_and_step(self, betons: Path) -> None:
        import engine.train.epochs
        from engine.train.state import State

        real = engine.train.epochs.scalar_seeds

        def losses(*, disturbed: bool = False, step: int = 7, more_seed: int = 0) -> np.ndarray:
            """Of one epoch, always of the same batches and first weights.  more_seed: added to dropout's seed only."""
            with device_epochs(betons, None, True) as epochs, pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    engine.train.epochs, "scalar_seeds", lambda seed, *others: real(seed + more_seed, *others)
                )
                if disturbed:
                    torch.cuda.manual_seed(99)
                    torch.rand(1000, device="cuda")
                found = step_losses(epochs, State(conversion_id="", confusion=[[0, 0], [0, 0]], step=step))
                assert epochs.run_step.graphs
                return np.array(found)

        first = losses()
        np.testing.assert_allclose(losses(disturbed=True), first, rtol=5e-3)
        for others in (losses(step=8), losses(more_seed=1)):
            assert np.abs(others / first - 1).max() > 0.02

    def test_a_training_captures_diverges_stops_and_resumes(self, betons: Path, tmp_path: Path) -> None:
        from dataclasses import replace

        from engine.config import Recipe, TrainConfig
        from engine.train.checkpoint import load_checkpoint
        from engine.train.run_folder import load_config
        from engine.train.state import Watch
        from engine.train.train import train
        from loaders.config import LoaderConfig
        from loaders.errors import DivergedError, Interrupted

        settings = LoaderConfig(training=True, batch_size=16)
        config = TrainConfig(data=betons, out=tmp_path / "run", recipe=Recipe(epochs=2, device="cuda"), loader=settings)
        count = iter(range(100))
        with pytest.raises(Interrupted):
            train(config, watch=Watch(stopping=lambda: next(count) >= 2))
        summary = train(load_config(config.out), resume=True)
        assert summary.epochs == 2
        log = (config.out / "train.log").read_text()
        assert "training step of 16 captured" in log and "uncaptured" not in log and "TF32 off" in log
        with pytest.raises(DivergedError, match="expected finite"):
            train(replace(config, out=tmp_path / "diverged", learning_rate=1e30))
        kept = load_checkpoint(tmp_path / "diverged" / "last.safetensors")[0]
        assert all(torch.isfinite(value).all() for value in kept.values())


def step_losses(epochs, state) -> list[float]:
    """Train one epoch; the loss of each step."""
    return [float(epochs.step.recipe.report[0]) for _ in epochs.train(state)]


def device_epochs(betons: Path, autocast: torch.dtype | None, captured: bool, *, dropout: float = 0.5):
    """Device epochs on CUDA, with its loaders open."""
    import contextlib

    from engine.networks.cnn import Cnn
    from engine.train.epochs import DeviceEpochs
    from engine.train.step import make_learner
    from loaders.batches.loader import Loader

    @contextlib.contextmanager
    def opened():
        policy = cuda_policy(autocast=autocast)
        torch.manual_seed(0)
        network = Cnn(2, 32, dropout)
        learner = make_learner(network, policy, learning_rate=1e-3, batch_size=16, class_weight_K=None)
        options = {"batch_size": 16, "tensors": True}
        with (
            Loader(betons / "train.beton", training=True, **options) as loader,
            Loader(betons / "val.beton", **options) as val_loader,
        ):
            epochs = DeviceEpochs(learner, loader, val_loader)
            if not captured:
                epochs.run_step.prepare = epochs.run_validation.prepare = lambda sizes: None
            yield epochs

    return opened()
