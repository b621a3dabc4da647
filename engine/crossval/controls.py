"""What the controls of the lungs mean: whether lungs alone show more than their outline, and what remains unknown."""

from collections.abc import Sequence
from typing import Literal

from msgspec import UNSET

from engine.crossval.lungs import LungUse
from engine.crossval.scores import OUTLINES, Crossval, FindingTarget, Target, TargetResult
from engine.statistics.estimates import UNDEFINED
from engine.statistics.names import difference_texts, value_text, with_interval
from loaders.output import counted, share_text

Answer = Literal["more", "none", "unknown"]
LITTLE = 0.05  # of an AUC: a difference that is surely smaller is none
SHOWN_DIGITS = 8  # of a segmenter's identity
LUNGS: dict[Target, tuple[str, str]] = {  # the lungs, and their outline
    "lungs-only": ("The lungs alone, in place,", "their outline alone, without a pixel inside,"),
    "boxed": ("Stretched to one size, with grey levels equalised, the lungs", "their outline at one size"),
}
MEANINGS: dict[Target, dict[Answer, str]] = {
    "lungs-only": {
        "more": "The inside of the lungs adds to their outline{apart}, be it disease, exposure or equipment",
        "none": "Lungs alone are no evidence here: their outline does as well{apart}",
        "unknown": "Whether the inside of the lungs adds to their outline cannot be told{apart}",
    },
    "boxed": {
        "more": "The inside adds to the outline{apart}, and size, place and brightness do not explain it",
        "none": "That is no evidence of what is inside, either: the outline does as well{apart}",
        "unknown": "Whether the inside adds to the outline cannot be told{apart}",
    },
}


def beyond_outline(row: TargetResult | FindingTarget | None) -> Answer:
    """Whether the lungs show more than their outline, by the paired difference of the AUC on the same films.

    row: of lungs-only or boxed.  "more" where the difference's interval, and that of the AUC, lie above guessing;
    "none" where the difference is surely below LITTLE.
    """
    apart = row.beyond_outline.get("auc", UNDEFINED) if row else UNDEFINED
    if row is None or apart.value is None:
        return "unknown"
    if apart.low is not None and apart.low > 0 and (row.auc.estimate.low or 0) > 0.5:
        return "more"
    return "none" if apart.high is not None and apart.high < LITTLE else "unknown"


def outline_tells(result: Crossval, split: Target) -> bool:
    """Whether the outline of the lungs alone predicts the label: the AUC's interval lies above guessing."""
    row = result.target(OUTLINES[split])
    return row is not None and (row.auc.estimate.low or 0) > 0.5


def control_sentences(result: Crossval) -> list[str]:
    """What the controls that were measured mean, in plain English."""
    return [
        hidden_sentence(result),
        *(outline_sentence(result, split) for split in OUTLINES),
        *(mask_sentences(result, result.lungs) if result.lungs is not UNSET and result.lungs.left_out else []),
    ]


def hidden_sentence(result: Crossval) -> str:
    """What is left without the lungs."""
    row = result.target("lungs-hidden")
    if row is None or row.auc.estimate.value is None:
        return ""
    auc, shown = row.auc.estimate, with_interval("auc", row.auc.estimate, result.task)
    what = label_of(result)
    still, meaning = "", f"this neither shows nor excludes that the {what} can be predicted without the lungs"
    if auc.low is not None and auc.low > 0.5:
        still = "still "
        meaning = f"the {what} can be predicted without the lungs, so a score on whole frames need not come from them"
    predicted = [one.name for one in row.findings if (one.auc.estimate.low or 0) > 0.5]
    singly = f" Taken singly, {', '.join(predicted)} can be predicted without them." if predicted else ""
    return (
        f"With the lungs hidden the {mean_of(result).lower()}AUC is {still}{shown}: {meaning}.{singly} The network was "
        f"given the whole frame, more than the crop, {region_text(result)}."
    )


def region_text(result: Crossval) -> str:
    """What was hidden."""
    use = result.lungs
    if use is UNSET or not use.region_masks:
        return "with the region where lungs usually are hidden; of unusual lungs an edge may show"
    return (
        f"with one region hidden in all, {share_text(use.region_share)} of it, which covers "
        f"{share_text(use.region_cover or 0)} of the lungs in {counted(use.region_masks, 'mask')} on average, and "
        f"{share_text(use.least_cover or 0)} of those that it covers least"
    )


