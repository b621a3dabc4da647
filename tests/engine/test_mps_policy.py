"""The MPS policy: which row a torch version gets, and that the policy follows it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

import engine.device as device
from engine.device import ROWS, choose_policy, mps_row
from loaders.errors import ConfigError


@pytest.mark.parametrize(
    ("version", "since"),
    [
        ("2.10.1", "2.11"),
        ("2.11.0", "2.11"),
        ("2.13.0+cpu", "2.11"),
        ("2.14.0a0+git1234567", "2.11"),  # a nightly may or may not have it
        ("2.14.0.dev20260801", "2.11"),
        ("2.14.0", "2.14"),
        ("2.100.0", "2.14"),
        ("3.0.0", "2.14"),
    ],
)
def test_the_row_is_the_newest_that_the_version_has_reached(version: str, since: str) -> None:
    assert mps_row(version).since == since


def test_every_choice_of_every_row_names_its_upstream_issue() -> None:
    choices = {field.name for field in fields(ROWS[0])} - {"since", "issues"}
    for row in ROWS:
        assert row.issues.keys() == choices
        assert all(text.startswith("https://github.com/pytorch/pytorch/") for text in row.issues.values())


def test_adam_is_trusted_with_the_flag_only_where_it_heeds_it() -> None:
    assert not mps_row("2.13.0").found_inf and mps_row("2.14.0").found_inf


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("mps"))


@pytest.mark.usefixtures("mps")
def test_on_mps_the_policy_is_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(ROWS[0], memory_format=torch.channels_last, autocast=torch.float16, found_inf=True)
    monkeypatch.setattr(device, "mps_row", lambda version: row)
    policy = choose_policy("mps", "on", "auto", 10**9)
    assert (policy.memory_format, policy.autocast, policy.found_inf) == (torch.channels_last, torch.float16, True)


@pytest.mark.usefixtures("mps")
def test_auto_on_mps_is_eager_float32_in_the_layout_whose_gradients_are_right() -> None:
    policy = choose_policy("mps", "auto", "auto", 10**9)
    assert policy.autocast is None and not policy.compiled and policy.memory_format == torch.contiguous_format
    assert "issues/150121" in policy.why


@pytest.mark.usefixtures("mps")
def test_compiling_on_mps_is_refused_with_the_issue() -> None:
    with pytest.raises(ConfigError, match=r"cannot on MPS .*issues/150121.*--compile off"):
        choose_policy("mps", "auto", "on", 1)
