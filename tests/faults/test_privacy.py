"""The privacy campaign sees a name in whatever form it stands, a path that is shared, and a table that all may read."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path

import pytest

from tests.faults import privacy

NAME = privacy.NAME
FORMS = {
    "text": NAME.encode(),
    "small letters": NAME.lower().encode(),
    "UTF-16": NAME.encode("utf-16"),
    "base64": base64.b64encode(b"xy" + NAME.encode() * 2),
    "deflated": b"...." + zlib.compress(b"before " + NAME.encode()),
    "deflated in base64": base64.b64encode(zlib.compress(b"before " + NAME.encode())),
    "hexadecimal": NAME.encode().hex().encode(),
    "a bare hash": hashlib.sha256(NAME.encode()).digest(),
    "a bare hash as text": json.dumps({"patient": hashlib.md5(NAME.encode()).hexdigest()}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_canary_is_seen_in_every_form(form: str) -> None:
    assert privacy.shows(b"\0\1 something " + FORMS[form] + b" more")


def test_what_is_shared_and_what_all_may_read_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"data": f"/scans/{NAME}/betons"}))
    (run / "local.json").write_text("{}")
    (run / "local.json").chmod(0o644)
    (run / "summary.json").write_text("{}")
    kinds, wrong = privacy.look(tmp_path)
    assert kinds == {"run folder", "local tables"}
    assert wrong == ["run/config.json (run folder) shows the canary", "run/local.json has mode 644, expected 600"]


def test_a_chain_whose_settings_are_shared_whole_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(planted: privacy.Planted, key: Path, *, whole: bool) -> list[list[str]]:
        return [argv for argv in chain(planted, key, whole=False) if argv[0] in ("convert", "train")]

    chain = privacy.chain
    monkeypatch.setattr(privacy, "chain", short)
    fault = "import engine.run_settings as settings; settings.shared_settings = settings.flatten"
    tally = privacy.run(1, 1, tmp_path, lambda: None, before=fault)
    assert any("config.json (run folder) shows the canary" in failure for failure in tally.failures), tally.failures
