"""Devices: what each computes in, and why (CUDA, MPS, CPU)."""

import os
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import engine.device as device
from engine.device import (
    COMPILE_REPAYS,
    COMPILE_REPAYS_WARM,
    ROWS,
    choose_policy,
    mps_row,
    settle_precision,
    warm_marker,
)
from engine.train.device_batches import triton_trouble
from loaders.cautions import caution
from loaders.errors import ConfigError


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(device, "device_name", lambda chosen: "some GPU")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def test_auto_is_bfloat16_in_channels_last_and_eager_where_a_run_is_short() -> None:
    policy = choose_policy("auto", "auto", "auto", 1400)
    assert policy.autocast == torch.bfloat16 and policy.memory_format == torch.channels_last and not policy.compiled
    assert policy.why == caution("compile-by-steps", steps=1400, least=COMPILE_REPAYS, cache="cold")
    assert policy.why.finding == "--compile auto, 1,400 steps, repaid from 300,000 with a cold cache"


@pytest.mark.parametrize(
    ("unit", "gain", "mixed", "finding"),
    [
        ("", 9.0, False, "--amp auto: float32 on cpu, which has no fast bfloat16"),
        ("AMX", 0.1, True, "--amp auto: bfloat16, for which this processor has AMX"),
        (
            "AVX-512 BF16",
            1.9,
            True,
            "--amp auto: bfloat16; this processor has AVX-512 BF16, and convolves 1.90 times",
        ),
        (
            "AVX-512 BF16",
            1.1,
            False,
            "--amp auto: float32; this processor has AVX-512 BF16, and convolves 1.10 times",
        ),
    ],
)
def test_auto_asks_the_processor_and_races_where_in_doubt(
    monkeypatch: pytest.MonkeyPatch, unit: str, gain: float, mixed: bool, finding: str
) -> None:
    monkeypatch.setattr(device, "choose_device", torch.device)
    monkeypatch.setattr(device, "bfloat16_unit", lambda: unit)
    monkeypatch.setattr(device, "bfloat16_gain", lambda: gain)
    policy = choose_policy("cpu", "auto", "off", 1)
    assert (policy.autocast == torch.bfloat16) == mixed and policy.why_precision.finding.startswith(finding)
    for switch in ("on", "off"):
        policy = choose_policy("cpu", switch, "off", 1)  # whatever the processor has
        assert (policy.autocast is not None) == (switch == "on")
        assert policy.why_precision == caution("amp-as-set", switch=switch)


@pytest.mark.numerical
def test_the_race_times_both_precisions() -> None:
    assert 0 < device.bfloat16_gain.__wrapped__() < float("inf")


def test_what_is_compiled_in_another_precision_is_not_in_the_cache() -> None:
    choose_policy("auto", "off", "on", 1, "a").remember_compiled()
    assert choose_policy("auto", "auto", "auto", 1, "a").why.parameters["cache"] == "cold"


def test_auto_compiles_where_it_repays_and_sooner_once_the_cache_is_warm() -> None:
    def compiled(num_steps: int, setting: str = "a") -> bool:
        return choose_policy("auto", "auto", "auto", num_steps, setting).compiled

    assert compiled(COMPILE_REPAYS) and not compiled(COMPILE_REPAYS - 1)
    choose_policy("auto", "auto", "on", 1, "a").remember_compiled()
    assert warm_marker("a, mixed").exists()
    assert compiled(COMPILE_REPAYS_WARM) and not compiled(COMPILE_REPAYS_WARM - 1)
    assert not compiled(COMPILE_REPAYS_WARM, "b")  # another setting compiles to something else
    assert choose_policy("auto", "auto", "auto", 1, "a").why.parameters["cache"] == "warm"


def test_an_eager_run_and_a_cache_that_is_not_there_leave_no_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choose_policy("auto", "auto", "off", 1, "a").remember_compiled()
    assert not warm_marker("a").exists()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "none"))
    choose_policy("auto", "auto", "on", 1, "a").remember_compiled()
    assert not warm_marker("a").exists()


def test_float32_is_not_rounded_to_tf32_and_the_policy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ((torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32"))
    before = [getattr(*setting) for setting in settings]
    benchmark = torch.backends.cudnn.benchmark
    policy = choose_policy("auto", "off", "off", 1)
    try:
        torch.backends.cudnn.allow_tf32 = True
        assert "fp32, TF32 on" in policy.describe()
        settle_precision(policy)
        assert "fp32, TF32 off, channels_last, eager" in policy.describe()
        assert torch.backends.cudnn.benchmark
    finally:
        for (owner, name), value in zip(settings, before, strict=True):
            setattr(owner, name, value)
        torch.backends.cudnn.benchmark = benchmark


def test_autocast_keeps_no_cast_weights() -> None:
    policy = replace(choose_policy("auto", "on", "off", 1), device=torch.device("cpu"))
    with policy.precision():
        assert torch.is_autocast_enabled("cpu") and not torch.is_autocast_cache_enabled()


def test_a_user_without_a_name_has_a_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(device.getpass, "getuser", nobody)
    assert device.user_name() == f"uid_{os.getuid()}"
    monkeypatch.setattr(device.getpass, "getuser", lambda: "DOMAIN\\me")
    assert device.user_name() == "DOMAIN_me"


def test_without_triton_batches_are_made_by_plain_pytorch_and_the_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernels.cuda", None)  # what an import of it then raises is an ImportError
    found = triton_trouble()
    assert found is not None and found.code == "triton-unavailable"


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
    assert policy.why.code == "compile-not-yet" and "issues/150121" in policy.why.finding


@pytest.mark.usefixtures("mps")
def test_compiling_on_mps_is_refused_with_the_issue() -> None:
    with pytest.raises(ConfigError, match=r"cannot on MPS .*issues/150121.*--compile off"):
        choose_policy("mps", "auto", "on", 1)
