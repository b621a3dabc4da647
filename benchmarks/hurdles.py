"""`make bench-hurdles`: what scores are worth on another collection, of phantoms whose answer is known and of patients.

Phantoms whose arms follow the class and whose lungs hold nothing must score well at home and like guessing where arms
are raised at random; phantoms with a finding and no shortcut must score well in both places.  Then the radiographs of
patients: all of radiographs.csv, two classes and three, tested on external.csv, converted with --like.  The recipe is
fixed before, every default of `hurdles`; nothing is chosen by the films of external.csv.  Exits with 1 where a phantom
study misses what it must reach, and with 2 where there are no radiographs of patients.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.datasets import data_folder
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.config import HurdlesConfig
from engine.hurdles.hurdles import hurdles
from engine.hurdles.results import SHOWN, Cell, Hurdles
from engine.statistics.names import short_name, with_interval
from engine.train.state import Watch
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms

SIZE, PHANTOM_SIZE, PATIENTS, SEEDS = 128, 64, 400, 3
CLASSES = {"two": ("covid", "normal"), "three": ("covid", "normal", "pneumonia")}
MINUTES = 4  # that a phantom study may take on two cores


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A study of phantoms.  settings: of the phantoms, but that arms do not follow the class away.

    holds: whether the AUC at home and away is what it must be; expected: in words.
    """

    name: str
    settings: dict[str, Any]
    expected: str
    holds: Callable[[float, float], bool]


STUDIES = (
    Study(
        name="shortcut",
        settings={"arms": 1.0, "strength": 0.0},
        expected="home at least 0.95, away within 0.08 of 0.5",
        holds=lambda home, away: home >= 0.95 and abs(away - 0.5) <= 0.08,
    ),
    Study(
        name="finding",
        settings={"arms": 0.0, "strength": 1.0},
        expected="home and away at least 0.9",
        holds=lambda home, away: min(home, away) >= 0.9,
    ),
)


def converted(folder: Path, catalog: CatalogConfig, key: Path, size: int, like: Path | None = None) -> Path:
    """The betons of a collection: to train on at home, a test set alone elsewhere."""
    task: dict[str, Any] = {"like": like} if like else {"size": size}
    convert(ConvertConfig(catalog=catalog, out=folder, site_key=key, **task))
    return folder


def phantom_study(study: Study, folder: Path, patients: int, **training: Any) -> tuple[Hurdles, float]:
    """The result of one study of phantoms, and the seconds that `hurdles` took."""
    home, away = (
        write_phantoms(PhantomConfig(out=folder / name, patients=patients, images_per_patient=1, size=128, seed=seed,
                                     **study.settings | changes))
        for name, seed, changes in (("home", 1, {}), ("away", 2, {"arms": 0.0}))
    )  # fmt: skip
    key = folder / "site.key"
    trained = converted(folder / "at-home", CatalogConfig(manifest=home), key, PHANTOM_SIZE)
    tested = converted(folder / "elsewhere", CatalogConfig(manifest=away), key, PHANTOM_SIZE, trained / "train.beton")
    return timed(HurdlesConfig(collections=(trained, tested), out=folder / "H", **training))


def real_study(data: Path, folder: Path, classes: tuple[str, ...], **training: Any) -> tuple[Hurdles, float]:
    """The result on the radiographs of patients, and the seconds that `hurdles` took."""
    key = folder / "site.key"
    catalog = CatalogConfig(manifest=data / "radiographs.csv", classes=classes)
    home = converted(folder / "radiographs", catalog, key, SIZE)
    away = converted(
        folder / "external", CatalogConfig(manifest=data / "external.csv"), key, SIZE, home / "train.beton"
    )
    return timed(HurdlesConfig(collections=(home, away), out=folder / "H", **training))


def timed(config: HurdlesConfig) -> tuple[Hurdles, float]:
    """A run of `hurdles`, and its seconds."""
    began = time.perf_counter()
    result = hurdles(config, Watch(begin=lambda name: print(f"  {name}", flush=True)))
    return result, time.perf_counter() - began


def away_of(result: Hurdles) -> Cell:
    """The one cell away from home."""
    (cell,) = result.away(result.rows[0].name)
    return cell


def lines_of(name: str, result: Hurdles, seconds: float) -> list[str]:
    """A study as it is printed."""
    home, away = result.home(result.rows[0].name), away_of(result)
    lines = [f"{name} ({seconds:.0f} s; home n = {home.num_samples}, away {away.num_samples}):"]
    for key in SHOWN:
        at_home, elsewhere = (with_interval(key, cell.estimates[key]) for cell in (home, away))
        lines.append(f"  {short_name(key)} {at_home}, away {elsewhere}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    names = [*(study.name for study in STUDIES), *CLASSES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hurdles", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="studies to measure; the others stay")
    parser.add_argument("--out", type=Path, default=RESULTS / "hurdles.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    data, facts, missed = data_folder(), provenance(), []
    print(describe(facts))
    found: dict[str, Any] = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            place = Path(folder) / name
            place.mkdir()
            (study,) = [one for one in STUDIES if one.name == name] or [None]
            if study is not None:
                result, seconds = phantom_study(study, place, PATIENTS, seeds=SEEDS)
                home, away = (cell.estimates["auc"].value or 0.0 for cell in (result.home("at-home"), away_of(result)))
                if not study.holds(home, away) or seconds > 60 * MINUTES:
                    missed.append(f"{name}: expected {study.expected}, in {MINUTES} minutes")
            elif data is not None:
                result, seconds = real_study(data, place, CLASSES[name], seeds=SEEDS)
            else:
                continue
            print(*lines_of(name, result, seconds), sep="\n", flush=True)
            measured = {"provenance": facts, "seconds": round(seconds, 1), "result": msgspec.to_builtins(result)}
            found[name] = measured
    if set(found) == set(names):
        chosen.out.parent.mkdir(exist_ok=True)
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    else:
        print("no radiographs of patients, and nothing stored: set PLAINFILM_DATA to the folder with radiographs.csv")
    print("\n".join(missed) or "phantoms: as expected")
    return 1 if missed else 0 if data else 2


if __name__ == "__main__":
    sys.exit(main())
