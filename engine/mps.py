"""The MPS policy: what each torch version gets right on Apple's GPUs, and the upstream issue that it rests on.

No row has been proven on hardware by us: `make bench-mps` records what a machine says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.torch_version import TorchVersion


@dataclass(frozen=True, kw_only=True, slots=True)
class MpsRow:
    """What holds from one torch version on.

    since: that version.  autocast: mixed precision's dtype where it is asked for.  compiled: whether torch.compile may
    be used.  found_inf: whether fused Adam leaves the weights alone when told to.  issues: what each choice rests on.
    """

    since: str
    autocast: torch.dtype
    memory_format: torch.memory_format
    compiled: bool
    found_inf: bool
    issues: dict[str, str]


PYTORCH = "https://github.com/pytorch/pytorch"
COMMON = {
    # float16 has been there for longer, but needs its loss scaled, which we do not
    "autocast": f"{PYTORCH}/issues/139386: bfloat16 autocast came with 2.6, on macOS 14 and newer",
    "memory_format": f"{PYTORCH}/issues/175189: batch norm's backward pass is silently wrong in channels_last",
    "compiled": f"{PYTORCH}/issues/150121: torch.compile is unfinished on MPS",
}
ROWS = (
    MpsRow(
        since="2.11",
        autocast=torch.bfloat16,
        memory_format=torch.contiguous_format,
        compiled=False,
        found_inf=False,
        issues=COMMON | {"found_inf": f"{PYTORCH}/pull/186360: fused optimisers ignored found_inf before it"},
    ),
    MpsRow(
        since="2.14",
        autocast=torch.bfloat16,
        memory_format=torch.contiguous_format,
        compiled=False,
        found_inf=True,
        # merged while 2.13 was about to be branched off: counted from the next version on
        issues=COMMON | {"found_inf": f"{PYTORCH}/pull/186360: fused optimisers heed found_inf"},
    ),
)


def mps_row(version: str) -> MpsRow:
    """The row of a torch version; before the oldest, the oldest.  A pre-release counts as the version before it."""
    known = [row for row in ROWS if TorchVersion(version) >= row.since]
    return known[-1] if known else ROWS[0]
