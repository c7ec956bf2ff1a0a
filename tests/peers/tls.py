"""What stands in front of a real server: an end of TLS that passes bytes on, with a certificate that signs itself."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Front:
    url: str
    authority: Path
    """PEM of the certificate that a client must believe."""


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "front.pem", folder / "front.key"
    pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, secret


@contextlib.contextmanager
def in_front_of(
    port: int, folder: Path, *, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2, clients: Path | None = None
) -> Iterator[Front]:
    """HTTPS on a free port, plain HTTP behind it. `clients`: PEM of the authority that every client must show."""
    pem, secret = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.load_cert_chain(pem, secret)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    listening = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()
    listening.settimeout(0.05)

    def accept() -> None:
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                plain, _ = listening.accept()
                threading.Thread(target=_serve, args=(plain, context, port), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Front(f"https://127.0.0.1:{listening.getsockname()[1]}", pem)
    finally:
        stopping.set()
        accepting.join()
        listening.close()


def _serve(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """One request a connection: what a client sends is read whole, passed on, and the answer is passed back."""
    with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as client:
        head, _, body = _until(client, b"\r\n\r\n").partition(b"\r\n\r\n")
        told = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(told.get(b"content-length", b"0")):
            body += client.recv(65536)
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        with socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(b"\r\n".join([*lines, b"Connection: close", b"", body]))
            with server.makefile("rb") as answer, client.makefile("wb") as back:
                shutil.copyfileobj(answer, back)


def _until(client: ssl.SSLSocket, mark: bytes) -> bytes:
    held = b""
    while mark not in held:
        held += client.recv(65536)
    return held
