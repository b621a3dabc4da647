"""What an export tells in the terminal: the file, what it takes and gives, and how near it is to the network."""

from __future__ import annotations

from engine.export.export import TOLERANCE, Exported
from loaders.terminal import Line, Parts, path_line


def export_words(done: Exported) -> Parts:
    """Shapes, parity, and where the files are."""
    parts = [
        Line(
            f"frames uint8 (N, {done.stored}, {done.stored}) → probabilities float32 (N, {len(done.classes)}): "
            f"{', '.join(done.classes)}; {done.size / 1e6:,.1f} MB"
        ),
        Line(
            f"Under onnxruntime its probabilities differ from the network's by {done.difference:.1g} at most "
            f"(limit {TOLERANCE:g})."
        ),
    ]
    if done.temperature is None:
        parts.append(Line("Caution: uncalibrated: the run kept no validation scores; train again.", "yellow"))
    return [*parts, path_line(done.model), path_line(done.card)]
