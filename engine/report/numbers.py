"""Numbers of a run's report, as people read them."""

from __future__ import annotations

from engine.report.material import Measured

MINUS = "−"


def share_text(value: float | None, digits: int = 1) -> str:
    """A share in per cent.  Only what is whole reads 100 %, and only what is nothing reads 0 %."""
    if value is None:
        return "–"
    least = 10**-digits
    text = f"{min(max(100 * value, least), 100 - least):.{digits}f}" if 0 < value < 1 else f"{100 * value:.{digits}f}"
    text = f"{100 * value:.0f}" if value in (0, 1) else text
    return f"{text}\u00a0%".replace("-", MINUS)


def plain_text(value: float | None, digits: int = 3) -> str:
    """A number with its decimals."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def interval_text(found: Measured, share: bool, digits: int = 3) -> str:
    """The 95 % interval; "" where there is none.  digits: of a number that is no share."""
    if found.low is None or found.high is None:
        return ""
    if share:
        return f"{share_text(found.low).removesuffix(chr(0xA0) + '%')} to {share_text(found.high)}"
    return f"{plain_text(found.low, digits)} to {plain_text(found.high, digits)}"


def part_text(part: float, whole: float) -> str:
    """A part's share of the whole; a dash of nothing."""
    return share_text(part / whole if whole else None)


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 group`, `2,300 groups`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def upper_first(text: str) -> str:
    """A sentence that begins a line."""
    return text[:1].upper() + text[1:]
