"""Mutated betons read in every way: rejected, or the same data, by readers that stay alive and within bounds."""

# N samples, S side of a stored frame

import contextlib
import faulthandler
import io
import itertools
import json
import logging
import random
import re
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import cli
from loaders.batches.loader import Loader
from loaders.beton.ffcv_fields import FieldReader
from loaders.beton.format import metadata_dtype
from loaders.beton.reader import Beton, beton_parts
from loaders.errors import BetonError, ConfigError
from loaders.sampling import epoch_matrices
from tests.faults.beton_layout import DESCRIPTOR, HEADER, Layout, data_of, facts_of, own_layout, reforged, with_facts
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import REPOSITORY, ForkServer
from tests.loaders.test_beton import write
from tests.loaders.test_ffcv_fields import FIELDS, make_beton, sample_values

SAMPLES, STORED, FOREIGN_SIDE = 5, 46, 12
# 22 attempts; 10,000 have more of "byte" than there are bytes of structure
SCHEDULE = (
    *("byte",) * 7, *("payload",) * 2, "padding", "cut", *("extreme",) * 2,
    *("forged byte",) * 2, "forged extreme", "forged facts",
    *("foreign byte",) * 3, "foreign extreme", "foreign cut",
)  # fmt: skip
EXTREMES = tuple(
    sorted({0, 1, 2, 255, 256, *(2**power + step for power in (15, 16, 21, 31, 32, 62, 63, 64) for step in (-1, 0, 1))})
)
HOSTILE = (
    None, True, -1, 0, 1, 47, 1 << 70, 1.5, float("nan"), "", "x", "\x1b[2J", "\ud800", "n" * 5000, [], [[]], [None],
    [1], ["a", "a"], {}, {"a": {}}, ["covid", "normal"] * 600,
)  # fmt: skip

