"""The beton: what is written is read back, and damage is found and named."""

import csv
import gzip
import json
import os
import tracemalloc
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loaders.beton.writer
from loaders.beton.format import (
    AGES,
    ALLOCATION,
    BLOCK,
    DESCRIPTOR,
    FOOTER_VERSION,
    HEADER,
    ROW,
    SEXES,
    TASK_FACTS,
    Facts,
    demographic_flags,
    sexes_and_ages,
)
from loaders.beton.reader import Beton
from loaders.beton.writer import beton_size, check_room, subset_id, write_beton, write_subset, write_union
from loaders.errors import BetonError, ConfigError, InputError, StorageError
from loaders.images.frame import LUNG_MARGIN, read_mask, template_SS
from loaders.images.regions import without_region
from tests.faults.beton_layout import facts_of, hashed_formerly, own_layout, reforged, with_facts
from tests.findings_example import NAMES, write_findings

PAGE = 1 << 21
OLD = Path(__file__).with_name("version_1.beton.gz")  # by plainfilm 0.6.0, whose footers had no version


def some_facts(stored: int = 46, **changes: object) -> Facts:
    facts = {
        "classes": ("covid", "normal"),
        "positive": "covid",
        "stored": stored,
        "crop": stored - 14,
        "fit": "stretch",
        "split": "train",
        "seed": 0,
        "conversion_id": "c" * 32,
        "site_key_id": "k" * 16,
        "source_fingerprint": "f" * 32,
    }
    return Facts(**(facts | changes))


