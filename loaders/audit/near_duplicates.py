"""Near duplicates: pairs of files that are one film, re-encoded, resized, cropped or equalised."""

# N files, D descriptors of all files, S side of a small frame, P places, X coordinates x and y

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from loaders.images.quality import Keypoints
from loaders.machine import usable_cores

NEIGHBOURS = 6  # of each descriptor; some are of the same file, and a film may have several copies
VOTES = 8  # pairs of descriptors from which two files are compared
INLIERS = 8  # that one affine map must explain
MAX_SHIFT = 0.02  # largest error of a mapped keypoint, as a share of the side
SCALES = (0.55, 1.8)  # of either axis; beyond, a crop shows something else
COVERED = 0.4  # share of the frame that both must show
BAND = 32  # details finer than this fraction of the frame are correlated: there two films of one patient differ


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files that may be one film.  similarity: correlation once aligned, 1 for the same picture."""

    first: int
    second: int
    similarity: float


def find_pairs(
    keypoints: Sequence[Keypoints],
    frames: Sequence[np.ndarray],
    progress: Callable[[int, int], None],
    first_known: int = 0,
) -> list[Pair]:
    """Compare all files with one another, first by their keypoints and then by their pixels.

    frames: uint8 S×S of each file, those of the keypoints.  A pair is listed once, in order of the files.
    first_known: if not 0, only the files before this one are compared, and only with those from it on.
    Each descriptor votes for the files of its nearest neighbours; files with enough votes are aligned by one affine map
    (RANSAC) and correlated.  Source: Lowe 2004, section 7.
    """
    files_D = np.repeat(np.arange(len(keypoints)), [len(points.place_DX) for points in keypoints])
    known = np.count_nonzero(files_D >= first_known)
    if known <= NEIGHBOURS or (first_known and known == len(files_D)):
        return []
    place_DX = np.concatenate([points.place_DX for points in keypoints])
    descriptor_DF = np.concatenate([points.descriptor_DF for points in keypoints])
    query_M, found_M = nearest(descriptor_DF, files_D, first_known)
    codes, starts, counts = np.unique(
        files_D[query_M] * len(keypoints) + files_D[found_M], return_index=True, return_counts=True
    )
    likely = np.flatnonzero(counts >= VOTES)

    def compare(place: int) -> Pair:
        first, second = divmod(int(codes[place]), len(keypoints))
        rows = slice(starts[place], starts[place] + counts[place])
        places_PX = place_DX[query_M[rows]], place_DX[found_M[rows]]
        return Pair(first, second, aligned_correlation(frames[first], frames[second], *places_PX))

    pairs = []
    with ThreadPoolExecutor(usable_cores()) as pool:  # OpenCV releases the GIL
        for done, pair in enumerate(pool.map(compare, likely.tolist()), start=1):
            progress(done, len(likely))
            if pair.similarity > 0:
                pairs.append(pair)
    return pairs


def nearest(descriptors_DF: np.ndarray, files_D: np.ndarray, first_known: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of similar descriptors of different files, each pair once, as their rows: int64 M, int64 M.

    The first is of the earlier file; pairs of the same two files are consecutive.  first_known: as of find_pairs.
    """
    cv2.setRNGSeed(0)
    start = int(np.searchsorted(files_D, first_known))  # of the known files' descriptors; 0 if all are compared
    index = cv2.flann.Index(descriptors_DF[start:], {"algorithm": 1, "trees": 4})  # 1: k-d trees
    parts = np.array_split(descriptors_DF[: start or None], usable_cores())
    with ThreadPoolExecutor(len(parts)) as pool:
        searched = pool.map(lambda part_DF: index.knnSearch(part_DF, NEIGHBOURS, params={"checks": 48})[0], parts)
        found_M = np.concatenate([found_DK.ravel() for found_DK in searched]).astype(np.int64)
    from_M = np.repeat(np.arange(start or len(files_D)), NEIGHBOURS)[found_M >= 0]
    found_M = found_M[found_M >= 0] + start
    earlier_M, later_M = np.minimum(from_M, found_M), np.maximum(from_M, found_M)  # descriptors are in order of files
    pair_M = np.unique(earlier_M * len(files_D) + later_M)
    earlier_M, later_M = np.divmod(pair_M, len(files_D))
    first_M, second_M = files_D[earlier_M], files_D[later_M]
    order_M = np.lexsort((second_M, first_M))
    order_M = order_M[first_M[order_M] != second_M[order_M]]
    return earlier_M[order_M], later_M[order_M]


def aligned_correlation(
    first_SS: np.ndarray, second_SS: np.ndarray, first_PX: np.ndarray, second_PX: np.ndarray
) -> float:
    """Correlation of fine detail in the part that both films show, after alignment; 0 if no map fits.

    first_PX, second_PX: corresponding places, as shares of the side.
    """
    side = len(first_SS)
    matrix_23, inlier_P1 = cv2.estimateAffine2D(
        first_PX * side, second_PX * side, method=cv2.RANSAC, ransacReprojThreshold=MAX_SHIFT * side
    )
    if matrix_23 is None or inlier_P1.sum() < INLIERS:
        return 0.0
    scales = np.linalg.norm(matrix_23[:, :2], axis=0)
    if scales.min() < SCALES[0] or scales.max() > SCALES[1] or np.linalg.det(matrix_23[:, :2]) <= 0:
        return 0.0
    first, second = (cv2.equalizeHist(frame_SS) for frame_SS in (first_SS, second_SS))
    criteria = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4
    try:  # the map at which the two correlate best (ECC; Evangelidis 2008), from a smoothing of 5 pixels
        start_23: Any = matrix_23.astype(np.float32)
        _, best_23 = cv2.findTransformECC(first, second, start_23, cv2.MOTION_AFFINE, criteria, None, 5)  # type: ignore[call-overload]
    except cv2.error:  # no maximum was found: the two differ
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    second = cv2.warpAffine(second, best_23, (side, side), flags=flags)
    shown_SS = cv2.warpAffine(np.full((side, side), 255, np.uint8), best_23, (side, side), flags=flags) // 255
    shown_SS = np.asarray(cv2.erode(shown_SS, np.ones((5, 5), np.uint8))).astype(bool)
    if shown_SS.mean() < COVERED:
        return 0.0
    detail = []
    for frame_SS in (first, second):  # what only one shows is filled, so that no edge is left there
        levels_SS = np.where(shown_SS, frame_SS, round(float(frame_SS[shown_SS].mean()))).astype(np.float32)
        fine_SS = levels_SS - cv2.GaussianBlur(levels_SS, (0, 0), side / BAND)
        detail.append(fine_SS[shown_SS].astype(np.float64))
    if min(part.std() for part in detail) == 0:
        return 0.0
    correlations_22: Any = np.corrcoef(np.array(detail))
    return float(max(0.0, correlations_22[0, 1]))
