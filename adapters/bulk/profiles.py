"""What servers in the field do otherwise than the standard lets one hope: data, one named switch each.

The flow asks a switch, never a vendor's name. Each value that is not the generic one says in `sources` where it is
known from, so that it can be looked at again; an operator overrides single switches in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args, get_type_hints

from models.errors import Misconfigured

_NOT_SWITCHES = ("name", "sources")


@dataclass(frozen=True, slots=True)
class EhrProfile:
    """The switches; their defaults are the generic server, which keeps to Bulk Data Access STU2 or later."""

    name: str
    kick_off: Literal["stated", "get", "post"] = "stated"
    """How an export is asked for; `stated`: as the CapabilityStatement lets one conclude."""
    repeat_types: bool = False
    """One `_type` per type, before STU4. A comma list is what STU1 knew, and what every server reads."""
    repeat_filters: bool = True
    """One `_typeFilter` per filter, before STU4; otherwise they are joined by commas."""
    filter_commas: Literal["raw", "%2C"] = "%2C"
    """A comma inside a `_typeFilter`. STU2 also separates filters by it, so a server may cut a filter in two; a filter
    is a search query itself (STU3, _typeFilter), where %2C reads the same."""
    scopes: Literal["stated", "v1", "v2"] = "stated"
    """Syntax of the scopes that are asked for; `stated`: by the server's SMART capabilities."""
    reauthorize_on_400: bool = False
    """A 400 without an OperationOutcome may mean that the token ran out: ask once more with a new one."""
    sends_joiner_history: bool = False
    """With `_since`, the server adds the older data of who joined the group (a MAY in STU2 and later)."""
    patient_parameter: bool = True
    """POST with `patient` works."""
    since_overlap: int = 300
    """Seconds that the next `_since` reaches back before the cursor: transactions that were still open at the server's
    transactionTime (STU3, Output Manifest: a server might need to wait for them) come with the next export."""
    transaction_time_is_end: bool = False
    """transactionTime is when the job ended: what changed meanwhile would be lost with it as the next `_since`."""
    max_group: int | None = None
    """Patients in one group that the vendor advises not to exceed. Advice only."""
    files_in_parallel: int = 3
    assertion_audience: Literal["token_url", "issuer"] = "token_url"
    """`aud` of the client assertion. SMART says the token URL; FAPI 2.0 servers want the issuer."""
    handling_lenient: bool = False
    """Send `Prefer: handling=lenient`: parameters that the server can't honour are then ignored, not refused."""
    elements: bool = True
    type_filter: bool = True
    until: bool = True
    """Whether `_elements`, `_typeFilter` and `_until` do what they should."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Switch -> where its value is known from."""


_SMART_FETCH = "smart-fetch 1.0.3, smart_fetch/bulk_utils.py, tried at Epic and at Oracle"
_MEDPLUM = "medplum/medplum, packages/server/src/fhir/operations"
_MILLENNIUM = "docs.oracle.com, Millennium Platform, Bulk Data Access"

PROFILES: Mapping[str, EhrProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            EhrProfile("generic"),
            EhrProfile(
                "epic",
                kick_off="get",
                reauthorize_on_400=True,
                patient_parameter=False,
                elements=False,
                sources={
                    "kick_off": f"{_SMART_FETCH}: asks by GET only",
                    "reauthorize_on_400": "smart-fetch 1.0.3: after a token ran out, Epic answers a bare 400",
                    "patient_parameter": "nobody is known to have it working; a full export of the group stands in",
                    "elements": "nobody is known to have it working; whole Patients are asked for instead",
                },
            ),
            EhrProfile(
                "oracle",
                kick_off="get",
                repeat_filters=False,
                patient_parameter=False,
                max_group=1000,
                files_in_parallel=2,
                elements=False,
                until=False,
                sources={
                    "kick_off": f"{_MILLENNIUM}: the kick-off is a GET only",
                    "repeat_filters": f"{_SMART_FETCH}: a repeated parameter isn't read as a list",
                    "patient_parameter": f"{_MILLENNIUM}, group export: not supported",
                    "max_group": "cerner/fhir.cerner.com#899: about a thousand patients or fewer",
                    "files_in_parallel": "smart-on-fhir/bulk-data-client#18: more than 20,000 tiny files, then 429",
                    "elements": f"{_MILLENNIUM}, group export: not supported",
                    "until": f"{_MILLENNIUM}: keeps to 1.0.1 of the guide, which doesn't have it",
                },
            ),
            EhrProfile(
                "hapi",
                transaction_time_is_end=True,
                sources={
                    "transaction_time_is_end": "hapifhir/hapi-fhir#6841: so before April 2025; which one it is, "
                    "nobody can tell from outside",
                },
            ),
            EhrProfile(
                "medplum",
                kick_off="get",
                patient_parameter=False,
                transaction_time_is_end=True,
                elements=False,
                type_filter=False,
                until=False,
                sources={
                    "kick_off": f"{_MEDPLUM}/export.ts: reads the query only, a body is ignored",
                    "patient_parameter": f"{_MEDPLUM}/export.ts: not read",
                    "transaction_time_is_end": f"{_MEDPLUM}/utils/bulkexporter.ts: set when the exporter closes",
                    "elements": f"{_MEDPLUM}/export.ts: not read",
                    "type_filter": f"{_MEDPLUM}/export.ts: not read",
                    "until": f"{_MEDPLUM}/export.ts: not read",
                },
            ),
        )
    }
)


def switches() -> tuple[str, ...]:
    """The names of all switches, in their order."""
    return tuple(each.name for each in fields(EhrProfile) if each.name not in _NOT_SWITCHES)


def overridden(profile: EhrProfile, table: Mapping[str, Any]) -> EhrProfile:
    """The profile with an operator's own values, from the configuration.

    Errors: Misconfigured (no such switch, a value of another type or out of range), with the switch's name.
    """
    hints = get_type_hints(EhrProfile)
    for switch, value in table.items():
        if switch not in switches():
            raise Misconfigured(f"there is no such switch of a bulk server: {switch}")
        _check(switch, value, hints[switch])
    own = dict.fromkeys(table, "the configuration")
    return replace(profile, **table, sources={**profile.sources, **own})


def _check(switch: str, value: Any, kind: Any) -> None:
    words = get_args(kind)
    if kind is bool:
        fits, wanted = isinstance(value, bool), "true or false"
    elif kind is int or int in words:
        least = 0 if switch == "since_overlap" else 1
        fits, wanted = type(value) is int and value >= least, f"a whole number of at least {least}"
    else:
        fits, wanted = value in words, "one of " + ", ".join(words)
    if not fits:
        raise Misconfigured(f"the switch {switch} of a bulk server is {wanted}")
