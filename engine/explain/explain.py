"""An explanation: the maps of a run over the samples of a beton, their lung ratio, their controls and pictures."""

# N samples, H W rows and columns of the crop, K classes, S side of a stored frame

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.config import ExplainConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.evaluate.checks import check_beton, set_cautions
from engine.evaluate.evaluate import score
from engine.evaluate.trained import Trained, load_trained
from engine.explain.cam import METHODS, cam, evidence, layer_name
from engine.explain.controls import Deletion, Randomised, deletion, randomised
from engine.explain.findings import (
    EXPLANATION,
    NOT_FOR_DIAGNOSIS,
    Example,
    Explained,
    Explanation,
    Kind,
    caption,
    map_cautions,
)
from engine.explain.gallery import deletion_figure, gallery, overlay, picture_bytes
from engine.explain.lungs import LungRatio, Masks, find_masks, lung_ratios, measure_lungs, region_of
from engine.figures import png
from engine.networks.registry import network_of
from kernels.crops import crop_into
from loaders.atomic_file import locked, publish_bytes
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import LoaderConfig
from loaders.figure_text import EM, class_names, name_text
from loaders.output import PhaseProgress
from loaders.records import write_record


def choose(label_N: np.ndarray, probability_NK: np.ndarray, count: int) -> list[tuple[int, Kind]]:
    """At most count samples, each once, by kind; a third of the count each, more where another kind has too few.

    right, wrong: the most confident first.  borderline: the two most probable classes closest first.
    Within a kind the true classes take turns.  Ties go by the sample's place.
    """
    predicted_N = probability_NK.argmax(1)
    ordered_NK = np.sort(probability_NK, 1)
    margin_N = ordered_NK[:, -1] - ordered_NK[:, -2]
    right_N = predicted_N == label_N
    confidence_N = probability_NK.max(1)
    queues: dict[Kind, list[int]] = {
        "right": take_turns(label_N, np.flatnonzero(right_N), -confidence_N),
        "wrong": take_turns(label_N, np.flatnonzero(~right_N), -confidence_N),
        "borderline": take_turns(label_N, np.arange(len(label_N)), margin_N),
    }
    chosen: dict[int, Kind] = {}
    for turn in zip_longest(*queues.values()):  # one of each kind a round
        for kind, sample in zip(queues, turn, strict=True):
            if sample is not None and len(chosen) < count:
                chosen.setdefault(sample, kind)
    return sorted(chosen.items(), key=lambda pair: list(queues).index(pair[1]))  # stable: best first within a kind


def take_turns(label_N: np.ndarray, sample_M: np.ndarray, key_N: np.ndarray) -> list[int]:
    """The samples by rising key, one of each true class a round."""
    order_M = sample_M[np.argsort(key_N[sample_M], kind="stable")]
    by_class = [order_M[label_N[order_M] == label].tolist() for label in np.unique(label_N)]
    return [sample for turn in zip_longest(*by_class) for sample in turn if sample is not None]


MOST_REFERENCE = 64  # pictures that the average picture and the average maps come from
MOST_CONTROLLED = 32  # pictures of the controls
PART = 64  # pictures whose maps are in memory at once
CAPTION = 10 * EM  # room of a class's name below a picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What every step needs of a beton and a network.  predicted_N: classes.  reference_N1HW: ordinary crops."""

    trained: Trained
    config: ExplainConfig
    beton: Beton
    predicted_N: np.ndarray
    group_N: np.ndarray
    reference_N1HW: torch.Tensor

    def frames(self, sample_N: np.ndarray) -> torch.Tensor:
        """The central crops of some samples, float32 N×1×H×W on the device.  Errors: BetonError."""
        return torch.from_numpy(crops_of(self.beton, sample_N)).to(self.reference_N1HW.device)

    def maps(self, sample_N: np.ndarray) -> np.ndarray:
        """The maps of some samples for their predicted classes, float32 N×H×W."""
        network, predicted_N = self.trained.network, self.predicted_N[sample_N]
        references = self.reference_N1HW
        return cam(network, self.frames(sample_N), predicted_N, method=self.config.method, reference_N1HW=references)


