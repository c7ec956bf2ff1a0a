"""Who may look at metrics and ledger: somebody on this machine, who holds the token, or staff who signed in."""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from cds_server.configured import loopback
from cds_server.settings import Settings
from cds_server.staff_sessions import StaffSessions
from models.errors import Unauthenticated

_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""A proxy on this very machine speaks for others: what it hands on does not come from here."""


class Operators:
    def __init__(self, settings: Settings, staff: StaffSessions | None) -> None:
        self._token = _digest(settings.ops_token) if settings.ops_token else None
        self._staff = staff

    def check(self, request: Request) -> None:
        """Errors: Unauthenticated, alike for every cause."""
        if from_here(request) or self._holds_token(request):
            return
        person = self._staff.person(request) if self._staff is not None else None
        if person is not None and self._staff is not None and self._staff.operates(person):
            return
        raise Unauthenticated(cause="neither loopback nor token nor staff")

    def _holds_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(_digest(given.strip()), self._token)


def from_here(request: Request) -> bool:
    """Whether it comes from this machine, and speaks for nobody else."""
    if request.client is None or not loopback(request.client.host):
        return False
    named = request.headers.get("host", "localhost")
    host = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0]
    return loopback(host) and not any(header in request.headers for header in _FORWARDED)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
