"""Tests of the benchmarks' harness: turns, medians, outputs before speeds, and the decision of bench-compare."""

import csv
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from benchmarks import copies, document, equivalence, findings, foundation, honesty, hurdles, lungs, targets, validation
from benchmarks.agreement import Disagreement, expect_close, expect_oracle, expect_same_pictures
from benchmarks.compare import (
    CHECKS,
    Baseline,
    Interval,
    Pair,
    compare,
    has_fallen,
    interval,
    load,
    measure,
    pair_of,
    paired_ratios,
    save,
)
from benchmarks.conftest import require_rivals
from benchmarks.contest import Comparison, Contest, Missing, Worker, consume, from_record, interleaved
from benchmarks.kernel_contests import Work
from benchmarks.rivals import installed
from benchmarks.step_contests import recording_contest, step_224_contest
from benchmarks.table import agreement, speed_table, table
from benchmarks.training_worker import STEP_RIVALS
from engine.config import (
    CrossvalConfig,
    EvaluateConfig,
    HurdlesConfig,
    Recipe,
    SegmentTestConfig,
    SegmentTrainConfig,
    TrainConfig,
)
from engine.crossval.controls import beyond_outline
from engine.crossval.output import TARGETS
from engine.crossval.scores import Crossval
from engine.evaluate.findings import FindingsMetrics
from engine.segmentation.test import SegmentationResult, segment_test
from engine.statistics.names import with_interval
from engine.train.run_folder import RunFolder
from engine.train.train import train
from loaders.config import PHANTOM_FINDINGS, ConvertConfig, LoaderConfig, PhantomConfig
from loaders.images.lungs import SHIPPED
from loaders.phantom.phantom import write_phantoms
from tests.findings_example import NAMES, evaluated

SLOWED = 1 / 1.15  # of the ratio, when ours takes 15 % longer
NOISE = 0.05  # scale of the noise of one round's log ratio: a tenth of the rounds is off by 15 %


def pedantic(target: Callable, setup: Callable, rounds: int, iterations: int) -> None:
    """The rounds as pytest-benchmark runs them."""
    assert iterations == 1
    for _ in range(rounds):
        setup()
        target()


def run(rivals: dict[str, Any], check: Callable = lambda: None, rounds: int = 5, **more: Any) -> Comparison:
    contest = Contest(what="work", amount=8, rivals=rivals, check=check, **more)
    return interleaved(contest, rounds=rounds, pedantic=pedantic)


def noisy_rounds(ratio: float, seed: int, noise: float = NOISE) -> Iterator[float]:
    """Rounds whose log ratio has Student's noise with two degrees of freedom, which has no variance."""
    generator = np.random.default_rng(seed)
    return (ratio * math.exp(noise * generator.standard_t(2)) for _ in count())


def test_every_rival_has_its_turn_in_every_round_after_one_warm_up() -> None:
    calls: list[str] = []
    comparison = run({name: lambda name=name: calls.append(name) for name in ("ours", "b", "c")}, rounds=5)
    turns = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert len(turns) == 1 + 5
    assert all(sorted(turn) == ["b", "c", "ours"] for turn in turns)
    assert [len(comparison.times(rival)) for rival in comparison.seconds] == [5, 5, 5]


def test_rivals_do_not_always_follow_the_same_neighbour() -> None:
    calls: list[str] = []
    run({name: lambda name=name: calls.append(name) for name in ("ours", "b", "c")}, rounds=4)
    before_ours = [calls[place - 1] for place, name in enumerate(calls) if name == "ours" and place]
    assert set(before_ours) == {"b", "c"}


def test_outputs_that_disagree_fail_before_anything_is_timed() -> None:
    calls: list[str] = []

    def check() -> None:
        expect_close("b", [0.0, 1.0], [0.0, 3.0], mean=0.5)

    with pytest.raises(Disagreement, match=r"b: outputs differ by 1 on average and 2 at most, expected 0\.5"):
        run({"ours": lambda: calls.append("ours"), "b": lambda: calls.append("b")}, check)
    assert not calls


@pytest.mark.parametrize("found", [[np.nan, 1.0], [0.0], [[0.0, 1.0]], [0.0, 1.2]])
def test_nan_another_shape_and_one_far_pixel_disagree(found: list) -> None:
    with pytest.raises(Disagreement):
        expect_close("rival", found, [0.0, 1.0], mean=1.0, most=0.1)


def test_outputs_within_both_bounds_agree() -> None:
    expect_close("rival", [0.0, 1.1], [0.0, 1.0], mean=0.06, most=0.11)


def test_the_oracle_binds_ours_everywhere_and_rivals_inside_their_border() -> None:
    expected_NHW = np.zeros((1, 8, 8))
    edge_N1HW = np.zeros((1, 1, 8, 8))
    edge_N1HW[..., 0] = 1
    exact = np.zeros((1, 1, 8, 8))
    expect_oracle({"ours": lambda: exact, "b": lambda: edge_N1HW, "c": Missing(reason="none")}, expected_NHW)
    with pytest.raises(Disagreement, match="ours"):
        expect_oracle({"ours": lambda: edge_N1HW}, expected_NHW)
    with pytest.raises(Disagreement, match="b: outputs differ"):
        expect_oracle({"ours": lambda: exact, "b": lambda: exact + 0.003}, expected_NHW)


