"""Records: each reads back as it was written; a file that does not fit is named with field, found and expected."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluate.results import Metrics
from loaders.cautions import caution
from loaders.errors import IntegrityError, StorageError
from loaders.records import Count, Record, decode_record, encode_record, known_record, read_record, write_record
from tests import example_run
from tests.findings_example import evaluated

MAKE: dict[str, Callable[..., Record]] = {
    "metrics.json": example_run.metrics,
    "findings.json": lambda: evaluated()[1],
    "summary.json": example_run.summary,
    "dataflow.json": example_run.dataflow,
    "crossval.json": example_run.crossval,
    "hurdles.json": example_run.hurdles,
    "fold.json": example_run.fold,
    "explanation.json": example_run.explanation,
    "probes.json": example_run.probes,
    "comparison.json": example_run.comparison,
}


class Part(Record, frozen=True, kw_only=True):
    """A part of a record."""

    value: float | None
    region: Literal["lungs", "outside"] = "lungs"


class Whole(Record, frozen=True, kw_only=True):
    """A record of every kind of field."""

    made_by = "evaluate"
    version: int = 3
    name: str
    count: Count
    tables: dict[str, dict[str, Part]]
    parts: tuple[Part, ...] = ()
    picture: bytes | None = None


GOOD: dict[str, Any] = {"value": 1}
SOUND: dict[str, Any] = {
    "version": 3,
    "name": "a",
    "count": 5,
    "tables": {"x": {"auc": {"value": 1.0, "region": "lungs"}}, "y": {"auc": {"value": None, "region": "lungs"}}},
    "parts": [{"value": 0.5, "region": "outside"}],
    "picture": None,
}


@pytest.mark.parametrize("name", MAKE)
def test_a_file_reads_back_as_it_was_written_and_is_plain_json(name: str, tmp_path: Path) -> None:
    record = MAKE[name]()
    write_record(tmp_path / name, record)
    assert read_record(type(record), tmp_path / name) == record == known_record(type(record), tmp_path / name)
    content = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    first = f'{{\n  "version": {record.version},\n'.encode()
    assert content["version"] == record.version and (tmp_path / name).read_bytes().startswith(first)
    assert encode_record(record) == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", MAKE)
def test_every_file_names_what_does_not_fit(name: str) -> None:
    """Each field of each file: of another kind, missing, and one too many."""
    kind, sound = type(MAKE[name]()), json.loads(encode_record(MAKE[name]()))
    for field, value in sound.items():
        if field != "version":
            wrong = 3 if isinstance(value, str | list | dict) else [3]
            with pytest.raises(
                IntegrityError, match=rf"^{name}: field {field}: found {re.escape(json.dumps(wrong))}, expected "
            ):
                decode_record(kind, json.dumps(sound | {field: wrong}).encode(), name)
    optional = ("plainfilm", "not_for_diagnosis", "networks", "bias", "looking")
    required = next(field for field in reversed(sound) if field not in optional)
    rest = {field: value for field, value in sound.items() if field != required}
    with pytest.raises(
        IntegrityError, match=rf"^{name}: field {required}: found none, expected one; remove it, and run"
    ):
        decode_record(kind, json.dumps(rest).encode(), name)
    with pytest.raises(IntegrityError, match=rf"^{name}: field more: found, expected no field of this name; remove"):
        decode_record(kind, json.dumps(sound | {"more": 7}).encode(), name)
    version = sound["version"]
    for other, remedy in (
        (version - 1, "remove it, and run"),
        (version + 1, "a newer plainfilm wrote it: use that one, or remove it, and run"),
    ):
        with pytest.raises(IntegrityError, match=rf"^{name}: version {other}, expected {version}; {remedy}"):
            decode_record(kind, json.dumps({"version": other, "other": "schema"}).encode(), name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": {"x": {"a": GOOD, "ece": {"value": "high"}}}}, 'tables.x.ece.value: found "high", expected float'),
        ({"tables": {"x": {}, "y": {"auc": {}}}}, "tables.y.auc.value: found none, expected one"),
        ({"tables": {"x": {"auc": GOOD | {"low": 0}}}}, "tables.x.auc.low: found, expected no field of this name"),
        ({"tables": {"x": [1]}}, "tables.x: found [1], expected object"),
        ({"parts": [GOOD, GOOD | {"region": "arms"}]}, 'parts.1.region: found "arms", expected one of lungs, outside'),
        ({"count": -1}, "count: found -1, expected int >= 0"),
        ({"count": 2.5}, "count: found 2.5, expected int"),
        ({"picture": "%"}, 'picture: found "%", expected another value (Invalid base64 encoded string)'),
        ({"name": None}, "name: found null, expected str"),
        ({"name": ["long"] * 99}, 'name: found ["long","long"'),
    ],
)  # fmt: skip
def test_a_value_deep_in_a_file_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        decode_record(Whole, json.dumps(SOUND | changes).encode(), "w.json")
    assert str(caught.value).startswith(f"w.json: field {message}") and len(str(caught.value)) < 250
    assert str(caught.value).endswith("; remove it, and run `evaluate` again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"version": 3, "count": NaN}', "no JSON"),
        (b"[1]", "found [1], expected object"),
        (b"null", "found null, expected object"),
        (b'{"version": "3"}', 'version "3", expected 3'),
        (b'{"name": "a"}', "field version: found none, expected one"),
    ],
)
def test_what_is_no_record_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        decode_record(Whole, content, "w.json")
    assert str(caught.value).startswith(f"w.json: {message}") and "expected" in str(caught.value)


@pytest.mark.parametrize("field", ["estimates.auc.more", "operating_points.0.estimates.ppv.more", "cautions.0.more"])
def test_an_unknown_field_of_an_estimate_or_a_caution_is_named(field: str) -> None:
    content = json.loads(encode_record(example_run.metrics(cautions=[caution("one-group")])))
    *outer, last = field.split(".")
    node = content
    for name in outer:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[last] = 1
    with pytest.raises(
        IntegrityError, match=rf"^m\.json: field {field}: found, expected no field of this name; remove"
    ):
        decode_record(Metrics, json.dumps(content).encode(), "m.json")


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from(list(SOUND)), wild=WILD, deep=st.booleans())
def test_a_wild_value_is_read_or_named(field: str, wild: Any, deep: bool) -> None:
    changed = SOUND | (
        {"tables": {"x": {"auc": SOUND["tables"]["x"]["auc"] | {field: wild}}}} if deep else {field: wild}
    )
    try:
        record = decode_record(Whole, json.dumps(changed).encode(), "w.json")
    except IntegrityError as error:
        assert str(error).startswith("w.json: ") and "expected" in str(error)
    else:
        assert decode_record(Whole, encode_record(record), "w.json") == record


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_never_written(value: float) -> None:
    with pytest.raises(AssertionError, match="reads back"):
        encode_record(Part(value=value))


def test_what_of_a_name_is_no_unicode_is_written_out() -> None:
    record = Whole(name="a\udcff", count=1, tables={"\udc80": {}}, picture=b"\x00\xff")
    read = decode_record(Whole, encode_record(record), "w.json")
    assert (read.name, list(read.tables), read.picture) == (r"a\udcff", [r"\udc80"], b"\x00\xff")


def test_a_file_that_is_not_there_or_damaged_is_known_as_none_and_read_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    assert known_record(Whole, path) is None
    with pytest.raises(StorageError, match=r"w\.json: No such file"):
        read_record(Whole, path)
    path.write_text("{")
    assert known_record(Whole, path) is None
    with pytest.raises(IntegrityError, match=r"w\.json: no JSON"):
        read_record(Whole, path)
