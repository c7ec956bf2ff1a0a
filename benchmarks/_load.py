"""A load client in a process of its own: HTTP/1.1, kept-alive connections, one thread, no library between.

closed loop   each connection sends its next request when its last answer is complete: the top rate
open loop     requests start by the clock at a fixed rate, and wait for a free connection where there is none; latency
              counts from the time at which the clock said so, so that a slow server cannot hide its queue

python -m benchmarks._load --port N --seconds S [--rate R] [--connections 16]      prints one JSON line

With `--key FILE.pem --tokens N`, each request carries a token of its own, signed before the clock starts; the run ends
early where they are used up. Where the server sheds load (503), that is counted apart, and the connection rests as long
as `Retry-After` asks.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import _tokens
from benchmarks._bodies import SERVICE, Bodies, survival

CONNECTIONS = 16
WARM_UP = 0.5
"""Seconds that are not counted."""
WARM_UPS = 5
_SAMPLE = 50
"""One answer in so many is looked into: it must be a score."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a client saw. Latencies in milliseconds."""

    answered: int
    seconds: float
    rate: float
    p50: float
    p99: float
    worst: float
    shed: int
    """Answered 503."""
    failed: int
    failed_with: str
    """Status and body of the first failure."""
    scored: int
    looked_at: int
    answer_bytes: int

    @property
    def shed_share(self) -> float:
        """Of the requests that were answered at all."""
        asked = self.answered + self.shed
        return self.shed / asked if asked else 0.0


class _Connection:
    def __init__(self, port: int, poll: select.epoll) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = self.rest = 0.0
        """When the last request went out; seconds that its answer asked to wait."""
        self._buffer = bytearray()
        poll.register(self.socket, select.EPOLLIN)

    def send(self, request: bytes, began: float) -> None:
        self.began = began
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is complete."""
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the server closed a connection")
        self._buffer += chunk
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return None
        header = bytes(self._buffer[:head]).lower()
        rest = header.partition(b"retry-after:")[2].split(b"\r\n", 1)[0].strip()
        self.rest = float(rest) if rest.isdigit() else 0.0
        length = int(header.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return None
        status, body = int(header[9:12]), bytes(self._buffer[head + 4 : head + 4 + length])
        self._buffer.clear()
        return status, body


def run(
    port: int,
    seconds: float,
    *,
    rate: float | None = None,
    connections: int = CONNECTIONS,
    check: bool = True,
    path: str = SERVICE,
    tokens: Sequence[bytes] | None = None,
) -> Load:
    """Drive the server for `seconds`; at `rate` requests a second, or as fast as it answers."""
    bodies = Bodies(time.time_ns())
    head = _head(len(bodies.one()), port, path)
    waiting = deque(tokens or ())
    poll = select.epoll()
    by_number = {(each := _Connection(port, poll)).socket.fileno(): each for _ in range(connections)}
    free = deque(by_number.values())
    began = time.perf_counter()
    counted_from, until = began + WARM_UP, began + WARM_UP + seconds
    latencies: list[float] = []
    failed = scored = looked_at = size = shed = 0
    failed_with = ""
    due, step = began, 1 / rate if rate else 0.0
    resting: deque[tuple[float, _Connection]] = deque()
    while (moment := time.perf_counter()) < until or len(free) + len(resting) < connections:
        while resting and resting[0][0] <= moment:
            free.append(resting.popleft()[1])
        while free and moment < until and (rate is None or due <= moment):
            if tokens is not None and not waiting:
                until = moment
                break
            signed = b"Authorization: Bearer %s\r\n" % waiting.popleft() if tokens is not None else b""
            free.popleft().send(b"%s%s\r\n%s" % (head, signed, bodies.one()), due if rate else moment)
            due += step
            moment = time.perf_counter()
        wait = 0.05 if resting else 0.5 if rate is None or not free else max(0.0, min(due, until) - moment)
        for number, _ in poll.poll(wait):
            connection = by_number[number]
            answer = connection.receive()
            if answer is None:
                continue
            ended = time.perf_counter()
            status, body = answer
            if status == 503 and connection.rest:
                resting.append((ended + connection.rest, connection))
            else:
                free.append(connection)
            if connection.began < counted_from or (rate is None and ended > until):
                continue
            if status == 503:
                shed += 1
                continue
            if status != 200:
                failed += 1
                failed_with = failed_with or f"{status} {body[:300]!r}"
            latencies.append((ended - connection.began) * 1000)
            if check and status == 200 and len(latencies) % _SAMPLE == 1:
                looked_at += 1
                scored += survival(body)
                size = len(body)
    latencies.sort()
    seconds = until - counted_from
    return Load(
        answered=len(latencies) - failed,
        seconds=seconds,
        rate=(len(latencies) - failed) / seconds,
        p50=_percentile(latencies, 0.50),
        p99=_percentile(latencies, 0.99),
        worst=latencies[-1] if latencies else 0.0,
        shed=shed,
        failed=failed,
        failed_with=failed_with,
        scored=scored,
        looked_at=looked_at,
        answer_bytes=size,
    )


def _head(length: int, port: int, path: str) -> bytes:
    """All headers but the token."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
    ).encode()


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def drive(
    port: int,
    seconds: float,
    *,
    rate: float | None = None,
    connections: int = CONNECTIONS,
    check: bool = True,
    path: str = SERVICE,
    key: Path | None = None,
    tokens: int = 0,
) -> Load:
    """`run` in a process of its own. Raises AssertionError where the answers are not what is measured."""
    command = [sys.executable, "-m", "benchmarks._load", "--port", str(port), "--path", path]
    command += ["--seconds", str(seconds), "--connections", str(connections)]
    command += ["--rate", str(rate)] if rate else []
    command += ["--key", str(key), "--tokens", str(tokens)] if key else []
    command += [] if check else ["--no-check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds * 10 + 120)
    load = Load(**json.loads(done.stdout))
    assert load.failed == 0, f"{load.failed} requests failed: {load.failed_with}"
    assert load.scored == load.looked_at, f"{load.looked_at - load.scored} of {load.looked_at} answers were no score"
    return load


def warm(once: Callable[[], Load]) -> Load:
    """Drive a server that has just started until nothing is shed, a few times at most.

    Caches fill, SQLite's statements are prepared, and the process of background work starts beside it: a call that
    waits for that longer than the deadline is answered 503, and is none of the rates that are measured. What is shed
    later is counted. Raises AssertionError where nothing is answered.
    """
    shed = 0
    for _ in range(WARM_UPS):
        load = once()
        shed += load.shed
        if load.answered and not load.shed:
            break
    assert load.answered, "no answer came while the server warmed up"
    if shed:
        print(f"warming up: {shed} requests were shed")
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description="drive a hook server on this machine")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--path", default=SERVICE)
    parser.add_argument("--key", type=Path, help="sign each request with this key (ALGORITHM.pem)")
    parser.add_argument("--tokens", type=int, default=0, help="so many requests at most")
    parser.add_argument("--no-check", action="store_true", help="answers need not be cards")
    args = parser.parse_args()
    audience = f"http://127.0.0.1:{args.port}{args.path}"
    found = run(
        args.port,
        args.seconds,
        rate=args.rate,
        connections=args.connections,
        check=not args.no_check,
        path=args.path,
        tokens=_tokens.tokens(args.key, audience, args.tokens) if args.key else None,
    )
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
