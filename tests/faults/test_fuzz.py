"""Coverage-guided fuzzing of the beton readers and the decoders, by atheris; an attempt is a second of it."""

import base64
import importlib.util
import io
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.beton_layout import own_layout
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import ForkServer
from tests.loaders import test_dicom
from tests.loaders.test_beton import PAGE, write
from tests.loaders.test_ffcv_fields import FIELDS, make_beton, sample_values

SECONDS, MEMORY = 60, 1024  # an input may take, and MiB beyond what the fuzzer has itself
OWN_MEMORY = 600  # MiB of the fuzzer with all it imports


def missing() -> str | None:
    """Why there can be no fuzzing here."""
    return None if importlib.util.find_spec("atheris") else "atheris is not installed: pip install -e '.[faults]'"


def seeds(folder: Path) -> Iterator[bytes]:
    """Small sound files of every kind, as inputs of fuzz_target."""
    from tests.faults.fuzz_target import ANY, BETON, FOREIGN, PNG, packed  # needs atheris

    write(folder / "seed.beton", 3, 16)
    content = (folder / "seed.beton").read_bytes()
    layout = own_layout(content, 16)
    footer = layout.table - layout.footer
    yield bytes([BETON]) + packed(content, layout.metadata + 48, 3 * 16**2, footer)
    for fields, samples in ((FIELDS, 2), ([field for field in FIELDS if field.name in ("image", "label")], 3)):
        content = make_beton(fields, [sample_values(sample) | {"label": sample % 2} for sample in range(samples)])
        head, page = (len(content[begin : begin + PAGE].rstrip(b"\0\xee")) + 16 for begin in (0, PAGE))
        yield bytes([FOREIGN]) + packed(content, head, page, 0)
    ramp_HW = np.add.outer(np.arange(9) * 9, np.arange(7) * 20).astype(np.uint8)
    for mode in ("L", "RGB", "RGBA", "P", "1", "I;16", "LA"):
        deep_HW = ramp_HW.astype(np.uint16) * 250
        picture = Image.fromarray(deep_HW) if mode == "I;16" else Image.fromarray(ramp_HW).convert(mode)
        for kind, name in ((PNG, "PNG"), (ANY, "TIFF"), (ANY, "BMP"), (ANY, "JPEG")):
            file = io.BytesIO()
            if mode in ("RGBA", "P", "I;16", "LA") and name in ("BMP", "JPEG"):
                continue
            picture.save(file, name)
            yield bytes([kind]) + file.getvalue()
    for syntax in (test_dicom.EXPLICIT, test_dicom.IMPLICIT, test_dicom.DEFLATED, test_dicom.BIG):
        for bits in (8, 12):
            film_HW = test_dicom.film(bits)[:6, :7]
            yield bytes([ANY]) + test_dicom.native(film_HW, bits, syntax, PatientID="A", WindowCenter="9")
    small = test_dicom.film(8)[:6, :7]
    yield bytes([ANY]) + test_dicom.packed(test_dicom.rle(small), small, 8, test_dicom.RLE)


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """count: seconds.  defect: Python source that the fuzzer's process runs first, where a test breaks the product."""
    tally, corpus, advanced = Tally(), folder / "corpus", 0
    corpus.mkdir()
    for place, content in enumerate(seeds(folder)):
        (corpus / f"{place:03}").write_bytes(content)
    flags = [
        f"-max_total_time={count}", f"-seed={seed + 1}", f"-timeout={SECONDS}", "-max_len=16384",
        f"-rss_limit_mb={MEMORY + OWN_MEMORY}", f"-malloc_limit_mb={MEMORY}", f"-artifact_prefix={folder}/found-",
    ]  # fmt: skip
    arguments = [str(folder), str(corpus), *flags]
    # a crash must reach libFuzzer's own handler, which keeps the input: no faulthandler before it
    with ForkServer(folder / "child", {"PYTHONFAULTHANDLER": ""}, "import tests.faults.fuzz_target") as server:
        before = f"{defect}\nfrom tests.faults.fuzz_target import main\nmain({arguments!r})"
        fuzzer, began = server.start(before=before), time.monotonic()
        while fuzzer.alive() and time.monotonic() - began < count + SECONDS:
            time.sleep(0.1)
            while advanced < min(count, int(time.monotonic() - began)):
                advance()
                advanced += 1
        ending = fuzzer.wait(timeout=SECONDS)
    for _ in range(count - advanced):
        advance()
    if (folder / "counts").exists():
        tally.outcomes.update(json.loads((folder / "counts").read_text()))
    if ending.code:
        printed = ending.errors + ending.output
        found = b"".join(path.read_bytes() for path in sorted(folder.glob("found-*"))[:1])
        text = base64.b85encode(zlib.compress(found, 9)).decode()
        marks = ("Uncaught Python exception", "ERROR: libFuzzer")
        at = next((printed.find(mark) for mark in marks if mark in printed), max(0, len(printed) - 1500))
        data = f"seed {seed}; the input, zlib in base 85: {text[:4000]}"
        tally.broke(f"ended with {ending.code}: {printed[at : at + 1500]!r} ({data})")
    return tally


CAMPAIGN = Campaign(
    name="fuzzing",
    attack="coverage-guided fuzzing (atheris) of the beton readers and the decoders of PNG, DICOM, TIFF, JPEG and BMP; "
    "attempts are inputs, in 600 s",
    holds="no error but plainfilm's own, no hang (60 s), at most 1 GiB, no pixel, frame or label other than the file's",
    run=run,
    short=5,
    full=600,
    in_seconds=True,
    missing=missing,
)


# ---- what the campaign notices


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_a_fuzzer_is_not_blamed_for_the_memory_of_who_started_it(tmp_path: Path) -> None:
    """On Linux an executed program's ru_maxrss, libFuzzer's measure, begins at its parent's peak."""
    np.ones((MEMORY + OWN_MEMORY + 100) << 20, np.uint8)  # touched, and gone again: the peak stays
    tally = run(2, 0, tmp_path, lambda: None)
    assert not tally.failures, tally.failures
    assert sum(tally.outcomes.values()) > 0


def test_a_reader_that_gives_other_pixels_is_found(tmp_path: Path) -> None:
    advanced: list[None] = []
    plant = (
        "from loaders.beton.reader import Beton; inner = Beton.frame; Beton.frame = lambda *given: inner(*given) ^ 1"
    )
    tally = run(4, 0, tmp_path, lambda: advanced.append(None), plant)
    assert len(advanced) == 4
    assert tally.failures and "a frame that the file does not have" in tally.failures[0], tally.failures
    assert (tmp_path / "found-python").stat().st_size > 16 and "c-jL100001" not in tally.failures[
        0
    ]  # it can be repeated


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