def crops_of(beton: Beton, sample_N: np.ndarray) -> np.ndarray:
    """The central crops of some samples, float32 N×1×H×W.  Errors: BetonError."""
    crop = beton.facts.crop
    beton.check_samples(sample_N)
    out_N1HW = np.empty((len(sample_N), 1, crop, crop), np.float32)
    crop_into(out_N1HW, beton.bytes_B, beton.offset_N[sample_N], beton.side)
    beton.check_unchanged()
    return out_N1HW


def explain(config: ExplainConfig, progress: PhaseProgress = lambda name, done, total: None) -> Explained:
    """Explain the best checkpoint of a run on a beton; write explanation.json, gallery.png, deletion.png and overlays.

    Errors: CheckpointError for a run without weights; InputError for a beton of other classes or size, or masks of
    other radiographs; ConfigError; BetonError; StorageError; LockedError.
    """
    trained = load_trained(config.run)
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    trained.network.to(policy.device)
    settings = LoaderConfig(
        batch_size=config.batch_size, threads=config.threads, trust_unverified=config.trust_unverified
    )
    with Loader(config.beton, settings, tensors=True) as loader:
        beton = loader.beton
        cautions = set_cautions(beton) + check_beton(trained.run, trained.state, loader, force=True)
        masks = find_masks(beton, config.masks, config.table)
        out = (config.out or config.run / "explanation") / beton.set_name
        with locked(out):
            return explain_one(config, trained, policy, loader, masks, cautions, out, progress)


def explain_one(
    config: ExplainConfig,
    trained: Trained,
    policy: Policy,
    loader: Loader,
    masks: Masks,
    cautions: list[Caution],
    out: Path,
    progress: PhaseProgress,
) -> Explained:
    """Predict, measure, check, draw and write."""
    beton = loader.beton
    scores, _ = score((trained,), policy, loader, partial(progress, "predict"))
    label_N, probability_NK = scores.label_N, scores.probability_NK
    reference_N1HW = torch.from_numpy(crops_of(beton, some(np.arange(len(beton)), MOST_REFERENCE, config.seed)))
    pictures = Pictures(
        trained=trained,
        config=config,
        beton=beton,
        predicted_N=probability_NK.argmax(1),
        group_N=scores.group_N,
        reference_N1HW=reference_N1HW.to(policy.device),
    )
    measured_N = some(masks.samples(beton), config.measured, config.seed)
    lungs, ratio_of = measure(pictures, masks, measured_N, partial(progress, "maps"))
    controlled_N = some(np.arange(len(beton)), MOST_CONTROLLED, config.seed)
    random_weights, blanked = check(pictures, controlled_N, progress)
    chosen = choose(label_N, probability_NK, config.samples)
    shown_N = np.array([sample for sample, _ in chosen], np.int64)
    maps_NHW, frames_N1HW = pictures.maps(shown_N), crops_of(beton, shown_N)
    examples, overlays, names = [], [], class_names(trained.classes, CAPTION)
    for place, (sample, kind) in enumerate(chosen):
        lungs_HW = masks.crop_of(beton, sample)
        if lungs_HW is not None and sample not in ratio_of:
            ratio_of[sample] = float(lung_ratios(maps_NHW[place : place + 1], lungs_HW[None])[0])
        ratio = ratio_of.get(sample, float("nan"))
        example = Example(
            sample=sample,
            kind=kind,
            label=trained.classes[label_N[sample]],
            predicted=trained.classes[pictures.predicted_N[sample]],
            probability=float(probability_NK[sample].max()),
            lung_ratio=ratio if np.isfinite(ratio) else None,
            overlay=f"{place + 1:04d}.png",
        )
        crop_HW = np.rint((frames_N1HW[place, 0] + 1) * 127.5).astype(np.uint8)
        examples.append(example)
        overlays.append((kind, overlay(crop_HW, maps_NHW[place], lungs_HW, caption(example, names))))
        progress("pictures", place + 1, len(chosen))
    facts, num_groups = beton.facts, len(np.unique(pictures.group_N[measured_N]))
    result = Explanation(
        set_name=beton.set_name,
        beton=beton.path.name,
        split=facts.split,
        synthetic=facts.synthetic,
        conversion_id=facts.conversion_id,
        classes=list(trained.classes),
        method=METHODS[config.method],
        layer=layer_name(trained.network, facts.crop),
        region=region_of(lungs, random_weights.failure or blanked.failure),
        samples=examples,
        lungs=lungs,
        randomised=random_weights,
        deletion=blanked,
        cautions=cautions + map_cautions(lungs, random_weights, blanked, num_groups),
        checkpoint=trained.checkpoint,
    )
    for example, (_, picture) in zip(examples, overlays, strict=True):
        publish_bytes(out / example.overlay, picture_bytes(picture))
    write(result, out, overlays, names.note)
    for stale in set(out.glob("[0-9][0-9][0-9][0-9].png")) - {out / example.overlay for example in examples}:
        stale.unlink()
    return Explained(explanation=result, out=out)


