"""The anatomy of a phantom: a random body, its outlines, and the attenuation of all but the finding.

Thorax coordinates run from -1 to 1 over the frame of an average patient, so that the recipe's central crop
(DESIGN) is |x|, |y| <= 0.7.
"""

# H rows, W columns, L lines, P points, C coordinates (x to the viewer's right, y down)

from dataclasses import dataclass

import cv2
import numpy as np

CANVAS_SIDE = 192  # smaller films are drawn at this side and shrunk: cv2 draws no line thinner than a pixel
Points = list | np.ndarray
BODY, POSE, TEXTURE, GRAIN, MARK, FINDING = range(6)  # independent random streams

SPAN_64 = np.column_stack([np.ones(6), *(np.arange(6) / 6.0 for _ in range(3))]) ** (0, 1, 2, 3) @ (
    np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)]) / 2
)  # six points on a Catmull-Rom span, as weights of its four neighbours


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPhantom:
    """What a phantom shows; its pixels are a pure function of these.

    seed, patient, image: at least 0.  label: covid, normal or pneumonia.  size: side in pixels, 32 to 4096.
    strength: factor on the share of air that the finding replaces; 0 draws the normal film, above 1 the densest places
    become solid.  arms_up: beside the head, not hanging.  marked: a letter is burned into the upper left corner of the
    central crop.  Arms and mark change nothing else.  findings: of loaders.config.PHANTOM_FINDINGS, each with its
    strength, which is at 1 plain to see; beside label normal.
    """

    seed: int
    patient: int
    image: int = 0
    label: str = "normal"
    size: int
    strength: float = 1.0
    arms_up: bool = False
    marked: bool = False
    findings: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """The name of the patient, such as phantom-7-0001 for seed 7: no other seed draws this patient."""
        return f"phantom-{self.seed}-{self.patient:04d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """A patient's build, with a little variation from film to film.

    side: of the canvas in pixels.  place_23: affine map from thorax coordinates to canvas pixels (centres at
    integer + 0.5).  breath: depth of inspiration: factor on everything below y = 0 in the thorax.  thickness: soft
    tissue in the beam, as a factor.  air: attenuation that aerated lung removes.  wobble_PC: offsets of outline points.
    """

    side: int
    place_23: np.ndarray
    breath: float
    lung_width: float
    heart_size: float
    rib_spacing: float
    thickness: float
    air: float
    bone: float
    breast: float
    exposure: float
    gamma: float
    grain: float
    wobble_PC: np.ndarray


def random_stream(film: PlannedPhantom, stream: int, *, shared: bool = False) -> np.random.Generator:
    """Generator of one stream: of this film alone, or shared by its patient's films."""
    key = film.patient, 0 if shared else film.image + 1, stream
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(film.seed, spawn_key=key)))


def sample_body(film: PlannedPhantom) -> Body:
    """Draw the patient's build and the film's pose; spreads are standard deviations, chosen visually."""
    build, pose = random_stream(film, BODY, shared=True), random_stream(film, POSE)
    side = max(film.size, CANVAS_SIDE)

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


# Outlines of an average patient, as (x, y); of pairs the right one (viewer's left), to be mirrored.
# They leave the frame by so much that the shallowest breath and the smallest patient still fill it.
# fmt: off
LUNG = [(-0.26, -0.63), (-0.40, -0.54), (-0.52, -0.33), (-0.59, -0.04), (-0.62, 0.22), (-0.63, 0.42), (-0.605, 0.42),
        (-0.49, 0.31), (-0.33, 0.25), (-0.19, 0.28), (-0.05, 0.36), (-0.04, 0.10), (-0.05, -0.20), (-0.06, -0.45),
        (-0.14, -0.59)]
HEART = [(-0.10, -0.14), (-0.165, 0.05), (-0.165, 0.22), (-0.10, 0.38), (0.14, 0.44), (0.35, 0.37), (0.385, 0.26),
         (0.30, 0.08), (0.19, -0.08), (0.13, -0.20), (0.00, -0.22)]
