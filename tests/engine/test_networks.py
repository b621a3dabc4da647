"""The networks by name: what they take and give, the weights they begin with, and training the head first."""

# N batch, H W rows and columns, K classes

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import cli
from engine.config import Recipe, TrainConfig
from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.networks.extras import import_torchvision
from engine.networks.registry import (
    DEVIATION,
    MEAN,
    MODELS,
    NAMES,
    as_map,
    check_batches,
    freeze_body,
    last_convolution,
    make_network,
    network_of,
    to_training,
)
from engine.train.checkpoint import load_checkpoint, load_network, save_checkpoint
from engine.train.pretrained import Weights, adopt, default_file, find_weights, read_weights
from engine.train.run_folder import load_config
from engine.train.state import Watch
from engine.train.step import Step, make_learner, train_step
from engine.train.summary import Summary
from engine.train.train import train
from loaders.config import LoaderConfig
from loaders.errors import CheckpointError, ConfigError, Interrupted, StorageError
from loaders.records import read_record
from tests.example_run import small_training

SIDE = 32


def theirs(model: str, num_classes: int) -> nn.Module:
    """torchvision's own network, in three channels."""
    torch.manual_seed(5)
    sized = {"image_size": SIDE} if model == "vit_b_16" else {}
    network = import_torchvision("torchvision.models").get_model(model, weights=None, num_classes=num_classes, **sized)
    if model == "vit_b_16":  # torchvision begins with zeros there: nothing would be compared
        nn.init.normal_(network.heads.head.weight)
    return network.eval()


def frames(count: int, side: int = SIDE) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def config(betons: Path, out: Path, **changes: object) -> TrainConfig:
    return small_training(betons, out, **({"epochs": 2, "batch_size": 16} | changes))


