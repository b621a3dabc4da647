"""Explanations: maps, the controls that they must pass, and the report's own trap."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from cli import main
from engine.config import EvaluateConfig, ExplainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.trained import load_trained
from engine.explain import by_finding, controls
from engine.explain.by_finding import (
    FindingExplanation,
    FindingsExplained,
    FindingsExplanation,
    as_two_classes,
    explain_finding,
)
from engine.explain.cam import METHODS, cam, evidence, opened
from engine.explain.controls import Deletion, Randomised, deletion, randomised, rank_correlation
from engine.explain.explain import explain
from engine.explain.findings import Explained, Explanation, explanation_parts, map_cautions
from engine.explain.gallery import overlay
from engine.explain.lungs import (
    ANSWERS,
    IN_BRIEF,
    LUNGS_ALONE,
    NOTHING,
    LungRatio,
    group_interval,
    lung_ratios,
    measure_lungs,
    region_of,
    sentence,
)
from engine.explain.pictures import choose, choose_of_finding, crops_of
from engine.networks.cnn import Cnn
from engine.networks.registry import DEVIATION, MEAN, make_network
from engine.statistics.estimates import Estimate
from engine.train.summary import Summary
from engine.train.train import train
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton, write_subset
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig, stored_side
from loaders.convert.convert import convert
from loaders.errors import CheckpointError, ConfigError, StorageError
from loaders.images.files import REFUSALS
from loaders.images.lungs import shipped_segmenter
from loaders.lungs.masks import Masks, find_masks, segmented
from loaders.output import Sheet
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record
from tests.conftest import made_once
from tests.example_run import finding_explained, small_training
from tests.findings_example import NAMES, write_findings

CROP = 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """A set of phantoms, its betons, and a network trained on them."""

    folder: Path
    table: Path
    best_f1: float

    @property
    def heldout(self) -> Path:
        return self.folder / "b" / "heldout.beton"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def explain(self, out: Path, **settings: object) -> Explained:
        values = {"beton": self.heldout, "masks": str(self.table), "samples": 6, "device": "cpu", "threads": 1}
        return explain(ExplainConfig(run=self.run, out=out, **values | settings))  # type: ignore[arg-type]


def make_case(factory: pytest.TempPathFactory, name: str, arms: float, strength: float) -> Case:
    folder = made_once(factory, name, lambda folder: train_case(folder, arms, strength))
    summary = read_record(Summary, folder / "run" / "summary.json")
    return Case(folder=folder, table=folder / "p" / "phantoms.csv", best_f1=summary.best_f1)


def train_case(folder: Path, arms: float, strength: float) -> None:
    table = write_phantoms(
        PhantomConfig(
            out=folder / "p",
            patients=200,
            images_per_patient=1,
            size=stored_side(CROP),
            arms=arms,
            strength=strength,
        )
    )
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table),
            out=folder / "b",
            size=CROP,
            holdout=0.2,
            workers=1,
            site_key=folder / "k",
        )
    )
    settings = {"epochs": 6, "dropout": 0.2, "batch_size": 8, "threads": 1, "rotation": 5.0}
    train(small_training(folder / "b", folder / "run", **settings))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The report's trap: raised arms follow the class, and there is nothing to see in the lungs."""
    return make_case(tmp_path_factory, "tied", arms=1, strength=0)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """No trap: arms by a fair coin, the finding plain to see."""
    return make_case(tmp_path_factory, "untied", arms=0, strength=1)


