"""Messages written by others, and a small language for our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adapters.hl7v2.feed import DEFAULT, Feed
from adapters.readers import hl7v2
from models.nouns import Part, Statement

HEADER = "MSH|^~\\&|LAB|HOSP|CDS|X|20260301090000+0100||{}|M1|P|2.5.1"


def part(body: bytes) -> Part:
    return Part("0" * 32, 0, "hosp", hl7v2.MESSAGE, "2026-11-21T10:00:00.000000Z", body)


def message(trigger: str, *segments: str, header: str = HEADER) -> bytes:
    """A message of version 2.5.1, sent in production at a stated time."""
    return "\r".join((header.format(trigger), *segments, "")).encode()


def read(trigger: str, *segments: str, feed: Feed = DEFAULT, header: str = HEADER) -> list[Statement]:
    return hl7v2.read(part(message(trigger, *segments, header=header)), feed)


def of_type(statements: list[Statement], resource_type: str) -> list[dict]:  # type: ignore[type-arg]
    """The bodies of one type, in order."""
    return [dict(each.body) for each in statements if each.resource_type == resource_type and each.body is not None]


def samples(peer_data: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each message in the folder of others' samples; files of several messages are split."""
    root = peer_data / "hl7"
    for path in sorted((root / "ms-fhir-converter").glob("*.hl7")):
        yield path.name, path.read_bytes()
    for path in sorted((root / "linuxforhealth").glob("*.hl7")):
        body = path.read_bytes().replace(b"\r\n", b"\r").replace(b"\n", b"\r").strip(b"\r")
        for index, each in enumerate(body.split(b"\rMSH|")):
            whole = each if index == 0 else b"MSH|" + each
            yield f"{path.name}#{index}", whole + b"\r"
