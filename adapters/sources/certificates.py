"""TLS of a listener: who we are, whose clients we believe, and certificates that are renewed below it (F8)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Tls:
    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    """Given: a client shows a certificate of these authorities (mutual TLS, IHE ATNA)."""
    subjects: frozenset[str] = frozenset()
    """Names (subject alternative names, or the common name) that a client's certificate may carry; none: any."""


class Secured:
    """Certificates that are read anew when their files change; connections that are open keep theirs (F8)."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._current = self._made()
        self._seen = self._stamps()
        self.context = self._current
        self.context.sni_callback = self._swap

    def renew(self) -> None:
        """Keep what is there where the new files cannot be used: a half-written pair must not end the feed."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._current = self._made()
        except Misconfigured:
            return

    def _swap(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _stamps(self) -> tuple[int, ...]:
        paths = (self._tls.cert_file, self._tls.key_file, self._tls.client_ca_file)
        return tuple(_changed(path) if path is not None else 0 for path in paths)

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.num_tickets = 0  # a session that is taken up again shows no certificate: it would outlive its authority
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_cert_chain(self._tls.cert_file, self._tls.key_file)
            if self._tls.client_ca_file is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._tls.client_ca_file)
        except (ssl.SSLError, OSError):
            raise Misconfigured("the certificate, its key or the authorities of clients cannot be used") from None
        return context


def names_of(shown: Mapping[str, Any]) -> set[str]:
    """Names that a client's certificate carries, as `ssl` gives it: alternative names, and the common name."""
    names = {value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "URI", "IP Address")}
    for part in shown.get("subject", ()):
        names.update(value for kind, value in part if kind == "commonName")
    return names


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
