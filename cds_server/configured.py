"""What one table of the configuration file says, key by key, or one sentence that names the key and the file."""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from models.errors import Misconfigured

_MAX_SECRET = 8192
SEALED = "cds-sealed:"
"""How a file begins whose secret is sealed under the master key."""
_SPAN = re.compile(r"([1-9][0-9]{0,4})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table, its name for people (`[[ehr]] number 1`), and the file that it stands in."""

    entries: Mapping[str, Any]
    named: str
    origin: str

    def wrong(self, key: str, problem: str) -> Misconfigured:
        return Misconfigured(f"{key} of {self.named} in {self.origin} {problem}")

    def known_only(self, known: frozenset[str]) -> None:
        if unknown := sorted(set(self.entries) - known):
            raise Misconfigured(f"unknown key {unknown[0]!r} of {self.named} in {self.origin}")

    def text(self, key: str) -> str | None:
        value = self.entries.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "is not text")
        return value or None

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise Misconfigured(f"{self.named} in {self.origin} has no {key}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.entries.get(key, [])
        if not isinstance(value, list) or not all(isinstance(member, str) and member for member in value):
            raise self.wrong(key, "is not a list of texts")
        return tuple(value)

    def flag(self, key: str) -> bool:
        value = self.entries.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def seconds(self, key: str, default: int, low: int, high: int) -> int:
        value = self.entries.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"is not a whole number of seconds between {low} and {high}")
        return value

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.entries.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"is not a whole number between {low} and {high}")
        return value

    def span(self, key: str) -> timedelta | None:
        """`30m`, `1h`, `7d`."""
        text = self.text(key)
        if text is None:
            return None
        found = _SPAN.fullmatch(text)
        if found is None:
            raise self.wrong(key, "is not a span of time as 30m, 12h or 7d")
        return timedelta(**{_UNITS[found[2]]: int(found[1])})

    def urls(self, key: str) -> tuple[str, ...]:
        return tuple(self._url(key, url) for url in self.texts(key))

    def url(self, key: str) -> str | None:
        value = self.text(key)
        return None if value is None else self._url(key, value)

    def _url(self, key: str, url: str) -> str:
        if not reachable(url):
            raise self.wrong(key, "is not an https URL (http only on loopback)")
        return url

    def secret(self, key: str, environ: Mapping[str, str], variable: str) -> str | None:
        """From the environment variable, else from the file that `{key}_file` names; never from the table itself."""
        given = environ.get(variable)
        if given is not None:
            if not given.strip():
                raise Misconfigured(f"{variable} in the environment is empty")
            return given.strip()
        path = self.text(f"{key}_file")
        return None if path is None else _secret_of(Path(path), self.wrong(f"{key}_file", "names a file that"))


def _secret_of(path: Path, complaint: Misconfigured) -> str:
    try:
        if os.stat(path).st_mode & 0o007:
            raise Misconfigured(f"{complaint.what} everybody may read: chmod 600")
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"{complaint.what} cannot be read") from None
    if text.startswith(SEALED):
        text = _unsealed(text.removeprefix(SEALED), complaint)
    if not 0 < len(text) <= _MAX_SECRET:
        raise Misconfigured(f"{complaint.what} is empty, or too long for a secret")
    return text


class Unsealing(Protocol):
    """What opens secrets that are sealed in their files: the master key (`master_key`)."""

    def unwrap(self, wrapped: bytes) -> bytes: ...


_master: list[Unsealing] = []
"""Of this process, as the configuration that it read last says: some tables are read by whoever needs them."""


def unseal_by(master: Unsealing | None) -> None:
    """Sealed secrets are opened by this master key from here on."""
    _master[:] = [] if master is None else [master]


def _unsealed(text: str, complaint: Misconfigured) -> str:
    if not _master:
        raise Misconfigured(f"{complaint.what} is sealed under a master key, and no [master_key] is configured")
    try:
        return _master[0].unwrap(base64.b64decode(text, validate=True)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise Misconfigured(f"{complaint.what} is not sealed as `cds keys master seal-file` does it") from None


def reachable(url: str) -> bool:
    """Whether we would send a request there: https, or http on this very machine; no user, no fragment."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not url.isascii() or any(c.isspace() for c in url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and loopback(host))


@functools.lru_cache(maxsize=256)
def loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
