"""`make kind`: train the classifier of kinds, and score it by cross-validation with whole patients left out.

Frontals are the radiographs of PLAINFILM_DATA and phantoms, each turned, inverted, moved, tilted and zoomed at random;
laterals, CT slices and lung masks those of PLAINFILM_DATA, varied likewise.  Other pictures that are no radiographs are
drawn: pages of text, noise of all spectra, shapes, gradients, stripes, ovals.  Writes loaders/audit/kind.safetensors
(weights only, no pixels) and benchmarks/results/kind.json, unless --dry-run.
"""

# S side of a frame, N pictures, F features, K kinds, P parameters of a pose

import argparse
import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from benchmarks.datasets import data_folder
from benchmarks.provenance import provenance
from benchmarks.settings import RESULTS
from loaders.config import PHANTOM_LABELS
from loaders.errors import RadiographError
from loaders.images.frame import grey_window, resize
from loaders.images.kind import KINDS, WEIGHTS, KindWeights, kind_features, kind_of
from loaders.images.quality import SIDE, Measurement, inner_box, inset, misalignment
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom

PHANTOMS, DRAWN, FOLDS = 80, 400, 5
FRONTAL, LATERAL, OTHER, INVERTED = (KINDS.index(name) for name in ("frontal", "lateral", "other", "inverted"))


class Picture:
    """One source picture: frame, kind in the files, and patient, who stays in one fold."""

    def __init__(self, frame_SS: np.ndarray, kind: str, patient: str) -> None:
        self.frame_SS, self.kind, self.patient = frame_SS, kind, patient


def read_pictures(data: Path) -> list[Picture]:
    """The real files and the phantoms, as the audit's frames without their borders."""
    listed = [(row["path"], "frontal", row["patient"]) for row in rows_of(data / "radiographs.csv")]
    kinds = {"lateral": "lateral", "ct": "ct"}
    for row in rows_of(data / "audit.csv"):
        if row["defect"] in kinds:
            listed.append((row["path"], kinds[row["defect"]], row["patient"]))
    listed += [(row["mask"], "mask", row["patient"]) for row in rows_of(data / "lung_masks.csv")]
    pictures = []
    for path, kind, patient in listed:
        try:
            frame_SS = audited_frame(decode_radiograph(data / path, max_pixels=64_000_000).grey_HW)
        except RadiographError:
            continue
        pictures.append(Picture(without_borders(frame_SS), kind, patient))
    for number in range(PHANTOMS):
        planned = PlannedPhantom(
            seed=0, patient=number + 1, label=PHANTOM_LABELS[number % 3], size=256,
            arms_up=number % 2 == 0, marked=number % 4 == 0,
        )  # fmt: skip
        frame_SS = audited_frame(draw_phantom(planned).image_HW)
        pictures.append(Picture(frame_SS, "frontal", f"phantom-{number + 1:04d}"))
    return pictures


