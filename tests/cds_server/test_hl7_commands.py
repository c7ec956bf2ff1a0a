"""`cds hl7` and `cds land` of messages, as people who connect a feed use them: over real sockets, into a real store."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.batch import Entry, split
from adapters.hl7v2.frames import START, TRAILER, Frame, FrameDecoder
from cds_server import hl7_terminal
from cds_server.__main__ import main
from cds_server.hl7_terminal import LONGEST, printable
from cds_server.store.store import Store
from tests.cds_server.hl7_counts import PAGE, landed, outcomes, page
from tests.peers import ROOT
from tests.peers.tls import certificate

FIXTURES = ROOT / "fixtures/hl7"
A01, A08, ORU = (FIXTURES / f"nils-d.{name}.hl7" for name in ("adt-a01", "adt-a08", "oru-r01"))
BROKEN = b"MSH|^^|A|B|C|D|2026||ADT^A01|BAD2|P|2.5.1\r"
SECRETS = (
    "Nils",
    "MRN2009",
    "19490730",
    "Elm Street",
    "5550109",
    "Karin",
    "Weber",
    "9434765919",
    "haemolysed",
    "V2009",
)


class Cds:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main(["hl7", *map(str, arguments)])
        out, self.err = self._capsys.readouterr()
        assert found == code, (arguments, found, self.err)
        return out

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def cds(capsys: pytest.CaptureFixture[str]) -> Cds:
    return Cds(capsys)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A capture of three messages, the second of which is none."""
    path = tmp_path / "several.mllp"
    path.write_bytes(
        b"".join(START + each + TRAILER for each in (A01.read_bytes(), BROKEN, ORU.read_bytes()))
    )  # fmt: skip
    return path


# ---- show ------------------------------------------------------------------------------------------------------------


def test_a_message_is_shown_by_the_names_of_its_fields_and_masked(cds: Cds) -> None:
    shown = "".join(cds("show", path) for path in (A01, A08, ORU))
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "PID-3 Patient Identifier List ***^^^http://hospital.example.org^MR" in lines
    assert "PID-8 Administrative Sex M" in lines
    assert "OBX[4]-3 Observation Identifier 9279-1^Respiratory rate^LN" in lines
    assert "OBX[4]-5 Observation Value 22" in lines
    assert "OBX[20]-5 Observation Value ***" in lines
    assert "ZVN-2 ***" in lines
    assert not [line for line in lines if line.startswith("PID-2 ")], "what is empty is left out"
    assert [secret for secret in SECRETS if secret in shown] == []


def test_unmasked_it_is_shown_whole_with_its_escapes_undone(cds: Cds) -> None:
    shown = cds("show", A08, "--unmask") + cds("show", ORU, "--unmask")
    assert "Oak Lane 12&14^^Sampleton" in shown
    assert "A field of the sender's own" in shown
    one, other = (line.strip() for line in shown.splitlines() if "haemolysed" in line or "in doubt" in line)
    assert one.endswith("Sample slightly haemolysed")
    assert other == "repeat if in doubt"


def test_one_of_several_and_what_is_no_message(cds: Cds, several: Path) -> None:
    assert "message 3: ORU^R01" in cds("show", several, "--message", "3")
    everything = cds("show", several, code=1)
    assert "message 1: ADT^A01" in everything
    assert "message 3: ORU^R01" in everything
    assert "message 2: not four or five encoding characters (at MSH-2)" in cds.err
    cds("show", several, "--message", "9", code=1)
    assert "there is no message 9" in cds.err


def test_for_programs_the_same_is_masked_as_well(cds: Cds) -> None:
    found = cds.json("show", A01)
    pid = next(each for each in found[0]["segments"] if each["segment"] == "PID")
    name = next(each for each in pid["fields"] if each["place"] == "PID-5")
    assert (name["title"], name["datatype"], name["value"], name["masked"]) == (
        *("Patient Name", "XPN", "***^***^^^^^L", True),
    )
    assert name["components"][:2] == ["Family Name", "Given Name"]
    assert [secret for secret in SECRETS if secret in json.dumps(found)] == []
    assert "Nils" in json.dumps(cds.json("show", A01, "--unmask"))


