"""SAM 2 as a segmenter: prompted with the boxes of the lungs that the shipped net finds; its mask decoder tuned."""

# S side of a frame, T side of a film's picture, B boxes, N films, K decoders, M side of the decoder's masks

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engine.networks.extras import import_extra
from engine.networks.model_folder import check_keys, check_memory, fetch, find_weights, identity_of, loading, read_json
from engine.segmentation.films import Film
from loaders.atomic_file import publish_bytes
from loaders.config import HASH_ALGORITHM, SAM2
from loaders.errors import ConfigError, DivergedError, IntegrityError, StorageError
from loaders.images.lungs import (
    RECORD,
    Lungs,
    NetRecord,
    Segmenter,
    SegmenterRecord,
    cut_share,
    dice,
    read_segmenter_record,
    shipped_segmenter,
    two_lungs,
)
from loaders.output import counted, seconds_text
from loaders.statistics import Progress, stream

EXTRA, KIND = "sam2", "sam2"
NEEDED = (("config.json",), ("preprocessor_config.json", "processor_config.json"))
EXAMPLE = "facebook/sam2.1-hiera-tiny"
PLACE = "model.txt"  # beside tuned decoders: where the model lies, for their owner alone
MARGIN = 0.03  # of the frame's side, around each lung's box
JITTER = 0.04  # of the frame's side, by which boxes are moved in training
BATCH, RATE = 4, 1e-4
JITTERED = 23  # random stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Sam2:
    """A model of SAM 2 from a folder, and decoders that were tuned, if any; see LungFinder.

    Each film's boxes come from the shipped net, by nets that are not known to have seen it, as of Segmenter.  The mask
    is that of every box together, its two largest parts.  `agreement` is Dice with the shipped net's mask: what two
    such different networks see alike is more credible than what one sees.
    nets, of `nets_for`: the decoder, 0 for the model's own, and the shipped net.
    """

    name: str
    identity: str
    model: Any
    processor: Any
    boxes: Segmenter
    record: SegmenterRecord
    decoders: tuple[dict[str, Tensor], ...] = ()

    def nets_for(self, pixels: Sequence[bytes], patients: Sequence[bytes], group_N: np.ndarray) -> np.ndarray:
        """The decoder and the shipped net for each film, neither known to have seen its group: int64 (N, 2); or -1."""
        shipped_N = self.boxes.nets_for(pixels, [b""] * len(pixels), group_N)[:, 0]
        own = Segmenter(name=self.name, record=self.record, content_K=())
        decoder_N = own.nets_for(pixels, patients, group_N)[:, 0] if self.decoders else np.zeros_like(shipped_N)
        nets_N2 = np.stack([decoder_N, shipped_N], 1)
        return np.where((nets_N2 < 0).any(1, keepdims=True), -1, nets_N2)

    def find(self, frame_SS: np.ndarray, nets: Sequence[int] = (0, 0)) -> Lungs:
        """The lungs of a stored frame, uint8 S×S; where the shipped net finds none, none."""
        decoder, shipped = nets
        first = self.boxes.find(frame_SS, (shipped, shipped))
        boxes_B4 = boxes_of(first.mask_SS)
        if not len(boxes_B4):
            return first
        if self.decoders:
            self.model.mask_decoder.load_state_dict(self.decoders[decoder])
        with torch.inference_mode():
            inputs = self.inputs(frame_SS, boxes_B4)
            found = self.model(**inputs, multimask_output=False).pred_masks[0, :, 0].float()
            size = (len(frame_SS), len(frame_SS))
            wide_BSS = F.interpolate(found[None], size=size, mode="bilinear", align_corners=False)[0]
        mask_SS, balance = two_lungs((wide_BSS > 0).any(0).cpu().numpy())
        return Lungs(
            mask_SS=mask_SS, agreement=dice(mask_SS, first.mask_SS), balance=balance, cut=cut_share(mask_SS),
            doubt="lungs-differ",
        )  # fmt: skip

    def find_all(
        self, frame_of: Callable[[int], np.ndarray], nets_N2: np.ndarray, workers: int = 0
    ) -> Iterator[Lungs | None]:
        """The lungs of N frames in order, one at a time on torch's own threads; None for one whose nets are -1."""
        for place, nets in enumerate(nets_N2.tolist()):
            yield None if nets[0] < 0 else self.find(frame_of(place), nets)

    def inputs(self, frame_SS: np.ndarray, boxes_B4: np.ndarray) -> dict[str, Tensor]:
        """A frame and its boxes as the model takes them, on its device."""
        colour_SS3 = np.repeat(frame_SS[:, :, None], 3, 2)
        made = self.processor(images=colour_SS3, input_boxes=[boxes_B4.tolist()], return_tensors="pt")
        weight = next(self.model.parameters())
        return {
            "pixel_values": made["pixel_values"].to(weight.device, weight.dtype),
            "input_boxes": made["input_boxes"].to(weight.device, weight.dtype),
        }

    def cost(self) -> str:
        """What it takes, for a person: memory, and seconds a film, measured on a grey one."""
        frame_SS, boxes_B4 = np.full((224, 224), 128, np.uint8), np.array([[20.0, 20, 100, 200], [120, 20, 200, 200]])
        with torch.inference_mode():
            for _ in range(2):  # the first also makes kernels
                started = time.perf_counter()
                self.model(**self.inputs(frame_SS, boxes_B4), multimask_output=False)
                seconds = time.perf_counter() - started
        weights = [weight.numel() * weight.element_size() for weight in self.model.parameters()]
        count = sum(weight.numel() for weight in self.model.parameters())
        return (
            f"{self.name}: {count / 1e6:,.1f} M parameters, {sum(weights) / 1e6:,.1f} MB; "
            f"{seconds_text(seconds, 2)} a film"
        )


