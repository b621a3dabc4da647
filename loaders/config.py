"""Settings of all that handles files.  Imports neither torch nor numba, so that --help is instant."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from loaders.errors import ConfigError

__version__ = "0.6.0"

Fit = Literal["stretch", "cover", "contain"]
AugmentFrom = Literal["frame", "crop"]
Order = Literal["auto", "random", "pages"]
Resident = Literal["auto", "on", "off"]
Labels = Literal["none", "folder"]
Task = Literal["classes", "findings"]  # one label a film, or several findings, each present, absent or unknown
Readers = Literal["any", "majority", "all"]
Views = Literal["frontal", "pa", "ap", "all"]
Modality = Literal["none", "CR", "DX", "RG"]  # of radiographs, or none
LungMode = Literal["off", "masked", "boxed", "boxed-equal"]  # what of a film is kept: all, or the lungs alone
FrameMode = Literal["off", "masked", "boxed", "boxed-equal", "crossval"]  # or what a fold of `crossval` shows instead
PRESETS = (  # public sets whose layout is known
    "covid-radiography", "covid-qu-ex", "covid-chestxray", "nih", "rsna", "siim", "vindr", "kaggle-pneumonia",
    "chexpert", "mimic", "padchest", "brax",
)  # fmt: skip
SETS_OF_FINDINGS = ("chexpert", "mimic", "padchest", "brax")  # which have no classes
SETS_OF_BOTH = ("nih", "vindr")  # of classes unless findings are asked for
BECOMES = {"uncertain": ("unknown", "present", "absent"), "blank": ("unknown", "absent")}  # such a cell of a finding

SAM2 = "sam2:"  # begins the name of a segmenter that is a model of SAM 2 in a folder
HASH_ALGORITHM = "blake3"  # of decoded pixels, by loaders.images.decode.hash_pixels
FORMER_ALGORITHM = "blake2b"  # of betons and runs that name none
CROP_SHARE = 0.7  # DESIGN, recipe: central crop of 70 % of each side
PHANTOM_LABELS = ("covid", "normal", "pneumonia")
PHANTOM_FINDINGS = {  # of phantoms, with the names that tables give them
    "opacity": "Bilateral Opacity",
    "consolidation": "Consolidation",
    "effusion": "Effusion",
    "cardiomegaly": "Cardiomegaly",
    "nodule": "Nodule",
}
MAX_SEED = 2**63 - 1
ORDINARY_PIXELS = 64_000_000  # of the largest radiograph that is read without being asked to
PILLOW_PIXELS = 178_956_970  # above it, Pillow refuses on its own


def stored_side(crop: int) -> int:
    """Side of the stored frame whose central crop has `crop` pixels a side (DESIGN, Geometry): 224 gives 320."""
    margin = int((crop / CROP_SHARE - crop) / 2 + 0.5)
    return crop + 2 * margin


def crop_side(stored: int) -> int:
    """Side of the central crop of a stored frame without a footer: 320 gives 224."""
    return stored - 2 * round((1 - CROP_SHARE) / 2 * stored)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless value is one of the choices."""
    if value not in choices:
        raise ConfigError(f"--{name.replace('_', '-')}: found {value!r}, expected {' or '.join(choices)}")


def parse_policy(name: str, items: tuple[str, ...]) -> dict[str, str]:
    """Finding → what its uncertain, or blank, cells become; "" is for all others.  Errors: ConfigError."""
    policy: dict[str, str] = {}
    for item in items:
        finding, sign, value = (part.strip() for part in item.rpartition("="))
        if value not in BECOMES[name] or finding in policy or (sign and not finding):
            expected = f"{', '.join(BECOMES[name])}, or FINDING=one of these, once for each"
            raise ConfigError(f"--{name}: found {','.join(items)!r}, expected {expected}; correct {item!r}")
        policy[finding] = value
    return policy


