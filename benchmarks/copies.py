"""`make bench-copies`: how many planted copies are found between two sets, what else is called one, and what it costs.

A library of 2,000 real and phantom films is converted, and a test set: copies of 200 of them, re-encoded, resized,
cropped and equalised, films of which the library has a crop, other films of the same patients, and films of others.
Both ways are measured on the same betons: by frames, and by looks.  Then what the best reconstruction from a look shows
of its film, and the seconds and the memory of a search among as many looks as large collections have.
"""

# N samples, H rows, W columns, B bytes of a look

import argparse
import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.datasets import data_folder
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from loaders.audit.copies import MARGIN, Copy, basis_EEKS, copies_by_frames, copies_by_looks, frequencies, looks_of
from loaders.beton.reader import Beton
from loaders.config import PHANTOM_LABELS, CatalogConfig, ConvertConfig
from loaders.convert.convert import convert
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom, encode

KINDS = ("re-encoded", "resized", "cropped", "all three", "equalised")  # of planted copies
REVERSED = "crop"  # in the library, of a film that is whole in the test set
UNCROPPED, WHOLE = "whole film of a crop", "whole"
SAME_PATIENT, OTHER = "same patient", "other"  # no copies
TABLE, BETON = "films.csv", "heldout.beton"
REAL, PHANTOM = "real", "phantom"
MOST_CROPPED = 0.08  # of each side
PHANTOM_SIDE = 256
LIBRARY, PLANTED, STRANGERS = 2_000, 200, 500  # films; STRANGERS: phantoms of other patients in the test set
SIZES, LARGE = (64, 224), (20_000, 100_000, 400_000)
SEARCHED = 200  # films, among LARGE looks
SHOWN_SIDE = 64  # of films that are compared with their reconstructions
RIDGES = (30.0, 300.0, 3_000.0, 30_000.0, 300_000.0)  # the one that reconstructs best is reported


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A film before it is written.  file: a real one's, None for a phantom."""

    label: str
    patient: str
    file: Path | None = None
    image: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        """A name that no other film has."""
        return f"{self.patient}-{self.image}-{self.seed}"

    def grey(self) -> np.ndarray:
        """Its pixels, H×W."""
        if self.file is not None:
            return decode_radiograph(self.file, max_pixels=64_000_000).grey_HW
        number = int(self.patient.rpartition("-")[2])
        planned = PlannedPhantom(
            seed=self.seed, patient=number, label=self.label, size=PHANTOM_SIDE, image=self.image,
            arms_up=number % 2 == 0, marked=number % 3 == 0,
        )  # fmt: skip
        return draw_phantom(planned).image_HW


