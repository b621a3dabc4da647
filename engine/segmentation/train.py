"""Training of a segmenter: nets in folds by patient, each scored on the films that it never saw."""

# N films, T side of the nets' input, P phantoms, K nets

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from msgspec import UNSET

from engine.config import SegmentTrainConfig
from engine.device import choose_device
from engine.segmentation.augment import augmented
from engine.segmentation.films import Film, draw_films, groups_of, read_films
from engine.segmentation.network import LungNet, onnx_bytes, require_onnx
from engine.segmentation.sam2 import load_decoder, look_at, open_sam2, tune_decoder, write_place
from engine.segmentation.test import Tested, score_films, score_parts, write_test
from engine.statistics.estimates import RESAMPLES
from engine.train.checkpoint import read_bytes
from loaders.atomic_file import locked, publish_bytes
from loaders.config import HASH_ALGORITHM
from loaders.errors import ConfigError, DivergedError, InputError
from loaders.images.lungs import (
    RECORD,
    SIDE,
    LungFinder,
    NetRecord,
    SegmenterRecord,
    read_net,
    read_segmenter,
    read_segmenter_record,
    shipped_segmenter,
    standardised,
)
from loaders.output import Line, Parts, PhaseProgress, counted, path_line
from loaders.records import write_record
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id
from loaders.statistics import Progress, deal_groups, stream

BATCH = 16
PEAK_RATE = 4e-3  # of the learning rate, which rises to it and falls again over the steps
AUGMENT = 21  # random stream


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedSegmenter:
    """A finished segmenter.  tested: on films that a net never saw; None of phantoms alone."""

    out: Path
    record: SegmenterRecord
    tested: Tested | None


