"""The house keeps its limits: few rooms, no circles, imports that point one way."""

from pathlib import Path

from engine.config import Recipe, TrainConfig
from engine.train.train import train
from loaders.config import LoaderConfig
from tests.house import (
    MOST_FILES,
    PRODUCT,
    arrows_upwards,
    circles,
    imported,
    imports_of,
    layers,
    python_files,
    without_layer,
)
from tests.paths import MOST_CROSSED, files_of_a_metric, files_of_an_image, holds


def test_the_product_has_few_files_no_circle_and_no_arrow_upwards() -> None:
    paths = python_files(*PRODUCT)
    imports = imports_of(paths)
    assert 100 < len(paths) <= MOST_FILES
    assert circles(imports) == []
    assert arrows_upwards(imports, layers()) == []
    assert without_layer(imports, layers()) == []


def test_imports_count_wherever_they_stand() -> None:
    source = (
        "from a import b\nimport c\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from d import Name\n"
        "def f():\n    from e.g import name\n    import elsewhere\n"
    )
    assert imported(source, {"a", "a.b", "c", "d", "e", "e.g"}) == {"a.b", "c", "d", "e.g"}


def test_a_circle_is_found_and_a_second_one_beside_it() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    found = circles({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}})
    assert {frozenset(circle) for circle in found} == {frozenset("ab"), frozenset("cd")}


def test_an_arrow_upwards_is_found_and_so_is_one_to_a_neighbour() -> None:
    contract = [{"top"}, {"left", "right"}, {"low"}]
    imports = {"top.x": {"low.y", "left.a"}, "left.a": {"right.b", "low.y"}, "right.b": set(), "low.y": {"top.x"}}
    assert arrows_upwards(imports, [contract]) == [("left.a", "right.b"), ("low.y", "top.x")]
    assert len(layers()) == 3 and all(len(one) > 2 for one in layers())


def test_a_module_that_no_layer_holds_is_found_and_a_package_itself_needs_none() -> None:
    whole, inside = [{"engine"}, {"loaders"}], [{"engine.report"}, {"engine.device", "engine.config"}]
    modules = ["engine", "engine.report", "engine.report.page", "engine.reports", "engine.device", "loaders.beton.map"]
    assert without_layer(modules, [whole, inside]) == ["engine.reports"]
    assert [{name.partition(".")[0] for names in one for name in names} for one in layers()[1:]] == [
        {"engine"},
        {"loaders"},
    ]


def test_a_png_crosses_few_files_from_convert_to_its_beton(phantoms: Path, tmp_path: Path) -> None:
    crossed = files_of_an_image(phantoms, tmp_path / "betons")
    assert {"kernels/decoding.py", "loaders/images/frame.py", "loaders/beton/writer.py"} <= crossed
    assert len(crossed) <= MOST_CROSSED


def test_a_metric_crosses_few_files_from_logits_to_the_page(betons: Path, tmp_path: Path) -> None:
    loader = LoaderConfig(training=True, threads=1)
    train(TrainConfig(data=betons, out=tmp_path / "run", recipe=Recipe(epochs=1, device="cpu"), loader=loader))
    crossed = files_of_a_metric(betons, tmp_path / "run")
    assert {"kernels/bootstrap.py", "engine/statistics/estimates.py", "engine/report/tables.py"} <= crossed
    assert len(crossed) <= MOST_CROSSED


def test_a_number_is_found_in_whatever_holds_it() -> None:
    assert holds({"a": [(1.0, 0.25)]}, 0.25)
    assert not holds({"a": [(1.0, "0.25")]}, 0.25)
