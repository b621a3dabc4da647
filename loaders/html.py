"""What all HTML pages share: a strict template environment, text made visible, positions on charts, data URIs."""

import base64
import hashlib
import unicodedata
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loaders.output import counted, number_text, p_text, share_text

CHART_WIDTH = 250  # of every chart, pixels; fits a phone
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode: controls, formats (bidi among them), surrogates, separators
PNG = b"\x89PNG\r\n\x1a\n"


def page_environment(*folders: Path) -> Environment:
    """The environment for templates in these folders and for shared ones; all text is escaped."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count="{:,}".format, counted=counted, number=number_text, percent=percent, p=p_text, clip=clip,
        csp_hash=csp_hash, png=png_uri, along=along,
    )  # fmt: skip
    return environment


def visible(text: str) -> str:
    r"""Text with invisible characters escaped: \n, \u202e, \xff for a byte that is no UTF-8, \\ for a backslash."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(escaped(char) if char == "\\" or unicodedata.category(char) in INVISIBLE else char for char in text)


def escaped(character: str) -> str:
    r"""One character as in a Python string; \x is kept for raw bytes above 0x7f, lest two names be shown alike."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode("ascii")


def shown(value: object) -> object:
    """Jinja's last step before escaping: all text goes through `visible`."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def along(value: float, low: float, high: float) -> str:
    """A value's position on a chart's axis, in pixels; values outside are moved to its ends."""
    margin = 8
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return f"{margin + share * (CHART_WIDTH - 2 * margin):.1f}"


def percent(part: float, whole: float) -> str:
    """A part's share of the whole, on one line; a dash of nothing."""
    return share_text(part / whole if whole else None).replace(" ", "\u00a0")


def clip(text: str, length: int) -> str:
    """At most that many characters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def csp_hash(style: str) -> str:
    """A style's hash, as a Content-Security-Policy names it."""
    return Markup("'sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() + "'")


def png_uri(png_B: bytes) -> str:
    """The bytes of a PNG file as a data URI; "" for anything else."""
    return "data:image/png;base64," + base64.b64encode(png_B).decode() if png_B.startswith(PNG) else ""
