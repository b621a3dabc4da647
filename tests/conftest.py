"""Fixtures: real radiographs where they are, and small conversions of phantoms made on the spot."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.folder import write_phantoms

REPOSITORY = Path(__file__).parent.parent
# the same examples each time, so that who changes a thing is not blamed for another one; look for new ones on purpose
hypothesis.settings.register_profile("same", derandomize=True)
if "PLAINFILM_EXPLORE" not in os.environ:
    hypothesis.settings.load_profile("same")
LONG = (  # a minute and more each
    "test_train", "test_campaigns", "test_leakage", "test_explain", "test_step", "test_profile",
    "test_audit_files", "test_evaluate", "test_compare", "test_train_kill", "test_bad_input",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no core waits for it at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def radiographs() -> Path:
    """The folder of real radiographs, from PLAINFILM_DATA."""
    folder = Path(os.environ.get("PLAINFILM_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "radiographs.csv").is_file():
        pytest.skip(f"no real radiographs at {folder}: set PLAINFILM_DATA to the folder that has radiographs.csv")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a small set of phantoms: two classes, 40 patients, up to 2 images each."""
    out = tmp_path_factory.mktemp("phantoms") / "p"
    return write_phantoms(PhantomConfig(out=out, patients=40, size=64, seed=5))


@pytest.fixture(scope="session")
def betons(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion of the phantoms at size 32, with a held-out share."""
    folder = tmp_path_factory.mktemp("betons")
    out = folder / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms),
            out=out,
            size=32,
            holdout=0.2,
            workers=1,
            site_key=folder / "site.key",
        )
    )
    return out
