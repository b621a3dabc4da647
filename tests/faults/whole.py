"""Whether a file that plainfilm writes is whole, by what its format says of itself."""

import json
import struct
from pathlib import Path

from crc32c import crc32c
from PIL import Image

from loaders.beton.reader import Beton
from loaders.errors import PlainfilmError

GROWING = ("train.log", "events.out.tfevents")  # are appended to, and end where a failure ended them


def flaw(path: Path, lines: int | None = None) -> str:
    """What is wrong with the file, or "".  lines: how many a whole table has, where that is known."""
    try:
        return _flaw(path, lines)
    except (OSError, ValueError, SyntaxError, KeyError, struct.error, PlainfilmError) as error:
        return f"{type(error).__name__}: {error}"


def _flaw(path: Path, lines: int | None) -> str:
    content = path.read_bytes()
    if path.name.startswith(GROWING[1]):
        return events_flaw(content)
    if path.name == GROWING[0]:
        return "holds zero bytes" if b"\0" in content else ""
    if not content:
        return "is empty"
    if path.suffix == ".beton":
        with Beton(path) as beton:
            beton.verify()
    elif path.suffix == ".safetensors":
        from engine.train.checkpoint import load_checkpoint  # which imports torch

        load_checkpoint(path)
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".html":
        return "" if content.rstrip().endswith(b"</html>") else "ends before its end"
    elif path.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load_from_string(content))
    elif not content.endswith(b"\n"):
        return "ends within a line"
    elif path.suffix == ".csv" and lines not in (None, found := content.count(b"\n")):
        return f"has {found} lines, expected {lines}"
    return ""


def events_flaw(content: bytes) -> str:
    """What is wrong with TensorBoard events; a record that the end cuts off is allowed, as to its reader."""
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        if at + 16 + length > len(content):
            return ""
        data = content[at + 12 : at + 12 + length]
        (found,) = struct.unpack_from("<I", content, at + 12 + length)
        crc = crc32c(data)
        if found != ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF:
            return f"event at byte {at}: its checksum differs"
        at += 16 + length
    return ""
