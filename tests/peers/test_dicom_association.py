"""Why there is no association, each cause by its name (D6)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from adapters.dicom.association import Cause, Link, NoAssociation, context, echo
from adapters.dicom.peers import PeerTls
from tests.peers.hostile_pacs import HostilePacs


@pytest.fixture
def pacs(hostile_pacs: HostilePacs) -> Iterator[HostilePacs]:
    hostile_pacs.play()
    yield hostile_pacs
    hostile_pacs.stop.set()


def test_no_context_is_not_rejection(pacs: HostilePacs) -> None:
    with pytest.raises(NoAssociation) as failed:
        Link(pacs.peer(), [context("1.2.840.10008.5.1.4.1.2.2.3")], answer=1).open()  # C-GET, which it does not have
    assert failed.value.cause is Cause.NO_CONTEXT


def test_who_takes_the_connection_and_says_nothing(pacs: HostilePacs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        peer = replace(pacs.peer(), port=deaf.getsockname()[1])
        assert echo(peer).cause is Cause.SILENT


def test_who_closes_the_connection_or_speaks_something_else(pacs: HostilePacs) -> None:
    for said in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\x00\x00\x00\x00\x02\x00\x00"):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer(server: socket.socket = server, said: bytes = said) -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(4096)
                            connection.sendall(said)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            assert echo(replace(pacs.peer(), port=server.getsockname()[1])).cause in (
                Cause.ABORTED,
                Cause.SILENT,
                Cause.NO_CONTEXT,
            )


def test_tls_where_there_is_none(pacs: HostilePacs) -> None:
    found = echo(pacs.peer(tls=PeerTls()))
    assert found.cause is Cause.TLS


def test_an_answer_waits_for_who_asked(pacs: HostilePacs) -> None:
    """pynetdicom's own thread must not take it, however fast it comes: 1 of 250 lists was a series short."""
    with Link(pacs.peer(), [context(Verification)], answer=5) as link:
        waiting, answer = link.association.dimse.msg_queue, C_ECHO()
        waiting.put((1, answer))
        time.sleep(0.1)  # a hundred looks of that thread
        assert link.association.dimse.get_msg(block=True) == (1, answer)
