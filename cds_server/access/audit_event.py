"""What happened, as FHIR R4 AuditEvent by IHE BALP 1.1.4 (Basic Audit Log Patterns); Provenance of cards and actions.

| what | pattern |
| --- | --- |
| a page or a command about one patient | PatientRead: type rest, subtype read, action R; client 110152, server 110153 |
| a worklist, similar patients | PatientQuery: subtype search, action E; client 110153, server 110152; one a patient |
| the work queue | Query: the same without a patient |
| what a clinician did, a what-if | PatientCreate: subtype create, action C; client 110153, server 110152 |
| a result that a receiver took, an export | PrivacyDisclosure.Source: DCM 110106, disclose; the source observes |
| a hook call | no BALP pattern is an operation: rest, subtype operation, action E, with Query's agents and entities |
| broken glass | DCM 110113 Security Alert, subtype 110127 Emergency Override Started |
| sign-in, sign-out | DCM 110114 User Authentication, subtypes 110122, 110123 |

A pattern is claimed in `meta.profile` only for what succeeded: BALP says that failures are recorded otherwise; they
have outcome 4, the same agents and entities, and no profile. Network addresses of people's browsers are not recorded:
where a pattern asks for one, the EHR's host or the name of the door stands there.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from cds_server.access.happenings import ACTED, ERASED, HOOK, SENT, Happening, Whose
from cds_server.access.log import BROKEN, REFUSED
from cds_server.access.roles import Act

PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
DCM = "http://dicom.nema.org/resources/ontology/DCM"
TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
REST = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
PURPOSE = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
SOURCE_TYPE = "http://terminology.hl7.org/CodeSystem/security-source-type"
ROLE = "urn:cds-server:role"
ACT, RECORD, ENTRY, INFERENCE = (f"urn:cds-server:{name}" for name in ("act", "record", "ledger-entry", "inference"))

Resource = dict[str, Any]
PatientOf = Callable[[Whose], Mapping[str, Any]]
"""A Reference(Patient) for a record."""

_QUERIES = frozenset({Act.BOARD_WORKLIST, Act.SIMILAR})
_CREATES = frozenset({Act.ACT, Act.WHAT_IF, Act.SIGN, Act.BOARD_LEAD})
_SIGNS = {Act.SIGN_IN: ("110122", "Login"), Act.SIGN_OUT: ("110123", "Logout")}
_QUEUE = frozenset({Act.QUEUE, Act.QUEUE_HANDLE, Act.RECALL_HANDLE})


def pseudonymous(whose: Whose) -> Mapping[str, Any]:
    """A patient by our random reference alone."""
    return {"type": "Patient", "identifier": {"system": RECORD, "value": whose.ref}}


class AuditEvents:
    """`url`: our public one. `patient_of`: how a patient is named. `hosts`: of EHRs, by namespace."""

    def __init__(self, url: str, patient_of: PatientOf = pseudonymous, hosts: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._hosts = hosts or {}
        self._host = urlsplit(url).hostname or url
        self._patient_of = patient_of

    def of(self, what: Happening) -> Iterator[Resource]:
        """One event, or one for each patient (BALP, PatientQuery: one for every patient in the result)."""
        if len(what.whose) < 2:
            yield self._event(what, what.whose[0] if what.whose else None, what.ref)
        else:
            for number, whose in enumerate(what.whose, 1):
                yield self._event(what, whose, f"{what.ref}-{number}")

    def _event(self, what: Happening, whose: Whose | None, name: str) -> Resource:
        failed = REFUSED in (what.outcome, whose.outcome if whose else "")
        pattern, kind, subtype, action, forth = _shape(what, whose is not None)
        event: Resource = {
            "resourceType": "AuditEvent",
            "id": name,
            "type": kind,
            "subtype": subtype,
            "action": action,
            "recorded": what.at,
            "outcome": "4" if failed else "0",
            "purposeOfEvent": [{"coding": [_coding(PURPOSE, what.purpose)]}],
            "agent": self._agents(what, forth),
            "source": {
                "site": self._host,
                "observer": {"display": self._url},
                "type": [_coding(SOURCE_TYPE, "4", "Application Server")],
            },
            "entity": list(self._entities(what, whose)),
        }
        if pattern and not failed:
            event["meta"] = {"profile": [PROFILE + pattern]}
        if failed:
            event["outcomeDesc"] = "refused"
        elif what.reason:
            event["outcomeDesc"] = what.reason
        return event

    def _agents(self, what: Happening, forth: bool) -> list[Resource]:
        """Client and server, and who asked. `forth`: the client is the source of what the event is about (DICOM's roles
        as BALP takes them: parameters and new resources flow to the server, what is read flows from it)."""
        us = {"who": {"display": self._url}, "requestor": False, "network": _network(self._host)}
        other = what.recipient or what.ehr or what.door
        there = {
            "who": {"display": other},
            "requestor": False,
            "network": _network(self._hosts.get(other, other)),
        }
        source, destination = _coding(DCM, "110153", "Source Role ID"), _coding(DCM, "110152", "Destination Role ID")
        server, client = (destination, source) if forth else (source, destination)
        agents = [{"type": {"coding": [client]}, **there}, {"type": {"coding": [server]}, **us}]
        if what.kind == SENT:
            agents[1]["requestor"] = True
            return agents
        if not what.subject:
            agents[0]["requestor"] = True
            return agents
        code = _coding(PARTICIPATION, "AUT", "author") if action_of(what) else _coding(PARTICIPATION, "IRCP")
        user: Resource = {"type": {"coding": [code]}, "who": _who(what), "requestor": True}
        if what.name:
            user["name"] = what.name
        if what.roles:
            user["role"] = [{"coding": [_coding(ROLE, role)]} for role in what.roles]
        user["purposeOfUse"] = [{"coding": [_coding(PURPOSE, what.purpose)]}]
        return [*agents, user]

    def _entities(self, what: Happening, whose: Whose | None) -> Iterator[Resource]:
        if whose is not None:
            yield {
                "what": dict(self._patient_of(whose)),
                "type": _coding(ENTITY, "1", "Person"),
                "role": _coding(OBJECT_ROLE, "1", "Patient"),
            }
        if what.kind == HOOK or what.act in _QUERIES or what.act in _QUEUE:
            asked = f"{what.act} {what.what}".strip()
            yield {
                "type": _coding(ENTITY, "2", "System Object"),
                "role": _coding(OBJECT_ROLE, "24", "Query"),
                "description": asked,
                "query": base64.b64encode(asked.encode()).decode(),
            }
        elif what.act not in _SIGNS:
            named = (
                {"system": INFERENCE, "value": what.inference} if what.inference else {"system": ACT, "value": what.act}
            )
            report = what.kind == SENT or what.act == Act.EXPORT
            yield {
                "what": {"identifier": named, "display": f"{what.act} {what.what}".strip()},
                "type": _coding(ENTITY, "2", "System Object"),
                "role": _coding(OBJECT_ROLE, "3", "Report") if report else _coding(OBJECT_ROLE, "4", "Domain Resource"),
            }
        yield {
            "what": {"identifier": {"system": ENTRY, "value": str(what.seq)}},
            "type": _coding("urn:cds-server:entity", "ledger-entry"),
        }


def action_of(what: Happening) -> bool:
    """Whether something was made, not read."""
    return what.kind == ACTED or what.act in _CREATES


def _shape(what: Happening, patient: bool) -> tuple[str, Resource, list[Resource], str, bool]:
    """Pattern, type, subtypes, action, and whether the client is the source."""
    rest = _coding(TYPE, "rest", "Restful Operation")
    if what.outcome == BROKEN:
        started = [_coding(DCM, "110127", "Emergency Override Started")]
        return "", _coding(DCM, "110113", "Security Alert"), started, "E", True
    if what.act in _SIGNS:
        return "", _coding(DCM, "110114", "User Authentication"), [_coding(DCM, *_SIGNS[Act(what.act)])], "E", True
    if what.kind == SENT or what.act == Act.EXPORT:
        disclosed = [_coding(LIFECYCLE, "disclose", "Disclose Record Lifecycle Event")]
        return "PrivacyDisclosure.Source" if patient else "", _coding(DCM, "110106", "Export"), disclosed, "R", False
    if what.kind == HOOK:
        return "", rest, [_coding(REST, "operation", "operation")], "E", True
    if action_of(what):
        return "PatientCreate" if patient else "Create", rest, [_coding(REST, "create", "create")], "C", True
    if what.act in _QUERIES or what.act in _QUEUE:
        return "PatientQuery" if patient else "Query", rest, [_coding(REST, "search", "search")], "E", True
    return "PatientRead" if patient else "Read", rest, [_coding(REST, "read", "read")], "R", False


def _who(what: Happening) -> Resource:
    """An absolute fhirUser is a reference; all else is an identifier of whoever vouches."""
    if what.subject == ERASED:
        return {"display": ERASED}
    if what.subject.startswith(("https://", "http://")) and "/Practitioner" in what.subject:
        return {"reference": what.subject}
    return {"identifier": {"system": f"urn:cds-server:{what.ehr or what.door}", "value": what.subject}}


def _network(address: str) -> Resource:
    """FHIR network-type: 1 a name, 2 an IP address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"address": address, "type": "1"}
    return {"address": address, "type": "2"}