def test_pictures_of_other_levels_agree_and_others_do_not() -> None:
    picture = np.random.default_rng(0).normal(size=(1, 16, 16))
    expect_same_pictures("b", picture * 0.5 + 3, picture)
    with pytest.raises(Disagreement, match="correlates"):
        expect_same_pictures("b", picture[:, ::-1], picture)


def test_no_two_threads_write_the_same_crops_at_once() -> None:
    writing, second_done, passes = {0: threading.Lock(), 1: threading.Lock()}, threading.Event(), []

    def part(out_N1HW: np.ndarray, samples: slice) -> None:
        assert writing[samples.start].acquire(blocking=False), "written by another thread"
        passes.append(samples.start)
        if samples.start == 1 and passes.count(1) == 2:
            second_done.set()
        if samples.start == 0:  # slow, so that the other thread is done with its own slice and free for this one
            second_done.wait(5)
        writing[samples.start].release()

    beton: Any = SimpleNamespace(facts=SimpleNamespace(crop=4))
    with ThreadPoolExecutor(2) as pool:
        work = Work(beton=beton, inverse_N23=np.zeros((2, 2, 3), np.float32), pool=pool)
        work.call(part, passes=2)()
    assert sorted(passes) == [0, 0, 1, 1] and second_done.is_set()


@pytest.mark.parametrize(("missing", "fails"), [("DALI, CPU", False), ("SPDL + grid_sample", False), ("FFCV", True)])
def test_smoke_does_without_dali_and_spdl_alone(missing: str, fails: bool) -> None:
    rivals: dict[str, Any] = {"plainfilm": lambda: None, missing: Missing(reason="no wheel for this system")}
    contest = Contest(what="work", amount=1, rivals=rivals)
    if fails:
        with pytest.raises(pytest.fail.Exception, match=f"work: rivals are missing: {missing}: no wheel"):
            require_rivals(contest)
    else:
        require_rivals(contest)


def test_what_smoke_prints_names_who_agrees_and_who_is_missing() -> None:
    comparison = run({"ours": lambda: None, "b": lambda: None, "DALI": Missing(reason="no wheel")}, rounds=1)
    assert agreement(comparison) == ["work: ours; b", "  DALI: missing: no wheel"]


def test_a_contest_that_disagrees_is_one_failure_and_a_test_that_compares_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from benchmarks.agreement import expect_close\n"
        "from benchmarks.contest import Contest\n"
        "def test_it(compare):\n"
        "    check = lambda: expect_close('b', [0.0], [1.0], mean=0)\n"
        "    compare(Contest(what='work', amount=1, rivals={'ours': int, 'b': int}, check=check))\n"
        "def test_nothing(compare):\n"
        "    pass\n"
    )
    options = ["-q", "-p", "benchmarks.conftest", "-o", "filterwarnings=error", "--smoke", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_it.py")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert re.search(r"^1 failed, 1 passed, 1 error in", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "this test compares nothing" in done.stdout


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    # the second round was slow for both; the ratio of medians would be 3 / 2
    comparison = Comparison(what="work", amount=6.0, seconds={"ours": [1, 20, 2], "b": [3, 40, 2]})
    assert comparison.ratios("b") == [3, 2, 1]
    record = comparison.record()["rivals"]["b"]
    assert (record["ratio"], record["ratio_min"], record["ratio_max"]) == (2, 1, 3)
    assert record["images_per_second"] == 6 / 3
    assert comparison.record()["rivals"]["ours"]["ratio"] == 1


def test_a_call_that_does_more_counts_for_the_common_amount() -> None:
    contest = Contest(what="work", amount=8, rivals={"ours": int, "b": int}, amounts={"ours": 32})
    assert (contest.share("ours"), contest.share("b")) == (0.25, 1)
    pair = pair_of(contest, "b")
    assert not isinstance(pair.rounds, Missing) and pair.name == "work: b"


def test_the_spread_is_the_distance_of_the_quartiles() -> None:
    comparison = Comparison(
        what="work", amount=1.0, seconds={"ours": [1, 1, 1, 1, 1], "b": [1 / r for r in range(1, 6)]}
    )
    assert comparison.spread("ours") == 0
    assert comparison.spread("b") == pytest.approx((4 - 2) / 3)


def test_cpu_time_is_of_each_rivals_own_turns() -> None:
    def work() -> None:
        sum(range(200_000))

    comparison = run({"ours": lambda: None, "b": work})
    idle, busy = comparison.cpu_each("ours"), comparison.cpu_each("b")
    assert idle is not None and busy is not None and 0 <= idle < busy


def test_a_rival_that_is_missing_is_in_the_table_with_the_reason() -> None:
    comparison = run({"ours": lambda: None, "FFCV": Missing(reason="no headers of OpenCV")})
    assert comparison.record()["rivals"]["FFCV"] == {"missing": "no headers of OpenCV"}
    lines = table([comparison])
    assert any(line.split() == ["FFCV", "missing"] for line in lines)
    assert lines[-1] == "work: FFCV, missing: no headers of OpenCV"


def test_a_rival_that_cannot_be_installed_is_missing_for_the_installers_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "REASONS", tmp_path)
    assert installed.why_missing("dali", "json") is None
    assert installed.why_missing("dali", "no_such_rival") == "No module named 'no_such_rival'"
    (tmp_path / "dali.txt").write_text(
        "collecting\nERROR: no wheel for this system\nmake: *** [Makefile:1: dali] Error 1\n"
    )
    assert installed.why_missing("dali", "no_such_rival") == "ERROR: no wheel for this system"


