"""Decoding of many files by worker processes, in order; their stored frames go to a spool file."""

# H rows, W columns, S side of a stored frame

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from blake3 import blake3

from loaders.atomic_file import storage_error
from loaders.config import AuditLimits, Fit, Modality
from loaders.errors import RadiographError, StorageError
from loaders.images.files import refuse
from loaders.images.frame import grey_window, repair, stored_frame
from loaders.images.quality import Measurement, fix_of, measure, own_defects
from loaders.images.radiograph import decode_radiograph
from loaders.machine import usable_cores
from loaders.workers import map_in_processes

LEAST_SIDE = 16  # pixels; the smallest public set of chest radiographs, ChestMNIST, has 28
LARGEST_ASPECT = 5  # a thorax, arms up, is within 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The outcome for one file.  problem: why it is rejected, or "".  code: of the problem, from files.REFUSALS.

    pixel_hash: of the decoded grey levels.

    patient, sex, age, view: from the file itself; the patient is for hashing only, and is never written.
    short_side: of the radiograph after repair, in pixels.  measurement: for the audit, if it was asked for.
    """

    problem: str = ""
    code: str = ""
    note: str = ""
    pixel_hash: bytes = b""
    width: int = 0
    height: int = 0
    format: str = ""
    bits: int = 0
    saturated: float = 0.0
    patient: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    view: str = ""
    short_side: int = 0
    measurement: Measurement | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeSettings:
    """How files are decoded.  side, fit: of the stored frame.  limits: measure for the audit, and repair by them.

    within: the folders that files must lie in, links followed; without any, that which their paths are relative to.
    assume_modality: of DICOM files that state none.
    """

    side: int
    fit: Fit
    max_pixels: int
    workers: int
    limits: AuditLimits | None = None
    within: tuple[Path, ...] = ()
    assume_modality: Modality = "none"


@dataclass(frozen=True, slots=True)
class Task:
    """One file to decode.  place: in the spool.  fix: repairs of loaders.images.frame that an audit.csv asks for."""

    place: int
    path: str
    fix: str = ""


def decode_all(
    root: Path,
    tasks: Sequence[Task],
    settings: DecodeSettings,
    spool: Path | None,
    progress: Callable[[int, int], None],
) -> Generator[Decoded]:
    """Decode every file, in order; the same results with any number of workers.

    Errors: StorageError when the spool cannot be written or a worker dies.
    """
    decode = partial(decode_into_spool, root=root, spool=spool, settings=settings)
    workers = min(settings.workers or usable_cores(), max(1, len(tasks) // 8))
    if workers == 1:
        results = (decode(task) for task in tasks)
    else:
        results = map_in_processes(decode, tasks, workers, partial(cv2.setNumThreads, 1))
    try:
        with contextlib.closing(results):
            for done, decoded in enumerate(results, start=1):
                progress(done, len(tasks))
                yield decoded
    except ChildProcessError as error:
        what = "a decoding process died, perhaps for lack of memory"
        raise StorageError(f"{root}: {what}; use fewer --workers") from error


def decode_into_spool(task: Task, *, root: Path, spool: Path | None, settings: DecodeSettings) -> Decoded:
    """Decode one file, and write its frame to its place in the spool, if there is one."""
    measurement, fix = None, task.fix
    try:
        radiograph = decode_radiograph(
            inside(root, task.path, settings.within),
            max_pixels=settings.max_pixels,
            with_colour=settings.limits is not None,
            assume_modality=settings.assume_modality,
        )
        grey_HW = radiograph.grey_HW
        check_shape(*grey_HW.shape)
        saturated = 0.0
        if settings.limits is not None or spool is None:  # else the crop's window alone is asked for
            low, high, saturated = grey_window(grey_HW)
        if settings.limits is not None:
            measurement = measure(grey_HW, (low, high), radiograph.colour, settings.side)
            fix = fix_of(measurement, own_defects(measurement, settings.limits))
        repaired_HW = repair(grey_HW, fix)
        if spool is not None:
            frame_SS, saturated = stored_frame(repaired_HW, settings.side, settings.fit)
            write_frame(spool, task.place, frame_SS.reshape(-1))
    except RadiographError as error:
        return Decoded(problem=str(error), code=error.code)
    except (MemoryError, cv2.error) as error:
        problem = f"too large to prepare ({type(error).__name__}), expected less; shrink it"
        return Decoded(problem=problem, code="too-large")
    height, width = grey_HW.shape
    return Decoded(
        note=radiograph.note, pixel_hash=hash_pixels(grey_HW), width=width, height=height, format=radiograph.format,
        bits=radiograph.bits, saturated=saturated, short_side=min(repaired_HW.shape), patient=radiograph.patient,
        sex=radiograph.sex, age=radiograph.age, view=radiograph.view, measurement=measurement,
    )  # fmt: skip


def hash_pixels(grey_HW: np.ndarray) -> bytes:
    """128 bits that name decoded grey levels, as a beton keeps them: HASH_ALGORITHM of loaders.config.

    BLAKE3 (O'Connor et al. 2020) of the dtype and the shape in text, then of the levels, row by row.
    """
    digest = blake3(f"{grey_HW.dtype.str} {grey_HW.shape}".encode())
    digest.update(np.ascontiguousarray(grey_HW).reshape(-1).view(np.uint8).data)
    return digest.digest(length=16)


def check_shape(height: int, width: int) -> None:
    """Errors: RadiographError for a picture that no chest radiograph can be by its sides."""
    short, long = sorted((height, width))
    if short < LEAST_SIDE:
        raise refuse(f"{width} × {height} pixels", f"at least {LEAST_SIDE} a side", "too-small")
    if long > LARGEST_ASPECT * short:
        raise refuse(f"{width} × {height} pixels", f"no side above {LARGEST_ASPECT} times the other", "odd-shape")


def inside(root: Path, path: str, within: Sequence[Path] = ()) -> Path:
    """The file's path, if it is there and links and `..` stay inside root, or a folder of within.

    Errors: RadiographError.
    """
    joined, folders = root / path, within or (root,)
    try:
        resolved, bases = joined.resolve(), [folder.resolve() for folder in folders]
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or a NUL in the name
        raise refuse(f"unreadable path ({error})", "a file", "no-access", "correct or remove the link") from error
    if not set(bases) & set(resolved.parents):
        raise refuse("leads outside the source folder", "a file inside it", "outside-source")
    with contextlib.suppress(OSError):  # no access or a name too long: opening it tells which
        if not resolved.exists():
            raise refuse("not found", f"a file below {' or '.join(map(str, folders))}", "not-found")
    return joined


def write_frame(spool: Path, place: int, frame: np.ndarray) -> None:
    """Write one flat frame at its place; several processes may write at once."""
    with spool.open("r+b") as file:
        file.seek(place * frame.nbytes)
        file.write(frame.data)


@contextlib.contextmanager
def temporary_spool(spool: Path, size: int, left: Iterable[Path]) -> Iterator[Path]:
    """A new file of that size, readable by its owner alone, deleted at the end.  left: files of killed runs to delete.

    Its name should be new each time, lest workers of a killed run, which may live a moment longer, write to it.
    Errors: StorageError, also for an OSError of the body.
    """
    try:
        for path in left:
            path.unlink()
        with open(os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            file.truncate(size)
        yield spool
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else spool
        raise error if isinstance(error, StorageError) else storage_error(named, error, size) from error
    finally:
        spool.unlink(missing_ok=True)
