"""The campaign of hostile images sees a reader of other pixels, one that takes damage for whole, and a lost file."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.faults import hostile_images
from tests.faults.golden import pillow_grey
from tests.faults.hostile_files import corners
from tests.faults.png_writer import GREY, png, zeros

ONE_LEVEL_OFF = """
import loaders.radiograph as reading
whole = reading._finish
reading._finish = lambda image, grey_HW, **more: whole(image, grey_HW ^ 1, **more)
"""
DAMAGE_IS_WHOLE = """
import numpy as np
import loaders.radiograph as reading
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
A_FILE_IS_LOST = """
import loaders.convert as converting
whole = converting.csv_bytes
converting.csv_bytes = lambda rows: whole(rows[:-1])
"""


@pytest.mark.parametrize("fault", [ONE_LEVEL_OFF, DAMAGE_IS_WHOLE, A_FILE_IS_LOST], ids=["pixels", "damage", "account"])
def test_a_planted_fault_is_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_images, "other_commands", lambda nursery, folder: [])
    monkeypatch.setattr(hostile_images, "sample", tuple)  # small files of every format
    tally = hostile_images.run(16, 1, tmp_path, lambda: None, before=fault)
    assert tally.failures and "attempt" in tally.failures[0]


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
