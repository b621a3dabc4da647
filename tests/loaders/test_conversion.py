"""Labels that are confounded with their source."""

import pytest

from loaders.sources.catalog import confounded_labels


@pytest.mark.parametrize(
    ("labels", "sources", "found"),
    [
        ("aabb", "xxyy", ["a", "b"]),
        ("aabb", "xyxy", []),
        ("aabbcc", "xxyzyy", ["a"]),  # b and c share a source, a has one of its own
        ("aab", "xyy", []),
        ("aabb", ["", "", "", ""], []),  # unknown sources prove nothing
        ("aabb", ["x", "x", "", ""], ["a", "b"]),  # but missing ones do, where they follow the label
        ("", "", []),
    ],
)
def test_a_label_is_confounded_with_sources_of_its_own(labels: str, sources: list[str], found: list[str]) -> None:
    assert confounded_labels(list(labels), list(sources)) == found
