"""SPDL, where it is installed: its pipeline and decoder on original files, grid_sample on its batches."""

# N samples of a batch, S side of a stored frame, H W rows and columns of the crop

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.rivals.augmentation import Turns, by_grid_sample
from benchmarks.rivals.installed import shorten, why_missing

AHEAD = 3  # batches that wait for the consumer


def missing() -> str | None:
    """Why it is not there, or None.  Its decoder is FFmpeg's, of the system, and is looked for at the first use."""
    reason = why_missing("spdl", "spdl.io")
    if reason is not None:
        return reason
    import spdl.io

    try:
        spdl.io.load_image(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    except (ImportError, OSError, RuntimeError) as error:
        return shorten(f"FFmpeg's libraries: {error}")
    return None


def file_pipeline(
    paths: Sequence[Path], turns: Turns, stored: int, crop: int, batch: int, threads: int
) -> Callable[[], Iterator[np.ndarray]]:
    """Epochs of crops out of original files: decoded to grey and stretched by FFmpeg, in threads."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    def decode(path: Path) -> Any:
        packets = spdl.io.demux_image(str(path))
        wanted = spdl.io.get_filter_desc(
            packets, scale_width=stored, scale_height=stored, scale_algo="bilinear", scale_mode=None, pix_fmt="gray"
        )
        return spdl.io.decode_packets(packets, filter_desc=wanted)

    def collect(frames: list[Any]) -> np.ndarray:
        return spdl.io.to_numpy(spdl.io.convert_frames(frames))

    def epoch() -> Iterator[np.ndarray]:
        builder = PipelineBuilder().add_source(paths).pipe(decode, concurrency=threads, output_order="input")
        pipeline = builder.aggregate(batch).pipe(collect).add_sink(AHEAD).build(num_threads=threads)
        start, low = 0, (stored - crop) // 2
        with pipeline.auto_stop():
            for frames_NSS1 in pipeline.get_iterator():
                crops_NHW = torch.from_numpy(frames_NSS1[:, low : low + crop, low : low + crop, 0])
                yield by_grid_sample(crops_NHW, turns.part(slice(start, start + len(crops_NHW)))).numpy()
                start += len(crops_NHW)

    return epoch
