"""Settings: the fields of config dataclasses by name, for flags, config.json and --config.

A field that is itself a config is flattened into its settings. Help texts are the fields' docstrings, so each default
and each explanation is written once.
"""

import argparse
import csv
import dataclasses
import functools
import json
import os
import sys
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from docstring_parser import parse_from_object

from loaders.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting.  kind: bool, int, float, str, Path or tuple (of item).  required: it has no default.

    auto: `auto` is accepted and means 0, with which the program chooses.
    """

    name: str
    kind: type
    item: type = str
    choices: tuple[str, ...] = ()
    optional: bool = False
    required: bool = False
    auto: bool = False
    default: Any = None
    help: str = ""


def settings_of(config: type) -> list[Setting]:
    """Every setting of a config class, nested ones included, without fields marked `hidden`."""
    hints = typing.get_type_hints(config)
    texts = help_texts(config)
    settings = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            settings += settings_of(hint)
        elif not field.metadata.get("hidden"):
            settings.append(setting_of(field, hint, texts[field.name]))
    return settings


@functools.cache
def help_texts(config: type) -> dict[str, str]:
    """The docstrings of a config's fields; reading the source takes some 15 ms."""
    return {item.args[1]: item.description or "" for item in parse_from_object(config).params}


def setting_of(field: dataclasses.Field, hint: Any, text: str) -> Setting:
    """Describe one field."""
    optional = types.NoneType in typing.get_args(hint)
    if optional:
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    kind = str if choices else typing.get_origin(hint) or hint
    required = field.default is dataclasses.MISSING
    default = None if required else field.default
    return Setting(
        name=field.name,
        kind=kind,
        item=typing.get_args(hint)[0] if kind is tuple else str,
        choices=choices,
        optional=optional,
        required=required,
        auto=field.metadata.get("auto", False),
        default=default,
        help=text,
    )


def flatten(config: Any) -> dict[str, Any]:
    """A config as JSON-ready settings by name."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value)
        elif not field.metadata.get("hidden"):
            flat[field.name] = (
                str(value) if isinstance(value, Path) else list(map(str, value)) if isinstance(value, tuple) else value
            )
    return flat


def build(config: type[T], values: dict[str, Any], positionals: tuple[str, ...] = ()) -> T:
    """Make a config from settings by name; absent ones take their defaults.

    positionals: settings that the command line takes by their place, for the errors.
    Errors: ConfigError for an unknown setting, a value of the wrong kind, or one that the config refuses.
    """
    return assemble(config, convert_values(config, values), positionals)


def convert_values(config: type, values: dict[str, Any]) -> dict[str, Any]:
    """Check the names and kinds of settings.  Errors: ConfigError."""
    known = {setting.name: setting for setting in settings_of(config)}
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"unknown setting {', '.join(unknown)}, expected some of {', '.join(known)}")
    return {name: convert_value(known[name], value) for name, value in values.items()}


def assemble(config: type[T], values: dict[str, Any], positionals: tuple[str, ...]) -> T:
    """Fill a config and its nested configs from converted values."""
    hints = typing.get_type_hints(config)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            if field.default is dataclasses.MISSING:
                arguments[field.name] = assemble(typing.cast(type, hint), values, positionals)
            else:
                names = {inner.name for inner in dataclasses.fields(hint)} & set(values)
                arguments[field.name] = dataclasses.replace(field.default, **{name: values[name] for name in names})
        elif field.name in values:
            arguments[field.name] = values[field.name]
        elif field.metadata.get("given"):
            arguments[field.name] = tuple(values)
        elif field.default is dataclasses.MISSING:
            shown = field.name.upper() if field.name in positionals else "--" + field.name.replace("_", "-")
            raise ConfigError(f"{shown}: missing, expected a value; see --help")
    return config(**arguments)


def convert_value(setting: Setting, value: Any) -> Any:
    """Check a value's kind, and convert from JSON's types.  Errors: ConfigError."""
    if value is None and setting.optional:
        return None
    if value == "auto" and setting.auto:
        return 0
    if setting.kind is Path and isinstance(value, str | Path):
        if not is_path(value):
            raise ConfigError(f"{setting.name}: found {str(value)!r}, expected a path")
        return Path(value)
    if (
        setting.kind is tuple
        and isinstance(value, list | tuple)
        and all(isinstance(item, str | Path) for item in value)
    ):
        return tuple(setting.item(item) for item in value)
    if setting.kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    wrong = not isinstance(value, setting.kind) or (setting.kind is int and isinstance(value, bool))
    if wrong or (setting.choices and value not in setting.choices):
        expected = " or ".join(setting.choices) if setting.choices else setting.kind.__name__
        raise ConfigError(f"{setting.name}: found {value!r}, expected {expected}")
    return value


def is_path(value: str | Path) -> bool:
    """Whether a file can have this name; JSON can hold NULs and lone surrogates."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings from a JSON file, such as a run's config.json.  Errors: ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, expected a JSON file of settings; check the path") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error}), expected an object of settings") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found a {type(values).__name__}, expected an object of settings")
    return values


