"""Where the model looks, as a run's page shows it: the sentence, the controls, the overlays by kind."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from engine.explanation.lungs import answer_words, controls_failed, left_out
from engine.report.material import (
    Explained,
    count_in,
    dict_in,
    dicts_in,
    find,
    measured_in,
    number_in,
    text_in,
    texts_in,
)
from engine.report.numbers import counted, interval_text, plain_text, share_text

CAPTIONED = (518, 300)  # pixels of what `overlay` draws; its caption, below 256, would repeat the page's in tiny type
KINDS = {
    "right": "Most confident, and right",
    "wrong": "Most confident, and wrong",
    "borderline": "Undecided",
}
MASKS = {
    "phantom": "the phantoms’ own masks",
    "folder": "masks from a folder",
    "template": "the lungs’ usual region, the same for every image",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownExplanation:
    """One explanation as the page shows it."""

    name: str
    sentence: str
    method: str
    believed: bool
    terms: list[tuple[str, str]]
    kinds: list[tuple[str, list[dict[str, str]]]]
    gallery: str
    deletion: str
    warnings: list[str]
    left_out: str


def show_explanation(explained: Explained, classes: list[str]) -> ShownExplanation:
    """An explanation: its sentence, its controls, its pictures by kind.  classes: the run's, in order."""
    content = explained.content
    layer = text_in(content, "layer")
    kinds: dict[str, list[dict[str, str]]] = {}
    left_out = 0
    for sample in dicts_in(content, "samples"):
        uri = explained.overlays.get(text_in(sample, "overlay"), "")
        left_out += not uri
        if uri:
            kinds.setdefault(text_in(sample, "kind"), []).append(
                {
                    "uri": uri,
                    "captioned": "yes" if png_size(uri) == CAPTIONED else "",
                    "number": "" if (place := count_in(sample, "sample")) is None else str(place),
                    "label": name_in(classes, sample, "label"),
                    "predicted": name_in(classes, sample, "predicted"),
                    "probability": share_text(found) if (found := number_in(sample, "probability")) is not None else "",
                    "lungs": plain_text(found, 2) if (found := number_in(sample, "lung_ratio")) is not None else "",
                }
            )
    ordered = sorted(
        kinds.items(), key=lambda item: (item[0] not in KINDS, list(KINDS).index(item[0]) if item[0] in KINDS else 0)
    )
    return ShownExplanation(
        name=explained.name,
        sentence=f"{sentence.rstrip('.')}." if (sentence := answer_words(content)) else "",
        method=f"{text_in(content, 'method') or 'The map'}{f' at layer {layer}' if layer else ''}",
        believed=not controls_failed(content),
        terms=control_terms(content),
        kinds=[(KINDS.get(kind, kind or "Others"), samples) for kind, samples in ordered],
        gallery=explained.gallery,
        deletion=explained.deletion,
        warnings=texts_in(content, "warnings"),
        left_out=f"{counted(left_out, 'overlay')} not shown here: not found, or the page would be too large."
        if left_out and not explained.gallery
        else "",
    )


def png_size(uri: str) -> tuple[int, int]:
    """Columns and rows of a PNG in a data URI, from its first chunk."""
    head = base64.b64decode(uri.partition(",")[2][:32])
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def name_in(classes: list[str], sample: dict[str, Any], key: str) -> str:
    """A class by name, wherever the sample gives its name or its number."""
    place = count_in(sample, key)
    if place is not None:
        return classes[place] if place < len(classes) else f"class {place}"
    return text_in(sample, key) or "unknown"


def control_terms(content: dict[str, Any]) -> list[tuple[str, str]]:
    """The lungs' share, and the controls that tell whether the explanation may be believed."""
    terms = []
    ratio = measured_in(dict_in(content, "lung_ratio"))
    if ratio.value is not None:
        masks = MASKS.get(text_in(content, "lung_ratio", "masks"), "masks")
        between = interval_text(ratio, share=False, digits=2)
        between = f" (95 % interval {between})" if between else ""
        number = count_in(content, "lung_ratio", "n")
        of = f", over {counted(number, 'image')}" if number is not None else ""
        of += f"; {left_out(empty)}" if (empty := count_in(content, "lung_ratio", "empty")) else ""
        limit = number_in(content, "lung_ratio", "limit")
        above = f", and a model that looks there comes above {plain_text(limit, 2)}" if limit is not None else ""
        terms.append(
            (
                "Lung share",
                f"{plain_text(ratio.value, 2)}{between}: the lungs’ part of the map over their part of the area; 1 is "
                f"what a map without preference has{above}. By {masks}{of}.",
            )
        )
    for name, title, what in (
        ("randomised", "Other weights", "the map must change when the weights are replaced by random ones"),
        ("deletion", "Deletion", "hiding what the map marks must lower the probability sooner than hiding at random"),
    ):
        passed = find(content, name, "passed")
        if isinstance(passed, bool):
            said = "passed" if passed else "failed: this explanation must not be relied on"
            numbers = {
                "randomised": (("correlation", "correlation"),),
                "deletion": (("auc_cam", "area by the map"), ("auc_random", "at random")),
            }[name]
            shown = ", ".join(
                f"{words} {plain_text(value, 3 if name == 'deletion' else 2)}"
                for key, words in numbers
                if (value := number_in(content, name, key)) is not None
            )
            shown += f"; {left_out(empty)}" if shown and (empty := count_in(content, name, "empty")) else ""
            terms.append((title, f"{said}{f' ({shown})' if shown else ''}; {what}."))
    return terms
