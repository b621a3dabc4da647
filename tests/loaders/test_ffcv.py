"""FFCV 1.0.2 and plainfilm read each other's betons; `make test-extras` installs it and lets none of these skip."""

import gc
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders.batches.loader import Loader
from loaders.beton.ffcv_fields import FieldReader
from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig
from loaders.convert.convert import convert
from loaders.errors import BetonError, ConfigError
from tests import naive
from tests.findings_example import write_findings

REQUIRED = os.environ.get("PLAINFILM_REQUIRE_FFCV") == "1"


@pytest.fixture(scope="module")
def ffcv() -> Iterator[object]:
    """The installed FFCV; its import changes torch's thread count, which is put back."""
    threads = torch.get_num_threads()
    if not REQUIRED:
        pytest.importorskip("ffcv", reason="FFCV is not installed; run make test-extras")
    import ffcv.fields
    import ffcv.loader
    import ffcv.reader
    import ffcv.writer

    assert version("ffcv") == "1.0.2"
    yield ffcv
    torch.set_num_threads(threads)
    gc.collect()  # warnings of numba about FFCV's compiled pipelines do not belong to the next tests


def read_by_ffcv(ffcv, path: Path, os_cache: bool, batch_size: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Every frame and label of a beton through FFCV's own Loader, in order."""
    loader = ffcv.loader.Loader(
        str(path),
        batch_size=batch_size,
        num_workers=1,
        order=ffcv.loader.OrderOption.SEQUENTIAL,
        os_cache=os_cache,
        drop_last=False,
    )
    images, labels = [], []
    for image, label in loader:
        images.append(np.array(image))
        labels.append(np.array(label)[:, 0])
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("os_cache", [True, False])
@pytest.mark.parametrize("split", ["train", "val", "heldout"])
def test_ffcvs_loader_reads_our_betons(ffcv, betons: Path, split: str, os_cache: bool) -> None:
    path = betons / f"{split}.beton"
    images, labels = read_by_ffcv(ffcv, path, os_cache)
    with Beton(path) as beton:
        assert images.shape == (len(beton), beton.side, beton.side) and images.dtype == np.uint8
        for sample, image in enumerate(images):
            np.testing.assert_array_equal(image, beton.frame(sample))
        np.testing.assert_array_equal(labels, beton.label_N)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("os_cache", [True, False])
@pytest.mark.parametrize("num_findings", [1, 3, 14])
def test_ffcvs_loader_reads_frames_and_findings_of_our_betons(
    ffcv, tmp_path: Path, num_findings: int, os_cache: bool
) -> None:
    names = tuple(f"finding {place}" for place in range(num_findings))
    folder = write_findings(tmp_path, names, counts={"train": 530}, unknown=0.3)  # frames of three pages
    loader = ffcv.loader.Loader(
        str(folder / "train.beton"), batch_size=64, num_workers=1, order=ffcv.loader.OrderOption.SEQUENTIAL,
        os_cache=os_cache, drop_last=False,
    )  # fmt: skip
    batches = [tuple(np.array(part) for part in batch) for batch in loader]
    images, findings, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    with Beton(folder / "train.beton") as beton:
        assert (beton.pages_end - beton.pages_start) // beton.page_size == 4
        assert all((image == beton.frame(sample)).all() for sample, image in enumerate(images))
        np.testing.assert_array_equal(findings, beton.labels)
        assert findings.dtype == np.float32 and np.isnan(findings).any() and (labels == -1).all()
    with FieldReader(folder / "train.beton") as reader:
        assert reader.names == ("image", "findings", "label")
        np.testing.assert_array_equal(reader.value("findings", 3), findings[3])


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_ffcv_reads_a_beton_of_several_pages(ffcv, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms), out=out, size=448, page_mib=2, workers=1, site_key=tmp_path / "k"
        )
    )
    with Beton(out / "train.beton") as beton:
        assert beton.pages_end - beton.pages_start > 3 * beton.page_size
        for os_cache in (True, False):
            images, labels = read_by_ffcv(ffcv, out / "train.beton", os_cache)
            assert all((image == beton.frame(sample)).all() for sample, image in enumerate(images))
            assert (labels == beton.label_N).all()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_ffcvs_reader_finds_our_fields_and_tables(ffcv, betons: Path) -> None:
    reader = ffcv.reader.Reader(str(betons / "train.beton"))
    with Beton(betons / "train.beton") as beton:
        assert reader.field_names == ["image", "label"] and reader.num_samples == len(beton)
        assert reader.alloc_table["ptr"].tolist() == beton.offset_N.tolist()
        assert tuple(reader.handlers["image"].shape) == (beton.side, beton.side)


