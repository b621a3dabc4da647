"""Settings of training and evaluation; imports neither torch nor numba, so that --help is instant."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from loaders.config import (
    MAX_SEED,
    ORDINARY_PIXELS,
    PILLOW_PIXELS,
    SAM2,
    AuditLimits,
    LoaderConfig,
    Modality,
    check_choice,
    check_ranges,
)
from loaders.errors import ConfigError

Switch = Literal["auto", "on", "off"]
Model = Literal["cnn", "resnet18", "densenet169", "vit_b_16"]
FoldSplit = Literal[
    "random", "group", "lungs-hidden", "lungs-hole", "lungs-only", "silhouette", "boxed", "boxed-silhouette"
]
MASKS_AS_USUAL = ("auto", "shipped", None)  # --masks, --segmenter and --table
USUAL_SPLITS: tuple[FoldSplit, ...] = ("random", "group", "lungs-hidden")
Monitor = Literal["f1", "auc", "loss"]
ValidateWith = Literal["running", "recomputed", "averaged"]
Tune = Literal["none", "lora", "both"]
VLM = "vlm:"  # begins the name of a network that is a vision-language model in a folder
HEAD_EPOCHS = 2  # of a network with pretrained weights


def check_apart(out: Path, data: Path) -> None:
    """Errors: ConfigError where results would land among the betons."""
    if out.resolve() == data.resolve():
        raise ConfigError(f"--out {out}: found the folder of the betons, expected another one; choose one")


def check_model(model: str) -> None:
    """Errors: ConfigError for a network that there is not."""
    if model not in get_args(Model) and not vlm_folder(model):
        raise ConfigError(f"model: found {model!r}, expected one of {', '.join(get_args(Model))}, or {VLM}FOLDER")


def vlm_folder(model: str) -> str:
    """The folder of a vision-language model, from its name as a network; "" for any other network."""
    return model.removeprefix(VLM) if model.startswith(VLM) else ""


def shared_model(model: str) -> str:
    """A network's name without a path: vlm:Qwen2.5-VL-3B-Instruct."""
    return f"{VLM}{Path(folder).name}" if (folder := vlm_folder(model)) else model