def train_net(
    films: Sequence[Film],
    phantoms: Sequence[Film],
    steps: int,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> LungNet:
    """Train one net: Adam, binary cross-entropy and soft Dice; half of each batch are phantoms where there are both.

    Errors: DivergedError for a loss or, at the end, weights that are not finite.
    """
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
        if not loss.isfinite():
            raise diverged(step + 1, f"loss {loss.item()}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, steps)
    if not all(value.isfinite().all() for value in net.state_dict().values()):
        raise diverged(steps, "weights that are not finite")
    return net.eval()


def diverged(step: int, found: str) -> DivergedError:
    """The error for a net whose loss or weights are not finite."""
    return DivergedError(f"step {step}: {found}, expected finite numbers; train with another --seed, or --device cpu")


class UnetMaker:
    """Small nets, as ONNX.  See Sam2Maker for what both have."""

    suffix, backbone = "onnx", ""

    def __init__(self, config: SegmentTrainConfig) -> None:
        require_onnx()
        self.config, self.device = config, choose_device(config.device)

    def prepare(self, films: Sequence[Film], phantoms: Sequence[Film], progress: PhaseProgress) -> None:
        """What all folds share: nothing but the films."""
        self.films, self.phantoms = films, phantoms

    def make(self, kept: Sequence[int], seed: int, progress: Progress) -> bytes:
        """A net of some of the films.  kept: their places."""
        films = [self.films[place] for place in kept]
        return onnx_bytes(train_net(films, self.phantoms, self.config.steps, seed, self.device, progress))

    def check(self, net: NetRecord) -> bytes:
        """A finished net's file.  Errors: IntegrityError, StorageError."""
        return read_net(self.config.out, net, str(self.config.out))

    def finished(self) -> LungFinder:
        """The segmenter that the folder holds once it is whole."""
        return read_segmenter(self.config.out, str(self.config.out))


class Sam2Maker:
    """Mask decoders of SAM 2, as safetensors.  suffix: of their files.  backbone: identity of the model they are of."""

    suffix = "safetensors"

    def __init__(self, config: SegmentTrainConfig) -> None:
        self.config, self.sam2 = config, open_sam2(config.segmenter)
        self.sam2.model.to(choose_device(config.device))
        self.backbone = self.sam2.identity
        # copies: loading a decoder writes into the tensors that it has
        self.own = {name: value.clone() for name, value in self.sam2.model.mask_decoder.state_dict().items()}

    def prepare(self, films: Sequence[Film], phantoms: Sequence[Film], progress: PhaseProgress) -> None:
        """What the frozen encoder makes of every film, once for all folds."""
        write_place(self.config.out, self.config.segmenter)
        seen = look_at(self.sam2, [*films, *phantoms], partial(progress, f"look ({self.sam2.cost()})"))
        self.films, self.phantoms = seen[: len(films)], seen[len(films) :]

    def make(self, kept: Sequence[int], seed: int, progress: Progress) -> bytes:
        """A decoder tuned on some of the films, and on all phantoms.  kept: their places."""
        films = [film for film in [*(self.films[place] for place in kept), *self.phantoms] if len(film.boxes_B4)]
        return tune_decoder(self.sam2, self.own, films, self.config.steps, seed, SIDE, progress)

    def check(self, net: NetRecord) -> bytes:
        """A finished decoder's file.  Errors: IntegrityError, StorageError."""
        content = read_bytes(self.config.out / net.file)
        load_decoder(content, self.config.out, net)
        return content

    def finished(self) -> LungFinder:
        """The segmenter that the folder holds once it is whole."""
        return open_sam2(str(self.config.out))


def recipe_of(config: SegmentTrainConfig, films: Sequence[Film], backbone: str = "") -> bytes:
    """A hash of a segmenter's films, masks and settings.  backbone: of the model whose decoder is tuned."""
    digest = hashlib.blake2b(digest_size=8, person=b"segmenter")
    digest.update(repr((config.folds, config.steps, config.phantoms, config.seed)).encode() + backbone.encode())
    for film in films:
        digest.update(film.pixels + film.mask_TT.tobytes() + film.patient.encode("utf-8", "surrogateescape"))
    return digest.digest()


def identity_of(recipe: bytes, nets: Sequence[NetRecord]) -> str:
    """What names a segmenter: a hash of its recipe and of its nets, which differ where another machine trains them."""
    return hashlib.blake2b(recipe + "".join(net.sha256 for net in nets).encode(), digest_size=8).hexdigest()


def segment_train(
    config: SegmentTrainConfig, progress: PhaseProgress = lambda phase, done, total: None
) -> TrainedSegmenter:
    """Train a net a fold, or tune a decoder of SAM 2; write them and segmenter.json; test each on its fold's films.

    The test is that of `segment_test`.  Goes on after the nets that an interrupted training finished.
    Errors: ConfigError without the extra `export`, and for a folder of another segmenter; InputError for films or
    masks that cannot be used, or too few patients; DivergedError; IntegrityError for a finished net that is damaged;
    LockedError; StorageError.
    """
    maker = UnetMaker(config) if config.segmenter == "unet" else Sam2Maker(config)
    films, cautions = read_films(config.manifest, progress)
    group_N = groups_of(films)
    num_groups = int(group_N.max(initial=-1)) + 1
    if films and num_groups < config.folds:
        raise InputError(
            f"{config.manifest[0]}: masks of {counted(num_groups, 'patient')}, expected at least {config.folds}, one a "
            "fold; lower --folds, or add more"
        )
    fold_N = deal_groups(group_N, config.seed, config.folds) if films else np.empty(0, np.int64)
    num_nets = config.folds if films else 2
    key, recipe = load_site_key(config.site_key), recipe_of(config, films, maker.backbone)
    with locked(config.out):
        nets, finished = list[NetRecord](), finished_nets(config.out, recipe)
        if len(finished) < num_nets:
            maker.prepare(films, draw_films(config.phantoms, config.seed, progress), progress)
        for fold in range(num_nets):
            file = f"net-{fold + 1}.{maker.suffix}"
            kept = [place for place, own in enumerate(fold_N.tolist()) if own != fold]
            seen = [films[place] for place in kept]
            if fold < len(finished):
                content = maker.check(finished[fold])
            else:
                content = maker.make(kept, config.seed + fold, partial(progress, f"net {fold + 1}/{num_nets}"))
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
                identity=identity_of(recipe, nets),
                num_nets=num_nets,
                num_phantoms=config.phantoms,
                sources=sorted({film.source for film in films} - {""}),
                site_key_id=site_key_id(key),
                hash_algorithm=HASH_ALGORITHM,
                nets=nets,
                backbone=maker.backbone or UNSET,
            ).summed()
            if fold >= len(finished):
                write_record(config.out / RECORD, record)
        segmenter, tested = maker.finished(), None
        if films:
            beside = shipped_segmenter() if maker.backbone else None
            scored, seen_by_all = score_films(segmenter, films, key, partial(progress, "test"), beside)
            tested = write_test(config.out, segmenter, scored, seen_by_all, RESAMPLES, config.seed)
            tested = replace(tested, cautions=cautions)
    return TrainedSegmenter(out=config.out, record=record, tested=tested)


def finished_nets(out: Path, recipe: bytes) -> list[NetRecord]:
    """The nets that an interrupted training of this recipe has finished.

    Errors: ConfigError for a folder of another segmenter; IntegrityError for a damaged record; StorageError.
    """
    if not (out / RECORD).exists():
        return []
    before = read_segmenter_record(out)
    if before.identity != identity_of(recipe, before.nets):
        raise ConfigError(
            f"{out}: holds a segmenter of {before.num_nets} nets and {before.num_phantoms} phantoms, expected one of "
            "these --folds, --steps, --phantoms, --seed, films and masks; repeat the old ones, or choose another --out"
        )
    return before.nets


def trained_parts(trained: TrainedSegmenter) -> Parts:
    """What the nets were trained on, how well they do on films that they never saw, and the files."""
    record = trained.record
    sources = f" of {', '.join(record.sources)}" if record.sources else ""
    fewest = min(net.num_films for net in record.nets)
    films = f"at least {counted(fewest, 'film')}{sources} and " if fewest else ""
    lines = [
        Line(f"{counted(record.num_nets, 'net')}, each trained on {films}{counted(record.num_phantoms, 'phantom')}"),
        path_line(trained.out / RECORD),
    ]
    if trained.tested is None:
        return [*lines, Line("No net saw a radiograph: test them on masks of radiographs by `segment-test`.", "yellow")]
    cross_fitted = Line("Each film was segmented by a net that saw neither its pixels nor its patient:")
    return [*lines, cross_fitted, *score_parts(trained.tested)]
