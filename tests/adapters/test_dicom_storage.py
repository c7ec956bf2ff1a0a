"""Objects by C-STORE, by hand over real sockets, on a real store. Ids are rows of the checklist (D1-D18)."""

from __future__ import annotations

import logging
import random
import struct
import warnings
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.filereader import read_preamble
from pynetdicom import AE, StoragePresentationContexts

from adapters.dicom.identity import plausible
from adapters.dicom.receiving import REFUSE
from adapters.source import Intake, Staged
from models.errors import DiskFull, RecordUnavailable
from models.nouns import LandingMeta
from tests.adapters.dicom_senders import (
    CT,
    EXPLICIT,
    IMPLICIT,
    OURS,
    SMALL,
    Door,
    Requestor,
    command,
    data_set_of,
    door,
    element,
    fresh,
    listening,
    object_of,
    opened,
    pdu,
    request,
    values,
)

__all__ = ["door"]


# ---- an object -------------------------------------------------------------------------------------------------------


def test_an_object_is_stored_byte_for_byte_with_a_file_head_of_ours(door: Door) -> None:
    uid, before = fresh(), len(door.landings())
    sent = object_of(uid)
    with Requestor(door.port) as scu:
        assert scu.answered[0] == 2
        assert scu.store(uid, sent) == 0
        scu.release()
    file = door.file(uid)
    assert data_set_of(file) == sent
    assert len(door.landings()) == before + 1
    landing = door.landings()[-1]
    assert (landing.source, landing.media_type, landing.parts) == ("pacs", "application/dicom", 1)
    assert pydicom.dcmread(BytesIO(file)).SOPInstanceUID == uid
    said = door.manifests()[-1]
    assert said["calling_ae_title"] == "SCU"
    assert said["called_ae_title"] == OURS
    assert said["transfer_syntax"] == EXPLICIT
    assert "SCU" not in file[:400].decode("latin-1")  # the file itself names no peer


def test_the_same_object_again_is_answered_the_same_and_stored_once(door: Door) -> None:
    uid, before = fresh(), len(door.landings())
    for _ in range(2):
        with Requestor(door.port, request(calling="ANOTHER")) as scu:
            assert [scu.store(uid, object_of(uid)) for _ in range(2)] == [0, 0]
    assert len(door.landings()) == before + 1


def test_other_bytes_under_one_uid_are_kept_beside_and_flagged(door: Door) -> None:
    uid, before = fresh(), len(door.landings())
    with Requestor(door.port) as scu:
        bodies = (b"one!", b"two!", b"one!", b"two!", b"six!")
        assert [scu.store(uid, object_of(uid, body=body)) for body in bodies] == [0] * 5
    stored = door.landings()[before:]
    assert [door.store.part(each, 0)[-4:] for each in stored] == [b"one!", b"two!", b"six!"]
    assert ["conflict" in said for said in door.manifests()[before:]] == [False, True, True]
    flags = door.rows("SELECT landing_id FROM flag WHERE reason = 'conflict' ORDER BY id")
    assert [int(row[0]) for row in flags[-2:]] == [each.id for each in stored[1:]]


def test_other_bytes_are_refused_where_the_source_says_so(tmp_path: Path) -> None:
    uid = fresh()
    with opened(tmp_path / "var", listening(on_conflict=REFUSE)) as door:
        with Requestor(door.port) as scu:
            answers = [scu.store(uid, object_of(uid, body=body)) for body in (b"one!", b"two!", b"one!")]
        assert answers == [0, 0x0111, 0]
        assert len(door.landings()) == 1
        assert len(door.rows("SELECT id FROM flag WHERE reason = 'conflict'")) == 1


