"""The folder of a vision-language model: its files checked, nothing in them executed, nothing ever downloaded."""

import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from blake3 import blake3
from safetensors import SafetensorError

from engine.networks.extras import import_extra
from loaders.errors import CheckpointError, ConfigError, StorageError
from loaders.machine import usable_memory

CONFIG, ONE_FILE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# what the model itself, its pictures and its text need; of each line one file
NEEDED = (
    (CONFIG,),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "tokenizer.model", "vocab.json"),
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ROOM = 1.25  # memory for the weights, and what computing with them takes
EXTRA = "vlm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backbone:
    """A model that was loaded from a folder.  model, processor: as transformers has them.  model in evaluation mode.

    name: of the folder.  identity: BLAKE3 of its configuration and weights, 32 hexadecimal digits.
    """

    name: str
    identity: str
    model: Any
    processor: Any

    @property
    def num_parameters(self) -> int:
        """How many weights it has, each counted once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())


def load_backbone(folder: Path, *, pixels: int = 0, identity: str = "") -> Backbone:
    """A model of transformers' image-text interface, from its folder alone.

    pixels: most pixels of a picture that it is shown; 0: as its own settings have it.
    identity: that the weights must have; "": any.
    Errors: StorageError for a file that is not there; ConfigError for a model of another kind, or without the extra;
    CheckpointError for weights that are damaged, pickled, others than expected, or do not fit the model;
    MemoryError where there is too little.
    """
    check_files(folder)
    transformers = import_extra("transformers", EXTRA)
    check_kind(folder, transformers)
    files = weight_files(folder)
    check_memory(folder, files)
    found = identity_of(folder, files)
    if identity not in ("", found):
        raise CheckpointError(
            f"{folder}: weights {found}, expected {identity}, which the run was made with; bring that folder back"
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transformers about its own next release
            model, loaded = transformers.AutoModelForImageTextToText.from_pretrained(
                folder,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype="auto",
                **given,
            )
            processor = transformers.AutoProcessor.from_pretrained(folder, **given)
    except (SafetensorError, RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{folder}: cannot be loaded ({reason}), expected a whole model; fetch it again: {fetch(folder)}"
        ) from error
    check_keys(folder, loaded)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise ConfigError(f"{folder}: no image processor with a chat template, expected an instruction-tuned model")
    bound_pixels(folder, processor.image_processor, pixels)
    return Backbone(name=folder.resolve().name, identity=found, model=model.eval(), processor=processor)


def fetch(folder: Path) -> str:
    """The command that puts a model into a folder."""
    name = folder.name if folder.name.startswith("Qwen") else "Qwen2.5-VL-3B-Instruct"
    return f"hf download Qwen/{name} --local-dir {folder}"


def check_files(folder: Path) -> None:
    """Errors: StorageError for a file that is not there; CheckpointError for pickled weights."""
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder, expected a model's; fetch one: {fetch(folder)}")
    for names in NEEDED:
        if not any((folder / name).is_file() for name in names):
            raise StorageError(
                f"{folder}: {' or '.join(names)} is not there, expected a model; fetch it: {fetch(folder)}"
            )
    if not any((folder / name).is_file() for name in (ONE_FILE, INDEX)):
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder}: weights in {pickles[0]}, expected {ONE_FILE}; refused, since loading it could run code: "
                "save the model again as safetensors, where you trust it"
            )
        raise StorageError(f"{folder}: {ONE_FILE} is not there, expected a model; fetch it: {fetch(folder)}")


def check_kind(folder: Path, transformers: ModuleType) -> None:
    """Errors: ConfigError for a model that takes no pictures, or would run code of its own."""
    kind = read_json(folder / CONFIG).get("model_type")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    known = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if kind not in known:
        raise ConfigError(
            f"{folder}: a model of type {kind!r}, expected one that takes pictures and text, such as qwen2_5_vl, and "
            f"that transformers {transformers.__version__} knows without code of the model's own; choose another"
        )


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file.  Errors: CheckpointError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}), expected an object; fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: a {type(found).__name__}, expected an object; fetch it again")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights, in order.  Errors: StorageError for one that is not there; CheckpointError."""
    if (folder / ONE_FILE).is_file():
        return [folder / ONE_FILE]
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{folder / INDEX}: no weight_map, expected the file of each weight; fetch it again")
    files = [folder / name for name in sorted(set(shards.values()))]
    for path in files:
        if path.resolve().parent != path.parent.resolve() and not path.is_symlink():
            raise CheckpointError(f"{folder / INDEX}: names {path.name} elsewhere, expected files of this folder")
        if not path.is_file():
            raise StorageError(f"{folder}: {path.name} is not there, expected a whole model; fetch it: {fetch(folder)}")
    return files


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


def check_keys(folder: Path, loaded: dict[str, Any]) -> None:
    """Errors: CheckpointError where weights and model differ: what lacks would be drawn at random, unnoticed."""
    kinds = {"missing_keys": "lack", "unexpected_keys": "hold besides", "mismatched_keys": "hold in another shape"}
    for kind, words in kinds.items():
        # of another shape: name, shape found, shape expected
        names = (key[0] if isinstance(key, tuple) else str(key) for key in loaded.get(kind) or ())
        if keys := sorted(names):
            raise CheckpointError(
                f"{folder}: its weights {words} {keys[0]}"
                + (f" and {len(keys) - 1} more" if keys[1:] else "")
                + f", expected those of its {CONFIG} and no others; fetch it again: {fetch(folder)}"
            )
    if errors := loaded.get("error_msgs"):
        raise CheckpointError(f"{folder}: {str(errors[0]).splitlines()[0]}, expected weights that fit; fetch it again")


def bound_pixels(folder: Path, image_processor: Any, pixels: int) -> None:
    """Show the model no more than so many pixels of a picture.  Errors: ConfigError where its size is fixed."""
    if not pixels:
        return
    size = dict(getattr(image_processor, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys():
        raise ConfigError(
            f"--pixels {pixels}: {folder.name} shows every picture in one size, expected auto; leave it out"
        )
    # of these processors the "edges" are areas: fewest and most pixels
    size["longest_edge"], size["shortest_edge"] = pixels, min(size["shortest_edge"], pixels)
    image_processor.size = size
