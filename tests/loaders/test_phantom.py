"""Phantoms: they follow their arguments, and only the finding separates the classes."""

import csv
import errno
import hashlib
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loaders.beton.reader import Beton
from loaders.config import PHANTOM_FINDINGS, CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import ConfigError, StorageError
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import Phantom, draw_phantom, plan_phantoms, write_phantoms

DEFAULTS = {"seed": 7, "patient": 3, "size": 96}


def draw(**changes: object) -> Phantom:
    return draw_phantom(PlannedPhantom(**(DEFAULTS | changes)))


def grey(**changes: object) -> np.ndarray:
    return draw(**changes).image_HW.astype(float)


def config(out: Path = Path("unused"), **changes: object) -> PhantomConfig:
    return PhantomConfig(**({"out": out, "patients": 6, "size": 64} | changes))


def read_rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("label", ["covid", "normal", "pneumonia"])
def test_same_arguments_draw_the_same_bytes(label: str) -> None:
    one, two = (draw(label=label, marked=True, arms_up=True) for _ in range(2))
    assert np.array_equal(one.image_HW, two.image_HW)
    assert np.array_equal(one.lung_mask_HW, two.lung_mask_HW)


def test_films_of_classes_are_planned_as_by_earlier_versions() -> None:
    plan = plan_phantoms(config(patients=40, classes=("covid", "normal", "pneumonia"), arms=0.5, marks=0.5, seed=3))
    facts = [(film.name, film.image, film.label, film.arms_up, film.marked) for film in plan]
    assert hashlib.md5(repr(facts).encode()).hexdigest() == "17029dac2d26d5d6fe93759cf6a79ab4"


def test_drawing_ignores_and_leaves_numpys_global_state() -> None:
    np.random.seed(1)  # noqa: NPY002
    before = draw(label="covid").image_HW
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(draw(label="covid").image_HW, before)
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("change", [{"seed": 8}, {"patient": 4}, {"image": 1}])
def test_another_seed_patient_or_image_is_another_film(change: dict[str, int]) -> None:
    assert np.mean(draw(**change).image_HW != draw().image_HW) > 0.9


def test_images_of_one_patient_are_more_alike_than_patients() -> None:
    masks = {(p, image): draw(patient=p, image=image).lung_mask_HW for p in range(8) for image in (0, 1)}
    within = np.mean([np.mean(masks[p, 0] != masks[p, 1]) for p in range(8)])
    between = np.mean([np.mean(masks[p, 0] != masks[(p + 1) % 8, 1]) for p in range(8)])
    assert 0 < within < 0.8 * between


@pytest.mark.parametrize("label", ["covid", "pneumonia"])
@pytest.mark.parametrize(("arms_up", "marked"), [(False, True), (True, False)])
def test_strength_zero_draws_the_normal_film(label: str, arms_up: bool, marked: bool) -> None:
    pose = {"arms_up": arms_up, "marked": marked}
    assert np.array_equal(draw(label=label, strength=0, **pose).image_HW, draw(**pose).image_HW)


@pytest.mark.parametrize("label", ["covid", "pneumonia"])
@pytest.mark.parametrize("size", [64, 97, 192, 256])
def test_findings_lie_inside_the_lung_mask(label: str, size: int) -> None:
    for patient in range(4):
        sick, well = (draw(label=name, patient=patient, size=size) for name in (label, "normal"))
        changed_HW = sick.image_HW != well.image_HW
        assert np.array_equal(sick.lung_mask_HW, well.lung_mask_HW)
        assert changed_HW.sum() > 0.02 * (well.lung_mask_HW > 0).sum()
        assert not changed_HW[well.lung_mask_HW == 0].any()


@pytest.mark.parametrize("label", ["covid", "pneumonia"])
def test_findings_brighten_the_lung_more_the_stronger_they_are(label: str) -> None:
    gains = [np.mean(grey(label=label, strength=strength) - grey()) for strength in (0.25, 0.5, 1.0)]
    assert 0 < gains[0] < 0.7 * gains[1] < 0.7 * gains[2]


