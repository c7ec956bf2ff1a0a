"""What an `[[ehr]]` says about the SMART app: whether it launches it, as whom, from where, framed by whom."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cds_server.configured import Table, reachable
from cds_server.vendor_door import HostRules
from models.errors import Misconfigured
from smart_app.registered import IDLE, LONGEST, Method, Registered, normal

APP_KEYS = frozenset(
    {"app", "title", "app_client_id", "app_auth", "app_keys", "app_scopes", "app_audience", "app_issuer", "app_post"}
    | {"app_offline", "app_idle", "app_longest", "client_secret_file", "authorization_hosts", "private_network"}
    | {"frame_ancestors", "style_hosts", "image_viewer"}
)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, 3.3."""
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")
_KEYS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PLACES = re.compile(r"\{(study|series|accession|patient)\}")
_DAY = 86_400


def read_app(table: Table, namespace: str, base: str | None, environ: Mapping[str, str]) -> Registered | None:
    """The app of one `[[ehr]]`; None where it is off. Raises: Misconfigured."""
    if not table.flag("app"):
        for key in ("app_client_id", "client_secret_file", "app_scopes"):
            if key in table.entries:
                raise table.wrong(key, "stands without app = true")
        return None
    if base is None or normal(base) is None or not reachable(base):
        raise table.wrong("app", "needs a fhir_base: an https URL (http only on loopback) without query and fragment")
    client_id = table.text("app_client_id") or table.text("client_id")
    if client_id is None:
        raise table.wrong("app", "needs a client_id, or an app_client_id")
    secret = table.secret("client_secret", environ, f"CDS_EHR_{variable(namespace)}_CLIENT_SECRET")
    app = Registered(
        namespace=namespace,
        title=table.text("title") or namespace,
        base=base,
        client_id=client_id,
        method=_method(table, secret),
        secret=secret,
        keys=_keys(table),
        scopes=_scopes(table),
        hosts=table.texts("authorization_hosts"),
        private_network=table.flag("private_network"),
        audience=table.text("app_audience"),
        issuer=table.text("app_issuer"),
        ancestors=_ancestors(table),
        style_hosts=table.texts("style_hosts"),
        image_viewer=_viewer(table),
        idle=table.seconds("app_idle", IDLE, 60, _DAY),
        longest=table.seconds("app_longest", LONGEST, 60, _DAY),
        post=table.flag("app_post"),
        offline=table.flag("app_offline"),
    )
    for key, hosts in (("authorization_hosts", app.hosts), ("style_hosts", app.style_hosts)):
        try:
            HostRules(base, hosts=hosts, private_network=app.private_network)
        except Misconfigured as error:
            raise table.wrong(key, f"or fhir_base cannot be asked: {error.what}") from None
    return app


def variable(namespace: str) -> str:
    """A namespace as part of a variable's name: `st-mary.ehr` is `ST_MARY_EHR`."""
    return re.sub(r"[^A-Z0-9]", "_", namespace.upper())


def _method(table: Table, secret: str | None) -> Method:
    told = table.text("app_auth")
    if told is not None and told not in list(Method):
        raise table.wrong("app_auth", f"is none of {', '.join(Method)}")
    method = Method(told) if told is not None else Method.SYMMETRIC if secret is not None else Method.ASYMMETRIC
    if method is Method.SYMMETRIC and secret is None:
        raise table.wrong("app_auth", "is symmetric, and there is no client_secret_file")
    if method is not Method.SYMMETRIC and secret is not None:
        raise table.wrong("app_auth", f"is {method.value}, and there is a client secret")
    return method


def _keys(table: Table) -> str | None:
    name = table.text("app_keys")
    if name is not None and not _KEYS.fullmatch(name):
        raise table.wrong("app_keys", "is no name that keys can have (letters, digits, '_' and '-')")
    return name


def _scopes(table: Table) -> tuple[str, ...]:
    scopes = table.texts("app_scopes")
    if not all(map(_SCOPE.fullmatch, scopes)):
        raise table.wrong("app_scopes", "has one that is no scope: they are listed one by one")
    return scopes


def _ancestors(table: Table) -> tuple[str, ...]:
    """Origins, each by name: a wildcard would let anybody's page below that domain frame a patient's."""
    for each in table.texts("frame_ancestors"):
        if not _ORIGIN.fullmatch(each) or not reachable(each) or each.count("/") != 2:
            raise table.wrong("frame_ancestors", "has one that is not an origin: https://host[:port], in lower case")
    return table.texts("frame_ancestors")


def _viewer(table: Table) -> str | None:
    """A template with its places; what is left without them must be a URL that a page may lead to."""
    template = table.text("image_viewer")
    if template is None:
        return None
    bare = _PLACES.sub("0", template)
    if not reachable(bare) or "{" in bare or "}" in bare or _PLACES.search(template.partition("?")[0].split("/")[2]):
        raise table.wrong(
            "image_viewer", "is not an https URL (http only on loopback) with {study}, {series}, {accession}, {patient}"
        )
    return template
