"""What processes that decode are forked from: importing it loads the libraries, kernels and nets that they will need.

Each would load them by itself with its first file, for most of a second.
"""

# H rows, W columns

import contextlib

import cv2
import numpy as np

from loaders.config import ORDINARY_PIXELS
from loaders.images.decode import hash_pixels
from loaders.images.frame import grey_window, stored_frame
from loaders.images.lungs import one_opencv_thread
from loaders.images.quality import measure
from loaders.images.radiograph import decode_bytes

SIDE = 64  # pixels of what is decoded, larger than a stored frame of 32


def load_all() -> None:
    """Decode noise of the usual formats, and do all with it that audit and conversion do."""
    noise_HW = np.random.default_rng(0).integers(0, 2**16, (SIDE, SIDE), np.uint16)
    grey_HW = (noise_HW >> 8).astype(np.uint8)
    for suffix, picture, name in (
        (".png", noise_HW, "PNG"), (".png", grey_HW, "PNG"), (".png", np.dstack([grey_HW] * 3), "PNG"),
        (".jpg", grey_HW, "JPEG"),
    ):  # fmt: skip
        data = cv2.imencode(suffix, picture)[1].tobytes()
        radiograph = decode_bytes(data, name, max_pixels=ORDINARY_PIXELS, with_colour=True)
        low, high, _ = grey_window(radiograph.grey_HW)
        measure(radiograph.grey_HW, (low, high), radiograph.colour, SIDE // 2)
        stored_frame(radiograph.grey_HW, SIDE // 2, "cover")
        hash_pixels(radiograph.grey_HW)


# OpenCV's own threads would not survive the fork; and a process that decodes will say itself what does not work here
with contextlib.suppress(Exception), one_opencv_thread():
    load_all()
