"""Fixtures: real radiographs where they are, small conversions of phantoms; and which tests are extras."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from engine.train.run_folder import RunFolder
from loaders.atomic_file import publish_bytes
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms

REPOSITORY = Path(__file__).parent.parent
CAMPAIGNS = Path(__file__).parent / "faults"
# the same examples each time, so that who changes a thing is not blamed for another one; look for new ones on purpose
hypothesis.settings.register_profile("same", derandomize=True)
if "PLAINFILM_EXPLORE" not in os.environ:
    hypothesis.settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The campaigns, which take longest, are extras."""
    for item in items:
        if item.path.is_relative_to(CAMPAIGNS):
            item.add_marker("extras")


def pytest_collection_finish() -> None:
    """Garbage collections, which take a tenth of the time, leave out from here on what has been imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _curves_are_drawn_once() -> Iterator[None]:
    """Trainings after the first copy its curves: to draw them takes longer than the steps of a small training."""
    whole, drawn = RunFolder.draw, list[bytes]()

    def draw(folder: RunFolder, *arguments: Any) -> None:
        if drawn:
            publish_bytes(folder.path / "curves.png", drawn[0])
        else:
            whole(folder, *arguments)
            drawn.append((folder.path / "curves.png").read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", draw)
        yield


@pytest.fixture(scope="session", autouse=True)
def _trainings_are_in_float32_unless_they_ask() -> Iterator[None]:
    """`--amp auto` would take what this processor is fast in, so that results would differ from machine to machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.device.bfloat16_unit", lambda: "")
        yield


@pytest.fixture(scope="session")
def radiographs() -> Path:
    """The folder of real radiographs, from PLAINFILM_DATA."""
    folder = Path(os.environ.get("PLAINFILM_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "radiographs.csv").is_file():
        pytest.skip(f"no real radiographs at {folder}: set PLAINFILM_DATA to the folder that has radiographs.csv")
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills in the first of pytest's workers that asks for it; the others get the same one."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(folder := factory.mktemp(name))
        return folder
    folder = factory.getbasetemp().parent / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".made").exists():
            shutil.rmtree(folder, ignore_errors=True)  # a worker that failed in the making
            folder.mkdir()
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a small set of phantoms: two classes, 40 patients, up to 2 images each."""

    def make(folder: Path) -> None:
        write_phantoms(PhantomConfig(out=folder / "p", patients=40, size=64, seed=5))

    return made_once(tmp_path_factory, "phantoms", make) / "p" / "phantoms.csv"


@pytest.fixture(scope="session")
def betons(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of the phantoms at size 32, with a held-out share."""

    def make(folder: Path) -> None:
        catalog, key = CatalogConfig(manifest=phantoms), folder / "site.key"
        convert(ConvertConfig(catalog=catalog, out=folder / "b", size=32, holdout=0.2, workers=1, site_key=key))

    return made_once(tmp_path_factory, "betons", make) / "b"
