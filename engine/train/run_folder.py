"""A run folder: its settings and which run they make; its log, metrics and events; its weights and state."""

import contextlib
import hashlib
import json
import logging
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TextIO

from torch import Tensor

from engine.config import Recipe, TrainConfig, shared_model, vlm_folder
from engine.device import choose_device, choose_precision
from engine.figures import curves_figure, png
from engine.train.checkpoint import save_checkpoint
from loaders.atomic_file import publish_bytes, publish_rows, storage_error
from loaders.errors import ConfigError, StorageError
from loaders.figure_text import without_invisible
from loaders.settings import build, flatten, is_path, read_settings, settings_of

CONFIG = "config.json"
LOCAL = "local.json"  # where betons lie may name patients or people: for its owner alone, not to be shared

# shared settings that a result does not depend on: where and how it is computed, and what is kept beside it
FREE = ("device", "compile", "arena", "threads", "prefetch", "resident", "pin_memory", "look")


def shared_settings(config: Any) -> dict[str, Any]:
    """A config's settings without any path, fit to be shared.  Of weights, models and the like the name stays."""
    paths = {setting.name for setting in settings_of(type(config)) if Path in (setting.kind, setting.item)}
    shared = {name: value for name, value in flatten(config).items() if name not in paths}
    for name in {"weights", "segmenter", "prompts"} & shared.keys():
        shared[name] = Path(shared[name]).name
    if "model" in shared:
        shared["model"] = shared_model(shared["model"])
    if "models" in shared:
        shared["models"] = list(map(shared_model, shared["models"]))
    if shared.get("masks", "auto") not in ("auto", "usual"):
        shared["masks"] = "given"
    return shared


