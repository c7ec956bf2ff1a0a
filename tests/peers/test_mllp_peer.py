"""Feeds as their senders meet them: `cds listen` and `cds serve` as processes, on the real store, killed and flooded.

Ids are rows of docs/hl7v2.md. `CDS_TEST_KILLS=1000` makes a soak of the storm.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.acks import header_of, plan
from adapters.hl7v2.frames import START, TRAILER, frame
from tests.adapters.hl7v2_samples import samples
from tests.peers.feeds import PATIENCE, Line, Listener, Storm, admission, configure, landed
from tests.peers.server import Server, free_port
from tests.peers.test_broken_places import as_root, fill, small_disk

__all__ = ["small_disk"]

Make = Callable[..., Server]
KILLS = int(os.environ.get("CDS_TEST_KILLS", "7"))
SENDERS = 8
MB = 1 << 20


@pytest.fixture
def listeners(servers: Make) -> Iterator[Callable[..., Listener]]:
    """`make(*lines of the source, **members of Server)`: instances with `cds listen` on them."""
    made: list[Listener] = []

    def make(*options: str, **members: Any) -> Listener:
        made.append(Listener(servers(start=False, **members), options))
        return made[-1].start()

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            assert each.stop() == 0, each.errors.read_text()[-2000:]


Listeners = Callable[..., Listener]


def until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


# ---- what is acknowledged is there -----------------------------------------------------------------------------------


def test_killed_at_any_moment_in_a_storm_of_senders_that_resend(listeners: Listeners) -> None:
    """(A6) (C1): each message landed exactly once, and whatever was acknowledged is among them."""
    listener, chance = listeners(), random.Random(6)
    with Storm(listener.port, SENDERS) as storm:
        for _ in range(KILLS):
            before = len(storm.acknowledged)
            until(lambda before=before: len(storm.acknowledged) > before, "nothing was acknowledged")  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.5))
            listener.kill()
            listener.start()
    assert storm.strange == []
    assert storm.deaths >= KILLS
    found = landed(listener.server)
    assert set(found) == storm.acknowledged
    assert set(found.values()) == {1}


def test_the_server_killed_with_its_feed_and_its_background_work(servers: Make) -> None:
    """(A6) (C1) (C2): each message landed once, and each landing is digested once, in the order of arrival."""
    port, chance = free_port(), random.Random(7)
    server = configure(servers(start=False), port).start()
    until(lambda: reachable(port), "the feed does not listen")
    with Storm(port, 4) as storm:
        for _ in range(max(3, KILLS // 3)):
            before = len(storm.acknowledged)
            until(lambda before=before: len(storm.acknowledged) > before + 20, "nothing was acknowledged")  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.5))
            server.kill()
            server.start()
    assert storm.strange == []
    server.stop()
    found = landed(server)
    assert set(found) == storm.acknowledged
    assert set(found.values()) == {1}
    server.cds("digest")
    with closing(sqlite3.connect(f"file:{server.data_dir / 'cds.db'}?mode=ro", uri=True)) as database:
        digested = [each for (each,) in database.execute("SELECT landing_id FROM digestion ORDER BY id")]
        landings = [each for (each,) in database.execute("SELECT id FROM landing ORDER BY id")]
    assert digested == landings


def test_a_restart_remembers(listeners: Listeners) -> None:
    """(C1): the same message again is answered the same and not stored; other bytes under its number are."""
    listener = listeners()
    for _ in range(2):
        with Line(listener.port) as line:
            assert line.tell(admission("A")) == ("AA", "A")
            assert line.tell(admission("A", "456")) == ("AA", "A")
        assert listener.stop() == 0
        listener.start()
    assert landed(listener.server) == Counter({"A": 2})


def test_sigterm_finishes_the_frame_in_progress(listeners: Listeners) -> None:
    """(F10): it is completed, stored and answered; then the process ends with 0."""
    listener = listeners()
    raw = frame(admission("HALF"))
    with Line(listener.port) as half, Line(listener.port) as idle:
        half.socket.sendall(frame(admission("A")) + raw[:100])
        assert half.answer() == ("AA", "A")
        assert listener.process is not None
        listener.process.send_signal(signal.SIGTERM)
        assert idle.socket.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            Line(listener.port)
        half.socket.sendall(raw[100:])
        assert half.answer() == ("AA", "HALF")
        assert half.socket.recv(1) == b""
    assert listener.process.wait(timeout=30) == 0
    assert landed(listener.server) == Counter({"A": 1, "HALF": 1})


@as_root
def test_a_full_disk_is_no_yes(small_disk: Path, listeners: Listeners) -> None:
    """(F9) (A2) (A6): AR as configured while it is full, a yes for the same messages when there is room again."""
    listener = listeners("on_trouble = 'AR'", data_dir=small_disk / "var")
    with Line(listener.port) as line:
        assert line.tell(admission("BEFORE")) == ("AA", "BEFORE")
        filler = fill(small_disk)
        told = {}
        for number in range(40):
            code, control_id = line.tell(admission(f"M{number}", padding=100_000))
            assert control_id == f"M{number}"
            told[control_id] = code
        assert set(told.values()) <= {"AA", "AR"}
        assert "AR" in told.values(), "the disk was never full"
        filler.unlink()
        for number in range(40):
            assert line.tell(admission(f"M{number}", padding=100_000)) == ("AA", f"M{number}")
    assert landed(listener.server) == Counter(["BEFORE", *told])


def test_a_sender_hears_what_could_not_be_applied(listeners: Listeners) -> None:
    """(A7): `ack_after = "applied"`: AA once it is digested, AE with a dead letter where it cannot be read; accepted
    stays stored."""
    listener = listeners("ack_after = 'applied'")
    nobody = admission("NOBODY").replace(b"PID|", b"ZID|").replace(b"PV1|", b"ZV1|")
    with Line(listener.port) as line:
        assert line.tell(admission("GOOD")) == ("AA", "GOOD")
        assert [line.tell(nobody) for _ in range(2)] == [("AE", "NOBODY")] * 2
        assert line.tell(admission("NEXT", "124", accept="AL")) == ("CA", "NEXT")
    assert landed(listener.server) == Counter(["GOOD", "NOBODY", "NEXT"])
    (letter,) = listener.server.ask("work", "list", "--kind", "dead-letter")
    assert letter["kind"] == "dead-letter"


def test_senders_that_wait_beside_the_background_work(servers: Make) -> None:
    """(A7): `cds serve` digests the same messages; nobody hears an error for that."""
    port = free_port()
    server = configure(servers(start=False), port, "ack_after = 'applied'").start()
    told: list[tuple[str, str]] = []

    def send(number: int) -> None:
        with Line(port) as line:
            told.extend(line.tell(admission(f"S{number}-{each}", f"{number}{each}")) for each in range(15))

    until(lambda: reachable(port), "the feed does not listen")
    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(code for code, _ in told) == {"AA": 60}
    assert len(landed(server)) == 60


def reachable(port: int) -> bool:
    try:
        Line(port).socket.close()
    except OSError:
        return False
    return True


def test_every_message_of_others_is_answered_and_kept(peer_data: Path, listeners: Listeners) -> None:
    """(A2) (A3) (C9) (C12): AA and landed, or AR because of its MSH-10, MSH-11 or MSH-12; never anything else."""
    listener, kept, told = listeners(), set[str](), Counter[str]()
    with Line(listener.port) as line:
        for name, raw in samples(peer_data):
            header = header_of(raw)
            mode = header.processing_id.split(b"^")[0] or b"P"
            good = bool(header.control_id) and mode == b"P" and header.version[:1] in (b"2", b"")
            wanted = plan(header)
            owed = ["CA" if good else "CR"] if wanted.accept.due(good) else []
            owed += ["AA" if good else "AR"] if wanted.application.due(good) and (good or not wanted.enhanced) else []
            line.socket.sendall(START + raw + TRAILER)
            for code in owed:
                assert line.answer() == (code, header.control_id.decode("latin-1")), name
                told[code] += 1
            if good and not header.is_ack:
                kept.add(header.control_id.decode("latin-1"))
        assert line.tell(admission("LAST")) == ("AA", "LAST")  # nobody was answered too often
    assert told["AA"] > 100
    assert set(landed(listener.server)) == {*kept, "LAST"}


# ---- what is a burden ------------------------------------------------------------------------------------------------


def test_five_thousand_silent_connections(listeners: Listeners) -> None:
    """(F7): they cost little memory, and others are served; the usual limit of 1024 open files is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6000:
        pytest.skip("this account may not open 6,000 files")
    few = ("sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh")
    listener = listeners("max_connections = 5001", prefix=few if shutil.which("sh") else ())
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 6000), hard))
    idle: list[socket.socket] = []
    try:
        with Line(listener.port) as line:
            line.tell(admission("FIRST"))
            before = listener.memory
            idle.extend(socket.create_connection(("127.0.0.1", listener.port)) for _ in range(5000))
            for each in idle[::100]:
                each.sendall(START + b"MSH|")
            for number in range(50):
                assert line.tell(admission(f"M{number}")) == ("AA", f"M{number}")
            assert listener.memory - before < 128 * MB
            with Line(listener.port) as one_too_many:
                assert one_too_many.socket.recv(1) == b""
            idle[17].sendall(frame(admission("LATE")))
            idle[17].settimeout(PATIENCE)
            assert b"MSA|AA|LATE" in idle[17].recv(4096)
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("piece", "times"),
    [(START * MB, 100), (b"junk" * (MB // 4), 23), (b"\x1c" * MB, 24)],
    ids=["starts", "junk", "ends"],
)
def test_a_flood_of_what_is_no_message(listeners: Listeners, piece: bytes, times: int) -> None:
    """(F2) (F4) (F5): 100 MB of start bytes, 24 MB between frames: memory stays, and others are served meanwhile."""
    listener = listeners()
    with Line(listener.port) as line, Line(listener.port) as flooding:
        line.tell(admission("FIRST"))
        before, most, served = listener.memory, 0, 0
        flood = threading.Thread(target=lambda: [flooding.socket.sendall(piece) for _ in range(times)])
        flood.start()
        while flood.is_alive():
            assert line.tell(admission(f"M{served}")) == ("AA", f"M{served}")
            served += 1
            most = max(most, listener.memory)
        flood.join()
        assert flooding.tell(admission("AFTER")) == ("AA", "AFTER")
        assert served
        assert max(most, listener.memory) - before < 64 * MB


def test_a_message_without_end(listeners: Listeners) -> None:
    """(F5): 100 MB in one frame are drained and refused by its number; what is kept stays below the limit."""
    listener = listeners("max_message = 1000000")
    with Line(listener.port) as line:
        line.tell(admission("FIRST"))
        before = listener.memory
        line.socket.sendall(START + admission("LONG"))
        for _ in range(100):
            line.socket.sendall(b"x" * MB)
        assert listener.memory - before < 32 * MB
        line.socket.sendall(TRAILER + frame(admission("NEXT")))
        assert line.answer() == ("AR", "LONG")
        assert line.answer() == ("AA", "NEXT")


# ---- beside the server -----------------------------------------------------------------------------------------------


def test_a_feed_that_is_killed_beside_the_server_comes_back(servers: Make) -> None:
    """`cds serve` runs the feeds in a process of their own; its death does not stop calls, and is mended."""
    port = free_port()
    server = configure(servers(start=False), port).start()
    until(lambda: reachable(port), "the feed does not listen")
    with Line(port) as line:
        assert line.tell(admission("A")) == ("AA", "A")
        os.kill(listening_process(server), signal.SIGKILL)
        with pytest.raises(OSError):
            line.tell(admission("B"))
    assert server.readiness() == 200
    until(lambda: reachable(port), "the feed did not come back")
    with Line(port) as line:
        assert line.tell(admission("B")) == ("AA", "B")
    assert server.stop() == 0
    assert not reachable(port)
    assert landed(server) == Counter({"A": 1, "B": 1})


def test_a_feed_that_cannot_listen_does_not_stop_the_others(servers: Make) -> None:
    """(F7): beside the server it tries again until its address is free; `cds listen` says it, and ends."""
    port, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    other = taken.getsockname()[1]
    second = ("[[source]]", "name = 'ward'", "kind = 'hl7v2-mllp'", "namespace = 'w'", f"listen = '127.0.0.1:{other}'")
    server = configure(servers(start=False), port, *second).start()
    until(lambda: reachable(port), "the feed does not listen")
    with Line(port) as line:
        assert line.tell(admission("A")) == ("AA", "A")
        until(lambda: "a feed does not listen" in server.told(), "nobody said so")
        assert "cannot listen for ward" in server.cds("listen", "ward", code=2).stderr
        assert line.tell(admission("B")) == ("AA", "B")
        taken.close()
        until(lambda: reachable(other), "the feed did not try again")
        with Line(other) as ward:
            assert ward.tell(admission("A")) == ("AA", "A")
    assert landed(server) == Counter({"A": 1, "B": 1})


def listening_process(server: Server) -> int:
    """By its own word in the log."""
    import json

    for line in server.told().splitlines():
        if line.startswith("{") and json.loads(line).get("source") == "lab":
            return int(json.loads(line)["pid"])
    raise LookupError(server.told()[-1000:])
