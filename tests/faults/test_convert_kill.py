"""kill -9 during convert: at random times and at named points, into a new folder or over an older conversion."""

import contextlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from engine.config import TrainConfig
from engine.train.leakage import open_loaders
from loaders.errors import InputError
from tests.faults import conversions
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.conversions import (
    KILL_AT,
    PATIENCE,
    PLANS,
    Plan,
    Setup,
    contents,
    different,
    left_behind,
    shared_memory,
    temporaries,
)

MISSED = "ended before its kill"  # at a random time: such an attempt is drawn again
POINTS = {
    "decode": "loaders.images.decode:decode_into_spool",
    "spool": "loaders.images.decode:write_frame",
    "page": "loaders.beton.writer:crc32c",
    "footer": "loaders.beton.writer:pack_footer",
    "verify": "loaders.beton.writer:verify_beton",
    "fsync": "os:fsync",
    "rename": "pathlib:Path.replace",
    "unlink": "pathlib:Path.unlink",
    "lock": "fcntl:flock",
}
KEY_POINTS = ("loaders.sources.patient_hash:secrets.token_hex", "os:fsync", "pathlib:Path.rename")
# each write of a beton, a table or a picture torn in the middle: pages, footer, allocation table, header; 0 tears none
TEAR = """
import contextlib, os, signal
import loaders.atomic_file, loaders.beton.writer
real, writes = loaders.atomic_file.publish, 0
class Torn:
    def __init__(self, file):
        self.file = file
    def __getattr__(self, name):
        return getattr(self.file, name)
    def write(self, data):
        global writes
        writes += 1
        if writes == {call}:
            part = memoryview(data).cast("B")
            self.file.write(part[: int(len(part) * {share})])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)
@contextlib.contextmanager
def torn(*arguments, **named):
    with real(*arguments, **named) as file:
        yield Torn(file)
loaders.atomic_file.publish = loaders.beton.writer.publish = torn
"""
# how often a conversion comes to each place, and how often it writes as TEAR counts it, written at its end
COUNT = (
    TEAR.format(call=0, share=0)
    + """
import atexit, importlib, json
from pathlib import Path
counts = dict.fromkeys({places!r}, 0)
def count(place):
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    inner = getattr(owner, name)
    def counting(*arguments, **named):
        counts[place] += 1
        return inner(*arguments, **named)
    setattr(owner, name, counting)
for place in counts:
    count(place)
atexit.register(lambda: Path({counts!r}).write_text(json.dumps(counts | dict(write=writes))))
"""
)
Calls = dict[str, int]  # place, or "write" → how often a conversion comes there
Prepared = tuple[Setup, dict[Plan, Calls]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """When a conversion is killed.  kind: in a word.  detail: in a few.  source: what plants it; "" for a time."""

    kind: str
    detail: str
    source: str = ""


def count_calls(setup: Setup, folder: Path) -> dict[Plan, Calls]:
    """How often an undisturbed conversion of each plan comes to each place, into a new folder.

    Errors: RuntimeError for a place where none comes, which no kill would meet.
    """
    places = (*POINTS.values(), *KEY_POINTS)

    def calls_of(plan: Plan, key: Path) -> Calls:
        place = Path(tempfile.mkdtemp(dir=folder))
        source = COUNT.format(places=places, counts=str(place / "counts"))
        ending = setup.server.run(plan.argv(setup, place / "out", key=key), before=source, timeout=PATIENCE)
        if ending.code:
            raise RuntimeError(f"a conversion to count by ended with {ending.code}: {ending.errors}")
        return json.loads((place / "counts").read_text())

    calls = {plan: calls_of(plan, setup.key) for plan in PLANS}
    making = calls_of(PLANS[0], folder / "keys" / "site.key")
    never = [place for place in (*POINTS.values(), "write") if not all(calls[plan][place] for plan in PLANS)]
    never += [place for place in KEY_POINTS if making[place] <= calls[PLANS[0]][place]]
    if never:
        raise RuntimeError(f"no conversion comes to {', '.join(never)}, expected each to; say where they are now")
    return calls


@contextlib.contextmanager
def prepare(folder: Path) -> Iterator[Prepared]:
    """Undisturbed conversions, and their calls."""
    with Setup(folder / "setup") as setup:
        yield setup, count_calls(setup, Path(tempfile.mkdtemp(dir=folder)))


def choose_fault(rng: random.Random, calls: Calls) -> Fault:
    """One of the named points, or a random time.  calls: of a conversion of this plan."""
    kind = rng.choice(["time", "time", "write", "write", "site key", *POINTS])
    if kind == "time":
        return Fault(kind=kind, detail="at a random time")
    if kind == "write":
        call, share = rng.randint(1, calls[kind]), round(rng.random(), 3)
        return Fault(kind=kind, detail=f"{share} into write {call}", source=TEAR.format(call=call, share=share))
    place, most = (rng.choice(KEY_POINTS), 1) if kind == "site key" else (POINTS[kind], calls[POINTS[kind]])
    call, after = rng.randint(1, most), rng.random() < 0.5
    detail = f"{'after' if after else 'before'} call {call} of {place}"
    return Fault(kind=kind, detail=detail, source=KILL_AT.format(place=place, call=call, after=after))


def neither(found: dict[str, bytes], old: dict[str, bytes], new: dict[str, bytes]) -> str:
    """Which file is neither the old one nor the new one, absence being either's state too; "" for none."""
    for name in sorted(old.keys() | new.keys()):
        if found.get(name) not in (old.get(name), new.get(name)):
            size = f"{len(found[name]):,} bytes" if name in found else "absent"
            return f"{name} is {size}, neither the old one nor the new one"
    return ""


def mistaken(out: Path, found: dict[str, bytes], conversions: list[dict[str, bytes]]) -> str:
    """Whether `train` takes betons of two conversions for one, or refuses those of one; "" if it does neither."""
    pair = ("train.beton", "val.beton")
    of_one = any(all(name in found and found[name] == files[name] for name in pair) for files in conversions)
    try:
        with contextlib.ExitStack() as stack:
            open_loaders(TrainConfig(data=out, out=out), stack)
    except InputError as error:
        return f"train refuses betons of one conversion: {error}" if of_one else ""
    return "" if of_one else "train accepts what is not of one conversion"


def choose_plans(rng: random.Random) -> tuple[Plan, Plan | None]:
    """The plan of the conversion that is killed, and of an older one in its folder; None for a new folder."""
    new, older = rng.sample(PLANS, 2)
    return new, older if rng.random() < 0.5 else None


def attempt(
    rng: random.Random, setup: Setup, calls: dict[Plan, Calls], folder: Path, defect: str
) -> tuple[str, str, str]:
    """Kill one conversion, check what it left, and run one again: its ending, what was done, which promise broke."""
    new, old = choose_plans(rng)
    fault = choose_fault(rng, calls[new])
    # two workers decode in processes of their own, where the first two points cannot be planted
    workers = 2 if fault.kind not in ("decode", "spool", "site key") and rng.random() < 1 / 12 else 1
    when = rng.uniform(0, 1.2) * setup.seconds * (4 if workers == 2 else 1)
    again = new if rng.random() < 0.75 else rng.choice(PLANS)
    own_key = fault.kind == "site key"  # a site's first conversion, which makes the key
    out, key = folder / "out", folder / "keys" / "site.key" if own_key else setup.key
    if old is not None:
        shutil.copytree(setup.reference(old), out)
    described = (
        f"{fault.detail}, {workers} workers, {f'over {old}' if old else 'into a new folder'}, {new}, then {again}"
    )
    shared = shared_memory()
    child = setup.server.start(new.argv(setup, out, key=key, workers=workers), before=defect + fault.source)
    if not fault.source:
        time.sleep(when)
        child.kill()
    ending = child.wait(PATIENCE)
    if ending.code not in (0, -9):
        return "", described, f"it ended with {ending.code}: {ending.errors[-300:]}"
    if not ending.code:
        return (MISSED, described, "") if not fault.source else ("", described, "it ended well, and never came there")
    found, conversions = contents(out), [setup.wanted[plan] for plan in (old, new) if plan]
    before_it = setup.wanted[old] if old else {}
    after_it = {} if own_key else setup.wanted[new]
    if wrong := neither(found, before_it, after_it) or mistaken(out, found, conversions):
        return "", described, wrong
    rerun = setup.server.run(again.argv(setup, out, key=key), timeout=PATIENCE, before=defect)
    if rerun.code:
        return "", described, f"the rerun ended with {rerun.code}: {rerun.errors[-300:]}"
    if left := left_behind(child.pid, shared):
        return "", described, left
    if kept := temporaries(folder):
        return "", described, f"the rerun left {', '.join(kept)}"
    if not own_key and (differ := different(contents(out), setup.wanted[again])):
        return "", described, f"after the rerun {differ}"
    kind = {"time": "killed at a random time", "write": "killed in a write"}.get(fault.kind, f"killed at {fault.kind}")
    return kind, described, ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], prepared: Prepared | None = None) -> Tally:
    """Kill and rerun `count` conversions.  prepared: what `prepare` gives; None to make it in folder."""
    tally = Tally()
    with contextlib.ExitStack() as stack:
        setup, calls = prepared or stack.enter_context(prepare(folder))
        for number in range(count):
            rng, place, outcome = random.Random(f"{seed}-{number}"), folder / f"{number:04}", MISSED
            while outcome == MISSED:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                outcome, described, broken = attempt(rng, setup, calls, place, "")
            if broken:
                tally.broke(f"seed {seed}, attempt {number}: killed {described}: {broken}")
            else:
                tally.held(outcome)
                shutil.rmtree(place)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="convert-kill",
    attack="kill -9 during `convert`: at random times; before and after decoding, spooling, page, footer, check, "
    "fsync, rename, unlink, lock and site key; in the middle of every write",
    holds="each file is the old one, the new one or absent; `train` refuses a mixture; a rerun gives the bytes of an "
    "undisturbed conversion and leaves no temporary file, process or shared memory",
    run=run,
    short=6,
    full=500,
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
STRAIGHT = """
import contextlib
import loaders.atomic_file, loaders.beton.writer
@contextlib.contextmanager
def straight(path, *arguments, **named):
    with open(path, "wb") as file:
        yield file
loaders.atomic_file.publish = loaders.beton.writer.publish = straight
"""
UNTIDY = """
import contextlib, secrets
import loaders.convert.convert
@contextlib.contextmanager
def untidy(out, size):
    spool = out / ("spool-" + secrets.token_hex(8) + loaders.convert.convert.SUFFIX)
    with spool.open("wb") as file:
        file.truncate(size)
    yield spool
    spool.unlink()
loaders.convert.convert.spool_file = untidy
"""
ORPHAN = "import subprocess\nsubprocess.Popen(['sleep', '30'])\n"

