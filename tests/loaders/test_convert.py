"""Conversion: every file counted, groups whole, the same bytes whoever does it."""

import ast
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.evaluate.dataflow import count_files
from loaders.atomic_file import SUFFIX
from loaders.audit.findings import DEFECTS
from loaders.beton.format import AGES, BELOW_STORED_SIDE, PATIENT_KNOWN, SEXES, sexes_and_ages
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig
from loaders.convert import lungs as convert_lungs
from loaders.convert.conversion import Conversion, Row, conversion_parts
from loaders.convert.convert import choose_splits, convert, spool_file
from loaders.errors import ConfigError, InputError, RadiographError, StorageError
from loaders.images import files, lungs
from loaders.images.decode import write_frame
from loaders.images.frame import stored_frame
from loaders.images.radiograph import decode_radiograph
from loaders.output import Line
from loaders.settings import build
from loaders.sources.catalog import Catalog
from loaders.sources.entry import EXCLUDED, Entry
from loaders.sources.patient_hash import load_site_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source of two classes with 12 files each, named as NIH names them: three images a patient."""
    rng = np.random.default_rng(0)
    for label in ("covid", "normal"):
        (tmp_path / "source" / label).mkdir(parents=True)
        for number in range(12):
            name = f"{number // 3 + (label == 'normal') * 50:08}_{number:03}.png"
            Image.fromarray(rng.integers(0, 256, (70, 60)).astype(np.uint8)).save(tmp_path / "source" / label / name)
    return tmp_path / "source"


def config(folder: Path, **changes: object) -> ConvertConfig:
    base = {
        "source": folder,
        "out": folder.parent / "out",
        "size": 32,
        "workers": 1,
        "site_key": folder.parent / "site.key",
    }
    return build(ConvertConfig, base | changes)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "convert.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_has_a_row_and_the_sum_adds_up(folder: Path) -> None:
    (folder / "covid" / "notes.txt").write_text("hello")
    (folder / "covid" / "empty.png").touch()
    (folder / "covid" / ".hidden").touch()
    (folder / "readme.md").touch()
    first = sorted((folder / "normal").iterdir())[0]
    shutil.copy(first, folder / "normal" / "zz-copy.png")
    done = convert(config(folder))
    assert done.counts == {"written": 24, "rejected": 2, "duplicate": 1, "excluded": 2}
    assert done.files == 27
    rows = table(done.out)
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    by_path = {row["path"]: row for row in rows}
    assert by_path["normal/zz-copy.png"]["verdict"] == "duplicate"
    assert by_path["normal/zz-copy.png"]["reason"] == f"same pixels as normal/{first.name}"
    assert by_path["normal/zz-copy.png"]["kind"] == "same-pixels" and by_path["covid/empty.png"]["kind"] == "empty"
    assert "0 bytes" in by_path["covid/empty.png"]["reason"]


def test_files_that_cannot_be_used_are_counted_by_code_whatever_their_messages(folder: Path) -> None:
    png, jpeg = sorted((folder / "covid").iterdir())[0].read_bytes(), io.BytesIO()
    Image.new("L", (40, 40)).save(jpeg, "JPEG")
    (folder / "covid" / "a.png").write_bytes(png[:-20])
    (folder / "covid" / "b.jpg").write_bytes(jpeg.getvalue()[:-2])
    (folder / "covid" / "c.png").write_text("no picture")
    (folder / "covid" / "d.png").symlink_to("d.png")
    (folder / ".notes").touch()
    done = convert(config(folder))
    kinds = [row.kind for row in done.rows if row.verdict == "rejected"]
    assert sorted(kinds) == ["cut", "cut", "no-access", "other-format"]
    lines = [part.text for part in conversion_parts(done) if isinstance(part, Line)]
    assert any(line.startswith("  rejected 2: cut short; the first: truncated PNG (") for line in lines)
    flow = count_files(table(done.out))  # as read back from convert.csv
    assert flow.reasons == {"rejected": {"cut": 2, "no-access": 1, "other-format": 1}, "excluded": {"hidden": 1}}
    assert all(row["kind"] for row in table(done.out) if row["verdict"] != "written")


def test_every_refusal_of_a_file_has_a_code_with_a_meaning() -> None:
    calls = [
        call
        for path in Path(files.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "refuse"
    ]
    codes = {ast.literal_eval(call.args[2]) if len(call.args) > 2 else "damaged" for call in calls}
    for path in (lungs.__file__, convert_lungs.__file__):  # those of a film's mask
        nodes = ast.walk(ast.parse(Path(path).read_text()))
        codes |= files.REFUSALS.keys() & {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert len(calls) > 70 and codes == set(files.REFUSALS)
    tables = (files.REFUSALS, EXCLUDED, DEFECTS)
    assert sum(map(len, tables)) == len(set().union(*tables)), "one code, one meaning"


def test_a_duplicate_in_another_file_format_is_found_by_its_pixels(folder: Path) -> None:
    first = sorted((folder / "covid").iterdir())[0]
    Image.open(first).convert("RGB").save(folder / "covid" / "zz.tif")
    assert convert(config(folder)).counts["duplicate"] == 1


def test_duplicates_with_different_labels_are_all_rejected(folder: Path) -> None:
    first = sorted((folder / "covid").iterdir())[0]
    shutil.copy(first, folder / "normal" / "zz.png")
    done = convert(config(folder))
    assert done.counts == {"written": 23, "rejected": 2, "duplicate": 0, "excluded": 0}
    reasons = {row["path"]: row["reason"] for row in table(done.out) if row["kind"] == "other-label"}
    assert set(reasons) == {f"covid/{first.name}", "normal/zz.png"}
    assert all("covid, normal" in reason for reason in reasons.values())


def test_patients_whose_identifiers_differ_in_case_are_of_one_group(folder: Path) -> None:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]},{'pP'[place % 2]}{place // 2}" for place, path in enumerate(paths)]
    (folder / "list.csv").write_text("\n".join(["path,label,patient", *rows]))
    done = convert(config(folder, source=None, manifest=folder / "list.csv", dry_run=True))
    groups = {row.entry.path: row.group for row in done.rows}
    assert [groups[path] for path in paths[::2]] == [groups[path] for path in paths[1::2]]
    assert len(set(groups.values())) == len(paths) // 2


def test_no_group_is_in_two_splits(folder: Path) -> None:
    done = convert(config(folder, group_regex="nih", holdout=0.25))
    splits: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    for row in table(done.out):
        splits.setdefault(row["group"], set()).add(row["split"])
        patients.setdefault(Path(row["path"]).name[:8], set()).add(row["group"])
    assert len(splits) == 8 and all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in patients.values())
    hashes = {}
    for split in ("train", "val", "heldout"):
        with Beton(done.out / f"{split}.beton") as beton:
            assert (beton.rows_N["flags"] & PATIENT_KNOWN).all()
            hashes[split] = {row.tobytes() for row in beton.rows_N["patient_hash"]}
    assert not hashes["train"] & hashes["val"] and not hashes["train"] & hashes["heldout"]


def test_without_patients_each_file_is_its_own_group_with_a_caution(folder: Path) -> None:
    done = convert(config(folder))
    assert len({row["group"] for row in table(done.out)}) == 24
    assert caution("patients-unknown", unknown=24, images=24) in done.cautions


def test_one_worker_or_two_write_the_same_bytes(folder: Path) -> None:
    first = convert(config(folder, out=folder.parent / "one"))
    second = convert(config(folder, out=folder.parent / "two", workers=2))
    names = sorted(path.name for path in first.out.iterdir() if not path.name.startswith("."))
    assert names == ["augmentation.png", "convert.csv", "preparation.png", "train.beton", "val.beton"]
    for name in names:
        a, b = (hashlib.sha256((done.out / name).read_bytes()).hexdigest() for done in (first, second))
        assert a == b, name


def test_stored_frames_are_what_decoding_and_resizing_give(folder: Path) -> None:
    done = convert(config(folder))
    rows = [row for row in table(done.out) if row["split"] == "train"]
    with Beton(done.out / "train.beton") as beton:
        assert sorted(int(row["sample"]) for row in rows) == list(range(len(beton)))
        for row in rows:
            sample = int(row["sample"])
            grey_HW = decode_radiograph(folder / row["path"], max_pixels=10**6).grey_HW
            np.testing.assert_array_equal(beton.frame(sample), stored_frame(grey_HW, 46, "stretch")[0])
            assert beton.facts.classes[beton.label_N[sample]] == row["label"]


def test_samples_are_in_a_random_order_that_the_seed_decides(folder: Path) -> None:
    def labels(name: str, seed: int) -> list[int]:
        with Beton(convert(config(folder, out=folder.parent / name, seed=seed)).out / "train.beton") as beton:
            return beton.label_N.tolist()

    first = labels("one", 1)
    assert labels("again", 1) == first
    assert sorted(first) != first != sorted(first, reverse=True)  # not class by class


def test_class_order_and_positive_class_are_kept_as_asked(folder: Path) -> None:
    done = convert(config(folder, classes=("normal", "covid"), positive="covid"))
    with Beton(done.out / "train.beton") as beton:
        assert beton.facts.classes == ("normal", "covid") and beton.facts.positive == "covid"


def test_another_seed_or_split_is_another_conversion(folder: Path) -> None:
    ids = set()
    for seed in (0, 1):
        done = convert(config(folder, seed=seed))
        with Beton(done.out / "train.beton") as train, Beton(done.out / "val.beton") as val:
            assert train.facts.conversion_id == val.facts.conversion_id
            ids.add(train.facts.conversion_id)
    assert len(ids) == 2


def test_a_dry_run_plans_the_same_and_writes_nothing(folder: Path) -> None:
    planned = convert(config(folder, dry_run=True))
    assert not planned.out.exists() and not (folder.parent / "site.key").exists()
    assert convert(config(folder)).samples == planned.samples


def test_a_held_out_set_of_an_earlier_conversion_does_not_linger(folder: Path) -> None:
    out = convert(config(folder, holdout=0.2)).out
    assert (out / "heldout.beton").exists()
    convert(config(folder))
    assert not (out / "heldout.beton").exists()


def test_a_manifests_own_split_is_taken_and_may_not_cut_a_patient(folder: Path) -> None:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [
        f"{path},{path.split('/')[0]},{path},{'val' if index % 4 == 0 else 'train'}" for index, path in enumerate(paths)
    ]
    manifest = folder / "list.csv"
    manifest.write_text("\n".join(["path,label,patient,split", *lines]))
    done = convert(config(folder, source=None, manifest=manifest))
    assert {row["path"] for row in table(done.out) if row["split"] == "val"} == set(paths[::4])
    broken = [
        f"{path},{path.split('/')[0]},p{index // 2},{'val' if index % 4 == 0 else 'train'}"
        for index, path in enumerate(paths)
    ]
    manifest.write_text("\n".join(["path,label,patient,split", *broken]))
    with pytest.raises(InputError, match="one patient"):
        convert(config(folder, source=None, manifest=manifest))


def test_the_site_key_is_made_once_for_its_owner_only(folder: Path) -> None:
    convert(config(folder))
    key = folder.parent / "site.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_text()
    convert(config(folder))
    assert key.read_text() == before


def test_patient_hashes_differ_between_sites(folder: Path) -> None:
    found = []
    for name in ("a.key", "b.key"):
        done = convert(config(folder, group_regex="nih", site_key=folder.parent / name))
        with Beton(done.out / "train.beton") as beton:
            found.append({row.tobytes() for row in beton.rows_N["patient_hash"]})
    assert not found[0] & found[1]


def test_a_killed_conversion_leaves_no_half_file_and_a_rerun_gives_the_same_bytes(folder: Path) -> None:
    wanted = {path.name: path.read_bytes() for path in convert(config(folder)).out.glob("*.beton")}
    shutil.rmtree(folder.parent / "out")
    program = (
        "import os, signal, sys\n"
        "import loaders.beton.writer as writer\n"
        "from pathlib import Path\n"
        "from loaders.config import CatalogConfig, ConvertConfig\n"
        "from loaders.convert.convert import convert\n"
        "writer.pack_footer = lambda *parts: os.kill(os.getpid(), signal.SIGKILL)\n"
        "source = Path(sys.argv[1])\n"
        "convert(ConvertConfig(catalog=CatalogConfig(source=source), out=source.parent / 'out', size=32, workers=1,"
        " site_key=source.parent / 'site.key'))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(folder)], check=False, capture_output=True)
    assert killed.returncode == -9
    assert not list((folder.parent / "out").glob("*.beton"))
    out = convert(config(folder)).out
    assert {path.name: path.read_bytes() for path in out.glob("*.beton")} == wanted
    assert not [path for path in out.iterdir() if "tmp" in path.name]


def test_every_real_radiograph_is_counted(radiographs: Path, tmp_path: Path) -> None:
    done = convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=radiographs / "radiographs.csv", classes=("covid", "normal")),
            size=128,
            holdout=0.15,
            out=tmp_path / "b",
            site_key=tmp_path / "site.key",
        )
    )
    assert done.files == 239 and done.counts["excluded"] == 137
    assert [found.code for found in done.cautions] == ["confounded-with-source"]
    splits: dict[int, set[str]] = {}
    for row in done.rows:
        if row.verdict == "written":
            splits.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    for split, wanted in (("train", 0.68), ("val", 0.17), ("heldout", 0.15)):
        assert sum(done.samples[split].values()) == pytest.approx(wanted * 239, abs=6)


def test_a_disk_without_room_is_refused_before_anything_is_decoded(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(StorageError, match=r"1,000 bytes free on the disk, expected \d"):
        convert(config(folder))
    assert not (folder.parent / "out").exists()


def test_the_pictures_show_the_radiographs(folder: Path) -> None:
    out = convert(config(folder)).out
    for name, columns in (("preparation.png", 4), ("augmentation.png", 6)):
        page = np.asarray(Image.open(out / name).convert("L"))
        for column in range(columns):
            tile = page[60:200, 120 + column * 208 : 290 + column * 208]
            assert tile.std() > 20, (name, column)


def test_a_file_that_vanishes_before_the_pictures_costs_only_its_row_of_them(folder: Path, monkeypatch) -> None:
    import loaders.convert.contact_sheet as contact_sheet

    def vanished(path: Path, **settings: object) -> None:
        raise RadiographError("gone")

    monkeypatch.setattr(contact_sheet, "decode_radiograph", vanished)
    done = convert(config(folder))
    assert {path.name for path in done.out.glob("*.p*")} >= {"preparation.png", "augmentation.png"}


def test_phantoms_taken_as_a_folder_stay_synthetic(phantoms: Path, tmp_path: Path) -> None:
    source = phantoms.parent / "images"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(source=source), out=tmp_path / "b", size=32, workers=1, site_key=tmp_path / "k"
        )
    )
    with Beton(tmp_path / "b" / "train.beton") as beton:
        assert beton.facts.synthetic


def test_a_group_regex_that_matches_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"matches no path, expected a match in paths like covid/00000000_000\.png"):
        convert(config(folder, group_regex=r"^patient(\d+)"))


def test_frames_that_no_page_holds_are_refused_at_once_with_the_page_that_would(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--page-mib: found 8, expected at least 16 for --size 2048"):
        config(folder, size=2048)


def test_a_manifest_line_is_named_as_an_editor_counts_it(folder: Path) -> None:
    manifest = folder / "list.csv"
    manifest.write_text('path,label,note\n\na.png,covid,"two\nlines"\n,normal,x\n')
    with pytest.raises(InputError, match="line 5 has no path"):
        convert(config(folder, source=None, manifest=manifest))


def test_a_site_key_among_the_betons_is_refused(folder: Path) -> None:
    out = folder.parent / "out"
    with pytest.raises(ConfigError, match="which may be shared"):
        convert(config(folder, site_key=out / "keys" / ".." / "site.key"))
    assert not out.exists()


def test_a_site_key_on_a_full_disk_reports_how_much_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"site\.key: No space left on device, expected 65 bytes of room"):
        load_site_key(tmp_path / "site.key")


def test_a_site_key_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.key")
    with pytest.raises(InputError, match="no regular file"):
        load_site_key(tmp_path / "site.key")


def test_a_key_left_empty_by_a_crash_cannot_happen_and_two_first_runs_agree(tmp_path: Path, monkeypatch) -> None:
    key = tmp_path / "keys" / "site.key"

    def crash(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(StorageError):
            load_site_key(key)
    assert list(key.parent.iterdir()) == []
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load_site_key, [key] * 8))) == 1


def test_the_chosen_fit_is_used_and_recorded(folder: Path) -> None:
    with Beton(convert(config(folder, fit="contain")).out / "train.beton") as beton:
        assert beton.facts.fit == "contain"
        for sample in range(len(beton)):  # 70 × 60 pixels in a square of 46: black at the left and right
            frame_SS = beton.frame(sample)
            assert not frame_SS[:, :3].any() and not frame_SS[:, -3:].any() and frame_SS[:, 5:40].any()


def test_views_sources_and_small_files_are_recorded_for_each_sample(folder: Path) -> None:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [
        f"{path},{path.split('/')[0]},{'AP' if index % 2 else 'PA'},s{index % 3}" for index, path in enumerate(paths)
    ]
    manifest = folder / "list.csv"
    manifest.write_text("\n".join(["path,label,view,source", *lines]))
    for size, flagged in ((32, False), (64, True)):  # stored at 46 and 92; the files are 70 × 60
        done = convert(config(folder, source=None, manifest=manifest, size=size))
        rows = sorted((row for row in done.rows if row.split == "train"), key=lambda row: row.sample)
        with Beton(done.out / "train.beton") as beton:
            assert [beton.facts.views[view] for view in beton.rows_N["view"]] == [row.entry.view for row in rows]
            assert [beton.facts.sources[source] for source in beton.rows_N["source"]] == [
                row.entry.source for row in rows
            ]
            assert ((beton.rows_N["flags"] & BELOW_STORED_SIDE > 0) == flagged).all()


def listed(folder: Path, name: str, columns: str, cells: Callable[[int], str]) -> ConvertConfig:
    """A conversion of a manifest with further columns.  cells: of the row of a number."""
    paths = sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.png"))
    rows = [f"{path},{path.split('/')[1]},{cells(number)}" for number, path in enumerate(paths)]
    manifest = folder.parent / f"{name}.csv"
    manifest.write_text("\n".join([f"path,label,{columns}", *rows]))
    return config(folder, source=None, manifest=manifest, out=folder.parent / name)


def shown(done: Conversion) -> str:
    return "\n".join(part.text for part in conversion_parts(done) if isinstance(part, Line))


def test_sex_and_age_are_written_nowhere_unless_asked_for_and_then_in_decades(folder: Path) -> None:
    sexes, ages = ("F", "male", "unknown"), ("21354D", "90+", "411", "018M")
    plain = listed(folder, "plain", "patient", lambda number: f"p{number}")
    known = listed(
        folder, "known", "patient,sex,age", lambda number: f"p{number},{sexes[number % 3]},{ages[number % 4]}"
    )
    kept = replace(known, keep_demographics=True, out=folder.parent / "kept")
    done = [convert(settings) for settings in (plain, known, kept)]
    for path in plain.out.iterdir():
        content = path.read_bytes()
        assert content == (known.out / path.name).read_bytes()
        assert (content == (kept.out / path.name).read_bytes()) == (path.suffix != ".beton")
    assert done[0].cautions == done[1].cautions
    (found,) = (one for one in done[2].cautions if one not in done[1].cautions)
    assert found == caution("demographics-kept", sexes=16, ages=18, images=24, patients=2)
    for row in done[2].rows:
        number = int(row.entry.patient[1:])
        with Beton(kept.out / f"{row.split}.beton") as beton:
            sex_N, age_N = sexes_and_ages(beton.rows_N)
            assert SEXES[sex_N[row.sample]] == ("female", "male", "")[number % 3]
            assert AGES[age_N[row.sample]] == ("50-59", "90 and above", "", "0-9")[number % 4]
            assert beton.facts.demographics
    with Beton(known.out / "train.beton") as first, Beton(kept.out / "train.beton") as second:
        assert first.facts.conversion_id != second.facts.conversion_id and not first.facts.demographics
    for text in (shown(done[1]), (kept.out / "convert.csv").read_text()):
        assert not re.search("female|50-59|21354|018M", text)


@pytest.mark.parametrize("patient", ["0", "X17"])
def test_one_patient_for_everything_is_none_with_the_remedy(folder: Path, patient: str) -> None:
    done = convert(listed(folder, "one", "patient", lambda number: patient))
    assert {"one-patient", "patients-unknown"} <= {found.code for found in done.cautions}
    assert done.counts["written"] == 24 and len({row.group for row in done.rows}) == 24
    assert "24 of 24 films" in shown(done) and "--group-regex" in shown(done)
    for path in done.out.glob("*.beton"):
        with Beton(path) as beton:
            assert not beton.rows_N["patient_hash"].any() and not (beton.rows_N["flags"] & PATIENT_KNOWN).any()


def test_what_a_killed_conversion_left_is_gone_after_one_that_would_not_write_it(folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    for name in ("heldout.beton", "audit.csv", "spool", "spool-0123"):
        (out / (name + SUFFIX)).write_bytes(b"half")
    convert(config(folder))
    assert not list(out.glob(f"*{SUFFIX}"))


def test_workers_of_a_killed_conversion_do_not_find_the_next_ones_spool(tmp_path: Path) -> None:
    killed = spool_file(tmp_path, 16)
    spool = killed.__enter__()  # and never leaves
    with spool_file(tmp_path, 16) as next_one:
        with pytest.raises(FileNotFoundError):
            write_frame(spool, 0, np.ones(4, np.uint8))
        assert next_one.read_bytes() == bytes(16)


def test_a_site_key_that_was_killed_in_the_making_leaves_nothing_beside_the_next(tmp_path: Path) -> None:
    (tmp_path / f"site.key{SUFFIX}").write_text("f00")
    load_site_key(tmp_path / "site.key")
    assert [path.name for path in tmp_path.iterdir()] == ["site.key"]
    assert (tmp_path / "site.key").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_locked_is_not_called_locked(folder: Path, monkeypatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    load_site_key(config(folder).site_key)
    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StorageError, match="No locks available"):
        convert(config(folder))


@pytest.mark.parametrize(
    ("size", "code"), [((2, 2), "too-small"), ((3, 4000), "too-small"), ((4000, 100), "odd-shape")]
)
def test_a_picture_that_no_radiograph_can_be_by_its_sides_is_rejected(
    folder: Path, size: tuple[int, int], code: str
) -> None:
    Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)).save(folder / "covid" / "odd.png")
    Image.fromarray(np.arange(16 * 80, dtype=np.uint8).reshape(80, 16)).save(folder / "covid" / "small.png")
    rows = {row["path"]: row for row in table(convert(config(folder)).out)}
    assert rows["covid/odd.png"]["verdict"] == "rejected" and rows["covid/odd.png"]["kind"] == code
    assert rows["covid/odd.png"]["reason"].startswith(f"{size[1]} × {size[0]} pixels, expected ")
    assert rows["covid/small.png"]["verdict"] == "written"


@pytest.mark.parametrize(("own", "rest"), [("train heldout", "train"), (" heldout", "")])
def test_validation_is_dealt_by_groups_where_only_the_held_out_share_is_named(own: str, rest: str) -> None:
    """Groups are known only after decoding: those of near duplicates must not be parted."""
    splits = own.split(" ")
    rows = [
        Row(entry=Entry(path=f"{place}.png", label="ab"[place // 4 % 2], split=splits[place >= 40]), group=place // 4)
        for place in range(60)
    ]
    asked = ConvertConfig(catalog=CatalogConfig(manifest=Path("t.csv")), out=Path("out"), val=0.25)
    chosen = choose_splits(asked, Catalog(root=Path(), entries=(), classes=("a", "b")), rows)
    assert chosen[40:] == ["heldout"] * 20 and set(chosen[:40]) == {"train", "val"}
    assert all(len({chosen[place] for place in range(start, start + 4)}) == 1 for start in range(0, 40, 4))
    rows[39].group = rows[40].group
    with pytest.raises(
        InputError, match=f"39.png is in {rest or 'the rest'}, 40.png in heldout, .*expected one split for both"
    ):
        choose_splits(asked, Catalog(root=Path(), entries=(), classes=("a", "b")), rows)