# what verifying calls the parts that it can distinguish
NAMED_AS = {"metadata": "metadata", "footer": "footer", "table": "allocation table|its region of"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A mutated beton.

    done: what was done.  kind: of SCHEDULE.  place: what verifying must name it by; "" where several may be.
    """

    kind: str
    done: str
    content: bytes
    place: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A sound beton.  number_places: of every length, pointer and count, with its format of struct."""

    content: bytes
    layout: Layout
    number_places: tuple[tuple[int, str], ...]
    frames_NSS: np.ndarray
    labels_N: np.ndarray


# ---- originals


def own_original(folder: Path) -> Original:
    """Our own beton, written once."""
    path = folder / "own.beton"
    if not path.exists():
        write(path, SAMPLES, STORED)
    content = path.read_bytes()
    layout = own_layout(content, STORED)
    rows = [layout.metadata + sample * layout.row for sample in range(SAMPLES)]
    block, foot = layout.block, layout.footer
    places = [*number_places_of_header(), *((block + at, "<Q") for at in (8, 16))]
    places += [*((block + at, "<I") for at in (24, 28))]
    places += [*((foot + at, "<Q") for at in (8, 16)), (layout.table - 16, "<Q")]
    places += [(row + at, "<Q") for row in rows for at in (0, 8)] + list(number_places_of_table(layout))
    places += [(HEADER + 17 + 8 * side, "<Q") for side in (0, 1, 2, 31, 32)]
    return Original(content=content, layout=layout, number_places=tuple(places), **read_plainly(content))


def foreign_original(folder: Path) -> Original:
    """A beton as FFCV writes it, with fields of every kind."""
    path = folder / "foreign.beton"
    if not path.exists():
        samples = [sample_values(sample) | {"label": sample % 2} for sample in range(SAMPLES)]
        path.write_bytes(make_beton(FIELDS, samples))
    content = path.read_bytes()
    _, fields, page, samples, table = struct.unpack_from("<HHIQQ", content)
    metadata = HEADER + fields * DESCRIPTOR
    row = metadata_dtype(FIELDS).itemsize
    layout = Layout(
        fields=fields, samples=samples, page=page, metadata=metadata, row=row, pages=page, footer=table, table=table,
        end=len(content), side=FOREIGN_SIDE,
    )  # fmt: skip
    places = [*number_places_of_header(), *number_places_of_table(layout)]
    places += [(at, "<Q") for at in range(metadata, metadata + samples * row, 8)]
    for index, field in enumerate(FIELDS):
        if field.dtype is not None:
            start = HEADER + index * DESCRIPTOR + 17
            places += [(start + 8 * side, "<Q") for side in (0, 1, 2, 3, 31, 32)]
    return Original(content=content, layout=layout, number_places=tuple(places), **read_plainly(content))


def number_places_of_header() -> Iterator[tuple[int, str]]:
    """Version, fields, page size, samples and table."""
    yield from ((0, "<H"), (2, "<H"), (4, "<I"), (8, "<Q"), (16, "<Q"))


def number_places_of_table(layout: Layout) -> Iterator[tuple[int, str]]:
    """Sample, pointer and size of every row of the allocation table."""
    yield from ((at, "<Q") for at in range(layout.table, layout.end, 8))


def read_plainly(content: bytes) -> dict[str, np.ndarray]:
    """Frames and labels by the slow reading."""
    frames_NSS, labels_N = data_of(content)
    return {"frames_NSS": frames_NSS, "labels_N": labels_N}


# ---- mutants: a pure function of the seed and the attempt


class Mutator:
    """Makes mutants of two originals in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed, self.own, self.foreign = seed, own_original(folder), foreign_original(folder)

    def mutant(self, attempt: int) -> Mutant:
        """The mutant of an attempt."""
        rounds, place = divmod(attempt, len(SCHEDULE))
        kind = SCHEDULE[place]
        turn = rounds * SCHEDULE.count(kind) + SCHEDULE[:place].count(kind)  # earlier attempts of this kind
        rng = random.Random(f"{self.seed}-{attempt}")
        original = self.foreign if kind.startswith("foreign") else self.own
        while True:
            mutant = self._facts(kind, turn, rng) if kind == "forged facts" else self._drawn(original, kind, turn, rng)
            if mutant.content != original.content:  # else a number was set to what it was
                return mutant

    def _facts(self, kind: str, turn: int, rng: random.Random) -> Mutant:
        """Other facts in the footer: each of them in turn, and now and then all of them."""
        facts = facts_of(self.own.content, self.own.layout)
        name = sorted(facts)[turn % len(facts)]
        value = rng.choice(HOSTILE)
        if turn % 7 == 6:
            facts = rng.choice(
                (value, {}, [facts], facts | {"further": 1}, {name: facts[name]}, facts | {"footer_version": value})
            )
        else:
            facts[name] = value
        done, content = f"facts: {name} = {value!r}", with_facts(self.own.content, self.own.layout, facts)
        return Mutant(kind=kind, done=done[:120], content=content)

    def _drawn(self, original: Original, kind: str, turn: int, rng: random.Random) -> Mutant:
        """A mutant of any other kind."""
        content, layout, named = bytearray(original.content), original.layout, ""
        match kind.split()[-1]:
            case "byte":
                place = self._place(original, kind, turn)
                done = flip(content, place, rng.choice((1 << rng.randrange(8), rng.randrange(1, 256))))
                part = next(name for name, (begin, end) in layout.parts().items() if begin <= place < end)
                named = NAMED_AS.get(part, "") if kind == "byte" else ""
            case "payload":
                place = rng.randrange(SAMPLES * STORED**2)
                done = flip(content, layout.pages + place, 1 << rng.randrange(8))
                named = f"sample {place // STORED**2}:"
            case "padding":
                begin = layout.pages + SAMPLES * STORED**2
                gap = (range(layout.metadata + SAMPLES * 16, layout.pages), range(begin, layout.footer))[turn % 2]
                done = flip(content, rng.choice(gap), rng.randrange(1, 256))
                named = f"padding at bytes {gap.start} to {gap.stop} "
            case "cut":
                done = cut(content, layout, turn, rng)
            case _:
                done = extreme(content, original, turn, rng, forged=kind.startswith("forged"))
        if kind.startswith("forged"):
            content = reforged(content, layout)
        return Mutant(kind=kind, done=done, content=bytes(content), place=named)

    def _place(self, original: Original, kind: str, turn: int) -> int:
        """A byte of structure: every one of them in turn, a part after another."""
        order = places_of(f"{self.seed}-{kind}", tuple(original.layout.parts().values()))
        if kind.startswith("forged"):
            order = tuple(place for place in order if place not in original.layout.forged)
        return order[turn % len(order)]


@cache
def places_of(seed: str, spans: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Every byte of these spans in random order, by turns from each span, so that few attempts visit all spans."""
    decks = [list(range(begin, end)) for begin, end in spans]
    for index, deck in enumerate(decks):
        random.Random(f"{seed}-{index}").shuffle(deck)
    return tuple(place for turn in itertools.zip_longest(*decks) for place in turn if place is not None)


def flip(content: bytearray, place: int, mask: int) -> str:
    """Flip some bits of one byte."""
    content[place] ^= mask
    return f"byte {place} ^ {mask:#04x}"


def cut(content: bytearray, layout: Layout, turn: int, rng: random.Random) -> str:
    """Cut or lengthen the file at each boundary and a byte beside it; then anywhere."""
    edges = {edge for span in layout.parts().values() for edge in span}
    edges |= {layout.block, layout.pages, layout.pages + layout.side**2, layout.footer + 32, layout.table + 24}
    lengths = [edge + step for edge in sorted(edges) for step in (-1, 0, 1) if edge + step not in (-1, layout.end)]
    length = lengths[turn] if turn < len(lengths) else rng.randrange(layout.end)
    content[length:] = bytes(max(0, length - layout.end))
    return f"cut to {length} bytes" if length < layout.end else f"lengthened to {length} bytes"


def extreme(content: bytearray, original: Original, turn: int, rng: random.Random, *, forged: bool) -> str:
    """Set a number to an extreme, or to what wraps around at 2**64; forged: sometimes a pointer at both its places."""
    places = [place for place in original.number_places if not (forged and place[0] in original.layout.forged)]
    at, kind = places[turn % len(places)]
    (old,) = struct.unpack_from(kind, content, at)
    wide = 1 << 8 * struct.calcsize(kind)
    around = (old + 1, old - 1, 2 * old, -old, -old - 1, -(original.layout.side**2), old + wide // 2, old + (1 << 21))
    new = rng.choice((*EXTREMES, *around)) % wide
    struct.pack_into(kind, content, at, new)
    layout = original.layout
    if forged and rng.random() < 0.5:
        sample = rng.randrange(layout.samples)
        at = layout.table + 24 * sample + 8
        content[:] = original.content
        for place in (at, layout.metadata + layout.row * sample):
            struct.pack_into("<Q", content, place, new % 2**64)
        return f"both pointers of sample {sample} = {new}"
    return f"number at byte {at} = {new}"


# ---- attempts


IMPORTS = "import tests.faults.test_betons as m; m.load_kernels()"
# with a cache of its own: numba would take kernels without these checks from the usual one
CHECKED = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(REPOSITORY / ".pytest_cache" / "boundscheck")}
BATCH = 400  # attempts of one child
MEMORY = 1 << 30  # of address space beyond what a child begins with
SECONDS = 10  # of the processor that an attempt may take
PATIENCE = 200  # seconds that it may wait for something
COMMANDS_EVERY = 9  # attempts, one goes through the command line as well: each kind of SCHEDULE in its turn
# what a rejection may begin with after the file's name: the part that is wrong, or what cannot be there
PLACE = re.compile(
    r"0 bytes, |sample \d+: |fields? |field descriptors |header |format version |metadata |(the )?allocation table "
    r"|page|padding at |(one of )?the footer's |footer |no (plainfilm footer|fields|samples)|image is |label |labels "
    r"|frames of |a gap where a footer |positive class |a row has |written by a newer "
)


# ---- children


def load_kernels() -> None:
    """Compile what children need, so that they are forked with it; starts no thread."""
    parser = cli.make_parser()  # reads its own sources, which takes longer than a hundred betons
    cli.make_parser = lambda: parser
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "x.beton", 2)
        with Loader(Path(folder) / "x.beton", training=True) as loader:
            for inverse_N23 in (None, epoch_matrices(loader.config, 0, 2, loader.beton.facts.crop, loader.beton.side)):
                loader.make_batch(np.arange(2), inverse_N23)


