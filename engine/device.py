"""The device: where to compute, in which precision and layout (DESIGN, Devices)."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from dataclasses import dataclass

import torch

from engine.config import Switch
from loaders.errors import ConfigError

COMPILE_REPAYS = 2000  # training steps; a compilation of tens of seconds against tenths of a millisecond a step


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How to compute.  autocast: mixed precision's dtype, or None.  compiled: use torch.compile, and why or why not."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    compiled: bool
    why: str = ""

    def precision(self) -> contextlib.AbstractContextManager:
        """The autocast context of a forward pass."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def describe(self) -> str:
        """One line for logs and summaries."""
        layout = "channels_last" if self.memory_format == torch.channels_last else "contiguous"
        precision = "fp32" if self.autocast is None else f"{self.autocast} autocast".removeprefix("torch.")
        return f"{device_name(self.device)}, {precision}, {layout}, {'compiled' if self.compiled else 'eager'}"


def choose_device(name: str) -> torch.device:
    """The device of that name, or the first there is.  Errors: ConfigError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in there.items() if present)
    if not there[name]:
        found = ", ".join(device for device, present in there.items() if present)
        raise ConfigError(f"--device {name}: not on this machine, expected one of {found}; use --device auto")
    return torch.device(name)


def choose_policy(device: str, amp: Switch, compiled: Switch, num_steps: int) -> Policy:
    """Settle device, precision and layout.  num_steps: of the whole run.

    Errors: ConfigError for a device that is not there, or compilation without a compiler.
    """
    chosen = choose_device(device)
    autocast = torch.bfloat16 if amp == "on" or (amp == "auto" and chosen.type == "cuda") else None
    compile_it = compiled == "on" or (compiled == "auto" and chosen.type == "cuda" and num_steps >= COMPILE_REPAYS)
    # channels_last convolutions have been slow or wrong in backward on MPS (DESIGN, Devices)
    layout = torch.contiguous_format if chosen.type == "mps" else torch.channels_last
    compilers = [os.environ.get("CXX") or "g++", "clang++", "c++"]  # what torch.compile looks for
    if compile_it and chosen.type == "cpu" and not any(map(shutil.which, compilers)):
        raise ConfigError(
            f"--compile on: no C++ compiler found, expected one of {', '.join(compilers)}; "
            "install one, or use --compile off"
        )
    why = f"--compile {compiled}, {num_steps:,} steps, repaid from {COMPILE_REPAYS:,} on CUDA"
    return Policy(device=chosen, autocast=autocast, memory_format=layout, compiled=compile_it, why=why)


def device_name(device: torch.device) -> str:
    """What a person would call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    return (
        f"{device.type} ({name}, {torch.get_num_threads()} threads)"
        if device.type == "cpu"
        else f"{device.type} ({name})"
    )
