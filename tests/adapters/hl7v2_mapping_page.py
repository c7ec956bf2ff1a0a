"""Writes docs/hl7v2-mapping.md of the mapping's data and of what the samples give.

`python -m tests.adapters.hl7v2_mapping_page`
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from adapters.hl7v2.events import EVENTS
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.vocabulary import load
from adapters.readers import hl7v2
from models.errors import BadInput
from tests.adapters.hl7v2_samples import part, samples

PAGE = Path(__file__).parents[2] / "docs" / "hl7v2-mapping.md"
FEED = Feed(namespace="samples", zone="Europe/Berlin", accept_claims=True)

_HEAD = """# HL7 v2 to FHIR: the mapping

Made by `python -m tests.adapters.hl7v2_mapping_page` from `adapters/hl7v2/mapping` and from what the samples in
`../shared/data/hl7` give; a test compares. Do not edit.

The rows follow the maps of the [HL7 v2-to-FHIR guide](https://github.com/HL7/v2-to-fhir) (October 2025), which are
named; where it has none, or leaves the choice open, a row is our own and says why. What no row can say is a function,
described where it stands: values by type (`observed.py`), groups of segments and ids (`results.py`, `visits.py`,
`people.py`, `documents.py`, `vaccines.py`, `scheduling.py`), identifiers and names (`parties.py`), codes and times
(`values.py`).

## Ids

The same thing has the same id in every message, so that a correction replaces what it corrects: `authority-value` where
that is a legal FHIR id, else 40 hex digits of SHA-256.

| resource | named by | without it (own rules) |
|---|---|---|
| Patient | PID-3 with its assigner: first of the feed's `patient_types`, else the first | PID-2, PID-4; else refused |
| Encounter | PV1-19, PV1-50, with assigner | PID-18; patient and PV1-44; in ADT the patient's visit; else none |
| ServiceRequest | ORC-2 or OBR-2, else ORC-3 or OBR-3 | IPC-1, SPM-30, OBR-18; ORC-4 with OBR-4; else none |
| Specimen | SPM-2: the filler's, else the placer's | order and SPM-1; for OBR-15 the order |
| Observation | filler's, else placer's number, OBX-3, OBX-4, OBX-21 | patient, OBR-4, OBR-7; no OBR: visit, OBX-14 |
| DiagnosticReport | filler's (else placer's) order number, OBR-4 | as Observation |
| DocumentReference | TXA-12 | patient, TXA-2, TXA-6 |
| Immunization | ORC-3 (else ORC-2), RXA-5 | patient, RXA-5, RXA-3 |
| Appointment | SCH-1, else SCH-2 | patient and start |
| Condition, Procedure | DG1-20, PR1-19 | patient, visit, code; PR1-5 |
| AllergyIntolerance | IAM-7 | patient and substance |
| RelatedPerson | NK1-33 | patient, name, relationship |
| Coverage | | patient, IN1-2, IN1-3, IN1-36, IN1-49 |
| MessageHeader, Provenance | MSH-3, MSH-4, MSH-10, MSH-7 | the bytes |

Numbers of specimens, diagnoses, procedures and allergies that name no assigner count as the patient's own. The same
result key again in one message is counted: it covers up nothing.

## Marks

| in `meta` | means |
|---|---|
| `lastUpdated` | MSH-7, if its offset is known: a message that was sent later outranks one that was sent earlier |
| tag HTEST (v3-ActReason) | MSH-11 is T or D: never a production fact |
| tag SUBSETTED (v3-ObservationValue) | only mentioned (PID, PV1, an order in a result): a whole version outranks it |
| tag W (v2-0085) | OBX-11 W: posted to the wrong patient, to be withdrawn at once (with status entered-in-error) |
| tag HPAYMT (v3-ActReason) | said for payment (DFT, BAR) |

## Limits

- A message is its sender's whole word on what it states: what a later one leaves empty is known no more, as `""`.
- What a later message no longer lists (an allergy, a diagnosis) stays until an action code deletes it.
- Practitioners, organizations, places and accounts are named in references, not kept as records.
- Orders of medicines, diets and supplies (RXO, RXE, ODS, RQD behind ORC) make no resource; nor do race and ethnic
  group, GT1, IN2, ACC, ROL, PRT, SFT, TQ1 beyond its times, or Z-segments
  but ZDS.