def run_id(config: TrainConfig, conversion_id: str, model: str = "") -> str:
    """Which run it is: a hash of its conversion and of the settings that its result depends on.

    Two runs of one id are the same run.  Settings at their defaults are left out, so that a release with more of them
    gives the same id.
    model: of a vision-language model what it is and is asked, which its folder's name does not tell.
    """
    settings = {setting.name: setting for setting in settings_of(TrainConfig)}
    counted = {  # a caller of train() may pass 1 for 1.0
        name: float(value) if settings[name].kind is float and isinstance(value, int) else value
        for name, value in shared_settings(config).items()
        if name not in FREE and value != settings[name].default
    }
    text = json.dumps([conversion_id, counted, *([model] if model else [])], sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def save_settings(folder: Path, config: Any) -> None:
    """Write local.json, for its owner alone, and then config.json.  Errors: StorageError."""
    shared = shared_settings(config)
    local = {name: value for name, value in flatten(config).items() if name not in shared or shared[name] != value}
    publish_bytes(folder / LOCAL, (json.dumps(local, indent=2) + "\n").encode(), mode=0o600)
    publish_bytes(folder / CONFIG, (json.dumps(shared, indent=2) + "\n").encode())


def read_run_settings(folder: Path) -> dict[str, Any]:
    """The settings in a folder, paths included unless it came without its local.json.  Errors: ConfigError."""
    local = folder / LOCAL
    paths = read_settings(local) if local.is_file() else {}
    return read_settings(folder / CONFIG) | paths


def data_folder(run: Path) -> Path | None:
    """Where a run's betons lay when it was trained or last resumed; None where it does not tell."""
    try:
        data = read_run_settings(run).get("data")
    except ConfigError:
        return None
    return Path(data) if isinstance(data, str) and data and is_path(data) else None


def model_folder(run: Path) -> Path | None:
    """The folder of a run's vision-language model when it was trained; None where the run does not tell."""
    try:
        model = read_run_settings(run).get("model")
    except ConfigError:
        return None
    folder = vlm_folder(model) if isinstance(model, str) else ""
    return Path(folder) if folder and is_path(folder) else None


def settled_recipe(folders: Sequence[Path], recipe: Recipe) -> Recipe:
    """The recipe with `--amp auto` settled, so that all that belongs together is of one precision.

    It is as the first of the folders that has begun has it; else as this processor is faster.
    Errors: ConfigError for a folder of an earlier release, which settled nothing.
    """
    if recipe.amp != "auto":
        return recipe
    begun = next((folder for folder in folders if (folder / CONFIG).exists()), None)
    if begun is None:
        mixed, _ = choose_precision("auto", choose_device(recipe.device))
        return replace(recipe, amp="on" if mixed else "off")
    if (amp := read_run_settings(begun).get("amp")) not in ("on", "off"):
        raise ConfigError(
            f"{begun}: found --amp {amp} in {CONFIG}, expected on or off: begun by an earlier release, and what is "
            "left might be computed in another precision; choose another --out"
        )
    return replace(recipe, amp=amp)


def check_settings(folder: Path, config: Any, free: Collection[str]) -> None:
    """Errors: ConfigError when a folder began with other settings than these, apart from the free ones.

    Paths are not compared in a folder that came without its local.json.
    """
    if not (folder / CONFIG).exists():
        return
    before = read_run_settings(folder)
    settings = flatten(config) if (folder / LOCAL).is_file() else shared_settings(config)
    names = sorted(name for name in settings.keys() | before.keys() if name not in free)
    if changed := [name for name in names if settings.get(name) != before.get(name)]:
        found = ", ".join(f"--{name.replace('_', '-')} {settings.get(name)}" for name in changed)
        expected = ", ".join(str(before.get(name, "none")) for name in changed)
        raise ConfigError(
            f"{folder}: began with other settings: found {found}, expected {expected}; "
            "repeat the old ones, or choose another --out"
        )


class Events:
    """An open file of TensorBoard events in a run folder; close it.

    purge_epoch: events of earlier files from this epoch on do not count any more.  Errors of all methods: StorageError.
    """

    def __init__(self, folder: Path, purge_epoch: int = 1) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # only here: a machine that trains nothing may lack it
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._path = folder / f"events.out.tfevents.{time.time():.6f}"
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise storage_error(self._path, error) from error
        self._records, self._event = RecordWriter(self._file), Event
        self._write(file_version="brain.Event:2")
        self._write(step=purge_epoch, session_log={"status": "START"})

    def add(self, name: str, value: float, epoch: int) -> None:
        """Add one number; flush() brings it to the disk."""
        self._write(step=epoch, summary={"value": [{"tag": name, "simple_value": value}]})

    def flush(self) -> None:
        """Write what waits."""
        with self._named_errors():
            self._file.flush()

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._named_errors():
            self._file.close()

    def _write(self, **content: Any) -> None:
        with self._named_errors():
            self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            size = self._file.tell()
            yield
        except OSError as error:
            raise storage_error(self._path, error, size) from error


BEST, LAST = "best.safetensors", "last.safetensors"
METRICS, LOG = "metrics.csv", "train.log"
LOGGERS = [logging.getLogger(name) for name in ("engine", "loaders")]  # that the log is of


class RunFolder:
    """An open run folder.  Owns train.log and the TensorBoard events; close it, or use `with`.

    findings: names of those that histories have by number, as in val_auc[3]; none of classes.
    """

    def __init__(self, path: Path, purge_epoch: int = 1, findings: Sequence[str] = ()) -> None:
        self.path, self.findings = path, visible_names(findings)
        self._log = path / LOG
        self._handler = logging.StreamHandler(opened_log(self._log))
        try:
            self._events = Events(path, purge_epoch)
        except StorageError:
            self._handler.stream.close()
            raise
        self._handler.handleError = self._log_failed  # type: ignore[method-assign]  # its own prints a traceback
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for logger in LOGGERS:
            logger.addHandler(self._handler)
            logger.setLevel(logging.INFO)
        self.recorded = purge_epoch - 1  # epochs

    def save_last(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Keep the state that `--resume` continues from."""
        save_checkpoint(self.path / LAST, tensors, state)

    def save_best(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Keep the weights that `evaluate` uses, and the validation scores that its thresholds come from."""
        save_checkpoint(self.path / BEST, tensors, state)

    def record(self, history: Sequence[dict[str, Any]]) -> None:
        """Write metrics.csv anew, and the events of epochs that have none yet."""
        publish_rows(self.path / METRICS, [map(self.column, history[0]), *(row.values() for row in history)])
        for row in history[self.recorded :]:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._events.add(self.tag(name), value, row["epoch"])
        self.recorded = len(history)
        self._events.flush()

    def column(self, name: str) -> str:
        """The column of metrics.csv for a number of a history: val_auc[Effusion] for val_auc[3]."""
        metric, bracket, place = name.partition("[")
        return f"{metric}[{self.findings[int(place[:-1])]}]" if bracket else name

    def tag(self, name: str) -> str:
        """Its tag in TensorBoard: val/f1 for val_f1; findings/auc/Effusion for val_auc[3], below the means' charts."""
        split_metric, bracket, place = name.partition("[")
        if not bracket:
            return name.replace("_", "/", 1)
        return f"findings/{split_metric.partition('_')[2]}/{self.findings[int(place[:-1])]}"

    def draw(
        self, history: Sequence[dict[str, Any]], best_epoch: int, title: str, note: str, findings: Sequence[str] = ()
    ) -> None:
        """Write curves.png anew.  findings: their names as they can be drawn."""
        publish_bytes(self.path / "curves.png", png(curves_figure(history, best_epoch, title, note, findings)))

    def close(self) -> None:
        """Close log and events.  Errors: StorageError."""
        for logger in LOGGERS:
            logger.removeHandler(self._handler)
        self._handler.close()
        try:
            self._handler.stream.close()
        except OSError as error:
            raise storage_error(self._log, error) from error
        finally:
            self._events.close()

    def _log_failed(self, record: logging.LogRecord) -> None:
        """Raise the error that a line of the log met with.  Errors: StorageError."""
        error = sys.exception()
        assert error is not None, "logging calls this where it caught one"
        if isinstance(error, OSError):
            raise storage_error(self._log, error, len(self._handler.format(record)) + 1) from error
        raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except StorageError:
            if error is None:  # else the first one is the cause
                raise


def visible_names(names: Sequence[str]) -> list[str]:
    """Names as any file takes them, � for what cannot be seen, all different: a number stands behind equal ones."""
    visible = [without_invisible(name) for name in names]
    count = Counter(visible)
    return [f"{name} ({place})" if count[name] > 1 else name for place, name in enumerate(visible, start=1)]


def opened_log(path: Path) -> TextIO:
    """A log to append to.  Errors: StorageError; also for a link or a FIFO, which a foreign run folder may hold."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise storage_error(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path}: no regular file, expected the log of the run; remove it")
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def epochs_recorded(folder: Path) -> int:
    """How many epochs the table of metrics has; 0 where there is none."""
    path = folder / METRICS
    return max(0, len(path.read_bytes().splitlines()) - 1) if path.is_file() else 0


def load_config(path: Path, data: Path | None = None) -> TrainConfig:
    """The settings of the run in path, wherever the folder lies now.  data: where its betons lie; else where they lay.

    Errors: ConfigError when path is no run folder, or it is not known where its betons are.
    """
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{path}: no {CONFIG}, expected a run folder of `train`; check the path")
    values = read_run_settings(path) | {"out": str(path)} | ({"data": str(data)} if data else {})
    if "data" not in values:
        raise ConfigError(
            f"{path}: no {LOCAL}, expected it to name the folder of the run's betons; name that folder: "
            f"train BETONS --resume {path}"
        )
    try:
        return build(TrainConfig, values)
    except ConfigError as error:
        raise ConfigError(f"{path / CONFIG}: {error}") from error
