"""Mutated betons read in every way: rejected, or the same data, by readers that stay alive and within bounds."""

# N samples, S side of a stored frame

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import cli
from loaders.batches.loader import Loader
from loaders.beton.ffcv_fields import FieldReader
from loaders.beton.reader import Beton, beton_parts
from loaders.errors import BetonError, ConfigError
from loaders.sampling import epoch_matrices
from tests.faults.beton_layout import said
from tests.faults.beton_mutants import Mutant, Mutator, foreign_original, own_original
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import REPOSITORY, Nursery
from tests.loaders.test_beton import write

IMPORTS = "import tests.faults.beton_mutations as m; m.load_kernels()"
# with a cache of its own: numba would take kernels without these checks from the usual one
CHECKED = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(REPOSITORY / ".pytest_cache" / "boundscheck")}
BATCH = 400  # attempts of one victim
MEMORY = 1 << 30  # of address space beyond what a victim begins with
SECONDS = 10  # of the processor that an attempt may take
PATIENCE = 200  # seconds that it may wait for something
COMMANDS_EVERY = 9  # attempts, one goes through the command line as well: each kind of SCHEDULE in its turn
# what a rejection may begin with after the file's name: the part that is wrong, or what cannot be there
PLACE = re.compile(
    r"0 bytes, |sample \d+: |fields? |field descriptors |header |format version |metadata |(the )?allocation table "
    r"|page|padding at |(one of )?the footer's |footer |no (plainfilm footer|fields|samples)|image is |label |labels "
    r"|frames of |a gap where a footer |positive class |a row has "
)


# ---- victims


def load_kernels() -> None:
    """Compile what victims need, so that they are forked with it; starts no thread."""
    parser = cli.make_parser()  # reads its own sources, which takes longer than a hundred betons
    cli.make_parser = lambda: parser
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "x.beton", 2)
        with Loader(Path(folder) / "x.beton", training=True) as loader:
            for inverse_N23 in (None, epoch_matrices(loader.config, 0, 2, loader.beton.facts.crop, loader.beton.side)):
                loader.make_batch(np.arange(2), inverse_N23)


def be_victim(folder: Path, seed: int, first: int, last: int) -> None:
    """Attempt mutants, and print a line of JSON about each as it is done."""
    logging.disable()
    if sys.platform == "linux":  # which alone tells how much is in use, and obeys the limit
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    mutator = Mutator(folder, seed)
    path = folder / f"mutant-{first}.beton"
    for attempt in range(first, last):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nothing handles its signal: the victim ends by it
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        mutant = mutator.mutant(attempt)
        path.write_bytes(mutant.content)
        try:
            ended, wrong = judge(path, mutant, mutator, commands=attempt % COMMANDS_EVERY == 0)
        except BaseException as error:  # noqa: BLE001 — whatever comes out is what is looked for
            ended, wrong = "", f"{type(error).__name__}: {error}"[:300]
        faulthandler.cancel_dump_traceback_later()
        if wrong:
            wrong = f"{mutant.kind}, {mutant.words}: {wrong}"
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
    told = {message for message in read if isinstance(message, str) and not names_place(path, message)}
    if told:
        return "", f"an error that does not name the file and the place in it: {sorted(told)}"
    if isinstance(read[0], str) and not re.search(mutant.place, read[0]):
        return "", f"an error that does not name {mutant.place!r}: {read[0]}"
    if commands and (wrong := wrong_command(path, rejected=isinstance(read[0], str), trust=trust)):
        return "", wrong
    results = [result for result in (read[0], *read[2:4]) if not isinstance(result, str)]
    if not results:
        return "rejected", ""
    own = not mutant.kind.startswith(("forged", "foreign"))
    # else whatever the file says now; asked only here, since it must first have been accepted
    expected = (mutator.own.frames_NSS, mutator.own.labels_N) if own else said(mutant.content)
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
        said = errors.getvalue()
        if code not in may_be or (code and str(path) not in said) or (code == 5 and not names_place(path, said)):
            return f"{command}: exit {code}, expected one of {may_be} and the place: {said[-200:]!r}"
    return ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """defect: Python source that each victim runs first, where a test breaks the product."""
    tally, done = Tally(), 0
    own_original(folder), foreign_original(folder)
    before = {path: path.read_bytes() for path in folder.glob("*.beton")}
    with Nursery(folder / "victims", environment=CHECKED, imports=IMPORTS) as nursery:
        while done < count:
            last = min(count, done + BATCH)
            call = f"be_victim(Path({str(folder)!r}), {seed}, {done}, {last})"
            call = f"{defect}\nfrom pathlib import Path\nfrom tests.faults.beton_mutations import be_victim\n{call}"
            ending = nursery.run(before=call, timeout=PATIENCE * (last - done))
            told = [line for line in ending.output.splitlines() if line.startswith("{") and line.endswith("}")]
            for line in map(json.loads, told):
                if line["wrong"]:
                    tally.broke(f"{line['wrong']} (seed {seed}, attempt {line['attempt']})")
                else:
                    tally.held(line["ended"])
                advance()
            done += len(told)
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
