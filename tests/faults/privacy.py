"""Privacy canary: a name planted wherever a patient's may stand, and looked for in all that may be shared."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from loaders.config import PhantomConfig
from loaders.phantom.folder import write_phantoms
from tests.faults.canary import NAME, PATIENTS, TOKEN, planted_patient, shows
from tests.faults.golden import saved
from tests.faults.hostile_files import dicom
from tests.faults.png_writer import chunk, png
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Nursery

IN_BYTES = ("DICOM tags", "EXIF", "PNG texts", "TIFF tags", "everywhere")  # where every film shows the canary
LOCAL = {"convert.csv", "audit.csv", "audit.html", "predictions.csv", "predictions.jsonl", "local.json"}
SHARED = ("beton", "pictures of a conversion", "run folder", "page", "export", "cross-validation", "comparison")
PLACES = (
    "everywhere", "DICOM tags", "EXIF", "PNG texts", "TIFF tags", "file names", "folders", "paths", "CSV columns",
    "a folder of no class", "refused files", "an audit's table", "weights",
)  # fmt: skip
# what the chain's commands load, and an optimiser, whose imports are most of a small training's time
IMPORTS = (
    "import cli, torch._dynamo, loaders.convert.convert, loaders.audit.audit, loaders.audit.page, "
    "engine.train.train, engine.evaluate.evaluate, engine.evaluate.output, engine.predict.predict, "
    "engine.explain.explain, engine.explain.findings, engine.export.export, "
    "engine.export.export, engine.crossval.crossval, engine.crossval.output, engine.compare, "
    "engine.compare, engine.report.report, engine.report.report; cli.make_parser()"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A source with the canary in it.  source: arguments that name it.  out: where results go."""

    source: tuple[str, ...]
    labels: tuple[str, ...]
    root: Path
    out: Path
    audit: str = "auto"
    weights: Path | None = None


# ---- planting


def written_as(place: str, patient: str, grey_HW: np.ndarray) -> tuple[str, bytes]:
    """A suffix and the bytes of a film whose metadata name the canary, if the place is one of metadata."""
    if place in ("DICOM tags", "everywhere"):
        tags = {
            "PatientName": NAME, "PatientID": planted_patient(patient), "AccessionNumber": TOKEN,
            "PatientComments": NAME, "ReferringPhysicianName": NAME, "InstitutionName": TOKEN, "ImageComments": NAME,
            "StudyDescription": NAME, "ViewPosition": TOKEN, "StationName": TOKEN,
        }  # fmt: skip
        return ".dcm", dicom(grey_HW, 8, **tags)
    picture = Image.fromarray(grey_HW)
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = NAME, NAME, NAME
    if place == "EXIF":
        return ".jpg", saved(picture, "JPEG", quality=95, exif=exif, comment=NAME.encode())
    if place == "TIFF tags":
        return ".tif", saved(picture, "TIFF", tiffinfo={270: NAME, 315: NAME, 33432: NAME, 305: TOKEN})
    if place == "PNG texts":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Title", NAME)
        texts.add_text("Comment", NAME, zip=True)
        texts.add_itxt("Description", NAME, zip=True)
        return ".png", saved(picture, "PNG", pnginfo=texts, exif=exif)
    return ".png", png(grey_HW, before=chunk(b"tEXt", b"a\0b"))


