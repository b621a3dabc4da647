"""Pretrained weights: torchvision's or a file's, fitted to a network.  Nothing in a file is ever executed."""

# K output channels, C input channels, H W rows and columns

import logging
import pickle
import re
import struct
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.config import TrainConfig, shared_model, vlm_folder
from engine.networks.extras import import_torchvision
from engine.networks.registry import NAMES, PATCH, check_crop, make_network
from engine.networks.vlm import open_vlm
from engine.networks.wordings import read_prompts
from engine.train.checkpoint import digest, file_hash, not_finite
from loaders.atomic_file import storage_error
from loaders.beton.format import Facts
from loaders.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]

SECONDS_FOR_AN_ANSWER = 10.0
# what torch, zipfile and safetensors raise over a damaged file
UNREADABLE = (
    SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, ImportError,
    AssertionError, ArithmeticError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")  # of the weights in a training's checkpoint
# names of densenet169's default weights, which are older than the network: norm.1 for norm1
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def initial_network(config: TrainConfig, facts: Facts, *, pretrained: bool = True) -> nn.Module:
    """The network that a training begins with: drawn from its seed, then given config.recipe.weights.

    pretrained=False: only drawn, for a run that goes on from its own weights.
    Errors: ConfigError for a crop that the network cannot take, or weights that are not there; CheckpointError for ones
    that cannot be used.
    """
    check_crop(config.model, facts.crop)
    if folder := vlm_folder(config.model):
        if config.recipe.weights != "none":
            raise ConfigError(
                f"--weights {config.recipe.weights}: found with {shared_model(config.model)}, expected none, since its "
                "weights lie in its folder; leave it out"
            )
        prompts = read_prompts(config.vlm.prompts, facts.task)
        torch.manual_seed(config.loader.seed)
        return open_vlm(
            Path(folder), facts.classes, facts.task, prompts, tune=config.vlm.tune, pixels=config.vlm.pixels
        )
    weights = find_weights(config.model, config.recipe.weights) if pretrained else {}
    torch.manual_seed(config.loader.seed)
    network = make_network(config.model, len(facts.classes), facts.crop, config.recipe.dropout)
    if weights:
        adopt(network, config.model, weights, config.recipe.weights)
    return network


def find_weights(model: str, weights: str) -> Weights:
    """The weights that --weights names; none for "none".  Errors: ConfigError, CheckpointError, StorageError."""
    if weights == "none":
        return {}
    return read_weights(default_file(model) if weights == "default" else Path(weights))


def default_file(model: str) -> Path:
    """torchvision's default weights in torch.hub's folder, downloaded if they are not there.

    Errors: ConfigError where that fails, with the file to place and where; CheckpointError for another file
    there; StorageError.
    """
    if model not in NAMES:
        raise ConfigError(f"--weights default: there are none for {model}, expected none or a file of weights")
    url = import_torchvision("torchvision.models").get_model_weights(model).DEFAULT.url
    name = url.rsplit("/", 1)[1]
    prefix = re.search(r"-([0-9a-f]{8,})\.", name)
    assert prefix is not None, name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # first with a timeout: the download itself has none
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=SECONDS_FOR_AN_ANSWER).close()
            torch.hub.download_url_to_file(url, str(path), prefix[1], progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: another checksum
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"--weights default: {model}'s could not be downloaded ({reason}), expected {path}; "
                f"place the file from {url} there, or use --weights none"
            ) from error
    found = file_hash(path)
    if not found.startswith(prefix[1]):
        raise CheckpointError(
            f"{path}: SHA-256 begins {found[: len(prefix[1])]}, expected {prefix[1]}; remove it, and place {url} there"
        )
    return path


def read_weights(path: Path) -> Weights:
    """Tensors by name from a .safetensors file, or from a state_dict that torch.save wrote, without running its pickle.

    Errors: ConfigError when there is no such file; CheckpointError for one that is not weights, or would run code;
    StorageError.
    """
    if not path.is_file():
        raise ConfigError(f"--weights {path}: no such file, expected none, default, or a file; check the path")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
            check_digest(path, content)
        else:
            check_sums(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickles that it then refuses
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not weights alone, expected a state_dict; refused, since loading it could run code: "
            "save it again as .safetensors, where you trust it"
        ) from error
    except OSError as error:
        raise storage_error(path, error) from error
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: not readable as weights ({first_line(error)}), expected a state_dict as .pth or .safetensors; "
            "check the file"
        ) from error
    while isinstance(content, dict) and (inner := [key for key in WRAPPERS if isinstance(content.get(key), dict)]):
        content = content[inner[0]]
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
    } if isinstance(content, dict) else {}  # fmt: skip
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name, expected a state_dict; check the file")
    if any(name.startswith("network.") for name in tensors):  # plainfilm's: without Adam's moments and the scores
        tensors = {name[8:]: value for name, value in tensors.items() if name.startswith("network.")}
    if bad := not_finite(tensors):
        raise CheckpointError(f"{path}: {bad} is not finite, expected finite weights; use another file")
    return tensors


