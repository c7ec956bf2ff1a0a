"""What a project's key makes of identifiers: of the same the same, in every run; nothing another project can match.

HMAC-SHA-256 (RFC 2104) of what is replaced, under the project's secret, with a word for what it is used for. Who has
the key can find out whose an identifier was, by trying; nobody else can.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import date, timedelta

NEAREST, FURTHEST = 365, 3650
"""Days that dates move into the past: one to ten years, the same for all of a patient's."""
_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_PARTIAL = re.compile(r"(\d{4})(\d{2})?")


class Project:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def _keyed(self, use: bytes, *words: str) -> bytes:
        raw = b"".join(len(word.encode()).to_bytes(4, "big") + word.encode() for word in words)
        return hmac.digest(self._key, use + raw, "sha256")

    def uid(self, uid: str) -> str:
        """`2.25.` and a UUID in decimal (PS3.5 B.2), version 8 (RFC 9562 5.8)."""
        number = int.from_bytes(self._keyed(b"uid", uid)[:16], "big")
        number = number & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62
        return f"2.25.{number}"

    def pseudonym(self, patient: str, issuer: str) -> str:
        """16 letters and digits: 80 bits."""
        return base64.b32encode(self._keyed(b"patient", patient, issuer)[:10]).decode()

    def days(self, patient: str, issuer: str) -> int:
        """How far this patient's dates move: a negative number of days."""
        number = int.from_bytes(self._keyed(b"days", patient, issuer)[:8], "big")
        return -(NEAREST + number % (FURTHEST - NEAREST + 1))

    def mark(self, *words: str) -> str:
        """A keyed digest, to tell whether two are the same without saying what they are."""
        return self._keyed(b"mark", *words)[:16].hex()


def moved(value: str, days: int) -> str:
    """A DA or DT moved by whole days, its time of day and offset as they are; empty where it is no date.

    Of a DT that has only a year, or year and month, what is there is kept at its precision (PS3.5 6.2).
    """
    text = value.strip()
    found = _DATE.match(text)
    try:
        if found is not None:
            day = date(*map(int, found.groups())) + timedelta(days=days)
            rest = text[found.end() :]
            return f"{day:%Y%m%d}" + rest if re.fullmatch(r"[\d.]*([+\-]\d{4})?", rest) else ""
        partial = _PARTIAL.fullmatch(text)
        if partial is not None:
            day = date(int(partial[1]), int(partial[2] or 7), 1) + timedelta(days=days)
            return f"{day:%Y%m}" if partial[2] else f"{day:%Y}"
    except (ValueError, OverflowError):
        pass
    return ""


def hour(value: str) -> str:
    """A TM, or a DT, without its minutes."""
    text = value.strip()
    if re.match(r"\d{8}", text):
        zone = re.search(r"[+\-]\d{4}$", text)
        return text[:10] + (zone[0] if zone else "")
    return text[:2] if re.fullmatch(r"\d{2}[\d:.]*", text) else ""
