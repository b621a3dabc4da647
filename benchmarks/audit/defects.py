"""Defects planted in clean radiographs, to measure what the audit finds of each kind and how faint it may be.

Severity 1 is barely visible, 5 blatant.  A planter draws all its random numbers before it uses the severity:
the same generator gives the same defect in the same place, only stronger.  `inverted`, `rotated` and `no-lungs` have
one grade.  Where lungs are cut is told by the segmenter's mask of the clean film.
"""

# H rows, W columns, K marks, C colours (red, green, blue), P points of an outline, 2 coordinates (x, y)

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from benchmarks.audit.lung_parts import beside_lungs, lung_share, without_side

Planter = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

SEVERITIES = (1, 2, 3, 4, 5)
MOST_MARKS = 8
CLAHE_CLIP = 4.0


def grade(values: tuple[float, ...], severity: int) -> float:
    """The value for a severity from 1 to 5.  Errors: ValueError."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity: found {severity}, expected one of 1 to 5")
    return values[severity - 1]


# ---- sharpness, tone


def blur_evenly(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian; sigma in shares of the short side, at 1024 pixels 2 to 25."""
    sigma = grade((0.002, 0.0045, 0.009, 0.015, 0.025), severity) * min(grey_HW.shape)
    return cv2.GaussianBlur(grey_HW, (0, 0), max(sigma, 0.3 + 0.15 * severity), borderType=cv2.BORDER_REPLICATE)


