"""The upper layer (PS3.8 9.3) as an acceptor speaks it: what an association request asks, and the bytes of the answers.

pynetdicom decodes the request and encodes the acceptance; P-DATA never passes through it (`adapters.sources.
dicom_storage` says why). Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context, negotiate_unrestricted

from adapters.dicom import quiet
from adapters.dicom.part10 import IMPLEMENTATION
from models.errors import Malformed

quiet.silence()

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
class Proposal:
    """An association request. AE titles are without their padding: blanks around them mean nothing (PS3.8 9.3.2)."""

    version: int
    application: str
    called: str
    calling: str
    max_pdu: int
    """Bytes that the requestor takes in one P-DATA PDU; 0: any number."""
    primitive: A_ASSOCIATE


def proposal_of(body: bytes) -> Proposal:
    """Raises Malformed: hostile bytes make the decoder fail in many ways."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(_HEADER.pack(Pdu.ASSOCIATE_RQ, len(body)) + body)
            primitive = pdu.to_primitive()
        contexts = primitive.presentation_context_definition_list
        if not contexts or any(not cx.transfer_syntax or not cx.abstract_syntax for cx in contexts):
            raise Malformed("an association request without presentation contexts")
        return Proposal(
            pdu.protocol_version,
            str(primitive.application_context_name),
            str(primitive.called_ae_title or "").strip(),
            str(primitive.calling_ae_title or "").strip(),
            int(primitive.maximum_length_received or 0),
            primitive,
        )
    except Exception as error:  # whatever it is, these are bytes from outside; its text may quote them
        if isinstance(error, Malformed):
            raise
        raise Malformed("the association request cannot be decoded") from None


def accept(proposal: Proposal, max_pdu: int) -> tuple[bytes, Mapping[int, Context]]:
    """The acceptance, and the contexts by id.

    Every class that is not a known one of another service is taken for storage, in the first transfer syntax that the
    requestor names for it (D2): what is stored as it comes need not be understood, and no peer has to transcode. Raises
    Malformed for what cannot be answered.
    """
    asked = proposal.primitive
    roles: dict[UID, tuple[bool | None, bool | None]] = {}
    reply: list[Any] = [MaximumLengthNotification(), ImplementationClassUIDNotification()]
    reply[0].maximum_length_received = max_pdu
    reply[1].implementation_class_uid = UID(IMPLEMENTATION)
    for item in asked.user_information:
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None:
            roles[item.sop_class_uid] = (bool(item.scu_role), bool(item.scp_role))
        if isinstance(item, AsynchronousOperationsWindowNegotiation):
            window = AsynchronousOperationsWindowNegotiation()
            window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
            reply.append(window)
    echo = [build_context(VERIFICATION)]
    try:
        found, role_items = negotiate_unrestricted(asked.presentation_context_definition_list, echo, roles)
    except Exception:  # noqa: BLE001 (as in `proposal_of`)
        raise Malformed("the presentation contexts cannot be negotiated") from None
    reply += role_items
    answer = A_ASSOCIATE()
    answer.application_context_name = asked.application_context_name
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = found
    answer.user_information = reply
    contexts = {
        int(cx.context_id): Context(str(cx.abstract_syntax), str(cx.transfer_syntax[0]))
        for cx in found
        if cx.result == 0 and cx.context_id is not None
    }
    return bytes(A_ASSOCIATE_AC(answer).encode()), contexts


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
