"""What `cds doctor` says about the app: of each EHR that launches it, whether a launch could succeed."""

from __future__ import annotations

from cds_server.http import authorities, fetch_now
from cds_server.keys import KeySigner
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.vendor_door import HostRules
from models import strict
from models.errors import CdsError
from smart_app.discovery import MAX_BYTES, PATH, endpoints
from smart_app.registered import Method, Registered

SECONDS = 3.0
Check = tuple[str, str, str]
"""What was looked at; `ok`, `LOOK` or `FAILS`; what to know or to do."""


def apps(settings: Settings, store: Store) -> list[Check]:
    """One line an EHR."""
    return [
        (f"app of {ehr.namespace}", *_state(settings, store, ehr.app)) for ehr in settings.ehrs if ehr.app is not None
    ]


def _state(settings: Settings, store: Store, app: Registered) -> tuple[str, str]:
    if app.method is Method.ASYMMETRIC and not KeySigner(store, app.keys).algorithms():
        meant = f" --for {app.keys}" if app.keys else ""
        return "FAILS", f"there is no key to sign with: cds keys new{meant}"
    if not any(grant.ehr == app.namespace for grant in settings.access.grants):
        return "LOOK", "nobody whom it vouches for has a role: [[access.grant]]"
    rules = HostRules(app.base, hosts=app.hosts, private_network=app.private_network)
    try:
        raw, _ = fetch_now(app.base + PATH, seconds=SECONDS, limit=MAX_BYTES, verify=authorities(settings.ca_file))
        found = endpoints(strict.loads(raw, what="its SMART configuration"), app.base, rules.refuses)
    except CdsError as error:
        return "FAILS", f"its SMART configuration: {error.what}"
    if found.issuer is None and app.issuer is None:
        return "FAILS", "it names no issuer of ID tokens: app_issuer"
    return ("LOOK", "; ".join(found.odd)) if found.odd else ("ok", f"{app.method.value} client")
