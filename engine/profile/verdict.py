"""The verdict of a profile: what bounds the engine's training now, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.profile.account import Measured

WAITING = 0.1  # share of the time: below it, waiting for batches is no bottleneck
MOVING = 0.2  # share of the time, of transfers
OVERHEAD = 0.5  # share of a step that more images would not lengthen
COMPUTED = 0.2  # threads that compute less of their time wait for bytes; training leaves them a part of a core
SWIFT = 0.6  # share of the matrix products' rate: above it, nearly all is arithmetic

Bottleneck = Literal["disk", "loader", "transfer", "small batches", "computing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """bottleneck: its name.  text: what was seen, and the remedy."""

    bottleneck: Bottleneck
    text: str


def judge(
    engine: Measured, *, threads: int, cores: int, batch_size: int, overhead: float | None, arithmetic: float
) -> Verdict:
    """Name the bottleneck.

    threads: of the loader.  overhead: share of a step that its images do not change, if known.
    arithmetic: the step's FLOP/s as a share of this machine's matrix products.
    """
    wait, moving = engine.share("wait"), engine.share("transfer")
    if wait >= WAITING:
        waits = f"training waits {wait:.0%} of the time for batches"
        if engine.computed < COMPUTED * engine.worked:
            idle = 1 - engine.computed / engine.worked
            return Verdict(
                bottleneck="disk",
                text=f"the disk: {waits}, and the threads that make them wait {idle:.0%} of theirs for bytes; "
                "keep the betons on a faster disk, or read them into memory with --resident on",
            )
        if threads < cores:
            return Verdict(
                bottleneck="loader",
                text=f"the loader: {waits}, and its threads work {engine.worked:.0%} of it; more --threads (now "
                f"{threads}, on {cores} cores)",
            )
        return Verdict(
            bottleneck="loader",
            text=f"the loader: {waits}, although it has a thread for each of {cores} cores; more cores, "
            "or fewer programs beside it",
        )
    if moving >= MOVING:
        return Verdict(
            bottleneck="transfer",
            text=f"the way to the device: {moving:.0%} of the time goes into moving batches; --resident on",
        )
    if overhead is not None and overhead >= OVERHEAD:
        return Verdict(
            bottleneck="small batches",
            text=f"small batches: {overhead:.0%} of a step is the same for any number of images; raise --batch-size "
            f"(now {batch_size})",
        )
    runs = f"the network's products run at {arithmetic:.2f} of the rate of large matrices on this machine"
    if arithmetic >= SWIFT:
        return Verdict(bottleneck="computing", text=f"computing: {runs}; only faster hardware helps much")
    return Verdict(
        bottleneck="computing",
        text=f"computing: {runs}, so that small layers, memory and the calls between take the rest; larger batches or "
        "crops use it better",
    )
