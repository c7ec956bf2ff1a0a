"""MessageHeader and Provenance: who sent what, when, and what came of it."""

from __future__ import annotations

import hashlib

from adapters.hl7v2.local_ids import local_id
from adapters.hl7v2.mapped import apply
from adapters.hl7v2.oddities import codes_of
from adapters.hl7v2.reading import Reading, Resource

_UNKNOWN = {
    "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
}


def read_envelope(reading: Reading, body: bytes) -> None:
    """Last of all: both refer to what the message stated.

    Id: sending application and facility with MSH-10 and MSH-7, as numbers are used again; without a number the bytes.
    """
    msh = reading.message["MSH"]
    number = msh.text(10).strip()
    named = [msh.text(at).strip() for at in (3, 4)]
    made = local_id("msh", *named, number, msh.text(7).strip()) if number else hashlib.sha256(body).hexdigest()[:40]
    targets = list(reading.targets)
    header: Resource = {"resourceType": "MessageHeader", "id": made, "source": {}}
    apply("MSH[MessageHeader]", msh, header, reading)
    header["source"].setdefault("endpoint", reading.feed.local("MSH-3"))
    if targets:
        header["focus"] = targets
    reading.state(header, msh.pointer, notes=tuple(dict.fromkeys((*codes_of(reading.message), *reading.odd))))
    if not targets:
        return
    provenance: Resource = {"resourceType": "Provenance", "id": made, "target": targets}
    apply("MSH[Provenance]", msh, provenance, reading)
    if (evn := reading.message.find("EVN")) is not None:
        apply("EVN[Provenance]", evn, provenance, reading)
    if "recorded" not in provenance:
        provenance["_recorded"] = _UNKNOWN
    else:
        provenance.pop("_recorded", None)
    if not provenance.get("agent"):
        provenance["agent"] = [{"who": {"display": "not stated"}}]
    reference = {"reference": f"MessageHeader/{made}"}
    provenance["entity"] = [{"role": "source", "what": reference}]
    reading.state(provenance, msh.pointer)