def write(path: Path, num_samples: int, stored: int = 46, page_size: int = PAGE) -> np.ndarray:
    """Write random frames; give them."""
    rng = np.random.default_rng(num_samples)
    frames_NSS = rng.integers(0, 256, (num_samples, stored, stored)).astype(np.uint8)
    rows_N = np.zeros(num_samples, ROW)
    rows_N["group"] = np.arange(num_samples) // 2
    write_beton(path, iter(frames_NSS), np.arange(num_samples) % 2, rows_N, some_facts(stored), page_size)
    return frames_NSS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound beton of five samples."""
    path = tmp_path_factory.mktemp("whole") / "x.beton"
    write(path, 5)
    return path.read_bytes()


def offsets(content: bytes) -> dict[str, int]:
    """Where the parts of a sound beton begin."""
    header = np.frombuffer(content, HEADER, 1)[0]
    block_start = HEADER.itemsize + 2 * DESCRIPTOR.itemsize - 1024
    block = np.frombuffer(content[block_start:], BLOCK, 1)[0]
    return {
        "header": 0,
        "descriptors": HEADER.itemsize,
        "block": block_start,
        "metadata": HEADER.itemsize + 2 * DESCRIPTOR.itemsize,
        "page": PAGE,
        "footer": int(block["ptr"]),
        "table": int(header["alloc_table_ptr"]),
        "end": len(content),
    }


@pytest.mark.parametrize(("num_samples", "stored"), [(1, 46), (5, 46), (991, 46), (992, 46), (3, 1448), (2, 1)])
def test_frames_and_labels_come_back_as_they_were_written(tmp_path: Path, num_samples: int, stored: int) -> None:
    path = tmp_path / "x.beton"
    if stored == 1:
        frames_NSS = np.array([[[3]], [[250]]], np.uint8)
        write_beton(path, frames_NSS, np.array([0, 1]), np.zeros(2, ROW), some_facts(1, crop=1), PAGE)
    else:
        frames_NSS = write(path, num_samples, stored)
    with Beton(path) as beton:
        beton.verify()
        assert len(beton) == num_samples and beton.verified
        assert beton.label_N.tolist() == [sample % 2 for sample in range(num_samples)]
        for sample, frame_SS in enumerate(frames_NSS):
            np.testing.assert_array_equal(beton.frame(sample), frame_SS)
    assert path.stat().st_size <= beton_size(num_samples, stored, PAGE)


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="this system does not find holes")
@pytest.mark.parametrize("num_samples", [1, PAGE // 46**2, PAGE // 46**2 + 1])
def test_a_beton_has_no_holes_since_reading_one_needs_room_that_a_full_disk_in_memory_has_not(
    tmp_path: Path, num_samples: int
) -> None:
    write(tmp_path / "a.beton", num_samples)
    with (tmp_path / "holes").open("wb") as sparse:
        sparse.truncate(1 << 20)
    first = {}
    for path in tmp_path.iterdir():
        with path.open("rb") as file:
            first[path.name] = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    if first["holes"]:
        pytest.skip("this file system has no holes")
    assert first["a.beton"] == (tmp_path / "a.beton").stat().st_size


def test_the_facts_and_rows_come_back(tmp_path: Path) -> None:
    write(path := tmp_path / "x.beton", 4)
    with Beton(path) as beton:
        assert beton.facts == some_facts()
        assert beton.rows_N["group"].tolist() == [0, 0, 1, 1]


def test_the_layout_is_that_of_docs_beton(whole: bytes) -> None:
    at = offsets(whole)
    header = np.frombuffer(whole, HEADER, 1)[0]
    assert (int(header["version"]), int(header["num_fields"]), int(header["page_size"])) == (2, 2, PAGE)
    assert whole[24] == 4 and whole[25:30] == b"image" and whole[24 + 1041] == 1 and whole[1066:1071] == b"label"
    assert at["page"] % PAGE == 0 and (at["footer"] - at["page"]) % PAGE == 0
    assert whole[at["table"] - 8 : at["table"]] == b"PLNFEND\x01"
    assert at["end"] - at["table"] == 5 * 24


def test_frames_larger_than_a_page_and_empty_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--page-mib"):
        write(tmp_path / "x.beton", 1, stored=1450)
    with pytest.raises(InputError, match="no samples"):
        write(tmp_path / "x.beton", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write(path := tmp_path / "x.beton", 2)
    before = path.read_bytes()

    def frames():
        yield np.zeros((46, 46), np.uint8)
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        write_beton(path, frames(), np.array([0, 1]), np.zeros(2, ROW), some_facts(), PAGE)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_is_found(whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    at = offsets(whole)
    part = data.draw(st.sampled_from(["header", "descriptors", "block", "metadata", "page", "footer", "table"]))
    ends = dict(zip(list(at)[:-1], list(at.values())[1:], strict=True)) | {"page": at["page"] + 5 * 46 * 46}
    place = data.draw(st.integers(at[part], ends[part] - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.beton"
    path.write_bytes(damaged)
    with pytest.raises(BetonError, match=r"flipped\.beton"), Beton(path) as beton:
        beton.verify()


@pytest.mark.parametrize("part", ["header", "descriptors", "block", "metadata", "page", "footer", "table", "end"])
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_beton_cut_at_any_boundary_is_refused(whole: bytes, tmp_path: Path, part: str, shift: int) -> None:
    length = max(0, offsets(whole)[part] + shift)
    path = tmp_path / "cut.beton"
    path.write_bytes((whole + b"\0" * 8)[:length])
    if length == len(whole):
        Beton(path).close()
        return
    for trust in (False, True):
        with pytest.raises(BetonError, match=r"cut\.beton"):
            Beton(path, trust_unverified=trust)


@pytest.mark.parametrize("name", ["num_samples", "alloc_table_ptr", "page_size", "num_fields", "version"])
@pytest.mark.parametrize("value", [0, 1, 2**16 - 1, 2**31, 2**63, 2**64 - 1])
def test_extreme_header_values_are_refused_without_allocating(
    whole: bytes, tmp_path: Path, name: str, value: int
) -> None:
    header = np.frombuffer(whole[:24], HEADER).copy()
    header[name] = value & (2 ** (8 * HEADER[name].itemsize) - 1)
    if header.tobytes() == whole[:24]:
        return
    path = tmp_path / "extreme.beton"
    path.write_bytes(header.tobytes() + whole[24:])
    for trust in (False, True):
        with pytest.raises(BetonError):
            Beton(path, trust_unverified=trust)


def strip_footer(whole: bytes) -> bytes:
    """The same beton as another program would write it: no block, no footer."""
    at = offsets(whole)
    header = np.frombuffer(whole[:24], HEADER).copy()
    header["alloc_table_ptr"] = at["footer"]
    start = at["block"]
    return (
        header.tobytes() + whole[24:start] + bytes(1024) + whole[at["metadata"] : at["footer"]] + whole[at["table"] :]
    )


def test_a_foreign_beton_is_read_only_on_request_and_never_called_verified(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.beton"
    path.write_bytes(strip_footer(whole))
    with pytest.raises(BetonError, match="--trust-unverified"):
        Beton(path)
    with Beton(path, trust_unverified=True) as beton:
        assert not beton.verified and beton.facts.classes == ("class 0", "class 1")
        with pytest.raises(ConfigError, match="no checksums"):
            beton.verify()


def foreign_with_table(whole: bytes, table: np.ndarray) -> bytes:
    content = strip_footer(whole)
    return content[: len(content) - table.nbytes] + table.tobytes()


def test_a_foreign_table_may_be_in_any_order(whole: bytes, tmp_path: Path) -> None:
    table = np.frombuffer(whole[offsets(whole)["table"] :], ALLOCATION)
    path = tmp_path / "shuffled.beton"
    path.write_bytes(foreign_with_table(whole, table[[3, 0, 4, 2, 1]]))
    with Beton(path, trust_unverified=True) as beton:
        assert beton.offset_N.tolist() == table["ptr"].tolist()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ptr", PAGE - 1, "sample 2: its region of 2116 bytes at byte 2097151 lies outside the pages"),
        ("ptr", 2 * PAGE, "sample 2: .* lies outside the pages"),
        ("ptr", 2**64 - 1, "sample 2: .* lies outside the pages"),
        ("ptr", 2 * PAGE - 1, "sample 2: .* crosses a page"),
        ("size", 2**64 - 1, "sample 2: .* crosses a page"),
        ("ptr", PAGE + 5, "overlaps another"),
        ("size", 2117, "sample 3: .* overlaps another"),
        ("size", 2115, "does not match the metadata: sample 2 has its frame at byte"),
        ("size", 0, "does not match the metadata: sample 2"),
        ("ptr", PAGE + 5 * 2116, "does not match the metadata: sample 2"),
        ("sample_id", 3, "does not match the metadata: sample 2"),
        ("sample_id", 5, "sample 5: .* has no sample, expected one of 5"),
    ],
)
def test_a_false_foreign_table_is_refused_with_the_sample(
    whole: bytes, tmp_path: Path, column: str, value: int, message: str
) -> None:
    table = np.frombuffer(whole[offsets(whole)["table"] :], ALLOCATION).copy()
    table[column][2] = value
    path = tmp_path / "false.beton"
    path.write_bytes(foreign_with_table(whole, table))
    with pytest.raises(BetonError, match=rf"false\.beton: .*{message}.*; convert the radiographs again"):
        Beton(path, trust_unverified=True)


def test_one_mark_of_two_or_a_gap_is_corruption_even_on_trust(whole: bytes, tmp_path: Path) -> None:
    at = offsets(whole)
    no_block = whole[: at["block"]] + bytes(1024) + whole[at["metadata"] :]
    no_tail = whole[: at["table"] - 8] + bytes(8) + whole[at["table"] :]
    neither = no_block[: at["table"] - 8] + bytes(8) + no_block[at["table"] :]
    for content, message in ((no_block, "two marks"), (no_tail, "two marks"), (neither, "gap")):
        path = tmp_path / "half.beton"
        path.write_bytes(content)
        with pytest.raises(BetonError, match=message):
            Beton(path, trust_unverified=True)


def test_the_footer_holds_no_names_and_no_patients(betons: Path) -> None:
    for path in betons.glob("*.beton"):
        content = path.read_bytes()
        assert b"phantom-5-0" not in content and b".png" not in content and b"images/" not in content


def test_a_missing_file_is_a_storage_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.beton"):
        Beton(tmp_path / "nowhere.beton")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", [None]), ("crop", "46"), ("stored", 46.0), ("classes", "ab"), ("classes", {"covid": 1}),
        ("positive", ["covid"]), ("views", [None]), ("versions", [1]), ("versions", {"numpy": 2}), ("synthetic", "no"),
        ("seed", None), ("colour", "blue"), ("demographics", "yes"), ("footer_version", "2"), ("footer_version", 0),
        ("segmenter", None),
    ],
)  # fmt: skip
def test_facts_of_another_type_are_refused_even_where_every_checksum_fits(
    whole: bytes, tmp_path: Path, name: str, value: object
) -> None:
    layout = own_layout(whole, 46)
    path = tmp_path / "forged.beton"
    path.write_bytes(with_facts(whole, layout, facts_of(whole, layout)))
    Beton(path).close()
    path.write_bytes(with_facts(whole, layout, facts_of(whole, layout) | {name: value}))
    with pytest.raises(
        BetonError, match=rf"forged\.beton: footer has unreadable facts \((unknown: |Expected `\w+`.*\$\.){name}"
    ):
        Beton(path)


def test_a_beton_cut_short_or_overwritten_while_it_is_open_is_an_error_at_the_next_use(tmp_path: Path) -> None:
    for name, change in {
        "cut": lambda path: os.truncate(path, PAGE + 2116),
        "grown": lambda path: os.truncate(path, 3 * PAGE),
        "written": lambda path: os.utime(path, ns=(1, 1)),  # as after a write that keeps the size
    }.items():
        write(path := tmp_path / f"{name}.beton", 5)
        with Beton(path) as beton:
            beton.verify()
            change(path)
            for use in (beton.check_unchanged, beton.verify, lambda held=beton: held.check_samples(np.array([0]))):
                with pytest.raises(BetonError, match=rf"{name}\.beton: written in place while it was read"):
                    use()


def test_a_file_renamed_over_an_open_beton_changes_nothing_for_its_reader(tmp_path: Path) -> None:
    frames_NSS = write(path := tmp_path / "x.beton", 5)
    with Beton(path) as beton:
        write(tmp_path / "y.beton", 7)
        (tmp_path / "y.beton").replace(path)
        beton.verify()
        np.testing.assert_array_equal(beton.frame(4), frames_NSS[4])


def test_what_is_no_regular_file_is_a_storage_error_and_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.beton")
    for path, found in ((tmp_path / "fifo.beton", "not a regular file"), (tmp_path, "Is a directory")):
        with pytest.raises(StorageError, match=rf"{path.name}: {found}, expected a file"):
            Beton(path)


def test_a_beton_of_the_first_version_is_read_and_written_alike(tmp_path: Path) -> None:
    path = tmp_path / "old.beton"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    with Beton(path) as beton:
        beton.verify()
        assert (beton.facts.split, beton.facts.views, beton.facts.sources) == ("heldout", ("", "PA"), ("", "here"))
        assert beton.rows_N["flags"].tolist() == [1, 3, 0] and not beton.facts.demographics
        assert beton.facts.hash_algorithm == "blake2b"
        assert [code_N.tolist() for code_N in sexes_and_ages(beton.rows_N)] == [[0, 0, 0], [0, 0, 0]]
        frames = [beton.frame(sample) for sample in range(3)]
        write_beton(tmp_path / "new.beton", frames, beton.label_N, beton.rows_N, beton.facts, PAGE)
    assert (tmp_path / "new.beton").read_bytes() == path.read_bytes()


def test_sex_and_age_are_kept_in_a_footer_of_version_2(tmp_path: Path) -> None:
    kept = [(sex, age) for sex in range(len(SEXES)) for age in range(len(AGES))]
    rows_N = np.zeros(len(kept), ROW)
    rows_N["flags"] = [demographic_flags(sex, age) | sex & 3 for sex, age in kept]
    frames = np.zeros((len(kept), 46, 46), np.uint8)
    path, label_N, facts = tmp_path / "x.beton", np.zeros(len(kept), int), some_facts(demographics=True)
    write_beton(path, frames, label_N, rows_N, facts, PAGE)
    assert facts_of(path.read_bytes(), own_layout(path.read_bytes(), 46))["footer_version"] == 2
    with Beton(path) as beton:
        assert beton.facts == facts and facts.demographics
        assert list(zip(*map(np.ndarray.tolist, sexes_and_ages(beton.rows_N)), strict=True)) == kept
        assert (beton.rows_N["flags"] & 3).tolist() == [sex & 3 for sex, _ in kept]
    rows_N["flags"] |= 15 << 4
    with pytest.raises(BetonError, match=r"x\.beton.*: a row has the age code 15, expected 0 to 10"):
        write_beton(path, frames, label_N, rows_N, facts, PAGE)


@pytest.mark.parametrize(
    ("others", "kept"),
    [({}, ()), ({"demographics": True}, ("demographics",)), ({"task": "findings"}, ("demographics", *TASK_FACTS))],
)
def test_frames_of_the_lungs_alone_are_facts_in_a_footer_of_version_4(
    tmp_path: Path, others: dict[str, Any], kept: tuple[str, ...]
) -> None:
    path, labels = tmp_path / "x.beton", np.zeros(1, int)
    facts = some_facts(lungs="boxed-equal", segmenter="0123456789abcdef", **others)
    if others.get("task"):
        facts, labels = replace(facts, positive=""), np.zeros((1, facts.num_findings), np.float32)
    write_beton(path, np.zeros((1, 46, 46), np.uint8), labels, np.zeros(1, ROW), facts, PAGE)
    found = facts_of(path.read_bytes(), own_layout(path.read_bytes(), 46))
    assert found["footer_version"] == 4 and (found["lungs"], found["segmenter"]) == (facts.lungs, facts.segmenter)
    assert {"demographics", *TASK_FACTS} & found.keys() == {*kept}
    with Beton(path) as beton:
        assert beton.facts == facts


@pytest.mark.parametrize("others", [{}, {"demographics": True}, {"lungs": "masked", "segmenter": "given"}])
def test_how_pixels_are_hashed_is_a_fact_in_a_footer_of_version_5_unless_it_is_as_before(
    tmp_path: Path, others: dict[str, Any]
) -> None:
    found = {}
    for algorithm in ("blake3", "blake2b"):
        path, facts = tmp_path / f"{algorithm}.beton", some_facts(hash_algorithm=algorithm, **others)
        write_beton(path, np.zeros((1, 46, 46), np.uint8), np.zeros(1, int), np.zeros(1, ROW), facts, PAGE)
        content = path.read_bytes()
        found[algorithm] = facts_of(content, own_layout(content, 46))
        with Beton(path) as beton:
            assert beton.facts == facts
    assert (found["blake3"]["footer_version"], found["blake3"]["hash_algorithm"]) == (5, "blake3")
    assert others.items() <= found["blake3"].items()
    assert "hash_algorithm" not in found["blake2b"] and found["blake2b"].get("footer_version", 1) < 5


def test_betons_whose_pixels_are_hashed_differently_make_no_union(betons: Path, tmp_path: Path) -> None:
    old, out = tmp_path / "older" / "val.beton", tmp_path / "union.beton"
    old.parent.mkdir()
    with Beton(betons / "train.beton") as first:
        old.write_bytes(hashed_formerly((betons / "val.beton").read_bytes(), first.side))
        with Beton(old) as second:
            for order in ([first, second], [second, first]):
                group_N = np.arange(len(first) + len(second))
                with pytest.raises(InputError, match=r"pixels are hashed by blake.*, expected blake.*older again"):
                    write_union(order, group_N, out, "heldout", "c" * 32)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"lungs": "hidden", "segmenter": "given"}, r"unreadable facts \(Invalid enum value 'hidden'"),
        ({"lungs": ["masked"], "segmenter": "given"}, "unreadable facts"),
        ({"lungs": "masked"}, "footer has lungs masked and segmenter none, expected both, or neither"),
        ({"segmenter": "given"}, "footer has lungs off and segmenter given, expected both, or neither"),
    ],
)
def test_lungs_that_are_unknown_or_found_by_nothing_are_refused_even_where_every_checksum_fits(
    whole: bytes, tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    layout = own_layout(whole, 46)
    content = with_facts(whole, layout, facts_of(whole, layout) | {"footer_version": 4} | changes)
    (tmp_path / "x.beton").write_bytes(content)
    with pytest.raises(BetonError, match=rf"x\.beton: .*{found}"):
        Beton(tmp_path / "x.beton")


@pytest.mark.parametrize("change", ["facts", "rows", "fields"])
def test_a_beton_of_a_newer_version_is_refused_by_its_version_whatever_else_it_has(
    whole: bytes, tmp_path: Path, change: str
) -> None:
    layout = own_layout(whole, 46)
    newer = FOOTER_VERSION + 1
    facts = facts_of(whole, layout) | {"footer_version": newer}
    if change == "facts":
        facts = {"footer_version": newer, "classes": {"covid": 1}, "anew": [1]}
    content = bytearray(with_facts(whole, layout, facts))
    if change == "rows":  # as if there were more of them
        content[layout.footer + 16] += 1
    elif change == "fields":  # no label
        content[layout.metadata - 1040 : layout.metadata - 1035] = b"other"
    path = tmp_path / "newer.beton"
    path.write_bytes(reforged(content, own_layout(bytes(content), 46)))
    for trust in (False, True):
        with pytest.raises(BetonError) as refused:
            Beton(path, trust_unverified=trust)
        found, expected = f"written by a newer plainfilm (footer version {newer})", f"expected at most {newer - 1}"
        assert str(refused.value) == f"{path}: {found}, {expected}; update plainfilm"
    damaged = path.read_bytes()
    written, other = (f'"footer_version": {version}'.encode() for version in (newer, newer + 1))
    assert written in damaged
    path.write_bytes(damaged.replace(written, other))
    with pytest.raises(BetonError, match="footer checksum differs from the expected; convert the radiographs again"):
        Beton(path)


def test_facts_are_plain_json(whole: bytes) -> None:
    at = offsets(whole)
    text = whole[at["footer"] + 32 : at["table"]]
    facts, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", "replace"))
    assert facts["classes"] == ["covid", "normal"]


def test_frames_labels_and_rows_are_the_sources_in_the_order_asked_for(betons: Path, tmp_path: Path) -> None:
    with Beton(betons / "train.beton") as a, Beton(betons / "heldout.beton") as b:
        chosen = [(a, np.array([3, 0, 7])), (b, np.array([2, 1]))]
        write_subset(chosen, tmp_path / "x.beton", "val", conversion_id="of the fold")
        with Beton(tmp_path / "x.beton") as subset:
            subset.verify()
            pairs = [(beton, sample) for beton, index_N in chosen for sample in index_N.tolist()]
            assert len(subset) == len(pairs)
            for place, (beton, sample) in enumerate(pairs):
                assert (subset.frame(place) == beton.frame(sample)).all()
                assert subset.label_N[place] == beton.label_N[sample]
                assert subset.rows_N[place] == beton.rows_N[sample]
            assert subset.facts == replace(a.facts, split="val", conversion_id="of the fold")
            assert subset.page_size == a.page_size


def blank_lungs(frame_SS: np.ndarray, sample: int = 0) -> np.ndarray:
    return np.where(template_SS(len(frame_SS), LUNG_MARGIN), np.uint8(128), frame_SS)


def test_changed_frames_keep_their_rows_but_for_the_checksum(betons: Path, tmp_path: Path) -> None:
    with Beton(betons / "train.beton") as source:
        index_N = np.arange(len(source))
        write_subset([(source, index_N)], tmp_path / "x.beton", "train", change=blank_lungs)
        with Beton(tmp_path / "x.beton") as subset:
            subset.verify()
            assert subset.facts == source.facts
            for name in ("pixel_hash", "patient_hash", "group", "view", "source", "flags"):
                assert (subset.rows_N[name] == source.rows_N[name]).all()
            assert (subset.rows_N["crc"] != source.rows_N["crc"]).all()
            hidden_SS = template_SS(source.side, LUNG_MARGIN)
            for sample in index_N.tolist():
                frame_SS = subset.frame(sample)
                assert len(np.unique(frame_SS[hidden_SS])) == 1  # the same grey wherever lungs are
                assert (frame_SS[~hidden_SS] == source.frame(sample)[~hidden_SS]).all()


def other_beton(source: Beton, path: Path, **facts: object) -> Path:
    """The same samples in a beton with other facts."""
    frames = [source.frame(sample) for sample in range(len(source))]
    write_beton(path, frames, source.label_N, source.rows_N, replace(source.facts, **facts), source.page_size)
    return path


def test_betons_of_two_conversions_do_not_mix(betons: Path, tmp_path: Path) -> None:
    with Beton(betons / "train.beton") as a:
        path = other_beton(a, tmp_path / "b.beton", conversion_id="another")
        with Beton(path) as b, pytest.raises(InputError, match=r"b\.beton: of conversion another.*expected one"):
            write_subset([(a, np.arange(2)), (b, np.arange(2))], tmp_path / "x.beton", "train")
    assert not (tmp_path / "x.beton").exists()


def test_a_damaged_frame_gets_no_new_checksum(betons: Path, tmp_path: Path) -> None:
    content = bytearray((betons / "train.beton").read_bytes())
    with Beton(betons / "train.beton") as beton:
        content[int(beton.offset_N[1]) + 5] ^= 1
    (tmp_path / "damaged.beton").write_bytes(content)
    with Beton(tmp_path / "damaged.beton") as beton:
        write_subset([(beton, np.array([0]))], tmp_path / "whole.beton", "train")
        with pytest.raises(BetonError, match=r"sample 1: checksum differs"):
            write_subset([(beton, np.array([0, 1]))], tmp_path / "x.beton", "train")
    assert not (tmp_path / "x.beton").exists()


def test_no_samples_are_refused(betons: Path, tmp_path: Path) -> None:
    with Beton(betons / "train.beton") as beton, pytest.raises(InputError, match="no samples"):
        write_subset([(beton, np.arange(0))], tmp_path / "x.beton", "train")


def test_an_identity_depends_on_conversion_purpose_and_samples(betons: Path, tmp_path: Path) -> None:
    with Beton(betons / "train.beton") as beton:
        two, three = np.arange(2), np.arange(3)
        found = {
            subset_id(beton, "a", two, three),
            subset_id(beton, "b", two, three),
            subset_id(beton, "a", three, two),
            subset_id(beton, "a", two, three[::-1]),
            subset_id(beton, "a", np.arange(5)),
        }
        assert len(found) == 5 and beton.facts.conversion_id not in found
        assert subset_id(beton, "a", two, three) in found
        with Beton(other_beton(beton, tmp_path / "b.beton", conversion_id="another")) as other:
            assert subset_id(other, "a", two, three) not in found


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(loaders.beton.writer.shutil, "disk_usage", lambda folder: usage(1000))
    check_room(tmp_path / "not" / "yet", 1000)
    with pytest.raises(StorageError, match="1,000 bytes free on the disk, expected 1,001"):
        check_room(tmp_path / "not" / "yet", 1001)


def test_the_lungs_usual_place_covers_the_lungs_that_phantoms_have(phantoms: Path) -> None:
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))[:10]
    masks_NSS = np.array([read_mask(phantoms.parent / row["mask"], 46, "stretch") for row in rows])
    assert (masks_NSS.mean((1, 2)) > 0.1).all()
    blank_SS = template_SS(46, LUNG_MARGIN)
    assert ((masks_NSS & blank_SS).sum((1, 2)) >= 0.98 * masks_NSS.sum((1, 2))).all()
    assert blank_SS.mean() < 0.72


def test_all_but_the_lungs_stands_in_the_crop(phantoms: Path) -> None:
    frame_SS = np.tile(np.linspace(0, 255, 46).astype(np.uint8), (46, 1))
    usual_SS = template_SS(46, LUNG_MARGIN)
    shown_SS = without_region(frame_SS, usual_SS, 32)
    crop_CC = shown_SS[7:39, 7:39]
    assert shown_SS.shape == frame_SS.shape and shown_SS.dtype == np.uint8
    blank_CC = without_region(np.zeros((46, 46), np.uint8), usual_SS, 32)[7:39, 7:39] > 0
    assert 0.3 < blank_CC.mean() < 0.78, "some of it is hidden, and most of a chest's surroundings are not"
    wanted_CC = cv2.resize(blank_lungs(frame_SS), (32, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(crop_CC.astype(int) - wanted_CC).max() <= 1
    assert (shown_SS[:7, 7:39] == crop_CC[0]).all() and (shown_SS[7:39, 39:] == crop_CC[:, -1:]).all()


def test_a_mask_follows_its_radiograph_into_the_frame(tmp_path: Path) -> None:
    mask_HW = np.zeros((40, 80), np.uint8)
    mask_HW[8:32, 40:] = 1  # of a file whose white is 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask_HW)
    for fit, rows in (("stretch", slice(4, 16)), ("contain", slice(7, 13)), ("cover", slice(4, 16))):
        expected_SS = np.zeros((20, 20), bool)
        expected_SS[rows, 10:] = True
        assert (read_mask(tmp_path / "mask.png", 20, fit) == expected_SS).all()


def test_a_mask_without_lungs_or_that_is_no_image_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((30, 30), np.uint8))
    with pytest.raises(InputError, match=r"black\.png: black all over"):
        read_mask(tmp_path / "black.png", 20, "stretch")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: "):
        read_mask(tmp_path / "text.png", 20, "stretch")


def test_findings_are_read_as_written_and_damage_to_them_is_found(tmp_path: Path) -> None:
    folder = write_findings(tmp_path / "B", unknown=0.3)
    path = folder / "train.beton"
    with Beton(path) as beton:
        beton.verify()
        values = beton.labels.tobytes()
        assert beton.facts.task == "findings" and beton.facts.classes == NAMES and beton.facts.positive == ""
        assert (beton.label_N == -1).all() and beton.labels.dtype == np.float32 and beton.labels.shape == (96, 3)
        assert {*np.unique(beton.labels[np.isfinite(beton.labels)])} == {0, 1} and np.isnan(beton.labels).any()
        write_subset([(beton, np.array([5, 3]))], tmp_path / "part.beton", "val")
        with Beton(tmp_path / "part.beton") as part:
            assert np.array_equal(part.labels, beton.labels[[5, 3]], equal_nan=True)
    whole = path.read_bytes()
    place = whole.index(values)
    path.write_bytes(whole[:place] + bytes([255 - whole[place]]) + whole[place + 1 :])
    with pytest.raises(BetonError, match="findings checksum differs"):
        Beton(path)


def test_findings_are_read_in_blocks_and_a_changed_value_in_the_last_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple("abcdefghijklmn")
    path = write_findings(tmp_path / "B", names, counts={"train": 2000}, crop=8, unknown=0.3) / "train.beton"
    with Beton(path) as beton:
        values = beton.labels.tobytes()
    monkeypatch.setattr("loaders.beton.reader.FINDINGS_AT_ONCE", 64)
    tracemalloc.start()
    try:
        with Beton(path) as beton:
            assert beton.labels.tobytes() == values
        assert tracemalloc.get_traced_memory()[1] < 5 * len(values)  # an index of all has 8 bytes for each of theirs
    finally:
        tracemalloc.stop()
    whole = path.read_bytes()
    place = whole.index(values) + len(values) - 1
    path.write_bytes(whole[:place] + bytes([255 - whole[place]]) + whole[place + 1 :])
    with pytest.raises(BetonError, match="findings checksum differs"):
        Beton(path)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"task": "classes"}, "positive class , expected one of Effusion"),
        ({"task": "classes", "positive": "Nodule"}, "labels -1 to -1, expected 0 to 2"),
        ({"task": "both"}, "unreadable facts"),
        ({"positive": "Nodule"}, "a positive class beside findings"),
        ({"classes": []}, "no findings, expected findings alone"),
        ({"classes": ["a", "b"]}, "no field of 2 findings in float32"),
        ({"classes": ["a", "b", "c", "d"]}, "no field of 4 findings in float32"),
        ({"findings_crc": 0}, "findings checksum differs"),
        ({"uncertain": {"a": 1}}, "unreadable facts"),
    ],
)
def test_facts_that_do_not_fit_the_findings_are_refused_even_where_every_checksum_fits(
    tmp_path: Path, changes: dict, found: str
) -> None:
    content = (write_findings(tmp_path, counts={"train": 4}) / "train.beton").read_bytes()
    layout = own_layout(content, 92)
    (tmp_path / "x.beton").write_bytes(with_facts(content, layout, facts_of(content, layout) | changes))
    with pytest.raises(BetonError, match=found):
        Beton(tmp_path / "x.beton")


def test_findings_other_than_0_1_and_nan_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_findings(tmp_path, counts={"train": 4})
    with Beton(folder / "train.beton") as beton:
        monkeypatch.setattr("loaders.beton.writer.verify_beton", lambda path: None)
        for value in (2.0, -1.0, np.inf):
            labels = beton.labels.copy()
            labels[2, 1] = value
            frames = [beton.frame(sample) for sample in range(4)]
            write_beton(path := tmp_path / "x.beton", frames, labels, beton.rows_N, beton.facts, beton.page_size)
            with pytest.raises(BetonError, match="a finding is neither 1, 0 nor NaN"):
                Beton(path)


def test_a_changed_byte_of_a_findings_beton_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = write_findings(tmp_path, counts={"train": 3}, unknown=0.3) / "train.beton"
    content = path.read_bytes()
    with Beton(path) as beton:
        labels, frames = beton.labels.copy(), np.stack([beton.frame(sample) for sample in range(3)])
        values = content.index(labels.tobytes())
    layout, rng = own_layout(content, 92), np.random.default_rng(0)
    parts = [*layout.parts().values(), (values, values + labels.nbytes), (values + labels.nbytes, layout.footer)]
    refused = 0
    for begin, end in parts:
        for place in rng.choice(np.arange(begin, end), min(40, end - begin), replace=False).tolist():
            changed = bytearray(content)
            changed[place] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            try:
                with Beton(path) as beton:
                    beton.verify()
                    assert np.array_equal(beton.labels, labels, equal_nan=True)
                    assert all((beton.frame(sample) == frames[sample]).all() for sample in range(3))
            except BetonError:
                refused += 1
    assert refused > 200
