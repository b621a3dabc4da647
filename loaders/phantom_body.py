"""The body of a phantom patient: what varies, and the canvas it is drawn on.

Thorax coordinates run from -1 to 1 over the frame of an average patient, so that the recipe's central crop
(DESIGN) is |x|, |y| <= 0.7.
"""

# H rows, W columns, L lines, P points, C coordinates (x to the viewer's right, y down)

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Points = list | np.ndarray
BODY, POSE, TEXTURE, GRAIN, MARK, FINDING = range(6)  # random streams; one never advances another

SPAN_64 = np.column_stack([np.ones(6), *(np.arange(6) / 6.0 for _ in range(3))]) ** (0, 1, 2, 3) @ (
    np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)]) / 2
)  # six points on a Catmull-Rom span, as weights of its four neighbours


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """What varies from patient to patient, and a little from image to image."""

    side: int
    """Side of the canvas in pixels."""
    place_23: np.ndarray
    """Affine map from thorax coordinates to canvas pixels (centres at integer + 0.5)."""
    breath: float
    """Depth of inspiration: factor on everything below y = 0 in the thorax."""
    lung_width: float
    heart_size: float
    rib_spacing: float
    thickness: float
    """Soft tissue that the beam crosses, as a factor."""
    air: float
    """Attenuation that aerated lung takes away."""
    bone: float
    breast: float
    exposure: float
    gamma: float
    grain: float
    wobble_PC: np.ndarray
    """Offsets of outline points."""


def random_stream(seed: int, patient: int, image: int, stream: int) -> np.random.Generator:
    """Generator of one stream; image 0 is what a patient's images share, image + 1 belongs to one of them."""
    sequence = np.random.SeedSequence(seed, spawn_key=(patient, image, stream))
    return np.random.Generator(np.random.Philox(sequence))


def sample_body(*, seed: int, patient: int, image: int, side: int) -> Body:
    """Draw the patient's build and the image's pose; spreads are standard deviations, chosen by eye."""
    build, pose = random_stream(seed, patient, 0, BODY), random_stream(seed, patient, image + 1, POSE)

    def vary(mean: float, between: float, within: float) -> float:
        spread = between * build.standard_normal() + within * pose.standard_normal()
        return mean + min(max(spread, -2 * (between + within)), 2 * (between + within))

    tilt = np.deg2rad(vary(0, 1.2, 1.5))
    scale_x, scale_y = vary(1, 0.05, 0.015), vary(1, 0.05, 0.015)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    shift = np.array([vary(0, 0.02, 0.02), vary(0.02, 0.03, 0.025)])
    linear = turn * np.array([scale_x, scale_y]) * side / 2
    return Body(
        side=side,
        place_23=np.column_stack([linear, (shift + 1) * side / 2]),
        breath=vary(1, 0.10, 0.05),
        lung_width=vary(1, 0.035, 0.005),
        heart_size=vary(1, 0.09, 0.02),
        rib_spacing=vary(0.112, 0.007, 0),
        thickness=vary(1, 0.09, 0.01),
        air=vary(0.42, 0.035, 0.02),
        bone=vary(1, 0.18, 0.03),
        breast=max(0.0, vary(0.03, 0.05, 0.003)),
        exposure=vary(0, 0.02, 0.025),
        gamma=vary(1, 0.08, 0.04),
        grain=vary(0.011, 0.002, 0.002),
        wobble_PC=0.010 * build.standard_normal((24, 2)) + 0.003 * pose.standard_normal((24, 2)),
    )


def smooth_closed(points_PC: np.ndarray) -> np.ndarray:
    """Closed Catmull-Rom curve through the points, six points a span."""
    neighbour_P4 = (np.arange(len(points_PC))[:, None] + (-1, 0, 1, 2)) % len(points_PC)
    return (SPAN_64 @ points_PC[neighbour_P4]).reshape(-1, 2)


def to_fixed(body: Body, points_PC: np.ndarray) -> np.ndarray:
    """Thorax coordinates (..., 2) to cv2's 1/16 pixels, int32; breath moves what lies below y = 0."""
    deep_PC = points_PC.copy()
    deep_PC[..., 1] *= np.where(points_PC[..., 1] > 0, body.breath, 1.0)
    pixels_PC = deep_PC @ body.place_23[:, :2].T + (body.place_23[:, 2] - 0.5)
    return np.rint(pixels_PC * 16).astype(np.int32)


def fill(canvas_HW: np.ndarray, body: Body, points: Points, value: int = 255, wobble: float = 1.0) -> None:
    """Fill a smooth outline, its points wobbled by the patient's offsets."""
    points_PC = np.asarray(points, float)
    points_PC = points_PC + wobble * np.resize(body.wobble_PC, points_PC.shape)
    cv2.fillPoly(canvas_HW, [to_fixed(body, smooth_closed(points_PC))], value, cv2.LINE_AA, 4)


def stroke(canvas_HW: np.ndarray, body: Body, lines: Points, width: float, value: int = 255) -> None:
    """Draw open lines (L, P, 2); their width is in thorax coordinates, at least a pixel."""
    pixels = max(1, round(width * body.side / 2))
    lines_LPC = to_fixed(body, np.asarray(lines, float))
    cv2.polylines(canvas_HW, list(lines_LPC), False, value, pixels, cv2.LINE_AA, 4)


def blank(body: Body) -> np.ndarray:
    return np.zeros((body.side, body.side), np.uint8)


def blur(layer_HW: np.ndarray, body: Body, sigma: float) -> np.ndarray:
    """Gaussian blur, uint8 0-255 to float32 0-1 if need be; sigma in thorax coordinates."""
    if layer_HW.dtype == np.uint8:
        layer_HW = layer_HW.astype(np.float32) / 255
    pixels = max(sigma * body.side / 2, 0.3)
    return cv2.GaussianBlur(layer_HW, (0, 0), pixels, borderType=cv2.BORDER_REPLICATE)


def round_off(shape_HW: np.ndarray, body: Body, radius: float) -> np.ndarray:
    """Thickness, 0-1, of a shape whose edge is as round as an ellipse with this radius: float32."""
    depth_HW = cv2.distanceTransform((shape_HW > 127).astype(np.uint8), cv2.DIST_L2, 3)
    return np.sqrt(1 - np.square(1 - np.minimum(depth_HW / np.float32(radius * body.side / 2), 1)))


def shrink(layer_HW: np.ndarray, size: int) -> np.ndarray:
    """Mean over the pixels of the smaller grid."""
    return cv2.resize(layer_HW, (size, size), interpolation=cv2.INTER_AREA)


def both_sides(points: Points) -> np.ndarray:
    """Points of the right side, and their mirror image: a new first axis of 2."""
    return np.stack([points, points * np.array([-1.0, 1.0])])


def soft_noise(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """Smooth random field with about `cells` bumps a side, standard deviation near 1: float32."""
    cells_HW = rng.standard_normal((cells, cells), np.float32)
    return cv2.resize(cells_HW, (side, side), interpolation=cv2.INTER_CUBIC)
