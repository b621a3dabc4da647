"""What commands tell in the terminal."""

from __future__ import annotations

import io
import re
from collections import Counter

import pytest
from rich.console import Console

import cli
from engine.train.state import Progress
from engine.train.train import epoch_line, live_line
from loaders.audit.findings import AuditResult, FileFinding
from loaders.audit.page import audit_parts
from loaders.output import Line, Sheet


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
    assert sheet.headers == ("defect", *(f"class {place}" for place in range(6)), "others", "meaning")
    assert sheet.rows == (("blurred", *["1"] * 6, "2", "blurred"),)


def test_only_a_sheet_that_ends_in_text_has_it_to_the_left(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (("a", "1", "long text"), ("b", "2", "text"))
    for ends_in_text, shown in ((True, " b          2   text\n"), (False, " b          2        text\n")):
        sheet = Sheet(headers=("name", "count", "meaning"), rows=rows, ends_in_text=ends_in_text)
        cli.show_parts(cli.console(), [sheet])
        assert shown in capsys.readouterr().out


def test_a_training_tells_where_it_is_before_its_first_loss_and_which_epoch_is_the_best() -> None:
    row = {"epoch": 2, "train_loss": 0.5, "val_loss": 0.25, "val_f1": 0.75, "images_per_second": 1000.0}
    now = Progress(
        phase="epoch", epoch=2, epochs=3, done=1, total=2, loss=float("nan"), images_per_second=1000.0,
        seconds_left=None, patience_left=7, best_f1=0.75, best_epoch=2, history=[row],
    )  # fmt: skip
    assert live_line(now) == "epoch 2/3  loss –  F1 0.750  1,000 images/s  patience 7  "
    assert epoch_line(now) == "epoch   2  loss 0.5000  val loss 0.2500  val F1 0.750  1,000 images/s  best"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def shown_at(width: int | None, sheet: Sheet) -> list[str]:
    """The lines of a table on a terminal so wide; None: through a pipe."""
    file = io.StringIO() if width is None else Screen()
    cli.show_parts(Console(file=file, width=width or 110, highlight=False, markup=False, emoji=False), [sheet])
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in file.getvalue().splitlines()]


NAMES = tuple(f"{'enlarged ' * (place % 3)}condition number {place}" for place in range(20))
TABLES = (
    Sheet(
        headers=("true class", *map(str, range(20))),
        rows=tuple((name, *(str(353 + 17 * place + other) for other in range(20))) for place, name in enumerate(NAMES)),
    ),
    Sheet(
        title="a title of several words that is longer than the narrowest terminal here",
        headers=("class", "images", "95 % interval", "sensitivity of the class"),
        rows=tuple((name, f"{place:,}000", "95.7 to 99.0 %", "91.2 % (85.7–95.1)") for place, name in enumerate(NAMES)),
    ),
    Sheet(
        headers=("defect", *NAMES[:6], "what it means"),
        rows=(("blurred", *("1234567",) * 6, "a sentence of many words that says in full what is wrong"),),
        ends_in_text=True,
    ),
)  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 110, 200, None])
@pytest.mark.parametrize("sheet", TABLES, ids=("matrix", "classes", "defects"))
def test_a_table_breaks_between_words_only_and_fits_the_terminal(sheet: Sheet, width: int | None) -> None:
    lines = shown_at(width, sheet)
    found = Counter(word for line in lines for word in line.split())
    for row in (sheet.headers, *sheet.rows):
        for cell in row[1:]:
            for word, count in Counter(cell.split()).items():
                assert found[word] >= count, word
    allowed = {
        word
        for text in (sheet.title, *sheet.headers, *(cell for row in sheet.rows for cell in row))
        for word in text.split()
    }
    assert {word for word in found if word.strip("─")} <= allowed, "no piece of a word or a number"
    if width is not None:
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("sheet", TABLES, ids=("matrix", "classes", "defects"))
def test_through_a_pipe_each_row_is_one_line(sheet: Sheet) -> None:
    lines = [" ".join(line.split()) for line in shown_at(None, sheet)]
    for row in (sheet.headers, *sheet.rows):
        assert " ".join(row) in lines


def test_a_word_wider_than_the_terminal_is_broken_and_nothing_is_lost() -> None:
    sheet = Sheet(headers=("file", "images"), rows=(("x" * 100, "353"),))
    lines = shown_at(40, sheet)
    assert max(map(len, lines)) <= 40 and "".join(lines).count("x") == 100 and any("353" in line for line in lines)


def test_a_long_line_breaks_between_words_on_a_terminal_and_a_path_stays_whole() -> None:
    path = "/a/" + "long/" * 20 + "path.png"
    screen = Screen()
    cli.show(Console(file=screen, width=40, highlight=False), f"Caution: {'353 images, ' * 9}{path} and more")
    lines = screen.getvalue().splitlines()
    assert path in lines and all(len(line) <= 40 for line in lines if line != path)
    assert all(word in ("Caution:", "353", "images,", path, "and", "more") for line in lines for word in line.split())
