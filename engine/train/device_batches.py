"""Batches made on a device, from stored frames that are resident there, or are streamed to it a batch ahead."""

# N samples of a batch, H W rows and columns of the crop, M stored frames, S their side, O samples of an epoch in its
# order, B bytes of the beton, 23 the two rows of an inverse affine matrix

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from engine.device import Policy
from kernels.checksum import crc32c
from kernels.crops import MIDDLE, SCALE
from loaders.batches.loader import Loader
from loaders.cautions import Caution, caution
from loaders.config import Resident
from loaders.errors import ConfigError
from loaders.machine import usable_memory
from loaders.sampling import epoch_matrices, sampled_pixels

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
        yield from (min(batch_size, len(order_O) - start) for start in range(position, len(order_O), batch_size))


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
        if (copied := self._copied[slot]) is not None:
            copied.synchronize()  # of the batch before last: long done, unless the device is what bounds
        gather_frames(self.loader, index_N, self._host[slot].numpy())
        if self.device.type != "cuda":
            return
        with torch.cuda.stream(self._stream):
            if (taken := self._taken[slot]) is not None:
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
    beton, crc_N = loader.beton, loader.room_for_checksums(index_N)
    beton.check_unchanged()
    for place, sample in enumerate(index_N.tolist()):
        out_NSS[place] = beton.frame(sample)
        if crc_N is not None:
            crc_N[place] = crc32c(out_NSS[place].reshape(-1), 0, beton.side**2)
    beton.check_unchanged()
    loader.check_first_touch(index_N, crc_N)


