"""Cautions, and reasons why something was not done: codes with parameters; the one place that holds their texts."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import msgspec

Parameter = str | int | float | list[str] | dict[str, float]


class Gravity(IntEnum):
    """What undoes a score, gravest first: the order of red flags, of cautions and of other findings alike."""

    LEAKAGE = 0
    CONFOUNDED = 1
    SYNTHETIC = 2
    LUNGS = 3
    SOURCE = 4
    PROBES = 5
    CROSSVAL = 6
    EARLY = 7
    PATIENTS = 8
    FEW_IMAGES = 9
    FEW_GROUPS = 10
    SUBGROUP = 11
    NOTE = 12
    """To be known, but no red flag."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """What a code means.  finding: what was found, a template of the parameters, without a full stop.

    effect: what that does to the score, to follow "the score"; only red flags have one, and a gravity above NOTE.
    parameters: of which type each is; a whole number may stand for a float.  A dict has the per cent of each name.
    """

    finding: str
    effect: str
    gravity: Gravity
    parameters: dict[str, type]


class Caution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One caution, of what holds it: a run, a set, a comparison.  A rival's lie in a list of the rival's own.

    Errors: ValueError for a code that is not in CODES, and for parameters that are not the code's; a file with such a
    caution is refused by msgspec when it is read.
    """

    code: str
    parameters: dict[str, Parameter] = {}

    def __post_init__(self) -> None:
        code = CODES.get(self.code)
        if code is None:
            raise ValueError(f"caution {self.code!r}, expected one of loaders.cautions")
        if self.parameters.keys() != code.parameters.keys():
            raise ValueError(
                f"caution {self.code}: parameters {sorted(self.parameters)}, expected {sorted(code.parameters)}"
            )
        for name, kind in code.parameters.items():
            try:
                msgspec.convert(self.parameters[name], kind)
            except msgspec.ValidationError as error:
                found = f"{name} {self.parameters[name]!r}"
                raise ValueError(f"caution {self.code}: {found}, expected {kind.__name__}") from error

    @property
    def finding(self) -> str:
        """What was found, without a full stop."""
        shown = {
            name: ", ".join(f"{value[key]:g} % of {key}" for key in value)
            if isinstance(value, dict)
            else ", ".join(value)
            for name, value in self.parameters.items()
            if isinstance(value, list | dict)
        }
        return self.meaning.finding.format(**self.parameters | shown)

    @property
    def meaning(self) -> Code:
        """What its code means."""
        return CODES[self.code]

    @property
    def text(self) -> str:
        """All of it in plain English, to follow `Caution: `, without a full stop."""
        return f"{self.finding}: the score {self.meaning.effect}" if self.meaning.effect else self.finding


def code(finding: str, effect: str = "", gravity: Gravity = Gravity.NOTE, **parameters: type) -> Code:
    """The meaning of a code, of which most are notes."""
    return Code(finding=finding, effect=effect, gravity=gravity, parameters=parameters)


def caution(code: str, **parameters: Parameter) -> Caution:
    """A caution.  Errors: ValueError for an unknown code, or parameters that are not the code's."""
    return Caution(code, parameters)


def each_once(found: Iterable[Caution]) -> list[Caution]:
    """Cautions in order, equal ones once."""
    kept: list[Caution] = []
    for one in found:
        if one not in kept:
            kept.append(one)
    return kept


NOTHING_CLINICAL = "is evidence of nothing clinical"
UNKNOWN = "may be inflated, since leakage between patients is not excluded"
patients_unknown = partial(code, effect=UNKNOWN, gravity=Gravity.PATIENTS)
copies = partial(code, copies=int, images=int, sets=list[str])
told_by_source = partial(
    code,
    "the source alone tells {label} from the rest with a balanced accuracy of {accuracy:.3f} (95 % interval "
    "{low:.3f} to {high:.3f}; guessing 0.5); {own_percent} come from sources with hardly any other class (add "
    "images of each class from the same sources)",
    label=str,
    accuracy=float,
    low=float,
    high=float,
    own_percent=dict[str, float],
)
few_groups = partial(code, effect="rests on few patients", gravity=Gravity.FEW_GROUPS)

