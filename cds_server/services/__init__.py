"""CDS services: one file each, found by its NAME; each declares SERVICES, a tuple of `hooks.service.ServiceSpec`."""

from __future__ import annotations

import sys

from cds_server.hooks.service import ServiceSpec
from models.plugins import discover


def all_services() -> tuple[ServiceSpec, ...]:
    """Every service of every file, in the order of the files. Errors: ValueError when two have one id for one hook."""
    found: dict[tuple[str, str], ServiceSpec] = {}
    for module in discover(sys.modules[__name__], "NAME").values():
        for spec in module.SERVICES:
            if (spec.id, spec.hook) in found:
                raise ValueError(f"two services are called {spec.id} on {spec.hook}")
            found[spec.id, spec.hook] = spec
    return tuple(found.values())
