"""What the fuzzer runs: one input read by the beton readers or the decoders, whose own errors alone may come out.

main() runs in a child forked from a process that has imported this: libFuzzer takes its memory from ru_maxrss,
which on Linux a program that is executed inherits from whoever executed it, and a forked child does not.
"""

import contextlib
import io
import json
import logging
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import atheris
import cv2
import numpy as np

# it names every module that it instruments, over the runner's bars
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["loaders"]):
    from loaders import errors
    from loaders.beton import ffcv_fields as beton_fields
    from loaders.beton import reader as beton
    from loaders.images import dicom as _dicom  # noqa: F401 — else it would be imported, without coverage, at the first DICOM
    from loaders.images import radiograph

from tests.faults.beton_layout import HEADER, Layout, data_of, reforged

PAGE = 1 << 21
MAX_PIXELS = 1 << 20
BETON, FOREIGN, PNG, ANY = range(4)  # the first byte of an input, modulo 4
SIZES = struct.Struct("<BHHH")  # of a beton: whether forged; bytes of head, page and footer; the table is the rest


def packed(content: bytes, head: int, page: int, footer: int) -> bytes:
    """A beton of one page as an input, without the zeros between its parts.  head, page, footer: bytes of each."""
    table = 2 * PAGE + footer
    parts = content[:head], content[PAGE : PAGE + page], content[2 * PAGE : table], content[table:]
    return SIZES.pack(footer > 0, head, page, footer) + b"".join(parts)


def unpacked(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """The beton of an input, and how many bytes of its head and page are not zero.

    A forged one has pointers, lengths and checksums that fit.
    """
    forged, head, page, footer = SIZES.unpack_from(data.ljust(SIZES.size, b"\0"))
    data = data[SIZES.size :]
    content = bytearray(data[:head].ljust(PAGE, b"\0") + data[head:][:page].ljust(PAGE, b"\0"))
    content += data[head + page :]
    table = min(2 * PAGE + footer, len(content))
    if forged and table >= 2 * PAGE + 48 and head >= HEADER + 2 * 1041:
        struct.pack_into("<Q", content, 16, table)
        layout = Layout(
            fields=2, samples=min(struct.unpack_from("<Q", content, 8)[0], 64), page=PAGE, metadata=HEADER + 2 * 1041,
            row=16, pages=PAGE, footer=2 * PAGE, table=table, end=len(content), side=0,
        )  # fmt: skip
        struct.pack_into("<QQ", content, layout.block + 8, 2 * PAGE, table - 2 * PAGE)
        struct.pack_into("<Q", content, table - 16, table - 2 * PAGE)
        content = reforged(content, layout)
    return bytes(content), (head, page)


def repaired_png(data: bytes) -> bytes:
    """A PNG's bytes with the checksum of each chunk made to fit: no mutation would get past them."""
    made, at = bytearray(data), 8
    while at + 12 <= len(made):
        end = at + 12 + int.from_bytes(made[at : at + 4], "big")
        if end > len(made):
            break
        made[end - 4 : end] = zlib.crc32(made[at + 4 : end - 4]).to_bytes(4, "big")
        at = end
    return bytes(made)


class Target:
    """Reads inputs.  folder: where they are put for readers of files, and where the counts go."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "input"
        self.counts: Counter[str] = Counter()
        self.written = 0.0

    def __call__(self, data: bytes) -> None:
        """One input.  Errors: whatever should not have come out."""
        kind, data = (data[0] % 4 if data else ANY), data[1:]
        name = ("a beton", "a foreign beton", "a PNG", "a radiograph")[kind]
        try:
            if kind in (BETON, FOREIGN):
                self.read_beton(*unpacked(data), trust=kind == FOREIGN)
            else:
                self.read_picture(repaired_png(data) if kind == PNG else data)
            self.counts[f"read as {name}"] += 1
        except errors.PlainfilmError:
            self.counts[f"rejected as {name}"] += 1
        except BaseException:
            (self.folder / "found-python").write_bytes(bytes([kind]) + data)  # libFuzzer keeps only its own findings
            raise
        if time.monotonic() - self.written > 0.5:
            self.written = time.monotonic()
            (self.folder / "counts.new").write_text(json.dumps(self.counts))
            (self.folder / "counts.new").replace(self.folder / "counts")

    def read_beton(self, content: bytes, used: tuple[int, int], *, trust: bool) -> None:
        """Every value of the beton; frames and labels must be what a plain reading finds."""
        with self.path.open("wb") as file:  # with holes, which cost nothing
            for begin, size in ((0, used[0]), (PAGE, used[1]), (2 * PAGE, len(content))):
                file.seek(begin)
                file.write(content[begin : begin + size])
            file.truncate(len(content))
        if trust:
            with beton_fields.FieldReader(self.path) as reader:
                for field in reader.names:
                    for sample in range(min(8, len(reader))):
                        reader.value(field, sample)
        with beton.Beton(self.path, trust_unverified=trust) as opened:
            opened.check_samples(np.arange(len(opened)))
            frames_NSS, labels_N = data_of(content)
            assert np.array_equal(labels_N, opened.label_N), "labels that the file does not have"
            for sample, frame_SS in enumerate(frames_NSS):
                assert np.array_equal(frame_SS, opened.frame(sample)), "a frame that the file does not have"

    def read_picture(self, data: bytes) -> None:
        """Decode it twice, into other memory: no pixel may be what memory happened to hold."""
        self.path.write_bytes(data)
        first = radiograph.decode_radiograph(self.path, max_pixels=MAX_PIXELS, with_colour=True)
        again = radiograph.decode_radiograph(self.path, max_pixels=MAX_PIXELS)
        grey_HW = first.grey_HW
        assert grey_HW.dtype in (np.uint8, np.uint16) and grey_HW.ndim == 2 and 0 < grey_HW.size <= MAX_PIXELS
        assert np.array_equal(grey_HW, again.grey_HW), "other pixels the second time"
        if first.format == "PNG":
            pixels_only, bodies = radiograph.sound_png(data)
            pixels = None if bodies[b"tRNS"] else radiograph.plain_png(pixels_only, bodies[b"IDAT"])
            if pixels is not None:
                expected = cv2.imdecode(np.frombuffer(pixels_only, np.uint8), cv2.IMREAD_UNCHANGED)
                if expected is not None and expected.ndim == 3:
                    expected = expected[..., [2, 1, 0, 3][: expected.shape[2]]]
                assert expected is not None and np.array_equal(pixels, expected), "other pixels than libpng's"


def main(arguments: list[str]) -> None:
    """Fuzz; never returns.  arguments: a folder, which gets the counts so far; the corpus; libFuzzer's flags."""
    logging.disable()
    cv2.setNumThreads(1)
    folder, *others = arguments
    atheris.Setup(["fuzz_target", *others], Target(Path(folder)))
    atheris.Fuzz()