def boxes_of(mask_SS: np.ndarray) -> np.ndarray:
    """The box of each part of a mask with a margin, float64 (B, 4): left, top, right, bottom."""
    outlines, _ = cv2.findContours(mask_SS.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    side, boxes = len(mask_SS), []
    for left, top, width, height in map(cv2.boundingRect, outlines):
        margin = MARGIN * side
        ends = (left - margin, top - margin, left + width + margin, top + height + margin)
        boxes.append(np.clip(ends, 0, side - 1))
    return np.array(boxes).reshape(-1, 4)


# ---- opening


def open_sam2(segmenter: str) -> Sam2:
    """What `--segmenter sam2:FOLDER` names, or a folder of tuned decoders.

    Errors: StorageError for a file that is not there; ConfigError for a model of another kind, or without the extra;
    CheckpointError for weights that are damaged, pickled, or do not fit; IntegrityError for damaged decoders;
    MemoryError.
    """
    if segmenter.startswith(SAM2):
        return read_model(Path(segmenter.removeprefix(SAM2)))
    folder = Path(segmenter)
    record = read_segmenter_record(folder)
    if len(record.nets) < max(1, record.num_nets):
        raise ConfigError(
            f"--segmenter {segmenter}: {len(record.nets)} of {counted(record.num_nets, 'decoder')}, expected all; run "
            "the same `segment-train` again, which goes on from there"
        )
    if not (folder / PLACE).is_file():
        raise StorageError(
            f"{folder / PLACE}: not there, expected the path of the model of SAM 2 whose decoders these are; write it "
            "into that file"
        )
    place = Path((folder / PLACE).read_text(encoding="utf-8").strip())
    opened = read_model(place)
    if opened.identity != record.backbone:
        raise IntegrityError(
            f"{place}: weights {opened.identity}, expected {record.backbone}, whose decoders {folder} has; bring that "
            "folder back"
        )
    decoders = tuple(load_decoder((folder / net.file).read_bytes(), folder, net) for net in record.nets)
    return with_decoders(opened, record, decoders)


def read_model(folder: Path) -> Sam2:
    """A model as it comes.  Errors: as of `open_sam2`."""
    files = find_weights(folder, NEEDED, EXAMPLE)
    transformers = import_extra("transformers", EXTRA)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in (KIND, "sam2_video"):
        raise ConfigError(f"{folder}: a model of type {kind!r}, expected {KIND}; choose another")
    check_memory(folder, files)
    with loading(folder, EXAMPLE, transformers):
        model, loaded = transformers.Sam2Model.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, dtype="auto",
            local_files_only=True,
        )  # fmt: skip
        processor = transformers.Sam2Processor.from_pretrained(folder, local_files_only=True)
    check_keys(folder, loaded, fetch(folder, EXAMPLE))
    shipped, identity = shipped_segmenter(), identity_of(folder, files)
    return Sam2(
        name=folder.resolve().name, identity=identity, model=model.eval().requires_grad_(False), processor=processor,
        boxes=shipped, record=unseen_record(f"{identity[:8]}{shipped.record.identity[:8]}", identity),
    )  # fmt: skip


def unseen_record(identity: str, backbone: str) -> SegmenterRecord:
    """The record of a model that saw no film of ours: one decoder, its own."""
    return SegmenterRecord(
        identity=identity, num_nets=0, num_phantoms=0, sources=[], site_key_id="", hash_algorithm=HASH_ALGORITHM,
        nets=[], backbone=backbone,
    )  # fmt: skip


def with_decoders(opened: Sam2, record: SegmenterRecord, decoders: tuple[dict[str, Tensor], ...]) -> Sam2:
    """The same model with tuned decoders, of which the one mask that was tuned counts, never one of three."""
    opened.model.mask_decoder.dynamic_multimask_via_stability = False
    return Sam2(
        name=opened.name, identity=opened.identity, model=opened.model, processor=opened.processor,
        boxes=opened.boxes, record=record, decoders=decoders,
    )  # fmt: skip


