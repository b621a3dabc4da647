"""The privacy campaign sees a name in whatever form it stands, a path that is shared, and a table that all may read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from loaders.phantom.phantom import patient_name
from tests.faults import canary, privacy

NAME = canary.NAME
PATIENT = canary.planted_patient(patient_name(3)).encode()
LABELS = ("covid", "normal", "covid", "normal")
FORMS = {
    "text": NAME.encode(),
    "small letters": NAME.lower().encode(),
    "UTF-16": NAME.encode("utf-16"),
    "base64": base64.b64encode(b"xy" + NAME.encode() * 2),
    "deflated": b"...." + zlib.compress(b"before " + NAME.encode()),
    "deflated in base64": base64.b64encode(zlib.compress(b"before " + NAME.encode())),
    "hexadecimal": NAME.encode().hex().encode(),
    "a bare hash": hashlib.sha256(NAME.encode()).digest(),
    "a bare hash of an identifier, cut": hashlib.sha256(PATIENT).digest()[:16],
    "with the product's prefix": hashlib.sha256(b"patient:" + PATIENT).digest()[:16],
    "with a key of nothing, as text": hmac.new(b"", b"patient:" + PATIENT, "sha256").hexdigest()[:16].encode(),
    "a bare hash as text": json.dumps({"patient": hashlib.md5(NAME.encode()).hexdigest()}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_canary_is_seen_in_every_form(form: str) -> None:
    assert canary.shows(b"\0\1 something " + FORMS[form] + b" more")


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


def test_a_hash_with_a_secret_is_no_canary() -> None:
    keyed = hmac.new(bytes(range(32)), b"patient:" + PATIENT, "sha256").digest()
    assert not canary.shows(keyed + keyed.hex().encode() + bytes(1000))


def test_an_audits_table_beside_the_results_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = [("covid", "P1", np.eye(9, dtype=np.uint8)), ("normal", "P2", np.eye(9, dtype=np.uint8))]
    planted = privacy.plant("an audit's table", films, tmp_path)
    table = Path(planted.audit)
    table.parent.mkdir(parents=True)
    table.write_text("path\n")
    table.chmod(0o640)
    monkeypatch.setattr(privacy, "chain", lambda planted, key, whole: ())
    _, wrong = privacy.attack(None, planted, tmp_path / "key", whole=False, defect="")  # type: ignore[arg-type]
    assert "audit.csv has mode 640, expected 600" in wrong


@pytest.mark.parametrize("place", privacy.PLACES)
def test_every_place_has_the_canary_before_it_is_looked_for(place: str, tmp_path: Path) -> None:
    films = [(label, f"P{number}", np.eye(9 + number, dtype=np.uint8)) for number, label in enumerate(LABELS)]
    planted = privacy.plant(place, films, tmp_path)
    assert not privacy.sound_of(place, planted)
    if place in privacy.IN_BYTES:
        film = next(path for path in planted.root.rglob("*") if path.suffix in (".dcm", ".jpg", ".png", ".tif"))
        film.write_bytes(b"no canary")
        assert privacy.sound_of(place, planted) == f"no canary in {film.name}"


SETTINGS_SHARED = "import engine.train.run_folder as settings; settings.shared_settings = settings.flatten"
HASH_WITHOUT_KEY = """
import hashlib
import numpy as np
import loaders.convert.convert as converting
def bare(key, patient):
    return np.frombuffer(hashlib.sha256(b"patient:" + patient.encode()).digest()[:16], np.uint8)
converting.patient_hash = bare
"""


def test_a_chain_that_shares_a_name_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(planted: privacy.Planted, key: Path, *, whole: bool) -> list[list[str]]:
        return [argv for argv in chain(planted, key, whole=False) if argv[0] in ("convert", "train")]

    chain = privacy.chain
    monkeypatch.setattr(privacy, "chain", short)
    tally = privacy.run(1, 1, tmp_path, lambda: None, defect=f"{SETTINGS_SHARED}\n{HASH_WITHOUT_KEY}")
    assert tally.attempts == len(tally.failures) == 1
    for seen in ("config.json (run folder) shows", "train.beton (beton) shows"):
        assert seen in tally.failures[0]
