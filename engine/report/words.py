"""The words of `report` for the terminal: the verdict, and where the page is."""

from __future__ import annotations

from engine.report.report import Report
from loaders.terminal import Line, Parts, path_line


def report_parts(done: Report) -> Parts:
    """Three sentences, what is missing, and the page."""
    parts = [
        Line(f"{question}: {sentence}".replace("\u00a0", " "), "bold" if done.verdict.state == "doubted" else "")
        for question, sentence in done.verdict.sentences.items()
    ]
    parts += [Line(f"Not in the report: {note}.", "yellow") for note in done.notes]
    return [*parts, *left_out_parts(done), path_line(done.page)]


def left_out_parts(done: Report) -> Parts:
    """What lies in the run folder and is not on its page."""
    return [Line(f"Caution, {done.page.name}: {trouble}.", "yellow") for trouble in done.left_out]
