"""Privacy: a name planted wherever a patient's may stand, and looked for in all that may be shared."""

import base64
import binascii
import csv
import hashlib
import hmac
import importlib.util
import json
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from loaders.beton.format import ROW, sexes_and_ages
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import PhantomConfig
from loaders.phantom.phantom import write_phantoms
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.image_files import chunk, dicom, png, saved
from tests.faults.processes import ForkServer
from tests.loaders.test_beton import some_facts

TOKEN = "ZQXKANARIE"
NAME = f"{TOKEN}^PRIVATE"
SEX, AGE, AGE_TAG = "WEIBLICH", "21354D", "697M"  # female, 58 years: in tables, and as DICOM can hold it
PATIENTS, SEED = 16, 3  # of the phantoms, whose identifiers may be planted


def planted_patient(patient: str) -> str:
    """A patient's identifier with the planted name in it."""
    return f"{NAME}-{patient}"


def needles() -> tuple[bytes, ...]:
    """The planted name in every form that is searched for, in small letters where it is text; sex and age, too."""
    return (
        *(text.lower().encode() for text in (TOKEN, SEX, AGE)),
        *(TOKEN.encode(code) for code in ("utf-16-le", "utf-16-be")),
        TOKEN.encode().hex().encode(),
    )


def bare_hashes() -> np.ndarray:
    """First 8 bytes, as uint64 in order, of each hash without a secret that a planted name or identifier may have.

    Any longer part of a hash begins with them.  A bare hash of an identifier can be looked up; so can one with the
    product's own prefix, or with a key of nothing or of zeros.
    """
    names = [TOKEN, NAME, *(planted_patient(f"phantom-{SEED}-{number:04d}") for number in range(1, PATIENTS + 1))]
    found = []
    for text in (prefix + name.encode() for name in names for prefix in (b"", b"patient:", b"patient")):
        found += [hashlib.new(kind, text).digest() for kind in ("md5", "sha1", "sha256", "sha512", "sha3_256")]
        found += [hashlib.blake2b(text, digest_size=size).digest() for size in (8, 16, 32, 64)]
        found += [hmac.new(key, text, "sha256").digest() for key in (b"", bytes(32))]
    return np.unique(np.frombuffer(b"".join(digest[:8] for digest in found), np.uint64))