def audited_frame(grey_HW: np.ndarray) -> np.ndarray:
    """The frame that the audit examines, uint8 of SIDE × SIDE: stretched by the window of the whole picture."""
    low, high, _ = grey_window(grey_HW)
    return resize(grey_HW, SIDE, SIDE, (low, high))


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_borders(frame_SS: np.ndarray) -> np.ndarray:
    """What the audit would look at."""
    top, bottom, left, right = inset(inner_box(frame_SS))
    return cv2.resize(frame_SS[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def varied(rng: np.random.Generator, frame_SS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifted, tilted, zoomed, with another gamma, equalised at times; and the pose that this gave, float P."""
    right, down = rng.uniform(-0.07, 0.07, 2)
    tilt, zoom = rng.uniform(-10, 10), rng.uniform(-0.14, 0.14)
    if rng.random() < 0.3:  # rarely far off, so that the guess goes beyond the ordinary
        right, down, tilt = 3 * right, 3 * down, 3 * tilt
    matrix_23 = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), -tilt, float(np.exp(zoom)))
    matrix_23[:, 2] += (right * SIDE, down * SIDE)
    edge = cv2.BORDER_REPLICATE if rng.random() < 0.6 else cv2.BORDER_CONSTANT
    frame_SS = cv2.warpAffine(frame_SS, matrix_23, (SIDE, SIDE), borderMode=edge)
    frame_SS = (255 * (frame_SS / 255.0) ** rng.uniform(0.6, 1.6)).astype(np.uint8)
    if rng.random() < 0.25:
        frame_SS = cv2.equalizeHist(frame_SS)
    return frame_SS, np.array([right, down, tilt, zoom])


def examples(rng: np.random.Generator, picture: Picture) -> Iterator[tuple[np.ndarray, int, np.ndarray | None]]:
    """Training pictures made of one: frame, kind, and for upright frontals the pose."""
    if picture.kind == "frontal":
        for _ in range(4):
            frame_SS, pose_P = varied(rng, picture.frame_SS)
            yield frame_SS, FRONTAL, pose_P
        for turns in rng.permutation([1, 2, 3])[:2]:
            yield np.rot90(varied(rng, picture.frame_SS)[0], int(turns)), int(turns), None
        yield 255 - varied(rng, picture.frame_SS)[0], INVERTED, None
    else:
        times = {"lateral": 30, "ct": 20, "mask": 4}[picture.kind]
        for _ in range(times):
            frame_SS = varied(rng, picture.frame_SS)[0]
            frame_SS = frame_SS[:, ::-1] if rng.random() < 0.5 else frame_SS
            if picture.kind == "lateral":
                yield frame_SS, LATERAL, None
            else:
                yield np.rot90(frame_SS, rng.integers(4) if picture.kind == "ct" else 0), OTHER, None


def drawn(rng: np.random.Generator) -> np.ndarray:
    """A picture that is clearly no radiograph."""
    kind = rng.integers(7)
    whole = SIDE, SIDE
    rows_SS, columns_SS = np.mgrid[:SIDE, :SIDE]
    if kind == 0:  # a page of text
        page_SS = np.full(whole, 255, np.uint8)
        step = int(rng.integers(8, 20))
        for row in range(10, SIDE - 10, step):
            column = 10
            while column < SIDE - 20:
                width = int(rng.integers(4, 30))
                cv2.rectangle(page_SS, (column, row), (min(column + width, SIDE - 10), row + step // 3), 40, -1)
                column += width + 5
        return 255 - page_SS if rng.random() < 0.3 else page_SS
    if kind == 1:  # noise with a spectrum like a landscape's
        across, down = np.fft.rfftfreq(SIDE), np.fft.fftfreq(SIDE)[:, None]
        waves = rng.normal(size=(2, SIDE, SIDE // 2 + 1))
        return stretched(
            np.fft.irfft2((waves[0] + 1j * waves[1]) / (np.hypot(across, down) + 1 / SIDE) ** rng.uniform(0.5, 2.5))
        )
    if kind == 2:  # shapes
        page_SS = np.full(whole, int(rng.integers(255)), np.uint8)
        for _ in range(rng.integers(1, 12)):
            place = tuple(map(int, rng.integers(0, SIDE, 2)))
            if rng.random() < 0.5:
                cv2.circle(page_SS, place, int(rng.integers(5, 120)), int(rng.integers(255)), -1)
            else:
                cv2.rectangle(page_SS, place, tuple(map(int, rng.integers(0, SIDE, 2))), int(rng.integers(255)), -1)
        return cv2.GaussianBlur(page_SS, (0, 0), rng.uniform(0.5, 8))
    if kind == 3:  # a gradient
        return stretched(np.cos(rng.uniform(0, 6)) * columns_SS + np.sin(rng.uniform(0, 6)) * rows_SS)
    if kind == 4:  # ovals in an oval, as in slices of a body
        page_SS = np.zeros(whole, np.uint8)
        axes = int(rng.integers(90, 155)), int(rng.integers(70, 150))
        cv2.ellipse(
            page_SS, (SIDE // 2, SIDE // 2), axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(90, 220)), -1
        )
        for _ in range(rng.integers(2, 15)):
            place, axes = tuple(map(int, rng.integers(90, 230, 2))), tuple(map(int, rng.integers(5, 50, 2)))
            cv2.ellipse(page_SS, place, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(255)), -1)
        return cv2.GaussianBlur(page_SS, (0, 0), rng.uniform(0.5, 3))
    if kind == 5:  # stripes or squares
        period = int(rng.integers(4, 60))
        return ((columns_SS // period + rows_SS // period * rng.integers(2)) % 2 * 255).astype(np.uint8)
    coarse = rng.integers(0, 256, (SIDE // int(rng.choice([1, 4, 10, 20])),) * 2).astype(np.uint8)
    return cv2.resize(coarse, whole, interpolation=cv2.INTER_CUBIC)


def stretched(values_SS: np.ndarray) -> np.ndarray:
    """To 0-255."""
    low, high = values_SS.min(), values_SS.max()
    return ((values_SS - low) / (high - low) * 255).astype(np.uint8)


def train(pictures: list[Picture], seed: int) -> KindWeights:
    """Fit both layers."""
    rng = np.random.default_rng(seed)
    features, kinds, poses = [], [], []
    made = [example for picture in pictures for example in examples(rng, picture)]
    made += [(drawn(rng), OTHER, None) for _ in range(DRAWN)]
    for frame_SS, kind, pose_P in made:
        features.append(kind_features(np.ascontiguousarray(frame_SS)))
        kinds.append(kind)
        poses.append(pose_P)
    features_NF = np.array(features)
    scaler = StandardScaler().fit(features_NF)
    scaled_NF = scaler.transform(features_NF)
    kind = LogisticRegression(C=0.003, max_iter=500, class_weight="balanced").fit(scaled_NF, kinds)
    upright = [index for index, pose_P in enumerate(poses) if pose_P is not None]
    pose = Ridge(alpha=300.0).fit(scaled_NF[upright], np.array([poses[index] for index in upright]))
    arrays = scaler.mean_, scaler.scale_, kind.coef_.T, kind.intercept_, pose.coef_.T, pose.intercept_
    return KindWeights(*(np.ascontiguousarray(array, np.float32) for array in arrays))


def folds_of(pictures: list[Picture]) -> np.ndarray:
    """A fold for each picture, whole patients in one, each kind spread evenly."""
    fold_of: dict[str, int] = {}
    by_kind: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        by_kind[picture.kind].append(picture.patient)
    for kind in ("lateral", "ct", "mask", "frontal"):  # the rare ones first: they share patients with the others
        new = [patient for patient in dict.fromkeys(by_kind[kind]) if patient not in fold_of]
        fold_of.update({patient: place % FOLDS for place, patient in enumerate(new)})
    return np.array([fold_of[picture.patient] for picture in pictures])


def cross_validate(pictures: list[Picture], seed: int) -> tuple[dict[str, dict[str, int]], dict[str, list[float]]]:
    """True kind → predicted kind → pictures, by classifiers that never saw the patient; frontals in all poses.

    With it, truth → the probabilities of `other`, from which the limit is chosen.
    """
    fold_N = folds_of(pictures)
    table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    other: dict[str, list[float]] = defaultdict(list)
    for fold in range(FOLDS):
        weights = train([picture for picture, its in zip(pictures, fold_N, strict=True) if its != fold], seed + fold)
        for picture in (picture for picture, its in zip(pictures, fold_N, strict=True) if its == fold):
            views = {picture.kind: picture.frame_SS}
            if picture.kind == "frontal":
                views |= {f"turned-{90 * turns}": np.rot90(picture.frame_SS, turns) for turns in (1, 2, 3)}
                views["inverted"] = 255 - picture.frame_SS
            for truth, frame_SS in views.items():
                odds_K, _ = kind_of(kind_features(np.ascontiguousarray(frame_SS)), weights)
                table[truth][KINDS[int(odds_K.argmax())]] += 1
                other[truth].append(float(odds_K[OTHER]))
    return {truth: dict(predicted) for truth, predicted in table.items()}, dict(other)


def main() -> None:
    """Score, train on everything, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    data = data_folder()
    if data is None:
        raise SystemExit(
            "no real radiographs, expected those of PLAINFILM_DATA; set it to the folder that has radiographs.csv"
        )
    pictures = read_pictures(data)
    table, other = cross_validate(pictures, chosen.seed)
    for truth, predicted in table.items():
        extremes = ", ".join(f"{share:.3f}" for share in np.quantile(other[truth], [0, 0.1, 0.5, 0.97, 0.99, 1]))
        print(f"{truth:12} {predicted}; P(other) at 0, 10, 50, 97, 99, 100 %: {extremes}")
    if not chosen.dry_run:
        save_file(asdict(train(pictures, chosen.seed)), WEIGHTS)
        print(f"WEIGHTS_SHA256 of kind.py: {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}")
        (RESULTS / "kind.json").write_text(
            json.dumps({"provenance": provenance(), "seed": chosen.seed, "cross-validated": table}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()


@dataclass(frozen=True, slots=True)
class Folds:
    """Weights by fold, and each patient's fold."""

    weights: tuple[KindWeights, ...]
    fold_of: dict[str, int]

    def of(self, patient: str) -> KindWeights:
        """Weights that were trained without this patient."""
        return self.weights[self.fold_of.get(patient, 0)]


@cache
def fit_kind_folds(data: Path, seed: int = 0) -> Folds:
    """Train the recipe once a fold, with whole patients left out, as `make kind` does to score it."""
    pictures = read_pictures(data)
    fold_N = folds_of(pictures)
    weights = tuple(
        train([picture for picture, its in zip(pictures, fold_N, strict=True) if its != fold], seed + fold)
        for fold in range(FOLDS)
    )
    return Folds(weights, {picture.patient: int(fold) for picture, fold in zip(pictures, fold_N, strict=True)})


def rescored(
    measurement: Measurement, grey_HW: np.ndarray, window: tuple[int, int], weights: KindWeights
) -> Measurement:
    """The same measurement with other weights' opinion of the kind and the pose.

    What near duplicates are compared by keeps the polarity that the shipped weights gave it.
    """
    frame_SS = resize(grey_HW, SIDE, SIDE, window)
    top, bottom, left, right = box = inset(inner_box(frame_SS))
    if box != (0, SIDE, 0, SIDE):
        inside = np.ascontiguousarray(frame_SS[top:bottom, left:right])
        frame_SS = np.asarray(cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
    kind_K, pose_P = kind_of(kind_features(frame_SS), weights)
    odds = dict(zip(KINDS, kind_K.tolist(), strict=True))
    turned = [odds[f"turned-{90 * turns}"] for turns in (1, 2, 3)]
    scores = measurement.scores | {
        "not-a-radiograph": odds["other"],
        "lateral": odds["lateral"],
        "inverted": odds["inverted"],
        "rotated": sum(turned),
        "misaligned": misalignment(pose_P),
    }
    return replace(measurement, scores=scores, kind_K=kind_K, turns=1 + int(np.argmax(turned)))