class Frames:
    """An indexed data set, as FFCV's writer wants it."""

    def __init__(self, num_samples: int, side: int) -> None:
        rng = np.random.default_rng(0)
        self.frames_NSS = rng.integers(0, 256, (num_samples, side, side)).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.frames_NSS)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.frames_NSS[index], index % 3


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("num_samples", [1, 300])
def test_we_read_ffcvs_betons_on_trust(ffcv, tmp_path: Path, num_samples: int, workers: int) -> None:
    path, data = tmp_path / "theirs.beton", Frames(num_samples, 92)
    fields = {"image": ffcv.fields.NDArrayField(np.dtype("u1"), (92, 92)), "label": ffcv.fields.IntField()}
    ffcv.writer.DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=workers).from_indexed_dataset(data)
    with pytest.raises(BetonError, match="--trust-unverified"):
        Beton(path)
    with Beton(path, trust_unverified=True) as beton:
        assert len(beton) == num_samples and not beton.verified and beton.facts.crop == 64
        for sample in range(num_samples):
            np.testing.assert_array_equal(beton.frame(sample), data[sample][0])
            assert beton.label_N[sample] == sample % 3
    with Loader(path, trust_unverified=True, batch_size=50) as loader:
        for frames_N1HW, _, index_N in loader:
            np.testing.assert_allclose(frames_N1HW[0, 0], naive.crop(data[index_N[0]][0], 64), atol=2e-7)


class Values:
    """An indexed data set of one value a field; makers: the values in the fields' order, from a sample's number."""

    def __init__(self, num_samples: int, *makers: Callable[[int], Any]) -> None:
        self.num_samples, self.makers = num_samples, makers

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(maker(int(index)) for maker in self.makers)


def photo(index: int, height: int = 33, width: int = 47) -> np.ndarray:
    """A smooth colour picture, which JPEG keeps to a few levels."""
    y_HW, x_HW = np.mgrid[:height, :width]
    return np.stack([4 * y_HW + index, 250 - 3 * x_HW, 2 * (x_HW + y_HW)], axis=2).clip(0, 255).astype(np.uint8)


def write_by_ffcv(ffcv, path: Path, fields: dict[str, Any], data: Values, workers: int) -> None:
    """A beton by FFCV's own writer, in its smallest pages."""
    ffcv.writer.DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=workers).from_indexed_dataset(
        data, chunksize=7
    )