def plant(place: str, films: list[tuple[str, str, np.ndarray]], folder: Path) -> Planted:
    """Write the films (label, patient, grey) with the canary at the place; results are to lie beside them."""
    everywhere = place == "everywhere"
    top = folder / (NAME if place == "paths" or everywhere else "plain")
    root, rows = top / "source", []
    for number, (label, patient, grey_HW) in enumerate(films):
        suffix, data = written_as(place, patient, grey_HW)
        name = f"{NAME}_{number}" if place in ("file names", "refused files") or everywhere else f"film_{number}"
        inner = NAME if place == "folders" or everywhere else "inner"
        path = root / label / inner / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        patient = planted_patient(patient) if place == "CSV columns" or everywhere else patient
        rows.append([path.relative_to(root).as_posix(), label, patient, f"{TOKEN} accession", NAME])
    if place == "refused files":
        first = next(root.rglob("*.png"))
        for label in ("covid", "normal"):  # the same pixels under two labels, a copy, and damage
            (root / label / f"{NAME} twin.png").write_bytes(png(np.arange(4096, dtype=np.uint8).reshape(64, 64)))
        (first.parent / f"{NAME} copy.png").write_bytes(first.read_bytes())
        (first.parent / f"{NAME} cut.png").write_bytes(first.read_bytes()[:99])
        (first.parent / f"{NAME} note.png").write_bytes(NAME.encode())
        (first.parent / f"{NAME} link.png").symlink_to(folder)
    if place == "a folder of no class" or everywhere:
        (root / NAME).mkdir()
        shutil.copy(next(root.rglob("film*.*"), None) or next(root.rglob("*_*.*")), root / NAME / "other.png")
    source: tuple[str, ...] = (str(root), "--classes", "covid,normal")
    labels: tuple[str, ...] = (str(root), "--labels", "folder")
    if place == "CSV columns" or everywhere:
        table = root / "table.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([["path", "label", "patient", "accession", "name"], *rows])
        source, labels = ("--manifest", str(table)), ("--manifest", str(table))
    tables = folder / NAME / "audit"
    audit = str(tables / "audit.csv") if place == "an audit's table" else "off" if place == "refused files" else "auto"
    weights = folder / NAME / "weights.safetensors" if place == "weights" else None
    return Planted(source=source, labels=labels, root=root, out=top / "out", audit=audit, weights=weights)


def sound_of(place: str, planted: Planted) -> str:
    """What is wanting of the canary where it should be planted; "" for nothing."""
    paths = [path for path in planted.root.rglob("*") if path.is_file()]
    films = [path for path in paths if path.parent.name == "inner" or path.name.startswith(NAME)]
    if place in IN_BYTES and (bare := [path.name for path in films if not shows(path.read_bytes())]):
        return f"no canary in {bare[0]}"
    named = [str(path) for path in [*paths, planted.weights, planted.audit]]
    told = any(shows(name.encode()) for name in named) or any(shows(path.read_bytes()) for path in paths)
    return "" if told else "no canary in the source"


def draw_films(folder: Path) -> list[tuple[str, str, np.ndarray]]:
    """Phantoms as (label, patient, grey)."""
    table = write_phantoms(PhantomConfig(out=folder, patients=PATIENTS, images_per_patient=1, size=96, seed=3))
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    grey = [np.asarray(cv2.imread(str(table.parent / row["path"]), cv2.IMREAD_GRAYSCALE)) for row in rows]
    return [(row["label"], row["patient"], grey_HW) for row, grey_HW in zip(rows, grey, strict=True)]


# ---- the whole chain


def chain(planted: Planted, key: Path, *, whole: bool) -> Iterator[list[str]]:
    """Every command from files to page.  whole: with what takes long."""
    out = planted.out
    betons, run = out / "betons", out / "run"
    auditing = Path(planted.audit).parent if planted.audit.endswith(".csv") else out / "audit"
    wide = [f"--limit-{name}=1000" for name in ("low-resolution", "not-a-radiograph", "misaligned", "blurred")]
    if whole or planted.audit.endswith(".csv"):
        yield ["audit", *planted.labels, "--out", str(auditing), "--permutations", "999", "--workers", "1", *wide]
    converting = ["convert", *planted.source, "--out", str(betons), "--size", "32", "--holdout", "0.3", "--val", "0.4"]
    converting += ["--page-mib", "2", "--workers", "1", "--site-key", str(key), "--audit", planted.audit]
    yield converting + (wide if planted.audit == "auto" else [])
    recipe = ["--epochs", "1", "--batch-size", "8", "--threads", "1", "--device", "cpu"]
    if planted.weights:
        yield ["train", str(betons), "--out", str(out / "first"), *recipe]
        shutil.copy(out / "first" / "best.safetensors", planted.weights)
    began = ["--weights", str(planted.weights)] if planted.weights else []
    yield ["train", str(betons), "--out", str(run), *recipe, *began]
    yield ["evaluate", str(run), str(betons / "heldout.beton"), "--resamples", "100", "--device", "cpu"]
    for name in ("predictions.csv", "predictions.jsonl"):
        yield ["predict", str(run), str(planted.root), "--out", str(out / name), "--workers", "1", "--device", "cpu"]
    if whole:
        yield ["explain", str(run), str(betons / "heldout.beton"), "--samples", "2", "--measured", "8"]
        if importlib.util.find_spec("onnxscript"):
            yield ["export", str(run)]
        folds = ["--folds", "2", "--splits", "group", "--resamples", "100", *recipe]
        yield ["crossval", str(betons), "--out", str(out / "crossval"), *folds]
        models = ["--models", "cnn", "--resamples", "100", *recipe]
        yield ["compare", str(betons), "--out", str(out / "comparison"), *models]
        yield ["report", str(run), "--crossval", str(out / "crossval")]
    else:
        yield ["report", str(run), "--no-probes"]


