"""TLS of the listener: row F8 of what a receiver owes, with certificates made here."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.hl7v2.frames import frame
from adapters.sources import hl7v2_mllp
from adapters.sources.certificates import Tls
from models.errors import Misconfigured
from tests.adapters.hl7v2_senders import PATIENCE, Feed, Sender, adt, feeding, until
from tests.adapters.test_hl7v2_mllp import play


@dataclass(frozen=True, slots=True)
class Authority:
    """Somebody who signs certificates; `pem`: its own."""

    folder: Path
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    pem: Path

    def issue(self, common_name: str, *names: str, to: str | None = None) -> tuple[Path, Path]:
        """(certificate, key), in files named after `to`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        built = _builder(subject, self.name, key)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        signed = built.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        ).sign(self.key, hashes.SHA256())
        cert, secret = self.folder / f"{to or common_name}.pem", self.folder / f"{to or common_name}.key"
        cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(_private(key))
        return cert, secret


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = _builder(subject, subject, key)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    signed = built.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    pem = folder / f"{name}.pem"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return Authority(folder, subject, key, pem)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return authority(tmp_path, "ours")


def client(trusted: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted.pem)
    context.check_hostname = False  # MLLP senders name an address
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


async def refused(feed: Feed, context: ssl.SSLContext) -> bool:
    """Whether a sender with this context is never answered. (With TLS 1.3 it hears of it only when it reads.)"""
    try:
        sender = await feed.sender(ssl=context)
        await sender.send(frame(adt("STRANGER")))
        return await sender.closed() == b""
    except (ssl.SSLError, OSError):
        return True


def serial(sender: Sender) -> bytes:
    """Of the certificate that the listener showed."""
    shown = sender.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number.to_bytes(20)


def test_a_feed_over_tls(ours: Authority) -> None:
    """(F8): TLS 1.2 and 1.3; nothing older, and no plain text beside it."""

    async def story() -> None:
        async with feeding(tls=Tls(*ours.issue("cds"))) as feed:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = client(ours)
                context.minimum_version = context.maximum_version = version
                assert await (await feed.sender(ssl=context)).tell(adt(f"V{version}")) == [f"AA V{version}"]
            old = client(ours)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.set_ciphers("ALL:@SECLEVEL=0")
            assert await refused(feed, old)
            plain = await feed.sender()
            await plain.send(frame(adt("PLAIN")))
            assert b"AA" not in await plain.closed()
            assert len(feed.kept.messages) == 2

    play(story())


def test_a_client_shows_a_certificate_of_the_right_authority_and_name(ours: Authority, tmp_path: Path) -> None:
    """(F8): mutual TLS (IHE ATNA), by subject alternative name or common name."""
    (tmp_path / "theirs").mkdir()
    theirs = authority(tmp_path / "theirs", "theirs")
    tls = Tls(*ours.issue("cds"), ours.pem, frozenset({"lab.hospital.example", "engine"}))

    async def story() -> None:
        async with feeding(tls=tls) as feed:
            named = client(ours, ours.issue("x", "other.example", "lab.hospital.example"))
            assert await (await feed.sender(ssl=named)).tell(adt("A")) == ["AA A"]
            assert await (await feed.sender(ssl=client(ours, ours.issue("engine")))).tell(adt("B")) == ["AA B"]
            assert await refused(feed, client(ours, ours.issue("stranger", "stranger.example")))
            assert feed.mllp.counts.of["strangers"] == 1
            assert await refused(feed, client(ours, theirs.issue("engine")))
            assert await refused(feed, client(ours))
            assert len(feed.kept.messages) == 2

    play(story())