def run_child(folder: Path, seed: int, first: int, last: int) -> None:
    """Attempt mutants, and print a line of JSON about each as it is done."""
    logging.disable()
    if sys.platform == "linux":  # which alone shows how much is in use, and obeys the limit
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    mutator = Mutator(folder, seed)
    path = folder / f"mutant-{first}.beton"
    for attempt in range(first, last):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nothing handles its signal: the child ends by it
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        mutant = mutator.mutant(attempt)
        path.write_bytes(mutant.content)
        try:
            ended, wrong = judge(path, mutant, mutator, commands=attempt % COMMANDS_EVERY == 0)
        except BaseException as error:  # noqa: BLE001 — whatever comes out is what is looked for
            ended, wrong = "", f"{type(error).__name__}: {error}"[:300]
        faulthandler.cancel_dump_traceback_later()
        if wrong:
            wrong = f"{mutant.kind}, {mutant.done}: {wrong}"
        sys.stdout.write(json.dumps({"attempt": attempt, "ended": ended, "wrong": wrong}) + "\n")
        sys.stdout.flush()
    path.unlink()


def judge(path: Path, mutant: Mutant, mutator: Mutator, *, commands: bool) -> tuple[str, str]:
    """Read a mutant in every way.  Gives what it ended as, and what is wrong or ""."""
    trust = mutant.kind.startswith("foreign")
    read = [
        accepted(path, lambda: verified(path, trust)),
        accepted(path, lambda: described(path)),
        *(accepted(path, lambda training=training: loaded(path, training, trust)) for training in (False, True)),
        accepted(path, lambda: fields_of(path)),
    ]
    vague = {message for message in read if isinstance(message, str) and not names_place(path, message)}
    if vague:
        return "", f"an error that does not name the file and the place in it: {sorted(vague)}"
    if isinstance(read[0], str) and not re.search(mutant.place, read[0]):
        return "", f"an error that does not name {mutant.place!r}: {read[0]}"
    if commands and (wrong := wrong_command(path, rejected=isinstance(read[0], str), trust=trust)):
        return "", wrong
    results = [result for result in (read[0], *read[2:4]) if not isinstance(result, str)]
    if not results:
        return "rejected", ""
    own = not mutant.kind.startswith(("forged", "foreign"))
    # else whatever the file says now; asked only here, since it must first have been accepted
    expected = (mutator.own.frames_NSS, mutator.own.labels_N) if own else data_of(mutant.content)
    for result in results:
        if not same(result, *expected):
            return "", "frames or labels that the file does not have"
    if own:
        passed = not isinstance(read[0], str) and mutant.content != mutator.own.content
        return "the same data", "verify passed a changed file" * passed
    if not isinstance(read[4], str) and not same(read[4], *expected):
        return "", "a field reader's frames or labels that the file does not have"
    return "read as it says", ""


