"""Subsets of betons, and the lungs' region in a frame."""

from __future__ import annotations

import csv
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import loaders.beton.writer
from loaders.beton.reader import Beton
from loaders.beton.writer import check_room, subset_id, write_beton, write_subset
from loaders.errors import BetonError, InputError, StorageError
from loaders.images.frame import LUNG_MARGIN, read_mask, template_SS, without_lungs


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


def blank_lungs(frame_SS: np.ndarray) -> np.ndarray:
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
    assert blank_SS.mean() < 0.65


def test_all_but_the_lungs_stands_in_the_crop(phantoms: Path) -> None:
    frame_SS = np.tile(np.linspace(0, 255, 46).astype(np.uint8), (46, 1))
    shown_SS = without_lungs(frame_SS, 32)
    crop_CC = shown_SS[7:39, 7:39]
    assert shown_SS.shape == frame_SS.shape and shown_SS.dtype == np.uint8
    blank_CC = without_lungs(np.zeros((46, 46), np.uint8), 32)[7:39, 7:39] > 0
    assert 0.3 < blank_CC.mean() < 0.7, "some of it is hidden, and most of a chest's surroundings are not"
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