def test_certificates_are_renewed_while_connections_live(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(F8): new connections see the new one, and a new authority of clients counts; half a pair changes nothing."""
    monkeypatch.setattr(hl7v2_mllp, "_RENEW", 0.05)
    (tmp_path / "next").mkdir()
    following = authority(tmp_path / "next", "following")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(ours.pem.read_bytes())

    async def story() -> None:
        async with feeding(tls=Tls(*ours.issue("cds"), clients)) as feed:
            first = await feed.sender(ssl=client(ours, ours.issue("engine")))
            assert await first.tell(adt("A")) == ["AA A"]
            cert, key = following.issue("cds", to="new")
            (ours.folder / "cds.pem").write_bytes(cert.read_bytes())  # half of it
            await asyncio.sleep(0.3)
            assert not feed.task.done()
            assert serial(await feed.sender(ssl=client(ours, ours.issue("engine")))) == serial(first)
            (ours.folder / "cds.key").unlink()
            await asyncio.sleep(0.2)
            (ours.folder / "cds.key").write_bytes(key.read_bytes())
            clients.write_bytes(following.pem.read_bytes())
            os.utime(clients)
            await asyncio.sleep(0.3)
            second = await feed.sender(ssl=client(following, following.issue("engine")))
            assert await second.tell(adt("B")) == ["AA B"]
            assert serial(second) != serial(first)
            assert await refused(feed, client(following, ours.issue("engine")))
            assert await first.tell(adt("C")) == ["AA C"]

    play(story())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_not_taken_up_again(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """(F8): it would let a client in whose authority is no longer believed."""
    monkeypatch.setattr(hl7v2_mllp, "_RENEW", 0.05)
    (tmp_path / "next").mkdir()
    following = authority(tmp_path / "next", "following")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(ours.pem.read_bytes())
    context = client(ours, ours.issue("engine"))
    context.minimum_version = context.maximum_version = version

    def talk(port: int, session: ssl.SSLSession | None) -> tuple[bool, bool | None, ssl.SSLSession | None]:
        """(answered, taken up again, the session)"""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
            context.wrap_socket(plain, session=session) as line,
        ):
            line.sendall(frame(adt("A")))
            return b"MSA|AA|A" in line.recv(4096), line.session_reused, line.session

    async def story() -> None:
        async with feeding(tls=Tls(*ours.issue("cds"), clients)) as feed:
            answered, again, session = await asyncio.to_thread(talk, feed.port, None)
            assert (answered, again) == (True, False)
            assert (await asyncio.to_thread(talk, feed.port, session))[:2] == (True, False)
            clients.write_bytes(following.pem.read_bytes())
            await asyncio.sleep(0.3)
            try:
                answered, again, _ = await asyncio.to_thread(talk, feed.port, session)
            except OSError:
                answered, again = False, False
            assert (answered, again) == (False, False)

    play(story())


def test_a_certificate_that_cannot_be_used_stops_the_start(ours: Authority) -> None:
    """(F8): not the first connection."""
    cert, _ = ours.issue("cds")
    _, other = ours.issue("other")

    async def story() -> None:
        with pytest.raises(Misconfigured, match="cannot be used"):
            async with feeding(tls=Tls(cert, other)):
                pass

    play(story())


def test_those_who_never_say_who_they_are(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """(F7) (F8): connections without a handshake take nobody's place, and end."""
    monkeypatch.setattr(hl7v2_mllp, "HANDSHAKE", 1.0)

    async def story() -> None:
        async with feeding(tls=Tls(*ours.issue("cds")), max_connections=1) as feed:
            silent = [await feed.sender() for _ in range(50)]
            babbling = await feed.sender()
            await babbling.send(b"\x16\x03\x01\x02\x00" + bytes(100))
            assert await (await feed.sender(ssl=client(ours))).tell(adt("A")) == ["AA A"]
            for sender in (*silent, babbling):
                assert b"MSA" not in await sender.closed()
            assert feed.mllp.counts.of["messages"] == 1

    play(story())


def test_a_sender_over_tls_that_goes_at_once(ours: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """(F6) (F8): its message is taken; its answer has nowhere to go, and the loop has nothing to say about it."""

    async def story() -> None:
        async with feeding(tls=Tls(*ours.issue("cds"))) as feed:
            sender = await feed.sender(ssl=client(ours))
            await sender.send(frame(adt("A")))
            sender.writer.close()
            await until(lambda: feed.kept.messages == [adt("A")] and feed.mllp.counts.open == 0)

    asyncio.run(story())
    play(story())
    assert caplog.records == []
