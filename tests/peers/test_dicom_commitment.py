"""Storage commitment with an archive of our own, which says what Orthanc cannot be made to say."""

from __future__ import annotations

import gc
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComprehensiveSRStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from adapters.dicom.association import EXPLICIT, IMPLICIT
from adapters.dicom.peers import DicomPeer, PeerTls, Timeouts
from adapters.dicom.sending import Reports, reception
from adapters.sink import Taken, Told
from adapters.sinks.dicom_store import Committing, DicomStore
from cds_server.dicom_destinations import accepting
from models.errors import Misconfigured, PeerFailed
from tests.adapters.test_hl7v2_mllp_tls import Authority, authority
from tests.peers.pacs import free_ports
from tests.peers.test_dicom_sinks_peer import delivered, result

US, THEM = "SINKSCU", "KEEPER"
OUR_NAME, THEIR_NAME = "cds.hospital.example", "archive.hospital.example"
FILE = result("commitment")
Words = Callable[[Dataset], Dataset]


def said(asked: Dataset, failure: int | None = None, **changes: Any) -> Dataset:
    """Its word on what it was asked for."""
    made = Dataset()
    made.TransactionUID = changes.get("transaction", asked.TransactionUID)
    (row,) = asked.ReferencedSOPSequence
    named = Dataset()
    named.ReferencedSOPClassUID = row.ReferencedSOPClassUID
    named.ReferencedSOPInstanceUID = changes.get("sop_uid", row.ReferencedSOPInstanceUID)
    if failure is None:
        made.ReferencedSOPSequence = [named]
    else:
        named.FailureReason = failure
        made.FailedSOPSequence = [named]
    return made


def without(word: Dataset) -> Dataset:
    """A word that names no object."""
    del word.ReferencedSOPSequence
    return word


@dataclass(slots=True)
class Keeper:
    """An archive that takes everything."""

    port: int = 0
    store_status: int = 0
    action_status: int = 0
    words: list[Words] = field(default_factory=lambda: [said])
    elsewhere: int = 0
    """Port where its word goes, on an association of its own; 0: on the one that asked."""
    calling: str = THEM
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
    """As it is called, and as it calls."""
    told: list[int | None] = field(default_factory=list)
    """How its words were answered; None: not at all, or no association."""
    threads: list[threading.Thread] = field(default_factory=list)

    def action(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        if not self.action_status:
            thread = threading.Thread(target=self._say, args=(asked, event.assoc))
            self.threads.append(thread)
            thread.start()
        return self.action_status, None

    def _say(self, asked: Dataset, association: Any) -> None:
        own = None
        if self.elsewhere:
            entity = AE(ae_title=self.calling)
            entity.add_requested_context(StorageCommitmentPushModel)
            roles: list[Any] = [build_role(StorageCommitmentPushModel, scp_role=True)]
            tls: dict[str, Any] = {"tls_args": (self.tls[1], OUR_NAME)} if self.tls else {}
            own = entity.associate("127.0.0.1", self.elsewhere, ae_title=US, ext_neg=roles, **tls)
            if not own.is_established:
                self.told.append(None)
                return
            association = own
        for each in self.words:
            made = each(asked)
            kind = 2 if "FailedSOPSequence" in made else 1
            where = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
            try:
                answer, _ = association.send_n_event_report(made, kind, *where)
                self.told.append(getattr(answer, "Status", None))
            except RuntimeError:
                self.told.append(None)
        if own is not None:
            own.release()


@contextmanager
def keeping(keeper: Keeper) -> Iterator[Keeper]:
    (keeper.port,) = free_ports(1)
    entity = AE(ae_title=THEM)
    entity.add_supported_context(ComprehensiveSRStorage, [EXPLICIT, IMPLICIT])
    entity.add_supported_context(StorageCommitmentPushModel, [EXPLICIT, IMPLICIT])
    handlers: list[Any] = [(evt.EVT_C_STORE, lambda _: keeper.store_status), (evt.EVT_N_ACTION, keeper.action)]
    called = keeper.tls[0] if keeper.tls else None
    server = entity.start_server(("127.0.0.1", keeper.port), block=False, evt_handlers=handlers, ssl_context=called)
    assert server is not None
    try:
        yield keeper
    finally:
        server.shutdown()
        for each in keeper.threads:
            each.join(10)


def told(keeper: Keeper, wait: float = 10.0, tls: PeerTls | None = None) -> Told:
    times = Timeouts(connect=5, accept=5, answer=10)
    peer = DicomPeer("archive", "127.0.0.1", keeper.port, THEM, US, destination=US, tls=tls, timeouts=times)
    committing = Committing(wait, "127.0.0.1", keeper.elsewhere, accepting(tls))
    return delivered(DicomStore(lambda: peer, committing), FILE)[0]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (None, Told(Taken.YES, "0000")),
        (0x0112, Told(Taken.LATER, "0112")),
        (0x0110, Told(Taken.LATER, "0110")),
        (0x0213, Told(Taken.LATER, "0213")),
        (0x0119, Told(Taken.NO, "0119")),
        (0x0122, Told(Taken.NO, "0122")),
    ],
    ids=lambda each: "" if isinstance(each, Told) else str(each),
)
def test_its_word_is_what_counts(elsewhere: bool, failure: int | None, expected: Told) -> None:
    port = free_ports(1)[0] if elsewhere else 0
    with keeping(Keeper(words=[lambda asked: said(asked, failure)], elsewhere=port)) as keeper:
        assert told(keeper) == expected
    assert keeper.told == [0]


