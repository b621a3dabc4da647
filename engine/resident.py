"""Stored frames on the device: all of a beton's, uploaded once, or those of the next batch, streamed ahead."""

# M stored frames of a beton, N of a batch, S their side, O samples of an epoch in its order, B bytes of the beton

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch

from loaders.config import Resident
from loaders.errors import ConfigError
from loaders.loader import Loader
from loaders.machine import usable_memory

logger = logging.getLogger(__name__)

UPLOAD_BYTES = 64 << 20  # of frames in one copy
# Room to leave for a step, generously: activations and gradients of the first block, in bytes a pixel of each crop
STEP_BYTES = 512
SPARE_BYTES = 1 << 30  # weights, moments, convolution workspaces


class ResidentFrames:
    """Every frame of a beton on the device, uint8 (M, S, S), each checked against its CRC on the way."""

    staged = False

    def __init__(self, loader: Loader, device: torch.device) -> None:
        beton = loader.beton
        self.frames_MSS = torch.empty((len(beton), beton.side, beton.side), dtype=torch.uint8, device=device)
        count = max(1, UPLOAD_BYTES // beton.side**2)
        for start in range(0, len(beton), count):
            index_N = np.arange(start, min(start + count, len(beton)))
            part_NSS = np.empty((len(index_N), beton.side, beton.side), np.uint8)
            gather_frames(loader, index_N, part_NSS)
            self.frames_MSS[start : start + len(index_N)].copy_(torch.from_numpy(part_NSS))

    def walk(self, order_O: np.ndarray, position: int, batch_size: int) -> Iterator[int]:
        """The size of each batch from a position on; its frames are there."""
        for start in range(position, len(order_O), batch_size):
            yield min(batch_size, len(order_O) - start)


class StreamedFrames:
    """The frames of one batch on the device, uint8 (N, S, S), in the batch's order.

    While a batch is trained on, the next one's frames are gathered on the host into one of two page-locked buffers, and
    copied by a stream of their own into one of two on the device; the last copy, into frames_MSS, is within the device.
    """

    staged = True

    def __init__(self, loader: Loader, device: torch.device, batch_size: int) -> None:
        self.loader, self.device = loader, device
        shape = (batch_size, loader.beton.side, loader.beton.side)
        on_cuda = device.type == "cuda"
        self.frames_MSS = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._host = [torch.empty(shape, dtype=torch.uint8, pin_memory=on_cuda) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]  # when a host buffer may be written again
        if on_cuda:
            self._ahead = [torch.empty_like(self.frames_MSS) for _ in range(2)]
            self._taken: list[torch.cuda.Event | None] = [None, None]  # when a device buffer may be
            self._stream = torch.cuda.Stream(device)

    def walk(self, order_O: np.ndarray, position: int, batch_size: int) -> Iterator[int]:
        """The size of each batch from a position on, once its frames are on their way into frames_MSS."""
        reading = self.loader.read_ahead(order_O, position)
        starts = range(position, len(order_O), batch_size)
        if self.device.type == "cuda":  # whose memory the buffers may have been until now
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            for turn, start in enumerate(starts):
                if turn == 0:
                    self._send(0, order_O[start : start + batch_size])
                count = min(batch_size, len(order_O) - start)
                self._take(turn % 2, count)
                if reading is not None:
                    reading.advance(start + 2 * batch_size, start)
                yield count  # the step is queued; what follows goes on beside it
                if (following := start + batch_size) < len(order_O):
                    self._send((turn + 1) % 2, order_O[following : following + batch_size])
        finally:
            if reading is not None:
                reading.close()

    def _send(self, slot: int, index_N: np.ndarray) -> None:
        """Gather a batch's frames on the host, and set their copy going."""
        copied = self._copied[slot]
        if copied is not None:
            copied.synchronize()  # of the batch before last: long done, unless the device is what bounds
        gather_frames(self.loader, index_N, self._host[slot].numpy())
        if self.device.type != "cuda":
            return
        taken = self._taken[slot]
        with torch.cuda.stream(self._stream):
            if taken is not None:
                self._stream.wait_event(taken)
            self._ahead[slot][: len(index_N)].copy_(self._host[slot][: len(index_N)], non_blocking=True)
            self._copied[slot] = self._stream.record_event()

    def _take(self, slot: int, count: int) -> None:
        """Put a batch's frames where the step reads them, behind the step before."""
        if self.device.type != "cuda":
            self.frames_MSS[:count].copy_(self._host[slot][:count])
            return
        copied = self._copied[slot]
        assert copied is not None
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        self.frames_MSS[:count].copy_(self._ahead[slot][:count])
        self._taken[slot] = current.record_event()


Frames = ResidentFrames | StreamedFrames


def gather_frames(loader: Loader, index_N: np.ndarray, out_NSS: np.ndarray) -> None:
    """Copy stored frames out of the map, each compared with its CRC at first touch.  Errors: BetonError."""
    beton = loader.beton
    loader.check_first_touch(index_N, beton.bytes_B, beton.offset_N)
    for place, sample in enumerate(index_N.tolist()):
        out_NSS[place] = beton.frame(sample)
    beton.check_unchanged()


def frames_on_device(
    loaders: list[Loader],
    device: torch.device,
    batch_sizes: list[int],
    *,
    resident: Resident = "auto",
    room: int | None = None,
) -> list[Frames]:
    """Frames of betons that are used side by side: all resident, or all streamed where they don't fit.

    batch_sizes: of each.  resident: as LoaderConfig has it.  room: bytes that the device has left; None asks it.
    Errors: ConfigError for `--resident on` where they don't fit; BetonError for a frame whose checksum differs.
    """
    needed = sum(len(loader.beton) * loader.beton.side**2 for loader in loaders)
    step = STEP_BYTES * loaders[0].beton.facts.crop ** 2 * max(batch_sizes) + SPARE_BYTES
    room = free_memory(device) if room is None else room
    fits = needed + step <= room
    sizes = f"{needed / 1e9:,.2f} GB of frames and {step / 1e9:,.2f} GB for steps, {room / 1e9:,.2f} GB free"
    if resident == "on" and not fits:
        raise ConfigError(f"--resident on: {sizes} on {device}, expected room for both; use --resident auto")
    if resident != "off" and fits:
        logger.info("frames resident on %s: %s", device, sizes)
        return [ResidentFrames(loader, device) for loader in loaders]
    logger.info("frames streamed to %s, --resident %s: %s", device, resident, sizes)
    return [StreamedFrames(loader, device, size) for loader, size in zip(loaders, batch_sizes, strict=True)]


def free_memory(device: torch.device) -> int:
    """Bytes that the device can still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return usable_memory()
