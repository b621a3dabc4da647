"""A conversion: from a catalog of radiographs to train, val and held-out betons."""

# N samples to write, S side of a stored frame

import contextlib
import hashlib
import itertools
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL

from loaders.atomic_file import SUFFIX, locked, publish_bytes, storage_error
from loaders.audit.audit import write_audit
from loaders.audit.page import AUDIT_PAGE, AUDIT_TABLE
from loaders.beton.format import BELOW_STORED_SIDE, PATIENT_KNOWN, ROW, Facts, demographic_flags
from loaders.beton.writer import beton_size, check_room, write_beton
from loaders.config import HASH_ALGORITHM, ConvertConfig, __version__, stored_side
from loaders.convert.contact_sheet import augmentation_sheet, preparation_sheet, sheet_bytes
from loaders.convert.conversion import (
    Conversion,
    Row,
    apply_decisions,
    audit_rows,
    given_decisions,
    resolve_duplicates,
    summarise,
    table_bytes,
)
from loaders.convert.findings import finding_values, join_copies
from loaders.convert.lungs import LungMasks, keep_lungs, lungs_kept, open_masks
from loaders.convert.target import like_target
from loaders.errors import ConfigError, InputError
from loaders.images.decode import DecodeSettings, Task, decode_all, temporary_spool
from loaders.output import PhaseProgress
from loaders.sampling import FILE_ORDER, order_keys
from loaders.sources.catalog import Catalog, read_catalog
from loaders.sources.entry import SPLITS, other_view
from loaders.sources.folders import SYNTHETIC
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id, site_key_path
from loaders.sources.split import group_by, known_patients, split_findings, split_groups

TEST_SET = "for a test set alone, name the run to test on it with --like RUN"
MOST_NAMES = int(np.iinfo(ROW["source"]).max)  # of sources and of views, beside "" for unknown ones


