"""Folders without a preset: which of them are classes, and which are splits, masks, or around all others."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from loaders.cautions import Caution, caution
from loaders.errors import InputError
from loaders.images.files import SUFFIXES
from loaders.sources.entry import (
    EXCLUDED,
    SPLIT_NAMES,
    Entry,
    files_below,
    is_image,
    kind_aside,
    looks_healthy,
    may_be_picture,
)
from loaders.sources.presets import set_of_folders, set_of_table

OF_SET = re.compile(r"[ _-]?(set|data|images)$")  # train_set, test-images
MASKS = re.compile(r".*(masks?|segmentations?|annotations?)", re.IGNORECASE)
MASK_FILE = re.compile(r"(.*[^/])[ _-](?:mask|segmentation|seg)\.\w+", re.IGNORECASE)
# folders of patients, studies, DICOM's identifiers, or mere parts of a set (MIMIC's p10): none says what is on a film
NO_CLASS = re.compile(
    r"(patient|pat|subject|subj|sub|case|study|series|fold|part|batch|images?|imgs?)[ _-]?\d+"
    r"|p1\d|[a-z]{0,3}[ _-]?\d{4,}|\d+(\.\d+){3,}|[\da-f]{8}-?([\da-f]{4}-?){3}[\da-f]{12}",
    re.IGNORECASE,
)
FINDING = re.compile(  # a folder of one of these names is a class, though it be alone
    r"covid([ _-]?19)?|((viral|bacterial)[ _-])?pneumonia|tuberculosis|tb|pneumothorax|lung[ _-]opacity", re.IGNORECASE
)
MANY_FOLDERS, FEW_FILMS = 20, 3  # so many folders with fewer films each are no classes
SYNTHETIC, PHANTOM_TABLE = "synthetic", "phantoms.csv"
MOST_NAMED = 3  # folders in a message

Folders = tuple[str, ...]  # above a file, from the top


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the folders of the classes lie.

    above: folders that hold all others.  doubled: folders that hold only one of their own name.  class_at, split_at:
    how many folders lie above, once these are left out; split_at is -1 without splits.
    """

    above: Folders = ()
    doubled: frozenset[str] = frozenset()
    class_at: int = 0
    split_at: int = -1
    split_of: dict[str, str] = field(default_factory=dict)

    def below(self, folders: Folders) -> Folders:
        """Those of a file's folders that may be splits or classes; none for a file beside them."""
        if folders[: len(self.above)] != self.above:
            return ()
        folders = folders[len(self.above) :]
        return folders[1:] if folders and folders[0] in self.doubled else folders

    def label(self, folders: Folders) -> str:
        """The class of a file in these folders, or ""."""
        return next(iter(self.below(folders)[self.class_at :]), "")

    def split(self, folders: Folders) -> str:
        """The split of a file in these folders, or ""."""
        has_split = self.split_of and self.label(folders)
        return self.split_of.get(self.below(folders)[self.split_at], "") if has_split else ""