def some(sample_N: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of the samples, drawn from the seed, in rising order."""
    if len(sample_N) <= most:
        return sample_N
    return np.sort(np.random.default_rng(seed).permutation(sample_N)[:most])


def measure(
    pictures: Pictures, masks: Masks, sample_N: np.ndarray, progress: Callable[[int, int], None]
) -> tuple[LungRatio, dict[int, float]]:
    """The lungs' share of the maps of some samples whose lungs are known, and each sample's; PART at a time."""
    beton = pictures.beton
    ratio_N, area_N = np.empty(len(sample_N)), np.empty(len(sample_N))
    for start in range(0, len(sample_N), PART):
        part_N = sample_N[start : start + PART]
        lungs = [masks.crop_of(beton, sample) for sample in part_N.tolist()]
        lungs_NHW = np.array([lungs_HW for lungs_HW in lungs if lungs_HW is not None])
        ratio_N[start : start + PART] = lung_ratios(pictures.maps(part_N), lungs_NHW)
        area_N[start : start + PART] = lungs_NHW.mean((1, 2))
        progress(start + len(part_N), len(sample_N))
    found = measure_lungs(ratio_N, area_N, pictures.group_N[sample_N], masks.kind, pictures.config.seed)
    return found, dict(zip(sample_N.tolist(), ratio_N.tolist(), strict=True))


def check(pictures: Pictures, sample_N: np.ndarray, progress: PhaseProgress) -> tuple[Randomised, Deletion]:
    """Both controls on some samples."""
    network, config = pictures.trained.network, pictures.config
    frames_N1HW, predicted_N = pictures.frames(sample_N), pictures.predicted_N[sample_N]
    found = randomised(
        network,
        lambda: network_of(pictures.trained.state).eval(),
        frames_N1HW,
        predicted_N,
        method=config.method,
        reference_N1HW=pictures.reference_N1HW,
        seed=config.seed,
        progress=partial(progress, "random weights"),
    )
    fill_HW = pictures.reference_N1HW.mean((0, 1)).cpu().numpy()
    blanked = deletion(
        network,
        frames_N1HW,
        pictures.maps(sample_N),
        predicted_N,
        pictures.group_N[sample_N],
        fill_HW,
        cells=evidence(network, frames_N1HW[:1], predicted_N[:1]).shape[1:],
        seed=config.seed,
        progress=partial(progress, "blank"),
    )
    return found, blanked


def write(result: Explanation, out: Path, overlays: Sequence[tuple[str, Image.Image]], note: str) -> None:
    """gallery.png, deletion.png, and explanation.json last."""
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    title = f"{result.method}: {name_text(result.set_name)} ({kind})"
    sentence = result.sentence[0].upper() + result.sentence[1:] + "."
    page = gallery(overlays, title, sentence, f"{NOT_FOR_DIAGNOSIS} {note}")
    publish_bytes(out / "gallery.png", picture_bytes(page))
    curves = deletion_figure(result.deletion, f"{title}, n\u00a0=\u00a0{result.deletion.num_samples}")
    publish_bytes(out / "deletion.png", png(curves))
    write_record(out / EXPLANATION, result)
