"""The sandbox beside something real would be a hole: anybody may be anybody here. It refuses to stand there."""

from __future__ import annotations

from urllib.parse import urlsplit

from cds_server.configured import loopback
from cds_server.settings import Settings
from models.errors import NotAllowed


def check_loopback(url: str, named: str) -> None:
    """Errors: NotAllowed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not loopback(parts.hostname or ""):
        raise NotAllowed("the sandbox only talks to a CDS server on this machine", where=named)


def check_configuration(settings: Settings) -> None:
    """The configuration that this process stands in (its environment, its cds.toml) is one for trying out.

    Errors: NotAllowed, which names the first thing that looks real.
    """
    real = [ehr.namespace for ehr in settings.ehrs if not ehr.test]
    if real:
        raise NotAllowed("an EHR that is not marked `test` is configured here", where=f"[[ehr]] in {settings.origin}")
    if not loopback(urlsplit(settings.public_url).hostname or ""):
        raise NotAllowed("public_url is not on this machine", where=settings.origin)
    if not loopback(settings.host):
        raise NotAllowed("the server is bound to more than this machine", where=f"host in {settings.origin}")
    if settings.sources or settings.destinations:
        what = "source" if settings.sources else "destination"
        raise NotAllowed("data come from or go to other systems here", where=f"[[{what}]] in {settings.origin}")
