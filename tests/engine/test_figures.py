"""Figures: every one that the product makes, for short, long and hostile names of few and many classes."""

# N samples, K classes, S side of a stored frame

import ast
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont

import loaders.figure_text as figure_text
from benchmarks.document import all_results, comparisons_of, latest_bench
from benchmarks.speed_picture import speed_figure
from engine.compare import Contender, comparison_figure
from engine.crossval.findings import why_refused
from engine.crossval.output import TARGETS, crossval_figure
from engine.crossval.scores import FindingTarget, Guess, OverFolds, Target, TargetResult
from engine.evaluate.figures import Curve, Panel, pr_figure, roc_figure, score_figure
from engine.evaluate.findings import FIGURES as OF_FINDINGS
from engine.evaluate.findings import figures as findings_figures
from engine.evaluate.results import Scores, at_points, figures
from engine.explain.by_finding import caption_of, findings_gallery
from engine.explain.controls import Deletion
from engine.explain.explain import CAPTION
from engine.explain.findings import Example, caption
from engine.explain.gallery import TITLES, deletion_figure, gallery, overlay
from engine.figures import DPI, confusion_figure, curves_figure
from engine.hurdles.figure import hurdles_figure
from engine.hurdles.results import FindingCell
from engine.profile.breakdown import Measured, variants_for
from engine.profile.output import profile_figure
from engine.statistics.estimates import UNDEFINED, Estimate, estimates
from engine.statistics.thresholds import choose_operating_points
from engine.train.summary import title
from loaders.batches.loader import Loader
from loaders.beton.format import ROW, Facts
from loaders.beton.writer import write_beton
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, stored_side
from loaders.convert.contact_sheet import GAP, SIDE, TILE, TITLE, augmentation_sheet, preparation_sheet, to_levels
from loaders.convert.conversion import Row
from loaders.figure_text import EM, FAMILY, class_names, family_of, name_text, width, wrap, write
from loaders.images.decode import Decoded
from loaders.lungs.sheet import FOUND, Tile, contact_sheet
from loaders.sources.catalog import Catalog
from loaders.sources.entry import Entry
from tests.example_run import alone as lone
from tests.example_run import (
    comparison,
    crossval,
    finding_cell,
    finding_explained,
    findings_explanation,
    hurdles,
    hurdles_cell,
    hurdles_row,
    leave_one_out,
)
from tests.example_run import metrics as example_metrics
from tests.findings_example import evaluated

