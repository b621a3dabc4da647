from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.train.run_folder import Events, RunFolder
from loaders.errors import StorageError

FULL = Path("/dev/full")  # takes no byte
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def test_tensorboard_reads_the_events_and_leaves_out_those_that_were_taken_back(tmp_path: Path) -> None:
    for purge_epoch, epochs in ((None, (1, 2, 3)), (3, (3, 4))):
        events = Events(tmp_path, purge_epoch)
        for epoch in epochs:
            events.add("val/f1", epoch / 10, epoch)
        events.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Scalars("val/f1")] == [1, 2, 3, 4]
    assert [event.value for event in found.Scalars("val/f1")] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_events_do_not_name_the_machine(tmp_path: Path) -> None:
    Events(tmp_path).close()
    (path,) = tmp_path.iterdir()
    assert f".{socket.gethostname()}" not in path.name and socket.gethostname().encode() not in path.read_bytes()


@needs_full
def test_events_on_a_full_disk_are_an_error_of_the_caller(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events._file.close()
    events._file = FULL.open("wb")
    events._records._writer = events._file
    events.add("val/f1", 0.5, 1)
    with pytest.raises(StorageError, match=r"tfevents.* bytes of room"):
        events.flush()
    with pytest.raises(StorageError, match="tfevents"):
        events.close()


@needs_full
def test_a_log_on_a_full_disk_stops_the_training_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageError, match=r"train\.log: .* bytes of room"), RunFolder(tmp_path) as folder:
        folder._handler.stream.close()
        folder._handler.stream = FULL.open("w")
        logging.getLogger("engine.train.train").info("epoch 1")
    assert capfd.readouterr().err == ""
