"""`cds doctor` looks outside: real TLS servers certificates of our own, real key sets, a clock that is off."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cds_server.http import Outbound, authorities
from cds_server.settings import Settings, load
from cds_server.trust.checks import outside
from cds_server.trust.keysets import FetchedKeys
from tests.peers.ehr_keys import ISSUER, public_set, signing_key
from tests.peers.server import Server

SPECIFICATION = (
    '{"keys": [{"kty": "EC", "use": "sig", "crv": "P-384", "kid": "example-kid", "alg": "ES384",'
    '"x": "46SDH7Znh821wblCBglA61sNE9ZrHYKKt3qRtRTmSXyOI_FIGBLWrWa0GPUkDCEk",'
    '"y": "XMcRuuoGW7CXjQdy-F5i3FeBE0x9hPLdeFdSoDd3ELmx404tLX0VRRcqzAsPhXcI"}]}'
)


class Authority:
    """A hospital's own certificate authority."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hospital CA")])
        self._folder = folder
        self.file = folder / "ca.pem"
        now = datetime.now(UTC)
        certificate = (
            self._builder(self._name, self._key, now - timedelta(days=400), now + timedelta(days=400))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, days: float) -> ssl.SSLContext:
        """For a server on 127.0.0.1 whose certificate ends in so many days."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        certificate = (
            self._builder(name, key, now - timedelta(days=300), now + timedelta(days=days, minutes=5))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{days}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


Serving = Callable[..., str]


@pytest.fixture
def serving(authority: Authority) -> Iterator[Serving]:
    """Gives `make(body, days=..., ahead=...)`: the URL of a key server; by TLS where `days` are given."""
    made: list[ThreadingHTTPServer] = []

    def make(body: bytes, days: float | None = None, ahead: float = 0) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(200)
                self.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that does not believe the certificate hangs up."""

        server = Quiet(("127.0.0.1", 0), Handler)
        if days is not None:
            server.socket = authority.context(days).wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.append(server)
        return f"{'http' if days is None else 'https'}://127.0.0.1:{server.server_port}/jwks"

    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def settings(tmp_path: Path, *urls: str, ca: Path | None = None, more: str = "") -> Settings:
    config = tmp_path / "cds.toml"
    tables = [
        f'[[ehr]]\nnamespace = "e{number}"\nissuer = "{ISSUER}/{number}"\njwks_url = "{url}"\n'
        f'fhir_base = "http://127.0.0.1:1/r4"\n{more}'
        for number, url in enumerate(urls)
    ]
    config.write_text((f'ca_file = "{ca}"\n' if ca else "") + 'trust = "jwt"\n' + "".join(tables))
    return load({"CDS_CONFIG": str(config)})


def told(found: Settings) -> dict[str, tuple[str, str]]:
    return {name.partition(":")[0]: (state, what) for name, state, what in outside(found)}


@pytest.mark.parametrize(
    ("days", "state", "what"),
    [
        (200, "ok", "ends in 200 days"),
        (20, "LOOK", "ends in 20 days: renew it"),
        (3, "FAILS", "ends in 3 days: renew it"),
        (-2, "FAILS", "it is not believed: certificate has expired"),
    ],
)
def test_certificates(tmp_path: Path, authority: Authority, serving: Serving, days: int, state: str, what: str) -> None:
    url = serving(public_set(signing_key("ES384", "k")), days=days)
    assert told(settings(tmp_path, url, ca=authority.file))["certificate 127.0.0.1"] == (state, what)
    unknown = told(settings(tmp_path, url))
    assert unknown["certificate 127.0.0.1"][0] == "FAILS"
    assert unknown["ehr e0 keys"][0] == "FAILS"


def test_keys_of_a_server_that_the_hospital_s_own_authority_vouches_for(authority: Authority, serving: Serving) -> None:
    url = serving(public_set(signing_key("ES384", "k")), days=90)

    async def run() -> tuple[bool, bool]:
        doors = [Outbound([url], verify=authorities(file)) for file in (authority.file, None)]
        found = [await FetchedKeys(url, door).key("k", 5) is not None for door in doors]
        for door in doors:
            await door.aclose()
        return found[0], found[1]

    assert asyncio.run(run()) == (True, False)


def test_keys_of_each_ehr(tmp_path: Path, serving: Serving) -> None:
    good = serving(public_set(signing_key("ES384", "k"), signing_key("ES256", "old")))
    none = serving(public_set(signing_key("ES256", "old")))
    published = serving(SPECIFICATION.encode())
    found = told(settings(tmp_path, good, none, published, "http://127.0.0.1:1/jwks"))
    assert found["ehr e0 keys"] == ("ok", "1 of 2 usable")
    assert found["ehr e1 keys"] == ("FAILS", "the key set has no key for ES384, RS384")
    assert found["ehr e2 keys"][0] == "FAILS"
    assert "anybody can sign" in found["ehr e2 keys"][1]
    assert found["ehr e3 keys"] == ("FAILS", "the key set does not come: no answer: ConnectError")
    assert told(settings(tmp_path, published, more="published_keys = true\n"))["ehr e0 keys"][0] == "LOOK"


@pytest.mark.parametrize(("ahead", "state"), [(0, "ok"), (20, "LOOK"), (-300, "FAILS")])
def test_the_clock_is_held_against_those_whose_tokens_we_judge(
    tmp_path: Path, serving: Serving, ahead: int, state: str
) -> None:
    url = serving(public_set(signing_key("ES384", "k")), ahead=ahead)
    assert told(settings(tmp_path, url))["clock outside"][0] == state


def test_the_command_says_so_and_fails(tmp_path: Path, servers: Callable[..., Server], serving: Serving) -> None:
    server = servers()
    server.stop()
    config = tmp_path / "cds.toml"
    url = serving(SPECIFICATION.encode())
    config.write_text(f'[[ehr]]\nnamespace = "a"\nissuer = "{ISSUER}"\njwks_url = "{url}"\n')
    rows = server.cds("doctor", code=1, CDS_CONFIG=str(config), CDS_TRUST="jwt").stdout
    assert "anybody can sign with a key of this set" in rows
    assert "no fhir_base" in rows
    nobody = server.cds("doctor", code=0, CDS_TRUST="jwt").stdout
    assert "every call is refused" in nobody
