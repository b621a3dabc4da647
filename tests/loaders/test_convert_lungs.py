"""Conversion of the lungs alone: by credible masks of nets that never saw the film, or by those given for it."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

import cli
from loaders.audit.removals import Removal
from loaders.beton.reader import Beton, beton_parts
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig, LungMode
from loaders.convert import lungs
from loaders.convert.conversion import Conversion, LungsKept, Row, conversion_parts
from loaders.convert.convert import convert
from loaders.convert.lungs import LungMasks, check_likeness, lungs_kept
from loaders.errors import ConfigError, InputError
from loaders.images.files import REFUSALS
from loaders.images.frame import read_mask, stored_frame
from loaders.images.lungs import Segmenter, shipped_segmenter
from loaders.images.radiograph import decode_radiograph
from loaders.images.regions import LUNG_MODES
from loaders.output import Sheet
from loaders.settings import build
from loaders.sources.catalog import Catalog
from loaders.sources.entry import Entry
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id

SIDE, CROP, FILMS = 46, 32, 14  # fewer than would be decoded by two processes


@pytest.fixture
def films(phantoms: Path, tmp_path: Path) -> Path:
    """A table of phantoms of two classes, as phantoms.csv is, with its files beside it."""
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))
    kept = [
        row for label in ("covid", "normal") for row in [one for one in rows if one["label"] == label][: FILMS // 2]
    ]
    for row in kept:
        for name in ("path", "mask"):
            (tmp_path / row[name]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(phantoms.parent / row[name], tmp_path / row[name])
    return write_table(tmp_path / "films.csv", kept)


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def config(films: Path, **changes: object) -> ConvertConfig:
    base = {"manifest": films, "size": CROP, "workers": 1, "site_key": films.parent / "site.key", "lungs": "masked"}
    return build(ConvertConfig, base | {"out": films.parent / "out"} | changes)


def kinds(done: Conversion) -> dict[str, str]:
    """Path → kind of the reason, of the files that were not written."""
    return {row.entry.path: row.kind for row in done.rows if row.verdict != "written"}


@pytest.mark.parametrize(
    ("mode", "fit", "given"),
    [
        ("masked", "stretch", False),
        ("boxed", "contain", True),
        ("boxed-equal", "cover", False),
        ("masked", "cover", True),
    ],
)
def test_a_stored_frame_is_the_region_of_the_films_own_mask(films: Path, mode: LungMode, fit: Any, given: bool) -> None:
    done = convert(config(films, lungs=mode, fit=fit, masks=str(films) if given else "auto"))
    mask_of = {row["path"]: row["mask"] for row in rows_of(films)}
    rows = [row for row in done.rows if row.split == "train"]
    assert done.counts["written"] == FILMS and len(rows) > 8
    with Beton(done.out / "train.beton") as beton:
        assert beton.facts.lungs == mode
        assert beton.facts.segmenter == ("given" if given else shipped_segmenter().record.identity)
        shown = "as given masks have them" if given else f"as segmenter {beton.facts.segmenter} finds them"
        (facts,) = beton_parts(beton.path, beton)
        assert ("shows", f"the lungs alone ({mode}), {shown}") in facts.rows
        for row in rows:
            grey_HW = decode_radiograph(films.parent / row.entry.path, max_pixels=10**6).grey_HW
            frame_SS = stored_frame(grey_HW, SIDE, fit)[0]
            own_SS = read_mask(films.parent / mask_of[row.entry.path], SIDE, fit)
            net = row.decoded.pixel_hash[0] % 2  # drawn by the pixels
            mask_SS = own_SS if given else shipped_segmenter().find(frame_SS, (net, net)).mask_SS
            np.testing.assert_array_equal(beton.frame(row.sample), LUNG_MODES[mode](frame_SS, mask_SS, CROP))


@pytest.mark.parametrize("masks", ["auto", "films.csv"])
def test_one_worker_or_two_write_the_same_bytes_and_a_dry_run_plans_them(films: Path, masks: str) -> None:
    blank = films.parent / rows_of(films)[0]["path"]
    cv2.imwrite(str(blank), np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    given = masks if masks == "auto" else str(films)
    planned = convert(config(films, masks=given, dry_run=True, out=films.parent / "dry"))
    assert not (films.parent / "dry").exists() and not (films.parent / "site.key").exists()
    made = [convert(config(films, masks=given, workers=n, out=films.parent / str(n), lungs="boxed")) for n in (1, 2)]
    assert kinds(planned) == kinds(made[0]) == kinds(made[1])
    for path in made[0].out.glob("[!.]*"):
        assert path.read_bytes() == (made[1].out / path.name).read_bytes(), path.name


def test_a_conversion_is_known_by_its_mode_and_by_its_masks(films: Path) -> None:
    def identity(name: str, **changes: object) -> str:
        with Beton(convert(config(films, out=films.parent / name, **changes)).out / "train.beton") as beton:
            return beton.facts.conversion_id

    found = [identity(f"{place}", lungs=mode) for place, mode in enumerate(("off", "masked", "boxed"))]
    found.append(identity("given", masks=str(films)))
    path = films.parent / rows_of(films)[0]["mask"]
    cv2.imwrite(str(path), cv2.dilate(cv2.imread(str(path), 0), np.ones((3, 3), np.uint8)))
    found.append(identity("other", masks=str(films)))
    assert len(set(found)) == 5 and identity("again") == found[1]


def test_a_film_without_credible_lungs_is_rejected_by_kind_and_counted_by_class(films: Path) -> None:
    path = rows_of(films)[0]["path"]
    cv2.imwrite(str(films.parent / path), np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    done = convert(config(films))
    row = next(row for row in rows_of(done.out / "convert.csv") if row["verdict"] != "written")
    assert row["path"] == path and row["verdict"] == "rejected" and row["split"] == row["sample"] == ""
    meaning, remedy = REFUSALS[row["kind"]]
    assert row["reason"].startswith(f"{meaning} (share of the frame 0.") and row["reason"].endswith(remedy)
    assert done.lungs is not None and [(one.label, one.removed, one.files) for one in done.lungs.removals] == [
        ("covid", 1, FILMS // 2),
        ("normal", 0, FILMS // 2),
    ]
    parts = conversion_parts(done)
    sheet = next(part for part in parts if isinstance(part, Sheet) and part.headers[0] == "class or finding")
    assert sheet.rows[0] == ("covid", "7", "1", "14.3 %", "2.6 to 51.3 %")
    assert sheet.rows[1] == ("normal", "7", "0", "0 %", "0 to 35.4 %")


# ---- nets that never saw the film


def seen(segmenter: Segmenter, *seen_K: dict[str, list[str]], key: str = "") -> Segmenter:
    """A segmenter whose nets saw these pixels and patients."""
    none = {"pixels": [], "patients": []}
    nets = [msgspec.structs.replace(net, **none | own) for net, own in zip(segmenter.record.nets, seen_K, strict=True)]
    return replace(segmenter, record=msgspec.structs.replace(segmenter.record, nets=nets, site_key_id=key))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The nets that were used, in the order of the films."""
    found: list[tuple[int, ...]] = []
    whole = Segmenter.find

    def find(self: Segmenter, frame_SS: np.ndarray, nets: Any) -> Any:
        found.append(tuple(nets))
        return whole(self, frame_SS, nets)

    monkeypatch.setattr(Segmenter, "find", find)
    return found