@pytest.mark.parametrize("step", [1, 7, 300, 16376])
def test_any_cut_of_the_wire_gives_the_same_object(door: Door, step: int) -> None:
    uid = fresh()
    sent = object_of(uid, body=random.Random(step).randbytes(2000))
    raw = values(1, 3, command(1, uid.encode(), CT.encode()), 50) + values(1, 2, sent, max(step, 20))
    with Requestor(door.port) as scu:
        scu.send(raw, step)
        assert scu.status() == 0
    assert data_set_of(door.file(uid)) == sent


def test_several_values_in_one_pdu_and_a_pdu_longer_than_we_asked_for(door: Door) -> None:
    uid = fresh()
    sent = object_of(uid, body=bytes(1 << 20))
    both = b"".join(
        struct.pack(">LBB", len(part) + 2, 1, control) + part
        for control, part in ((3, command(1, uid.encode(), CT.encode())), (0, sent[:1000]), (2, sent[1000:]))
    )
    with Requestor(door.port) as scu:
        scu.send(pdu(4, both))
        assert scu.status() == 0
    assert data_set_of(door.file(uid)) == sent


def test_a_small_window_of_the_peer_is_kept(door: Door) -> None:
    uid = fresh()
    with Requestor(door.port, request(max_pdu=32)) as scu:
        assert scu.store(uid, object_of(uid)) == 0


def test_echo_is_answered_and_other_operations_are_not_recognised(door: Door) -> None:
    verification = "1.2.840.10008.1.1"
    with Requestor(door.port, request([(verification, (IMPLICIT,)), (CT, (EXPLICIT,))])) as scu:
        scu.send(values(1, 3, command(0x30, b"", verification.encode(), data_set=False)))
        assert scu.status() == 0
        scu.send(values(3, 3, command(0x20, b"", CT.encode())) + values(3, 2, bytes(100)))  # C-FIND
        assert scu.status() == 0x0211
        scu.send(values(3, 3, command(0x0FFF, b"", CT.encode(), data_set=False).replace(b"\x10\x01", b"\x20\x01", 1)))
        uid = fresh()
        assert scu.store(uid, object_of(uid), context_id=3) == 0  # a C-CANCEL is passed over
        scu.release()


def test_the_move_that_brought_it_is_in_the_sealed_manifest(door: Door) -> None:
    uid = fresh()
    body = command(1, uid.encode(), CT.encode())[12:]
    body += struct.pack("<HHL", 0, 0x1030, 4) + b"MOVE" + struct.pack("<HHLH", 0, 0x1031, 2, 77)
    with Requestor(door.port) as scu:
        scu.send(values(1, 3, struct.pack("<HHLL", 0, 0, 4, len(body)) + body) + values(1, 2, object_of(uid)))
        assert scu.status() == 0
    said = door.manifests()[-1]
    assert (said["move_originator_ae_title"], said["move_originator_message_id"]) == ("MOVE", 77)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "said", "sop_class", "data_set", "status"),
    [
        ("another instance", "1.2.3", CT, object_of("1.2.4"), 0xA900),
        (
            "another class in the data set",
            "1.2.3",
            CT,
            object_of("1.2.3", sop_class="1.2.840.10008.5.1.4.1.1.4"),
            0xA900,
        ),
        ("another class in the command", "1.2.3", "1.2.840.10008.5.1.4.1.1.4", object_of("1.2.3"), 0xA900),
        ("no UIDs", "1.2.3", CT, element(0x10, 0x10, b"PN", b"X"), 0xC000),
        ("only one UID", "1.2.3", CT, element(8, 0x16, b"UI", CT.encode()), 0xC000),
        ("nothing", "1.2.3", CT, b"", 0xC000),
        ("noise", "1.2.3", CT, bytes(range(1, 200)), 0xC000),
        ("a path", "../../etc/passwd", CT, object_of("../../etc/passwd"), 0x0117),
        ("80 characters", "1." + "2" * 78, CT, object_of("1." + "2" * 78), 0x0117),
        ("an empty UID", "", CT, object_of(""), 0x0117),
        ("a NUL in the middle", "1.2\0.3", CT, object_of("1.2\0.3"), 0x0117),
        ("markup", "<b>1.2</b>", CT, object_of("<b>1.2</b>"), 0x0117),
        (
            "deep",
            "1.2.3",
            CT,
            object_of("1.2.3", before=struct.pack("<HH2sHL", 8, 6, b"SQ", 0, 2**32 - 1) * 99),
            0xC000,
        ),
        ("a length to the end of the world", "1.2.3", CT, struct.pack("<HH2sHL", 8, 1, b"UN", 0, 2**32 - 2), 0xC000),
        ("implicit for explicit", "1.2.3", CT, struct.pack("<HHL", 8, 0x16, 6) + b"1.2.33", 0xC000),
    ],
)
def test_what_does_not_agree_or_cannot_be_read_is_refused_with_its_status(
    door: Door, named: str, said: str, sop_class: str, data_set: bytes, status: int
) -> None:
    before = len(door.landings())
    with Requestor(door.port) as scu:
        assert scu.store(said, data_set, sop_class=sop_class) == status, named
        uid = fresh()
        assert scu.store(uid, object_of(uid)) == 0  # the association goes on
    assert len(door.landings()) == before + 1