def _coding(system: str, code: str, display: str | None = None) -> Resource:
    coding = {"system": system, "code": code}
    return {**coding, "display": display} if display else coding


# ---- Provenance ------------------------------------------------------------------------------------------------------


def provenance_of_card(row: Mapping[str, Any], url: str) -> Resource:
    """Of a card: the inference that it shows, by which model, from which snapshot, and the entry that holds it."""
    return {
        "resourceType": "Provenance",
        "id": row["card"],
        "target": [{"identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{row['card']}"}}],
        "recorded": row["at"],
        "activity": {"coding": [_coding(LIFECYCLE, "originate", "Originate/Retain Record Lifecycle Event")]},
        "agent": [
            {
                "type": {"coding": [_coding(PARTICIPANT, "assembler")]},
                "who": {
                    "type": "Device",
                    "identifier": {"system": "urn:cds-server:model", "value": row["model"]},
                    "display": row["model"],
                },
                "onBehalfOf": {"display": url},
            }
        ],
        "entity": [
            {"role": "source", "what": {"identifier": {"system": "urn:cds-server:snapshot", "value": row["snapshot"]}}},
            {"role": "source", "what": {"identifier": {"system": INFERENCE, "value": row["inference"]}}},
            {"role": "source", "what": {"identifier": {"system": ENTRY, "value": f"{row['seq']}:{row['leaf']}"}}},
        ],
    }


def provenance_of_action(what: Happening) -> Resource:
    """Of what a clinician did."""
    target = {"system": "urn:cds-server:action", "value": what.ref}
    return {
        "resourceType": "Provenance",
        "id": what.ref,
        "target": [{"identifier": target}],
        "recorded": what.at,
        "agent": [
            {
                "type": {"coding": [_coding(PARTICIPANT, "author")]},
                "who": _who(what) if what.subject else {"display": f"somebody at {what.ehr or what.door}"},
            }
        ],
        "entity": [
            *(
                [{"role": "source", "what": {"identifier": {"system": INFERENCE, "value": what.inference}}}]
                if what.inference
                else []
            ),
            {"role": "source", "what": {"identifier": {"system": ENTRY, "value": str(what.seq)}}},
        ],
    }
