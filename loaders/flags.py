"""Command-line flags made from a config class: names, kinds, choices, help and defaults."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaders.settings import Setting


def add_setting(parser: argparse.ArgumentParser, setting: Setting, *, positional: bool) -> None:
    """Add one setting as a flag, or as a positional argument.  Absent ones stay absent: the config has the defaults."""
    kinds: dict[type, Callable[[str], Any]] = {
        int: int,
        float: float,
        Path: Path,
        str: str,
        tuple: comma_list,
    }
    options: dict[str, Any] = {"help": setting_help(setting), "default": argparse.SUPPRESS}
    if setting.kind is bool:
        parser.add_argument(flag_of(setting), action=argparse.BooleanOptionalAction, dest=setting.name, **options)
        return
    options |= {"type": count_or_auto if setting.auto else kinds[setting.kind], "metavar": setting.name.upper()}
    if setting.choices:
        options |= {"choices": setting.choices, "metavar": "|".join(setting.choices)}
    if positional and setting.kind is tuple:
        one = setting.name.upper().removesuffix("S")
        parser.add_argument(setting.name, nargs="+", **(options | {"type": Path, "metavar": one}))
    elif positional:
        parser.add_argument(setting.name, nargs="?", **(options | {"default": None}))  # SUPPRESS would become a value
    else:
        parser.add_argument(flag_of(setting), dest=setting.name, **options)


def comma_list(text: str) -> tuple[str, ...]:
    """Split `covid,normal`."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def count_or_auto(text: str) -> int:
    """A number, or the word that stands for 0.  Errors: argparse's own for anything else."""
    try:
        return 0 if text == "auto" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number or auto") from error


def flag_of(setting: Setting) -> str:
    """--learning-rate for learning_rate."""
    return "--" + setting.name.replace("_", "-")


def setting_help(setting: Setting) -> str:
    """The field's docstring, and its default."""
    shown = default_text(setting)
    text = setting.help.replace("%", "%%")
    return text if setting.required or shown in (None, "") else f"{text} [{shown}]"


def default_text(setting: Setting) -> Any:
    """The default as one would write it."""
    if setting.auto and setting.default == 0:
        return "auto"
    return ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default


def reference_table(settings: list[Setting], positionals: tuple[str, ...]) -> str:
    """The settings of one command as a Markdown table."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for setting in settings:
        name = setting.name.upper() if setting.name in positionals else f"`{flag_of(setting)}`"
        values = f" ({', '.join(setting.choices)})" if setting.choices else ""
        default = default_text(setting)
        shown = "required" if setting.required else "" if default in (None, "") else f"`{default}`".lower()
        lines.append(f"| {name} | {shown} | {setting.help.replace('<', '&lt;')}{values} |")
    return "\n".join(lines)
