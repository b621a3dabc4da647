"""Masks of films: tied to a beton's samples by its own table, found by nets, and refused where they cannot be used."""

import csv
import os
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, ConvertConfig
from loaders.convert.convert import convert
from loaders.errors import ConfigError, InputError
from loaders.lungs.masks import find_masks, stem_of
from tests.faults.beton_layout import hashed_formerly
from tests.findings_example import write_findings


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x_mask.png", "x.jpg.mask.png", "x-mask.tif", "x.mask.png"])
def test_a_masks_name_leads_to_its_radiograph(name: str) -> None:
    assert stem_of(name) == "x"


def test_dots_within_a_name_are_kept() -> None:
    assert stem_of("1-s2.0-main.pdf-002.jpg.mask.png") == stem_of("1-s2.0-main.pdf-002.jpg") == "1-s2.0-main.pdf-002"


def test_files_of_masks_are_read_one_after_the_other(
    phantoms: Path, betons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[threading.Thread]()
    monkeypatch.setattr("loaders.lungs.masks.read_mask", lambda *film, **how: threads.add(threading.current_thread()))
    with Beton(betons / "heldout.beton") as beton:
        list(find_masks(beton, str(phantoms), None).each(beton, np.arange(4)))
    assert threads == {threading.main_thread()}, "decoders silence Pillow for the whole process"


def test_a_folder_of_masks_and_the_phantoms_table_give_the_same_lungs(phantoms: Path, betons: Path) -> None:
    with Beton(betons / "heldout.beton") as beton:
        by_table = find_masks(beton, str(phantoms), None)
        by_folder = find_masks(beton, str(phantoms.parent / "masks"), betons / "convert.csv")
        assert by_table.path_of is not None and by_folder.path_of is not None
        assert {s: p.resolve() for s, p in by_table.path_of.items()} == {
            s: p.resolve() for s, p in by_folder.path_of.items()
        }
        assert by_table.kind == "phantom" and len(by_table.path_of) == len(beton)
        assert by_folder.kind == "folder", "masks that are not the phantoms' own may lie there"
        margin = (beton.side - beton.facts.crop) // 2
        for sample in range(3):
            lungs_HW, reason = by_table.crop_of(beton, sample)
            assert lungs_HW is not None and not reason and lungs_HW.shape == (32, 32) and 0.15 < lungs_HW.mean() < 0.6
            start = beton.offset_N[sample]
            frame_SS = beton.bytes_B[start : start + beton.side**2].reshape(beton.side, beton.side)
            crop_HW = frame_SS[margin : margin + 32, margin : margin + 32]
            assert crop_HW[lungs_HW].mean() < crop_HW[~lungs_HW].mean()  # air is dark


def test_a_mask_follows_its_repaired_radiograph_and_one_of_other_proportions_is_refused(
    phantoms: Path, betons: Path, tmp_path: Path
) -> None:
    rows = list(csv.DictReader((betons / "convert.csv").read_text().splitlines()))
    repaired = next(row for row in rows if row["split"] == "heldout" and row["sample"] == "0")
    size = int(repaired["width"]), int(repaired["height"])
    mask_HW = np.zeros((2 * size[1], 2 * size[0]), np.uint8)  # of twice the radiograph's size
    mask_HW[: size[1], : size[0]] = 255  # upper left quarter
    (tmp_path / "masks").mkdir()
    mask = tmp_path / "masks" / (Path(repaired["path"]).stem + "_mask.png")

    def lungs(fix: str) -> np.ndarray:
        repaired["fix"] = fix
        with (tmp_path / "convert.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(repaired))
            table.writeheader()
            table.writerows(rows)
        with Beton(betons / "heldout.beton") as beton:
            lungs_HW = find_masks(beton, str(tmp_path / "masks"), tmp_path / "convert.csv").crop_of(beton, 0)[0]
        assert lungs_HW is not None
        return lungs_HW

    cv2.imwrite(str(mask), mask_HW)
    plain_HW = lungs("")
    assert plain_HW[:15, :15].all() and not plain_HW[17:].any() and not plain_HW[:, 17:].any()
    turned_HW = lungs("invert; rotate 90")
    assert turned_HW[:15, 17:].all() and not turned_HW[:, :15].any()
    assert lungs(f"crop 0:{size[1] // 2},0:{size[0] // 2}").all()  # only the quarter was kept
    with pytest.raises(InputError, match="expected room for the audit's crop"):
        lungs("crop 0:99999,0:9")
    assert (lungs("rotate sideways") == plain_HW).all()
    cv2.imwrite(str(mask), mask_HW[: size[1]])
    with pytest.raises(InputError, match=r"_mask\.png: .* expected the proportions of its radiograph"):
        lungs("")
    repaired["sample"] = "²"  # a digit, but no number
    with pytest.raises(InputError, match="expected the table of its own conversion"):
        lungs("")


@pytest.mark.radiographs
def test_the_masks_of_real_radiographs_are_matched(radiographs: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((radiographs / "lung_masks.csv").read_text().splitlines()))[:4]
    every = csv.DictReader((radiographs / "radiographs.csv").read_text().splitlines())
    chosen = [row | {"label": "covid"} for row in rows] + [row for row in every if row["label"] == "normal"][:4]
    for row in chosen:
        copy = tmp_path / row["path"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(radiographs / row["path"], copy)
    manifest = tmp_path / "few.csv"
    lines = [f"{row['path']},{row['label']},{row['patient']}" for row in chosen]
    manifest.write_text("\n".join(["path,label,patient", *lines]))
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest), out=tmp_path / "b", size=32, workers=1, site_key=tmp_path / "k"
        )
    )
    with Beton(tmp_path / "b" / "train.beton") as beton:
        covid = np.flatnonzero(beton.label_N == beton.facts.classes.index("covid"))
        for given in (radiographs / "lung_masks.csv", radiographs / "lung_masks"):
            found = find_masks(beton, str(given), None)
            assert found.kind == "folder" and found.samples(beton).tolist() == covid.tolist()
            lungs_HW = found.frame_of(beton, int(covid[0]))
            assert lungs_HW is not None and 0.1 < lungs_HW.mean() < 0.9