def check_ranges(config: object, **limits: tuple[float, float]) -> None:
    """Raise ConfigError unless each of these settings is within its limits."""
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"--{name.replace('_', '-')}: found {value}, expected {low} to {high}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomConfig:
    """Synthetic radiographs: how many, how hard to classify, and with which confounders."""

    out: Path
    """Folder to make; gets images/<class>/<patient>_<image>.<ext>, masks/<class>/ and phantoms.csv."""
    patients: int = 160
    """Number of synthetic patients, spread evenly over the classes."""
    images_per_patient: int = 2
    """Most images that one patient has; each has between 1 and this many."""
    classes: tuple[str, ...] = ("covid", "normal")
    """Classes to draw, from covid, normal and pneumonia."""
    findings: tuple[str, ...] = ()
    """Findings instead of classes, several a film: opacity, consolidation, effusion, cardiomegaly, nodule; or `all`."""
    prevalence: float = 0.3
    """Share of the patients who have each finding."""
    unknown: float = 0.0
    """Share of the labels of findings that the table leaves blank, as unknown."""
    size: int = 256
    """Side of each image in pixels."""
    strength: float = 1.0
    """Contrast of the finding's opacities; 0 hides it, 1 makes it obvious."""
    finding_strength: tuple[str, ...] = ()
    """Strength by finding where it is another, such as nodule=0.5,effusion=0."""
    arms: float = 0.0
    """Probability (rho) that raised arms follow the class, or the first finding; 0 is no confounding, 1 the trap."""
    marks: float = 0.0
    """Probability (rho) that a burned-in mark follows the class, or the first finding."""
    format: Literal["png", "png16", "jpeg", "tiff", "tiff16"] = "png"
    """File format; 16 is the bit depth."""
    seed: int = 0
    """The same seed gives the same files."""

    def __post_init__(self) -> None:
        check_ranges(self, patients=(1, 10**6), images_per_patient=(1, 100), size=(32, 4096), strength=(0, 10))
        check_ranges(self, arms=(0, 1), marks=(0, 1), seed=(0, MAX_SEED))
        if not self.classes or not set(self.classes) <= set(PHANTOM_LABELS):
            expected = ",".join(PHANTOM_LABELS)
            raise ConfigError(f"--classes: found {','.join(self.classes)}, expected some of {expected}")
        check_ranges(self, prevalence=(0, 1), unknown=(0, 1))
        if self.findings and self.classes != ("covid", "normal"):
            raise ConfigError("found --classes with --findings, expected one of both; leave one out")
        strengths = self.finding_strengths
        if len(set(self.findings)) < len(self.findings) or not set(strengths) <= set(PHANTOM_FINDINGS):
            found, expected = ",".join(self.findings), ",".join(PHANTOM_FINDINGS)
            raise ConfigError(f"--findings: found {found}, expected some of {expected}, each once; or all")
        for pair in self.finding_strength:
            name = pair.partition("=")[0]
            if name not in strengths or not 0 <= strengths[name] <= 10:
                expected = "one of --findings with a strength of 0 to 10, such as nodule=0.5"
                raise ConfigError(f"--finding-strength: found {pair}, expected {expected}")

    @property
    def finding_strengths(self) -> dict[str, float]:
        """Finding → its strength, in the order of --findings; -1 for what is no number."""
        names = tuple(PHANTOM_FINDINGS) if self.findings == ("all",) else self.findings
        strengths = dict.fromkeys(names, self.strength)
        for name, _, text in (pair.partition("=") for pair in self.finding_strength):
            if name in strengths:
                strengths[name] = float(text) if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) else -1.0
        return strengths


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLimits:
    """Scores above which a file has a defect; docs/AUDIT.md explains how they were chosen and what they miss."""

    limit_not_a_radiograph: float = 0.35
    """Probability of CT, MRI, photograph, document or mask."""
    limit_lateral: float = 0.5
    """Probability of a lateral view."""
    limit_colour_annotation: float = 0.003
    """Share of coloured pixels."""
    limit_text_or_mark: float = 0.0085
    """Share of thin strokes far brighter or darker than around them."""
    limit_low_resolution: float = 1.6
    """Stored side over the file's shorter side."""
    limit_blurred: float = 2.2
    """Contrast of edges at two pixels over that at one pixel, at 320 pixels a side."""
    limit_exposure: float = 0.85
    """Distance from an ordinary exposure."""
    limit_inverted: float = 0.5
    """Probability that black and white are exchanged."""
    limit_rotated: float = 0.5
    """Probability of a quarter, half or three-quarter turn."""
    limit_misaligned: float = 1.0
    """Distance of the thorax from its ordinary position, tilt and size."""
    limit_no_lungs: float = 0.35
    """How little the lungs agree with those of the film turned a little, 0 to 1; of the audit, not of --lungs."""
    limit_lungs_not_two: float = 0.75
    """How much smaller one lung is than the other, 0 to 1; of the audit, not of --lungs."""
    limit_lungs_cut_off: float = 0.6
    """Largest share of the lungs' width or height at an edge of the film; of the audit, not of --lungs."""
    limit_borders: float = 0.07
    """Widest uniform margin, as a share of the side."""
    limit_near_duplicate: float = 0.9
    """Correlation of fine detail, after alignment, from which two files count as the same film."""

    def __post_init__(self) -> None:
        check_ranges(self, **dict.fromkeys(self.__slots__, (0, 1e6)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogConfig:
    """Which radiographs are read, and how they are labelled and grouped; the same for every command with a source."""

    source: Path | None = None
    """Folder of radiographs, SOURCE/<class>/** or SOURCE/{train,val,test}/<class>/**; `audit` takes a beton, too."""
    manifest: Path | None = None
    """Table, not a folder: path, label, optionally patient, sex, age, view, source, split; paths relative to it."""
    root: tuple[Path, ...] = ()
    """Folder below which a manifest's paths lie, or links of SOURCE may end; repeatable. No file outside is read."""
    path_column: str | None = None
    """Column of the manifest with the files' paths. Default: path, or a usual spelling such as Image Index."""
    label_column: str | None = None
    """Column with the labels. Default: label, or a usual spelling such as Finding Labels."""
    patient_column: str | None = None
    """Column with the patients. Default: patient, or a usual spelling such as PatientID."""
    view_column: str | None = None
    """Column with the views. Default: view, or a usual spelling such as View Position or AP/PA."""
    source_column: str | None = None
    """Column with the sources. Default: source, or a usual spelling such as hospital."""
    sex_column: str | None = None
    """Column with the patients' sex. Default: sex, or a usual spelling such as Patient Gender."""
    age_column: str | None = None
    """Column with the patients' age. Default: age, or a usual spelling such as Patient Age."""
    split_column: str | None = None
    """Column with train, val or heldout. Default: split, or a usual spelling such as data_split."""
    preset: str | None = None
    """Public set in SOURCE, as distributed: nih, rsna, siim, vindr, covid-qu-ex and others (docs/COLLECTIONS.md)."""
    classes: tuple[str, ...] = ()
    """Classes to keep, in order; others are excluded. Default: all, in alphabetical order."""
    findings: tuple[str, ...] = ()
    """Findings instead of classes, each present, absent or unknown: columns of the table or labels of one; or `all`."""
    separator: str | None = None
    """What separates the findings in one cell of the label column, such as "|": then findings are its labels."""
    uncertain: tuple[str, ...] = ()
    """An uncertain finding (-1) is unknown, present or absent; also by finding: Edema=present,Fracture=absent."""
    blank: tuple[str, ...] = ()
    """An empty cell is unknown or absent; also by finding. Default of both: unknown, or as the preset's paper."""
    map_label: tuple[str, ...] = ()
    """Labels to translate, before classes are chosen, such as "COVID-19=covid,No finding=normal"; may be repeated."""
    group_regex: str | None = None
    """Regular expression whose first group is the patient, on the path below the source or the file name; or `nih`."""
    views: Views = "frontal"
    """Views to keep; files of another view, as the table or DICOM states, are left out, and those of none stay."""
    readers: Readers | None = None
    """Where readers differ: a finding if any or all of them name it (of two labels), or the majority's label."""
    max_pixels: int = ORDINARY_PIXELS
    """Largest radiograph in pixels, by its header (16-bit PNG with transparency: three quarters of it)."""
    assume_modality: Modality = "none"
    """Modality of DICOM files that state none, or OT; with `none` they are rejected."""

    def __post_init__(self) -> None:
        check_ranges(self, max_pixels=(1, PILLOW_PIXELS))
        check_choice("assume_modality", self.assume_modality, get_args(Modality))
        if (self.source is None) == (self.manifest is None):
            found = "neither" if self.source is None else "both"
            raise ConfigError(f"found {found} of SOURCE and --manifest, expected either a folder or a CSV; name one")
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)
            if self.manifest is not None:
                raise ConfigError("found --preset with --manifest, expected it with SOURCE, the folder of a public set")
        check_choice("views", self.views, get_args(Views))
        if self.readers is not None:
            check_choice("readers", self.readers, get_args(Readers))
        if self.readers and self.preset not in (None, "vindr"):
            raise ConfigError(f"found --readers with --preset {self.preset}, expected it with vindr; leave it out")
        of_tables = [item.name for item in fields(self) if item.name.endswith("_column")]
        if self.source is not None and (given := [name for name in of_tables if getattr(self, name)]):
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ConfigError(f"found {flags} with {self.source}, expected them with --manifest; leave them out")
        for name in ("classes", "findings"):
            if len(set(given := getattr(self, name))) != len(given):
                raise ConfigError(f"--{name}: found {','.join(given)}, expected each once")
        self._check_findings()
        for pair in self.map_label:
            if not all(name.strip() for name in pair.rpartition("=")):
                raise ConfigError(f"--map-label: found {pair!r}, expected LABEL=CLASS, such as COVID-19=covid")

    def _check_findings(self) -> None:
        """Raise ConfigError unless the settings of findings fit one another."""
        for name in BECOMES:
            items = getattr(self, name)
            parse_policy(name, items)
            if items and self.task == "classes":
                raise ConfigError(f"found --{name} without findings, expected it with --findings; name them, or all")
        if self.separator is not None and (not self.separator or self.manifest is None):
            found = f"with {self.source}" if self.source else "empty"
            raise ConfigError(f"--separator: found {found}, expected what parts the labels of a --manifest, such as |")
        if self.task == "classes":
            return
        if self.classes:
            raise ConfigError("found --classes with findings, expected --findings alone; name there what is to be kept")
        if self.label_column and self.separator is None:
            raise ConfigError(
                "found --label-column with --findings, expected --separator with it, where findings are labels of one "
                "column, or neither, where each is a column of its own"
            )
        if len(self.findings) > 1 and "all" in self.findings:
            raise ConfigError(f"--findings: found {','.join(self.findings)}, expected names, or all alone")
        if self.source is not None and self.preset not in (*SETS_OF_FINDINGS, *SETS_OF_BOTH):
            expected = f"them in a --manifest, or with --preset {', '.join((*SETS_OF_FINDINGS, *SETS_OF_BOTH))}"
            raise ConfigError(
                f"found findings, of --findings or --like, with {self.preset or self.source}, expected {expected}"
            )

    @property
    def task(self) -> Task:
        """What each film has: one label, or findings."""
        return (
            "findings" if self.findings or self.separator is not None or self.preset in SETS_OF_FINDINGS else "classes"
        )

    @property
    def origin(self) -> Path:
        """What the user named: SOURCE, or the manifest."""
        origin = self.source or self.manifest
        assert origin is not None
        return origin

    @property
    def within(self) -> tuple[Path, ...]:
        """The folders that files must lie in, links followed; none where it is that of their paths."""
        folders = (self.source, *self.root) if self.source and self.root else self.root
        return tuple(dict.fromkeys(folders))


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """What is wrong with the files of a folder, and with the collection as a whole."""

    catalog: CatalogConfig
    out: Path
    """Folder that gets audit.csv, which `convert --audit` reads, and audit.html."""
    labels: Labels = "none"
    """`folder`: the folders in SOURCE are the labels, as with --classes. The collection is audited only with labels."""
    size: int = 224
    """Side of the crop that a conversion would make; files too small for it have low resolution."""
    workers: int = field(default=0, metadata={"auto": True})
    """Processes that decode; auto takes one for each core."""
    seed: int = 0
    """Seed of folds, permutations and resamples."""
    permutations: int = 1999
    """Permutations of the labels for each probe of the collection."""
    limits: AuditLimits = field(default=AuditLimits())

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, get_args(Labels))
        check_ranges(self, size=(32, 2048), workers=(0, 256), seed=(0, MAX_SEED), permutations=(999, 20_000))
        if self.beton is not None:
            given = [item.name for item in fields(CatalogConfig) if getattr(self.catalog, item.name) != item.default]
            given = [name for name in given if name != "source"] + ["labels"] * (self.labels != "none")
            if given:
                flags = ", ".join("--" + name.replace("_", "-") for name in given)
                raise ConfigError(
                    f"found {flags} with {self.beton}, expected SOURCE alone: a beton has its own classes and groups; "
                    "leave them out, or audit the folder that it was converted from"
                )

    @property
    def beton(self) -> Path | None:
        """The beton that SOURCE is, if it is one."""
        source = self.catalog.source
        return source if source is not None and source.suffix == ".beton" else None

    @property
    def labelled(self) -> bool:
        """Whether the files have labels."""
        catalog = self.catalog
        return bool(self.labels == "folder" or catalog.classes or catalog.preset or catalog.manifest)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """From radiographs to betons: what to read, how to split, what to write."""

    catalog: CatalogConfig
    out: Path
    """Folder that gets train.beton, val.beton, heldout.beton, convert.csv and two pictures."""
    like: Path | None = None
    """Run of `train` or `crossval`, or a beton, to test: writes heldout.beton alone, with its classes, size, lungs."""
    positive: str | None = None
    """The positive class of every metric. Default: the first class, but `normal` and the like only as listed first."""
    size: int = 224
    """Side of the central crop that the network sees, in pixels; the stored frame is size/0.7."""
    fit: Fit = "stretch"
    """How a frame becomes square: stretch, cover (crop the longer side) or contain (pad with black)."""
    val: float = 0.2
    """Share of the images, by whole groups, for validation, after the held-out share is taken."""
    holdout: float = 0.0
    """Share of the images, by whole groups, for heldout.beton, which training never opens."""
    seed: int = 0
    """Seed of the split."""
    workers: int = field(default=0, metadata={"auto": True})
    """Processes that decode; auto takes one for each core."""
    page_mib: int = 8
    """Page size of the betons in MiB, a power of two of at least 2."""
    lungs: LungMode = "off"
    """Keep the lungs alone: masked, in place; boxed, at one size; boxed-equal, with grey levels equalised, too."""
    masks: str = "auto"
    """With --lungs, masks: auto, which finds them; or a folder, or a CSV of path and mask, such as phantoms.csv."""
    segmenter: str = "shipped"
    """With --lungs, what finds the lungs, or is compared with given masks: shipped, or a folder of `segment-train`."""
    keep_demographics: bool = False
    """Keep sex and age, in decades, from tables and DICOM files, for subgroups of `evaluate` (SECURITY.md)."""
    site_key: Path = Path("~/.config/plainfilm/site.key")
    """Secret key of this site for patient hashes; made once, never written into a beton."""
    audit: str = "off"
    """off; auto, which audits while it decodes; or an audit.csv, whose verdicts, as edited, are honoured."""
    dry_run: bool = False
    """Read and decode everything and print the plan, but write nothing."""
    limits: AuditLimits = field(default=AuditLimits())
    given: tuple[str, ...] = field(default=(), metadata={"hidden": True, "given": True})
    """Settings that were named, even if as they are by default."""

    def __post_init__(self) -> None:
        check_choice("fit", self.fit, get_args(Fit))
        check_choice("lungs", self.lungs, get_args(LungMode))
        check_ranges(self, size=(32, 2048), val=(0, 0.9), holdout=(0, 1), seed=(0, MAX_SEED), workers=(0, 256))
        if self.like is None:
            for name, low, high in (("val", 0.01, 0.9), ("holdout", 0, 0.9)):
                if not low <= getattr(self, name) <= high:
                    raise ConfigError(
                        f"--{name}: found {getattr(self, name)}, expected {low} to {high}, since a network is trained "
                        "and stopped on the rest; for a test set alone, name the run to test on it with --like RUN"
                    )
        if self.page_mib < 2 or self.page_mib > 1024 or self.page_mib & (self.page_mib - 1):
            raise ConfigError(f"--page-mib: found {self.page_mib}, expected a power of two from 2 to 1024")
        if stored_side(self.size) ** 2 > self.page_mib << 20:
            least = next(mib for mib in (2**k for k in range(1, 11)) if stored_side(self.size) ** 2 <= mib << 20)
            raise ConfigError(f"--page-mib: found {self.page_mib}, expected at least {least} for --size {self.size}")
        if self.positive is not None and self.catalog.task == "findings":
            raise ConfigError(
                f"found --positive {self.positive} with findings, expected none: each finding is its own, present or "
                "absent; leave it out"
            )
        if self.audit != "auto" and self.limits != AuditLimits():
            raise ConfigError(
                f"--limit-…: found with --audit {self.audit}, expected --audit auto; give them to `audit`"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentConfig:
    """The lungs' masks of radiographs, with what each is worth."""

    catalog: CatalogConfig
    out: Path
    """Folder to make; gets masks/, doubtful/, masks.csv and a contact sheet."""
    labels: Labels = "none"
    """`folder`: the folders in SOURCE are the labels, as with --classes, by which doubtful masks are counted."""
    segmenter: str = "shipped"
    """What finds the lungs: shipped, a folder of `segment-train`, or sam2:FOLDER, a model of SAM 2."""
    size: int = 224
    """Side of the crop of the conversion whose frames the lungs are found in."""
    workers: int = field(default=0, metadata={"auto": True})
    """Processes that decode; auto takes one for each core."""
    site_key: Path = Path("~/.config/plainfilm/site.key")
    """Secret key of this site for patient hashes, so that a film of a patient that a net saw is known."""

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, get_args(Labels))
        check_ranges(self, size=(32, 2048), workers=(0, 256))

    @property
    def labelled(self) -> bool:
        """Whether folders must be labels; a table may have some."""
        return bool(self.labels == "folder" or self.catalog.classes or self.catalog.preset)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How batches are made from a beton."""

    batch_size: int = 32
    """Samples in a batch; the last one of an epoch may be smaller."""
    training: bool = field(default=False, metadata={"hidden": True})
    """Shuffle and augment; otherwise file order and the central crop."""
    seed: int = 0
    """Seed of order, rotation and zoom; in training also of the first weights and of dropout."""
    threads: int = field(default=0, metadata={"auto": True})
    """Threads that make batches; auto takes one for each core. torch's own threads are left alone."""
    prefetch: int = 2
    """Batches made ahead, beyond one for each thread."""
    order: Order = "auto"
    """Order of training: random, or by random pages of the file; auto takes pages for a file over half the memory."""
    resident: Resident = "auto"
    """Frames in GPU memory: auto (if they fit), on, or off (streamed). On a CPU, `on` reads all into memory first."""
    pin_memory: bool = False
    """Page-locked batches for your own Loader, which copy faster to a CUDA device; `train` does not need it."""
    rotation: float = 15.0
    """Rotation is uniform in plus or minus this many degrees."""
    zoom_low: float = 0.05
    """Smallest zoom, in or out."""
    zoom_high: float = 0.15
    """Largest zoom, in or out."""
    augment_from: AugmentFrom = "crop"
    """Sample rotated crops from the whole frame, or clamp at the crop's edge (`crop`)."""
    trust_unverified: bool = False
    """Read a beton without plainfilm's footer, although it has no checksums."""
    rank: int = field(default=0, metadata={"hidden": True})
    """This process's number among the world_size that share the epoch; each sample goes to exactly one of them."""
    world_size: int = field(default=1, metadata={"hidden": True})
    """Number of processes that share the epoch."""

    def __post_init__(self) -> None:
        check_choice("order", self.order, get_args(Order))
        check_choice("resident", self.resident, get_args(Resident))
        check_choice("augment_from", self.augment_from, get_args(AugmentFrom))
        check_ranges(self, batch_size=(1, 65536), world_size=(1, 65536), rank=(0, self.world_size - 1))
        check_ranges(self, seed=(0, MAX_SEED), threads=(0, 256), prefetch=(0, 1024), rotation=(0, 180))
        check_ranges(self, zoom_low=(0, self.zoom_high), zoom_high=(self.zoom_low, 0.9))


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchLoaderConfig:
    """How fast this machine makes batches from a beton."""

    beton: Path
    """Beton to read."""
    epochs: int = 5
    """Epochs to time, after one for warm-up."""
    evaluation: bool = False
    """Evaluation batches: file order, central crops. Otherwise training batches."""
    step_ms: float = 0.0
    """Milliseconds that the consumer spends on each batch, as a training step would."""
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_ranges(self, epochs=(1, 10_000), step_ms=(0, 60_000))
