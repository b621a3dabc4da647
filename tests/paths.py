"""`make counts`: the files that one PNG crosses from `convert` to its beton, and one metric from logits to the page.

A Python file is crossed where one of its functions runs on the way.  The way of an image is a conversion without its
contact sheets.  The way of a metric is all that estimates it from the logits, and from there every function that holds
the number, alone or in a result.
"""

import dataclasses
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from engine.config import EvaluateConfig, Recipe, TrainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.trained import Decision
from engine.report.report import refresh_report
from engine.statistics.estimates import estimates
from engine.train.train import train
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.contact_sheet import augmentation_sheet, preparation_sheet, sheet_bytes
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms
from loaders.sources.confounding import source_cautions
from tests.house import PRODUCT, REPOSITORY

MOST_CROSSED = 21
METRIC = "auc"
DEPTH = 8  # levels of lists, mappings and records in which a number is searched for

Counts = Callable[[FrameType], bool]


@contextmanager
def crossed(counts: Counts) -> Iterator[set[str]]:
    """The product's files of which a function that counts returns while the block runs, on any thread."""
    files: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "return" and code.co_filename.startswith(str(REPOSITORY)) and code.co_name != "<module>":
            path = Path(code.co_filename).relative_to(REPOSITORY)
            if path.parts[0] in PRODUCT and path.suffix == ".py" and str(path) not in files and counts(frame):
                files.add(str(path))

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def running(*functions: Callable[..., Any]) -> bool:
    """Whether the main thread is in one of these functions, or in what they call; other threads then work for them."""
    codes = [function.__code__ for function in functions]
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def holds(value: Any, number: float, depth: int = DEPTH) -> bool:
    """Whether a value is this number, or a list, mapping or record with it."""
    if isinstance(value, float):
        return value == number
    if depth == 0 or isinstance(value, str | bytes | type):
        return False
    if isinstance(value, list | tuple | set):
        return any(holds(part, number, depth - 1) for part in value)
    if isinstance(value, dict):
        return any(holds(part, number, depth - 1) for part in value.values())
    if isinstance(value, msgspec.Struct):
        return any(holds(getattr(value, name), number, depth - 1) for name in value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return any(holds(getattr(value, name, None), number, depth - 1) for name in names)
    return False


def files_of_an_image(manifest: Path, out: Path) -> set[str]:
    """The files that a PNG crosses, but for what is drawn and concluded from all of them."""
    catalog, key = CatalogConfig(manifest=manifest), out.with_suffix(".key")
    config = ConvertConfig(catalog=catalog, out=out, size=64, holdout=0.2, workers=1, site_key=key)
    aside = (preparation_sheet, augmentation_sheet, sheet_bytes, source_cautions)
    with crossed(lambda frame: not running(*aside)) as files:
        convert(config)
    return files


def files_of_a_metric(betons: Path, run: Path) -> set[str]:
    """The files that the AUC of the held-out beton crosses.  run: a training on the betons."""
    config = EvaluateConfig(run=run, betons=(betons / "heldout.beton",), resamples=100)
    number = evaluate(config)[0].metrics.estimates[METRIC].value
    assert number is not None and not number.is_integer()  # or else others would be taken for it
    with crossed(lambda frame: running(Decision.probabilities, estimates) or holds(frame.f_locals, number)) as files:
        evaluate(config)
        refresh_report(run)
    return files


def main() -> None:
    """Convert, train and evaluate a few phantoms, and print the files crossed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(PhantomConfig(out=folder / "phantoms", patients=60, size=96))
        image = files_of_an_image(folder / "phantoms" / "phantoms.csv", folder / "betons")
        train(TrainConfig(data=folder / "betons", out=folder / "run", recipe=Recipe(epochs=1, device="cpu")))
        metric = files_of_a_metric(folder / "betons", folder / "run")
    for title, files in (("one PNG from convert to beton", image), ("one metric from logits to page", metric)):
        print(f"{title}: {len(files)} files")
        print("".join(f"  {file}\n" for file in sorted(files)), end="")


if __name__ == "__main__":
    main()