def convert(config: ConvertConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Conversion:
    """Decode every radiograph once, split by groups, and publish betons, convert.csv and two pictures.

    With config.like all of it becomes heldout.beton, and there is no picture of augmentations.
    Errors: InputError when nothing can be trained from the source; StorageError; LockedError; ConfigError; of
    config.like BetonError and CheckpointError, too.
    Source: DESIGN, Data flow.
    """
    source = config.catalog.source
    if source is not None and config.out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"--out {config.out}: lies inside {source}, expected a folder beside it; choose another")
    if site_key_path(config.site_key).resolve().is_relative_to(config.out.resolve()):
        raise ConfigError(
            f"--site-key {config.site_key}: lies inside {config.out}, which may be shared, expected a private folder; "
            "choose another"
        )
    if config.like is not None:
        config = like_target(config, config.like)
    catalog = read_catalog(config.catalog, partial=config.like is not None)
    check_task(config, catalog)
    masks = None if config.lungs == "off" else open_masks(config, catalog)
    num_files = sum(not entry.excluded for entry in catalog.entries)
    side = stored_side(config.size)
    if config.dry_run:
        if masks is None:
            return plan(config, catalog, None, progress)
        # a key that is made later would be of none of a segmenter's patients
        key = load_site_key(config.site_key) if site_key_path(config.site_key).exists() else b""
        with tempfile.TemporaryDirectory(prefix="plainfilm-") as folder:
            check_room(Path(folder), num_files * side**2)
            with spool_file(Path(folder), num_files * side**2) as spool:
                return plan(config, catalog, spool, progress, masks, key)
    of_one = beton_size(-(-num_files // 3), side, config.page_mib << 20, num_findings(catalog))
    check_room(config.out, num_files * side**2 + 3 * of_one)
    key = load_site_key(config.site_key)
    with locked(config.out), spool_file(config.out, num_files * side**2) as spool:
        conversion = plan(config, catalog, spool, progress, masks, key)
        write(config, conversion, spool, key, progress)
    return conversion


def check_task(config: ConvertConfig, catalog: Catalog) -> None:
    """Errors: InputError for a single class, or too many sources; ConfigError for settings that do not fit."""
    if len(catalog.classes) < 2 and catalog.task == "classes":
        empty = "".join(f" ({one.finding})" for one in catalog.cautions if one.code == "folders-without-films")
        raise InputError(
            f"{config.catalog.origin}: one class, {catalog.classes[0]}{empty}; expected at least two; "
            f"add files of another class, or, {TEST_SET}"
        )
    included = [entry for entry in catalog.entries if not entry.excluded]
    check_number("source", {entry.source for entry in included}, config)
    check_number("view", {entry.view for entry in included}, config)
    if config.positive is not None and config.positive not in catalog.classes:
        raise ConfigError(f"--positive: found {config.positive}, expected one of {', '.join(catalog.classes)}")
    for name, usual in (("masks", "auto"), ("segmenter", "shipped")) if config.lungs == "off" else ():
        if (found := getattr(config, name)) != usual:
            raise ConfigError(
                f"found --{name} {found} with --lungs off, expected --lungs masked, boxed or boxed-equal with it; name "
                "one, or leave it out"
            )


def num_findings(catalog: Catalog) -> int:
    """Findings of each film; 0 of the task classes."""
    return len(catalog.classes) if catalog.task == "findings" else 0


def check_number(what: str, names: set[str], config: ConvertConfig) -> None:
    """Errors: InputError for more names than a beton's rows can refer to."""
    if len(names - {""}) > MOST_NAMES:
        raise InputError(
            f"{config.catalog.origin}: {len(names - {''}):,} {what}s, expected at most {MOST_NAMES:,}; "
            f"the column {what} is for kinds of files, not for each file's own name"
        )


@contextlib.contextmanager
def spool_file(out: Path, size: int) -> Iterator[Path]:
    """A spool in out, for the holder of out's lock.  Deletes first what a killed conversion left there."""
    names = ("spool*", "audit.*", *(f"{split}.beton" for split in SPLITS))
    left = [path for name in names for path in out.glob(name + SUFFIX)]
    with temporary_spool(out / f"spool-{secrets.token_hex(8)}{SUFFIX}", size, left) as spool:
        yield spool


def plan(
    config: ConvertConfig,
    catalog: Catalog,
    spool: Path | None,
    progress: PhaseProgress,
    masks: LungMasks | None = None,
    key: bytes = b"",
) -> Conversion:
    """Decode everything, find duplicates, keep the lungs where masks are asked for, and split; writes only the spool.

    key: of the site, for masks.
    """
    included = [entry for entry in catalog.entries if not entry.excluded]
    decisions = given_decisions(config.audit, catalog.root, included)
    tasks = [
        Task(place, entry.path, decisions[entry.path].fix if entry.path in decisions else "")
        for place, entry in enumerate(included)
    ]
    settings = DecodeSettings(
        side=stored_side(config.size),
        fit=config.fit,
        max_pixels=config.catalog.max_pixels,
        assume_modality=config.catalog.assume_modality,
        workers=config.workers,
        limits=config.limits if config.audit == "auto" else None,
        within=config.catalog.within,
    )
    decoding = contextlib.closing(decode_all(catalog.root, tasks, settings, spool, partial(progress, "decode")))
    rows, places = [], itertools.count()
    with decoding as decoded:
        for entry in catalog.entries:
            if entry.excluded:
                rows.append(Row(entry=entry, verdict="excluded", kind=entry.kind, reason=entry.excluded))
                continue
            row = Row(entry=entry, decoded=next(decoded), place=next(places))
            row.reason = row.decoded.problem or row.decoded.note
            row.kind, row.verdict = row.decoded.code, "rejected" if row.decoded.problem else "written"
            if row.verdict == "written" and (reason := other_view(row.view, config.catalog.views)):
                row.drop("other-view", reason, "excluded")
            rows.append(row)
    included_rows = [row for row in rows if row.verdict != "excluded"]
    given = [row.entry.patient_or(row.decoded.patient) for row in included_rows]
    patients, one_patient = known_patients(given)
    for row, patient in zip(included_rows, patients, strict=True):
        row.patient = patient
    usable = [row for row in rows if row.verdict == "written"]
    if usable:
        known = [row.patient.casefold() or None for row in usable]
        pixels = [row.decoded.pixel_hash for row in usable]
        tied = [decisions[row.entry.path].group if row.entry.path in decisions else None for row in usable]
        for row, group in zip(usable, group_by(known, pixels, tied), strict=True):
            row.group = int(group)
    audited, kept_of = None, {path: decision.copy_of for path, decision in decisions.items() if decision.copy_of}
    if config.audit == "auto":
        audited = audit_rows(config, included_rows, progress, catalog.classes if catalog.task == "findings" else ())
        kept_of = {file.path: file.copy_of for file in audited.files if file.copy_of}
    else:
        apply_decisions(usable, decisions, config.audit)
        resolve_duplicates([row for row in usable if row.verdict == "written"])
    written, lungs = [row for row in usable if row.verdict == "written"], None
    if masks and spool:
        keep_lungs(config, masks, usable, spool, key, progress)
        lungs = lungs_kept(masks, catalog, written)
        written = [row for row in written if row.verdict == "written"]
    check_number("view", {row.view for row in written}, config)  # those of DICOM files, too
    notes = one_patient
    if catalog.task == "findings":
        check_usable(config, written, rows)
        films = [row for row in usable if row.verdict in ("written", "duplicate")]
        pixels = [row.decoded.pixel_hash for row in films]
        joined, contradictions = join_copies([row.entry for row in films], pixels, kept_of)
        for row, entry in zip(films, joined, strict=True):
            row.entry = entry
        notes += contradictions
    else:
        check_classes(config, catalog, written, rows)
    for row, split in zip(written, choose_splits(config, catalog, written), strict=True):
        row.split = split
    return summarise(config, catalog, rows, audited, lungs, notes)


def check_usable(config: ConvertConfig, written: list[Row], rows: list[Row]) -> None:
    """Errors: InputError when no radiograph is usable."""
    if not written:
        files = sum(row.verdict != "excluded" for row in rows)
        first = next((row for row in rows if row.verdict == "rejected"), None)
        why = f"; the first, {first.entry.path}: {first.reason}" if first else ""
        raise InputError(f"{config.catalog.origin}: none of {files} files is usable{why}; expected some; add some")


def check_classes(config: ConvertConfig, catalog: Catalog, written: list[Row], rows: list[Row]) -> None:
    """Errors: InputError when a class has no usable radiograph; of a test set alone, when none has any."""
    left = Counter(row.entry.label for row in written)
    files_of = Counter(row.entry.label for row in rows if row.verdict != "excluded")
    for name in catalog.classes:
        if not left[name] and (config.like is None or (files_of[name] and not written)):
            first = next((row for row in rows if row.entry.label == name and row.verdict == "rejected"), None)
            why = f"; the first, {first.entry.path}: {first.reason}" if first else ""
            files = files_of[name]
            expected = "one in each split" if config.like is None else "at least one"
            raise InputError(f"class {name}: none of {files} files is usable{why}; expected {expected}; add some")


def choose_splits(config: ConvertConfig, catalog: Catalog, written: list[Row]) -> list[str]:
    """The split of each row: its own where it has one, else drawn by groups; all of a test set is held out.

    Where a table or folders name the held-out share alone, or no share for validation, the rest is drawn.
    Errors: InputError.
    """
    splits = [row.entry.split for row in written]
    if config.like is not None:
        return ["heldout"] * len(written)
    if set(splits) == {"heldout"}:
        raise InputError(
            f"{config.catalog.origin}: all is heldout, expected train and val as well; {TEST_SET}, or correct the "
            "column"
        )
    check_groups(config, written)
    rest, shares = "", {"train": 1 - config.val, "val": config.val}
    if set(splits) == {"train", "heldout"}:
        rest = "train"
    elif not any(splits):
        shares = {name: share * (1 - config.holdout) for name, share in shares.items()} | {"heldout": config.holdout}
    elif "" in splits and set(splits) != {"", "heldout"}:
        lacking = next(row.entry.path for row in written if not row.entry.split)
        raise InputError(
            f"{config.catalog.origin}: {lacking} has no split, unlike others, "
            "expected one in each row or in none; fill it in"
        )
    if places := [place for place, split in enumerate(splits) if split == rest]:
        group_N = np.array([written[place].group for place in places])
        if catalog.task == "findings":
            drawn = split_findings(
                group_N, finding_values(written[place].entry for place in places), shares, config.seed
            )
        else:
            label_N = np.array([catalog.classes.index(written[place].entry.label) for place in places])
            drawn = split_groups(group_N, label_N, shares, config.seed, catalog.classes)
        for place, split in zip(places, drawn, strict=True):
            splits[place] = split
    if absent := sorted({"train", "val"} - set(splits)):
        raise InputError(
            f"{config.catalog.origin}: no file is of split {absent[0]}, expected train and val; name both, or leave "
            "all splits out, and they are dealt"
        )
    for split in sorted(set(splits)) if catalog.task == "classes" else ():
        labels = {row.entry.label for row, chosen in zip(written, splits, strict=True) if chosen == split}
        if missing := [name for name in catalog.classes if name not in labels]:
            raise InputError(
                f"split {split}: no image of class {', '.join(missing)}, expected every class; add more patients"
            )
    return splits


def check_groups(config: ConvertConfig, written: list[Row]) -> None:
    """Errors: InputError where the source's own splits part a group."""
    first_of: dict[int, Row] = {}
    for row in written:
        first = first_of.setdefault(row.group, row)
        if first.entry.split != row.entry.split:
            raise InputError(
                f"{config.catalog.origin}: {first.entry.path} is in {first.entry.split or 'the rest'}, "
                f"{row.entry.path} in {row.entry.split or 'the rest'}, but they are of one patient (or the same film), "
                "expected one split for both; correct the column, or move a file"
            )


def write(config: ConvertConfig, conversion: Conversion, spool: Path, key: bytes, progress: PhaseProgress) -> None:
    """Publish the betons, one after the other, then the table and the pictures."""
    catalog, side = conversion.catalog, stored_side(config.size)
    written = [row for row in conversion.rows if row.verdict == "written"]
    frames_NSS = np.memmap(spool, np.uint8, "r").reshape(-1, side, side)
    fingerprint = hashlib.blake2b(digest_size=16)
    for row in written:
        label = row.entry.label.encode("utf-8", "surrogateescape") + b"\0" + row.entry.findings
        fingerprint.update(row.decoded.pixel_hash + label)
    facts = Facts(
        classes=catalog.classes,
        positive=conversion.positive,
        stored=side,
        crop=config.size,
        fit=config.fit,
        split="",
        seed=config.seed,
        conversion_id="",
        site_key_id=site_key_id(key),
        source_fingerprint=fingerprint.hexdigest(),
        views=("", *sorted({row.view for row in written} - {""})),
        sources=("", *sorted({row.entry.source for row in written} - {""})),
        synthetic=all(row.entry.source == SYNTHETIC for row in written),
        versions={
            "plainfilm": __version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "pillow": PIL.__version__,
        },
        demographics=config.keep_demographics,
        task=catalog.task,
        uncertain=catalog.uncertain,
        blank=catalog.blank,
        lungs=conversion.lungs.mode if conversion.lungs else "off",
        segmenter=conversion.lungs.segmenter if conversion.lungs else "",
        hash_algorithm=HASH_ALGORITHM,
    )
    # in random order, so that a page is a random choice of samples and reading by pages is no worse than at random
    shuffled = [written[place] for place in np.argsort(order_keys(config.seed, FILE_ORDER, 0, len(written)))]
    rows_of = {split: [row for row in shuffled if row.split == split] for split in conversion.samples}
    for rows in rows_of.values():
        for sample, row in enumerate(rows):
            row.sample = sample
    footer_of = {split: footer_rows(rows, key, facts) for split, rows in rows_of.items()}
    # from all that the betons will hold, so that betons of two conversions never pass for one
    identity = hashlib.blake2b(
        repr(facts).encode("utf-8", "surrogateescape"), digest_size=16, person=b"demographics" * facts.demographics
    )
    for split, rows_N in footer_of.items():
        identity.update(split.encode() + rows_N.tobytes())
    if conversion.lungs:
        identity.update(f"{facts.lungs} {facts.segmenter}".encode() + b"".join(row.mask_hash for row in shuffled))
    done = itertools.count(1)

    def frames(rows: list[Row]) -> Iterator[np.ndarray]:
        for row in rows:
            yield frames_NSS[row.place]
            progress("write", next(done), len(written))

    for split, rows in rows_of.items():
        if catalog.task == "findings":
            labels = finding_values(row.entry for row in rows)
        else:
            labels = np.array([catalog.classes.index(row.entry.label) for row in rows])
        split_facts = replace(facts, split=split, conversion_id=identity.hexdigest())
        path, page_size = config.out / f"{split}.beton", config.page_mib << 20
        write_beton(path, frames(rows), labels, footer_of[split], split_facts, page_size)
    for split in set(SPLITS) - set(rows_of):
        (config.out / f"{split}.beton").unlink(missing_ok=True)  # of an earlier conversion
    publish_bytes(
        config.out / "convert.csv", table_bytes(conversion.rows, catalog.classes[: num_findings(catalog)]), mode=0o600
    )
    if conversion.audited:
        write_audit(config.out, conversion.audited)
    elif config.audit == "off" or Path(config.audit).resolve() != (config.out / AUDIT_TABLE).resolve():
        remove_audit(config.out)  # of an earlier conversion
    prepared = preparation_sheet(config, conversion.rows, catalog, frames_NSS)
    publish_bytes(config.out / "preparation.png", sheet_bytes(prepared))
    if "train" in rows_of:
        publish_bytes(config.out / "augmentation.png", sheet_bytes(augmentation_sheet(config.out / "train.beton")))
    else:
        (config.out / "augmentation.png").unlink(missing_ok=True)  # of an earlier conversion


def remove_audit(out: Path) -> None:
    """Delete the audit of another run, lest it be taken for this one's.  Errors: StorageError."""
    for name in (AUDIT_TABLE, AUDIT_PAGE):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(out / name, error) from error


def footer_rows(rows: list[Row], key: bytes, facts: Facts) -> np.ndarray:
    """The footer's row of each sample, without its CRC."""
    rows_N = np.zeros(len(rows), ROW)
    view_of, source_of = ({name: place for place, name in enumerate(names)} for names in (facts.views, facts.sources))
    for index, row in enumerate(rows):
        flags = demographic_flags(row.sex, row.age) if facts.demographics else 0
        rows_N["pixel_hash"][index] = np.frombuffer(row.decoded.pixel_hash, np.uint8)
        if row.patient:
            rows_N["patient_hash"][index] = patient_hash(key, row.patient)
            flags |= PATIENT_KNOWN
        if row.decoded.short_side < facts.stored:
            flags |= BELOW_STORED_SIDE
        rows_N["group"][index] = row.group
        rows_N["view"][index] = view_of[row.view]
        rows_N["source"][index] = source_of[row.entry.source]
        rows_N["flags"][index] = flags
    return rows_N
