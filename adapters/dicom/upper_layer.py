"""The upper layer (PS3.8 9.3) as an acceptor speaks it: what an association request asks, and the bytes of the answers.

Not by pynetdicom: importing it takes 50 MB of each storage process (numpy, codecs), and half a second of its start.
The tests hold the two against each other. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from adapters.dicom.identity import plausible, unpadded
from adapters.dicom.part10 import IMPLEMENTATION
from models.errors import Malformed

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
MAX_REQUEST = 1 << 18
"""Bytes of an association request: 128 contexts with every transfer syntax that there is are some 200 kB."""
_HEADER = struct.Struct(">BxL")
_DATA = struct.Struct(">BxLLBB")


class Pdu(IntEnum):
    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Reject(tuple[int, int, int]):
    """Result, source, reason (PS3.8 table 9-21)."""

    __slots__ = ()


CONTEXT_UNKNOWN = Reject((1, 1, 2))
CALLING_UNKNOWN = Reject((1, 1, 3))
CALLED_UNKNOWN = Reject((1, 1, 7))
VERSION_UNKNOWN = Reject((1, 2, 2))
TOO_MANY = Reject((2, 3, 2))
"""Transient: local limit exceeded. The same request may succeed later."""

RELEASED = _HEADER.pack(Pdu.RELEASE_RP, 4) + bytes(4)


class Abort(IntEnum):
    """Why the provider aborts (PS3.8 table 9-26)."""

    UNSPECIFIED = 0
    UNKNOWN_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context that was accepted."""

    abstract: str
    syntax: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A presentation context of a request."""

    id: int
    abstract: str
    syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An association request. AE titles are without their padding: blanks around them mean nothing (PS3.8 9.3.2)."""

    version: int
    application: str
    called: str
    calling: str
    contexts: tuple[Asked, ...]
    max_pdu: int
    """Bytes that the requestor takes in one P-DATA PDU; 0: any number."""
    several: bool
    """It asks for several operations at once (PS3.7 D.3.3.3)."""
    roles: tuple[tuple[str, int, int], ...]
    """(SOP class, requestor is SCU, requestor is SCP) (PS3.7 D.3.3.4)."""
    titles: bytes
    """Called and calling, as they came: the answer repeats them."""


def proposal_of(body: bytes) -> Proposal:
    """Raises Malformed; never with a value in its text."""
    if len(body) < 68:
        raise Malformed("an association request that ends before its items")
    application, contexts, said = "", list[Asked](), dict[int, list[bytes]]()
    for kind, value in _items(body, 68):
        if kind == _APPLICATION:
            application = _uid(value)
        elif kind == _ASKED:
            contexts.append(_asked(value))
        elif kind == _USER:
            for sub, inner in _items(value, 0):
                said.setdefault(sub, []).append(inner)
    if not 0 < len(contexts) <= 128 or len({each.id for each in contexts}) != len(contexts):
        raise Malformed("an association request without, or with too many or ambiguous, presentation contexts")
    length = said.get(_MAX_LENGTH, [bytes(4)])[0]
    return Proposal(
        int.from_bytes(body[:2]),
        application,
        _title(body[4:20]),
        _title(body[20:36]),
        tuple(contexts),
        int.from_bytes(length) if len(length) == 4 else 0,
        _WINDOW in said,
        tuple(_role(each) for each in said.get(_ROLE, [])[:128]),
        body[4:36],
    )


def accept(proposal: Proposal, max_pdu: int) -> tuple[bytes, Mapping[int, Context]]:
    """The acceptance, and the contexts by id.

    Every class that is not a known one of another service is taken for storage, in the first transfer syntax that the
    requestor names for it (D2): what is stored as it comes need not be understood, and no peer has to transcode.
    """
    contexts, items = dict[int, Context](), [_item(_APPLICATION, APPLICATION_CONTEXT.encode())]
    for each in proposal.contexts:
        known = each.abstract == VERIFICATION or stored(each.abstract)
        syntax = each.syntaxes[0]
        if each.abstract == VERIFICATION:
            syntax = next((one for one in each.syntaxes if one in _PLAIN), "")
        result = _UNKNOWN_CLASS if not known else 0 if syntax else _UNKNOWN_SYNTAX
        if result == 0:
            contexts[each.id] = Context(each.abstract, syntax)
        head = bytes((each.id, 0, result, 0))
        items.append(_item(_ANSWERED, head + _item(_SYNTAX, (syntax or each.syntaxes[0]).encode())))
    user = _item(_MAX_LENGTH, max_pdu.to_bytes(4)) + _item(_IMPLEMENTATION, IMPLEMENTATION.encode())
    if proposal.several:
        user += _item(_WINDOW, bytes((0, 1, 0, 1)))  # one after the other
    for sop_class, scu, scp in proposal.roles:
        if stored(sop_class):
            raw = sop_class.encode()
            user += _item(_ROLE, len(raw).to_bytes(2) + raw + bytes((scu, scp)))
    items.append(_item(_USER, user))
    body = bytes((0, 1, 0, 0)) + proposal.titles + bytes(32) + b"".join(items)
    return _HEADER.pack(Pdu.ASSOCIATE_AC, len(body)) + body, contexts