def test_a_long_sequence_before_the_uids_is_walked_over(door: Door) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1) + element(8, 0x100, b"SH", b"en" * 4)
    item += struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
    language = struct.pack("<HH2sHL", 8, 6, b"SQ", 0, 2**32 - 1) + item * 300
    uid = fresh()
    sent = object_of(uid, before=language + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    with Requestor(door.port) as scu:
        assert scu.store(uid, sent, step=100) == 0
    assert data_set_of(door.file(uid)) == sent


def test_a_disk_that_is_nearly_full_answers_a700_before_and_in_the_middle(tmp_path: Path) -> None:
    room = [10 << 20]
    with opened(tmp_path / "var", listening(min_free=1 << 20), free=lambda: room[0]) as door:
        with Requestor(door.port) as scu:
            uid = fresh()
            assert scu.store(uid, object_of(uid)) == 0
            room[0] = 1000
            assert scu.store(fresh(), object_of("1.2")) == 0xA700
            room[0] = 10 << 20
            uid = fresh()
            assert scu.store(uid, object_of(uid)) == 0
        assert len(door.landings()) == 2


class _Troubled:
    """An intake whose commits fail, or whose writes do."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.commit_fails: Exception | None = None
        self.write_fails: Exception | None = None

    def stage(self, meta: LandingMeta) -> Staged:
        staged, outer = self.intake.stage(meta), self

        class Failing:
            async def write(self, chunk: bytes) -> None:
                if outer.write_fails is not None:
                    raise outer.write_fails
                await staged.write(chunk)

            async def commit(self, *given: object, **named: object) -> object:
                if outer.commit_fails is not None:
                    raise outer.commit_fails
                return await staged.commit(*given, **named)  # type: ignore[arg-type]

            async def end_part(self) -> None:
                await staged.end_part()

            async def abandon(self) -> None:
                await staged.abandon()

        return Failing()  # type: ignore[return-value]


def test_what_the_store_refuses_is_never_answered_0000(tmp_path: Path) -> None:
    made: list[_Troubled] = []

    def wrap(intake: Intake) -> Intake:
        made.append(_Troubled(intake))
        return made[0]

    with opened(tmp_path / "var", wrap=wrap) as door:
        with Requestor(door.port) as scu:
            for member, error, status in (
                ("commit_fails", DiskFull("full"), 0xA700),
                ("commit_fails", RecordUnavailable("locked"), 0x0110),
                ("write_fails", DiskFull("full"), 0xA700),
                ("write_fails", OSError(5, "I/O"), 0x0110),
            ):
                setattr(made[0], member, error)
                uid = fresh()
                assert scu.store(uid, object_of(uid, body=bytes(200_000))) == status
                setattr(made[0], member, None)
                assert scu.store(uid, object_of(uid, body=bytes(200_000))) == 0  # and may be sent again
        assert len(door.landings()) == 4


# ---- pynetdicom as the sender ----------------------------------------------------------------------------------------


def _test_files() -> list[Path]:
    base = Path(pydicom.__file__).parent / "data" / "test_files"
    return sorted(path for path in base.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20)


def _parts(path: Path) -> tuple[str, str, str, bytes] | None:
    """(class, instance, syntax, data set) of a Part 10 file; None for what is none, or names no instance."""
    raw = path.read_bytes()
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if read_preamble(file, force=True) is None:
            return None
        try:
            meta = pydicom.filereader.read_file_meta_info(str(path))
            return (
                str(meta.MediaStorageSOPClassUID),
                str(meta.MediaStorageSOPInstanceUID),
                str(meta.TransferSyntaxUID),
                raw[144 + meta.FileMetaInformationGroupLength :],
            )
        except (AttributeError, pydicom.errors.InvalidDicomError, ValueError, OSError):
            return None


def test_every_file_of_pydicom_comes_back_byte_for_byte(door: Door) -> None:
    """Whatever its class and syntax; what names no instance, or another than its meta group, is refused as such."""
    sent, refused, held = 0, list[tuple[str, int]](), dict[int, bytes]()
    for path in _test_files():
        parts = _parts(path)
        if parts is None or not plausible(parts[1].encode()):
            continue
        sop_class, instance, syntax, data_set = parts
        with Requestor(door.port, request([(sop_class, (syntax,))])) as scu:
            context = scu.answered[1]
            assert scu.answered[0] == 2, path.name
            if b"\x21\x00" not in context or context[context.index(b"\x21\x00") + 6] != 0:
                refused.append((path.name, 0))  # a class of another service: a DICOMDIR
                continue
            status = scu.store(instance, data_set, sop_class=sop_class)
        if status:
            refused.append((path.name, status))
            continue
        sent += 1
        newest = int(door.rows("SELECT MAX(id) FROM landing")[0][0])
        if newest not in held:
            landing = door.store.reads.landing(newest)
            assert landing is not None
            held[newest] = data_set_of(door.store.part(landing, 0))
        assert data_set in held.values(), path.name
    assert sent > 70
    assert len(refused) < 40, refused
    assert {status for _, status in refused} <= {0, 0xA900, 0xC000}


def test_pynetdicoms_own_sender_is_understood(door: Door) -> None:
    ae = AE("SENDER")
    ae.requested_contexts = StoragePresentationContexts
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", door.port, ae_title=OURS)
    try:
        assert association.is_established
        assert association.send_c_echo().Status == 0
        dataset = pydicom.dcmread(SMALL)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(fresh())
        assert association.send_c_store(dataset).Status == 0
        dataset.SOPInstanceUID = pydicom.uid.UID(fresh())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        assert association.send_c_store(dataset).Status == 0
        association.release()
        assert association.is_released
    finally:
        if association.is_established:
            association.abort()


def test_nothing_of_what_comes_is_ever_logged(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in ("pynetdicom", "pydicom"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        try:
            with Requestor(door.port, request(calling="SECRETAE")) as scu:
                uid = fresh()
                assert scu.store(uid, object_of(uid)) == 0
                assert scu.store("9.9.9.9", object_of("8.8.8.8")) == 0xA900
                scu.send(request(calling="SECRET2"))
                scu.pdu()
            with Requestor(door.port, request().replace(b"1.2.840.10008.3", b"\xff.SECRET.\xffxxx.3")) as scu:
                assert scu.answered[0] in (0, 3, 7)
        finally:
            for name in ("pynetdicom", "pydicom"):
                logging.getLogger(name).setLevel(logging.NOTSET)
    said = caplog.text
    assert not any(word in said for word in ("SECRET", "Secret", "9.9.9.9", "8.8.8.8", uid))