def check_digest(path: Path, tensors: Weights) -> None:
    """Errors: CheckpointError for a damaged file of plainfilm's own; other safetensors have no checksum."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    own = metadata.keys() & {"digest", "state"}
    if own and metadata.get("digest") != digest(tensors, metadata.get("state", "")):
        raise CheckpointError(f"{path}: checksum differs from the expected: damaged; use the last good copy")


def check_sums(path: Path) -> None:
    """Errors: CheckpointError for a damaged file of torch.save: torch reads its checksums, and compares none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise CheckpointError(f"{path}: {damaged} differs from its checksum: damaged; use the last good copy")


def adopt(network: nn.Module, model: str, weights: Weights, source: str) -> None:
    """Load weights into a network.

    Names are torchvision's or plainfilm's, perhaps behind a prefix (`without_prefix`).  A first convolution for three
    channels is summed; the places of a transformer for another crop are interpolated; a last layer of another number of
    classes is left as it was drawn.
    Errors: CheckpointError for weights of another network.
    """
    wanted = network.state_dict()
    own, prefix = without_prefix(weights, model, wanted, source)
    found = {own_name(model, name): value for name, value in own.items()}
    head = "classifier.4." if model == "cnn" else "head.1."  # the last layer's names
    if any(name in found and found[name].shape != wanted[name].shape for name in (f"{head}weight", f"{head}bias")):
        found = {name: value for name, value in found.items() if not name.startswith(head)}
    if model in NAMES:
        fit_stem(found, wanted, f"body.{NAMES[model].stem}.weight")
    if model == "vit_b_16":
        fit_places(found, wanted, source)
    # files of old torch versions lack these counts, and files of features lack the last layer
    optional = [name for name in wanted if name.endswith("num_batches_tracked") or name.startswith(head)]
    lacking = [name for name in wanted if name not in found and name not in optional]
    unknown = [name for name in found if name not in wanted]
    if lacking or unknown:
        named = f"lack {len(lacking)} tensors ({lacking[0]})" if lacking else f"have {len(unknown)} more ({unknown[0]})"
        raise CheckpointError(f"--weights {source}: they {named}, expected {model}'s; choose a file of that network")
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"--weights {source}: {name} is of {tuple(value.shape)}, expected {tuple(wanted[name].shape)}; "
                f"choose a file of {model} for this crop"
            )
    network.load_state_dict(found, strict=False)
    drawn = sorted(name for name in wanted if name not in found and name.startswith(head))
    stripped = f" (behind {prefix}; {len(weights) - len(own)} other tensors left out)" if prefix else ""
    logger.info("%s: weights from %s%s; drawn anew: %s", model, source, stripped, ", ".join(drawn) or "none")


def without_prefix(weights: Weights, model: str, wanted: Weights, source: str) -> tuple[Weights, str]:
    """The weights behind the prefix that makes most names fit, and that prefix; all of them, and "", without one.

    A wrapped network's names begin with what it was called: module. (DataParallel), _orig_mod. (torch.compile), model.
    or backbone. (Lightning), or several of these.
    Errors: CheckpointError where two networks fit as well as each other.
    """
    fitting = Counter[str]()
    for name in weights:
        places = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        fitting.update(name[:place] for place in places if own_name(model, name[place:]) in wanted)
    ranked = sorted(fitting, key=lambda prefix: (-fitting[prefix], len(prefix), prefix))
    if not ranked or not ranked[0]:
        return weights, ""
    best = ranked[0]
    if rivals := [one for one in ranked[1:] if fitting[one] == fitting[best] and not one.startswith(best)]:
        raise CheckpointError(
            f"--weights {source}: {model}'s names lie behind {best} and behind {rivals[0]}, expected one network; "
            "save the one you want alone"
        )
    return {name.removeprefix(best): value for name, value in weights.items() if name.startswith(best)}, best


def own_name(model: str, name: str) -> str:
    """plainfilm's name of a tensor, from torchvision's or its own."""
    if model not in NAMES or name.startswith(("body.", "head.")):
        return name
    if model == "densenet169" and (old := OLD_DENSENET.match(name)):
        name = old[1] + old[2]
    last = f"{NAMES[model].head}."
    return f"head.1.{name.removeprefix(last)}" if name.startswith(last) else f"body.{name}"


def fit_stem(found: Weights, wanted: Weights, name: str) -> None:
    """Sum a first convolution's weights over its channels, if there are more than are wanted."""
    weight_KCHW = found.get(name)
    if weight_KCHW is not None and weight_KCHW.dim() == 4 and weight_KCHW.shape[1] == 3 and wanted[name].shape[1] == 1:
        found[name] = weight_KCHW.float().sum(1, keepdim=True)


def fit_places(found: Weights, wanted: Weights, source: str) -> None:
    """Interpolate a transformer's embeddings of places to the number that is wanted.  Errors: CheckpointError."""
    name = "body.encoder.pos_embedding"
    if name not in found or found[name].shape == wanted[name].shape:
        return
    side = round((wanted[name].shape[1] - 1) ** 0.5) * PATCH
    transformer = import_torchvision("torchvision.models.vision_transformer")
    state = OrderedDict({name.removeprefix("body."): found[name]})
    try:
        found[name] = transformer.interpolate_embeddings(side, PATCH, state)[name.removeprefix("body.")]
    except ValueError as error:
        raise CheckpointError(
            f"--weights {source}: {name} is of {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}, or "
            "that of another square picture; choose a file of vit_b_16"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