def load_decoder(content: bytes, folder: Path, net: NetRecord) -> dict[str, Tensor]:
    """A decoder's weights, which have their checksum.  Errors: IntegrityError."""
    if hashlib.sha256(content).hexdigest() != net.sha256:
        raise IntegrityError(
            f"{folder / net.file}: checksum differs from that in {RECORD}: damaged or replaced; bring it back, or "
            "train it again"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise IntegrityError(
            f"{folder / net.file}: not readable ({error}), expected weights; train it again"
        ) from error


def write_place(out: Path, segmenter: str) -> None:
    """Write where the model lies beside its decoders, for their owner alone."""
    place = Path(segmenter.removeprefix(SAM2)).absolute()
    publish_bytes(out / PLACE, f"{place}\n".encode(), mode=0o600)


# ---- training


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A film as the decoder sees it.  embeddings: of the frozen encoder, float16.  masks_BTT: of each lung, bool."""

    embeddings: tuple[Tensor, ...]
    boxes_B4: np.ndarray
    masks_BTT: np.ndarray


def look_at(sam2: Sam2, films: Sequence[Film], progress: Progress) -> list[Seen]:
    """What the frozen encoder makes of each film, once for all folds; a film without lungs has no boxes."""
    found = []
    for done, film in enumerate(films, 1):
        outlines, _ = cv2.findContours((film.mask_TT > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        parts = sorted(outlines, key=cv2.contourArea, reverse=True)[:2]
        masks_BTT = np.array(
            [cv2.drawContours(np.zeros_like(film.mask_TT), [part], -1, 1, cv2.FILLED) > 0 for part in parts]
        )
        boxes_B4 = np.concatenate([boxes_of(mask_TT) for mask_TT in masks_BTT]) if parts else np.empty((0, 4))
        made: Sequence[Tensor] = ()
        if len(boxes_B4):
            with torch.no_grad():  # a decoder learns from them later
                inputs = sam2.inputs(film.frame_TT, boxes_B4)
                made = sam2.model.get_image_embeddings(inputs["pixel_values"])
        kept = tuple(one.half().cpu() for one in made)
        found.append(Seen(embeddings=kept, boxes_B4=boxes_B4, masks_BTT=masks_BTT))
        progress(done, len(films))
    return found


def tune_decoder(
    sam2: Sam2, own: dict[str, Tensor], films: Sequence[Seen], steps: int, seed: int, side: int, progress: Progress
) -> bytes:
    """Tune the mask decoder on films, from its own weights: binary cross-entropy and soft Dice of each lung's mask.

    own: the model's decoder as it came.  side: of the films.  Gives its weights as safetensors.
    Errors: DivergedError for a loss or weights that are not finite.
    """
    torch.manual_seed(seed)
    model, rng = sam2.model, stream(seed, JITTERED)
    decoder = model.mask_decoder
    decoder.load_state_dict(own)
    decoder.requires_grad_(True)
    decoder.dynamic_multimask_via_stability = False  # as in `with_decoders`
    weight = next(decoder.parameters())
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(BATCH):
            film = films[int(rng.integers(len(films)))]
            moved_B4 = film.boxes_B4 + rng.normal(0, JITTER * side, film.boxes_B4.shape)
            boxes = sam2.inputs(np.zeros((side, side), np.uint8), np.clip(moved_B4, 0, side - 1))["input_boxes"]
            made = [one.to(weight.device, weight.dtype) for one in film.embeddings]
            logits_BMM = model(image_embeddings=made, input_boxes=boxes, multimask_output=False).pred_masks[0, :, 0]
            size = logits_BMM.shape[-2:]
            target = torch.from_numpy(film.masks_BTT).to(weight.device, torch.float32)[None]
            y_BMM = F.interpolate(target, size=size, mode="bilinear", align_corners=False)[0]
            p = logits_BMM.float().sigmoid()
            overlap = 2 * (p * y_BMM).sum((1, 2)) / (p.sum((1, 2)) + y_BMM.sum((1, 2)) + 1)
            loss = F.binary_cross_entropy_with_logits(logits_BMM.float(), y_BMM) + (1 - overlap).mean()
            (loss / BATCH).backward()
            total += float(loss.detach())
        if not np.isfinite(total):
            raise DivergedError(f"step {step + 1}: loss {total}, expected a finite one; train with another --seed")
        optimiser.step()
        progress(step + 1, steps)
    decoder.requires_grad_(False)
    tuned = {name: value.detach().cpu().clone().contiguous() for name, value in decoder.state_dict().items()}
    if not all(value.isfinite().all() for value in tuned.values()):
        raise DivergedError(f"step {steps}: weights that are not finite, expected finite ones; try another --seed")
    return save(tuned)
