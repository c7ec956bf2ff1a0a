"""An ORU with 20 OBX from its bytes to the texts that a reader asks for; beside it hl7apy, in the same run.

Of PID 3, 5, 7, 8; of OBR 2, 3, 4, 7, 22, 25; of each OBX 2, 3 (code, text, system), 4, 5, 6, 7, 8, 11, 14. hl7apy is
asked for nothing: its time is that of `parse_message` alone, without groups (with them it drops segments).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from adapters.hl7v2.acks import Acknowledger, Code, header_of
from adapters.hl7v2.columns import Columns
from adapters.hl7v2.frames import FrameDecoder, frame
from adapters.hl7v2.message import parse
from benchmarks import _bench

PERSON = Columns("PID", "3.1", "3.4", "3.5", "5.1", "5.2", "7", "8")
ORDER = Columns("OBR", "2", "3", "4.1", "4.2", "4.3", "7", "22", "25")
RESULT = Columns("OBX", "2", "3.1", "3.2", "3.3", "4", "5", "6", "7", "8", "11", "14")
ROUNDS = 5
TAKEN = "20260301090000"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="messages in a round")
    args = parser.parse_args()
    plain, marked = oru("g/dL^gram per deciliter^UCUM"), oru("10*3/uL^A\\T\\B&x~y")
    assert read(plain)[-1] == [
        "NM",
        "718-20",
        "Hemoglobin",
        "LN",
        "",
        "13.20",
        "g/dL",
        "12-16",
        "N",
        "F",
        "20260301090000",
    ]
    assert read(marked)[-1][6] == "10*3/uL"
    ours, theirs = [], []
    for _ in range(ROUNDS):  # interleaved: what else the machine does falls on both
        ours.append(rate(lambda: read(plain), args.count))
        theirs.append(rate(lambda: by_hl7apy(plain), max(2, args.count // 400)))
    best, their_best = max(ours), max(theirs)
    print(f"{len(plain)} bytes a message   {_bench.machine()}")
    met = [
        _bench.figure(
            "ORU with 20 OBX, bytes to the fields a reader asks for",
            best,
            "messages/s on one core",
            against=f"hl7apy {their_best:.1f} messages/s, parse only",
            ratio=best / their_best,
            goal=">= 10000",
            ok=best >= 10_000,
        ),
        _bench.figure(
            "the same, times hl7apy",
            best / their_best,
            "x",
            against=f"hl7apy {their_best:.1f} messages/s, parse only",
            ratio=best / their_best,
            goal=">= 300",
            ok=best / their_best >= 300,
        ),
    ]
    singly = max(rate(lambda: one_by_one(plain), args.count) for _ in range(ROUNDS))
    _print("the same, each field asked for by itself", singly, "messages/s on one core", best)
    escaped = max(rate(lambda: read(marked), args.count) for _ in range(ROUNDS))
    _print("the same, every OBX with escapes, repetitions, sub-components", escaped, "messages/s on one core", best)
    met.append(acknowledgements(plain, args.count))
    stream = frame(plain) * 200
    framed = max(rate(lambda: FrameDecoder().feed(stream), max(2, args.count // 100)) for _ in range(ROUNDS)) * 200
    _print("frames decoded, 200 a read", framed, "messages/s on one core", best)
    return 0 if all(met) else 1


def acknowledgements(raw: bytes, count: int) -> bool:
    """The header from the bytes, and the answer."""
    acknowledger = Acknowledger(lambda: datetime.now(UTC))
    speed = max(rate(lambda: acknowledger.answer(header_of(raw), Code.AA), count * 2) for _ in range(ROUNDS))
    goal = 50_000
    return _bench.figure(
        "acknowledgements, header from the bytes and the answer",
        speed,
        "answers/s on one core",
        against="goal",
        goal=f">= {goal}",
        ok=speed >= goal,
    )


def _print(claim: str, value: float, unit: str, against: float) -> None:
    _bench.figure(
        claim,
        value,
        unit,
        against=f"the first figure: {against:.0f}",
        ratio=value / against,
        goal="none: printed",
        ok=True,
    )


def oru(unit: str) -> bytes:
    lines = [
        "MSH|^~\\&|LAB|HOSP|CDS|HOSP|20260301101500+0100||ORU^R01^ORU_R01|MSG0001|P|2.5.1",
        "PID|1||123456^^^HOSP^MR||Doe^Jane^Q||19630306|F|||1 Main St^^Town^^12345",
        "PV1|1|I|W^389^1^UABH||||12345^Morgan^Rex^J^^^MD|||||||||||1001||||||||||||||||||||||||||20260301080000",
        "ORC|RE|ORD1^PL|FIL1^LAB",
        f"OBR|1|ORD1^PL|FIL1^LAB|57021-8^CBC^LN|||20260301090000{'|' * 15}20260301101400|||F",
    ]
    lines += [
        f"OBX|{number}|NM|718-{number}^Hemoglobin^LN^HGB^Hemoglobin^L||13.{number}|{unit}|12-16|N|||F|||20260301090000"
        "||12345^Tech^Lab|||||Hospital Laboratory^L^^^^CLIA||||||1 Hospital Way^^Town"
        for number in range(1, 21)
    ]
    return ("\r".join(lines) + "\r").encode()


def read(raw: bytes) -> list[list[str]]:
    message = parse(raw)
    return [PERSON.of(message["PID"]), ORDER.of(message["OBR"]), *RESULT.rows(message)]


def one_by_one(raw: bytes) -> list[tuple[str, ...]]:
    message = parse(raw)
    person, order = message["PID"].text, message["OBR"].text
    out: list[tuple[str, ...]] = [
        (person(3), person(3, 4), person(3, 5), person(5), person(5, 2), person(7), person(8)),
        (order(2), order(3), order(4), order(4, 2), order(4, 3), order(7), order(22), order(25)),
    ]
    for segment in message.all("OBX"):
        text = segment.text
        code = (text(3), text(3, 2), text(3, 3))
        out.append((text(2), *code, text(4), text(5), text(6), text(7), text(8), text(11), text(14)))
    return out


def by_hl7apy(raw: bytes) -> object:
    return parse_message(raw.decode(), find_groups=False, validation_level=VALIDATION_LEVEL.TOLERANT)


def rate(act: Callable[[], object], count: int) -> float:
    """Times a second."""
    act()
    began = time.perf_counter()
    for _ in range(count):
        act()
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