def test_covid_is_in_both_lungs_outwards_and_pneumonia_in_one() -> None:
    for patient in range(12):
        lungs_HW = draw(patient=patient).lung_mask_HW > 0
        _, x_W = np.nonzero(lungs_HW)
        middle = round(x_W.mean())
        covid_HW, pneumonia_HW = (
            grey(label=label, patient=patient) - grey(patient=patient) for label in ("covid", "pneumonia")
        )
        weak, strong = sorted((covid_HW[:, :middle].sum(), covid_HW[:, middle:].sum()))
        assert weak > 0.1 * strong
        weak, strong = sorted((pneumonia_HW[:, :middle].sum(), pneumonia_HW[:, middle:].sum()))
        assert weak < 0.1 * strong
        off_centre_HW = np.abs(np.arange(96) - middle) * np.ones((96, 1))
        assert (off_centre_HW * covid_HW).sum() / covid_HW.sum() > off_centre_HW[lungs_HW].mean()


def steepest_edge(label: str, patient: int) -> float:
    """Largest step between rows inside the lungs, as a share of the finding's largest gain."""
    sick, well = (draw(label=name, patient=patient, size=192) for name in (label, "normal"))
    gain_HW = sick.image_HW.astype(float) - well.image_HW
    inside_HW = cv2.erode(well.lung_mask_HW, np.ones((9, 9), np.uint8)) > 0
    return float(np.abs(np.diff(gain_HW, axis=0))[inside_HW[1:]].max() / gain_HW.max())


def test_pneumonia_ends_at_a_fissure_and_covid_fades() -> None:
    pneumonia, covid = (
        np.median([steepest_edge(label, patient) for patient in range(8)]) for label in ("pneumonia", "covid")
    )
    assert pneumonia > 0.3 > 0.2 > covid


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    patient=st.integers(0, 10**6),
    image=st.integers(0, 99),
    label=st.sampled_from(["covid", "normal", "pneumonia"]),
    size=st.sampled_from([32, 33, 64, 97]),
    strength=st.floats(0, 10),
    arms_up=st.booleans(),
    marked=st.booleans(),
)
@example(
    seed=535157590201, patient=642, image=5, label="normal", size=64, strength=1.0, arms_up=False, marked=False
)  # shallow breath: trunk once too short
def test_any_phantom_has_two_dark_lungs_in_a_bright_chest(size: int, **arguments: object) -> None:
    phantom = draw(size=size, **arguments)
    image_HW, mask_HW = phantom.image_HW, phantom.lung_mask_HW
    assert image_HW.shape == mask_HW.shape == (size, size)
    assert image_HW.dtype == np.uint16 and mask_HW.dtype == np.uint8
    assert set(np.unique(mask_HW)) == {0, 255}
    assert 0.08 < np.mean(mask_HW > 0) < 0.40
    count, _, stats, centroids = cv2.connectedComponentsWithStats(mask_HW)
    lungs = [index for index in range(1, count) if stats[index, cv2.CC_STAT_AREA] > 0.02 * size**2]
    left, right = sorted(centroids[index][0] for index in lungs)
    assert left < size / 2 < right
    assert image_HW.min() > 0 and np.mean(image_HW == 65535) < 0.01
    if arguments["label"] == "normal":
        belly_HW = image_HW[int(0.9 * size) :, int(0.4 * size) : int(0.6 * size)]
        assert np.median(image_HW[mask_HW > 0]) < 0.8 * np.median(belly_HW)


def test_full_range_is_used_with_headroom() -> None:
    image_HW = draw(size=256).image_HW
    low, high = np.percentile(image_HW, (1, 99))
    assert low < 0.1 * 65535 and 0.6 * 65535 < high < 0.97 * 65535
    assert len(np.unique(image_HW)) > 5000  # more than 8 or 12 bits hold


def test_the_heart_is_on_the_viewers_right() -> None:
    masks_NHW = np.array([draw(patient=patient).aerated_HW for patient in range(8)])
    assert np.mean(masks_NHW[..., 48:]) < 0.95 * np.mean(masks_NHW[..., :48])


