"""Text of figures: names of files and classes made drawable in the fonts of this machine."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from PIL import ImageDraw, ImageFont

from loaders.html import INVISIBLE

FAMILY = "DejaVu Sans"  # matplotlib brings it; it has the letters of most alphabets
EM = 100  # pixels of the font that widths are measured in: without another size, widths are in hundredths of an em
NAME = 16 * EM  # width for a class's name: some 27 letters
FILE = 30 * EM  # width for another name
REGULAR = (400, "normal", "regular", "book")  # weights, as matplotlib has them
UNKNOWN = "\ufffd"  # stands for a character that is invisible or cannot be drawn
BOXED = 0x378  # an unassigned code: a font that claims to have it draws a box for every character
MOST_LISTED = 4  # classes listed in a title
NUMBERED = "Names whose letters no installed font has are shown by number, in the order of the tables."


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassNames:
    """Labels of the classes in a figure.  text_of: by name, all different.  note: why some are numbers, or ""."""

    text_of: dict[str, str]
    note: str

    def listed(self, of: str = "classes") -> str:
        """All classes, or what else they are, for a title: their names, or how many there are."""
        names = list(self.text_of.values())
        return ", ".join(names) if len(names) <= MOST_LISTED else f"{len(names)} {of}"


def class_names(classes: Sequence[str], limit: float = NAME, kind: str = "class") -> ClassNames:
    """Names of classes for a figure; `class 3` for the third where no font has its letters.  limit: as in shorten.

    kind: what they are, if not classes.
    """
    names = {name: without_invisible(name) for name in classes}
    boxes = {name for name, text in names.items() if not all(map(family_of, text))}
    texts = {
        name: f"{kind} {number}" if name in boxes else name_text(name, limit)
        for number, name in enumerate(names, start=1)
    }
    count = Counter(texts.values())
    for number, (name, text) in enumerate(texts.items(), start=1):
        if count[text] > 1:
            mark = f" ({number})"
            texts[name] = name_text(name, limit - width(mark)) + mark
    return ClassNames(text_of=texts, note=NUMBERED if boxes else "")


def name_text(name: str, limit: float = FILE) -> str:
    """A name from a file or a user for a figure: � for a character that is invisible or cannot be drawn; shortened.

    A leading underscore gets a hair space before it: matplotlib leaves labels that begin with one out of legends.
    """
    text = "".join(character if family_of(character) else UNKNOWN for character in without_invisible(name))
    return shorten("\u200a" + text if text.startswith("_") else text, limit)


def without_invisible(name: str) -> str:
    """A name with � for every invisible character: controls, line breaks, direction marks, undecodable bytes."""
    return "".join(UNKNOWN if unicodedata.category(char) in INVISIBLE else char for char in name)


def shorten(text: str, limit: float, size: int = EM) -> str:
    """A text that fits, an ellipsis in its middle if need be: names often differ at their ends.

    limit: pixels, in a font of this size.
    """
    if width(text, size) <= limit:
        return text
    most = int(5 * limit / size)  # no letter is narrower than a fifth of an em
    start, end = text[:most], text[-most:]
    while (start or end) and width(f"{start}…{end}", size) > limit:
        start, end = (start[:-1], end) if len(start) >= len(end) else (start, end[1:])
    return f"{start}…{end}"


def wrap(text: str, limit: float, size: int = EM) -> list[str]:
    """Lines that fit, broken at line breaks and between words; a single word that is too long is shortened."""
    lines = []
    for part in text.split("\n"):
        lines.append("")
        for word in part.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if lines[-1] and width(longer, size) > limit:
                lines.append(word)
            else:
                lines[-1] = longer
    return [shorten(line, limit, size) for line in lines]


def width(text: str, size: int = EM) -> float:
    """Pixels of a line in a font of this size."""
    return sum(font(family, size).getlength(run) for family, run in runs(text))


def write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: tuple[int, int, int]
) -> None:
    """Draw a line of text into a picture.  place: its upper left corner."""
    left, top = place
    baseline = top + font(FAMILY, size).getmetrics()[0]
    for family, run in runs(text):
        draw.text((left, baseline), run, fill=colour, font=font(family, size), anchor="ls")
        left += font(family, size).getlength(run)


def runs(text: str) -> list[tuple[str, str]]:
    """A text in pieces of one font each: family and piece."""
    return [(family, "".join(run)) for family, run in groupby(text, lambda char: family_of(char) or FAMILY)]


@cache
def font(family: str, size: int) -> ImageFont.FreeTypeFont:
    """An installed font for pictures."""
    path = findfont(FontProperties(family=[family]))
    return ImageFont.truetype(str(path), size, index=getattr(path, "face_index", 0))


@cache
def family_of(character: str) -> str:
    """The first installed family that has a glyph for a character; "" where none has."""
    return next((family for family in (FAMILY, *other_families()) if has_glyph(family, ord(character))), "")


def has_glyph(family: str, code: int) -> bool:
    """Whether a family's regular font can draw a character."""
    found = get_font(findfont(FontProperties(family=[family])))
    return found.get_char_index(code) != 0 and found.get_char_index(BOXED) == 0


@cache
def other_families() -> tuple[str, ...]:
    """Other installed families with a regular font, sans serif first, without matplotlib's own for formulas."""
    own = matplotlib.get_data_path()
    names = {
        entry.name
        for entry in fontManager.ttflist
        if not entry.fname.startswith(own) and entry.style == "normal" and entry.weight in REGULAR
    }
    return tuple(sorted(names - {FAMILY}, key=lambda name: ("sans" not in name.lower(), name)))
