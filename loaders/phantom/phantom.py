"""Phantom: a synthetic frontal chest radiograph, drawn from a seed, in the coordinates of loaders.phantom.anatomy.

Layers add up as attenuation does, and a digital film is bright in proportion to attenuation; hence sums, not blends.
The finding has its own random streams and is added pixel by pixel, after every blur: outside it, and at strength 0
everywhere, a film equals the normal film to the bit.
"""

# H rows, W columns, P points, C coordinates (x to the viewer's right, y down)

from dataclasses import dataclass

import cv2
import numpy as np

from loaders.config import MAX_SIDE, check_range
from loaders.errors import ConfigError
from loaders.phantom.anatomy import (
    FINDING,
    GRAIN,
    MARK,
    TEXTURE,
    Body,
    blank,
    blur,
    draw_anatomy,
    draw_lungs,
    fill,
    random_stream,
    round_off,
    sample_body,
    shrink,
    soft_noise,
    to_fixed,
)

LABELS = ("covid", "normal", "pneumonia")
CANVAS_SIDE = 192  # smaller films are drawn at this side and shrunk: cv2 draws no line thinner than a pixel


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """One synthetic radiograph and its ground truth.  image_HW: uint16, bright tissue, dark air.

    lung_mask_HW: uint8, 255 in aerated lung (both lungs, without heart and mediastinum), else 0.
    """

    image_HW: np.ndarray
    lung_mask_HW: np.ndarray


def draw_phantom(
    *, seed: int, patient: int, image: int, label: str, size: int, strength: float, arms_up: bool, marked: bool
) -> Phantom:
    """Draw one radiograph; a pure function of its arguments.

    seed, patient, image: at least 0.  size: side in pixels, 32 to 4096.  strength: factor on the share of air
    that the finding replaces; 0 draws the normal film, above 1 the densest places become solid.  arms_up: beside the
    head, not hanging.  marked: a letter is burned into the upper left corner of the central crop.  Arms and mark change
    nothing else.  Errors: ConfigError.
    """
    for name, value in (("seed", seed), ("patient", patient), ("image", image)):
        check_range(name, value, 0, 2**63)
    check_range("size", size, 32, MAX_SIDE)
    check_range("strength", strength, 0, 10)
    if label not in LABELS:
        raise ConfigError(f"label: found {label}, expected one of {', '.join(LABELS)}")
    body = sample_body(seed=seed, patient=patient, image=image, side=max(size, CANVAS_SIDE))
    lungs_HW = draw_lungs(body)
    air_HW = body.air * round_off(lungs_HW, body, 0.16)
    film_HW = shrink(draw_anatomy(body, air_HW, arms_up, random_stream(seed, patient, 0, TEXTURE)), size)
    mask_HW = np.where(shrink(lungs_HW.astype(np.float32), size) > 127, np.uint8(255), np.uint8(0))
    if label != "normal":
        streams = random_stream(seed, patient, 0, FINDING), random_stream(seed, patient, image + 1, FINDING)
        share_HW = draw_covid(body, *streams) if label == "covid" else draw_pneumonia(body, *streams)
        film_HW += shrink(air_HW * np.minimum(strength * share_HW, 1), size) * (mask_HW > 0)
    film_HW = expose(film_HW, body, random_stream(seed, patient, image + 1, GRAIN))
    if marked:
        mark_HW = shrink(draw_mark(body.side, random_stream(seed, patient, image + 1, MARK)), size)
        film_HW += mark_HW * (0.97 - film_HW)
    return Phantom(image_HW=(np.clip(film_HW, 0, 1) * 65535 + 0.5).astype(np.uint16), lung_mask_HW=mask_HW)


def expose(film_HW: np.ndarray, body: Body, rng: np.random.Generator) -> np.ndarray:
    """Attenuation to film, 0.03 in air to 0.95, pixel by pixel; grain grows where few photons arrive."""
    grain_HW = rng.standard_normal(film_HW.shape, np.float32)
    noisy_HW = film_HW + body.grain * grain_HW * np.exp(np.float32(0.9) * film_HW)
    tone_HW = np.maximum(noisy_HW + np.float32(body.exposure), 0) ** np.float32(1.35 * body.gamma)
    return 0.03 + 0.92 * np.tanh(1.15 * tone_HW)


