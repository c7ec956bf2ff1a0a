"""What the configuration says about access: `[access]`, `[[access.grant]]`.

[access]
break_glass_minutes = 60
restricted_roles = ["compliance"]      # who sees data labelled R or V without breaking the glass
after_hours = "19:00-07:00"            # for the reviewer's report, in `timezone`
timezone = "Europe/Lisbon"
[access.idle_minutes]
clinician = 15
[[access.grant]]
role = "clinician"
ehr = "ward-7"                         # whomever this EHR vouches for
[[access.grant]]
role = "compliance"
values = ["privacy-office"]            # staff with this value of the claim that [staff] names
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import time
from typing import Any
from zoneinfo import ZoneInfo

from cds_server.access.roles import Grant
from cds_server.configured import Table
from models.errors import Misconfigured
from smart_app.desk import Role

IDLE_MINUTES: Mapping[Role, int] = {
    Role.CLINICIAN: 15,
    Role.BOARD_CHAIR: 60,
    Role.DATA_SCIENTIST: 30,
    Role.COMPLIANCE: 15,
    Role.AUDITOR: 15,
}
"""A board's chair stands in front of a projector for an hour; others sit at desks that people pass."""
GLASS_MINUTES = 60
_KEYS = frozenset({"grant", "break_glass_minutes", "restricted_roles", "idle_minutes", "after_hours", "timezone"})
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class AccessSettings:
    grants: tuple[Grant, ...] = ()
    glass_minutes: int = GLASS_MINUTES
    """How long broken glass stays broken, for one viewer and one patient."""
    restricted_roles: frozenset[Role] = frozenset()
    """Who sees what is labelled R or V (v3-Confidentiality) without breaking the glass."""
    idle_minutes: Mapping[Role, int] = field(default_factory=lambda: IDLE_MINUTES)
    after_hours: tuple[time, time] = (time(19), time(7))
    timezone: str = "UTC"


def read_access(table: Any, origin: str, ehrs: Collection[str], *, open_trust: bool) -> AccessSettings:
    """`[access]`; `ehrs`: namespaces that are configured. Errors: Misconfigured.

    Without the table nobody has a role, but for `open_trust` (loopback only): then whomever an EHR of this file vouches
    for is a clinician, so that a sandbox needs no more than itself.
    """
    if table is None:
        return AccessSettings(tuple(Grant(Role.CLINICIAN, ehr) for ehr in ehrs) if open_trust else ())
    if not isinstance(table, dict):
        raise Misconfigured(f"access in {origin} is not a table: write [access]")
    access = Table(table, "[access]", origin)
    access.known_only(_KEYS)
    grants = table.get("grant", [])
    if not isinstance(grants, list) or not all(isinstance(each, dict) for each in grants):
        raise access.wrong("grant", "is not a list of tables: write [[access.grant]]")
    return AccessSettings(
        tuple(_grant(Table(each, f"[[access.grant]] number {n}", origin), ehrs) for n, each in enumerate(grants, 1)),
        glass_minutes=access.whole("break_glass_minutes", GLASS_MINUTES, 1, 1440),
        restricted_roles=frozenset(
            _role(access, "restricted_roles", each) for each in access.texts("restricted_roles")
        ),
        idle_minutes=_idle(access),
        after_hours=_hours(access),
        timezone=_zone(access),
    )


def _grant(table: Table, ehrs: Collection[str]) -> Grant:
    table.known_only(frozenset({"role", "ehr", "values", "subjects"}))
    grant = Grant(
        _role(table, "role", table.required("role")),
        table.text("ehr"),
        frozenset(table.texts("values")),
        frozenset(table.texts("subjects")),
    )
    if grant.ehr is not None and grant.ehr not in ehrs:
        raise table.wrong("ehr", "is the namespace of no [[ehr]]")
    if grant.ehr is not None and grant.values:
        raise table.wrong("values", "are of staff: an EHR gives us no claims")
    if grant.ehr is None and not (grant.values or grant.subjects):
        raise Misconfigured(f"{table.named} in {table.origin} does not say who has the role: ehr, values or subjects")
    return grant


def _role(table: Table, key: str, value: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise table.wrong(key, f"is none of {', '.join(Role)}") from None


def _idle(access: Table) -> Mapping[Role, int]:
    said = access.entries.get("idle_minutes", {})
    if not isinstance(said, dict):
        raise access.wrong("idle_minutes", "is not a table: write [access.idle_minutes]")
    table = Table(said, "[access.idle_minutes]", access.origin)
    table.known_only(frozenset(Role))
    return {role: table.whole(role, minutes, 1, 720) for role, minutes in IDLE_MINUTES.items()}


def _hours(access: Table) -> tuple[time, time]:
    text = access.text("after_hours") or "19:00-07:00"
    found = _HOURS.fullmatch(text)
    if found is None:
        raise access.wrong("after_hours", "is not HH:MM-HH:MM")
    return time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))


def _zone(access: Table) -> str:
    name = access.text("timezone") or "UTC"
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise access.wrong("timezone", "is not the name of a time zone as Europe/Lisbon") from None
    return name
