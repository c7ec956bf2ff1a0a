"""TLS of the storage door (D15): certificates made here, pynetdicom as the sender."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from pynetdicom import AE

from adapters.sources.certificates import Tls
from tests.adapters.dicom_senders import CT, EXPLICIT, IMPLICIT, OURS, SMALL, Door, listening, opened, request
from tests.adapters.test_hl7v2_mllp_tls import Authority, authority


@pytest.fixture
def signer(tmp_path: Path) -> Authority:
    return authority(tmp_path, "signer")


def client(signer: Authority, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(signer.pem))
    context.check_hostname = False
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def stores(door: Door, context: ssl.SSLContext) -> bool:
    """Whether pynetdicom gets an object into it."""
    ae = AE("TLSSCU")
    ae.acse_timeout = ae.network_timeout = 10
    ae.add_requested_context(CT, [EXPLICIT, IMPLICIT])
    association = ae.associate("127.0.0.1", door.port, ae_title=OURS, tls_args=(context, "localhost"))
    try:
        return association.is_established and association.send_c_store(SMALL).Status == 0
    finally:
        if association.is_established:
            association.release()
        else:
            association.kill()


def hung_up(door: Door, context: ssl.SSLContext) -> bool:
    """Whether an association request is not even answered."""
    with (
        socket.create_connection(("127.0.0.1", door.port), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        try:
            secured.sendall(request())
            return secured.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True


def test_a_certificate_of_ours_and_the_names_that_clients_may_carry(signer: Authority, tmp_path: Path) -> None:
    cert, key = signer.issue("localhost", "localhost")
    known, unknown = signer.issue("pacs", to="known"), signer.issue("somebody", to="unknown")
    tls = Tls(cert, key, signer.pem, frozenset({"pacs"}))
    with opened(tmp_path / "var", listening(tls=tls)) as door:
        assert stores(door, client(signer, known))
        assert hung_up(door, client(signer, unknown))
        assert door.counts["strangers"] == 1
        assert len(door.landings()) == 1


def test_a_handshake_that_never_comes_keeps_nobody_waiting(signer: Authority, tmp_path: Path) -> None:
    cert, key = signer.issue("localhost", "localhost")
    with opened(tmp_path / "var", listening(tls=Tls(cert, key))) as door:
        mute = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(20)]
        assert stores(door, client(signer, None))
        for each in mute:
            each.close()
