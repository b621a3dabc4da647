"""Values of findings: what cells say, what uncertain and empty ones become, and several rows of one film together."""

import functools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.cautions import Caution, caution
from loaders.config import BECOMES, CatalogConfig, Readers, parse_policy
from loaders.errors import ConfigError, InputError
from loaders.output import counted
from loaders.sources.entry import (
    ABSENT,
    PLACEHOLDERS,
    PRESENT,
    UNKNOWN,
    as_text,
    bare_words,
    spelling,
    without_decimals,
)

UNCERTAIN, BLANK, BESIDE = 3, 4, 5  # values in tables alone: uncertain; empty; empty beside No Finding
BECOME = {"present": PRESENT, "absent": ABSENT, "unknown": UNKNOWN}
WORDS = {
    PRESENT: "1 true t yes y present positive pos",
    ABSENT: "0 false f no n absent negative neg",
    UNCERTAIN: "-1 uncertain u ? equivocal indeterminate possible possibly unclear",
}
VALUES = {word: value for value, words in WORDS.items() for word in words.split()}
EMPTY = frozenset(("", "na", "n a", "nan", "nat", "null", "nil", "none"))  # what programs write for an empty cell
NO_FINDING = frozenset(("nofinding", "nofindings", "normal", "healthy"))  # in letters alone
OF_ONE_FINDING = (PRESENT, ABSENT, BESIDE, UNCERTAIN, UNKNOWN, BLANK)  # the first that several rows have is theirs
MOST_LISTED = 20  # findings in a caution
USUAL = {  # policies of public sets: Irvin et al. 2019, table 3, the best of these for each of five findings
    "chexpert": {
        "uncertain": {"Atelectasis": "present", "Cardiomegaly": "absent", "Edema": "present",
                      "Pleural Effusion": "present"},
        "blank": {"": "absent"},
    },
}  # fmt: skip


@functools.lru_cache(1 << 16)
def read_value(cell: str) -> int | None:
    """PRESENT, ABSENT, UNKNOWN (a word for it), UNCERTAIN or BLANK; None for a cell that is none of these."""
    text = spelling(as_text(cell)).replace("−", "-").replace(",", ".")  # 1,0 in tables with semicolons
    value = VALUES.get(without_decimals(text))
    if value is None and (words := bare_words(text)) in PLACEHOLDERS:
        return BLANK if words in EMPTY else UNKNOWN
    return value


def letters(name: str) -> str:
    """A name's letters and digits alone."""
    return "".join(filter(str.isalnum, name.casefold()))


def is_no_finding(name: str) -> bool:
    """Whether a column or label is No Finding: no finding itself, it says that the others are absent."""
    return letters(name) in NO_FINDING


# ---- names


def matching(name: str, options: Iterable[str]) -> list[str]:
    """The options of this name, but for case, blanks and decimals; if there are none, but for signs, too."""
    options = list(options)
    same = [option for option in options if spelling(option) == spelling(name)]
    return same or [option for option in options if letters(name) and letters(option) == letters(name)]


def check_once(table: Path, asked: Sequence[str], owned: Sequence[Iterable[Hashable]]) -> None:
    """Errors: ConfigError where two of the names asked for are one finding.  owned: what in the table each name is."""
    first: dict[Hashable, str] = {}
    for name, own in zip(asked, owned, strict=True):
        for one in own:
            if first.setdefault(one, name) != name:
                raise ConfigError(
                    f"--findings: found {first[one]} and {name}, which are one finding in {table}, expected each once; "
                    "leave one out"
                )


# ---- what uncertain and empty cells become


@dataclass(frozen=True, kw_only=True, slots=True)
class Policies:
    """What uncertain and blank cells become, each finding's: present, absent or unknown."""

    uncertain: dict[str, str]
    blank: dict[str, str]

    def settled(self, raw: bytes) -> bytes:
        """ABSENT, PRESENT or UNKNOWN for each finding.  raw: values as tables have them."""
        become = zip(raw, self.uncertain.values(), self.blank.values(), strict=True)
        return bytes(
            BECOME[uncertain] if value == UNCERTAIN
            else BECOME[blank] if value == BLANK
            else ABSENT if value == BESIDE
            else value
            for value, uncertain, blank in become
        )  # fmt: skip


def policies(names: Sequence[str], config: CatalogConfig) -> Policies:
    """The policies asked for, else the usual ones of the set, else unknown.

    Errors: ConfigError for a finding that there is not.
    """
    found, usual = dict[str, dict[str, str]](), USUAL.get(config.preset or "", {})
    new_of = {spelling(old): new.strip() for old, _, new in (pair.rpartition("=") for pair in config.map_label)}
    for flag in BECOMES:
        given = parse_policy(flag, getattr(config, flag))
        if lost := [name for name in given if name and not matching(name, names)]:
            raise ConfigError(
                f"--{flag}: found {lost[0]}={given[lost[0]]}, expected one of {', '.join(names)}; correct it"
            )
        if "" not in given:  # then what the set usually does holds for the other findings
            given = {new_of.get(spelling(one), one): value for one, value in usual.get(flag, {}).items()} | given
        own = {name: value for one, value in given.items() for name in matching(one, names)}
        found[flag] = {name: own.get(name, given.get("", "unknown")) for name in names}
    return Policies(**found)


