"""Training of a segmenter: nets in folds by patient, each scored on the films that it never saw."""

# N films, T side of the nets' input, P phantoms, K nets

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from engine.config import SegmentTrainConfig
from engine.device import choose_device
from engine.segmentation.augment import augmented
from engine.segmentation.network import LungNet, onnx_bytes, require_onnx
from loaders.atomic_file import locked, publish_bytes
from loaders.convert.patient_hash import load_site_key, patient_hash, site_key_id
from loaders.errors import ConfigError, InputError
from loaders.images.frame import read_mask, stored_frame
from loaders.images.lungs import RECORD, SIDE, NetRecord, SegmenterRecord, standardised
from loaders.images.radiograph import decode_radiograph
from loaders.output import PhaseProgress
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from loaders.records import known_record, write_record
from loaders.sources.split import group_by
from loaders.sources.table import read_rows
from loaders.statistics import deal_groups, stream

BATCH = 16
PEAK_RATE = 4e-3  # of the learning rate, which rises to it and falls again over the steps
REMEDY = "name a table of path and mask, perhaps with patient and source"
AUGMENT, PHANTOM = 21, 22  # random streams


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A radiograph with a mask.  frame_TT, mask_TT: uint8, the mask 0 or 255.  pixels: hash, as in a beton."""

    path: str
    frame_TT: np.ndarray
    mask_TT: np.ndarray
    pixels: bytes
    patient: str = ""
    source: str = ""


def read_films(manifests: Sequence[Path], progress: PhaseProgress) -> list[Film]:
    """The radiographs of tables of path, mask and perhaps patient and source; paths are relative to each table.

    Rows without a mask are left out.  Errors: InputError for files that cannot be used, naming them; StorageError.
    """
    rows = [
        (manifest, row)
        for manifest in manifests
        for _, row in read_rows(
            manifest, itemgetter("path"), ("path", "mask"), ("patient", "source"), REMEDY, strip=False
        ).values()
        if row["mask"]
    ]
    films = []
    for done, (manifest, row) in enumerate(rows, 1):
        path = manifest.parent / row["path"]
        try:
            grey_HW = decode_radiograph(path, max_pixels=64_000_000).grey_HW
            frame_SS, _ = stored_frame(grey_HW, 2 * SIDE, "stretch")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        mask_SS = read_mask(manifest.parent / row["mask"], 2 * SIDE, "stretch", size=grey_HW.shape[::-1])
        digest = hashlib.blake2b(f"{grey_HW.dtype.str} {grey_HW.shape}".encode(), digest_size=16)
        digest.update(grey_HW.data)
        films.append(
            Film(
                path=row["path"], pixels=digest.digest(), patient=row["patient"], source=row["source"],
                frame_TT=cv2.resize(frame_SS, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
                mask_TT=cv2.resize(mask_SS.astype(np.uint8) * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
            )
        )  # fmt: skip
        progress("read", done, len(rows))
    return films


def draw_films(number: int, seed: int, progress: PhaseProgress) -> list[Film]:
    """Phantoms of every class, with arms up or down and marks at random."""
    rng, films = stream(seed, PHANTOM), []
    for patient in range(number):
        label, arms_up, marked = ("covid", "normal", "pneumonia")[patient % 3], rng.random() < 0.5, rng.random() < 0.3
        planned = PlannedPhantom(
            seed=seed, patient=patient, label=label, size=SIDE, strength=float(rng.uniform(0, 2)), arms_up=arms_up,
            marked=marked,
        )  # fmt: skip
        phantom = draw_phantom(planned)
        frame_TT, _ = stored_frame(phantom.image_HW, SIDE, "stretch")
        films.append(Film(path=planned.name, frame_TT=frame_TT, mask_TT=phantom.lung_mask_HW, pixels=b""))
        progress("draw", patient + 1, number)
    return films


def train_net(
    films: Sequence[Film],
    phantoms: Sequence[Film],
    steps: int,
    seed: int,
    device: torch.device,
    progress: PhaseProgress,
) -> LungNet:
    """Train one net: Adam, binary cross-entropy and soft Dice; half of each batch are phantoms where there are both."""
    torch.manual_seed(seed)
    net = LungNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    rng = stream(seed, AUGMENT)
    kinds = [kind for kind in (films, phantoms) if kind]
    for step in range(steps):
        pairs = []
        for place in range(BATCH):
            kind = kinds[place % len(kinds)]
            film = kind[int(rng.integers(len(kind)))]
            pairs.append(augmented(film.frame_TT, film.mask_TT, rng))
        frames = np.stack([standardised(frame_TT) for frame_TT, _ in pairs])[:, None]
        masks = np.stack([mask_TT > 0 for _, mask_TT in pairs])[:, None]
        x = torch.from_numpy(frames).to(device, memory_format=torch.channels_last)
        y = torch.from_numpy(masks).to(device, torch.float32)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = net(x)
        logits = F.interpolate(logits.float(), scale_factor=2, mode="bilinear", align_corners=False)
        p = logits.sigmoid()
        overlap = 2 * (p * y).sum((1, 2, 3)) / (p.sum((1, 2, 3)) + y.sum((1, 2, 3)) + 1)
        loss = F.binary_cross_entropy_with_logits(logits, y) + (1 - overlap).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        progress("steps", step + 1, steps)
    return net.eval()


def groups_of(films: Sequence[Film]) -> np.ndarray:
    """Films of one patient, or of the same pixels, share a number: int64 N, counted from 0."""
    if not films:
        return np.empty(0, np.int64)
    return group_by([film.patient.casefold() or None for film in films], [film.pixels for film in films])


def identity_of(config: SegmentTrainConfig, films: Sequence[Film]) -> str:
    """What names a segmenter: a hash of its films, masks and settings."""
    digest = hashlib.blake2b(digest_size=8, person=b"segmenter")
    digest.update(repr((config.folds, config.steps, config.phantoms, config.seed)).encode())
    for film in films:
        digest.update(film.pixels + film.mask_TT.tobytes() + film.patient.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def segment_train(
    config: SegmentTrainConfig, progress: PhaseProgress = lambda phase, done, total: None
) -> SegmenterRecord:
    """Train a net a fold, score it there, and write segmenter.json and the nets; goes on after finished nets.

    Errors: ConfigError without the extra `export`, and for a folder of another segmenter; InputError for films or
    masks that cannot be used, or too few patients; LockedError; StorageError.
    """
    require_onnx()
    films = read_films(config.manifest, progress)
    group_N = groups_of(films)
    num_groups = int(group_N.max(initial=-1)) + 1
    if films and num_groups < config.folds:
        raise InputError(
            f"{config.manifest[0]}: masks of {num_groups} patients, expected at least {config.folds}, one a fold; "
            "lower --folds, or add more"
        )
    fold_N = deal_groups(group_N, config.seed, config.folds) if films else np.empty(0, np.int64)
    num_nets = config.folds if films else 2
    key = load_site_key(config.site_key)
    phantoms = draw_films(config.phantoms, config.seed, progress)
    identity = identity_of(config, films)
    device, nets = choose_device(config.device), list[NetRecord]()
    with locked(config.out):
        before = known_record(SegmenterRecord, config.out / RECORD)
        if before is not None and before.identity != identity:
            raise ConfigError(
                f"{config.out}: holds another segmenter, expected one of these settings and films; choose another --out"
            )
        for fold in range(num_nets):
            file = f"net-{fold + 1}.onnx"
            seen = [film for film, own in zip(films, fold_N.tolist(), strict=True) if own != fold]
            if before is not None and fold < len(before.nets):
                content = (config.out / file).read_bytes()
            else:
                told = partial(progress, f"net {fold + 1}/{num_nets}")
                net = train_net(seen, phantoms, config.steps, config.seed + fold, device, told)
                content = onnx_bytes(net)
                publish_bytes(config.out / file, content)
            nets.append(
                NetRecord(
                    file=file,
                    sha256=hashlib.sha256(content).hexdigest(),
                    num_films=len(seen),
                    pixels=sorted({film.pixels.hex() for film in seen}),
                    patients=sorted({patient_hash(key, film.patient).tobytes().hex() for film in seen if film.patient}),
                )
            )
            record = SegmenterRecord(
                identity=identity,
                num_nets=num_nets,
                num_phantoms=config.phantoms,
                sources=sorted({film.source for film in films} - {""}),
                site_key_id=site_key_id(key),
                nets=nets,
            )
            write_record(config.out / RECORD, record)
    return record
