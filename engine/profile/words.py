"""What a profile tells in the terminal: both sides part by part, the whole run, and what bounds the engine."""

from __future__ import annotations

from engine.config import ProfileConfig
from engine.profile.account import EPOCHS, PARTS, REPORT_SECONDS, TRAINING, VALIDATION
from engine.profile.profile import CONVERTED, Profile
from loaders.terminal import Line, Parts, Sheet, path_line


def profile_parts(config: ProfileConfig, found: Profile) -> Parts:
    """The two tables, each with what it rests on, the verdict, cautions, and the files."""
    reference, engine, bound = found.reference, found.engine, found.bound
    parts: list[Line | Sheet] = [
        Line(
            f"{config.data}: {found.num_images:,} {'phantoms' if found.facts.synthetic else 'radiographs'}, crops of "
            f"{found.facts.crop}, batches of {config.loader.batch_size}; {found.device}; {config.rounds} rounds, "
            "medians"
        ),
        image_sheet(found),
    ]
    if reference.overlapped or engine.overlapped:
        parts.append(Line("In brackets: time of threads or workers beside the training; it is in no sum."))
    parts += [
        run_sheet(found),
        Line(
            f"From the second row on with {engine.conversion_seconds:,.1f} s of conversion, once: measured on "
            f"{config.rounds} × {CONVERTED} files in one process; its workers share it."
        ),
        Line(f"An epoch of the engine is {found.ratio:.2f} times as fast as the reference's.", "bold"),
        Line(
            f"This machine: {bound.matmul / 1e9:,.0f} GFLOP/s in matrix products, {bound.copy / 1e9:,.1f} GB/s copied. "
            f"The engine's steps reach {bound.arithmetic:.2f} of the first; copying each convolution's output there "
            f"and back would take {bound.copying:.2f} of their time."
        ),
        Line(f"Bound by {found.verdict.text}.", "bold"),
    ]
    parts += [Line(f"Caution: {caution}.", "yellow") for caution in found.cautions]
    files = (found.out / "profile.png", found.out / "profile.json", *([config.trace] if config.trace else []))
    return [*parts, *(path_line(path) for path in files)]


def image_sheet(found: Profile) -> Sheet:
    """Milliseconds an image, by part; in brackets what runs beside the training."""
    reference, engine = found.reference, found.engine
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
