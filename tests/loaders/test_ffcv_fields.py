"""Any FFCV beton, field by field: hand-made files, read whole, damaged, and never beyond their end."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from loaders.beton.ffcv_fields import FieldReader
from loaders.beton.format import (
    ALLOCATION,
    DESCRIPTOR,
    HEADER,
    NDARRAY_ARGUMENTS,
    TYPE_BYTES,
    TYPE_FLOAT,
    TYPE_INT,
    TYPE_JSON,
    TYPE_NDARRAY,
    TYPE_RGB,
    TYPE_TENSOR,
    Field,
    metadata_dtype,
    parse_dtype,
)
from loaders.beton.reader import Beton
from loaders.errors import BetonError, ConfigError

PAGE = 1 << 21
STRUCTURE = np.dtype([("place", "<f4", (2,)), ("kind", [("code", "<u2"), ("sure", "?")]), ("day", "<M8[D]")])
FIELDS = [
    Field(name="weight", type_id=TYPE_FLOAT),
    Field(name="photo", type_id=TYPE_RGB),
    Field(name="label", type_id=TYPE_INT),
    Field(name="note", type_id=TYPE_BYTES),
    Field(name="volume", type_id=TYPE_NDARRAY, dtype=np.dtype("<f4"), shape=(2, 3, 5)),
    Field(name="record", type_id=TYPE_NDARRAY, dtype=STRUCTURE, shape=(2,)),
    Field(name="facts", type_id=TYPE_JSON),
    Field(name="vector", type_id=TYPE_TENSOR, dtype=np.dtype("<i2"), shape=(7,)),
    Field(name="image", type_id=TYPE_NDARRAY, dtype=np.dtype("u1"), shape=(12, 12)),
]


def sample_values(sample: int) -> dict[str, Any]:
    """What a hand-made beton holds; sample 0 has empty bytes, odd samples a JPEG."""
    rng = np.random.default_rng(sample)
    height, width = 8 + sample, 11 + 2 * sample
    ramp_HW = np.add.outer(np.arange(height) * 7, np.arange(width) * 5)
    record = np.zeros(2, STRUCTURE)
    record["place"], record["kind"]["code"], record["kind"]["sure"] = rng.random((2, 2)), sample, True
    record["day"] = np.datetime64("2020-03-01")
    return {
        "weight": sample / 3,
        "photo": np.stack([ramp_HW, 255 - ramp_HW, ramp_HW // 2], axis=2).astype(np.uint8),
        "label": sample - 2**40,
        "note": rng.integers(0, 256, 3 * sample).astype(np.uint8),
        "volume": rng.random((2, 3, 5)).astype(np.float32),
        "record": record,
        "facts": {"age": sample, "name": "Å\0", "list": [1.5, None]},
        "vector": rng.integers(-9, 9, 7).astype(np.int16),
        "image": rng.integers(0, 256, (12, 12)).astype(np.uint8),
    }


def pack_value(field: Field, value: Any, sample: int) -> tuple[bytes, tuple[int, ...]]:
    """A value's region, and its metadata before the pointer."""
    if field.type_id == TYPE_RGB:
        height, width, _ = value.shape
        jpeg = io.BytesIO()
        Image.fromarray(value).save(jpeg, "JPEG", quality=95)
        return (jpeg.getvalue(), (0, width, height)) if sample % 2 else (value.tobytes(), (1, width, height))
    if field.type_id == TYPE_JSON:
        return json.dumps(value).encode() + b"\0", ()
    return value.tobytes(), ()