def cropped(grey_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without up to MOST_CROPPED of each side."""
    (top, left), (bottom, right) = (rng.uniform(0, MOST_CROPPED, (2, 2)) * grey_HW.shape).round().astype(int).tolist()
    return np.ascontiguousarray(grey_HW[top : len(grey_HW) - bottom, left : grey_HW.shape[1] - right])


def resized(grey_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A third to four fifths of each side, but at least 128 pixels."""
    scale = max(rng.uniform(0.33, 0.8), 128 / min(grey_HW.shape))
    sides = [round(side * scale) for side in grey_HW.shape[::-1]]
    return np.asarray(cv2.resize(grey_HW, sides, interpolation=cv2.INTER_AREA))


def copy_of(grey_HW: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """The suffix and the bytes of a copy's file."""
    grey_HW = (grey_HW // 257).astype(np.uint8) if grey_HW.dtype == np.uint16 else grey_HW
    if kind in ("cropped", "all three", REVERSED):
        grey_HW = cropped(grey_HW, rng)
    if kind in ("resized", "all three"):
        grey_HW = resized(grey_HW, rng)
    if kind == "equalised":
        clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
        grey_HW = clahe.apply(grey_HW) if rng.random() < 0.5 else cv2.equalizeHist(grey_HW)
    if kind in ("re-encoded", "all three"):
        quality = int(rng.integers(30, 80))
        return ".jpg", cv2.imencode(".jpg", grey_HW, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return ".png", cv2.imencode(".png", grey_HW, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def real_films(data: Path, table: str) -> list[Film]:
    """The films of a table, in its order."""
    with (data / table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Film(label=row["label"], patient=row["patient"], file=data / row["path"], image=place)
        for place, row in enumerate(rows)
    ]


def phantom_films(number: int, seed: int, image: int = 0) -> list[Film]:
    """One a patient."""
    return [
        Film(label=PHANTOM_LABELS[patient % 3], patient=f"phantom-{patient}", image=image, seed=seed)
        for patient in range(1, number + 1)
    ]


class SetWriter:
    """The files of one set and their table."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[tuple[str, str, str]]()
        folder.mkdir(parents=True)

    def add(self, film: Film, kind: str, rng: np.random.Generator) -> None:
        """Write one film, or a copy of it; its name begins with the kind."""
        name = f"{kind}_{film.name}".replace(" ", "-")
        if kind in (*KINDS, REVERSED):
            suffix, content = copy_of(film.grey(), kind, rng)
            name += suffix
            (self.folder / name).write_bytes(content)
        elif film.file is not None:
            name += film.file.suffix
            shutil.copyfile(film.file, self.folder / name)
        else:
            name += ".png"
            (self.folder / name).write_bytes(encode(film.grey(), "png"))
        self.rows.append((name, film.label, film.patient))

    def close(self) -> None:
        """Write the table."""
        with (self.folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "patient"), *self.rows])


def write_sets(data: Path | None, folder: Path, films: int, planted: int, strangers: int) -> None:
    """Write the library and the test set as files with their tables.  planted: films of the library with copies."""
    rng = np.random.default_rng(0)
    real = real_films(data, "radiographs.csv") if data else []
    patients = sorted({film.patient for film in real})
    held = {patients[place] for place in rng.permutation(len(patients))[: len(patients) // 4]}
    last = {film.patient: film for film in real if film.patient not in held}
    first = {film.patient: film for film in reversed(real) if film.patient not in held}
    again = [film for patient, film in last.items() if film != first[patient]]
    library = [film for film in real if film.patient not in held and film not in again]
    phantoms = phantom_films(films - len(library), 0)
    originals, wholes = (
        [own[place] for own in (library, phantoms) if own for place in rng.permutation(len(own))[:each]]
        for each in [planted // (1 + bool(library))] * 2
    )
    known, tested = SetWriter(folder / "known"), SetWriter(folder / "tested")
    for film in [*library, *phantoms]:
        known.add(film, REVERSED if film in wholes else WHOLE, rng)
    for film in originals:
        for kind in KINDS:
            tested.add(film, kind, rng)
    others = [film for film in real if film.patient in held]
    others += (real_films(data, "external.csv") if data else []) + phantom_films(strangers, 1)
    same = again + phantom_films(planted // 2, 0, image=1)
    for kind, group in ((UNCROPPED, wholes), (SAME_PATIENT, same), (OTHER, others)):
        for film in group:
            tested.add(film, kind, rng)
    like = SetWriter(folder / "like")
    for film in phantom_films(12, 2):
        like.add(film, WHOLE, rng)
    for made in (known, tested, like):
        made.close()


def convert_sets(folder: Path, size: int) -> tuple[Path, Path]:
    """The betons of the library and of the test set, by a conversion each."""
    key, like = folder / "site.key", folder / f"like-{size}"
    convert(ConvertConfig(catalog=CatalogConfig(manifest=folder / "like" / TABLE), out=like, size=size, site_key=key))
    for name in ("known", "tested"):
        catalog, out = CatalogConfig(manifest=folder / name / TABLE), folder / f"{name}-{size}"
        convert(ConvertConfig(catalog=catalog, out=out, like=like / "train.beton", site_key=key))
    return folder / f"known-{size}", folder / f"tested-{size}"


def sample_names(converted: Path) -> list[tuple[str, str, str]]:
    """Of each sample of a conversion: its kind, whether it is real, and the film that it is of."""
    with (converted / "convert.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted((int(row["sample"]), row["path"]) for row in csv.DictReader(file) if row["verdict"] == "written")
    parts = [path.rpartition(".")[0].split("_", 1) for _, path in rows]
    return [(kind, PHANTOM if name.startswith("phantom-") else REAL, name) for kind, name in parts]


def score(copies: Sequence[Copy], known: Path, tested: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Kind → real or phantom → films called copies (of planted ones: of the right film), and films."""
    library, counts = [name for _, _, name in sample_names(known)], dict[str, dict[str, tuple[int, int]]]()
    found = {copy.sample: library[copy.of] for copy in copies}
    for sample, (kind, made, name) in enumerate(sample_names(tested)):
        right = sample in found if kind in (SAME_PATIENT.replace(" ", "-"), OTHER) else found.get(sample) == name
        hits, films = counts.setdefault(kind, {}).get(made, (0, 0))
        counts[kind][made] = hits + right, films + 1
    return counts


def standard(frames_NF: np.ndarray) -> np.ndarray:
    """Each film with mean 0 and deviation 1."""
    centred_NF = frames_NF - frames_NF.mean(1, keepdims=True)
    return centred_NF / np.maximum(centred_NF.std(1, keepdims=True), 1e-6)


def correlation(first_NF: np.ndarray, second_NF: np.ndarray) -> float:
    """Mean over films of the correlation of pixels."""
    return float((standard(first_NF) * standard(second_NF)).mean())


def small_films(beton: Beton, samples: Sequence[int]) -> np.ndarray:
    """Films as an attacker would show them, float64 (N, F)."""
    small = [
        cv2.resize(cv2.equalizeHist(np.array(beton.frame(one))), (SHOWN_SIDE, SHOWN_SIDE), interpolation=cv2.INTER_AREA)
        for one in samples
    ]
    return standard(np.array(small, np.float64).reshape(len(samples), -1))


def reconstruct(
    film_NF: np.ndarray, look_NB: np.ndarray, own_NF: np.ndarray, own_NB: np.ndarray
) -> dict[str, np.ndarray]:
    """How → films that an attacker with a library makes of looks.  own_NF, own_NB: the attacker's films and looks.

    film_NF: only to choose, in the attacker's favour, the strength of the ridge that does best.
    """
    sign_NC, own_NC = (np.unpackbits(bits_NB, axis=1) * 2.0 - 1 for bits_NB in (look_NB, own_NB))
    mean_F, mean_C = own_NF.mean(0), own_NC.mean(0)
    products_NN, crossed_NN = (own_NC - mean_C) @ (own_NC - mean_C).T, (sign_NC - mean_C) @ (own_NC - mean_C).T
    ridges = [
        mean_F + crossed_NN @ np.linalg.solve(products_NN + ridge * np.eye(len(own_NC)), own_NF - mean_F)
        for ridge in RIDGES
    ]
    best = max(ridges, key=lambda made_NF: correlation(unlike(film_NF, mean_F), unlike(made_NF, mean_F)))
    # a cosine of each coefficient's mean size and the look's sign, in the window that the look is of
    waves_CF = inverse_waves()
    size_C = np.abs(own_NF @ waves_CF.T).mean(0)
    direct_NF = mean_F + (sign_NC * size_C) @ waves_CF
    nearest_N = (sign_NC @ own_NC.T).argmax(1)
    return {"mean film": np.tile(mean_F, (len(film_NF), 1)), "direct inverse": direct_NF, "ridge": best} | {
        "film of the nearest look": own_NF[nearest_N]
    }


def inverse_waves() -> np.ndarray:
    """The pictures of a look's coefficients, of norm 1: float64 (C, F)."""
    basis_KS = basis_EEKS()[MARGIN, MARGIN]
    down_C, across_C = frequencies()
    waves_CF = (basis_KS[down_C][:, :, None] * basis_KS[across_C][:, None, :]).reshape(len(down_C), -1)
    return waves_CF / np.linalg.norm(waves_CF, axis=1, keepdims=True)


def unlike(film_NF: np.ndarray, mean_F: np.ndarray) -> np.ndarray:
    """What the mean film does not explain of films."""
    unit_F = (mean_F - mean_F.mean()) / np.linalg.norm(mean_F - mean_F.mean())
    return film_NF - (film_NF @ unit_F)[:, None] * unit_F


def privacy(known: Path, tested: Path) -> dict[str, dict[str, Any]]:
    """Of real films and phantoms: how many were reconstructed, by a library of how many others, and how well.

    ways: each with its correlation with the film, whole, and of what the mean film does not explain.
    """
    found = dict[str, dict[str, Any]]()
    with Beton(known / BETON) as library, Beton(tested / BETON) as victims:
        own_NB, look_NB = looks_of(library), looks_of(victims)
        for made in (REAL, PHANTOM):
            own = [at for at, (_, kind, _) in enumerate(sample_names(known)) if kind == made]
            films = [at for at, (what, kind, _) in enumerate(sample_names(tested)) if kind == made and what == OTHER]
            if not own or not films:
                continue
            own_NF, film_NF = small_films(library, own), small_films(victims, films)
            mean_F = own_NF.mean(0)
            ways = {
                how: (correlation(film_NF, made_NF), correlation(unlike(film_NF, mean_F), unlike(made_NF, mean_F)))
                for how, made_NF in reconstruct(film_NF, look_NB[films], own_NF, own_NB[own]).items()
            }
            found[made] = {"films": len(films), "library": len(own), "ways": ways}
    return found


class FirstFilms:
    """The first films of a beton, as copies_by_looks reads them."""

    def __init__(self, beton: Beton, films: int) -> None:
        self.side, self.facts, self._films = beton.side, beton.facts, films
        self.frame, self.check_samples = beton.frame, beton.check_samples

    def __len__(self) -> int:
        return self._films


def search_cost(tested: Path, known: Path, looks: int) -> tuple[float, float]:
    """Seconds of a search, and the most memory of the process in MiB, on Linux.

    The looks are the library's with a quarter of their bits turned.  Run in a process of its own.
    """
    rng = np.random.default_rng(0)
    with Beton(known / BETON) as library, Beton(tested / BETON) as beton:
        look_NB = looks_of(library)
        look_NB = look_NB[rng.integers(0, len(look_NB), looks)]
        for part_NB in np.array_split(look_NB, 64):
            part_NB ^= rng.integers(0, 256, part_NB.shape, np.uint8) & rng.integers(0, 256, part_NB.shape, np.uint8)
        few: Any = FirstFilms(beton, 2)
        copies_by_looks(few, look_NB[:100])  # compiles
        some: Any = FirstFilms(beton, min(SEARCHED, len(beton)))
        began = time.perf_counter()
        copies_by_looks(some, look_NB)
        taken = time.perf_counter() - began
    # Linux's own peak of this program; ru_maxrss of a new process begins at its parent's
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return taken, int(status["VmHWM"].split()[0]) / 1024


def alone(work: Callable[..., Any], *arguments: object) -> Any:
    """work(*arguments) in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(known: Path, tested: Path) -> dict[str, Any]:
    """Both ways at one size: the counts and the seconds."""
    record: dict[str, Any] = {}
    with Beton(known / BETON) as library, Beton(tested / BETON) as films:
        began = time.perf_counter()
        look_NB = looks_of(library)
        record["seconds of a look"] = (time.perf_counter() - began) / len(library)
        for way, search in (
            ("looks", lambda: copies_by_looks(films, look_NB)),
            ("frames", lambda: copies_by_frames(films, library)),
        ):
            began = time.perf_counter()
            copies = search()
            record[way] = {"seconds": time.perf_counter() - began, "found": score(copies, known, tested)}
    return record


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table of the documents."""
    kinds = (*KINDS, UNCROPPED, OTHER, SAME_PATIENT)
    lines = ["| size | by | films | " + " | ".join(kinds) + " |"]
    lines.append("| --- " * (lines[0].count("|") - 1) + "|")
    for size, record in found.items():
        for way in ("frames", "looks"):
            for made in (REAL, PHANTOM):
                counts = [record[way]["found"].get(kind.replace(" ", "-"), {}).get(made) for kind in kinds]
                cells = [f"{count[0]}/{count[1]}" if count else "" for count in counts]
                if any(cells):
                    lines.append(f"| {size} | {way} | {made} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "copies.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    record: dict[str, Any] = {"provenance": facts, "found": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_sets(data_folder(), Path(folder), LIBRARY, PLANTED, STRANGERS)
        for size in SIZES:
            known, tested = convert_sets(Path(folder), size)
            record["found"][str(size)] = measure(known, tested)
            print(*lines_of(record["found"]), sep="\n", flush=True)
        record["privacy"] = privacy(known, tested)
        for made, of_made in record["privacy"].items():
            for way, (whole, rest) in of_made["ways"].items():
                print(f"{made}, {way}: correlation {whole:.3f}, beyond the mean film {rest:.3f}")
        record["search"] = {looks: alone(search_cost, tested, known, looks) for looks in LARGE}
        for looks, (seconds, mebibytes) in record["search"].items():
            print(f"{SEARCHED} films among {looks:,} looks: {seconds:.1f} s, {mebibytes:.0f} MiB")
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