def test_the_table_has_a_line_for_each_rival() -> None:
    comparison = Comparison(
        what="work",
        amount=100.0,
        seconds={"ours": [0.5, 0.5, 0.5], "b": [1.0, 2.0, 1.5], "c": [0.25, 0.25, 0.25]},
        cpu_seconds={"ours": 0.2, "b": 5.0},
        first_batch={"ours": 0.012},
    )
    assert [line.split() for line in table([comparison])[1:]] == [
        ["work", "ours", "200", "images", "0%", "2", "ms", "12", "ms"],
        ["b", "66.7", "images", "38%", "3.00", "2.00–4.00", "50", "ms"],
        ["c", "400", "images", "0%", "0.50", "0.50–0.50"],
    ]


def test_the_table_says_which_targets_are_met_and_by_how_much_others_are_missed() -> None:
    fast = Comparison(what=targets.AFFINE, amount=1.0, seconds={"ours": [1.0], "OpenCV": [1.6], "DALI, CPU": [6.5]})
    shown = "\n".join(table([fast]))
    assert "1.5 met" in shown and "8 missed by 1.50" in shown


def test_ratios_that_were_measured_beside_others_are_marked_as_noisy() -> None:
    def shown(others: float | None) -> str:
        found = Comparison(what="work", amount=1.0, seconds={"ours": [1.0], "b": [1.5]}, others=others)
        return "\n".join(table([found])) + str(speed_table([from_record(json.loads(json.dumps(found.record())))]))

    assert shown(0.42).count("noisy: 0.4 cores were busy elsewhere") == 2
    assert "noisy" not in shown(0.3) + shown(None)


def test_what_others_kept_busy_is_what_the_machine_did_and_we_did_not() -> None:
    own, machine = iter([0.0] * 99), iter([10.0, 10.0 + 0.25])
    found = interleaved(
        Contest(what="work", amount=1.0, rivals={"ours": lambda: time.sleep(0.01), "b": lambda: None}),
        rounds=5, pedantic=pedantic, cpu_clock=lambda: next(own), machine_clock=lambda: next(machine),
    )  # fmt: skip
    assert found.others is not None and 0.25 / 10 < found.others <= 0.25 / 0.05


def test_a_consumer_that_sleeps_takes_every_batch_and_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[np.ndarray] = []
    monkeypatch.setattr("benchmarks.contest.touch", read.append)
    batches = [np.zeros((2, 1, 4, 4), np.float32)] * 3
    taken: list[int] = []

    def epoch() -> Iterator[np.ndarray]:
        for batch in batches:
            taken.append(len(batch))
            yield batch

    consume(epoch, 2, reads=False)()
    assert len(taken) == 6 and not read
    consume(epoch)()
    assert len(read) == 3


def test_the_table_is_in_the_order_of_the_targets() -> None:
    comparisons = [Comparison(what=what, amount=1.0, seconds={"ours": [1.0]}) for what in reversed(targets.ORDER)]
    shown = [line for line in table(comparisons) if "ours" in line]
    assert all(line.startswith(what) for line, what in zip(shown, targets.ORDER, strict=True))
    assert {target.what for target in targets.TARGETS} <= set(targets.ORDER)


def test_targets_name_each_pair_once_and_are_frozen() -> None:
    named = [(target.what, target.rival) for target in targets.TARGETS]
    assert len(set(named)) == len(named)
    assert targets.target_of(targets.AFFINE, "numpy") is None
    with pytest.raises(AttributeError):
        targets.TARGETS[0].least = 0.0  # type: ignore[misc]


def test_a_comparison_comes_back_out_of_json() -> None:
    comparison = Comparison(
        what="work",
        amount=100.0,
        unit="files",
        seconds={"ours": [0.5, 0.25], "b": [1.0, 2.0], "c": Missing(reason="none")},
        cpu_seconds={"ours": 0.5, "b": 1.0},
        first_batch={"b": 0.1},
    )
    assert from_record(json.loads(json.dumps(comparison.record()))) == comparison


