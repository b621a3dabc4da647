"""How often a mask is called doubtful: of real films, phantoms, what was made of real films, and what is no radiograph.

`make bench-masks` stores benchmarks/results/credible_masks.json, from which `make results` writes the table of
docs/LUNGS.md.  It needs the real films of PLAINFILM_DATA; without them it measures phantoms and what is no radiograph.
Each film is segmented by nets that are not known to have seen it or its patient.
"""

# S side of a frame

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.datasets import data_folder
from benchmarks.provenance import circumstances, describe, provenance
from benchmarks.settings import RESULTS
from benchmarks.table import NOT_MEASURED, markdown
from engine.segmentation.films import draw_films
from loaders.config import ORDINARY_PIXELS
from loaders.images.decode import hash_pixels
from loaders.images.frame import stored_frame
from loaders.images.lungs import LEAST_AGREEMENT, LEAST_AREA, LEAST_BALANCE, MOST_CUT, Segmenter, shipped_segmenter
from loaders.images.radiograph import decode_radiograph
from loaders.output import share_text
from loaders.sources.split import group_by
from loaders.sources.table import table_rows
from loaders.statistics import wilson

SIDE = 320
FILMS, SEED = 60, 0  # real films that others are made of
FILE = "credible_masks.json"
Change = Callable[[np.ndarray], np.ndarray]
MADE: dict[str, Change] = {
    "turned by 90°": lambda frame_SS: np.rot90(frame_SS, -1),
    "turned by 180°": lambda frame_SS: np.rot90(frame_SS, 2),
    "turned by 270°": lambda frame_SS: np.rot90(frame_SS),
    "black and white exchanged": lambda frame_SS: 255 - frame_SS,
    "left half alone": lambda frame_SS: frame_SS[:, : SIDE // 2],
    "upper half alone": lambda frame_SS: frame_SS[: SIDE // 2],
    "lower third alone": lambda frame_SS: frame_SS[2 * SIDE // 3 :],
    "central half of each side": lambda frame_SS: frame_SS[SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4],
    "central 70 % of each side": lambda frame_SS: frame_SS[48:272, 48:272],
}
CODES = ("lungs-missing", "lungs-uncertain", "lungs-unequal", "lungs-at-edge")
TITLES = ("no lungs", "uncertain", "not two", "cut off")


def frames_of(data: Path, table: str) -> Iterator[tuple[str, np.ndarray, bytes, str]]:
    """The defect, or "", the stored frame, the pixels' hash and the patient of each film of a table."""
    for _, row in table_rows(data / table, ("path",), ("defect", "patient"), "name its columns so"):
        grey_HW = decode_radiograph(data / row["path"], max_pixels=ORDINARY_PIXELS).grey_HW
        yield row["defect"], stored_frame(grey_HW, SIDE, "stretch")[0], hash_pixels(grey_HW), row["patient"]


def no_radiographs(number: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Noise, clouds and pages of text."""
    for _ in range(number):
        yield "noise", rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        cloud_SS = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE)), (0, 0), float(rng.uniform(3, 40)))
        yield "clouds", cv2.normalize(cloud_SS, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        page_SS = np.full((SIDE, SIDE), 255, np.uint8)
        for line in range(10, SIDE - 10, 14):
            words = " ".join("abcdefgh"[: rng.integers(2, 8)] for _ in range(8))
            cv2.putText(page_SS, words, (10, line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1)
        yield "page of text", page_SS


def measure(segmenter: Segmenter, data: Path | None, num_films: int = FILMS, num_made: int = FILMS) -> dict[str, Any]:
    """Kind of picture → how many there were, and how many masks were doubtful, by reason."""
    found: dict[str, Counter[str]] = {}

    def look(kind: str, frame_SS: np.ndarray, nets: Any = (0, 1)) -> None:
        frame_SS = cv2.resize(np.ascontiguousarray(frame_SS), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        found.setdefault(kind, Counter())[segmenter.find(frame_SS, nets).problem] += 1

    tables = ("radiographs.csv", "external.csv", "audit.csv")
    films = [(table, *film) for table in tables for film in frames_of(data, table)] if data else []
    if films:
        group_N = group_by([patient for *_, patient in films], [pixels for *_, pixels, _ in films])
        nets_N2 = segmenter.nets_for([pixels for *_, pixels, _ in films], [b""] * len(films), group_N)
        names = {"radiographs.csv": "films of the four sources", "external.csv": "films of two other sources"}
        for (table, defect, frame_SS, *_), nets in zip(films, nets_N2.tolist(), strict=True):
            look(f"real: {names.get(table, defect)}", frame_SS, nets)
        usable = np.flatnonzero([table == "radiographs.csv" for table, *_ in films])
        for place in np.random.default_rng(SEED).permutation(usable)[:num_films].tolist():
            for kind, change in MADE.items():
                look(f"made of real films: {kind}", change(films[place][2]), nets_N2[place])
    for film in draw_films(num_made, SEED, lambda phase, done, total: None):
        look("phantoms", film.frame_TT)
    for kind, frame_SS in no_radiographs(num_made, np.random.default_rng(SEED)):
        look(f"no radiograph: {kind}", frame_SS)
    return {kind: {"films": counts.total(), **{code: counts[code] for code in CODES}} for kind, counts in found.items()}


def seconds_a_film(segmenter: Segmenter, frame_SS: np.ndarray, rounds: int = 50) -> float:
    """Processor seconds of one film on one thread, the median of rounds."""
    cv2.setNumThreads(1)
    segmenter.find(frame_SS)
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        segmenter.find(frame_SS)
        times.append(time.thread_time() - began)
    return float(np.median(times))


def mask_lines(results: dict[str, dict[str, Any]]) -> str:
    """The table of docs/LUNGS.md."""
    stored = results.get(FILE)
    if stored is None:
        return NOT_MEASURED
    rows = []
    for kind, counts in stored["kinds"].items():
        doubtful = sum(counts[code] for code in CODES)
        low, high = (share_text(end).removesuffix(" %") for end in wilson(doubtful, counts["films"]))
        share = f"{share_text(doubtful / counts['films'])} ({low} to {high})"
        rows.append((kind, str(counts["films"]), share, *(str(counts[code]) for code in CODES)))
    limits, segmenter = stored["limits"], stored["segmenter"]
    return "\n".join(
        [
            *markdown([("pictures", "number", "doubtful", *TITLES), *rows]),
            "",
            f"Segmenter {segmenter['identity']} of {segmenter['nets']} nets; limits: agreement {limits['agreement']}, "
            f"balance {limits['balance']}, cut {limits['cut']}, area {limits['area']}. A film takes "
            f"{1000 * stored['seconds']:.1f} ms on one thread. {circumstances(stored['provenance'])}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.credible_masks", description=__doc__)
    parser.add_argument("--films", type=int, default=FILMS, help="real films that others are made of")
    parser.add_argument("--made", type=int, default=FILMS, help="phantoms, and pictures of each other kind")
    parser.add_argument("--out", type=Path, default=RESULTS / FILE, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    segmenter, facts = shipped_segmenter(), provenance()
    print(describe(facts))
    cv2.setNumThreads(1)
    kinds = measure(segmenter, data_folder(), chosen.films, chosen.made)
    frame_SS = cv2.resize(draw_films(1, SEED, lambda phase, done, total: None)[0].frame_TT, (SIDE, SIDE))
    stored = {
        "kinds": kinds,
        "limits": {
            "agreement": LEAST_AGREEMENT, "balance": LEAST_BALANCE, "cut": MOST_CUT, "area": LEAST_AREA,
        },
        "segmenter": {"identity": segmenter.record.identity, "nets": len(segmenter.record.nets)},
        "seconds": round(seconds_a_film(segmenter, frame_SS), 5),
        "provenance": facts,
    }  # fmt: skip
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(stored, indent=1) + "\n")
    print(mask_lines({FILE: stored}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
