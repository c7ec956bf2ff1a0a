"""Associations with the storage door: who is let in, what breaks off, what is noise. Ids are rows of the checklist."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import struct
import time
from pathlib import Path

import pytest
from pydicom.uid import UID
from pynetdicom import sop_class
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, SCP_SCU_RoleSelectionNegotiation

from adapters.dicom import part10, upper_layer
from adapters.dicom.commands import command_of
from adapters.dicom.identity import IdentitySearch
from adapters.dicom.receiving import KEEP, REFUSE
from adapters.sources.dicom_storage import NAME, Peer, StorageListening
from models.errors import Malformed, Misconfigured
from tests.adapters.dicom_senders import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    OURS,
    Door,
    Requestor,
    command,
    data_set_of,
    door,
    fresh,
    listening,
    object_of,
    opened,
    pdu,
    request,
    until,
    values,
)

__all__ = ["door"]


def test_who_may_associate_is_a_matter_of_title_and_address(tmp_path: Path) -> None:
    here, elsewhere = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.9.9.9")
    peers = (Peer("PACS", (here,)), Peer("FAR", (elsewhere,)), Peer("ANY"))
    with opened(tmp_path / "var", listening(peers=peers)) as door:
        for asked, answer in (
            (request(calling="PACS"), None),
            (request(calling=" PACS "), None),
            (request(calling="ANY"), None),
            (request(calling="pacs"), (1, 1, 3)),
            (request(calling="FAR"), (1, 1, 3)),
            (request(calling="WHO"), (1, 1, 3)),
            (request(calling="PACS", called="THEIRS"), (1, 1, 7)),
        ):
            with Requestor(door.port, asked) as scu:
                kind, body = scu.answered
                assert (None if kind == 2 else tuple(body[1:4])) == answer
    with opened(tmp_path / "lenient", listening(peers=peers[:1], ignore_case=True)) as door:
        for calling, called in (("pacs", "ours"), ("PACS", OURS)):
            with Requestor(door.port, request(calling=calling, called=called)) as scu:
                assert scu.answered[0] == 2
    far = listening(peers=(Peer("FAR", (elsewhere,)),))
    with opened(tmp_path / "closed", far) as door, Requestor(door.port) as scu:
        assert scu.answered[0] == 0  # not even heard


def test_another_version_or_application_context_is_rejected(door: Door) -> None:
    asked = bytearray(request())
    asked[6:8] = b"\0\2"
    with Requestor(door.port, bytes(asked)) as scu:
        assert scu.answered == (3, bytes((0, 1, 2, 2)))
    other = request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    with Requestor(door.port, other) as scu:
        assert scu.answered == (3, bytes((0, 1, 1, 2)))


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with opened(tmp_path / "var", listening(max_associations=2)) as door:
        first, second = Requestor(door.port), Requestor(door.port)
        with Requestor(door.port) as third:
            assert third.answered == (3, bytes((0, 2, 3, 2)))
        first.release()
        first.socket.close()
        until(lambda: door.storage.open == 1, "a place")
        with Requestor(door.port) as third:
            assert third.answered[0] == 2
        second.socket.close()


def test_every_class_and_every_syntax_is_accepted_the_first_that_is_named(door: Door) -> None:
    asked = [
        (CT, ("1.2.840.10008.1.2.4.90", EXPLICIT, IMPLICIT)),
        ("1.2.3.4.5.6.7", (IMPLICIT,)),  # private
        (CT, ("1.3.6.1.4.1.5962.300.1",)),  # a private transfer syntax
        ("1.2.840.10008.5.1.4.1.1.999.1", (EXPLICIT,)),  # not yet invented
        ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,)),  # Study Root FIND: another service
    ]
    with Requestor(door.port, request(asked)) as scu:
        found = {}
        body, at = scu.answered[1], 68
        while at < len(body):
            kind, length = body[at], struct.unpack_from(">H", body, at + 2)[0]
            if kind == 0x21:
                found[body[at + 4]] = (body[at + 6], body[at + 12 : at + 4 + length].rstrip(b"\0").decode())
            at += 4 + length
        assert found[1] == (0, "1.2.840.10008.1.2.4.90")
        assert found[3] == (0, IMPLICIT)
        assert found[5] == (0, "1.3.6.1.4.1.5962.300.1")
        assert found[7] == (0, EXPLICIT)
        assert found[9][0] == 3
        uid = fresh()
        sent = object_of(uid)
        assert scu.store(uid, sent, context_id=5) == 0  # stored as it came, whatever it means
    assert data_set_of(door.file(uid)) == sent


def test_an_association_that_says_nothing_is_ended(tmp_path: Path) -> None:
    with opened(tmp_path / "var", listening(request_seconds=1, idle_seconds=1, stall_seconds=1)) as door:
        with Requestor(door.port, b"") as mute, Requestor(door.port) as idle, Requestor(door.port) as stalled:
            stalled.send(values(1, 3, command(1, b"1.2.3", CT.encode())) + values(1, 0, object_of("1.2.3"))[:100])
            for each in (mute, idle, stalled):
                assert each.pdu() == (7, bytes(4))
                assert each.pdu()[0] == 0
        until(lambda: door.counts.get("silent associations") == 2, "two silent ones")
        assert door.counts["stalled messages"] == 1
        assert door.landings() == []


@pytest.mark.parametrize("how", ["abort", "close", "reset", "release"])
def test_an_object_that_breaks_off_leaves_nothing(door: Door, how: str) -> None:
    before, uid = len(door.landings()), fresh()
    sent = values(1, 3, command(1, uid.encode(), CT.encode())) + values(1, 2, object_of(uid, body=bytes(3 << 20)))
    with Requestor(door.port) as scu:
        scu.send(sent[: len(sent) // 2])
        at = len(sent) // 2
        if how in ("abort", "release"):
            scu.send(sent[at : at + (len(sent) - at) // 16382 * 16382])  # up to the border of a PDU
            rest = sent[at + (len(sent) - at) // 16382 * 16382 :]
            scu.send(rest[: max(len(rest) - 16382, 0)])
        if how == "reset":
            scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not door.storage.connections, "the end of it")
    assert len(door.landings()) == before
    assert list((door.store.data_dir / "staging").iterdir()) == []


def test_a_release_or_an_abort_between_two_fragments(door: Door) -> None:
    before = len(door.landings())
    for said, answer in ((pdu(5, bytes(4)), 7), (pdu(7, bytes(4)), 0)):
        with Requestor(door.port) as scu:
            scu.send(values(1, 3, command(1, b"1.2.3", CT.encode())) + values(1, 0, object_of("1.2.3")) + said)
            assert scu.pdu()[0] == answer
    assert len(door.landings()) == before


BROKEN = {
    "no PDU at all": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown PDU": pdu(9, b"x" * 20),
    "an acceptance": pdu(2, bytes(80)),
    "data before the association": values(1, 3, command(1, b"1.2.3", CT.encode())),
    "a request of zeroes": pdu(1, bytes(80)),
    "a request that is cut": pdu(1, request()[6:120]),
    "a request without end": struct.pack(">BxL", 1, 0xFFFFFFFF) + bytes(1000),
    "a release of the wrong length": pdu(5, bytes(40)),
}
BROKEN_LATER = {
    "a value longer than its PDU": pdu(4, struct.pack(">LBB", 500, 1, 3) + b"abc"),
    "a value without a header": pdu(4, b"\0\0"),
    "a value of nothing": pdu(4, struct.pack(">LBB", 1, 1, 3)),
    "an unknown context": values(99, 3, command(1, b"1.2.3", CT.encode())),
    "a data set without a command": values(1, 2, object_of("1.2.3")),
    "a command that is no command": values(1, 3, b"\x08\0\x16\0\xff\xff\xff\xff"),
    "a command without end": values(1, 1, bytes(64) * 20_000),
    "a command without a field": values(1, 3, struct.pack("<HHLL", 0, 0, 4, 0)),
    "a response": values(1, 3, command(0x8001, b"1.2.3", CT.encode(), data_set=False)),
    "a store without data": values(1, 3, command(1, b"1.2.3", CT.encode(), data_set=False)),
    "a second request": request(),
    "an unknown PDU": pdu(9, b""),
    "a context that changes in a data set": values(1, 3, command(1, b"1.2.3", CT.encode())) + values(3, 2, b"xx"),
    "a command in a data set": values(1, 3, command(1, b"1.2.3", CT.encode())) * 2,
}


@pytest.mark.parametrize("named", [*BROKEN, *BROKEN_LATER])
def test_a_broken_association_is_aborted_and_the_door_stays_open(door: Door, named: str) -> None:
    before = len(door.landings())
    with Requestor(door.port, b"" if named in BROKEN else request([(CT, (EXPLICIT,)), (CT, (IMPLICIT,))])) as scu:
        try:
            scu.send(BROKEN.get(named) or BROKEN_LATER[named])
            kind, body = scu.pdu()
        except ConnectionError:
            kind, body = 0, b""
        assert kind in (0, 7), (named, kind, body)
    with Requestor(door.port) as scu:
        uid = fresh()
        assert scu.store(uid, object_of(uid)) == 0
    assert len(door.landings()) == before + 1


def test_many_connections_that_ask_for_nothing_keep_nobody_out(tmp_path: Path) -> None:
    with opened(tmp_path / "var", listening(max_associations=4)) as door:
        mute = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(50)]
        with Requestor(door.port) as scu:
            uid = fresh()
            assert scu.store(uid, object_of(uid)) == 0
        for each in mute:
            each.close()


def test_a_stop_finishes_the_object_in_progress(tmp_path: Path) -> None:
    with opened(tmp_path / "var") as door:
        uid = fresh()
        sent = values(1, 2, object_of(uid, body=bytes(100_000)))
        with Requestor(door.port) as scu, Requestor(door.port) as idle:
            scu.send(values(1, 3, command(1, uid.encode(), CT.encode())) + sent[:50_000])
            until(lambda: any(each._busy for each in door.storage.connections), "an object in progress")
            door._loop.call_soon_threadsafe(door._task.cancel)
            assert idle.pdu()[0] == 7
            scu.send(sent[50_000:])
            assert scu.status() == 0
            assert scu.pdu()[0] == 7
        until(lambda: not door.storage.connections, "the end")
        assert data_set_of(door.file(uid))[-100_000:] == bytes(100_000)


def test_an_address_that_is_taken_is_said_without_values(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as door:
        taken = StorageListening("127.0.0.1", door.port, OURS)
        with pytest.raises(Misconfigured, match="cannot listen for pacs"), opened(tmp_path / "two", taken):
            pass


# ---- noise -----------------------------------------------------------------------------------------------------------


def spoilt(rng: random.Random, raw: bytes) -> bytes:
    """Some bytes changed, dropped, doubled, or lengths made absurd."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) or 1)
        match rng.randrange(5):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at : at + rng.randint(1, 40)]
            case 2:
                out[at:at] = out[at : at + rng.randint(1, 40)]
            case 3:
                out[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 20))
        if not out:
            out += b"\0"
    return bytes(out)