MEDIASTINUM = [(-0.08, -0.95), (-0.085, -0.60), (-0.11, -0.40), (-0.10, -0.10), (-0.10, 0.30), (0.10, 0.30),
               (0.11, -0.12), (0.115, -0.21), (0.155, -0.28), (0.15, -0.36), (0.095, -0.42), (0.08, -0.60),
               (0.08, -0.95)]
TORSO_DOWN = [(-0.15, -1.30), (-0.17, -0.88), (-0.36, -0.76), (-0.62, -0.70), (-0.77, -0.60), (-0.80, -0.45),
              (-0.75, -0.22), (-0.74, 0.10), (-0.76, 0.50), (-0.79, 1.20), (-0.80, 2.20)]
TORSO_UP = [(-0.15, -1.30), (-0.18, -0.92), (-0.38, -0.86), (-0.56, -0.92), (-0.74, -0.86), (-0.83, -0.62),
            (-0.81, -0.38), (-0.76, -0.12), (-0.74, 0.10), (-0.76, 0.50), (-0.79, 1.20), (-0.80, 2.20)]
ARM_DOWN = [(-0.75, -0.54), (-0.86, -0.15), (-0.93, 0.30), (-0.97, 2.20)]
ARM_UP = [(-0.68, -0.60), (-0.76, -0.90), (-0.80, -1.30)]
SCAPULA_DOWN = [(-0.50, -0.55), (-0.46, -0.42), (-0.47, -0.22), (-0.52, -0.06), (-0.58, -0.20), (-0.68, -0.46),
                (-0.62, -0.54)]
SCAPULA_UP = [(-0.58, -0.60), (-0.60, -0.42), (-0.66, -0.18), (-0.73, -0.04), (-0.75, -0.22), (-0.74, -0.50),
              (-0.68, -0.62)]
CLAVICLE_DOWN = [(-0.06, -0.50), (-0.20, -0.535), (-0.38, -0.60), (-0.54, -0.625), (-0.68, -0.60)]
CLAVICLE_UP = [(-0.06, -0.50), (-0.18, -0.56), (-0.33, -0.67), (-0.46, -0.74), (-0.60, -0.77)]
BELLY = [(-0.85, 0.52), (-0.60, 0.38), (-0.33, 0.27), (0.02, 0.36), (0.02, 1.20), (0.02, 2.20), (-0.85, 2.20),
         (-0.85, 1.20)]
BREAST = [(-0.62, 0.12), (-0.60, 0.38), (-0.38, 0.46), (-0.18, 0.36), (-0.16, 0.14), (-0.38, -0.02)]
HEAD = [(-0.21, -1.10), (-0.15, -0.97), (0.00, -0.92), (0.15, -0.97), (0.21, -1.10), (0.24, -1.40), (-0.24, -1.40)]
TRACHEA = [(0.0, -1.10), (0.0, -0.60), (-0.015, -0.30)]
STOMACH_BUBBLE = [(0.24, 0.46), (0.34, 0.43), (0.44, 0.47), (0.38, 0.55), (0.27, 0.54)]
# fmt: on


def heart_outline(body: Body) -> np.ndarray:
    return (np.asarray(HEART) - (0.03, 0.14)) * body.heart_size + (0.03, 0.14)


