"""The campaign of hostile images sees other pixels and frames, damage taken for whole, a lost file, and much memory."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from loaders.images.dicom import decode_dicom
from tests.faults import hostile_damage, hostile_images
from tests.faults.golden import Hostile, dicom_grey, golden_of, pillow_grey, saved
from tests.faults.hostile_files import corners, dicom
from tests.faults.png_writer import GREY, png, zeros
from tests.faults.victim import Nursery

ONE_LEVEL_OFF = """
import loaders.images.radiograph as reading
whole = reading._finish
reading._finish = lambda image, grey_HW, **more: whole(image, grey_HW ^ 1, **more)
"""
OTHER_FRAMES = """
import loaders.images.decode as spool
whole = spool.stored_frame
def other(grey_HW, side, fit):
    frame_SS, saturated = whole(grey_HW, side, fit)
    return frame_SS[::-1].copy(), saturated
spool.stored_frame = other
"""
DAMAGE_IS_WHOLE = """
import numpy as np
import loaders.images.radiograph as reading
def patient(decode):
    def decoded(data, max_pixels):
        try:
            return decode(data, max_pixels)
        except Exception:
            grey_HW = np.frombuffer(data[:40] * 100, np.uint8)[:1600].reshape(40, 40).copy()
            return reading.Radiograph(grey_HW=grey_HW, format="PNG", bits=8, note="")
    return decoded
reading._DECODERS = {name: patient(decode) for name, decode in reading._DECODERS.items()}
"""
CUTS_ARE_WHOLE = """
import loaders.images.radiograph as reading
from PIL import ImageFile
ImageFile.LOAD_TRUNCATED_IMAGES = True
reading.check_jpeg = lambda data: None
"""
A_FILE_IS_LOST = """
import loaders.convert.convert as converting
whole = converting.table_bytes
converting.table_bytes = lambda rows: whole(rows[:-1])
"""
NO_REASON = """
import loaders.images.radiograph as reading
from loaders.errors import RadiographError
def refuse(found, expected, remedy):
    return RadiographError("no")