def with_patients(films: Path, patients: list[str]) -> Path:
    return write_table(
        films, [row | {"patient": patient} for row, patient in zip(rows_of(films), patients, strict=True)]
    )


def test_no_net_segments_a_film_that_it_saw_or_one_of_its_patient_or_of_a_copy_of_that(
    films: Path, used: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_patients(films, ["A", "A", "B", "B", "C", "D", "D", *map(str, range(FILMS - 7))])
    paths = [row["path"] for row in rows_of(films)]
    hashes = {row.entry.path: row.decoded.pixel_hash.hex() for row in convert(config(films, lungs="off")).rows}
    shutil.copy(films.parent / paths[3], films.parent / paths[4])  # of B and of C: one group, both nets saw some of it
    key = load_site_key(films.parent / "site.key")
    of_b, of_d = ([patient_hash(key, patient).tobytes().hex()] for patient in "BD")
    made = seen(
        shipped_segmenter(),
        {"pixels": [hashes[paths[0]]], "patients": of_b},
        {"pixels": [hashes[paths[3]]], "patients": of_d},
        key=site_key_id(key),
    )
    monkeypatch.setattr(lungs, "load_segmenter", lambda name: made)
    done = convert(config(films, dry_run=True))
    drawn = [bytes.fromhex(hashes[path])[0] % 2 for path in paths[7:]]  # of those that no net saw
    assert used == [(1, 1), (1, 1), (0, 0), (0, 0), *((net, net) for net in drawn)] and len(set(drawn)) == 2
    assert kinds(done) == {paths[2]: "lungs-seen", paths[3]: "lungs-seen", paths[4]: "same-pixels"}


def test_patients_of_another_site_key_tell_nothing(
    films: Path, used: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_site_key(films.parent / "site.key")
    known = {"patients": [patient_hash(key, str(place)).tobytes().hex() for place in range(FILMS)]}
    monkeypatch.setattr(lungs, "load_segmenter", lambda name: seen(shipped_segmenter(), known, {}, key="0" * 16))
    convert(config(with_patients(films, [str(place) for place in range(FILMS)]), dry_run=True))
    assert {net for looks in used for net in looks} == {0, 1} and len(used) == FILMS, "no film is known to be seen"


# ---- masks that are given


def inverted(mask_HW: np.ndarray) -> np.ndarray:
    return 255 - mask_HW


BAD: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "black": (np.zeros_like, "mask-unusable", "black all over"),
    "white": (lambda mask_HW: np.full_like(mask_HW, 1), "mask-unusable", "white all over"),
    "wide": (lambda mask_HW: mask_HW[:40], "mask-unusable", "64x40 pixels, expected the proportions"),
    "outside": (lambda mask_HW: np.pad(mask_HW[:2, :2] | 255, (0, 500)), "mask-unusable", "no lungs within"),
    "inverted": (inverted, "mask-of-another-film", "a mask with a Dice of 0."),
    "turned": (lambda mask_HW: np.rot90(mask_HW).copy(), "mask-of-another-film", "check which film the mask is of"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_mask_costs_its_film_alone(films: Path, name: str) -> None:
    change, kind, reason = BAD[name]
    first = rows_of(films)[0]
    mask_HW = cv2.imread(str(films.parent / first["mask"]), 0)
    cv2.imwrite(str(films.parent / first["mask"]), change(mask_HW))
    done = convert(config(films, masks=str(films), dry_run=True))
    assert kinds(done) == {first["path"]: kind}
    assert reason in next(row.reason for row in done.rows if row.kind)


@pytest.mark.parametrize("lost", ["row", "cell", "file", "no image"])
def test_a_film_whose_mask_is_not_there_is_rejected(films: Path, lost: str) -> None:
    rows = rows_of(films)
    if lost == "file":
        (films.parent / rows[0]["mask"]).unlink()
    elif lost == "no image":
        (films.parent / rows[0]["mask"]).write_text("no image")
    masks = [row | ({"mask": ""} if lost == "cell" and not place else {}) for place, row in enumerate(rows)]
    table = write_table(films.parent / "masks.csv", masks[lost == "row" :])
    done = convert(config(films, masks=str(table), dry_run=True))
    assert kinds(done) == {rows[0]["path"]: "no-mask" if lost in ("row", "cell") else "mask-unusable"}


def test_a_mask_is_tied_by_its_whole_path_before_its_end_and_never_to_two_films(films: Path) -> None:
    rows = rows_of(films)
    (films.parent / "copies").mkdir()
    name = Path(rows[0]["path"]).name
    cv2.imwrite(str(films.parent / name), cv2.imread(str(films.parent / rows[0]["path"]), 0) // 2)
    write_table(films, [*rows, rows[0] | {"path": name}])
    named = write_table(films.parent / "masks.csv", [*rows, rows[0] | {"path": name}])
    assert kinds(convert(config(films, masks=str(named), dry_run=True))) == {}
    ambiguous = write_table(films.parent / "masks.csv", [*rows[1:], rows[0] | {"path": f"x/{rows[0]['path']}"}])
    done = convert(config(films, masks=str(ambiguous), dry_run=True))
    assert kinds(done) == {rows[0]["path"]: "no-mask", name: "no-mask"}
    assert caution("masks-of-no-film", masks=1) in done.cautions
    own_but_none = [rows[1] | {"mask": ""}, rows[0] | {"path": Path(rows[1]["path"]).name}]
    named = write_table(films.parent / "masks.csv", [*rows[:1], *rows[2:], *own_but_none])
    assert rows[1]["path"] in kinds(convert(config(films, masks=str(named), dry_run=True)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"path": "elsewhere/x.png"}, InputError, "no mask for any of the 14 files of .*films.csv"),
        ({"mask": "../../mask.png"}, InputError, "leads outside of"),
        ({"mask": "/mask.png"}, InputError, "leads outside of"),
    ],
)
def test_a_table_of_other_masks_is_refused_before_anything_is_decoded(
    films: Path, change: dict[str, str], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loaders.convert.convert.decode_all", None)
    rows = [rows_of(films)[0] | change]
    (films.parent.parent / "mask.png").touch()
    table = write_table(films.parent / "masks.csv", rows)
    with pytest.raises(error, match=message):
        convert(config(films, masks=str(table)))


@pytest.mark.parametrize("num_films", [6, 15])
def test_masks_whose_rows_are_shifted_are_refused_at_once(phantoms: Path, tmp_path: Path, num_films: int) -> None:
    rows = rows_of(phantoms)[:num_films]
    table = [row | {"path": str(phantoms.parent / row["path"])} for row in rows]
    shifted = [row | {"mask": other["mask"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    masks = write_table(phantoms.parent / "shifted.csv", shifted)
    films = write_table(tmp_path / "films.csv", table)
    with pytest.raises(InputError, match=r"masks are more like the lungs of their own film .* may be shifted"):
        convert(config(films, masks=str(masks), root=(phantoms.parent,), dry_run=True))


def test_a_mask_follows_the_repair_of_its_film(films: Path) -> None:
    row = rows_of(films)[0]
    for name in ("path", "mask"):
        path = str(films.parent / row[name])
        cv2.imwrite(path, np.pad(np.rot90(cv2.imread(path, 0)), ((0, 0), (8, 8))))
    table = films.parent / "audit.csv"
    lines = [f"{one['path']},keep,,{place}" for place, one in enumerate(rows_of(films)[1:])]
    table.write_text("\n".join(["path,verdict,fix,group", f'{row["path"]},fix,"crop 0:64,8:72; rotate 90",x', *lines]))
    done = convert(config(films, masks=str(films), audit=str(table), dry_run=True))
    assert kinds(done) == {}


def test_masks_of_another_convention_are_taken_and_only_those_unlike_the_others_are_not() -> None:
    def pair(shift: int) -> tuple[Row, np.ndarray, np.ndarray]:
        masks_2TT = np.zeros((2, 32, 32), bool)
        masks_2TT[0, 8:24, 8:24] = masks_2TT[1, 8 + shift : 24, 8:24] = True
        return Row(entry=Entry(path=f"{shift}", label="a")), masks_2TT[0], masks_2TT[1]

    compared = [pair(shift) for shift in (6, 6, 6, 5, 10, 15)]
    check_likeness(build(ConvertConfig, {"source": Path("s"), "out": Path("o")}), compared)
    assert [row.kind for row, *_ in compared] == ["", "", "", "", *["mask-of-another-film"] * 2]


# ---- what is said of it


def films_lost(lost: dict[str, tuple[int, int]], task: Any = "classes") -> LungsKept:
    """Of 2 films of each patient, in some classes or with and without one finding, those of some patients rejected."""
    rows, classes = [], tuple(lost) if task == "classes" else ("Edema", "Mass")
    for place, (name, (patients, without)) in enumerate(lost.items()):
        for number in range(2 * patients):
            entry = Entry(path=f"{name} {number}", label=name, findings=bytes((place, 2)))
            verdict = "rejected" if number < 2 * without else "written"
            rows.append(Row(entry=entry, group=1000 * place + number // 2, verdict=verdict))
    masks = LungMasks(mode="boxed", segmenter=shipped_segmenter())
    return lungs_kept(masks, Catalog(root=Path(), entries=(), classes=classes, task=task), rows)


def test_a_rate_that_differs_between_classes_beyond_chance_is_said_by_patients() -> None:
    said = films_lost({"covid": (60, 12), "normal": (60, 0), "tb": (40, 1)}).cautions
    assert said == (caution("lungs-lost-by-class", left_out={"covid": 20.0, "normal": 0.0}),)
    assert films_lost({"covid": (12, 4), "normal": (12, 0)}).cautions == ()  # by films it were
    of_findings = films_lost({"absent": (60, 0), "present": (60, 12)}, "findings")
    assert of_findings.cautions == (caution("lungs-lost-by-finding", findings=["Edema"]),)
    assert of_findings.removals[0] == Removal(label="Edema", files=120, removed=24, low=pytest.approx(0.138, abs=1e-3),
                                              high=pytest.approx(0.280, abs=1e-3))  # fmt: skip
    assert of_findings.removals[1].files == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lungs": "off", "masks": "m.csv"}, "found --masks m.csv with --lungs off"),
        ({"lungs": "off", "segmenter": "S"}, "found --segmenter S with --lungs off"),
        ({"masks": "m.csv"}, "--masks m.csv: not there"),
        ({"segmenter": "S"}, "--segmenter S: no segmenter.json there"),
        ({"lungs": "blurred"}, "lungs: found 'blurred', expected off or masked"),
    ],
)
def test_settings_that_contradict_are_named(films: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(config(films, **changes))
    assert not (films.parent / "out").exists()


def test_a_damaged_segmenter_exits_with_5(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = films.parent / "S"
    shutil.copytree(Path(lungs.__file__).parents[1] / "images" / "lungs", folder)
    content = bytearray((folder / "net-1.onnx").read_bytes())
    content[1000] ^= 1
    (folder / "net-1.onnx").write_bytes(content)
    argv = ["convert", "--manifest", str(films), "--out", str(films.parent / "out"), "--lungs", "boxed"]
    assert cli.main([*argv, "--segmenter", str(folder)]) == 5


def test_findings_are_converted_as_classes_are(films: Path) -> None:
    rows = [row | {"Edema": str(place % 2), "Mass": ""} for place, row in enumerate(rows_of(films))]
    table = write_table(films.parent / "findings.csv", [{k: row[k] for k in ("path", "Edema", "Mass")} for row in rows])
    cv2.imwrite(str(films.parent / rows[1]["path"]), np.tile(np.arange(64, dtype=np.uint8), (64, 1)))
    catalog = CatalogConfig(manifest=table, findings=("Edema", "Mass"))
    done = convert(replace(config(films), catalog=catalog))
    assert done.lungs is not None and [(one.removed, one.files) for one in done.lungs.removals] == [(1, 7), (0, 0)]
    with Beton(done.out / "train.beton") as beton:
        assert beton.facts.lungs == "masked" and beton.facts.task == "findings"