def weights(run: Path, name: str = "last.safetensors") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name)[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- building


@pytest.mark.parametrize("model", NAMES)
def test_one_channel_gives_what_three_equal_channels_give(model: str) -> None:
    other, ours = theirs(model, 2), make_network(model, 2, SIDE, 0.5).eval()
    adopt(ours, model, other.state_dict(), "theirs")
    grey_N1HW = frames(2)
    expected_N3HW = (((grey_N1HW + 1) / 2 - MEAN) / DEVIATION).expand(-1, 3, -1, -1)  # as torchvision's weights want it
    with torch.inference_mode():
        wanted_NK = other(expected_N3HW)
        torch.testing.assert_close(ours(grey_N1HW), wanted_NK, rtol=1e-4, atol=1e-4)
    assert wanted_NK.std() > 1e-3


def test_initial_weights_come_from_torchs_generator() -> None:
    def made(model: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return make_network(model, 2, SIDE, 0.5).state_dict()

    assert same(made("resnet18", 1), made("resnet18", 1))
    assert not same(made("resnet18", 1), made("resnet18", 2))
    ours = made("cnn", 1)
    torch.manual_seed(1)
    assert same(ours, Cnn(2, SIDE, 0.5).state_dict())


@pytest.mark.parametrize("model", ["cnn", "resnet18", "densenet169"])
def test_a_checkpoints_state_rebuilds_the_network_with_three_classes_too(model: str) -> None:
    classes = ["covid", "normal", "pneumonia"]
    network = network_of({"network": model, "classes": classes, "crop": SIDE, "dropout": 0.5}).eval()
    with torch.inference_mode():
        assert network(frames(2)).shape == (2, 3)
    other = make_network(model, 3, SIDE, 0.5).eval()
    load_network(other, {f"network.{name}": tensor for name, tensor in network.state_dict().items()})
    with torch.inference_mode():
        assert torch.equal(other(frames(2)), network(frames(2)))


def test_an_unknown_network_in_a_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'alexnet', expected one of cnn, resnet18"):
        network_of({"network": "alexnet", "classes": ["a", "b"], "crop": SIDE, "dropout": 0.5})


def test_weights_of_another_network_are_refused_in_one_short_line() -> None:
    tensors = {f"network.{name}": tensor for name, tensor in make_network("cnn", 2, SIDE, 0.5).state_dict().items()}
    with pytest.raises(CheckpointError, match="of another network") as caught:
        load_network(make_network("resnet18", 2, SIDE, 0.5), tensors)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("model", "crop", "message"),
    [
        ("vit_b_16", 100, r"crops of 100, expected a side that 16 divides; convert with --size 96"),
        ("vit_b_16", 16, "expected at least 32"),
        ("densenet169", 28, "expected at least 32"),
        ("resnet18", 20, "expected at least 32"),
        ("cnn", 31, "expected at least 32"),
        ("lenet", 224, "'lenet', expected one of cnn"),
    ],
)
def test_crops_that_a_network_cannot_take_are_refused(model: str, crop: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_network(model, 2, crop, 0.5)


def test_a_batch_of_one_is_refused_exactly_where_batch_norm_could_not_learn_it() -> None:
    learns = nn.CrossEntropyLoss()
    for model, crop in (("resnet18", 32), ("resnet18", 33), ("densenet169", 60), ("densenet169", 61)):
        try:
            check_batches(model, crop, num_samples=33, batch_size=32)
            refused = False
        except ConfigError as error:
            assert "--batch-size" in str(error)
            refused = True
        network = make_network(model, 2, crop, 0.5).train()
        try:
            learns(network(frames(1, crop)), torch.tensor([0]))
            failed = False
        except ValueError:
            failed = True
        assert refused == failed, (model, crop)
    check_batches("resnet18", 32, num_samples=34, batch_size=32)
    check_batches("cnn", 32, num_samples=33, batch_size=32)


# ---- weights


def test_a_state_dict_and_safetensors_of_torchvision_are_taken_and_another_head_is_drawn_anew(tmp_path: Path) -> None:
    state = theirs("resnet18", 7).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    found = []
    for name in ("w.pth", "w.safetensors"):
        torch.manual_seed(0)
        network = make_network("resnet18", 2, SIDE, 0.5)
        drawn = network.head[1].weight.detach().clone()
        adopt(network, "resnet18", read_weights(tmp_path / name), name)
        assert torch.equal(network.head[1].weight, drawn)
        assert torch.equal(network.body.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
        found.append(network.state_dict())
    assert same(*found)
    assert torch.equal(found[0]["body.layer4.1.bn2.bias"], state["layer4.1.bn2.bias"])


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
@pytest.mark.parametrize(
    ("wrapped", "prefix"),
    [
        (lambda names: names, ""),
        (lambda names: {"state_dict": {"module." + name: value for name, value in names.items()}}, "module."),
        (
            lambda names: {"model_state_dict": {"_orig_mod." + name: names[name] for name in names}},
            "_orig_mod.",
        ),
        (lambda names: {"module._orig_mod." + name: value for name, value in names.items()}, "module._orig_mod."),
        (lambda names: {"model": {"state_dict": {"backbone." + name: names[name] for name in names}}}, "backbone."),
        (  # Lightning's, with tensors of its own
            lambda names: {
                "epoch": 3,
                "pytorch-lightning_version": "2.5.0",
                "state_dict": {"net." + name: value for name, value in names.items()} | {"loss.weight": torch.ones(2)},
                "hyper_parameters": {"rate": 0.1},
            },
            "net.",
        ),
    ],
)
def test_names_behind_a_prefix_are_taken_and_reported(
    tmp_path: Path, caplog, model: str, wrapped: Callable[[Weights], object], prefix: str
) -> None:
    state = (theirs(model, 2) if model != "cnn" else make_network(model, 2, SIDE, 0.5)).state_dict()
    torch.save(wrapped(state), tmp_path / "w.pth")
    network, expected = make_network(model, 2, SIDE, 0.5), make_network(model, 2, SIDE, 0.5)
    adopt(expected, model, state, "theirs")
    with caplog.at_level("INFO"):
        adopt(network, model, read_weights(tmp_path / "w.pth"), "w.pth")
    assert same(network.state_dict(), expected.state_dict())
    assert (f"behind {prefix};" in caplog.text) == bool(prefix)
    assert ("1 other tensors left out" in caplog.text) == (prefix == "net.")


def test_a_file_of_two_networks_and_one_with_half_a_network_behind_a_prefix_are_refused() -> None:
    network, state = make_network("resnet18", 2, SIDE, 0.5), theirs("resnet18", 2).state_dict()
    twice = {f"encoder_{which}.{name}": value for which in "qk" for name, value in state.items()}
    with pytest.raises(CheckpointError, match=r"behind encoder_k\. and behind encoder_q\., expected one network"):
        adopt(network, "resnet18", twice, "w.pth")
    half = {f"model.{name}": value for name, value in state.items() if not name.startswith("layer4")}
    with pytest.raises(CheckpointError, match=r"lack \d+ tensors"):
        adopt(network, "resnet18", half, "w.pth")


def test_a_head_of_the_same_size_is_taken_over(tmp_path: Path) -> None:
    state = theirs("resnet18", 2).state_dict()
    network = make_network("resnet18", 2, SIDE, 0.5)
    adopt(network, "resnet18", state, "theirs")
    assert torch.equal(network.head[1].weight, state["fc.weight"])


def test_old_names_of_densenets_default_weights_are_understood() -> None:
    state = theirs("densenet169", 1000).state_dict()
    old = {}
    for name, value in state.items():
        layer = "denselayer" in name
        for kind in ("norm", "conv"):
            for number in "12":
                name = name.replace(f".{kind}{number}.", f".{kind}.{number}.") if layer else name
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    network = make_network("densenet169", 2, SIDE, 0.5)
    adopt(network, "densenet169", old, "theirs")
    own = network.state_dict()["body.features.denseblock1.denselayer1.norm1.weight"]
    assert torch.equal(own, state["features.denseblock1.denselayer1.norm1.weight"])


def test_a_transformers_places_are_interpolated_to_another_crop() -> None:
    network = make_network("vit_b_16", 2, SIDE, 0.5)
    state = {name.removeprefix("body."): tensor for name, tensor in network.state_dict().items()}
    state["encoder.pos_embedding"] = torch.full((1, 1 + 14**2, 768), 2.0)
    adopt(network, "vit_b_16", state, "of 224")
    assert network.body.encoder.pos_embedding.shape == (1, 1 + 2**2, 768)
    torch.testing.assert_close(network.body.encoder.pos_embedding, torch.full((1, 5, 768), 2.0))
    state["encoder.pos_embedding"] = torch.zeros(1, 1 + 12, 768)
    with pytest.raises(CheckpointError, match="square picture"):
        adopt(network, "vit_b_16", state, "odd")


class Canary:
    """What torch.load would run, if it ran anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1), "x": Canary(tmp_path / "ran")}, tmp_path / "new.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    for name in ("new.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="could run code"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save(theirs("resnet18", 2).state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    contents = {"cut.pth": whole[: len(whole) // 2], "empty.pth": b"", "text.pth": b"hello", "x.safetensors": b"hello"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)
    for name, content in {"list.pth": [1, 2], "none.pth": {}, "numbers.pth": {"a": 1}}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match="no tensors by name"):
            read_weights(tmp_path / name)
    torch.save({"a": torch.tensor([float("nan")])}, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match="not finite"):
        read_weights(tmp_path / "nan.pth")
    with pytest.raises(ConfigError, match="no such file"):
        find_weights("cnn", str(tmp_path / "away.pth"))
    with pytest.raises(ConfigError, match="no such file"):
        find_weights("cnn", "")


def test_a_flipped_bit_of_weights_to_begin_with_is_noticed(tmp_path: Path) -> None:
    own, zipped = tmp_path / "own.safetensors", tmp_path / "w.pth"
    save_checkpoint(own, {"network.a": torch.ones(100)}, {"epoch": 1})
    torch.save({"a": torch.ones(100)}, zipped)
    one = torch.ones(1).numpy().tobytes()
    for path in (own, zipped):
        assert torch.equal(read_weights(path)["a"], torch.ones(100))
        content = bytearray(path.read_bytes())
        content[content.index(one * 100) + 200] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checksum.*damaged"):
            read_weights(path)


def test_weights_of_another_network_or_shape_are_named() -> None:
    network = make_network("resnet18", 2, SIDE, 0.5)
    state = theirs("resnet18", 2).state_dict()
    with pytest.raises(CheckpointError, match=r"lack \d+ tensors .*expected resnet18's"):
        adopt(network, "resnet18", make_network("cnn", 2, SIDE, 0.5).state_dict(), "w.pth")
    with pytest.raises(CheckpointError, match=r"1 more \(body\.extra\)"):
        adopt(network, "resnet18", state | {"extra": torch.zeros(1)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"body\.bn1\.bias is of \(3,\), expected \(64,\)"):
        adopt(network, "resnet18", state | {"bn1.bias": torch.zeros(3)}, "w.pth")
    with pytest.raises(CheckpointError, match=r"conv1\.weight is of \(64, 4, 7, 7\), expected \(64, 1, 7, 7\)"):
        adopt(network, "resnet18", state | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, "w.pth")


def test_default_weights_without_a_network_name_the_file_to_place_and_where(tmp_path: Path, monkeypatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ConfigError) as caught:
        default_file("resnet18")
    message = str(caught.value)
    assert "no route to host" in message and "\n" not in message
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    with pytest.raises(ConfigError, match="there are none for cnn"):
        default_file("cnn")


def test_a_file_in_place_of_default_weights_must_be_the_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir()
    path.write_bytes(b"another")
    with pytest.raises(CheckpointError, match="expected f37072fd"):
        default_file("resnet18")
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"resnet18-f37072fd\.pth"):
        default_file("resnet18")


# ---- the head first


def test_a_frozen_body_learns_nothing_nor_do_its_batch_norms() -> None:
    for model in ("cnn", "resnet18"):
        network = make_network(model, 2, SIDE, 0.5)
        assert freeze_body(network, True) and not freeze_body(network, True)
        learner = make_learner(
            network, choose_policy("cpu", "off", "off", 0), learning_rate=1e-3, batch_size=4, class_weight_K=None
        )
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        step = Step(learner, 2)
        train_step(step, frames(4), torch.tensor([0, 1, 0, 1]), seed=0, number=0)
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed and all(name.startswith(("classifier", "head")) for name in changed)
        assert freeze_body(network, False)
        train_step(step, frames(4), torch.tensor([0, 1, 0, 1]), seed=0, number=1)
        after = network.state_dict()
        still = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
        assert not [name for name in still if name.endswith((".weight", "running_mean")) and "bn" not in name]


def test_training_mode_of_any_other_network_is_plain() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)).requires_grad_(False).eval()
    to_training(network)
    assert network[0].training


def test_head_epochs_default_to_two_only_with_weights_to_begin_with() -> None:
    assert Recipe().frozen_epochs == 0
    assert Recipe(weights="default").frozen_epochs == 2
    assert Recipe(weights="w.pth", head_epochs=0).frozen_epochs == 0
    assert Recipe(head_epochs=5).frozen_epochs == 5
    with pytest.raises(ConfigError, match="--head-epochs: found -1"):
        Recipe(head_epochs=-1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a resnet18 with another head."""
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(theirs("resnet18", 7).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(betons: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resnet18 from weights: one epoch of the head, then one of everything."""
    out = tmp_path_factory.mktemp("training") / "run"
    train(config(betons, out, model="resnet18", weights=str(file), head_epochs=1))
    return out


def test_a_run_says_which_network_it_trained_and_what_it_began_with(run: Path) -> None:
    tensors, state = load_checkpoint(run / "best.safetensors")
    assert (state["network"], state["began_with"]) == ("resnet18", "resnet.pth")
    load_network(network_of(state), tensors)
    summary = read_record(Summary, run / "summary.json")
    assert (summary.model, summary.weights, summary.head_epochs) == ("resnet18", "resnet.pth", 1)
    assert summary.parameters == 11_171_266


def interrupted_and_resumed(settings: TrainConfig, after: int) -> None:
    """Stop a run when it has asked so often, and let it go on, without the file of weights that it began with."""
    count = iter(range(1000))
    with pytest.raises(Interrupted):
        train(settings, watch=Watch(stopping=lambda: next(count) >= after))
    if settings.recipe.weights != "none":
        Path(settings.recipe.weights).unlink()
    train(load_config(settings.out), resume=True)


@pytest.mark.parametrize("after", [2, 4, 6, 8])  # before, at and after the epoch from which everything learns
def test_a_run_interrupted_before_or_after_the_body_thaws_resumes_to_identical_weights(
    betons: Path, half_frozen: Path, tmp_path: Path, after: int
) -> None:
    interrupted_and_resumed(config(betons, tmp_path / "run", head_epochs=1), after)
    assert same(weights(half_frozen), weights(tmp_path / "run"))


@pytest.fixture(scope="module")
def half_frozen(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's network, one epoch of the head, then one of everything."""
    out = tmp_path_factory.mktemp("training") / "run"
    train(config(betons, out, head_epochs=1))
    return out


def test_a_resnet_interrupted_in_its_heads_epoch_resumes_to_identical_weights(
    betons: Path, run: Path, file: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "resnet.pth"
    shutil.copy(file, moved)
    settings = config(betons, tmp_path / "run", model="resnet18", weights=str(moved), head_epochs=1)
    interrupted_and_resumed(settings, 3)
    assert same(weights(run), weights(settings.out))
    assert same(weights(run, "best.safetensors"), weights(settings.out, "best.safetensors"))


def test_the_first_epochs_train_the_head_alone(betons: Path, tmp_path: Path) -> None:
    train(config(betons, tmp_path / "run", head_epochs=1, epochs=1))
    torch.manual_seed(0)
    drawn, head = Cnn(2, SIDE, 0.5).state_dict(), weights(tmp_path / "run")
    assert torch.equal(head["network.features.0.weight"], drawn["features.0.weight"])
    assert not torch.equal(head["network.classifier.4.weight"], drawn["classifier.4.weight"])


def test_the_device_path_trains_the_head_first_as_the_host_does(betons: Path) -> None:
    import contextlib

    from engine.train.epochs import DeviceEpochs, HostEpochs
    from engine.train.state import State
    from loaders.batches.loader import Loader

    ends = []
    for kind in (HostEpochs, DeviceEpochs):
        with contextlib.ExitStack() as stack:
            settings = LoaderConfig(training=True, batch_size=16, resident="auto")
            loader = stack.enter_context(Loader(betons / "train.beton", settings, tensors=True))
            val_loader = stack.enter_context(Loader(betons / "val.beton", settings, tensors=True, training=False))
            torch.manual_seed(0)
            network = make_network("resnet18", 2, SIDE, 0.0)
            learner = make_learner(
                network, choose_policy("cpu", "off", "off", 0), learning_rate=1e-4, batch_size=16, class_weight_K=None
            )
            epochs = kind(learner, loader, val_loader)
            state = State(conversion_id="", confusion=[[0, 0], [0, 0]])
            begun = network.body.conv1.weight.detach().clone()
            for frozen in (True, False):
                if freeze_body(network, frozen):
                    epochs.renew()
                list(epochs.train(state))
                assert torch.equal(network.body.conv1.weight, begun) == frozen
            ends.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-2, atol=2e-3, msg=lambda text, name=name: name + text)


def test_resuming_with_another_model_is_refused(betons: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"of run [0-9a-f]{32}, expected [0-9a-f]{32}"):
        train(replace(load_config(tmp_path / "run"), model="cnn"), resume=True)


def test_what_a_network_cannot_take_leaves_no_run_folder(betons: Path, tmp_path: Path, file: Path) -> None:
    for changes in ({"weights": str(tmp_path / "away.pth")}, {"weights": "default"}, {"weights": str(file)}):
        with pytest.raises((ConfigError, CheckpointError)):
            train(config(betons, tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--weights", "default"), 2), (("--model", "resnet18", "--weights", "code.pth"), 5)]
)
def test_the_command_line_refuses_wrong_weights_with_exit_codes(
    betons: Path, tmp_path: Path, monkeypatch, capsys, arguments: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.pth").write_bytes(pickle.dumps(Canary(tmp_path / "ran")))
    assert cli.main(["train", str(betons), "--out", "run", "--device", "cpu", *arguments]) == code
    printed = capsys.readouterr().err
    assert printed.startswith("plainfilm: ") and printed.count("\n") == 1
    assert not Path("run").exists() and not Path("ran").exists()


# ---- for explanations


@pytest.mark.parametrize("model", ["cnn", "resnet18", "densenet169"])
def test_gradients_reach_the_maps_of_the_last_convolution(model: str) -> None:
    network = make_network(model, 2, 64, 0.5).eval()
    if isinstance(network, Cnn):
        network.fused = False
    kept: list[torch.Tensor] = []
    layer = last_convolution(network)
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits_NK = network(frames(1, 64))
    (gradient,) = torch.autograd.grad(logits_NK[0, 1], kept[0])
    maps_NCHW = as_map(kept[0])
    assert maps_NCHW.dim() == 4 and maps_NCHW.shape[2] == maps_NCHW.shape[3] > 1
    assert as_map(gradient).abs().sum() > 0


def test_a_transformers_maps_leave_the_class_token_out() -> None:
    output_NPD = torch.arange(2 * 5 * 3).view(2, 5, 3)
    maps_NCHW = as_map(output_NPD)
    assert maps_NCHW.shape == (2, 3, 2, 2)
    assert torch.equal(maps_NCHW[1, :, 1, 0], output_NPD[1, 3])


def test_every_model_is_known_to_the_settings() -> None:
    assert MODELS == ("cnn", "resnet18", "densenet169", "vit_b_16")
    with pytest.raises(TypeError, match="expected a network of"):
        last_convolution(nn.Identity())
