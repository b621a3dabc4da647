"""A collection that is only a test set: all of it held out, with the task of the run or beton that it is to test."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import cli
from engine.train.train import train
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.conversion import Conversion
from loaders.convert.convert import convert
from loaders.errors import BetonError, CheckpointError, ConfigError, InputError
from loaders.images.frame import MID_GREY
from loaders.images.lungs import shipped_segmenter
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom, write_phantoms
from loaders.settings import build
from tests.example_run import small_training
from tests.loaders.test_beton import strip_footer
from tests.lungs_example import SHIPPED, run_with, write_lungs


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with betons B and a run R, all of whose facts differ from the defaults."""
    folder = tmp_path_factory.mktemp("target")
    table = write_phantoms(PhantomConfig(out=folder / "p", patients=24, size=64, seed=3))
    catalog = CatalogConfig(manifest=table, classes=("normal", "covid"))
    config = ConvertConfig(
        catalog=catalog, out=folder / "B", size=40, fit="contain", positive="covid", holdout=0.2, workers=1,
        site_key=folder / "key",
    )  # fmt: skip
    convert(config)
    train(small_training(folder / "B", folder / "R"))
    (folder / "C" / "folds" / "group-1").mkdir(parents=True)
    shutil.copytree(folder / "R", folder / "C" / "folds" / "group-1" / "run")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Another collection: 4 films of COVID-19, 3 of No Finding and 2 of Edema, in a folder each."""
    draw(tmp_path / "source", {"COVID-19": 4, "No Finding": 3, "Edema": 2})
    return tmp_path / "source"


def draw(folder: Path, films: dict[str, int]) -> None:
    """Films that pass an audit, so many in each folder."""
    for kind, (name, number) in enumerate(films.items()):
        (folder / name).mkdir(parents=True)
        for patient in range(number):
            planned = PlannedPhantom(seed=len(folder.name) + kind, patient=patient, label="normal", size=128)
            levels_HW = (draw_phantom(planned).image_HW >> 8).astype(np.uint8)
            Image.fromarray(levels_HW).save(folder / name / f"{patient}.png")


NAMES = ("COVID-19=covid", "no finding=normal")


def converted(source: Path, like: Path, **changes: Any) -> Conversion:
    usual = {"out": source.parent / "out", "workers": 1, "site_key": source.parent / "key", "map_label": NAMES}
    origin = {"manifest" if source.suffix else "source": source}
    return convert(build(ConvertConfig, origin | usual | {"like": like} | changes))


def counted(path: Path) -> dict[str, int]:
    with Beton(path) as beton:
        return dict(Counter(beton.facts.classes[label] for label in beton.label_N))


@pytest.mark.parametrize("like", ["R", "C", "B/train.beton"])
@pytest.mark.parametrize("audit", ["off", "auto"])
def test_all_of_a_collection_is_held_out_with_the_task_of_its_target(
    target: Path, source: Path, like: str, audit: str
) -> None:
    done = converted(source, target / like, audit=audit, dry_run=True)
    assert not done.out.exists() and done.samples == {"heldout": {"normal": 3, "covid": 4}}
    done = converted(source, target / like, audit=audit)
    made = {path.name for path in done.out.iterdir() if not path.name.startswith(".")}
    assert made - {"audit.csv", "audit.html"} == {"heldout.beton", "convert.csv", "preparation.png"}
    with Beton(done.out / "heldout.beton") as beton, Beton(target / "B" / "train.beton") as own:
        for name in ("classes", "positive", "crop", "stored", "fit"):
            assert getattr(beton.facts, name) == getattr(own.facts, name), name
        assert beton.facts.split == "heldout" and beton.facts.conversion_id != own.facts.conversion_id
    assert counted(done.out / "heldout.beton") == {"covid": 4, "normal": 3}
    assert caution("labels-left-out", files=2, labels=["Edema (2)"]) in done.cautions
    translated = ["COVID-19 = covid (4)", "No Finding = normal (3)"]
    assert caution("labels-translated", labels=translated) in done.cautions
    kinds = Counter(row.kind for row in done.rows if row.verdict == "excluded")
    assert kinds == {"other-class": 2}


@pytest.mark.parametrize(
    ("flag", "found", "expected"),
    [
        ("size", "224", "40"),  # the default, but named
        ("size", "64", "40"),
        ("fit", "stretch", "contain"),
        ("positive", "normal", "covid"),
        ("classes", "covid,normal", "normal,covid"),
        ("classes", "normal", "normal,covid"),
    ],
)
def test_a_setting_that_contradicts_the_target_is_refused_even_at_its_default(
    target: Path, source: Path, capsys: pytest.CaptureFixture[str], flag: str, found: str, expected: str
) -> None:
    arguments = ["convert", str(source), "--like", str(target / "R"), "--out", str(source.parent / "out")]
    assert cli.main([*arguments, f"--{flag}", found]) == 2
    assert f"--{flag}: found {found}, expected {expected} as of {target / 'R'}" in capsys.readouterr().err
    for share, given, whole in (("val", "0.2", "0.0"), ("holdout", "0.15", "1.0")):
        assert cli.main([*arguments, f"--{share}", given]) == 2
        assert f"--{share}: found {given}, expected {whole} of a test set alone" in capsys.readouterr().err
    assert not (source.parent / "out").exists()


def of_lungs(target: Path, folder: Path, like: str, segmenter: str = SHIPPED) -> Path:
    """The target, as a beton or a run, of lungs alone in their boxes."""
    if like == "R":
        return run_with(target / "R", folder / "R", lungs="boxed", segmenter=segmenter)
    return write_lungs(target / "B", folder / "B", "boxed", segmenter) / "train.beton"


@pytest.mark.parametrize("like", ["R", "B"])
@pytest.mark.parametrize("given", [False, True])
def test_lungs_are_shown_as_the_target_shows_them(
    target: Path, source: Path, tmp_path: Path, like: str, given: bool
) -> None:
    aim, changes = of_lungs(target, tmp_path, like, "given" if given else SHIPPED), dict[str, Any]()
    if given:
        films = sorted(path.relative_to(source) for path in source.rglob("*.png"))
        for path in films:
            (tmp_path / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
            frame_SS = np.asarray(Image.open(source / path).convert("L").resize((128, 128)))
            Image.fromarray(shipped_segmenter().find(frame_SS).mask_SS).save(tmp_path / "masks" / path)
        (tmp_path / "masks.csv").write_text("\n".join(["path,mask", *(f"{path},masks/{path}" for path in films)]))
        changes["masks"] = str(tmp_path / "masks.csv")
    done = converted(source, aim, **changes)
    with Beton(done.out / "heldout.beton") as beton:
        assert (beton.facts.lungs, beton.facts.segmenter) == ("boxed", "given" if given else SHIPPED)
        assert len(beton) == done.counts["written"] > 3
        blank_N = [np.mean(beton.frame(sample) == MID_GREY) for sample in range(len(beton))]
    assert min(blank_N) > 0.2, "outside the lungs a frame is blank"
    plain = converted(source, target / like if like == "R" else target / "B" / "train.beton")
    with Beton(plain.out / "heldout.beton") as beton:
        assert beton.facts.lungs == "off" and (beton.frame(0) == MID_GREY).mean() < 0.1


@pytest.mark.parametrize(
    ("segmenter", "flags", "found"),
    [
        (SHIPPED, ["--lungs", "off"], "--lungs: found off, expected boxed as of"),  # the default, but named
        (SHIPPED, ["--lungs", "masked"], "--lungs: found masked, expected boxed as of"),
        (SHIPPED, ["--masks", "m.csv"], "--masks: found m.csv, expected auto, as of"),
        ("given", [], "--masks: found auto, expected masks as files, as of"),
        ("given", ["--lungs", "boxed"], "--masks: found auto, expected masks as files, as of"),
        ("f" * 16, [], f"--segmenter shipped: segmenter {SHIPPED}, expected {'f' * 16}, which found the lungs of"),
    ],
)
@pytest.mark.parametrize("like", ["R", "B"])
def test_lungs_that_the_target_shows_otherwise_are_refused(
    target: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], like: str, segmenter: str,
    flags: list[str], found: str,
) -> None:  # fmt: skip
    aim = of_lungs(target, tmp_path, like, segmenter)
    arguments = ["convert", str(source), "--like", str(aim), "--out", str(tmp_path / "out"), *flags]
    assert cli.main(arguments) == 2
    assert f"{found} {aim}" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_whole_films_of_a_target_stay_whole(
    target: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(source), "--like", str(target / "R"), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--lungs", "masked"]) == 2
    assert f"--lungs: found masked, expected off as of {target / 'R'}" in capsys.readouterr().err


def test_from_python_a_default_counts_as_not_given(target: Path, source: Path) -> None:
    catalog = CatalogConfig(source=source, map_label=NAMES)
    plain = {"out": source.parent / "out", "workers": 1, "site_key": source.parent / "key", "like": target / "R"}
    assert convert(ConvertConfig(catalog=catalog, **plain)).samples["heldout"]["covid"] == 4
    with pytest.raises(ConfigError, match="--size: found 64, expected 40"):
        convert(ConvertConfig(catalog=catalog, size=64, **plain))


def test_settings_that_are_those_of_the_target_may_be_named(target: Path, source: Path) -> None:
    same = {"size": 40, "fit": "contain", "positive": "covid", "classes": ("normal", "covid"), "val": 0, "holdout": 1}
    assert converted(source, target / "R", **same).counts["written"] == 7


@pytest.mark.parametrize("label", ["covid", "Normal "])
def test_one_class_alone_will_do(target: Path, tmp_path: Path, label: str) -> None:
    draw(tmp_path / "source", {label: 5})
    done = converted(tmp_path / "source", target / "R", map_label=(), audit="auto")
    assert counted(done.out / "heldout.beton") == {label.strip().lower(): 5}
    assert done.samples["heldout"] == {name: 5 * (name == label.strip().lower()) for name in ("normal", "covid")}
    assert not {"confounded-with-source", "labels-left-out"} & {found.code for found in done.cautions}


def test_a_collection_without_any_of_the_classes_is_refused_with_both_lists(target: Path, source: Path) -> None:
    with pytest.raises(
        InputError, match=r"labels COVID-19, Edema, No Finding, expected some of normal, covid"
    ) as error:
        converted(source, target / "R", map_label=())
    assert '--map-label "COVID-19=CLASS"' in str(error.value)
    for path in source.rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(InputError, match=r"class normal: none of 3 files is usable.*expected at least one"):
        converted(source, target / "R")


def test_a_target_keeps_its_betons(target: Path, source: Path, tmp_path: Path) -> None:
    shutil.copytree(target / "B", tmp_path / "B")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "B").iterdir()}
    with pytest.raises(ConfigError, match=r"holds train\.beton, which a test set alone would replace"):
        converted(source, target / "R", out=tmp_path / "B")
    for name in ("train.beton", "val.beton"):
        (tmp_path / "B" / name).unlink()
    with pytest.raises(ConfigError, match=r"holds heldout\.beton"):
        converted(source, tmp_path / "B" / "heldout.beton", out=tmp_path / "B")
    assert before.keys() >= set((tmp_path / "B").iterdir())
    converted(source, target / "R", out=tmp_path / "B")  # of an earlier conversion: replaced, with its picture
    assert counted(tmp_path / "B" / "heldout.beton") == {"covid": 4, "normal": 3}
    assert not (tmp_path / "B" / "augmentation.png").exists()


def as_table(source: Path, splits: list[str]) -> Path:
    """A manifest of the collection, with splits in turn."""
    paths = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))
    lines = [f"{path},{path.split('/')[0]},{splits[place % len(splits)]}" for place, path in enumerate(paths)]
    (source / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    return source / "list.csv"


@pytest.mark.parametrize(
    ("splits", "told"), [(["train", "val", "heldout"], True), (["train"], True), (["heldout"], False), ([""], False)]
)
def test_a_manifests_own_splits_are_set_aside_and_this_is_told(
    target: Path, source: Path, splits: list[str], told: bool
) -> None:
    done = converted(as_table(source, splits), target / "R", out=source.parent / "out")
    assert done.samples == {"heldout": {"normal": 3, "covid": 4}}
    assert (caution("splits-set-aside") in done.cautions) is told


def test_split_folders_and_a_public_set_are_held_out_whole(target: Path, tmp_path: Path) -> None:
    draw(tmp_path / "folders" / "train", {"covid": 2, "normal": 3})
    draw(tmp_path / "folders" / "test", {"covid": 1})
    done = converted(tmp_path / "folders", target / "R", map_label=())
    assert done.samples == {"heldout": {"normal": 3, "covid": 3}} and caution("splits-set-aside") in done.cautions
    for folder in ("COVID", "Lung_Opacity"):
        draw(tmp_path / "set" / folder, {"images": 2 + len(folder), "masks": 2 + len(folder)})
    done = converted(tmp_path / "set", target / "R", map_label=(), preset="covid-radiography")
    assert counted(done.out / "heldout.beton") == {"covid": 7}
    assert caution("labels-left-out", files=14, labels=["lung-opacity (14)"]) in done.cautions


@pytest.mark.parametrize("splits", [["heldout"], None], ids=["heldout", "one-class"])
def test_what_cannot_be_trained_on_is_refused_with_the_way_to_test_on_it(
    source: Path, splits: list[str] | None
) -> None:
    changes: dict[str, Any] = {"manifest": as_table(source, splits)} if splits else {"source": source}
    if not splits:
        for name in ("COVID-19", "Edema"):
            shutil.rmtree(source / name)
    with pytest.raises(InputError, match="for a test set alone, name the run to test on it with --like RUN"):
        convert(build(ConvertConfig, changes | {"out": source.parent / "out", "workers": 1, "size": 32}))


@pytest.mark.parametrize("given", [{"holdout": 1.0}, {"val": 0.0}])
def test_shares_that_leave_nothing_to_train_on_are_refused_with_the_way_to_test(given: dict[str, float]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(ConfigError, match=rf"--{name}: found {value}, expected .*--like RUN"):
        ConvertConfig(catalog=CatalogConfig(source=Path("s")), out=Path("o"), **given)


def test_what_is_no_target_is_refused_by_name(target: Path, source: Path, tmp_path: Path) -> None:
    for like in (tmp_path / "nothing", target / "B"):
        with pytest.raises(
            ConfigError, match=r"no best\.safetensors, expected a run of `train` or `crossval`, or a be"
        ):
            converted(source, like)
    foreign = tmp_path / "foreign.beton"
    foreign.write_bytes(strip_footer((target / "B" / "train.beton").read_bytes()))
    with pytest.raises(BetonError, match="no plainfilm footer"):
        converted(source, foreign)
    weights = tmp_path / "run" / "best.safetensors"
    weights.parent.mkdir()
    state = {"classes": ["a", "b"], "positive": "a", "crop": 40, "stored": 58, "fit": "unknown"}
    hidden = state | {"fit": "stretch", "lungs": "hidden", "segmenter": "given"}
    empty = {"x": np.zeros(1, np.float32)}
    cut = (target / "R" / "best.safetensors").read_bytes()[:100]
    for plant, kind, expected in (
        (lambda: weights.write_bytes(cut), CheckpointError, "not the weights of a run"),
        (lambda: save_file(empty, weights), CheckpointError, "not the weights of a run"),
        (lambda: save_file(empty, weights, {"state": "{}"}), CheckpointError, "not the weights of a run"),
        (lambda: save_file(empty, weights, {"state": json.dumps(state)}), InputError, "fitted by unknown"),
        (lambda: save_file(empty, weights, {"state": json.dumps(hidden)}), CheckpointError, "value 'hidden'"),
    ):
        plant()
        with pytest.raises(kind, match=expected):
            converted(source, weights.parent)
    assert not (tmp_path / "out").exists()


def test_real_films_of_another_collection_are_converted_like_a_run(radiographs: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((radiographs / "external.csv").read_text().splitlines()))
    wanted = Counter(row["label"] for row in rows)
    catalog = CatalogConfig(manifest=radiographs / "radiographs.csv", classes=("covid", "normal"))
    own = ConvertConfig(catalog=catalog, out=tmp_path / "B", size=32, site_key=tmp_path / "key")
    convert(own)
    other = CatalogConfig(manifest=radiographs / "external.csv")
    done = convert(
        ConvertConfig(catalog=other, out=tmp_path / "E", like=tmp_path / "B" / "val.beton", site_key=tmp_path / "key")
    )
    assert counted(done.out / "heldout.beton") == {name: wanted[name] for name in ("covid", "normal")}
    assert caution("labels-left-out", files=2, labels=["pneumonia (2)"]) in done.cautions