def names_place(path: Path, message: str) -> bool:
    """Whether an error's message names the file, and then what is wrong in it."""
    _, named, place = message.partition(f"{path}: ")
    return bool(named and PLACE.match(place))


Data = tuple[np.ndarray, np.ndarray]  # uint8 frames or their crops, int64 labels


def accepted(path: Path, read: Callable[[], Data | None]) -> Data | str | None:
    """What is read, or the message of a beton that is rejected.  Any other error comes out."""
    try:
        return read()
    except BetonError as error:
        return str(error)


def verified(path: Path, trust: bool) -> Data:
    """Frames and labels of a beton that every check has passed."""
    with Beton(path, trust_unverified=trust) as beton:
        if beton.verified:
            beton.verify()
        else:
            with contextlib.suppress(ConfigError):
                beton.verify()
        return np.stack([beton.frame(sample) for sample in range(len(beton))]), beton.label_N


def described(path: Path) -> None:
    """What info reads."""
    with Beton(path, trust_unverified=True) as beton:
        beton_parts(path, beton)


def loaded(path: Path, training: bool, trust: bool) -> Data:
    """An epoch of batches: the crops as stored, where they are not turned."""
    with Loader(path, training=training, trust_unverified=trust, batch_size=4, threads=1) as loader:
        batches = list(loader)
        frames_N1HW = np.concatenate([batch[0] for batch in batches])
        labels_N, index_N = (np.concatenate([batch[part] for batch in batches]) for part in (1, 2))
        if training:  # turned: only that all are finite, and the labels
            assert np.isfinite(frames_N1HW).all() and abs(frames_N1HW).max() <= 1
            frames_NSS = np.stack([loader.beton.frame(sample) for sample in range(len(loader.beton))])
            return frames_NSS, labels_N[np.argsort(index_N)]
        return np.rint((frames_N1HW[:, 0] + 1) * 127.5).astype(np.uint8), labels_N