def test_a_baseline_comes_back_out_of_json(tmp_path: Path) -> None:
    stored = Baseline(
        ratios={"work: b": Interval(ratio=1.5, low=1.4, high=1.6, rounds=24)}, provenance={"commit": "abc", "cores": 2}
    )
    save(stored, tmp_path / "results" / "baseline.json")
    assert load(tmp_path / "results" / "baseline.json") == stored
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="no baseline"):
        load(tmp_path / "other.json")


class Clock:
    """A clock that only the calls move.  durations: of each call, in turn."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.durations, self.now = durations, 0.0
        self.calls: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += next(self.durations)

        return run

    def rounds(self, number: int) -> list[float]:
        return list(islice(paired_ratios(self.call("ours"), self.call("theirs"), lambda: self.now), number))


def test_a_round_is_four_calls_and_the_next_begins_with_the_other() -> None:
    clock = Clock(iter([1.0, 9.0, 2.0, 5.0, 9.0, 1.0, 2.0, 6.0]))
    assert clock.rounds(2) == [2 / 1, 6 / 1]
    assert clock.calls == ["ours", "theirs", "theirs", "ours", "theirs", "ours", "ours", "theirs"]


def test_a_drift_of_the_machine_falls_on_both_sides_alike() -> None:
    ratios = Clock(1 + step / 1000 for step in count()).rounds(200)  # each call takes longer than the one before
    assert np.median(ratios) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rounds", CHECKS[:3])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(rounds: int) -> None:
    covered = 0
    for seed in range(1000):
        found = interval(list(islice(noisy_rounds(2.0, seed), rounds)))
        covered += found.low <= 2.0 <= found.high
        assert found.low <= found.ratio <= found.high
    assert covered >= 980  # 990 expected, at the least; a standard deviation is 3


def test_the_interval_of_too_few_rounds_promises_nothing() -> None:
    found = interval([1.0, 1.0, 1.0])
    assert (found.low, found.high, found.rounds) == (0.0, math.inf, 3)


@pytest.mark.parametrize("noise", [0.01, NOISE, 0.08])
def test_the_same_code_falls_at_most_once_in_fifty(noise: float) -> None:
    fallen = sum(has_fallen(measure(noisy_rounds(1.5, seed, noise), limit=0.9 * 1.5), 1.5) for seed in range(200))
    assert fallen <= 4


@pytest.mark.parametrize("noise", [0.01, NOISE])
def test_a_slowdown_of_15_percent_falls_at_least_nine_times_in_ten(noise: float) -> None:
    rounds = (noisy_rounds(1.5 * SLOWED, seed, noise) for seed in range(200))
    assert sum(has_fallen(measure(each, limit=0.9 * 1.5), 1.5) for each in rounds) >= 180


def test_clear_cases_take_few_rounds_and_close_ones_more() -> None:
    assert measure(noisy_rounds(1.0, 0, 0.01), limit=0.9).rounds == CHECKS[0]
    assert measure(noisy_rounds(0.7, 0, 0.01), limit=0.9).rounds == CHECKS[0]
    assert measure(noisy_rounds(0.9, 0), limit=0.9).rounds == CHECKS[-1]


def test_compare_distinguishes_fallen_holding_missing_and_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    stored = {name: Interval(ratio=1.5, low=1.45, high=1.55, rounds=96) for name in ("holds", "falls", "gone")}
    pairs = [
        Pair(name="holds", rounds=noisy_rounds(1.5, 0)),
        Pair(name="falls", rounds=noisy_rounds(1.5 * 0.7, 1)),
        Pair(name="gone", rounds=Missing(reason="not installed")),
        Pair(name="new", rounds=noisy_rounds(1.0, 2)),
    ]
    assert compare(pairs, stored) == ["falls"]
    holds, falls, gone, new = capsys.readouterr().out.splitlines()
    assert holds.endswith("stored 1.50: holds") and falls.endswith("FALLEN below 0.9 of it")
    assert gone == "gone: missing: not installed" and "not in the baseline" in new


def test_rivals_that_train_otherwise_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[0.7, 0.6, 0.5], [0.7, 0.6, 0.55]])
    monkeypatch.setattr(Worker, "ask", lambda self, line: next(answers))
    with (
        pytest.raises(Disagreement, match="stock PyTorch, NCHW: 3 losses"),
        step_224_contest(STEP_RIVALS[:2], 32) as contest,
    ):
        contest.check()


def test_a_worker_that_dies_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        Worker("benchmarks.training_worker", "nobody") as worker,
        pytest.raises(RuntimeError, match="nobody: ended with 2"),
    ):
        worker.ask("steps 1")
    assert "invalid choice: 'nobody'" in capfd.readouterr().err


def test_records_do_not_change_what_is_learnt(betons: Path, tmp_path: Path) -> None:
    with recording_contest(betons, tmp_path) as contest:
        contest.check()
        for call in contest.rivals.values():
            call()
    assert {path.name for path in (tmp_path / "0").iterdir()} > {"best.safetensors", "last.safetensors", "curves.png"}


def test_hurdles_are_measured_on_phantoms_and_patients_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SIZE": 32, "PHANTOM_SIZE": 32, "PATIENTS": 30, "SEEDS": 1}.items():
        monkeypatch.setattr(hurdles, name, value)
    quick = partial(HurdlesConfig, folds=2, resamples=100, recipe=Recipe(epochs=1, device="cpu"))
    monkeypatch.setattr(hurdles, "HurdlesConfig", quick)
    data = tmp_path / "data"
    for seed, name, patients in ((1, "radiographs", 24), (2, "external", 9)):
        classes = ("covid", "normal", "pneumonia")
        write_phantoms(PhantomConfig(out=data / name, patients=patients, size=64, seed=seed, classes=classes))
        rows = list(csv.DictReader((data / name / "phantoms.csv").read_text().splitlines()))
        lines = [f"{name}/{row['path']},{row['label']},{row['patient']},{name}" for row in rows]
        (data / f"{name}.csv").write_text("\n".join(["path,label,patient,source", *lines]))
    counts = Counter(row["label"] for row in rows)
    monkeypatch.setattr(hurdles, "data_folder", lambda: data)
    assert hurdles.main(["--out", str(tmp_path / "hurdles.json")]) == 1
    assert "shortcut: expected home at least 0.95, away within 0.08 of 0.5" in capsys.readouterr().out
    stored = json.loads((tmp_path / "hurdles.json").read_text())
    results = document.all_results() | {"hurdles.json": stored}
    table = honesty.hurdle_lines(results)
    assert table.count("\n| ") == 9  # home and away of four studies, and the rule
    assert f"{counts['covid']} covid, {counts['normal']} normal, {counts['pneumonia']} pneumonia" in table
    (row,) = (line for line in honesty.crossval_table(results).splitlines() if line.startswith("| another collection"))
    assert "not measured" not in row
    found = honesty.hurdles_of(results, "two")
    assert found is not None
    away = found.away(found.rows[0].name)[0].estimates["auc"]
    assert with_interval("auc", away) in " ".join(honesty.honest_sentences(results).split())
    monkeypatch.setattr(hurdles, "data_folder", lambda: None)
    assert hurdles.main(["--out", str(tmp_path / "none.json")]) == 1 and not (tmp_path / "none.json").exists()


def shipped_instead(config: SegmentTrainConfig) -> SimpleNamespace:
    """The segmenter that ships in place of one that is trained, and its test where there are masks."""
    shutil.copytree(SHIPPED, config.out)
    test = SegmentTestConfig(manifest=config.manifest, out=config.out / "test", site_key=config.site_key, resamples=100)
    return SimpleNamespace(tested=segment_test(test) if config.manifest else None)


def test_lungs_are_measured_on_phantoms_and_patients_and_what_is_stored_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small: dict[str, Any] = {"SIZE": 32, "FOLDS": 2, "SEEDS": 1, "PATIENTS": 24, "HOLDOUT": 0.4, "PHANTOM_SEEDS": 1}
    small |= {"MODES": ("boxed-equal",), "CONTROLS": ("lungs-only", "silhouette"), "STUDIES": {"shortcut": {"arms": 1}}}
    small |= {"ConvertConfig": partial(ConvertConfig, workers=1)}
    small |= {"CrossvalConfig": partial(CrossvalConfig, resamples=100)}
    small |= {"HurdlesConfig": partial(HurdlesConfig, folds=2, resamples=100)}
    small |= {"EvaluateConfig": partial(EvaluateConfig, resamples=100, device="cpu")}
    small |= {"Recipe": lambda **changes: Recipe(epochs=1, device="cpu")}
    facts = lungs.provenance()
    small |= {"provenance": lambda: facts}
    small |= {"segment_train": shipped_instead}
    for name, value in small.items():
        monkeypatch.setattr(lungs, name, value)
    monkeypatch.setattr(RunFolder, "draw", lambda *arguments: None)
    data = tmp_path / "data"
    for seed, name, patients in ((1, "radiographs", 16), (2, "external", 8)):
        write_phantoms(PhantomConfig(out=data / name, patients=patients, size=64, seed=seed, images_per_patient=1))
        rows = list(csv.DictReader((data / name / "phantoms.csv").read_text().splitlines()))
        lines = [f"{name}/{row['path']},{row['label']},{row['patient']},{name},{name}/{row['mask']}" for row in rows]
        (data / f"{name}.csv").write_text("\n".join(["path,label,patient,source,mask", *lines]))
    shutil.copyfile(data / "radiographs.csv", data / "lung_masks.csv")
    monkeypatch.setattr(lungs, "data_folder", lambda: data)
    monkeypatch.setattr(lungs, "phantoms_of", lambda *study: data / "radiographs" / "phantoms.csv")
    out = tmp_path / "lungs.json"
    assert lungs.main(["--out", str(out), "--only", "dice", "controls", "hurdles", "cover", "shortcut"]) == 1
    assert "held-out groups, expected 300" in capsys.readouterr().out
    stored = json.loads(out.read_text())
    controls = msgspec.convert(stored["controls"]["result"]["phantoms"], Crossval)
    assert [row.target for row in controls.targets] == ["lungs-only", "silhouette"]
    assert stored["hurdles"]["result"].keys() == {"boxed-equal"}
    assert {name: len(found) for name, found in stored["shortcut"]["result"].items()} == dict.fromkeys(
        ("auto", "true", "whole"), 1
    )
    table = honesty.lung_lines({"lungs.json": stored})
    assert TARGETS["silhouette"] in table and "boxed-equal" in table and "phantoms" in table
    assert (
        with_interval("dice", msgspec.convert(stored["dice"]["result"], SegmentationResult).scores["dice"]["mean mask"])
        in table
    )
    stored["dice"]["result"]["scores"]["dice"]["segmenter"]["value"] = 0.9
    assert "Dice 0.900, expected 0.93" in lungs.missed(stored)
    before = out.read_bytes()
    monkeypatch.setattr(lungs, "crossval", None)  # whoever measures again fails
    monkeypatch.setattr(lungs, "STUDIES", {})
    lungs.main(["--out", str(out)])
    assert out.read_bytes() == before


def test_the_honest_picture_has_a_bar_for_each_control_of_the_lungs_and_says_what_they_mean() -> None:
    results = document.all_results()
    of_lungs = dict(results["lungs.json"]["controls"]["result"]["shipped"])
    of_lungs["targets"] = [row for row in of_lungs["targets"] if row["target"] in ("lungs-only", "silhouette")]
    results = {name: one for name, one in results.items() if not name.endswith("two-controls.json")}
    without = honesty.honest_study(results, "two")
    assert "Shown the lungs alone" not in honesty.honest_sentences(results)
    results["0-crossval-two-controls.json"] = of_lungs
    study = honesty.honest_study(results, "two")
    assert [row.target for row in study.targets] == [
        *(row.target for row in without.targets if row.target != "external"), "lungs-only", "silhouette", "external",
    ]  # fmt: skip
    text = " ".join(honesty.honest_sentences(results).split())
    alone, outline = (honesty.interval_cell(study.target(name), "f1") for name in ("lungs-only", "silhouette"))
    meaning = honesty.OUTLINE_MEANINGS[beyond_outline(study.target("lungs-only"))]
    size = of_lungs["num_samples"]
    assert f"Shown the lungs alone ({size} films), networks score {alone}; shown their outline, without a pixel" in text
    assert f"{outline}: {meaning}." in text
    assert f"| lungs’ outline (n = {size}) | " in honesty.crossval_table(results)


def test_findings_are_measured_on_phantoms_known_half_unknown_and_permuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SIZE": 32, "HOLDOUT": 0.5}.items():
        monkeypatch.setattr(findings, name, value)
    monkeypatch.setattr(findings, "ConvertConfig", partial(ConvertConfig, workers=1))
    monkeypatch.setattr(findings, "EvaluateConfig", partial(EvaluateConfig, resamples=100, device="cpu"))
    small = partial(findings.study, patients=48, recipe=Recipe(epochs=1, device="cpu"))
    monkeypatch.setattr(findings, "study", small)
    assert findings.main(["--out", str(tmp_path / "findings.json")]) == 1
    printed = capsys.readouterr().out
    stored = json.loads((tmp_path / "findings.json").read_text())
    assert tuple(stored) == findings.STUDIES
    results = {name: msgspec.convert(one["result"], FindingsMetrics) for name, one in stored.items()}
    for name, result in results.items():
        assert result.names == list(PHANTOM_FINDINGS.values()) and result.synthetic
        known = [found.num_known for found in result.findings]
        if name == "half unknown":
            assert min(known) > 0 and max(known) < result.num_samples
            assert any(found.refused for found in result.findings)
        else:
            assert set(known) == {result.num_samples}
    present = [[found.num_present for found in results[name].findings] for name in ("known", "permuted")]
    assert present[0] != present[1]  # or else nothing was exchanged
    groups = results["permuted"].num_groups
    assert f"missed: permuted: {groups} held-out groups, expected 300" in printed
    assert all(f"missed: known: {name} " in printed for name in results["known"].names)  # one epoch teaches nothing


def test_permuted_patients_take_one_anothers_findings_whole(tmp_path: Path) -> None:
    names = list(PHANTOM_FINDINGS.values())
    patients = {f"p{number:02}": tuple(str(number >> place & 1) for place in range(len(names))) for number in range(24)}
    rows = [
        {"path": f"{patient}_{film}.png", "patient": patient} | dict(zip(names, values, strict=True))
        for patient, values in patients.items()
        for film in range(1 + int(patient[1:]) % 3)
    ]
    lines = [",".join(row.values()) for row in rows]
    results = []
    for seed in (0, 0, 1):
        (tmp_path / "t.csv").write_text("\n".join([",".join(rows[0]), *lines]))
        findings.permute_patients(tmp_path / "t.csv", seed)
        results.append(list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines())))
    assert results[0] == results[1] != results[2]
    for permuted in results:
        assert [(row["path"], row["patient"]) for row in permuted] == [(row["path"], row["patient"]) for row in rows]
        taken = {(row["patient"], tuple(row[name] for name in names)) for row in permuted}
        assert len(taken) == len(patients)  # all films of a patient have the same
        assert sorted(values for _, values in taken) == sorted(patients.values())
        assert len(taken & set(patients.items())) < len(patients) / 4


@pytest.mark.parametrize(
    ("changes", "groups", "expected"),
    [
        ({}, 300, []),
        ({"known": (0.95, 0.899, 0.95)}, 300, ["known: Nodule 0.899"]),
        ({"known": (0.95, 0.95, None)}, 300, ["known: Edema undefined"]),
        ({"half unknown": (0.9, 0.9, 0.95)}, 300, ["half unknown: the mean AUC falls by 0.033"]),
        ({"half unknown": (None,) * 3}, 300, [f"half unknown: {name} undefined" for name in NAMES]),
        ({"permuted": (0.41, None, 0.57)}, 300, ["permuted: Effusion 0.410", "permuted: Nodule undefined"]),
        ({"permuted": (0.5, 0.5, 0.59)}, 300, ["permuted: Edema 0.590"]),
        ({}, 299, ["permuted: 299 held-out groups, expected 300"]),
    ],
)
def test_what_findings_should_have_reached_and_did_not_is_named(
    changes: dict[str, tuple[float | None, ...]], groups: int, expected: list[str]
) -> None:
    sound = {"known": (0.9, 0.95, 1.0), "half unknown": (0.9, 0.9, 0.97), "permuted": (0.5, 0.43, 0.57)}
    _, plain = evaluated()
    found = {}
    for name, aucs in (sound | changes).items():
        measured = [auc for auc in aucs if auc is not None]
        mean = replace(plain.macro["auc"], value=statistics.mean(measured) if measured else None)
        results = [
            replace(one, estimates={} if auc is None else {"auc": replace(one.estimates["auc"], value=auc)})
            for one, auc in zip(plain.findings, aucs, strict=True)
        ]
        found[name] = replace(plain, findings=results, macro={"auc": mean}, num_groups=groups)
    assert findings.missed(found) == expected


def test_the_interval_is_students() -> None:
    differences = [0.01, -0.02, 0.003, 0.0, 0.01, -0.004, 0.02, -0.01, 0.005, 0.001]
    wanted = stats.t.interval(0.95, 9, statistics.mean(differences), stats.sem(differences))
    assert equivalence.student_interval(differences)[1:] == pytest.approx(wanted, rel=1e-12)


def test_trainings_in_three_ways_are_paired_stored_one_by_one_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"CROP": 32, "TRAINING": 32, "VALIDATION": 16, "HELD_OUT": 16, "MEANINGFUL": (0, 1), "CLOSE": 1.0}
    for name, value in (small | {"ConvertConfig": partial(ConvertConfig, workers=1)}).items():
        monkeypatch.setattr(equivalence, name, value)
    out, options = tmp_path / "found.json", ["--epochs", "2", "--work", str(tmp_path)]
    assert equivalence.main(["--out", str(out), "--seeds", "2", "--ways", "float32", *options]) == 1
    assert "0 of 2 seeds of bfloat16 and float32" in capsys.readouterr().out
    assert equivalence.main(["--out", str(out), "--seeds", "2", *options]) == 0
    stored = json.loads(out.read_text())
    assert {way: sorted(runs) for way, runs in stored["trainings"].items()} == {
        way: ["0", "1"] for way in equivalence.WAYS
    }
    assert capsys.readouterr().out.count("float32: {") == 0  # what is stored is not trained again
    auc = {way: [runs[seed]["auc"] for seed in "01"] for way, runs in stored["trainings"].items()}
    (row,) = (row for row in stored["differences"] if row["metric"] == "auc" and row["ways"] == ["float32", "plain"])
    assert row["mean"] == pytest.approx(np.mean(auc["float32"]) - np.mean(auc["plain"])) and row["seeds"] == 2
    monkeypatch.setattr(equivalence, "CLOSE", 0.0)
    assert any("points of AUC, expected within" in line for line in equivalence.missed(stored))


def test_each_training_is_validated_in_every_way_and_stored_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small: dict[str, Any] = {
        "PHANTOM_CROP": 32,
        "TRAINING": 32,
        "VALIDATION": 16,
        "HELD_OUT": 16,
        "FILM_CROP": 32,
        "FOLDS": 2,
    }
    small |= {"CLASSES": ("covid", "normal"), "ConvertConfig": partial(ConvertConfig, workers=1)}
    for name, value in small.items():
        monkeypatch.setattr(validation, name, value)
    monkeypatch.setattr(equivalence, "ConvertConfig", partial(ConvertConfig, workers=1))
    monkeypatch.setattr(validation, "data_folder", lambda: None)
    out, options = tmp_path / "found.json", ["--epochs", "5", "--seeds", "2", "--work", str(tmp_path / "work")]
    assert validation.main(["--out", str(out), *options]) == 2
    assert "lacking: films; set PLAINFILM_DATA" in capsys.readouterr().out
    films = write_phantoms(PhantomConfig(out=tmp_path / "films", patients=24, images_per_patient=1, size=64))
    films.rename(films.with_name("radiographs.csv"))
    monkeypatch.setattr(validation, "data_folder", lambda: films.parent)
    assert validation.main(["--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "phantoms, seed" not in printed  # what is stored is not trained again
    assert "| films | averaged | 2 | 0." in printed and "| films | averaged less running | held-out F1 | " in printed
    stored = json.loads(out.read_text())
    for name in validation.SETS:
        runs = stored["trainings"][name]
        assert sorted(runs) == ["0", "1"] and all(tuple(run["ways"]) == validation.WAYS for run in runs.values())
        jump = [run["ways"]["averaged"]["jump"] - run["ways"]["running"]["jump"] for run in runs.values()]
        (row,) = (
            row
            for row in stored["differences"]
            if (row["set"], row["way"], row["metric"]) == (name, "averaged", "jump")
        )
        assert row["mean"] == pytest.approx(np.mean(jump)) and row["seeds"] == 2
        for way in runs["0"]["ways"].values():
            curve = way["curve"]
            assert len(curve) == 5 and way["jump"] == pytest.approx(abs(curve[4] - curve[3]), abs=1e-3)
            assert way["best"] == pytest.approx(curve[way["best_epoch"] - 1], abs=1e-4)
            assert 0 <= way["cost"] < 1


def test_a_benchmarks_training_keeps_what_train_keeps_in_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equivalence, "ConvertConfig", partial(ConvertConfig, workers=1))
    betons = equivalence.draw(tmp_path, 32, 1.0, 40, 24, 16)
    found = validation.trained(betons, 3, 4)
    for way in validation.WAYS:
        recipe = Recipe(validate_with=way, epochs=4, device="cpu")
        loader = LoaderConfig(training=True, seed=3)
        summary = train(TrainConfig(data=betons, out=tmp_path / way, recipe=recipe, loader=loader))
        assert (summary.best_f1, summary.best_epoch) == (found[way]["best"], found[way]["best_epoch"])


def test_a_way_wins_by_films_held_out_on_every_set() -> None:
    def row(name: str, metric: str, low: float, high: float) -> dict[str, Any]:
        return {"set": name, "way": "averaged", "metric": metric, "low": low, "high": high}

    rows = [row("phantoms", "auc", 0.01, 0.02), row("films", "auc", -0.01, 0.02), row("films", "jump", -0.2, -0.1)]
    assert validation.winners(rows) == []
    assert validation.winners([*rows, row("films", "f1", 0.01, 0.02)]) == ["averaged"]
    assert validation.winners([*rows, row("films", "f1", 0.01, 0.02), row("phantoms", "f1", -0.2, -0.1)]) == []


def test_planted_copies_are_counted_by_kind_and_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"LIBRARY": 24, "PLANTED": 4, "STRANGERS": 4, "SIZES": (64,), "LARGE": (50,), "SEARCHED": 3}
    for name, value in small.items():
        monkeypatch.setattr(copies, name, value)
    monkeypatch.setattr(copies, "data_folder", lambda: None)
    monkeypatch.setattr(copies, "alone", lambda work, *arguments: work(*arguments))
    assert copies.main(["--out", str(tmp_path / "copies.json")]) == 0
    stored = json.loads((tmp_path / "copies.json").read_text())
    for way in ("frames", "looks"):
        found = stored["found"]["64"][way]["found"]
        assert found.pop("other") == {"phantom": [0, 4]} and found.pop("same-patient")["phantom"][1] == 2
        assert all(counts == {"phantom": [4, 4]} for counts in found.values())
    assert len(found) == len(copies.KINDS) + 1
    assert stored["privacy"]["phantom"]["ways"]["direct inverse"][1] < 0.3
    assert stored["search"]["50"][0] > 0


@pytest.mark.extras
def test_a_vision_language_model_is_measured_beside_the_recipe_and_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SIZE": 32, "PATIENTS": 40, "EPOCHS": 1, "FOLD_EPOCHS": 1}.items():
        monkeypatch.setattr(foundation, name, value)
    monkeypatch.setattr(foundation, "data_folder", lambda: None)
    out = tmp_path / "foundation.json"
    assert foundation.main(["--out", str(out)]) == 2  # no radiographs of patients
    text = foundation.foundation_lines({"foundation.json": json.loads(out.read_text())})
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        "cnn",
        "resnet18",
        "vlm:tiny-random-vl",
        "vlm:tiny-random-vl lora",
    ]
    assert all(cell != "–" for row in rows[4:] for cell in row) and "random weights" in text
    assert foundation.foundation_lines({}) == "Not measured."
