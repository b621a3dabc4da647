"""The commands that write, as the campaign of failing disks attacks them.  W/ stands for the work folder."""

from __future__ import annotations

from dataclasses import dataclass

DECODE = "--size 32 --workers 1"
BETONS = f"{DECODE} --page-mib 2 --site-key W/key"
QUICK = "--epochs 1 --threads 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A command to attack.  argv: its words.  needs: parts of EARLIER that it finds in the work folder, in order.

    before: source that the victim runs first.  imports: modules that it needs.
    synced: whether its files are synced before they take their names; phantoms, which can be drawn again, are not.
    """

    name: str
    argv: str
    needs: tuple[str, ...] = ()
    before: str = ""
    imports: str = ""
    synced: bool = True


# what an earlier command leaves in the work folder; each needs those before it that its words name
EARLIER = {
    "P": "phantom W/P --patients 24 --images-per-patient 1 --size 64",
    "B": f"convert W/P/images --out W/B --holdout 0.3 {BETONS}",
    "A": f"audit W/P/images --out W/A {DECODE}",
    "R": f"train W/B --out W/R {QUICK}",
    "H": "train W/B --out W/H --epochs 2 --threads 1",
    "C": f"crossval W/B --out W/C --folds 2 --splits group --resamples 100 {QUICK}",
    "E": "evaluate W/R W/B/heldout.beton --out W/E --resamples 100",
    "X": "explain W/R W/B/heldout.beton --out W/X --samples 2",
    "said.csv": "predict W/R W/P/images/covid --out W/said.csv --audit off --workers 1",
    "model.onnx": "export W/R --out W/model.onnx",
}
# H is interrupted
STOP_AFTER_EPOCH = """
import engine.train.train
save = engine.train.train.Training.save_last
def save_last(self):
    save(self)
    raise KeyboardInterrupt
engine.train.train.Training.save_last = save_last
"""
# others fill the disk once a command has found it large enough
OTHERS_FILL = """
import loaders.convert.convert, sys
if "engine.crossval.crossval" in sys.modules:
    sys.modules["engine.crossval.crossval"].check_room = lambda *_: None
loaders.convert.convert.check_room = lambda *_: None
"""
# the writing is attacked, not torch's exporter, which takes ten seconds
KEPT_MODEL = "import engine.export.export as e, onnx; kept = onnx.load('W/model.onnx'); e.onnx_model = lambda _: kept\n"
SCENARIOS = (
    Scenario(name="convert", argv=EARLIER["B"] + " --seed 2", needs=("P", "B")),
    Scenario(name="phantom", argv=EARLIER["P"], imports="loaders.phantom.folder", synced=False),
    Scenario(name="audit", argv=EARLIER["A"] + " --limit-blurred 2.5", needs=("P", "A"), imports="loaders.audit.audit"),
    Scenario(name="convert anew", argv=f"convert W/P/images --out W/B --audit auto {BETONS}", needs=("P",)),
    Scenario(name="train", argv=EARLIER["R"], needs=("P", "B"), imports="engine.report.report"),
    Scenario(name="resume", argv="train --resume W/H", needs=("P", "B", "H")),
    Scenario(
        name="evaluate",
        argv=EARLIER["E"] + " --seed 2",
        needs=("P", "B", "R", "E"),
        imports="engine.evaluate.output",
    ),
    Scenario(
        name="evaluate in the run",
        argv="evaluate W/R W/B/heldout.beton --resamples 100",
        needs=("P", "B", "R"),
    ),
    Scenario(
        name="predict",
        argv=EARLIER["said.csv"] + " --min-confidence 0.5",
        needs=("P", "B", "R", "said.csv"),
        imports="engine.predict.predict",
    ),
    Scenario(
        name="explain",
        argv=EARLIER["X"] + " --seed 2",
        needs=("P", "B", "R", "X"),
        imports="engine.explain.findings",
    ),
    Scenario(name="crossval", argv=EARLIER["C"], needs=("P", "B"), imports="engine.crossval.output"),
    Scenario(name="crossval again", argv=EARLIER["C"], needs=("P", "B", "C")),
    Scenario(
        name="export",
        argv=EARLIER["model.onnx"],
        needs=("P", "B", "R", "model.onnx"),
        before=KEPT_MODEL,
        imports="engine.export.export, onnx, onnxruntime, onnxscript",
    ),
    Scenario(name="report", argv="report W/R", needs=("P", "B", "R")),
)