def fields_of(path: Path) -> Data | None:
    """Every value of every field; frames and labels, if it has such fields."""
    with FieldReader(path) as reader:
        values = {name: [reader.value(name, sample) for sample in range(min(64, len(reader)))] for name in reader.names}
    if not {"image", "label"} <= values.keys():
        return None
    return np.stack(values["image"]), np.array(values["label"])


def same(found: Data | None, frames_NSS: np.ndarray, labels_N: np.ndarray) -> bool:
    """Whether frames, or their central crops, and labels are these."""
    if found is None:
        return True
    margin = (frames_NSS.shape[-1] - found[0].shape[-1]) // 2
    stop = frames_NSS.shape[-1] - margin
    return np.array_equal(found[0], frames_NSS[:, margin:stop, margin:stop]) and np.array_equal(found[1], labels_N)


def wrong_command(path: Path, *, rejected: bool, trust: bool) -> str:
    """What is wrong with verify's and info's ends on the command line; or ""."""
    for command in ("verify", "info"):
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main([command, str(path)])
        may_be = {5} if rejected else {0, 2} if trust else {0}
        if command == "info":
            may_be = {0, 5} if rejected else {0}  # which reads no frame
        printed = errors.getvalue()
        if code not in may_be or (code and str(path) not in printed) or (code == 5 and not names_place(path, printed)):
            return f"{command}: exit {code}, expected one of {may_be} and the place: {printed[-200:]!r}"
    return ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """defect: Python source that each child runs first, where a test breaks the product."""
    tally, done = Tally(), 0
    own_original(folder), foreign_original(folder)
    before = {path: path.read_bytes() for path in folder.glob("*.beton")}
    with ForkServer(folder / "children", environment=CHECKED, imports=IMPORTS) as server:
        while done < count:
            last = min(count, done + BATCH)
            call = f"run_child(Path({str(folder)!r}), {seed}, {done}, {last})"
            call = f"{defect}\nfrom pathlib import Path\nfrom tests.faults.test_betons import run_child\n{call}"
            ending = server.run(before=call, timeout=PATIENCE * (last - done))
            lines = [line for line in ending.output.splitlines() if line.startswith("{") and line.endswith("}")]
            for line in map(json.loads, lines):
                if line["wrong"]:
                    tally.broke(f"{line['wrong']} (seed {seed}, attempt {line['attempt']})")
                else:
                    tally.held(line["ended"])
                advance()
            done += len(lines)
            if done < last:
                how = f"the reader ended with {ending.code} (seed {seed}, attempt {done})"
                tally.broke(f"{how}: {ending.errors[-400:]!r}")
                advance()
                done += 1
    if before != {path: path.read_bytes() for path in before}:
        tally.broke(f"an original has changed (seed {seed})")
    return tally


