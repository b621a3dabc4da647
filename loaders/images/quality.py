"""The quality of one radiograph: scores of its defects, its borders, and what the audit compares it by."""

# H rows, W columns, S side of the audit's frame, K kinds, P parameters of a pose, L grey levels, D keypoints,
# X coordinates x and y, F values of a descriptor

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from kernels.decoding import histogram_into
from loaders.config import AuditLimits
from loaders.images.frame import resize
from loaders.images.kind import KINDS, kind_features, kind_of, shipped_weights
from loaders.images.lungs import EDGE, Lungs, shipped_segmenter
from loaders.images.lungs import SIDE as LUNG_SIDE

DETECTORS = (
    "not-a-radiograph", "lateral", "colour-annotation", "text-or-mark", "low-resolution", "blurred", "exposure",
    "inverted", "rotated", "misaligned", "no-lungs", "lungs-not-two", "lungs-cut-off", "borders",
)  # fmt: skip
OF_LUNGS = ("no-lungs", "lungs-not-two", "lungs-cut-off")  # mean something of upright frontal films alone
MEANINGLESS = {  # defect → others that mean nothing beside it
    "not-a-radiograph": ("lateral", "blurred", "exposure", "inverted", "rotated", "misaligned", *OF_LUNGS),
    "lateral": ("inverted", "rotated", "misaligned", *OF_LUNGS),
    "rotated": ("misaligned", *OF_LUNGS),
    "inverted": ("misaligned", "exposure"),
    "no-lungs": ("lungs-not-two", "lungs-cut-off"),
}
SIDE = 320  # of the frame that is scored, whatever the sizes of file and conversion
MARGIN = SIDE * 15 // 100  # around the central part, where blur and exposure are measured
SMALL = 92  # the probes' frames: stored side of a crop of 64
THUMBNAIL = 160
COMPARED = 160  # side at which near duplicates are correlated
KEYPOINT_SIDE, KEYPOINTS = 64, 48
STROKE_CONTRAST = 70  # grey levels; bones and catheters stay below it
DARK, BRIGHT, EVEN = 12, 243, 3  # grey levels of 0-255 after stretching
STRAY = 0.01  # share of a line in a margin that may have other levels, such as dust
ABRUPT, WITHIN = 0.25, 4  # share of other levels in one of the first lines after a margin


