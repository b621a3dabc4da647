"""An audit: from a folder, a table or a beton to findings, audit.csv and audit.html."""

# N files, S side of a small frame, F features

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from loaders.atomic_file import locked, publish_bytes
from loaders.audit.by_finding import probe_findings
from loaders.audit.collection import Collection, masks_of, probe_collection
from loaders.audit.findings import AuditResult, CollectionFinding, FileFinding, FindingsAudit
from loaders.audit.page import AUDIT_PAGE, AUDIT_TABLE, page_html
from loaders.audit.table import table_bytes
from loaders.audit.verdicts import conclude, judge_files, lateral_odds, probe_files
from loaders.beton.reader import Beton
from loaders.config import HASH_ALGORITHM, AuditConfig, stored_side
from loaders.errors import ConfigError, InputError
from loaders.images.decode import DecodeSettings, Task, decode_all
from loaders.images.files import REFUSALS
from loaders.images.kind import kind_features, kind_of, shipped_weights
from loaders.images.lungs import shipped_segmenter
from loaders.images.quality import SMALL
from loaders.lungs.masks import segmented
from loaders.output import PhaseProgress
from loaders.sources.catalog import Catalog, read_catalog
from loaders.sources.entry import may_be_picture
from loaders.sources.split import known_patients
from loaders.statistics import Progress, no_progress


def audit(config: AuditConfig, progress: PhaseProgress = lambda phase, done, total: None) -> AuditResult:
    """Audit files, and with labels the collection; writes audit.csv (for a folder or a table) and audit.html.

    Errors: InputError when there is nothing to audit; ConfigError; StorageError; LockedError; BetonError.
    """
    started = time.perf_counter()
    source = config.catalog.origin
    if source.is_dir() and config.out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"--out {config.out}: lies inside {source}, expected a folder beside it; choose another")
    listed = None if config.beton else audited_catalog(config)  # before the folder is made: it may fail
    with locked(config.out):
        if listed:
            files, collection = audit_files(config, listed, progress)
        else:
            files, collection = [], audit_beton(source, config.seed, config.permutations, progress)
        result = conclude(str(source), files, config.limits, collection, time.perf_counter() - started)
        one_patient = known_patients([file.patient for file in files])[1]
        result = replace(result, cautions=[*listed.cautions, *one_patient] if listed else [])
        write_audit(config.out, result)
    return result


def audit_files(
    config: AuditConfig, catalog: Catalog, progress: PhaseProgress
) -> tuple[list[FileFinding], CollectionFinding | FindingsAudit | None]:
    """Decode, judge and probe.  Errors: InputError where none can be read."""
    entries = catalog.entries
    settings = DecodeSettings(
        side=stored_side(config.size),
        fit="stretch",
        max_pixels=config.catalog.max_pixels,
        assume_modality=config.catalog.assume_modality,
        workers=config.workers,
        limits=config.limits,
        within=config.catalog.within,
    )
    tasks = [Task(place, entry.path) for place, entry in enumerate(entries)]
    decoded = list(decode_all(catalog.root, tasks, settings, None, partial(progress, "decode")))
    problems = [found.problem for found in decoded]
    if all(problems):
        counts = Counter(REFUSALS[found.code][0] for found in decoded).most_common()
        raise InputError(
            f"{config.catalog.origin}: none of {len(entries)} files could be read "
            f"({'; '.join(f'{number}: {why}' for why, number in counts)}), the first of them {entries[0].path}: "
            f"{problems[0]}; expected radiographs; check the path"
        )
    findings = catalog.classes if catalog.task == "findings" else ()
    files = judge_files(entries, decoded, config.limits, progress, findings)
    return files, probe_files(files, config.seed, config.permutations, progress, findings)


def write_audit(out: Path, result: AuditResult) -> None:
    """Publish the page, and the table if files were audited."""
    if result.files:
        publish_bytes(out / AUDIT_TABLE, table_bytes(result.files), mode=0o600)
    publish_bytes(out / AUDIT_PAGE, page_html(result).encode(), mode=0o600)


def audited_catalog(config: AuditConfig) -> Catalog:
    """The catalog, of the files to audit alone.  Errors: InputError, StorageError, ConfigError."""
    catalog = read_catalog(config.catalog, labelled=config.labelled)
    entries = tuple(entry for entry in catalog.entries if not entry.excluded and may_be_picture(entry.path))
    if not entries:
        raise InputError(f"{config.catalog.origin}: no radiographs found, expected some; check the path")
    return replace(catalog, entries=entries)


def audit_beton(
    path: Path, seed: int, permutations: int, progress: PhaseProgress
) -> CollectionFinding | FindingsAudit | None:
    """Probe the stored frames of one beton: what conversion left; None of one class.  Errors: BetonError."""
    with Beton(path) as beton:
        if beton.facts.task == "classes" and len(beton.facts.classes) < 2:
            return None
        view_N = np.empty(len(beton))

        def see_view(sample: int, frame_SS: np.ndarray) -> None:
            kind_K, _ = kind_of(kind_features(frame_SS), shipped_weights())
            view_N[sample] = lateral_odds(kind_K)

        sources = [beton.facts.sources[source] for source in beton.rows_N["source"]]
        collection = collection_of_betons([beton], sources, partial(progress, "read"), see_view)
        masks_NSS = None
        # of a beton of an earlier release it is not known which films the nets saw: no lungs are looked for
        if beton.facts.lungs == "off" and beton.facts.hash_algorithm == HASH_ALGORITHM:
            segmenter = shipped_segmenter()
            nets_N2 = segmented(beton, segmenter).nets_N2
            assert nets_N2 is not None, "a segmenter's masks have nets"
            found = segmenter.find_all(beton.frame, nets_N2)
            masks_NSS = masks_of(found, len(beton), partial(progress, "lungs"))
    probe = probe_collection if collection.finding_NK is None else probe_findings
    collection = replace(collection, view_N=view_N, masks_NSS=masks_NSS)
    return probe(collection, seed=seed, permutations=permutations, progress=partial(progress, "probe"))


def collection_of_betons(
    betons: Sequence[Beton],
    sources: Sequence[str],
    progress: Progress = no_progress,
    see: Callable[[int, np.ndarray], None] = lambda sample, frame_SS: None,
) -> Collection:
    """The samples of verified betons of the same classes one after the other, as the probes take them.

    sources: of each sample.  Groups are one across the betons of one conversion.  see(sample, frame): is given each
    stored frame, read once.  Errors: BetonError for a sample that is damaged.
    """
    frames_NSS, done = np.empty((len(sources), SMALL, SMALL), np.uint8), 0
    for beton in betons:
        for sample in range(len(beton)):
            beton.check_samples(np.array([sample]))
            frame_SS = beton.frame(sample)
            see(done, frame_SS)
            frames_NSS[done] = cv2.resize(frame_SS, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
            done += 1
            progress(done, len(sources))
        beton.check_unchanged()  # since the last frame was checked
    conversions = [beton.facts.conversion_id for beton in betons]
    group_N2 = np.concatenate(
        [[(conversions.index(beton.facts.conversion_id), group) for group in beton.rows_N["group"]] for beton in betons]
    )
    return Collection(
        frames_NSS=frames_NSS,
        label_N=np.concatenate([beton.label_N for beton in betons]).astype(np.int64),
        classes=betons[0].facts.classes,
        group_N=np.unique(group_N2, axis=0, return_inverse=True)[1].ravel(),
        source_N=tuple(sources),
        finding_NK=np.concatenate([beton.labels for beton in betons]) if betons[0].facts.num_findings else None,
        lungs_alone=betons[0].facts.lungs != "off",
    )
