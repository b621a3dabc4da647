"""A contact sheet of films with their lungs outlined."""

# S side of a frame

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from loaders.figure_text import shorten, wrap, write

TILE, GAP, LINE, SIZE = 200, 8, 16, 12  # pixels; SIZE of letters
COLUMNS, MOST_TILES = 6, 60
INK, PAPER = (235, 235, 235), (24, 24, 24)
FOUND, DOUBTFUL, GIVEN = (64, 224, 208), (255, 96, 64), (255, 196, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One film.  frame_SS: uint8.  outlines: masks, bool S×S, and their colours.  lines: its caption, at most two."""

    frame_SS: np.ndarray
    outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]]
    lines: Sequence[str]


def contact_sheet(tiles: Sequence[Tile], title: str) -> bytes:
    """Tiles in rows, with captions below each and a title above, as a PNG."""
    width = GAP + COLUMNS * (TILE + GAP)
    heading, height = wrap(title, width - 2 * GAP, SIZE), TILE + 2 * LINE + GAP
    top = 2 * GAP + LINE * len(heading)
    page = Image.new("RGB", (width, top + height * -(-len(tiles) // COLUMNS)), PAPER)
    draw = ImageDraw.Draw(page)
    for place, line in enumerate(heading):
        write(draw, (GAP, GAP + LINE * place), line, SIZE, INK)
    for place, tile in enumerate(tiles):
        left, upper = GAP + place % COLUMNS * (TILE + GAP), top + place // COLUMNS * height
        page.paste(Image.fromarray(outlined(tile)), (left, upper))
        for number, line in enumerate(tile.lines):
            write(draw, (left, upper + TILE + LINE * number), shorten(line, TILE, SIZE), SIZE, INK)
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def outlined(tile: Tile) -> np.ndarray:
    """A tile's film with its outlines: uint8, three channels."""
    picture_HW = cv2.resize(tile.frame_SS, (TILE, TILE), interpolation=cv2.INTER_AREA)
    picture_HW3 = np.repeat(picture_HW[:, :, None], 3, 2)
    for mask_SS, colour in tile.outlines:
        large_HW = cv2.resize(mask_SS.astype(np.float32), (TILE, TILE), interpolation=cv2.INTER_LINEAR)
        edges, _ = cv2.findContours((large_HW > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture_HW3, edges, -1, colour, 1, cv2.LINE_AA)
    return picture_HW3
