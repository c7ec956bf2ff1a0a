"""How a DICOMweb server is reached, as a `[[source]]` or a `[[destination]]` says: where, by which door, as whom."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cds_server.configured import Table, loopback
from cds_server.http import vendor_door
from cds_server.settings import Settings
from cds_server.vendor_door import HostRules, VendorDoor, place
from models.errors import Misconfigured, NotAllowed

KEYS = frozenset(
    {"url", "auth", "user", "password_file", "token_file", "plain_http", "private_network", "proxy_file"}
    | {"tls_ca_file", "tls_cert_file", "tls_key_file"}
)
_AUTH = ("none", "basic", "bearer", "mtls")


@dataclass(frozen=True, slots=True)
class WebAccess:
    url: str
    """Of the service: what stands before `/studies`."""
    rules: HostRules
    headers: Callable[[], Mapping[str, str]]
    """Who we are, read anew each time: a token that was renewed counts. Raises Misconfigured."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    proxy: str | None = None

    def door(self) -> VendorDoor:
        """For one event loop. Raises: Misconfigured (a certificate that cannot be used)."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (ssl.SSLError, OSError):
            raise Misconfigured("the certificate, its key or the authorities cannot be used") from None
        return vendor_door(self.rules, verify=context, proxy=self.proxy)


def access(table: Table, settings: Settings) -> WebAccess:
    """Raises: Misconfigured, one sentence that names the key and the file."""
    url = table.required("url").rstrip("/")
    if "?" in url or "#" in url:
        raise table.wrong("url", "has a query: it is what stands before /studies")
    private = table.flag("private_network")
    try:
        plain = tuple({place(url).netloc}) if table.flag("plain_http") else ()
        rules = HostRules(url, plain_http=plain, private_network=private)
        host = place(url).host
    except (Misconfigured, NotAllowed) as error:
        raise table.wrong("url", f"cannot be asked: {error.what}") from None
    files = [_file(table, f"tls_{each}_file") for each in ("ca", "cert", "key")]
    ca, cert, key = files
    if bool(cert) != bool(key):
        raise table.wrong("tls_cert_file", "and tls_key_file belong together")
    auth = table.text("auth") or "none"
    if auth not in _AUTH:
        raise table.wrong("auth", f"is none of {', '.join(_AUTH)}")
    if auth == "mtls" and cert is None:
        raise table.wrong("auth", "is 'mtls' without tls_cert_file")
    if auth == "none" and cert is None and not loopback(host):
        raise table.wrong("auth", "is 'none', which is for a server on this very machine only")
    if auth in ("basic", "bearer") and url.startswith("http:") and not loopback(host):
        raise table.wrong("auth", "would be read on the way: the url is without TLS")
    return WebAccess(
        url, rules, _headers(table, auth), ca or settings.ca_file, cert, key, table.secret("proxy", {}, "")
    )


def _file(table: Table, key: str) -> Path | None:
    text = table.text(key)
    if text is not None and not Path(text).is_file():
        raise table.wrong(key, "names no file")
    return Path(text) if text else None


def _headers(table: Table, auth: str) -> Callable[[], Mapping[str, str]]:
    def asked() -> Mapping[str, str]:
        if auth == "basic":
            plain = f"{table.required('user')}:{_secret(table, 'password')}"
            return {"Authorization": f"Basic {base64.b64encode(plain.encode()).decode()}"}
        return {"Authorization": f"Bearer {_secret(table, 'token')}"} if auth == "bearer" else {}

    asked()  # what is wrong with it is said at the start
    return asked


def _secret(table: Table, key: str) -> str:
    found = table.secret(key, {}, "")
    if found is None:
        raise table.wrong(f"{key}_file", "is missing: it names the file that holds it")
    if not found.isprintable() or (key == "token" and not found.isascii()):
        raise table.wrong(f"{key}_file", "holds what cannot stand in a header")
    return found
