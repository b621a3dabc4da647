"""Contact sheets: a few radiographs before and after conversion, and with their augmentations."""

# S side of a stored frame, H rows, W columns

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from loaders.batches.loader import Loader
from loaders.config import ConvertConfig, LoaderConfig, stored_side
from loaders.convert.conversion import Row
from loaders.errors import RadiographError
from loaders.figure_text import EM, class_names, wrap, write
from loaders.images.files import DECODER_ERRORS
from loaders.images.radiograph import decode_radiograph
from loaders.sampling import affine_parameters, epoch_matrices
from loaders.sources.catalog import Catalog
from loaders.sources.entry import PRESENT
from loaders.sources.folders import SYNTHETIC

TILE, GAP, TITLE, SIDE = 200, 8, 22, 130
MOST_ROWS = 30  # classes, or findings, of which a picture shows films
SIZE, LINE = 12, 16  # of letters and lines, pixels
NAME = EM * (SIDE - 2 * GAP) / SIZE  # width for a class's name
INK, PAPER = 235, 24


def sheet(
    rows: list[list[np.ndarray]], columns: list[str], captions: list[list[str]], title: str, note: str
) -> Image.Image:
    """A grid of uint8 grey or RGB tiles, with captions before each row, a title above and a note below."""
    width = SIDE + len(columns) * (TILE + GAP)
    notes = wrap(note, width - 2 * GAP, SIZE) if note else []
    height = 2 * TITLE + GAP + len(rows) * (TILE + GAP) + LINE * len(notes) + (GAP if notes else 0)
    page = Image.new("RGB", (width, height), (PAPER,) * 3)
    draw = ImageDraw.Draw(page)
    write(draw, (GAP, 4), title, SIZE, (INK,) * 3)
    for place, line in enumerate(notes):
        write(draw, (GAP, height - GAP - LINE * (len(notes) - place)), line, SIZE, (INK,) * 3)
    for column, text in enumerate(columns):
        write(draw, (SIDE + column * (TILE + GAP), TITLE + 4), text, SIZE, (INK,) * 3)
    for row, (tiles, lines) in enumerate(zip(rows, captions, strict=True)):
        top = 2 * TITLE + GAP + row * (TILE + GAP)
        for place, line in enumerate(lines):
            write(draw, (GAP, top + 4 + LINE * place), line, SIZE, (INK,) * 3)
        for column, tile in enumerate(tiles):
            method = Image.Resampling.LANCZOS if max(tile.shape[:2]) > TILE else Image.Resampling.NEAREST
            picture = ImageOps.contain(Image.fromarray(tile).convert("RGB"), (TILE, TILE), method)
            page.paste(picture, (SIDE + column * (TILE + GAP), top))
    return page


def sheet_bytes(page: Image.Image) -> bytes:
    """A PNG."""
    file = io.BytesIO()
    page.save(file, "PNG", compress_level=1)  # twice the size, a quarter of the time
    return file.getvalue()


def to_levels(unit_HW: np.ndarray) -> np.ndarray:
    """Show [-1, 1] as uint8 grey."""
    return np.rint((unit_HW + 1) * 127.5).astype(np.uint8)


def preparation_sheet(
    config: ConvertConfig, rows: tuple[Row, ...], catalog: Catalog, frames_NSS: np.ndarray
) -> Image.Image:
    """Raw file, grey, stored frame with its crop, and normalised crop of the first two radiographs of each class.

    Of findings, of the first one with each.
    """
    side, crop = stored_side(config.size), config.size
    margin = (side - crop) // 2
    tiles, captions = [], []
    names = class_names(catalog.classes, NAME)
    for place, label in enumerate(catalog.classes[:MOST_ROWS]):
        written = (row for row in rows if row.verdict == "written")
        if catalog.task == "findings":
            shown = [row for row in written if row.entry.findings[place] == PRESENT][:1]
        else:
            shown = [row for row in written if row.entry.label == label][:2]
        for row in shown:
            path = catalog.root / row.entry.path
            try:
                read = config.catalog
                grey_HW = decode_radiograph(
                    path, max_pixels=read.max_pixels, assume_modality=read.assume_modality
                ).grey_HW
            except RadiographError:  # removed since it was converted
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
            size = f"{row.decoded.width} × {row.decoded.height}"
            mean, spread = f"mean {unit_HW.mean():+.2f}", f"sd {unit_HW.std():.2f}"
            captions.append([names.text_of[label], row.decoded.format, size, mean, spread])
    columns = ["raw file", "grey", f"stored {side}, crop {crop}", "crop in [-1, 1]"]
    synthetic = all(row.entry.source == SYNTHETIC for row in rows if row.verdict == "written")
    title = f"Conversion of {'synthetic phantoms' if synthetic else 'radiographs'}"
    return sheet(tiles, columns, captions, title, names.note)


def raw_tile(path: Path, grey_HW: np.ndarray) -> np.ndarray:
    """The file as a viewer would show it, small; its grey levels where Pillow alone cannot decode it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            if file.mode.startswith("I"):
                levels_HW = np.asarray(file).astype(np.uint32)
                picture = Image.fromarray((levels_HW >> 8).astype(np.uint8))
            else:
                picture = file.convert("RGB")
    except DECODER_ERRORS:  # such as a comment that is too long
        picture = Image.fromarray(grey_HW)
    picture.thumbnail((TILE, TILE))
    return np.asarray(picture.convert("RGB"))


def augmentation_sheet(path: Path, per_class: int = 2, epochs: int = 5) -> Image.Image:
    """The central crop and its augmentations in the first epochs, for the first few samples of each class.

    With the default settings, by the loader, so that the crops are those of training.
    """
    config = LoaderConfig(training=True)
    tiles, captions = [], []
    with Loader(path, config) as loader:
        beton, facts = loader.beton, loader.beton.facts
        names = class_names(facts.classes, NAME)
        matrices = [epoch_matrices(config, epoch, len(beton), facts.crop, beton.side) for epoch in range(epochs)]
        findings = facts.task == "findings"
        for label, text in enumerate(list(names.text_of.values())[:MOST_ROWS]):
            of_label_N = beton.labels[:, label] == 1 if findings else beton.label_N == label
            for sample in np.flatnonzero(of_label_N)[: 1 if findings else per_class]:
                sample_N = np.array([sample])
                batches = [loader.make_batch(sample_N, inverse_N23)[0] for inverse_N23 in (None, *matrices)]
                tiles.append([to_levels(batch_N1HW[0, 0]) for batch_N1HW in batches])
                captions.append([text])
                for epoch in range(epochs):
                    angle_N, zoom_N = affine_parameters(config, epoch, sample_N)
                    captions[-1].append(f"{np.rad2deg(angle_N[0]):+.0f}°, ×{zoom_N[0]:.2f}")
        kind = "synthetic phantoms" if facts.synthetic else "radiographs"
    columns = ["crop, evaluation"] + [f"training, epoch {epoch}" for epoch in range(epochs)]
    return sheet(tiles, columns, captions, f"Training crops of {kind}: rotated and zoomed, never mirrored", names.note)