def settle(raws: Iterable[bytes], decided: Policies) -> dict[bytes, bytes]:
    """Values as tables have them → ABSENT, PRESENT or UNKNOWN for each finding; equal ones are one object."""
    final = {raw: decided.settled(raw) for raw in set(raws) if raw}
    shared = {value: value for value in final.values()}
    return {raw: shared[value] for raw, value in final.items()}


def policy_cautions(raws: Iterable[bytes], decided: Policies) -> list[Caution]:
    """How many cells each policy decided.  raws: of the films that take part, as their table has them."""
    number_of = Counter(raws)
    cautions = []
    decisions = (("uncertain-cells", UNCERTAIN, decided.uncertain), ("blank-cells", BLANK, decided.blank))
    for code, value, policy in decisions:
        cells = {
            name: sum(number for raw, number in number_of.items() if raw[place] == value)
            for place, name in enumerate(policy)
        }
        if read := [f"{name} as {policy[name]} ({number:,})" for name, number in cells.items() if number]:
            more = [f"and {counted(len(read) - MOST_LISTED, 'other finding')}"] if len(read) > MOST_LISTED else []
            cautions.append(caution(code, cells=read[:MOST_LISTED] + more))
    if beside := sum(raw.count(BESIDE) * number for raw, number in number_of.items()):
        cautions.append(caution("no-finding-cells", cells=beside))
    return cautions


def policy_lines(uncertain: dict[str, str], blank: dict[str, str]) -> list[str]:
    """What became of uncertain and of empty cells of the table, a sentence each.  Each: finding → what it became."""
    lines = []
    for what, read_as in (("Uncertain values", uncertain), ("Empty cells", blank)):
        names = defaultdict[str, list[str]](list)
        for name, value in read_as.items():
            names[value].append(name)
        common = max(names, key=lambda value: len(names[value]), default="")
        others = [f"as {value} for {', '.join(names[value])}; otherwise " for value in names if value != common]
        if common:
            lines.append(f"{what} were read {''.join(others)}as {common}.")
    return lines


# ---- several rows of one film


def merge_findings(
    table: Path,
    told: Iterable[tuple[int, str, str, bytes]],
    names: Sequence[str],
    readers: Readers | None,
    decided: Policies,
) -> dict[str, bytes]:
    """Path → its findings.  told: line, path, reader, values as the table has them.

    Rows of a named reader are boxes of one reading, and others a reader each, as for labels of one column.  Readers are
    combined by finding over those who know it: present if any, more than half or all of them say so; half is unknown.
    Errors: InputError with the lines where rows contradict each other, and readers is None.
    """
    rows_of: dict[str, list[tuple[int, str, bytes]]] = defaultdict(list)
    for line, path, reader, raw in told:
        rows_of[path].append((line, reader, raw))
    merged = {}
    for path, rows in rows_of.items():
        if len({raw for _, _, raw in rows}) == 1:
            merged[path] = rows[0][2]
            continue
        opinions: dict[Any, tuple[int, bytes]] = {}
        for line, reader, raw in rows:
            first, before = opinions.get(reader or line, (line, raw))
            opinions[reader or line] = first, firsts(before, raw)
        if readers is None:
            merged[path] = agreed(table, path, list(opinions.values()), names)
        else:
            settled = [decided.settled(raw) for _, raw in opinions.values()]
            merged[path] = bytes(combined(values, readers) for values in zip(*settled, strict=True))
    return merged


def firsts(*raws: bytes) -> bytes:
    """One value for each finding from several rows of it."""
    return bytes(min(values, key=OF_ONE_FINDING.index) for values in zip(*raws, strict=True))


def agreed(table: Path, path: str, opinions: Sequence[tuple[int, bytes]], names: Sequence[str]) -> bytes:
    """What all rows say together.  Errors: InputError where a finding is present in one and absent in another."""
    for place, name in enumerate(names):
        line_of = {raw[place] == PRESENT: line for line, raw in opinions if raw[place] in (PRESENT, ABSENT, BESIDE)}
        if len(line_of) > 1:
            raise InputError(
                f"{table}: {as_text(path)} has {name} present (line {line_of[True]}) and absent (line "
                f"{line_of[False]}), expected one of both; correct a row, or combine readers by --readers any, "
                "majority or all"
            )
    return firsts(*(raw for _, raw in opinions))


def combined(values: Sequence[int], readers: Readers) -> int:
    """A finding of readers who differ."""
    known = [value for value in values if value != UNKNOWN]
    present = known.count(PRESENT)
    if not known or (readers == "majority" and 2 * present == len(known)):
        return UNKNOWN
    least = {"any": 1, "majority": len(known) / 2, "all": len(known)}[readers]
    return PRESENT if present >= least else ABSENT
