"""Results on their way to a receiver over real sockets: in order, again, once more after a kill, or parked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.sinks.states import SEND
from cds_server.__main__ import main
from cds_server.app import Parts, build, create_app
from cds_server.audit import audit
from cds_server.destinations import _KEYS as destination_keys
from cds_server.destinations import destinations
from cds_server.outbox import Counted, begin, waiting
from cds_server.outgoing import Composer
from cds_server.results_due import Due
from cds_server.sending import Sender, beside
from cds_server.settings import Settings, load
from models.errors import Misconfigured
from tests.adapters.hl7v2_receiver import CLOSE, PATIENCE, Behaviour, Receiver, ack, always, number_of, receiving
from tests.cds_server.stores import flags
from tests.cds_server.test_continuous import ILL, WELL, adt, feed, oru
from tests.cds_server.test_results_due import WARD
from tests.peers import ROOT

OPS = (ROOT / "cds_server" / "ops.py").read_text()
QUICK = "port = {port}\ntimeout_seconds = 1\nretry_from_seconds = 1\nretry_to_seconds = 1"


def configured(data_dir: Path, port: int, text: str = WARD) -> Settings:
    config = data_dir / "cds.toml"
    config.write_text(text.replace("port = 2575", QUICK.format(port=port)))
    config_url = f"sqlite:///{data_dir / 'cds.db'}"
    return load({"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=config_url, trust="open")


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Parts]:
    built = build(settings)
    begin(built.store, [each.name for each in settings.destinations])
    yield built
    built.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()


def queue(parts: Parts, *messages: bytes) -> None:
    """What feed, scores and background make of these."""
    feed(parts, *messages)
    due = Due(parts.store, Composer(parts.store, parts.settings, parts.registry), parts.registry, parts.decisions)
    while due.some():
        pass


def of(parts: Parts) -> Counted:
    (counted,) = waiting(parts.store, ["his"])
    return counted


@contextlib.contextmanager
def sending(parts: Parts) -> Iterator[None]:
    """The sender of the destination, on a thread of its own."""
    loop, stopping = asyncio.new_event_loop(), asyncio.Event()
    (destination,) = destinations(parts.settings).values()
    thread = threading.Thread(target=loop.run_until_complete, args=(Sender(parts.store, destination, stopping).run(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def play(data_dir: Path, behave: Behaviour, *messages: bytes, end: Callable[[Counted], bool]) -> tuple[Receiver, Path]:
    """Queue what comes of these messages, and send until `end`."""
    with receiving(behave) as receiver, opened(configured(data_dir, receiver.port)) as parts:
        queue(parts, *messages)
        with sending(parts):
            until(lambda: end(of(parts)))
    return receiver, data_dir


THREE = (
    adt("A01"), oru(ILL), adt("A01", "88"), oru(WELL, "88", filler="F8"), adt("A01", "99"), oru(ILL, "99", filler="F9"),
)  # fmt: skip


def whose(raw: bytes) -> str:
    return raw.split(b"\rPID|1||")[1].split(b"^")[0].decode()


def test_each_goes_once_and_in_order(data_dir: Path) -> None:
    receiver, _ = play(data_dir, always(), *THREE, end=lambda counted: counted.waiting == 0)
    assert [whose(raw) for raw in receiver.messages] == ["77", "88", "99"]
    assert receiver.connections == 1
    assert len(set(map(number_of, receiver.messages))) == 3


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([], id="silent"),
        pytest.param([CLOSE], id="closes"),
        pytest.param(["AR"], id="not now"),
        pytest.param(["another"], id="another number"),
        pytest.param(["half"], id="closes inside its answer"),
    ],
)
def test_what_was_not_taken_is_sent_again_before_any_other(data_dir: Path, first: list[str | bytes]) -> None:
    def behave(raw: bytes, before: int) -> list[bytes]:
        if before:
            return [ack(number_of(raw))]
        spelled = {"AR": [ack(number_of(raw), "AR")], "another": [ack("X")], "half": [ack(number_of(raw))[:30], CLOSE]}
        return [each for said in first for each in (spelled[said] if isinstance(said, str) else [said])]

    receiver, _ = play(data_dir, behave, *THREE[:4], end=lambda counted: counted.waiting == 0)
    assert [whose(raw) for raw in receiver.messages] == ["77", "77", "88"]
    assert receiver.messages[0] == receiver.messages[1]
    assert receiver.got[0][0] != receiver.got[1][0]


def test_a_refused_one_waits_for_a_person_while_other_patients_go_on(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = threading.Event()
    refusing.set()

    def behave(raw: bytes, _: int) -> list[bytes]:
        return [ack(number_of(raw), "AE" if refusing.is_set() and whose(raw) == "77" else "AA")]

    with receiving(behave) as receiver, opened(configured(data_dir, receiver.port)) as parts:
        queue(parts, *THREE)
        feed_again = oru(WELL, ago=20, filler="F2")
        queue(parts, feed_again)
        with sending(parts):
            until(lambda: of(parts).parked == 1 and of(parts).waiting == 1)
            assert sorted(map(whose, receiver.messages)) == ["77", "88", "99"]
            assert ("dead-letter", "not-taken") in flags(parts.store)
            monkeypatch.setenv("CDS_CONFIG", str(data_dir / "cds.toml"))
            monkeypatch.setenv("CDS_DATA_DIR", str(data_dir))
            monkeypatch.setenv("CDS_TRUST", "open")

            assert main(["hl7", "queue"]) == 0
            assert "answered AE" in capsys.readouterr().out
            assert main(["work", "list", "--kind", "dead-letter"]) == 0
            listed = capsys.readouterr().out
            assert "his answered AE" in listed
            assert "WARD" not in listed
            assert main(["doctor"]) in (0, 1)
            assert "destination his" in capsys.readouterr().out

            refusing.clear()
            assert main(["work", "retry", "--kind", "dead-letter"]) == 0
            assert "1 results sent again, 0 still wait" in capsys.readouterr().out.replace("resources read now, ", "")
            until(lambda: of(parts).waiting == 0)
        assert [whose(raw) for raw in receiver.messages[3:]] == ["77", "77"]
        assert number_of(receiver.messages[3]) != number_of(receiver.messages[0])


def test_one_that_a_person_drops_is_not_sent_and_holds_nobody_back(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behave(raw: bytes, before: int) -> list[bytes]:
        return [ack(number_of(raw), "AE" if before == 0 else "AA")]

    with receiving(behave) as receiver, opened(configured(data_dir, receiver.port)) as parts:
        queue(parts, *THREE[:2])
        queue(parts, oru(WELL, ago=20, filler="F2"))
        with sending(parts):
            until(lambda: of(parts).parked == 1)
            row = parts.store.reads.one("SELECT id FROM flag WHERE reason = 'not-taken'")
            assert row is not None
            monkeypatch.setenv("CDS_CONFIG", str(data_dir / "cds.toml"))
            monkeypatch.setenv("CDS_DATA_DIR", str(data_dir))
            monkeypatch.setenv("CDS_TRUST", "open")
            assert main(["work", "resolve", str(row[0]), "--resolution", "told by telephone"]) == 0
            until(lambda: of(parts).waiting == 0)
        assert of(parts).parked == 0
        assert len(receiver.messages) == 2


def test_a_killed_sender_sends_the_same_bytes_again_and_nothing_is_lost(data_dir: Path) -> None:
    """Killed between the message and its answer, and the next process is answered."""
    deaf = threading.Event()
    deaf.set()

    def behave(raw: bytes, _: int) -> list[bytes]:
        return [] if deaf.is_set() else [ack(number_of(raw))]

    with receiving(behave) as receiver, opened(configured(data_dir, receiver.port)) as parts:
        queue(parts, *THREE[:4])
        spawn = multiprocessing.get_context("spawn")
        for turn in (1, 2):
            if turn == 2:
                deaf.clear()
            process = spawn.Process(target=beside, args=(parts.settings,))
            process.start()
            try:
                if turn < 2:
                    before = len(receiver.messages)
                    receiver.wait(before + 1)
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGKILL)
                else:
                    until(lambda: of(parts).waiting == 0)
                    process.terminate()
            finally:
                process.join(timeout=PATIENCE)
                assert process.exitcode == (0 if turn == 2 else -signal.SIGKILL)
    told = receiver.messages
    assert [whose(raw) for raw in told] == ["77"] * (len(told) - 1) + ["88"]
    assert len(set(told)) == 2
    assert len(told) >= 3


def test_nothing_of_a_patient_stands_outside_the_sealed_rows(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither in the database as it lies on the disk, nor in the log, nor in metrics."""
    play(data_dir, always("AE"), *THREE[:2], end=lambda counted: counted.parked == 1)
    logged = capfd.readouterr()
    on_disk = b"".join(path.read_bytes() for path in data_dir.iterdir() if path.is_file() and path.name != "cds.toml")
    for secret in ("WILLA", "^^^H^MR", "19500301"):
        assert secret.encode() not in on_disk
        assert secret not in logged.out + logged.err