def test_arms_show_in_the_frame_and_inside_the_central_crop_but_leave_the_lung_mask() -> None:
    for patient in range(6):
        up, down = (draw(patient=patient, arms_up=arms_up, size=128) for arms_up in (True, False))
        gain_HW = up.image_HW.astype(float) - down.image_HW
        assert np.array_equal(up.lung_mask_HW, down.lung_mask_HW)
        assert gain_HW[:10, 4:30].mean() > 3000 and gain_HW[:10, -30:-4].mean() > 3000  # beside the head
        assert gain_HW[-50:-20, :6].mean() < -3000 and gain_HW[-50:-20, -6:].mean() < -3000  # along the sides
        assert np.mean(np.abs(gain_HW[19:109, 19:109]) > 3000) > 0.01


def test_mark_is_bright_and_only_in_the_upper_left_corner_of_the_central_crop() -> None:
    for size in (64, 97, 320):
        gain_HW = grey(marked=True, size=size) - grey(size=size)
        y, x = np.nonzero(gain_HW)
        low, high = 0.15 * size, 0.27 * size
        assert min(y.min(), x.min()) >= low and max(y.max(), x.max()) <= high
        assert grey(marked=True, size=size)[gain_HW != 0].max() > 0.7 * 65535


@pytest.mark.parametrize(
    "change",
    [{"classes": ("flu",)}, {"size": 31}, {"size": 4097}, {"strength": -0.1}, {"seed": -1}, {"patients": 0}],
)
def test_settings_out_of_range_are_refused_by_name(change: dict[str, object]) -> None:
    ((name, value),) = change.items()
    found = ",".join(value) if isinstance(value, tuple) else value
    with pytest.raises(ConfigError, match=f"--{name}: found {found}, expected"):
        config(**change)


def shares(plan: list[PlannedPhantom], fact: str) -> tuple[float, float]:
    """Share of images with the fact, in the first class and in the others."""
    first = [getattr(film, fact) for film in plan if film.label == "covid"]
    rest = [getattr(film, fact) for film in plan if film.label != "covid"]
    return float(np.mean(first)), float(np.mean(rest))


@pytest.mark.parametrize(("rho", "fact"), [("arms", "arms_up"), ("marks", "marked")])
def test_rho_ties_arms_and_marks_to_the_class(rho: str, fact: str) -> None:
    other = "marked" if fact == "arms_up" else "arms_up"
    for value, first, rest in ((1.0, 1.0, 0.0), (0.5, 0.75, 0.25), (0.0, 0.5, 0.5)):
        plan = plan_phantoms(config(patients=1500, classes=("covid", "normal", "pneumonia"), **{rho: value}))
        tolerance = 0 if value == 1 else 0.06
        assert shares(plan, fact) == pytest.approx((first, rest), abs=tolerance)
        assert shares(plan, other) == pytest.approx((0.5, 0.5), abs=0.06)


def test_arms_and_marks_are_tossed_apart() -> None:
    plan = plan_phantoms(config(patients=1500))
    assert np.mean([film.arms_up == film.marked for film in plan]) == pytest.approx(0.5, abs=0.06)


def test_labels_are_balanced_over_patients_and_each_patient_has_one() -> None:
    plan = plan_phantoms(config(patients=100, classes=("normal", "covid", "pneumonia"), images_per_patient=4))
    label_of = {film.patient: film.label for film in plan}
    assert all(label_of[film.patient] == film.label for film in plan)
    assert sorted(Counter(label_of.values()).values()) == [33, 33, 34]
    assert sorted(label_of) == list(range(1, 101))
    counts = Counter(film.patient for film in plan)
    assert set(counts.values()) == {1, 2, 3, 4}
    assert len({(film.name, film.image) for film in plan}) == len(plan)


def test_plan_depends_on_the_seed_alone_and_not_on_the_patients_number() -> None:
    assert plan_phantoms(config(patients=40)) == plan_phantoms(config(patients=40))
    assert plan_phantoms(config(patients=40)) != plan_phantoms(config(patients=40, seed=1))
    even = [film.label for film in plan_phantoms(config(patients=40)) if film.patient % 2 == 0]
    assert len(set(even)) == 2


