"""The lungs of a stored frame, by a small U-Net that OpenCV runs, and whether the mask can be believed.

A segmenter is a folder: segmenter.json and ONNX files of two nets or more, as `segment-train` makes it.  Each net was
trained without some patients, and no film is segmented by a net that is known to have seen it (Segmenter.saw).  A mask
covers both lungs with what of them lies behind the heart and the diaphragm's domes, without the mediastinum between
them, as the V7 Labs annotations do that the shipped nets are trained on.
"""

# S side of a frame, T side of the nets' input, N films, K nets

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Protocol

import cv2
import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from loaders.atomic_file import storage_error
from loaders.config import FORMER_ALGORITHM, HASH_ALGORITHM, SAM2
from loaders.errors import ConfigError, IntegrityError
from loaders.machine import usable_cores
from loaders.records import Count, Record, read_record

SIDE = 128  # of the nets' input
SHIPPED = Path(__file__).with_name("lungs")
RECORD = "segmenter.json"
TURN, ZOOM = 5.0, 1.06  # degrees clockwise and factor of the second look
LEAST_PART = 0.004  # share of the frame; smaller specks are no lungs
WINDOW = 256  # frames whose lungs are found ahead
EDGE = 2  # pixels of SIDE; lungs this near to the frame's edge reach it
# Limits of a credible mask; docs/LUNGS.md shows how they were chosen
LEAST_AGREEMENT, LEAST_BALANCE, MOST_CUT = 0.88, 0.4, 0.25
LEAST_AREA = 0.06


class NetRecord(Record, frozen=True, kw_only=True):
    """One net of a segmenter.  file: its ONNX, or of SAM 2 a decoder's weights.

    pixels, patients: hashes of the films and of the patients it saw.  num_films: with masks, that it was trained on,
    without phantoms.
    """

    file: Annotated[str, msgspec.Meta(pattern=r"^net-[0-9]+\.(onnx|safetensors)\Z")]
    sha256: str
    num_films: Count
    pixels: list[str]
    patients: list[str]


class SegmenterRecord(Record, frozen=True, kw_only=True):
    """What a segmenter is, as segmenter.json holds it.  site_key_id: of the key of the patients' hashes.

    hash_algorithm: of the films' pixels.  identity: names it in betons and results.  num_nets: how many it has once it
    is finished.  checksum: of all else, lest damage hide what a net saw; a record without it is refused.
    backbone: identity of the model of SAM 2 whose decoders the nets are.
    """

    made_by = "segment-train"
    version: int = 1
    identity: str
    num_nets: Count
    num_phantoms: Count
    sources: list[str]
    site_key_id: str
    hash_algorithm: str = FORMER_ALGORITHM
    nets: list[NetRecord]
    backbone: str | UnsetType = UNSET
    checksum: str = ""

    def summed(self) -> "SegmenterRecord":
        """The same record with its checksum."""
        content = msgspec.json.encode(msgspec.structs.replace(self, checksum=""))
        return msgspec.structs.replace(self, checksum=hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, kw_only=True, slots=True)
class Lungs:
    """The lungs found in one frame.

    mask_SS: bool, of the frame's side.  agreement: Dice of the mask with that of a slightly turned and enlarged frame,
    0 where either is empty.  balance: area of the smaller lung over the larger one's.  cut: share of the mask's outline
    that lies on the frame's edge.
    Of SAM 2 agreement is Dice with the shipped net's mask.  doubt: the code where it is low.
    """

    mask_SS: np.ndarray
    agreement: float
    balance: float
    cut: float
    doubt: Literal["lungs-uncertain", "lungs-differ"] = "lungs-uncertain"

    @property
    def area(self) -> float:
        """The lungs' share of the frame."""
        return float(self.mask_SS.mean())

    @property
    def problem(self) -> str:
        """Why the mask is not credible, a code of loaders.images.files.REFUSALS; "" for one that is."""
        if self.area < LEAST_AREA:
            return "lungs-missing"
        if self.agreement < LEAST_AGREEMENT:
            return self.doubt
        if self.balance < LEAST_BALANCE:
            return "lungs-unequal"
        return "lungs-at-edge" if self.cut > MOST_CUT else ""


