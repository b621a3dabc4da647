"""File formats: whether format, bit depth and resolution of the original can be recognised in a small frame.

The same phantoms are saved in eight ways: 8-bit PNG, 16-bit PNG, 16-bit TIFF and JPEG of quality 95, each at full and
at half size.  Before: the file as OpenCV decodes it, cut to 8 bits, resized bilinearly.  After: the stored frame.
Features of sharpness, spectrum and unused grey levels go through a logistic regression, cross-validated by patients.
"""

# N frames, S side of the frame, F features

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.audit.outcome import Outcome, columns
from loaders.audit.probes import sharpness_features
from loaders.images.frame import stored_frame
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import EXTENSIONS, draw_phantom, encode
from loaders.statistics import percentile_interval, rank, resample_groups

SIDE = 320
FULL, HALF = 1024, 512
FORMATS = ("png", "png16", "tiff16", "jpeg")
WAYS = tuple((name, side) for name in FORMATS for side in (FULL, HALF))
BANDS = 12  # rings of the spectrum
RESAMPLES = 1000
Way = tuple[str, int]
QUESTIONS: dict[
    str, tuple[Callable[[Way], bool], Callable[[Way], bool]]
] = {  # which ways take part, and which are positive
    "JPEG or PNG": (lambda way: way[0] in ("jpeg", "png"), lambda way: way[0] == "jpeg"),
    "TIFF or PNG, 16 bits": (lambda way: way[0] in ("tiff16", "png16"), lambda way: way[0] == "tiff16"),
    "16 or 8 bits, PNG": (lambda way: way[0] in ("png16", "png"), lambda way: way[0] == "png16"),
    "full or half resolution": (lambda way: True, lambda way: way[1] == FULL),
}


def naive_frame(path: Path) -> np.ndarray:
    """What a loader without a stored frame sees: uint8 S×S."""
    grey_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert grey_HW is not None
    if grey_HW.dtype == np.uint16:
        grey_HW = (grey_HW.astype(np.uint16) >> 8).astype(np.uint8)
    return np.asarray(cv2.resize(grey_HW, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))


def our_frame(path: Path) -> np.ndarray:
    """What a beton stores: uint8 S×S."""
    return stored_frame(decode_radiograph(path, max_pixels=64_000_000).grey_HW, SIDE, "stretch")[0]


def trace_features(frames_NSS: np.ndarray) -> np.ndarray:
    """What a file's past may leave: sharpness, power of the spectrum in rings, the share of levels left out: N×21."""
    down, across = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    ring = np.minimum((np.hypot(down, across) * 2 * BANDS).astype(int), BANDS - 1)
    features = []
    for frame_SS in frames_NSS:
        power = np.abs(np.fft.rfft2(frame_SS.astype(np.float32))) ** 2
        rings = np.bincount(ring.ravel(), power.ravel(), BANDS) / np.bincount(ring.ravel(), minlength=BANDS)
        count_L = np.bincount(frame_SS.ravel(), minlength=256)
        used = np.flatnonzero(count_L)
        left_out = 1 - len(used) / (used[-1] - used[0] + 1)
        features.append([*np.log(rings + 1), left_out])
    return np.column_stack([sharpness_features(frames_NSS), np.array(features)])


def draw_frames(patients: int, progress: Callable[[str], None]) -> dict[str, np.ndarray]:
    """before, after → uint8 frames, (patients, ways, S, S)."""
    frames = {name: np.empty((patients, len(WAYS), SIDE, SIDE), np.uint8) for name in ("before", "after")}
    with tempfile.TemporaryDirectory() as folder:
        for patient in range(patients):
            if patient % 10 == 0:
                progress(f"phantom {patient + 1} of {patients}")
            planned = PlannedPhantom(seed=2, patient=patient, size=FULL, arms_up=patient % 2 == 0)
            full_HW = draw_phantom(planned).image_HW
            half_HW = np.asarray(cv2.resize(full_HW, (HALF, HALF), interpolation=cv2.INTER_AREA))
            for way, (name, side) in enumerate(WAYS):
                path = Path(folder) / f"film.{EXTENSIONS[name]}"
                path.write_bytes(encode(full_HW if side == FULL else half_HW, name))
                frames["before"][patient, way] = naive_frame(path)
                frames["after"][patient, way] = our_frame(path)
    return frames


def recognise(features_PWF: np.ndarray, question: str) -> dict[str, float]:
    """The AUC of one question and its 95 % interval over patients.  features_PWF: (patients, ways, F)."""
    takes_part, positive = QUESTIONS[question]
    ways = [way for way in range(len(WAYS)) if takes_part(WAYS[way])]
    patients = len(features_PWF)
    features_NF = features_PWF[:, ways].reshape(patients * len(ways), -1)
    group_N = np.repeat(np.arange(patients), len(ways))
    positive_N = np.tile([positive(WAYS[way]) for way in ways], patients)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=10.0, max_iter=5000))
    score_N = cross_val_predict(
        probe, features_NF, positive_N, groups=group_N, cv=GroupKFold(5), method="decision_function"
    )
    ranking, auc_R = rank(score_N[None], positive_N[None], group_N), np.empty(1 + RESAMPLES)

    def fill(rows: slice, weight_RG: np.ndarray) -> None:
        auc_R[rows] = ranking.areas(weight_RG)[0]

    resample_groups(patients, RESAMPLES, 0, fill)
    low, high = percentile_interval(auc_R[1:])
    return {"auc": float(auc_R[0]), "low": low, "high": high}


def formats(*, patients: int = 80, progress: Callable[[str], None] = lambda step: None) -> Outcome:
    """The AUC of each question before and after; nothing is demanded."""
    frames = draw_frames(patients, progress)
    progress("features")
    features = {
        name: trace_features(found.reshape(-1, SIDE, SIDE)).reshape(patients, len(WAYS), -1)
        for name, found in frames.items()
    }
    found = {
        question: {name: recognise(values, question) for name, values in features.items()} for question in QUESTIONS
    }
    rows = [["which from which", "before: AUC", "after: AUC"]]
    for question, both in found.items():
        cells = [f"{one['auc']:.2f} ({one['low']:.2f}–{one['high']:.2f})" for one in both.values()]
        rows.append([question, *cells])
    settings = {"patients": patients, "frame": SIDE, "sides": [FULL, HALF], "formats": FORMATS}
    return Outcome(lines=tuple(columns(rows)), record={"settings": settings, "questions": found})
