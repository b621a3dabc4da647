"""Readers: one label of a film from several rows."""

from pathlib import Path

import pytest

from loaders.errors import InputError
from loaders.sources.manifest import merge_labels

TABLE = Path("films.csv")


def merged(*labels: str, readers: str | None = None, names: str = "", beside: tuple[str, ...] = ()) -> str:
    """The label of one film with these rows.  names: one letter a reader; beside: labels of other films."""
    of_line = enumerate(zip(names.ljust(len(labels))[: len(labels)], labels, strict=True), 2)
    rows = [(line, "a.png", name.strip(), label) for line, (name, label) in of_line]
    rows += [(50 + line, f"{line}.png", "", label) for line, label in enumerate(beside)]
    return merge_labels(TABLE, rows, readers)["a.png"]  # type: ignore[arg-type]


def test_rows_that_agree_are_one_and_others_are_left_as_they_are() -> None:
    rows = [
        (2, "b.png", "", "covid"),
        (3, "a.png", "R1", "Normal"),
        (4, "b.png", "", "Covid"),
        (5, "a.png", "R2", "normal"),
    ]
    assert list(merge_labels(TABLE, rows).items()) == [("b.png", "covid"), ("a.png", "Normal")]


@pytest.mark.parametrize("labels", [("0", "1"), ("1", "0", "1.0"), ("No Finding", "1"), ("1", "no_finding")])
def test_a_finding_in_one_box_of_a_reader_wins_over_its_absence_in_another(labels: tuple[str, ...]) -> None:
    assert merged(*labels, names="RRRR") == "1"


@pytest.mark.parametrize("readers", [None, "any", "majority", "all"])
def test_two_findings_of_one_reader_contradict_each_other(readers: str | None) -> None:
    with pytest.raises(InputError, match=r"films\.csv: a\.png is 'covid' \(line 2\) and 'oedema' \(line 4\), expected"):
        merged("covid", "normal", "oedema", names="RRR", readers=readers)


@pytest.mark.parametrize("names", ["", "RS"])
def test_readers_who_differ_are_refused_with_both_lines_and_labels(names: str) -> None:
    found = (
        r"a\.png is 'covid' \(line 2\) and 'normal' \(line 3\), expected one label; correct a row, or combine readers"
    )
    with pytest.raises(InputError, match=found):
        merged("covid", "normal", names=names)


@pytest.mark.parametrize(
    ("labels", "of_any", "of_majority", "of_all"),
    [
        (("1", "0", "0"), "1", "0", "0"),
        (("0", "1", "1"), "1", "1", "0"),
        (("1", "1", "1.0"), "1", "1", "1"),
        (("0.0", "0", "0"), "0.0", "0.0", "0.0"),
        (("No finding", "covid", "COVID"), "covid", "covid", "No finding"),
    ],
)
@pytest.mark.parametrize("names", ["", "RST"])
def test_readers_are_combined(labels: tuple[str, ...], of_any: str, of_majority: str, of_all: str, names: str) -> None:
    for readers, wanted in (("any", of_any), ("majority", of_majority), ("all", of_all)):
        assert merged(*labels, readers=readers, names=names) == wanted


def test_boxes_of_a_reader_are_one_vote() -> None:
    assert merged("1", "1", "1", "0", "0", names="RRRST", readers="majority") == "0"


def test_more_labels_than_two_are_settled_by_the_majority_alone() -> None:
    labels = ("covid", "oedema", "covid")
    assert merged(*labels, readers="majority", names="RST") == "covid"
    for readers in ("any", "all"):
        with pytest.raises(
            InputError, match=r"--readers \w+ with the labels covid, oedema, expected two, one of which"
        ):
            merged(*labels, readers=readers)
        with pytest.raises(InputError, match="with the labels covid, normal, oedema, expected two"):
            merged("covid", "normal", readers=readers, beside=("oedema",))
    assert merged("covid", "normal", readers="majority") == ""  # such a film is left out
    assert merged("a", "b", "c", "a", readers="majority", names="RSTU") == ""
