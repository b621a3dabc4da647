"""Masks of a source of radiographs: what `segment` writes, and the segmenter that it takes."""

import configparser
import csv
import hashlib
import json
import stat
from collections import Counter
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

import cli
from benchmarks.credible_masks import CODES, FILE, mask_lines, measure
from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, SegmentConfig
from loaders.errors import ConfigError, InputError, IntegrityError, PlainfilmError
from loaders.images import lungs
from loaders.images.lungs import (
    RECORD,
    SHIPPED,
    NetRecord,
    Segmenter,
    SegmenterRecord,
    dice,
    load_segmenter,
    read_segmenter,
    shipped_segmenter,
)
from loaders.lungs.masks import find_masks
from loaders.lungs.segment import TABLE, segment, segment_parts
from loaders.output import Sheet
from loaders.records import read_record, write_record
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id

REPOSITORY = Path(__file__).parents[2]


def settings(out: Path, **catalog: object) -> SegmentConfig:
    read = CatalogConfig(**catalog)  # type: ignore[arg-type]
    return SegmentConfig(catalog=read, out=out, size=64, workers=1, site_key=out.with_name("site.key"))


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def grey_of(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def masks(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The masks of the phantoms."""
    out = tmp_path_factory.mktemp("segment") / "M"
    segment(settings(out, manifest=phantoms))
    return out


def test_every_phantom_has_a_mask_of_its_size_that_is_its_lungs(masks: Path, phantoms: Path) -> None:
    with phantoms.open(newline="") as file:
        given = {row["path"]: grey_of(phantoms.parent / row["mask"]) > 127 for row in csv.DictReader(file)}
    rows = rows_of(masks)
    assert rows.keys() == given.keys() and {row["verdict"] for row in rows.values()} == {"credible"}
    found = {path: grey_of(masks / row["mask"]) for path, row in rows.items()}
    assert all(set(np.unique(mask_HW)) == {0, 255} for mask_HW in found.values())
    scores = [dice(given[path], mask_HW > 127) for path, mask_HW in found.items()]  # of one shape, or this fails
    assert np.mean(scores) > 0.95 and min(scores) > 0.9
    assert all(row["mask"] == f"masks/{path}.mask.png" for path, row in rows.items())
    assert (masks / "contact-sheet.png").stat().st_size > 0
    modes = {name: stat.S_IMODE((masks / name).stat().st_mode) for name in (TABLE, "masks")}
    assert modes == {TABLE: 0o600, "masks": 0o700}
    assert not list(masks.rglob("*tmp")) and not (masks / "doubtful").exists()


@pytest.mark.parametrize("given", [TABLE, "masks"])
def test_what_segment_writes_explain_and_crossval_read(given: str, masks: Path, betons: Path) -> None:
    with Beton(betons / "val.beton") as beton:
        found = find_masks(beton, str(masks / given), None)
        assert found.samples(beton).tolist() == list(range(len(beton)))
        own = find_masks(beton, "auto", None)
        pairs = [(found.frame_of(beton, sample), own.frame_of(beton, sample)) for sample in range(len(beton))]
        assert all(dice(first, second) > 0.9 for first, second in pairs)  # type: ignore[arg-type]


def test_the_folder_that_segment_made_is_refused_since_doubtful_masks_lie_there(masks: Path, betons: Path) -> None:
    said = r"holds masks\.csv of `segment`, and doubtful.*; name .*masks\.csv"
    with Beton(betons / "val.beton") as beton, pytest.raises(ConfigError, match=said):
        find_masks(beton, str(masks), None)


def test_the_number_of_workers_changes_no_byte(masks: Path, phantoms: Path, tmp_path: Path) -> None:
    config = settings(tmp_path / "M", manifest=phantoms)
    segment(SegmentConfig(catalog=config.catalog, out=config.out, size=64, workers=2))
    files = [path.relative_to(masks) for path in sorted(masks.rglob("*")) if path.is_file()]
    assert files and [(masks / path).read_bytes() == (tmp_path / "M" / path).read_bytes() for path in files] == [
        True
    ] * len(files)


def test_what_has_no_lungs_is_doubtful_and_ties_no_film(phantoms: Path, tmp_path: Path) -> None:
    source, rng = tmp_path / "S", np.random.default_rng(0)
    for name in ("covid", "normal"):
        (source / name).mkdir(parents=True)
        film = sorted((phantoms.parent / "images" / name).iterdir())[0]
        (source / name / "film.png").write_bytes(film.read_bytes())
    cv2.imwrite(str(source / "covid" / "noise.png"), rng.integers(0, 256, (90, 80)).astype(np.uint8))
    (source / "covid" / "text.png").write_text("no picture")
    done = segment(
        SegmentConfig(catalog=CatalogConfig(source=source), out=tmp_path / "M", labels="folder", size=64, workers=1)
    )
    rows = rows_of(tmp_path / "M")
    assert {path: (row["verdict"], row["kind"], bool(row["mask"])) for path, row in rows.items()} == {
        "covid/film.png": ("credible", "", True),
        "covid/noise.png": ("doubtful", "lungs-uncertain", False),
        "covid/text.png": ("no mask", "other-format", False),
        "normal/film.png": ("credible", "", True),
    }
    assert grey_of(tmp_path / "M" / "doubtful" / "covid" / "noise.png.mask.png").shape == (90, 80)
    parts = segment_parts(done)
    (sheet,) = (part for part in parts if isinstance(part, Sheet))
    assert [row[:4] for row in sheet.rows] == [("covid", "3", "2", "66.7 %"), ("normal", "1", "0", "0 %")]
    text = "\n".join(part.text for part in parts if not isinstance(part, Sheet))
    assert "4 files: 2 credible + 1 doubtful + 1 no mask" in text and "the first: covid/noise.png" in text


def test_a_table_needs_no_labels_and_one_with_findings_is_counted_by_them(phantoms: Path, tmp_path: Path) -> None:
    films = sorted((phantoms.parent / "images" / "covid").iterdir())[:2]
    plain, found = tmp_path / "plain.csv", tmp_path / "findings.csv"
    plain.write_text("path\n" + "".join(f"{film.relative_to(phantoms.parent)}\n" for film in films))
    found.write_text("path,Edema\n" + "".join(f"{film.relative_to(phantoms.parent)},1\n" for film in films))
    done = segment(settings(tmp_path / "M", manifest=plain, root=(phantoms.parent,)))
    assert not any(isinstance(part, Sheet) for part in segment_parts(done)) and len(rows_of(tmp_path / "M")) == 2
    done = segment(settings(tmp_path / "M2", manifest=found, root=(phantoms.parent,), findings=("Edema",)))
    (sheet,) = (part for part in segment_parts(done) if isinstance(part, Sheet))
    assert sheet.rows[0][:3] == ("Edema", "2", "0")


def test_odd_names_have_a_mask_each_inside_the_folder(phantoms: Path, tmp_path: Path) -> None:
    film = next((phantoms.parent / "images" / "covid").iterdir()).read_bytes()
    names = ["a.png", "a.jpg", "a.jpg.mask.png", "=b.png", "é\udcff.png", "x" * 250 + ".png"]
    for name in names:
        (tmp_path / "S" / "in").mkdir(parents=True, exist_ok=True)
        (tmp_path / "S" / "in" / name).write_bytes(film)
    (tmp_path / "T").mkdir()
    table = tmp_path / "T" / "table.csv"
    table.write_text("path\n" + "\n".join(f"../S/in/{name}" for name in names[:3]))
    segment(settings(tmp_path / "M", source=tmp_path / "S"))
    segment(settings(tmp_path / "deep" / "M2", manifest=table, root=(tmp_path / "T", tmp_path / "S")))
    for out, number in ((tmp_path / "M", len(names)), (tmp_path / "deep" / "M2", 3)):
        found = {(out / row["mask"]).resolve() for row in rows_of(out).values()}
        assert len(found) == number and all(path.is_relative_to(out / "masks") and path.is_file() for path in found)


# ---- the segmenter


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the shipped segmenter's folder."""
    folder = tmp_path / "S"
    folder.mkdir()
    for path in SHIPPED.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def replaced(folder: Path, **changes: object) -> None:
    """Change the record of a segmenter, or with `net` that of its first net."""
    record = read_record(SegmenterRecord, folder / RECORD)
    if "net" in changes:
        values = {name: getattr(record.nets[0], name) for name in NetRecord.__struct_fields__}
        changes = {"nets": [NetRecord(**values | changes["net"]), *record.nets[1:]]}  # type: ignore[operator]
    values = {name: getattr(record, name) for name in SegmenterRecord.__struct_fields__}
    write_record(folder / RECORD, SegmenterRecord(**values | changes).summed())


def put_net(folder: Path, content: bytes) -> None:
    """Another file for the first net, with its checksum in the record."""
    (folder / "net-1.onnx").write_bytes(content)
    replaced(folder, net={"sha256": hashlib.sha256(content).hexdigest()})


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "net-2.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "net-2.onnx").write_bytes(content)


def of_another_shape(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shape = [onnx.helper.make_tensor_value_info(name, 1, [1, 1, 128, 128]) for name in ("frame", "same")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["frame"], ["same"])], "g", shape[:1], shape[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    put_net(folder, model.SerializeToString())


def elsewhere(folder: Path) -> None:
    record = folder / RECORD
    record.write_text(record.read_text().replace("net-1.onnx", "../net-1.onnx"))


def without_checksum(folder: Path) -> None:
    write_record(folder / RECORD, msgspec.structs.replace(read_record(SegmenterRecord, folder / RECORD), checksum=""))


def formerly(folder: Path) -> None:
    """The record as it was before it told how films are hashed."""
    content = json.loads((folder / RECORD).read_text())
    del content["hash_algorithm"]
    whole = msgspec.json.encode(content | {"checksum": ""})
    content["checksum"] = hashlib.sha256(whole).hexdigest()
    (folder / RECORD).write_text(json.dumps(content))


DAMAGES = {
    "a flipped bit": (flip_a_bit, IntegrityError, r"net-2\.onnx: checksum differs"),
    "no ONNX": (lambda folder: put_net(folder, b"nothing"), IntegrityError, r"net-1\.onnx: no net that OpenCV can run"),
    "an empty net": (lambda folder: put_net(folder, b""), IntegrityError, r"net-1\.onnx: no net that OpenCV can run"),
    "a net of another kind": (of_another_shape, IntegrityError, r"net-1\.onnx: gives \(1, 1, 128, 128\), expected"),
    "no record": (lambda folder: (folder / RECORD).unlink(), ConfigError, "no segmenter.json there, expected"),
    "half a record": (lambda folder: (folder / RECORD).write_text("{"), IntegrityError, "segmenter.json: no JSON"),
    "an unfinished one": (lambda folder: replaced(folder, num_nets=3), ConfigError, "2 of 3 nets, expected all"),
    "films hashed otherwise": (
        lambda folder: replaced(folder, hash_algorithm="blake9"),
        ConfigError,
        "hashed by blake9, expected blake3",
    ),
    "films hashed formerly": (formerly, ConfigError, r"segmenter\.json: .*by blake2b, expected blake3.*train it again"),
    "no nets": (lambda folder: replaced(folder, nets=[], num_nets=0), ConfigError, "0 of 1 nets, expected all"),
    "a net elsewhere": (elsewhere, IntegrityError, r"nets\.0\.file: found \"\.\./net-1\.onnx\""),
    "no checksum": (without_checksum, IntegrityError, r"segmenter\.json: checksum differs"),
    "a lost net": (lambda folder: (folder / "net-1.onnx").unlink(), PlainfilmError, r"net-1\.onnx: No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segmenter_is_refused(damage: str, own: Path) -> None:
    read_segmenter(own, str(own))
    do, error, message = DAMAGES[damage]
    do(own)
    with pytest.raises(error, match=message):
        read_segmenter(own, str(own))


def test_weights_with_a_wrong_checksum_exit_with_5_and_write_nothing(
    own: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_a_bit(own)
    argv = ["segment", "--manifest", str(phantoms), "--segmenter", str(own), "--out", str(tmp_path / "M")]
    assert cli.main(argv) == 5
    assert "net-2.onnx: checksum differs" in capsys.readouterr().err and not (tmp_path / "M").exists()


def test_no_net_segments_a_film_that_it_saw_or_one_of_its_patient(own: Path) -> None:
    """Nets 1 and 2 saw films a and b; c is of a's patient, d of one whose hash net 2 has, e and f of nobody known.

    One net takes both looks at every film, lest those that were seen be told by it.
    """
    key = b"k" * 32
    known = patient_hash(key, "p").tobytes()
    first, second = read_record(SegmenterRecord, own / RECORD).nets
    nets = [
        NetRecord(file=first.file, sha256=first.sha256, num_films=1, pixels=[b"a".hex()], patients=[]),
        NetRecord(file=second.file, sha256=second.sha256, num_films=1, pixels=[b"b".hex()], patients=[known.hex()]),
    ]
    replaced(own, nets=nets, site_key_id=site_key_id(key))
    found = load_segmenter(str(own)).nets_for(
        [b"a", b"b", b"c", b"d", b"e", b"f"], [b"", b"", b"", known, b"", b""], np.array([0, 1, 0, 2, 3, 4])
    )
    assert found.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0], [1, 1], [0, 0]]
    joined = load_segmenter(str(own)).nets_for([b"a", b"b", b"c"], [b"", b"", b""], np.array([0, 0, 1]))
    assert joined.tolist() == [[-1, -1], [-1, -1], [1, 1]]


def test_a_film_of_a_patient_that_every_net_saw_has_no_mask(own: Path, phantoms: Path, tmp_path: Path) -> None:
    key = load_site_key(tmp_path / "site.key")
    table = tmp_path / "table.csv"
    films = sorted((phantoms.parent / "images" / "covid").iterdir())[:2]
    table.write_text("path,patient\n" + "".join(f"{film},{film.name}\n" for film in films))
    hashed = patient_hash(key, films[0].name).tobytes().hex()
    record = read_record(SegmenterRecord, own / RECORD)
    nets = [
        NetRecord(file=net.file, sha256=net.sha256, num_films=1, pixels=[], patients=[hashed]) for net in record.nets
    ]
    replaced(own, nets=nets, site_key_id=site_key_id(key))
    catalog = CatalogConfig(manifest=table, root=(phantoms.parent,))
    config = SegmentConfig(
        catalog=catalog, out=tmp_path / "M", segmenter=str(own), size=64, workers=1, site_key=tmp_path / "site.key"
    )
    segment(config)
    rows = list(rows_of(tmp_path / "M").values())
    assert [(row["verdict"], row["kind"], row["nets"]) for row in rows] == [
        ("no mask", "lungs-seen", "seen"), ("credible", "", rows[1]["nets"]),
    ]  # fmt: skip


def test_the_shipped_segmenter_is_small_whole_and_cross_fitted_and_is_installed() -> None:
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert files.keys() == {"NOTICE.md", RECORD, "net-1.onnx", "net-2.onnx"} and sum(files.values()) <= 2_000_000
    record = shipped_segmenter().record  # checksums are checked
    saw = Counter(pixels for net in record.nets for pixels in net.pixels)
    assert saw and set(saw.values()) == {1}, "each film is unseen by a net"
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert "lungs/*" in setup["options.package_data"]["loaders.images"]


def test_frames_of_any_side_have_the_lungs_at_the_same_place(phantoms: Path) -> None:
    film = grey_of(sorted((phantoms.parent / "images" / "normal").iterdir())[0])
    segmenter: Segmenter = shipped_segmenter()
    masks = [
        segmenter.find(cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)).mask_SS for side in (46, 92, 320)
    ]
    small = [cv2.resize(mask.astype(np.uint8), (64, 64), interpolation=cv2.INTER_NEAREST) > 0 for mask in masks]
    assert dice(small[0], small[1]) > 0.9 and dice(small[1], small[2]) > 0.95


def test_lungs_come_in_the_order_of_the_frames_window_by_window(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [grey_of(path) for path in sorted((phantoms.parent / "images" / "covid").iterdir())[:5]]
    nets_N2 = np.array([[0, 1], [1, 0], [-1, -1], [0, 0], [1, 1]])
    monkeypatch.setattr(lungs, "WINDOW", 2)
    segmenter = shipped_segmenter()
    found = list(segmenter.find_all(lambda place: films[place], nets_N2, workers=2))
    assert found[2] is None and len(found) == 5
    for place in (0, 1, 3, 4):
        alone, one = segmenter.find(films[place], nets_N2[place].tolist()), found[place]
        assert one is not None and (one.mask_SS == alone.mask_SS).all() and one.agreement == alone.agreement


def test_phantoms_are_credible_and_noise_is_not_in_the_benchmark() -> None:
    """A tiny round of `make bench-masks`, without real films."""
    kinds = measure(shipped_segmenter(), None, num_made=3)
    doubtful = {kind: sum(counts[code] for code in CODES) for kind, counts in kinds.items()}
    assert {counts["films"] for counts in kinds.values()} == {3}
    assert (
        doubtful["phantoms"] == 0 and doubtful["no radiograph: noise"] == doubtful["no radiograph: page of text"] == 3
    )
    stored = {
        "kinds": kinds, "limits": dict.fromkeys(("agreement", "balance", "cut", "area"), 0.5), "seconds": 0.01,
        "segmenter": {"identity": "0", "nets": 2}, "provenance": {},
    }  # fmt: skip
    assert "| phantoms | 3 | 0 % (0 to 56.1) | 0 | 0 | 0 | 0 |" in mask_lines({FILE: stored})
    assert mask_lines({}) == "Not measured yet."


# ---- what cannot be done


def test_a_folder_with_masks_is_not_overwritten(masks: Path, phantoms: Path) -> None:
    before = (masks / TABLE).read_bytes()
    with pytest.raises(ConfigError, match=r"has masks\.csv already, expected a new folder"):
        segment(settings(masks, manifest=phantoms))
    assert (masks / TABLE).read_bytes() == before


def test_an_interrupted_run_leaves_no_masks_and_the_same_command_makes_them(phantoms: Path, tmp_path: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("segment", 2):
            raise KeyboardInterrupt

    table = tmp_path / "few.csv"
    lines = phantoms.read_text().splitlines()[:5]
    table.write_text("\n".join(lines).replace("images/", f"{phantoms.parent}/images/"))
    config = settings(tmp_path / "M", manifest=table, root=(phantoms.parent,))
    with pytest.raises(KeyboardInterrupt):
        segment(config, stop)
    assert not (tmp_path / "M" / "masks").exists() and not (tmp_path / "M" / TABLE).exists()
    segment(config)
    assert len(rows_of(tmp_path / "M")) == 4


def test_a_run_that_is_killed_as_it_publishes_is_replaced_and_other_masks_are_not(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = tmp_path / "one.csv", tmp_path / "M"
    table.write_text(f"path\n{next((phantoms.parent / 'images').rglob('*.png'))}\n")
    config, rename = settings(out, manifest=table, root=(phantoms.parent,)), Path.rename

    def killed(path: Path, target: Path) -> Path:
        if target == out / TABLE:
            raise KeyboardInterrupt
        return rename(path, target)

    (out / "masks").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"has masks already, expected a new folder"):
        segment(config)
    (out / "masks").rmdir()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        segment(config)
    assert (out / "masks").exists() and not (out / TABLE).exists()
    segment(config)
    assert len(rows_of(out)) == 1 and not list(out.glob("*tmp"))
    assert all((tmp_path / "M" / row["mask"]).is_file() for row in rows_of(tmp_path / "M").values())
    assert not list((tmp_path / "M").glob("*tmp"))


def test_masks_are_not_written_among_the_films(phantoms: Path) -> None:
    with pytest.raises(ConfigError, match="lies inside"):
        segment(settings(phantoms.parent / "images" / "M", source=phantoms.parent / "images"))


def test_a_source_without_a_usable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    (tmp_path / "S" / "a.png").write_text("no picture")
    with pytest.raises(InputError, match=r"none of 1 file is usable; the first, a\.png: text, expected PNG"):
        segment(settings(tmp_path / "M", source=tmp_path / "S"))
    assert not (tmp_path / "M" / TABLE).exists()
