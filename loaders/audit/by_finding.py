"""The audit of a collection by finding: what predicts each finding without showing it, and how common it is by source.

A finding over the films whose value is known is a target of two classes, and each probe takes it as `collection` takes
classes.  Films of unknown value neither train nor are scored.
"""

# N samples, K findings, T samples whose value is known, G groups, R labellings, P tests

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from loaders.audit.collection import (
    ALPHA,
    MIN_GROUPS,
    Collection,
    input_of,
    pictures_of,
    shown_to,
    without_lungs,
)
from loaders.audit.findings import FindingProbe, FindingsAudit, SourceAccuracy, SourcePrevalence
from loaders.audit.probes import LABEL_PROBES, Probe
from loaders.cautions import Caution, caution
from loaders.sources.confounding import Confounding, finding_cautions, measure_confounding
from loaders.statistics import (
    Progress,
    bootstrap_aucs,
    deal_groups,
    fit_folds,
    hand_on,
    labelling_aucs,
    no_progress,
    percentile_interval,
    permutation_p,
    shuffle_groups,
    shuffle_some,
    single_step,
)

SIDES = ("absent", "present")


def probe_findings(
    collection: Collection,
    *,
    seed: int = 0,
    permutations: int = 1999,
    resamples: int = 2000,
    progress: Progress = no_progress,
) -> FindingsAudit:
    """Find whether each probe predicts each finding, which findings come together, and how common each is by source.

    A pure function of the collection and the seed.  progress(done, total) is called after each probe of a finding.
    """
    assert collection.finding_NK is not None
    skipped: dict[str, Caution] = {}
    features = {}
    for probe in LABEL_PROBES:
        shown_N = shown_to(probe, collection)
        if isinstance(given := input_of(collection, probe), Caution):
            skipped[probe.name] = given
        elif shown_N.any():
            features[probe] = spread_out(probe.features(given[shown_N]), shown_N)
    _, group_N = np.unique(collection.group_N, return_inverse=True)
    places = probed_findings(collection, group_N, skipped)
    tests = run_tests(features, collection.finding_NK, places, group_N, seed, permutations, resamples, progress)
    pictures = pictures_of(collection)
    accuracies = source_accuracies(collection)
    return FindingsAudit(
        findings=list(collection.classes),
        images=len(group_N),
        groups=int(group_N.max()) + 1,
        **co_occurrence(collection.finding_NK),
        sources=prevalence_by_source(collection, group_N),
        told_by_source=[
            SourceAccuracy.of(accuracies[name]) if name in accuracies else None for name in collection.classes
        ],
        probes=describe_tests(tests, collection.classes),
        pictures={probe.name: pictures[probe.name] for probe in features if probe.name in pictures},
        cautions=finding_cautions(collection.classes, collection.finding_NK, collection.source_N, group_N),
        skipped=skipped | without_lungs(collection, collection.finding_NK == 1),
    )


def spread_out(features_TF: np.ndarray, shown_N: np.ndarray) -> np.ndarray:
    """Features of all films, N×F, NaN for those that do not take part."""
    features_NF = np.full((len(shown_N), *features_TF.shape[1:]), np.nan)
    features_NF[shown_N] = features_TF
    return features_NF


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """One probe of one finding.  place: the finding's.  auc_R: of each labelling, the real one first."""

    place: int
    probe: Probe
    auc_R: np.ndarray
    interval: tuple[float, float]


def run_tests(
    features: dict[Probe, np.ndarray],
    finding_NK: np.ndarray,
    places: list[int],
    group_N: np.ndarray,
    seed: int,
    permutations: int,
    resamples: int,
    progress: Progress = no_progress,
) -> list[Test]:
    """Each probe of each finding, in the order of the findings, all under the same permutations of groups.

    AUC and interval are those of two classes, over the known films.  In a permutation all findings of a group go to
    another group together, which keeps what findings have to do with one another.  What is unknown stays with the film:
    a source that does not tell a finding is no reason for an alarm.  A group that would get an unknown value gets that
    of its giver's own giver, and so on, so that each finding is permuted among the groups that know it.
    features: float64 N×F of each probe; a film with NaN takes no part in it, as one whose findings are unknown.
    places: of the findings to probe.  group_N: counted from 0.
    """
    giver_RG = shuffle_groups(int(group_N.max()) + 1, permutations, seed)
    tests, total = list[Test](), len(places) * len(features)
    for probes, value_NK, same in alike(features, finding_NK, places, group_N):
        known_N = np.isfinite(value_NK[:, same[0]])
        known_G, group_T = np.unique(group_N[known_N], return_inverse=True)
        given_RG = shuffle_some(giver_RG, np.isin(np.arange(giver_RG.shape[1]), known_G))
        fold_T = deal_groups(group_T, seed)
        models = {probe: fit_folds(features[probe][known_N], fold_T, probe.standardise) for probe in probes}
        for place in same:
            present_T = value_NK[known_N, place].astype(np.int64)
            present_RT = hand_on(present_T, group_T, given_RG)
            for probe, model in models.items():
                auc_R = labelling_aucs(model, present_RT, 2)
                interval = percentile_interval(bootstrap_aucs(model, present_T, group_T, 2, resamples, seed))
                tests.append(Test(place=place, probe=probe, auc_R=auc_R, interval=interval))
                progress(len(tests), total)
    order = list(features)
    return sorted(tests, key=lambda test: (test.place, order.index(test.probe)))


