"""Presets: the layouts of common public sets as distributed, read as entries of the catalog.

Labels mean the same in each set: covid, normal and pneumonia, and what is neither of these by its own name.
"""

# N entries that take part

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loaders.config import Readers
from loaders.errors import InputError
from loaders.sources.entry import EXCLUDED, Entry, files_below, is_image, kind_aside, left_out
from loaders.sources.folder_sets import (
    Found,
    Paths,
    kaggle_pneumonia_entries,
    qu_ex_entries,
    radiography_entries,
)
from loaders.sources.split import group_by, known_patients, split_groups
from loaders.sources.table_sets import (
    NIH_TEST,
    chestxray_entries,
    nih_entries,
    rsna_entries,
    siim_entries,
    vindr_entries,
)


def preset_entries(source: Path, preset: str, readers: Readers | None = None) -> Found:
    """Every radiograph of a public set, sorted by path, and every other image of its tree with why it is excluded.

    readers: how those of vindr are combined, by majority unless said.
    Errors: InputError when a file that the layout needs is missing or not as expected; StorageError.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected the folder of {preset}; check the path")
    listed = list(files_below(source))
    paths = [path for path in listed if not kind_aside(path)]
    if preset == "vindr":
        entries, cautions = vindr_entries(source, paths, readers or "majority")
    else:
        entries, cautions = READERS[preset](source, paths)
    aside = [(path, kind) for path in listed if is_image(path) and (kind := kind_aside(path))]
    entries += [left_out(path, kind, EXCLUDED[kind]) for path, kind in aside]
    return sorted(entries, key=lambda entry: entry.path), cautions


def check_whole_patients(source: Path, entries: Sequence[Entry]) -> None:
    """Errors: InputError where test_list.txt has some images of a patient and not others."""
    taking_part = [entry for entry in entries if not entry.excluded]
    listed = {entry.patient: entry.path for entry in taking_part if entry.split}
    for entry in taking_part:
        if not entry.split and entry.patient and entry.patient in listed:
            raise InputError(
                f"{source}/{NIH_TEST}: has {listed[entry.patient]} and not {entry.path} of the same patient, "
                "expected whole patients; use the list of the original set"
            )


def split_rest(given: Sequence[Entry], val: float, seed: int) -> tuple[Entry, ...]:
    """Where only the held-out share is named, by test_list.txt or a folder, split the rest by whole patients.

    given: a set's entries in order; those without a split become train and val.  val, seed: of the conversion.
    Errors: InputError for too few patients.
    """
    entries = list(given)
    taking_part = [place for place, entry in enumerate(entries) if not entry.excluded]
    places = [place for place in taking_part if not entries[place].split]
    if not places or len(places) == len(taking_part):
        return tuple(entries)
    labels = [entries[place].label for place in places]
    classes = sorted(set(labels))
    patients, _ = known_patients([entries[place].patient for place in places])
    group_N = group_by([patient or None for patient in patients])
    label_N = np.array([classes.index(label) for label in labels])
    shares = {"train": 1 - val, "val": val}
    for place, split in zip(places, split_groups(group_N, label_N, shares, seed, classes), strict=True):
        entries[place] = replace(entries[place], split=split)
    return tuple(entries)


READERS: dict[str, Callable[[Path, Paths], Found]] = {
    "covid-radiography": radiography_entries,
    "covid-qu-ex": qu_ex_entries,
    "covid-chestxray": chestxray_entries,
    "nih": nih_entries,
    "rsna": rsna_entries,
    "siim": siim_entries,
    "vindr": vindr_entries,
    "kaggle-pneumonia": kaggle_pneumonia_entries,
}