@pytest.fixture(scope="module")
def few(tied: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four held-out samples of the trap, for what does not depend on their number."""
    path = tmp_path_factory.mktemp("few") / "few.beton"
    with Beton(tied.heldout) as beton:
        write_subset([(beton, np.arange(4))], path, "heldout")
    return path


@pytest.fixture(scope="module")
def trapped(tied: Case, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    return tied.explain(tmp_path_factory.mktemp("trapped"))


@pytest.fixture
def small_run(betons: Path, tmp_path: Path) -> Path:
    """One epoch at crops of 32: a run, whatever it learnt."""
    train(small_training(betons, tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three findings, each a bright patch at a place of its own: betons in b, and a run that sees the patches."""

    def make(folder: Path) -> None:
        write_findings(folder / "b", counts={"train": 200, "val": 60, "heldout": 60}, unknown=0.2, strength=90)
        settings = {"epochs": 6, "dropout": 0.2, "batch_size": 8, "threads": 1, "rotation": 0.0}
        train(small_training(folder / "b", folder / "run", **settings))

    return made_once(tmp_path_factory, "patched", make)


def explain_patched(patched: Path, out: Path, **settings: object) -> FindingsExplained:
    plain = {"beton": patched / "b" / "heldout.beton", "masks": "usual", "samples": 6, "device": "cpu", "threads": 1}
    plain |= settings
    result = explain(ExplainConfig(run=patched / "run", out=out, **plain))  # type: ignore[arg-type]
    assert isinstance(result, FindingsExplained)
    return result


# ---- the trap


def test_arms_tied_to_the_class_score_high_and_the_model_is_reported_to_look_outside_the_lungs(
    tied: Case, trapped: Explained
) -> None:
    assert tied.best_f1 >= 0.85
    assert trapped.explanation.sentence.startswith("the model relies on what lies outside the lungs: ")
    lungs = trapped.explanation.lungs
    assert lungs and lungs.ratio.high is not None and lungs.limit is not None and lungs.ratio.high < lungs.limit
    assert lungs.masks == "phantom" and not lungs.segmenter and lungs.num_samples > 30


def test_without_the_tie_the_model_is_reported_to_look_at_the_lungs_and_whose_masks_show_it(
    untied: Case, tmp_path: Path
) -> None:
    explained = untied.explain(tmp_path, masks="auto")
    found, identity = explained.explanation, shipped_segmenter().record.identity
    assert untied.best_f1 >= 0.85
    assert found.sentence.startswith("the model relies on the lungs: ")
    assert found.lungs and found.lungs.ratio.low is not None and found.lungs.ratio.low > 1.5
    assert found.lungs.masks == "segmenter" and found.lungs.segmenter == identity and not found.cautions[1:]
    assert not found.randomised.failure and not found.deletion.failure
    table = explanation_parts(explained)[0]
    assert isinstance(table, Sheet) and table.rows[0][-1] == f"each film's own mask, found by segmenter {identity}"


def test_with_the_usual_region_maps_outside_it_show_something_and_maps_within_it_nothing(
    tied: Case, untied: Case, tmp_path: Path
) -> None:
    for case, opening in ((tied, ANSWERS["outside"]), (untied, NOTHING)):
        found = case.explain(tmp_path, masks="usual").explanation
        assert found.sentence.startswith(f"{opening}: ") and "usual region" in found.sentence
        assert found.lungs and found.lungs.masks == "template" and found.lungs.limit and found.lungs.ratio.low
        assert (found.lungs.ratio.low > found.lungs.limit) == (case is untied)
        assert caution("usual-lung-region") in found.cautions


def at_the_edge(lungs_HW: np.ndarray, place: str, width: int) -> np.ndarray:
    """A map of a mark at the crop's edge."""
    map_HW = np.zeros(lungs_HW.shape, np.float32)
    every, first, last = slice(None), slice(width), slice(-width, None)
    inside = {
        "border": (every, every), "left": (every, first), "right": (every, last), "top": (first, every),
        "bottom": (last, every), "corner": (first, first), "other corner": (last, last),
    }[place]  # fmt: skip
    map_HW[inside] = 1
    if place == "border":
        map_HW[width:-width, width:-width] = 0
    return map_HW


@pytest.mark.parametrize("width", [3, 6, 10])
@pytest.mark.parametrize("place", ["border", "left", "right", "top", "bottom", "corner", "other corner"])
def test_maps_at_the_films_edge_are_never_called_lungs(tied: Case, place: str, width: int) -> None:
    with Beton(tied.heldout) as beton:
        masks = find_masks(beton, "auto", None)
        lungs = [masks.crop_of(beton, sample)[0] for sample in range(0, 12)]
        lungs_NHW = np.stack([lungs_HW for lungs_HW in lungs if lungs_HW is not None])
    maps_NHW = np.stack([at_the_edge(lungs_HW, place, width) for lungs_HW in lungs_NHW])
    area_N, alone_N = lungs_NHW.mean((1, 2)), np.arange(len(lungs_NHW))
    edge = measure_lungs(lung_ratios(maps_NHW, lungs_NHW), area_N, alone_N, "segmenter", 0)
    whole = measure_lungs(lung_ratios(lungs_NHW.astype(np.float32), lungs_NHW), area_N, alone_N, "segmenter", 0)
    assert len(lungs_NHW) > 8 and region_of(edge) != "lungs" and region_of(whole) == "lungs"


def test_films_without_a_credible_mask_are_left_out_and_counted_by_reason(tied: Case, tmp_path: Path) -> None:
    with Beton(tied.heldout) as beton:
        frames = [np.array(beton.frame(sample)) for sample in range(len(beton))]
        for blank_SS in frames[::8]:
            blank_SS[:] = 90
        write_beton(tmp_path / "h.beton", frames, beton.label_N, beton.rows_N, beton.facts, beton.page_size)
    without, images = -(-len(frames) // 8), len(frames)
    explained = tied.explain(tmp_path, beton=tmp_path / "h.beton", masks="auto", samples=999)
    found = explained.explanation
    assert found.lungs and sum(found.lungs.without_mask.values()) == without
    assert found.lungs.without_mask.keys() <= {"lungs-missing", "lungs-uncertain", "lungs-unequal", "lungs-at-edge"}
    assert found.lungs.num_drawn == images and found.lungs.num_samples + found.lungs.num_empty == images - without
    assert {one.sample for one in found.samples if one.lung_ratio is None} >= set(range(0, images, 8))
    reasons = [f"{REFUSALS[reason][0]}: {count}" for reason, count in found.lungs.without_mask.items()]
    assert caution("images-without-mask", without=without, images=images, reasons=reasons) in found.cautions
    assert f"{without} images without a credible mask left out" in found.sentence
    table = explanation_parts(explained)[0]
    assert isinstance(table, Sheet) and f"{without} images without a credible mask left out" in table.rows[0][3]


def test_films_that_every_net_saw_have_no_mask(tied: Case, few: Path) -> None:
    shipped = shipped_segmenter()
    with Beton(few) as beton:
        seen = beton.rows_N["pixel_hash"][2].tobytes().hex()
        nets = [msgspec.structs.replace(net, pixels=[seen]) for net in shipped.record.nets]
        segmenter = replace(shipped, record=msgspec.structs.replace(shipped.record, nets=nets))
        masks = segmented(beton, segmenter)
        found = [masks.crop_of(beton, sample) for sample in range(4)]
    assert found[2] == (None, "lungs-seen") and all(found[place][1] == "" for place in (0, 1, 3))


def test_each_films_lungs_are_found_once(
    tied: Case, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    crop_of = Masks.crop_of
    monkeypatch.setattr(Masks, "crop_of", lambda self, beton, one: asked.append(one) or crop_of(self, beton, one))
    tied.explain(tmp_path, beton=few, masks="auto", samples=4)
    assert sorted(asked) == [0, 1, 2, 3]


def test_frames_that_show_the_lungs_alone_give_no_answer(betons: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("train", "val", "heldout"):
        with Beton(betons / f"{name}.beton") as beton:
            facts = replace(beton.facts, lungs="masked", segmenter="given")
            frames = map(beton.frame, range(len(beton)))
            write_beton(tmp_path / "b" / f"{name}.beton", frames, beton.labels, beton.rows_N, facts, beton.page_size)
    train(small_training(tmp_path / "b", tmp_path / "run"))
    config = ExplainConfig(run=tmp_path / "run", beton=tmp_path / "b" / "heldout.beton", device="cpu", samples=2)
    explained = explain(config)
    found = read_record(Explanation, explained.out / "explanation.json")
    assert found.lungs is None and found.region == "unknown" and LUNGS_ALONE in found.cautions
    assert found.sentence == f"{NOTHING}: {(found.distrust or LUNGS_ALONE).finding}"
    assert all(one.lung_ratio is None for one in found.samples)
    table = explanation_parts(explained)[0]
    assert isinstance(table, Sheet) and not any("lung ratio" in row[0] for row in table.rows)
    with pytest.raises(ConfigError, match=r"--masks: found usual, expected none, since .* shows the lungs alone"):
        explain(replace(config, masks="usual"))


def test_most_of_a_trapped_map_lies_beside_and_above_the_lungs(tied: Case) -> None:
    frames_N1HW, predicted_N, network = heldout_frames(tied)
    maps_NHW = cam(network, frames_N1HW, predicted_N, reference_N1HW=frames_N1HW)
    mean_HW = maps_NHW.mean(0)
    assert mean_HW[: CROP // 3].sum() > 0.5 * mean_HW.sum()  # shoulders, arms, clavicles


def test_the_controls_pass_for_a_trained_network(trapped: Explained) -> None:
    found = trapped.explanation
    assert not found.randomised.failure and abs(found.randomised.correlation or 0) < 0.3
    assert not found.deletion.failure and found.deletion.area_by_map < found.deletion.area_at_random


# ---- files


def test_files_hold_what_was_found_and_every_overlay_is_there(trapped: Explained) -> None:
    content = read_record(Explanation, trapped.out / "explanation.json")
    assert content == trapped.explanation and content.region == "outside" and content.set_name == trapped.out.name
    assert re.fullmatch("heldout-[0-9a-f]{8}", trapped.out.name)
    assert content.method == "HiResCAM" and content.layer.startswith("features.")
    assert content.not_for_diagnosis is True and content.lungs and not content.distrust
    assert 1 <= len(content.samples) <= 6
    for sample in content.samples:
        assert (sample.label == sample.predicted) or sample.kind != "right"
        with Image.open(trapped.out / sample.overlay) as picture:
            assert picture.mode == "RGB" and picture.width > 2 * picture.height * 0.8
    for name in ("gallery.png", "deletion.png"):
        with Image.open(trapped.out / name) as picture:
            picture.verify()


def test_the_command_reports_the_same_again_and_leaves_no_overlay_of_the_first_time(
    tied: Case, trapped: Explained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trapped.out, tmp_path / trapped.out.name)
    arguments = ["explain", str(tied.run), str(tied.heldout), "--masks", str(tied.table), "--out", str(tmp_path)]
    assert main([*arguments, "--samples", "2", "--threads", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert f"{trapped.out.name}: {trapped.explanation.sentence}." in printed and "not for diagnosis" in printed
    assert str(tmp_path / trapped.out.name / "gallery.png") in printed
    assert [path.name for path in sorted((tmp_path / trapped.out.name).glob("0*.png"))] == ["0001.png", "0002.png"]
    again = read_record(Explanation, tmp_path / trapped.out.name / "explanation.json")
    assert msgspec.structs.replace(again, samples=trapped.explanation.samples) == trapped.explanation


def test_a_full_disk_leaves_the_overlays_of_the_first_time(
    tied: Case, few: Path, trapped: Explained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise StorageError(f"{path}: No space left on device, expected {len(content)} bytes of room")

    shutil.copytree(trapped.out, tmp_path / trapped.out.name)
    first = {path.name: path.read_bytes() for path in trapped.out.iterdir()}
    monkeypatch.setattr("engine.explain.explain.publish_bytes", fail)
    with pytest.raises(StorageError):
        tied.explain(tmp_path, beton=few, masks="usual", samples=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / trapped.out.name).iterdir()} == first


# ---- maps


def heldout_frames(case: Case) -> tuple[torch.Tensor, np.ndarray, nn.Module]:
    from kernels.crops import crop_into

    network = load_trained(case.run).network
    with Beton(case.heldout) as beton:
        frames_N1HW = np.empty((len(beton), 1, CROP, CROP), np.float32)
        crop_into(frames_N1HW, beton.bytes_B, beton.offset_N, beton.side)
    frames = torch.from_numpy(frames_N1HW)
    with torch.no_grad():
        return frames, network(frames).argmax(1).numpy(), network


def halves(model: str, network: nn.Module, frames: torch.Tensor) -> tuple[torch.Tensor, Callable, Callable]:
    """The explained layer's output, what follows it, and its maps N×C×H×W, each written out by hand."""
    if model == "cnn":  # at crops of 32 the second block: convolution, batch norm, max-pool, ReLU
        blocks = list(network.features.children())
        first = nn.Sequential(*blocks[:4])(frames)
        maps = blocks[5](blocks[4](first)).relu()
        return maps, lambda maps: network.classifier(nn.Sequential(*blocks[8:])(blocks[6](maps))), lambda maps: maps
    body, head = network.body, network.head
    scaled = frames * (0.5 / DEVIATION) + (0.5 - MEAN) / DEVIATION
    if model == "resnet18":
        stem = body.maxpool(body.relu(body.bn1(body.conv1(scaled))))
        maps = body.layer4(body.layer3(body.layer2(body.layer1(stem))))
        return maps, lambda maps: head(maps.mean((2, 3))), lambda maps: maps
    if model == "densenet169":
        return body.features(scaled), lambda maps: head(maps.relu().mean((2, 3))), lambda maps: maps
    patches = body.conv_proj(scaled).flatten(2).transpose(1, 2)
    tokens = torch.cat([body.class_token.expand(len(frames), -1, -1), patches], 1) + body.encoder.pos_embedding
    *blocks, last = body.encoder.layers.children()
    tokens = nn.Sequential(*blocks)(tokens)

    def rest(normed: torch.Tensor) -> torch.Tensor:
        attended = tokens + last.self_attention(normed, normed, normed, need_weights=False)[0]
        return head(body.encoder.ln(attended + last.mlp(last.ln_2(attended)))[:, 0])

    return last.ln_1(tokens), rest, lambda tokens: tokens[:, 1:].transpose(1, 2).reshape(len(frames), -1, 2, 2)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("model", ["cnn", "resnet18", "densenet169", "vit_b_16"])
def test_maps_are_activations_times_gradients_taken_by_hand(model: str, num_classes: int) -> None:
    torch.manual_seed(0)
    network, frames = make_network(model, num_classes, 32, 0.5).eval(), torch.randn(3, 1, 32, 32)
    target_N = np.array([0, 1, num_classes - 1])
    with torch.no_grad():
        output, rest, as_maps = halves(model, network, frames)
    output.requires_grad_()
    logits = rest(output)
    torch.testing.assert_close(logits, network(frames), rtol=1e-4, atol=1e-5)
    probability = logits.softmax(1).gather(1, torch.from_numpy(target_N)[:, None])
    (gradient,) = torch.autograd.grad((probability / (1 - probability)).log().sum(), output)
    activation, gradient = as_maps(output.detach()), as_maps(gradient)
    wanted = {
        "hirescam": (gradient * activation).sum(1),
        "gradcam": (gradient.mean((2, 3), keepdim=True) * activation).sum(1),
    }
    reference = torch.randn(5, 1, 32, 32)
    with torch.no_grad():
        mean = halves(model, network, reference)[0].mean(0, keepdim=True)
    around = (gradient * (activation - as_maps(mean.expand(3, *mean.shape[1:])))).sum(1)
    for method, maps in wanted.items():
        found = evidence(network, frames, target_N, method=method)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, maps, rtol=1e-3, atol=2e-6 * float(maps.abs().max() + 1))
    found = evidence(network, frames, target_N, reference_N1HW=reference)
    np.testing.assert_allclose(found, around, rtol=1e-3, atol=2e-6 * float(around.abs().max() + 1))


@pytest.mark.parametrize(
    ("model", "method"),
    [
        *(("cnn", method) for method in METHODS),
        ("resnet18", "gradcam"),
        ("densenet169", "hirescam"),
        ("vit_b_16", "gradcam"),
    ],
)
def test_every_network_and_method_gives_maps_of_the_crops_size_between_0_and_1(model: str, method: str) -> None:
    torch.manual_seed(1)
    network = make_network(model, 3, 32, 0.5).eval()
    frames = torch.randn(3, 1, 32, 32)
    before = network(frames).detach()
    maps_NHW = cam(network, frames, np.array([0, 1, 2]), method=method, reference_N1HW=frames)  # type: ignore[arg-type]
    assert maps_NHW.shape == (3, 32, 32) and maps_NHW.dtype == np.float32
    assert maps_NHW.min() >= 0 and maps_NHW.max() <= 1
    assert set(np.unique(maps_NHW.max((1, 2)).round(5))) <= {0.0, 1.0}
    torch.testing.assert_close(network(frames), before)  # as it was


def test_the_recipes_order_of_layers_is_restored_even_after_an_error() -> None:
    network = Cnn(2, 32, 0.5)
    kinds = [type(layer) for layer in network.features]
    with pytest.raises(RuntimeError), opened(network):
        assert not network.fused
        raise RuntimeError
    assert network.fused and network.training and [type(layer) for layer in network.features] == kinds


@pytest.mark.parametrize(("crop", "cells"), [(32, 16), (64, 16), (128, 16), (224, 14)])
def test_the_layer_is_the_deepest_with_14_cells_a_side(crop: int, cells: int) -> None:
    network = Cnn(2, crop, 0.5)
    assert evidence(network, torch.randn(1, 1, crop, crop), np.array([0])).shape == (1, cells, cells)


def test_maps_do_not_depend_on_what_else_is_in_the_batch() -> None:
    torch.manual_seed(2)
    network, frames = Cnn(2, 32, 0.5).eval(), torch.randn(20, 1, 32, 32)
    target_N = np.arange(20) % 2
    whole = cam(network, frames, target_N, reference_N1HW=frames)
    one = cam(network, frames[17:18], target_N[17:18], reference_N1HW=frames)
    np.testing.assert_allclose(whole[17], one[0], atol=1e-4)


# ---- controls


def test_a_network_against_itself_fails_the_randomised_check() -> None:
    torch.manual_seed(3)
    network, frames = Cnn(2, 32, 0.5).eval(), torch.randn(4, 1, 32, 32)
    options = {"method": "hirescam", "reference_N1HW": frames, "seed": 0}
    same = randomised(network, lambda: network, frames, np.zeros(4, np.int64), **options)  # type: ignore[arg-type]
    assert same.correlation == pytest.approx(1) and same.failure == caution("maps-of-random-weights")


def test_maps_of_one_value_are_not_reported_to_look_like_random_ones() -> None:
    network, frames = Cnn(2, 32, 0.5).eval(), torch.zeros(2, 1, 32, 32)
    options = {"method": "hirescam", "reference_N1HW": frames, "seed": 0}
    found = randomised(network, lambda: Cnn(2, 32, 0.5), frames, np.zeros(2, np.int64), **options)  # type: ignore[arg-type]
    assert found.correlation is None and found.failure == caution("maps-not-comparable")


def test_random_orders_have_as_many_cells_as_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    enlarge = controls.upsample

    def watch(map_NHW: np.ndarray, rows: int, columns: int) -> np.ndarray:
        shapes.append(map_NHW.shape)
        return enlarge(map_NHW, rows, columns)

    monkeypatch.setattr(controls, "upsample", watch)
    network, frames = make_network("resnet18", 2, 64, 0.5).eval(), torch.randn(2, 1, 64, 64)
    target_N, fill_HW = np.zeros(2, np.int64), np.zeros((64, 64), np.float32)
    cells = evidence(network, frames, target_N).shape[1:]
    assert cells < (14, 14)
    deletion(network, frames, cam(network, frames, target_N), target_N, target_N, fill_HW, cells=cells, seed=0)
    assert set(shapes) == {(2, *cells)}


def test_the_randomised_check_leaves_torchs_generator_alone() -> None:
    network, frames = Cnn(2, 32, 0.5).eval(), torch.randn(2, 1, 32, 32)
    state = torch.random.get_rng_state()
    options = {"method": "hirescam", "reference_N1HW": frames, "seed": 0}
    randomised(network, lambda: Cnn(2, 32, 0.5), frames, np.zeros(2, np.int64), **options)  # type: ignore[arg-type]
    assert torch.equal(state, torch.random.get_rng_state())


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 8, 8))
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first.ravel(), second.ravel())[0])
    assert np.isnan(rank_correlation(first, np.zeros((8, 8))))


class Corner(nn.Module):
    """Says class 1 in proportion to how bright the upper left quarter is."""

    def forward(self, frames_N1HW: torch.Tensor) -> torch.Tensor:
        score_N = 6 * frames_N1HW[:, 0, :16, :16].mean((1, 2)) - 3
        return torch.stack([-score_N, score_N], 1)


@pytest.mark.parametrize(("place", "passed"), [(slice(0, 16), True), (slice(16, 32), False)])
def test_deletion_passes_for_a_map_on_what_matters_and_fails_elsewhere(place: slice, passed: bool) -> None:
    frames = torch.ones(12, 1, 32, 32)
    maps_NHW = np.zeros((12, 32, 32), np.float32)
    maps_NHW[:, place, place] = 1
    found = deletion(
        Corner(), frames, maps_NHW, np.ones(12, np.int64), np.arange(12), np.zeros((32, 32), np.float32),
        cells=(14, 14), seed=0,
    )  # fmt: skip
    assert found.failure == (None if passed else caution("deletion-not-faster"))
    assert found.by_map[0] == found.at_random[0] and found.by_map[-1] == pytest.approx(found.at_random[-1])


# ---- the lungs' share


def test_the_lung_ratio_is_1_by_chance_and_the_inverse_area_when_all_lies_within() -> None:
    lungs_NHW = np.zeros((4, 8, 8), bool)
    lungs_NHW[:, :4, :4] = True
    cam_NHW = np.stack([np.ones((8, 8)), lungs_NHW[0], ~lungs_NHW[0], np.zeros((8, 8))]).astype(np.float32)
    ratio_N = lung_ratios(cam_NHW, lungs_NHW)
    np.testing.assert_allclose(ratio_N[:3], [1, 4, 0])
    assert np.isnan(ratio_N[3])  # no map


def test_the_interval_resamples_groups_and_one_group_has_none() -> None:
    value_N = np.repeat([0.0, 1.0, 0.0, 1.0, 2.0], 20)
    by_group = group_interval(value_N, np.repeat(np.arange(5), 20), 0)
    by_image = group_interval(value_N, np.arange(100), 0)
    assert by_group.value == by_image.value == pytest.approx(0.8)
    assert by_group.high is not None and by_group.low is not None and by_image.high is not None
    assert by_group.high - by_group.low > 2 * (by_image.high - (by_image.low or 0))
    assert group_interval(value_N, np.zeros(100), 0) == Estimate(
        value=pytest.approx(0.8), low=None, high=None, method=""
    )
    assert group_interval(value_N[:0], np.zeros(0), 0).value is None


@pytest.mark.parametrize(
    ("low", "high", "opening"),
    [
        (0.5, 1.4, "the model relies on what lies outside the lungs: "),
        (1.2, 1.8, "it cannot be told what the model relies on: "),
        (1.7, 2.2, "the model relies on the lungs: "),
    ],
)
def test_the_sentence_goes_by_the_interval(low: float, high: float, opening: str) -> None:
    lungs = LungRatio(
        ratio=Estimate(value=(low + high) / 2, low=low, high=high, method="bootstrap"),
        area=7 / 17, num_samples=9, num_empty=3, num_outside=0, without_mask={}, masks="folder", segmenter="",
    )  # fmt: skip
    assert lungs.limit == pytest.approx(1.5)
    assert (
        sentence(lungs).startswith(opening) and "n = 9" in sentence(lungs) and "lies in the lungs as" in sentence(lungs)
    )
    assert ANSWERS[region_of(lungs)] == opening.removesuffix(": ") and "3 empty maps left out" in sentence(lungs)
    for code in ("maps-of-random-weights", "maps-not-comparable", "deletion-not-faster"):
        distrust = caution(code)  # a failed control takes the praise and the warning alike
        assert sentence(lungs, distrust) == f"it cannot be told what the model relies on: {distrust.text}"
        assert region_of(lungs, distrust) == "unknown"


def test_pictures_whose_map_is_empty_or_whose_lungs_are_not_in_the_crop_are_counted() -> None:
    ratio_N, area_N = np.array([1.2, np.nan, 0.8, np.nan, np.nan]), np.array([0.3, 0.3, 0.3, 0.3, 0.0])
    found = measure_lungs(ratio_N, area_N, np.arange(5), "folder", 0)
    assert (found.num_samples, found.num_empty, found.num_outside) == (2, 2, 1)
    passed = Deletion(
        share=[0.0, 1.0], by_map=[1.0, 0.0], at_random=[1.0, 1.0],
        difference=Estimate(value=-0.5, low=-0.6, high=-0.4, method="bootstrap"), num_samples=4,
    )  # fmt: skip
    made = map_cautions(found, Randomised(correlation=0.0, num_samples=4, num_empty=0), passed, 40)
    assert made == [caution("empty-maps", empty=2, images=5), caution("lungs-outside-crop", outside=1, images=5)]


def test_the_randomised_check_counts_only_pictures_whose_map_varies() -> None:
    network = Cnn(2, 32, 0.5).eval()
    frames = torch.cat([torch.randn(3, 1, 32, 32), torch.zeros(1, 1, 32, 32)])
    real = controls.evidence
    options = {"method": "hirescam", "reference_N1HW": frames, "seed": 0}

    def without_the_last(*arguments: object, **others: object) -> np.ndarray:
        found_NHW = real(*arguments, **others)
        found_NHW[-1] = 0
        return found_NHW

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "evidence", without_the_last)
        found = randomised(network, lambda: Cnn(2, 32, 0.5), frames, np.zeros(4, np.int64), **options)  # type: ignore[arg-type]
    assert (found.num_samples, found.num_empty) == (3, 1)


# ---- choice


def test_each_kind_is_chosen_best_first_classes_in_turn_and_no_sample_twice() -> None:
    label_N = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    positive_N = np.array([0.9, 0.8, 0.52, 0.05, 0.3, 0.49, 0.02, 0.97])  # of class 0
    chosen = choose(label_N, np.stack([positive_N, 1 - positive_N], 1), 6)
    assert chosen == [(0, "right"), (3, "right"), (6, "wrong"), (7, "wrong"), (2, "borderline"), (5, "borderline")]
    everything = choose(label_N, np.stack([positive_N, 1 - positive_N], 1), 100)
    assert sorted(sample for sample, _ in everything) == list(range(8))


@pytest.mark.parametrize("name", ["...beton", "..beton"])
def test_results_on_a_beton_of_an_odd_name_lie_below_the_folder_asked_for(
    tied: Case, few: Path, trapped: Explained, tmp_path: Path, name: str
) -> None:
    path = shutil.copyfile(few, tmp_path / name)
    config = ExplainConfig(run=tied.run, beton=path, out=tmp_path / "x", samples=1, measured=1, device="cpu")
    assert explain(config).out == tmp_path / "x" / trapped.out.name
    settings = EvaluateConfig(run=tied.run, betons=(path,), out=tmp_path / "e", resamples=100, device="cpu")
    assert evaluate(settings)[0].out == tmp_path / "e" / trapped.out.name


# ---- pictures


def test_an_overlay_shows_the_map_where_it_is_and_leaves_the_rest_grey() -> None:
    cam_HW = np.zeros((64, 64), np.float32)
    cam_HW[8:24, 8:24] = 1
    drawn = overlay(np.full((64, 64), 120, np.uint8), cam_HW, None, ("predicted covid", "c" * 500))
    picture = np.asarray(drawn).astype(int)
    left, right = picture[:256, :256], picture[:256, -256:]
    assert (left == 120).all() and (right[160:, 160:] == 120).all()
    assert np.ptp(right[64, 64]) > 60  # coloured


# ---- bad input


def test_a_run_without_weights_another_size_other_classes_and_a_bad_setting_are_refused(
    small_run: Path, phantoms: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*arguments: object) -> tuple[int, str]:
        code = main(["explain", *map(str, arguments)])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return code, error

    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms), out=tmp_path / "big", size=64, workers=1, site_key=tmp_path / "k"
        )
    )
    code, error = refusal(small_run, tmp_path / "big" / "val.beton")
    assert code == 3 and "convert it with --size 32" in error
    code, error = refusal(small_run, betons / "heldout.beton", "--samples", "0")
    assert code == 2 and "--samples: found 0" in error
    code, error = refusal(small_run)
    assert code == 2 and "BETON: missing" in error
    code, error = refusal(small_run, tmp_path / "nothing.beton")
    assert code == 4 and "nothing.beton" in error
    shutil.copytree(small_run, tmp_path / "empty")
    (tmp_path / "empty" / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        explain(ExplainConfig(run=tmp_path / "empty", beton=betons / "heldout.beton"))
    with pytest.raises(ConfigError, match="not a folder, expected a run folder"):
        explain(ExplainConfig(run=tmp_path / "no-run", beton=betons / "heldout.beton"))


def test_three_classes_and_a_beton_of_one_sample_work_and_one_group_decides_nothing(tmp_path: Path) -> None:
    names = ("covid", "normal", "pneumonia")
    config = PhantomConfig(out=tmp_path / "p", patients=21, images_per_patient=1, size=64, classes=names)
    table, out = write_phantoms(config), tmp_path / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table, classes=names), out=out, size=32, workers=1, site_key=tmp_path / "k"
        )
    )
    train(small_training(out, tmp_path / "run"))
    with Beton(out / "val.beton") as beton:
        write_subset([(beton, np.array([1]))], out / "one.beton", "val")
        everything, rows_N = len(beton), beton.rows_N.copy()
        rows_N["group"] = 0
        frames = map(beton.frame, range(everything))
        write_beton(out / "patient.beton", frames, beton.label_N, rows_N, beton.facts, beton.page_size)
    for name, count, why in (
        ("one", 1, "no picture has both a map and a mask of its lungs"),  # its map is measured against itself
        ("patient", everything, "all pictures are of one group, so there is no interval"),
        ("val", everything, ""),
    ):
        found = explain(ExplainConfig(run=tmp_path / "run", beton=out / f"{name}.beton", device="cpu"))
        assert len(found.explanation.samples) == count
        assert {example.predicted for example in found.explanation.samples} <= set(names)
        assert found.out.parent == tmp_path / "run" / "explanation" and (found.out / "gallery.png").is_file()
        distrust = found.explanation.distrust
        opening = ANSWERS[found.explanation.region] if not distrust else f"{NOTHING}: {distrust.finding}"
        assert found.explanation.sentence.startswith(f"{NOTHING}: {why}" if why else opening)
        assert (caution("one-group") in found.explanation.cautions) == bool(why)
        if why:
            assert found.explanation.deletion.failure == caution("deletion-not-faster")


