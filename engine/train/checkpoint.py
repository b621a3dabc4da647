"""A checkpoint: tensors and a JSON state in one safetensors file, published atomically. No pickle anywhere."""

# N samples of the validation set, K classes or findings

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from engine.train.step import Learner
from loaders.atomic_file import publish_bytes, storage_error
from loaders.beton.reader import Beton
from loaders.errors import CheckpointError

LOGITS, LABEL, GROUP = "validation.logits", "validation.label", "validation.group"


def digest(tensors: Mapping[str, Tensor], state: str) -> str:
    """A hash of everything that a checkpoint holds; safetensors itself has no checksum."""
    hasher = hashlib.blake2b(state.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors, from any device, and a JSON-ready state to path, atomically.  Errors: StorageError."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    publish_bytes(path, save(on_host, metadata={"state": text, "digest": digest(on_host, text)}))


def load_checkpoint(path: Path, needed: Iterable[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back.  needed: what its state must hold.

    Errors: CheckpointError for a missing, foreign or damaged one, or one of another kind; StorageError.
    """
    content = read_bytes(path)
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        state = json.loads(metadata["state"])
        whole = metadata["digest"] == digest(tensors, metadata["state"])
        if not isinstance(state, dict):
            raise TypeError(f"its state is a {type(state).__name__}")
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:  # RecursionError among them
        raise CheckpointError(
            f"{path}: not a plainfilm checkpoint ({error}), expected one; use the last good copy, or train again"
        ) from error
    if not whole:
        raise CheckpointError(
            f"{path}: checksum differs from the expected: damaged; use the last good copy, or train again"
        )
    if lacking := sorted(set(needed) - set(state)):
        raise CheckpointError(
            f"{path}: a checkpoint of another kind, expected one with {', '.join(lacking)}; bring the right file back"
        )
    return tensors, state


def missing(path: Path, what: str = "the weights of a run") -> CheckpointError:
    """The error for a checkpoint that is not there.  what: it should hold."""
    return CheckpointError(f"{path}: not there, expected {what}; train first, or check the folder")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, to name a checkpoint in results."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_bytes(path: Path) -> bytes:
    """A checkpoint's bytes.  Errors: CheckpointError where it is not there; StorageError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise storage_error(path, error) from error


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name."""
    return {f"network.{name}": tensor for name, tensor in network.state_dict().items()}


def learner_tensors(learner: Learner) -> dict[str, Tensor]:
    """Weights and buffers, and Adam's moments and step counts, by name."""
    state = learner.optimiser.state
    return network_tensors(learner.network) | {
        f"adam.{key}.{name}": value
        for name, parameter in learner.network.named_parameters()
        for key, value in state.get(parameter, {}).items()
    }


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a number that is not finite; "" where there is none.

    A device is waited for once where all are finite, however many there are.
    """
    finite = [value.isfinite().all() for value in tensors.values()]
    if not finite or bool(torch.stack([flag.to(finite[-1].device) for flag in finite]).all()):
        return ""
    return next(name for name, flag in zip(tensors, finite, strict=True) if not bool(flag))


def restore(learner: Learner, tensors: dict[str, Tensor]) -> None:
    """Put saved tensors back in place, in the layout they had.  Errors: CheckpointError for another network's."""
    load_network(learner.network, tensors)
    for name, parameter in learner.network.named_parameters():
        saved = {key: tensors.get(f"adam.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
        if any(value is None for value in saved.values()):
            continue  # saved before the first step
        learner.optimiser.state[parameter] = {
            key: value.to(parameter.device)
            if key == "step"
            else torch.empty_like(parameter, requires_grad=False).copy_(value)
            for key, value in saved.items()
            if value is not None
        }


def load_network(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights and buffers by name.  Errors: CheckpointError for another network's."""
    network.load_state_dict(weights_for(network, tensors))


def weights_for(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights and buffers among a checkpoint's tensors.  Errors: CheckpointError for another network's."""
    weights = {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
    wanted = network.state_dict()
    other_shape = (name for name, tensor in weights.items() if tensor.shape != wanted[name].shape)
    if odd := sorted(weights.keys() ^ wanted.keys()) or sorted(other_shape):
        raise CheckpointError(
            f"the weights are of another network ({len(odd)} tensors differ, such as {odd[0]}), "
            "expected the run's; use the run's own checkpoint"
        )
    return weights


# ---- validation scores: kept beside the best epoch's weights, to choose temperature and thresholds by


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationScores:
    """Labels, logits float32 (N, K) and groups int64 (N,) of the validation set at the best epoch.

    labels: int64 (N,), or of findings float32 (N, K), NaN for unknown.
    """

    labels: np.ndarray
    logits_NK: np.ndarray
    group_N: np.ndarray


def groups_of(beton: Beton) -> np.ndarray:
    """The group of each sample, int64 (N,); in an unverified beton, which has none, each sample is its own."""
    return beton.rows_N["group"].astype(np.int64) if beton.verified else np.arange(len(beton))


def best_tensors(
    network: nn.Module, labels: np.ndarray, logits_NK: np.ndarray, group_N: np.ndarray
) -> dict[str, Tensor]:
    """The weights and the validation scores as tensors of a checkpoint, copied.

    network: what validated.  group_N: see `groups_of`.
    """
    return {name: tensor.clone() for name, tensor in network_tensors(network).items()} | {
        LOGITS: torch.tensor(logits_NK, dtype=torch.float32),
        LABEL: torch.tensor(labels),
        GROUP: torch.tensor(group_N, dtype=torch.int64),
    }


def validation_scores(tensors: Mapping[str, Tensor], path: Path) -> ValidationScores:
    """The scores that a checkpoint holds.  path: of its file.  Errors: CheckpointError for one without them."""
    if not {LOGITS, LABEL, GROUP} <= tensors.keys():
        raise CheckpointError(f"{path}: no validation scores, expected those of the best epoch; train again")
    return ValidationScores(
        labels=tensors[LABEL].numpy(), logits_NK=tensors[LOGITS].numpy(), group_N=tensors[GROUP].numpy()
    )