def make_beton(fields: list[Field], samples: list[dict[str, Any]]) -> bytes:
    """An FFCV 1.0.2 beton of one page, as its documentation lays it out."""
    descriptors = np.zeros(len(fields), DESCRIPTOR)
    for row, field in zip(descriptors, fields, strict=True):
        row["type_id"] = field.type_id
        row["name"][: len(field.name)] = np.frombuffer(field.name.encode(), np.uint8)
        if field.dtype is not None:
            arguments = np.zeros(1, NDARRAY_ARGUMENTS)
            description = json.dumps(field.dtype.descr).encode()
            arguments["shape"][0, : len(field.shape)], arguments["type_length"] = field.shape, len(description)
            packed = np.frombuffer(arguments.tobytes() + description, np.uint8)
            row["arguments"][: packed.size] = packed
    metadata_N, page, table = np.zeros(len(samples), metadata_dtype(fields)), b"", []
    for sample, values in enumerate(samples):
        for field in fields:
            if not field.has_region:
                metadata_N[field.name][sample] = values[field.name]
                continue
            region, metadata = pack_value(field, values[field.name], sample)
            ptr = PAGE + len(page) if region else 0  # FFCV points what is empty anywhere
            sized = (len(region),) if field.type_id in (TYPE_BYTES, TYPE_JSON) else ()
            metadata_N[field.name][sample] = (*metadata, ptr, *sized) if metadata or sized else ptr
            table.append((sample, ptr, len(region)))
            page += region
    head = descriptors.tobytes() + metadata_N.tobytes()
    pages = page.ljust(PAGE, b"\xee") if table else b""  # what FFCV leaves in a page's tail is not always zero
    start = 2 * PAGE if table else HEADER.itemsize + len(head)
    header = np.array([(2, len(fields), PAGE, len(samples), start)], HEADER).tobytes()
    content = header + head
    return (content.ljust(PAGE, b"\0") if table else content) + pages + np.array(table, ALLOCATION).tobytes()


def assert_sound(path: Path, num_samples: int) -> None:
    """Every value of a hand-made beton is what went in."""
    with FieldReader(path) as reader:
        assert reader.names == tuple(field.name for field in FIELDS) and len(reader) == num_samples
        for sample in range(num_samples):
            for name, value in sample_values(sample).items():
                found = reader.value(name, sample)
                if name == "photo" and sample % 2:
                    assert found.dtype == np.uint8 and found.shape == value.shape
                    assert np.abs(found.astype(int) - value).mean() < 4
                elif isinstance(value, np.ndarray):
                    assert found.dtype == value.dtype and found.shape == value.shape and found.flags.writeable
                    np.testing.assert_array_equal(found, value)
                else:
                    assert found == value and type(found) is type(value)
        assert reader.column("weight").tolist() == [sample / 3 for sample in range(num_samples)]
        labels_N = reader.column("label")
        assert labels_N.dtype == np.int64 and labels_N.tolist() == [sample - 2**40 for sample in range(num_samples)]


@pytest.fixture(scope="module")
def whole() -> bytes:
    """The bytes of a sound beton of four samples and every kind of field."""
    return make_beton(FIELDS, [sample_values(sample) for sample in range(4)])


