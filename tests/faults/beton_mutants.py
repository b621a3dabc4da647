"""Mutants of two betons, ours and one as FFCV writes it: each a pure function of its seed and its number."""

# N samples, S side of a stored frame

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from loaders.beton.format import metadata_dtype
from tests.faults.beton_layout import DESCRIPTOR, HEADER, Layout, facts_of, own_layout, reforged, said, with_facts
from tests.loaders.test_beton import write
from tests.loaders.test_ffcv_fields import FIELDS, make_beton, sample_values

SAMPLES, STORED, FOREIGN_SIDE = 5, 46, 12
# 22 attempts; 10,000 have more of "byte" than there are bytes of structure
SCHEDULE = (
    *("byte",) * 7, *("payload",) * 2, "padding", "cut", *("extreme",) * 2,
    *("forged byte",) * 2, "forged extreme", "forged facts",
    *("foreign byte",) * 3, "foreign extreme", "foreign cut",
)  # fmt: skip
EXTREMES = tuple(
    sorted({0, 1, 2, 255, 256, *(2**power + step for power in (15, 16, 21, 31, 32, 62, 63, 64) for step in (-1, 0, 1))})
)
HOSTILE = (
    None, True, -1, 0, 1, 47, 1 << 70, 1.5, float("nan"), "", "x", "\x1b[2J", "\ud800", "n" * 5000, [], [[]], [None],
    [1], ["a", "a"], {}, {"a": {}}, ["covid", "normal"] * 600,
)  # fmt: skip

