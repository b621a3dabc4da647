"""A command that finds its inputs missing or damaged leaves the results of an earlier one as they were."""

import shutil
from pathlib import Path

import pytest

import cli
from engine.train.train import train
from loaders.beton.reader import Beton
from tests.example_run import small_training

WRITES_NOTHING = {"info", "verify", "bench-loader"}
# of each command: the files that an earlier one left in OUT, and arguments with which it cannot work
LEFT = {
    "phantom": ("phantoms.csv", "images/covid/phantom-0-0001_000.png"),
    "convert": (
        "train.beton", "val.beton", "heldout.beton", "convert.csv", "audit.csv", "audit.html", "preparation.png",
        "augmentation.png",
    ),
    "segment": ("masks.csv", "contact-sheet.png", "masks/a.png.mask.png"),
    "audit": ("audit.csv", "audit.html"),
    "train": ("best.safetensors", "last.safetensors", "metrics.csv", "summary.json", "leakage.safetensors"),
    "segment-train": ("segmenter.json", "net-1.onnx", "net-2.onnx"),
    "segment-test": ("segmentation.json", "segmentation.csv"),
    "compare": ("comparison.json", "comparison.csv", "comparison.png"),
    "crossval": ("crossval.json", "crossval.csv", "crossval.png"),
    "hurdles": ("hurdles.json", "hurdles.csv", "hurdles.png", "removed.csv"),
    "evaluate": ("SET/metrics.json", "SET/scores.csv", "SET/roc.png"),
    "predict": ("table.csv",),
    "export": ("model.onnx", "model_card.md"),
    "explain": ("SET/explanation.json", "SET/gallery.png", "SET/0001.png"),
    "profile": ("profile.json", "profile.png", "trace.json"),
    "report": (
        "report.html", "crossval.json", "crossval.png", "hurdles.json", "hurdles.png", "probes.json", "dataflow.json",
    ),
}  # fmt: skip
WRONG = {
    "phantom": ["OUT"],
    "convert": [
        "lost", "unreadable", "--manifest lost.csv", "--manifest MANIFEST --audit lost.csv",
        "--manifest MANIFEST --audit junk.csv", "--manifest MANIFEST --classes covid,flu", "unreadable --audit auto",
        "lost --preset nih", "--manifest gone.csv", "--manifest gone.csv --audit auto",
    ],
    "segment": ["lost", "unreadable", "--manifest lost.csv", "SOURCE --segmenter junk", "SOURCE"],
    "segment-train": ["--manifest lost.csv", "--manifest junk.csv", "--manifest gone.csv", "--phantoms 4"],
    "segment-test": ["--manifest lost.csv", "--manifest gone.csv", "--manifest MANIFEST --segmenter lost"],
    "audit": ["lost", "unreadable", "--manifest lost.csv", "--manifest gone.csv", "lost.beton", "junk.beton"],
    "train": ["lost", "damaged", "BETONS --weights lost.pth", "--resume OUT lost", "BETONS"],
    "compare": ["lost --models cnn", "damaged --models cnn", "BETONS --models cnn --weights lost.pth"],
    "crossval": ["lost", "damaged", "BETONS --external lost.beton", "BETONS --external junk.beton"],
    "hurdles": ["lost", "damaged", "BETONS lost", "BETONS BETONS", "BETONS --by source", "BETONS --folds 99"],
    "evaluate": [
        "lost BETONS/heldout.beton", "RUN BETONS/heldout.beton lost.beton", "RUN BETONS/heldout.beton junk.beton",
        "RUN BETONS/heldout.beton --against lost", "RUN BETONS/train.beton BETONS/heldout.beton",
    ],
    "predict": ["lost FILM", "RUN lost.png", "RUN FILM lost.png", "RUN unreadable", "RUN empty"],
    "export": ["lost", "empty"],
    "explain": [
        "lost BETONS/heldout.beton", "RUN lost.beton", "RUN junk.beton", "RUN BETONS/heldout.beton --masks lost",
        "RUN BETONS/heldout.beton --masks junk.csv", "RUN BETONS/heldout.beton --masks MANIFEST --table lost.csv",
        "RUN BETONS/heldout.beton --segmenter lost", "RUN BETONS/heldout.beton --masks usual --segmenter junk",
    ],
    "profile": ["lost --source SOURCE", "BETONS --source lost", "damaged --source SOURCE"],
    "report": [
        "lost", "OUT --data lost", "OUT --crossval lost", "OUT --crossval junk", "OUT --hurdles lost",
        "OUT --hurdles junk", "OUT --data damaged",
    ],
}  # fmt: skip
OUTS = {"predict": "OUT/table.csv", "export": "OUT/model.onnx", "report": "", "phantom": ""}
MORE = {
    "phantom": "--patients 2 --size 64",
    "convert": "--size 32 --workers 1 --site-key KEY",
    "segment": "--size 32 --workers 1 --site-key KEY",
    "segment-train": "--site-key KEY",
    "segment-test": "--site-key KEY",
    "audit": "--size 32 --workers 1",
    "predict": "--workers 1",
    "profile": "--rounds 1 --steps 1 --trace OUT/trace.json",
}