def probed_findings(collection: Collection, group_N: np.ndarray, skipped: dict[str, Caution]) -> list[int]:
    """The findings that are present in enough groups, and absent in enough; fills skipped with the others and why."""
    assert collection.finding_NK is not None
    probed = []
    for place, name in enumerate(collection.classes):
        absent, present = groups_of_sides(collection.finding_NK[:, place], group_N)
        if min(absent, present) < MIN_GROUPS:
            skipped[f"finding {name}"] = caution(
                "few-patients-of-finding", present=present, absent=absent, least=MIN_GROUPS
            )
        else:
            probed.append(place)
    return probed


def groups_of_sides(value_N: np.ndarray, group_N: np.ndarray) -> tuple[int, int]:
    """How many groups have a finding absent, and how many present, in a film at least."""
    return len(np.unique(group_N[value_N == 0])), len(np.unique(group_N[value_N == 1]))


def alike(
    features: dict[Probe, np.ndarray], finding_NK: np.ndarray, places: list[int], group_N: np.ndarray
) -> Iterator[tuple[list[Probe], np.ndarray, list[int]]]:
    """Probes in which the same films take part, the findings' values in these films, and findings known alike.

    Where films are left out, so are findings of which too few groups remain.
    """
    taking = defaultdict[bytes, list[Probe]](list)
    for probe, features_NF in features.items():
        taking[np.isfinite(features_NF).all(1).tobytes()].append(probe)
    for shown, probes in taking.items():
        shown_N = np.frombuffer(shown, bool)
        value_NK = np.where(shown_N[:, None], finding_NK, np.nan)
        kept = places
        if not shown_N.all():
            kept = [place for place in places if min(groups_of_sides(value_NK[:, place], group_N)) >= MIN_GROUPS]
        for same in known_alike(value_NK, kept):
            yield probes, value_NK, same


def known_alike(finding_NK: np.ndarray, places: list[int]) -> list[list[int]]:
    """The places of findings, those together that are known of the same films."""
    alike = defaultdict[bytes, list[int]](list)
    for place in places:
        alike[np.isfinite(finding_NK[:, place]).tobytes()].append(place)
    return list(alike.values())


def describe_tests(tests: list[Test], findings: tuple[str, ...]) -> list[FindingProbe]:
    """What each test says, its p corrected for all of them."""
    adjusted = single_step(np.column_stack([test.auc_R for test in tests])) if tests else []
    return [
        FindingProbe(
            finding=findings[test.place],
            probe=test.probe.name,
            auc=float(test.auc_R[0]),
            low=test.interval[0],
            high=test.interval[1],
            null_high=float(np.nanquantile(test.auc_R[1:], 0.95)),
            p=permutation_p(test.auc_R),
            p_adjusted=p_adjusted,
            alarm=p_adjusted <= ALPHA,
        )
        for test, p_adjusted in zip(tests, adjusted, strict=True)
    ]


def co_occurrence(finding_NK: np.ndarray) -> dict[str, Any]:
    """How often findings are present together: counts of films, K×K; and phi, the correlation of two findings.

    present: films with both.  known: films of which both are known.  phi: over those; None where one does not vary.
    """
    present_NK, known_NK = (finding_NK == 1).astype(np.float64), np.isfinite(finding_NK).astype(np.float64)
    both_KK, known_KK = present_NK.T @ present_NK, known_NK.T @ known_NK
    one_KK = present_NK.T @ known_NK  # the first is present, and the second is known
    spread_KK = np.sqrt(one_KK * (known_KK - one_KK))
    with np.errstate(invalid="ignore", divide="ignore"):
        phi_KK = (known_KK * both_KK - one_KK * one_KK.T) / (spread_KK * spread_KK.T)
    return {
        "present": both_KK.astype(int).tolist(),
        "known": known_KK.astype(int).tolist(),
        "phi": [[float(phi) if np.isfinite(phi) else None for phi in row] for row in phi_KK],
    }


def prevalence_by_source(collection: Collection, group_N: np.ndarray) -> list[SourcePrevalence]:
    """How many groups of each source have each finding, the largest source first."""
    assert collection.finding_NK is not None
    source_N = np.asarray(collection.source_N, object).astype(str)
    found = []
    for source in sorted(set(collection.source_N)):
        own = source_N == source
        values = [(group_N[own], collection.finding_NK[own, place]) for place in range(len(collection.classes))]
        found.append(
            SourcePrevalence(
                source=source,
                images=int(own.sum()),
                groups=len(np.unique(group_N[own])),
                known=[len(np.unique(own_group[np.isfinite(value)])) for own_group, value in values],
                present=[len(np.unique(own_group[value == 1])) for own_group, value in values],
            )
        )
    return sorted(found, key=lambda one: -one.groups)


def source_accuracies(collection: Collection) -> dict[str, Confounding]:
    """Finding → how well the source alone tells whether it is present; none for a finding that does not vary."""
    assert collection.finding_NK is not None
    found = dict[str, Confounding]()
    for name, value_N in zip(collection.classes, collection.finding_NK.T, strict=True):
        known = np.flatnonzero(np.isfinite(value_N))
        sides = [SIDES[int(value)] for value in value_N[known]]
        sources = [collection.source_N[row] for row in known]
        for one in measure_confounding(sides, sources, collection.group_N[known]):
            if one.label == "present":
                found[name] = one
    return found