class LungFinder(Protocol):
    """What finds lungs: a Segmenter, or anything with its methods."""

    @property
    def record(self) -> SegmenterRecord:
        """What it is, and which films it saw."""

    def nets_for(self, pixels: Sequence[bytes], patients: Sequence[bytes], group_N: np.ndarray) -> np.ndarray:
        """As of Segmenter."""

    def find(self, frame_SS: np.ndarray, nets: Sequence[int] = (0, 0)) -> Lungs:
        """As of Segmenter."""

    def find_all(
        self, frame_of: Callable[[int], np.ndarray], nets_N2: np.ndarray, workers: int = 0
    ) -> Iterator[Lungs | None]:
        """As of Segmenter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segmenter:
    """The nets of a segmenter; safe to use from several threads, each of which reads the nets once.

    content_K: the nets' ONNX.
    """

    name: str
    record: SegmenterRecord
    content_K: tuple[bytes, ...] = field(repr=False)
    of_thread: threading.local = field(default_factory=threading.local, repr=False)

    def nets_for(self, pixels: Sequence[bytes], patients: Sequence[bytes], group_N: np.ndarray) -> np.ndarray:
        """The nets of both looks at each film, not known to have seen its group: int64 (N, 2); -1 where all are.

        One net takes both looks at every film, drawn by the film's pixels where several may: two nets agree less than
        one with itself, and would single out the films that only one may segment.  Arguments as of `saw`.
        """
        unseen_KN = ~self.saw(pixels, patients, group_N)
        order_KN, free_N = np.argsort(~unseen_KN, axis=0, kind="stable"), unseen_KN.sum(0)
        drawn_N = np.array([pixel[0] if pixel else 0 for pixel in pixels], np.int64) % np.maximum(1, free_N)
        net_N = np.where(free_N > 0, np.take_along_axis(order_KN, drawn_N[None], 0)[0], -1)
        return np.stack([net_N, net_N], axis=1)

    def nets_of_film(self, pixels: bytes) -> np.ndarray:
        """The nets of both looks at a film alone, by the hash of its pixels: int64 (2,); -1 where all have seen it."""
        return self.nets_for([pixels], [b""], np.zeros(1, np.int64))[0]

    def saw(self, pixels: Sequence[bytes], patients: Sequence[bytes], group_N: np.ndarray) -> np.ndarray:
        """Whether each net is known to have seen each film, or one of its group: bool (K, N).

        Known are the very pixels, and patients that were hashed under the same site key: not a copy of other size or
        levels, and no patient of the shipped nets.  pixels, patients: hashes of each film, as in a beton; patients of
        another key, or unknown ones (b""), tell nothing.
        """
        saw_KN = np.zeros((len(self.record.nets), len(group_N)), bool)
        for saw_N, net in zip(saw_KN, self.record.nets, strict=True):
            known, known_patients = set(net.pixels), set(net.patients)
            own_N = [
                pixel.hex() in known or patient.hex() in known_patients
                for pixel, patient in zip(pixels, patients, strict=True)
            ]
            saw_N[:] = np.isin(group_N, group_N[own_N])
        return saw_KN

    def find(self, frame_SS: np.ndarray, nets: Sequence[int] = (0, 0)) -> Lungs:
        """The lungs of a stored frame, uint8 S×S, by the mean of two looks: at the frame, and at the frame turned and
        enlarged a little.  nets: of each look, as of nets_for.
        """
        small_TT = cv2.resize(frame_SS, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        first_TT = self.logits(small_TT, nets[0])
        turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), -TURN, ZOOM)
        turned_TT = cv2.warpAffine(small_TT, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        second_TT = cv2.warpAffine(
            self.logits(turned_TT, nets[-1]), turn, (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        side = len(frame_SS)
        wide_SS = cv2.resize((first_TT + second_TT) / 2, (side, side), interpolation=cv2.INTER_LINEAR)
        mask_SS, balance = two_lungs(wide_SS > 0)
        return Lungs(
            mask_SS=mask_SS, agreement=dice(first_TT > 0, second_TT > 0), balance=balance, cut=cut_share(mask_SS)
        )

    def logits(self, small_TT: np.ndarray, net: int) -> np.ndarray:
        """One net's logits: float32 T×T."""
        nets = self.of_thread.__dict__.setdefault("nets", {})
        if net not in nets:
            nets[net] = cv2.dnn.readNetFromONNX(np.frombuffer(self.content_K[net], np.uint8))
        nets[net].setInput(standardised(small_TT)[None, None])
        return cv2.resize(nets[net].forward()[0, 0], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    def find_all(
        self, frame_of: Callable[[int], np.ndarray], nets_N2: np.ndarray, workers: int = 0
    ) -> Iterator[Lungs | None]:
        """The lungs of N frames in order; None for one whose nets are -1.  workers: threads; 0 for one a core."""

        def found(place: int) -> Lungs | None:
            return None if nets_N2[place, 0] < 0 else self.find(frame_of(place), nets_N2[place])

        with one_opencv_thread(), ThreadPoolExecutor(workers or usable_cores()) as pool:
            for start in range(0, len(nets_N2), WINDOW):  # lest masks pile up that are not taken yet
                yield from pool.map(found, range(start, min(start + WINDOW, len(nets_N2))))


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV without threads of its own, which would be as many again for each of ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def standardised(small_TT: np.ndarray) -> np.ndarray:
    """What the nets take: a uint8 frame of any shape, less its mean, over its deviation: float32."""
    grey_TT = small_TT.astype(np.float32)
    return (grey_TT - grey_TT.mean()) / (grey_TT.std() + 1)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Twice what two masks share over the sum of their areas (Dice 1945); 0 where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 0.0


def two_lungs(mask_SS: np.ndarray) -> tuple[np.ndarray, float]:
    """The two largest parts of a mask without holes, bool S×S, and the smaller one's area over the larger one's."""
    outlines, _ = cv2.findContours(mask_SS.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = sorted(outlines, key=cv2.contourArea, reverse=True)[:2]
    areas = [cv2.contourArea(part) for part in parts]
    least = LEAST_PART * mask_SS.size
    kept = [part for part, area in zip(parts, areas, strict=True) if area >= least]
    filled_SS = cv2.drawContours(np.zeros(mask_SS.shape, np.uint8), kept, -1, 1, cv2.FILLED)
    return filled_SS > 0, areas[1] / areas[0] if len(kept) == 2 else 0.0


def cut_share(mask_SS: np.ndarray) -> float:
    """The share of a mask's outline that lies on the frame's edge."""
    outlines, _ = cv2.findContours(mask_SS.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return 0.0
    points_P2, side = np.concatenate(outlines)[:, 0], len(mask_SS)
    edge = EDGE * side / SIDE
    return float(((points_P2 < edge) | (points_P2 > side - 1 - edge)).any(1).mean())


@cache
def shipped_segmenter() -> Segmenter:
    """The segmenter that comes with plainfilm.  Errors: IntegrityError for damaged weights."""
    return read_segmenter(SHIPPED, "shipped")


def is_sam2(name: str) -> bool:
    """Whether a setting --segmenter names a model of SAM 2, or decoders of one that `segment-train` tuned."""
    return name.startswith(SAM2) or (
        (Path(name) / RECORD).is_file() and bool(read_segmenter_record(Path(name)).backbone)
    )


def load_segmenter(name: str) -> Segmenter:
    """A segmenter by the setting --segmenter: `shipped`, or a folder that `segment-train` made.

    Errors: ConfigError for no such folder, or an unfinished one; IntegrityError for damaged files; StorageError.
    """
    return shipped_segmenter() if name == "shipped" else read_segmenter(Path(name), name)


def same_segmenter(name: str, identity: str, like: Path) -> Segmenter:
    """The segmenter of that name, if it found the lungs of a run or beton, `like`, with this identity.

    Errors: ConfigError for another one; and as of load_segmenter.
    """
    segmenter = load_segmenter(name)
    if segmenter.record.identity != identity:
        raise ConfigError(
            f"--segmenter {name}: segmenter {segmenter.record.identity}, expected {identity}, which found the lungs of "
            f"{like}; name its folder, or train again on betons of this one"
        )
    return segmenter


def read_segmenter(folder: Path, name: str) -> Segmenter:
    """Read a folder's nets and check each one's bytes."""
    if is_sam2(name):
        raise ConfigError(
            f"--segmenter {name}: SAM 2, expected `shipped` or a folder of small nets; make masks by "
            f"`segment --segmenter {name}`, and give them by --masks"
        )
    if not (folder / RECORD).is_file():
        raise ConfigError(
            f"--segmenter {name}: no {RECORD} there, expected `shipped`, or a folder that `segment-train` made; check "
            "the path"
        )
    record = read_segmenter_record(folder)
    if len(record.nets) < max(1, record.num_nets):
        raise ConfigError(
            f"--segmenter {name}: {len(record.nets)} of {max(1, record.num_nets)} nets, expected all; run the same "
            "`segment-train` again, which goes on from there"
        )
    return Segmenter(name=name, record=record, content_K=tuple(read_net(folder, net, name) for net in record.nets))


def read_segmenter_record(folder: Path) -> SegmenterRecord:
    """A segmenter's record, which has its checksum.

    Errors: ConfigError for one whose films are hashed by another algorithm, so that none would seem to be seen;
    IntegrityError; StorageError.
    """
    record = read_record(SegmenterRecord, folder / RECORD)
    if record.hash_algorithm != HASH_ALGORITHM:
        raise ConfigError(
            f"{folder / RECORD}: pixels of the films that its nets saw are hashed by {record.hash_algorithm}, expected "
            f"{HASH_ALGORITHM}, since they could not be told from other films; train it again, in a new folder"
        )
    if record != record.summed():
        raise IntegrityError(
            f"{folder / RECORD}: checksum differs, expected what `segment-train` wrote: damaged or edited; bring it "
            "back, or train it again"
        )
    return record


def read_net(folder: Path, net: NetRecord, name: str) -> bytes:
    """A net's ONNX, which has its checksum and which OpenCV can run.  Errors: IntegrityError, StorageError."""
    remedy = "install plainfilm again" if name == "shipped" else "bring it back, or train it again"
    path = folder / net.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise storage_error(path, error) from error
    if hashlib.sha256(content).hexdigest() != net.sha256:
        raise IntegrityError(f"{path}: checksum differs from that in {RECORD}: damaged or replaced; {remedy}")
    try:
        reader = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
        reader.setInput(np.zeros((1, 1, SIDE, SIDE), np.float32))
        shape = reader.forward().shape
    except cv2.error as error:
        raise IntegrityError(f"{path}: no net that OpenCV can run ({error.err}), expected one; {remedy}") from error
    if shape != (1, 1, SIDE // 2, SIDE // 2):
        raise IntegrityError(f"{path}: gives {shape}, expected logits {(1, 1, SIDE // 2, SIDE // 2)}; {remedy}")
    return content