# ---- findings


def test_each_findings_map_lies_where_that_finding_shows(patched: Path) -> None:
    trained = load_trained(patched / "run")
    with Beton(patched / "b" / "heldout.beton") as beton:
        frames = torch.from_numpy(crops_of(beton, np.arange(len(beton))))
        finding_NK = beton.labels
    for place in range(len(NAMES)):
        shown_N = np.flatnonzero(finding_NK[:, place] == 1)
        with as_two_classes(trained.network, place):
            maps_NHW = cam(trained.network, frames[shown_N], np.ones_like(shown_N), reference_N1HW=frames)
        column = place * CROP // 4 + 2  # of its patch, as tests.findings_example draws it
        near_HW = maps_NHW.mean(0)[: CROP // 4 + 6, max(0, column - 6) : column + CROP // 5 + 6]
        assert near_HW.sum() > 0.6 * maps_NHW.mean(0).sum(), NAMES[place]


def test_a_findings_map_is_that_of_its_logit_whatever_the_others_are(patched: Path) -> None:
    network = load_trained(patched / "run").network
    frames = torch.rand(2, 1, CROP, CROP) * 2 - 1
    logits_NK = network(frames)
    with as_two_classes(network, 1):
        logits_N2 = network(frames)
        map_NHW = evidence(network, frames, np.array([1, 1]))
    assert torch.equal(logits_N2, torch.stack([torch.zeros(2), logits_NK[:, 1]], 1))
    assert torch.equal(network(frames), logits_NK), "the handle left nothing behind"
    with torch.no_grad():
        network.classifier[-1].weight[[0, 2]] *= -3
    with as_two_classes(network, 1):
        assert np.array_equal(evidence(network, frames, np.array([1, 1])), map_NHW)


def test_an_explanation_of_findings_has_one_entry_a_finding_and_its_pictures(patched: Path, tmp_path: Path) -> None:
    found = explain_patched(patched, tmp_path)
    content = read_record(FindingsExplanation, found.out / "explanation-by-finding.json")
    assert content == found.explanation and [one.name for one in content.findings] == list(NAMES)
    assert content.cautions.count(caution("usual-lung-region")) == 1 and not content.left_out  # of the set, once
    files = {"explanation-by-finding.json", "gallery.png"}
    with Beton(patched / "b" / "heldout.beton") as beton:
        labels_NK = beton.labels
    for place, one in enumerate(content.findings):
        assert one.lungs and one.lungs.num_samples + one.lungs.num_empty == one.num_predicted
        assert one.randomised and one.deletion and not one.distrust
        assert caution("usual-lung-region") not in one.cautions and 1 <= len(one.samples) <= 3
        for sample in one.samples:
            assert float(sample.present) == labels_NK[sample.sample, place], "of known labels alone"
            assert sample.kind == "borderline" or (sample.present == sample.predicted) == (sample.kind == "right")
            files.add(sample.overlay)
    assert {path.name for path in found.out.iterdir() if path.suffix != ".lock"} >= files
    assert len(files) == 2 + sum(len(one.samples) for one in content.findings), "no picture is of two findings"


def test_only_the_findings_named_are_explained_and_old_pictures_go(
    patched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = explain_patched(patched, tmp_path)
    arguments = ["explain", str(patched / "run"), str(patched / "b" / "heldout.beton"), "--out", str(tmp_path)]
    arguments += ["--device", "cpu", "--threads", "1", "--samples", "2", "--minutes", "0"]
    assert main([*arguments, "--finding", "Edema", "--finding", "Nodule"]) == 0
    printed = capsys.readouterr().out
    assert "Edema" in printed and "Nodule" in printed and "Effusion" not in printed and "not for diagnosis" in printed
    again = read_record(FindingsExplanation, first.out / "explanation-by-finding.json")
    assert [one.name for one in again.findings] == ["Nodule", "Edema"] and again.left_out == ["Effusion"]
    overlays = [sample.overlay for one in again.findings for sample in one.samples]
    assert sorted(overlays) == [path.name for path in sorted(first.out.glob("0*.png"))]


def test_without_time_the_most_often_present_is_explained_and_the_others_are_named(
    patched: Path, tmp_path: Path
) -> None:
    found = explain_patched(patched, tmp_path, minutes=0).explanation
    with Beton(patched / "b" / "heldout.beton") as beton:
        commonest = NAMES[int((beton.labels == 1).sum(0).argmax())]
    assert [one.name for one in found.findings] == [commonest]
    assert found.left_out == [name for name in NAMES if name != commonest]
    assert caution("findings-not-explained", findings=found.left_out, minutes=0) in found.cautions


@pytest.mark.parametrize(
    ("case", "remedy"),
    [("unknown", "found Fracture, expected of Effusion, Nodule, Edema"), ("classes", "tells classes apart")],
)
def test_a_finding_that_the_run_does_not_have_is_refused(
    patched: Path, small_run: Path, betons: Path, tmp_path: Path, case: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        if case == "unknown":
            explain_patched(patched, tmp_path, finding=("Edema", "Fracture"))
        else:
            explain(ExplainConfig(run=small_run, beton=betons / "heldout.beton", finding=("Edema",)))


def test_a_finding_that_is_predicted_nowhere_has_examples_and_no_numbers(
    patched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(pictures: object, scored: by_finding.Scored, *others: object) -> object:
        return explain_finding(pictures, replace(scored, threshold=1.1), *others)  # type: ignore[arg-type]

    monkeypatch.setattr("engine.explain.by_finding.explain_finding", nowhere)
    (found,) = explain_patched(patched, tmp_path, finding=("Edema",)).explanation.findings
    assert found.num_predicted == 0 and found.region == "unknown"
    assert found.lungs is None and found.randomised is None and found.deletion is None
    assert found.sentence == f"{NOTHING}: it is predicted in no image" and found.samples


def test_maps_of_few_groups_or_that_failed_a_control_answer_nothing(patched: Path, tmp_path: Path) -> None:
    few = {"region": "unknown", "cautions": msgspec.to_builtins([caution("few-groups", groups=4)])}
    found = msgspec.convert(finding_explained("Edema", **few), FindingExplanation)
    assert found.sentence.startswith(f"{NOTHING}: there are only 4 groups")
    with Beton(patched / "b" / "heldout.beton") as beton:
        write_subset([(beton, np.arange(12))], tmp_path / "few.beton", "heldout")  # of six groups
    for one in explain_patched(patched, tmp_path, beton=tmp_path / "few.beton").explanation.findings:
        assert one.region == "unknown" and (one.distrust or not one.num_predicted)


def test_of_findings_whose_frames_show_the_lungs_alone_the_controls_are_shown_and_no_answer() -> None:
    found = msgspec.convert(finding_explained("Edema", lungs=None, region="unknown"), FindingExplanation)
    assert found.sentence == f"{NOTHING}: {LUNGS_ALONE.finding}"
    assert by_finding.measures(found) == (*"––––", "passed", "passed") and IN_BRIEF[found.region] == "cannot be told"


def test_the_region_of_a_finding_must_follow_from_its_numbers() -> None:
    with pytest.raises(msgspec.ValidationError, match="region outside, expected lungs"):
        msgspec.convert(finding_explained("Edema", region="outside"), FindingExplanation)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_examples_of_a_finding_are_of_known_labels_right_ones_present(count: int) -> None:
    finding_N = np.array([1, 1, 0, 0, np.nan, 1, 0])
    margin_N = np.array([0.5, 3.0, 2.0, -4.0, 9.0, -1.0, -0.1])
    chosen = choose_of_finding(finding_N, margin_N, count)
    assert chosen[0] == (1, "right") and len(chosen) == min(count, 6)
    assert 4 not in dict(chosen), "its label is unknown"
    if count == 3:
        assert chosen == [(1, "right"), (2, "wrong"), (6, "borderline")]
    if count == 9:
        assert sorted(sample for sample, _ in chosen) == [0, 1, 2, 3, 5, 6]