def values_by_ffcv(ffcv, path: Path) -> dict[str, list[np.ndarray]]:
    """Every value of a beton through FFCV's own Loader and default decoders, in order."""
    loader = ffcv.loader.Loader(
        str(path), batch_size=1, num_workers=1, order=ffcv.loader.OrderOption.SEQUENTIAL, os_cache=True
    )
    names = ffcv.reader.Reader(str(path)).field_names
    batches = [[np.array(column)[0].copy() for column in batch] for batch in loader]
    return dict(zip(names, map(list, zip(*batches, strict=True)), strict=True))


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("num_samples", [1, 61])
def test_we_read_every_kind_of_field_as_ffcv_does(ffcv, tmp_path: Path, num_samples: int, workers: int) -> None:
    def random(index: int) -> np.random.Generator:
        return np.random.default_rng(index)

    columns = {
        "weight": (ffcv.fields.FloatField(), lambda i: i / 7 - 1),
        "photo": (ffcv.fields.RGBImageField(write_mode="raw"), photo),
        "label": (ffcv.fields.IntField(), lambda i: -i * 2**33),
        "volume": (
            ffcv.fields.NDArrayField(np.dtype("<f4"), (3, 5, 7)),
            lambda i: random(i).random((3, 5, 7)).astype(np.float32),
        ),
        "codes": (ffcv.fields.NDArrayField(np.dtype("<i2"), (1,)), lambda i: np.array([i - 3], np.int16)),
        "large": (  # some eleven of these fill a page, and leave a tail
            ffcv.fields.NDArrayField(np.dtype("<f8"), (23_000,)),
            lambda i: random(i).random(23_000),
        ),
        "tensor": (ffcv.fields.TorchTensorField(torch.int32, (2, 9)), lambda i: torch.full((2, 9), -i).int()),
        "note": (ffcv.fields.BytesField(), lambda i: random(i).integers(0, 256, 40 + i).astype(np.uint8)),
        "facts": (ffcv.fields.JSONField(), lambda i: {"age": i, "name": "Å\0", "found": [None, 0.5]}),
    }
    data = Values(num_samples, *(maker for _, maker in columns.values()))
    path = tmp_path / "theirs.beton"
    write_by_ffcv(ffcv, path, {name: field for name, (field, _) in columns.items()}, data, workers)
    theirs = values_by_ffcv(ffcv, path)
    with FieldReader(path) as reader:
        assert reader.names == tuple(columns) and reader.num_samples == num_samples
        assert reader.column("weight").tolist() == [i / 7 - 1 for i in range(num_samples)]
        assert reader.column("label").tolist() == [-i * 2**33 for i in range(num_samples)]
        for sample in range(num_samples):
            for name, wanted in zip(columns, data[sample], strict=True):
                ours, by_ffcv = reader.value(name, sample), theirs[name][sample]
                if name == "facts":
                    assert ours == wanted == ffcv.fields.JSONField.unpack(by_ffcv)
                    continue
                wanted = np.asarray(wanted)
                assert np.asarray(ours).dtype == wanted.dtype and np.shape(ours) == wanted.shape
                np.testing.assert_array_equal(ours, wanted)
                # FFCV pads bytes up to the longest value, and gives numbers an axis of one
                np.testing.assert_array_equal(by_ffcv.reshape(-1)[: wanted.size], wanted.reshape(-1))


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["?", ">u4", "<f2", "<c8", "<U3", "|S4", "<M8[s]", [("a", "<f4", (2,)), ("b", "u1")]])
def test_we_read_arrays_that_ffcvs_loader_cannot(ffcv, tmp_path: Path, dtype: Any) -> None:
    dtype, path = np.dtype(dtype), tmp_path / "theirs.beton"

    def make(index: int) -> np.ndarray:
        return np.arange(index, index + 6).astype("u1").astype(dtype).reshape(3, 2)

    fields = {"array": ffcv.fields.NDArrayField(dtype, (3, 2)), "half": ffcv.fields.TorchTensorField(torch.half, (5,))}
    write_by_ffcv(ffcv, path, fields, Values(9, make, lambda i: torch.full((5,), i / 8).half()), 1)
    with FieldReader(path) as reader:
        for sample in range(9):
            array = reader.value("array", sample)
            assert array.dtype == dtype and array.tobytes() == make(sample).tobytes()
            assert reader.value("half", sample).tolist() == [sample / 8] * 5


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("jpg", {"jpeg_quality": 95}),
        ("smart", {"smart_threshold": 33 * 47 * 3}),  # the larger images become JPEGs
        ("proportion", {"compress_probability": 0.5}),
        ("raw", {"max_resolution": 40}),
    ],
)
def test_we_read_ffcvs_images_of_every_mode(ffcv, tmp_path: Path, mode: str, options: dict, workers: int) -> None:
    num_samples, path = 40, tmp_path / "theirs.beton"
    data = Values(num_samples, lambda i: photo(i, 33 + i % 3, 47 + i % 2), lambda i: i)
    fields = {"image": ffcv.fields.RGBImageField(write_mode=mode, **options), "label": ffcv.fields.IntField()}
    write_by_ffcv(ffcv, path, fields, data, workers)
    modes = {int(mode) for mode in ffcv.reader.Reader(str(path)).metadata["f0"]["mode"]}
    assert modes == {"jpg": {0}, "smart": {0, 1}, "proportion": {0, 1}, "raw": {1}}[mode]
    with FieldReader(path) as reader:
        for sample in range(num_samples):
            ours, (wanted, _) = reader.value("image", sample), data[sample]
            if "max_resolution" in options:
                assert max(ours.shape) == 40 and ours.shape[2] == 3
                continue
            assert ours.shape == wanted.shape and ours.dtype == np.uint8
            assert np.abs(ours.astype(int) - wanted).mean() < 3
    with pytest.raises(BetonError, match="image is an RGB image"):
        Beton(path, trust_unverified=True)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["jpg", "raw"])
