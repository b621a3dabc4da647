"""Copies between two sets of stored frames: by their pixels, or by looks, 128 bytes a film that tell copies alone.

A look is the signs of a film's finer details: of 1,024 coefficients of its cosine transform, after its histogram was
equalised.  The picture itself lies in the coarse ones, which are left out.
"""

# N samples, B bytes of a look, S side of a small frame, K half-cycles, C coefficients of a look, W windows of one axis,
# E edges, Q pairs of windows

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np

from kernels.hamming import nearest_into
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.beton.reader import Beton
from loaders.errors import ConfigError
from loaders.images.frame import MID_GREY
from loaders.images.quality import COMPARED, find_keypoints
from loaders.machine import usable_cores
from loaders.statistics import Progress, no_progress

LOOK_BYTES = 128
LEAST_SIDE = 64  # of stored frames; smaller ones lack the details that tell films apart
SIDE = 64  # of the small frame
COARSEST, FINEST = 14, 40  # half-cycles a side: coarser details show the picture, finer ones do not survive resizing
SEARCHED = 16  # bytes: the coarsest details, by which all films are searched
GRID = 240  # edges of windows are multiples of the side / GRID
MARGIN = 21  # a look is of what lies inside it: of a film from which 8 % were cut at each side, another has that, too
EDGES = range(3, 34, 6)  # of windows in which a look is searched: one is within 3 of any edge that it may have
STEPS = (2, 1, 1, 1)  # by which the edges of the best are moved then, one after another
BASIS = 1 << 12  # levels of the cosines: sums of whole numbers are exact in float64, in whatever order
FARTHEST, SHORTLIST = 32, 128  # bits of SEARCHED by which films may differ that are aligned next, and most such films
ALIGNED, LEAST_AGREEMENT = 32, 0.78  # bytes by which they are aligned, and the share that must agree
FINALISTS = 8  # of these, films that are compared in all details
MOST_BY_FRAMES = 20_000  # films of both sets, which take 50 KB each
# similarity from which films are copies, higher than the audit's for files: different phantoms reach 0.93 by frames
# of 92 pixels and 0.85 by looks, different real films 0.5 and 0.5 (make bench-copies)
LIMIT_FRAMES, LIMIT_LOOKS = 0.94, 0.87

PLACE = np.uint64(2**32 - 1)  # the query's place in what kernels.hamming gives
Window = tuple[tuple[int, int], tuple[int, int]]  # what is left out before and after it, of the rows and the columns
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Copy:
    """A film that is a copy of one of another set.  sample: its place.  of: the other's.  similarity: 1 if equal."""

    sample: int
    of: int
    similarity: float


def can_compare(beton: Beton) -> bool:
    """Whether frames are large enough to tell copies from other films."""
    return beton.side >= LEAST_SIDE


def check_side(beton: Beton) -> None:
    """Errors: ConfigError for frames that are too small."""
    if not can_compare(beton):
        found = f"frames of {beton.side} pixels a side, expected at least {LEAST_SIDE}, to tell copies from other films"
        raise ConfigError(f"{beton.path}: {found}; convert the radiographs again with a larger --size")


def looks_of(beton: Beton, progress: Progress = no_progress) -> np.ndarray:
    """The look of each film: uint8 (N, LOOK_BYTES); zeros for a film of one grey level.

    Errors: ConfigError for small frames.
    """
    check_side(beton)
    basis_1KS = basis_EEKS()[[MARGIN], [MARGIN]]

    def look(sample: int) -> np.ndarray:
        small_SS = small_frame(beton, sample)
        return np.packbits(signs(small_SS, basis_1KS, basis_1KS, 8 * LOOK_BYTES))

    looks = in_threads(look, len(beton), progress)
    return np.array(looks, np.uint8).reshape(-1, LOOK_BYTES)