def frames_on_device(
    loaders: list[Loader], device: torch.device, batch_sizes: list[int], resident: Resident, room: int | None = None
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


class DeviceBatches:
    """The batches of one loader's epochs, in the loader's order, made on the device.

    Everything that `make` reads has a fixed place on the device, so that a captured step can be replayed.
    position: int64 (1,), where in the epoch the next batch begins.
    """

    def __init__(self, loader: Loader, frames: Frames, policy: Policy, batch_size: int) -> None:
        device, crop, total = policy.device, loader.beton.facts.crop, loader.num_samples
        self.loader, self.frames, self.batch_size = loader, frames, batch_size
        self.order_O = torch.zeros(total, dtype=torch.int64, device=device)
        labels = torch.from_numpy(loader.beton.labels[:0])  # int64, or of findings float32 of K columns
        self.labels_O = torch.zeros((total, *labels.shape[1:]), dtype=labels.dtype, device=device)
        self.inverse_O23 = torch.zeros((total, 2, 3), dtype=torch.float32, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self._count_N = torch.arange(batch_size, device=device)
        dtype, layout = policy.autocast or torch.float32, policy.memory_format
        # bytes are the same in both layouts, there is one channel; the strides decide which one the convolution takes
        self._out_N1HW = torch.empty((batch_size, 1, crop, crop), dtype=dtype, device=device, memory_format=layout)
        self._labels = torch.empty((batch_size, *labels.shape[1:]), dtype=labels.dtype, device=device)
        self._places_N = torch.empty(batch_size, dtype=torch.int64, device=device)
        self.trouble = triton_trouble() if device.type == "cuda" else None
        self.triton = device.type == "cuda" and not self.trouble
        self.low, self.high = sampled_pixels(loader.config, crop, loader.beton.side)

    def begin(self, epoch: int, position: int) -> Iterator[int]:
        """Upload an epoch.  Gives the size of each batch from a position on, at the moment when `make` can make it."""
        loader, beton = self.loader, self.loader.beton
        order_O = loader.epoch_order(epoch)
        upload(self.order_O, order_O)
        upload(self.labels_O, beton.labels[order_O])
        if loader.config.training:
            inverse_N23 = epoch_matrices(loader.config, epoch, len(beton), beton.facts.crop, beton.side)
            upload(self.inverse_O23, inverse_N23[order_O])
        self.position.fill_(position)
        return self.frames.walk(order_O, position, self.batch_size)

    def sizes(self, position: int) -> list[int]:
        """The different sizes that batches of an epoch have from a position on: the full one, and the tail's."""
        left = self.loader.num_samples - position
        return [size for size in dict.fromkeys((min(self.batch_size, left), left % self.batch_size)) if size > 0]

    def make(self, count: int) -> tuple[Tensor, Tensor]:
        """The batch at the position: crops (count, 1, H, W) in the network's precision, labels (count, …).

        Both are overwritten by the next batch.  The position stays; see `advance`.
        """
        out_N1HW, labels, frames_MSS = self._out_N1HW[:count], self._labels[:count], self.frames.frames_MSS
        training, staged = self.loader.config.training, self.frames.staged
        if self.triton:
            from kernels.cuda import batch_into  # only here: Triton is where CUDA is

            # the kernel copies one integer a sample: the class; of findings, which have none, something that is there
            one_label = labels.dim() == 1
            copied = (labels, self.labels_O) if one_label else (self._places_N[:count], self.order_O)
            places = self.order_O, copied[1], self.inverse_O23 if training else None, self.position
            batch_into(out_N1HW, copied[0], frames_MSS, *places, low=self.low, high=self.high, staged=staged)
            if not one_label:
                labels.copy_(self.labels_O[self.places(count)])
            return out_N1HW, labels
        place_N = self.places(count)
        labels.copy_(self.labels_O[place_N])
        frames_NSS = frames_MSS[:count] if staged else frames_MSS[self.order_O[place_N]]
        crop = out_N1HW.shape[3]
        if training:
            crops_NHW = affine_portable(frames_NSS, self.inverse_O23[place_N], crop, low=self.low, high=self.high)
        else:
            crops_NHW = crop_portable(frames_NSS, crop)
        out_N1HW.copy_(crops_NHW[:, None])
        return out_N1HW, labels

    def places(self, count: int) -> Tensor:
        """Where in the epoch the samples of the next batch are, int64 (count,)."""
        return self.position + self._count_N[:count]

    def advance(self, count: int | Tensor) -> None:
        """Move the position on."""
        self.position += count


def triton_trouble() -> Caution | None:
    """Why Triton cannot make batches on this CUDA machine; None where it can."""
    try:
        from kernels.cuda import batch_into

        one = torch.zeros(1, dtype=torch.int64, device="cuda")
        frame_MSS = torch.zeros((1, 2, 2), dtype=torch.uint8, device="cuda")
        out_N1HW = torch.empty((1, 1, 2, 2), device="cuda")
        batch_into(out_N1HW, one.clone(), frame_MSS, one, one, None, one, low=0, high=1, staged=False)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, OSError, RuntimeError) as error:  # no Triton, or no C compiler for its launcher
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return caution("triton-unavailable", reason=reason)
    return None


def upload(place: Tensor, array: np.ndarray) -> None:
    """Copy an array to its place on the device; without waiting for it on CUDA, which alone keeps such copies safe."""
    source, on_cuda = torch.from_numpy(np.ascontiguousarray(array)), place.device.type == "cuda"
    place.copy_(source.pin_memory() if on_cuda else source, non_blocking=on_cuda)


def to_unit(levels: Tensor) -> Tensor:
    """Map grey levels, float32 0 to 255, to [-1, 1], as the kernels do."""
    return (levels - float(MIDDLE)) * float(SCALE)


def crop_portable(frames_NSS: Tensor, crop: int) -> Tensor:
    """Central crops float32 (N, H, W) in [-1, 1], copied: to the bit those of the crop kernel."""
    margin = (frames_NSS.shape[1] - crop) // 2
    return to_unit(frames_NSS[:, margin : margin + crop, margin : margin + crop].float())


def affine_portable(frames_NSS: Tensor, inverse_N23: Tensor, crop: int, *, low: int, high: int) -> Tensor:
    """Rotated, zoomed crops float32 (N, H, W) in [-1, 1] by PyTorch's own operations; within 1e-3 of the kernels.

    Coordinates are clamped to pixels low to high first, so that what grid_sample puts beyond the frame never matters.
    """
    count, side = frames_NSS.shape[:2]
    centre = torch.arange(crop, device=frames_NSS.device, dtype=torch.float32) + 0.5
    down_HW, across_HW = torch.meshgrid(centre, centre, indexing="ij")
    matrix = inverse_N23[:, :, :, None, None]
    place_N2HW = matrix[:, :, 0] * across_HW + (matrix[:, :, 1] * down_HW + matrix[:, :, 2] - 0.5)
    place_N2HW = place_N2HW.clamp(low, high)
    grid_NHW2 = (place_N2HW * (2 / (side - 1)) - 1).permute(0, 2, 3, 1)
    levels_N1HW = grid_sample(frames_NSS[:, None].float(), grid_NHW2, mode="bilinear", align_corners=True)
    return to_unit(levels_N1HW[:, 0]).view(count, crop, crop)