def draw_mark(side: int, rng: np.random.Generator) -> np.ndarray:
    """A framed letter R, centred near (0.21, 0.21) of the frame, just inside the 70 % crop: float32, 0-1."""
    mark_HW = np.zeros((side, side), np.uint8)
    left, top = np.rint((0.175 + 0.012 * rng.random(2)) * side).astype(int).tolist()
    box, width = round(0.06 * side), max(1, side // 150)
    cv2.rectangle(mark_HW, (left, top), (left + box, top + box), 255, width, cv2.LINE_AA)
    origin = left + round(0.22 * box), top + round(0.82 * box)
    cv2.putText(mark_HW, "R", origin, cv2.FONT_HERSHEY_SIMPLEX, 0.03 * box, 255, width, cv2.LINE_AA)
    return mark_HW.astype(np.float32) / 255


def blob(rng: np.random.Generator, centre_C: np.ndarray, radius: float, ragged: float) -> np.ndarray:
    """Eight points around a centre."""
    turn_P = np.arange(8) * np.pi / 4
    radius_P1 = radius * (1 + ragged * rng.standard_normal((8, 1)))
    return centre_C + radius_P1 * np.column_stack([np.cos(turn_P), np.sin(turn_P)])


def draw_covid(body: Body, build: np.random.Generator, pose: np.random.Generator) -> np.ndarray:
    """Soft patches in both lungs, outwards and downwards: float32 share of the air that they replace."""
    patches_HW = blank(body)
    severity = np.exp(0.2 * build.standard_normal() + 0.08 * pose.standard_normal())
    for side_sign in (-1, 1):
        for height in 0.30 - 0.62 * build.beta(1.0, 1.4, build.integers(2, 7)):
            depth = 0.22 * build.beta(1, 1.6) + 0.08 * abs(height)
            centre_C = np.array([side_sign * (0.54 - depth), height]) + 0.008 * pose.standard_normal(2)
            outline_PC = blob(build, centre_C, build.uniform(0.05, 0.11), 0.3)
            fill(patches_HW, body, outline_PC, int(build.integers(130, 256)), wobble=0)
    mottle_HW = np.maximum(1 + 0.3 * soft_noise(build, 24, body.side), 0)
    return 0.75 * severity * mottle_HW * blur(patches_HW, body, 0.03)


def draw_pneumonia(body: Body, build: np.random.Generator, pose: np.random.Generator) -> np.ndarray:
    """One lobe filled up to its fissure, fading away from it: float32 share of the air that it replaces."""
    lobe_HW, core_HW = blank(body), blank(body)
    side_C, beyond = np.array([build.choice((-1.0, 1.0)), 1.0]), -1.0 if build.random() < 0.4 else 1.0
    fissure, slope = build.uniform(-0.14, 0.0), build.uniform(-0.15, 0.25)
    severity = np.exp(0.2 * build.standard_normal() + 0.08 * pose.standard_normal())
    ends = (0.0, fissure - 0.3 * slope), (0.8, fissure + 0.5 * slope)
    lobe_PC = np.array([*ends, (0.8, beyond), (0.0, beyond)]) * side_C
    cv2.fillPoly(lobe_HW, [to_fixed(body, lobe_PC)], 255, cv2.LINE_AA, 4)
    centre_C = np.array([build.uniform(0.30, 0.42), fissure + 0.10 * beyond])
    centre_C += 0.008 * pose.standard_normal(2)
    fill(core_HW, body, blob(build, centre_C, build.uniform(0.20, 0.32), 0.12) * side_C, wobble=0)
    mottle_HW = np.maximum(1 + 0.12 * soft_noise(build, 24, body.side), 0)
    return 0.75 * severity * mottle_HW * blur(lobe_HW, body, 0.008) * blur(core_HW, body, 0.06)