def copies_by_looks(tested: Beton, look_NB: np.ndarray, progress: Progress = no_progress) -> list[Copy]:
    """The films of a set that are copies of films known by their looks alone, each once, with the most similar.

    A look is of a film's inner part.  Windows of the tested film, whose four edges lie where that part may begin and
    end, are transformed alike; the films whose coarsest details agree best with any of them are compared in all
    details, while the edges are moved.  Errors: ConfigError for small frames.
    """
    check_side(tested)
    code_WN = np.ascontiguousarray(np.ascontiguousarray(look_NB[:, :SEARCHED]).view(np.uint64).T)
    before_W, after_W = (edges.ravel() for edges in np.meshgrid(EDGES, EDGES, indexing="ij"))
    basis_WKS = basis_EEKS()[before_W, after_W]

    def search(sample: int) -> Copy | None:
        small_SS = small_frame(tested, sample)
        if not small_SS.any():
            return None
        query_QB = np.packbits(signs(small_SS, basis_WKS, basis_WKS, 8 * SEARCHED), axis=1)
        best_N = np.empty(len(look_NB), np.uint64)
        nearest_into(best_N, code_WN, np.ascontiguousarray(query_QB).view(np.uint64))
        aligned = []
        for known in shortlist(best_N):
            rows, columns = divmod(int(best_N[known] & PLACE), len(before_W))
            window = (before_W[rows], after_W[rows]), (before_W[columns], after_W[columns])
            aligned.append((*align(small_SS, window, STEPS[0], look_NB[known, :ALIGNED]), known))
        finalists = sorted((one for one in aligned if one[0] >= LEAST_AGREEMENT), key=lambda one: -one[0])[:FINALISTS]
        last = [(0.5, 0)]
        for agreement, window, known in finalists:
            for step in STEPS[1:]:
                agreement, window = align(small_SS, window, step, look_NB[known])
            last.append((agreement, -known))
        agreement, place = max(last)
        # the correlation of what the signs are of: the arcsine law, Van Vleck and Middleton 1966
        return Copy(sample, -place, float(np.sin(np.pi * (agreement - 0.5))))

    searched = in_threads(search, len(tested) if len(look_NB) else 0, progress)
    return [copy for copy in searched if copy and copy.similarity >= LIMIT_LOOKS]


def shortlist(best_N: np.ndarray) -> list[int]:
    """The known films that are nearest, and near enough.  best_N: as kernels.hamming gives it."""
    near_N = np.flatnonzero(best_N < np.uint64(FARTHEST + 1) << np.uint64(32))
    return near_N[np.argsort(best_N[near_N], kind="stable")[:SHORTLIST]].tolist()


def align(small_SS: np.ndarray, window: Window, step: int, look_B: np.ndarray) -> tuple[float, Window]:
    """The share of a look's first bits that agree, in the best of the windows around one, and that window."""
    moves, look_C = np.array([-step, 0, step]), np.unpackbits(look_B)
    most = len(basis_EEKS()) - 1
    edges = [
        (np.clip(before + np.repeat(moves, 3), 0, most), np.clip(after + np.tile(moves, 3), 0, most))
        for before, after in window
    ]
    rows_WKS, columns_WKS = (basis_EEKS()[before_W, after_W] for before_W, after_W in edges)
    agreement_Q = (signs(small_SS, rows_WKS, columns_WKS, len(look_C)) == look_C).mean(1)
    places = divmod(int(agreement_Q.argmax()), len(edges[0][0]))
    rows, columns = (
        (before_W[place], after_W[place]) for (before_W, after_W), place in zip(edges, places, strict=True)
    )
    return float(agreement_Q.max()), (rows, columns)


def signs(small_SS: np.ndarray, row_basis_WKS: np.ndarray, column_basis_WKS: np.ndarray, bits: int) -> np.ndarray:
    """The first bits of looks, of each window of rows with each of columns: bool (Q, bits)."""
    down_C, across_C = (half_cycles_C[:bits] for half_cycles_C in frequencies())
    rows_WKS, columns_WKS = row_basis_WKS[:, : 1 + down_C.max()], column_basis_WKS[:, : 1 + across_C.max()]
    # window by window: products so small are computed in this thread alone
    coefficient_WWKK = (rows_WKS @ small_SS)[:, None] @ columns_WKS.transpose(0, 2, 1)
    return (coefficient_WWKK[:, :, down_C, across_C] > 0).reshape(-1, bits)


@cache
def frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Half-cycles down and across of a look's coefficients, the coarsest first."""
    down_KK, across_KK = np.mgrid[:FINEST, :FINEST]
    square_KK = down_KK**2 + across_KK**2
    order = np.lexsort((across_KK.ravel(), square_KK.ravel()))
    order = order[square_KK.ravel()[order] >= COARSEST**2][: 8 * LOOK_BYTES]
    return down_KK.ravel()[order], across_KK.ravel()[order]


