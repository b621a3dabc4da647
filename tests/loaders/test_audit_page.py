"""The audit's page: its content is complete, escaped and self-contained."""

import base64
import hashlib
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from loaders.audit.findings import (
    DEFECTS,
    AuditResult,
    CollectionFinding,
    FileFinding,
    FindingProbe,
    FindingsAudit,
    ProbeFinding,
    SourceAccuracy,
    SourcePrevalence,
)
from loaders.audit.page import audit_parts, make_gallery, page_html, picture_of
from loaders.audit.probes import LABEL_PROBES
from loaders.audit.removals import Removal, apart
from loaders.audit.verdicts import conclude
from loaders.cautions import Caution, caution
from loaders.config import AuditLimits
from loaders.html import visible
from loaders.images.decode import Decoded
from loaders.images.lungs import Lungs
from loaders.images.quality import OF_LUNGS, Keypoints, Measurement
from loaders.output import Line, Sheet
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from loaders.sources.entry import Entry
from tests.browser import Browser, check_page

CAUTION = caution("confounded-with-source", classes=["covid"], images=80)
LUNGS = Lungs(mask_SS=np.zeros((92, 92), bool), agreement=1.0, balance=1.0, cut=0.0)
LUNGS.mask_SS[20:70, 20:40] = LUNGS.mask_SS[20:70, 52:72] = True
HOSTILE = (
    "<script>alert(1)</script>.png",
    "line\nbreak.png",
    "bell\x07 and delete\x7f.png",
    "latin \udcff byte.png",
    "\u202egnp.exe",
    "x" * 251 + ".png",
    '"><img src=http://example.com/x.png onerror=alert(2)>.png',
    "' onload='alert(3).png",
    "{{ 7 * 7 }}{% raw %}.png",
    "</style><style>body{display:none}</style>.png",
)


@pytest.fixture(scope="module")
def thumbnails() -> list[bytes]:
    pictures = []
    for patient in range(6):
        label = ("covid", "normal", "pneumonia")[patient % 3]
        arms_up, marked = patient % 2 == 0, patient > 3
        phantom = draw_phantom(
            PlannedPhantom(seed=4, patient=patient, label=label, size=128, arms_up=arms_up, marked=marked)
        )
        pictures.append(cv2.imencode(".jpg", (phantom.image_HW >> 8).astype(np.uint8))[1].tobytes())
    return pictures


def make_file(
    path: str,
    *defects: str,
    label: str = "",
    scores: dict[str, float] | None = None,
    thumbnail: bytes = b"",
    **changes: Any,
) -> FileFinding:
    empty, point = np.empty((0, 0)), Keypoints(place_DX=np.empty((0, 2)), descriptor_DF=np.empty((0, 128)))
    measurement = Measurement(
        scores=scores or {}, box=(0, 1, 0, 1), turns=1, kind_K=empty, evenness=1.0, keypoints=point,
        compared_SS=empty, lungs=LUNGS, thumbnail=thumbnail, small_SS=empty,
    )  # fmt: skip
    decoded = Decoded(width=1, height=1, measurement=None if scores is None else measurement)
    return FileFinding(entry=Entry(path=path, label=label), decoded=decoded, defects=[*defects], **changes)


def renamed(file: FileFinding, **names: str) -> FileFinding:
    return replace(file, entry=replace(file.entry, **names))


def make_probe(name: str, auc: float, /, **changes: Any) -> ProbeFinding:
    alarm = auc > 0.6
    plain = ProbeFinding(
        name=name,
        auc=auc,
        low=auc - 0.04,
        high=min(1.0, auc + 0.03),
        null_high=0.56,
        p=0.001 if alarm else 0.4,
        p_holm=0.008 if alarm else 0.9,
        alarm=alarm,
    )
    return msgspec.structs.replace(plain, **changes)


