"""Records: results as JSON files.  Each has a schema with a version, and is written and read through it."""

import contextlib
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import inspect

from loaders.atomic_file import publish_bytes, storage_error
from loaders.errors import IntegrityError, StorageError

LONGEST = 60  # characters of a value that an error shows
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every record and of its parts.

    The record that a file holds also has `version: int`, whose default is the version that is written and read.
    made_by: the command that writes it.
    """

    made_by: ClassVar[str] = ""


R = TypeVar("R", bound=Record)


def encode_record(record: Record) -> bytes:
    """A record as indented JSON, the same bytes for the same record.

    It reads back as it is: a number that is not finite is refused, and unknown must be None.  What of a text is no
    Unicode, such as a byte of a file's name, is written out: \\udcff.
    """
    try:
        content = msgspec.json.encode(record)
    except UnicodeEncodeError:
        record = msgspec.convert(written_out(msgspec.to_builtins(record)), type(record))
        content = msgspec.json.encode(record)
    assert msgspec.json.decode(content, type=type(record)) == record, "a record reads back as it was written"
    return msgspec.json.format(content, indent=2) + b"\n"


def written_out(value: Any) -> Any:
    """A JSON value without lone surrogates."""
    if isinstance(value, dict):
        return {written_out(name): written_out(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [written_out(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def decode_record(kind: type[R], content: bytes, where: str) -> R:
    """A record from JSON.  where: the file, to begin the errors.

    Errors: IntegrityError for what is no JSON, is of another version, or does not fit the schema.
    """
    remedy = f"remove it, and run `{kind.made_by}` again"
    try:
        raw = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{where}: no JSON ({error}), expected what `{kind.made_by}` wrote; {remedy}") from error
    (expected,) = (field.default for field in msgspec.structs.fields(kind) if field.name == "version")
    if isinstance(raw, dict) and raw.get("version", expected) != expected:
        if isinstance(raw["version"], int) and raw["version"] > expected:
            remedy = f"a newer plainfilm wrote it: use that one, or {remedy}"
        raise IntegrityError(f"{where}: version {shortened(raw['version'])}, expected {expected}; {remedy}")
    try:
        if isinstance(raw, dict) and "version" not in raw:
            raise msgspec.ValidationError("Object missing required field `version`")
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"{where}: {misfit(kind, raw, str(error))}; {remedy}") from error


def read_record(kind: type[R], path: Path) -> R:
    """The record in a file.  Errors: StorageError; IntegrityError, as of `decode_record`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise storage_error(path, error) from error
    return decode_record(kind, content, str(path))


def known_record(kind: type[R], path: Path) -> R | None:
    """The record in a file; None where there is none, or none that can be read."""
    with contextlib.suppress(StorageError, IntegrityError):
        return read_record(kind, path)
    return None


def write_record(path: Path, record: Record) -> None:
    """Write a record to a file, whole or not at all.  Errors: StorageError."""
    publish_bytes(path, encode_record(record))


def misfit(kind: type[Record], raw: Any, message: str) -> str:
    """The field that does not fit the schema, what was found there, and what was expected.  message: msgspec's."""
    reason, _, place = message.partition(" - at `$")
    value, names = raw, list[str | int]()
    for name, index, any_key in re.findall(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])", place):
        names.append(odd_key(kind, raw, value, message) if any_key else int(index) if index else name)
        value = value[names[-1]]
    found, expected = shortened(value), ""
    if wanted := re.fullmatch(r"Expected `([^`]*)`( [<>]=? .*|, got `.*`)", reason):
        expected = wanted[1] + ("" if wanted[2].startswith(",") else wanted[2])
    elif lacking := re.fullmatch(r"Object missing required field `(.*)`", reason):
        names, found, expected = [*names, lacking[1]], "none", "one"
    elif unknown := re.fullmatch(r"Object contains unknown field `(.*)`", reason):
        return f"field {'.'.join(map(str, [*names, unknown[1]]))}: found, expected no field of this name"
    elif reason.startswith("Invalid enum value"):
        expected = f"one of {', '.join(map(str, choices(kind, names)))}"
    field = f"field {'.'.join(map(str, names))}: " if names else ""
    return f"{field}found {found}, expected {expected or f'another value ({reason})'}"


def odd_key(kind: type[Record], raw: Any, table: dict[str, Any], message: str) -> str:
    """The key of a table, somewhere in raw, whose value gives the message; the table is left with that key alone.

    msgspec names fields and places in lists, but no keys.
    """
    for key, value in list(table.items()):
        kept = dict(table)
        table.clear()
        table[key] = value
        try:
            msgspec.convert(raw, kind)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return key
        table.clear()
        table.update(kept)
    raise AssertionError(f"no value gives {message}")


def choices(kind: type[Record], names: list[str | int]) -> tuple[Any, ...]:
    """The values that a field may have, of the few that its schema lists."""
    node: Any = inspect.type_info(kind)
    for name in [*names, ""]:
        if isinstance(node, inspect.UnionType):
            node = next(one for one in node.types if not isinstance(one, inspect.NoneType))
        if isinstance(node, inspect.StructType | inspect.DataclassType) and name:
            node = next(field.type for field in node.fields if field.name == name)
        elif isinstance(node, inspect.DictType):
            node = node.value_type
        elif isinstance(node, inspect.ListType | inspect.VarTupleType):
            node = node.item_type
    return tuple(node.values)


def shortened(value: Any) -> str:
    """A JSON value for an error."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