def test_metrics_say_how_much_waits(data_dir: Path) -> None:
    from fastapi.testclient import TestClient

    with opened(configured(data_dir, 1)) as parts:
        queue(parts, *THREE[:2])
        with TestClient(create_app(parts), base_url="http://127.0.0.1", client=("127.0.0.1", 5000)) as client:
            text = client.get("/metrics").text
    assert 'cds_send_results{destination="his",state="waiting"} 1.0' in text
    assert 'cds_send_oldest_seconds{destination="his"}' in text


def test_the_queue_is_empty_where_there_is_no_destination(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(configured(data_dir, 1, "")):
        monkeypatch.setenv("CDS_CONFIG", str(data_dir / "cds.toml"))
        monkeypatch.setenv("CDS_DATA_DIR", str(data_dir))
        assert main(["hl7", "queue"]) == 0
        assert "nothing is sent" in capsys.readouterr().out
        assert main(["hl7", "queue", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('services = ["deterioration-news2"]', ""), "services of"),
        (("deterioration-news2", "no-such"), "names a service that there is not"),
        (('services = ["deterioration-news2"]', 'models = ["x"]'), "no service speaks"),
        (("127.0.0.1", "10.1.2.3"), "plain_text"),
        (("port = 2575", "port = 0"), "port of"),
        (("port = 2575", 'port = 1\nprocessing = "X"'), "table 0103"),
        (("port = 2575", 'port = 1\ntls_ca_file = "x"'), "tls of"),
        (("port = 2575", 'port = 1\ntls = true\ntls_cert_file = "x"'), "belong together"),
        (("port = 2575", 'port = 1\ntls = true\ntls_ca_file = "/none"'), "names no file"),
        (("port = 2575", "port = 1\nretry_from_seconds = 9\nretry_to_seconds = 8"), "less than"),
        (("port = 2575", 'port = 1\nlocal_assigner = "X"'), "local_assigner of"),
        (("port = 2575", 'port = 1\nassigners = {"urn:x" = "A&B"}'), "NAME&ID&TYPE"),
        (("port = 2575", 'port = 1\ncode_system = "LN"'), "table 0396"),
        (("port = 2575", 'port = 1\nwhat = "cards"'), "what of"),
        (("port = 2575", "port = 1\nport_ = 1"), "unknown key"),
        (('name = "his"\nkind = "hl7v2-mllp"', 'name = "his"\nkind = "fax"'), "kind of"),
        ((WARD, WARD + WARD[WARD.index("[[destination]]") :]), "same name"),
    ],
)
def test_what_is_wrong_with_a_destination_stops_the_start(
    data_dir: Path, change: tuple[str, str], complaint: str
) -> None:
    config = data_dir / "cds.toml"
    config.write_text(WARD.replace(*change))
    with pytest.raises(Misconfigured) as wrong:
        destinations(load({"CDS_CONFIG": str(config)}, data_dir=data_dir, trust="open"))
    assert complaint in str(wrong.value)
    assert "cds.toml" in str(wrong.value)


def test_the_manual_tells_every_key_and_draws_the_states() -> None:
    manual = (ROOT / "docs" / "hl7v2.md").read_text().split("\n## Out\n")[1].split("\n## ")[0]
    assert {
        key for key in destination_keys if f"`{key}`" not in manual and f"destination.{key}]" not in manual
    } == set()
    assert f"```mermaid\n{SEND.diagram()}\n```\n" in manual
    assert {name for name in re.findall(r"`(cds_\w+)`", manual) if f'"{name}"' not in OPS} == set()
