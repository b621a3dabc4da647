"""The device: what this machine computes on, in which precision, layout and way, and why."""

import contextlib
import getpass
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch.torch_version import TorchVersion

from engine.config import Switch
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MpsRow:
    """What holds from one torch version on.

    since: that version.  autocast: mixed precision's dtype where it is asked for.  compiled: whether torch.compile may
    be used.  found_inf: whether fused Adam skips a step when its flag of that name is up.  issues: why, by choice.
    """

    since: str
    autocast: torch.dtype
    memory_format: torch.memory_format
    compiled: bool
    found_inf: bool
    issues: dict[str, str]


PYTORCH = "https://github.com/pytorch/pytorch"
OLDEST = MpsRow(
    since="2.11",
    autocast=torch.bfloat16,
    memory_format=torch.contiguous_format,
    compiled=False,
    found_inf=False,
    issues={
        # float16 has been there for longer, but needs its loss scaled, which we do not
        "autocast": f"{PYTORCH}/issues/139386: bfloat16 autocast came with 2.6, on macOS 14 and newer",
        "memory_format": f"{PYTORCH}/issues/175189: batch norm's backward pass is silently wrong in channels_last",
        "compiled": f"{PYTORCH}/issues/150121: torch.compile is unfinished on MPS",
        "found_inf": f"{PYTORCH}/pull/186360: fused optimisers ignore found_inf before it",
    },
)
# 2.14: the pull request was merged while 2.13 was about to be branched off, so it counts from the next version on
ROWS = (OLDEST, replace(OLDEST, since="2.14", found_inf=True))


def mps_row(version: str) -> MpsRow:
    """The row of a torch version; before the oldest, the oldest.  A pre-release counts as the version before it."""
    known = [row for row in ROWS if TorchVersion(version) >= row.since]
    return known[-1] if known else ROWS[0]


# Training steps after which compiling has repaid itself on CUDA, estimated: it saves a tenth of a millisecond of each
# captured step, and takes half a minute at first, a few seconds where torch finds its results of an earlier run.
COMPILE_REPAYS, COMPILE_REPAYS_WARM = 300_000, 50_000


BFLOAT16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}  # torch's names, the faster first
SURE = ("AMX",)  # units that are several times as fast; of others a race decides
RACE_SECONDS, WORTH = 0.5, 1.2  # a convolution must be so many times as fast, since the rest of a step is not
RACED = (32, 64, 28, 28)  # batch, channels in and out, rows, columns: between the recipe's layers at 224


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How to compute.  autocast: mixed precision's dtype, or None.  compiled: use torch.compile, and why or why not.

    why_precision: why that dtype, or none.
    found_inf: whether fused Adam skips a step when its flag of that name is up.  setting: names what is compiled.
    stored: the precision that weights are in, and without autocast computed in.
    """

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format
    compiled: bool
    why: Caution
    why_precision: Caution
    found_inf: bool = True
    setting: str = ""
    stored: str = "fp32"

    def precision(self) -> contextlib.AbstractContextManager:
        """The autocast context of a forward pass; without its cache of cast weights, which a captured step outlives."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast, cache_enabled=False)

    def describe(self) -> str:
        """One line for logs and summaries."""
        layout = "channels_last" if self.memory_format == torch.channels_last else "contiguous"
        precision = self.stored if self.autocast is None else f"{self.autocast} autocast".removeprefix("torch.")
        if self.device.type == "cuda":
            tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
            precision += f", TF32 {'on' if tf32 else 'off'}"
        return f"{device_name(self.device)}, {precision}, {layout}, {'compiled' if self.compiled else 'eager'}"

    def remember_compiled(self) -> None:
        """Note that torch's cache has what this setting compiles to."""
        if self.compiled and self.device.type == "cuda":
            with contextlib.suppress(OSError):  # no cache folder: the next run compiles again
                warm_marker(self.setting).touch()