def outline_sentence(result: Crossval, split: Target) -> str:
    """Whether lungs alone show more than their outline."""
    alone, outline = result.target(split), result.target(OUTLINES[split])
    if alone is None or alone.auc.estimate.value is None:
        return ""
    lungs, drawn = LUNGS[split]
    reach = f"{lungs} reach {'a mean' if result.task == 'findings' else 'an'} AUC of "
    shown = with_interval("auc", alone.auc.estimate, result.task)
    if outline is None or outline.auc.estimate.value is None:
        return (
            f"{reach}{shown}. That is no evidence without the outline beside it: run `crossval` with "
            f"{OUTLINES[split]} among --splits, too."
        )
    other = with_interval("auc", outline.auc.estimate, result.task)
    apart = alone.beyond_outline.get("auc", UNDEFINED)
    value, ends = difference_texts("auc", apart)
    meaning = MEANINGS[split][beyond_outline(alone)].format(
        apart=f" (difference {value}, 95 % interval {ends})" if apart.low is not None else f" (difference {value})"
    )
    singly = [one.name for one in alone.findings if beyond_outline(one) == "more"]
    named = f" Taken singly, it adds to the outline for {', '.join(singly)}." if singly else ""
    tells = f" The outline alone tells the {label_of(result)} to some degree." if outline_tells(result, split) else ""
    return f"{reach}{shown}, {drawn} {other}. {meaning}.{named}{tells}"


def mask_sentences(result: Crossval, use: LungUse) -> list[str]:
    """Whose masks they are, and what remains unknown."""
    masks = use.num_films - sum(use.lacking.values())
    of = f"{masks:,} of {counted(use.num_films, 'film')}"
    if use.kind == "template":
        return ["One usual region stands for the lungs of every film, so that no outline differs from another."]
    if use.kind != "segmenter":
        drawn = "are the phantoms’ own" if use.kind == "phantom" else "were given"
        return [
            f"The masks {drawn}, for {of}. What remains unknown: whether those who drew them, or what drew them, "
            "treated the classes alike, which the outline would show as if it were anatomy. Repeat with --masks auto."
        ]
    trained = [f"{counted(use.num_trained, 'film')}{of_sources(use.sources)}"] if use.num_trained else []
    trained += [counted(use.num_phantoms, "phantom")] if use.num_phantoms else []
    found = (
        f"The masks were found by the segmenter {use.segmenter[:SHOWN_DIGITS]} ({counted(use.num_nets, 'net')}, "
        f"trained on {' and '.join(trained)}): {of} have a credible one, none by a net that is known to have "
        f"seen the film or its patient ({use.num_seen:,} were seen by other nets; copies of seen films are not known, "
        "and for the shipped segmenter patients are not, either)."
    )
    if use.num_trained:
        unknown = (
            "What remains unknown: whether the segmenter draws the lungs of one class otherwise than those of another, "
            "which the outline would show as if it were anatomy. Repeat with one that learnt from no film of these "
            "classes: `segment-train --out S` without --manifest, and `crossval` with --segmenter S and another --out."
        )
    else:
        unknown = (
            "What remains unknown: it learnt from no film of these classes, but may yet find diseased lungs less well "
            "than healthy ones, which the outline would show as if it were anatomy."
        )
    return [found, unknown]


def of_sources(sources: Sequence[str]) -> str:
    """Where films are from, if known."""
    return f" of {', '.join(sources)}" if sources else ""


def label_of(result: Crossval) -> str:
    """What is predicted."""
    return "label" if result.task == "classes" else "findings"


def mean_of(result: Crossval) -> str:
    """What begins the name of a score that is a mean over findings."""
    return "" if result.task == "classes" else "Mean "


def with_outline(result: Crossval, split: Target) -> str:
    """The AUC of lungs alone and of their outline, for a red flag."""
    alone, outline = result.target(split), result.target(OUTLINES[split])
    assert alone is not None and outline is not None, "beyond_outline compared them"
    at_one_size = ", at one size," if split == "boxed" else ""
    return (
        f"in cross-validation{at_one_size} the outline of the lungs alone, without a pixel inside, reaches AUC "
        f"{value_text('auc', outline.auc.estimate.value)}, the lungs themselves "
        f"{value_text('auc', alone.auc.estimate.value)}"
    )