def test_a_table_of_another_conversion_and_masks_of_other_radiographs_are_refused(
    phantoms: Path, betons: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "somebody.png"), np.full((9, 9), 255, np.uint8))
    rows = (betons / "convert.csv").read_text().splitlines()
    lost = next(row for row in rows if ",heldout," in row)
    (tmp_path / "convert.csv").write_text("\n".join(row for row in rows if row != lost))
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    with Beton(betons / "heldout.beton") as beton:
        with pytest.raises(InputError, match="no mask for any of the"):
            find_masks(beton, str(tmp_path / "masks"), None)
        with pytest.raises(InputError, match=r"expected the table of its own conversion; name the convert\.csv"):
            find_masks(beton, str(phantoms), tmp_path / "convert.csv")
        with pytest.raises(InputError, match="columns a, b, expected at least path and mask"):
            find_masks(beton, str(tmp_path / "no.csv"), None)
        with pytest.raises(ConfigError, match=r"gone\.csv: not there, expected a convert\.csv; name the convert\.csv"):
            find_masks(beton, str(phantoms), tmp_path / "gone.csv")
        with pytest.raises(ConfigError, match=r"--masks .* not there"):
            find_masks(beton, str(tmp_path / "nowhere"), None)
        for masks in ("auto", "usual"):
            with pytest.raises(ConfigError, match=rf"--table: found .* with --masks {masks}"):
                find_masks(beton, masks, betons / "convert.csv")
        with pytest.raises(ConfigError, match="--segmenter: found S with --masks usual"):
            find_masks(beton, "usual", None, "S")


def test_masks_that_lie_elsewhere_are_not_read_and_a_fifo_is_not_waited_for(betons: Path, tmp_path: Path) -> None:
    with (betons / "convert.csv").open(newline="") as file:
        path = next(row["path"] for row in csv.DictReader(file) if row["split"] == "heldout")
    folder, elsewhere = tmp_path / "masks", tmp_path / "elsewhere.png"
    folder.mkdir()
    cv2.imwrite(str(elsewhere), np.full((9, 9), 255, np.uint8))
    (folder / f"{Path(path).stem}.png").symlink_to(elsewhere)
    with Beton(betons / "heldout.beton") as beton:
        for wanted in ("../elsewhere.png", str(elsewhere)):
            (folder / "masks.csv").write_text(f"path,mask\n{path},{wanted}\n")
            with pytest.raises(InputError, match=r"leads outside of .*, expected a mask below it"):
                find_masks(beton, str(folder / "masks.csv"), None)
        (folder / "masks.csv").unlink()
        with pytest.raises(InputError, match=r"leads outside of .*, expected a mask below it"):
            find_masks(beton, str(folder), None)
        os.mkfifo(tmp_path / "fifo.csv")
        with pytest.raises(InputError, match="a FIFO or device, expected a regular file"):
            find_masks(beton, str(tmp_path / "fifo.csv"), None)


def test_masks_of_a_beton_of_findings_are_found_by_its_own_table_and_another_is_refused(
    tmp_path: Path,
) -> None:
    write_findings(tmp_path, counts={"train": 4, "val": 4, "heldout": 60})
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "film3_mask.png"), np.full((64, 64), 255, np.uint8))
    header = ("path", "label", "split", "sample", "group", "verdict", "kind", "reason", "fix", "width", "height")
    with Beton(tmp_path / "heldout.beton") as beton:
        groups = beton.rows_N["group"].tolist()
        for shift in (0, 1):
            with (tmp_path / "convert.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                for sample, group in enumerate(groups):
                    cells = (f"film{sample}.png", "", "heldout", sample, group + shift, "written", "", "", "", 64, 64)
                    writer.writerow(cells)
            if shift:
                with pytest.raises(InputError, match="not the 60 samples"):
                    find_masks(beton, str(tmp_path / "masks"), None)
            else:
                assert find_masks(beton, str(tmp_path / "masks"), None).samples(beton).tolist() == [3]


def test_a_beton_whose_pixels_are_hashed_otherwise_gets_no_masks_of_nets_that_may_have_seen_its_films(
    betons: Path, tmp_path: Path
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        assert find_masks(beton, "auto", None).nets_N2 is not None
        (tmp_path / "x.beton").write_bytes(hashed_formerly((betons / "heldout.beton").read_bytes(), beton.side))
    with Beton(tmp_path / "x.beton") as beton:
        with pytest.raises(ConfigError, match=r"x\.beton: pixels are hashed by blake2b, expected blake3 .*convert the"):
            find_masks(beton, "auto", None)
        assert find_masks(beton, "usual", None).kind == "template"