Attempt = Callable[..., str]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with prepare(tmp_path_factory.mktemp("prepared")) as prepared:
        yield prepared


@pytest.fixture
def broken_by(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Gives what makes one attempt with a fault of the product, and gives which promise broke."""

    def make(kill: str, product: str = "", *, over_old: bool = False) -> str:
        fault = Fault(kind="decode", detail="there", source=kill)  # of a kind for which one worker decodes
        monkeypatch.setattr(HERE, "choose_fault", lambda *given: fault)
        seed = next(seed for seed in itertools.count() if is_over_old(seed) == over_old)
        return attempt(random.Random(seed), *prepared, tmp_path, product)[2]

    return make


def is_over_old(seed: int) -> bool:
    return choose_plans(random.Random(seed))[1] is not None


def test_a_beton_that_is_written_in_place_is_noticed(broken_by: Attempt) -> None:
    broken = broken_by(TEAR.format(call=1, share=0.5), STRAIGHT)
    assert "train.beton" in broken and "neither the old one nor the new one" in broken


def test_a_mixture_of_two_conversions_that_train_accepts_is_noticed(
    broken_by: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HERE, "open_loaders", lambda *given: None)
    broken = broken_by(KILL_AT.format(place=POINTS["rename"], call=1, after=True), over_old=True)
    assert broken == "train accepts what is not of one conversion"


def test_a_temporary_file_that_a_rerun_leaves_is_noticed(broken_by: Attempt) -> None:
    assert "the rerun left spool-" in broken_by(KILL_AT.format(place=POINTS["page"], call=1, after=False), UNTIDY)


def test_a_process_that_outlives_its_conversion_is_noticed(broken_by: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "SECONDS_TO_CLEAR", 0.5)
    broken = broken_by(KILL_AT.format(place=POINTS["lock"], call=1, after=True), ORPHAN)
    assert broken.startswith("left behind: processes [")


def test_a_planted_kill_that_no_conversion_comes_to_is_noticed(broken_by: Attempt) -> None:
    assert broken_by(KILL_AT.format(place="os:truncate", call=1, after=False)) == "it ended well, and never came there"


def test_a_named_point_that_no_conversion_comes_to_is_an_error(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POINTS, "moved", "os:truncate")
    with pytest.raises(RuntimeError, match="no conversion comes to os:truncate"):
        count_calls(prepared[0], tmp_path)


def test_a_plan_without_held_out_radiographs_is_counted_apart(prepared: Prepared) -> None:
    _, calls = prepared
    first, *others = [calls[plan][POINTS["footer"]] for plan in PLANS]
    assert all(0 < first < other for other in others)


def test_every_promise_holds_under_attack(prepared: Prepared, tmp_path: Path) -> None:
    check_short_form(replace(CAMPAIGN, run=partial(run, prepared=prepared)), tmp_path)