@pytest.fixture(scope="module")
def sound(whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fields") / "sound.beton"
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_values_of_every_kind_come_back_as_they_were_written(tmp_path: Path, num_samples: int) -> None:
    path = tmp_path / "x.beton"
    path.write_bytes(make_beton(FIELDS, [sample_values(sample) for sample in range(num_samples)]))
    assert_sound(path, num_samples)


def test_a_beton_of_numbers_only_has_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "numbers.beton"
    fields = [FIELDS[0], FIELDS[2]]
    path.write_bytes(make_beton(fields, [{"weight": 0.5, "label": -7}] * 3))
    with FieldReader(path) as reader:
        assert reader.column("weight").tolist() == [0.5] * 3 and reader.value("label", 2) == -7
    with pytest.raises(BetonError, match="expected image and label"):
        Beton(path, trust_unverified=True)


def test_values_outlive_the_reader(sound: Path) -> None:
    with FieldReader(sound) as reader:
        values = [reader.value(name, 2) for name in ("photo", "volume", "note")]
    with FieldReader(sound) as reader:
        for name, value in zip(("photo", "volume", "note"), values, strict=True):
            np.testing.assert_array_equal(value, reader.value(name, 2))
            value[...] = 3  # the caller's own: the file keeps what it had
            assert (value == 3).all() and not (reader.value(name, 2) == 3).all()


def test_a_field_or_sample_that_is_not_there_is_named(sound: Path) -> None:
    with FieldReader(sound) as reader:
        for sample in (-1, 4):
            with pytest.raises(ConfigError, match=rf"sound\.beton: sample {sample}, expected 0 to 3"):
                reader.value("label", sample)
        with pytest.raises(ConfigError, match="field colour, expected one of weight, photo"):
            reader.value("colour", 0)
        with pytest.raises(ConfigError, match=r"field note is bytes, expected float or int; .* value"):
            reader.column("note")
        assert [reader.kind(name) for name in reader.names[:4]] == ["float", "RGB image", "int", "bytes"]


def place_of(name: str, sample: int, part: str = "") -> int:
    """Where the metadata of a value begins in `whole`."""
    row = metadata_dtype(FIELDS)
    column, offset = row.fields[name][:2]
    start = HEADER.itemsize + len(FIELDS) * DESCRIPTOR.itemsize + sample * row.itemsize + offset
    return start + (column.fields[part][1] if part else 0)


def damage(whole: bytes, place: int, new: bytes) -> bytes:
    return whole[:place] + new + whole[place + len(new) :]


WILD = [0, 1, PAGE - 1, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2**63, 2**64 - 1, 2**64 - 50]


@pytest.mark.parametrize("value", WILD)
@pytest.mark.parametrize("part", ["ptr", "size"])
@pytest.mark.parametrize("name", ["photo", "note", "facts", "volume", "record", "vector"])
def test_a_wild_pointer_or_size_names_file_field_and_sample(
    whole: bytes, tmp_path: Path, name: str, part: str, value: int
) -> None:
    column = metadata_dtype(FIELDS).fields[name][0]
    if part not in (column.names or ("ptr",)):
        return
    path = tmp_path / "wild.beton"
    path.write_bytes(damage(whole, place_of(name, 3, part if column.names else ""), value.to_bytes(8, "little")))
    with FieldReader(path) as reader:
        if part == "size" and value == 0 and name == "note":
            assert reader.value(name, 3).size == 0
            return
        with pytest.raises(BetonError, match=rf"wild\.beton: field {name}, sample 3: .*; write the beton again"):
            reader.value(name, 3)
        reader.value(name, 2)


@pytest.mark.parametrize("value", WILD)
@pytest.mark.parametrize("part", ["sample_id", "ptr", "size"])
def test_a_wild_allocation_is_refused_at_opening_or_missed_at_its_value(
    whole: bytes, tmp_path: Path, part: str, value: int
) -> None:
    place = 2 * PAGE + 7 * ALLOCATION.itemsize + ALLOCATION.fields[part][1]  # the first region of sample 1
    path = tmp_path / "wild.beton"
    path.write_bytes(damage(whole, place, value.to_bytes(8, "little")))
    if part == "sample_id" and value == 1:
        assert_sound(path, 4)
        return
    with pytest.raises(BetonError, match=r"wild\.beton: "), FieldReader(path) as reader:
        reader.value("photo", 1)


@pytest.mark.parametrize(
    ("name", "part", "new", "message"),
    [
        ("photo", "mode", b"\x02", "mode 2, expected 0 for JPEG or 1 for raw"),
        ("photo", "mode", b"\x01", ".* does not list for this sample"),  # a JPEG's region is not raw
        ("photo", "width", (12).to_bytes(2, "little"), "a JPEG of 13×9 pixels, not 12×9"),
        ("photo", "width", b"\xff\xff\xff\xff", "a JPEG of 65535×65535 pixels, above the limit"),
    ],
)
def test_an_image_that_does_not_match_its_metadata_is_named(
    whole: bytes, tmp_path: Path, name: str, part: str, new: bytes, message: str
) -> None:
    path = tmp_path / "odd.beton"
    path.write_bytes(damage(whole, place_of(name, 1, part), new))
    with FieldReader(path) as reader, pytest.raises(BetonError, match=rf"odd\.beton: field photo, sample 1: {message}"):
        reader.value("photo", 1)


def test_a_truncated_jpeg_and_broken_json_are_named(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.beton"
    jpeg, text = whole.index(b"\xff\xd8\xff"), whole.index(b'"age": 1')
    for place, new, name in (
        (whole.index(b"\xff\xda", jpeg), bytes(40), "photo"),
        (jpeg, b"PNG", "photo"),
        (text, b"age", "facts"),
        (text + 1, b"\xff", "facts"),
        (whole.index(b"\0", text), b" ", "facts"),
    ):
        path.write_bytes(damage(whole, place, new))
        with FieldReader(path) as reader:
            with pytest.raises(BetonError, match=rf"broken\.beton: field {name}, sample 1: .*; write the beton again"):
                reader.value(name, 1)
            reader.value(name, 0)


def test_a_jpeg_cut_short_is_refused(tmp_path: Path) -> None:
    samples = [sample_values(sample) for sample in range(2)]
    samples[1]["photo"] = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = make_beton([FIELDS[1]], samples)
    size = int(np.frombuffer(whole[2 * PAGE :], ALLOCATION)["size"][1])
    path = tmp_path / "cut.beton"
    path.write_bytes(damage(whole, len(whole) - 8, (size // 2).to_bytes(8, "little")))
    with FieldReader(path) as reader, pytest.raises(BetonError, match="field photo, sample 1: unreadable JPEG"):
        reader.value("photo", 1)


def read_everything(path: Path) -> None:
    """Every value of every field; BetonError is the one error that damage may raise."""
    with FieldReader(path) as reader:
        for name in reader.names:
            if reader.kind(name) in ("float", "int"):
                assert reader.column(name).shape == (len(reader),)
            for sample in range(min(len(reader), 50)):
                try:
                    value = reader.value(name, sample)
                except BetonError as error:
                    assert f"{path}: field {name}, sample {sample}: " in str(error)
                    continue
                if isinstance(value, np.ndarray):
                    assert value.nbytes <= PAGE or reader.kind(name) == "RGB image"


@pytest.fixture(scope="module")
def damaged(whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A file to damage in place, and its handle."""
    path = tmp_path_factory.mktemp("damaged") / "d.beton"
    path.write_bytes(whole)
    with path.open("r+b") as file:
        yield path, file


used_page = st.integers(PAGE, PAGE + 9000)
anywhere = st.integers(0, HEADER.itemsize + len(FIELDS) * DESCRIPTOR.itemsize + 4 * metadata_dtype(FIELDS).itemsize - 1)
in_table = st.integers(2 * PAGE, 2 * PAGE + 28 * ALLOCATION.itemsize - 1)
in_header = st.integers(0, HEADER.itemsize - 1)
in_type = st.builds(lambda i, k: 24 + 1041 * i + k, st.sampled_from([4, 5, 7, 8]), st.integers(0, 330))
in_metadata = st.builds(lambda s, k: place_of("weight", s) + k, st.integers(0, 3), st.integers(0, 120))
wild_bytes = st.sampled_from([value.to_bytes(8, "little") for value in WILD])


@given(
    wounds=st.lists(
        st.tuples(
            used_page | anywhere | in_table | in_header | in_type | in_metadata,
            st.binary(min_size=1, max_size=4) | wild_bytes,
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=600, deadline=None)
@example(wounds=[(24 + 1041 * 4 + 17 + 264, b'[["", "O"]]  ')])
@example(wounds=[(24 + 1041 * 4 + 17, b"\xff" * 256)])
def test_damage_anywhere_raises_a_beton_error_or_gives_values_inside_the_file(
    whole: bytes, damaged: tuple[Path, Any], wounds: list[tuple[int, bytes]]
) -> None:
    path, file = damaged
    wounds = [(place, new[: len(whole) - place]) for place, new in wounds]
    for place, new in wounds:
        file.seek(place)
        file.write(new)
    file.flush()
    try:
        read_everything(path)
    except BetonError as error:
        assert str(path) in str(error)
    finally:
        for place, new in wounds:
            file.seek(place)
            file.write(whole[place : place + len(new)])
        file.flush()


@pytest.mark.parametrize("length", [0, 1, 23, 24, 1000, 9393, 9500, PAGE, PAGE + 5, 2 * PAGE - 1, 2 * PAGE, -1, -24])
def test_a_beton_cut_anywhere_is_refused(whole: bytes, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.beton"
    path.write_bytes(whole[:length])
    with pytest.raises(BetonError, match=r"cut\.beton: "):
        FieldReader(path)


@pytest.mark.parametrize(
    ("type_id", "name", "message"),
    [
        (255, b"photo", "field 1: a custom field"),
        (7, b"photo", "field 1: field type 7, expected 0 to 6"),
        (2, b"\xff", "field 1: unreadable name"),
        (2, b"", "expected names that differ"),
        (2, b"label", "expected names that differ"),
    ],
)
def test_fields_with_the_same_name_or_impossible_layouts_are_refused(
    whole: bytes, tmp_path: Path, type_id: int, name: bytes, message: str
) -> None:
    path = tmp_path / "odd.beton"
    path.write_bytes(damage(whole, HEADER.itemsize + DESCRIPTOR.itemsize, bytes([type_id]) + name.ljust(16, b"\0")))
    with pytest.raises(BetonError, match=rf"odd\.beton: .*{message}"):
        FieldReader(path)


@pytest.mark.parametrize(
    "dtype", ["<f4", ">i2", "|b1", "<c16", "<U3", "|S5", "|V4", "<M8[ns]", "<M8[25s]", "<m8", STRUCTURE]
)
def test_every_dtype_without_objects_survives_its_description(dtype: Any) -> None:
    dtype = np.dtype(dtype)
    aligned = np.dtype([("a", "u1"), ("b", dtype), ("c", dtype, (2, 1))], align=dtype is not STRUCTURE)
    for wanted in (dtype, np.dtype([("only", dtype)]), aligned):
        assert parse_dtype(json.loads(json.dumps(wanted.descr))) == wanted


@pytest.mark.parametrize(
    "description",
    [
        *("O", "|O8", "<U0", "f4,f4", "(9,)f4", "<f3", [], [[]], [["a"]], [["", "|O"]], None, 4, {"a": "<f4"}),
        *([["a", "<f4", [-1]]], [["a", "<f4", 3]], [["a", "|V9", [1 << 40]]]),
        *([["a", "<f4"], ["a", "<f4"]], [["", "|V1"], ["", "|V1"]]),
    ],
)
def test_descriptions_of_objects_or_of_nothing_are_refused(description: Any) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        parse_dtype(description)


def test_a_foreign_beton_with_further_fields_gives_frames_and_labels_on_trust(tmp_path: Path) -> None:
    samples = [sample_values(sample) | {"label": sample} for sample in range(5)]
    path = tmp_path / "foreign.beton"
    path.write_bytes(make_beton(FIELDS, samples))
    with pytest.raises(BetonError, match="--trust-unverified"):
        Beton(path)
    with Beton(path, trust_unverified=True) as beton:
        assert beton.label_N.tolist() == [0, 1, 2, 3, 4] and beton.side == 12 and not beton.verified
        for sample, values in enumerate(samples):
            np.testing.assert_array_equal(beton.frame(sample), values["image"])


def test_an_rgb_image_field_gives_an_error_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "colour.beton"
    fields = [Field(name="image", type_id=TYPE_RGB), FIELDS[2]]
    path.write_bytes(make_beton(fields, [{"image": sample_values(0)["photo"], "label": 1}]))
    with pytest.raises(BetonError, match=r"colour\.beton: image is an RGB image, expected grey .*; save its images"):
        Beton(path, trust_unverified=True)


def test_plainfilms_own_betons_are_read_field_by_field_too(betons: Path) -> None:
    with FieldReader(betons / "train.beton") as reader, Beton(betons / "train.beton") as beton:
        assert reader.names == ("image", "label")
        np.testing.assert_array_equal(reader.column("label"), beton.label_N)
        for sample in range(len(beton)):
            np.testing.assert_array_equal(reader.value("image", sample), beton.frame(sample))