def settle_precision(policy: Policy) -> None:
    """Set what torch keeps for the whole process: float32 means float32 on CUDA, and cuDNN times its convolutions.

    Without it cuDNN would round float32 to TF32 by default.  Every shape comes again and again, so that timing pays.
    """
    if policy.device.type == "cuda":
        # the older of two interfaces: torch.compile reads it, and refuses to once the newer one has been used
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def choose_device(name: str) -> torch.device:
    """The device of that name, or the first there is.  Errors: ConfigError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, present in there.items() if present)
    if not there[name]:
        found = ", ".join(device for device, present in there.items() if present)
        raise ConfigError(f"--device {name}: not on this machine, expected one of {found}; use --device auto")
    return torch.device(name)


def bfloat16_unit() -> str:
    """What of an x86-64 processor multiplies bfloat16 natively; "" for nothing."""
    found = torch.cpu.get_capabilities()
    return next((name for key, name in BFLOAT16_UNITS.items() if found.get(key)), "")


@cache  # once a process, so that all that it trains is of one precision
def bfloat16_gain() -> float:
    """How many times as fast a convolution like the recipe's is in bfloat16, by a race of half a second."""
    batch, channels, rows, columns = RACED
    with torch.inference_mode():
        frames_NCHW = torch.ones(batch, channels, rows, columns).contiguous(memory_format=torch.channels_last)
        weights_CCHW = torch.ones(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
        rivals = {kind: (frames_NCHW.to(kind), weights_CCHW.to(kind)) for kind in (torch.float32, torch.bfloat16)}
        best, started = dict.fromkeys(rivals, float("inf")), time.perf_counter()
        rounds = 0
        while rounds < 3 or time.perf_counter() - started < RACE_SECONDS:
            for kind, (frames, weights) in rivals.items():
                begun = time.perf_counter()
                torch.nn.functional.conv2d(frames, weights, padding=1)
                if rounds:  # the first also makes oneDNN's kernel
                    best[kind] = min(best[kind], time.perf_counter() - begun)
            rounds += 1
    return best[torch.float32] / best[torch.bfloat16]


def choose_precision(amp: Switch, device: torch.device) -> tuple[bool, Caution]:
    """Whether to compute in mixed precision, and why."""
    if amp != "auto":
        return amp == "on", caution("amp-as-set", switch=amp)
    if device.type == "cuda":
        return True, caution("amp-always", device=device.type)
    if device.type != "cpu" or not (unit := bfloat16_unit()):
        return False, caution("amp-never", device=device.type)
    if unit in SURE:
        return True, caution("amp-by-unit", unit=unit)
    gain = bfloat16_gain()
    precision = "bfloat16" if gain >= WORTH else "float32"
    return gain >= WORTH, caution("amp-by-race", precision=precision, unit=unit, gain=round(gain, 2), least=WORTH)


def choose_policy(device: str, amp: Switch, compiled: Switch, num_steps: int, setting: str = "") -> Policy:
    """Settle device, precision and layout.  num_steps: of the whole run.  setting: names what would be compiled.

    Errors: ConfigError for a device that is not there, or compilation without a compiler.
    """
    chosen = choose_device(device)
    layout, mixed, found_inf, cannot = torch.channels_last, torch.bfloat16, True, ""
    if chosen.type == "mps":
        row = mps_row(torch.__version__)
        layout, mixed, found_inf = row.memory_format, row.autocast, row.found_inf
        cannot = "" if row.compiled else row.issues["compiled"]
    is_mixed, why_precision = choose_precision(amp, chosen)
    setting += ", mixed" if is_mixed else ""
    compile_it, why = compiled == "on", caution("compile-as-set", switch=compiled)
    if cannot and compile_it:
        raise ConfigError(f"--compile on: torch {torch.__version__} cannot on MPS ({cannot}); use --compile off")
    if compiled == "auto" and chosen.type == "cuda":
        warm = warm_marker(setting).exists()
        repays = COMPILE_REPAYS_WARM if warm else COMPILE_REPAYS
        compile_it = num_steps >= repays
        why = caution("compile-by-steps", steps=num_steps, least=repays, cache="warm" if warm else "cold")
    elif compiled == "auto" and cannot:
        why = caution("compile-not-yet", device=chosen.type, issue=cannot)
    elif compiled == "auto":
        why = caution("compile-never", device=chosen.type)
    compilers = [os.environ.get("CXX") or "g++", "clang++", "c++"]  # as torch.compile searches for them
    if compile_it and chosen.type == "cpu" and not any(map(shutil.which, compilers)):
        raise ConfigError(
            f"--compile on: no C++ compiler found, expected one of {', '.join(compilers)}; "
            "install one, or use --compile off"
        )
    return Policy(
        device=chosen, autocast=mixed if is_mixed else None, memory_format=layout, compiled=compile_it, why=why,
        why_precision=why_precision, found_inf=found_inf, setting=setting,
    )  # fmt: skip


def as_stored(policy: Policy, dtype: torch.dtype) -> Policy:
    """The same for a model that is computed in the precision that its weights are stored in."""
    name = str(dtype).removeprefix("torch.")
    stored = "fp32" if dtype == torch.float32 else f"{name} weights"
    return replace(policy, autocast=None, stored=stored, why_precision=caution("amp-by-weights", precision=name))


def warm_marker(setting: str) -> Path:
    """The file beside torch.compile's cache that marks a setting as compiled here before, by this version of torch."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(given or Path(tempfile.gettempdir()) / f"torchinductor_{user_name()}")  # torch's own rule
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    name = hashlib.blake2b(f"{torch.__version__} {device} {setting}".encode(), digest_size=16).hexdigest()
    return folder / f"plainfilm-{name}"


def user_name() -> str:
    """This user's name as torch's cache has it; a container's user may have none."""
    try:
        name = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        return f"uid_{os.getuid()}" if hasattr(os, "getuid") else "unknown_user"
    return re.sub(r'[\\/:*?"<>|]', "_", name)


def device_name(device: torch.device) -> str:
    """The device's name, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{device.type} ({name}{threads})"
