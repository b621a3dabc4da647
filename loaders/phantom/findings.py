"""Findings of a phantom: shares of the air in the lungs that each replaces, and the heart that it enlarges."""

# H rows, W columns, P points, C coordinates (x to the viewer's right, y down)

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from loaders.phantom.anatomy import Body, blank, blur, fill, soft_noise, to_fixed

Draw = Callable[[Body, np.ndarray, np.random.Generator, np.random.Generator], np.ndarray]
"""Body, lungs_HW, the patient's random numbers and the film's → float32 share of the air that the finding replaces."""


def blob(rng: np.random.Generator, centre_C: np.ndarray, radius: float, ragged: float) -> np.ndarray:
    """Eight points around a centre."""
    turn_P = np.arange(8) * np.pi / 4
    radius_P1 = radius * (1 + ragged * rng.standard_normal((8, 1)))
    return centre_C + radius_P1 * np.column_stack([np.cos(turn_P), np.sin(turn_P)])


def draw_opacity(body: Body, lungs_HW: np.ndarray, build: np.random.Generator, pose: np.random.Generator) -> np.ndarray:
    """Soft patches in both lungs, outwards and downwards, as of COVID-19."""
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


def draw_consolidation(
    body: Body, lungs_HW: np.ndarray, build: np.random.Generator, pose: np.random.Generator
) -> np.ndarray:
    """One lobe filled up to its fissure, fading away from it, as of pneumonia."""
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


def draw_effusion(
    body: Body, lungs_HW: np.ndarray, build: np.random.Generator, pose: np.random.Generator
) -> np.ndarray:
    """Fluid at the costophrenic angle of one side or both; its upper edge is a meniscus that rises to the rib cage."""
    fluid_HW = blank(body)
    sides = ((-1.0,), (1.0,), (-1.0, 1.0))[build.choice(3, p=(0.4, 0.4, 0.2))]
    along_P = np.linspace(0, 1, 12)
    for side_sign in sides:
        level, rise = build.uniform(0.10, 0.24) + 0.008 * pose.standard_normal(), build.uniform(0.14, 0.28)
        edge_PC = np.column_stack([0.02 + 0.68 * along_P, level - rise * along_P**2.5])
        fluid_PC = np.concatenate([edge_PC, [(0.70, 1.0), (0.02, 1.0)]]) * (side_sign, 1.0)
        cv2.fillPoly(fluid_HW, [to_fixed(body, fluid_PC)], 255, cv2.LINE_AA, 4)
    severity = np.exp(0.1 * build.standard_normal())
    return 0.95 * severity * blur(fluid_HW, body, 0.012)


def draw_nodule(body: Body, lungs_HW: np.ndarray, build: np.random.Generator, pose: np.random.Generator) -> np.ndarray:
    """A round opacity of 0.04 to 0.08 of the frame's side, in a lung and not behind the heart."""
    radius = build.uniform(0.04, 0.08) * body.side / 2
    place_PC = np.column_stack(
        [build.choice((-1.0, 1.0), 40) * build.uniform(0.15, 0.5, 40), build.uniform(-0.45, 0.10, 40)]
    )
    depth_HW = cv2.distanceTransform(lungs_HW, cv2.DIST_L2, 3)
    pixel_PC = np.clip(to_fixed(body, place_PC + 0.006 * pose.standard_normal(2)) // 16, 0, body.side - 1)
    depth_P = depth_HW[pixel_PC[:, 1], pixel_PC[:, 0]]
    x, y = pixel_PC[int(np.argmax(np.minimum(depth_P, 1.2 * radius)))]  # the first that is deep enough, or the deepest
    down_HW, right_HW = np.mgrid[: body.side, : body.side].astype(np.float32)
    distance_HW = np.hypot(right_HW - x, down_HW - y)
    severity = np.exp(0.1 * build.standard_normal())
    return 0.95 * severity * np.maximum(1 - np.square(distance_HW / radius), 0) ** np.float32(0.25)


def enlarge_heart(body: Body, strength: float, build: np.random.Generator) -> Body:
    """The same patient with a heart wider than half the thorax, at strength 1."""
    return replace(body, heart_size=body.heart_size * (1 + strength * build.uniform(0.32, 0.48)))


OPACITIES: dict[str, Draw] = {  # finding of loaders.config.PHANTOM_FINDINGS that replaces air → how it is drawn
    "opacity": draw_opacity,
    "consolidation": draw_consolidation,
    "effusion": draw_effusion,
    "nodule": draw_nodule,
}
