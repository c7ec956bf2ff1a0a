"""A result as FHIR for one server: a transaction that puts its resources under ids of the first result of its chain.

A correction puts other content under the same ids; what it no longer says (a risk, where the model now abstains) is
put as entered in error, and so is all of a result that is withdrawn. The patient is named by the id of the one record
that the destination's own namespace has; what rests on other systems' resources is named by identifier.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from adapters.fhir_out.assessment import Resource, resources
from adapters.hl7v2.composed import Status
from cds_server.destinations import Destination
from cds_server.guidance import Guidance
from cds_server.outgoing import Composed, Held
from cds_server.reproduce import Recorded
from cds_server.store.reads import RecordRow
from models.canonical import canonical

ERROR = "entered-in-error"
_STATUS = {Status.FINAL: None, Status.CORRECTED: "corrected", Status.WITHDRAWN: ERROR}


def guidance_of(
    guidance: Guidance,
    destination: Destination,
    recorded: Recorded,
    person: Sequence[RecordRow],
    own: int,
    number: str | None,
    status: Status,
    earlier: Sequence[bytes],
) -> Composed | Held:
    """The Bundle. `number`: the id of the first result; `earlier`: what was sent of the chain before."""
    there = [record for record in person if record.namespace == destination.namespace]
    mine = [record for record in there if record.id == own]
    if not there:
        return Held(f"the patient is not known in the namespace {destination.namespace}", own)
    if len(there) > 1 and not mine:
        return Held(f"the patient has several records in the namespace {destination.namespace}", own)
    record = (mine or there)[0]
    found = resources(guidance.assessed(recorded, record, named=number or recorded.ref, status=_STATUS[status]))
    said = {_url(each) for each in found}
    gone = [each for each in _before(earlier) if _url(each) not in said and each["resourceType"] != "Provenance"]
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": each, "request": {"method": "PUT", "url": _url(each)}}
            for each in (*found, *({**each, "status": ERROR} for each in gone))
        ],
    }
    return Composed(canonical(bundle), record.ref)


def _before(earlier: Sequence[bytes]) -> list[Resource]:
    return [entry["resource"] for entry in json.loads(earlier[-1])["entry"]] if earlier else []


def _url(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"
