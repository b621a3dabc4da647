"""SAM 2 as a segmenter: prompted with the shipped net's boxes, its decoder tuned in folds, and what is refused."""

# S side of a frame

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import cli
from benchmarks.tiny_models import tiny_sam2
from engine.config import SegmentTestConfig, SegmentTrainConfig
from engine.segmentation.sam2 import MARGIN, Sam2, boxes_of, open_sam2
from engine.segmentation.test import segment_test
from engine.segmentation.train import TrainedSegmenter, segment_train
from loaders.config import CatalogConfig, SegmentConfig
from loaders.errors import CheckpointError, ConfigError, IntegrityError, StorageError
from loaders.images.lungs import RECORD, Lungs, dice, is_sam2, load_segmenter, read_segmenter_record
from loaders.lungs.segment import segment
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from tests.conftest import made_once

pytestmark = pytest.mark.extras
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return made_once(tmp_path_factory, "sam2", lambda folder: tiny_sam2(folder / "sam2-tiny")) / "sam2-tiny"


@pytest.fixture(scope="session")
def masks(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 24 phantoms with masks of their lungs."""

    def make(folder: Path) -> None:
        rows = list(csv.DictReader(phantoms.read_text().splitlines()))[:24]
        with (folder / "masks.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "mask", "patient"])
            writer.writerows(
                [phantoms.parent / row["path"], phantoms.parent / row["mask"], row["patient"]] for row in rows
            )

    return made_once(tmp_path_factory, "masks", make) / "masks.csv"


def film(side: int = 128) -> np.ndarray:
    return draw_phantom(
        PlannedPhantom(seed=3, patient=1, label="normal", size=side, strength=1.0, arms_up=False, marked=False)
    ).image_HW


def tuned(model: Path, masks: Path, out: Path, **changes: object) -> TrainedSegmenter:
    given: dict[str, object] = {"folds": 2, "steps": 3, "phantoms": 0, "device": "cpu", "site_key": out.parent / "key"}
    return segment_train(
        SegmentTrainConfig(out=out, manifest=(masks,), segmenter=f"sam2:{model}", **(given | changes))  # type: ignore[arg-type]
    )


# ---- prompted


def test_each_lung_has_a_box_with_a_margin() -> None:
    mask_SS = np.zeros((100, 100), bool)
    mask_SS[20:80, 10:40] = mask_SS[25:70, 60:97] = True
    margin = 100 * MARGIN
    found = sorted(map(tuple, boxes_of(mask_SS).tolist()))
    assert found == [(10 - margin, 20 - margin, 40 + margin, 80 + margin), (60 - margin, 25 - margin, 99, 70 + margin)]
    assert boxes_of(np.zeros((9, 9), bool)).shape == (0, 4)


def test_the_mask_is_what_the_model_gives_for_the_shipped_nets_boxes(model: Path) -> None:
    sam2, frame_SS = open_sam2(f"sam2:{model}"), film()
    shipped = load_segmenter("shipped").find(frame_SS, (1, 1))
    found = sam2.find(frame_SS, (0, 1))
    processed = sam2.processor(
        images=np.repeat(frame_SS[:, :, None], 3, 2), input_boxes=[boxes_of(shipped.mask_SS).tolist()],
        return_tensors="pt",
    )  # fmt: skip
    with torch.inference_mode():
        logits = sam2.model(
            pixel_values=processed["pixel_values"], input_boxes=processed["input_boxes"], multimask_output=False
        ).pred_masks
        (whole,) = sam2.processor.post_process_masks(logits, processed["original_sizes"])
    union_SS = whole[:, 0].any(0).numpy()
    assert found.mask_SS.sum() > 0 and dice(found.mask_SS & union_SS, found.mask_SS) > 0.97  # without holes and specks
    assert found.agreement == dice(found.mask_SS, shipped.mask_SS)
    assert found.problem in ("lungs-differ", "lungs-missing")  # of random weights


def test_without_lungs_there_is_nothing_to_prompt_with(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam2, frame_SS = open_sam2(f"sam2:{model}"), film()
    monkeypatch.setattr("engine.segmentation.sam2.boxes_of", lambda mask_SS: np.empty((0, 4)))
    assert same(sam2.find(frame_SS), load_segmenter("shipped").find(frame_SS))


def test_masks_of_a_source_are_written_with_what_each_is_worth(
    model: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SegmentConfig(
        catalog=CatalogConfig(manifest=phantoms), out=tmp_path / "m", segmenter=f"sam2:{model}", size=64, workers=1,
        site_key=tmp_path / "key",
    )  # fmt: skip
    done = segment(config, segmenter=open_sam2(config.segmenter))
    rows = list(csv.DictReader((tmp_path / "m" / "masks.csv").read_text().splitlines()))
    assert len(rows) == len(done.rows) > 20 and {row["kind"] for row in rows} <= {"lungs-differ", "lungs-missing"}
    first = next(row for row in done.rows if row.numbers and row.verdict == "doubtful")
    mask_HW = cv2.imread(str(tmp_path / "m" / first.mask), cv2.IMREAD_GRAYSCALE)
    assert mask_HW is not None and set(np.unique(mask_HW)) <= {0, 255}
    # one that agrees with the shipped net is credible
    monkeypatch.setattr(Sam2, "find", lambda self, frame_SS, nets=(0, 0): self.boxes.find(frame_SS, (nets[1], nets[1])))
    agreed = segment(
        SegmentConfig(catalog=config.catalog, out=tmp_path / "n", size=64, workers=1, site_key=tmp_path / "key"),
        segmenter=open_sam2(config.segmenter),
    )
    assert sum(row.verdict == "credible" for row in agreed.rows) > 15


# ---- tuned


def test_decoders_are_tuned_in_folds_scored_beside_the_small_net_and_read_back_to_the_bit(
    model: Path, masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.segmentation.sam2.RATE", 3e-3)
    done = tuned(model, masks, tmp_path / "s", steps=150)
    assert done.tested is not None
    scores = done.tested.result.scores["dice"]
    assert [*scores] == ["segmenter", "mean mask", "usual region", "shipped net"]
    assert scores["segmenter"].low is not None and scores["segmenter"].low > 0.5  # on films that it never saw
    assert scores["shipped net"].value is not None and scores["shipped net"].value > 0.9
    record = read_segmenter_record(tmp_path / "s")
    assert [net.file for net in record.nets] == ["net-1.safetensors", "net-2.safetensors"]
    assert not set(record.nets[0].pixels) & set(record.nets[1].pixels)
    assert is_sam2(str(tmp_path / "s")) and str(model) not in (tmp_path / "s" / RECORD).read_text()
    one, other = open_sam2(str(tmp_path / "s")), open_sam2(str(tmp_path / "s"))
    frame_SS = film()
    for nets in ((0, 0), (1, 0), (0, 0)):  # decoders do not rub off on one another
        assert same(one.find(frame_SS, nets), other.find(frame_SS, nets))
    assert not same(one.find(frame_SS, (0, 0)), one.find(frame_SS, (1, 0)))
    again = segment_test(
        SegmentTestConfig(
            manifest=(masks,), out=tmp_path / "t", segmenter=str(tmp_path / "s"), site_key=tmp_path / "key"
        )
    )
    assert again.result.scores["dice"]["segmenter"].value == scores["segmenter"].value


def same(one: Lungs, other: Lungs) -> bool:
    return np.array_equal(one.mask_SS, other.mask_SS) and one.agreement == other.agreement


def test_an_interrupted_tuning_goes_on_and_ends_as_if_it_had_not_been(model: Path, masks: Path, tmp_path: Path) -> None:
    whole = tuned(model, masks, tmp_path / "whole")
    calls = 0

    def stop(phase: str, done: int, total: int) -> None:
        nonlocal calls
        calls += phase.startswith("net 2")
        if calls == 2:
            raise KeyboardInterrupt

    config = SegmentTrainConfig(
        out=tmp_path / "cut", manifest=(masks,), segmenter=f"sam2:{model}", folds=2, steps=3, phantoms=0, device="cpu",
        site_key=tmp_path / "key",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        segment_train(config, stop)
    with pytest.raises(ConfigError, match="1 of 2 decoders"):
        open_sam2(str(tmp_path / "cut"))
    done = segment_train(config)
    assert done.record == whole.record
    files = [(tmp_path / name / "net-2.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_what_needs_small_nets_refuses_decoders(model: Path, masks: Path, tmp_path: Path) -> None:
    tuned(model, masks, tmp_path / "s", steps=1)
    with pytest.raises(ConfigError, match="make masks by `segment --segmenter"):
        load_segmenter(str(tmp_path / "s"))
    with pytest.raises(ConfigError, match="make masks by `segment --segmenter sam2:"):
        load_segmenter("sam2:anywhere")
    place = (tmp_path / "s" / "model.txt").read_text()
    (tmp_path / "s" / "model.txt").unlink()
    with pytest.raises(StorageError, match="expected the path of the model"):
        open_sam2(str(tmp_path / "s"))
    (tmp_path / "s" / "model.txt").write_text(place)
    net = tmp_path / "s" / "net-1.safetensors"
    net.write_bytes(net.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match="checksum differs"):
        open_sam2(str(tmp_path / "s"))


# ---- what is refused


REFUSED: tuple[tuple[Callable[[Path], object], type[Exception], str], ...] = (
    (shutil.rmtree, StorageError, "no such folder"),
    (lambda folder: (folder / WEIGHTS).unlink(), StorageError, f"{WEIGHTS} is not there"),
    (lambda folder: (folder / WEIGHTS).rename(folder / "sam2.pt"), CheckpointError, "loading it could run code"),
    (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-500]),
        CheckpointError,
        "cannot be loaded",
    ),
    (
        lambda folder: (folder / "config.json").write_text('{"model_type": "sam"}'),
        ConfigError,
        "a model of type 'sam', expected sam2",
    ),
)


@pytest.mark.parametrize(("break_it", "error", "said"), REFUSED)
def test_a_folder_that_is_no_whole_model_is_refused(
    break_it: Callable[[Path], object], error: type[Exception], said: str, model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / model.name)
    break_it(folder)
    with pytest.raises(error) as caught:
        open_sam2(f"sam2:{folder}")
    assert said in str(caught.value) and str(folder) in str(caught.value)
    if error is StorageError:
        assert "hf download facebook/sam2-tiny" in str(caught.value)


def test_the_command_says_what_it_costs_and_what_is_missing(
    model: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["segment", "--manifest", str(phantoms), "--segmenter", f"sam2:{model}", "--out", str(tmp_path / "m")]
    assert cli.main([*command, "--site-key", str(tmp_path / "key")]) == 0
    out = capsys.readouterr().out
    assert "sam2-tiny: 0.1 M parameters" in out and "a film" in out
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "transformers", None)
        assert cli.main(command) == 2
    assert "pip install 'plainfilm[sam2]'" in capsys.readouterr().err
