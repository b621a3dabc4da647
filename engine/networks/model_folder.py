"""The folder of a model of transformers': its files checked, nothing in them executed, nothing ever downloaded."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from blake3 import blake3
from safetensors import SafetensorError

from loaders.errors import CheckpointError, StorageError
from loaders.machine import usable_memory

CONFIG, ONE_FILE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ROOM = 1.25  # memory for the weights, and what computing with them takes


def fetch(folder: Path, example: str) -> str:
    """The command that puts a model into a folder.  example: one of its kind, whose organisation others of it share."""
    organisation, name = example.split("/")
    family = name.split(".")[0].split("-")[0].rstrip("0123456789").lower()  # qwen, sam
    named = folder.name if folder.name.lower().startswith(family) else name
    return f"hf download {organisation}/{named} --local-dir {folder}"


def find_weights(folder: Path, needed: Sequence[Sequence[str]], example: str) -> list[Path]:
    """The files of a model's weights, in order, once all that it needs is there.

    needed: files; of each line one.
    Errors: StorageError for a file that is not there; CheckpointError for pickled weights, or a damaged index.
    """
    command = fetch(folder, example)
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder, expected a model's; fetch one: {command}")
    for names in needed:
        if not any((folder / name).is_file() for name in names):
            raise StorageError(f"{folder}: {' or '.join(names)} is not there, expected a model; fetch it: {command}")
    if (folder / ONE_FILE).is_file():
        return [folder / ONE_FILE]
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder}: weights in {pickles[0]}, expected {ONE_FILE}; refused, since loading it could run code: "
                "save the model again as safetensors, where you trust it"
            )
        raise StorageError(f"{folder}: {ONE_FILE} is not there, expected a model; fetch it: {command}")
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{folder / INDEX}: no weight_map, expected the file of each weight; fetch it again")
    names = sorted(set(shards.values()))
    if odd := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{folder / INDEX}: names {odd[0]}, expected files of this folder; fetch it again")
    for name in names:
        if not (folder / name).is_file():
            raise StorageError(f"{folder}: {name} is not there, expected a whole model; fetch it: {command}")
    return [folder / name for name in names]


@contextlib.contextmanager
def loading(folder: Path, example: str, transformers: ModuleType) -> Iterator[None]:
    """What transformers does in here is silent.  Errors: CheckpointError for a model that it cannot load."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transformers about its own next release
            yield
    except (SafetensorError, RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: cannot be loaded ({reason}), expected a whole model; fetch it again: {fetch(folder, example)}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file.  Errors: CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}), expected an object; fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: a {type(found).__name__}, expected an object; fetch it again")
    return found


def check_memory(folder: Path, files: list[Path]) -> None:
    """Errors: MemoryError where the weights do not fit."""
    need, there = int(sum(path.stat().st_size for path in files) * ROOM), usable_memory()
    if need > there:
        raise MemoryError(f"{folder.name} needs {need / 1e9:.1f} GB, this process may use {there / 1e9:.1f}")


def identity_of(folder: Path, files: list[Path]) -> str:
    """BLAKE3 of the configuration and the weights, on every core."""
    hasher = blake3(max_threads=blake3.AUTO)
    for path in [folder / CONFIG, *files]:
        hasher.update_mmap(path)
    return hasher.hexdigest(length=16)


def check_keys(folder: Path, loaded: dict[str, Any], command: str) -> None:
    """Errors: CheckpointError where weights and model differ: what lacks would be drawn at random, unnoticed."""
    kinds = {"missing_keys": "lack", "unexpected_keys": "hold besides", "mismatched_keys": "hold in another shape"}
    for kind, words in kinds.items():
        # of another shape: name, shape found, shape expected
        names = (key[0] if isinstance(key, tuple) else str(key) for key in loaded.get(kind) or ())
        if keys := sorted(names):
            raise CheckpointError(
                f"{folder}: its weights {words} {keys[0]}"
                + (f" and {len(keys) - 1} more" if keys[1:] else "")
                + f", expected those of its {CONFIG} and no others; fetch it again: {command}"
            )
    if errors := loaded.get("error_msgs"):
        raise CheckpointError(f"{folder}: {str(errors[0]).splitlines()[0]}, expected weights that fit; fetch it again")