def test_a_gzip_and_the_standard_input_are_read_alike(
    cds: Cds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(A01.read_bytes()))
    plain = cds("show", A01)
    assert cds("show", packed) == plain
    with A01.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert cds("show", "-") == plain


def test_what_a_sender_writes_cannot_command_the_terminal(cds: Cds, tmp_path: Path) -> None:
    path = tmp_path / "a.hl7"
    path.write_bytes(
        b"MSH|^~\\&|\x1b]0;owned\x07|B|C|D|2026||ADT^A01|1|P|2.5.1\rNTE|1||\\X1B5B324A\\ \xe2\x80\xaegpj.exe\r"
    )
    shown = cds("show", path, "--unmask")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "\\x1b]0;owned\\x07" in shown
    assert printable("x" * (LONGEST + 1)).endswith(f"... ({LONGEST + 1} characters)")


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["hl7", "show", str(A01)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[32mPatient Identifier List" in shown
    assert "Nils" not in shown
    assert main(["hl7", "show", str(A01), "--diff", str(A08)]) == 0
    assert "\x1b[31m" in capsys.readouterr().out


def test_a_field_of_countless_parts_is_one_value(cds: Cds, tmp_path: Path) -> None:
    path = tmp_path / "a.hl7"
    path.write_bytes(A01.read_bytes() + b"PR1|1||" + b"x^&" * 200_000 + b"\r")
    assert cds("show", path).splitlines()[-1].split()[-1] == "***"
    assert "(600000 characters)" in cds("show", path, "--unmask")


# ---- a difference ----------------------------------------------------------------------------------------------------


def test_a_difference_is_told_by_fields_and_masked(cds: Cds) -> None:
    changes = {each["place"]: (each["before"], each["after"]) for each in cds.json("show", A01, "--diff", A08)}
    assert set(changes) == {"MSH-7", "MSH-9", "MSH-10", "EVN-2", "PID-11", "NK1-4", "PV1-3", "IN1"}
    assert changes["MSH-9"] == ("ADT^A01^ADT_A01", "ADT^A08^ADT_A01")
    assert changes["PID-11"] == ("***^^***^^***^DEU^H",) * 2
    assert changes["IN1"][1] is None
    shown = cds("show", A01, "--diff", A08)
    assert "(differs behind the mask)" in shown
    assert "Elm" not in shown
    assert "+ Oak Lane 12&14" in cds("show", A01, "--diff", A08, "--unmask")
    assert cds("show", A01, "--diff", A01) == "no difference\n"


def test_a_result_that_comes_in_between_moves_no_other(cds: Cds, tmp_path: Path) -> None:
    other = tmp_path / "other.hl7"
    body = ORU.read_bytes()
    third = body.index(b"OBX|3|")
    other.write_bytes(body[:third] + b"OBX|3|NM|2708-6^Oxygen saturation^LN||95|%|||||F\r" + body[third:])
    assert [each["place"] for each in cds.json("show", ORU, "--diff", other)] == ["OBX[3]"]
    other.write_bytes(body.replace(b"||96|/min", b"||99|/min"))
    assert cds.json("show", ORU, "--diff", other) == [
        {"place": "OBX[3]-5", "title": "Observation Value", "before": "96", "after": "99"}
    ]


# ---- validate --------------------------------------------------------------------------------------------------------


def test_it_says_what_would_be_read_and_where_a_message_leaves_its_version(cds: Cds, tmp_path: Path) -> None:
    found = cds.json("validate", A01, ORU)
    assert found[1]["statements"]["assert Observation"] == 20
    assert [each["findings"] for each in found] == [[], []]
    bad = tmp_path / "bad.hl7"
    bad.write_bytes(ORU.read_bytes().replace(b"|19490730|", b"|30.07.1949|"))
    shown = cds("validate", bad)
    assert "PID-7.1: not a date and time" in shown
    assert "1949" not in shown


def test_what_cannot_be_read_is_an_answer_of_no(cds: Cds, tmp_path: Path, several: Path) -> None:
    shown = cds("validate", several, code=1)
    assert "message 2" in shown
    assert "not read: not four or five encoding characters (at MSH-2)" in shown
    assert cds.err == "3 messages: 2 read, 1 not\n"
    unknown = tmp_path / "unknown.hl7"
    unknown.write_bytes(A01.read_bytes().replace(b"ADT^A01^ADT_A01", b"ADT^A99"))
    assert "not read: an event that is not mapped (at MSH-9)" in cds("validate", unknown, code=1)
    nothing = tmp_path / "nothing.hl7"
    nothing.write_bytes(b"hello\r")
    assert "no message at all" in cds("validate", nothing, code=1)


def test_it_reads_by_the_rules_of_a_configured_source(
    cds: Cds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        '[[source]]\nname = "billing"\nkind = "hl7v2-files"\nnamespace = "h"\nzone = "Europe/Berlin"\n'
        "accept_claims = true\n"
    )
    monkeypatch.setenv("CDS_CONFIG", str(config))
    claim = tmp_path / "claim.hl7"
    claim.write_bytes(A01.read_bytes().replace(b"ADT^A01^ADT_A01", b"BAR^P01"))
    assert cds.json("validate", claim)[0]["statements"] == {}
    assert cds.json("validate", claim, "--source", "billing")[0]["statements"]["assert Condition"] == 1
    assert main(["hl7", "validate", str(claim), "--source", "nobody"]) == 2


# ---- send and replay -------------------------------------------------------------------------------------------------


async def _read(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(OSError):
        return await reader.read(65536)
    return b""


Answering = Callable[[bytes], bytes | None]


@contextlib.contextmanager
def receiver(answering: Answering, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A receiver on a thread of its own: its address, and what it got. None: it closes instead of an answer."""
    got: list[bytes] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    address: list[str] = []
    stop = asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder()
        try:
            while data := await _read(reader):
                for event in decoder.feed(data):
                    if isinstance(event, Frame):
                        got.append(event.payload)
                        answer = answering(event.payload)
                        if answer is None:
                            return
                        writer.write(answer)
        finally:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=tls)
        address.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ready.set()
        await stop.wait()
        server.close()
        await asyncio.sleep(0.05)  # whoever was let in last has begun, and so closes what it was given
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for _ in range(20):  # connections whose handshake failed are nobody's task
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield address[0], got
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        with warnings.catch_warnings():  # a socket whose handshake failed, or that came at the very end, is nobody's
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def says(code: str, number: bytes | None = None) -> Answering:
    def answer(raw: bytes) -> bytes:
        whose = raw.split(b"|")[9] if number is None else number
        return START + b"MSH|^~\\&|R|R|S|S|2026||ACK|9|P|2.5.1\rMSA|" + code.encode() + b"|" + whose + b"\r" + TRAILER

    return answer


def test_each_message_is_sent_and_its_answer_printed(cds: Cds, several: Path) -> None:
    with receiver(says("CA")) as (address, got):
        rows = cds.json("send", several, address)
        sent = cds("send", A01, address)
    assert [(row["message"], row["code"], row["control_id"]) for row in rows] == [
        *((1, "CA", "ADT000001"), (2, "CA", "BAD2"), (3, "CA", "LAB000001")),
    ]
    assert got[0] == A01.read_bytes()
    assert got[2] == ORU.read_bytes()
    assert sent.split()[:3] == ["1", "CA", "ADT000001"]


def test_any_answer_that_is_no_yes_is_exit_code_1(cds: Cds) -> None:
    for code in ("AE", "AR", "CE", "CR"):
        with receiver(says(code)) as (address, _):
            assert cds("send", A01, address, code=1).split()[1] == code
    with receiver(lambda _: START + b"what?" + TRAILER) as (address, _):
        assert cds("send", A01, address, code=1).split()[1] == "?"


def test_no_answer_is_exit_code_3(cds: Cds) -> None:
    with receiver(lambda _: None) as (address, _):
        cds("send", A01, address, code=3)
        assert cds.err == "cds hl7: the receiver closed the connection without an answer\n"
    with receiver(lambda _: b"") as (address, _):
        cds("send", A01, address, "--wait", "0.2", code=3)
        assert "no answer within 0.2 seconds" in cds.err
    with receiver(says("AA", b"another")) as (address, _):
        cds("send", A01, address, "--wait", "0.2", code=3)
    cds("send", A01, address, code=3)
    assert "no connection to 127.0.0.1" in cds.err


def test_a_message_that_wants_no_answer_is_not_waited_for(cds: Cds, tmp_path: Path) -> None:
    silent = tmp_path / "silent.hl7"
    silent.write_bytes(ORU.read_bytes().replace(b"|AL|NE|", b"|NE|NE|"))
    with receiver(lambda _: b"") as (address, _):
        assert cds("send", silent, address).split()[1] == "-"


def test_over_tls_each_side_shows_its_certificate(cds: Cds, tmp_path: Path) -> None:
    folders = [tmp_path / "theirs", tmp_path / "ours"]
    for folder in folders:
        folder.mkdir()
    (theirs, their_key), (ours, our_key) = map(certificate, folders)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours)
    context.load_cert_chain(theirs, their_key)
    context.verify_mode = ssl.CERT_REQUIRED
    with receiver(says("AA"), context) as (address, got):
        cds("send", A01, address, "--tls", "--ca", theirs, "--cert", ours, "--key", our_key)
        assert got == [A01.read_bytes()]
        cds("send", A01, address, "--tls", code=3)
        assert "a certificate is not believed" in cds.err
        cds("send", A01, address, "--tls", "--ca", theirs, code=3)
        cds("send", A01, address, code=3)
        assert len(got) == 1


def test_wrong_options_are_exit_code_2(cds: Cds, tmp_path: Path) -> None:
    cds("send", A01, "nowhere", code=2)
    cds("send", A01, "127.0.0.1:1", "--ca", A01, code=2)
    cds("send", A01, "127.0.0.1:1", "--tls", "--cert", A01, code=2)
    cds("send", A01, "127.0.0.1:1", "--tls", "--ca", A01, code=2)
    cds("replay", "-", "--to", "127.0.0.1:1", "--repeat", "2", code=2)
    cds("capture", "--listen", "0.0.0.0:0", "--out", tmp_path / "new", code=2)
    cds("capture", "--listen", "127.0.0.1:0", "--allow", "x", "--out", tmp_path / "new", code=2)
    assert not (tmp_path / "new").exists()
    for wrong in (["--rate", "0"], ["--rate", "x"], ["--repeat", "0"]):
        with pytest.raises(SystemExit) as end:
            main(["hl7", "replay", str(A01), "--to", "127.0.0.1:1", *wrong])
        assert end.value.code == 2


def test_a_feed_is_played_again_with_its_totals(cds: Cds, several: Path) -> None:
    with receiver(says("AA")) as (address, got):
        found = cds.json("replay", several, "--to", address, "--repeat", "3", "--rate", "1000")
        shown = cds("replay", A01, "--to", address)
    assert (found["sent"], found["codes"], found["not_sent"]) == (9, {"AA": 9}, 0)
    assert 0 < found["ms"]["p50"] <= found["ms"]["p99"] <= found["ms"]["most"]
    assert len(got) == 10
    assert shown.startswith("1 messages in ")
    with receiver(says("AE")) as (address, _):
        assert cds.json("replay", A01, "--to", address, code=1)["codes"] == {"AE": 1}


def test_the_rate_is_kept(cds: Cds, several: Path) -> None:
    with receiver(says("AA")) as (address, _):
        assert cds.json("replay", several, "--to", address, "--rate", "20")["seconds"] >= 0.1


# ---- capture ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def capturing(out: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`cds hl7 capture` as a process: it, and its address."""
    command = [sys.executable, "-m", "cds_server", "hl7", "capture", "--listen", "127.0.0.1:0", "--out", str(out)]
    started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        said = started.stderr.readline()
        assert "will hold patient data" in said
        yield started, f"127.0.0.1:{said.split('port ')[1].split(';')[0]}"
    finally:
        started.send_signal(signal.SIGTERM)
        said = started.stderr.read()
        assert started.wait(30) == 0, said
        started.stderr.close()


def test_a_feed_is_captured_and_played(cds: Cds, tmp_path: Path) -> None:
    out = tmp_path / "feed.mllp"
    with capturing(out) as (_, address):
        for path in (A01, ORU, A01):
            cds("send", path, address)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with out.open("rb") as file:
        raws = [each.raw for each in split(iter(lambda: file.read(100), b"")) if isinstance(each, Entry)]
    assert raws == [A01.read_bytes(), ORU.read_bytes(), A01.read_bytes()], "what was sent twice stands there twice"
    with receiver(says("AA")) as (address, got):
        cds("replay", out, "--to", address)
    assert got == raws


def test_a_capture_overwrites_nothing_and_leaves_no_empty_file(cds: Cds, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    cds("capture", "--listen", "127.0.0.1:0", "--out", there, code=2)
    assert cds.err == "cds hl7: the file of a capture must be a new one (at --out)\n"
    assert there.read_text() == "mine"
    link = tmp_path / "link"
    os.symlink(tmp_path / "elsewhere", link)
    cds("capture", "--listen", "127.0.0.1:0", "--out", link, code=2)
    empty = tmp_path / "empty"
    with capturing(empty):
        assert empty.exists()
    assert not empty.exists()


# ---- into a store ----------------------------------------------------------------------------------------------------


def test_every_sample_lands_and_is_read_or_a_dead_letter_with_its_reason(store: Store, peer_data: Path) -> None:
    files = landed(store, peer_data)
    assert files == 143
    found = outcomes(store)
    assert sum(sum(tally.values()) for tally in found.values()) == 143
    assert sum(tally["read"] for tally in found.values()) > 100
    assert len(found) > 50
    for tally in found.values():
        for outcome in tally:
            assert outcome in ("read", "states nothing") or outcome.startswith("dead letter: ")
            assert outcome != "dead letter: None"
    assert PAGE.read_text(encoding="utf-8") == page(store), "run `python -m tests.cds_server.hl7_counts`"


def test_blocks_leave_out_what_is_empty_and_keep_every_segment() -> None:
    message = next(each for _, each in _parsed(ORU))
    found = hl7_terminal.blocks(message)
    assert [block.name for block in found] == [segment.name for segment in message]
    assert all(line.sent for block in found for line in block.lines)


def _parsed(path: Path) -> Iterator[tuple[int, Any]]:
    from cds_server.commands.hl7 import _messages

    with hl7_terminal.opened(str(path)) as items:
        yield from _messages(str(path), items, None)


def test_what_is_odd_is_told_by_codes_and_never_with_a_value(cds: Cds, tmp_path: Path) -> None:
    file = tmp_path / "odd.hl7"
    file.write_text(
        "MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||ORU^R01|M1|P|2.9\rPID|1||1^^^HOSP^MR||DOE\r"
        "OBR|1||F1|S^x^L|||20260301\rOBX|1|NM|K^k^L||<7777|mmol/L|||||F\rOBX|2|ST|C^c^L||a\\ZZ9\\b||||||F\r",
        newline="",
    )
    (found,) = cds.json("validate", file)
    assert found["odd"] == ["escape-unknown", "number-as-text", "version-unknown"]
    shown = cds("validate", file)
    assert "odd: escape-unknown, number-as-text, version-unknown" in shown
    assert "7777" not in shown