CODES: dict[str, Code] = {
    # of a set that shares something with training
    "leakage-forced": code(
        "the set tested holds {images:,} images known to be of the training set and {patients:,} known to be of its "
        "patients",
        effect="is leaked",
        gravity=Gravity.LEAKAGE,
        images=int,
        patients=int,
    ),
    "validation-leakage": code(
        "the set tested holds images or patients of the validation set, on which the checkpoint, the "
        "temperature and the thresholds were chosen",
        effect="is optimistic",
        gravity=Gravity.LEAKAGE,
    ),
    "copies-kept": copies(
        "{copies:,} of the {images:,} images tested are copies, by their look, of images that the network was trained "
        "or chosen on ({sets})",
        effect="is leaked",
        gravity=Gravity.LEAKAGE,
    ),
    "copies-removed": copies(
        "{copies:,} of {images:,} images are copies, by their look, of images that the network was trained or chosen "
        "on ({sets}), and were left out; copies.csv lists them"
    ),
    "no-looks": code(
        "copies of training images, re-encoded or resized, were not looked for: the run's betons are not where it was "
        "trained, and it keeps no looks of them ({sets})",
        sets=list[str],
    ),
    "frames-too-small-for-copies": code(
        "copies of training images, re-encoded or resized, were not looked for: frames of {stored} pixels a side are "
        "too small to tell them, expected at least {least}",
        stored=int,
        least=int,
    ),
    # of the images
    "confounded-with-source": code(
        "finding and source cannot be separated, since all images of {classes} ({images:,}) come from sources "
        "that have no other class (add images of each class from the same sources)",
        effect=NOTHING_CLINICAL,
        gravity=Gravity.CONFOUNDED,
        classes=list[str],
        images=int,
    ),
    "findings-confounded-with-source": code(
        "finding and source cannot be separated for {findings}, since all or nearly all films with such a finding come "
        "from other sources than films without it (add films with and without it from the same sources)",
        effect="of such a finding is evidence of nothing clinical",
        gravity=Gravity.CONFOUNDED,
        findings=list[str],
    ),
    "findings-near-source": code(
        "the source alone predicts {findings} better than chance (the 95 % interval of its balanced accuracy begins "
        "above {accuracy:g})",
        effect="of such a finding may come from the source instead of the disease",
        gravity=Gravity.SOURCE,
        findings=list[str],
        accuracy=float,
    ),
    "findings-of-one-source": code(
        "there are several sources, but one alone has all films in which a finding is known, or all in which it is "
        "present ({findings})",
        effect="of such a finding says nothing about the other sources",
        gravity=Gravity.SOURCE,
        findings=list[str],
    ),
    "strongly-confounded-with-source": told_by_source(effect=NOTHING_CLINICAL, gravity=Gravity.CONFOUNDED),
    "moderately-confounded-with-source": told_by_source(
        effect="may come from the source instead of the disease", gravity=Gravity.SOURCE
    ),
    "synthetic-phantoms": code(
        "all images are synthetic phantoms, drawn by a program",
        effect="says nothing about patients",
        gravity=Gravity.SYNTHETIC,
    ),
    "lungs-alone": code(
        "frames show the lungs alone (--lungs {lungs}), and their outline may tell the label as well as what lies in "
        "them: `crossval --splits lungs-only,silhouette` on whole films shows whether it does",
        lungs=str,
    ),
    "early-convergence": code(
        "validation {metric} was {value:.3f} after one epoch, which a shortcut in the data would explain (see `audit`)",
        effect="came suspiciously early",
        gravity=Gravity.EARLY,
        metric=str,
        value=float,
    ),
    "patients-unknown": patients_unknown(
        "patients are unknown for {unknown:,} of {images:,} images", unknown=int, images=int
    ),
    "training-patients-unknown": patients_unknown(
        "patients are unknown for {unknown:,} of {images:,} training images", unknown=int, images=int
    ),
    "site-keys-differ": patients_unknown(
        "the site keys differ, so that patients cannot be compared with those of the training set"
    ),
    "hashed-otherwise": code(
        "images cannot be compared with those of the training set, since hashes of pixels are of different kinds "
        "({found} here, {expected} in training; convert the older radiographs again)",
        effect="may be inflated, since leakage of images is not excluded",
        gravity=Gravity.PATIENTS,
        found=str,
        expected=str,
    ),
    "unverified-beton": patients_unknown(
        "the beton is unverified, so that its overlap with the training set cannot be checked"
    ),
    "every-image-its-own-group": patients_unknown("no two images are known to be of one patient"),
    "frames-fitted-differently": code(
        "frames were fitted by {found}, but by {expected} in training", found=str, expected=str
    ),
    "lungs-found-otherwise": code(
        "the lungs' masks come from segmenter {found}, but from {expected} in training (given: files of masks)",
        found=str,
        expected=str,
    ),
    # of the statistics
    "groups-unknown": code(
        "groups are unknown, so that images are taken as independent",
        effect="is less certain than its intervals suggest",
        gravity=Gravity.FEW_GROUPS,
    ),
    "one-group": few_groups("all images are of one group, so that no interval can be computed"),
    "few-groups": few_groups("there are only {groups} groups, and intervals from so few are too narrow", groups=int),
    "ungrouped-images": code(
        "the intervals may be too narrow: {unknown:,} of {images:,} images have no known patient and are taken "
        "as independent",
        unknown=int,
        images=int,
    ),
    "one-class": code("only one class is present, so that the AUC is undefined"),
    "absent-classes": code("no image is of {classes}: means are over the other classes", classes=list[str]),
    "temperature-at-bound": code(
        "the temperature is at its bound, {temperature:g}: validation was too easy or too hard to calibrate "
        "by, so that a probability means little",
        temperature=float,
    ),
    "one-class-in-validation": code(
        "validation has {positives:,} positives and {negatives:,} negatives, expected at least 1 of each",
        positives=int,
        negatives=int,
    ),
    "few-validation-positives": code(
        "validation has {positives} positives, expected at least {least} (0.95^{least} < 5 %)", positives=int, least=int
    ),
    # of findings
    "findings-not-measured": code(
        "not measured, and in no mean, since fewer than {least} groups (patients) here are known to have the finding, "
        "or known not to: {findings}",
        findings=list[str],
        least=int,
    ),
    "findings-without-rule-out": code(
        "no threshold rules out a finding that fewer than {least} films of the validation set are known to show: "
        "{findings}",
        findings=list[str],
        least=int,
    ),
    "temperatures-at-bound": code(
        "the temperature is at its bound, since validation was too easy or too hard to calibrate by, so that a "
        "probability of the finding means little: {findings}",
        findings=list[str],
    ),
    # of an explanation
    "usual-lung-region": code(
        "the lungs are assumed to lie where they usually do, a region far larger than they are: that maps lie in it "
        "shows nothing; find or name masks with --masks"
    ),
    "maps-of-lungs-alone": code(
        "maps that lie in the lungs do not tell what is in them from their outline, since nothing else is shown"
    ),
    "images-without-mask": code(
        "no credible mask of the lungs was found in {without:,} of {images:,} images ({reasons}); the lung ratio "
        "leaves them out",
        without=int,
        images=int,
        reasons=list[str],
    ),
    "empty-maps": code(
        "{empty:,} of {images:,} maps are empty, since nothing speaks for the predicted class; the lung ratio "
        "leaves them out",
        empty=int,
        images=int,
    ),
    "lungs-outside-crop": code(
        "{outside:,} of {images:,} images have no lungs within their crop; the lung ratio leaves them out",
        outside=int,
        images=int,
    ),
    "maps-of-random-weights": code(
        "a network with random weights gives the same maps, so that they show nothing that this one learnt"
    ),
    "maps-not-comparable": code(
        "the maps, or those of networks with random weights, are uniform, so that it cannot be checked whether "
        "they show what this one learnt"
    ),
    "deletion-not-faster": code(
        "hiding what the maps mark was not shown to lower the probability faster than hiding at random"
    ),
    "findings-not-explained": code(
        "not explained within --minutes {minutes:g} (allow more, or name findings with --finding): {findings}",
        findings=list[str],
        minutes=float,
    ),
    # of a cross-validation
    "external-fitted-differently": code(
        "{beton}: frames were fitted by {found}, but by {expected} in the pool", beton=str, found=str, expected=str
    ),
    "external-lungs-found-otherwise": code(
        "{beton}: the lungs' masks come from segmenter {found}, but from {expected} in the pool (given: files of "
        "masks)",
        beton=str,
        found=str,
        expected=str,
    ),
    "external-shares-sources": code(
        "{beton} is no other collection: it shares sources with the training images, such as {sources}",
        beton=str,
        sources=list[str],
    ),
    "external-sources-unknown": code(
        "it cannot be told whether {beton} is another collection, since sources are unknown", beton=str
    ),
    "external-site-key-differs": code(
        "{beton}: its site key is another, so that patients shared with the pool are not excluded", beton=str
    ),
    "external-hashed-otherwise": code(
        "{beton}: its hashes of pixels are of another kind ({found}, in the pool {expected}), so that images shared "
        "with the pool are not excluded (convert the older radiographs again)",
        beton=str,
        found=str,
        expected=str,
    ),
    "external-patients-unknown": code(
        "{beton}: patients are unknown for {unknown:,} of {images:,} images, so that patients shared with the "
        "pool are not excluded",
        beton=str,
        unknown=int,
        images=int,
    ),
    "external-copies-kept": copies(
        "{beton} is no other collection: {copies:,} of its {images:,} images are copies, by their look, of the pool's "
        "({sets})",
        beton=str,
    ),
    "external-copies-removed": copies(
        "{beton}: {copies:,} of its {images:,} images are copies, by their look, of the pool's ({sets}), and were left "
        "out; copies.csv lists them",
        beton=str,
    ),
    "external-mostly-copies": code(
        "{beton} is no other collection: most of its images are copies of the pool's", beton=str
    ),
    "findings-not-in-training": code(
        "not measured, and in no mean, since no film trained on is known to show the finding, or none is known not to: "
        "{findings}",
        findings=list[str],
    ),
    "few-known-to-test": code(
        "in some test folds ({splits}) fewer than {least} groups (patients) are known to have the finding, or known "
        "not to, so that these folds have no score of it (folds in brackets): {findings}",
        splits=list[str],
        findings=list[str],
        least=int,
    ),
    "few-known-to-choose": code(
        "in the validation sets of some folds ({splits}) fewer than {least} groups (patients) are known to have the "
        "finding, or known not to, so that its threshold is 0.5 there (folds in brackets): {findings}",
        splits=list[str],
        findings=list[str],
        least=int,
    ),
    "masks-lacking": code(
        "{without:,} of {images:,} films have no credible mask of their lungs and were left out of every split "
        "({reasons})",
        without=int,
        images=int,
        reasons=list[str],
    ),
    "usual-region-hidden": code(
        "{masks:,} of {images:,} films have a credible mask of their lungs, fewer than the {least} that a common "
        "region is made of: lungs-hidden hides the lungs' usual region",
        masks=int,
        images=int,
        least=int,
    ),
    # of a hurdles run
    "collection-of-one-class": code(
        "{collection} has films of {label} alone, so that no network is trained on it",
        collection=str,
        label=str,
    ),
    "collection-of-few-groups": code(
        "{collection} has {groups:,} groups (patients) of {label}, expected at least {least:,}, so that no network is "
        "trained on it",
        collection=str,
        label=str,
        groups=int,
        least=int,
    ),
    "collection-without-findings": code(
        "no finding is present in some films of {collection} and absent in others, so that no network is trained on it",
        collection=str,
    ),
    "films-without-source": code(
        "{images:,} films of unknown source belong to no collection, and are left out", images=int
    ),
    "nothing-left-to-test": code(
        "training has every film of {collection}, so that nothing is left to test on", collection=str
    ),
    "left-out-like-another": code(
        "all but {without} is one collection alone, {collection}, whose row it is", without=str, collection=str
    ),
    "hurdles-of-other-conversion": code(
        "no row of this matrix is of the run's own conversion as a whole, and the verdict does not count it"
    ),
    "crossval-of-other-conversion": code(
        "this cross-validation is of another conversion than the run, and the verdict does not count it"
    ),
    # of the labels of findings
    "findings-not-learnt": code(
        "nothing is learnt of a finding that no training film is known to show, or none is known not to: {findings}",
        findings=list[str],
    ),
    "few-known-in-training": code(
        "little can be learnt of a finding that fewer than {least} groups (patients) of the training set are known to "
        "have, or known not to: {findings}",
        findings=list[str],
        least=int,
    ),
    "few-known-in-validation": code(
        "no temperature, no threshold and no part in validation's means for a finding that fewer than {least} groups "
        "(patients) of the validation set are known to have, or known not to: {findings}",
        findings=list[str],
        least=int,
    ),
    "monitored-by-loss": code(
        "too few labels of validation are known for --monitor {monitor}, so that the epoch of the lowest validation "
        "loss is kept",
        monitor=str,
    ),
    # of a vision-language model
    "does-not-look": code(
        "the answers do not depend on the film: another patient's film changes the log-odds by {film:g} on average, "
        "another wording of the question by {words:g}",
        "does not come from the film",
        Gravity.LUNGS,
        film=float,
        words=float,
    ),
    "words-over-film": code(
        "the answers depend on the words more than on the film: another wording of the question changes the log-odds "
        "by {words:g} on average, another patient's film by {film:g}",
        film=float,
        words=float,
    ),
    # of a training
    "nothing-to-recompute": code(
        "{model} has no batch norm, so that --validate-with recomputed validates as running does", model=str
    ),
    "training-restarted": code(
        "no state had been saved before the interruption, so that training started again from the beginning"
    ),
    "not-captured": code(
        "the {work} of {images} images runs without a CUDA graph, and so more slowly: {reason}",
        work=str,
        images=int,
        reason=str,
    ),
    "triton-unavailable": code(
        "batches are made by plain PyTorch instead of Triton, and more slowly: {reason}", reason=str
    ),
    # of a profile
    "machine-busy": code(
        "{load:.1f} processes wanted {cores} cores before the profile began: on a quiet machine everything is "
        "faster, and the ratios differ",
        load=float,
        cores=int,
    ),
    "machine-unsteady": code(
        "matrix products ran {ratio:.1f} times as fast in one round as in another, so that shares of the "
        "machine's rate mean little",
        ratio=float,
    ),
    # of a prediction
    "audit-off": code("with --audit off, lateral views, CT and the like are predicted as well"),
    "masks-given-in-training": code(
        "the run was trained on lungs by given masks, but here segmenter {segmenter} finds them, which may cut lungs "
        "out otherwise",
        segmenter=str,
    ),
    "no-leakage-record": code("there is no {file}, so that it is unknown which files the run was trained on", file=str),
    "run-hashed-otherwise": code(
        "it is unknown which files the run was trained on, since its hashes of pixels are of another kind ({found}, "
        "expected {expected}; convert its radiographs again, and train again)",
        found=str,
        expected=str,
    ),
    "files-of-the-run": code(
        "files whose pixels are in the run's {set} set: {files:,}; predictions for them say nothing about new "
        "radiographs",
        set=str,
        files=int,
    ),
    "folder-without-pictures": code("{folder} holds no file that may be a picture", folder=str),
    "files-named-twice": code("{files:,} of the files were named more than once; each has one row", files=int),
    # of a report
    "file-unreadable": code("{file} could not be read: {reason}", file=str, reason=str),
    "file-too-large": code("{file} is too large for this page and was left out", file=str),
    "result-of-other-weights": code(
        "{folder} is of weights that the run no longer has and was left out; make it again", folder=str
    ),
    # of every model card
    "valid-for-its-data-only": code(
        "a score holds for the hospitals, devices and patients of its data, and must be measured anew elsewhere"
    ),
    "shortcuts-not-excluded": code(
        "a classifier of radiographs may rely on marks, arm position or the source of an image instead of the "
        "lungs, and a high score does not exclude it"
    ),
    # of a catalog
    "names-in-latin": code(
        "labels, views or sources that are not in UTF-8 were read as Latin-1, such as {names}: check them, or save the "
        "table in UTF-8",
        names=list[str],
    ),
    "folders-are-splits": code(
        "the folders {folders} are taken for splits, and the folders in them for classes", folders=list[str]
    ),
    "folders-around-all": code(
        "the folder {folder} holds all others and is taken for no class; the folders in it are", folder=str
    ),
    "folders-without-films": code(
        "there are no pictures in the folders {folders}, which are taken for no class", folders=list[str]
    ),
    "masks-left-out": code("{masks:,} masks, by their names or those of their folders, are left out", masks=int),
    "looks-like-preset": code(
        "the folders look like those of a public set: --preset {preset} reads what it has beside the folders' names, "
        "and calls classes as in other sets",
        preset=str,
    ),
    "own-splits-not-used": code(
        "{patients:,} patients are in the set's folders of training and of testing alike: its own splits are not used "
        "(--holdout makes a held-out set)",
        patients=int,
    ),
    "labels-joined": code(
        "labels that differ only in case, blanks or decimals were taken for one class, such as {labels}",
        labels=list[str],
    ),
    "sources-joined": code(
        "sources that differ only in case, blanks or decimals were taken for one, such as {sources}",
        sources=list[str],
    ),
    "views-not-understood": code(
        "files whose view is none that is known were kept, as those of no view: {views}", views=list[str]
    ),
    "columns-taken": code(
        "columns were found by their usual spellings: {columns}; options such as --label-column name others",
        columns=list[str],
    ),
    "findings-taken": code(
        "--findings all took every column whose cells are all values of findings (--findings with names takes those "
        "alone): {findings}",
        findings=list[str],
    ),
    "findings-lacking": code("the table lacks {findings}: unknown for every film", findings=list[str]),
    "uncertain-cells": code(
        "uncertain cells were read as follows (films in brackets; --uncertain changes it): {cells}", cells=list[str]
    ),
    "blank-cells": code(
        "empty cells were read as follows (films in brackets; --blank changes it): {cells}", cells=list[str]
    ),
    "no-finding-cells": code(
        "empty cells of films with No Finding were read as absent, whatever --blank is; cells: {cells:,}", cells=int
    ),
    "studies-taken": code(
        "rows name folders of studies, whose films each have their study's findings; films: {films:,}", films=int
    ),
    "rows-merged": code("{rows:,} rows name {files:,} files: rows of one file were merged", rows=int, files=int),
    # of the patients of a conversion or an audit
    "one-patient": code(
        "{shared:,} of {films:,} films have a patient identifier that is one for most of them, or 0, and so stands for "
        "nobody: their patients are taken for unknown; give --patient-column or --group-regex",
        shared=int,
        films=int,
    ),
    "demographics-kept": code(
        "sex is kept of {sexes:,} and age, in decades, of {ages:,} of {images:,} images; the rarest combination of "
        "sex, age and source is of {patients:,} patients (groups), and someone may be recognised by it (SECURITY.md)",
        sexes=int,
        ages=int,
        images=int,
        patients=int,
    ),
    "no-demographics": code(
        "--keep-demographics found neither sex nor age of any of {images:,} images: name them by --sex-column and "
        "--age-column, with F, M or O, and years",
        images=int,
    ),
    "labels-translated": code("labels were translated, with the number of files: {labels}", labels=list[str]),
    "labels-left-out": code(
        "files whose label is none of its classes were left out: {files:,}, of {labels}", files=int, labels=list[str]
    ),
    # of a conversion
    "copies-contradict": code(
        "a finding in which copies of a film contradict each other is unknown; films with such copies: {films:,}",
        films=int,
    ),
    "findings-undefined": code(
        "metrics on {split} are undefined for a finding that fewer than {least} groups (patients) there are known to "
        "have, or known not to: {findings}",
        split=str,
        findings=list[str],
        least=int,
    ),
    "masks-of-no-film": code(
        "masks that are given for no file of the source, or for several, were not used: {masks:,}", masks=int
    ),
    "lungs-lost-by-class": code(
        "films without a credible mask of the lungs were left out, and the share differs between classes by more than "
        "chance ({left_out}): what is left out may itself tell the class",
        left_out=dict[str, float],
    ),
    "lungs-lost-by-finding": code(
        "films without a credible mask of the lungs were left out, and the share differs by more than chance between "
        "films with and without {findings}: what is left out may itself tell the finding",
        findings=list[str],
    ),
    "splits-set-aside": code("all of the collection is held out, whatever its own splits are"),
    "healthy-not-positive": code(
        "the positive class is {positive}, since {first} looks like health: to choose another, use --positive",
        positive=str,
        first=str,
    ),
    # of a probe: why it was not run
    "few-patients-of-class": code("{groups} patients (groups), at least {least} needed", groups=int, least=int),
    "few-patients-of-finding": code(
        "patients (groups) with it: {present}, without: {absent}; at least {least} of each are needed",
        present=int,
        absent=int,
        least=int,
    ),
    "few-classes-to-probe": code("fewer than two classes with {least} patients (groups)", least=int),
    "few-sources-to-probe": code("fewer than two sources with {least} patients (groups)", least=int),
    "no-headers": code("no headers: stored frames have none"),
    "no-predicted-views": code("no predicted views"),
    "no-lung-masks": code("no lungs were looked for"),
    "frames-of-lungs-alone": code("the frames show the lungs alone; audit a beton of whole films"),
    "lungs-not-found": code(
        "{probes} leave out {films:,} of {images:,} films, which have no credible mask of their lungs ({percent})",
        probes=list[str],
        films=int,
        images=int,
        percent=dict[str, float],
    ),
    "no-groups-to-probe": code("the beton is unverified: its groups are not known"),
    # of a training: why it is in mixed precision, or not
    "amp-as-set": code("--amp {switch}, as config.json has it", switch=str),
    "amp-always": code("--amp auto: bfloat16 on {device}", device=str),
    "amp-by-weights": code("{precision}, as the model's own weights are stored", precision=str),
    "amp-never": code("--amp auto: float32 on {device}, which has no fast bfloat16", device=str),
    "amp-by-unit": code("--amp auto: bfloat16, for which this processor has {unit}", unit=str),
    "amp-by-race": code(
        "--amp auto: {precision}; this processor has {unit}, and convolves {gain:.2f} times as fast in bfloat16 as in "
        "float32 (worth it from {least:.2f})",
        precision=str,
        unit=str,
        gain=float,
        least=float,
    ),
    # of a training: why torch.compile is used, or not
    "compile-as-set": code("--compile {switch}", switch=str),
    "compile-by-steps": code(
        "--compile auto, {steps:,} steps, repaid from {least:,} with a {cache} cache", steps=int, least=int, cache=str
    ),
    "compile-never": code("--compile auto: never on {device}", device=str),
    "compile-not-yet": code("--compile auto: never on {device} ({issue})", device=str, issue=str),
}