# ---- looking


def kind_of(path: Path) -> str:
    """What an output is, by its path below the results."""
    if path.name in LOCAL:
        return "local tables"
    if path.suffix in (".onnx", ".md"):
        return "export"
    first = path.parts[0]
    if first == "betons":
        return "beton" if path.suffix == ".beton" else "pictures of a conversion"
    kinds = {"run": "run folder", "first": "run folder", "crossval": "cross-validation", "comparison": "comparison"}
    return "page" if path.name == "report.html" else kinds.get(first, "other")


def look(*folders: Path) -> tuple[set[str], list[str]]:
    """The kinds of outputs there are in folders of results, and what is wrong with them."""
    kinds, wrong = set(), []
    found = [(path, path.relative_to(folder)) for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path, relative in sorted(found):
        kind = kind_of(relative)
        kinds.add(kind)
        if kind == "local tables":
            if path.stat().st_mode & 0o077:
                wrong.append(f"{relative} has mode {path.stat().st_mode & 0o777:o}, expected 600")
        elif shows(path.read_bytes()):
            wrong.append(f"{relative} ({kind}) shows the canary")
        if shows(str(relative).encode()):
            wrong.append(f"{relative}: its name shows the canary")
    return kinds, wrong


def attack(nursery: Nursery, planted: Planted, key: Path, *, whole: bool, defect: str) -> tuple[set[str], list[str]]:
    """One chain; gives the kinds of outputs there are, and what is wrong with it."""
    trouble = []
    for argv in chain(planted, key, whole=whole):
        ending = nursery.run(argv, before=defect, timeout=120)
        if ending.code or ending.timed_out:
            trouble = [f"{argv[0]} ended with {ending.code}: {ending.errors.strip()[-200:]}"]
            break
    elsewhere = [Path(planted.audit).parent] if planted.audit.endswith(".csv") else []
    kinds, wrong = look(planted.out, *elsewhere)
    if not kinds >= {"beton", "run folder", "page", "local tables"}:
        wrong.append(f"no more than {sorted(kinds)}")
    return kinds, wrong + trouble


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """A chain for each place.  defect: a fault for the victims, to try the campaign itself."""
    tally = Tally()
    films = draw_films(folder / "phantoms")
    with Nursery(folder / "nursery", imports=IMPORTS) as nursery:
        for attempt in range(count):
            place = PLACES[attempt % len(PLACES)]
            here = folder / f"{attempt:03}"
            here.mkdir()
            planted = plant(place, films, here)
            (here / NAME).mkdir(exist_ok=True)
            assert not (wanting := sound_of(place, planted)), f"{place}: {wanting}"
            kinds, wrong = attack(nursery, planted, folder / "key", whole=count > 1, defect=defect)
            if wrong:
                tally.broke(f"{place}: {'; '.join(wrong)} (seed {seed}, attempt {attempt})")
            else:
                tally.held(f"clean: {', '.join(kind for kind in SHARED if kind in kinds)}")
            shutil.rmtree(here)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="privacy",
    attack="a name in DICOM tags, EXIF, PNG texts, TIFF tags, file and folder names, paths, CSV columns, reasons",
    holds="neither it nor a hash of it without the site's key in anything meant to be shared: beton, page, run folder, "
    "model; what names files has mode 0600",
    run=run,
    short=1,
    full=len(PLACES),
)