CAMPAIGN = Campaign(
    name="betons",
    attack="mutated betons: each byte of our header, descriptors, tables and footer, a sample of a foreign beton's and "
    "of forged ones; payload bits; cuts at every boundary; extreme numbers, wrap-around at 2⁶⁴; checksums as they "
    "were, or forged to fit",
    holds="rejected, the file and the place in it named (one attempt in nine on the command line, too: exit 5), or the "
    "same data; forged and foreign: read as the bytes say; 1 GiB and 10 s of a core at most; no access out of bounds "
    "(NUMBA_BOUNDSCHECK=1)",
    run=run,
    short=154,
    full=10_000,
)


# ---- what the campaign notices


DAMAGED = "BetonMap.bad = lambda beton, what: type(bad(beton, what))(f'{beton.path}: damaged, expected sound')"
ELSEWHERE = "BetonMap.bad = lambda beton, what: bad(beton, what.replace('sample ', 'sample 1'))"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("Beton.check_samples = lambda *given: None", "payload, .*: frames or labels that the file does not have"),
        ("import os; Beton.verify = lambda *given: os.abort()", "the reader ended with -6"),
        (DAMAGED, "does not name the file and the place in it"),
        (ELSEWHERE, "payload, .*: an error that does not name 'sample"),
        ("import cli; cli.main = lambda argv: 0", r"verify: exit 0, expected one of \{5\}"),
    ],
    ids=["no checksum", "a crash", "no place", "another place", "the command line"],
)
def test_a_planted_fault_is_counted_as_broken(fault: str, expected: str, tmp_path: Path) -> None:
    advanced: list[None] = []
    count = len(SCHEDULE)
    tally = run(
        count,
        0,
        tmp_path,
        lambda: advanced.append(None),
        "from loaders.beton.map import BetonMap; from loaders.beton.reader import Beton; bad = BetonMap.bad; " + fault,
    )
    assert len(advanced) == count == tally.attempts
    assert tally.failures and any(re.search(expected, failure) for failure in tally.failures), tally.failures


def test_children_have_kernels_that_check_bounds(tmp_path: Path) -> None:
    beyond = (
        "import numpy as np; from kernels.crops import crop_into\n"
        "crop_into(np.zeros((1, 1, 2, 2), np.float32), np.zeros(16, np.uint8), np.array([100]), 4)"
    )
    with ForkServer(tmp_path / "children", environment=CHECKED, imports=IMPORTS) as server:
        assert "IndexError" in server.run(before=beyond).errors


def test_every_byte_of_structure_is_changed_by_the_full_count(tmp_path: Path) -> None:
    spans = tuple(own_original(tmp_path).layout.parts().values())
    places = places_of("0-byte", spans)
    assert set(places) == {place for begin, end in spans for place in range(begin, end)}
    assert len(places) <= CAMPAIGN.full // len(SCHEDULE) * SCHEDULE.count("byte")


def test_every_kind_goes_through_the_command_line() -> None:
    turns = len(SCHEDULE) * COMMANDS_EVERY
    assert {attempt % len(SCHEDULE) for attempt in range(0, turns, COMMANDS_EVERY)} == set(range(len(SCHEDULE)))


def test_a_mutant_is_a_function_of_seed_and_attempt(tmp_path: Path) -> None:
    first, second = Mutator(tmp_path, 3), Mutator(tmp_path, 3)
    for attempt in range(2 * len(SCHEDULE)):
        assert first.mutant(attempt) == second.mutant(attempt)


def test_a_mutant_is_never_its_original(tmp_path: Path) -> None:
    mutator = Mutator(tmp_path, 3)
    for attempt in range(20 * len(SCHEDULE)):
        mutant = mutator.mutant(attempt)
        original = mutator.foreign if mutant.kind.startswith("foreign") else mutator.own
        assert mutant.content != original.content, mutant.done


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
