"""Shortcut probes: their statistics against oracles, their null, and traps laid in phantoms."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.finding_probes import STUDIES, draw_pool, measure, missed_by
from loaders.audit.audit import audit_beton, collection_of_betons
from loaders.audit.by_finding import describe_tests, probe_findings, run_tests
from loaders.audit.collection import Collection, probe_collection, probe_sources
from loaders.audit.findings import CollectionFinding, FindingsAudit
from loaders.audit.probes import (
    LUNG_PROBES,
    SHOWN,
    Probe,
    crop_mask,
    header_features,
    hide,
    lung_sizes,
    pixel_features,
)
from loaders.beton.format import ROW, Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import caution
from loaders.config import LungMode, PhantomConfig
from loaders.images.frame import stored_frame, template_SS
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.phantom import draw_phantom, plan_phantoms
from loaders.sources.split import group_by
from loaders.statistics import (
    auc_rows,
    bootstrap_aucs,
    deal_groups,
    fit_folds,
    hand_on,
    holm,
    labelling_aucs,
    out_of_fold_scores,
    percentile_interval,
    permutation_p,
    permute_groups,
    rank,
    shuffle_groups,
    shuffle_some,
    single_step,
)
from tests.findings_example import NAMES, write_findings

SIDE = 92
PATIENTS = 64
OF_LUNGS = {probe.name for probe in LUNG_PROBES}


def draw_collection(arms: float, strength: float) -> tuple[Collection, np.ndarray]:
    """Phantoms as frames of the audit, and their lung masks; arms and marks at random except the confounder."""
    config = PhantomConfig(out=Path("unused"), patients=PATIENTS, size=SIDE, strength=strength, arms=arms, seed=7)
    plan = plan_phantoms(config)
    films = [draw_phantom(planned) for planned in plan]
    collection = Collection(
        frames_NSS=np.array([stored_frame(film.image_HW, SIDE, "stretch")[0] for film in films]),
        label_N=np.array([config.classes.index(film.label) for film in plan]),
        classes=config.classes,
        group_N=np.array([film.patient for film in plan]),
        source_N=("synthetic",) * len(plan),
    )
    return collection, np.array([film.lung_mask_HW > 0 for film in films])


@pytest.fixture(scope="module")
def tied() -> CollectionFinding:
    """Arms follow the class always; there is no finding."""
    return probe_collection(draw_collection(1.0, 0.0)[0], permutations=999, resamples=200)


@pytest.fixture(scope="module")
def untied() -> tuple[Collection, np.ndarray]:
    """Nothing predicts the class, not even a finding."""
    return draw_collection(0.0, 0.0)


def random_groups(rng: np.random.Generator, num_groups: int, largest: int) -> np.ndarray:
    return np.repeat(np.arange(num_groups), rng.integers(1, largest + 1, num_groups))


@pytest.mark.parametrize("levels", [2, 3, 10, 10**9])
def test_auc_is_the_one_of_scikit_learn_with_ties_and_weights(levels: int) -> None:
    rng = np.random.default_rng(levels)
    score_RN = rng.integers(0, levels, (20, 57)).astype(float)
    positive_RN, weight_RN = rng.random((20, 57)) < 0.3, rng.integers(0, 4, (20, 57)).astype(np.uint16)
    ranking = rank(score_RN, positive_RN, np.arange(57))
    pairs = list(zip(positive_RN, score_RN, weight_RN, strict=True))
    wanted_R = [roc_auc_score(positive_N, score_N) for positive_N, score_N, _ in pairs]
    np.testing.assert_allclose(auc_rows(score_RN, positive_RN), wanted_R, rtol=1e-12)
    for wanted, area_R in zip((roc_auc_score, average_precision_score), ranking.areas(weight_RN), strict=True):
        wanted_R = [wanted(positive_N, score_N, sample_weight=weight_N) for positive_N, score_N, weight_N in pairs]
        np.testing.assert_allclose(area_R, wanted_R, rtol=1e-12)


def test_an_auc_without_both_classes_is_undefined() -> None:
    score_RN = np.tile([0.0, 1.0, 2.0], (4, 1))
    positive_RN = np.array([[False, False, True], [True, False, False], [True, True, True], [False, False, False]])
    np.testing.assert_array_equal(auc_rows(score_RN, positive_RN), [1.0, 0.0, np.nan, np.nan])


def test_folds_never_share_a_group_and_are_of_like_size() -> None:
    rng = np.random.default_rng(0)
    group_N = rng.permutation(random_groups(rng, 103, 6))
    fold_N = deal_groups(group_N, seed=1)
    assert all(len(np.unique(fold_N[group_N == group])) == 1 for group in range(103))
    counts = np.bincount(fold_N)
    assert len(counts) == 5 and counts.max() - counts.min() <= 12
    assert (deal_groups(group_N, seed=1) == fold_N).all() and (deal_groups(group_N, seed=2) != fold_N).any()


def test_a_score_comes_from_other_folds_only() -> None:
    rng = np.random.default_rng(0)
    features_NF, label_N = rng.standard_normal((50, 4)), (rng.random(50) < 0.5).astype(float)
    fold_N = deal_groups(np.arange(50), seed=0)
    models = fit_folds(features_NF, fold_N)
    changed_N = np.where(fold_N == 2, 1 - label_N, label_N)
    score_RN = out_of_fold_scores(models, np.stack([label_N, changed_N]))
    own = fold_N == 2
    ratio_N = score_RN[1, own] / score_RN[0, own]
    assert np.allclose(ratio_N, ratio_N[0], rtol=1e-6) and ratio_N[0] > 0  # rows differ in scale alone
    for model in models:
        assert not set(model.train_M) & set(model.test_T) and len(model.train_M) + len(model.test_T) == 50


def test_permutations_exchange_labels_between_whole_groups_of_any_size() -> None:
    rng = np.random.default_rng(3)
    size_G = np.concatenate([np.full(40, 1), np.arange(2, 18)])
    group_N = np.repeat(np.arange(len(size_G)), size_G)
    label_G = rng.integers(0, 3, len(size_G))
    label_RN = permute_groups(label_G[group_N], group_N, 50, seed=0)
    assert (label_RN[0] == label_G[group_N]).all() and (label_RN[1:] != label_RN[0]).any(1).all()
    first_G = np.cumsum(size_G) - size_G
    for row in label_RN:
        assert (row == row[first_G][group_N]).all()  # one label a group, as before
        assert sorted(row[first_G]) == sorted(label_G)  # and each label for as many groups
    assert (label_RN[1:, group_N >= 40] != label_RN[0, group_N >= 40]).any(1).all()


def test_a_mixed_group_hands_its_labels_on_in_order_and_stretched() -> None:
    group_N = np.array([0, 0, 1, 1, 1, 1])
    label_RN = permute_groups(np.array([0, 1, 2, 2, 2, 2]), group_N, 20, seed=0)
    assert {tuple(row) for row in label_RN} == {(0, 1, 2, 2, 2, 2), (2, 2, 0, 0, 1, 1)}


def test_a_mark_is_found_where_the_number_of_images_follows_the_class() -> None:
    """Follow-ups of patients beside single films of the healthy: within one size there would be nothing to permute."""
    rng = np.random.default_rng(0)
    group_N = np.concatenate([np.arange(40), np.repeat(np.arange(40, 80), 2)])
    label_N = (group_N >= 40).astype(np.int64)
    frames_NSS = rng.integers(90, 110, (len(group_N), 92, 92), np.uint8)
    frames_NSS[label_N == 1, 4:9, 4:9] = 255
    found = probe_collection(
        Collection(
            frames_NSS=frames_NSS, label_N=label_N, classes=("a", "b"), group_N=group_N, source_N=("",) * len(group_N)
        ),
        permutations=999,
    )
    assert next(probe for probe in found.probes if probe.name == "outside-crop").alarm


def test_the_interval_is_a_bootstrap_of_whole_groups() -> None:
    rng = np.random.default_rng(5)
    group_N = random_groups(rng, 60, 4)
    label_N = (rng.random(60) < 0.4).astype(int)[group_N]
    features_NF = (
        label_N[:, None] + rng.standard_normal(60)[group_N][:, None] + 0.1 * rng.standard_normal((len(group_N), 3))
    )
    models = fit_folds(features_NF, deal_groups(group_N, seed=0))
    low, high = percentile_interval(bootstrap_aucs(models, label_N, group_N, 2, 4000, seed=0))
    score_N = out_of_fold_scores(models, (label_N == 0).astype(float)[None])[0]
    naive = []
    for _ in range(2000):
        drawn = np.concatenate([np.flatnonzero(group_N == group) for group in rng.integers(0, 60, 60)])
        positive_P, negative_M = score_N[drawn][label_N[drawn] == 0], score_N[drawn][label_N[drawn] == 1]
        naive.append((positive_P[:, None] > negative_M).mean())
    assert (low, high) == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.015)


def test_several_classes_give_the_mean_auc_of_one_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    label_N = rng.integers(0, 3, 90)
    features_NF = np.eye(3)[label_N] + rng.standard_normal((90, 3))
    models = fit_folds(features_NF, deal_groups(np.arange(90), seed=0))
    wanted = np.mean(
        [
            roc_auc_score(label_N == label, out_of_fold_scores(models, (label_N == label).astype(float)[None])[0])
            for label in range(3)
        ]
    )
    assert labelling_aucs(models, label_N[None], 3)[0] == pytest.approx(wanted)
    assert wanted > 0.65


@pytest.mark.parametrize("mixed", [False, True])
def test_noise_alarms_in_one_case_of_twenty_though_patients_resemble_themselves(mixed: bool) -> None:
    rng = np.random.default_rng(11)
    runs, low = 400, 0
    for run in range(runs):
        group_N = random_groups(rng, 40, 3)
        build_GF = rng.standard_normal((40, 3))
        features_NF = build_GF[group_N] + 0.2 * rng.standard_normal((len(group_N), 3))
        label_N = (rng.random(40) < 0.3).astype(int)[group_N]
        if mixed:
            label_N = np.where(rng.random(len(group_N)) < 0.2, 1 - label_N, label_N)
        models = fit_folds(features_NF, deal_groups(group_N, run))
        low += permutation_p(labelling_aucs(models, permute_groups(label_N, group_N, 99, run), 2)) <= 0.05
    spread = np.sqrt(0.05 * 0.95 / runs)
    assert abs(low / runs - 0.05) < 2.6 * spread


def test_holm_steps_down() -> None:
    # sorted 0.005 × 4, 0.01 × 3, 0.03 × 2, then 0.04, which may not be below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_lung_atlas_covers_the_lungs(untied: tuple[Collection, np.ndarray]) -> None:
    masks_NSS = untied[1]
    covered_N = (masks_NSS & template_SS(SIDE)).sum((1, 2)) / masks_NSS.sum((1, 2))
    assert covered_N.mean() >= 0.97 and covered_N.min() >= 0.9
    assert ((masks_NSS & SHOWN["lungs-hidden"](SIDE)).sum((1, 2)) / masks_NSS.sum((1, 2))).max() < 0.003
    beside_SS = SHOWN["inside-crop-outside-lungs"](SIDE)
    assert template_SS(SIDE).mean() < 0.45 and beside_SS.sum() > 0.15 * crop_mask(SIDE).sum()
    atlas_SS = template_SS(SIDE)
    assert (atlas_SS == atlas_SS[:, ::-1]).all()


def test_the_atlas_hides_most_of_what_the_crop_shows_of_real_lungs(radiographs: Path) -> None:
    with (radiographs / "lung_masks.csv").open(newline="", encoding="utf-8") as table:
        paths = [row["mask"] for row in csv.DictReader(table)]
    masks = [np.asarray(Image.open(radiographs / path).convert("L")) for path in paths]
    masks_NSS = np.array([cv2.resize(mask_HW, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for mask_HW in masks])
    shown_NSS = (masks_NSS > 127) & crop_mask(SIDE)
    assert (shown_NSS & template_SS(SIDE)).sum() > 0.88 * shown_NSS.sum()
    shown_N = ((masks_NSS > 127) & SHOWN["lungs-hidden"](SIDE)).sum((1, 2)) / (masks_NSS > 127).sum((1, 2))
    assert shown_N.mean() < 0.03 and shown_N.max() < 0.08 and SHOWN["lungs-hidden"](SIDE).mean() > 0.3


def test_the_source_of_real_covid_films_is_predicted_without_their_lungs(radiographs: Path) -> None:
    with (radiographs / "radiographs.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["label"] in ("covid", "normal")]
    rows = [row for label in ("covid", "normal") for row in [r for r in rows if r["label"] == label][:45]]
    greys = [decode_radiograph(radiographs / row["path"], max_pixels=10**8).grey_HW for row in rows]
    found = probe_collection(
        Collection(
            frames_NSS=np.array([stored_frame(grey_HW, SIDE, "stretch")[0] for grey_HW in greys]),
            label_N=np.array([int(row["label"] == "normal") for row in rows]),
            classes=("covid", "normal"),
            group_N=group_by([row["patient"] for row in rows]),
            source_N=tuple(row["source"] for row in rows),
            header_NF=np.log([grey_HW.shape for grey_HW in greys]),
        ),
        permutations=999,
        resamples=100,
    )
    alarms = {probe.name for probe in found.probes if probe.alarm}
    assert {"header", "outside-crop", "lungs-hidden"} <= alarms
    assert [one.parameters["classes"] for one in found.cautions] == [["covid", "normal"]]


def test_the_crop_is_the_central_64_of_92() -> None:
    rows, columns = np.nonzero(crop_mask(92))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 77, 14, 77)


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_hidden_pixels_change_no_feature(shown: Callable[[int], np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    frames_NSS = rng.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
    changed_NSS = np.where(shown(SIDE), frames_NSS, rng.integers(0, 256, frames_NSS.shape)).astype(np.uint8)
    assert (changed_NSS != frames_NSS).any()
    np.testing.assert_array_equal(pixel_features(frames_NSS, shown(SIDE)), pixel_features(changed_NSS, shown(SIDE)))
    assert (hide(frames_NSS[0], shown(SIDE), 128)[~shown(SIDE)] == 128).all()


def test_one_odd_file_size_is_detected_wherever_it_is_among_the_others() -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(90) % 2
    width_N = np.where(label_N == 1, 7.0, rng.choice([6.0, 8.0], 90))
    width_N[3] = np.nan
    models = fit_folds(header_features(width_N[:, None]), deal_groups(np.arange(90), 0))
    assert labelling_aucs(models, label_N[None], 2)[0] > 0.95


def test_arms_that_follow_the_class_alarm_where_arms_are_shown(tied: CollectionFinding) -> None:
    found = {probe.name: probe for probe in tied.probes}
    for name in ("outside-crop", "inside-crop-outside-lungs", "lungs-hidden", "thumbnail"):
        assert found[name].alarm and found[name].auc > 0.85 and found[name].low > 0.6
        assert found[name].low <= found[name].auc <= found[name].high
    assert "Pixels outside the crop alone predict the class with AUC" in found["outside-crop"].sentence
    assert "something other than the lungs" in found["lungs-hidden"].sentence
    assert "it may be the finding itself" in found["thumbnail"].sentence


def test_pictures_show_what_the_probe_saw_and_hide_the_rest_in_grey(tied: CollectionFinding) -> None:
    pictures = {probe.name: probe.picture for probe in tied.probes}
    outside_HW = cv2.imdecode(np.frombuffer(pictures["outside-crop"] or b"", np.uint8), cv2.IMREAD_UNCHANGED)
    assert outside_HW is not None and outside_HW.dtype == np.uint8 and outside_HW.shape == (SIDE, SIDE)
    assert (outside_HW[crop_mask(SIDE)] == 128).all() and outside_HW[~crop_mask(SIDE)].std() > 10
    assert pictures["histogram"] is None


def test_phantoms_without_confounder_or_finding_raise_no_alarm_and_the_seed_reproduces_that(
    untied: tuple[Collection, np.ndarray],
) -> None:
    found, again = (probe_collection(untied[0], permutations=999, resamples=100) for _ in range(2))
    assert not any(probe.alarm for probe in found.probes)
    assert [(p.auc, p.low, p.high, p.p, p.sentence) for p in found.probes] == [
        (p.auc, p.low, p.high, p.p, p.sentence) for p in again.probes
    ]
    assert found.cautions == []


def noise_collection(sources: list[str], label_N: np.ndarray, classes: tuple[str, ...] = ("a", "b")) -> Collection:
    """Random frames, each its own group; those of a source that begins with b are brighter."""
    rng = np.random.default_rng(0)
    frames_NSS = rng.integers(0, 200, (len(label_N), SIDE, SIDE)).astype(np.uint8)
    bright_N = np.array([source.startswith("b") for source in sources])
    return Collection(
        frames_NSS=frames_NSS + 20 * bright_N[:, None, None].astype(np.uint8),
        label_N=label_N,
        classes=classes,
        group_N=np.arange(len(label_N)),
        source_N=tuple(sources),
        view_N=rng.random(len(label_N)),
        header_NF=np.full((len(label_N), 2), 3.0),
    )


def test_classes_confounded_with_their_sources_are_a_caution_commonest_first() -> None:
    label_N = np.repeat([0, 1], [20, 30])
    found = probe_collection(noise_collection(["x"] * 20 + ["y"] * 30, label_N), permutations=99, resamples=20)
    assert found.cautions == [caution("confounded-with-source", classes=["b", "a"], images=50)]
    assert {name for name in found.skipped if name.startswith("source")} == {"source-within-a", "source-within-b"}


def test_a_single_class_is_no_caution_and_no_probe() -> None:
    found = probe_collection(noise_collection(["x"] * 12, np.zeros(12, np.int64)))
    assert found.cautions == [] and found.probes == [] and found.skipped["thumbnail"].code == "few-classes-to-probe"


def test_sources_of_different_appearance_are_predicted_within_a_class() -> None:
    label_N = np.repeat([0, 1], 40)
    sources = ["blue", "red"] * 20 + ["red"] * 40
    found = probe_collection(noise_collection(sources, label_N), permutations=999, resamples=50)
    probes = {probe.name: probe for probe in found.probes}
    assert probes["source-within-a"].alarm and "the source within class a" in probes["source-within-a"].sentence
    assert found.skipped["source-within-b"] == caution("few-sources-to-probe", least=10)
    assert [one.code for one in found.cautions] == ["moderately-confounded-with-source"]  # blue is always of class a
    assert not probes["header"].alarm and probes["header"].auc == 0.5


def test_collections_are_told_apart_within_each_class_where_they_differ_and_only_there() -> None:
    label_N = np.repeat([0, 1], 60)
    planted = probe_sources(noise_collection(["blue", "red", "blue"] * 40, label_N), resamples=50)
    assert [probe.name for probe in planted] == ["collection-within-a", "collection-within-b"]
    for probe in planted:
        assert probe.alarm and probe.picture is None and probe.auc is not None and probe.auc > 0.9
        assert probe.sentence.startswith("Thumbnails of 8×8 pixels alone predict the collection within class ")
    few = ["blue"] * 60 + ["red"] * 9 + ["blue"] * 51  # of b, one collection has 9 groups alone, and of a there is one
    assert probe_sources(noise_collection(few, label_N)) == []
    alike = probe_sources(noise_collection(["north", "south"] * 60, label_N), resamples=50)
    assert len(alike) == 2 and not any(probe.alarm for probe in alike)
    assert "were not shown to predict the collection within class a" in alike[0].sentence
    assert "several" not in alike[0].sentence


def test_groups_of_two_conversions_are_kept_apart_and_those_of_one_are_not(tmp_path: Path) -> None:
    rows_N = np.zeros(3, ROW)
    rows_N["group"] = [7, 7, 2]
    paths = [tmp_path / f"{name}.beton" for name in "abc"]
    for level, (path, conversion) in enumerate(zip(paths, ("one", "two", "one"), strict=True)):
        facts = Facts(
            classes=("a", "b"), positive="a", stored=46, crop=32, fit="stretch", split="train", seed=0,
            conversion_id=conversion, site_key_id="", source_fingerprint="",
        )  # fmt: skip
        write_beton(path, np.full((3, 46, 46), 50 * level, np.uint8), np.array([0, 1, 1]), rows_N, facts, 2 << 20)
    with Beton(paths[0]) as first, Beton(paths[1]) as second, Beton(paths[2]) as third:
        found = collection_of_betons([first, second, third], ["A"] * 3 + ["B"] * 3 + ["A"] * 3)
    assert found.group_N.tolist() == [1, 1, 0, 3, 3, 2, 1, 1, 0]
    assert found.label_N.tolist() == [0, 1, 1] * 3 and found.source_N == ("A",) * 3 + ("B",) * 3 + ("A",) * 3
    assert (
        found.frames_NSS.shape == (9, SIDE, SIDE)
        and found.frames_NSS[:, 0, 0].tolist() == [0] * 3 + [50] * 3 + [100] * 3
    )


def test_too_few_groups_and_missing_inputs_are_skipped_with_the_reason() -> None:
    label_N = np.repeat([0, 1, 2], [20, 20, 5])
    collection = noise_collection(["s"] * 45, label_N, ("a", "b", "c"))
    calls: list[tuple[int, int]] = []
    found = probe_collection(
        collection, permutations=99, resamples=20, progress=lambda done, total: calls.append((done, total))
    )
    assert found.skipped["class c"] == caution("few-patients-of-class", groups=5, least=10)
    assert calls == [(done, len(found.probes)) for done in range(1, len(found.probes) + 1)] and len(calls) == 8
    few = probe_collection(
        Collection(
            frames_NSS=collection.frames_NSS[:30],
            label_N=label_N[:30],
            classes=("a", "b"),
            group_N=np.minimum(np.arange(30), 25),
            source_N=("s",) * 30,
        )
    )
    assert few.probes == [] and few.skipped["outside-crop"] == caution("few-classes-to-probe", least=10)
    bare = probe_collection(
        Collection(
            frames_NSS=collection.frames_NSS[:40],
            label_N=label_N[:40],
            classes=("a", "b"),
            group_N=np.arange(40),
            source_N=("s",) * 40,
        ),
        permutations=99,
        resamples=20,
    )
    missing = {"header": "no-headers", "view": "no-predicted-views"}
    assert {name: bare.skipped[name].code for name in missing} == missing and len(bare.probes) == 6


# ---- findings


def test_permutations_of_some_groups_are_those_of_all_without_the_others_and_as_random() -> None:
    giver_RG, taking_G = shuffle_groups(5, 6000, seed=1), np.array([True, False, True, True, False])
    some_RT = shuffle_some(giver_RG, taking_G)
    assert (shuffle_some(giver_RG, np.ones(5, bool)) == giver_RG).all()
    for all_G, some_T in zip(giver_RG[:300].tolist(), some_RT[:300].tolist(), strict=True):
        for taker, giver in zip((0, 2, 3), some_T, strict=True):
            followed = all_G[taker]
            while not taking_G[followed]:
                followed = all_G[followed]
            assert followed == (0, 2, 3)[giver]
    found, count = np.unique(some_RT, axis=0, return_counts=True)
    assert len(found) == 6 and abs(count / 6000 - 1 / 6).max() < 4 * np.sqrt(5 / 36 / 6000)


def test_all_findings_of_a_group_move_together_where_they_are_known() -> None:
    rng = np.random.default_rng(2)
    group_N = random_groups(rng, 60, 3)
    finding_NK = (rng.random((60, 2)) < 0.4)[group_N].astype(np.int64)
    giver_RG = shuffle_groups(60, 40, seed=3)
    pair_RN = [hand_on(finding_NK[:, place], group_N, giver_RG) for place in range(2)]
    joint_RN = hand_on(finding_NK @ [1, 2], group_N, giver_RG)
    assert (pair_RN[0] + 2 * pair_RN[1] == joint_RN).all()


def slow_tests(
    features_NF: np.ndarray, finding_NK: np.ndarray, group_N: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, list[float]]:
    """Each finding on its known films alone, as two classes, row by row; the p of the largest statistic."""
    giver_RG, auc_RK = shuffle_groups(int(group_N.max()) + 1, permutations, seed), []
    for value_N in finding_NK.T:
        known_N = np.isfinite(value_N)
        known_G, own_T = np.unique(group_N[known_N], return_inverse=True)
        given_RG = shuffle_some(giver_RG, np.isin(np.arange(giver_RG.shape[1]), known_G))
        models = fit_folds(features_NF[known_N], deal_groups(own_T, seed))
        rows = hand_on(value_N[known_N].astype(np.int64), own_T, given_RG)
        scores = [out_of_fold_scores(models, row[None].astype(float))[0] for row in rows]
        auc_RK.append([roc_auc_score(row, score_N) for row, score_N in zip(rows, scores, strict=True)])
    auc_RK = np.transpose(auc_RK)
    z_RK = (auc_RK - auc_RK.mean(0)) / auc_RK.std(0)
    return auc_RK[0], [float(np.mean(z_RK.max(1) >= z - 1e-9)) for z in z_RK[0]]


def test_a_finding_is_probed_on_its_known_films_as_a_slow_oracle_does() -> None:
    rng = np.random.default_rng(4)
    group_N = random_groups(rng, 70, 3)
    features_NF = rng.standard_normal((len(group_N), 5))
    value_NK = (rng.random((70, 4)) < (0.5, 0.3, 0.4, 0.4))[group_N].astype(np.float32)
    value_NK[:, 1] = features_NF[:, 0] > 0.8  # told by its input
    value_NK[rng.random(value_NK.shape) < 0.3] = np.nan
    value_NK[:, 3] = np.where(np.isnan(value_NK[:, 2]), np.nan, value_NK[:, 3])
    value_NK[:, 2] = np.where(np.isnan(value_NK[:, 3]), np.nan, value_NK[:, 2])  # two that are known of the same films
    probe = Probe("thumbnail", lambda frames_NSS: frames_NSS)
    tests = run_tests({probe: features_NF}, value_NK, [0, 1, 2, 3], group_N, 5, 60, 20)
    auc_K, p_K = slow_tests(features_NF, value_NK, group_N, 60, 5)
    found = describe_tests(tests, ("a", "b", "c", "d"))
    assert [one.finding for one in found] == ["a", "b", "c", "d"]
    np.testing.assert_allclose([one.auc for one in found], auc_K, rtol=1e-12)
    assert [one.p_adjusted for one in found] == pytest.approx(p_K)
    assert [one.alarm for one in found] == [False, True, False, False]


def test_unknown_films_change_nothing_of_a_finding() -> None:
    rng = np.random.default_rng(6)
    group_N = np.arange(80)
    features_NF, value_N1 = rng.standard_normal((80, 3)), (rng.random((80, 1)) < 0.4).astype(np.float32)
    value_N1[50:] = np.nan
    probe = Probe("thumbnail", lambda frames_NSS: frames_NSS)
    changed_NF = features_NF.copy()
    changed_NF[50:] = 1e3
    auc = [
        run_tests({probe: given_NF}, value_N1, [0], group_N, 0, 30, 5)[0].auc_R
        for given_NF in (features_NF, changed_NF)
    ]
    assert (auc[0] == auc[1]).all()


def test_the_largest_statistic_corrects_for_all_and_allows_small_p() -> None:
    rng = np.random.default_rng(7)
    auc_RP = 0.5 + rng.normal(0, np.linspace(0.01, 0.1, 112), (2000, 112))  # tests of unequal spread
    auc_RP[0, 0] = 0.6  # ten deviations of the narrowest
    adjusted = single_step(auc_RP)
    assert adjusted[0] == 1 / 2000 and min(adjusted[1:]) > 0.05
    assert min(holm([permutation_p(auc_R) for auc_R in auc_RP.T])) > 0.05  # which is why
    auc_RP[:, 5] = 0.5  # no statistic at all
    assert single_step(auc_RP)[5] == 1.0 and single_step(auc_RP)[0] == 1 / 2000
    auc_RP[0, 7] = np.nan
    assert single_step(auc_RP)[7] == 1.0, "what is unknown of the real labels raises no alarm"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_benchmark_of_findings_tells_false_alarms_from_marks(study: object, pool_of_findings: object) -> None:
    found = measure(study, pool_of_findings, seeds=2, patients=110, permutations=59)
    assert found["first"]["trials"] == 2
    if found["study"]["marks"]:
        assert found["first"]["hits"] == 2 and not missed_by(found)
        assert missed_by(found | {"first": {"hits": 1, "trials": 2, "low": 0.0, "high": 1.0}})
    assert missed_by(found | {"family": {"hits": 30, "trials": 200, "low": 0.1, "high": 0.2}})


@pytest.fixture(scope="module")
def pool_of_findings() -> object:
    return draw_pool(120)


def findings_collection(seed: int = 0, groups: int = 60) -> Collection:
    """Noise of three films a patient; a bright corner goes with the first of three findings."""
    rng = np.random.default_rng(seed)
    group_N = np.repeat(np.arange(groups), 3)
    value_NK = (rng.random((groups, 3)) < (0.4, 0.4, 0.05))[group_N].astype(np.float32)
    frames_NSS = rng.integers(0, 200, (len(group_N), SIDE, SIDE)).astype(np.uint8)
    frames_NSS[value_NK[:, 0] == 1, 3:9, 3:9] = 255
    value_NK[::5, 1] = np.nan
    return Collection(
        frames_NSS=frames_NSS,
        label_N=np.full(len(group_N), -1),
        classes=("Effusion", "Edema", "Hernia"),
        group_N=group_N,
        source_N=("north",) * len(group_N),
        finding_NK=value_NK,
    )


def test_the_finding_that_a_mark_follows_alarms_and_no_other() -> None:
    calls: list[tuple[int, int]] = []
    found = probe_findings(
        findings_collection(), permutations=199, resamples=50, progress=lambda done, total: calls.append((done, total))
    )
    assert {probe.finding for probe in found.probes if probe.alarm} == {"Effusion"}
    corner = next(probe for probe in found.probes if (probe.finding, probe.probe) == ("Effusion", "outside-crop"))
    assert corner.alarm and corner.auc > 0.95 and corner.p_adjusted == corner.p == 1 / 200
    assert found.skipped["finding Hernia"].code == "few-patients-of-finding"
    codes = {found.skipped[name].code for name in ("header", "view", "silhouette", "lung-area")}
    assert codes == {"no-headers", "no-predicted-views", "no-lung-masks"}
    assert calls == [(done, 12) for done in range(1, 13)] and len(found.probes) == 12
    sentence = found.alarms()["outside-crop"]
    assert "Pixels outside the crop alone predict Effusion (AUC 1.00): something other than" in sentence
    assert "between films with and without the finding" in sentence and "{" not in "".join(found.alarms().values())
    assert probe_findings(findings_collection(), permutations=199, resamples=50) == found


def test_counts_of_findings_together_are_those_of_known_films() -> None:
    collection = findings_collection()
    found = probe_findings(collection, permutations=19, resamples=5)
    value_NK = collection.finding_NK
    assert value_NK is not None
    both_N = np.isfinite(value_NK[:, 1])
    assert found.known[0][1] == both_N.sum() and found.known[0][0] == len(value_NK)
    assert found.present[0][1] == ((value_NK[:, 0] == 1) & (value_NK[:, 1] == 1)).sum()
    assert found.phi[0][1] == pytest.approx(np.corrcoef(value_NK[both_N, :2].T)[0, 1])
    one = collection.finding_NK[:, :1] * 0
    alone = probe_findings(Collection(**{**fields_of(collection), "finding_NK": np.repeat(one, 3, 1)}), permutations=9)
    assert alone.phi[0][1] is None and alone.probes == [] and len(alone.skipped) == 7


def lungs_like(wide_N: np.ndarray, found_N: np.ndarray) -> np.ndarray:
    """Two boxes a film, wider or narrower; nothing where none were found: bool N×S×S."""
    masks_NSS = np.zeros((len(wide_N), SIDE, SIDE), bool)
    rng = np.random.default_rng(1)
    for place in np.flatnonzero(found_N):
        width = int(rng.integers(18, 22)) + 3 * int(wide_N[place])
        masks_NSS[place, 20:70, 44 - width : 44] = masks_NSS[place, 20:70, 48 : 48 + width] = True
    return masks_NSS


def test_lungs_that_are_wider_in_one_class_alarm_and_films_without_a_mask_take_no_part() -> None:
    label_N, found_N = np.repeat([0, 1], 40), np.arange(80) % 8 > 0
    noise = noise_collection(["s"] * 80, label_N)
    found = probe_collection(replace(noise, masks_NSS=lungs_like(label_N, found_N)), permutations=999, resamples=50)
    probes = {probe.name: probe for probe in found.probes}
    assert [name for name, probe in probes.items() if probe.alarm] == ["silhouette", "lung-area"]
    assert all((probes[name].auc or 0) > 0.9 and "by build, breath" in probes[name].sentence for name in OF_LUNGS)
    picture_SS = cv2.imdecode(np.frombuffer(probes["silhouette"].picture or b"", np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture_SS is not None and set(np.unique(picture_SS)) == {128, 255} and picture_SS[40, 40] == 255
    assert found.skipped["films without lungs"] == caution(
        "lungs-not-found", probes=["silhouette", "lung-area"], films=10, images=80, percent={"a": 12.5, "b": 12.5}
    )
    alike = probe_collection(replace(noise, masks_NSS=lungs_like(label_N * 0, found_N)), permutations=999, resamples=9)
    assert not any(probe.alarm for probe in alike.probes)
    one_sided = lungs_like(label_N, found_N & ((label_N == 0) | (np.arange(80) < 45)))
    few = probe_collection(replace(noise, masks_NSS=one_sided), permutations=99, resamples=9)
    assert {few.skipped[name].code for name in OF_LUNGS} == {"few-classes-to-probe"}
    assert few.skipped["films without lungs"].parameters["percent"] == {"a": 12.5, "b": 90.0}


def test_lungs_that_are_wider_with_one_finding_alarm_for_it_alone() -> None:
    collection = findings_collection()
    assert collection.finding_NK is not None
    plain = replace(collection, frames_NSS=np.zeros_like(collection.frames_NSS))
    edema_N, found_N = collection.finding_NK[:, 1] == 1, np.arange(180) % 9 > 0
    found = probe_findings(replace(plain, masks_NSS=lungs_like(edema_N, found_N)), permutations=199, resamples=9)
    alarms = {(probe.finding, probe.probe) for probe in found.probes if probe.alarm}
    assert alarms == {("Edema", "silhouette"), ("Edema", "lung-area")} and len(found.probes) == 2 * 8
    assert [probe.probe for probe in found.probes][-2:] == ["silhouette", "lung-area"]
    assert "silhouette" in found.pictures and found.skipped["films without lungs"].parameters["films"] == 20
    few = replace(plain, masks_NSS=lungs_like(edema_N, (collection.finding_NK[:, 0] == 0) & found_N))
    assert {
        probe.finding for probe in probe_findings(few, permutations=9, resamples=9).probes if probe.probe in OF_LUNGS
    } == {"Edema"}
    none = probe_findings(replace(plain, masks_NSS=np.zeros((180, SIDE, SIDE), bool)), permutations=9, resamples=9)
    assert not {probe.probe for probe in none.probes} & set(OF_LUNGS)
    assert none.skipped["films without lungs"].parameters["films"] == 180


def test_sizes_of_lungs_are_their_area_width_height_fullness_and_left_share() -> None:
    mask_SS = np.zeros((100, 100), bool)
    mask_SS[20:70, 10:30] = mask_SS[30:70, 60:90] = True
    assert lung_sizes(mask_SS[None])[0] == pytest.approx([0.22, 80, 50, 2200 / 4000, 1000 / 2200])


@pytest.mark.parametrize(
    ("lungs", "segmenter", "algorithm"),
    [("off", "", "blake3"), ("masked", "given", "blake3"), ("off", "", "blake2b")],
)
def test_lungs_of_a_beton_are_looked_for_unless_it_shows_them_alone_or_nets_may_have_seen_its_films(
    tmp_path: Path, lungs: LungMode, segmenter: str, algorithm: str
) -> None:
    plan = plan_phantoms(PhantomConfig(out=tmp_path, patients=18, size=SIDE))
    frames_NSS = np.array([stored_frame(draw_phantom(film).image_HW, SIDE, "stretch")[0] for film in plan])
    rows_N = np.zeros(len(plan), ROW)
    rows_N["group"] = rows_N["pixel_hash"][:, 0] = np.arange(len(plan))
    facts = Facts(
        classes=("a", "b"), positive="a", stored=SIDE, crop=64, fit="stretch", split="train", seed=0,
        conversion_id="one", site_key_id="", source_fingerprint="", lungs=lungs, segmenter=segmenter,
        hash_algorithm=algorithm,
    )  # fmt: skip
    write_beton(tmp_path / "a.beton", frames_NSS, np.arange(len(plan)) % 2, rows_N, facts, 2 << 20)
    found = audit_beton(tmp_path / "a.beton", 0, 99, lambda phase, done, total: None)
    assert isinstance(found, CollectionFinding)
    looked = {probe.name for probe in found.probes}
    alone = {name for name, why in found.skipped.items() if why == caution("frames-of-lungs-alone")}
    assert looked >= {"thumbnail", "histogram", "sharpness"}
    of_films = {*SHOWN, *OF_LUNGS, "view"}
    if algorithm == "blake2b":
        assert caution("no-lung-masks") in found.skipped.values() and not looked & {*OF_LUNGS}
        return
    assert (looked >= of_films, alone) == ((True, set()) if lungs == "off" else (False, of_films))
    assert not looked & alone


def fields_of(collection: Collection) -> dict[str, object]:
    return {name: getattr(collection, name) for name in collection.__slots__}


def test_sources_are_told_by_finding_from_films() -> None:
    collection = findings_collection()
    assert collection.finding_NK is not None
    source_N = np.where(collection.finding_NK[:, 0] == 1, "north", "south")
    told = Collection(**{**fields_of(collection), "source_N": tuple(source_N.tolist())})
    found = probe_findings(told, permutations=19, resamples=5)
    assert found.told_by_source[0] and found.told_by_source[0].grade == "total"
    assert found.told_by_source[1] and found.told_by_source[1].grade == "none"
    assert found.cautions == [caution("findings-confounded-with-source", findings=["Effusion"])]
    north = next(one for one in found.sources if one.source == "north")
    assert north.present[0] == north.known[0] and north.absent[0] == 0 and north.interval(0)[0] > 0.8


def test_a_beton_of_findings_is_audited_by_its_values(tmp_path: Path) -> None:
    folder = write_findings(tmp_path / "B", counts={"train": 120}, unknown=0.1, strength=0)
    found = audit_beton(folder / "train.beton", 0, 99, lambda phase, done, total: None)
    assert isinstance(found, FindingsAudit) and tuple(found.findings) == NAMES and found.images == 120
    with Beton(folder / "train.beton") as beton:
        assert found.known[0][0] == np.isfinite(beton.labels[:, 0]).sum()
        assert found.present[2][2] == (beton.labels[:, 2] == 1).sum()
    assert {one.source for one in found.sources} == {"A", "B"} and len(found.probes) == 3 * 7