def fuzz(door: Door, seconds: float, seed: int) -> int:
    """Spoilt associations and spoilt objects; gives how many. The door must take a sound object after all of them."""
    rng, tried = random.Random(seed), 0
    until_ = time.process_time() + seconds
    while time.process_time() < until_:
        uid = fresh()
        message = values(1, 3, command(1, uid.encode(), CT.encode())) + values(1, 2, object_of(uid))
        whole = request() + message + pdu(5, bytes(4))
        match rng.randrange(3):
            case 0:
                said = spoilt(rng, request()) + message
            case 1:
                said = request() + spoilt(rng, message)
            case _:
                said = spoilt(rng, whole)
        with Requestor(door.port, b"") as scu:
            try:
                scu.send(said)
                scu.socket.shutdown(socket.SHUT_WR)
                scu.socket.settimeout(5)
                while scu.pdu()[0]:
                    pass
            except (OSError, struct.error):
                pass
        tried += 1
    uid = fresh()
    with Requestor(door.port) as scu:
        assert scu.store(uid, object_of(uid)) == 0
    assert data_set_of(door.file(uid)) == object_of(uid)
    return tried


def fuzz_search(seconds: float, seed: int) -> int:
    """Spoilt data sets to the search alone: found, wants more, or Malformed, and nothing else."""
    rng, tried = random.Random(seed), 0
    until_ = time.process_time() + seconds
    while time.process_time() < until_:
        search = IdentitySearch(rng.choice([EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]))
        with contextlib.suppress(Malformed):
            search.feed(spoilt(rng, object_of("1.2.3.4")), last=rng.random() < 0.5)
        with contextlib.suppress(Malformed):
            command_of(spoilt(rng, command(1, b"1.2.3", CT.encode())))
        tried += 1
    return tried


