"""Which EHR is calling. Today: anybody, on loopback, where the configuration says so; nobody otherwise."""

from __future__ import annotations

from starlette.requests import Request

from cds_server.hooks.routes import Caller
from cds_server.settings import Settings, loopback
from models.errors import Unauthenticated

SANDBOX = "sandbox"
"""Namespace of callers that nobody configured."""


class Trust:
    """Tells who calls. Checked again at the door: an open server that is reached from elsewhere lets nobody in."""

    def __init__(self, settings: Settings) -> None:
        self._open = settings.trust == "open"
        ehr = settings.ehrs[0] if len(settings.ehrs) == 1 else None
        self._caller = Caller(namespace=ehr.namespace if ehr else SANDBOX, ehr=ehr.namespace if ehr else None)

    def admit(self, request: Request) -> Caller:
        """The caller. Raises Unauthenticated, alike for every cause."""
        if not self._open or request.client is None or not loopback(request.client.host):
            raise Unauthenticated("authentication is required")
        return self._caller