@cache
def basis_EEKS() -> np.ndarray:
    """The cosine transforms of one axis of windows of the small frame, by what is left out before and after them.

    In 1 / GRID of the side.  float64 whole numbers; a pixel that lies partly inside counts as much.
    """
    edges = max(EDGES) + sum(STEPS) + 1
    low_E11, high_E11 = np.arange(edges)[:, None, None] / GRID, 1 - np.arange(edges)[:, None, None] / GRID
    pixel_S = np.arange(SIDE + 1) / SIDE
    low_EES, high_EES = np.broadcast_arrays(low_E11, high_E11.reshape(1, -1, 1))
    first_EES, last_EES = (np.clip(part_S, low_EES, high_EES) for part_S in (pixel_S[:-1], pixel_S[1:]))
    centre_EES = ((first_EES + last_EES) / 2 - low_EES) / (high_EES - low_EES)
    turn_EEKS = np.pi * np.arange(FINEST)[:, None] * centre_EES[:, :, None]
    return np.rint(BASIS * SIDE * (last_EES - first_EES)[:, :, None] * np.cos(turn_EEKS))


def small_frame(beton: Beton, sample: int) -> np.ndarray:
    """A stored frame, equalised, so that changes of contrast do not matter: float64 S×S, zeros for one grey level."""
    small_SS = resized(cv2.equalizeHist(shown_frame(beton, sample)), SIDE)
    return (small_SS - small_SS.min()).astype(np.float64)


def shown_frame(beton: Beton, sample: int) -> np.ndarray:
    """A stored frame, checked, uint8 S×S.  Around boxed lungs, where all films have one grey, stands the lungs' median:
    else a copy of another brightness would be hidden, since that grey has another rank among its lungs' levels.
    """
    beton.check_samples(np.array([sample]))
    frame_SS = np.ascontiguousarray(beton.frame(sample))
    blank_SS = frame_SS == MID_GREY
    if beton.facts.lungs != "boxed" or blank_SS.all():
        return frame_SS
    return np.where(blank_SS, np.uint8(np.median(frame_SS[~blank_SS])), frame_SS)


def copies_by_frames(tested: Beton, known: Beton, progress: Progress = no_progress) -> list[Copy]:
    """The films of a set that are copies of another set's, each once, with the most similar.

    Frames are compared as the audit compares files, which finds copies with wide margins, too, and by looks, which find
    more of the equalised ones.  Beyond MOST_BY_FRAMES films, by looks alone.  Errors: ConfigError for small frames.
    """
    found = copies_by_looks(tested, looks_of(known), progress)
    pairs = similar_pairs([tested, known], len(tested), progress)
    found += [Copy(pair.first, pair.second - len(tested), pair.similarity) for pair in pairs]
    best = {copy.sample: copy for copy in sorted(found, key=lambda copy: copy.similarity)}
    return [best[sample] for sample in sorted(best)]


def copies_within(betons: Sequence[Beton], progress: Progress = no_progress) -> list[Pair]:
    """Pairs of films of betons one after the other that are copies of one another, by their frames.

    None beyond MOST_BY_FRAMES films, and of frames that are too small.
    """
    return similar_pairs(betons, 0, progress) if all(map(can_compare, betons)) else []


def similar_pairs(betons: Sequence[Beton], first_known: int, progress: Progress) -> list[Pair]:
    """Pairs of films of betons one after the other whose frames are copies.  first_known: as `find_pairs` takes it."""
    places = [(beton, sample) for beton in betons for sample in range(len(beton))]
    if len(places) > MOST_BY_FRAMES:
        return []

    def compared(place: int) -> np.ndarray:
        return resized(shown_frame(*places[place]), COMPARED)

    frames = in_threads(compared, len(places), no_progress)
    keypoints = in_threads(lambda place: find_keypoints(frames[place]), len(places), progress)
    found = find_pairs(keypoints, frames, no_progress, first_known)
    return [pair for pair in found if pair.similarity >= LIMIT_FRAMES]


def resized(frame_SS: np.ndarray, side: int) -> np.ndarray:
    """A frame of another side."""
    interpolation = cv2.INTER_AREA if len(frame_SS) > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_SS, (side, side), interpolation=interpolation))


def in_threads(work: Callable[[int], T], number: int, progress: Progress) -> list[T]:
    """work(0), work(1), ... in order, on all cores."""
    done = []
    with ThreadPoolExecutor(usable_cores()) as pool:  # OpenCV, NumPy and kernels release the GIL
        for result in pool.map(work, range(number)):
            done.append(result)
            progress(len(done), number)
    return done