def add_setting(parser: argparse.ArgumentParser, setting: Setting, *, positional: bool) -> None:
    """Add one setting as a flag, or as a positional argument.  Absent ones stay absent: the config has the defaults."""
    options: dict[str, Any] = {"help": setting_help(setting), "default": argparse.SUPPRESS}
    if setting.kind is bool:
        parser.add_argument(flag_of(setting), action=argparse.BooleanOptionalAction, dest=setting.name, **options)
        return
    parse = count_or_auto if setting.auto else comma_list if setting.kind is tuple else setting.kind
    options |= {"type": parse, "metavar": setting.name.upper()}
    if setting.choices:
        options |= {"choices": setting.choices, "metavar": "|".join(setting.choices)}
    if positional and setting.kind is tuple:
        one = setting.name.upper().removesuffix("S")
        parser.add_argument(setting.name, nargs="+", **(options | {"type": Path, "metavar": one}))
    elif positional:
        parser.add_argument(setting.name, nargs="?", **(options | {"default": None}))  # SUPPRESS would become a value
    elif setting.item is Path:
        parser.add_argument(flag_of(setting), dest=setting.name, action="append", **(options | {"type": Path}))
    else:
        options |= {"action": "extend"} if setting.kind is tuple else {}  # given twice, a list has both
        parser.add_argument(flag_of(setting), dest=setting.name, **options)


def comma_list(text: str) -> tuple[str, ...]:
    """Split `covid,normal`; an item with a comma is quoted, as in a CSV.  Errors: argparse's own for a broken line."""
    try:  # a name without a quote may hold anything else, such as the end of a line
        items = next(csv.reader([text], skipinitialspace=True)) if '"' in text else text.split(",")
        return tuple(item.strip() for item in items if item.strip())
    except csv.Error as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected names with commas between ({error})") from error


def count_or_auto(text: str) -> int:
    """A number, or 0 for `auto`.  Errors: argparse's own for anything else."""
    try:
        return 0 if text == "auto" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number or auto") from error


def flag_of(setting: Setting) -> str:
    """--learning-rate for learning_rate."""
    return "--" + setting.name.replace("_", "-")


def setting_help(setting: Setting) -> str:
    """The field's docstring, and its default."""
    text, shown = setting.help.replace("%", "%%"), default_text(setting)
    return f"{text} [{shown}]" if shown else text


def default_text(setting: Setting) -> str:
    """The default as a user would write it; "" for none."""
    if setting.auto and setting.default == 0:
        return "auto"
    default = "" if setting.default is None else setting.default
    return ",".join(default) if isinstance(default, tuple) else str(default)


def reference_table(settings: list[Setting], positionals: tuple[str, ...]) -> str:
    """The settings of one command as a Markdown table."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for setting in settings:
        name = setting.name.upper() if setting.name in positionals else f"`{flag_of(setting)}`"
        values = f" ({', '.join(setting.choices)})" if setting.choices else ""
        default = default_text(setting).lower()
        shown = "required" if setting.required else default and f"`{default}`"
        lines.append(f"| {name} | {shown} | {setting.help.replace('<', '&lt;')}{values} |")
    return "\n".join(lines)
