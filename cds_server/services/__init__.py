"""CDS services: one file each, found by its NAME; each declares SERVICES, a tuple of `hooks.service.ServiceSpec`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from cds_server.hooks.service import ServiceSpec
from models.errors import Misconfigured
from models.plugins import discover

CONFORMANCE = "conformance"
"""NAME of the file whose services are for sandboxes and tests: what they say is about no patient."""


def all_services(*, conformance: bool = False, package: ModuleType | None = None) -> tuple[ServiceSpec, ...]:
    """Every service of every file, in the order of the files; the ones of `conformance` only where asked for.

    Errors: Misconfigured, one sentence, where a service declares what no client may be told (an illegal prefetch
    template, a hook nobody published), or two have one id for one hook.
    """
    found: dict[tuple[str, str], ServiceSpec] = {}
    for module in _modules(package or sys.modules[__name__]):
        if module.NAME == CONFORMANCE and not conformance:
            continue
        for spec in module.SERVICES:
            if (spec.id, spec.hook) in found:
                raise Misconfigured(f"two services are called {spec.id} on {spec.hook}")
            found[spec.id, spec.hook] = spec
    return tuple(found.values())


def _modules(package: ModuleType) -> Iterable[Any]:
    try:
        return discover(package, "NAME").values()
    except ValueError as error:  # a declaration that is wrong is never born: `hooks.service.ServiceSpec`
        raise Misconfigured(str(error)) from None
