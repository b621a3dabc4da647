"""kill -9 during convert: at random times and at named points, into a new folder or over an older conversion."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.config import TrainConfig
from engine.learning_sets import open_loaders
from loaders.errors import InputError
from tests.faults.conversions import (
    KILL_AT,
    PATIENCE,
    PLANS,
    Material,
    contents,
    different,
    left_behind,
    shared_memory,
    temporaries,
)
from tests.faults.tally import Campaign, Tally

# point: the function, and how often a conversion calls it at most
POINTS = {
    "decode": ("loaders.spool:decode_into_spool", 24),
    "spool": ("loaders.spool:write_frame", 24),
    "page": ("loaders.beton_writer:crc32c", 24),
    "footer": ("loaders.beton_writer:pack_footer", 3),
    "verify": ("loaders.beton_writer:verify_beton", 3),
    "fsync": ("os:fsync", 12),
    "rename": ("pathlib:Path.replace", 6),
    "unlink": ("pathlib:Path.unlink", 3),
    "lock": ("fcntl:flock", 1),
}
KEY_POINTS = ("loaders.site_key:secrets.token_hex", "os:fsync", "pathlib:Path.rename")
# each write of a beton, a table or a picture torn in the middle: pages, footer, allocation table, header
TEAR = """
import contextlib, os, signal
import loaders.atomic_file, loaders.beton_writer
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
loaders.atomic_file.publish = loaders.beton_writer.publish = torn
"""
WRITES = 15  # of a conversion with three betons, a table and two pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """When a conversion is killed.  kind: in a word.  detail: in words.  source: what plants it; "" for a time."""

    kind: str
    detail: str
    source: str = ""


def choose_fault(rng: random.Random) -> Fault:
    """One of the named points, or a random time."""
    kind = rng.choice(["time", "time", "write", "write", "site key", *POINTS])
    if kind == "time":
        return Fault(kind=kind, detail="at a random time")
    if kind == "write":
        call, share = rng.randint(1, WRITES), round(rng.random(), 3)
        return Fault(kind=kind, detail=f"{share} into write {call}", source=TEAR.format(call=call, share=share))
    place, most = (rng.choice(KEY_POINTS), 1) if kind == "site key" else POINTS[kind]
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


def attempt(rng: random.Random, material: Material, folder: Path, before: str) -> tuple[str, str, str]:
    """Kill one conversion, look at what it left, and run one again: its ending, what was done, which promise broke."""
    fault = choose_fault(rng)
    new, older = rng.sample(PLANS, 2)
    old = older if rng.random() < 0.5 else None
    # two workers decode in processes of their own, where the first two points cannot be planted
    workers = 2 if fault.kind not in ("decode", "spool", "site key") and rng.random() < 1 / 12 else 1
    when = rng.uniform(0, 1.2) * material.seconds * (4 if workers == 2 else 1)
    again = new if rng.random() < 0.75 else rng.choice(PLANS)
    own_key = fault.kind == "site key"  # a site's first conversion, which makes the key
    out, key = folder / "out", folder / "keys" / "site.key" if own_key else material.key
    if old is not None:
        shutil.copytree(material.reference(old), out)
    told = f"{fault.detail}, {workers} workers, {f'over {old}' if old else 'into a new folder'}, {new}, then {again}"
    shared = shared_memory()
    victim = material.nursery.start(new.argv(material, out, key=key, workers=workers), before=before + fault.source)
    if not fault.source:
        time.sleep(when)
        victim.kill()
    ending = victim.wait(PATIENCE)
    if ending.code not in (0, -9):
        return "", told, f"it ended with {ending.code}: {ending.errors[-300:]}"
    found, conversions = contents(out), [material.wanted[plan] for plan in (old, new) if plan]
    before_it = material.wanted[old] if old else {}
    after_it = {} if own_key else material.wanted[new]
    wrong = neither(found, before_it, after_it) or mistaken(out, found, conversions)
    if wrong and not (own_key and not ending.code):  # a whole conversion under a key of its own has other bytes
        return "", told, wrong
    rerun = material.nursery.run(again.argv(material, out, key=key), timeout=PATIENCE, before=before)
    if rerun.code:
        return "", told, f"the rerun ended with {rerun.code}: {rerun.errors[-300:]}"
    if left := left_behind(victim.pid, shared):
        return "", told, left
    if left := temporaries(folder):
        return "", told, f"the rerun left {', '.join(left)}"
    if not own_key and (differ := different(contents(out), material.wanted[again])):
        return "", told, f"after the rerun {differ}"
    kind = {"time": "killed at a random time", "write": "killed in a write"}.get(fault.kind, f"killed at {fault.kind}")
    return kind if ending.code else "ended before its kill", told, ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], before: str = "") -> Tally:
    """Kill and rerun `count` conversions.  before: a fault of the product to plant in each, to test this campaign."""
    tally = Tally()
    with Material(folder / "material") as material:
        for number in range(count):
            place = folder / f"{number:04}"
            place.mkdir()
            outcome, told, broken = attempt(random.Random(f"{seed}-{number}"), material, place, before)
            if broken:
                tally.broke(f"seed {seed}, attempt {number}: killed {told}: {broken}")
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
