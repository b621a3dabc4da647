"""What commands tell in the terminal."""

from __future__ import annotations

import pytest

import cli
from engine.progress import Progress
from engine.training_words import epoch_words, live_words
from loaders.audit.findings import AuditResult, FileFinding
from loaders.audit.words import audit_parts
from loaders.terminal import Line, Sheet


def finding(place: int, label: str) -> FileFinding:
    return FileFinding(
        path=f"{place}.png", label=label, verdict="quarantine", defects=("blurred",), scores={}, limits={}, group=place
    )


def test_an_audit_of_many_classes_sums_up_the_rarest() -> None:
    files = tuple(finding(place, f"class {place}") for place in range(8))
    found = AuditResult(source="S", files=files, removals=(), collection=None, seconds=1.0, versions={})
    line, sheet, _ = audit_parts(found)
    assert line == Line("8 files: 0 keep + 0 fix + 8 quarantine; 1.0 s")
    assert isinstance(sheet, Sheet)
    assert sheet.headers == ("defect", *(f"class {place}" for place in range(6)), "others", "what it means")
    assert sheet.rows == (("blurred", *["1"] * 6, "2", "blurred"),)


def test_only_a_sheet_that_ends_in_text_has_it_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (("a", "1", "long text"), ("b", "2", "text"))
    for ends_in_text, shown in ((True, " b          2   text      \n"), (False, " b          2        text \n")):
        sheet = Sheet(headers=("name", "count", "meaning"), rows=rows, ends_in_text=ends_in_text)
        cli.show_parts(cli.console(), [sheet])
        assert shown in capsys.readouterr().out


def test_a_training_tells_where_it_is_before_its_first_loss_and_which_epoch_is_the_best() -> None:
    row = {"epoch": 2, "train_loss": 0.5, "val_loss": 0.25, "val_f1": 0.75, "images_per_second": 1000.0}
    now = Progress(
        phase="epoch", epoch=2, epochs=3, done=1, total=2, loss=float("nan"), images_per_second=1000.0,
        seconds_left=None, patience_left=7, best_f1=0.75, best_epoch=2, history=[row],
    )  # fmt: skip
    assert live_words(now) == "epoch 2/3  loss –  F1 0.750  1,000 images/s  patience 7  "
    assert epoch_words(now) == "epoch   2  loss 0.5000  val loss 0.2500  val F1 0.7500  1,000 images/s  best"
