"""The parts of a beton by a second, slow and obvious reading of its bytes, to be broken and to compare with."""

# S side of a stored frame

import json
import struct
from dataclasses import dataclass

import numpy as np
from crc32c import crc32c

HEADER, DESCRIPTOR, ARGUMENTS = 24, 1041, 1024
# bytes and alignment of a field's metadata, by type
METADATA = {0: (8, 8), 1: (8, 8), 2: (13, 1), 3: (16, 8), 4: (8, 8), 5: (16, 8), 6: (8, 8)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the parts of a sound beton begin, in bytes.  row: of metadata; side: of the frames, pixels."""

    fields: int
    samples: int
    page: int
    metadata: int
    row: int
    pages: int
    footer: int
    table: int
    end: int
    side: int

    @property
    def block(self) -> int:
        """The label's argument bytes, where plainfilm's own betons point to their footer."""
        return HEADER + (self.fields - 1) * DESCRIPTOR + DESCRIPTOR - ARGUMENTS

    @property
    def forged(self) -> set[int]:
        """The bytes of the four checksums that reforged() makes anew."""
        return {*range(self.block + 24, self.block + 32), *range(self.footer + 24, self.footer + 32)}

    def parts(self) -> dict[str, tuple[int, int]]:
        """First byte and end of every part that holds structure."""
        return {
            "header": (0, HEADER),
            "descriptors": (HEADER, self.metadata),
            "metadata": (self.metadata, self.metadata + self.samples * self.row),
            "footer": (self.footer, self.table),
            "table": (self.table, self.end),
        }


def own_layout(content: bytes, side: int) -> Layout:
    """The layout of plainfilm's own beton: of frames and labels, and perhaps findings."""
    _, fields, page, samples, table = struct.unpack_from("<HHIQQ", content)
    metadata = HEADER + fields * DESCRIPTOR
    (footer,) = struct.unpack_from("<Q", content, metadata - ARGUMENTS + 8)
    pages = -(-(metadata + samples * 8 * fields) // page) * page
    return Layout(
        fields=fields,
        samples=samples,
        page=page,
        metadata=metadata,
        row=8 * fields,
        pages=pages,
        footer=footer or table,
        table=table,
        end=len(content),
        side=side,
    )


def reforged(content: bytearray, layout: Layout) -> bytearray:
    """The content with the checksums of tables, header and footer made anew, where a sound one has them."""
    view = bytes(content)
    begin, end = layout.parts()["metadata"]
    struct.pack_into("<I", content, layout.footer + 24, crc32c(view[begin:end]))
    struct.pack_into("<I", content, layout.footer + 28, crc32c(view[layout.table : layout.end]))
    footer = bytes(content[layout.footer : layout.table])
    struct.pack_into("<I", content, layout.block + 24, crc32c(footer))
    blank = bytes(content[HEADER : layout.block]) + bytes(ARGUMENTS)
    struct.pack_into("<I", content, layout.block + 28, crc32c(blank, crc32c(bytes(content[:HEADER]))))
    return content


def with_facts(content: bytes, layout: Layout, facts: object) -> bytes:
    """The beton with other facts in its footer, every length, pointer and checksum made to fit."""
    old = content[layout.footer : layout.table]
    (size,) = struct.unpack_from("<Q", old, 8)
    text = json.dumps(facts).encode()
    text += b" " * (-len(text) % 8)
    rows = old[32 + size : -16]
    length = 32 + len(text) + len(rows) + 16
    footer = old[:8] + struct.pack("<Q", len(text)) + old[16:32] + text + rows + struct.pack("<Q", length) + old[-8:]
    made = bytearray(content[: layout.footer] + footer + content[layout.table :])
    table = layout.footer + length
    struct.pack_into("<Q", made, 16, table)
    struct.pack_into("<Q", made, layout.block + 16, length)
    moved = Layout(**{name: getattr(layout, name) for name in layout.__slots__} | {"table": table, "end": len(made)})
    return bytes(reforged(made, moved))


def facts_of(content: bytes, layout: Layout) -> dict:
    """The facts of plainfilm's own beton."""
    (size,) = struct.unpack_from("<Q", content, layout.footer + 8)
    return json.loads(content[layout.footer + 32 : layout.footer + 32 + size])


def data_of(content: bytes, image: str = "image", label: str = "label") -> tuple[np.ndarray, np.ndarray]:
    """Frames and labels as the bytes of any FFCV beton say, read one value at a time: uint8 (N, S, S), int64 (N,)."""
    _, fields, _, samples, _ = struct.unpack_from("<HHIQQ", content)
    place_of, at, side, widest = {}, 0, 0, 1
    for index in range(fields):
        descriptor = content[HEADER + index * DESCRIPTOR :][:DESCRIPTOR]
        name = descriptor[1:17].split(b"\0")[0].decode()
        size, alignment = METADATA[descriptor[0]]
        at = -(-at // alignment) * alignment
        place_of[name], at, widest = at, at + size, max(widest, alignment)
        if name == image:
            (side,) = struct.unpack_from("<Q", descriptor, 17)
    row = -(-at // widest) * widest
    frames, labels = [], []
    for sample in range(samples):
        start = HEADER + fields * DESCRIPTOR + sample * row
        (ptr,) = struct.unpack_from("<Q", content, start + place_of[image])
        labels += struct.unpack_from("<q", content, start + place_of[label])
        frames.append(np.frombuffer(content, np.uint8, side * side, ptr).reshape(side, side))
    return np.stack(frames), np.array(labels)


def hashed_formerly(content: bytes, side: int, **facts: object) -> bytes:
    """plainfilm's beton as it was before pixels were hashed by BLAKE3: other hashes, of which no fact tells the kind.

    facts: others, changed.
    """
    layout = own_layout(content, side)
    (size,) = struct.unpack_from("<Q", content, layout.footer + 8)
    changed = bytearray(content)
    rows = np.frombuffer(changed, np.uint8, layout.samples * 48, layout.footer + 32 + size).reshape(-1, 48)
    rows[:, :16] ^= 0xFF
    new = ("hash_algorithm", "footer_version")
    kept = {name: value for name, value in facts_of(content, layout).items() if name not in new}
    return with_facts(bytes(changed), layout, kept | facts)