reading.refuse = refuse
"""
ONE_ROW_TWICE = """
import loaders.audit.audit as auditing
import engine.predict.table as prediction
whole, line = auditing.table_bytes, prediction.csv_line
auditing.table_bytes = lambda files: whole((files[0], *files[:-1]))
prediction.csv_line = lambda row, classes, first=[]: first.append(row) or line(first[-2:][0], classes)
"""
MUCH_MEMORY = "held = bytes([1]) * (1100 << 20)"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (ONE_LEVEL_OFF, "with other pixels"),
        (OTHER_FRAMES, "with another frame"),
        (DAMAGE_IS_WHOLE, "though another reader refuses it"),
        (A_FILE_IS_LOST, "files in, ["),
        (NO_REASON, "without a reason"),
        (MUCH_MEMORY, "took 1"),
    ],
    ids=["pixels", "frames", "damage", "account", "reason", "memory"],
)
def test_a_planted_fault_is_seen(fault: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_images, "other_commands", lambda *given: [])
    monkeypatch.setattr(hostile_damage, "sample", tuple)  # small files of every format
    tally = hostile_images.run(16, 1, tmp_path, lambda: None, defect=fault)
    assert any(seen in failure for failure in tally.failures), tally.failures


def test_a_file_that_another_has_taken_the_row_of_is_seen_in_every_table(tmp_path: Path) -> None:
    made = corners()[0](np.random.default_rng(0))
    hostile_images.write_files(tmp_path / "batch" / "source", [made], "1")
    with Nursery(tmp_path / "nursery", imports=hostile_images.IMPORTS) as nursery:
        found = hostile_images.other_commands(nursery, tmp_path / "batch", ONE_ROW_TWICE)
    assert found == [f"{command} has 13 rows, 12 of the 13 files" for command in ("audit", "predict")]


def test_a_cut_file_that_another_reader_fills_up_is_not_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(attempt: int, seed: int) -> Hostile:
        data = saved(Image.fromarray(noise), "JPEG" if attempt else "BMP")
        name, suffix = ("jpeg", ".jpg") if attempt else ("bmp", ".bmp")
        return Hostile(name=name, suffix=suffix, data=data[: len(data) * 2 // 3], whole=data, demand="either")

    noise = np.random.default_rng(5).integers(0, 256, (40, 40)).astype(np.uint8)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(hostile_images, "other_commands", lambda *given: [])
    monkeypatch.setattr(hostile_images, "hostile", cut)
    tally = hostile_images.run(2, 1, tmp_path, lambda: None, defect=CUTS_ARE_WHOLE)
    assert sum("was written with other pixels" in failure for failure in tally.failures) == 2, tally.failures


def test_files_of_every_format_are_cut_and_flipped_beside_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real.png"
    real.write_bytes(png(np.eye(9, dtype=np.uint8)))
    monkeypatch.setattr(hostile_damage, "sample", lambda: (real,))
    for damage in (hostile_damage.cut, hostile_damage.flipped):
        made = [damage(number, random.Random(number)) for number in range(100)]
        assert {file.suffix for file in made} == {".png", ".jpg", ".tif", ".bmp", ".dcm"}
        assert any(file.name.startswith("real.png") for file in made)


def test_bits_of_a_dicoms_tags_are_flipped_and_what_it_then_shows_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_damage, "sample", tuple)
    made = [hostile_damage.flipped(40, random.Random(number)) for number in range(60)]
    assert {file.suffix for file in made} == {".dcm"}
    refused = sum(dicom_grey(file.data) is None for file in made)
    assert 5 < refused < 55 and all(golden_of(file) is not None for file in made)
    samples = np.random.default_rng(3).integers(0, 256, (9, 11)).astype(np.uint8)
    for bits in (8, 12, 16):
        for tags in ({}, {"PixelRepresentation": 1}, {"PhotometricInterpretation": "MONOCHROME1"}):
            data = dicom(samples if bits == 8 else samples.astype(np.uint16) << (bits - 8), bits, **tags)
            shown_HW = decode_dicom(data, 1000).grey_HW
            golden_HW = dicom_grey(data)
            if bits == 12 and "PixelRepresentation" in tags:
                continue  # pydicom does not extend the sign
            assert golden_HW is not None and golden_HW.dtype == shown_HW.dtype
            assert np.array_equal(golden_HW, shown_HW)


def test_every_corner_is_drawn_in_a_batch_that_all_commands_see() -> None:
    seen = {
        hostile_images.corner_of(attempt)
        for first in range(0, hostile_images.CAMPAIGN.full, hostile_images.BATCH)
        for attempt in range(first, first + hostile_images.BATCH)
        if hostile_images.seen_by_all(first)
    }
    assert seen >= set(range(len(corners())))


def test_every_corner_can_be_made_and_its_golden_pixels_are_another_readers() -> None:
    compared = 0
    for place, make in enumerate(corners()):
        file = make(np.random.default_rng(place))
        assert file.demand != "golden" or file.golden is not None, file.name
        # Pillow keeps 8 bits, and tells a transparent level of fewer bits in the file's units, not its pixels'
        differs = "16 bit" in file.name or any(f"tRNS {depth} bit kind 0" in file.name for depth in (1, 2, 4))
        sound = file.demand == "golden" and file.suffix == ".png" and not differs
        if sound and (seen := pillow_grey(file.data)) is not None:
            assert seen.shape == file.golden.shape and np.array_equal(seen, file.golden), file.name  # type: ignore
            compared += 1
    assert compared > 80


def test_the_writer_of_png_and_of_bombs_is_right() -> None:
    samples = np.random.default_rng(1).integers(0, 256, (9, 11)).astype(np.uint8)
    grey_HW = pillow_grey(png(samples, 8, GREY, interlaced=True, filters=(1, 2, 3, 4, 0)))
    assert grey_HW is not None and grey_HW.tobytes() == samples.tobytes()
    assert zlib.decompress(zeros((3 << 20) + 5)) == bytes((3 << 20) + 5)