- Several numbers in one OBX-5, and numbers that are none (`<5`, `1,2`, `5%`), are text with their unit.
- A44 and the other events of accounts state the patient again, nothing more. Sub-ids are kept, not turned into groups.
"""


def page(peer_data: Path) -> str:
    rows = [
        _HEAD,
        "## Events",
        "",
        "| event | what | encounter or appointment | links | follows |",
        "|---|---|---|---|---|",
    ]
    for (kind, trigger), event in sorted(EVENTS.items()):
        status = event.status or (f"{event.otherwise} unless SCH-25 says" if event.otherwise else "")
        follows = f"IG {event.ig}" if event.ig else f"own: {event.own}"
        rows.append(f"| {kind}^{trigger} | {event.what} | {status} | {event.links or event.relates} | {follows} |")
    rows += [
        "",
        "Any other event is refused by the reader (`an event that is not mapped`, MSH-9); its bytes are kept.",
        "",
    ]
    rows += ["## Segments", ""]
    for name, table in load("segments").items():
        rows += [f"### {name}", "", "| field | as | element | when | follows |", "|---|---|---|---|---|"]
        rows += [_row(name, row, table["ig"]) for row in table["rules"]]
        rows.append("")
    rows += ["## Datatypes", ""]
    for name, table in load("datatypes").items():
        rows += [f"### {name}", "", "| component | as | element | when | follows |", "|---|---|---|---|---|"]
        rows += [_row(name, row, table["ig"]) for row in table["rules"]]
        rows.append("")
    rows += ["## Vocabularies", ""]
    for name, table in load("vocabulary").items():
        rows += [f"### {name}", "", _follows(table), ""]
        own = table.get("own", {})
        reasons = own if isinstance(own, dict) else {}
        rows += ["| v2 | FHIR | own rule |", "|---|---|---|"]
        rows += [f"| `{code}` | `{code}` | |" for code in table.get("same", ())]
        rows += [f"| `{code}` | `{target}` | {reasons.get(code, '')} |" for code, target in table["map"].items()]
        rows.append("")
    return "\n".join([*rows, *_samples(peer_data)]) + "\n"


def _follows(table: dict[str, Any]) -> str:
    own = table.get("own")
    words = f"IG {table['ig']}." if "ig" in table else f"Own: {own}."
    return f"{words} Code system `{table['system']}`." if "system" in table else words


def _row(name: str, row: dict[str, Any], ig: str) -> str:
    segment = name.partition("[")[0]
    at = f"{segment}-{row['at']}" if "at" in row and row["at"] != "0" else ""
    what = row.get("as") or f"`{row['value']}`"
    if "vocabulary" in row:
        what += f" by {row['vocabulary']}"
    element = row["to"] + (f".{row['put']}" if "put" in row else "")
    when = ", ".join(row.get("when", ()))
    if "unless" in row:
        when = f"{when} unless {row['unless']} is there".strip()
    follows = f"own: {row['own']}" if "own" in row else f"IG {ig}"
    return f"| {at} | {what} | `{element}` | {when} | {follows} |"


def tallies(peer_data: Path) -> dict[str, Counter[str]]:
    """What became of the samples, by trigger event: resources by type, or the reason of a refusal."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for _, body in samples(peer_data):
        try:
            kind, trigger = hl7v2.parse(body).trigger
            tally = found[f"{kind}^{trigger}"]
        except BadInput:
            tally = found["(no message)"]
        tally["messages"] += 1
        try:
            statements = hl7v2.read(part(body), FEED)
        except BadInput as error:
            tally[f"refused: {error}"] += 1
            continue
        for each in statements:
            tally[each.resource_type if each.body is not None else f"{each.verb.value} {each.resource_type}"] += 1
    return found


def _samples(peer_data: Path) -> list[str]:
    found = tallies(peer_data)
    rows = ["## What the samples give", ""]
    rows += ["| event | messages | statements |", "|---|---:|---|"]
    for event, tally in sorted(found.items()):
        said = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()) if name != "messages")
        rows.append(f"| {event} | {tally['messages']} | {said or 'none'} |")
    total = sum(tally["messages"] for tally in found.values())
    refused = sum(count for tally in found.values() for name, count in tally.items() if name.startswith("refused"))
    rows += ["", f"{total} messages: {total - refused} read, {refused} refused with the reason above."]
    return rows


if __name__ == "__main__":
    from tests.peers import require

    PAGE.write_text(page(require("data")), encoding="utf-8")
