"""Dead letters as people work on them: shown masked, shown whole on record, corrected beside the original, retried."""

# ruff: noqa: F811 (a fixture of another file)
from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from cds_server.settings import Settings
from cds_server.store.store import Store
from tests.cds_server.test_commands import Cds, cds  # noqa: F401 (a fixture)

WRONG = (
    "MSH|^~\\&|ADT|HOSP|CDS|X|20260301090000+0100||ADT^A08|N1|P|2.5.1\r"
    "EVN|A08|20260301090000+0100\rPID|1||^^^HOSP^MR||QUIXOTE^ALONSO||19600102|M\r"
    "AL1|1||A1^windmills^L\r"
)
RIGHT = WRONG.replace("||^^^HOSP", "||4711^^^HOSP")
PHI = ("QUIXOTE", "ALONSO", "19600102")


@pytest.fixture
def url(data_dir: Path) -> str:
    return f"sqlite:///{data_dir / 'cds.db'}"


@pytest.fixture
def letter(cds: Cds, settings: Settings, tmp_path: Path) -> str:
    """The flag of a message that names no patient."""
    config = settings.data_dir / "cds.toml"
    config.write_text(config.read_text() + '[[source]]\nname = "ward"\nkind = "hl7v2-files"\nnamespace = "hosp"\n')
    file = tmp_path / "wrong.hl7"
    file.write_text(WRONG, newline="")
    cds("land", file, "--source", "ward")
    cds("digest")
    (flag,) = cds.json("work", "list", "--kind", "dead-letter")
    assert (flag["pointer"], flag["detail"]) == ("PID-3", "a patient without an identifier")
    return str(flag["id"])


def entries(settings: Settings, kind: str) -> list[dict[str, Any]]:
    store = Store.open(settings.data_dir, settings.database_url)
    try:
        bodies = [json.loads(bytes(row[0])) for row in store.reads.query("SELECT body FROM ledger_entry ORDER BY seq")]
    finally:
        store.close()
    return [body for body in bodies if body["kind"] == kind]


def test_a_dead_letter_is_shown_readable_and_masked(cds: Cds, letter: str, settings: Settings) -> None:
    said = cds("work", "show", letter)
    assert "PID-5" in said
    assert "***" in said
    assert "A1^windmills^L" in said  # a code, and what it is called
    plain = json.dumps(cds.json("work", "show", letter))
    assert '"PID-5"' in plain
    for secret in PHI:
        assert secret not in said + plain
    assert entries(settings, "access") == []


@pytest.mark.parametrize("form", ["--unmasked", "--raw"])
def test_patient_data_is_shown_on_record(cds: Cds, letter: str, settings: Settings, form: str) -> None:
    said = cds("work", "show", letter, form, "--as", "auditor")
    assert "QUIXOTE" in said
    (entry,) = entries(settings, "access")
    assert (entry["actor"], entry["detail"]["act"]) == ("user:auditor", "command")
    with contextlib.closing(Store.open(settings.data_dir, settings.database_url)) as store:
        (row,) = store.reads.query("SELECT detail FROM access")
    assert json.loads(row[0]) == {"flag": letter, "patients": 0, "what": f"work show {form[2:]}"}
    assert not any(secret in json.dumps(entry) for secret in PHI)


def test_a_message_is_corrected_beside_the_one_that_was_wrong(
    cds: Cds,
    letter: str,
    settings: Settings,
    tmp_path: Path,
) -> None:
    file = tmp_path / "right.hl7"
    file.write_bytes(b"\x0b" + RIGHT.replace("\r", "\n").encode() + b"\x1c\r")  # as an editor and a capture leave it
    fixed = cds.json("work", "fix", letter, "--with", file)
    assert fixed["resolved"] == 1
    assert fixed["asserted"] > 0
    assert cds.json("work", "list") == []
    old = cds.json("work", "show", letter, "--raw")
    assert old["payload"].rstrip("\r") == WRONG.rstrip("\r")  # what came is what is kept
    assert old["landing"] == fixed["corrects"] != fixed["landing"]
    (entry,) = entries(settings, "fix")
    assert entry["detail"]["corrected"] == fixed["landing"]
    assert cds.json("digest", "--redo")["asserted"] == 0
    assert cds.json("work", "list") == []
    again = cds.json("work", "fix", letter, "--with", file)  # as after a fix that was interrupted
    assert (again["landing"], again["resolved"]) == (fixed["landing"], 0)


def test_what_is_no_correction_is_refused_and_lands_nothing(cds: Cds, letter: str, tmp_path: Path) -> None:
    file = tmp_path / "still.hl7"
    file.write_text(WRONG, newline="")
    cds("work", "fix", letter, "--with", file, code=4)
    file.write_text(WRONG.replace("A08|N1", "A08|N2"), newline="")
    cds("work", "fix", letter, "--with", file, code=1)
    assert "PID-3" in cds.err
    assert not any(secret in cds.err for secret in PHI)
    cds("work", "fix", letter, code=2)
    cds("work", "fix", letter, "--with", tmp_path / "no.hl7", code=2)
    assert len(cds.json("work", "list")) == 1


def test_what_cannot_be_told_apart_into_segments_is_still_listed(
    cds: Cds,
    letter: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "bad.hl7"
    file.write_text("MSH|||||no delimiters\rPID|1||1\r", newline="")
    cds("land", file, "--source", "ward")
    cds("digest")
    flags = cds.json("work", "list", "--kind", "dead-letter")
    assert "no delimiters" not in cds("work", "show", str(flags[-1]["id"]))


def test_a_fragment_is_a_dead_letter_with_its_reason(cds: Cds, letter: str, tmp_path: Path) -> None:
    """(C11)"""
    file = tmp_path / "part.hl7"
    file.write_text(RIGHT.replace("N1|P", "N3|P") + "DSC|more\r", newline="")
    cds("land", file, "--source", "ward")
    cds("digest")
    found = cds.json("work", "list", "--kind", "dead-letter")[-1]
    assert (found["pointer"], found["detail"]) == ("DSC", "a part of a message that is sent in several")
    assert cds.json("work", "retry")["left"] == 2


def test_what_is_odd_about_a_batch_is_said_when_it_lands(cds: Cds, settings: Settings, tmp_path: Path) -> None:
    """(C11)"""
    file = tmp_path / "batch.hl7"
    file.write_text(f"FHS|^~\\&|\rBHS|^~\\&|\r{RIGHT}BTS|3\rFTS|1\r", newline="")
    (landed,) = cds.json("land", file, "--source", "ward")
    assert (landed["arrival"], landed["parts"]) == ("stored", 1)
    assert len(landed["notes"]) == 1
    assert "BTS" in landed["notes"][0]
    assert "note: " in cds("land", file, "--source", "ward")  # a duplicate is told the same