def test_no_noise_ends_the_door(tmp_path: Path) -> None:
    with opened(tmp_path / "var", listening(stall_seconds=2, request_seconds=2, idle_seconds=2)) as door:
        assert fuzz(door, 6, 1) > 50
        assert door.storage.counts["mistakes"] == 0
    assert fuzz_search(3, 2) > 500


def test_names() -> None:
    assert NAME == "dicom-storage"
    assert {KEEP, REFUSE} == {"keep", "refuse"}


# ---- against pynetdicom ----------------------------------------------------------------------------------------------


def test_the_classes_that_are_stored_are_those_that_pynetdicom_knows() -> None:
    tables = {name: set(table.values()) for name, table in vars(sop_class).items() if name.endswith("_CLASSES")}
    kept = tables.pop("_STORAGE_CLASSES") | tables.pop("_NON_PATIENT_OBJECT_CLASSES")
    del tables["_SERVICE_CLASSES"]
    assert len(kept) > 170
    assert [uid for uid in kept if not upper_layer.stored(uid)] == []
    others = set().union(*tables.values())
    assert len(others) > 60
    assert [uid for uid in others if upper_layer.stored(uid)] == []


def test_pynetdicom_understands_the_answer_to_everything_that_it_can_ask() -> None:
    asked = A_ASSOCIATE_RQ()
    many = [(f"1.2.840.10008.5.1.4.1.1.{number}", (EXPLICIT, IMPLICIT)) for number in range(1, 127)]
    raw = request([*many, ("1.2.840.10008.1.1", (DEFLATED, IMPLICIT)), ("1.2.840.10008.5.1.4.31", (IMPLICIT,))])
    asked.decode(raw)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(many[0][0]), True, True
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    primitive = asked.to_primitive()
    primitive.user_information = [*primitive.user_information, role, window]
    proposal = upper_layer.proposal_of(A_ASSOCIATE_RQ(primitive).encode()[6:])
    assert (proposal.called, proposal.calling, proposal.max_pdu, proposal.several) == (OURS, "SCU", 16382, True)
    answer, contexts = upper_layer.accept(proposal, 1 << 18)
    accepted = A_ASSOCIATE_AC()
    accepted.decode(answer)
    said = accepted.to_primitive()
    assert said.maximum_length_received == 1 << 18
    assert said.implementation_class_uid == part10.IMPLEMENTATION
    results = {
        cx.context_id: (cx.result, cx.transfer_syntax) for cx in said.presentation_context_definition_results_list
    }
    assert len(results) == 128
    assert {key for key, (result, _) in results.items() if result == 0} == set(contexts)
    assert results[253] == (0, [IMPLICIT])  # C-ECHO has no deflated form
    assert results[255][0] == 3
    roles = [each for each in said.user_information if isinstance(each, SCP_SCU_RoleSelectionNegotiation)]
    assert [(each.sop_class_uid, each.scu_role, each.scp_role) for each in roles] == [(many[0][0], True, True)]
    windows = [each for each in said.user_information if isinstance(each, AsynchronousOperationsWindowNegotiation)]
    assert [each.maximum_number_operations_invoked for each in windows] == [1]
    for cut in range(len(answer)):  # requests have the same form
        with contextlib.suppress(Malformed):
            upper_layer.proposal_of(answer[6:cut])
