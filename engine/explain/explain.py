"""An explanation: the maps of a run over the samples of a beton, their lung ratio, their controls and pictures."""

# N samples, H W rows and columns of the crop, K classes

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.config import ExplainConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.evaluate.checks import check_beton, set_cautions
from engine.evaluate.evaluate import predictions
from engine.evaluate.trained import Trained, load_trained
from engine.explain.by_finding import BY_FINDING, FindingsExplained, explain_findings, findings_parts
from engine.explain.cam import METHODS, layer_name
from engine.explain.findings import (
    EXPLANATION,
    NOT_FOR_DIAGNOSIS,
    Example,
    Explained,
    Explanation,
    caption,
    explanation_parts,
    map_cautions,
    outlined,
    region_cautions,
)
from engine.explain.gallery import FOOT, deletion_figure, gallery, picture_bytes
from engine.explain.lungs import region_of
from engine.explain.pictures import (
    MOST_CONTROLLED,
    MOST_REFERENCE,
    Pictures,
    check,
    choose,
    crops_of,
    lungs_finder,
    measurable,
    measure,
    show,
    some,
)
from engine.figures import png
from engine.networks.registry import network_of
from engine.train.checkpoint import groups_of
from loaders.atomic_file import locked, publish_bytes
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import LoaderConfig
from loaders.errors import ConfigError
from loaders.figure_text import EM, class_names, name_text
from loaders.lungs.masks import Masks, find_masks
from loaders.output import Parts, PhaseProgress
from loaders.records import Record, write_record

CAPTION = 10 * EM  # room of a class's name below a picture


def explain(
    config: ExplainConfig, progress: PhaseProgress = lambda name, done, total: None
) -> Explained | FindingsExplained:
    """Explain the best checkpoint of a run on a beton; write explanation.json, gallery.png, deletion.png and overlays.

    Of findings, explanation-by-finding.json, gallery.png and overlays.

    Errors: CheckpointError for a run without weights; InputError for a beton of other classes or size, or masks of
    other radiographs; ConfigError; BetonError; StorageError; LockedError.
    """
    trained = load_trained(config.run)
    if config.finding and trained.task != "findings":
        raise ConfigError(
            f"--finding: found {config.finding[0]}, expected none, since {config.run} tells classes apart"
        )
    trained.refuse_asked("explain", "`evaluate` shows whether it looks at the film")
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    trained.network.to(policy.device)
    settings = LoaderConfig(
        batch_size=config.batch_size, threads=config.threads, trust_unverified=config.trust_unverified
    )
    with Loader(config.beton, settings, tensors=True) as loader:
        beton = loader.beton
        cautions = set_cautions(beton) + check_beton(trained.run, trained.state, loader, force=True)
        masks = masks_of(config, beton)
        out = (config.out or config.run / "explanation") / beton.set_name
        reference_N = some(np.arange(len(beton)), MOST_REFERENCE, config.seed)
        made = (
            config,
            trained,
            policy,
            loader,
            masks,
            cautions,
            torch.from_numpy(crops_of(beton, reference_N)).to(policy.device),
        )
        with locked(out):
            if trained.task == "findings":
                by_finding, files = explain_findings(*made, progress)
                publish(out, files, BY_FINDING, by_finding)
                return FindingsExplained(explanation=by_finding, out=out)
            result, files = explain_classes(*made, progress)
            publish(out, files, EXPLANATION, result)
            return Explained(explanation=result, out=out)


def masks_of(config: ExplainConfig, beton: Beton) -> Masks | None:
    """The masks of a beton; None where its frames show the lungs alone.  Errors: as of find_masks."""
    lungs = beton.facts.lungs
    if lungs == "off":
        return find_masks(beton, config.masks, config.table, config.segmenter)
    if config.masks != "auto":
        raise ConfigError(
            f"--masks: found {config.masks}, expected none, since {config.beton} shows the lungs alone ({lungs}); "
            "leave it out"
        )
    return None


