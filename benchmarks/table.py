"""Tables of comparisons: in columns for the terminal, as Markdown for documents."""

from benchmarks.contest import Comparison, Missing
from benchmarks.targets import place_of, verdict

NOT_MEASURED = "Not measured yet."
HEADER = ("what", "who", "a second", "spread", "ratio", "min–max", "CPU each", "first batch", "target")


def table(comparisons: list[Comparison]) -> list[str]:
    """A line for each rival, ours first, in columns, by contest; then why each one that is missing is."""
    rows, missing = [HEADER], []
    for comparison in sorted(comparisons, key=lambda found: place_of(found.what)):
        for rival, seconds in comparison.seconds.items():
            what = comparison.what if rival == comparison.ours else ""
            if isinstance(seconds, Missing):
                rows.append((what, rival, "missing", "", "", "", "", "", ""))
                missing.append(f"{comparison.what}: {rival}, {seconds}")
                continue
            rows.append((what, rival, *cells(comparison, rival)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, *missing]


def speed_table(comparisons: list[Comparison]) -> list[tuple[str, ...]]:
    """For a document: a head, then a row for each rival, by contest, whose name and rate stand in its first row."""
    rows: list[tuple[str, ...]] = [("what", "plainfilm, a second", "rival, a second", "ratio (min–max)", "target")]
    for comparison in sorted(comparisons, key=lambda found: place_of(found.what)):
        first = (comparison.what, f"{show(comparison.rate(comparison.ours))} {comparison.unit}")
        for rival, seconds in comparison.seconds.items():
            if rival == comparison.ours:
                continue
            if isinstance(seconds, Missing):
                rows.append((*first, f"{rival}: missing", "", ""))
            else:
                ratio, ratios = comparison.ratio(rival), comparison.ratios(rival)
                extremes = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})" + noise(comparison)
                reached = verdict(comparison.what, rival, ratio).replace("missed", "**missed**")
                rows.append((*first, f"{rival}: {show(comparison.rate(rival))}", extremes, reached))
            first = ("", "")
    return rows


def agreement(comparison: Comparison) -> list[str]:
    """Whose outputs agree with ours, and a line for each who is missing."""
    there = [name for name, seconds in comparison.seconds.items() if not isinstance(seconds, Missing)]
    missing = [f"  {name}: {found}" for name, found in comparison.seconds.items() if isinstance(found, Missing)]
    return [f"{comparison.what}: {'; '.join(there)}", *missing]


def cells(comparison: Comparison, rival: str) -> tuple[str, ...]:
    """Of a rival that is there; the ratio and what follows from it only of the others."""
    each, first = comparison.cpu_each(rival), comparison.first_batch.get(rival)
    ratio, extremes, reached = "", "", ""
    if rival != comparison.ours:
        ratios, middle = comparison.ratios(rival), comparison.ratio(rival)
        ratio, extremes = f"{middle:.2f}{noise(comparison)}", f"{min(ratios):.2f}–{max(ratios):.2f}"
        reached = verdict(comparison.what, rival, middle)
    return (
        f"{show(comparison.rate(rival))} {comparison.unit}",
        f"{comparison.spread(rival):.0%}",
        ratio,
        extremes,
        "" if each is None else show_seconds(each),
        "" if first is None else show_seconds(first),
        reached,
    )


def noise(comparison: Comparison) -> str:
    """A mark behind ratios that were measured beside others."""
    return f", noisy: {comparison.others:.1f} cores were busy elsewhere" if comparison.noisy else ""


def show(rate: float) -> str:
    """A rate with three digits, or all before the point."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def show_seconds(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for scale, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def markdown(rows: list[tuple[str, ...]]) -> list[str]:
    """A table; the first row is its head."""
    return [f"| {' | '.join(row)} |" for row in (rows[0], ("---",) * len(rows[0]), *rows[1:])]