@dataclass(frozen=True, kw_only=True, slots=True)
class Keypoints:
    """Distinctive places of a picture with their descriptors; survive cropping, resizing and equalising.

    place_DX: float32, shares of the side.  descriptor_DF: float32 D × 128, square roots of SIFT's (RootSIFT).
    """

    place_DX: np.ndarray
    descriptor_DF: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What the audit measures of one decoded file on its own.

    scores: one for each of DETECTORS.
    box: first row, last row + 1, first column, last column + 1 inside the borders, in pixels of the file.
    turns: clockwise quarter turns that make it upright, if `rotated` is over its limit.
    kind_K: probabilities of loaders.images.kind.KINDS.
    evenness: Kolmogorov-Smirnov distance of the histogram from a flat one; near 0 in an equalised film.
    compared_SS: uint8, COMPARED × COMPARED, without borders; the keypoints' places are in it.
    lungs: as the shipped nets find them in compared_SS; the mask is SMALL × SMALL, of what lies inside the borders.
    thumbnail: JPEG with the file's aspect ratio, its longer side THUMBNAIL pixels.
    small_SS: uint8, SMALL × SMALL, for the probes.
    """

    scores: dict[str, float]
    box: tuple[int, int, int, int]
    turns: int
    kind_K: np.ndarray
    evenness: float
    keypoints: Keypoints
    compared_SS: np.ndarray
    lungs: Lungs
    thumbnail: bytes
    small_SS: np.ndarray


def measure(grey_HW: np.ndarray, window: tuple[int, int], colour: float, stored: int) -> Measurement:
    """Score a decoded radiograph.

    grey_HW: uint8 or uint16, upright as the file has it.  window: its grey levels that become 0 and 255.
    colour: share of the file's pixels that are coloured.  stored: side that conversion would store.
    """
    rows, columns = grey_HW.shape
    frame_SS = resize(grey_HW, SIDE, SIDE, window)
    top, bottom, left, right = inset(inner_box(frame_SS))
    inside_SS = frame_SS
    if (top, bottom, left, right) != (0, SIDE, 0, SIDE):
        inside_SS = np.ascontiguousarray(frame_SS[top:bottom, left:right])
        inside_SS = cv2.resize(inside_SS, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    kind_K, pose_P = kind_of(kind_features(inside_SS), shipped_weights())
    odds = dict(zip(KINDS, kind_K.tolist(), strict=True))
    body_SS = inside_SS[MARGIN:-MARGIN, MARGIN:-MARGIN]
    turned = [odds[f"turned-{90 * turns}"] for turns in (1, 2, 3)]
    # inwards to whole pixels, so that no line of the margin remains
    box = -(-top * rows // SIDE), bottom * rows // SIDE, -(-left * columns // SIDE), right * columns // SIDE
    if box[0] >= box[1] or box[2] >= box[3]:
        box = 0, rows, 0, columns
    # a film and its negative are copies of one another
    compared_SS = cv2.resize(inside_SS, (COMPARED, COMPARED), interpolation=cv2.INTER_AREA)
    compared_SS = 255 - compared_SS if odds["inverted"] > 0.5 else compared_SS
    lungs = shipped_segmenter().find(compared_SS)
    scores = {
        "not-a-radiograph": odds["other"],
        "lateral": odds["lateral"],
        "colour-annotation": colour,
        "text-or-mark": strokes(inside_SS),
        "low-resolution": stored / min(box[1] - box[0], box[3] - box[2]),
        "blurred": blur(body_SS),
        "exposure": exposure(body_SS),
        "inverted": odds["inverted"],
        "rotated": sum(turned),
        "misaligned": misalignment(pose_P),
        "no-lungs": 1 - lungs.agreement,
        "lungs-not-two": 1 - lungs.balance,
        "lungs-cut-off": share_at_edge(lungs.mask_SS),
        "borders": max(top / SIDE, 1 - bottom / SIDE, left / SIDE, 1 - right / SIDE),  # the widest margin
    }
    small_SS = cv2.resize(frame_SS, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return Measurement(
        scores=scores, box=box, turns=1 + int(np.argmax(turned)), kind_K=kind_K, evenness=evenness(inside_SS),
        keypoints=find_keypoints(compared_SS), compared_SS=compared_SS, lungs=shrink_lungs(lungs),
        thumbnail=thumbnail_of(frame_SS, rows, columns), small_SS=small_SS,
    )  # fmt: skip


def own_defects(measurement: Measurement, limits: AuditLimits) -> list[str]:
    """The defects of one file on its own."""
    found = [name for name in DETECTORS if measurement.scores[name] > limit_of(limits, name)]
    meaningless = {other for name in found for other in MEANINGLESS.get(name, ())}
    return [name for name in found if name not in meaningless]


def limit_of(limits: AuditLimits, detector: str) -> float:
    """The limit of one detector."""
    return float(getattr(limits, "limit_" + detector.replace("-", "_")))


def fix_of(measurement: Measurement, defects: Sequence[str]) -> str:
    """Steps of the repair: "crop TOP:BOTTOM,LEFT:RIGHT", "invert", "rotate DEGREES" (clockwise), in that order."""
    steps = []
    if "borders" in defects:
        top, bottom, left, right = measurement.box
        steps.append(f"crop {top}:{bottom},{left}:{right}")
    if "inverted" in defects:
        steps.append("invert")
    if "rotated" in defects:
        steps.append(f"rotate {90 * measurement.turns}")
    return "; ".join(steps)


def inner_box(frame_HW: np.ndarray) -> tuple[int, int, int, int]:
    """First row, last row + 1, first column, last column + 1 inside uniform margins.

    frame_HW: uint8, at least 8 × 8.  A margin is as black or white as the outermost line, and ends abruptly along a
    straight edge; air beside a body is as black, but its edge is gradual and curved.  If all is margin, the box is the
    frame.
    """
    top, bottom = ends(frame_HW)
    left, right = ends(np.ascontiguousarray(frame_HW[top:bottom].T))
    top, bottom = ends(np.ascontiguousarray(frame_HW[:, left:right]))  # a row may be even only between side margins
    return top, bottom, left, right


def ends(lines_HW: np.ndarray) -> tuple[int, int]:
    """First line inside the margins, and the last + 1; all lines where nothing would be left."""
    first, last = margin(lines_HW), margin(lines_HW[::-1])
    if len(lines_HW) - first - last < len(lines_HW) // 8:
        return 0, len(lines_HW)
    return first, len(lines_HW) - last


def margin(lines_HW: np.ndarray) -> int:
    """The number of margin lines, counted from the first line."""
    half = lines_HW.shape[1] // 2
    level = int(np.partition(lines_HW[0], half)[half])
    if DARK < level < BRIGHT or (np.abs(lines_HW[0].astype(np.int16) - level) > EVEN).mean() > STRAY:
        return 0
    stray_H = (np.abs(lines_HW.astype(np.int16) - level) > EVEN).mean(1)
    width = int(np.argmax(stray_H > STRAY))  # 0 if it is margin all over
    return width if stray_H[width : width + WITHIN].max() >= ABRUPT else 0


def inset(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box without lines that are part margin and part film, which would count as strokes."""
    top, bottom, left, right = box
    return top + (top > 0), bottom - (bottom < SIDE), left + (left > 0), right - (right < SIDE)


