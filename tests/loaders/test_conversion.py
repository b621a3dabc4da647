"""Labels that are confounded with their source."""

import pytest

from loaders.sources.catalog import confounded_with_source


@pytest.mark.parametrize(
    ("labels", "sources", "confounded"),
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
def test_a_label_is_confounded_with_sources_that_have_no_other_label(
    labels: str, sources: list[str], confounded: list[str]
) -> None:
    assert confounded_with_source(list(labels), list(sources)) == confounded