# what verifying calls the parts that it can tell apart
NAMED_AS = {"metadata": "metadata", "footer": "footer", "table": "allocation table|its region of"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A mutated beton.

    words: what was done.  kind: of SCHEDULE.  place: words that verifying must name it by; "" where several may be.
    """

    kind: str
    words: str
    content: bytes
    place: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A sound beton.  number_places: of every length, pointer and count, with its format of struct."""

    content: bytes
    layout: Layout
    number_places: tuple[tuple[int, str], ...]
    frames_NSS: np.ndarray
    labels_N: np.ndarray


# ---- originals


def own_original(folder: Path) -> Original:
    """Our own beton, written once."""
    path = folder / "own.beton"
    if not path.exists():
        write(path, SAMPLES, STORED)
    content = path.read_bytes()
    layout = own_layout(content, STORED)
    rows = [layout.metadata + sample * layout.row for sample in range(SAMPLES)]
    block, foot = layout.block, layout.footer
    places = [*number_places_of_header(), *((block + at, "<Q") for at in (8, 16))]
    places += [*((block + at, "<I") for at in (24, 28))]
    places += [*((foot + at, "<Q") for at in (8, 16)), (layout.table - 16, "<Q")]
    places += [(row + at, "<Q") for row in rows for at in (0, 8)] + list(number_places_of_table(layout))
    places += [(HEADER + 17 + 8 * side, "<Q") for side in (0, 1, 2, 31, 32)]
    return Original(content=content, layout=layout, number_places=tuple(places), **read_plainly(content))


def foreign_original(folder: Path) -> Original:
    """A beton as FFCV writes it, with fields of every kind."""
    path = folder / "foreign.beton"
    if not path.exists():
        samples = [sample_values(sample) | {"label": sample % 2} for sample in range(SAMPLES)]
        path.write_bytes(make_beton(FIELDS, samples))
    content = path.read_bytes()
    _, fields, page, samples, table = struct.unpack_from("<HHIQQ", content)
    metadata = HEADER + fields * DESCRIPTOR
    row = metadata_dtype(FIELDS).itemsize
    layout = Layout(
        fields=fields, samples=samples, page=page, metadata=metadata, row=row, pages=page, footer=table, table=table,
        end=len(content), side=FOREIGN_SIDE,
    )  # fmt: skip
    places = [*number_places_of_header(), *number_places_of_table(layout)]
    places += [(at, "<Q") for at in range(metadata, metadata + samples * row, 8)]
    for index, field in enumerate(FIELDS):
        if field.dtype is not None:
            start = HEADER + index * DESCRIPTOR + 17
            places += [(start + 8 * side, "<Q") for side in (0, 1, 2, 3, 31, 32)]
    return Original(content=content, layout=layout, number_places=tuple(places), **read_plainly(content))


def number_places_of_header() -> Iterator[tuple[int, str]]:
    """Version, fields, page size, samples and table."""
    yield from ((0, "<H"), (2, "<H"), (4, "<I"), (8, "<Q"), (16, "<Q"))


def number_places_of_table(layout: Layout) -> Iterator[tuple[int, str]]:
    """Sample, pointer and size of every row of the allocation table."""
    yield from ((at, "<Q") for at in range(layout.table, layout.end, 8))


def read_plainly(content: bytes) -> dict[str, np.ndarray]:
    """Frames and labels by the slow reading."""
    frames_NSS, labels_N = said(content)
    return {"frames_NSS": frames_NSS, "labels_N": labels_N}


# ---- mutants: a pure function of the seed and the attempt


class Mutator:
    """Makes mutants of two originals in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed, self.own, self.foreign = seed, own_original(folder), foreign_original(folder)

    def mutant(self, attempt: int) -> Mutant:
        """The mutant of an attempt."""
        rounds, place = divmod(attempt, len(SCHEDULE))
        kind = SCHEDULE[place]
        turn = rounds * SCHEDULE.count(kind) + SCHEDULE[:place].count(kind)  # earlier attempts of this kind
        rng = random.Random(f"{self.seed}-{attempt}")
        original = self.foreign if kind.startswith("foreign") else self.own
        while True:
            mutant = self._facts(kind, turn, rng) if kind == "forged facts" else self._drawn(original, kind, turn, rng)
            if mutant.content != original.content:  # else a number was set to what it was
                return mutant

    def _facts(self, kind: str, turn: int, rng: random.Random) -> Mutant:
        """Other facts in the footer: each of them in turn, and now and then all of them."""
        facts = facts_of(self.own.content, self.own.layout)
        name = sorted(facts)[turn % len(facts)]
        value = rng.choice(HOSTILE)
        if turn % 7 == 6:
            facts = rng.choice((value, {}, [facts], facts | {"further": 1}, {name: facts[name]}))
        else:
            facts[name] = value
        words, content = f"facts: {name} = {value!r}", with_facts(self.own.content, self.own.layout, facts)
        return Mutant(kind=kind, words=words[:120], content=content)

    def _drawn(self, original: Original, kind: str, turn: int, rng: random.Random) -> Mutant:
        """A mutant of any other kind."""
        content, layout, named = bytearray(original.content), original.layout, ""
        match kind.split()[-1]:
            case "byte":
                place = self._place(original, kind, turn)
                words = flip(content, place, rng.choice((1 << rng.randrange(8), rng.randrange(1, 256))))
                part = next(name for name, (begin, end) in layout.parts().items() if begin <= place < end)
                named = NAMED_AS.get(part, "") if kind == "byte" else ""
            case "payload":
                place = rng.randrange(SAMPLES * STORED**2)
                words = flip(content, layout.pages + place, 1 << rng.randrange(8))
                named = f"sample {place // STORED**2}:"
            case "padding":
                begin = layout.pages + SAMPLES * STORED**2
                gap = (range(layout.metadata + SAMPLES * 16, layout.pages), range(begin, layout.footer))[turn % 2]
                words = flip(content, rng.choice(gap), rng.randrange(1, 256))
                named = f"padding at bytes {gap.start} to {gap.stop} "
            case "cut":
                words = cut(content, layout, turn, rng)
            case _:
                words = extreme(content, original, turn, rng, forged=kind.startswith("forged"))
        if kind.startswith("forged"):
            content = reforged(content, layout)
        return Mutant(kind=kind, words=words, content=bytes(content), place=named)

    def _place(self, original: Original, kind: str, turn: int) -> int:
        """A byte of structure: every one of them in turn, a part after another."""
        order = places_of(f"{self.seed}-{kind}", tuple(original.layout.parts().values()))
        if kind.startswith("forged"):
            order = tuple(place for place in order if place not in original.layout.forged)
        return order[turn % len(order)]


@cache
def places_of(seed: str, spans: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Every byte of these spans in random order, by turns from each span, so that few attempts visit all spans."""
    decks = [list(range(begin, end)) for begin, end in spans]
    for index, deck in enumerate(decks):
        random.Random(f"{seed}-{index}").shuffle(deck)
    return tuple(place for turn in itertools.zip_longest(*decks) for place in turn if place is not None)


def flip(content: bytearray, place: int, mask: int) -> str:
    """Flip some bits of one byte."""
    content[place] ^= mask
    return f"byte {place} ^ {mask:#04x}"


def cut(content: bytearray, layout: Layout, turn: int, rng: random.Random) -> str:
    """Cut or lengthen the file at each boundary and a byte beside it; then anywhere."""
    edges = {edge for span in layout.parts().values() for edge in span}
    edges |= {layout.block, layout.pages, layout.pages + layout.side**2, layout.footer + 32, layout.table + 24}
    lengths = [edge + step for edge in sorted(edges) for step in (-1, 0, 1) if edge + step not in (-1, layout.end)]
    length = lengths[turn] if turn < len(lengths) else rng.randrange(layout.end)
    content[length:] = bytes(max(0, length - layout.end))
    return f"cut to {length} bytes" if length < layout.end else f"lengthened to {length} bytes"


def extreme(content: bytearray, original: Original, turn: int, rng: random.Random, *, forged: bool) -> str:
    """Set a number to an extreme, or to what wraps around at 2**64; forged: sometimes a pointer at both its places."""
    places = [place for place in original.number_places if not (forged and place[0] in original.layout.forged)]
    at, kind = places[turn % len(places)]
    (old,) = struct.unpack_from(kind, content, at)
    wide = 1 << 8 * struct.calcsize(kind)
    around = (old + 1, old - 1, 2 * old, -old, -old - 1, -(original.layout.side**2), old + wide // 2, old + (1 << 21))
    new = rng.choice((*EXTREMES, *around)) % wide
    struct.pack_into(kind, content, at, new)
    layout = original.layout
    if forged and rng.random() < 0.5:
        sample = rng.randrange(layout.samples)
        at = layout.table + 24 * sample + 8
        content[:] = original.content
        for place in (at, layout.metadata + layout.row * sample):
            struct.pack_into("<Q", content, place, new % 2**64)
        return f"both pointers of sample {sample} = {new}"
    return f"number at byte {at} = {new}"