@dataclass(frozen=True, kw_only=True, slots=True)
class VlmConfig:
    """How a vision-language model is asked about films, and whether it learns from them (docs/FOUNDATION.md)."""

    tune: Tune = "none"
    """Vision-language model: ask it as it is (none), or train an adapter, too (lora); both: in `compare`, each."""
    prompts: str = "shipped"
    """Vision-language model: its questions, shipped or a file like engine/networks/wordings.toml."""
    pixels: int = field(default=0, metadata={"auto": True})
    """Vision-language model: most pixels of a film that it is shown; auto: as its own settings have it."""

    def __post_init__(self) -> None:
        if self.pixels:
            check_ranges(self, pixels=(28 * 28, ORDINARY_PIXELS))

    def check(self, model: str) -> None:
        """Errors: ConfigError where these settings are of no use to the network."""
        if self.tune == "both":
            raise ConfigError("--tune both: expected none or lora, since one network is trained; both is for `compare`")
        if not vlm_folder(model) and self != VlmConfig():
            raise ConfigError(
                f"--tune, --prompts, --pixels: found --model {model}, expected {VLM}FOLDER; leave them out, or name one"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How networks are trained; every number of DESIGN's recipe is a default here."""

    weights: str = "none"
    """Weights to begin with: none; default, torchvision's for ImageNet; or a file of them, .pth or .safetensors."""
    head_epochs: int | None = None
    """Epochs at first that train the last layers alone. Default: 2 with weights to begin with, otherwise 0."""
    epochs: int = 30
    """Most epochs."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    dropout: float = 0.5
    """Share of the hidden layer that is dropped in training."""
    monitor: Monitor = "f1"
    """What decides which epoch is the best, on validation: F1, as the report; auc; or loss. Of findings, their mean."""
    patience: int = 7
    """Stop after this many epochs without a better one on validation; epochs that predict one class do not count."""
    min_delta: float = 0.001
    """An F1, AUC or loss is better only if it is better than the best by more than this."""
    validate_with: ValidateWith = "running"
    """Validate and keep the network as it trains; with batch norm's statistics recomputed; or weights averaged."""
    class_weights: bool = False
    """Weigh the loss inversely to each class's share of the training set; of findings, present against absent."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to train; auto takes the first there is of cuda, mps, cpu."""
    compile: Switch = "auto"
    """Compile the network with torch.compile; auto: on CUDA, if a training is long enough to repay it."""
    amp: Switch = "auto"
    """Mixed precision in bfloat16; auto: on CUDA, and on a CPU that is faster in it (AMX; AVX-512 BF16 by a race)."""
    arena: bool = True
    """Keep freed memory mapped for the next step: faster, for somewhat more memory. Linux only."""

    def __post_init__(self) -> None:
        check_ranges(self, epochs=(1, 100_000))
        if self.head_epochs is not None:
            check_ranges(self, head_epochs=(0, 100_000))
        # Adam scales its first step by ten; at 1e38 float32 weights would be infinite before any loss is
        check_ranges(self, learning_rate=(1e-12, 1e36), dropout=(0, 0.99), patience=(1, 100_000), min_delta=(0, 1))

    @property
    def frozen_epochs(self) -> int:
        """Epochs in which the body stays as it is."""
        if self.head_epochs is not None:
            return self.head_epochs
        return 0 if self.weights == "none" else HEAD_EPOCHS


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One network trained on the betons of a conversion."""

    data: Path
    """Folder with train.beton and val.beton of one conversion."""
    out: Path
    """Run folder to make."""
    model: str = "cnn"
    """Network: the recipe's, one of torchvision's (resnet18, densenet169, vit_b_16), or vlm:FOLDER."""
    look: bool = True
    """Keep 128 bytes of each film, by which `evaluate` finds copies where the betons are not at hand (SECURITY.md)."""
    recipe: Recipe = field(default=Recipe())
    vlm: VlmConfig = field(default=VlmConfig())
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_model(self.model)
        self.vlm.check(self.model)

    @property
    def zero_shot(self) -> bool:
        """Whether nothing is trained: a vision-language model is asked as it is."""
        return bool(vlm_folder(self.model)) and self.vlm.tune == "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """Networks trained one after the other on the same split, by the same recipe."""

    data: Path
    """Folder with train.beton and val.beton of one conversion, and perhaps heldout.beton."""
    out: Path
    """Folder to make, with a run folder for each network."""
    models: tuple[str, ...] = get_args(Model)
    """Networks to compare; vlm:FOLDER among them, too."""
    look: bool = True
    """Keep 128 bytes of each film, by which `evaluate` finds copies where the betons are not at hand (SECURITY.md)."""
    resamples: int = 2000
    """Resamples of the bootstrap that intervals come from."""
    recipe: Recipe = field(default=Recipe())
    vlm: VlmConfig = field(default=VlmConfig())
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise ConfigError(
                f"--models: found {','.join(self.models) or 'none'}, expected different ones of "
                f"{','.join(get_args(Model))}; name each once"
            )
        check_apart(self.out, self.data)
        check_ranges(self, resamples=(100, 1_000_000))
        if not any(map(vlm_folder, self.models)) and self.vlm != VlmConfig():
            self.vlm.check(self.models[0])
        if len(self.trainings()) < len(self.models):  # its settings are checked there
            raise ConfigError(
                f"--models: found folders of one name in {','.join(self.models)}, expected different names"
            )

    def trainings(self) -> dict[str, TrainConfig]:
        """How each of the networks is trained, by its name in the comparison."""
        found = {}
        for model in self.models:
            ways: tuple[Tune, ...] = ("none",)
            if vlm_folder(model):
                ways = ("none", "lora") if self.vlm.tune == "both" else (self.vlm.tune,)
            for tune in ways:
                name = shared_model(model) + (f" {tune}" if tune != "none" else "")
                found[name] = TrainConfig(
                    data=self.data, out=self.out / name.replace(":", "-").replace(" ", "-"), model=model,
                    look=self.look, recipe=self.recipe, loader=self.loader,
                    vlm=replace(self.vlm, tune=tune) if vlm_folder(model) else VlmConfig(),
                )  # fmt: skip
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossvalConfig:
    """The recipe trained on every fold of a conversion: by random images, by groups, and with the lungs hidden."""

    data: Path
    """Folder with the betons of one conversion: train, val and heldout, whichever there are, are pooled."""
    out: Path
    """Folder to make; the same command continues there what was interrupted."""
    folds: int = 5
    """Test folds; each sample is tested once a split."""
    splits: tuple[str, ...] = USUAL_SPLITS
    """Splits: random, group, lungs-hidden, lungs-hole, lungs-only, silhouette, boxed, boxed-silhouette."""
    masks: str = "auto"
    """Masks for lungs-hidden and what follows: auto, which finds them; a folder; a CSV; or usual, one for all."""
    segmenter: str = "shipped"
    """With --masks auto, what finds the lungs: shipped, or a folder of `segment-train`."""
    table: Path | None = None
    """convert.csv, which says which file became which sample, for a folder or CSV of masks. Default: beside DATA."""
    val: float = 0.2
    """Share of what a test fold leaves, by whole groups, that decides when training stops."""
    external: Path | None = None
    """Beton of another conversion, on which the group split's networks are tested, each alone."""
    keep_copies: bool = False
    """Score films of the external beton that are copies of the pool's, too; recorded in the result."""
    keep: bool = False
    """Keep each fold's betons and last state; each fold then takes as much disk space as the whole pool."""
    resamples: int = 2000
    """Resamples of the bootstrap that intervals come from."""
    model: str = "cnn"
    """Network: the recipe's, one of torchvision's (resnet18, densenet169, vit_b_16), or vlm:FOLDER."""
    recipe: Recipe = field(default=Recipe())
    vlm: VlmConfig = field(default=VlmConfig())
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_apart(self.out, self.data)
        check_ranges(self, folds=(2, 100), val=(0.01, 0.9), resamples=(100, 1_000_000))
        known = get_args(FoldSplit)
        if not self.splits or len(set(self.splits)) != len(self.splits) or set(self.splits) - set(known):
            raise ConfigError(f"--splits: found {','.join(self.splits) or 'none'}, expected some of {','.join(known)}")
        if set(self.splits) <= {"random", "group"} and (self.masks, self.segmenter, self.table) != MASKS_AS_USUAL:
            raise ConfigError(
                f"--masks, --segmenter, --table: found --splits {','.join(self.splits)}, expected one that needs "
                "masks, such as lungs-hidden; add it, or leave these out"
            )
        if self.external is not None and "group" not in self.splits:
            raise ConfigError(
                f"--external: found --splits {','.join(self.splits)}, expected group among them: its networks are "
                "tested on the external beton; add it"
            )
        self.training(self.data, self.out)  # its settings are checked there

    def training(self, data: Path, out: Path) -> TrainConfig:
        """How one fold is trained, whose films are at hand when it is tested."""
        return TrainConfig(
            data=data, out=out, model=self.model, look=False, recipe=self.recipe, vlm=self.vlm, loader=self.loader
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HurdlesConfig:
    """The recipe trained on the folds of each collection, and tested at home and on every other collection."""

    collections: tuple[Path, ...]
    """Folders of betons: with train and val, all is trained and tested on, fold by fold; others are tested on alone."""
    out: Path
    """Folder to make; the same command continues there, and adds collections and seeds."""
    by: Literal["folder", "source"] = "folder"
    """What a collection is: a folder, or each source within the films of one folder."""
    leave_one_out: bool = False
    """Train on all collections but one, too, and test on that one, for each."""
    seeds: int = 3
    """Trainings of each fold, each with another seed and other folds; the first has --seed."""
    folds: int = 3
    """Test folds at home; each film is tested once a seed. More leave more to train on, and take longer."""
    val: float = 0.2
    """Share of what a test fold leaves, by whole groups, that decides when training stops, and the threshold."""
    keep_copies: bool = False
    """Test on films that are copies of training films, by their look, too; recorded in the result."""
    resamples: int = 2000
    """Resamples of the bootstrap that intervals come from."""
    model: str = "cnn"
    """Network: the recipe's, one of torchvision's (resnet18, densenet169, vit_b_16), or vlm:FOLDER."""
    recipe: Recipe = field(default=Recipe())
    vlm: VlmConfig = field(default=VlmConfig())
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        if not self.collections:
            raise ConfigError("collections: found none, expected folders of betons; name some")
        for folder in self.collections:
            check_apart(self.out, folder)
        if self.by == "source" and len(self.collections) > 1:
            raise ConfigError(
                f"--by source: found {len(self.collections)} folders, expected one, whose sources are the collections; "
                "name one, or leave --by out"
            )
        check_ranges(self, seeds=(1, 1000), folds=(2, 100), val=(0.01, 0.9), resamples=(100, 1_000_000))
        for seed in (0, self.seeds - 1):
            self.training(self.out, seed)  # its settings are checked there

    def training(self, folder: Path, repeat: int) -> TrainConfig:
        """How a fold is trained, whose films are at hand when it is tested.  repeat: which seed, from 0.

        folder: of its betons and its run.
        """
        loader = replace(self.loader, seed=self.loader.seed + repeat)
        return TrainConfig(
            data=folder, out=folder / "run", model=self.model, look=False, recipe=self.recipe, vlm=self.vlm,
            loader=loader,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a run is evaluated on betons."""

    run: Path
    """Run folder of `train`."""
    betons: tuple[Path, ...]
    """Betons to evaluate on, such as heldout.beton."""
    out: Path | None = None
    """Folder for the results, in which each set has a folder, such as heldout-1f3a90bc. Default: RUN/evaluation."""
    prevalence: float | None = None
    """Share of the positive class where the network is to be used: predictive values are then given for it, too."""
    against: Path | None = None
    """Run folder of a second run: the difference between both, on the same samples."""
    resamples: int = 2000
    """Resamples of the bootstrap that intervals come from."""
    seed: int = 0
    """Seed of the bootstrap."""
    batch_size: int = 64
    """Samples in a batch."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to run; auto takes the first there is of cuda, mps, cpu."""
    threads: int = field(default=0, metadata={"auto": True})
    """Threads that make batches; auto takes one a core."""
    force: bool = False
    """Evaluate although the beton shares images or patients with the training set; recorded in the result."""
    keep_copies: bool = False
    """Score films that are copies of the run's training or validation films, too; recorded in the result."""
    trust_unverified: bool = False
    """Read a beton without plainfilm's footer, although it has no checksums."""

    def __post_init__(self) -> None:
        check_ranges(self, resamples=(100, 1_000_000), seed=(0, 2**32 - 1))
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise ConfigError(f"--prevalence: found {self.prevalence}, expected a share above 0 and below 1")
        check_ranges(self, batch_size=(1, 65536), threads=(0, 256))


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig:
    """What a run predicts for new files, and when it abstains."""

    run: Path
    """Run folder of `train`."""
    files: tuple[Path, ...]
    """Radiographs, or folders of them."""
    out: Path | None = None
    """Table to write, .csv or .jsonl. Default: predictions.csv here, or predictions.jsonl by --format."""
    format: Literal["auto", "csv", "jsonl"] = "auto"
    """CSV or JSON lines; auto goes by the name of --out."""
    min_confidence: float = 0.7
    """Probability below which the prediction abstains; of a finding with its odds relative to its threshold's."""
    audit: Literal["auto", "off"] = "auto"
    """auto abstains where the audit would quarantine, and repairs as `convert --audit auto`; off skips these checks."""
    segmenter: str = "shipped"
    """For a run on the lungs alone, what finds them: shipped, or a folder of `segment-train`."""
    batch_size: int = 64
    """Samples in a batch."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to run; auto takes the first there is of cuda, mps, cpu."""
    workers: int = field(default=0, metadata={"auto": True})
    """Processes that decode; auto takes one a core."""
    max_pixels: int = ORDINARY_PIXELS
    """Largest radiograph in pixels, by its header (16-bit PNG with transparency: three quarters of it)."""
    assume_modality: Modality = "none"
    """Modality of DICOM files that state none, or OT; with `none` they are rejected."""
    limits: AuditLimits = field(default=AuditLimits())

    def __post_init__(self) -> None:
        check_ranges(self, min_confidence=(0, 1), batch_size=(1, 65536), workers=(0, 256))
        check_ranges(self, max_pixels=(1, PILLOW_PIXELS))
        check_choice("assume_modality", self.assume_modality, get_args(Modality))
        if not self.files:
            raise ConfigError("files: found none, expected radiographs or folders of them; name some")
        if self.audit == "off" and self.limits != AuditLimits():
            raise ConfigError("--limit-…: found with --audit off, expected --audit auto; leave one out")
        if self.limits.limit_near_duplicate != AuditLimits().limit_near_duplicate:
            raise ConfigError("--limit-near-duplicate: files are judged one by one here; leave it out")
        if self.format == "auto" and self.table.suffix.lower() not in (".csv", ".jsonl"):
            raise ConfigError(f"--out {self.table}: expected a name in .csv or .jsonl; choose one, or add --format")

    @property
    def table(self) -> Path:
        """Where the rows go."""
        return self.out or Path("predictions.jsonl" if self.format == "jsonl" else "predictions.csv")

    @property
    def kind(self) -> str:
        """The table's format: csv or jsonl."""
        return self.table.suffix.lower()[1:] if self.format == "auto" else self.format


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """A run as one ONNX file that takes stored frames and gives calibrated probabilities."""

    run: Path
    """Run folder of `train`."""
    out: Path | None = None
    """File to write, in .onnx; model_card.md goes beside it. Default: RUN/model.onnx."""

    def __post_init__(self) -> None:
        if self.model.suffix.lower() != ".onnx":
            raise ConfigError(f"--out {self.model}: expected a name in .onnx; choose one")

    @property
    def model(self) -> Path:
        """Where the model goes."""
        return self.out or self.run / "model.onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainConfig:
    """Which parts of a beton's pictures a run uses, and how far that may be believed."""

    run: Path
    """Run folder of `train`."""
    beton: Path
    """Beton to explain the run on, such as heldout.beton."""
    out: Path | None = None
    """Folder for the results, in which each set has a folder, such as heldout-1f3a90bc. Default: RUN/explanation."""
    masks: str = "auto"
    """Masks of the lungs: auto, which finds them; a folder, or a CSV of path and mask; or usual, one region for all."""
    segmenter: str = "shipped"
    """With --masks auto, what finds the lungs: shipped, or a folder of `segment-train`."""
    table: Path | None = None
    """convert.csv of the conversion, which says which file became which sample. Default: the one beside BETON."""
    finding: tuple[str, ...] = ()
    """Of a run of findings, those to explain; may be repeated. Default: all, as far as --minutes allows."""
    minutes: float = 30
    """Of findings, begin no further one after so long; the most often present come first, and those left are named."""
    samples: int = 24
    """Pictures to show: most confident right, most confident wrong, borderline; of each finding a share, 3 or more."""
    measured: int = 256
    """Most pictures that the lungs' share is measured on, drawn from all of the beton; of each finding so many."""
    method: Literal["hirescam", "gradcam"] = "hirescam"
    """How activations are weighed: by the gradient at their own place, or by its mean over all places (GradCAM)."""
    seed: int = 0
    """Seed of drawn samples, random weights, random orders and resamples."""
    batch_size: int = 64
    """Samples in a batch."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to run; auto takes the first there is of cuda, mps, cpu."""
    threads: int = field(default=0, metadata={"auto": True})
    """Threads that make batches; auto takes one a core."""
    trust_unverified: bool = False
    """Read a beton without plainfilm's footer, although it has no checksums."""

    def __post_init__(self) -> None:
        check_ranges(self, samples=(1, 999), measured=(1, 100_000), seed=(0, 2**32 - 1), minutes=(0, 100_000))
        check_ranges(self, batch_size=(1, 65536), threads=(0, 256))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileConfig:
    """The reference pipeline and the engine side by side on the same radiographs."""

    data: Path
    """Folder with train.beton, val.beton and convert.csv, of one conversion."""
    source: Path
    """Folder that convert.csv's paths begin at: the SOURCE of `convert`, or the folder of its manifest."""
    out: Path | None = None
    """Folder for profile.png and profile.json. Default: DATA-profile, beside DATA."""
    rounds: int = 5
    """Turns of every variant, one after the other."""
    steps: int = 2
    """Training steps of a turn, after one to warm up; more if they take under 0.2 s."""
    workers: int = 0
    """Worker processes of the reference's DataLoader; 0, its default, makes batches between the steps."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to train; auto takes the first there is of cuda, mps, cpu."""
    trace: Path | None = None
    """File for a trace of some steps of the engine; chrome://tracing and ui.perfetto.dev show it."""
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_ranges(self, rounds=(1, 1000), steps=(1, 100_000), workers=(0, 256))

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or self.data.parent / f"{self.data.resolve().name}-profile"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """The page of a run, made anew from what lies in its folder."""

    run: Path
    """Run folder of `train`."""
    data: Path | None = None
    """Folder with train.beton and convert.csv, for the data flow and the probes. Default: where the run trained."""
    crossval: Path | None = None
    """Folder of `crossval`, whose table joins the page; kept in RUN for the next time."""
    hurdles: Path | None = None
    """Folder of `hurdles`, whose matrix joins the page; kept in RUN for the next time."""
    probes: bool = True
    """Probe the training beton: does anything but the finding predict the label? Skipped where RUN has probes.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentTrainConfig:
    """A segmenter of lungs: nets trained in folds by patient, each scored on films that it never saw."""

    out: Path
    """Folder to make; the same command continues there what was interrupted."""
    manifest: tuple[Path, ...] = ()
    """Table of path and mask, perhaps patient and source; repeatable. Without any, phantoms alone are learnt from."""
    folds: int = 5
    """Nets, each trained without one fold of the patients and scored on it; a film is segmented by others' nets."""
    segmenter: str = "unet"
    """What is trained: unet, the small net; or sam2:FOLDER, the mask decoder of a model of SAM 2."""
    steps: int = 1500
    """Training steps of each net."""
    phantoms: int = 300
    """Synthetic radiographs that join the training of every net, never a score."""
    seed: int = 0
    """Seed of folds, phantoms, weights and augmentation."""
    site_key: Path = Path("~/.config/plainfilm/site.key")
    """Secret key of this site for patient hashes, so that a film of a patient that a net saw is known."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to train; auto takes the first there is of cuda, mps, cpu."""

    def __post_init__(self) -> None:
        check_ranges(self, folds=(2, 20), steps=(1, 1_000_000), phantoms=(0, 100_000), seed=(0, MAX_SEED))
        if self.segmenter != "unet" and not self.segmenter.startswith(SAM2):
            raise ConfigError(f"--segmenter: found {self.segmenter}, expected unet or {SAM2}FOLDER")
        if not self.manifest and not self.phantoms:
            raise ConfigError("found neither --manifest nor --phantoms, expected films to learn from; name a table")


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentTestConfig:
    """How well a segmenter's masks agree with given ones, beside the mean mask and the lungs' usual region."""

    manifest: tuple[Path, ...]
    """Tables of path and mask, perhaps patient and source; repeatable."""
    out: Path
    """Folder to make; gets segmentation.json, segmentation.csv and a picture of the worst films."""
    segmenter: str = "shipped"
    """What is tested: shipped, a folder of `segment-train`, or sam2:FOLDER, a model of SAM 2."""
    site_key: Path = Path("~/.config/plainfilm/site.key")
    """Secret key of this site for patient hashes, so that a film of a patient that a net saw is known."""
    seed: int = 0
    """Seed of resamples."""
    resamples: int = 2000
    """Resamples of the bootstrap that intervals come from."""

    def __post_init__(self) -> None:
        check_ranges(self, seed=(0, MAX_SEED), resamples=(100, 1_000_000))


def check_out(path: Path) -> None:
    """Errors: ConfigError for a --out that no file can be written to."""
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: no folder {path.parent}, expected one that is there; make it first")
    if path.is_dir():
        raise ConfigError(f"--out {path}: a folder, expected the name of a file; add one to it")
    if path.exists() and not path.is_file():  # a device would be replaced by the file
        raise ConfigError(f"--out {path}: no regular file, expected one or a new name; choose another")