def shows_hash(data: bytes, hashes: np.ndarray) -> bool:
    """Whether bytes hold one of these hashes, as it is or in hexadecimal."""
    numbers = [np.frombuffer(data, np.uint64, (len(data) - at) // 8, at) for at in range(8) if len(data) >= at + 8]
    digits = b"".join(
        bytes.fromhex(found[at : at + 16].decode()) for found in HEX.findall(data) for at in range(len(found) - 15)
    )
    numbers += [np.frombuffer(digits, np.uint64)] if digits else []
    places = [np.searchsorted(hashes, some).clip(max=len(hashes) - 1) for some in numbers]
    return any((hashes[place] == some).any() for place, some in zip(places, numbers, strict=True))


NEEDLES = needles()
HASHES = bare_hashes()
DECADES = re.compile(rb"\b(female|50-59)\b")  # as what keeps sex and age shows them
PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
HEX = re.compile(rb"[0-9a-fA-F]{16,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")
MOST = 4 << 20  # bytes of a file whose packed parts are looked into; betons hold no packed parts


def shows(data: bytes, depth: int = 2) -> bool:
    """Whether bytes hold the planted name, or a bare hash of it: as it is, in base64, or deflated."""
    small = data.lower()
    if any(needle in data or needle in small for needle in NEEDLES) or shows_hash(data, HASHES):
        return True
    if not depth or len(data) > MOST:
        return False
    for found in PACKED.finditer(data):
        try:
            if shows(zlib.decompressobj().decompress(data[found.start() :], 1 << 16), depth - 1):
                return True
        except zlib.error:
            continue
    for found in BASE64.finditer(data):
        try:
            if shows(binascii.a2b_base64(found[0][: len(found[0]) // 4 * 4]), depth - 1):
                return True
        except binascii.Error:
            continue
    return False


# ---- planting


IN_BYTES = ("DICOM tags", "EXIF", "PNG texts", "TIFF tags", "everywhere")  # where every film shows the planted name
LOCAL = {"convert.csv", "audit.csv", "audit.html", "predictions.csv", "predictions.jsonl", "local.json"}
SHARED = ("beton", "pictures of a conversion", "run folder", "page", "export", "cross-validation", "comparison")
MAY_KEEP = ("beton", "run folder", "page", "comparison")  # what may show sex and age in decades, where they are kept
PLACES = (
    "everywhere", "DICOM tags", "EXIF", "PNG texts", "TIFF tags", "file names", "folders", "paths", "CSV columns",
    "a folder of no class", "refused files", "an audit's table", "weights", "kept demographics",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A source with the planted name in it.  source: arguments that name it.  out: where results go.

    kept: convert with --keep-demographics; sex and age are planted wherever tables and tags are.
    """

    source: tuple[str, ...]
    labels: tuple[str, ...]
    root: Path
    out: Path
    audit: str = "auto"
    weights: Path | None = None
    kept: bool = False


# ---- planting


def written_as(place: str, patient: str, grey_HW: np.ndarray) -> tuple[str, bytes]:
    """A suffix and the bytes of a film whose metadata name the planted name, if the place is one of metadata."""
    if place in ("DICOM tags", "everywhere"):
        tags = {
            "PatientName": NAME, "PatientID": planted_patient(patient), "AccessionNumber": TOKEN,
            "PatientComments": NAME, "ReferringPhysicianName": NAME, "InstitutionName": TOKEN, "ImageComments": NAME,
            "StudyDescription": NAME, "ViewPosition": TOKEN, "StationName": TOKEN, "PatientSex": SEX,
            "PatientAge": AGE_TAG,
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
    """Write the films (label, patient, grey) with the planted name at the place; results are to lie beside them."""
    everywhere = place == "everywhere"
    top = folder / (NAME if place == "paths" or everywhere else "plain")
    root, rows = top / "source", []
    listed, kept = place in ("CSV columns", "kept demographics", "everywhere"), place == "kept demographics"
    for number, (label, patient, grey_HW) in enumerate(films):
        suffix, data = written_as(place, patient, grey_HW)
        name = f"{NAME}_{number}" if place in ("file names", "refused files") or everywhere else f"film_{number}"
        inner = NAME if place == "folders" or everywhere else "inner"
        path = root / label / inner / (name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        patient = planted_patient(patient) if listed else patient
        sex, age = (SEX, AGE) if number % 2 or not kept else ("M", "90")  # else all would be one subgroup
        rows.append([path.relative_to(root).as_posix(), label, patient, f"{TOKEN} accession", NAME, sex, age])
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
    if listed:
        table = root / "table.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([["path", "label", "patient", "accession", "name", "sex", "age"], *rows])
        source, labels = ("--manifest", str(table)), ("--manifest", str(table))
    tables = folder / NAME / "audit"
    audit = str(tables / "audit.csv") if place == "an audit's table" else "off" if place == "refused files" else "auto"
    weights = folder / NAME / "weights.safetensors" if place == "weights" else None
    return Planted(source=source, labels=labels, root=root, out=top / "out", audit=audit, weights=weights, kept=kept)


def sound_of(place: str, planted: Planted) -> str:
    """What is wanting of the planted name where it should be planted; "" for nothing."""
    paths = [path for path in planted.root.rglob("*") if path.is_file()]
    films = [path for path in paths if path.parent.name == "inner" or path.name.startswith(NAME)]
    if place in IN_BYTES and (bare := [path.name for path in films if not shows(path.read_bytes())]):
        return f"no planted name in {bare[0]}"
    named = [str(path) for path in [*paths, planted.weights, planted.audit]]
    planted_there = any(shows(name.encode()) for name in named) or any(shows(path.read_bytes()) for path in paths)
    return "" if planted_there else "no planted name in the source"


def draw_films(folder: Path) -> list[tuple[str, str, np.ndarray]]:
    """Phantoms as (label, patient, grey)."""
    table = write_phantoms(PhantomConfig(out=folder, patients=PATIENTS, images_per_patient=1, size=96, seed=SEED))
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
    converting += ["--keep-demographics"] * planted.kept
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


# ---- inspecting the results


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


def shows_decades(path: Path) -> bool:
    """Whether an output has sex and age as --keep-demographics keeps them."""
    if path.suffix != ".beton":
        return bool(DECADES.search(path.read_bytes()))
    with Beton(path) as beton:
        return beton.facts.demographics or any(code_N.any() for code_N in sexes_and_ages(beton.rows_N))


def inspect(*folders: Path, kept: bool = False) -> tuple[set[str], list[str]]:
    """The kinds of outputs there are in folders of results, and what is wrong with them.  kept: sex and age may be."""
    kinds, wrong = set(), []
    found = [(path, path.relative_to(folder)) for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path, relative in sorted(found):
        kind = kind_of(relative)
        kinds.add(kind)
        if kind == "local tables":
            if path.stat().st_mode & 0o077:
                wrong.append(f"{relative} has mode {path.stat().st_mode & 0o777:o}, expected 600")
        elif shows(path.read_bytes()):
            wrong.append(f"{relative} ({kind}) shows the planted name")
        if shows_decades(path) and not (kept and kind in MAY_KEEP):
            wrong.append(f"{relative} ({kind}) shows sex or age")
        if kept and kind == "beton" and not shows_decades(path):
            wrong.append(f"{relative} keeps neither sex nor age")
        if shows(str(relative).encode()):
            wrong.append(f"{relative}: its name shows the planted name")
    return kinds, wrong


def attack(server: ForkServer, planted: Planted, key: Path, *, whole: bool, defect: str) -> tuple[set[str], list[str]]:
    """One chain; gives the kinds of outputs there are, and what is wrong with it."""
    trouble = []
    for argv in chain(planted, key, whole=whole):
        ending = server.run(argv, before=defect, timeout=120)
        if ending.code or ending.timed_out:
            trouble = [f"{argv[0]} ended with {ending.code}: {ending.errors.strip()[-200:]}"]
            break
    elsewhere = [Path(planted.audit).parent] if planted.audit.endswith(".csv") else []
    kinds, wrong = inspect(planted.out, *elsewhere, kept=planted.kept)
    if not kinds >= {"beton", "run folder", "page", "local tables"}:
        wrong.append(f"no more than {sorted(kinds)}")
    return kinds, wrong + trouble


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """A chain for each place.  defect: a fault for the children, to try the campaign itself."""
    tally = Tally()
    films = draw_films(folder / "phantoms")
    with ForkServer(folder / "server") as server:
        for attempt in range(count):
            place = PLACES[attempt % len(PLACES)]
            here = folder / f"{attempt:03}"
            here.mkdir()
            planted = plant(place, films, here)
            (here / NAME).mkdir(exist_ok=True)
            assert not (wanting := sound_of(place, planted)), f"{place}: {wanting}"
            kinds, wrong = attack(server, planted, folder / "key", whole=count > 1, defect=defect)
            if wrong:
                tally.broke(f"{place}: {'; '.join(wrong)} (seed {seed}, attempt {attempt})")
            else:
                tally.held(f"clean: {', '.join(kind for kind in SHARED if kind in kinds)}")
            shutil.rmtree(here)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="privacy",
    attack="a name in DICOM tags, EXIF, PNG texts, TIFF tags, file and folder names, paths, CSV columns, "
    "reasons; sex and age in tags and columns",
    holds="neither it nor a hash of it without the site's key in anything meant to be shared: beton, page, run folder, "
    "model; what names files has mode 0600; sex and age nowhere, or in decades if kept",
    run=run,
    short=1,
    full=len(PLACES),
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
PATIENT = planted_patient(f"phantom-{SEED}-0003").encode()
LABELS = ("covid", "normal", "covid", "normal")
FORMS = {
    "text": NAME.encode(),
    "small letters": NAME.lower().encode(),
    "UTF-16": NAME.encode("utf-16"),
    "base64": base64.b64encode(b"xy" + NAME.encode() * 2),
    "deflated": b"...." + zlib.compress(b"before " + NAME.encode()),
    "deflated in base64": base64.b64encode(zlib.compress(b"before " + NAME.encode())),
    "hexadecimal": NAME.encode().hex().encode(),
    "a bare hash": hashlib.sha256(NAME.encode()).digest(),
    "a bare hash of an identifier, cut": hashlib.sha256(PATIENT).digest()[:16],
    "with the product's prefix": hashlib.sha256(b"patient:" + PATIENT).digest()[:16],
    "with a key of nothing, as text": hmac.new(b"", b"patient:" + PATIENT, "sha256").hexdigest()[:16].encode(),
    "a bare hash as text": json.dumps({"patient": hashlib.md5(NAME.encode()).hexdigest()}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_planted_name_is_found_in_every_form(form: str) -> None:
    assert shows(b"\0\1 something " + FORMS[form] + b" more")


def test_what_is_shared_and_what_all_may_read_is_noticed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": f"/scans/{NAME}/betons"}))
    (run / "local.json").write_text("{}")
    (run / "local.json").chmod(0o644)
    (run / "summary.json").write_text("{}")
    kinds, wrong = inspect(tmp_path)
    assert kinds == {"run folder", "local tables"}
    assert wrong == ["run/config.json (run folder) shows the planted name", "run/local.json has mode 644, expected 600"]


@pytest.mark.parametrize("kept", [False, True])
def test_sex_and_age_are_noticed_in_decades_unless_kept_and_always_as_they_were_planted(
    tmp_path: Path, kept: bool
) -> None:
    for name, text in {"run/a.json": '"50-59"', "betons/convert.csv": "x,female", "run/b.json": f'"{AGE}"'}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    facts, rows_N = some_facts(demographics=True), np.zeros(1, ROW)
    write_beton(
        tmp_path / "betons" / "a.beton", np.zeros((1, 46, 46), np.uint8), np.zeros(1, int), rows_N, facts, 1 << 21
    )
    _, wrong = inspect(tmp_path, kept=kept)
    allowed = ["betons/a.beton (beton) shows sex or age", "run/a.json (run folder) shows sex or age"]
    others = ["betons/convert.csv (local tables) shows sex or age", "run/b.json (run folder) shows the planted name"]
    assert sorted(wrong) == sorted(others + allowed * (not kept))


def test_a_hash_with_a_secret_is_no_planted_name() -> None:
    keyed = hmac.new(bytes(range(32)), b"patient:" + PATIENT, "sha256").digest()
    assert not shows(keyed + keyed.hex().encode() + bytes(1000))


def test_an_audits_table_beside_the_results_is_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [("covid", "P1", np.eye(9, dtype=np.uint8)), ("normal", "P2", np.eye(9, dtype=np.uint8))]
    planted = plant("an audit's table", films, tmp_path)
    table = Path(planted.audit)
    table.parent.mkdir(parents=True)
    table.write_text("path\n")
    table.chmod(0o640)
    monkeypatch.setattr(HERE, "chain", lambda planted, key, whole: ())
    _, wrong = attack(None, planted, tmp_path / "key", whole=False, defect="")  # type: ignore[arg-type]
    assert "audit.csv has mode 640, expected 600" in wrong


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_the_planted_name_before_it_is_searched_for(place: str, tmp_path: Path) -> None:
    films = [(label, f"P{number}", np.eye(9 + number, dtype=np.uint8)) for number, label in enumerate(LABELS)]
    planted = plant(place, films, tmp_path)
    assert not sound_of(place, planted)
    if place in IN_BYTES:
        film = next(path for path in planted.root.rglob("*") if path.suffix in (".dcm", ".jpg", ".png", ".tif"))
        film.write_bytes(b"no planted name")
        assert sound_of(place, planted) == f"no planted name in {film.name}"


SETTINGS_SHARED = "import engine.train.run_folder as settings; settings.shared_settings = settings.flatten"
HASH_WITHOUT_KEY = """
import hashlib
import numpy as np
import loaders.convert.convert as converting
def bare(key, patient):
    return np.frombuffer(hashlib.sha256(b"patient:" + patient.encode()).digest()[:16], np.uint8)
converting.patient_hash = bare
"""


def test_a_chain_that_shares_a_name_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(planted: Planted, key: Path, *, whole: bool) -> list[list[str]]:
        return [argv for argv in whole_chain(planted, key, whole=False) if argv[0] in ("convert", "train")]

    whole_chain = chain
    monkeypatch.setattr(HERE, "chain", short)
    tally = run(1, 1, tmp_path, lambda: None, defect=f"{SETTINGS_SHARED}\n{HASH_WITHOUT_KEY}")
    assert tally.attempts == len(tally.failures) == 1
    for noticed in ("config.json (run folder) shows", "train.beton (beton) shows"):
        assert noticed in tally.failures[0]


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