def secured(signer: Authority, name: str, *, called: bool) -> ssl.SSLContext:
    """TLS with a certificate of this authority, of whom one is shown, too."""
    purpose = ssl.Purpose.CLIENT_AUTH if called else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose, cafile=str(signer.pem))
    made.load_cert_chain(*signer.issue(name, name))
    made.verify_mode = ssl.CERT_REQUIRED
    return made


@pytest.mark.parametrize("believed", [True, False])
def test_over_tls_each_of_the_two_associations_shows_who_it_is(tmp_path: Path, believed: bool) -> None:
    """Ours to the archive, and the archive's own to us, with its word."""
    (port,) = free_ports(1)
    folders = [tmp_path / name for name in ("signer", "stranger")]
    for each in folders:
        each.mkdir()
    signer, stranger = authority(folders[0], "signer"), authority(folders[1], "stranger")
    ours = PeerTls(signer.pem, *signer.issue(OUR_NAME, OUR_NAME), server_name=THEIR_NAME)
    calls = secured(signer if believed else stranger, THEIR_NAME, called=False)
    calls.load_verify_locations(signer.pem)
    theirs = (secured(signer, THEIR_NAME, called=True), calls)
    with keeping(Keeper(elsewhere=port, tls=theirs)) as keeper:
        if believed:
            assert told(keeper, tls=ours) == Told(Taken.YES, "0000")
            assert keeper.told == [0]
        else:
            with pytest.raises(PeerFailed, match="does not say that it will keep it"):
                told(keeper, 1.0, tls=ours)
            assert keeper.told == [None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pynetdicom leaves the socket of a failed handshake open
        gc.collect()


@pytest.mark.parametrize(
    "word",
    [
        lambda asked: said(asked, transaction="2.25.1"),
        lambda asked: said(asked, sop_uid="2.25.2"),
        lambda asked: without(said(asked)),
    ],
    ids=["another transaction", "another object", "nothing"],
)
def test_a_word_about_something_else_is_no_word(word: Words) -> None:
    with keeping(Keeper(words=[word])) as keeper, pytest.raises(PeerFailed, match="does not say that it will keep it"):
        told(keeper, 0.5)


def test_a_word_about_something_else_does_not_hide_the_right_one() -> None:
    with keeping(Keeper(words=[lambda asked: said(asked, 0x0110, transaction="2.25.1"), said])) as keeper:
        assert told(keeper) == Told(Taken.YES, "0000")


def test_a_stranger_brings_no_word() -> None:
    (port,) = free_ports(1)
    with keeping(Keeper(elsewhere=port, calling="STRANGER")) as keeper, pytest.raises(PeerFailed):
        told(keeper, 0.5)
    assert keeper.told == [None]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0xA700, Taken.LATER), (0xA900, Taken.NO), (0xC001, Taken.NO), (0x0124, Taken.LATER), (0xFFFF, Taken.LATER)],
)
def test_what_was_not_stored_is_not_asked_to_be_kept(status: int, expected: Taken) -> None:
    with keeping(Keeper(store_status=status)) as keeper:
        assert told(keeper) == Told(expected, f"{status:04X}")
    assert keeper.threads == []


@pytest.mark.parametrize("status", [0xB000, 0x0111])
def test_a_warning_and_a_duplicate_are_stored_and_are_asked_to_be_kept(status: int) -> None:
    with keeping(Keeper(store_status=status)) as keeper:
        assert told(keeper) == Told(Taken.YES, "0000")


def test_one_that_does_not_take_the_question_is_asked_again_later() -> None:
    with keeping(Keeper(action_status=0x0110)) as keeper:
        assert told(keeper) == Told(Taken.LATER, "0110")


def test_a_port_that_is_taken_is_said() -> None:
    (port,) = free_ports(1)
    with (
        reception(Reports(), US, THEM, "127.0.0.1", port),
        pytest.raises(Misconfigured, match="cannot be listened on"),
        reception(Reports(), US, THEM, "127.0.0.1", port),
    ):
        pass