def explain_classes(
    config: ExplainConfig,
    trained: Trained,
    policy: Policy,
    loader: Loader,
    masks: Masks | None,
    cautions: list[Caution],
    reference_N1HW: Tensor,
    progress: PhaseProgress,
) -> tuple[Explanation, dict[str, bytes]]:
    """Predict, measure, check and draw; with the pictures by file name."""
    beton = loader.beton
    label_N, (probability_NK,) = predictions((trained,), policy, loader, partial(progress, "predict"))
    predicted_N = probability_NK.argmax(1)
    pictures = Pictures(
        network=trained.network,
        redraw=lambda: network_of(trained.state).eval(),
        config=config,
        beton=beton,
        target_N=predicted_N,
        group_N=groups_of(beton),
        reference_N1HW=reference_N1HW,
        masks=masks,
        lungs_of=lungs_finder(masks, beton),
    )
    measured_N = some(measurable(pictures), config.measured, config.seed)
    lungs, ratio_of = measure(pictures, measured_N, partial(progress, "maps"))
    controlled_N = some(np.arange(len(beton)), MOST_CONTROLLED, config.seed)
    random_weights, blanked = check(pictures, controlled_N, progress)
    chosen = choose(label_N, probability_NK, config.samples)
    examples, overlays, names = list[Example](), [], class_names(trained.classes, CAPTION)
    for shown in show(pictures, chosen, ratio_of):
        example = Example(
            sample=shown.sample,
            kind=shown.kind,
            label=trained.classes[label_N[shown.sample]],
            predicted=trained.classes[predicted_N[shown.sample]],
            probability=float(probability_NK[shown.sample].max()),
            lung_ratio=shown.ratio,
            overlay=f"{len(examples) + 1:04d}.png",
        )
        examples.append(example)
        overlays.append((shown.kind, shown.draw(caption(example, names))))
        progress("pictures", len(examples), len(chosen))
    facts, num_groups = beton.facts, len(np.unique(pictures.group_N[list(ratio_of) or measured_N]))
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
        cautions=cautions + region_cautions(masks) + map_cautions(lungs, random_weights, blanked, num_groups),
        checkpoint=trained.checkpoint,
    )
    files = {example.overlay: picture_bytes(picture) for example, (_, picture) in zip(examples, overlays, strict=True)}
    return result, files | summary_pictures(result, overlays, names.note)


def summary_pictures(result: Explanation, overlays: Sequence[tuple[str, Image.Image]], note: str) -> dict[str, bytes]:
    """gallery.png and deletion.png."""
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    title = f"{result.method}: {name_text(result.set_name)} ({kind})"
    sentence = result.sentence[0].upper() + result.sentence[1:] + "."
    legend = outlined(FOOT, result.lungs)
    page = gallery(overlays, title, sentence, f"{NOT_FOR_DIAGNOSIS} {note}", legend=legend)
    curves = deletion_figure(result.deletion, f"{title}, n\u00a0=\u00a0{result.deletion.num_samples}")
    return {"gallery.png": picture_bytes(page), "deletion.png": png(curves)}


SOMETIMES = (EXPLANATION, BY_FINDING, "deletion.png")  # files that an explanation of the other task has


def publish(out: Path, files: dict[str, bytes], name: str, result: Record) -> None:
    """The pictures, and then the record; what an earlier explanation alone has goes."""
    for file, content in files.items():
        publish_bytes(out / file, content)
    write_record(out / name, result)
    own = {name, *files}
    for stale in [*out.glob("[0-9][0-9][0-9][0-9].png"), *(out / file for file in SOMETIMES)]:
        if stale.name not in own:
            stale.unlink(missing_ok=True)


def explained_parts(explained: Explained | FindingsExplained) -> Parts:
    """What the terminal shows of an explanation."""
    return explanation_parts(explained) if isinstance(explained, Explained) else findings_parts(explained)