def draw_lungs(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Both lungs, uint8, 255 inside: as far as they are aerated, and with what of them lies behind the heart."""
    lungs_HW = blank(body)
    right_PC, left_PC = both_sides(LUNG) * [body.lung_width, 1]
    left_PC += np.where(left_PC[:, 1:] > 0.2, (0, 0.035), 0)  # the liver lifts the right side
    fill(lungs_HW, body, right_PC)
    fill(lungs_HW, body, left_PC)
    aerated_HW = lungs_HW.copy()
    fill(aerated_HW, body, heart_outline(body), 0)
    for region_HW in (aerated_HW, lungs_HW):
        fill(region_HW, body, MEDIASTINUM, 0)
    return two_levels(aerated_HW), two_levels(lungs_HW)


def two_levels(shape_HW: np.ndarray) -> np.ndarray:
    """A smooth shape as 0 and 255: uint8."""
    return np.where(shape_HW > 127, np.uint8(255), np.uint8(0))


def draw_anatomy(body: Body, air_HW: np.ndarray, arms_up: bool, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of everything but the finding: float32, 0 in air, about 1 in the abdomen."""
    film_HW = draw_soft_tissue(body, arms_up)
    film_HW *= body.thickness * (1 + 0.035 * soft_noise(rng, 4, body.side))
    film_HW += air_HW * (0.4 * draw_vessels(body, rng) - 1)
    film_HW += body.bone * draw_bones(body, arms_up)
    return np.maximum(blur(film_HW, body, 0.006), 0)


def draw_soft_tissue(body: Body, arms_up: bool) -> np.ndarray:
    """Trunk, arms, heart, abdomen, breasts and the air in trachea and stomach: float32."""
    trunk_HW, arms_HW, heart_HW, belly_HW, breasts_HW, air_HW = (blank(body) for _ in range(6))
    right_PC, left_PC = both_sides(TORSO_UP if arms_up else TORSO_DOWN)
    fill(trunk_HW, body, np.concatenate([right_PC, left_PC[::-1]]))
    fill(trunk_HW, body, HEAD)
    stroke(arms_HW, body, both_sides(ARM_UP if arms_up else ARM_DOWN), 0.24)
    fill(heart_HW, body, heart_outline(body))
    fill(heart_HW, body, MEDIASTINUM)
    for half_PC, breast_PC in zip(both_sides(BELLY), both_sides(BREAST), strict=True):
        fill(belly_HW, body, half_PC)
        fill(breasts_HW, body, breast_PC)
    stroke(air_HW, body, [TRACHEA], 0.075)
    fill(air_HW, body, np.add(STOMACH_BUBBLE, 4 * body.wobble_PC[0]))
    belly_HW = blur(belly_HW, body, 0.03) * (trunk_HW > 127)
    film_HW = 0.62 * np.maximum(round_off(trunk_HW, body, 0.30), 0.80 * round_off(arms_HW, body, 0.12))
    film_HW += 0.15 * round_off(heart_HW, body, 0.14) * (1 - 0.7 * belly_HW)
    film_HW += 0.15 * belly_HW
    film_HW += body.breast * round_off(breasts_HW, body, 0.20)
    film_HW -= 0.10 * blur(air_HW, body, 0.012)
    return film_HW


def rib_curves(body: Body) -> np.ndarray:
    """Nine right ribs from the spine round the side: half ellipses, tilted forwards; (9, 18, 2)."""
    level_L1, angle_P = np.arange(9)[:, None], np.linspace(0.06, 0.80, 18) * np.pi
    reach_L1 = 0.635 * body.lung_width * np.minimum(1, 0.50 + 0.15 * level_L1 - 0.010 * level_L1**2)
    drop_L1 = 0.16 + 0.030 * level_L1
    y_LP = drop_L1 * (1 - np.cos(angle_P)) / 2 - 0.05 * np.sin(2 * angle_P).clip(0)
    return np.stack([-reach_L1 * np.sin(angle_P), y_LP - 0.60 + body.rib_spacing * level_L1], -1)


def draw_bones(body: Body, arms_up: bool) -> np.ndarray:
    """Ribs, spine, clavicles, scapulae and humeri: float32 attenuation."""
    back_HW, front_HW, girdle_HW, scapula_HW, spine_HW = (blank(body) for _ in range(5))
    ribs_LPC = np.concatenate(both_sides(rib_curves(body)))
    fronts_LPC = np.concatenate(both_sides(rib_curves(body)[:7, 11:]))
    for width, value in ((0.044, 255), (0.022, 150)):  # cortex shows brighter than marrow
        stroke(back_HW, body, ribs_LPC[:, :13], width, value)
        stroke(front_HW, body, fronts_LPC, width + 0.008, value)
    clavicles_LPC = both_sides(CLAVICLE_UP if arms_up else CLAVICLE_DOWN)
    stroke(girdle_HW, body, clavicles_LPC, 0.044)
    stroke(girdle_HW, body, clavicles_LPC, 0.020, 170)
    humeri_LPC = both_sides(ARM_UP if arms_up else ARM_DOWN) * [0.985, 1] + [0, 0.01]
    stroke(girdle_HW, body, humeri_LPC, 0.07, 220)
    for length, width in ((0.25, 0.09), (0.12, 0.11), (0.0, 0.13)):  # the head widens towards the joint
        joint_LPC = humeri_LPC[:, :1] + [[[0.0], [length]]] * np.diff(humeri_LPC[:, :2], axis=1)
        stroke(girdle_HW, body, joint_LPC, width, 220)
    for scapula_PC in both_sides(SCAPULA_UP if arms_up else SCAPULA_DOWN):
        fill(scapula_HW, body, scapula_PC)
    tops_LPC = np.stack([np.zeros(30), -1.15 + 0.105 * np.arange(30)], -1)[:, None]
    stroke(spine_HW, body, np.add(tops_LPC, [(-0.035, 0), (0.035, 0)]), 0.078)
    stroke(spine_HW, body, np.add(tops_LPC, [(0, 0.01), (0, 0.04)]), 0.03, 150)
    film_HW = 0.085 * blur(back_HW, body, 0.004) + 0.05 * blur(front_HW, body, 0.008)
    film_HW += 0.12 * blur(girdle_HW, body, 0.006)
    film_HW += 0.05 * blur(scapula_HW, body, 0.008)
    film_HW += 0.07 * blur(spine_HW, body, 0.008)
    return film_HW


def draw_vessels(body: Body, rng: np.random.Generator) -> np.ndarray:
    """Hila and the vessels that branch from them, thinner outwards: float32, 0-1."""
    vessels_HW, hila_HW = blank(body), blank(body)
    sign_L1 = np.repeat([-1.0, 1.0], 9)[:, None]
    fan_L1 = np.tile(np.linspace(-1.35, 1.35, 9), 2)[:, None]
    bend_LP = fan_L1 + np.cumsum(0.13 * rng.standard_normal((18, 5)), 1)
    step_LPC = 0.075 * np.stack([sign_L1 * np.cos(bend_LP), 1.1 * np.sin(bend_LP)], -1)
    hilum_LPC = np.stack([0.15 * sign_L1, -0.06 - 0.03 * sign_L1], -1)
    path_LPC = hilum_LPC + np.cumsum(step_LPC, 1)
    twig_LPC = 0.07 * np.stack([0.8 * sign_L1 + np.zeros(4), rng.choice((-0.7, 0.7), (18, 4))], -1)
    for start, width in enumerate((0.026, 0.020, 0.014, 0.009)):
        stroke(vessels_HW, body, path_LPC[:, start : start + 2], width, 245 - 35 * start)
        fork_LC = path_LPC[:, start + 1]
        twigs_LPC = np.stack([fork_LC, fork_LC + twig_LPC[:, start]], 1)
        stroke(vessels_HW, body, twigs_LPC, width * 0.5, 150 - 20 * start)
    stroke(hila_HW, body, np.add(hilum_LPC[::9], [(0, -0.06), (0, 0.02), (0, 0.11)]), 0.075)
    return np.minimum(0.7 * blur(vessels_HW, body, 0.005) + 0.6 * blur(hila_HW, body, 0.035), 1)
