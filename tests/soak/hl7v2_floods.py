"""Floods of one kind of thing, doubled: what they cost must only double, because whoever sends decides how many.

`counted` counts the lines of our own code that run, and says the same on any machine; what runs inside `re`, codecs
and `bytes` has no lines, so `measured` times larger ones, the best of several.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from types import FrameType
from typing import Any, NamedTuple

from adapters.hl7v2 import acks, batch
from adapters.hl7v2.charsets import Undecodable
from adapters.hl7v2.escapes import escape
from adapters.hl7v2.frames import FrameDecoder
from adapters.hl7v2.masking import masked
from adapters.hl7v2.message import Message, parse
from adapters.hl7v2.structure import conformance
from models.errors import BadInput
from tests.soak import hl7v2_targets as targets

MOST = 3.0
"""Times that the cost may grow where the input doubles: 2 is linear, 4 is quadratic."""
LONG_ENOUGH = 0.05
"""Seconds: what takes less says more about the machine than about the code."""
ENOUGH = 0.6


class Flood(NamedTuple):
    act: Callable[[bytes], Any]
    before: bytes
    again: bytes
    after: bytes = b""

    def of(self, times: int) -> bytes:
        return self.before + self.again * times + self.after


def header(trigger: str, version: str = "2.5.1", charset: str = "") -> bytes:
    return f"MSH|^~\\&|A|B|C|D|20260301120000+0100||{trigger}|1|P|{version}||||||{charset}\r".encode()


PID = b"PID|1||77^^^H^MR||WARD^WILLA||19500301|F\r"
OBR = b"OBR|1|P1|F1|GLU^Glucose^L|||20260301110000+0100|||||||||||||||||F\r"
ORU = header("ORU^R01") + PID + b"PV1|1|I|W^1^2\r"
ADT = header("ADT^A01") + b"EVN|A01|20260301\r"
NM = b"OBX|1|NM|GLU^Glucose^L||5.1|mmol/L^^UCUM|4-6|N|||F|||20260301110000+0100\r"


def read(raw: bytes) -> None:
    targets.reader(raw, 1)


def texts(raw: bytes) -> None:
    message = parse(raw, undecodable=Undecodable.WARN)
    for segment in message:
        for number in range(min(len(segment), 3000) + 1):
            segment.text(number)
            for repetition in segment.field(number):
                repetition.components  # noqa: B018 (asked for what it costs)
                repetition.whole  # noqa: B018


def shown(raw: bytes) -> None:
    message: Message = parse(raw)
    for segment in message:
        for number in range(1, min(len(segment), 60) + 1):
            for repetition in segment.field(number):
                masked(repetition, 1, 1, "2.5.1")


def decoded(lenient: bool) -> Callable[[bytes], None]:
    def act(raw: bytes) -> None:
        decoder = FrameDecoder(1 << 24, lenient)
        for at in range(0, len(raw), 4096):
            decoder.feed(raw[at : at + 4096])
        decoder.eof()

    return act


def byte_by_byte(raw: bytes) -> None:
    decoder = FrameDecoder(1 << 24)
    for at in range(len(raw)):
        decoder.feed(raw[at : at + 1])


def conforms(raw: bytes) -> None:
    conformance(raw, 600.0)


def split(raw: bytes) -> None:
    for item in batch.split([raw[at : at + 65536] for at in range(0, len(raw), 65536)]):
        if isinstance(item, batch.Entry):
            acks.header_of(item.raw)


def _obx(kind: bytes, value: bytes = b"") -> bytes:
    return ORU + OBR + b"OBX|1|" + kind + b"|A^B^L||" + value


FLOODS: dict[str, Flood] = {
    "frames: start bytes": Flood(decoded(False), b"", b"\x0b"),
    "frames: start bytes, lenient": Flood(decoded(True), b"", b"\x0bA"),
    "frames: ends without CR": Flood(decoded(False), b"\x0b", b"\x1c"),
    "frames: tiny ones": Flood(decoded(False), b"", b"\x0bA\x1c\r"),
    "frames: junk": Flood(decoded(False), b"", b"\r\n"),
    "frames: one long, a byte a read": Flood(byte_by_byte, b"\x0b", b"x", b"\x1c\r"),
    "batch: messages": Flood(split, b"FHS|\rBHS|\r", header("ADT^A01")),
    "batch: headers": Flood(split, b"", b"BHS|\r"),
    "batch: one line": Flood(split, b"MSH|^~\\&|", b"x|"),
    "batch: blank lines": Flood(split, header("ADT^A01"), b"\r\n"),
    "message: segments": Flood(texts, ORU, b"ZZZ|1\r"),
    "message: line feeds": Flood(texts, ORU + b"NTE|1||", b"\nOBX"),
    "message: strays": Flood(texts, ORU, b"?\r"),
    "message: fields": Flood(texts, ORU + b"OBX", b"|a"),
    "message: repetitions": Flood(texts, ORU + b"OBX|", b"a~"),
    "message: components": Flood(texts, ORU + b"OBX|", b"a^"),
    "message: sub-components": Flood(texts, ORU + b"OBX|", b"a&"),
    "message: escapes": Flood(texts, ORU + b"OBX|", b"\\T\\"),
    "message: half escapes": Flood(texts, ORU + b"OBX|", b"\\X41"),
    "message: half switches": Flood(texts, ORU + b"OBX|", b"\\M2442"),
    "message: switches": Flood(texts, ORU + b"OBX|", b"\\M2442\\a"),
    "message: bytes in escapes": Flood(texts, ORU + b"OBX|\\X", b"41"),
    "message: ISO 2022": Flood(texts, header("ORU^R01", charset="~ISO IR87") + b"OBX|", b"\x1b$B$3\x1b(B"),
    "message: not of its set": Flood(texts, header("ORU^R01", charset="ASCII") + b"OBX|", b"\xff"),
    "acks: a header": Flood(acks.header_of, b"MSH|^~\\&|", b"|"),
    "escape: delimiters": Flood(lambda raw: escape(raw.decode()), b"", b"|^~\\&\n"),
    "masks: names": Flood(shown, ORU + b"PID|1||1||", b"A^B~"),
    "masks: results": Flood(shown, ORU + OBR, NM),
    "conformance: results": Flood(conforms, ORU + OBR, NM),
    "conformance: out of place": Flood(conforms, ORU + OBR, b"PID|1\r"),
    "conformance: unknown": Flood(conforms, ORU, b"QQQ|1\r"),
    "conformance: repetitions": Flood(conforms, ORU + b"PID|1||", b"1^^^A^MR~"),
    "reader: results": Flood(read, ORU + OBR, NM),
    "reader: results of one name": Flood(read, ORU + OBR, b"OBX|1|ST|A^B^L|1|x||||||F\r"),
    "reader: texts of one result": Flood(read, _obx(b"TX"), b"a~"),
    "reader: components of a code": Flood(read, _obx(b"CWE"), b"a^"),
    "reader: codes of one result": Flood(read, _obx(b"CWE"), b"A^B^L~"),
    "reader: a long document": Flood(read, _obx(b"ED", b"^AP^^Base64^"), b"QUJD"),
    "reader: escapes in a text": Flood(read, _obx(b"FT"), b"\\.br\\"),
    "reader: digits": Flood(read, _obx(b"NM"), b"1"),
    "reader: a range": Flood(read, _obx(b"NM", b"1|g|"), b"1-"),
    "reader: blanks in a range": Flood(read, _obx(b"NM", b"1|g|1"), b" ", b"x"),
    "reader: a structured number": Flood(read, _obx(b"SN", b"^"), b"1"),
    "reader: interpretations": Flood(read, _obx(b"NM", b"1|g||"), b"N~"),
    "reader: orders": Flood(read, ORU, b"ORC|RE|P|F\r" + OBR + NM),
    "reader: orders without results": Flood(read, header("ORM^O01") + PID, b"ORC|NW|P|F\rOBR|1|P|F|A^B^L\r"),
    "reader: specimens": Flood(read, ORU + OBR, b"SPM|1|S&A|S|BLD\r"),
    "reader: notes": Flood(read, ORU + OBR + NM, b"NTE|1||a word\r"),
    "reader: identifiers": Flood(read, ADT + b"PID|1||", b"1^^^A^MR~"),
    "reader: names": Flood(read, ADT + b"PID|1||1^^^H^MR||", b"A^B~"),
    "reader: addresses": Flood(read, ADT + b"PID|1||1^^^H^MR||A||||||", b"S^^C^^8000~"),
    "reader: relatives": Flood(read, ADT + PID + b"PV1|1|I\r", b"NK1|1|A^B|MTH\r"),
    "reader: insurances": Flood(read, ADT + PID + b"PV1|1|I\r", b"IN1|1|A|B|C\r"),
    "reader: allergies": Flood(read, ADT + PID + b"PV1|1|I\r", b"AL1|1|DA|A^B^L|SV\r"),
    "reader: diagnoses": Flood(read, ADT + PID + b"PV1|1|I\r", b"DG1|1||A^B^I10|||F\r"),
    "reader: procedures": Flood(read, ADT + PID + b"PV1|1|I\r", b"PR1|1||A^B^L|x|20260301\r"),
    "reader: doctors": Flood(read, ADT + PID + b"PV1|1|I|W|||||", b"1^A^B~"),
    "reader: visits": Flood(read, ADT + PID, b"PV1|1|I\r"),
    "reader: merges": Flood(read, header("ADT^A40"), PID + b"MRG|78^^^H^MR\r"),
    "reader: prior numbers": Flood(read, header("ADT^A40") + PID + b"MRG|", b"78^^^H^MR~"),
    "reader: patients": Flood(read, header("ORU^R01"), PID + OBR + NM),
    "reader: vaccines": Flood(read, header("VXU^V04") + PID, b"ORC|RE|1|2\rRXA|0|1|20260301||03^MMR^CVX|1\rRXR|IM\r"),
    "reader: vaccine results": Flood(
        read, header("VXU^V04") + PID + b"ORC|RE\rRXA|0|1|20260301||03^MMR^CVX|1\r", b"OBX|1|CE|64994-7^x^LN||V01\r"
    ),
    "reader: appointments": Flood(
        read, header("SIU^S12") + b"SCH|1|2\r" + PID + b"RGS|1\r", b"AIS|1||A^B^L|20260301\rAIP|1||1^A\r"
    ),
    "reader: documents": Flood(read, header("MDM^T02") + PID + b"PV1|1|I\r", b"TXA|1|DS|TX\rOBX|1|TX|A||word\r"),
    "reader: lines of a document": Flood(
        read, header("MDM^T02") + PID + b"PV1|1|I\rTXA|1|DS|TX|||||||||U1\r", b"OBX|1|TX|A||word\r"
    ),
    "reader: claims": Flood(read, header("DFT^P03") + PID + b"PV1|1|I\r", b"FT1|1|||20260301||CG|A^B^L\rPR1|1||A\r"),
    "reader: unknown segments": Flood(read, ORU + OBR, b"ZZZ|1\r"),
}


def attempt(flood: Flood, times: int) -> None:
    with contextlib.suppress(BadInput):  # refused, which may be what is right; what it cost counts
        flood.act(flood.of(times))


def counted(flood: Flood, times: int) -> int:
    """Lines of the package that run."""
    count = 0

    def lines(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return lines

    def calls(frame: FrameType, event: str, argument: Any) -> Any:
        return lines if "/adapters/" in frame.f_code.co_filename and "/tests/" not in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        attempt(flood, times)
    finally:
        sys.settrace(before)
    return count


def seconds(flood: Flood, times: int) -> float:
    """Of the processor, the best of three; of one, where one takes long.

    Without the collection of cycles: its cost depends on how much lives, and would make a linear one look worse.
    """
    best, collecting = float("inf"), gc.isenabled()
    gc.disable()
    try:
        for _ in range(3):
            began = time.process_time()
            attempt(flood, times)
            best = min(best, time.process_time() - began)
            if best > ENOUGH / 2:
                break
    finally:
        if collecting:
            gc.enable()
    return best


def measured(most_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """Each flood doubled until it takes long, or is as long as that: how its cost grew in the last two doublings."""
    found = []
    for name, flood in FLOODS.items():
        times, taken = 64, list[tuple[int, float]]()
        while len(flood.again) * times <= most_bytes and (not taken or taken[-1][1] < ENOUGH):
            taken.append((times, seconds(flood, times)))
            times *= 2
        ratios = [b / a for (_, a), (_, b) in pairwise(taken) if a >= LONG_ENOUGH]
        last = ratios[-2:]
        size, took = taken[-1]
        found.append(
            {
                "flood": name,
                "bytes": len(flood.of(size)),
                "ms": round(took * 1000, 1),
                "ratios": [round(ratio, 2) for ratio in last],
                "grows": len(last) == 2 and min(last) > MOST,
            }
        )
    return found
