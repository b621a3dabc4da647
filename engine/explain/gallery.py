"""Pictures of explanations: each sample's crop with its map and the lungs' outline, all of them, the deletion curve."""

# N samples, H W rows and columns, P steps of a curve

import io
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from engine.explain.controls import Deletion
from engine.figures import FAINT, TRAINING, with_legend
from engine.statistics.names import value_text
from loaders.figure_text import shorten, wrap, write

PANEL, GAP, LINE = 256, 6, 19  # pixels
COLUMNS = 3
PAPER, TEXT, QUIET = (18, 18, 20), (238, 238, 238), (160, 160, 165)
COLOURS = "inferno"  # perceptually uniform, from black: where there is no evidence the picture stays as it is
OUTLINE = (64, 224, 208)  # far from every colour of the map
TITLES = {
    "right": "Most confident, and right",
    "wrong": "Most confident, and wrong",
    "borderline": "Borderline: the two most probable classes are close",
}
FOOT = "Left: the picture. Right: the map over it, brighter where the evidence for the predicted class is stronger."


def overlay(
    crop_HW: np.ndarray, cam_HW: np.ndarray, lungs_HW: np.ndarray | None, lines: tuple[str, str]
) -> Image.Image:
    """The crop beside the crop under its map, with the lungs' outline in both, and the caption below.

    crop_HW: uint8.  cam_HW: 0 to 1.  lungs_HW: bool, or None.  lines: the caption's two.
    """
    grey_HW = cv2.resize(crop_HW, (PANEL, PANEL), interpolation=cv2.INTER_CUBIC)
    plain_HW3 = np.repeat(grey_HW[:, :, None], 3, 2)
    cam_HW = cv2.resize(cam_HW, (PANEL, PANEL), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colour_HW3 = matplotlib.colormaps[COLOURS](cam_HW)[:, :, :3] * 255
    weight_HW1 = (0.75 * np.sqrt(cam_HW))[:, :, None]  # a faint trace stays visible
    heat_HW3 = np.rint(plain_HW3 * (1 - weight_HW1) + colour_HW3 * weight_HW1).astype(np.uint8)
    if lungs_HW is not None:
        large_HW = cv2.resize(lungs_HW.astype(np.float32), (PANEL, PANEL), interpolation=cv2.INTER_LINEAR)
        edges, _ = cv2.findContours((large_HW > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for picture_HW3 in (plain_HW3, heat_HW3):
            cv2.drawContours(picture_HW3, edges, -1, OUTLINE, 1, cv2.LINE_AA)
    page = Image.new("RGB", (2 * PANEL + GAP, PANEL + 2 * LINE + GAP), PAPER)
    page.paste(Image.fromarray(plain_HW3), (0, 0))
    page.paste(Image.fromarray(heat_HW3), (PANEL + GAP, 0))
    draw = ImageDraw.Draw(page)
    for place, (line, colour) in enumerate(zip(lines, (TEXT, QUIET), strict=True)):
        size = 14 - place
        write(draw, (4, PANEL + 3 + place * LINE), shorten(line, page.width - 8, size), size, colour)
    return page


def gallery(
    overlays: Sequence[tuple[str, Image.Image]],
    title: str,
    sentence: str,
    foot: str,
    titles: Mapping[str, str] = TITLES,
    legend: str = FOOT,
) -> Image.Image:
    """All overlays by kind, three in a row, under a title and a sentence, over small print.

    overlays: kind and picture.  titles: by kind, in order.  legend: what a picture shows.
    """
    sections = [(kind, [picture for of, picture in overlays if of == kind]) for kind in titles]
    sections = [(kind, pictures) for kind, pictures in sections if pictures]
    wide, high = overlays[0][1].size if overlays else (2 * PANEL + GAP, 0)
    margin = 18
    width = 2 * margin + COLUMNS * wide + (COLUMNS - 1) * 2 * GAP
    rows = sum(-(-len(pictures) // COLUMNS) for _, pictures in sections)
    room = width - 2 * margin
    sentence_lines, foot_lines = wrap(sentence, room, 17), wrap(foot, room, 13)
    top = 54 + 23 * len(sentence_lines) + 22
    high_of_all = top + len(sections) * 40 + rows * (high + 2 * GAP) + 12 + 18 * len(foot_lines)
    page = Image.new("RGB", (width, high_of_all), PAPER)
    draw = ImageDraw.Draw(page)
    write(draw, (margin, 14), shorten(title, room, 22), 22, TEXT)
    for place, line in enumerate(sentence_lines):
        write(draw, (margin, 48 + 23 * place), line, 17, TEXT)
    write(draw, (margin, 50 + 23 * len(sentence_lines)), legend, 13, QUIET)
    for kind, pictures in sections:
        write(draw, (margin, top + 12), shorten(titles[kind], room, 17), 17, TEXT)
        top += 40
        for start in range(0, len(pictures), COLUMNS):
            for column, picture in enumerate(pictures[start : start + COLUMNS]):
                page.paste(picture, (margin + column * (wide + 2 * GAP), top))
            top += high + 2 * GAP
    for place, line in enumerate(foot_lines):
        write(draw, (margin, top + 6 + 18 * place), line, 13, QUIET)
    return page


def picture_bytes(picture: Image.Image) -> bytes:
    """A PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=6)
    return file.getvalue()


def deletion_figure(found: Deletion, title: str) -> Figure:
    """Both deletion curves with their areas."""
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    percent = [100 * share for share in found.share]
    random = f"random order, area {value_text('area_at_random', found.area_at_random)}"
    by_map = f"order of the map, area {value_text('area_by_map', found.area_by_map)}"
    axes.plot(percent, found.at_random, color=FAINT, marker=".", label=random)
    axes.plot(percent, found.by_map, color=TRAINING, marker=".", label=by_map)
    axes.set(xlabel="pixels blanked, %", ylabel="probability of the predicted class", ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return with_legend(figure, title)
