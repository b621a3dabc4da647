"""The picture of speed: ratios over rivals at a glance, drawn from a stored result."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.contest import Comparison
from benchmarks.targets import (
    AFFINE,
    CONVERSION,
    EVALUATION,
    FILES,
    REFERENCE_128,
    REFERENCE_224,
    STEP_224,
    STEP_224_MIXED,
    TRAINING,
    target_of,
)  # fmt: skip

ROWS = (  # contest, beginning of the rival's name, what stands at the row
    (FILES, "DataLoader", "training batches from files\nover torch DataLoader, Pillow, torchvision"),
    (TRAINING, "FFCV + torchvision", "training batches from a beton\nover FFCV + torchvision"),
    (TRAINING, "FFCV + kornia", "… over FFCV + kornia"),
    (TRAINING, "FFCV + grid_sample", "… over FFCV + grid_sample"),
    (TRAINING, "litdata", "… over litdata + grid_sample"),
    (TRAINING, "webdataset", "… over webdataset + grid_sample"),
    (EVALUATION, "FFCV + torch crop", "evaluation batches\nover FFCV + torch crop"),
    (AFFINE, "OpenCV", "rotation, zoom and crop\nover OpenCV"),
    (CONVERSION, "PIL", "conversion of 2,060 files\nover a loop in Pillow"),
    (REFERENCE_224, "reference", "training epoch from files, crops of 224\nover the plain pipeline"),
    (REFERENCE_128, "reference", "… crops of 128"),
    (STEP_224, "stock", "training step, crops of 224\nover stock PyTorch"),
    (STEP_224_MIXED, "stock", "… in bfloat16\nover stock PyTorch in float32"),
)
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#5F5F5F"  # Okabe and Ito: distinct to colour-blind readers
SOURCE = "Source"  # the text chunk of the PNG that names its result


def speed_figure(comparisons: list[Comparison], facts: dict[str, Any]) -> Figure:
    """A bar to the median ratio, a line from the least to the largest, a tick where a target stands."""
    by_what = {comparison.what: comparison for comparison in comparisons}
    chosen = [
        (by_what[what], name, label)
        for what, rival, label in ROWS
        if what in by_what
        for name in by_what[what].rivals
        if name.startswith(rival)
    ]
    figure = Figure(figsize=(9, 0.44 * len(chosen) + 1.3), layout="constrained")
    axes = figure.subplots()
    missed = False
    for place, (comparison, rival, _) in enumerate(chosen):
        ratio, ratios, target = comparison.ratio(rival), comparison.ratios(rival), target_of(comparison.what, rival)
        below = target is not None and ratio < target.least
        missed |= below
        axes.barh(place, ratio - 1, left=1, height=0.6, color=ORANGE if below else BLUE, alpha=0.85)
        axes.plot([min(ratios), max(ratios)], [place, place], color="black", linewidth=1.2)
        if target is not None:
            axes.plot([target.least] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2.2)
        end = max(max(ratios), target.least if target else 0)
        axes.text(end * 1.06, place, f"{ratio:.3g} ×", va="center", fontsize=11, fontweight="bold")
    axes.set_yticks(range(len(chosen)), [label for *_, label in chosen], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(1.0, *(0.9 * min(one.ratios(rival)) for one, rival, _ in chosen)), 400)
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("Speed ratio, plainfilm over each rival (logarithmic)", loc="left", fontsize=13)
    legend = (
        "bar: median of interleaved rounds; line: least to largest; tick: target" + "; orange: target missed" * missed
    )
    where = f"{facts['cores']} cores, {facts['cpu']}, commit {facts['commit'][:7]}, {facts['date'][:10]}"
    axes.set_xlabel(f"{legend}\n{where}", fontsize=9, color=GREY)
    return figure


def save_speed(figure: Figure, source: str, commit: str, path: Path) -> None:
    """Write the PNG, which names the result and the commit that it was drawn from."""
    figure.savefig(path, dpi=130, facecolor="white", metadata={SOURCE: f"{source} {commit}", "Software": None})