def blur_along(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Motion along a line of 1 to 9 % of the short side, at any angle."""
    angle = rng.uniform(0, np.pi)
    length = max(grade((0.008, 0.016, 0.03, 0.055, 0.09), severity) * min(grey_HW.shape), 1.5 + 0.7 * severity)
    half = int(np.ceil(length / 2)) + 1
    kernel_HW = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    step_C = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(np.rint((half + sign * step_C) * 16).astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(kernel_HW, ends[0], ends[1], 255, 1, cv2.LINE_AA, 4)
    weight_HW = kernel_HW / np.float32(kernel_HW.sum())
    return cv2.filter2D(grey_HW, -1, weight_HW, borderType=cv2.BORDER_REPLICATE)


def overexpose(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Too bright: gamma below 1, and the brightest part of the picture's range burnt out."""
    gamma, lost = exposure_grade(severity)
    share_HW = to_share(grey_HW)
    return from_share((share_HW / brightest(share_HW) / (1 - lost)) ** (1 / gamma), grey_HW)


def underexpose(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Too dark: gamma above 1, and the darkest part of the picture's range lost."""
    gamma, lost = exposure_grade(severity)
    share_HW = to_share(grey_HW)
    white = brightest(share_HW)
    return from_share(white * (np.maximum(share_HW / white - lost, 0) / (1 - lost)) ** gamma, grey_HW)


def brightest(share_HW: np.ndarray) -> float:
    """The share of white that all but a hundredth of the picture stays below."""
    return max(float(np.percentile(share_HW, 99)), 1 / 255)


def exposure_grade(severity: int) -> tuple[float, float]:
    """Gamma, and the share of the grey range that is clipped."""
    return grade((1.12, 1.3, 1.6, 2.1, 3.0), severity), grade((0.02, 0.05, 0.1, 0.18, 0.3), severity)


def invert(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Bone dark."""
    grade((1,) * 5, severity)
    return (top_level(grey_HW) - grey_HW).astype(grey_HW.dtype)


# ---- geometry


def turn(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, quarters: int) -> np.ndarray:
    """By 90, 180 or 270 degrees, anticlockwise."""
    grade((1,) * 5, severity)
    return np.ascontiguousarray(np.rot90(grey_HW, quarters))


def tilt(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """By 10 to 35 degrees about the centre; the corners show air."""
    angle = grade((10, 16, 22, 28, 35), severity) * rng.choice((-1, 1))
    rows, columns = grey_HW.shape
    matrix_23 = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle, 1)
    return warp(grey_HW, matrix_23)


def shift(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """By 6 to 35 % of the side, up, down, left or right; air comes in."""
    axis, sign = int(rng.integers(2)), int(rng.choice((-1, 1)))
    step = max(1.0, np.rint(grade((0.06, 0.12, 0.19, 0.27, 0.35), severity) * grey_HW.shape[axis])) * sign
    return warp(grey_HW, np.array([[1, 0, step * axis], [0, 1, step * (1 - axis)]]))


def warp(grey_HW: np.ndarray, matrix_23: np.ndarray) -> np.ndarray:
    """Map the picture by a 2×3 matrix into its own frame; what comes in is as dark as air."""
    air = float(np.percentile(grey_HW, 1))
    size = grey_HW.shape[::-1]
    return cv2.warpAffine(grey_HW, matrix_23, size, flags=cv2.INTER_LINEAR, borderValue=air)


def cut_off(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Without 8 to 42 % of one side."""
    quarters = int(rng.integers(4))
    turned_HW = np.rot90(grey_HW, quarters)
    lost = max(1, round(grade((0.08, 0.16, 0.24, 0.33, 0.42), severity) * turned_HW.shape[0]))
    return np.ascontiguousarray(np.rot90(turned_HW[lost:], -quarters))


def cut_lungs(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, side: str) -> np.ndarray:
    """Without so much of one side that 8 to 40 % of the lungs' area go with it.  side: t, b, l or r."""
    return without_side(grey_HW, side, grade((0.08, 0.16, 0.24, 0.32, 0.4), severity))


def cut_one_lung(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, side: str) -> np.ndarray:
    """Without so much of the left or right that 60 to 100 % of the lung there go with it."""
    return without_side(grey_HW, side, grade((0.6, 0.7, 0.8, 0.9, 1.0), severity) * lung_share(grey_HW, side))


def only_beside(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A part without lungs: a shoulder, the neck, the abdomen."""
    grade((1,) * 5, severity)
    return beside_lungs(grey_HW, rng)


def margins(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, sides: str, level: float) -> np.ndarray:
    """Margins added outside the picture, each 4 to 30 % of the side that results.

    sides: some of t, b, l, r.  level: share of white.
    """
    share = grade((0.04, 0.09, 0.15, 0.22, 0.3), severity)
    pads: dict[str, int] = {}
    for axis, pair in enumerate(("tb", "lr")):
        drawn = [side for side in pair if side in sides]
        width = max(1, round(grey_HW.shape[axis] * share / (1 - share * len(drawn))))
        pads |= {side: width if side in drawn else 0 for side in pair}
    white = level * top_level(grey_HW)
    top, bottom, left, right = (pads[side] for side in "tblr")
    return cv2.copyMakeBorder(grey_HW, top, bottom, left, right, cv2.BORDER_CONSTANT, value=white)


def shrink(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """To 200, 140, 100, 65 or 40 pixels of the short side; a picture that is small already loses at least 5 to 60 %."""
    short = min(grey_HW.shape)
    side = min(grade((200, 140, 100, 65, 40), severity), grade((0.95, 0.82, 0.68, 0.54, 0.4), severity) * short)
    return resize(grey_HW, side / short)


def resize(grey_HW: np.ndarray, scale: float) -> np.ndarray:
    """Scale both sides by averaging areas."""
    columns, rows = (max(1, round(length * scale)) for length in grey_HW.shape[::-1])
    return cv2.resize(grey_HW, (columns, rows), interpolation=cv2.INTER_AREA)


# ---- marks, colour


def stamp(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, kind: str, level: float) -> np.ndarray:
    """One to eight texts, arrows or boxes, 2.5 to 10 % of the short side high.

    kind: text, arrow or box.  level: share of white.
    """
    rows, columns = grey_HW.shape
    row_K, text_K = rng.permutation(MOST_MARKS), rng.permutation(len(TEXTS))
    turn_K = rng.uniform(0, 2 * np.pi, MOST_MARKS)
    place_K2 = rng.random((MOST_MARKS, 2))
    place_K2[:, 1] = (row_K + place_K2[:, 1]) / MOST_MARKS  # each at a height of its own
    count = int(grade((1, 2, 3, 5, 8), severity))
    height = max(5.0, grade((0.025, 0.04, 0.055, 0.075, 0.1), severity) * min(grey_HW.shape))
    low, reach = (0.06, 0.84) if level > 0.5 else (0.2, 0.65)  # dark marks where the film is not dark anyway
    mask_HW = np.zeros(grey_HW.shape, np.uint8)
    for place_2, angle, text in zip(place_K2[:count], turn_K, text_K, strict=False):
        x, y = (int(v) for v in (low + reach * place_2) * (columns, rows))
        draw_mark(mask_HW, kind, (x, y), height, float(angle), TEXTS[text])
    weight_HW = mask_HW.astype(np.float32) / 255
    share_HW = to_share(grey_HW)
    return from_share(share_HW + weight_HW * (np.float32(level) - share_HW), grey_HW)


def side_marker(grey_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The usual small white L or R in an upper corner, which is no defect: a control for `text-or-mark`."""
    rows, columns = grey_HW.shape
    letter = str(rng.choice(("L", "R")))
    height = rng.uniform(0.03, 0.05) * min(grey_HW.shape)
    across = rng.uniform(0.03, 0.08)
    x = int(columns * (across if letter == "R" else 1 - across) - (0 if letter == "R" else height))
    mask_HW = np.zeros(grey_HW.shape, np.uint8)
    draw_mark(mask_HW, "text", (x, int(rows * rng.uniform(0.06, 0.14))), max(6.0, height), 0.0, letter)
    share_HW = to_share(grey_HW)
    return from_share(share_HW + mask_HW.astype(np.float32) / 255 * (0.97 - share_HW), grey_HW)


def paint(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, kind: str) -> np.ndarray:
    """Coloured lungs, their contours, or arrows: H×W×3 red, green, blue, of the same type.

    kind: overlay, contour or arrow.
    """
    rows, columns = grey_HW.shape
    colour_C = np.array(COLOURS[rng.integers(len(COLOURS))], np.float32) / 255
    outlines = lung_outlines(rows, columns, rng)
    place_K2, turn_K = rng.random((MOST_MARKS, 2)), rng.uniform(0, 2 * np.pi, MOST_MARKS)
    mask_HW = np.zeros(grey_HW.shape, np.uint8)
    opacity = grade((0.5, 0.6, 0.75, 0.9, 1.0), severity)
    if kind == "overlay":
        cv2.fillPoly(mask_HW, outlines, 255, cv2.LINE_AA)
        opacity = grade((0.05, 0.1, 0.18, 0.3, 0.5), severity)
    elif kind == "contour":
        thick = max(1, round(grade((0.002, 0.004, 0.007, 0.011, 0.016), severity) * min(grey_HW.shape)))
        cv2.polylines(mask_HW, outlines, True, 255, thick, cv2.LINE_AA)
    else:
        height = max(4.0, grade((0.025, 0.035, 0.045, 0.06, 0.08), severity) * min(grey_HW.shape))
        for place_2, angle in zip(place_K2[: int(grade((1, 2, 3, 4, 6), severity))], turn_K, strict=False):
            x, y = (int(v) for v in (0.2 + 0.6 * place_2) * (columns, rows))
            draw_mark(mask_HW, "arrow", (x, y), height, float(angle), "", width=0.16)
    weight_HW1 = (mask_HW.astype(np.float32) / 255 * np.float32(opacity))[..., None]
    share_HW1 = to_share(grey_HW)[..., None]
    return from_share(share_HW1 + weight_HW1 * (colour_C - share_HW1), grey_HW)


# ---- copies


def recompress(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Through a JPEG of quality 92 to 20."""
    quality = int(grade((92, 80, 65, 45, 20), severity))
    small_HW = from_share(to_share(grey_HW), np.zeros((1, 1), np.uint8))
    _, data = cv2.imencode(".jpg", small_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded_HW = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert decoded_HW is not None
    return from_share(to_share(decoded_HW), grey_HW)


def scale(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """To 90 to 50 % of its sides."""
    return resize(grey_HW, grade((0.9, 0.8, 0.7, 0.6, 0.5), severity))


def crop(grey_HW: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Without 1 to 5 % of each axis, somewhere along it."""
    lost = grade((0.01, 0.02, 0.03, 0.04, 0.05), severity)
    begins = rng.random(2)
    kept = []
    for length, begin in zip(grey_HW.shape, begins, strict=True):
        gone = max(1, round(lost * length))
        first = round(begin * gone)
        kept.append(slice(first, length - gone + first))
    return np.ascontiguousarray(grey_HW[tuple(kept)])


def equalise(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, local: bool) -> np.ndarray:
    """A fifth of the way to the equalised histogram, to all of it.  local: in 8 × 8 tiles (CLAHE)."""
    grey8_HW = from_share(to_share(grey_HW), np.zeros((1, 1), np.uint8))
    flat_HW = cv2.createCLAHE(CLAHE_CLIP, (8, 8)).apply(grey8_HW) if local else cv2.equalizeHist(grey8_HW)
    share_HW = to_share(grey_HW)
    weight = np.float32(grade((0.2, 0.4, 0.6, 0.8, 1.0), severity))
    return from_share(share_HW + weight * (to_share(flat_HW) - share_HW), grey_HW)


VARIANTS: dict[str, dict[str, Planter]] = {
    "colour-annotation": {kind: partial(paint, kind=kind) for kind in ("overlay", "contour", "arrow")},
    "text-or-mark": {
        f"{tone} {kind}": partial(stamp, kind=kind, level=level)
        for kind in ("text", "arrow", "box")
        for tone, level in (("white", 1.0), ("black", 0.0))
    },
    "low-resolution": {"shrunk": shrink},
    "blurred": {"gaussian": blur_evenly, "motion": blur_along},
    "exposure": {"over": overexpose, "under": underexpose},
    "inverted": {"inverted": invert},
    "rotated": {f"{90 * quarters} degrees": partial(turn, quarters=quarters) for quarters in (1, 2, 3)},
    "misaligned": {"shifted": shift, "cut off": cut_off, "tilted": tilt},
    "no-lungs": {"beside the lungs": only_beside},
    "lungs-not-two": {side: partial(cut_one_lung, side=side) for side in "lr"},
    "lungs-cut-off": {side: partial(cut_lungs, side=side) for side in "tblr"},
    "borders": {
        f"{tone} {name}": partial(margins, sides=sides, level=level)
        for name, sides in (
            ("above and below", "tb"),
            ("left and right", "lr"),
            ("frame", "tblr"),
            ("at the left", "l"),
        )
        for tone, level in (("black", 0.0), ("white", 1.0))
    },
    "near-duplicate": {
        "recompressed": recompress,
        "resized": scale,
        "cropped": crop,
        "equalised": partial(equalise, local=False),
        "CLAHE": partial(equalise, local=True),
    },
}
ONE_GRADE = ("inverted", "rotated", "no-lungs")  # whatever the severity


def plant(grey_HW: np.ndarray, severity: int, rng: np.random.Generator, defect: str) -> np.ndarray:
    """Spoil a clean grey radiograph with one variant of a defect, drawn from the generator.

    grey_HW: uint8 or uint16.  Gives the same type, grey of any shape, or H×W×3 for colour-annotation.
    Errors: ValueError for a severity outside 1 to 5.
    """
    variants = list(VARIANTS[defect].values())
    return variants[rng.integers(len(variants))](grey_HW, severity, rng)


PLANTED: dict[str, Planter] = {defect: partial(plant, defect=defect) for defect in VARIANTS}


TEXTS = ("PORTABLE", "ERECT 10:42", "AP SUPINE", "12/03/2020", "Fig. 2a", "day 5", "ID 004711", "b")
COLOURS = ((230, 40, 40), (40, 200, 70), (60, 110, 240), (240, 220, 50), (230, 60, 210), (40, 210, 220))


def draw_mark(
    mask_HW: np.ndarray, kind: str, place: tuple[int, int], height: float, angle: float, text: str, width: float = 0.1
) -> None:
    """Draw one mark into a uint8 mask.  height: in pixels.  angle: of an arrow, in radians.  width: in heights."""
    thick = max(1, round(width * height))
    x, y = place
    if kind == "text":
        face = cv2.FONT_HERSHEY_SIMPLEX
        (length, rise), _ = cv2.getTextSize(text, face, height / 22, thick)
        corner = max(0, min(x, mask_HW.shape[1] - length - thick)), max(rise, y)
        cv2.putText(mask_HW, text, corner, face, height / 22, 255, thick, cv2.LINE_AA)
    elif kind == "arrow":
        tail = round(x + 2 * height * np.cos(angle)), round(y + 2 * height * np.sin(angle))
        cv2.arrowedLine(mask_HW, tail, place, 255, thick, cv2.LINE_AA, 0, 0.35)
    else:
        far = round(x + 2 * height), round(y + 1.6 * height)
        cv2.rectangle(mask_HW, place, far, 255, thick, cv2.LINE_AA)


def lung_outlines(rows: int, columns: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Two outlines about where lungs lie: narrow above, wide below, flat against the heart; int32 P×1×2."""
    down_P = np.linspace(0, np.pi, 24)
    centre, height = rng.uniform(0.44, 0.5), rng.uniform(0.26, 0.32)
    outlines = []
    for sign in (-1, 1):
        y_P = centre - height * np.cos(down_P)
        wide_P = np.sin(down_P) ** 0.6 * (0.75 + 0.25 * (y_P - centre) / height)
        outer_P = 0.5 + sign * (0.2 + 0.17 * wide_P * rng.uniform(0.92, 1.08))
        inner_P = 0.5 + sign * (0.2 - 0.12 * wide_P * rng.uniform(0.9, 1.1))
        x_P, y_P = np.concatenate([outer_P, inner_P[::-1]]), np.concatenate([y_P, y_P[::-1]])
        outlines.append(np.rint(np.stack([x_P * columns, y_P * rows], -1)).astype(np.int32)[:, None])
    return outlines


def top_level(grey_HW: np.ndarray) -> int:
    """White: 255, or for uint16 the smallest of 255, 511, … 65535 that holds every level."""
    return max(255, (1 << int(grey_HW.max()).bit_length()) - 1)


def from_share(share: np.ndarray, like_HW: np.ndarray) -> np.ndarray:
    """Shares of white, any shape, to levels of like's type."""
    return (np.clip(share, 0, 1) * top_level(like_HW) + 0.5).astype(like_HW.dtype)


def to_share(grey_HW: np.ndarray) -> np.ndarray:
    """Levels to float32 shares of white."""
    return grey_HW.astype(np.float32) / np.float32(top_level(grey_HW))
