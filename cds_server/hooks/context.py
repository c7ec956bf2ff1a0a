"""What a client asks: the envelope of a hook call and the context of each hook, checked before anything else looks.

CDS Hooks 2.0.1, Calling a CDS Service; hook definitions of the CDS Hooks library (2026-04). The envelope and the
context fields that we read are checked strictly; embedded FHIR leniently (the official sandbox sends draft orders
without `intent`, bundles without `type`, FHIR servers over http). Unknown members are no error (Hook Version): they are
named in `HookRequest.unknown` for the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cds_server.hooks.published import HOOKS, ID, HookContext, broken
from models.errors import ContractBroken
from models.nouns import JSON

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HOOK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(r"[!#-\[\]-~]{8,}")
"""Characters of a token (RFC 6749, A.12) without the two that JSON escapes; shorter than eight it is no secret."""


@dataclass(frozen=True, slots=True)
class FhirAuthorization:
    """CDS Hooks 2.0.1, Passing the Access Token to the CDS Service. Transient: it is never stored, never logged."""

    access_token: str = field(repr=False)
    expires_in: int
    """Seconds."""
    scope: str
    subject: str
    """Our client id at this EHR."""
    patient: str | None = None


@dataclass(frozen=True, slots=True)
class HookRequest:
    """One call, checked: holding it means that envelope and context keep the contract of the hook."""

    hook: str
    hook_instance: str
    """UUID, lower case."""
    context: JSON
    raw: bytes = field(repr=False)
    prefetch: JSON | None = field(default=None, repr=False)
    """None: the client sent no prefetch at all."""
    fhir_server: str | None = None
    """Without a slash at its end."""
    fhir_authorization: FhirAuthorization | None = None
    unknown: tuple[str, ...] = ()
    """Members that the contract does not name, as JSON pointers. From outside: for the sealed record only."""

    @property
    def patient_id(self) -> str:
        return str(self.context["patientId"])

    @property
    def user_id(self) -> str | None:
        return self.context.get("userId")

    def without_token(self) -> bytes:
        """The body to be landed: byte for byte as it came, but the value of the access token nowhere in it.

        Errors: ContractBroken when the token stands where it cannot be taken out (inside a number).
        """
        if self.fhir_authorization is None:
            return self.raw
        return set_aside(self.raw, self.fhir_authorization.access_token)


# ---- the envelope ----------------------------------------------------------------------------------------------------

_MEMBERS = {"hook", "hookInstance", "context", "prefetch", "fhirServer", "fhirAuthorization", "extension"}


def parse(raw: bytes, body: Any, hooks: Mapping[str, HookContext] = HOOKS) -> HookRequest:
    """A HookRequest from a body and its JSON, as `wire.read_json` gives them.

    `hooks`: what the context of each hook holds that may be called. Errors: ContractBroken, naming the member and never
    its value.
    """
    if not isinstance(body, dict):
        raise ContractBroken("the body must be a JSON object")
    hook = _text(body, "hook", _HOOK, "a hook name")
    shape = hooks.get(hook)
    if shape is None:
        raise broken("hook", "is not known here")
    instance = _text(body, "hookInstance", _UUID, "a UUID")
    server = _fhir_server(body)
    authorization = _fhir_authorization(body)
    if authorization is not None and server is None:
        raise broken("fhirServer", "is required when fhirAuthorization is present")
    _object(body, "extension")
    context = _required_object(body, "context")
    shape.check(context)
    return HookRequest(
        hook=hook,
        hook_instance=instance.lower(),
        context=context,
        raw=raw,
        prefetch=_prefetch(body),
        fhir_server=server,
        fhir_authorization=authorization,
        unknown=_unknown(body, _MEMBERS) + _unknown(context, shape.names, "/context"),
    )


def _unknown(members: JSON, known: AbstractSet[str], within: str = "") -> tuple[str, ...]:
    if members.keys() <= known:
        return ()
    return tuple(f"{within}/{name}" for name in members if name not in known)


def _text(members: JSON, name: str, form: re.Pattern[str], kind: str, within: str = "") -> str:
    value = members.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise broken(within + name, f"is required, and is {kind}")
    return value


def _object(members: JSON, name: str, within: str = "") -> dict[str, Any] | None:
    """An OPTIONAL object: absent, never null (CDS Hooks 2.0.1, Use of JSON)."""
    if name not in members:
        return None
    value = members[name]
    if not isinstance(value, dict):
        raise broken(within + name, "must be a JSON object")
    return value


def _required_object(members: JSON, name: str, within: str = "") -> dict[str, Any]:
    value = _object(members, name, within)
    if not value:
        raise broken(within + name, "is required, and is a JSON object with members")
    return value


def _fhir_server(body: JSON) -> str | None:
    if "fhirServer" not in body:
        return None
    url = body["fhirServer"]
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
        raise broken("fhirServer", "must be an absolute http(s) URL")
    if parts.query or parts.fragment or not str(url).isascii() or re.search(r"[\s<>\"\\]", url):
        raise broken("fhirServer", "must be a FHIR base URL, without query or fragment")
    return str(url).rstrip("/")


def _fhir_authorization(body: JSON) -> FhirAuthorization | None:
    granted = _object(body, "fhirAuthorization")
    if granted is None:
        return None
    within = "fhirAuthorization."
    token = _text(granted, "access_token", _TOKEN, "an opaque token of 8 characters or more", within)
    if granted.get("token_type") != "Bearer":
        raise broken(within + "token_type", 'is required, and is "Bearer"')
    expires = granted.get("expires_in")
    if type(expires) is not int or expires < 0:
        raise broken(within + "expires_in", "is required, and is a whole number of seconds")
    filled = re.compile(r"[^\x00-\x1f]+")
    return FhirAuthorization(
        access_token=token,
        expires_in=expires,
        scope=_text(granted, "scope", filled, "a list of scopes", within),
        subject=_text(granted, "subject", filled, "a client id", within),
        patient=_text(granted, "patient", ID, "a FHIR id", within) if "patient" in granted else None,
    )


def _prefetch(body: JSON) -> JSON | None:
    prefetch = _object(body, "prefetch")
    for value in (prefetch or {}).values():
        if value is not None and not (isinstance(value, dict) and isinstance(value.get("resourceType"), str)):
            raise broken("prefetch", "has a member that is neither a FHIR resource nor null")
    return prefetch


# ---- the token -------------------------------------------------------------------------------------------------------

_MARK = b"[set aside]"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def set_aside(raw: bytes, token: str) -> bytes:
    """A JSON body with every occurrence of `token` inside its strings replaced, however escaped; all else unchanged.

    The token is visible ASCII without quote and backslash, so JSON can spell it otherwise only by `\\u00xx` and `\\/`.
    """
    needle = token.encode()
    if raw.count(needle) == 1 and b"\\u00" not in raw and b"\\/" not in raw and f'"{token}"'.encode() in raw:
        cleaned = raw.replace(needle, _MARK)
    else:
        cleaned = _STRING.sub(lambda literal: _without(literal.group(), token, needle), raw)
    if needle in cleaned:
        raise broken("fhirAuthorization.access_token", "stands elsewhere in the body than in a text")
    return cleaned


def _without(literal: bytes, token: str, needle: bytes) -> bytes:
    if b"\\" not in literal:
        return literal.replace(needle, _MARK)
    text = json.loads(literal, strict=False)
    return json.dumps(text.replace(token, _MARK.decode())).encode() if token in text else literal