def stored(sop_class: str) -> bool:
    """Whether objects of a class are taken: all but those of services that are known and store nothing (PS3.6 A)."""
    return _NOT_STORED.fullmatch(sop_class) is None


# ---- items (PS3.8 9.3.2, PS3.7 D.3.3) --------------------------------------------------------------------------------

_APPLICATION, _ASKED, _ANSWERED, _USER, _ABSTRACT, _SYNTAX = 0x10, 0x20, 0x21, 0x50, 0x30, 0x40
_MAX_LENGTH, _IMPLEMENTATION, _WINDOW, _ROLE = 0x51, 0x52, 0x53, 0x54
_UNKNOWN_CLASS, _UNKNOWN_SYNTAX = 3, 4
_PLAIN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
_NOT_STORED = re.compile(
    r"1\.2\.840\.10008\.(?:1\..+|3\.1\..+|5\.1\.1\.(?!(?:27|29|30)$).+"  # image boxes are kept where they are images
    r"|5\.1\.4\.(?:1\.2\..+|1\.1\.200\.[456]|1\.1\.201\.[2-6]|20\..+|31|32\..+|33|34\.[45689](?:\..+)?|37\..+"
    r"|(?:38|39|43|44|45)\.[234]|41|42))"
)


def _items(raw: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at < len(raw):
        if at + 4 > len(raw):
            raise Malformed("an item of an association request that is cut", where=f"byte {at}")
        length = int.from_bytes(raw[at + 2 : at + 4])
        if at + 4 + length > len(raw):
            raise Malformed("an item of an association request that is longer than the rest", where=f"byte {at}")
        yield raw[at], raw[at + 4 : at + 4 + length]
        at += 4 + length


def _asked(raw: bytes) -> Asked:
    abstract, syntaxes = "", list[str]()
    for kind, value in _items(raw, 4):
        if kind == _ABSTRACT:
            abstract = _uid(value)
        elif kind == _SYNTAX:
            syntaxes.append(_uid(value))
    if len(raw) < 4 or raw[0] % 2 == 0 or not abstract or not syntaxes:
        raise Malformed("a presentation context without its id, its class or a transfer syntax")
    return Asked(raw[0], abstract, tuple(syntaxes))


def _role(raw: bytes) -> tuple[str, int, int]:
    length = int.from_bytes(raw[:2])
    if len(raw) != length + 4:
        raise Malformed("a role selection of the wrong length")
    return _uid(raw[2:-2]), raw[-2] & 1, raw[-1] & 1


def _uid(raw: bytes) -> str:
    found = unpadded(raw)
    if not plausible(found):
        raise Malformed("an association request with a UID that is none")
    return found.decode("ascii")


def _title(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip(" \0")


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


# ---- other answers ---------------------------------------------------------------------------------------------------


def reject(why: Reject) -> bytes:
    return _HEADER.pack(Pdu.ASSOCIATE_RJ, 4) + bytes((0, *why))


def abort(why: Abort | None) -> bytes:
    """None: by the user of the service, who needs no reason."""
    return _HEADER.pack(Pdu.ABORT, 4) + bytes((0, 0, 0 if why is None else 2, why or 0))


def command_pdus(context_id: int, command: bytes, max_pdu: int) -> bytes:
    """A command set in P-DATA PDUs that the peer takes (0: any length)."""
    room = max(max_pdu - 6, 2) if max_pdu else len(command)
    pdus = []
    for at in range(0, len(command), room):
        piece = command[at : at + room]
        control = 1 | (2 if at + room >= len(command) else 0)
        pdus.append(_DATA.pack(Pdu.DATA, len(piece) + 6, len(piece) + 2, context_id, control) + piece)
    return b"".join(pdus)