@pytest.mark.parametrize(
    ("file_format", "extension", "bits"),
    [("png", "png", 8), ("png16", "png", 16), ("jpeg", "jpg", 8), ("tiff", "tif", 8), ("tiff16", "tif", 16)],
)
def test_written_files_decode_to_what_was_drawn(tmp_path: Path, file_format: str, extension: str, bits: int) -> None:
    settings = config(tmp_path / "new" / "phantoms", format=file_format, patients=3, strength=0.5, seed=5)
    rows = read_rows(write_phantoms(settings))
    plan = plan_phantoms(settings)
    assert len(rows) == len(plan)
    for row, film in zip(rows, plan, strict=True):
        phantom = draw_phantom(film)
        path, mask = settings.out / row["path"], settings.out / row["mask"]
        assert path.name == f"phantom-5-{film.patient:04d}_{film.image:03d}.{extension}"
        image_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        expected_HW = phantom.image_HW if bits == 16 else np.rint(phantom.image_HW / 257).astype(np.uint8)
        assert image_HW.dtype == expected_HW.dtype and image_HW.shape == (64, 64)
        difference_HW = np.abs(image_HW.astype(float) - expected_HW)
        assert difference_HW.mean() < 2 if file_format == "jpeg" else not difference_HW.any()
        assert np.array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), phantom.lung_mask_HW)