@pytest.fixture(scope="module")
def place(betons: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Words of WRONG and the paths that they stand for: a run, and inputs that are lost, empty or damaged."""
    base = tmp_path_factory.mktemp("inputs")
    train(small_training(betons, base / "run", batch_size=8))
    for label in ("a", "b"):
        (base / "unreadable" / label).mkdir(parents=True)
        (base / "unreadable" / label / f"{label}.png").write_text("no picture")
    (base / "gone.csv").write_text("path,label\na.png,a\nb.png,b\n")
    (base / "empty").mkdir()
    (base / "junk").mkdir()
    for name in ("crossval", "hurdles"):
        (base / "junk" / f"{name}.json").write_text("{")
    (base / "junk.csv").write_text("nothing,of,use\n1,2,3\n")
    (base / "junk.beton").write_bytes(b"no beton" * 1000)
    (base / "damaged").mkdir()
    for path in betons.iterdir():
        if path.is_file():
            (base / "damaged" / path.name).write_bytes(path.read_bytes()[:-4000])
    words = {
        "BETONS": betons,
        "MANIFEST": phantoms,
        "SOURCE": phantoms.parent,
        "RUN": base / "run",
        "KEY": base / "key",
    }
    words["FILM"] = next((phantoms.parent / "images").rglob("*.png"))
    names = ("lost", "unreadable", "empty", "damaged", "junk")
    files = ("lost.csv", "lost.beton", "lost.png", "lost.pth", "junk.csv", "junk.beton", "gone.csv")
    return {name: str(path) for name, path in words.items()} | {name: str(base / name) for name in (*names, *files)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_command_that_writes_is_tried() -> None:
    assert LEFT.keys() == WRONG.keys() == cli.COMMANDS.keys() - WRITES_NOTHING


@pytest.mark.parametrize(("command", "wrong"), [(name, wrong) for name, cases in WRONG.items() for wrong in cases])
def test_a_command_that_cannot_work_leaves_what_an_earlier_one_wrote(
    command: str, wrong: str, place: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if command in ("train", "report"):
        shutil.copytree(place["RUN"], out)
    with Beton(Path(place["BETONS"]) / "heldout.beton") as beton:
        names = [name.replace("SET", beton.set_name) for name in LEFT[command]]
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if not (out / name).exists():
            (out / name).write_text(f"an earlier {name}")
    before = contents(out)
    words = f"{wrong} {MORE.get(command, '')}".split()
    if "--resume" not in words and OUTS.get(command, "OUT"):
        words += ["--out", OUTS.get(command, "OUT")]
    known = place | {"OUT": str(out)}
    argv = [known.get(word) or "/".join(known.get(part, part) for part in word.split("/")) for word in words]
    if (
        command in ("train", "compare", "crossval", "hurdles", "evaluate", "predict", "explain", "profile")
        and "--resume" not in argv
    ):
        argv += ["--device", "cpu"]
    assert cli.main([command, *argv]) in (2, 3, 4, 5)
    after = contents(out)
    assert {name: after.get(name) for name in before} == before
    assert {name for name in after.keys() - before.keys() if "plainfilm-lock" not in name} == set()
