"""Senders over MLLP in a process of their own: one thread, no library between, each message its own control id.

closed loop   each connection sends its next message when its last one is acknowledged: the top rate
open loop     messages start by the clock at a fixed rate, and wait for a free connection where there is none; latency
              counts from the time at which the clock said so, so that a slow listener cannot hide its queue

python -m benchmarks._mllp_load --port N --seconds S [--rate R] [--connections 8] [--kind adt]    prints one JSON line
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PATIENCE = 60.0
"""Seconds for the last acknowledgements."""
PATIENTS = 500
_ADT = (
    "MSH|^~\\&|ADMIT|HOSP|CDS|X|20260301090000+0100||ADT^A08^ADT_A01|{id}|P|2.5.1\r"
    "EVN|A08|20260301090000+0100\r"
    "PID|1||{patient}^^^HOSP^MR||FAMILY{patient}^GIVEN^M||19600101|F|||1 STREET^^TOWN^^1000^CH||+41 44 000 00 00\r"
    "NK1|1|FAMILY{patient}^OTHER|SPO\r"
    "PV1|1|I|WARD^1^1||||||||||||||||V{patient}^^^HOSP^VN|||||||||||||||||||||||||20260301090000+0100\r"
)
_ORU = (
    "MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||ORU^R01^ORU_R01|{id}|P|2.5.1\r"
    "PID|1||{patient}^^^HOSP^MR||FAMILY{patient}^GIVEN^M||19600101|F\r"
    "OBR|1|P{id}^LAB|F{id}^LAB|24323-8^Comprehensive metabolic panel^LN|||20260301083000+0100|||||||||||||||"
    "20260301090000+0100|||F\r"
)
_OBX = "OBX|{n}|NM|{code}^Analyte {n}^LN||{value}|mmol/L|1-9|N|||F|||20260301083000+0100\r"
_CODES = (
    *("2345-7", "3094-0", "2160-0", "17861-6", "2951-2", "2823-3", "2075-0", "2028-9", "2885-2", "1751-7"),
    *("1975-2", "6768-6", "1742-6", "1920-8", "718-7", "4544-3", "6690-2", "777-3", "789-8", "1988-5"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What the senders saw. Latencies in milliseconds."""

    acknowledged: int
    seconds: float
    rate: float
    p50: float
    p99: float
    worst: float
    failed: int
    """Answered otherwise than AA by its own control id."""
    message_bytes: int


def adt(number: int) -> bytes:
    return _ADT.format(id=f"A{number:09d}", patient=number % PATIENTS).encode()


def oru(number: int) -> bytes:
    """20 results."""
    lines = (
        _OBX.format(n=n + 1, code=code, value=round(1 + (number * 7 + n * 13) % 80 / 10, 1))
        for n, code in enumerate(_CODES)
    )
    return (_ORU.format(id=f"R{number:09d}", patient=number % PATIENTS) + "".join(lines)).encode()


def load(port: int, seconds: float, *, connections: int = 8, rate: float = 0.0, kind: str = "adt") -> Load:
    """Run it in a process of its own, so that its work is not ours."""
    command = [sys.executable, "-m", "benchmarks._mllp_load", "--port", str(port), "--seconds", str(seconds)]
    command += ["--connections", str(connections), "--rate", str(rate), "--kind", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Load(**json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="messages a second by the clock (0: as fast as it goes)"
    )
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--kind", choices=("adt", "oru"), default="adt")
    args = parser.parse_args()
    print(json.dumps(asdict(run(args.port, args.seconds, args.rate, args.connections, args.kind))))
    return 0


def run(port: int, seconds: float, rate: float, connections: int, kind: str) -> Load:
    made = adt if kind == "adt" else oru
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    poll, by_file = select.epoll(), {}
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(each, select.EPOLLIN)
        by_file[each.fileno()] = each
    free, waiting = deque(sockets), dict[int, tuple[float, bytes]]()
    latencies: list[float] = []
    failed = number = 0
    began = time.perf_counter()
    until = began + seconds
    while True:
        now = time.perf_counter()
        due = now < until
        while free and due:
            at = began + number / rate if rate else now
            if at > now or at >= until:
                break
            one, body = free.popleft(), made(number)
            one.sendall(b"\x0b" + body + b"\x1c\r")
            waiting[one.fileno()] = (at, f"A{number:09d}".encode() if kind == "adt" else f"R{number:09d}".encode())
            number += 1
        if not waiting and not due:
            break
        if now > until + PATIENCE:
            failed += len(waiting)
            break
        pause = max(0.0, began + number / rate - now) if rate and due and free else 0.5
        for file, _ in poll.poll(pause):
            answer = by_file[file].recv(65536)
            sent, control_id = waiting.pop(file)
            if not answer.endswith(b"\x1c\r") or b"\rMSA|AA|" + control_id not in answer:
                failed += 1
            latencies.append(time.perf_counter() - sent)
            free.append(by_file[file])
    took = time.perf_counter() - began
    for each in sockets:
        each.close()
    return _told(latencies, took, failed, len(made(0)))


def _told(latencies: Sequence[float], took: float, failed: int, size: int) -> Load:
    """An answer comes in one piece: it is smaller than a packet, and written at once."""
    ordered = sorted(latencies) or [0.0]

    def at(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    good = len(latencies) - failed
    return Load(good, took, good / took, at(0.5), at(0.99), 1000 * ordered[-1], failed, size)


if __name__ == "__main__":
    sys.exit(main())