def blur(body_SS: np.ndarray) -> float:
    """Contrast of edges in one octave over that in the next finer one; larger is more blurred.

    The ratio of the 98th percentiles of absolute differences of Gaussians: high enough to be at edges, where blur shows
    and noise does not, and low enough to pass over the few pixels of letters.
    """
    blurred = [cv2.GaussianBlur(body_SS.astype(np.float32), (0, 0), 0.8 * 2**octave) for octave in range(3)]
    # every other pixel is enough for a percentile
    fine, coarse = (float(np.quantile(np.abs((a - b)[::2, ::2]), 0.98)) for a, b in pairwise(blurred))
    return coarse / (fine + 0.05)


def strokes(frame_SS: np.ndarray) -> float:
    """Share of thin strokes far brighter or darker than their surroundings, such as letters and arrows."""
    square = np.ones((5, 5), np.uint8)
    bright_SS = cv2.morphologyEx(frame_SS, cv2.MORPH_TOPHAT, square)
    dark_SS = cv2.morphologyEx(frame_SS, cv2.MORPH_BLACKHAT, square)
    return float((np.maximum(bright_SS, dark_SS) > STROKE_CONTRAST).mean())


def exposure(body_SS: np.ndarray) -> float:
    """Distance of the central part from an exposure that shows both lungs and spine; 1 is the limit.

    The larger of: its share of nearly black and nearly white pixels over 0.15; the distance of its mean from that of
    ordinary films.
    """
    extremes = float(((body_SS <= 5) | (body_SS >= 250)).mean())
    return max(extremes / 0.15, abs(float(body_SS.mean()) - 145) / 90)


def misalignment(pose_P: np.ndarray) -> float:
    """How far the thorax is shifted, tilted or zoomed; 1 is the limit of ordinary films."""
    right, down, tilt, zoom = np.abs(pose_P).tolist()
    return max(right / 0.12, down / 0.14, tilt / 14, zoom / 0.25)


def share_at_edge(mask_SS: np.ndarray) -> float:
    """The largest share of the lungs' width that lies at the frame's upper or lower edge, or of their height at a side.

    Apices and diaphragms are curved: whole ones touch an edge at a few points, and cut ones along much of their width.
    """
    edge, shares = round(EDGE * len(mask_SS) / LUNG_SIDE), [0.0]
    for turned_SS in (mask_SS, mask_SS.T) if mask_SS.any() else ():
        shares += [
            float(lines.any(0).sum() / turned_SS.any(0).sum()) for lines in (turned_SS[:edge], turned_SS[-edge:])
        ]
    return max(shares)


def shrink_lungs(lungs: Lungs) -> Lungs:
    """The same with a mask of SMALL × SMALL."""
    small_SS = cv2.resize(lungs.mask_SS.astype(np.uint8) * 255, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return replace(lungs, mask_SS=small_SS > 127)


def evenness(frame_SS: np.ndarray) -> float:
    """Largest distance between the cumulative histogram and that of a flat one."""
    count_L = np.empty(256, np.int64)
    histogram_into(count_L, frame_SS)
    share_L = np.cumsum(count_L) / frame_SS.size
    return float(np.abs(share_L - np.arange(1, 257) / 256).max())


def thumbnail_of(frame_SS: np.ndarray, rows: int, columns: int) -> bytes:
    """A JPEG of the frame with the file's aspect ratio."""
    scale = THUMBNAIL / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    small_HW = cv2.resize(frame_SS, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small_HW, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def find_keypoints(frame_SS: np.ndarray) -> Keypoints:
    """The strongest SIFT keypoints of the equalised frame.  Source: Lowe 2004; Arandjelović and Zisserman 2012."""
    small_SS = cv2.resize(frame_SS, (KEYPOINT_SIDE, KEYPOINT_SIDE), interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(KEYPOINTS, contrastThreshold=0.01)
    found, descriptor_DF = sift.detectAndCompute(cv2.equalizeHist(small_SS), None)
    if descriptor_DF is None:
        return Keypoints(place_DX=np.empty((0, 2), np.float32), descriptor_DF=np.empty((0, 128), np.float32))
    place_DX = np.array([keypoint.pt for keypoint in found], np.float32)[:KEYPOINTS] / KEYPOINT_SIDE
    root_DF = np.sqrt(descriptor_DF / np.maximum(descriptor_DF.sum(1, keepdims=True), 1e-6))
    return Keypoints(place_DX=place_DX, descriptor_DF=root_DF[:KEYPOINTS].astype(np.float32))