def test_our_jpeg_decoder_agrees_with_ffcvs_to_a_few_levels(ffcv, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "theirs.beton"
    write_by_ffcv(ffcv, path, {"image": ffcv.fields.RGBImageField(write_mode=mode)}, Values(9, photo), 1)
    theirs = values_by_ffcv(ffcv, path)["image"]
    with FieldReader(path) as reader:
        differences = [np.abs(reader.value("image", i).astype(int) - theirs[i]) for i in range(9)]
    assert max(d.mean() for d in differences) <= (2 if mode == "jpg" else 0)
    assert np.max(differences) <= (16 if mode == "jpg" else 0)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
def test_we_read_ffcvs_beton_of_numbers_only(ffcv, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "numbers.beton"
    fields = {"weight": ffcv.fields.FloatField(), "label": ffcv.fields.IntField()}
    write_by_ffcv(ffcv, path, fields, Values(33, lambda i: i / 3, lambda i: i), workers)
    assert path.stat().st_size < 1 << 21  # no pages at all
    with FieldReader(path) as reader:
        assert reader.column("weight").tolist() == [i / 3 for i in range(33)]
        assert reader.value("label", 32) == 32


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
def test_we_read_ffcvs_bytes_of_any_length_even_none(ffcv, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "bytes.beton"

    def note(index: int) -> np.ndarray:
        return np.full(index % 5 * 200_000, index, np.uint8)

    fields = {"note": ffcv.fields.BytesField(), "other": ffcv.fields.BytesField()}
    data = Values(37, note, lambda i: note(i + 3))
    write_by_ffcv(ffcv, path, fields, data, workers)
    with FieldReader(path) as reader:
        for sample in range(37):
            for name, wanted in zip(fields, data[sample], strict=True):
                np.testing.assert_array_equal(reader.value(name, sample), wanted)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_beton_of_ffcvs_with_further_fields_trains_on_trust(ffcv, tmp_path: Path, workers: int) -> None:
    path, frames = tmp_path / "theirs.beton", Frames(150, 92)
    fields = {
        "facts": ffcv.fields.JSONField(),
        "label": ffcv.fields.IntField(),
        "image": ffcv.fields.NDArrayField(np.dtype("u1"), (92, 92)),
        "photo": ffcv.fields.RGBImageField(write_mode="jpg"),
    }
    data = Values(150, lambda i: {"i": i}, lambda i: i % 3, lambda i: frames[i][0], photo)
    write_by_ffcv(ffcv, path, fields, data, workers)
    with Beton(path, trust_unverified=True) as beton:
        assert all((beton.frame(sample) == frames[sample][0]).all() for sample in range(150))
    with Loader(path, trust_unverified=True, batch_size=50) as loader:
        for frames_N1HW, labels_N, index_N in loader:
            np.testing.assert_allclose(frames_N1HW[0, 0], naive.crop(frames[index_N[0]][0], 64), atol=2e-7)
            assert (labels_N == index_N % 3).all()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_opencv_works_beside_the_one_that_ffcv_brings(ffcv) -> None:
    import cv2

    decoded = cv2.imdecode(cv2.imencode(".png", np.eye(4, dtype=np.uint8))[1], cv2.IMREAD_UNCHANGED)
    assert (decoded == np.eye(4)).all()


@pytest.fixture(scope="module")
def operation() -> Iterator[Any]:
    """loaders.beton.ffcv_operation; importing FFCV changes torch's thread count, which is put back."""
    threads = torch.get_num_threads()
    if not REQUIRED:
        pytest.importorskip("ffcv", reason="FFCV is not installed; run make test-extras")
    from loaders.beton import ffcv_operation

    yield ffcv_operation
    torch.set_num_threads(threads)
    gc.collect()  # warnings of numba about FFCV's compiled pipelines do not belong to the next tests


def open_ffcv(
    path: Path, decoder: Any, *, threads: int = 2, batch_size: int = 7, shuffled: bool = False, os_cache: bool = True
) -> Any:
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader import OrderOption
    from ffcv.transforms import ToTensor

    order = OrderOption.RANDOM if shuffled else OrderOption.SEQUENTIAL
    return FfcvLoader(
        str(path),
        batch_size,
        num_workers=threads,
        os_cache=os_cache,
        order=order,
        seed=0,
        drop_last=False,
        pipelines={"image": [decoder, ToTensor()]},
    )


def frames_of(loader: Any) -> np.ndarray:
    return torch.cat([frames.clone() for frames, *_ in loader]).numpy()


def ours(path: Path, config: LoaderConfig, epoch: int) -> np.ndarray:
    """Our loader's frames, in the beton's order."""
    with Loader(path, config, batch_size=5) as loader:
        loader.set_epoch(epoch)
        batches = list(loader)
    index_N = np.concatenate([batch[2] for batch in batches])
    return np.concatenate([batch[0] for batch in batches])[np.argsort(index_N)]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("augment_from", ["frame", "crop"])
def test_augmented_batches_are_our_loaders_epoch_by_epoch(
    operation, betons: Path, augment_from: Any, threads: int
) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=4, augment_from=augment_from)
    decoder = operation.FusedCropDecoder(config)
    loader = open_ffcv(path, decoder, threads=threads)
    for epoch in (0, 1, 7):
        decoder.set_epoch(epoch)
        found = frames_of(loader)
        assert found.dtype == np.float32 and found.tobytes() == ours(path, config, epoch).tobytes()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_an_epoch_may_be_set_before_the_loader_exists(operation, betons: Path) -> None:
    path, config = betons / "val.beton", LoaderConfig(training=True, seed=1)
    decoder = operation.FusedCropDecoder(config)
    decoder.set_epoch(3)
    assert frames_of(open_ffcv(path, decoder)).tobytes() == ours(path, config, 3).tobytes()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_evaluation_batches_are_the_central_crops(operation, betons: Path) -> None:
    path, config = betons / "val.beton", LoaderConfig()
    found = frames_of(open_ffcv(path, operation.FusedCropDecoder(config)))
    assert found.tobytes() == ours(path, config, 0).tobytes()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_a_frame_does_not_depend_on_ffcvs_order(operation, betons: Path) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=2)
    decoder = operation.FusedCropDecoder(config)
    shuffled = {frame.tobytes() for frame in frames_of(open_ffcv(path, decoder, shuffled=True))}
    assert shuffled == {frame.tobytes() for frame in ours(path, config, 0)}


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_an_epoch_that_was_broken_off_does_not_disturb_the_next(operation, betons: Path) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=4)
    decoder = operation.FusedCropDecoder(config)
    loader = open_ffcv(path, decoder, batch_size=2)
    for epoch in range(4):
        decoder.set_epoch(epoch)
        next(iter(loader))
        assert frames_of(loader).tobytes() == ours(path, config, epoch).tobytes()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_one_decoder_serves_two_loaders(operation, betons: Path) -> None:
    config = LoaderConfig(training=True, seed=4)
    decoder = operation.FusedCropDecoder(config)
    loaders = {split: open_ffcv(betons / f"{split}.beton", decoder) for split in ("train", "val")}
    for epoch in (0, 3):
        decoder.set_epoch(epoch)
        for split, loader in loaders.items():
            assert frames_of(loader).tobytes() == ours(betons / f"{split}.beton", config, epoch).tobytes()


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(120)  # where it fails, numba turns for ever in FFCV's thread
@pytest.mark.parametrize("training", [True, False])
def test_pipelines_of_other_memory_managers_do_not_disturb_each_other(operation, betons: Path, training: bool) -> None:
    path, config = betons / "val.beton", LoaderConfig(training=training)
    wanted = ours(path, config, 0).tobytes()
    for os_cache in (True, False, True, True):
        decoder = operation.FusedCropDecoder(config)
        assert frames_of(open_ffcv(path, decoder, os_cache=os_cache)).tobytes() == wanted


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_another_crop_is_taken_where_it_leaves_whole_margins(operation, betons: Path) -> None:
    path = betons / "val.beton"
    with Beton(path) as beton:
        side = beton.side
        centre = beton.frame(0)[1:-1, 1:-1]
    found = frames_of(open_ffcv(path, operation.FusedCropDecoder(LoaderConfig(), crop=side - 2)))
    np.testing.assert_allclose(found[0, 0], centre / 127.5 - 1, atol=2e-7)
    for crop in (side - 1, side + 2, 0):
        with pytest.raises(ConfigError, match="expected a margin of whole pixels"):
            open_ffcv(path, operation.FusedCropDecoder(LoaderConfig(), crop=crop))


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_frames_of_another_kind_are_refused_with_a_reason(operation, tmp_path: Path) -> None:
    from ffcv.fields import NDArrayField
    from ffcv.writer import DatasetWriter

    class Wide:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray]:
            return (np.zeros((8, 9), np.uint8),)

    path = tmp_path / "wide.beton"
    fields = {"image": NDArrayField(np.dtype("u1"), (8, 9))}
    DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(Wide())
    with pytest.raises(ConfigError, match="expected square uint8"):
        open_ffcv(path, operation.FusedCropDecoder(LoaderConfig()))
