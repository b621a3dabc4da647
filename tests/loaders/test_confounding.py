"""Confounding of label and source: its degree, its interval, and the caution that each grade of it gives."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loaders.sources.confounding import Confounding, measure_confounding, source_cautions


def films(**sources_of: dict[str, int]) -> tuple[list[str], list[str]]:
    """Labels and sources of films.  sources_of: label → source → films."""
    rows = [(label, source) for label, of in sources_of.items() for source, count in of.items() for _ in range(count)]
    return [label for label, _ in rows], [source for _, source in rows]


def measured(labels: list[str], sources: list[str]) -> dict[str, Confounding]:
    """Of films of one patient each."""
    return {one.label: one for one in measure_confounding(labels, sources, np.arange(len(labels)))}


def naive_accuracy(labels: list[str], sources: list[str], groups: list[int], label: str) -> float:
    """The same for sources of several groups, film by film."""
    right: dict[bool, list[float]] = {True: [], False: []}
    for one, source, group in zip(labels, sources, groups, strict=True):
        others = [row for row in zip(labels, sources, groups, strict=True) if row[2] != group]
        inside = Counter(row[0] == label for row in others if row[1] == source)
        whole = Counter(row[0] == label for row in others)
        mine, rest = inside[True] * whole[False], inside[False] * whole[True]
        guess = 1.0 if mine > rest else 0.0 if mine < rest else 0.5
        right[one == label].append(guess if one == label else 1 - guess)
    return (sum(right[True]) / len(right[True]) + sum(right[False]) / len(right[False])) / 2


@pytest.mark.parametrize(
    ("sources_of", "grades"),
    [
        ({"covid": {"x": 200}, "normal": {"y": 200}}, ["total", "total"]),
        ({"covid": {"x": 198, "y": 2}, "normal": {"y": 200}}, ["strong", "strong"]),  # a few films of another source
        ({"covid": {"x": 200}, "normal": {"y": 195, "x": 5}}, ["strong", "strong"]),
        ({"covid": {"x": 18, "y": 2}, "normal": {"y": 20}}, ["strong", "strong"]),
        ({"covid": {"x": 160, "y": 40}, "normal": {"x": 40, "y": 160}}, ["moderate", "moderate"]),
        ({"covid": {"x": 100, "y": 100}, "normal": {"x": 100, "y": 100}}, ["none", "none"]),
        ({"covid": {"x": 30, "y": 70}, "normal": {"x": 300, "y": 700}}, ["none", "none"]),
        ({"covid": {"x": 200}, "normal": {"": 200}}, ["total", "total"]),  # unknown sources follow the label
        ({"covid": {"x": 80}, "normal": {"y": 159}, "pneumonia": {"y": 137}}, ["total"]),  # the others share theirs
        ({"a": {"x": 99, "y": 1}, "b": {"y": 100}, "c": {"z": 100}}, ["strong", "strong", "total"]),
        ({"a": {"x": 2}, "b": {"x": 20, "y": 20}}, ["none", "none"]),  # two films, which may agree by chance
        ({"a": {"x": 20}, "b": {str(source): 1 for source in range(20)}}, ["total", "total"]),  # sources of one film
    ],
)
def test_confounding_is_graded_by_how_well_the_source_gives_the_class(
    sources_of: dict[str, dict[str, int]], grades: list[str]
) -> None:
    found = measured(*films(**sources_of))
    shown = [found[label].grade for label in sources_of if label in found]
    assert shown[: len(grades)] == grades
    assert set(shown[len(grades) :]) <= {"none"}


@pytest.mark.parametrize(
    ("labels", "sources"),
    [
        ([], []),
        (["a"] * 50, ["x", "y"] * 25),  # one class
        (["a", "b"] * 50, ["x"] * 100),  # one source
        (["a", "b"] * 50, [""] * 100),
        (["a", "b"] * 50, list(map(str, range(100)))),  # each film has a source of its own
    ],
)
def test_without_two_classes_and_two_sources_of_several_patients_there_is_nothing_to_measure(
    labels: list[str], sources: list[str]
) -> None:
    assert measured(labels, sources) == {} and source_cautions(labels, sources, np.arange(len(labels))) == []


def test_many_small_sources_and_sources_of_one_patient_give_nothing_away_by_chance() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice(["a", "b"], 600).tolist()
    assert all(one.grade == "none" for one in measured(labels, [str(film // 3) for film in range(600)]).values())
    of_patients = ["a"] * 300 + ["b"] * 300  # five films a patient, each patient a source
    assert measure_confounding(of_patients, [film // 5 for film in range(600)], np.arange(600) // 5) == []


def test_a_class_of_one_patient_is_taken_film_by_film() -> None:
    labels, sources = films(covid={"x": 100}, normal={"y": 100})
    for group_N in (np.zeros(200, int), np.where(np.arange(200) < 100, 0, np.arange(200))):
        assert [one.grade for one in measure_confounding(labels, sources, group_N)] == ["total", "total"]


def test_the_balanced_accuracy_is_that_of_leaving_one_group_out() -> None:
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(0, 40, 120))
    sources = rng.choice(["x", "y", "z"], 120)
    labels = np.where(rng.random(120) < 0.6, np.where(sources == "x", "a", "b"), rng.choice(["a", "b", "c"], 120))
    for one in measure_confounding(labels.tolist(), sources.tolist(), groups):
        expected = naive_accuracy(labels.tolist(), sources.tolist(), groups.tolist(), one.label)
        assert one.accuracy == pytest.approx(expected, abs=1e-12) and one.low < one.accuracy < one.high


def test_the_interval_is_wider_for_patients_than_for_films_and_the_same_each_time() -> None:
    labels, sources = films(a={"x": 160, "y": 40}, b={"x": 40, "y": 160})
    films_alone, again = (measure_confounding(labels, sources, np.arange(400))[0] for _ in range(2))
    patients = measure_confounding(labels, sources, np.arange(400) // 20)[0]
    assert films_alone == again and films_alone.accuracy == 0.8
    assert films_alone.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)  # of a proportion of 400
    assert patients.high - patients.low > 2 * (films_alone.high - films_alone.low)


def test_the_cautions_tell_each_class_and_what_share_of_it_has_sources_of_its_own() -> None:
    labels, sources = films(covid={"x": 198, "y": 2}, normal={"y": 200}, tb={"z": 50})
    total, strong = source_cautions(labels, sources, np.arange(len(labels)))
    assert total.code == "confounded-with-source" and total.parameters == {"classes": ["tb"], "images": 50}
    assert strong.code == "strongly-confounded-with-source" and strong.meaning.effect == total.meaning.effect
    assert strong.parameters["accuracy"] == pytest.approx(0.995) and strong.parameters["own_percent"] == {
        "covid": 99.0,
        "normal": 100.0,
    }
    assert "balanced accuracy of 0.995 (95 % interval 0." in strong.text and "99 % of covid" in strong.text
    (moderate,) = source_cautions(*films(a={"x": 160, "y": 40}, b={"x": 40, "y": 160}), np.arange(400))
    assert moderate.code == "moderately-confounded-with-source"
    assert moderate.meaning.gravity > strong.meaning.gravity and "instead of the disease" in moderate.text


def test_the_real_collection_is_confounded_with_its_sources_as_it_is_and_with_films_of_others(
    radiographs: Path,
) -> None:
    tables = [(radiographs / f"{name}.csv").read_text() for name in ("radiographs", "external")]
    rows = [row for table in tables for row in csv.DictReader(table.splitlines())]
    own = [row for row in rows if row["source"] in ("nih-chestxray8", "covid-chestxray")]
    for films_, grade in ((own, "total"), (rows, "strong")):
        _, group_N = np.unique([row["patient"] for row in films_], return_inverse=True)
        found = measure_confounding([row["label"] for row in films_], [row["source"] for row in films_], group_N)
        assert {one.label: one.grade for one in found}["covid"] == grade