def test_sets_of_different_seeds_share_no_patient_under_one_site_key(tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        out = tmp_path / str(seed)
        catalog = CatalogConfig(manifest=write_phantoms(config(out / "p", seed=seed)))
        convert(ConvertConfig(catalog=catalog, out=out / "b", size=32, workers=1, site_key=tmp_path / "key"))
        with Beton(out / "b" / "train.beton") as first, Beton(out / "b" / "val.beton") as second:
            found.append({row.tobytes() for beton in (first, second) for row in beton.rows_N["patient_hash"]})
    assert len(found[0]) == len(found[1]) == 6
    assert not found[0] & found[1]


def test_manifest_names_every_file_and_its_truth(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    settings = config(tmp_path, patients=8, arms=0.5, marks=0.5)  # an empty folder is accepted
    manifest = write_phantoms(settings, lambda done, total: calls.append((done, total)))
    rows, plan = read_rows(manifest), plan_phantoms(settings)
    assert manifest == tmp_path / "phantoms.csv"
    assert list(rows[0]) == ["path", "label", "patient", "view", "source", "mask", "arms", "mark"]
    assert calls == [(done, len(plan)) for done in range(1, len(plan) + 1)]
    for row, film in zip(rows, plan, strict=True):
        assert row["label"] == film.label
        assert row["patient"] == f"phantom-{settings.seed}-{film.patient:04d}"
        assert row["path"] == f"images/{film.label}/{row['patient']}_{film.image:03d}.png"
        assert row["mask"] == f"masks/{film.label}/{row['patient']}_{film.image:03d}.png"
        assert (row["view"], row["source"]) == ("PA", "synthetic")
        assert (row["arms"] == "up", row["mark"] == "yes") == (film.arms_up, film.marked)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {row[column] for row in rows for column in ("path", "mask")} | {"phantoms.csv"}


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text("mine")
    with pytest.raises(StorageError, match=r"found a folder with files in it, expected .*; choose another"):
        write_phantoms(config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]
    with pytest.raises(StorageError, match="found a file, expected"):
        write_phantoms(config(keep))
    assert keep.read_text() == "mine"


def test_an_unwritable_place_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/phantoms: Not a directory, expected a folder; check the path"):
        write_phantoms(config(tmp_path / "file" / "phantoms"))


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(PhantomConfig(out=tmp_path / "p", patients=9, size=32), interrupt)
    assert list(tmp_path.iterdir()) == []
    assert write_phantoms(PhantomConfig(out=tmp_path / "p", patients=9, size=32)).is_file()


def test_a_full_disk_is_reported_with_the_bytes_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"P: No space left on device, expected [\d,]+ bytes of room"):
        write_phantoms(PhantomConfig(out=tmp_path / "P", patients=2, size=64))
    assert list(tmp_path.iterdir()) == []


# ---- findings


def with_findings(*names: str, strength: float = 1.0, **changes: object) -> Phantom:
    return draw(findings=tuple((name, strength) for name in names), **changes)


@pytest.mark.parametrize("name", PHANTOM_FINDINGS)
def test_a_finding_is_drawn_anew_the_same_changes_lungs_or_heart_alone_and_at_strength_zero_nothing(name: str) -> None:
    for patient in range(4):
        healthy, sick = draw(patient=patient), with_findings(name, patient=patient)
        again, none = with_findings(name, patient=patient), with_findings(name, patient=patient, strength=0.0)
        assert np.array_equal(sick.image_HW, again.image_HW) and not np.array_equal(sick.image_HW, healthy.image_HW)
        assert np.array_equal(none.image_HW, healthy.image_HW)
        changed_HW = sick.image_HW != healthy.image_HW
        if name == "cardiomegaly":
            assert (sick.aerated_HW > 0).sum() < 0.97 * (healthy.aerated_HW > 0).sum()  # the heart covers lung
            assert not ((sick.aerated_HW > 0) & (healthy.aerated_HW == 0)).any()
            assert np.array_equal(sick.lung_mask_HW, healthy.lung_mask_HW), "which has what lies behind the heart"
            assert not changed_HW[: 96 // 5].any()
        else:
            assert np.array_equal(sick.lung_mask_HW, healthy.lung_mask_HW)
            assert not changed_HW[healthy.lung_mask_HW == 0].any()


def gain_of(name: str, patient: int, size: int = 192) -> np.ndarray:
    """What a finding adds to each pixel's grey level."""
    sick, healthy = with_findings(name, patient=patient, size=size), draw(patient=patient, size=size)
    return sick.image_HW.astype(float) - healthy.image_HW


def test_an_effusion_fills_the_base_of_a_lung_and_rises_outwards() -> None:
    sides = set()
    for patient in range(20):
        gain_HW, lungs_HW = gain_of("effusion", patient), draw(patient=patient, size=192).lung_mask_HW > 0
        rows, _ = np.nonzero(gain_HW > 0.3 * gain_HW.max())
        lung_rows = np.nonzero(lungs_HW)[0]
        assert rows.mean() > np.quantile(lung_rows, 0.7)
        bottom_HW = lungs_HW & (np.arange(192)[:, None] > np.quantile(lung_rows, 0.97))
        sides.add(tuple(bool((gain_HW * bottom_HW)[:, half].any()) for half in (slice(0, 96), slice(96, 192))))
        filled_HW = gain_HW > 0.3 * gain_HW.max()
        top_W = np.where(filled_HW.any(0), filled_HW.argmax(0), 192)
        right = top_W[:96] if filled_HW[:, :96].sum() > filled_HW[:, 96:].sum() else top_W[96:][::-1]
        edge = np.flatnonzero(right < 192)
        assert right[edge[: len(edge) // 3]].min() < right[edge[len(edge) // 2 :]].min()  # higher at the ribs
    assert {(True, False), (False, True)} <= sides


def test_a_nodule_is_round_of_the_size_that_is_said_and_inside_a_lung() -> None:
    for patient in range(20):
        gain_HW = gain_of("nodule", patient)
        rows, columns = np.nonzero(gain_HW)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.04 * 192 - 1 <= max(height, width) <= 0.08 * 192 + 2 and abs(height - width) <= 2
        assert (gain_HW != 0).sum() == pytest.approx(np.pi / 4 * height * width, rel=0.2)
        assert gain_HW.max() > 0.08 * 65535  # plain to see


def test_an_enlarged_heart_is_wider_than_half_the_thorax_and_an_ordinary_one_is_not() -> None:
    ratio = {
        name: [heart_share(with_findings(*name, patient=patient, size=192)) for patient in range(12)]
        for name in ((), ("cardiomegaly",))
    }
    assert np.median(ratio[()]) < 0.5 < np.median(ratio[("cardiomegaly",)])
    assert np.mean(np.array(ratio[("cardiomegaly",)]) > np.max(ratio[()])) > 0.8


def heart_share(phantom: Phantom) -> float:
    """The widest gap between the lungs below the middle of their height, as a share of their width."""
    mask_HW = phantom.aerated_HW > 0
    rows, columns = np.nonzero(mask_HW)
    row = int(np.quantile(rows, 0.8))
    (inside,) = np.nonzero(mask_HW[row])
    return float(np.diff(inside).max() / (np.ptp(columns) + 1))


def test_findings_are_dealt_to_patients_apart_and_their_shares_are_those_asked_for() -> None:
    settings = config(patients=2000, findings=("all",), prevalence=0.3, images_per_patient=1)
    plan = plan_phantoms(settings)
    present_NK = np.array([[name in dict(film.findings) for name in PHANTOM_FINDINGS] for film in plan])
    assert (present_NK.sum(0) == 600).all() and {film.label for film in plan} == {"normal"}
    assert np.abs(np.corrcoef(present_NK.T) - np.eye(5)).max() < 0.09
    some = plan_phantoms(config(patients=2000, findings=("nodule", "effusion"), prevalence=0.3, images_per_patient=1))
    assert ["nodule" in dict(film.findings) for film in some] == present_NK[:, 4].tolist()  # whatever others there are
    films = plan_phantoms(config(patients=50, findings=("all",), images_per_patient=3))
    of_patient = {film.patient: film.findings for film in films}
    assert all(film.findings == of_patient[film.patient] for film in films)


def test_marks_follow_the_first_finding_alone() -> None:
    plan = plan_phantoms(config(patients=1500, findings=("effusion", "nodule"), marks=1.0))
    assert all(film.marked == ("effusion" in dict(film.findings)) for film in plan)
    assert np.mean([film.arms_up for film in plan]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([film.marked == ("nodule" in dict(film.findings)) for film in plan]) < 0.7


def test_the_table_of_findings_has_a_column_each_with_unknown_ones_blank(tmp_path: Path) -> None:
    settings = config(
        tmp_path / "P", patients=40, size=32, findings=("nodule", "cardiomegaly"), unknown=0.4, prevalence=0.5,
        finding_strength=("nodule=0.5",), marks=0.5,
    )  # fmt: skip
    rows, plan = read_rows(write_phantoms(settings)), plan_phantoms(settings)
    assert list(rows[0]) == ["path", "Nodule", "Cardiomegaly", "patient", "view", "source", "mask", "arms", "mark"]
    cells = [row[name] for row in rows for name in ("Nodule", "Cardiomegaly")]
    assert set(cells) == {"", "0", "1"} and cells.count("") / len(cells) == pytest.approx(0.4, abs=0.15)
    for row, film in zip(rows, plan, strict=True):
        assert row["path"] == f"images/{film.name}_{film.image:03d}.png" and (settings.out / row["mask"]).is_file()
        assert row["Nodule"] in ("", str(int("nodule" in dict(film.findings))))
        assert dict(film.findings).get("nodule", 0.5) == 0.5
        assert row["mark"] == ("marked" if film.marked else "plain")  # no finding's value


def test_phantoms_of_findings_are_converted_with_all_of_them_and_nothing_else(tmp_path: Path) -> None:
    table = write_phantoms(config(tmp_path / "P", patients=30, size=32, findings=("all",), unknown=0.2, prevalence=0.5))
    catalog = CatalogConfig(manifest=table, findings=("all",))
    convert(ConvertConfig(catalog=catalog, out=tmp_path / "B", size=32, workers=1, site_key=tmp_path / "key"))
    with Beton(tmp_path / "B" / "train.beton") as beton:
        assert beton.facts.classes == tuple(PHANTOM_FINDINGS.values())
        assert np.isnan(beton.labels).mean() == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": ("edema",)}, "--findings: found edema, expected some of opacity,consolidation,effusion"),
        ({"findings": ("nodule", "nodule")}, "--findings: found nodule,nodule, expected .* each once; or all"),
        ({"findings": ("all", "nodule")}, "--findings: found all,nodule, expected"),
        ({"findings": ("nodule",), "classes": ("covid",)}, "found --classes with --findings, expected one of both"),
        ({"findings": ("nodule",), "finding_strength": ("nodule=dense",)}, "found nodule=dense, expected one of"),
        ({"findings": ("nodule",), "finding_strength": ("nodule=11",)}, "found nodule=11, expected one of"),
        ({"findings": ("nodule",), "finding_strength": ("effusion=1",)}, "found effusion=1, expected one of"),
        ({"finding_strength": ("nodule=1",)}, "found nodule=1, expected one of --findings"),
        ({"prevalence": 1.5}, "--prevalence: found 1.5, expected 0 to 1"),
        ({"unknown": -0.1}, "--unknown: found -0.1, expected 0 to 1"),
    ],
)
def test_settings_of_findings_out_of_range_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**change)
