"""The runner of campaigns: what was done is written at once, what was not is not green, and no process outlives it."""

import inspect
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.faults import __main__ as runner
from tests.faults.campaign import Campaign, Tally
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.processes import ForkServer
from tests.faults.toys import crashed, cut_short, fails, fewer, interrupts_its_runner, meets, sound


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches this process and its children, which in the background of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    until = time.monotonic() + 10
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not runs(pid)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("late", [0.0, 1.0])
def test_a_server_that_ctrl_c_ends_takes_its_children_along(tmp_path: Path, late: float) -> None:
    """late: seconds until a child has a session of its own."""
    imports = f"import os, time; setsid = os.setsid; os.setsid = lambda: (time.sleep({late}), setsid())"
    with ForkServer(tmp_path / "children", imports=imports) as server:
        child = server.start(before="import time\ntime.sleep(60)")
        os.kill(server._process.pid, signal.SIGINT)
        assert ends(child.pid)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_child_is_born_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "forked.py").write_text(f"""
import os, signal, time
from pathlib import Path

forked = Path({str(tmp_path / "forked")!r})

def interrupt():
    while not forked.exists() or not forked.read_text():
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)

os.setsid()
os.register_at_fork(after_in_child=lambda: forked.write_text(str(os.getpid())), after_in_parent=interrupt)
""")
    imports = f"exec(open({str(tmp_path / 'forked.py')!r}).read(), {{}})"
    with (
        ForkServer(tmp_path / "children", imports=imports) as server,
        pytest.raises(RuntimeError, match="ended with 0"),
    ):
        server.start(before="import time\ntime.sleep(60)").wait(timeout=5)
    assert ends(int((tmp_path / "forked").read_text()))


# ---- the runner


@pytest.fixture
def campaigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives what sets other campaigns, named a, b and so on by what they run; results and page lie in tmp_path."""

    def put(*runs: Callable[..., Tally], in_seconds: bool = False) -> None:
        made = tuple(
            Campaign(name=name, attack="x", holds="y", run=run, short=1, full=2, in_seconds=in_seconds)
            for name, run in zip("abc", runs, strict=False)
        )
        monkeypatch.setattr(runner, "CAMPAIGNS", made)

    (tmp_path / "page.md").write_text(f"# Page\n{runner.BEGIN}\n{runner.END}\nend\n")
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(runner, "PAGE", tmp_path / "page.md")
    return put


def test_fewer_attempts_than_asked_for_are_not_green(
    campaigns: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    campaigns(fewer)
    assert runner.main(["--count", "3"]) == 1
    assert "2 attempts, expected 3" in capsys.readouterr().out
    campaigns(fewer, in_seconds=True)
    assert runner.main(["--count", "3"]) == 0  # any number of attempts in three seconds
    assert runner.main(["--count", "1"]) == 1  # but none


def test_an_exception_in_a_campaign_is_counted_as_broken_and_the_next_one_runs(
    campaigns: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaigns(fails, sound)
    assert runner.main(["--document", "--jobs", "1"]) == 1
    assert "KeyError: 'planted'" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["a"]["failures"]) == 1 and "Traceback" in results["a"]["failures"][0]
    assert results["b"]["attempts"] == 2 and results["a"]["commit"] == results["b"]["commit"]


@pytest.mark.usefixtures("interruptible")
def test_a_campaign_whose_process_dies_is_counted_as_broken_and_leaves_no_folder(
    campaigns: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {*tmp_path.iterdir(), tmp_path / "child"}
    campaigns(crashed, cut_short, sound)
    assert runner.main([]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("the campaign's process ended with -9") == 2 and "c held in 2 attempts" in printed
    assert set(tmp_path.iterdir()) == before
    assert ends(int((tmp_path / "child").read_text()))


def test_campaigns_run_side_by_side_in_as_many_jobs_as_asked_for(
    campaigns: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaigns(meets, meets)
    for jobs, status in (("2", 0), ("1", 1)):
        (tmp_path / jobs).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / jobs))
        assert runner.main(["--jobs", jobs]) == status
    with pytest.raises(SystemExit):
        runner.main(["--jobs", "0"])


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_lets_campaigns_clean_up_and_keeps_what_was_done_before(
    campaigns: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    campaigns(sound, interrupts_its_runner, sound)
    (tmp_path / "results.json").write_text(json.dumps({"a name of old": {}}))
    assert runner.main(["--document", "--jobs", "1"]) == 130
    (left,) = (tmp_path / "tmp").iterdir()
    assert left.name == "cleaned-up" and ends(int(left.read_text()))
    assert json.loads((tmp_path / "results.json").read_text()).keys() == {"a"}
    page = (tmp_path / "page.md").read_text()
    assert "(`a`) | y | 2 | 2 as promised | 0 |" in page and "(`b`) | y | not run |" in page and page.endswith("end\n")


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_each_campaigns_short_form_is_a_test(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Campaign] = []
    tests = sys.modules[campaign.run.__module__]
    monkeypatch.setattr(tests, "check_short_form", lambda campaign, folder: checked.append(campaign))
    arguments = inspect.signature(tests.test_every_promise_holds_under_attack).parameters
    tests.test_every_promise_holds_under_attack(**dict.fromkeys(arguments, monkeypatch))
    (found,) = checked  # which may be given what its file has prepared
    assert replace(found, run=found.run.func if isinstance(found.run, partial) else found.run) == campaign


def test_every_campaign_can_be_named_as_one_argument() -> None:
    names = [campaign.name for campaign in CAMPAIGNS]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)
