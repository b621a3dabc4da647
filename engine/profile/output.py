"""A profile shown: its picture and its tables, where an image's time goes and what each step of the design gains."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from engine.config import ProfileConfig
from engine.figures import FAINT, INK, ready, set_title
from engine.profile.breakdown import CONVERTED, EPOCHS, PARTS, REPORT_SECONDS, TRAINING, VALIDATION, Measured, Profile
from loaders.figure_text import name_text
from loaders.output import Line, Parts, Sheet, caution_lines, path_line, seconds_text

# by part of a step: Okabe and Ito's colours, distinct for the colour-blind too
COLOURS = {
    "decode": "#D55E00",
    "augment": "#E69F00",
    "wait": "#F0E442",
    "transfer": "#CC79A7",
    "forward": "#56B4E9",
    "backward": "#0072B2",
    "optimiser": "#009E73",
    "step": "#0072B2",
    "other": "#999999",
    "validation": "#444444",
}
DARK = ("backward", "step", "validation", "decode", "optimiser")  # parts that are labelled in white
HIGHLIGHT, PLAIN, REPORT = "#0072B2", "#9ecae1", "#D55E00"
LEAST_LABELLED = 0.06  # share of the longest bar that has room for a number
LEAST_SHOWN = 0.003  # share of the longest bar that one can see at all
HALO: dict[str, Any] = {"color": INK, "zorder": 4, "path_effects": [withStroke(linewidth=3, foreground="white")]}
NAME: dict[str, Any] = {"color": INK, "fontsize": 10, "ha": "right", "va": "center"}
SMALL: dict[str, Any] = {"color": FAINT, "fontsize": 7.5, "ha": "right", "va": "center"}


def profile_figure(variants: Sequence[Measured], device: str) -> Figure:
    """Left: seconds of an epoch by part, reference and engine.  Right: seconds of the report's run by variant."""
    figure = Figure(figsize=(13.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    parts_panel(left, variants[0], variants[-1])
    run_panel(right, variants)
    images = f"{TRAINING:,} training and {VALIDATION} validation images an epoch"
    set_title(figure, f"The report's recipe on {name_text(device)}: {images}")
    return ready(figure)


def parts_panel(axes: Axes, reference: Measured, engine: Measured) -> None:
    """Stacked bars of an epoch."""
    pairs = (("reference", reference), ("engine", engine))
    longest = max(found.epoch_seconds for _, found in pairs)
    starts, border = np.zeros(2), dict[str, Any](edgecolor="white", linewidth=0.6)
    for name, colour in COLOURS.items():
        lengths = np.array([epoch_parts(found).get(name, 0.0) for _, found in pairs])
        if lengths.max() >= LEAST_SHOWN * longest:
            bars = axes.barh([0, 1], lengths, left=starts, color=colour, label=name, height=0.5, **border)
            texts = [f"{length:,.3g}" if length > LEAST_LABELLED * longest else "" for length in lengths]
            axes.bar_label(bars, texts, label_type="center", fontsize=8, color="white" if name in DARK else INK)
        starts = starts + lengths
    for row, (_, found) in enumerate(pairs):
        place, text = found.epoch_seconds + 0.01 * longest, f" {found.epoch_seconds:,.3g} s"
        axes.text(place, row, text, va="center", color=INK, weight="bold")
    axes.set_yticks([0, 1], labels=[name for name, _ in pairs])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.16)
    axes.legend(frameon=False, ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes.tick_params(axis="y", length=0)
    finish_panel(axes, "Where an epoch's time goes", "seconds of an epoch")


def finish_panel(axes: Axes, title: str, across: str) -> None:
    """Title, label and grid of a panel.  across: what its horizontal axis shows."""
    axes.set_xlabel(across)
    axes.set_title(title, loc="left", fontsize=10, color=INK, pad=20)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def epoch_parts(found: Measured) -> dict[str, float]:
    """Seconds of an epoch by part, without those that go on beside the training."""
    parts = {name: TRAINING * seconds for name, seconds in found.parts.items() if name not in found.overlapped}
    return parts | {"validation": VALIDATION * found.validation}


def run_panel(axes: Axes, variants: Sequence[Measured]) -> None:
    """A waterfall: each bar runs from the variant above it to this one, so that its length is the gain."""
    seconds = [found.run_seconds for found in variants]
    everything = [*seconds, REPORT_SECONDS]
    low, high = min(everything) / 1.7, max(everything) * 1.5
    axes.set_xscale("log")
    axes.axvline(REPORT_SECONDS, color=REPORT, linestyle="--", linewidth=1.2, zorder=1)
    for row, (found, now) in enumerate(zip(variants, seconds, strict=True)):
        before = seconds[row - 1] if row else now
        colour = HIGHLIGHT if row == len(variants) - 1 else PLAIN if row else FAINT
        if row:
            axes.plot([before, before], [row - 1, row], color=FAINT, linewidth=0.8, zorder=2)
        axes.barh(row, before - now, left=now, color=colour, height=0.5, zorder=2)
        axes.plot([now], [row], "o", color=colour, markeredgecolor="white", markersize=9, zorder=3)
        gain = f"{before / now:.2f}×  " if row else ""
        text = axes.text(
            min(now, before) * 0.94, row, f"{gain}{seconds_text(now, 0)}", va="center", ha="right", fontsize=9, **HALO
        )
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # the report's line may pass behind it
        axes.text(-0.015, row + 0.24, found.variant.adds, transform=axes.get_yaxis_transform(), **SMALL)
        axes.text(-0.015, row - 0.14, found.variant.name, transform=axes.get_yaxis_transform(), **NAME)
    place = math.log(REPORT_SECONDS * 1.6 / low) / math.log(high * 1.6 / low)
    side = "left" if place < 1 / 3 else "center" if place < 2 / 3 else "right"
    report = f"the report: {seconds_text(REPORT_SECONDS, 0)}, other hardware (Apple M3 Max)"
    style: dict[str, Any] = {"color": REPORT, "fontsize": 8, "ha": side, "va": "bottom"}
    axes.text(REPORT_SECONDS, 1.01, report, transform=axes.get_xaxis_transform(), **style)
    axes.set_xlim(low / 1.6, high)
    axes.set_ylim(len(variants) - 0.35, -0.6)
    axes.set_yticks([])
    ticks = [mark * 10.0**power for power in range(-1, 6) for mark in (1, 2, 5)]
    shown = [tick for tick in ticks if low / 1.6 <= tick <= high]
    axes.set_xticks(shown, labels=[f"{tick:,.3g}" if tick < 1000 else f"{tick:,.0f}" for tick in shown])
    axes.set_xticks([], minor=True)
    across = f"seconds of {EPOCHS} epochs, conversion included (logarithmic)"
    finish_panel(axes, "What each step of the design gains", across)


def profile_parts(config: ProfileConfig, found: Profile) -> Parts:
    """The two tables, each with what it rests on, the verdict, cautions, and the files."""
    reference, engine, bound = found.variants[0], found.variants[-1], found.bound
    parts: list[Line | Sheet] = [
        Line(
            f"{config.data}: {found.images:,} {'phantoms' if found.synthetic else 'radiographs'}, crops of "
            f"{found.crop}, batches of {config.loader.batch_size}; {found.device}; {config.rounds} rounds, "
            "medians"
        ),
        image_sheet(found),
    ]
    if reference.overlapped or engine.overlapped:
        parts.append(Line("In brackets: time of threads or workers beside the training; it is in no sum."))
    parts += [
        run_sheet(found),
        Line(
            f"From the second row on with {seconds_text(engine.conversion_seconds)} of conversion, once: measured on "
            f"{config.rounds} × {CONVERTED} files in one process; its workers share it."
        ),
        Line(f"An epoch of the engine is {found.epoch_ratio:.2f} times as fast as the reference's.", "bold"),
        Line(
            f"This machine: {bound.matmul / 1e9:,.0f} GFLOP/s in matrix products, {bound.copy / 1e9:,.1f} GB/s copied. "
            f"The engine's steps reach {bound.arithmetic:.2f} of the first; copying each convolution's output there "
            f"and back would take {bound.copying:.2f} of their time."
        ),
        Line(f"Bound by {found.verdict.text}.", "bold"),
    ]
    parts += caution_lines(found.cautions)
    files = (config.folder / "profile.png", config.folder / "profile.json", *([config.trace] if config.trace else []))
    return [*parts, *(path_line(path) for path in files)]


def image_sheet(found: Profile) -> Sheet:
    """Milliseconds an image, by part; in brackets what runs beside the training."""
    reference, engine = found.variants[0], found.variants[-1]
    rows = []
    for part in PARTS:
        if part in reference.parts or part in engine.parts:
            sides = [(side.parts.get(part, 0.0) * 1e3, part in side.overlapped) for side in (reference, engine)]
            cells = [f"({value:,.3f})" if beside else f"{value:,.3f}" for value, beside in sides]
            rows.append((part, *cells, f"{sides[0][0] / sides[1][0]:,.2f}×" if sides[1][0] else ""))
    for name in ("training", "validation"):
        a, b = (getattr(side, name) * 1e3 for side in (reference, engine))
        rows.append((name, f"{a:,.3f}", f"{b:,.3f}", f"{a / b:,.2f}×"))
    return Sheet(headers=("milliseconds an image", "reference", "engine", "ratio"), rows=tuple(rows))


def run_sheet(found: Profile) -> Sheet:
    """Seconds of the report's run, variant by variant, and what each gains."""
    rows = []
    for place, row in enumerate(found.variants):
        gain = f"{found.variants[place - 1].run_seconds / row.run_seconds:.2f}×" if place else ""
        rows.append((row.variant.name, f"{row.run_seconds:,.1f}", gain, row.variant.adds))
    rows.append(("the report", f"{REPORT_SECONDS:,.1f}", "", "other hardware: Apple M3 Max"))
    whole = f"{EPOCHS} epochs of {TRAINING:,} + {VALIDATION} images"
    return Sheet(headers=(whole, "seconds", "gain", "adds"), rows=tuple(rows))
