"""Output of an audit: the page, one self-contained HTML file, and the lines and tables for the terminal."""

import base64
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from loaders.audit.findings import (
    DEFECTS,
    FIXED,
    HARMLESS,
    PROBES,
    AuditResult,
    CollectionFinding,
    FileFinding,
    FindingsAudit,
    ProbeFinding,
)
from loaders.audit.removals import Removal, apart
from loaders.cautions import Caution, each_once
from loaders.html import CHART_WIDTH, page_environment
from loaders.images.quality import OF_LUNGS
from loaders.output import Line, Parts, Sheet, caution_lines, number_text, p_text, path_line, seconds_text

AUDIT_TABLE, AUDIT_PAGE = "audit.csv", "audit.html"
NUM_WORST = 12  # thumbnails of a gallery
NUM_BORDERLINE = 12
NUM_UNFOUND = 6  # thumbnails for a defect that no file has
NUM_CLASSES = 8  # columns of the page's table by class, where rarer ones are added up, and rows of the removals
MOST_COLUMNS = 6  # classes with a column in the terminal's table
OUTLINE = (60, 200, 255)  # blue, green, red of the lungs' outline
THUMBNAIL_BYTES = 28_000  # 15 galleries of 24 such stay below 15 MB; ordinary ones have a quarter
VERDICT_MEANINGS = {
    "keep": "used unchanged",
    "fix": "used after a repair that conversion makes and records",
    "quarantine": "left out; nothing is deleted",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Files by which to judge one detector; none is shown twice.  num_files: files that have the defect.

    limit: NaN for a defect that has no score.  above, below: nearest to the limit among those beyond it, and among the
    others.
    """

    defect: str
    num_files: int
    limit: float
    worst: list[FileFinding]
    above: list[FileFinding]
    below: list[FileFinding]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One class, or several rare ones, of the table by defect."""

    name: str
    labels: tuple[str, ...]
    num_files: int


def page_html(result: AuditResult) -> str:
    """Render an audit as one HTML page without scripts, remote parts or a date; it encodes as UTF-8.

    Invisible characters of file names (controls, bytes that are no UTF-8, direction marks) are escaped as in Python.
    The duration is left out, so that two audits of the same files give the same page.
    """
    environment = page_environment(Path(__file__).parent)
    environment.filters.update(jpeg=jpeg_uri, picture=picture_of)
    found = result.by_defect()
    made = [make_gallery(defect, result.files, result.limits.get(defect, math.nan)) for defect in DEFECTS]
    galleries = [gallery for gallery in made if gallery]
    removals = shown_removals(result.removals)
    by_finding = result.collection if isinstance(result.collection, FindingsAudit) else None
    probes, skipped = [], dict[str, Caution]()
    if result.collection and not isinstance(result.collection, FindingsAudit):
        probes, skipped = result.collection.probes, result.collection.skipped
    return environment.get_template("page.html.jinja").render(
        result=result,
        counts=result.counts(),
        num_groups=len({file.group for file in result.files}),
        columns=class_columns(result.files),
        found=found,
        unfound=[defect for defect in DEFECTS if defect not in found and any(defect in f.scores for f in result.files)],
        galleries=galleries,
        linked={gallery.defect for gallery in galleries},
        removals=removals,
        apart=apart(result.removals),
        removal_top=removal_top(removals),
        probes=probes,
        auc_low=auc_low(probes),
        skipped=sorted(skipped.items()),
        by_finding=by_finding,
        probe_texts=PROBES,
        versions=sorted(result.versions.items()),
        meanings=DEFECTS,
        fixed=FIXED,
        harmless=HARMLESS,
        verdict_meanings=VERDICT_MEANINGS,
        chart_width=CHART_WIDTH,
    )


def class_columns(files: Sequence[FileFinding]) -> list[Column]:
    """A column for each class, commonest first, rare ones added up; none when there is one class or no label."""
    sizes = Counter(file.label for file in files)
    labels = sorted(sizes, key=lambda label: (-sizes[label], label))
    if len(labels) < 2:
        return []
    common, rare = labels[:NUM_CLASSES], labels[NUM_CLASSES:]
    columns = [Column(name=label or "no label", labels=(label,), num_files=sizes[label]) for label in common]
    if rare:
        name = f"{len(rare):,} further classes"
        columns.append(Column(name=name, labels=tuple(rare), num_files=sum(sizes[label] for label in rare)))
    return columns


def make_gallery(defect: str, files: Sequence[FileFinding], limit: float = math.nan) -> Gallery | None:
    """The worst files, then those nearest to the limit on either side; None when there is nothing to show.

    limit: NaN for a defect that has no score.  Files that tie for the lowest score are left out if there are more than
    fit.
    """

    def score(file: FileFinding) -> float:
        return file.scores.get(defect, -math.inf)

    having = [file for file in files if defect in file.defects]
    worst = sorted(having, key=lambda file: (-score(file), file.path))[:NUM_WORST]
    chosen = {id(file) for file in worst}
    rest = [file for file in files if id(file) not in chosen and math.isfinite(score(file) - limit)]
    rest.sort(key=lambda file: (abs(score(file) - limit), file.path))
    above = [file for file in rest if score(file) > limit or defect in file.defects]
    below = [file for file in rest if not (score(file) > limit or defect in file.defects)]
    room = NUM_BORDERLINE if having else NUM_UNFOUND
    lowest = min(map(score, below), default=0.0)
    if sum(score(file) == lowest for file in below) > room:
        below = [file for file in below if score(file) > lowest]
    num_above = min(len(above), max(room // 2, room - len(below)))
    above, below = above[:num_above], below[: room - num_above]
    if not (worst or above or below):
        return None
    return Gallery(defect=defect, num_files=len(having), limit=limit, worst=worst, above=above, below=below)


def shown_removals(removals: Sequence[Removal]) -> list[Removal]:
    """Those of the largest classes, largest first, and the two that `apart` names."""
    ordered = sorted(removals, key=lambda removal: (-removal.files, removal.label))
    return [one for place, one in enumerate(ordered) if place < NUM_CLASSES or one in (apart(removals) or ())]


def removal_top(removals: Sequence[Removal]) -> float:
    """Right end of the removals' axis: a multiple of 5 %."""
    highest = max((removal.high for removal in removals), default=0.0)
    return min(1.0, max(0.05, math.ceil(highest * 20) / 20))


def auc_low(probes: Sequence[ProbeFinding]) -> float:
    """Left end of the probes' axis: 0.4, or a tenth lower when an interval reaches below."""
    values = [value for probe in probes for value in (probe.auc, probe.low) if value is not None]
    return max(0.0, min(0.4, math.floor(min(values, default=0.4) * 10) / 10))


def picture_of(file: FileFinding, defect: str) -> bytes:
    """The thumbnail for the gallery of a defect, with the lungs' outline in those of the lungs; b"" for none."""
    found = file.decoded.measurement
    if found is None or defect not in OF_LUNGS or not found.thumbnail:
        return found.thumbnail if found else b""
    picture_HWC = cv2.imdecode(np.frombuffer(found.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    assert picture_HWC is not None, "measure made it"
    scale = max(picture_HWC.shape[:2]) / max(file.decoded.width, file.decoded.height)
    top, bottom, left, right = (round(place * scale) for place in found.box)
    mask_SS = found.lungs.mask_SS.astype(np.uint8)
    inside_HW = cv2.resize(mask_SS, (max(1, right - left), max(1, bottom - top)), interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(inside_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(picture_HWC, outlines, -1, OUTLINE, 1)
    return cv2.imencode(".jpg", picture_HWC, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def jpeg_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI; "" for none, or one that is too large for the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if 0 < len(jpeg) <= THUMBNAIL_BYTES else ""


def audit_parts(result: AuditResult) -> Parts:
    """The findings in the files; of the collection cautions, probes, sentences of alarms, and what was not probed."""
    parts = file_parts(result) if result.files else []
    parts += caution_lines(result.all_cautions)
    found = result.collection
    if found is None:
        return parts
    parts += finding_probe_parts(found) if isinstance(found, FindingsAudit) else class_probe_parts(found)
    for reason in each_once(found.skipped.values()):
        names = [name for name, why in found.skipped.items() if why == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        parts.append(Line(f"Not probed: {names[0]}{more}: {reason.finding}"))
    return parts


def class_probe_parts(found: CollectionFinding) -> Parts:
    """The probes of the class, and what the alarms mean."""
    rows = tuple(
        (
            probe.name,
            number_text(probe.auc, 2),
            f"{number_text(probe.low, 2)} to {number_text(probe.high, 2)}",
            p_text(probe.p_holm),
            "alarm" if probe.alarm else "",
        )
        for probe in found.probes
    )
    table = Sheet(headers=("probe", "AUC", "95 % interval", "p (Holm)", ""), rows=rows)
    return [table, *(Line(probe.sentence, "yellow") for probe in found.probes if probe.alarm)]


def finding_probe_parts(found: FindingsAudit) -> Parts:
    """Each finding with the probe that speaks most for a shortcut, and what the alarms mean, a line a probe."""
    rows = []
    for place, name in enumerate(found.findings):
        probes = [probe for probe in found.probes if probe.finding == name]
        counts = f"{found.known[place][place]:,}", f"{found.present[place][place]:,}"
        if not probes:
            rows.append((name, *counts, "", "", "", "", ""))
            continue
        most = min(probes, key=lambda probe: (probe.p_adjusted, -probe.auc))
        interval = f"{number_text(most.low, 2)} to {number_text(most.high, 2)}"
        alarms = sum(probe.alarm for probe in probes)
        numbers = number_text(most.auc, 2), interval, p_text(most.p_adjusted)
        rows.append((name, *counts, *numbers, f"{alarms} of {len(probes)}", most.probe))
    headers = ("finding", "known", "present", "AUC", "95 % interval", "p (all probes)", "alarms", "most telling probe")
    table = Sheet(headers=headers, rows=tuple(rows), ends_in_text=True)
    return [table, *(Line(sentence, "yellow") for sentence in found.alarms().values())]


def written_files(result: AuditResult, out: Path) -> Parts:
    """The paths of what was written; a beton has no table of files."""
    return [path_line(out / name) for name in (*([AUDIT_TABLE] if result.files else []), AUDIT_PAGE)]


def file_parts(result: AuditResult) -> list[Line | Sheet]:
    """Verdicts, and defects by class, with a column for each of the commonest classes."""
    counts = result.counts()
    of_label = Counter(file.label for file in result.files)
    labels = [label for label, _ in of_label.most_common(MOST_COLUMNS)]
    more = len(of_label) > len(labels)
    headers = [label or "files" for label in labels] + (["others"] if more else [])
    rows = []
    for defect, by_label in result.by_defect().items():
        counts_of = [by_label.get(label, 0) for label in labels]
        others = [sum(by_label.values()) - sum(counts_of)] if more else []
        rows.append((defect, *map(str, counts_of + others), DEFECTS[defect]))
    parts: list[Line | Sheet] = [
        Line(
            f"{len(result.files)} files: {counts['keep']} keep + {counts['fix']} fix + "
            f"{counts['quarantine']} quarantine; {seconds_text(result.seconds)}"
        )
    ]
    if rows:
        parts.append(Sheet(headers=("defect", *headers, "meaning"), rows=tuple(rows), ends_in_text=True))
    return [*parts, Line("Text burned into pixels is not read: check the pictures for names before you share them.")]
