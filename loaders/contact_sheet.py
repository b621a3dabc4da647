"""Contact sheets: pictures of what conversion and augmentation do to a few radiographs."""

# S side of a stored frame, H rows, W columns

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kernels.affine import affine_into, affine_scratch
from kernels.crop import crop_into
from loaders.augmentation import affine_parameters, inverse_matrices
from loaders.beton import Beton
from loaders.catalog import SYNTHETIC, Catalog
from loaders.config import ConvertConfig, LoaderConfig, stored_side
from loaders.errors import RadiographError
from loaders.radiograph import DECODER_ERRORS, decode_radiograph

if TYPE_CHECKING:
    from pathlib import Path

    from loaders.account import Row

TILE, GAP, TITLE = 200, 8, 22
INK, PAPER, ACCENT = 235, 24, 255


def sheet(rows: list[list[np.ndarray]], columns: list[str], names: list[str], title: str) -> bytes:
    """Lay uint8 grey or RGB tiles out in a grid with titles.  Gives a PNG."""
    left = 110
    width = left + len(columns) * (TILE + GAP)
    height = 2 * TITLE + GAP + len(rows) * (TILE + GAP)
    page = Image.new("RGB", (width, height), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    draw.text((GAP, 4), title, fill=(INK,) * 3, font=font)
    for column, text in enumerate(columns):
        draw.text((left + column * (TILE + GAP), TITLE + 4), text, fill=(INK,) * 3, font=font)
    for row, (tiles, name) in enumerate(zip(rows, names, strict=True)):
        top = 2 * TITLE + GAP + row * (TILE + GAP)
        draw.multiline_text((GAP, top + 4), name, fill=(INK,) * 3, font=font)
        for column, tile in enumerate(tiles):
            picture = Image.fromarray(tile).convert("RGB")
            picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            if picture.width < TILE and picture.height < TILE:
                scale = TILE / max(picture.size)
                picture = picture.resize(
                    (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.NEAREST
                )
            page.paste(picture, (left + column * (TILE + GAP), top))
    file = io.BytesIO()
    page.save(file, "PNG", compress_level=1)  # twice the size, a quarter of the time
    return file.getvalue()


def to_levels(unit_HW: np.ndarray) -> np.ndarray:
    """Show [-1, 1] as uint8 grey."""
    return np.rint((unit_HW + 1) * 127.5).astype(np.uint8)


def preparation_sheet(
    config: ConvertConfig, rows: tuple[Row, ...], catalog: Catalog, frames_NSS: np.ndarray, per_class: int = 2
) -> bytes:
    """Raw → grey → stored frame with its crop → normalised, for the first few radiographs of each class."""
    side, crop = stored_side(config.size), config.size
    margin = (side - crop) // 2
    tiles, names = [], []
    for label in catalog.classes:
        shown = [row for row in rows if row.verdict == "written" and row.entry.label == label][:per_class]
        for row in shown:
            path = catalog.root / row.entry.path
            try:
                grey_HW = decode_radiograph(path, max_pixels=config.catalog.max_pixels).grey_HW
            except RadiographError:  # it was whole a moment ago, and is gone now
                continue
            grey_HW = grey_HW if grey_HW.dtype == np.uint8 else (grey_HW >> 8).astype(np.uint8)
            frame_SS = np.asarray(frames_NSS[row.place])
            boxed = np.repeat(frame_SS[:, :, None], 3, axis=2)
            line = max(1, side // 100)
            low, high = margin, margin + crop
            boxed[low:high, low : low + line] = boxed[low:high, high - line : high] = (255, 176, 0)
            boxed[low : low + line, low:high] = boxed[high - line : high, low:high] = (255, 176, 0)
            unit_HW = frame_SS[low:high, low:high].astype(np.float32) / 127.5 - 1
            tiles.append([raw_tile(path, grey_HW), grey_HW, boxed, to_levels(unit_HW)])
            size = f"{row.decoded.width}x{row.decoded.height}"
            names.append(
                f"{label[:14]}\n{row.decoded.format} {size}\nmean {unit_HW.mean():+.2f}\nsd {unit_HW.std():.2f}"
            )
    columns = ["raw file", "grey", f"stored {side}, crop {crop}", "crop in [-1, 1]"]
    return sheet(tiles, columns, names, "What conversion does: " + describe(rows))


def raw_tile(path: Path, grey_HW: np.ndarray) -> np.ndarray:
    """The file as any viewer would show it, small; its grey levels where Pillow alone cannot decode it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            if file.mode.startswith("I"):
                levels_HW = np.asarray(file).astype(np.uint32)
                picture = Image.fromarray((levels_HW >> 8).astype(np.uint8))
            else:
                picture = file.convert("RGB")
    except DECODER_ERRORS:  # a comment that is too long, say
        picture = Image.fromarray(grey_HW)
    picture.thumbnail((TILE, TILE))
    return np.asarray(picture.convert("RGB"))


def describe(rows: tuple[Row, ...]) -> str:
    """Whether these are real or synthetic radiographs."""
    synthetic = all(row.entry.source == SYNTHETIC for row in rows if row.verdict == "written")
    return "synthetic phantoms" if synthetic else "radiographs"


def augmentation_sheet(path: Path, per_class: int = 2, epochs: int = 5) -> bytes:
    """The central crop and its augmented versions in the first epochs, for the first few samples of each class."""
    config = LoaderConfig(training=True)
    tiles, names = [], []
    with Beton(path) as beton:
        crop = beton.facts.crop
        scratch = affine_scratch(crop, beton.side)
        for label, name in enumerate(beton.facts.classes):
            for sample in np.flatnonzero(beton.label_N == label)[:per_class]:
                offset_N = beton.offset_N[sample : sample + 1]
                out_N1HW = np.empty((1, 1, crop, crop), np.float32)
                crop_into(out_N1HW, beton.bytes_B, offset_N, beton.side)
                tiles.append([to_levels(out_N1HW[0, 0])])
                said = []
                for epoch in range(epochs):
                    angle_N, zoom_N = affine_parameters(config, epoch, np.array([sample]))
                    inverse_N23 = inverse_matrices(angle_N, zoom_N, crop, beton.side)
                    affine_into(out_N1HW, beton.bytes_B, offset_N, beton.side, inverse_N23, 0, beton.side - 1, scratch)
                    tiles[-1].append(to_levels(out_N1HW[0, 0]))
                    said.append(f"{np.rad2deg(angle_N[0]):+.0f}° x{zoom_N[0]:.2f}")
                names.append(name[:14] + "\n" + "\n".join(said))
        kind = "synthetic phantoms" if beton.facts.synthetic else "radiographs"
    columns = ["crop, evaluation"] + [f"training, epoch {epoch}" for epoch in range(epochs)]
    return sheet(tiles, columns, names, f"What training sees: {kind}, rotated and zoomed, never mirrored")