def make_result(files: Sequence[FileFinding] = (), **changes: Any) -> AuditResult:
    plain = AuditResult(
        source="radiographs", files=[*files], limits={}, removals=[], collection=None, seconds=1.0,
        versions={"numpy": "2.0"},
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def example(thumbnails: list[bytes]) -> AuditResult:
    """A collection of 240 with most defects, hostile names, probes with and without alarm, and a caution."""
    rng = np.random.default_rng(3)
    detectors = ("blurred", "exposure", "text-or-mark", "rotated", "near-duplicate", "lateral")
    limits = {"blurred": 0.5, "exposure": 0.45, "text-or-mark": 0.35, "rotated": 0.6, "near-duplicate": 0.55}
    limits["lateral"] = 0.99
    files = []
    for number in range(240):
        scores = {detector: float(rng.beta(1.2, 5)) for detector in detectors}
        hostile = HOSTILE[number // 8] if number % 8 == 0 and number // 8 < len(HOSTILE) else ""
        scores["rotated"] = 0.9 - number / 1000 if hostile else scores["rotated"]
        defects = tuple(name for name in DEFECTS if name in scores and scores[name] >= limits[name])
        label = ("covid", "normal", "viral pneumonia")[number % 3]
        name = hostile or f"patient-{number:04d}-frontal.png"
        files.append(
            make_file(
                f"{label}/{name}",
                *defects,
                label=label,
                scores=scores,
                group=number // 2,
                fix="rotate 90" if "rotated" in defects else "",
                thumbnail=thumbnails[number % len(thumbnails)],
            )
        )
    broken = make_file(
        "normal/truncated.dcm",
        "unreadable",
        label="normal",
        note="image file is truncated (17 bytes not processed)",
    )
    picture_HW = cv2.imdecode(np.frombuffer(thumbnails[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture_HW is not None
    picture_HW[20:100, 25:105] = 0
    hidden = cv2.imencode(".png", picture_HW)[1].tobytes()
    probes = [
        make_probe("header", 0.61),
        make_probe("outside-crop", 0.97, picture=hidden),
        make_probe("lungs-hidden", 0.83, picture=hidden),
        make_probe("thumbnail", 0.53, picture=hidden),
        make_probe("histogram", 0.47),
    ]
    removals = [
        Removal(label="covid", files=80, removed=31, low=0.288, high=0.497),
        Removal(label="normal", files=81, removed=9, low=0.059, high=0.198),
        Removal(label="viral pneumonia", files=80, removed=17, low=0.137, high=0.314),
    ]
    skipped = {"view": caution("no-predicted-views")}
    collection = CollectionFinding(probes=probes, cautions=[CAUTION], skipped=skipped)
    versions = {"plainfilm": "0.1.0", "numpy": "2.2.1", "opencv": "4.11.0", "python": "3.12.8"}
    return AuditResult(
        source="downloads/chest-collection",
        files=[*files, broken],
        limits=limits,
        removals=removals,
        collection=collection,
        seconds=12.5,
        versions=versions,
    )


NIH = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip


def by_finding(findings: Sequence[str] = NIH, sources: int = 3) -> FindingsAudit:
    """Probes of all findings but the eighth, of which the fourth is told by the margin and by its source."""
    rng, num = np.random.default_rng(5), len(findings)
    present_NK = rng.random((400, num)) < 0.3
    both_KK = present_NK.T.astype(int) @ present_NK
    probes = []
    for place, finding in enumerate(findings):
        for probe in LABEL_PROBES if place != 7 else ():
            alarm = place == 3 and probe.name in ("outside-crop", "lungs-hidden")
            auc = 0.93 if alarm else float(rng.uniform(0.45, 0.58))
            probes.append(
                FindingProbe(
                    finding=finding,
                    probe=probe.name,
                    auc=auc,
                    low=auc - 0.05,
                    high=auc + 0.04,
                    null_high=0.56,
                    p=0.001 if alarm else 0.4,
                    p_adjusted=0.004 if alarm else 0.9,
                    alarm=alarm,
                )
            )
    prevalence = [
        SourcePrevalence(
            source=f"Hospital {place}", images=300 - place, groups=200 - place, known=[150 - place] * num,
            present=[(40 - place) * (found != 3 or not place) for found in range(num)],
        )
        for place in range(sources)
    ]  # fmt: skip
    accuracy = SourceAccuracy(accuracy=0.52, low=0.47, high=0.57, grade="none")
    strong = SourceAccuracy(accuracy=0.93, low=0.9, high=0.96, grade="strong")
    picture = cv2.imencode(".png", np.full((92, 92), 90, np.uint8))[1].tobytes()
    return FindingsAudit(
        findings=list(findings),
        images=400,
        groups=300,
        present=both_KK.tolist(),
        known=[[400] * num] * num,
        phi=[[(0.6, -0.3, 0.05)[(row + place) % 3] for place in range(num)] for row in range(num)],
        sources=prevalence,
        told_by_source=[strong if place == 3 else accuracy for place in range(num)],
        probes=probes,
        pictures={"outside-crop": picture, "lungs-hidden": picture},
        cautions=[caution("findings-confounded-with-source", findings=["Edema"])],
        skipped={"finding Hernia": caution("few-patients-of-finding", present=4, absent=296, least=10)},
    )  # fmt: skip


def test_each_finding_has_a_row_with_its_probes_and_the_alarms_are_marked() -> None:
    page = page_html(make_result(collection=by_finding()))
    text = " ".join(Reader(page).text.split())
    assert "2 of 130 tests raise the alarm, for 1 of 14 findings." in text
    assert text.count("0.93 alarm 0.88 to 0.97 p 0.004") == 2
    rows = re.findall(r'<tr role="row"><th role="rowheader" scope="row"><bdi>(\w+)</bdi><small>', page)
    assert rows == [name for name in NIH if name != "Hernia"]
    assert "finding Hernia patients (groups) with it: 4, without: 296; at least 10 of each are needed" in text
    assert "Pixels outside the crop alone predict Edema (AUC 0.93): something other than the lungs differs" in text
    assert "Caution: finding and source cannot be separated for Edema" in text
    assert len(re.findall("alt=.A typical film as shown to the probe", page)) == 2


def test_a_probe_that_could_not_be_run_of_one_finding_leaves_its_place_in_the_row_empty() -> None:
    found = by_finding()
    left = [one for one in found.probes if (one.finding, one.probe) != ("Edema", "silhouette")]
    page = page_html(make_result(collection=msgspec.structs.replace(found, probes=left)))
    row = page[page.index("<bdi>Edema</bdi><small>") :].split("</tr>")[0]
    names = re.findall('data-name="([^"]*)"', row)
    assert names == [probe.name for probe in LABEL_PROBES]
    assert row.count(">–</td>") == 1 and 'data-name="silhouette">–</td>' in row


@pytest.mark.parametrize("defect", OF_LUNGS)
def test_a_gallery_of_the_lungs_shows_their_outline_and_others_show_the_plain_film(
    thumbnails: list[bytes], defect: str
) -> None:
    file = make_file("a.png", defect, "blurred", scores={defect: 2.0, "blurred": 3.0}, thumbnail=thumbnails[0])
    assert file.decoded.measurement is not None
    box = replace(file.decoded.measurement, box=(100, 500, 50, 500))
    file = replace(file, decoded=replace(file.decoded, width=500, height=500, measurement=box))
    assert picture_of(file, "blurred") == thumbnails[0]
    picture_HWC = cv2.imdecode(np.frombuffer(picture_of(file, defect), np.uint8), cv2.IMREAD_COLOR)
    assert picture_HWC is not None
    coloured_HW = np.ptp(picture_HWC.astype(int), axis=2) > 60
    rows, columns = np.nonzero(coloured_HW)
    side = len(picture_HWC) / 500
    assert rows.min() == pytest.approx((100 + 400 * 20 / 92) * side, abs=3)
    assert columns.max() == pytest.approx((50 + 450 * 72 / 92) * side, abs=3)
    assert not coloured_HW[round(300 * side), round((50 + 450 * 30 / 92) * side)]  # inside a lung
    page = page_html(make_result([file]))
    plain, drawn = (base64.b64encode(one).decode() for one in (thumbnails[0], picture_of(file, defect)))
    assert page.count(plain) == page.count(drawn) == 1
    assert picture_of(make_file("b.png", "unreadable"), defect) == b""


def test_findings_that_come_together_and_their_prevalence_by_source_are_on_the_page() -> None:
    found = by_finding()
    page = page_html(make_result(collection=found))
    text = " ".join(Reader(page).text.split())
    assert f'title="Atelectasis and Edema: both in {found.present[0][3]} of 400 films">60<' in page
    assert page.count('class="with3"') == page.count(">60<") > 0 and page.count('class="without2"') == page.count(
        ">−30<"
    )
    names = {name for one, other, *_ in found.pairs() for name in (one, other)}
    assert names and all(phi == 0.6 for *_, phi in found.pairs()) and len(found.pairs()) == 6
    assert "Edema 26.7 % 20.2 % to 34.3 % of 150 0 % 0 % to 2.5 % of 149 0 %" in text
    assert "0.93 strong 0.90 to 0.96" in text and "smaller source" not in text
    for sources, more in ((7, "1 smaller source."), (9, "3 smaller sources.")):
        many = " ".join(Reader(page_html(make_result(collection=by_finding(sources=sources)))).text.split())
        assert f"Not shown, but counted in the last column: {more}" in many and "Hospital 6" not in many
    alone = " ".join(Reader(page_html(make_result(collection=by_finding(sources=1)))).text.split())
    assert "All films are of one source, or of none that is known" in alone


def test_what_was_left_out_is_counted_by_finding() -> None:
    files = [
        replace(file, entry=replace(file.entry, findings=bytes([place % 2] + [2] * 13)))
        for place, file in enumerate(make_file(str(place), *["blurred"] * (place < 4)) for place in range(10))
    ]
    result = conclude("x", files, AuditLimits(), by_finding(), 1.0)
    assert [(one.label, one.files, one.removed) for one in result.removals] == [("Atelectasis", 5, 2)]
    text = " ".join(Reader(page_html(result)).text.split())
    assert "What was left out of each finding" in text and "Share of the films with each finding" in text


def test_the_terminal_has_a_line_for_each_finding_and_a_sentence_for_each_alarming_probe() -> None:
    parts = audit_parts(make_result(collection=by_finding()))
    (table,) = [part for part in parts if isinstance(part, Sheet)]
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == list(NIH) and rows["Hernia"][2:] == ("", "", "", "", "")
    assert rows["Edema"][2:6] == ("0.93", "0.88 to 0.97", "0.004", "2 of 10") and rows["Edema"][6] == "outside-crop"
    lines = [part.text for part in parts if isinstance(part, Line)]
    assert len([line for line in lines if "alone predict Edema (AUC 0.93)" in line]) == 2
    assert "Not probed: finding Hernia: patients (groups) with it: 4, without: 296" in "".join(lines)


def test_hostile_names_of_findings_and_sources_stay_text() -> None:
    plain = Reader(page_html(make_result(collection=by_finding(("a", "b")))))
    found = by_finding(HOSTILE[:2])
    sources = [msgspec.structs.replace(one, source=HOSTILE[6]) for one in found.sources]
    hostile = Reader(page_html(make_result(collection=msgspec.structs.replace(found, sources=sources))))
    assert hostile.tags == plain.tags
    assert {name for _, name, _ in hostile.attributes} == {name for _, name, _ in plain.attributes}


def test_the_audit_of_findings_reads_back_as_written() -> None:
    found = by_finding()
    assert msgspec.json.decode(msgspec.json.encode(found), type=FindingsAudit) == found
    with pytest.raises(ValueError, match="probe 'brightness', expected one of"):
        msgspec.structs.replace(found.probes[0], probe="brightness")


class Reader(HTMLParser):
    """Elements, addresses and text of a page; text within <style> is left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.text += " "
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open = tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open != "style":
            self.text += data


def test_the_same_findings_give_the_same_bytes_however_long_the_audit_took(example: AuditResult) -> None:
    page = page_html(example)
    turned = dict(reversed(example.versions.items()))
    assert page == page_html(replace(example, seconds=99.0, versions=turned))
    assert page.encode("utf-8")


def test_no_element_can_run_or_fetch_anything(example: AuditResult) -> None:
    reader = Reader(page_html(example))
    for tag in ("script", "iframe", "object", "embed", "form", "base", "audio", "video"):
        assert reader.tags[tag] == 0
    assert reader.tags["style"] == 1
    for tag, name, value in reader.attributes:
        assert not name.startswith("on") and name not in ("style", "srcset", "xlink:href", "action"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value
    assert "url(" not in page_html(example) and "@import" not in page_html(example)


def test_the_policy_allows_data_pictures_and_the_one_style_only(example: AuditResult) -> None:
    page = page_html(example)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)
    assert policy and style and policy.start() < style.start()
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_every_inner_link_has_its_target(example: AuditResult) -> None:
    attributes = Reader(page_html(example)).attributes
    targets = [value for _, name, value in attributes if name == "id"]
    assert len(targets) == len(set(targets))
    links = {value[1:] for tag, name, value in attributes if (tag, name) == ("a", "href")}
    assert links and links <= set(targets)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain ÄΩ名.png", "plain ÄΩ名.png"),
        ("a\nb", r"a\nb"),
        ("\x00\x1b", r"\x00\x1b"),
        ("\x85", r"\u0085"),
        ("\udcff\udc85", r"\xff\x85"),
        ("\ud800", r"\ud800"),
        ("\u202e\u2066\u200f\u061c", r"\u202e\u2066\u200f\u061c"),
        ("\u2028\ufeff\u200b\xad", r"\u2028\ufeff\u200b\u00ad"),
        ("a\\nb", r"a\\nb"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_invisible_characters_are_escaped(name: str, written: str) -> None:
    assert visible(name) == written


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text_wherever_it_stands(name: str, thumbnails: list[bytes]) -> None:
    file = make_file(
        name,
        "rotated",
        label=name,
        scores={"rotated": 1.0},
        fix=name,
        note=name,
        thumbnail=thumbnails[0],
    )
    collection = CollectionFinding(
        probes=[make_probe(f"source-within-{name}", 0.9, picture=b"\x89PNG\r\n\x1a\n")],
        cautions=[named(name)],
        skipped={name: named(name)},
    )
    result = make_result(
        [file, renamed(file, label="b")],
        limits={"rotated": 0.5},
        source=name,
        removals=[Removal(label=name, files=3, removed=1, low=0.06, high=0.8)],
        collection=collection,
        versions={name: name},
    )
    page = page_html(result)
    page.encode("utf-8")
    plain = page_html(make_named(result, "plain"))
    assert Reader(page).tags == Reader(plain).tags
    assert Reader(page).text.count(visible(name)) >= 6
    assert not set(re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page))


def named(name: str) -> Caution:
    """A caution with a name in it."""
    return caution("confounded-with-source", classes=[name], images=1)


def make_named(result: AuditResult, name: str) -> AuditResult:
    """The same result with tame names."""
    files = [
        replace(renamed(file, path=name, label=file.label if file.label == "b" else name), fix=name, note=name)
        for file in result.files
    ]
    assert result.collection
    (probe,) = result.collection.probes
    probes = [msgspec.structs.replace(probe, name=f"source-within-{name}")]
    return replace(
        result,
        source=name,
        files=files,
        removals=[replace(removal, label=name) for removal in result.removals],
        collection=CollectionFinding(probes=probes, cautions=[named(name)], skipped={name: named(name)}),
        versions={name: name},
    )


def test_cautions_come_before_everything_else_in_bold(example: AuditResult) -> None:
    page = page_html(example)
    assert example.collection
    assert 0 < page.index(f"<strong>Caution: {CAUTION.text}.</strong>") < page.index('id="verdicts"')
    order = [f'id="{name}"' for name in ("verdicts", "defects", "removals", "collection", "galleries", "versions")]
    places = [page.index(mark) for mark in order] + [page.index("Research software: not for diagnosis")]
    assert places == sorted(places)


def test_numbers_of_the_page_are_those_of_the_audit(example: AuditResult) -> None:
    text = Reader(page_html(example)).text
    for verdict, files in example.counts().items():
        assert re.search(rf"{verdict}\s*{files}\b", text)
    for defect, by_label in example.by_defect().items():
        row = " ".join(re.split(rf" {defect}\s", text)[1].split()[:50])
        share = f"{100 * sum(by_label.values()) / len(example.files):.1f}"
        assert f" {sum(by_label.values())} {share} %" in row, defect
    for wanted in ("0.97", "0.93 to 1.00", "0.56", "0.008", "3 of 5 probes raise the alarm"):
        assert wanted in text
    assert "no predicted views" in text


def test_without_labels_there_are_no_class_columns_removals_or_probes(example: AuditResult) -> None:
    files = [renamed(file, label="") for file in example.files]
    text = Reader(page_html(replace(example, files=files, removals=[], collection=None))).text
    assert "covid" not in text.replace("covid/", "")
    assert "Left out" not in text and "Wilson" not in text and "AUC" not in text
    assert "needs labels of at least two classes" in text


def test_no_section_is_empty() -> None:
    page = page_html(make_result())
    assert "No file was found here" in page
    assert "<section" not in page and "<table" not in page and "NaN" not in page
    nothing = CollectionFinding(probes=[], cautions=[], skipped={})
    page = page_html(make_result((make_file("a.png"),), collection=nothing, versions={}))
    assert re.findall(r'<section aria-labelledby="(\w+)"', page) == ["verdicts"]
    assert "<aside" not in page and "Made with" not in page


def test_the_page_warns_when_cleaning_may_bias() -> None:
    many = Removal(label="covid", files=200, removed=60, low=0.24, high=0.37)
    few = Removal(label="normal", files=200, removed=10, low=0.03, high=0.09)
    between = Removal(label="other", files=50, removed=8, low=0.08, high=0.29)
    assert apart([between, few, many]) == (many, few)
    assert apart([between, many]) is None and apart([many]) is None
    files = (make_file("a.png", label="covid"), make_file("b.png", label="normal"))
    assert "Cleaning may itself have biased" in page_html(make_result(files, removals=[many, few]))
    page = page_html(make_result(files, removals=[many, between]))
    assert "Cleaning may" not in page and "All intervals overlap" in page


def test_the_largest_classes_and_the_two_farthest_apart_are_listed_with_what_they_lost() -> None:
    many = [Removal(label=f"class {place}", files=100 + place, removed=8, low=0.03, high=0.16) for place in range(10)]
    tie = Removal(label="as large", files=109, removed=8, low=0.03, high=0.16)
    rare = Removal(label="rare", files=20, removed=15, low=0.53, high=0.89)
    text = " ".join(Reader(page_html(make_result(removals=[*many, tie, rare]))).text.split())
    rows = re.findall(r"(class \d|as large|rare) (\d+) (?:8|15) \d", text)
    largest = [("as large", "109"), *((f"class {place}", f"{100 + place}") for place in range(9, 2, -1))]
    assert rows == [*largest, ("class 0", "100"), ("rare", "20")]
    assert "The intervals of rare (75.0 % left out) and class 0 (8.0 %) do not overlap" in text
    assert "2 further classes are not listed." in text


def test_a_gallery_has_the_worst_and_the_nearest_on_both_sides() -> None:
    files = tuple(
        make_file(f"{number:03d}.png", *["blurred"] * (number >= 60), scores={"blurred": number / 100})
        for number in range(100)
    )
    gallery = make_gallery("blurred", files[::-1], 0.6)
    assert gallery is not None and gallery.num_files == 40
    assert [file.path for file in gallery.worst] == [f"{number:03d}.png" for number in range(99, 87, -1)]
    assert [file.path for file in gallery.above] == [f"{number:03d}.png" for number in range(60, 66)]
    assert [file.path for file in gallery.below] == [f"{number:03d}.png" for number in range(59, 53, -1)]


def test_a_score_at_the_limit_stands_on_the_side_where_the_audit_counts_it() -> None:
    for defects, side in ((("blurred",), "worst"), ((), "below")):
        gallery = make_gallery("blurred", [make_file("a.png", *defects, scores={"blurred": 0.5})], 0.5)
        assert gallery is not None and len(getattr(gallery, side)) == 1


def test_a_gallery_fills_up_from_one_side_and_shows_no_file_twice() -> None:
    files = tuple(
        make_file(f"{number:03d}.png", *["lateral"] * (number > 22), scores={"lateral": number / 10})
        for number in range(26)
    )
    gallery = make_gallery("lateral", files, 2.3)
    assert gallery is not None
    assert len(gallery.worst) == 3 and not gallery.above and len(gallery.below) == 12


def test_a_defect_that_no_file_has_shows_what_came_near_it() -> None:
    scores = [0.0] * 20 + [0.3, 0.4]
    files = [make_file(f"{number}.png", scores={"borders": score}) for number, score in enumerate(scores)]
    gallery = make_gallery("borders", files, 0.5)
    assert gallery is not None and [file.scores["borders"] for file in gallery.below] == [0.4, 0.3]
    assert make_gallery("borders", files[:20], 0.5) is None
    assert "Checked for and not found" in page_html(make_result(files, limits={"borders": 0.5}))


def test_a_file_without_score_or_thumbnail_is_listed_with_its_reason() -> None:
    broken = make_file("broken.dcm", "unreadable", note="the file ends early")
    copy = make_file("copy.png", "exact-duplicate", scores={"blurred": 0.1})
    page = page_html(make_result([broken, copy], limits={"blurred": 0.5}))
    assert "the file ends early" in page and "no picture" in page
    assert "nan" not in Reader(page).text.lower()


def test_values_that_were_not_measured_are_dashes() -> None:
    probe = make_probe("view", 0.5, auc=None, low=None, high=None, null_high=None, p=None, p_holm=None)
    files = (make_file("a", label="a"), make_file("b", label="b"))
    collection = CollectionFinding(probes=[probe], cautions=[], skipped={})
    page = page_html(make_result(files, collection=collection))
    assert "nan" not in Reader(page).text.lower() and '="nan' not in page and "–" in page


def test_ten_thousand_files_with_big_thumbnails_and_many_classes_stay_small() -> None:
    rng = np.random.default_rng(0)
    noise_HWC = rng.integers(0, 256, (160, 160, 3)).astype(np.uint8)
    thumbnail = cv2.imencode(".jpg", noise_HWC, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    assert 20_000 < len(thumbnail) <= 28_000
    files = []
    for number, score_D in enumerate(rng.random((10_000, len(DEFECTS)))):
        scores = dict(zip(DEFECTS, score_D.tolist(), strict=True))
        files.append(
            make_file(
                f"{number:05d}-" + "x" * 240,
                *(name for name in DEFECTS if scores[name] >= 0.5),
                label=f"class {number % 3000}",
                scores=scores,
                thumbnail=thumbnail,
            )
        )
    page = page_html(make_result(files, limits=dict.fromkeys(DEFECTS, 0.5)))
    assert page.count("<img ") == 24 * len(DEFECTS)
    assert len(page.encode()) < 15_000_000
    assert "2,992 further classes" in page
    too_big = make_file("a", "lateral", scores={}, thumbnail=bytes(100_000))
    assert "no picture" in page_html(make_result([too_big]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme: str) -> None:
    style = page_html(make_result()).split("<style>")[1]
    colours = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme == "dark"]
    level = {name: luminance(colour) for name, colour in re.findall(r"--([\w-]+): (#\w{6})", colours)}
    grounds = ("paper", "card", "caution")
    pairs = [(ink, ground) for ink in ("ink", "muted", "accent", "keep", "fix", "quarantine") for ground in grounds]
    for ink, ground in [*pairs, ("film-ink", "film")]:
        light, dark = sorted((level[ink], level[ground]), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pictures_are_described_and_tables_have_headers(example: AuditResult) -> None:
    reader = Reader(page_html(example))
    described = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt")]
    assert len(described) == reader.tags["img"] > 50 and all(described)
    assert reader.tags["thead"] == reader.tags["table"] == 4
    scopes = [value for tag, name, value in reader.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == reader.tags["th"]
    svg = [name for tag, name, _ in reader.attributes if tag == "svg" and name in ("aria-label", "aria-hidden")]
    assert len(svg) == reader.tags["svg"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(example: AuditResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "audit.html"
    page.write_text(page_html(example), encoding="utf-8", newline="")
    return page


@pytest.mark.extras
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_without_complaint_or_request(
    browser: Browser, written: Path, width: int, dark: bool
) -> None:
    check_page(browser, written, width=width, dark=dark, boxes="figure, figcaption *, .wide")
    if folder := os.environ.get("PLAINFILM_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"audit-{width}-{'dark' if dark else 'light'}.png")


@pytest.mark.extras
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_of_fourteen_findings_fits_its_window(browser: Browser, tmp_path: Path, width: int) -> None:
    page = tmp_path / "audit.html"
    page.write_text(page_html(make_result(collection=by_finding())), encoding="utf-8")
    check_page(browser, page, width=width, dark=False, boxes="figure, figcaption *, .wide:has(.grid)")
    if folder := os.environ.get("PLAINFILM_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"audit-of-findings-{width}.png")


@pytest.mark.extras
def test_the_policy_blocks_what_would_get_past_the_escaping(browser: Browser, written: Path, tmp_path: Path) -> None:
    attack = (
        "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
        "<img src='http://127.0.0.1:9/x.png'><style>h1 { color: rgb(1, 2, 3) }</style><p style='color:red'>"
    )
    page = written.read_text(encoding="utf-8").replace("<h1>", attack + "<h1>", 1)
    open_page = re.sub("<meta http-equiv.*>", "", page)
    assert open_page != page
    for text, blocked in ((page, True), (open_page, False)):  # the second shows that the attack is one
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0 if blocked else 30)
            attacked = tmp_path / f"{blocked}.html"
            attacked.write_text(text.replace(":9/", f":{server.getsockname()[1]}/"), encoding="utf-8")
            browser.open(attacked, wait=blocked)
            with pytest.raises(BlockingIOError) if blocked else nullcontext():
                server.accept()[0].close()
        assert (browser.evaluate("document.title") == "taken") is not blocked
        colour = browser.evaluate("getComputedStyle(document.querySelector('h1')).color")
        assert (colour == "rgb(1, 2, 3)") is not blocked
        if blocked:
            assert sum("Content Security Policy" in complaint for complaint in browser.complaints()) >= 4


@pytest.mark.extras
def test_hostile_names_are_shown_as_text(browser: Browser, written: Path) -> None:
    browser.open(written, width=390)
    shown = browser.evaluate("[...document.querySelectorAll('figcaption code')].map(code => code.textContent)")
    assert any(r"line\nbreak.png" in path for path in shown)
    assert any(path.endswith("/<script>alert(1)</script>.png") for path in shown)
    assert any(path.endswith(r"/\u202egnp.exe") for path in shown)
    assert browser.evaluate("document.querySelectorAll('script').length") == 0