def folder_entries(
    source: Path, labelled: bool, classes: Sequence[str] = (), roots: Sequence[Path] = ()
) -> tuple[list[Entry], list[Caution]]:
    """Every file below source, labelled by the folder of its class, and what was concluded from the folders' names.

    SOURCE/<class>/**, SOURCE/{train,val,test}/<class>/** or SOURCE/<class>/{train,val,test}/**, perhaps in a folder
    that holds all of these.  classes: names that are classes whatever they look like.  roots: folders in which links
    may end.
    Errors: InputError for a layout that would be misread; StorageError.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected one of radiographs; check the path, or use --manifest")
    paths = list(files_below(source, roots))
    known = {path.as_posix() for path in paths}
    kinds = [kind_aside(path) or own_kind(source, path, known, classes) for path in paths]
    if not labelled:  # what is a mask is then the audit's to find
        kinds = [kind.replace("mask", "") for kind in kinds]
    films = [path for path, kind in zip(paths, kinds, strict=True) if not kind and may_be_picture(path.name)]
    folders = Counter(path.parts[:-1] for path in films)
    layout, cautions = Layout(), list[Caution]()
    if labelled:
        preset = set_of_folders(films)
        layout = folder_layout(source, folders, classes, preset)
        check_links(source, [path for path, kind in zip(paths, kinds, strict=True) if kind == "link"], layout, classes)
        if layout.above:
            cautions.append(caution("folders-around-all", folder="/".join(layout.above)))
        if layout.split_of:
            cautions.append(caution("folders-are-splits", folders=sorted(layout.split_of)))
        if empty := folders_without_films(source, layout, folders):
            cautions.append(caution("folders-without-films", folders=empty[:MOST_NAMED]))
        if preset:
            cautions.append(caution("looks-like-preset", preset=preset))
    if num_masks := kinds.count("mask"):
        cautions.append(caution("masks-left-out", masks=num_masks))
    places = {place: (layout.label(place), layout.split(place)) for place in folders}
    # phantoms stay synthetic when their images are taken as a folder, without their table
    phantoms = any((folder / PHANTOM_TABLE).is_file() for folder in (source, source.resolve().parent))
    source_name = SYNTHETIC if labelled and phantoms else ""
    entries = []
    for path, kind in zip(paths, kinds, strict=True):
        label, split = places.get(path.parts[:-1], ("", "")) if labelled else ("", "")
        if labelled and not kind and not label:
            kind = "no-class"
        excluded = EXCLUDED.get(kind, "")
        entries.append(
            Entry(path=path.as_posix(), label=label, source=source_name, split=split, excluded=excluded, kind=kind)
        )
    return entries, cautions


def own_kind(source: Path, path: PurePosixPath, known: Collection[str], classes: Collection[str]) -> str:
    """Why a file takes no part though nothing hides it: link, mask, or "".  known: all files."""
    if not is_image(path) and (source / path).is_dir():
        return "link"
    if any(holds_masks(folder) and folder not in classes for folder in path.parts[:-1]):
        return "mask"
    match = MASK_FILE.fullmatch(path.as_posix())
    return "mask" if match and any(match[1] + suffix in known for suffix in SUFFIXES) else ""


@lru_cache
def holds_masks(folder: str) -> bool:
    """Whether a folder is one of masks, by its name."""
    return bool(MASKS.fullmatch(folder))


def folder_layout(source: Path, folders: Counter[Folders], classes: Sequence[str], preset: str) -> Layout:
    """Where the classes are.  folders: those that hold films, with their number.  preset: as set_of_folders has it.

    Errors: InputError for splits beside other folders, sets beside one another, and folders that are no classes.
    """
    common = source / os.path.commonpath(["/".join(place) for place in folders] or [""])
    for folder in [] if classes else [one for one in (*common.parents, common) if one.is_relative_to(source)]:
        if known := set_of_table(folder):
            raise InputError(
                f"{folder}: looks like the public set {known}, whose folders are no classes, expected one folder a "
                f"class; use --preset {known}"
            )
    layout = Layout(above=folders_above(folders, classes))
    inside = defaultdict[str, set[str]](set)
    for place in filter(None, map(layout.below, folders)):
        inside[place[0]].add(place[1] if len(place) > 1 else "")
    doubled = {name for name, below in inside.items() if {one.casefold() for one in below} == {name.casefold()}}
    layout = replace(layout, doubled=frozenset(doubled))
    first, second = names_at(folders, layout, 0), names_at(folders, layout, 1)
    if split_of := splits(first):
        layout = replace(layout, class_at=1, split_at=0, split_of=split_of)
        check_splits(source, first, split_of, preset)
    elif split_of := splits(second):
        layout = replace(layout, split_at=1, split_of=split_of)
        check_splits(source, second | {"" for place in folders if len(layout.below(place)) == 1}, split_of, preset)
        if deeper := names_at(folders, layout, 2) - {"images"}:
            raise InputError(
                f"{source}: each of {named(first)} has splits of its own and {named(deeper)} in them, expected one "
                f"folder a class; {f'use --preset {preset}' if preset else 'name one of the folders as SOURCE'}"
            )
    names = {label for place in folders if (label := layout.label(place)) and label not in classes}
    num_films = sum(number for place, number in folders.items() if layout.label(place) in names)
    crowd = len(names) > MANY_FOLDERS and num_films < FEW_FILMS * len(names)
    if crowd or 2 * sum(bool(NO_CLASS.fullmatch(name)) for name in names) > len(names):
        raise InputError(
            f"{source}: the {len(names):,} folders {named(names)} look like patients, studies or parts of a set, "
            "expected one folder a class; list files and labels in a CSV and name it with --manifest, and with --root "
            "the folder where its paths begin; or name the folders in --classes"
        )
    return layout


def folders_above(folders: Collection[Folders], classes: Sequence[str]) -> Folders:
    """The folders that each hold all that follows, down to where there are several; none above a single class."""
    above: Folders = ()
    while True:
        depth = len(above)
        below = [place[depth:] for place in folders if place[:depth] == above]
        names = {place[0] for place in below if place}
        if depth and not all(below):
            return ()  # there are films in the innermost: it is a class
        if len(names) != 1:
            is_class = all(NO_CLASS.fullmatch(name) for name in names) or (
                splits(names) and all(len(place) < 2 for place in below)
            )
            return () if is_class and not any(split_name(name) for name in above) else above
        (name,) = names
        if name in classes or FINDING.fullmatch(name) or looks_healthy(name):
            return above
        above = (*above, name)


def folders_without_films(source: Path, layout: Layout, folders: Collection[Folders]) -> list[str]:
    """The folders beside those of the classes, or their splits, that have no film in them, such as an empty class."""
    above = source.joinpath(*layout.above)
    tops = [above / split for split in layout.split_of] if layout.class_at else [above]
    used = names_at(folders, layout, layout.class_at) | layout.doubled | set(layout.above)
    names = {child.name for top in tops for child in top.iterdir() if child.is_dir() and not child.is_symlink()}
    aside = {name for name in names if MASKS.fullmatch(name) or kind_aside(PurePosixPath(name) / "film")}
    return sorted(names - used - aside)


def names_at(folders: Collection[Folders], layout: Layout, depth: int) -> set[str]:
    """The names of the folders below `depth` others."""
    return {below[depth] for place in folders if len(below := layout.below(place)) > depth}


def splits(names: Collection[str]) -> dict[str, str]:
    """Folder → split, where these folders are splits; none where they are classes, of which one may be called test."""
    found = {name: split for name in names if (split := split_name(name))}
    if len(set(found.values())) < 2 or ("train" not in found.values() and len(found) < len(names)):
        return {}
    return found


def split_name(folder: str) -> str:
    """train, val or heldout for a folder called so, or train_set and the like; else ""."""
    return SPLIT_NAMES.get(OF_SET.sub("", folder.casefold()), "")


def check_splits(source: Path, names: Collection[str], split_of: dict[str, str], preset: str) -> None:
    """Errors: InputError where some of the folders are splits and others are none."""
    if others := sorted(set(names) - set(split_of)):
        other = f"{others[0]} is none" if others[0] else "some files are in none"
        remedy = f"use --preset {preset}" if preset else "move it away, or name the files in a --manifest"
        raise InputError(
            f"{source}: the folders {', '.join(sorted(split_of))} are splits, but {other}, expected splits "
            f"alone or classes alone; {remedy}"
        )


def check_links(source: Path, links: Sequence[PurePosixPath], layout: Layout, classes: Sequence[str]) -> None:
    """Errors: InputError for links where folders of classes are, and which lead out of source."""
    places = [path for path in links if len(layout.below(path.parts[:-1])) == layout.class_at]
    if classes:
        places = [path for path in places if path.name in classes]
    inside = os.path.realpath(source)
    if found := [path for path in places if not Path(os.path.realpath(source / path)).is_relative_to(inside)]:
        target = Path(os.path.realpath(source / found[0])).parent
        raise InputError(
            f"{source}: {named([path.name for path in found])}: links to folders elsewhere, which are not followed, "
            f"expected folders; allow it with --root {target}, or leave them out with --classes"
        )


def named(names: Collection[str]) -> str:
    """The first of these names, in order."""
    return ", ".join(sorted(names)[:MOST_NAMED]) + ", …" * (len(names) > MOST_NAMED)