ROOT = Path(__file__).parents[2]
CROP = 32
LONG = "pneumonia of the lower left lobe, viral "  # 40 signs
HOSTILE = (
    "$x$", "_covid", "a\nb", "Ünï", "新冠肺炎", "\u202eabc", "\\n", "W" * 200, "a\tb", r"$\frac{_x^$", "\x1b[31m",
    "\udcff", "<b>&amp;", "100 %", "x" * 200, "lung " * 40, "Ж", "كوفيد", "_", "$",
)  # fmt: skip
NIH = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
CASES = {
    "two": ("covid", "normal"),
    "three": ("covid", "normal", "pneumonia"),
    "fourteen": NIH,
    "twenty": tuple(f"finding {number}" for number in range(20)),
    "two-long": (LONG + "a", LONG + "b"),
    "three-long": tuple(f"{LONG}{number}" for number in range(3)),
    "twenty-long": tuple(f"{number} {LONG}"[:40] for number in range(20)),
    "two-hostile": ("$x$ _covid a\nb Ünï", "新冠肺炎 \u202eabc a\tb"),
    "two-hostile-wide": (r"\n $\frac{_x^$ \x1b[31m", "W" * 200),
    "three-hostile": ("_covid", "新冠肺炎", "W" * 200),
    "twenty-hostile": HOSTILE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Names that figures are drawn for.  file: of a beton.  folder: for files."""

    classes: tuple[str, ...]
    file: str
    folder: Path

    @property
    def facts(self) -> Facts:
        """Of a beton of these classes."""
        return Facts(
            classes=self.classes, positive=self.classes[0], stored=stored_side(CROP), crop=CROP, fit="stretch",
            split="train", seed=0, conversion_id="", site_key_id="", source_fingerprint="",
        )  # fmt: skip


def scores_of(classes: tuple[str, ...], num_samples: int = 240) -> Scores:
    """Scores that are right more often than not."""
    rng = np.random.default_rng(0)
    label_N = np.arange(num_samples) % len(classes)
    logits_NK = rng.normal(0, 1, (num_samples, len(classes))) + 1.5 * (label_N[:, None] == np.arange(len(classes)))
    share_NK = np.exp(logits_NK)
    probability_NK = share_NK / share_NK.sum(1, keepdims=True)
    return Scores(
        label_N=label_N, probability_NK=probability_NK, group_N=np.arange(num_samples), classes=classes, positive=0
    )


def draw_curves(case: Case) -> list[Figure]:
    history = [
        {"epoch": e, "train_loss": 0.6 / e, "val_loss": 0.65 / e, "train_f1": 1 - 0.4 / e, "val_f1": 0.9 - 0.2 / e}
        for e in range(1, 27)
    ]
    names = class_names(case.classes)
    return [curves_figure(history, 19, title(case.facts, names, 1648, 412), names.note)]


def history_of(num_findings: int, unmeasured: int | None = None) -> list[dict[str, Any]]:
    """Epochs of a training of findings; the first has the lowest AUC.  unmeasured: a finding without one."""
    return [
        {"epoch": e, "train_loss": 0.6 / e, "val_loss": 0.65 / e, "train_f1": 1 - 0.9 / e, "val_f1": 0.9 - 0.4 / e}
        | {
            f"val_auc[{place}]": None if place == unmeasured else 0.99 - 0.4 / e - 0.01 * (num_findings - place)
            for place in range(num_findings)
        }
        for e in range(1, 27)
    ]  # fmt: skip


def draw_finding_curves(case: Case) -> list[Figure]:
    """Of all the names, and of the first fourteen; one finding was measured in no epoch, or none was in any."""
    figures = []
    for classes in {case.classes, case.classes[:14]}:
        names, facts = class_names(classes, kind="finding"), replace(case.facts, classes=classes, task="findings")
        history, shown = history_of(len(classes), unmeasured=1), list(names.text_of.values())
        what = title(facts, names, 1648, 412, len(classes) - 1)
        figures.append(curves_figure(history, 19, what, names.note, shown))
    none = [{name: None if name.startswith("val_auc") else value for name, value in row.items()} for row in history]
    return [*figures, curves_figure(none, 0, what, names.note, shown)]


def draw_evaluation(case: Case) -> list[Figure]:
    scores = scores_of(case.classes)
    points = choose_operating_points(scores.label_N == 0, scores.probability_NK[:, 0])
    estimate = partial(estimates, resamples=20)
    metrics = msgspec.structs.replace(
        example_metrics(),
        set_name=case.file,
        synthetic=True,
        estimates=estimate(scores.label_N, scores.probability_NK, scores.group_N, 0),
        operating_points=at_points(scores, points, estimate, None),
    )
    drawn = figures(scores, metrics)
    assert len(drawn) == 5
    return list(drawn.values())


def draw_findings(case: Case) -> list[Figure]:
    test, metrics = evaluated(case.classes, rare=len(case.classes) // 4, set_name=case.file)
    drawn = findings_figures(test, metrics)
    assert tuple(drawn) == OF_FINDINGS
    return list(drawn.values())


def draw_comparison(case: Case) -> list[Figure]:
    sure = Estimate(value=0.97, low=0.93, high=0.99, method="bootstrap")
    contenders = [
        Contender(model="cnn", validation_f1=sure, heldout_f1=msgspec.structs.replace(sure, value=0.94, low=0.9)),
        Contender(model="densenet121", failed="out of memory"),
        Contender(model=case.classes[-1], validation_f1=msgspec.structs.replace(sure, value=1.0, low=1.0, high=1.0)),
    ]
    names = list(case.classes)
    of_findings = [msgspec.structs.replace(row, validation_auc=row.validation_f1) for row in contenders]
    return [
        comparison_figure(comparison(networks=contenders, classes=names, positive=names[0])),
        comparison_figure(comparison(networks=of_findings, classes=names, positive="")),
    ]


def draw_crossval(case: Case) -> list[Figure]:
    def row(target: Target, value: float | None, low: float | None) -> TargetResult:
        found = Estimate(value=value, low=low, high=None if low is None else 0.97, method="")
        f1 = OverFolds(estimate=found, mean=0.9, spread=0.1, folds=[value, None, 0.9])
        (known, *_) = crossval().targets
        return msgspec.structs.replace(known, target=target, num_samples=12060, num_groups=11530, f1=f1)

    guess = Guess(predicted=case.classes[0], f1=0.59, auc=0.5, accuracy=0.5)
    result = crossval(
        targets=[row("random", 0.95, 0.91), row("group", 0.9, None), row("lungs-hidden", None, None)],
        classes=list(case.classes), positive=case.classes[0], num_samples=12060, trivial=guess,
        always_positive=guess if len(case.classes) == 2 else None,
    )  # fmt: skip
    high = msgspec.structs.replace(guess, f1=0.97)
    changed = [
        msgspec.structs.replace(result, trivial=high, always_positive=None),
        msgspec.structs.replace(
            result, positive="", always_positive=msgspec.structs.replace(guess, predicted="present"),
            targets=[
                msgspec.structs.replace(one, findings=findings_of(case, one), f1=over_some(one.f1))
                for one in result.targets
            ],
        ),
    ]  # fmt: skip
    every = msgspec.structs.replace(result, targets=[row(target, 0.9, 0.8) for target in TARGETS])
    return [crossval_figure(one) for one in (result, *changed, every)]


def over_some(found: OverFolds) -> OverFolds:
    """A mean over some findings."""
    return msgspec.structs.replace(found, estimate=msgspec.structs.replace(found.estimate, defined=12, classes=14))


def findings_of(case: Case, target: TargetResult) -> list[FindingTarget]:
    """One finding a class, of which each third is not measured."""
    unknown = OverFolds(estimate=UNDEFINED, mean=None, spread=None, folds=[None] * 3)
    scores = [target.f1 if place % 3 else unknown for place in range(len(case.classes))]
    return [
        FindingTarget(
            name=name, num_known=112_120, num_present=12_345, num_groups=30_805, f1=f1, auc=f1, accuracy=f1,
            refused=why_refused(name, case.classes) if f1 is unknown else None, confusion=[[1, 2], [3, 4]],
            difference={},
        )
        for name, f1 in zip(case.classes, scores, strict=True)
    ]  # fmt: skip


def draw_hurdles(case: Case) -> list[Figure]:
    """Collections that are called as the classes are: up to twelve, one of them alone, and one column of one class."""
    names = case.classes[:12]
    first, second, *_ = names
    result = hurdles(names, classes=list(case.classes))
    undefined = hurdles_cell(first, second, None, 0.96, num_samples=1_234_567)
    cells = [undefined if (cell.row, cell.column) == (first, second) else cell for cell in result.cells]
    rows = [msgspec.structs.replace(row, confounded=True) for row in result.rows]
    planted = msgspec.structs.replace(result, cells=cells, rows=rows)
    alone = msgspec.structs.replace(
        result,
        collections=result.collections[:1],
        rows=[hurdles_row(first)],
        cells=[hurdles_cell(first, first, 0.5, estimates={"auc": lone(0.5)})],
    )
    drawn = [hurdles_figure(planted), hurdles_figure(leave_one_out(planted)), hurdles_figure(alone)]
    fewer = {"auc": Estimate(value=0.93, low=0.9, high=0.95, method="bootstrap", defined=12, classes=14)}
    of_findings = [
        msgspec.structs.replace(
            cell, estimates=fewer, drop=fewer if cell.drop else {},
            findings=[msgspec.convert(finding_cell(case.classes[0]), FindingCell)],
        )
        for cell in planted.cells
    ]  # fmt: skip
    return [*drawn, hurdles_figure(msgspec.structs.replace(planted, positive="", cells=of_findings))]


def draw_profile(case: Case) -> list[Figure]:
    variants = variants_for({2: "cpu", 3: "cuda"}.get(len(case.classes), "mps"))
    parts = {"decode": 0.009, "augment": 0.004, "wait": 0.001, "transfer": 0.001, "forward": 0.004}
    parts |= {"backward": 0.006, "optimiser": 0.002, "other": 0.0005}
    measured = [
        Measured(
            variant=variant, parts={name: seconds / (place + 1) for name, seconds in parts.items()}, overlapped=(),
            training=0.0275 / (place + 1), validation=0.003, turns=(0.02,), conversion=0.01 * (place > 0),
        )
        for place, variant in enumerate(variants)
    ]  # fmt: skip
    return [profile_figure(measured, case.classes[-1])]


def draw_deletion(case: Case) -> list[Figure]:
    share_P = np.linspace(0, 1, 11)
    found = Deletion(
        share=share_P.tolist(), by_map=(1 - share_P).tolist(), at_random=(1 - 0.5 * share_P).tolist(), num_samples=32,
        difference=Estimate(value=-0.2, low=-0.3, high=-0.1, method="bootstrap"),
    )  # fmt: skip
    return [deletion_figure(found, f"GradCAM: {name_text(case.file)} (heldout), n = 32")]


def draw_gallery(case: Case) -> list[Image.Image]:
    names, pictures = class_names(case.classes, CAPTION), []
    for place, kind in enumerate(list(TITLES) * 2):
        predicted = case.classes[place % len(case.classes)]
        example = Example(
            sample=123456, kind=kind, label=case.classes[-1], predicted=predicted, probability=0.9987, lung_ratio=None,
            overlay="",
        )  # fmt: skip
        lines = caption(example, names)
        crop_HW = np.full((CROP, CROP), 120, np.uint8)
        pictures.append((kind, overlay(crop_HW, np.eye(CROP), crop_HW > 0, lines)))
    sentence = "The maps lie on the lungs: they have 1.71 times their share of it. " * 3
    page = gallery(
        pictures, f"HiResCAM: {name_text(case.file)} (heldout)", sentence, f"Not for diagnosis. {names.note}"
    )
    return [picture for _, picture in pictures] + [page]


def draw_findings_gallery(case: Case) -> list[Image.Image]:
    names, pictures = class_names(case.classes, CAPTION, "finding"), []
    result = findings_explanation(*(finding_explained(name) for name in case.classes), set_name=case.file)
    for found in result.findings:
        for example in found.samples:
            lines = caption_of(example, names.text_of[found.name])
            crop_HW = np.full((CROP, CROP), 120, np.uint8)
            pictures.append((found.name, overlay(crop_HW, np.eye(CROP), crop_HW > 0, lines)))
    return [picture for _, picture in pictures] + [findings_gallery(result, pictures, names)]


def draw_preparation(case: Case) -> list[Image.Image]:
    side = stored_side(CROP)
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))).save(case.folder / "film.png")
    decoded = Decoded(width=14000, height=12000, format="DICOM")
    rows = tuple(
        Row(entry=Entry(path="film.png", label=label), decoded=decoded, place=place)
        for place, label in enumerate(case.classes)
    )
    catalog = Catalog(root=case.folder, entries=(), classes=case.classes)
    config = ConvertConfig(catalog=CatalogConfig(source=case.folder), out=case.folder / "out", size=CROP)
    frames_NSS = np.full((len(rows), side, side), 90, np.uint8)
    return [preparation_sheet(config, rows, catalog, frames_NSS)]


def draw_contact_sheet(case: Case) -> list[Image.Image]:
    frame_SS = np.full((CROP, CROP), 90, np.uint8)
    tiles = [
        Tile(
            frame_SS=frame_SS,
            outlines=[(frame_SS > 0, FOUND)],
            lines=(f"{place}: lungs-uncertain", "agreement 0.95, balance 0.85"),
        )
        for place, _ in enumerate(case.classes)
    ]
    return [
        Image.open(io.BytesIO(contact_sheet(tiles, "Lungs by row of masks.csv: 2 of 2 doubtful, 58 of 374 credible")))
    ]


def draw_augmentation(case: Case) -> list[Image.Image]:
    return [augmentation_sheet(beton_of(case), epochs=3)]


def beton_of(case: Case) -> Path:
    """A beton of noise, three samples a class."""
    path, num_samples = case.folder / "train.beton", 3 * len(case.classes)
    frames = np.random.default_rng(1).integers(0, 256, (num_samples, case.facts.stored, case.facts.stored))
    label_N = np.arange(num_samples) % len(case.classes)
    write_beton(path, frames.astype(np.uint8), label_N, np.zeros(num_samples, ROW), case.facts, 2 << 20)
    return path


def draw_speed(case: Case) -> list[Figure]:
    """Of the newest stored result: whatever the classes are, it has no names of theirs."""
    _, bench = latest_bench(all_results())
    return [speed_figure(comparisons_of(bench), bench["machine_info"]["plainfilm"])]


FIGURES: dict[str, Callable[[Case], list[Figure]]] = {
    "curves": draw_curves,
    "finding-curves": draw_finding_curves,
    "evaluation": draw_evaluation,
    "findings": draw_findings,
    "comparison": draw_comparison,
    "crossval": draw_crossval,
    "hurdles": draw_hurdles,
    "profile": draw_profile,
    "deletion": draw_deletion,
    "speed": draw_speed,
}
PICTURES: dict[str, Callable[[Case], list[Image.Image]]] = {
    "gallery": draw_gallery,
    "gallery of findings": draw_findings_gallery,
    "preparation": draw_preparation,
    "augmentation": draw_augmentation,
    "contact sheet": draw_contact_sheet,
}


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """By its name in CASES."""
    classes = CASES[request.param]
    return Case(classes=classes, file=f"{classes[-1]}.beton", folder=tmp_path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A text or picture that was drawn, and its box: left, top or bottom, right, bottom or top, in pixels."""

    text: str
    box: tuple[float, float, float, float]


def drawn_texts(figure: Figure) -> list[Placed]:
    """Every text that a figure draws; ticks beyond the axes' limits are not among them."""
    placed: list[Placed] = []
    draw = Text.draw
    figure.set_dpi(DPI)

    def watched(text: Text, renderer: Any, *arguments: Any, **options: Any) -> None:
        draw(text, renderer, *arguments, **options)
        if text.get_visible() and text.get_text().strip():
            placed.append(Placed(text=text.get_text(), box=text.get_window_extent(renderer).extents))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", watched)
        FigureCanvasAgg(figure).draw()
    return placed


def drawn_lines(draw: Callable[[], list[Image.Image]]) -> list[tuple[list[Placed], tuple[int, int]]]:
    """Every text that pictures are given, and every picture pasted into them; by picture, with its size."""
    pages: dict[int, tuple[list[Placed], tuple[int, int], Any]] = {}
    text_of, paste = ImageDraw.ImageDraw.text, Image.Image.paste

    def pasted(page: Image.Image, picture: Image.Image, place: tuple[int, int]) -> None:
        paste(page, picture, place)
        found = pages.setdefault(id(page.im), ([], page.size, page.im))
        left, top = place
        found[0].append(Placed(text="picture", box=(left, top, left + picture.width, top + picture.height)))

    def watched(page: ImageDraw.ImageDraw, xy: Any, text: str, *, font: FreeTypeFont, anchor: str, fill: Any) -> None:
        text_of(page, xy, text, font=font, anchor=anchor, fill=fill)
        found = pages.setdefault(id(page.im), ([], page.im.size, page.im))  # kept, so that no other has its id
        if text.strip():
            found[0].append(Placed(text=text, box=page.textbbox(xy, text, font=font, anchor=anchor)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", watched)
        patch.setattr(Image.Image, "paste", pasted)
        for name in ("multiline_text", "textlength"):
            patch.delattr(ImageDraw.ImageDraw, name)  # whoever takes them must have them watched here
        draw()
    return [(placed, size) for placed, size, _ in pages.values()]


def check_texts(placed: list[Placed], size: tuple[float, float], classes: tuple[str, ...]) -> None:
    """All within the canvas, none over another or over a picture, none escaped, each sign in a font."""
    assert placed
    for one in placed:
        left, low, right, high = one.box
        assert left >= -0.5 and low >= -0.5 and right <= size[0] + 0.5 and high <= size[1] + 0.5, (one, size)
        assert "\\" not in one.text or any("\\" in name for name in classes), one
        assert all(family_of(sign) for sign in one.text if sign != "\n"), one
    box_T4 = np.array([one.box for one in placed])
    low_T2, high_T2 = box_T4[:, None, :2], box_T4[:, None, 2:]
    shared_TT2 = np.minimum(high_T2, high_T2.swapaxes(0, 1)) - np.maximum(low_T2, low_T2.swapaxes(0, 1))
    over = np.argwhere(np.triu((shared_TT2 > 1).all(2), 1))
    assert not len(over), [(placed[first], placed[second]) for first, second in over]


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("name", FIGURES)
def test_texts_of_a_figure_fit_and_no_legend_covers_its_axes(name: str, case: Case) -> None:
    for figure in FIGURES[name](case):
        check_texts(drawn_texts(figure), (figure.bbox.width, figure.bbox.height), (*case.classes, case.file))
        for legend in figure.findobj(Legend):
            box = legend.get_window_extent()
            assert not any(box.overlaps(axes.bbox) for axes in figure.axes)


@pytest.mark.parametrize("num_findings", [1, 7, 14])
def test_findings_side_by_side_are_named_with_how_often_they_are_present_the_weakest_first(num_findings: int) -> None:
    names = tuple(f"finding {number}" for number in range(num_findings))
    test, metrics = evaluated(names, rare=num_findings // 7)
    drawn = findings_figures(test, metrics)
    for figure in drawn.values():
        check_texts(drawn_texts(figure), (figure.bbox.width, figure.bbox.height), names)
    measured = [found for found in metrics.by_need if not found.refused]
    assert len(measured) == num_findings - num_findings // 7
    forest, counts = drawn["findings.png"].axes
    assert [label.get_text() for label in forest.get_yticklabels()] == ["mean", *(one.name for one in metrics.by_need)]
    shown = [f"{one.num_present:,} of {one.num_known:,}" for one in metrics.by_need]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["present of known", *shown]
    assert [text.get_text() for text in forest.texts] == ["not measured"] * (num_findings // 7)
    panels = [axes.get_title().split("\n") for axes in drawn["reliability.png"].axes]
    assert [name for name, _ in panels] == [one.name for one in measured]
    assert f"over {len(measured)} of {num_findings} findings" in drawn["roc.png"].get_suptitle().replace("\n", " ")


def test_no_figure_is_drawn_where_no_finding_is_measured() -> None:
    assert findings_figures(*evaluated(("a", "b"), rare=2)) == {}


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("name", PICTURES)
def test_texts_of_a_picture_fit(name: str, case: Case) -> None:
    pages = drawn_lines(lambda: PICTURES[name](case))
    assert pages
    for placed, size in pages:
        check_texts(placed, size, (*case.classes, case.file))


def test_no_module_draws_a_figure_or_a_picture_that_is_not_drawn_here(tmp_path: Path) -> None:
    ran: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.add((frame.f_code.co_filename, frame.f_code.co_name))

    case = Case(classes=CASES["three"], file="heldout.beton", folder=tmp_path)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for draw in (*FIGURES.values(), *PICTURES.values()):
            draw(case)
    finally:
        sys.setprofile(before)
    drawing = set(drawing_functions())
    assert len(drawing) >= 14 and not drawing - ran, drawing - ran


def drawing_functions() -> Iterator[tuple[str, str]]:
    """File and name of each function of the product that makes a figure, finishes one, or writes into a picture."""
    for path in [ROOT / "cli.py", *(file for part in PARTS for file in sorted((ROOT / part).rglob("*.py")))]:
        text = path.read_text()
        assert "pyplot" not in text, path
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef):
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
                if names & MAKERS:
                    yield str(path), function.name


PARTS = ("engine", "loaders", "kernels", "benchmarks")
MAKERS = {"Figure", "ready", "Draw"}


# ---- what is in them


def labels_of(figure: Figure) -> list[str]:
    """The entries of its legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def curves_of(num_classes: int) -> list[Curve]:
    """Lines of equal shape; the first has the least area."""
    line_P, names = np.linspace(0, 1, 5), class_names([f"_{place}" for place in range(num_classes)])
    return [
        Curve(name=name, x_P=line_P, y_P=line_P, area=place / 100) for place, name in enumerate(names.text_of.values())
    ]  # fmt: skip


@pytest.mark.parametrize("draw", [roc_figure, pr_figure])
def test_a_class_that_begins_with_an_underscore_is_in_the_legend(draw: Any) -> None:
    labels = [label.strip("\u200a") for label in labels_of(draw(curves_of(3), [], "title"))]
    assert {"_0: 0.000", "_1: 0.010", "_2: 0.020"} < set(labels)


@pytest.mark.parametrize("draw", [roc_figure, pr_figure])
def test_of_many_classes_those_of_least_area_are_named_each_in_a_colour_and_style_of_its_own(draw: Any) -> None:
    for num_classes in (6, 7, 20):
        figure = draw(curves_of(num_classes)[::-1], [], "title")
        drawn = [line for line in figure.axes[0].lines if line.get_label().startswith("\u200a_")]
        assert [line.get_label()[1:].split(":")[0] for line in drawn] == [
            f"_{place}" for place in (range(6) if num_classes > 6 else range(5, -1, -1))
        ]
        assert len({line.get_color() for line in drawn}) == len({repr(line._dash_pattern) for line in drawn}) == 6
        assert (f"the {num_classes - 6} classes of larger area" in labels_of(figure)) == (num_classes > 6)
        full = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
        assert len(full) == num_classes


def test_a_confusion_matrix_names_every_class_on_both_axes_and_has_every_count() -> None:
    confusion_KK = np.arange(400).reshape(20, 20)
    figure = confusion_figure(confusion_KK, class_names(CASES["twenty"]), "title")
    texts = [one.text for one in drawn_texts(figure)]
    assert all(texts.count(name) == 2 for name in CASES["twenty"])
    assert all(texts.count(str(count)) == 1 for count in range(1, 400)) and not any("%" in text for text in texts)
    few = [one.text for one in drawn_texts(confusion_figure(np.array([[9, 1], [0, 0]]), class_names("ab"), "title"))]
    assert {"9\n90 %", "1\n10 %", "0\n0 %"} < set(few)


@pytest.mark.parametrize("num_classes", [2, 6, 7, 12])
def test_large_counts_fit_their_cells(num_classes: int) -> None:
    confusion_KK = np.full((num_classes, num_classes), 12_345_678)
    figure = confusion_figure(confusion_KK, class_names([f"c{place}" for place in range(num_classes)]), "title")
    check_texts(drawn_texts(figure), (figure.bbox.width, figure.bbox.height), ())


def test_scores_of_many_classes_are_drawn_as_shares_so_that_a_rare_one_is_seen() -> None:
    rare_N = np.arange(1000) < 2
    panel = Panel(name="rare", score_N=np.full(1000, 0.5), is_class_N=rare_N)
    heights = [
        max(patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle))
        for axes in score_figure([panel] * 3, [], "title").axes
    ]
    assert heights == [1, 1, 1]
    counted = score_figure([panel], [], "title").axes[0]
    assert max(patch.get_height() for patch in counted.patches if isinstance(patch, Rectangle)) == 2


def test_a_title_breaks_where_its_lines_end_and_between_words() -> None:
    figure = curves_figure([{"epoch": 1} | dict.fromkeys(COLUMNS, 0.5)], 1, "first\n" + "second " * 40)
    lines = figure.get_suptitle().split("\n")
    assert lines[0] == "first" and len(lines) > 2 and all(set(line.split(" ")) <= {"second", ""} for line in lines[1:])
    assert wrap("x" * 99, 5 * EM)[0].count("…") == 1


def test_of_many_findings_the_curves_name_those_of_lowest_auc_and_the_mean_and_draw_all() -> None:
    for number in (2, 4, 14):
        names = [f"finding {place}" for place in range(number)]
        figure = curves_figure(history_of(number), 20, "title", "", names)
        assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy", "macro F1", "ROC-AUC of validation"]
        labels, lines = labels_of(figure), figure.axes[2].lines
        assert [label.split(":")[0] for label in labels if label.startswith("finding ")] == names[:4]
        values = [float(row_line.get_ydata()[19]) for row_line in lines[:number]]
        assert f"mean: {np.mean(values):.3f}" in labels and len(lines) == number + 2  # the mean's, and the kept epoch's
        assert ("10 other findings, of higher AUC" in labels) == (number == 14)
    assert len(curves_figure(history_of(14), 20, "title").axes) == 2  # of classes


COLUMNS = ("train_loss", "val_loss", "train_f1", "val_f1")


def test_what_the_augmentation_sheet_shows_is_what_the_loader_gives_training(tmp_path: Path) -> None:
    case = Case(classes=("covid", "normal"), file="", folder=tmp_path)
    path, side = beton_of(case), TILE + GAP
    page = np.asarray(augmentation_sheet(path, per_class=2, epochs=3))
    order = [0, 2, 1, 3]  # samples by class, as the sheet's rows have them
    with Loader(path, LoaderConfig(training=True)) as loader, Loader(path) as plain:
        for column, frames in enumerate((plain, *[loader] * 3)):
            for frames_N1HW, _, index_N in frames:
                for row, sample in enumerate(order):
                    unit_HW = frames_N1HW[index_N.tolist().index(sample), 0]
                    tile = Image.fromarray(to_levels(unit_HW)).resize((TILE, TILE), Image.Resampling.NEAREST)
                    top, left = 2 * TITLE + GAP + row * side, SIDE + column * side
                    assert (page[top : top + TILE, left : left + TILE, 0] == np.asarray(tile)).all(), (row, column)


# ---- names


def test_a_sign_that_cannot_be_seen_is_replaced_and_names_stay_apart() -> None:
    names = class_names(("a\nb", "a\tb", "\u202eabc", "\udcff", "\\n", "$x$", "Ünï"))
    assert list(names.text_of.values()) == ["a�b (1)", "a�b (2)", "�abc", "�", "\\n", "$x$", "Ünï"]
    assert names.note == ""


def test_a_long_name_is_shortened_in_its_middle_to_its_room() -> None:
    first, second = class_names((LONG + "a", LONG + "b")).text_of.values()
    assert first.startswith("pneumonia") and "…" in first and first.endswith("viral a") and second.endswith("viral b")
    for name in ("W" * 10_000, "i" * 10_000, "lung " * 40):
        assert 15 * EM < width(name_text(name, 16 * EM)) <= 16 * EM
    assert len(set(class_names([f"{'x' * 50}{place}{'x' * 50}" for place in range(20)]).text_of.values())) == 20


def test_a_class_whose_letters_no_font_has_is_shown_by_its_number_with_a_note() -> None:
    names = class_names(("covid", "\u0378", "normal"))
    assert names.text_of == {"covid": "covid", "\u0378": "class 2", "normal": "normal"} and "number" in names.note
    assert name_text("\u0378.beton") == "�.beton"


def test_letters_that_another_installed_font_has_are_drawn_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = "\u24b7"  # in matplotlib's STIX, not in DejaVu Sans
    family_of.cache_clear()
    monkeypatch.setattr(figure_text, "other_families", lambda: ("Last Resort High-Efficiency", "STIXGeneral"))
    try:
        assert family_of(letter) == "STIXGeneral" and family_of("a") == FAMILY and family_of("\u0378") == ""
        names = class_names((letter, "b"))
        assert names.text_of[letter] == letter and not names.note
        figure = confusion_figure(np.eye(2, dtype=int), names, f"{letter}.beton")
        check_texts(drawn_texts(figure), (figure.bbox.width, figure.bbox.height), (letter,))
        page = Image.new("RGB", (200, 40))
        write(ImageDraw.Draw(page), (4, 4), f"a{letter}b", 20, (255, 255, 255))
        assert 4 + width(f"a{letter}b", 20) >= (page.getbbox() or (0, 0, 0, 0))[2] > width("ab", 20)
    finally:
        family_of.cache_clear()
