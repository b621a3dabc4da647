"""Settings and flags: `auto` where the program chooses."""

from __future__ import annotations

import pytest

import cli
from loaders.config import LoaderConfig
from loaders.errors import ConfigError
from loaders.settings import build


def test_auto_stands_for_zero_where_the_program_chooses() -> None:
    assert build(LoaderConfig, {"threads": "auto"}).threads == 0
    with pytest.raises(ConfigError, match="batch_size: found 'auto'"):
        build(LoaderConfig, {"batch_size": "auto"})


def test_an_invalid_number_of_workers_is_refused_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["convert", "x", "--out", "y", "--workers", "many"])
    assert stopped.value.code == 2
    assert "--workers: found 'many', expected a number or auto" in capsys.readouterr().err
